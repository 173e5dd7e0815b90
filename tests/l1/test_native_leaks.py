"""Nothing is left behind by a call, on whatever way it ends: not a block, not a reference, not a page."""

import asyncio
import gc
import inspect
import itertools
import os
import pickle
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from l1_rig import TWINS, Rig

from cachekit.engine.miss import MISS
from cachekit.l1.values import Admission
from cachekit.l1.views import NEVER

if "native" not in TWINS:
    pytest.skip("there is no native core here", allow_module_level=True)

from cachekit import _native
from cachekit.l1 import native

pytestmark = pytest.mark.slow

LIGHT = Admission("opaque", 1, False)
HEAVY = Admission("opaque", 10**9, False)
ROUNDS = [
    pytest.param(5_000, id="short"),
    pytest.param(100_000, id="long", marks=pytest.mark.slow),
    pytest.param(1_000_000, id="longest", marks=pytest.mark.nightly),
]
PAGE = os.sysconf("SC_PAGE_SIZE")


class Object:
    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return type(other) is Object


class Failing(Object):
    """Hashes like `Object`; comparing it raises."""

    error: type[BaseException] = ValueError

    def __eq__(self, other: object) -> bool:
        raise self.error

    __hash__ = Object.__hash__


class Interrupting(Failing):
    error = KeyboardInterrupt


def one(x: Any) -> Any:
    raise AssertionError


def named(a: Any, b: Any = 2, *, c: Any = 3) -> Any:
    raise AssertionError


async def load(x: Any) -> Any:
    raise AssertionError


class Stage:
    """Tables with an entry of each kind, memos over them."""

    def __init__(self) -> None:
        self.r = Rig(native, max_entries=50, max_bytes=1000)
        self.small = Rig(native, max_entries=5)
        self.lru = Rig(native, max_entries=5, policy="lru")
        self.value = ("value", object())
        self.objects: list[Any] = [Object(), Failing(), Interrupting()]
        self.text, self.number = "some text", 1 << 20
        for key in (self.number, self.text, *self.objects, ("a", (1, 2)), ("a", self.objects[0]), 0.5):
            self.r.put(key, value=self.value, admission=LIGHT)
        self.r.put("tagged", value=self.value, tags=["t", "u"], admission=LIGHT)
        self.r.put("stale", value=self.value, tags=["old"], admission=LIGHT)
        self.r.versions.bump_tags(["old"])
        self.r.put(self.number, 2, 3, value=self.value, admission=LIGHT)
        self.lru.put(1, value=self.value, admission=LIGHT)
        self.call = self.memo(one)
        self.named = self.memo(named)
        self.load = self.memo(load, is_async=True)
        self.method = type("Thing", (), {"f": self.memo(lambda self, x: None, ignore=frozenset({"self"}))})().f
        self.thing = type("Thing", (), {"f": self.memo(lambda self, x: None, ignore=frozenset({"self"}))})()
        self.lru_call = self.memo(one, self.lru)
        self.counter = itertools.count()
        self.iterator = itertools.count()

    def memo(self, func: Any, rig: Rig | None = None, **options: Any) -> Any:
        memo = native.compile_memo(func, inspect.signature(func), on_slow, **options)
        memo.bind_table((rig or self.r).table, (rig or self.r).slot)
        return memo.call

    def watched(self) -> list[Any]:
        return [
            *self.objects, self.value, self.value[1], self.text, self.number, self.call, self.named, self.load, MISS,
            self.r.table, self.r.versions, self.r.versions.lock, self.lru.table, self.small.table, LIGHT, HEAVY,
            Object, Failing, None, True, False, KeyError, ValueError, native.Table, type(self.call), int, str, tuple,
        ]  # fmt: skip


def on_slow(args: Any, kwargs: Any) -> Any:
    return MISS


def raises(error: type[BaseException], act: Callable[[], object]) -> None:
    try:
        act()
    except error:
        return
    raise AssertionError


def awaited(ready: Any) -> None:
    try:
        ready.send(None)
    except StopIteration:
        return
    raise AssertionError


def put(s: Stage, *key: Any, rig: Rig | None = None, **options: Any) -> bool:
    return (rig or s.r).put(*key, **{"value": s.value, "admission": LIGHT, **options})


def new_table(s: Stage) -> None:
    r = Rig(native)
    put(s, "a", s.objects[0], rig=r, tags=["x"])
    put(s, 1, rig=r, tags=["x"], load_ms=10**6)
    weak = weakref.ref(r.table)
    del r
    assert weak() is None


def new_memo(s: Stage) -> None:
    call = _native.Memo(on_slow, ("x", "y"), (MISS, s.value), 2, 0, (0,), False)  # compile_memo leaves cycles
    call.bind(s.r.table, s.r.slot)
    call.attribute = call.__qualname__ = "attribute"
    weak = weakref.ref(call)
    assert call(s.number) is s.value
    call.bind(s.lru.table, 0)
    call.unbind()
    call.binds_by(5)
    repr(call)
    assert (call.__qualname__, call.__reduce__(), sys.getsizeof(call) > 0) == ("attribute", "attribute", True)
    del call
    assert weak() is None


def insert(s: Stage, rig: Rig) -> None:
    number = next(s.counter)
    assert put(s, number % 1000, rig=rig, value=(number,), tags=["t"] * (number % 2), khash=number % 100)
    rig.get((number - 3) % 1000)
    rig.get((number - 3) % 1000)


PATHS: dict[str, Callable[[Stage], object]] = {
    "hit int": lambda s: s.call(s.number),
    "hit str": lambda s: s.call(s.text),
    "hit another str": lambda s: s.call("some " + s.text[5:]),
    "hit tuple": lambda s: s.call(("a", (1, 2))),
    "hit float": lambda s: s.call(0.5),
    "hit object": lambda s: s.call(Object()),
    "hit object in a tuple": lambda s: s.call(("a", Object())),
    "hit by name": lambda s: s.call(x=s.number),
    "hit with defaults": lambda s: s.named(s.number),
    "hit by names": lambda s: s.named(c=3, a=s.number),
    "hit method": lambda s: s.thing.f(s.number),
    "hit bound method": lambda s: s.method(s.number),
    "hit tagged": lambda s: s.call("tagged"),
    "hit lru": lambda s: s.lru_call(1),
    "hit by get": lambda s: s.r.get(s.number),
    "hit by get of an object": lambda s: s.r.get(Object()),
    "hit async": lambda s: awaited(s.load(s.number)),
    "hit async closed": lambda s: s.load(s.number).close(),
    "hit async thrown": lambda s: raises(ZeroDivisionError, lambda: s.load(s.number).throw(ZeroDivisionError("x"))),
    "miss": lambda s: s.call("absent"),
    "miss of an object": lambda s: s.call(("other", Object())),
    "miss of a stale one": lambda s: s.call("stale"),
    "miss by get": lambda s: s.r.get("absent"),
    "star": lambda s: s.call(*(s.number,), **{}),
    "entry": lambda s: s.r.table.entry(s.r.slot, ("tagged",)),
    "no entry": lambda s: s.r.table.entry(s.r.slot, ("absent",)),
    "put, evict": lambda s: insert(s, s.small),
    "put, evict lru": lambda s: insert(s, s.lru),
    "replace": lambda s: put(s, "tagged", value=(1,), tags=["t", "u"]),
    "replace an object": lambda s: put(s, Object()),
    "put refused": lambda s: put(s, s.number, ticket=0, tags=["old"]),
    "put too heavy": lambda s: (put(s, "heavy", admission=HEAVY), put(s, "light")),
    "put and drop": lambda s: (put(s, "d", tags=["t"]), s.r.table.drop(s.r.slot, ("d",))),
    "put and drop_key": lambda s: (put(s, "d", khash=77), s.r.table.drop_key(77)),
    "put and drop_slot": lambda s: (put(s, "d", slot=0), s.r.table.drop_slot(0)),
    "put and clear": lambda s: (put(s, 1, rig=s.small), s.small.table.clear()),
    "put and reset": lambda s: (put(s, 1, rig=s.small), s.small.table.reset()),
    "put and sweep": lambda s: (put(s, 1, rig=s.small, ttl=0), s.small.table.sweep(9)),
    "drop nothing": lambda s: s.r.table.drop(s.r.slot, ("absent",)),
    "stats": lambda s: (s.r.table.stats(), s.r.table.stats(s.r.slot), len(s.r.table), s.r.table.weight),
    "states": lambda s: (s.r.table.watch(True), s.r.table.alive(NEVER), s.r.table.watch(False), s.r.table.slot("f")),
    "hit while watched": lambda s: (s.r.table.watch(True), s.call(s.number), s.r.table.watch(False)),
    "members": lambda s: (s.r.table.region, s.r.table.clock, s.r.table.alive_until, s.r.table.max_bytes),
    "bump": lambda s: (s.r.versions.bump_key(1), s.r.versions.bump_tags(["x", "y"]), s.r.versions.ticket()),
    "bump new tags": lambda s: s.small.versions.bump_tags([f"tag {next(s.iterator)}"]),
    "versions": lambda s: (s.r.versions.allows(0, 1, ("x",), 1, "r"), s.r.versions.tag_event("x")),
    "new lock": lambda s: s.small.versions.reset_lock(),
    "new table": new_table,
    "new memo": new_memo,
    "pickle": lambda s: raises(TypeError, lambda: pickle.dumps(s.r.table)),
    "unhashable": lambda s: s.call([]),
    "unhashable in a tuple": lambda s: s.call((1, [])),
    "unhashable by get": lambda s: raises(TypeError, lambda: s.r.get([])),
    "unhashable put": lambda s: raises(TypeError, lambda: put(s, [], tags=["t"])),
    "too many arguments": lambda s: raises(TypeError, lambda: s.call(1, 2)),
    "no arguments": lambda s: raises(TypeError, lambda: s.call()),
    "unknown argument": lambda s: raises(TypeError, lambda: s.call(1, z=2)),
    "argument twice": lambda s: raises(TypeError, lambda: s.call(1, x=2)),
    "comparison fails": lambda s: raises(ValueError, lambda: s.r.get(Failing())),
    "comparison fails in a call": lambda s: s.call(Failing()),
    "comparison is interrupted": lambda s: raises(KeyboardInterrupt, lambda: s.call(Interrupting())),
    "put interrupted": lambda s: raises(KeyboardInterrupt, lambda: put(s, Interrupting(), tags=["t"])),
    "wrong slot": lambda s: raises(KeyError, lambda: s.r.table.get(10**6, (1,))),
    "wrong number of arguments": lambda s: raises(TypeError, lambda: s.r.table.get(1)),
    "wrong tags": lambda s: raises(TypeError, lambda: put(s, 1, tags=["t", 5])),
    "wrong option": lambda s: raises(ValueError, lambda: Rig(native, policy="x")),
    "wrong admission": lambda s: raises(IndexError, lambda: put(s, 1, admission=("share",))),
}


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE if Path("/proc/self/statm").exists() else 0


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("path", PATHS)
def test_calls_leave_nothing_behind(path: str, rounds: int) -> None:
    s, act = Stage(), PATHS[path]
    if path.startswith("new") or path in ("pickle", "wrong option"):
        rounds = max(2_000, rounds // 20)
    for _ in range(40_000 if path == "bump new tags" else 2_000):  # free lists, tables of fixed sizes
        act(s)
    references = pages = blocks = 0
    gc.collect()
    gc.disable()  # what only the collector finds is left behind as well
    try:
        watched = s.watched()
        before = [sys.getrefcount(thing) for thing in watched]
        pages, blocks = resident(), sys.getallocatedblocks()
        for _ in itertools.repeat(None, rounds):
            act(s)
        blocks, pages = sys.getallocatedblocks() - blocks, resident() - pages
        references = max(abs(sys.getrefcount(thing) - count) for thing, count in zip(watched, before, strict=True))
    finally:
        gc.enable()
    assert references < 50
    assert blocks < rounds / 100 + 200
    if rounds >= 50_000:
        assert pages < rounds * 4 + (1 << 20), "of each round less than four bytes"


@pytest.mark.parametrize("rounds", ROUNDS)
def test_awaiting_leaves_nothing_behind(rounds: int) -> None:
    s = Stage()

    async def run(count: int) -> None:
        for _ in range(count):
            await s.load(s.number)
        for _ in range(count // 50):
            await asyncio.gather(s.load(s.number), s.load(s.text))

    asyncio.run(run(1_000))
    gc.collect()
    references, blocks = sys.getrefcount(s.value), sys.getallocatedblocks()
    asyncio.run(run(rounds))
    gc.collect()
    assert abs(sys.getrefcount(s.value) - references) < 5
    assert sys.getallocatedblocks() - blocks < 500
