"""`disabled()`: the function always runs, nothing is read or stored, for whom it holds and as long as it holds."""

import asyncio
import contextvars
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from limits_rig import LONG, Cached, World, choose, made_world  # noqa: F401  # a fixture

from cachekit import MISS, Outcome, current_entry, disabled
from cachekit.context import switched_off
from cachekit.l1.table import core

MODES = ["l1", "server"]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert not switched_off()


def without(load: Cached, *args: Any, regions: tuple[str, ...] = ()) -> Any:
    """A call where the cache is switched off."""
    if load.world.is_async:

        async def caller() -> Any:
            with disabled(*regions):
                return await load.function(*args)

        return load.world.spawn(caller()).result(LONG)
    with disabled(*regions):
        return load.function(*args)


def within(world: World, job: Callable[[], Any]) -> Any:
    """Run something blocking where the cache is switched off."""
    with disabled():
        return job()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "options", [{}, {"ttl": lambda value: 60}, {"hard_timeout": LONG}], ids=["plain", "ttl", "limit"]
)
def test_nothing_is_read_or_stored(world: World, mode: str, options: Any) -> None:
    load = world.cached(world.service(mode), **options)
    assert [without(load, 1), without(load, 1)] == ["run 1", "run 2"]
    assert load(1) == "run 3", "nothing was stored"
    assert load(1) == "run 3"
    assert without(load, 1) == "run 4", "nothing is read"
    assert load(1) == "run 3"
    if mode == "server":
        other = world.cached(world.service(mode), like=load)
        assert other(1) == "run 3"


@pytest.mark.parametrize("mode", MODES)
def test_exceptions_fallbacks_and_stale_values_are_left_out_too(world: World, mode: str) -> None:
    options = {
        "negative_exceptions": {"LookupError": 60},
        "fallback": "nobody",
        "stale_ttl": 600,
        "swr": True,
        "ttl": 60,
    }
    load = world.cached(world.service(mode), **options)
    load(1)
    world.clock.advance(61)
    load.source.error = KeyError("x")
    for _ in range(2):
        with pytest.raises(KeyError):
            without(load, 1)
    assert load.source.runs == 3
    assert load.tally.stale == load.tally.fallbacks == 0
    world.settle()
    assert load.source.runs == 3, "no refresh was begun"


@choose("sync-native", "sync-pure")
@pytest.mark.parametrize("mode", MODES)
def test_every_way_into_the_cache_is_closed(world: World, mode: str) -> None:
    service = world.service(mode)
    load, region = world.cached(service), service.region()
    load(1)
    region.set("key", "old")
    key = load.function.key(1)
    with disabled():
        assert load.function.peek(1) is MISS
        assert load.function.refresh(1) == "run 2"
        assert load.function.using(allow_stale=True)(1) == "run 3"
        assert region.get("key", "none") == region.get(key, "none") == "none"
        assert region.get_many(["key", key]) == {}
        assert region.get_or_set("key", lambda: "made") == "made"
        assert region.remaining("key") is MISS
        assert region.touch("key", ttl=1) is False
        assert region.add("key", "added") is False
        assert region.add("other", "added") is False
    assert load(1) == "run 1"
    assert region.get("key") == "old"
    assert region.get("other") is None
    assert (region.remaining("key") or 0) > 100


@pytest.mark.parametrize("mode", MODES)
def test_what_is_set_removes_what_was_there(world: World, mode: str) -> None:
    service = world.service(mode)
    load, region = world.cached(service), service.region()
    load(1)
    load(2)
    region.set("key", "old")
    with disabled():
        region.set("key", "new")
        region.set_many({load.function.key(2): "new"})
        if world.is_async:

            async def put() -> None:
                with disabled():
                    await load.function.put("new", 1)

            world.spawn(put()).result(LONG)
        else:
            load.function.put("new", 1)
    assert region.get("key") is None
    assert load(1) == "run 3"
    assert load(2) == "run 4"
    if mode == "server":
        other = world.service(mode)
        assert other.region().get("key") is None


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", ["invalidate", "invalidate_all", "tag", "clear", "delete", "mark_stale"])
def test_invalidations_still_happen(world: World, mode: str, way: str) -> None:
    service = world.service(mode)
    load, region = world.cached(service, tags=["tag"]), service.region()
    load(1)

    def job() -> Outcome:
        return {
            "invalidate": lambda: blocking.invalidate(1),
            "mark_stale": lambda: blocking.mark_stale(1),
            "invalidate_all": lambda: blocking.invalidate_all(),
            "tag": lambda: region.invalidate_tags("tag"),
            "clear": lambda: region.clear(),
            "delete": lambda: region.delete(load.function.key(1)),
        }[way]()

    blocking = load.function.twin() if world.is_async else load.function
    assert within(world, job) is Outcome.DONE
    assert load(1) == "run 2"


@pytest.mark.parametrize("mode", MODES)
def test_it_holds_for_the_named_regions_alone(world: World, mode: str) -> None:
    service = world.service(mode)
    load = world.cached(service)
    load(1)
    assert without(load, 1, regions=("local", "minimal")) == "run 1"
    assert without(load, 1, regions=("local", "default")) == "run 2"
    with disabled("default"):
        assert service.region("default").get_or_set("key", lambda: 1) == 1
        assert service.region("default").get("key") is None
        service.region("minimal").set("key", 2)
        assert service.region("minimal").get("key") == 2


@choose("sync-native", "sync-pure")
def test_it_nests(world: World) -> None:
    load = world.cached(world.service())
    load(1)
    with disabled("local"):
        assert load(1) == "run 1"
        with disabled():
            assert load(1) == "run 2"
            with disabled("local"):
                assert load(1) == "run 3", "the one around holds for all"
            assert load(1) == "run 4"
        assert load(1) == "run 1"
        with disabled("default"), disabled("local"):
            assert load(1) == "run 5"
    assert load(1) == "run 1"
    same = disabled()
    with same:
        with same:
            assert load(1) == "run 6"
        assert load(1) == "run 7"
    assert load(1) == "run 1"


@choose("sync-native", "sync-pure")
def test_an_error_ends_it(world: World) -> None:
    load = world.cached(world.service())
    load(1)
    with pytest.raises(ZeroDivisionError), disabled():
        1 / 0
    assert load(1) == "run 1"


@pytest.mark.parametrize("mode", MODES)
def test_as_a_decorator(world: World, mode: str) -> None:
    load = world.cached(world.service(mode))
    load(1)
    if world.is_async:

        @disabled()
        async def caller(key: int) -> Any:
            """Says something."""
            return await load.function(key)

    else:

        @disabled()
        def caller(key: int) -> Any:
            """Says something."""
            return load.function(key)

    assert [world.run(caller, 1), world.run(caller, 1)] == ["run 2", "run 3"]
    assert load(1) == "run 1"
    assert (caller.__name__, caller.__doc__) == ("caller", "Says something.")
    assert asyncio.iscoroutinefunction(caller) == world.is_async


def test_without_parentheses_it_is_refused() -> None:
    with pytest.raises(TypeError, match=r"written @disabled\(\)"):

        @disabled  # type: ignore[arg-type]
        def caller() -> None:
            pass


# For whom it holds


@choose("sync-native", "sync-pure")
@pytest.mark.parametrize("mode", MODES)
def test_other_threads_go_on_with_the_cache(world: World, mode: str) -> None:
    load = world.cached(world.service(mode))
    load(1)
    with disabled():
        assert load.start(1).result(LONG) == "run 1"
        assert load.start(2).result(LONG) == "run 2"
        assert load.start(2).result(LONG) == "run 2"
        copied = contextvars.copy_context()
        assert load.start(1).result(LONG) == "run 1"
        assert world.start(copied.run, load.function, 1).result(LONG) == "run 3"
    assert world.start(copied.run, load.function, 1).result(LONG) == "run 1", "the block has ended"


@choose("async-native", "async-pure")
@pytest.mark.parametrize("mode", MODES)
def test_tasks_and_threads_that_a_task_starts_are_without_it(world: World, mode: str) -> None:
    service = world.service(mode)
    load = world.cached(service)
    load(1)
    ended, started = asyncio.Event(), asyncio.Event()

    async def late() -> Any:
        started.set()
        await ended.wait()
        return await load.function(1)

    async def main() -> list[Any]:
        with disabled():
            seen = [
                await asyncio.create_task(_call(load.function)),
                *(await asyncio.gather(load.function(1), load.function(1))),
            ]
            task = asyncio.create_task(late())
            await started.wait()
        ended.set()
        return [*seen, await task]

    values = world.spawn(main()).result(LONG)
    assert sorted(values[:3]) == ["run 2", "run 3", "run 4"]
    assert values[3] == "run 1", "the block has ended"


async def _call(function: Any) -> Any:
    return await function(1)


@choose("async-native", "async-pure")
def test_a_task_beside_goes_on_with_the_cache(world: World) -> None:
    load = world.cached(world.service())
    load(1)

    async def main() -> list[Any]:
        inside, over = asyncio.Event(), asyncio.Event()

        async def other() -> None:
            with disabled():
                inside.set()
                await over.wait()

        task = asyncio.create_task(other())
        await inside.wait()
        seen = [await load.function(1), await load.function(2), await load.function(2)]
        over.set()
        await task
        return seen

    assert world.spawn(main()).result(LONG) == ["run 1", "run 2", "run 2"]


@choose("sync-native", "sync-pure")
def test_to_thread_takes_it_along(world: World) -> None:
    load = world.cached(world.service())
    load(1)

    async def main() -> Any:
        with disabled():
            return await asyncio.to_thread(load.function, 1)

    assert asyncio.run(main()) == "run 2"
    assert load(1) == "run 1"


@choose("sync-native", "sync-pure")
def test_the_awaited_face_of_a_blocking_function_obeys(world: World) -> None:
    load = world.cached(world.service())
    load(1)
    twin = load.function.twin()

    async def main() -> list[Any]:
        with disabled():
            return [await twin(1), await twin.peek(1), await twin.using(allow_stale=True)(1)]

    assert asyncio.run(main()) == ["run 2", MISS, "run 3"]
    assert load(1) == "run 1"


def test_one_object_may_serve_many_tasks_and_threads(world: World) -> None:
    load, off = world.cached(world.service()), disabled()
    load(1)
    if world.is_async:

        async def caller(key: int) -> Any:
            with off:
                await asyncio.sleep(0.001 * (key % 5))
                return await load.function(1)

    else:
        meet = threading.Barrier(20)

        def caller(key: int) -> Any:
            with off:
                meet.wait(LONG)
                return load.function(1)

    callers = [world.start(caller, key) for key in range(20)]
    assert len({each.result(LONG) for each in callers}) == 20
    assert load(1) == "run 1"


@choose("sync-native", "sync-pure")
def test_it_may_end_in_another_context(world: World) -> None:
    """As where a fixture of a test begins and ends it."""
    load = world.cached(world.service())
    load(1)

    def steps() -> Iterator[Any]:
        with disabled():
            yield load(1)

    generator = steps()
    assert contextvars.copy_context().run(next, generator) == "run 2"
    assert contextvars.copy_context().run(list, generator) == []
    assert load(1) == "run 1"


# What a function sees


@pytest.mark.parametrize("mode", MODES)
def test_the_function_may_speak_of_its_entry_as_always(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), tags=["tag"])
    seen = []

    def inside() -> None:
        entry = current_entry()
        seen.append((entry.ttl, set(entry.tags), entry.etag, entry.stale_value))
        entry.ttl = 5
        entry.etag = "v1"
        entry.no_store()

    load.source.inside = inside
    without(load, 1)
    assert seen == [(300, {"tag"}, None, MISS)]


@choose("sync-native", "sync-pure")
@pytest.mark.parametrize("mode", MODES)
def test_functions_that_it_calls_are_without_the_cache_too(world: World, mode: str) -> None:
    service = world.service(mode)
    below = world.cached(service)
    outer = service.region().cached(lambda key: below.function(key), version=1)
    assert outer(1) == "run 1"
    with disabled():
        assert outer(1) == "run 2"
    assert outer(1) == "run 1"


@choose("sync-native", "sync-pure")
def test_a_load_may_switch_it_off_for_what_it_calls(world: World) -> None:
    service = world.service()
    below = world.cached(service)
    below(1)

    def outer(key: int) -> Any:
        with disabled():
            return below.function(key)

    cached = service.region().cached(outer, version=1)
    assert cached(1) == "run 2"
    assert cached(1) == "run 2"
    assert below(1) == "run 1"


# What it costs those who do not use it


@choose("sync-native", "sync-pure", "async-native", "async-pure")
@pytest.mark.parametrize("mode", MODES)
def test_afterwards_hits_are_not_looked_at_any_more(world: World, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    monkeypatch.setattr("cachekit.service.is_off", lambda region: looked.append(region) or False)
    load = world.cached(world.service(mode))
    load(1)
    load(1)
    assert looked == []
    with disabled("other"):
        load(1)
        assert looked[:1] == ["default"]
    looked.clear()
    for _ in range(5):
        load(1)
    assert looked == []


@choose("sync-native")
@pytest.mark.skipif(core is None, reason="there is no native core")
def test_afterwards_the_core_runs_loads_by_itself_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "greenlet", raising=False)  # other tests use it
    load = world.cached(world.service())
    running = []
    load.source.inside = lambda: running.append(core.running())
    load(1)
    with disabled():
        load(2)
        load.start(2).result(LONG)
    load(3)
    assert running == [1, 0, 0, 1]


def test_a_service_that_is_made_meanwhile_obeys(world: World) -> None:
    with disabled():
        load = world.cached(world.service())
        assert [without(load, 1), without(load, 1)] == ["run 1", "run 2"]
    assert [load(1), load(1)] == ["run 3", "run 3"]


FORKED = """
    import os, threading
    from cachekit import cache, disabled
    from cachekit.context import switched_off

    runs = []

    @cache(version=1)
    def load(key):
        runs.append(key)
        return len(runs)

    load(1)
    inside, over = threading.Event(), threading.Event()

    def elsewhere():
        with disabled():
            inside.set()
            over.wait(20)

    def child(expected):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if expected() else 2
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def again():
        load(1), load(1)
        return len(runs) == 2 and not switched_off()  # a child begins empty

    def still_off():
        load(1), load(1)
        return len(runs) == 3 and switched_off()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    assert inside.wait(20)
    codes = [child(again)]
    with disabled():
        codes.append(child(still_off))
    over.set()
    thread.join()
    print(codes)
"""


@pytest.mark.parametrize("pure", ["0", "1"])
def test_a_forked_child_has_what_its_own_thread_had(pure: str) -> None:
    environment = {**os.environ, "CACHEKIT_PURE": pure, "CACHEKIT_NATIVE": "0"}
    program = textwrap.dedent(FORKED)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout == "[0, 0]\n", done.stderr


def test_counters_do_not_count_in_the_store(world: World) -> None:
    service = world.service("server")
    tiers = service.tiers("default")
    service._tiers["default"] = tiers.but(tiers.spec.but(counters=True))
    region = service.region()
    region.incr("visits")
    with disabled():
        assert region.incr("visits", 5) == 5
        with pytest.raises(KeyError):
            region.incr("visits", create=False)
    assert region.incr("visits") == 2
