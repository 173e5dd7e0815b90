"""Random bytes drive the native core: next to the pure twin and a dictionary, and against itself with hostile objects.

A failure names the seed, which gives the same bytes again.
"""

import gc
import inspect
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from l1_rig import TWINS, Rig
from l1_twins import CONFIGURATIONS, SLOTS, TAGS, Twins

from cachekit.engine.miss import MISS
from cachekit.l1.values import Admission
from cachekit.l1.views import NEVER

if "native" not in TWINS:
    pytest.skip("there is no native core here", allow_module_level=True)

from cachekit.l1 import native

LENGTHS = [pytest.param(3.0, id="short"), pytest.param(60.0, id="long", marks=pytest.mark.nightly)]
LIGHT = Admission("opaque", 1, False)


class Bytes:
    """What a run is made of, byte by byte."""

    def __init__(self, seed: int, length: int) -> None:
        self.rest = iter(random.Random(seed).randbytes(length))

    def below(self, bound: int) -> int:
        return next(self.rest) % bound

    def flag(self) -> bool:
        return self.below(2) == 1

    def one_of(self, things: Any) -> Any:
        return things[self.below(len(things))]

    def some_of(self, things: Any, most: int) -> list[Any]:
        return [self.one_of(things) for _ in range(self.below(most + 1))]


def seeds(seconds: float) -> Iterator[int]:
    """Others at each run of the tests; ``CACHEKIT_FUZZ_SEED`` is one to look at again."""
    given = os.environ.get("CACHEKIT_FUZZ_SEED")
    if given is not None:
        yield int(given)
        return
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield random.randrange(2**60)


def fuzz(seconds: float, run: Callable[[Bytes], None], length: int) -> None:
    count = 0
    for seed in seeds(seconds):
        data = Bytes(seed, length)
        try:
            run(data)
        except StopIteration:  # the bytes are used up
            count += 1
        except BaseException as error:
            error.add_note(f"CACHEKIT_FUZZ_SEED={seed}")
            raise
    assert count > 0


# ------------------------------------------------------------------------------------------------ next to the pure one

STEPS: list[Callable[[Twins, Bytes], None]] = [
    *[
        lambda t, b: t.put(
            b.below(100), b.one_of(SLOTS), b.one_of([NEVER, 0, 1, 5, 30]), b.below(20) - 5, b.some_of(TAGS, 2),
            b.below(5), b.one_of([0, 1, 1, 2, 9, 40, 99, 101]), b.one_of([0, 5, 65_535, 65_536]),
            (b.flag(), b.flag(), b.flag(), b.below(4) == 0),
        )
    ] * 6,
    *[lambda t, b: t.get(b.below(100), b.one_of(SLOTS), 1 + b.below(4))] * 3,
    *[lambda t, b: t.call(b.below(100), b.flag())] * 3,
    lambda t, b: t.view(b.below(100), b.one_of(SLOTS)),
    lambda t, b: t.refreshed(b.below(100), b.one_of(SLOTS), b.one_of([NEVER, -1, 0, 1, 9]), 1 + b.below(2)),
    lambda t, b: t.mark_stale(b.below(100)),
    lambda t, b: t.drop(b.below(100), b.one_of(SLOTS)),
    lambda t, b: t.drop_key(b.below(100), b.flag()),
    lambda t, b: t.drop_slot(b.one_of(SLOTS), b.flag()) if b.below(4) == 0 else None,
    lambda t, b: t.clear(b.one_of(["region", "all", None])) if b.below(8) == 0 else None,
    lambda t, b: t.sweep(b.below(20) - 1),
    lambda t, b: t.bump_tags(b.some_of(TAGS, 2)),
    lambda t, b: t.take_ticket(),
    lambda t, b: t.wait(1 + b.below(10)),
    lambda t, b: t.proof(b.one_of([None, None, None, 0, 5, 20])),
    lambda t, b: t.watch(b.below(4) == 0, b.below(4) == 0),
    lambda t, b: t.bind() if b.below(4) == 0 else None,
    lambda t, b: t.fork() if b.below(16) == 0 else None,
]  # fmt: skip


@pytest.mark.parametrize("seconds", LENGTHS)
def test_random_bytes_do_to_the_native_core_what_they_do_to_the_pure_one(seconds: float) -> None:
    def run(data: Bytes) -> None:
        keys, options = CONFIGURATIONS[data.one_of(list(CONFIGURATIONS))]
        keys = keys[data.below(5) :: 1 + data.below(3)]
        if options:
            options = {**options, **data.one_of([{}, {"max_entries": 2}, {"max_entries": 30}, {"max_bytes": 250}])}
        twins = type("Some", (Twins,), {"keys": keys, "options": options})()
        while True:
            data.one_of(STEPS)(twins, data)
            twins.they_are_the_same()

    fuzz(seconds, run, 3000)


# ------------------------------------------------------------------------------------------------------ against itself


class World:
    """Tables, memos, keys and values that do to each other what the bytes say, at any time."""

    def __init__(self, data: Bytes) -> None:
        self.data = data
        self.depth = 0
        self.over = False
        self.rigs = [self.rig() for _ in range(2)]
        self.memos = [self.memo(func) for func in FUNCTIONS]
        self.held: list[Any] = []

    def rig(self) -> Rig:
        options = self.data.one_of([{}, {"policy": "lru"}, {"max_bytes": 30}])
        clock: Any = self.data.one_of([None, self.clock])
        return Rig(native, **{"max_entries": 8, **options, "clock": clock or time.monotonic_ns, "skip": self.skip})

    def memo(self, func: Any) -> Any:
        memo = native.compile_memo(func, inspect.signature(func), lambda args, kwargs: MISS)
        memo.bind_table(self.rigs[0].table, self.rigs[0].slot)
        return memo

    def clock(self) -> int:
        self.meddle()
        return 1_000

    def skip(self) -> bool:
        self.meddle()
        return False

    def meddle(self) -> None:
        """Anything may happen here, not without end."""
        if self.over or self.depth >= 4:
            return
        self.depth += 1
        try:
            if self.data.below(3) == 0:
                self.step()
        except StopIteration:
            self.over = True
        finally:
            self.depth -= 1

    def key(self) -> tuple[Any, int]:
        """A key and the number that its values carry."""
        number = self.data.below(12)
        kind = self.data.below(5)
        if kind == 0:
            return number, number
        if kind == 1:
            return f"key {number}", 100 + number
        if kind == 2:
            return (number, ("x", number)), 200 + number
        key = Hostile(self, number)
        return (key, 300 + number) if kind == 3 else ((1, key), 400 + number)

    def step(self) -> None:
        data = self.data
        r = data.one_of(self.rigs)
        operation = data.below(20)
        key, number = self.key()
        if operation < 6:
            value, flags = Value(self, number), {"early": data.flag(), "aside": data.below(4) == 0}
            r.put(key, value=value, khash=number, tags=data.some_of(TAGS, 1), admission=LIGHT, **flags)
        elif operation < 9:
            self.right(r.get(key), number)
        elif operation < 11:
            self.right(data.one_of(self.memos).call(*[key] * 1), number)
        elif operation == 11:
            self.right(self.memos[0].call(x=key), number)
        elif operation == 12:
            view = r.table.entry(r.slot, (key,))
            self.right(MISS if view is None else view.value, number)
        elif operation == 13:
            r.table.drop(r.slot, (key,))
            r.table.drop_key(number)
            r.table.refreshed(r.slot, (key,), NEVER)
            r.table.mark_stale(number + 1)
        elif operation == 14:
            data.one_of([r.table.clear, lambda: r.table.sweep(3), lambda: r.table.drop_slot(r.slot)])()
        elif operation == 15:
            memo = data.one_of(self.memos)
            data.one_of([memo.unbind, lambda: memo.bind_table(r.table, r.slot)])()
        elif operation == 16:
            self.rigs[data.below(2)] = self.rig()
        elif operation == 17:
            self.memos[data.below(3)] = self.memo(data.one_of(FUNCTIONS))
        elif operation == 18:
            r.table.watch(data.flag())
            r.versions.bump_tags(data.some_of(TAGS, 2))
            gc.collect(0)
        elif data.flag():
            self.held.append(data.one_of([r, r.table, self.memos, self.memos[0].call, key]))
            del self.held[: data.below(3)]
        else:
            raise Stop

    def right(self, found: Any, number: int) -> None:
        assert found is MISS or found.number == number, f"the value of {found.number} for {number}"


class Stop(Exception):
    """Raised by a key."""


class Hostile:
    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number

    def __hash__(self) -> int:
        self.world.meddle()
        return self.number % 2

    def __eq__(self, other: object) -> bool:
        self.world.meddle()
        return isinstance(other, Hostile) and other.number == self.number


class Value:
    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number

    def __del__(self) -> None:
        try:
            self.world.meddle()
        except Stop:
            pass


FUNCTIONS = [lambda x: 0, lambda x=5: 0, lambda x, *, y=0: 0]


@pytest.mark.parametrize("seconds", LENGTHS)
def test_hostile_objects_bring_nobody_the_value_of_another(seconds: float) -> None:
    def run(data: Bytes) -> None:
        world = World(data)
        try:
            while not world.over:
                try:
                    world.step()
                except Stop:
                    pass
                for r in world.rigs:
                    stats = r.table.stats()
                    assert (stats.entries, stats.weight) == (len(r.table), r.table.weight)
                    assert len(r.table) <= 8
        finally:
            world.over = True
        raise StopIteration

    fuzz(seconds, run, 2000)
