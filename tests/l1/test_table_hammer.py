"""Eight threads put, get, evict and invalidate in one table: within bounds, exact and coherent."""

import gc
import inspect
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit.engine.miss import MISS
from cachekit.l1.values import Admission

Make = Callable[..., Any]
THREADS, KEYS, ENTRIES, ROOM = 8, 60, 30, 400
LENGTHS = [
    pytest.param(3.0, id="short"),
    pytest.param(20.0, id="long", marks=pytest.mark.slow),
    pytest.param(60.0, id="longest", marks=pytest.mark.nightly),
]


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads change places often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


class Value:
    """Carries its key and how new it is; those that are gone are counted."""

    __slots__ = ("gone", "key", "version")

    def __init__(self, key: int, version: int, gone: list[int]) -> None:
        self.key, self.version, self.gone = key, version, gone

    def __del__(self) -> None:
        self.gone.append(1)


class Hammer:
    """The threads, and what they see."""

    def __init__(self, twin: Any, r: Any, seconds: float) -> None:
        self.r = r
        memo = twin.compile_memo(lambda x: 0, inspect.signature(lambda x: 0), lambda args, kwargs: MISS)
        memo.bind_table(r.table, r.slot)
        self.call = memo.call
        self.other = r.table.slot("other")
        self.end = time.monotonic() + seconds
        self.wrong: list[str] = []
        self.source = [0] * KEYS  # the number of its last change
        self.published = [0] * KEYS  # changes whose invalidations have returned
        self.made: Counter[int] = Counter()
        self.gone: list[int] = []
        self.died = 0
        self.counts: list[Counter[str]] = [Counter() for _ in range(THREADS)]

    def run(self, number: int) -> None:
        rng = random.Random(number)
        try:
            while time.monotonic() < self.end and not self.wrong:
                for _ in range(20):
                    self.step(number, rng, rng.randrange(KEYS))
                if number == 0:  # the list does not grow for a minute
                    self.died += len(self.gone[:1000])
                    del self.gone[:1000]
        except BaseException as error:
            self.wrong.append(repr(error))

    def step(self, number: int, rng: random.Random, key: int) -> None:
        r, counts, dice = self.r, self.counts[number], rng.random()
        slot = r.slot if key % 4 else self.other
        least = self.published[key]
        if dice < 0.45:
            found = r.table.get(slot, (key,))
            counts["miss" if found is MISS else "hit"] += 1
        elif dice < 0.6 and key % 4:
            found = self.call(key)
            counts["hit"] += found is not MISS
        elif dice < 0.65:
            view = r.table.entry(slot, (key,))
            found = MISS if view is None else view.value
        elif dice < 0.7:
            with r.versions.lock:
                self.source[key] += 1
                now = self.source[key]
            self.invalidate(rng, slot, key)
            self.published[key] = max(self.published[key], now)
            return
        elif dice < 0.702:
            with r.versions.lock:
                r.versions.bump_region("r")
                counts["dropped"] += r.table.clear()
            return
        elif dice < 0.71:
            counts["dropped"] += r.table.sweep(10)
            return
        elif dice < 0.72:
            counts["dropped"] += r.table.drop(slot, (key,))
            return
        else:
            ticket = r.versions.ticket()
            value = Value(key, self.source[key], self.gone)
            self.made[number] += 1
            until = r.clock() + rng.choice([10**4, 10**7, 10**12])
            stored = r.table.put(
                slot, (key,), value, khash=key, fresh_until=until, keep_until=until, ticket=ticket,
                tags=[f"t{key}"] * (key % 3 == 0), admission=Admission("opaque", 1 + key, False),
            )  # fmt: skip
            counts["put" if stored else "refused"] += 1
            return
        if found is not MISS and (found.key != key or found.version < least):
            self.wrong.append(f"{found.key} version {found.version} for {key}, at least {least}")
        entries, weight = len(r.table), r.table.weight
        if entries > ENTRIES or weight > ROOM:
            self.wrong.append(f"{entries} entries of weight {weight}")

    def invalidate(self, rng: random.Random, slot: int, key: int) -> None:
        r = self.r
        if key % 3 == 0:
            r.versions.bump_tags([f"t{key}"])
        elif rng.random() < 0.1:
            with r.versions.lock:
                r.versions.bump_slot(slot)
                r.table.drop_slot(slot)
        else:
            with r.versions.lock:
                r.versions.bump_key(key)
                r.table.drop_key(key)


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
@pytest.mark.parametrize("seconds", LENGTHS)
def test_threads_hammer_one_table(twin: Any, rig: Make, seconds: float, policy: str) -> None:
    r = rig(clock=time.monotonic_ns, policy=policy, max_entries=ENTRIES, max_bytes=ROOM)
    hammer = Hammer(twin, r, seconds / 2)  # of either policy
    threads = [threading.Thread(target=hammer.run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hammer.wrong == []
    counts: Counter[str] = sum(hammer.counts, Counter())
    stats = r.table.stats()
    parts = [r.table.stats(slot) for slot in (0, r.slot, hammer.other)]
    for field in range(7):
        if field != 4:
            assert sum(part[field] for part in parts) == stats[field]
    assert stats.entries == len(r.table) <= ENTRIES
    assert stats.weight == r.table.weight <= ROOM
    assert (stats.puts, stats.refused) == (counts["put"], counts["refused"])
    assert stats.misses == counts["miss"]
    assert abs(stats.hits - counts["hit"]) <= counts["hit"] * 0.001  # that of an entry that is leaving may be lost
    left = stats.evictions
    assert left["expired"] + left["invalidated"] >= counts["dropped"]
    replaced = stats.puts - stats.entries - sum(left.values())
    assert replaced > 0
    del thread, threads
    gc.collect()
    living = hammer.made.total() - hammer.died - len(hammer.gone)
    assert living == stats.entries, "values of entries that are gone live on, or others died"
    weights = [1 + key for key in range(KEYS) for slot in (r.slot, hammer.other) if holds(r, slot, key)]
    assert sum(weights) <= r.table.weight  # of what expired by now nothing is seen
    assert min(stats.hits, stats.misses, stats.refused, *left.values()) > 0
    assert r.table.clear() == stats.entries
    assert len(r.table) == r.table.weight == 0
    assert hammer.made.total() == hammer.died + len(hammer.gone)


def holds(r: Any, slot: int, key: int) -> bool:
    view = r.table.entry(slot, (key,))
    assert view is None or view.value.key == key
    return view is not None
