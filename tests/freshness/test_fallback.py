"""`fallback=`: after an error, and while L2 is away if the profile wants the source to be spared."""

from collections.abc import Iterator
from typing import Any

import pytest
from limits_rig import LONG, Cached, World, choose, inner, made_world  # noqa: F401  # a fixture

from cachekit import ConfigError
from cachekit.config.spec import FreshnessSpec
from cachekit.testing.servers import Server, start_server

NOWHERE = {"url": "redis://127.0.0.1:1/0", "budget": 0.25}
MODES = ["l1", "server"]


@pytest.fixture
def own_server() -> Iterator[Server]:
    """One that the test may stop."""
    with start_server("valkey") as server:
        yield server


def shedding(world: World, backend: Any = NOWHERE, **options: Any) -> Cached:
    return world.cached(world.service("server", backend=backend), outage="fallback", **options)


@pytest.mark.parametrize("fallback", ["nobody", None, ["nobody"]], ids=repr)
def test_while_l2_is_away_the_fallback_is_given_and_the_function_does_not_run(world: World, fallback: Any) -> None:
    load = shedding(world, fallback=fallback)
    assert [load(1), load(1)] == [fallback, fallback]
    assert load.source.runs == 0
    assert load.tally.fallbacks == 2


def test_the_fallback_may_be_made_of_the_arguments_and_is_never_stored(world: World) -> None:
    given = []
    load = shedding(world, fallback=lambda key: given.append(key) or f"guest {key}")
    assert [load(1), load(2), load(1)] == ["guest 1", "guest 2", "guest 1"]
    assert given == [1, 2, 1]
    assert load.do("peek", 1) is not None
    assert inner(load.function).info().currsize == 0


def test_each_caller_has_a_fallback_of_its_own(world: World) -> None:
    load = shedding(world, fallback={"names": []})
    load(1)["names"].append("mallory")
    assert load(1) == {"names": []}


def test_without_the_wish_to_spare_the_source_the_function_runs(world: World) -> None:
    load = world.cached(world.service("server", backend=NOWHERE), fallback="nobody")
    assert load(1) == "run 1"
    assert load.tally.fallbacks == 0


def test_a_region_without_l2_has_no_outage(world: World) -> None:
    load = world.cached(world.service("l1"), fallback="nobody", outage="fallback")
    assert load(1) == "run 1"


def test_who_skips_l2_does_not_meet_its_outage(world: World) -> None:
    load = shedding(world, fallback="nobody")
    assert load.using(skip_l2=True)(1) == "run 1"


@choose("sync-native", "async-native")
def test_after_the_outage_the_function_runs_again(world: World, own_server: Server) -> None:
    load = shedding(world, {"url": own_server.url, "budget": 1.0}, fallback="nobody")
    assert load(1) == "run 1"
    own_server.stop()
    assert load(1) == "run 1", "L1 still has it"
    assert load(2) == "nobody"
    own_server.start()
    for _ in range(100):
        world.clock.advance(40)  # the breaker tries again
        if load(2) == "run 2":
            break
    assert load.source.runs == 2


@choose("sync-native", "async-native", "sync-pure")
def test_a_stale_value_is_better_than_the_fallback(world: World, own_server: Server) -> None:
    backend = {"url": own_server.url, "budget": 1.0, "disconnected_ttl": 600.0}
    load = shedding(world, backend, fallback="nobody", ttl=1, stale_ttl=600)
    assert load(1) == "run 1"
    own_server.stop()
    world.clock.advance(2)
    assert load(1) == "run 1"
    assert load.using(allow_stale=False)(1) == "nobody"
    assert load.source.runs == 1
    assert (load.tally.stale, load.tally.fallbacks) == (1, 1)


def test_outage_needs_a_fallback(world: World) -> None:
    service = world.service("server", freshness=FreshnessSpec(outage="fallback"))
    needed = r"outage = 'fallback' needs something to give: fallback="
    with pytest.raises(ConfigError, match=needed):
        world.cached(service, outage="fallback")
    load = world.cached(service)
    with pytest.raises(ConfigError, match=f"load: {needed}"):
        load(1)


def test_a_fallback_that_is_awaited_is_refused(world: World) -> None:
    async def later(key: int) -> str:
        return "nobody"

    with pytest.raises(TypeError, match="fallback= is a value or a plain callable"):
        world.cached(world.service(), fallback=later)


# After an error


@pytest.mark.parametrize("mode", MODES)
def test_after_an_error_the_fallback_is_given_and_the_next_caller_asks_again(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), fallback="nobody")
    load.source.error = OSError("away")
    assert [load(1), load(1)] == ["nobody", "nobody"]
    assert (load.source.runs, load.tally.fallbacks, load.tally.load_errors) == (2, 2, 2)
    load.source.error = None
    assert load(1) == "run 3"


@pytest.mark.parametrize("mode", MODES)
def test_after_an_error_a_stale_value_comes_first(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), fallback="nobody", ttl=60, stale_ttl=60)
    load(1)
    world.clock.advance(61)
    load.source.error = OSError("away")
    assert load(1) == "run 1"
    world.clock.advance(61)
    assert load(1) == "nobody", "it is too old by now"


def test_an_exception_that_is_an_answer_reaches_the_caller(world: World) -> None:
    for options in ({"stale_unless": ["LookupError"]}, {"negative_exceptions": {"LookupError": 5}}):
        load = world.cached(world.service(), fallback="nobody", **options)
        load.source.error = KeyError("nobody")
        with pytest.raises(KeyError):
            load(1)
        assert load.tally.fallbacks == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_fallback_that_fails_is_the_callers_error_and_runs_nothing_again(world: World, mode: str) -> None:
    def broken(key: int) -> str:
        raise ZeroDivisionError

    load = world.cached(world.service(mode), fallback=broken)
    load.source.error = OSError("away")
    load.source.hold()
    callers = [load.start(1) for _ in range(5)]
    load.gather(5)
    load.source.release()
    assert [type(caller.exception(LONG)) for caller in callers] == [ZeroDivisionError] * 5
    assert load.source.runs == 1


@pytest.mark.parametrize("mode", MODES)
def test_who_waits_for_a_load_that_fails_has_the_fallback_too(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), fallback=["nobody"])
    load.source.error = OSError("away")
    load.source.hold()
    callers = [load.start(1) for _ in range(5)]
    load.gather(5)
    load.source.release()
    values = [caller.result(LONG) for caller in callers]
    assert values == [["nobody"]] * 5
    assert len({id(value) for value in values}) == 5
    assert load.source.runs == 1


def test_refresh_tells_of_the_error(world: World) -> None:
    load = world.cached(world.service(), fallback="nobody")
    load.source.error = OSError("away")
    with pytest.raises(OSError, match="away"):
        load.do("refresh", 1)
    with pytest.raises(OSError, match="away"):
        load.using(force_refresh=True)(1)
