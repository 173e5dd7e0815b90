"""Threads, destructors, signal handlers and comparisons that come back into the table leave it whole and coherent."""

import gc
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit.engine.miss import MISS
from cachekit.l1.values import Admission

Make = Callable[..., Any]
LIGHT = Admission("share", 1, True)


def whole(r: Any) -> None:
    """What the table says of itself is consistent, and it still works."""
    stats = r.table.stats()
    assert stats.entries == len(r.table)
    assert stats.weight == r.table.weight
    rings = [ring for ring in (getattr(r.table, "_small", None), getattr(r.table, "_main", None)) if ring is not None]
    linked = []
    for ring in rings:
        entry = ring.head.next
        while entry is not ring.head:
            assert entry.next.prev is entry
            linked.append(entry)
            entry = entry.next
    if rings:
        assert len(linked) == len(set(map(id, linked))) == len(r.table)
        known = [e for e in r.table._by_khash.values() if not isinstance(e, set)]
        known += [e for group in r.table._by_khash.values() if isinstance(group, set) for e in group]
        assert {id(entry) for entry in known} == {id(entry) for entry in linked}
    assert r.put("still works", value="yes", admission=LIGHT)
    assert r.get("still works") == "yes"


# ------------------------------------------------------------------------------------------ invalidations during loads


def seen_after_an_invalidation_during_a_load(r: Any, *, careful: bool) -> Any:
    """A load reads its source, the source changes and is invalidated, the load puts what it read."""
    source = "old"
    ticket = r.versions.ticket()
    value = source
    source = "new"
    with r.versions.lock:
        r.versions.bump_key(5)
        r.table.drop_key(5)
    r.put(1, value=value, khash=5, ticket=ticket if careful else r.versions.ticket())
    found = r.get(1)
    return source if found is MISS else found


def test_an_invalidation_during_a_load_wins(rig: Make) -> None:
    assert seen_after_an_invalidation_during_a_load(rig(), careful=True) == "new"


def test_without_the_question_for_the_ticket_the_old_value_would_be_served(rig: Make) -> None:
    """The control of the test above."""
    assert seen_after_an_invalidation_during_a_load(rig(), careful=False) == "old"


@pytest.fixture
def fine_grained() -> Iterator[None]:
    """Threads change places as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("fine_grained")
@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
def test_threads_read_load_and_invalidate_and_nobody_sees_the_past(rig: Make, policy: str) -> None:
    """Each key has a source that counts up; who asks after an invalidation returned gets at least its number."""
    r = rig(max_entries=20, policy=policy)
    keys = range(40)
    source = dict.fromkeys(keys, 0)
    published = dict.fromkeys(keys, 0)  # what invalidations that have returned stand for
    wrong: list[str] = []
    calls = [0] * 4
    end = time.monotonic() + 1.0

    def run(number: int) -> None:
        rng = random.Random(number)
        while time.monotonic() < end and not wrong:
            key = rng.choice(keys)
            tag = f"t{key}"
            tagged = key % 3 == 0
            if rng.random() < 0.2:
                with r.versions.lock:  # the source of truth is a database: its writes are in order
                    source[key] += 1
                    now = source[key]
                if tagged:
                    r.versions.bump_tags([tag])
                else:
                    with r.versions.lock:
                        r.versions.bump_key(key)
                        r.table.drop_key(key)
                published[key] = max(published[key], now)
                continue
            least = published[key]
            value = r.get(key)
            calls[number] += 1
            if value is MISS:
                ticket = r.versions.ticket()
                value = (key, [source[key]]) if key % 2 else (key, (source[key],))
                r.put(
                    key, value=value, khash=key, ticket=ticket, tags=[tag] if tagged else [],
                    admission=Admission("copy" if key % 2 else "share", 1, True),
                )  # fmt: skip
            if value[0] != key or value[1][0] < least:
                wrong.append(f"{value} for {key}, at least {least}")
            if len(r.table) > 20:
                wrong.append("too many entries")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    stats = r.table.stats()
    assert (
        abs(stats.hits + stats.misses - sum(calls)) <= sum(calls) * 0.001
    )  # a hit of an entry that leaves may be lost
    assert min(stats.hits, stats.misses, stats.refused, stats.evictions["capacity"]) > 0
    whole(r)


# ---------------------------------------------------------------------------------------------------------- re-entry


class Bomb:
    """Its destructor does something."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __del__(self) -> None:
        self.act()


ACTS: dict[str, Callable[[Any], object]] = {
    "put": lambda r: r.put("from inside", value="x", admission=LIGHT),
    "put again": lambda r: r.put(1, value="x", admission=LIGHT),
    "get": lambda r: r.get(1),
    "drop": lambda r: r.table.drop(r.slot, (2,)),
    "drop_key": lambda r: r.table.drop_key(hash((2,)) & 0xFFFF),
    "drop_slot": lambda r: r.table.drop_slot(r.slot),
    "clear": lambda r: r.table.clear(),
    "sweep": lambda r: r.table.sweep(10),
    "bump": lambda r: r.versions.bump_all(),
    "stats": lambda r: r.table.stats(),
    "entry": lambda r: r.table.entry(r.slot, (2,)),
}
OPERATIONS: dict[str, Callable[[Any], object]] = {
    "replace": lambda r: r.put(1, value="new", admission=LIGHT),
    "drop": lambda r: r.table.drop(r.slot, (1,)),
    "drop_slot": lambda r: r.table.drop_slot(r.slot),
    "clear": lambda r: r.table.clear(),
    "evict": lambda r: [r.put(f"more {number}", admission=LIGHT) for number in range(30)],
    "reset": lambda r: r.table.reset(),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_a_destructor_may_do_anything_to_the_table(rig: Make, act: Any, operation: Any) -> None:
    r = rig(max_entries=5)
    done: list[bool] = []

    def boom() -> None:
        act(r)
        done.append(True)

    for number in range(1, 5):
        r.put(number, value=Bomb(boom), admission=Admission("opaque", 1, False))
    operation(r)
    assert done
    whole(r)


class Meddler:
    """A key whose comparison does something, once."""

    def __init__(self, act: Callable[[], object] | None = None) -> None:
        self.act = act

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        act, self.act = self.act, None
        if act is not None:
            act()
        return self is other


MORE_ACTS = {**ACTS, "put itself": lambda r: r.put(r.key, value="x", admission=LIGHT)}


@pytest.mark.parametrize("act", MORE_ACTS.values(), ids=MORE_ACTS)
@pytest.mark.parametrize("operation", ["put", "get", "drop", "entry", "evict"])
def test_a_comparison_may_do_anything_to_the_table(rig: Make, act: Any, operation: str) -> None:
    r = rig(max_entries=5)
    keys = [Meddler() for _ in range(4)]
    for key in keys:
        r.put(key, admission=LIGHT)
    for key in keys:  # any of them may be compared with the next one that comes
        key.act = lambda: act(r)
    r.key = Meddler()
    if operation == "put":
        r.put(r.key, value="mine", admission=LIGHT)
        assert r.get(r.key) in ("mine", "x", MISS)
    elif operation == "evict":
        for number in range(20):
            r.put(number, admission=LIGHT)
    else:
        {"get": r.table.get, "drop": r.table.drop, "entry": r.table.entry}[operation](r.slot, (r.key,))
    whole(r)


@pytest.mark.parametrize("invalidate", ["key", "tag", "slot"])
def test_an_invalidation_from_inside_an_insertion_wins(rig: Make, invalidate: str) -> None:
    r = rig()

    def act() -> None:
        if invalidate == "key":
            r.versions.bump_key(5)
            r.table.drop_key(5)
        elif invalidate == "tag":
            r.versions.bump_tags(["t"])
        else:
            r.versions.bump_slot(r.slot)
            r.table.drop_slot(r.slot)

    for comparison in range(1, 6):  # in the first comparison of the insertion, the second, ...
        stored, new = Watched(comparison, act), Meddler()
        r.put(stored, value="other", khash=1, admission=LIGHT)
        stored.armed = True
        accepted = r.put(new, value="old", khash=5, tags=["t"], admission=LIGHT)
        stored.armed = False
        assert accepted is (stored.left > 0)
        assert r.get(new) == ("old" if accepted else MISS)
        r.table.clear()
    whole(r)


class Watched(Meddler):
    """A key that does something in a certain comparison."""

    def __init__(self, left: int, act: Callable[[], object]) -> None:
        super().__init__()
        self.left, self.invalidate, self.armed = left, act, False

    def __eq__(self, other: object) -> bool:
        if self.armed:
            self.left -= 1
            if self.left == 0:
                self.invalidate()
        return self is other

    __hash__ = Meddler.__hash__


class Fickle:
    """A key whose hash changes, and may fail."""

    def __init__(self, number: int) -> None:
        self.number: int | None = number

    def __hash__(self) -> int:
        if self.number is None:
            raise ValueError("no hash any more")
        return self.number


@pytest.mark.parametrize("later", [None, 99])
def test_keys_that_cannot_be_found_again_do_not_stay_for_ever(rig: Make, later: int | None) -> None:
    r = rig(max_entries=5)
    keys = [Fickle(number) for number in range(5)]
    for key in keys:
        r.put(key, admission=LIGHT)
    r.put("well", slot=0, admission=LIGHT)
    for key in keys:
        key.number = later
    for number in range(20):
        r.put(number, admission=LIGHT)
    whole(r)
    assert len(r.table) <= 5
    if hasattr(r.table, "_slots"):
        assert all(len(slot.index) <= 5 for slot in r.table._slots.values())


def test_the_garbage_collector_may_run_destructors_at_any_step(rig: Make) -> None:
    r = rig(max_entries=8)
    ran = [0]

    def meddle() -> None:
        ran[0] += 1
        kind = ran[0] % 6
        if kind == 0:
            r.table.clear()
        elif kind == 1:
            r.table.drop(r.slot, (ran[0] % 12,))
        elif kind == 2:
            r.versions.bump_key(ran[0] % 12)
            r.table.drop_key(ran[0] % 12)
        else:
            r.put(ran[0] % 12, value=ran[0] % 12, khash=ran[0] % 12, admission=LIGHT)

    before = gc.get_threshold()
    gc.set_threshold(5, 1, 1)
    try:
        for number in range(3000):
            bomb = Bomb(meddle)
            bomb.cycle = bomb  # type: ignore[attr-defined]
            key = number * 7 % 12
            del bomb
            r.put(key, value=key, khash=key, admission=LIGHT)
            assert r.get(key) in (key, MISS)
            assert len(r.table) <= 9  # one that is being put from inside
    finally:
        gc.set_threshold(*before)
        gc.collect()
    assert ran[0] > 1000
    whole(r)


def test_a_signal_handler_may_invalidate_at_any_step(rig: Make) -> None:
    r = rig(max_entries=8)
    handled = [0]
    inside: list[bool] = []

    def handler(*_: object) -> None:
        if inside:  # a signal within the handler of a signal
            return
        inside.append(True)
        handled[0] += 1
        key = handled[0] % 12
        with r.versions.lock:
            r.versions.bump_key(key)
            r.table.drop_key(key)
        assert r.get(key) is MISS
        r.put(key, value=key, khash=key, admission=LIGHT)
        inside.clear()

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        end = time.monotonic() + 1.0
        number = 0
        while time.monotonic() < end:
            number += 1
            key = number * 7 % 12
            r.put(key, value=key, khash=key, admission=LIGHT)
            assert r.get(key) in (key, MISS)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert handled[0] > 100
    whole(r)


KEY, HASH = "key", 7


def put_all(r: Any, *keys: object) -> None:
    for key in keys:
        r.put(key, value=key, khash=HASH, admission=LIGHT)


def invalidate(r: Any) -> None:
    with r.versions.lock:
        r.versions.bump_key(HASH)
        r.table.drop_key(HASH)


MEDDLE: dict[str, Callable[[Any], object]] = {
    "invalidates": invalidate,
    "invalidates and puts": lambda r: (invalidate(r), put_all(r, KEY)),
    "invalidates and puts others": lambda r: (invalidate(r), put_all(r, "one", "other")),
    "puts": lambda r: put_all(r, KEY),
    "puts others": lambda r: put_all(r, "one", "other"),
    "crowds": lambda r: [r.put(number, khash=number, admission=LIGHT) for number in range(10)],
    "drops": lambda r: r.table.drop(r.slot, (KEY,)),
    "drops all": lambda r: r.table.drop_slot(r.slot),
    "sweeps": lambda r: r.table.sweep(10),
}
DO: dict[str, Callable[[Any], object]] = {
    "put": lambda r: put_all(r, KEY),
    "invalidate": invalidate,
    "drop": lambda r: r.table.drop(r.slot, (KEY,)),
    "get": lambda r: r.get(KEY),
    "mark": lambda r: r.table.mark_stale(HASH),
}


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
@pytest.mark.parametrize("before", [(), (KEY,), ("first",), (KEY, "first"), ("first", "second")], ids=len)
@pytest.mark.parametrize("meddle", MEDDLE)
@pytest.mark.parametrize("do", DO)
def test_whatever_comes_between_any_two_calls(
    rig: Make, do: str, meddle: str, before: tuple[str, ...], policy: str
) -> None:
    """Where signal handlers may run in the pure twin: at the beginning of a function in Python, and when one in C has
    ended. All of these moments."""
    moment = 0
    while True:
        r = rig(max_entries=4, policy=policy)
        put_all(r, *before)
        left = moment

        def at(frame: object, event: str, argument: object, r: Any = r) -> None:
            nonlocal left
            left -= event in ("call", "c_return")
            if left < 0:
                sys.setprofile(None)
                MEDDLE[meddle](r)

        sys.setprofile(at)
        try:
            DO[do](r)
        finally:
            sys.setprofile(None)
        if left >= 0:
            break
        whole(r)
        moment += 1
    assert moment
