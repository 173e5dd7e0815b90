"""`using(...)`: each switch alone, on everything that has it, and with everything that can be asked of it."""

from typing import Any

import pytest
from limits_rig import LONG, Source, World, made_world  # noqa: F401  # a fixture

from cachekit import MISS, AsyncCachedFunction, CachedFunction
from cachekit.config.spec import FreshnessSpec
from cachekit.service import Service

FACES = ["function", "method", "class method", "static method", "twin", "twin of method", "region"]
MODES = ["l1", "server"]
KEY = 1


class Face:
    """A cached function as somebody holds it, or a region."""

    def __init__(self, world: World, service: Service, kind: str, source: Source, switches: Any = None) -> None:
        self.world = world
        self.service = service
        self.kind = kind
        self.source = source
        self.switches = switches or {}
        self.held = self._region() if kind == "region" else self._function()

    def using(self, **switches: Any) -> "Face":
        made = object.__new__(Face)
        vars(made).update(vars(self))
        made.held = self.held.using(**switches)
        return made

    def call(self) -> Any:
        if self.kind != "region":
            return self._done(self.held(KEY))
        if self.world.is_async:
            return self._done(self.held.aget_or_set(KEY, lambda: self.source.aload(KEY)))
        return self.held.get_or_set(KEY, lambda: self.source.load(KEY))

    def peek(self) -> Any:
        if self.kind == "region":
            return self._done(self.held.aget(KEY, MISS) if self.world.is_async else self.held.get(KEY, MISS))
        return self._done(self.held.peek(KEY))

    def refresh(self) -> Any:
        return self.using(force_refresh=True).call() if self.kind == "region" else self._done(self.held.refresh(KEY))

    def put(self, value: Any) -> None:
        if self.kind == "region":
            self._done(self.held.aset(KEY, value) if self.world.is_async else self.held.set(KEY, value))
        else:
            self._done(self.held.put(value, KEY))

    def _done(self, value: Any) -> Any:
        return self.world.spawn(value).result(LONG) if hasattr(value, "__await__") else value

    def _region(self) -> Any:
        return self.service.region()

    def _function(self) -> Any:
        source, cached, kind = self.source, self.service.region().cached, self.kind
        if self.world.is_async:

            class Shelf:
                def __cache_key__(self) -> str:
                    return "shelf"

                @cached(version=1)
                async def method(self, key: int) -> Any:
                    return await source.aload(key)

                @cached(version=1)
                @classmethod
                async def of_class(cls, key: int) -> Any:
                    return await source.aload(key)

                @cached(version=1)
                @staticmethod
                async def static(key: int) -> Any:
                    return await source.aload(key)

            @cached(version=1)
            async def function(key: int) -> Any:
                return await source.aload(key)

        else:

            class Shelf:
                def __cache_key__(self) -> str:
                    return "shelf"

                @cached(version=1)
                def method(self, key: int) -> Any:
                    return source.load(key)

                @cached(version=1)
                @classmethod
                def of_class(cls, key: int) -> Any:
                    return source.load(key)

                @cached(version=1)
                @staticmethod
                def static(key: int) -> Any:
                    return source.load(key)

            @cached(version=1)
            def function(key: int) -> Any:
                return source.load(key)

        self.shelf = Shelf
        return {
            "function": lambda: function,
            "method": lambda: Shelf().method,
            "class method": lambda: Shelf.of_class,
            "static method": lambda: Shelf.static,
            "twin": lambda: function.twin(),
            "twin of method": lambda: Shelf().method.twin(),
        }[kind]()


def face(world: World, kind: str, mode: str, source: Source | None = None, **fresh: Any) -> Face:
    """One more process that asks the same."""
    freshness = FreshnessSpec(early_refresh="off", **fresh)
    return Face(world, world.service(mode, ttl=60.0, freshness=freshness), kind, source or Source())


@pytest.fixture(params=FACES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("mode", MODES)
def test_force_refresh(world: World, kind: str, mode: str) -> None:
    it = face(world, kind, mode)
    assert it.call() == "run 1"
    forced = it.using(force_refresh=True)
    assert forced.call() == "run 2"
    assert it.call() == "run 2"
    assert forced.peek() == "run 2", "to look needs no load"
    assert forced.refresh() == "run 3"
    forced.put("put")
    assert it.call() == "put"
    if mode == "server":
        assert face(world, kind, mode).call() == "put"
    assert it.source.runs == 3


@pytest.mark.parametrize("mode", MODES)
def test_skip_l1(world: World, kind: str, mode: str) -> None:
    it = face(world, kind, mode)
    skipping = it.using(skip_l1=True)
    assert skipping.call() == "run 1"
    if mode == "l1":
        assert (skipping.call(), skipping.peek()) == ("run 2", MISS)
        assert it.call() == "run 3"
        assert (skipping.call(), skipping.peek()) == ("run 4", MISS)
        assert it.call() == "run 3"
        return
    tables = [table for _, table in it.service.tables()]
    assert sum(map(len, tables)) == 0, "it did not write there"
    assert skipping.call() == skipping.peek() == "run 1"
    assert sum(map(len, tables)) == 0
    assert it.call() == "run 1"
    assert sum(map(len, tables)) == 1
    other = face(world, kind, mode, it.source)
    assert other.refresh() == "run 2"
    assert it.call() == "run 1", "which has not heard of it yet"
    assert skipping.call() == skipping.peek() == "run 2"


def test_skip_l1_leaves_nothing_older_there(world: World, kind: str) -> None:
    it = face(world, kind, "server")
    it.call()
    it.using(skip_l1=True).put("put")
    assert it.call() == "put"
    assert it.using(skip_l1=True).refresh() == "run 2"
    assert it.call() == "run 2"


def test_skip_l2(world: World, kind: str) -> None:
    it = face(world, kind, "server")
    other = face(world, kind, "server", it.source)
    assert other.call() == "run 1"
    skipping = it.using(skip_l2=True)
    assert skipping.peek() is MISS
    assert skipping.call() == "run 2"
    assert skipping.call() == skipping.peek() == "run 2", "L1 has it"
    assert other.using(skip_l1=True).call() == "run 1", "L2 has not"
    world.clock.advance(3.1)
    assert skipping.call() == "run 3", "what nobody hears of changes of may be used for a short time only"
    assert skipping.refresh() == "run 4"
    assert skipping.call() == "run 4"
    skipping.put("put")
    assert skipping.call() == "put"
    assert other.using(skip_l1=True).call() == "run 1"
    world.clock.advance(3.1)
    assert it.call() == "run 1"


def test_skip_l2_where_there_is_none(world: World, kind: str) -> None:
    it = face(world, kind, "l1").using(skip_l2=True)
    assert [it.call(), it.call(), it.peek()] == ["run 1"] * 3


@pytest.mark.parametrize("mode", MODES)
def test_read_only(world: World, kind: str, mode: str) -> None:
    it = face(world, kind, mode)
    reading = it.using(read_only=True)
    assert [reading.call(), reading.call(), reading.refresh()] == ["run 1", "run 2", "run 3"]
    reading.put("put")
    assert reading.peek() is MISS
    assert it.call() == "run 4"
    reading.put("put")
    assert reading.refresh() == "run 5"
    assert reading.call() == reading.peek() == it.call() == "run 4"
    if mode == "server":
        other = face(world, kind, mode, it.source)
        assert other.using(read_only=True).call() == other.using(read_only=True).peek() == "run 4"
        assert sum(len(table) for _, table in other.service.tables()) == 0, "nor does L1 keep what L2 had"


@pytest.mark.parametrize("mode", MODES)
def test_allow_stale(world: World, kind: str, mode: str) -> None:
    it = face(world, kind, mode, stale_ttl=600.0)
    it.call()
    taking = it.using(allow_stale=True)
    world.clock.advance(61)
    assert it.peek() is MISS
    assert taking.call() == taking.peek() == "run 1"
    assert it.source.runs == 1
    world.settle()
    assert it.source.runs == 1, "nobody wanted a new one"
    if mode == "server":
        other = face(world, kind, mode, it.source, stale_ttl=600.0).using(allow_stale=True)
        assert other.peek() == "run 1"
        assert other.call() == "run 1"
    world.clock.advance(601)
    assert taking.peek() is MISS
    assert taking.call() == "run 2"
    assert taking.refresh() == "run 3"
    taking.put("put")
    assert it.call() == "put"


@pytest.mark.parametrize("mode", MODES)
def test_allow_no_stale(world: World, kind: str, mode: str) -> None:
    it = face(world, kind, mode, stale_ttl=600.0, swr=True)
    it.call()
    never = it.using(allow_stale=False)
    world.clock.advance(61)
    it.source.error = OSError("away")
    with pytest.raises(OSError, match="away"):
        never.call()
    assert never.peek() is MISS
    it.source.error = None
    assert never.call() == "run 3"
    assert it.call() == "run 3"


@pytest.mark.parametrize("mode", MODES)
def test_switches_add_up(world: World, kind: str, mode: str) -> None:
    it = face(world, kind, mode)
    it.call()
    both = it.using(force_refresh=True).using(read_only=True)
    assert both.call() == "run 2"
    assert it.call() == "run 1"
    assert both.using().call() == "run 3"
    assert it.using().call() == "run 1"
    aside = it.using(skip_l1=True).using(skip_l2=True).using(allow_stale=False)
    assert aside.call() == "run 4", "no tier is left"
    assert it.call() == "run 1"


@pytest.mark.parametrize("mode", MODES)
def test_nobody_waits_for_a_load_that_others_want_otherwise(world: World, mode: str) -> None:
    it = face(world, "function", mode)
    it.source.hold()
    plain = world.start(it.held, KEY)
    world.until(lambda: it.source.runs == 1)
    forced = world.start(it.held.using(force_refresh=True), KEY)
    aside = world.start(it.held.using(read_only=True), KEY)
    world.until(lambda: it.source.runs == 3)
    it.source.release()
    assert len({caller.result(LONG) for caller in (plain, forced, aside)}) == 3


@pytest.mark.parametrize("mode", MODES)
def test_those_who_want_the_same_share_a_load(world: World, mode: str) -> None:
    it = face(world, "function", mode)
    it.source.hold()
    callers = [world.start(it.held.using(skip_l1=True), KEY) for _ in range(5)]
    flights = it.service.flights.running
    world.until(lambda: sum(flight.interested for flight in list(flights.values())) == 5)
    it.source.release()
    assert {caller.result(LONG) for caller in callers} == {"run 1"}


def test_a_view_is_of_the_same_kind(world: World) -> None:
    it = face(world, "function", "l1")
    view = it.held.using(skip_l1=True)
    assert isinstance(view, AsyncCachedFunction if world.is_async else CachedFunction)
    assert isinstance(view, AsyncCachedFunction) == world.is_async
    for twin in (it.held.twin(), view.twin(), it.held.twin().using(skip_l1=True)):
        assert isinstance(twin, CachedFunction)
        assert isinstance(twin, AsyncCachedFunction) != world.is_async
    assert (view.__name__, view.__doc__) == (it.held.__name__, it.held.__doc__)
    assert view.key(KEY) == it.held.key(KEY)
    with pytest.raises(TypeError):
        it.held.using(skip_l3=True)
    with pytest.raises(TypeError):
        it.held.using(True)


@pytest.mark.parametrize("of", ["function", "method"])
def test_a_twin_of_a_view_keeps_its_switches(world: World, of: str) -> None:
    it = face(world, of, "l1")
    it.call()
    twin = it.using(force_refresh=True)
    twin.held = twin.held.twin()
    assert twin.call() == "run 2"
    twin.held = twin.held.twin()
    assert twin.call() == "run 3"
    assert it.call() == "run 3"


def test_a_view_may_be_a_method_too(world: World) -> None:
    it = face(world, "method", "l1")
    it.shelf.newest = it.shelf.method.using(force_refresh=True)
    it.shelf.newest_of_class = it.shelf.of_class.using(force_refresh=True)
    shelf = it.shelf()
    assert it.call() == "run 1"
    assert it._done(shelf.newest(KEY)) == "run 2"
    assert it._done(it.shelf.newest(shelf, KEY)) == "run 3"
    assert it.call() == "run 3"
    assert it._done(shelf.newest.using(read_only=True)(KEY)) == "run 4"
    assert it._done(it.shelf.method.using(force_refresh=True)(shelf, KEY)) == "run 5"
    assert it._done(it.shelf.newest_of_class(KEY)) == "run 6"
    assert it._done(it.shelf.newest_of_class(KEY)) == "run 7"


def test_names_of_arguments_stay_the_functions_own(world: World) -> None:
    it = face(world, "function", "l1")
    assert it._done(it.held.using(force_refresh=True)(key=KEY)) == "run 1"
    assert it.call() == "run 1"


@pytest.mark.parametrize("mode", MODES)
def test_more_of_a_region(world: World, mode: str) -> None:
    region = world.service(mode).region()
    reading = region.using(read_only=True)
    assert reading.add("key", "added") is False
    assert reading.set_many({"key": "set"}) == ["key"]
    region.set("key", "old", ttl=50)
    assert reading.touch("key", ttl=500) is False
    assert region.remaining("key") == pytest.approx(50, abs=0.01)
    assert reading.get_many(["key"]) == {"key": "old"}
    assert region.using(skip_l1=True).get_many(["key"]) == ({"key": "old"} if mode == "server" else {})
    assert region.using(force_refresh=True).get_many(["key"]) == {"key": "old"}
    assert str(reading.delete("key")) == "Outcome.DONE"
    assert region.get("key") is None
