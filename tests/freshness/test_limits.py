"""How long a caller waits for a load: what stands in when a limit is over, and that the load goes on behind."""

import asyncio
import contextvars
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import pytest
from limits_rig import LONG, Cached, Source, World, choose, inner, made_world  # noqa: F401  # a fixture

from cachekit import CacheLoadTimeout, current_entry
from cachekit.config.spec import FreshnessSpec
from cachekit.engine import aging
from cachekit.engine.aging import AUTO

MODES = ["l1", "server"]
LIMIT = 0.1
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


def timeouts(cached: Cached) -> dict[str, int]:
    return dict(cached.tally.timeouts)


@pytest.mark.parametrize("mode", MODES)
def test_a_soft_limit_without_anything_else_to_give_does_not_fire(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), soft_timeout=LIMIT)
    load.source.hold()
    caller = load.start(1)
    threading.Event().wait(3 * LIMIT)
    assert not caller.done()
    load.source.release()
    assert caller.result(LONG) == "run 1"
    assert timeouts(load) == {}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "limits", [{"soft_timeout": LIMIT}, {"hard_timeout": LIMIT}, {"soft_timeout": LIMIT, "hard_timeout": 60}]
)
def test_after_a_limit_the_stale_value_is_given_and_the_load_replaces_it(world: World, mode: str, limits: Any) -> None:
    load = world.cached(world.service(mode), ttl=60, stale_ttl=60, **limits)
    load.do("put", "run 0", 1)
    world.clock.advance(61)
    load.source.hold()
    assert load(1) == "run 0"
    assert timeouts(load) == {next(iter(limits)).partition("_")[0]: 1}
    assert load.tally.stale == 1
    assert load.source.runs == 1
    load.source.release()
    world.settle()
    assert load(1) == "run 1"
    assert load.source.runs == 1


@pytest.mark.timed
@choose("sync-native", "async-native")
@pytest.mark.parametrize("mode", MODES)
def test_a_soft_limit_gives_the_fallback_and_who_comes_later_does_not_wait_again(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), soft_timeout=0.5, fallback="none yet")
    load.source.hold()
    assert load(1) == "none yet"
    began = time.monotonic()
    assert load(1) == "none yet"
    assert time.monotonic() - began < 0.25, "late"
    assert load.source.runs == 1, "the load that is late already is not waited for again, nor doubled"
    load.source.release()
    world.settle()
    assert load(1) == "run 1"
    assert load.tally.fallbacks == 2


@choose("sync-native", "async-native")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("who", ["leads", "waits", "refreshes", "comes later"])
def test_who_has_nothing_to_give_any_more_waits_on(world: World, mode: str, who: str) -> None:
    """The stale value was invalidated while the caller waited for a fresh one."""
    load = world.cached(world.service(mode), ttl=60, stale_ttl=60, soft_timeout=4 * LIMIT)
    load.do("put", "run 0", 1)
    world.clock.advance(61)
    load.source.hold()
    callers = [world.start(load.function.refresh, 1) if who == "refreshes" else load.start(1)]
    world.until(lambda: load.source.runs == 1)
    if who == "waits":
        callers.append(load.start(1))
        load.gather(2)
    if who == "comes later":
        assert callers[0].result(LONG) == "run 0"
    load.do("invalidate", 1)
    if who == "comes later":
        callers[0] = load.start(1)
    threading.Event().wait(8 * LIMIT)
    assert not any(caller.done() for caller in callers)
    load.source.release()
    assert {caller.result(LONG) for caller in callers} <= {"run 1", "run 2"}
    assert timeouts(load) == ({"soft": 1} if who == "comes later" else {})


@choose("sync-native", "async-native")
@pytest.mark.parametrize("who", ["leads", "waits"])
def test_and_not_beyond_the_hard_limit(world: World, who: str) -> None:
    load = world.cached(world.service("l1"), ttl=60, stale_ttl=60, soft_timeout=4 * LIMIT, hard_timeout=6 * LIMIT)
    load.do("put", "run 0", 1)
    world.clock.advance(61)
    load.source.hold()
    callers = [load.start(1)]
    world.until(lambda: load.source.runs == 1)
    if who == "waits":
        callers.append(load.start(1))
        load.gather(2)
    load.do("invalidate", 1)
    assert {type(caller.exception(LONG)) for caller in callers} == {CacheLoadTimeout}
    assert timeouts(load) == {"hard": len(callers)}


@pytest.mark.parametrize("mode", MODES)
def test_a_hard_limit_without_anything_to_give_raises_and_the_load_goes_on(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), hard_timeout=LIMIT)
    load.source.hold()
    with pytest.raises(CacheLoadTimeout, match=r"load ran longer than hard_timeout = 0.1 s; it goes on") as raised:
        load(1)
    assert isinstance(raised.value, TimeoutError)
    assert timeouts(load) == {"hard": 1}
    load.source.release()
    world.settle()
    assert load(1) == "run 1"
    assert load.source.runs == 1
    assert not load.flights


@pytest.mark.parametrize("mode", MODES)
def test_each_of_several_waiters_has_its_own_limit(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), hard_timeout=LIMIT)
    load.source.hold()
    callers = [load.start(1) for _ in range(10)]
    assert all(isinstance(caller.exception(LONG), CacheLoadTimeout) for caller in callers)
    assert timeouts(load) == {"hard": 10}
    load.source.release()
    world.settle()
    assert load(1) == "run 1"


def test_a_timed_out_load_updates_l1_l2_and_other_processes(world: World) -> None:
    here, there = world.service("server"), world.service("server")
    source = Source()
    load = world.cached(here, source, ttl=60, stale_ttl=600, soft_timeout=LIMIT)
    other = world.cached(there, source, like=load, ttl=60, stale_ttl=600, soft_timeout=LIMIT)
    assert (load(1), other(1)) == ("run 1", "run 1")
    world.clock.advance(61)
    source.hold()
    assert load(1) == "run 1"
    source.release()
    world.settle()
    assert other(1) == "run 2"
    assert load(1) == "run 2"
    assert load.tally.l1_hits() >= 1, "it lies in L1"
    assert source.runs == 2
    world.clock.advance(4)
    assert load.using(skip_l1=True)(1) == "run 2", "and in L2"


@pytest.mark.parametrize("mode", MODES)
def test_a_load_that_fails_behind_is_counted_once_and_leaves_the_stale_value(
    world: World, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    load = world.cached(world.service(mode), ttl=60, stale_ttl=600, soft_timeout=LIMIT)
    load(1)
    world.clock.advance(61)
    load.source.hold()
    load.source.error = OSError("away")
    load.source.inside = shorter
    assert load(1) == "run 1"
    load.source.release()
    world.settle()
    tally = load.tally
    assert (tally.load_errors, tally.errors[("load", "OSError")]) == (1, 1)
    assert tally.stale == 1, "nobody got the value that would stand in for the error"
    assert load(1) == "run 1"
    assert load.source.runs == 2, "the source is left alone"
    assert len(caplog.records) == 1, "and nobody else learns of it"
    world.clock.advance(20)
    assert load(1) == "run 1", "what the function wanted of the value that it did not bring is not the stale one's"


@pytest.mark.parametrize("mode", MODES)
def test_a_fallback_is_counted_only_where_somebody_gets_it(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), soft_timeout=LIMIT, fallback=lambda key: key)
    load.source.hold()
    load.source.error = OSError("away")
    assert load(1) == 1
    load.source.release()
    world.settle()
    assert load.tally.fallbacks == 1


def shorter() -> None:
    current_entry().ttl = 5


@pytest.mark.parametrize("mode", MODES)
def test_what_the_function_asks_of_its_entry_holds_behind_too(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), ttl=60, hard_timeout=LIMIT)
    load.source.inside = shorter
    load.source.hold()
    with pytest.raises(CacheLoadTimeout):
        load(1)
    load.source.release()
    world.settle()
    world.clock.advance(2)
    assert load(1) == "run 1"
    world.clock.advance(4)
    with suppress(CacheLoadTimeout):  # on a busy machine
        load(1)
    world.settle()
    assert load(1) == "run 2"


@pytest.mark.parametrize("limits", [{}, {"hard_timeout": 60}], ids=["no limit", "limit"])
@pytest.mark.parametrize("mode", MODES)
@choose("async-native", "async-pure")
def test_of_ten_waiters_one_is_cancelled_and_nine_are_answered(world: World, mode: str, limits: Any) -> None:
    load = world.cached(world.service(mode), **limits)
    load.source.hold()
    callers = [load.start(1) for _ in range(10)]
    load.gather(10)
    callers[7].cancel()
    threading.Event().wait(0.01)
    load.source.release()
    assert [caller.result(LONG) for caller in callers if caller is not callers[7]] == ["run 1"] * 9
    assert load.source.runs == 1


@pytest.mark.parametrize("limits", [{}, {"hard_timeout": 60}], ids=["no limit", "limit"])
@pytest.mark.parametrize("mode", MODES)
@choose("async-native", "async-pure")
def test_a_client_that_disconnects_leaves_the_load_to_those_who_wait(world: World, mode: str, limits: Any) -> None:
    load = world.cached(world.service(mode), **limits)
    load.source.hold()
    leader = load.start(1)
    world.until(lambda: load.source.runs)
    callers = [load.start(1) for _ in range(3)]
    load.gather(4)
    leader.cancel()
    threading.Event().wait(0.01)
    load.source.release()
    assert [caller.result(LONG) for caller in callers] == ["run 1"] * 3
    assert (load.source.runs, load.source.ended) == (1, 1)


@choose("async-native")
@pytest.mark.parametrize("mode", MODES)
def test_a_load_stops_with_its_last_caller_only_if_it_is_not_to_be_completed(world: World, mode: str) -> None:
    for limits, ends in (({}, False), ({"hard_timeout": 60}, True)):
        load = world.cached(world.service(mode), **limits)
        load.source.hold()
        callers = [load.start(1) for _ in range(2)]
        load.gather(2)
        world.until(lambda load=load: load.source.runs)
        for caller in callers:
            caller.cancel()
        if not ends:
            world.until(lambda load=load: not load.flights)
        threading.Event().wait(0.02)
        load.source.release()
        world.settle()
        assert load.source.ended == ends
        assert load(1) == ("run 1" if ends else "run 2")


@choose("sync-native", "sync-pure")
def test_the_33rd_slow_load_runs_in_place_and_has_no_limit(world: World) -> None:
    load = world.cached(world.service(), hard_timeout=LIMIT)
    load.source.hold()
    late = [load.start(key) for key in range(32)]
    assert all(isinstance(caller.exception(LONG), CacheLoadTimeout) for caller in late)
    caller = load.start(32)
    world.until(lambda: load.source.runs == 33)
    threading.Event().wait(3 * LIMIT)
    assert not caller.done()
    assert load.source.threads[:32] == ["cachekit-load"] * 32
    assert load.source.threads[32].startswith("ThreadPoolExecutor")
    load.source.release()
    assert caller.result(LONG) == "run 33"
    world.settle()
    load.source.hold()
    with pytest.raises(CacheLoadTimeout):
        load(33)  # threads are free again
    load.source.release()


@pytest.mark.parametrize("mode", MODES)
def test_what_was_invalidated_meanwhile_is_not_kept_of_a_late_load(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), hard_timeout=LIMIT)
    load.source.hold()
    with pytest.raises(CacheLoadTimeout):
        load(1)
    load.do("invalidate", 1)
    later = load.start(1)
    world.until(lambda: load.source.runs == 2)  # which does not wait for what began before
    load.source.release()
    later.exception(LONG)  # or it was late as well
    world.settle()
    assert load(1) == "run 2"
    if mode == "server":
        assert load.using(skip_l1=True)(1) == "run 2"


@pytest.mark.parametrize("mode", MODES)
def test_a_factory_of_a_region_has_the_limits_of_its_profile(world: World, mode: str) -> None:
    source = Source()
    world.sources.append(source)
    region = world.service(mode, freshness=FreshnessSpec(hard_timeout=LIMIT)).region()

    def get() -> Any:
        if world.is_async:
            return world.spawn(region.aget_or_set(1, lambda: source.aload(1))).result(LONG)
        return region.get_or_set(1, lambda: source.load(1))

    source.hold()
    with pytest.raises(CacheLoadTimeout, match="the factory in region 'default' ran longer than hard_timeout"):
        get()
    source.release()
    world.settle()
    assert get() == "run 1"


@pytest.mark.parametrize("mode", MODES)
def test_an_automatic_limit_is_twice_what_nearly_all_loads_take(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), soft_timeout="auto", fallback="none yet")
    for key in range(19):
        load(key)
    load.source.hold()
    caller = load.start(100)
    threading.Event().wait(3 * AUTO[0])
    assert not caller.done(), "of too few loads nothing is known"
    load.source.release()
    assert caller.result(LONG) == "run 20"
    load.source.hold()
    assert load(101) == "none yet"
    load.source.release()
    world.settle()


@choose("sync-native")
@pytest.mark.parametrize(("takes", "limit"), [(0.001, AUTO[0]), (0.3, 0.6), (30, AUTO[1])])
def test_an_automatic_limit_is_neither_very_short_nor_very_long(world: World, takes: float, limit: float) -> None:
    load = world.cached(world.service(), soft_timeout="auto", hard_timeout=60, fallback="none yet")
    load.source.inside = lambda: world.clock.advance(takes)
    function = inner(load.function)
    call, port = function.call(function.at(), (1,), {}), load.service.sync_port
    assert aging.limit_of(call, port) == (60, "hard")
    for key in range(40):
        load.function.refresh(key)
    assert aging.limit_of(call, port) == (pytest.approx(limit, rel=0.25), "soft")


# Functions inside of functions


@pytest.mark.parametrize("mode", MODES)
def test_functions_with_limits_inside_of_each_other_do_not_block(world: World, mode: str) -> None:
    service = world.service(mode)
    inner = Source(lambda run: run)
    functions: list[Any] = [world.cached(service, inner, hard_timeout=LONG).function]
    for _ in range(40):  # deeper than there may be threads
        below = functions[-1]
        if world.is_async:

            async def next_one(key: int, below: Any = below) -> Any:
                return 1 + await below(key)

        else:

            def next_one(key: int, below: Any = below) -> Any:
                return 1 + below(key)

        options = {"version": len(functions), "ignore": ("below",), "hard_timeout": LONG}
        functions.append(service.region().cached(next_one, **options))
    assert world.run(functions[-1], 1) == 41
    assert inner.runs == 1


class Circle:
    """a -> b -> a, once."""

    def __init__(self, world: World, service: Any, **options: Any) -> None:
        self.depth = 0
        self.options = {"early_refresh": "off", **options}
        region = service.region()
        if world.is_async:

            async def a(key: int) -> str:
                self.depth += 1
                return "a" if self.depth > 1 else "a" + await self.b(key)

            async def b(key: int) -> str:
                return "b" + await self.a(key)

        else:

            def a(key: int) -> str:
                self.depth += 1
                return "a" if self.depth > 1 else "a" + self.b(key)

            def b(key: int) -> str:
                return "b" + self.a(key)

        self.a = region.cached(a, version=1, **self.options)
        self.b = region.cached(b, version=1, **self.options)


@pytest.mark.parametrize("mode", MODES)
def test_a_circle_through_worker_threads_is_computed(world: World, mode: str) -> None:
    circle = Circle(world, world.service(mode), hard_timeout=LONG)
    assert world.run(circle.a, 1) == "aba"


@choose("sync-native", "sync-pure")
@pytest.mark.parametrize("way", ["call", "refresh"])
def test_a_circle_from_a_load_of_the_core_through_a_worker_thread_is_computed(world: World, way: str) -> None:
    service, depth = world.service(), [0]

    def a(key: int) -> str:
        depth[0] += 1
        return "a" if depth[0] > 1 else "a" + (b(key) if way == "call" else b.refresh(key))

    def b(key: int) -> str:
        return "b" + a(key)

    a = service.region().cached(a, version=1, early_refresh="off")
    b = service.region().cached(b, version=1, hard_timeout=LONG / 5)
    assert world.start(a, 1).result(LONG) == "aba"


@choose("sync-native", "sync-pure", "async-native")
def test_two_callers_who_meet_in_a_circle_are_both_answered(world: World) -> None:
    service, both = world.service(), threading.Barrier(2)
    region = service.region()

    if world.is_async:
        meet = asyncio.Barrier(2)

        async def a(key: int) -> str:
            if not await first():
                return "a"
            return "a" + await b(key)

        async def b(key: int) -> str:
            if not await first():
                return "b"
            return "b" + await a(key)

        async def first() -> bool:
            if not started:
                return False
            started.pop()
            await meet.wait()
            return True

    else:

        def a(key: int) -> str:
            return "a" + b(key) if first() else "a"

        def b(key: int) -> str:
            return "b" + a(key) if first() else "b"

        def first() -> bool:
            try:
                started.pop()
            except IndexError:
                return False
            both.wait(LONG)
            return True

    started = [1, 2]
    a = region.cached(a, version=1, hard_timeout=LONG)
    b = region.cached(b, version=1, hard_timeout=LONG)
    callers = [world.start(a, 1), world.start(b, 1)]
    assert {caller.result(LONG)[0] for caller in callers} == {"a", "b"}


# Worker threads


colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


@pytest.mark.parametrize("mode", MODES)
def test_context_variables_reach_the_function(world: World, mode: str) -> None:
    load = world.cached(world.service(mode), hard_timeout=LONG)
    load.source.inside = colour.get

    def caller() -> "Future[Any] | Any":
        colour.set("red")
        return load.function(1)

    async def acaller() -> Any:
        colour.set("red")
        return await load.function(1)

    value = world.spawn(acaller()).result(LONG) if world.is_async else contextvars.copy_context().run(caller)
    assert value == "red"
    assert colour.get() == "none"


@choose("sync-native", "sync-pure")
def test_an_interruption_in_the_function_reaches_the_caller(world: World) -> None:
    load = world.cached(world.service(), hard_timeout=LONG)
    load.source.error = SystemExit(3)
    with pytest.raises(SystemExit):
        load(1)
    load.source.error = None
    assert load(1) == "run 2"


@choose("sync-native", "sync-pure")
def test_a_timeout_error_of_the_function_is_the_callers(world: World) -> None:
    load = world.cached(world.service(), hard_timeout=LONG)
    load.source.error = TimeoutError("of the source")
    with pytest.raises(TimeoutError, match="of the source"):
        load(1)
    assert timeouts(load) == {}


DJANGO = """
    import asyncio, django, threading
    from django.conf import settings
    settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "FILE"}})
    django.setup()
    from django.db import connection
    from cachekit import cache, CacheLoadTimeout
    from cachekit.process import default_service
    import cachekit

    opened, hold = [], threading.Event()

    def query(key):
        with connection.cursor() as cursor:
            cursor.execute("select 1")
            opened.append((threading.current_thread().name, connection.connection, connection))
            return cursor.fetchone()[0]

    limited = cache(hard_timeout=20, version=1)(query)
    slow = cache(hard_timeout=0.05, version=2)(lambda key: (hold.wait(20), query(key))[1])
    awaited = cache(version=3)(lambda key: query(key)).twin()

    def left_open():
        import sqlite3
        count = 0
        for name, raw, _ in opened:
            try:
                raw.execute("select 1")
                count += 1
            except sqlite3.ProgrammingError as error:
                assert "closed" in str(error), error
        return count

    import sqlite3
    real = sqlite3.connect
    from django.db.backends.sqlite3.base import Database
    def connect(*args, **kwargs):
        kwargs["check_same_thread"] = False
        return real(*args, **kwargs)
    Database.connect = connect

    assert limited(1) == 1
    try:
        slow(1)
    except CacheLoadTimeout:
        hold.set()
    assert default_service().workers.settle(20)
    assert len(opened) == 2 and {name for name, *_ in opened} == {"cachekit-load"}, opened
    assert left_open() == 0, opened
    assert asyncio.run(awaited(1)) == 1
    assert len(opened) == 3
    assert left_open() == 0, opened
    print("closed")
"""


def test_database_connections_of_worker_threads_are_closed(tmp_path: Any) -> None:
    program = textwrap.dedent(DJANGO).replace("FILE", str(tmp_path / "db.sqlite3"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "closed\n", done.stderr


def test_a_django_that_is_imported_and_not_configured_has_no_connections_to_close() -> None:
    program = "import django.db\nfrom cachekit.engine.workers import let_go\nlet_go(), let_go(shared=True)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
