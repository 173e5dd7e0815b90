"""The contract of the table, for every implementation."""

import gc
import inspect
import itertools
import math
import sys
import threading
import weakref
from collections.abc import Callable
from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest

from cachekit.engine.miss import MISS
from cachekit.errors import ConfigError
from cachekit.l1.values import Admission, admit
from cachekit.l1.views import NEVER

Make = Callable[..., Any]


class One(IntEnum):
    ONE = 1


class Text(str):
    pass


class Same:
    """Equal to everything, with one hash."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("a")


# ---------------------------------------------------------------------------------------------------------- equality

ALIKE = [1, True, 1.0, Decimal(1), One.ONE, 1 + 0j, (1,), (True,), (1.0,), frozenset({1}), frozenset({True})]


@pytest.mark.parametrize("around", [lambda v: (v,), lambda v: (v, "x"), lambda v: ("x", (v, None))])
def test_arguments_that_are_equal_but_of_other_types_have_entries_of_their_own(rig: Make, around: Any) -> None:
    for order in itertools.islice(itertools.permutations(range(len(ALIKE))), 0, None, 3_991_677):
        r = rig()
        for number in order:
            assert r.put(*around(ALIKE[number]), value=number)
        assert len(r.table) == len(ALIKE)
        assert [r.get(*around(alike)) for alike in ALIKE] == list(range(len(ALIKE)))
        for number in order[::2]:
            assert r.table.drop(r.slot, around(ALIKE[number]))
        for position, number in enumerate(order):
            assert r.get(*around(ALIKE[number])) == (number if position % 2 else MISS)


def test_zeros_of_either_sign_differ_and_arrays_of_other_lengths_too(rig: Make) -> None:
    r = rig()
    r.put(0.0, value="plus")
    r.put(-0.0, value="minus")
    r.put((1, 2), value="pair")
    r.put(1, 2, value="two")
    r.put(value="none")
    r.put((), value="empty")
    r.put("", value="text")
    r.put(b"", value="bytes")
    assert [r.get(0.0), r.get(-0.0), r.get((1, 2)), r.get(1, 2)] == ["plus", "minus", "pair", "two"]
    assert [r.get(), r.get(()), r.get(""), r.get(b""), r.get(0), r.get(math.nan)] == [
        "none", "empty", "text", "bytes", MISS, MISS,
    ]  # fmt: skip


def test_a_liberal_eq_gives_nobody_anothers_value(rig: Make) -> None:
    r = rig()
    r.put("a", value="text")
    assert r.get(Same()) is MISS
    assert r.get(Text("a")) is MISS
    r.put(Same(), value="same")
    assert r.get("a") == "text"


def test_slots_share_nothing(rig: Make) -> None:
    r = rig()
    g = r.table.slot("g")
    assert r.table.slot("f") == r.slot != g
    r.put(1, value="f")
    r.put(1, value="g", slot=g)
    r.put(1, value="region", slot=0)
    assert [r.get(1), r.get(1, slot=g), r.get(1, slot=0)] == ["f", "g", "region"]
    assert r.table.drop_slot(g) == 1
    assert [r.get(1), r.get(1, slot=g), r.get(1, slot=0)] == ["f", MISS, "region"]


def test_none_is_a_value(rig: Make) -> None:
    r = rig()
    r.put(1, value=None, negative=True)
    assert r.get(1) is None
    assert r.table.entry(r.slot, (1,)).negative


# --------------------------------------------------------------------------------------------------------------- time


def test_an_entry_is_fresh_then_stale_then_gone(rig: Make) -> None:
    r = rig()
    now = r.clock()
    r.put(1, fresh_until=now + 10, keep_until=now + 30)
    r.clock.now = now + 9
    assert r.get(1) == "v"
    assert r.table.entry(r.slot, (1,)).fresh
    r.clock.now = now + 10
    assert r.get(1) is MISS
    view = r.table.entry(r.slot, (1,))
    assert not view.fresh
    assert (view.value, view.fresh_until, view.keep_until) == ("v", now + 10, now + 30)
    r.clock.now = now + 30
    assert r.table.entry(r.slot, (1,)) is None


def test_the_view_of_an_entry_tells_all_of_it_and_counts_nothing(rig: Make) -> None:
    r = rig()
    r.versions.bump_key(1)
    r.put(1, value=[1], khash=77, tags=["a"], load_ms=5, ttl=2_500_000_000)
    view = r.table.entry(r.slot, (1,))
    assert (view.value, view.khash, view.tags, view.load_ms, view.mode) == ([1], 77, ("a",), 5, "copy")
    assert (view.born, view.negative, view.fresh_for) == (r.versions.ticket(), False, 2.5)
    view.value.append(2)
    assert r.table.entry(r.slot, (1,)).value == [1]
    assert r.table.entry(r.slot, (2,)) is None
    assert r.table.stats()[:2] == (0, 0)
    r.put(2)
    assert r.table.entry(r.slot, (2,)).fresh_for is None


def test_without_proof_of_life_nothing_hits_and_everything_is_stale(rig: Make) -> None:
    r = rig()
    r.put(1)
    now = r.clock()
    r.table.alive(now + 10)
    assert r.get(1) == "v"
    r.clock.now = now + 10
    assert r.get(1) is MISS
    view = r.table.entry(r.slot, (1,))
    assert (view.value, view.fresh, view.fresh_until) == ("v", False, now + 10)
    r.table.alive(now + 20)
    assert r.get(1) == "v"


def test_expired_entries_leave_with_insertions_and_with_sweeps(rig: Make) -> None:
    r = rig()
    for number in range(40):
        r.put(number, ttl=10)
    r.clock.now += 10
    for number in range(100, 115):
        r.put(number)
    assert len(r.table) == 15  # each looked at a few others
    for number in range(40):
        r.put(number, ttl=10)
    r.clock.now += 10
    assert r.table.sweep(0) == 0
    assert r.table.sweep(5) <= 5
    r.table.sweep(1000)
    assert len(r.table) == 15
    assert r.table.sweep(1000) == 0
    assert r.table.stats().evictions == {"capacity": 0, "expired": 80, "invalidated": 0}


def test_the_hand_reaches_every_entry_wherever_entries_come_and_go(rig: Make) -> None:
    r = rig(max_entries=50)
    for number in range(500):
        r.put(number, ttl=10 if number % 3 else NEVER)
        r.get(number)
        r.get(number)
        if number % 5 == 0:
            r.table.drop(r.slot, (number,))
        if number % 7 == 0:
            r.table.sweep(3)
    r.clock.now += 10
    r.table.sweep(50)
    assert all(r.table.entry(r.slot, (number,)) is None for number in range(500) if number % 3)
    assert len(r.table) == sum(r.get(number) is not MISS for number in range(500)) > 0


def test_the_default_clock_is_the_kernels(twin: Any, rig: Make) -> None:
    r = rig(clock=None)
    r.put(1, fresh_until=1, keep_until=1)
    assert r.get(1) is MISS
    r.put(1)
    assert r.get(1) == "v"


# ------------------------------------------------------------------------------------------------------ invalidation


def test_a_value_from_before_an_invalidation_is_refused_and_what_was_there_stays(rig: Make) -> None:
    r = rig()
    for bump in (
        lambda: r.versions.bump_key(9),
        lambda: r.versions.bump_tags(["t"]),
        lambda: r.versions.bump_slot(r.slot),
        lambda: r.versions.bump_region("r"),
        r.versions.bump_all,
    ):
        ticket = r.versions.ticket()
        bump()
        assert r.put(1, value="new", khash=9, tags=["x"])
        assert not r.put(1, value="old", khash=9, tags=["t"], ticket=ticket)
        assert r.get(1) == "new"
    assert r.table.stats().refused == 5


def test_a_cleared_tag_hides_its_entries_at_once_and_only_those(rig: Make) -> None:
    r = rig()
    r.put(1, tags=["a", "b"])
    r.put(2, tags=["b"])
    r.put(3)
    r.versions.bump_tags(["a"])
    assert [r.get(1), r.get(2), r.get(3)] == [MISS, "v", "v"]
    assert r.table.entry(r.slot, (1,)) is None
    assert r.put(1, value="new", tags=["a"])
    assert r.get(1) == "new"
    r.versions.bump_tags(["a"])
    assert r.table.sweep(100) == 1
    assert r.table.stats().evictions["invalidated"] == 1


def test_drops_remove_what_they_name_and_say_how_many(rig: Make) -> None:
    r = rig()
    g = r.table.slot("g")
    for number in range(10):
        r.put(number, khash=number % 4)
        r.put(number, khash=number % 4, slot=g)
    assert r.table.drop(r.slot, (1,))
    assert not r.table.drop(r.slot, (1,))
    assert not r.table.drop(r.slot, (99,))
    assert r.table.drop_key(1) == 5
    assert r.table.drop_key(1) == 0
    assert r.table.drop_key(99) == 0
    assert r.table.drop_slot(g) == 7
    assert [r.get(number, slot=g) for number in range(10)] == [MISS] * 10
    assert r.table.clear() == 7
    assert len(r.table) == r.table.weight == r.table.stats().entries == 0
    assert r.table.stats().evictions["invalidated"] == 20
    assert r.put(1)
    assert r.get(1) == "v"


def test_dropped_values_are_released(rig: Make) -> None:
    class Value:
        pass

    r = rig(max_entries=10)
    alive: list[weakref.ref[Any]] = []
    gc.disable()  # by reference counts, not some day
    try:
        for number in range(30):
            value = Value()
            alive.append(weakref.ref(value))
            r.put(number, value=value)
        del value
        assert sum(ref() is not None for ref in alive) == 10
        r.table.drop(r.slot, (29,))
        r.put(28, value="other")
        assert sum(ref() is not None for ref in alive) == 8
        r.table.clear()
        assert sum(ref() is not None for ref in alive) == 0
    finally:
        gc.enable()


# ---------------------------------------------------------------------------------------------------------- isolation


def test_no_caller_can_change_what_others_get(rig: Make) -> None:
    r = rig()
    value = {"rows": [[1]], "who": Admission("x", 1, True)}
    r.put(1, value=value)
    value["rows"][0].append("by the one who put it")  # type: ignore[index,union-attr]
    for _ in range(3):
        hit = r.get(1)
        assert hit["rows"] == [[1]]
        hit["rows"][0].append("by one who got it")
        hit["more"] = 1
    r.table.entry(r.slot, (1,)).value["rows"].clear()
    assert r.get(1)["rows"] == [[1]]


def test_isolation_share_never_copies_and_immutable_values_never_need_it(rig: Make) -> None:
    r = rig(isolation="share")
    value = [1]
    r.put(1, value=value)
    assert r.get(1) is value
    r = rig()
    pair = (1, ("a",))
    r.put(1, value=pair)
    assert r.get(1) is pair
    thing = object()
    r.put(2, value=thing)
    assert r.get(2) is thing
    assert r.table.entry(r.slot, (2,)).mode == "opaque"


def test_shapes_survive_repeated_hits(rig: Make) -> None:
    r = rig()
    row: list[Any] = [1]
    r.put(1, value=[row, row])
    for _ in range(2):
        first, second = r.get(1)
        assert first is second is not row
        first.append(2)
    assert r.get(1) == [[1], [1]]


def test_a_copy_that_fails_is_a_miss(rig: Make, twin: Any) -> None:
    """In native code it does not fail for a stack of Python's that is deep already."""
    r = rig()
    value: list[Any] = []
    for _ in range(100):
        value = [value]
    r.put(1, value=value)

    def deep(left: int) -> Any:
        return deep(left - 1) if left else r.get(1)

    limit = sys.getrecursionlimit()
    depth = len(inspect.stack())
    try:
        sys.setrecursionlimit(depth + 150)
        assert deep(70) == (MISS if twin.TWIN == "pure" else value)
    finally:
        sys.setrecursionlimit(limit)
    assert r.get(1) == value


# ------------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
def test_both_bounds_hold_after_every_put(rig: Make, policy: str) -> None:
    r = rig(policy=policy, max_entries=10, max_bytes=1000)
    for number in range(300):
        weight = number * 37 % 400
        assert r.put(number % 40, admission=Admission("share", weight, True))
        assert r.get(number % 40) == "v"
        assert len(r.table) <= 10
        assert r.table.weight <= 1000
        stats = r.table.stats()
        assert (stats.entries, stats.weight) == (len(r.table), r.table.weight)
        if number % 11 == 0:
            r.table.drop(r.slot, (number % 13,))
    stats = r.table.stats()
    assert stats.puts == 300
    assert stats.evictions["capacity"] > 0


def test_what_is_heavier_than_the_table_is_refused_and_replaces_nothing_by_its_past(rig: Make) -> None:
    r = rig(max_bytes=100)
    r.put(1, admission=Admission("share", 10, True))
    r.put(2, admission=Admission("share", 10, True))
    assert not r.put(1, value="heavy", admission=Admission("share", 101, True))
    assert r.get(1) is MISS
    assert r.get(2) == "v"
    assert r.put(1, value="just", admission=Admission("share", 100, True))
    assert (r.get(1), r.get(2)) == ("just", MISS)


def test_lru_gives_up_what_was_not_used_for_longest(rig: Make) -> None:
    r = rig(policy="lru", max_entries=3)
    for number in (1, 2, 3):
        r.put(number)
    r.get(1)
    r.put(2, value="again")
    r.put(4)
    assert [r.get(number) for number in (1, 2, 3, 4)] == ["v", "again", MISS, "v"]


def test_a_scan_does_not_wash_out_what_is_wanted(rig: Make) -> None:
    r = rig(max_entries=100)
    for number in range(50):
        r.put(number)
        r.get(number)
        r.get(number)
    for number in range(1000, 2000):
        r.put(number)
    assert sum(r.get(number) is not MISS for number in range(50)) == 50


def test_a_wanted_key_stays_wanted_when_its_value_is_replaced(rig: Make) -> None:
    r = rig(max_entries=20)
    r.put("wanted")
    r.get("wanted")
    r.get("wanted")
    for number in range(100):
        r.put(number)
    r.put("wanted", value="refilled")
    for number in range(100, 150):
        r.put(number)
    assert r.get("wanted") == "refilled"


def test_stats_count_by_slot_and_in_all(rig: Make) -> None:
    r = rig(max_entries=5)
    g = r.table.slot("g")
    r.put(1)
    r.put(1, slot=g)
    for _ in range(3):
        r.get(1)
    r.get(2)
    r.get(1, slot=g)
    r.put(1)  # replaced: neither hits nor puts are forgotten
    assert r.table.stats(r.slot)[:3] == (3, 1, 1)
    assert r.table.stats(g)[:3] == (1, 0, 1)
    total = r.table.stats()
    assert (total.hits, total.misses, total.entries, total.puts, total.refused) == (4, 1, 2, 3, 0)
    assert total.weight == r.table.weight == 2 * admit("v").weight
    for number in range(10, 30):
        r.put(number)
    assert r.table.stats().hits == 4
    assert r.table.stats().evictions["capacity"] == 17


@pytest.mark.parametrize("wrong", [{"policy": "fifo"}, {"isolation": "deep"}, {"max_entries": 0}, {"max_bytes": 0}])
def test_wrong_options_are_refused(rig: Make, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        rig(**wrong)


# ------------------------------------------------------------------------------------------------------ fork and twins


def test_a_forked_child_starts_empty_though_another_thread_held_the_lock(rig: Make) -> None:
    r = rig()
    for number in range(20):
        r.put(number)
        r.get(number)
    holder = threading.Thread(target=r.versions.lock.acquire)
    holder.start()
    holder.join()
    r.versions.reset_lock()  # as Service.after_fork does in the child
    r.table.reset()
    assert r.table.stats() == (0, 0, 0, 0, {"capacity": 0, "expired": 0, "invalidated": 0}, 0, 0)
    assert len(r.table) == r.table.weight == 0
    assert r.get(1) is MISS
    assert r.put(1)
    assert r.get(1) == "v"
