"""`current_entry()`: what a function may know and ask of the entry it fills; `not_modified()`."""

import threading
import time
from typing import Any

import pytest
from limits_rig import Cached, Source, World, inner, made_world  # noqa: F401  # a fixture

from cachekit import MISS, current_entry
from cachekit.codec.codec import Codec
from cachekit.codec.envelope import Header, unpack
from cachekit.engine.ports import drive
from cachekit.service import SystemClock

MODES = ["l1", "server"]


class Origin:
    """A source that knows the version of what it has, and says so instead of sending it again."""

    def __init__(self) -> None:
        self.etag = "v1"
        self.value: Any = {"names": ["ada"]}
        self.seen: list[tuple[Any, Any, Any]] = []  # etag, date, stale value
        self.tags: list[set[str]] = []  # of each run; later ones have none
        self.answers: list[str] = []

    def __call__(self) -> Any:
        entry = current_entry()
        self.seen.append((entry.etag, entry.last_modified, entry.stale_value))
        if self.tags:
            entry.tags |= self.tags.pop(0)
        if entry.etag == self.etag:
            self.answers.append("same")
            return entry.not_modified()
        self.answers.append("new")
        entry.etag, entry.last_modified = self.etag, f"date of {self.etag}"
        return dict(self.value)


def conditional(world: World, mode: str, *, service: Any = None, **options: Any) -> tuple[Cached, Origin]:
    origin, source = Origin(), Source()
    source.inside = origin
    options = {"ttl": 60, "stale_ttl": 600, **options}
    return world.cached(service or world.service(mode), source, **options), origin


def stored(load: Cached, key: int = 1) -> tuple[Header, bytes]:
    """What lies in L2."""
    text = str(load.function.key(key))
    remote = load.service.remotes()["default"]
    assert remote is not None
    header, payload = unpack(drive(remote.do(load.service.sync_port, "get", text)), text)
    return header, bytes(payload)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The values that were made bytes of."""
    seen: list[object] = []
    dumps = Codec.dumps

    def counting(self: Codec, value: object, *args: Any, **kwargs: Any) -> bytes:
        seen.append(value)
        return dumps(self, value, *args, **kwargs)

    monkeypatch.setattr(Codec, "dumps", counting)
    return seen


@pytest.mark.parametrize("mode", MODES)
def test_the_source_is_asked_with_what_it_said_of_the_value_that_lies_there(world: World, mode: str) -> None:
    load, origin = conditional(world, mode)
    assert load(1) == {"names": ["ada"]}
    world.clock.advance(61)
    assert load(1) == {"names": ["ada"]}
    assert origin.answers == ["new", "same"]
    assert origin.seen == [(None, None, MISS), ("v1", "date of v1", {"names": ["ada"]})]
    origin.etag, origin.value = "v2", {"names": ["bob"]}
    world.clock.advance(61)
    assert load(1) == {"names": ["bob"]}
    assert origin.seen[2] == ("v1", "date of v1", {"names": ["ada"]}), "they are kept with a value that holds"
    world.clock.advance(61)
    load(1)
    assert origin.seen[3] == ("v2", "date of v2", {"names": ["bob"]})
    assert origin.answers == ["new", "same", "new", "same"]


@pytest.mark.parametrize("mode", MODES)
def test_a_value_that_holds_lives_for_another_ttl_in_both_tiers(world: World, mode: str) -> None:
    load, origin = conditional(world, mode)
    load(1)
    world.clock.advance(61)
    load(1)
    hits = load.tally.l1_hits()
    assert load(1) == {"names": ["ada"]}
    assert load.tally.l1_hits() == hits + 1
    world.clock.advance(58)
    assert load(1) == {"names": ["ada"]}
    if mode == "server":
        other = world.cached(world.service(mode), like=load, ttl=60, stale_ttl=600)
        assert other(1) == {"names": ["ada"]}
        assert other.source.runs == 0
    assert origin.answers == ["new", "same"]
    world.clock.advance(3)
    load(1)
    assert origin.answers == ["new", "same", "same"]


def test_its_bytes_are_kept_and_nothing_is_encoded(world: World, encoded: list[object]) -> None:
    load, origin = conditional(world, "server")
    load(1)
    header, payload = stored(load)
    assert len(encoded) == 1
    world.clock.advance(61)
    assert load(1) == {"names": ["ada"]}
    after, kept = stored(load)
    assert len(encoded) == 1
    assert kept == payload
    assert (after.etag, after.last_modified) == ("v1", "date of v1")
    assert after.soft - header.soft == after.hard - header.hard == 61_000
    assert after.id != header.id
    assert origin.answers == ["new", "same"]


def test_in_an_early_refresh_too(world: World, encoded: list[object]) -> None:
    service = world.service("server", l1="off")
    service.rng = lambda: 1 - 1e-9  # refreshed as soon as may be
    load, origin = conditional(world, "server", service=service, early_refresh=1000.0, stale_ttl=0)
    load.source.value = None

    def slow() -> Any:
        world.clock.advance(1)
        return origin()

    load.source.inside = slow
    load(1)
    _, payload = stored(load)
    world.clock.advance(40)
    assert load(1) == {"names": ["ada"]}
    world.settle()
    assert origin.answers == ["new", "same"]
    assert stored(load)[1] == payload
    assert len(encoded) == 1
    world.clock.advance(50)  # past the end of the first
    assert load.using(skip_l1=True).do("peek", 1) == {"names": ["ada"]}


def test_in_an_early_refresh_of_what_l1_holds_too(world: World, encoded: list[object]) -> None:
    service = world.service("server", clock=SystemClock())
    service.rng = lambda: 1 - 1e-9
    region, remote = service.region(), service.remotes()["default"]
    assert remote is not None
    world.until(lambda: region.get("nothing") or "default" in remote.reach.covered)
    load, origin = conditional(world, "server", service=service, early_refresh=1000.0, stale_ttl=0, ttl=4)

    def slow() -> Any:
        time.sleep(0.003)
        return origin()

    load.source.inside = slow
    world.until(lambda: load(1) and load.tally.l1_hits())
    _, payload = stored(load)
    world.until(lambda: load(1) and load.source.runs == 2)  # in the second half of its life
    world.settle()
    assert load.tally.refreshes == {("early", "stored"): 1}
    assert origin.answers == ["new", "same"]
    assert stored(load)[1] == payload
    assert len(encoded) == 1


@pytest.mark.parametrize("mode", MODES)
def test_behind_a_caller_too(world: World, mode: str) -> None:
    load, origin = conditional(world, mode, swr=True)
    load(1)
    world.clock.advance(61)
    assert load(1) == {"names": ["ada"]}
    world.settle()
    assert load.tally.refreshes == {("swr", "stored"): 1}
    assert load(1) == {"names": ["ada"]}
    assert origin.answers == ["new", "same"]
    assert load.tally.stale == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("where", ["here", "there"])
def test_tags_that_only_the_value_told_of_stay_with_it(world: World, mode: str, where: str) -> None:
    load, origin = conditional(world, mode, tags=["always"])
    origin.tags = [{"late"}]
    load(1)
    world.clock.advance(61)
    load(1)
    assert origin.answers == ["new", "same"]
    if mode == "server":
        assert len(stored(load)[0].tags) == 2
    clearing = load.service if where == "here" or mode == "l1" else world.service(mode)
    clearing.region().invalidate_tags("late")
    world.clock.advance(4)  # other processes' clears are known by then
    load(1)
    assert origin.answers == ["new", "same", "new"], "it is gone, and so is what it could be compared with"


@pytest.mark.parametrize("mode", MODES)
def test_tags_that_come_with_not_modified_are_its_own(world: World, mode: str) -> None:
    load, origin = conditional(world, mode)
    origin.tags = [set(), {"later"}]
    load(1)
    world.clock.advance(61)
    load(1)
    load.service.region().invalidate_tags("later")
    load(1)
    assert origin.answers == ["new", "same", "new"]


def test_a_tag_that_is_cleared_while_the_source_is_asked_takes_the_value_along(world: World) -> None:
    load, origin = conditional(world, "server")
    origin.tags = [{"late"}]
    load(1)
    world.clock.advance(61)
    other = world.service("server")

    def during() -> Any:
        other.region().invalidate_tags("late")
        return origin()

    load.source.inside = during
    assert load(1) == {"names": ["ada"]}, "its caller came before"
    load.source.inside = origin
    world.clock.advance(4)  # other processes' clears are known by then
    load(1)
    assert origin.answers == ["new", "same", "new"]


@pytest.mark.parametrize("mode", MODES)
def test_without_a_value_it_raises_in_the_function(world: World, mode: str) -> None:
    load = world.cached(world.service(mode))
    load.source.inside = lambda: current_entry().not_modified()
    for caller in (load, lambda key: load.do("refresh", key)):
        with pytest.raises(RuntimeError, match=r"not_modified\(\): there is no value to keep"):
            caller(1)
    assert not load.flights


@pytest.mark.parametrize("mode", MODES)
def test_a_removed_value_cannot_be_kept(world: World, mode: str) -> None:
    load, origin = conditional(world, mode)
    load(1)
    world.clock.advance(61)
    load.do("invalidate", 1)
    load(1)
    assert origin.seen[1] == (None, None, MISS)


@pytest.mark.parametrize("mode", MODES)
def test_a_value_marked_as_stale_can(world: World, mode: str) -> None:
    load, origin = conditional(world, mode)
    load(1)
    load.do("mark_stale", 1)
    assert load(1) == {"names": ["ada"]}
    assert origin.answers == ["new", "same"]
    world.clock.advance(59)
    load(1)
    assert origin.answers == ["new", "same"]


@pytest.mark.parametrize("mode", MODES)
def test_none_can_be_kept(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), Source(lambda run: None), ttl=60, stale_ttl=60)
    seen = []

    def inside() -> Any:
        seen.append(current_entry().stale_value)
        return None if seen[-1] is MISS else current_entry().not_modified()

    load.source.inside = inside
    load(1)
    world.clock.advance(61)
    assert load(1) is None
    assert load(1) is None
    assert seen == [MISS, None]


@pytest.mark.parametrize("mode", MODES)
def test_what_the_function_does_to_the_old_value_stays_with_it(world: World, mode: str) -> None:
    load, origin = conditional(world, mode)
    load(1)
    world.clock.advance(61)

    def inside() -> Any:
        current_entry().stale_value["names"].append("mallory")
        return origin()

    load.source.inside = inside
    load(1)["names"].append("eve")
    assert load(1) == {"names": ["ada"]}


# The rest of the entry


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ttl", [60, None])
def test_it_knows_its_ttl_and_tags(world: World, mode: str, ttl: Any) -> None:
    seen = []

    def inside() -> None:
        entry = current_entry()
        seen.append((entry.ttl, set(entry.tags), entry.etag, entry.last_modified, entry.stale_value))

    load = world.cached(world.service(mode), ttl=ttl, tags=["one", "two"])
    load.source.inside = inside
    load(1)
    assert seen == [(ttl, {"one", "two"}, None, None, MISS)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", [{}, {"tags": ["one"]}], ids=["plain", "tags"])
def test_what_one_run_asks_for_is_no_other_entrys(world: World, mode: str, options: Any) -> None:
    load = world.cached(world.service(mode), ttl=300, **options)
    spec = inner(load.function).at().tiers.spec
    seen = []

    def inside() -> None:
        entry = current_entry()
        seen.append((entry.ttl, set(entry.tags), entry.etag, entry.stored))
        entry.ttl = "10s"
        entry.tags.add("late")
        entry.etag = "v1"
        if len(seen) == 2:
            entry.no_store()

    load.source.inside = inside
    load(1)
    load(2)
    load(3)
    assert seen == [(300, set(options.get("tags", ())), None, True)] * 3
    assert inner(load.function).at().tiers.spec is spec
    assert spec.ttl == 300
    load.source.inside = None
    world.clock.advance(11)
    assert load(1) == "run 4"
    world.clock.advance(2)
    assert load(1) == "run 4"
    world.clock.advance(11)
    assert load(1) == "run 4", "the next one has the ttl of its profile again"


@pytest.mark.parametrize("mode", MODES)
def test_functions_inside_of_each_other_have_entries_of_their_own(world: World, mode: str) -> None:
    service, seen = world.service(mode), []
    inside = world.cached(service, ttl=100)
    inside.source.inside = lambda: seen.append(("inner", current_entry().ttl))

    if world.is_async:

        async def outside(key: int) -> str:
            current_entry().ttl = 50
            await inside.function(key)
            seen.append(("outer", current_entry().ttl))
            return "outer"

    else:

        def outside(key: int) -> str:
            current_entry().ttl = 50
            inside.function(key)
            seen.append(("outer", current_entry().ttl))
            return "outer"

    world.run(service.region().cached(outside, version=1, early_refresh="off"), 1)
    assert seen == [("inner", 100), ("outer", 50)]


def test_outside_of_a_load_there_is_none(world: World) -> None:
    load = world.cached(world.service())
    load(1)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="only inside a cached function"):
            current_entry()


def test_wrong_times_are_the_functions_error(world: World) -> None:
    load = world.cached(world.service())

    def inside() -> None:
        current_entry().ttl = 0

    load.source.inside = inside
    with pytest.raises(ValueError, match="0"):
        load(1)


@pytest.mark.parametrize("mode", MODES)
def test_many_keys_at_once_do_not_mix_their_entries(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), ttl=300)
    count, lock = [0], threading.Lock()

    def inside() -> Any:
        entry = current_entry()
        with lock:
            count[0] += 1
            mine = count[0]
        entry.etag = f"{mine}"
        return {"etag": f"{mine}", "same": current_entry() is entry}

    load.source.inside = inside
    load.source.hold()
    callers = [load.start(key) for key in range(20)]
    world.until(lambda: load.source.runs == 20)
    load.source.release()
    values = [caller.result(10) for caller in callers]
    assert all(value["same"] for value in values)
    if mode == "server":
        assert [stored(load, key)[0].etag for key in range(20)] == [value["etag"] for value in values]
