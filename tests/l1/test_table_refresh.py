"""Entries that are refreshed before their end, left to the table, or marked as stale: for every implementation."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest
from l1_rig import Rig

from cachekit.engine.miss import MISS
from cachekit.l1 import pure
from cachekit.l1.values import Admission
from cachekit.l1.views import NEVER

Make = Callable[..., Any]


class Called:
    """A memo over a table; what it does not answer is noted."""

    def __init__(self, twin: Any, r: Any, func: Any) -> None:
        self.slow: list[Any] = []
        is_async = inspect.iscoroutinefunction(func)
        on_slow = self.on_slow_async if is_async else self.on_slow
        self.memo = twin.compile_memo(func, inspect.signature(func), on_slow, is_async=is_async)
        self.memo.bind_table(r.table, r.slot)
        self.call = self.memo.call

    def on_slow(self, args: Any, kwargs: Any) -> Any:
        self.slow.append((args, kwargs))
        return MISS

    async def on_slow_async(self, args: Any, kwargs: Any) -> Any:
        self.slow.append((args, kwargs))
        return MISS


def one(x: Any) -> Any:
    raise AssertionError


def two(x: Any, *, y: Any = 2) -> Any:
    raise AssertionError


async def later(x: Any) -> Any:
    raise AssertionError


def early(r: Any, *args: Any, fresh: int = 10, keep: int = 30, **options: Any) -> None:
    """An early entry, to be refreshed after `fresh`."""
    now = r.clock()
    assert r.put(*args, fresh_until=now + fresh, keep_until=now + keep, early=True, **options)


def view(r: Any, *args: Any) -> Any:
    return r.table.entry(r.slot, args)


# -------------------------------------------------------------------------------------------------------------- early


def test_an_early_entry_hits_until_it_is_to_be_refreshed(twin: Any, rig: Make) -> None:
    r = rig()
    now = r.clock()
    called = Called(twin, r, one)
    early(r, 1)
    r.clock.now = now + 9
    assert (r.get(1), called.call(1), view(r, 1).fresh, view(r, 1).early) == ("v", "v", True, True)
    r.clock.now = now + 10
    assert (r.get(1), called.call(1), view(r, 1).fresh, view(r, 1).early) == (MISS, MISS, False, True)
    assert r.table.stats()[:2] == (2, 1)
    r.clock.now = now + 30
    assert view(r, 1) is None


def test_the_view_tells_what_is_early_and_what_is_detached(rig: Make) -> None:
    r = rig()
    for number in range(4):
        r.put(number, early=number % 2 == 1, detached=number > 1)
    assert [view(r, number)[-2:] for number in range(4)] == [
        (False, False), (True, False), (False, True), (True, True),
    ]  # fmt: skip
    assert view(r, 0)._fields[-2:] == ("early", "detached")


# ---------------------------------------------------------------------------------------------------------- refreshed


@pytest.mark.parametrize("ahead", [0, 9, 10, 29])
def test_one_caller_alone_refreshes_an_early_entry(rig: Make, ahead: int) -> None:
    r = rig()
    early(r, 1)
    r.clock.now += ahead
    answers = [r.table.refreshed(r.slot, (1,), r.clock() + 5) for _ in range(3)]
    assert answers == [True, False, False]


def test_one_thread_alone_refreshes_an_early_entry(rig: Make) -> None:
    r = rig(max_entries=500)
    answers: list[tuple[int, bool]] = []
    barrier = threading.Barrier(4)
    for number in range(200):
        early(r, number, khash=number)

    def run() -> None:
        barrier.wait()
        for number in range(200):
            answers.append((number, r.table.refreshed(r.slot, (number,), NEVER)))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 800
    assert sorted(number for number, answer in answers if answer) == list(range(200))


def test_memos_answer_again_once_an_entry_is_refreshed_and_not_before(twin: Any, rig: Make) -> None:
    r = rig()
    now = r.clock()
    called = Called(twin, r, one)
    early(r, 1)
    r.clock.now = now + 10
    assert (called.call(1), len(called.slow)) == (MISS, 1)
    assert r.table.refreshed(r.slot, (1,), now + 20)
    assert (called.call(1), r.get(1), view(r, 1).fresh, view(r, 1).early) == ("v", "v", True, False)
    r.clock.now = now + 19
    assert called.call(1) == "v"
    r.clock.now = now + 20
    assert (called.call(1), r.get(1)) == (MISS, MISS)
    assert (view(r, 1).fresh_until, view(r, 1).keep_until) == (now + 20, now + 30)
    assert r.table.stats()[:2] == (3, 1)


def test_nothing_is_fresh_for_longer_than_it_is_kept(twin: Any, rig: Make) -> None:
    r = rig()
    now = r.clock()
    called = Called(twin, r, one)
    early(r, 1)
    assert r.table.refreshed(r.slot, (1,), now + 31)
    assert (view(r, 1).fresh_until, view(r, 1).keep_until) == (now + 30, now + 30)
    r.clock.now = now + 29
    assert called.call(1) == "v"
    r.clock.now = now + 30
    assert (called.call(1), r.get(1), view(r, 1)) == (MISS, MISS, None)


def test_an_entry_may_be_fresh_for_less_time_than_it_was(twin: Any, rig: Make) -> None:
    r = rig()
    now = r.clock()
    called = Called(twin, r, one)
    assert r.put(1, fresh_until=now + 10, keep_until=now + 10, early=True)
    assert r.table.refreshed(r.slot, (1,), now + 5)
    assert (view(r, 1).fresh_until, view(r, 1).keep_until) == (now + 5, now + 10)
    early(r, 2)
    assert r.table.refreshed(r.slot, (2,), now - 1)
    assert (r.get(2), view(r, 2).fresh_until, view(r, 2).keep_until) == (MISS, now - 1, now + 30)
    assert (called.call(1), called.call(2)) == ("v", MISS)
    r.clock.now = now + 5
    assert (called.call(1), r.get(1), view(r, 1).fresh) == (MISS, MISS, False)


@pytest.mark.parametrize(
    "why", ["kept no longer", "tag", "dropped", "dropped by hash", "no entry", "not early", "type"]
)
def test_what_nobody_should_refresh_is_not_refreshed(twin: Any, rig: Make, why: str) -> None:
    r = rig()
    called = Called(twin, r, one)
    early(r, 1, tags=["t"] if why == "tag" else [], khash=5)
    r.clock.now += 30 if why == "kept no longer" else 10
    if why == "tag":
        r.versions.bump_tags(["t"])
    elif why == "dropped":
        r.table.drop(r.slot, (1,))
    elif why == "dropped by hash":
        r.table.drop_key(5)
    elif why == "not early":
        r.put(1, fresh_until=r.clock(), keep_until=r.clock() + 30)
    array = {"no entry": (2,), "type": (True,)}.get(why, (1,))
    before = view(r, 1)
    assert r.table.refreshed(r.slot, array, NEVER) is False
    assert (view(r, 1), called.call(1), r.get(1)) == (before, MISS, MISS)
    if why == "no entry":
        assert before.early


def test_a_tag_from_before_the_ticket_does_not_matter(rig: Make) -> None:
    r = rig()
    r.versions.bump_tags(["t"])
    early(r, 1, tags=["t"])
    r.clock.now += 10
    assert r.table.refreshed(r.slot, (1,), NEVER)
    assert r.get(1) == "v"


def test_the_newest_entry_of_a_key_is_early_by_itself(rig: Make) -> None:
    r = rig()
    early(r, 1)
    assert r.table.refreshed(r.slot, (1,), NEVER)
    early(r, 1)
    assert r.table.refreshed(r.slot, (1,), NEVER)
    r.put(1)
    assert not r.table.refreshed(r.slot, (1,), NEVER)


def test_refreshing_one_slots_entry_leaves_that_of_another(rig: Make) -> None:
    r = rig()
    other = r.table.slot("g")
    early(r, 1)
    early(r, 1, slot=other)
    assert r.table.refreshed(other, (1,), NEVER)
    assert (view(r, 1).early, r.table.entry(other, (1,)).early) == (True, False)
    with pytest.raises(KeyError):
        r.table.refreshed(999, (1,), NEVER)


@pytest.mark.parametrize("kind", ["copy", "tagged", "negative", "detached", "lru"])
def test_special_entries_are_refreshed_too(twin: Any, rig: Make, kind: str) -> None:
    r = rig(policy="lru" if kind == "lru" else "s3fifo")
    called = Called(twin, r, one)
    value = [1] if kind == "copy" else None if kind == "negative" else "v"
    options = {"tagged": {"tags": ["t"]}, "negative": {"negative": True}, "detached": {"detached": True}}.get(kind, {})
    early(r, 1, value=value, **options)
    if kind == "detached":
        r.table.alive(r.clock())
    r.clock.now += 10
    assert r.table.refreshed(r.slot, (1,), r.clock() + 5)
    assert (called.call(1), r.get(1), called.slow) == (value, value, [])
    if kind == "copy":
        assert called.call(1) is not called.call(1)
    if kind == "tagged":
        r.versions.bump_tags(["t"])
        assert called.call(1) is MISS
    r.clock.now += 5
    assert called.call(1) is MISS


# ----------------------------------------------------------------------------------------------------- marked as stale


@pytest.mark.parametrize("keep", [0, 20])
@pytest.mark.parametrize("is_early", [False, True])
def test_what_is_marked_as_stale_is_kept_as_long_as_before(twin: Any, rig: Make, keep: int, is_early: bool) -> None:
    r = rig()
    now = r.clock()
    called = Called(twin, r, one)
    end = now + 10 + keep
    r.put(1, khash=5, fresh_until=now + 10, keep_until=end, early=is_early, load_ms=7, value=[1])
    r.clock.now = now + 3
    assert r.table.mark_stale(5) == 1
    assert (called.call(1), r.get(1)) == (MISS, MISS)
    seen = view(r, 1)
    assert (seen.value, seen.fresh, seen.fresh_until, seen.keep_until) == ([1], False, now + 3, end)
    assert (seen.early, seen.load_ms, seen.khash) == (False, 7, 5)
    assert not r.table.refreshed(r.slot, (1,), NEVER)
    r.clock.now = end - 1
    assert r.table.sweep(10) == 0
    assert (called.call(1), r.get(1), view(r, 1).fresh) == (MISS, MISS, False)
    r.clock.now = end
    assert (called.call(1), view(r, 1)) == (MISS, None)
    assert r.table.sweep(10) == 1
    assert r.table.stats()[:2] == (0, 2)


def test_a_simple_entry_that_is_kept_for_ever_can_be_marked_as_stale(twin: Any, rig: Make) -> None:
    r = rig()
    called = Called(twin, r, one)
    r.put(1, khash=5)
    assert called.call(1) == "v"
    assert r.table.mark_stale(5) == 1
    assert (called.call(1), r.get(1), view(r, 1).fresh, view(r, 1).keep_until) == (MISS, MISS, False, NEVER)
    r.put(1, khash=5)
    assert (called.call(1), r.get(1)) == ("v", "v")


def test_what_was_stale_before_it_was_marked_stays_stale_since_then(rig: Make) -> None:
    r = rig()
    now = r.clock()
    early(r, 1, khash=5)
    r.put(2, khash=5, ttl=10)
    r.clock.now = now + 15
    assert r.table.mark_stale(5) == 2
    assert (view(r, 1).fresh_until, view(r, 1).keep_until, view(r, 1).early) == (now + 10, now + 30, False)
    assert view(r, 2) is None
    assert r.table.mark_stale(5) == 2


def test_every_entry_of_a_hash_is_marked_and_no_other(twin: Any, rig: Make) -> None:
    r = rig()
    called = Called(twin, r, one)
    other = r.table.slot("g")
    for number in range(6):
        r.put(number, khash=number % 2)
    r.put(7, khash=0, slot=other)
    r.put(8, khash=0, tags=["t"])
    r.versions.bump_tags(["t"])
    assert r.table.mark_stale(0) == 5
    assert r.table.mark_stale(99) == 0
    assert [called.call(number) for number in range(6)] == [MISS, "v"] * 3
    assert [r.get(number) for number in range(6)] == [MISS, "v"] * 3
    assert (r.get(7, slot=other), r.table.entry(other, (7,)).fresh) == (MISS, False)
    assert view(r, 8) is None
    assert r.table.drop_key(0) == 5
    assert r.table.mark_stale(0) == 0
    assert r.table.stats()[:3] == (6, 4, 3)


def test_what_is_marked_as_stale_keeps_its_weight_and_its_place(rig: Make) -> None:
    r = rig(max_entries=3)
    for number in range(3):
        r.put(number, khash=number, admission=Admission("opaque", 5, False))
    assert r.table.mark_stale(1) == 1
    assert (len(r.table), r.table.weight) == (3, 15)
    for number in range(3, 6):
        r.put(number, khash=number, admission=Admission("opaque", 5, False))
    assert (len(r.table), r.table.weight) == (3, 15)
    assert r.table.clear() == 3
    assert r.table.weight == 0


def test_an_entry_is_marked_as_stale_again_after_it_was_refreshed(twin: Any, rig: Make) -> None:
    r = rig()
    now = r.clock()
    called = Called(twin, r, one)
    early(r, 1, khash=5)
    assert r.table.refreshed(r.slot, (1,), now + 20)
    assert called.call(1) == "v"
    assert r.table.mark_stale(5) == 1
    assert (called.call(1), view(r, 1).fresh_until, view(r, 1).keep_until) == (MISS, now, now + 30)


def test_an_entry_may_be_marked_as_stale_while_it_is_put(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what runs on the same thread, such as a signal handler; in native code nothing does."""
    r = Rig(pure)
    called = Called(pure, r, one)
    allowed = r.table._allowed

    def marking(entry: Any) -> Any:
        r.table.mark_stale(5)
        return allowed(entry)

    monkeypatch.setattr(r.table, "_allowed", marking)
    r.put(1, khash=5)
    assert (called.call(1), r.get(1), view(r, 1).fresh) == (MISS, MISS, False)


def test_by_the_kernels_clock_nothing_answers_once_it_is_marked(twin: Any, rig: Make) -> None:
    r = rig(clock=None)
    called = Called(twin, r, one)
    r.put(1, khash=5)
    assert called.call(1) == "v"
    r.table.mark_stale(5)
    assert (called.call(1), r.get(1), view(r, 1).fresh) == (MISS, MISS, False)
    r.put(2, early=True, fresh_until=1, keep_until=NEVER)
    assert called.call(2) is MISS
    assert r.table.refreshed(r.slot, (2,), NEVER)
    assert called.call(2) == "v"


# --------------------------------------------------------------------------------------------------------------- aside


@pytest.mark.parametrize("kind", ["share", "copy", "tagged", "negative", "lru", "kernel's clock"])
def test_memos_leave_to_the_table_what_is_aside(twin: Any, rig: Make, kind: str) -> None:
    options: dict[str, Any] = {"lru": {"policy": "lru"}, "kernel's clock": {"clock": None}}.get(kind, {})
    r = rig(**options)
    called = Called(twin, r, two)
    value = [1] if kind == "copy" else None if kind == "negative" else "v"
    r.put(1, 2, value=value, tags=["t"] if kind == "tagged" else [], negative=kind == "negative", aside=True)
    for args, kwargs in [((1,), {}), ((), {"x": 1}), ((1,), {"y": 2}), ((), {"y": 2, "x": 1})]:
        assert called.call(*args, **kwargs) is MISS
    assert called.slow == [((1,), {"y": 2})] * 4
    assert r.table.stats()[:2] == (0, 0)
    assert (r.get(1, 2), r.get(1, 2)) == (value, value)
    assert r.table.stats()[:2] == (2, 0)
    assert view(r, 1, 2).fresh
    r.put(1, 2, value=value)
    assert called.call(1) == value
    assert r.table.stats()[:2] == (3, 0)


def test_async_memos_leave_to_the_table_what_is_aside(twin: Any, rig: Make) -> None:
    r = rig()
    called = Called(twin, r, later)
    r.put(1, aside=True)
    r.put(2)

    async def main() -> list[Any]:
        return [await called.call(1), await called.call(x=1), await called.call(2)]

    assert asyncio.run(main()) == [MISS, MISS, "v"]
    assert called.slow == [((1,), {})] * 2
    assert r.table.stats()[:2] == (1, 0)


def test_what_is_aside_may_be_found_by_objects_and_by_nothing(twin: Any, rig: Make) -> None:
    r = rig()
    key = (1, ("x", 2.5), frozenset({3}))
    called, bare = Called(twin, r, one), Called(twin, r, lambda: None)
    r.put(key, aside=True)
    r.put(aside=True)
    assert (called.call(key), bare.call(), r.table.stats()[:2]) == (MISS, MISS, (0, 0))
    assert (r.get(key), r.get()) == ("v", "v")


def test_what_is_aside_stays_so_when_it_is_refreshed_or_marked(twin: Any, rig: Make) -> None:
    r = rig()
    called = Called(twin, r, one)
    early(r, 1, aside=True, khash=5)
    r.clock.now += 10
    assert r.get(1) is MISS
    assert r.table.refreshed(r.slot, (1,), NEVER)
    assert (called.call(1), r.get(1)) == (MISS, "v")
    assert r.table.mark_stale(5) == 1
    assert (called.call(1), r.get(1)) == (MISS, MISS)
    assert r.table.stats()[:2] == (1, 2)


def test_an_outdated_entry_that_is_aside_is_no_hit(rig: Make) -> None:
    r = rig()
    r.put(1, tags=["t"], aside=True)
    assert r.get(1) == "v"
    r.versions.bump_tags(["t"])
    assert r.get(1) is MISS
    r.put(2, aside=True)
    r.table.alive(r.clock())
    assert r.get(2) is MISS
    assert r.table.stats()[:2] == (1, 2)
