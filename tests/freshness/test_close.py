"""`close` and `aclose`: what is queued goes first, what runs may end, nothing is left, and a later use begins anew."""

import asyncio
import gc
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cachekit import MISS, Outcome, aclose, cache, close
from cachekit.config.spec import BackendSpec, BreakerSpec, FreshnessSpec, ServiceSpec, built_in_regions
from cachekit.engine import workers
from cachekit.process import replace_default
from cachekit.service import Service
from cachekit.testing import FaultProxy, FrozenClock
from cachekit.testing.servers import HOST, Server, free_port, start_server

numbers = itertools.count()
MakeService = Callable[..., Service]
SWR = {"stale_ttl": 3600.0, "swr": True}
SOON = 0.5  # seconds that are far less than a timeout of `close`, and enough for a busy machine


@pytest.fixture
def make() -> Iterator[MakeService]:
    """``make(url, clock, **freshness)``: the default service; without a URL it has no server."""
    made: list[Service] = []
    before: list[Service | None] = []

    def made_of(url: str = "", clock: Any = None, budget: float = 10.0, **freshness: Any) -> Service:
        fresh = FreshnessSpec(**{"early_refresh": "off", **freshness})
        region = built_in_regions()["default"].but(
            name="users", ttl=60.0, jitter=0.0, freshness=fresh, backend="default" if url else "none"
        )
        breaker = BreakerSpec(failures=1000, ratio=1.0)
        backend = BackendSpec(url=url, budget=budget, adaptive=False, breaker=breaker)
        spec = ServiceSpec(
            namespace=f"close{next(numbers)}",
            namespace_given=True,
            backends={"default": backend} if url else {},
            regions={**built_in_regions(), "users": region},
        )
        service = Service(spec, clock=clock)
        made.append(service)
        before.append(replace_default(service))
        return service

    yield made_of
    if before:
        replace_default(before[0])
    for service in made:
        service.close(0.1)


class Source:
    """What the functions read. Loads wait at its door, if it is shut."""

    def __init__(self) -> None:
        self.value = "old"
        self.loads = 0
        self.inside = 0
        self.door = threading.Event()
        self.door.set()

    def read(self, *_: Any) -> str:
        self.loads += 1
        self.inside += 1
        value = self.value
        assert self.door.wait(20)
        self.inside -= 1
        return value

    async def aread(self, *_: Any) -> str:
        self.loads += 1
        self.inside += 1
        value = self.value
        while not self.door.is_set():
            await asyncio.sleep(0.002)
        self.inside -= 1
        return value

    def begun(self, loads: int = 1) -> None:
        deadline = time.monotonic() + 10
        while self.inside < loads:
            assert time.monotonic() < deadline
            time.sleep(0.002)


@pytest.fixture
def source() -> Iterator[Source]:
    made = Source()
    yield made
    made.door.set()


def cached(source: Source) -> Any:
    @cache(profile="users", version=next(numbers))
    def load(key: int) -> str:
        return source.read()

    return load


def acached(source: Source) -> Any:
    @cache(profile="users", version=next(numbers))
    async def load(key: int) -> str:
        return await source.aread()

    return load


def keys(server: Server, service: Service, kind: str) -> list[bytes]:
    """Of values (v) or leases (l), as the server has them."""
    return list(server.command("KEYS", f"{service.spec.namespace}:{kind}:*"))


def stored(server: Server, service: Service) -> bytes:
    (key,) = keys(server, service, "v")
    return bytes(server.command("GET", key))


def in_background(function: Callable[[], Any]) -> "tuple[threading.Thread, list[float]]":
    """A thread that runs it, and how long it took, once it has ended."""
    took: list[float] = []

    def run() -> None:
        began = time.monotonic()
        function()
        took.append(time.monotonic() - began)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, took


class Running:
    """An event loop in another thread."""

    def __enter__(self) -> "Running":
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.do(aclose(1)).result(10)  # its connections belong to it
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop)


# What runs may end


@pytest.fixture(params=["refresh", "limited", "foreground", "refresh as a task", "foreground as a task"])
def begin(request: pytest.FixtureRequest, make: MakeService, cachekit_server: Server, source: Source) -> Iterator[Any]:
    """Have a load run for a while, in a thread or in an event loop of another thread."""
    kind, clock = request.param, FrozenClock()
    with ThreadPoolExecutor(1) as pool, Running() as running:

        def begun(source: Source) -> Service:
            service = make(cachekit_server.url, clock, **SWR, **({"hard_timeout": 0.01} if kind == "limited" else {}))
            if "task" in kind:
                aload = acached(source)
                ask = lambda: running.do(aload(1))  # noqa: E731
            else:
                load = cached(source)
                ask = lambda: pool.submit(load, 1)  # noqa: E731
            if "refresh" in kind:
                assert ask().result(10) == "old"
                clock.advance(61)
                source.value = "new"
                source.door.clear()
                assert ask().result(10) == "old"
            else:
                source.value = "new"
                source.door.clear()
                ask()
            source.begun()
            return service

        yield begun
        source.door.set()


def test_what_runs_ends_before_the_connections_close(begin: Any, source: Source, cachekit_server: Server) -> None:
    service = begin(source)
    assert len(keys(cachekit_server, service, "l")) == 1
    closing, took = in_background(lambda: service.close(10))
    time.sleep(0.3)
    assert not took, "it waits"
    source.door.set()
    closing.join()
    assert took[0] < 5
    assert keys(cachekit_server, service, "l") == []
    assert b"new" in stored(cachekit_server, service)


@pytest.mark.timed
def test_what_runs_too_long_is_left_alone_and_its_lease_given_back(
    begin: Any, source: Source, cachekit_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    service = begin(source)
    before = keys(cachekit_server, service, "v") and stored(cachekit_server, service)
    began = time.monotonic()
    service.close(0.2)
    took = time.monotonic() - began
    assert took >= 0.2
    assert took < 0.2 + SOON, "late"
    assert "still runs after 0.2 s" in caplog.text
    assert keys(cachekit_server, service, "l") == []
    source.door.set()
    deadline = time.monotonic() + 5
    while service.flights.running or service.workers.running:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    after = keys(cachekit_server, service, "v") and stored(cachekit_server, service)
    assert before == after, "nobody stores without a lease"


async def test_aclose_waits_for_loads_in_threads_and_other_loops(
    begin: Any, source: Source, cachekit_server: Server
) -> None:
    service = begin(source)
    closing = asyncio.create_task(service.aclose(10))
    await asyncio.sleep(0.2)
    assert not closing.done()
    source.door.set()
    await closing
    assert keys(cachekit_server, service, "l") == []
    assert b"new" in stored(cachekit_server, service)


@pytest.mark.parametrize("patient", [True, False])
async def test_aclose_waits_for_tasks_of_its_loop(
    make: MakeService, source: Source, cachekit_server: Server, patient: bool
) -> None:
    clock = FrozenClock()
    service, load = make(cachekit_server.url, clock, **SWR), acached(source)
    assert await load(1) == "old"
    clock.advance(61)
    source.door.clear()
    source.value = "new"
    assert await load(1) == "old"
    while not source.inside:
        await asyncio.sleep(0.002)
    closing = asyncio.create_task(service.aclose(10 if patient else 0.2))
    await asyncio.sleep(0.1)
    assert not closing.done()
    if patient:
        source.door.set()
    await asyncio.wait_for(closing, 5)
    assert keys(cachekit_server, service, "l") == []
    assert (b"new" in stored(cachekit_server, service)) is patient
    source.door.set()
    assert await service.async_port.wait_for_tasks(5)
    assert (b"new" in stored(cachekit_server, service)) is patient


def test_a_loop_that_ends_during_a_refresh_gives_its_lease_back(
    make: MakeService, source: Source, cachekit_server: Server
) -> None:
    """`asyncio.run` cancels what still runs."""
    clock = FrozenClock()
    service, load = make(cachekit_server.url, clock, **SWR), acached(source)

    async def main() -> None:
        assert await load(1) == "old"
        clock.advance(61)
        source.door.clear()
        assert await load(1) == "old"
        while not source.inside:
            await asyncio.sleep(0.002)
        assert len(keys(cachekit_server, service, "l")) == 1

    asyncio.run(main())
    assert keys(cachekit_server, service, "l") == []
    assert (len(service.async_port.tasks), service.async_port.refreshing, len(service.flights)) == (0, 0, 0)


@pytest.mark.timed
@pytest.mark.parametrize("limit", [None, 10.0])
def test_a_load_that_closes_does_not_wait_for_itself(make: MakeService, limit: float | None) -> None:
    service = make(hard_timeout=limit, **SWR)

    @cache(profile="users", version=next(numbers))
    def load(key: int) -> str:
        close(5)
        return "value"

    @cache(profile="users", version=next(numbers))
    async def aload(key: int) -> str:
        close(5)
        await aclose(5)
        return "value"

    began = time.monotonic()
    assert load(1) == "value"
    assert asyncio.run(aload(1)) == "value"
    assert time.monotonic() - began < 4, "late"
    assert len(service.flights) == 0


@pytest.mark.timed
async def test_a_blocking_close_does_not_wait_for_tasks_of_the_loop_that_it_holds_up(
    make: MakeService, source: Source, cachekit_server: Server
) -> None:
    """They could not go on meanwhile."""
    service, load = make(cachekit_server.url, **SWR), acached(source)
    source.door.clear()
    loading = asyncio.create_task(load(1))
    while not source.inside:
        await asyncio.sleep(0.002)
    began = time.monotonic()
    service.close(5)
    assert time.monotonic() - began < 3, "late"
    assert keys(cachekit_server, service, "l") == []
    source.door.set()
    assert await loading == "old"
    await service.aclose()


# The order


def test_queued_invalidations_go_before_anything_is_waited_for(
    make: MakeService, source: Source, cachekit_server: Server
) -> None:
    clock = FrozenClock()
    with FaultProxy(HOST, cachekit_server.port) as proxy:
        service, load = make(proxy.url, clock, **SWR), cached(source)
        assert load(1) == load(2) == "old"
        clock.advance(61)
        source.door.clear()
        assert load(2) == "old"
        source.begun()
        proxy.refuse()
        assert load.invalidate(1) is Outcome.QUEUED
        assert len(keys(cachekit_server, service, "v")) == 2
        proxy.pass_()
        closing, took = in_background(lambda: service.close(10))
        deadline = time.monotonic() + 5
        while len(keys(cachekit_server, service, "v")) == 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not took, "the refresh has not ended"
        source.door.set()
        closing.join()
        assert keys(cachekit_server, service, "l") == []


async def test_aclose_delivers_before_it_waits(make: MakeService, source: Source, cachekit_server: Server) -> None:
    clock = FrozenClock()
    with FaultProxy(HOST, cachekit_server.port) as proxy:
        service, load = make(proxy.url, clock, **SWR), acached(source)
        assert await load(1) == await load(2) == "old"
        clock.advance(61)
        source.door.clear()
        assert await load(2) == "old"
        while not source.inside:
            await asyncio.sleep(0.002)
        proxy.refuse()
        assert await load.invalidate(1) is Outcome.QUEUED
        proxy.pass_()
        closing = asyncio.create_task(service.aclose(10))
        deadline = time.monotonic() + 5
        while len(keys(cachekit_server, service, "v")) == 2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert not closing.done()
        source.door.set()
        await closing


def test_what_loads_invalidated_while_they_were_waited_for_is_delivered_too(
    make: MakeService, source: Source, cachekit_server: Server
) -> None:
    clock = FrozenClock()
    with FaultProxy(HOST, cachekit_server.port) as proxy:
        service, load = make(proxy.url, clock, **SWR), cached(source)
        assert load(1) == "old"

        @cache(profile="local", version=next(numbers), stale_ttl="1h", swr=True, ttl="1m", jitter=0)
        def writes(key: int) -> str:  # without L2, where its own store would have the invalidation delivered
            source.read()
            if source.loads > 2:
                proxy.refuse()
                assert load.invalidate(1) is Outcome.QUEUED
                proxy.pass_()
            return "written"

        assert writes(1) == "written"
        clock.advance(61)
        source.door.clear()
        assert writes(1) == "written"
        source.begun()
        closing, _ = in_background(lambda: service.close(10))
        time.sleep(0.1)
        source.door.set()
        closing.join()
        assert keys(cachekit_server, service, "v") == []


def test_refreshes_that_wait_are_dropped(make: MakeService, source: Source, caplog: pytest.LogCaptureFixture) -> None:
    clock = FrozenClock()
    service, load = make(clock=clock, **SWR), cached(source)
    for key in range(20):
        load(key)
    clock.advance(61)
    source.door.clear()
    for key in range(20):
        assert load(key) == "old"
    source.begun(workers.REFRESHERS)
    assert service.workers.waiting == 20 - workers.REFRESHERS
    service.close(0.1)
    assert service.workers.waiting == 0
    source.door.set()
    assert service.workers.settle(5)
    assert source.loads == 20 + workers.REFRESHERS
    for key in range(20):
        load(key)
    assert service.workers.settle(5)
    assert source.loads == 20 + 20, "those that were dropped are begun by the next who ask"


@pytest.mark.timed
def test_the_timeout_is_for_all_that_is_waited_for(make: MakeService, source: Source, cachekit_server: Server) -> None:
    """A server that does not answer takes its budget from it."""
    clock = FrozenClock()
    with FaultProxy(HOST, cachekit_server.port) as proxy:
        service, load = make(proxy.url, clock, **SWR), cached(source)
        assert load(1) == load(2) == "old"
        clock.advance(61)
        source.door.clear()
        assert load(2) == "old"
        source.begun()
        proxy.refuse()
        assert load.invalidate(1) is Outcome.QUEUED
        proxy.pass_()
        proxy.latency(0.3)
        began = time.monotonic()
        service.close(0.6)
        assert time.monotonic() - began < 0.6 + 0.3 * 4 + SOON, "late"


@pytest.mark.timed
def test_a_server_that_hangs_costs_one_budget(make: MakeService, source: Source, cachekit_server: Server) -> None:
    """However many leases there are to be given back, and though it never answers."""
    clock = FrozenClock()
    with FaultProxy(HOST, cachekit_server.port) as proxy:
        service, load = make(proxy.url, clock, budget=0.5, **SWR), cached(source)
        for key in range(workers.REFRESHERS):
            assert load(key) == "old"
        clock.advance(61)
        source.door.clear()
        for key in range(workers.REFRESHERS):
            assert load(key) == "old"
        source.begun(workers.REFRESHERS)
        proxy.hang()
        began = time.monotonic()
        service.close(0.1)
        assert time.monotonic() - began < 0.1 + 0.5 + SOON, "late"
        assert not service._remotes["default"].leases.any, "nobody renews them"


# Again, and without any use


def connections(server: Server) -> int:
    info = bytes(server.command("INFO", "stats")).decode()
    return int(info.partition("total_connections_received:")[2].partition("\r")[0])


@pytest.mark.timed
def test_a_second_close_does_nothing(make: MakeService, source: Source, own_store: Server) -> None:
    service, load = make(own_store.url, **SWR), cached(source)
    assert load(1) == "old"
    service.close()
    before = connections(own_store)
    began = time.monotonic()
    for _ in range(100):
        service.close()
        asyncio.run(service.aclose())
    assert time.monotonic() - began < 2, "late"
    assert connections(own_store) == before + 1, "the one that asks for this"
    assert service._tick is None


@pytest.mark.timed
def test_a_close_without_any_use_is_instant(make: MakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is connected, started or waited for."""
    service = make(f"redis://127.0.0.1:{free_port()}/0", **SWR)
    monkeypatch.setattr(service, "keep_ticking", lambda: pytest.fail("it starts what it is to stop"))
    threads = threading.enumerate()
    began = time.monotonic()
    service.close()
    asyncio.run(service.aclose())
    assert time.monotonic() - began < SOON, "late"
    assert threading.enumerate() == threads
    assert service._tick is None
    assert all(remote._faces is None for remote in service._remotes.values())


@pytest.fixture
def own_store() -> Iterator[Server]:
    """A server with no other clients."""
    with start_server() as server:
        yield server


@pytest.mark.parametrize("blocking", [True, False], ids=["close", "aclose"])
def test_a_use_after_the_close_begins_anew(
    make: MakeService, source: Source, cachekit_server: Server, blocking: bool
) -> None:
    """Refreshes, limits, the tick, and hearing of changes: in threads as in tasks."""
    service = make(cachekit_server.url, **SWR, hard_timeout=10.0)
    load, aload = cached(source), acached(source)

    def finish() -> None:
        service.close() if blocking else asyncio.run(service.aclose())

    async def main() -> list[str]:
        first = await aload(1)
        assert (await aload.mark_stale(1)) is Outcome.DONE
        stale = await aload(1)
        assert await service.async_port.wait_for_tasks(5)
        return [first, stale, await aload(1)]

    for turn in range(3):
        source.value = f"{turn}"
        load.invalidate(1)
        asyncio.run(aload.invalidate(1))
        assert load(1) == source.value
        source.value += "+"
        assert load.mark_stale(1) is Outcome.DONE
        assert load(1) == f"{turn}"
        assert service.workers.settle(5)
        assert load(1) == f"{turn}+"
        source.value = f"{turn}"
        assert service._tick is not None
        deadline = time.monotonic() + 10
        while service.health().backends["default"].coherence != "tracking":
            assert time.monotonic() < deadline
            load(2)
            time.sleep(0.01)
        assert asyncio.run(main())[0] == f"{turn}"
        finish()
        assert service._tick is None
    assert keys(cachekit_server, service, "l") == []


def test_several_close_at_the_same_time(make: MakeService, source: Source, cachekit_server: Server) -> None:
    clock = FrozenClock()
    service, load = make(cachekit_server.url, clock, **SWR), cached(source)
    assert load(1) == "old"
    clock.advance(61)
    source.door.clear()
    load(1)
    source.begun()
    closing = [in_background(lambda: service.close(10)) for _ in range(4)]
    time.sleep(0.1)
    source.door.set()
    for thread, took in closing:
        thread.join(5)
        assert took
    assert keys(cachekit_server, service, "l") == []


def test_a_lease_that_may_have_been_granted_is_given_back(make: MakeService, cachekit_server: Server) -> None:
    """It was asked for, and no answer came."""
    clock = FrozenClock()
    with FaultProxy(HOST, cachekit_server.port) as proxy:
        service = make(proxy.url, clock)
        remote = service.remote("default")
        assert remote is not None

        @cache(profile="users", version=next(numbers))
        def load(key: int) -> str:
            return "value"

        load(1)
        key = keys(cachekit_server, service, "v")[0].decode()
        lease = key.replace(":v:", ":l:")
        cachekit_server.command("SET", lease, b"token", "PX", 60_000)
        remote.leases.unsure(key, b"token", 60_000, clock.now())
        service.close()
        assert keys(cachekit_server, service, "l") == []


# Nothing is left


def ours(before: list[threading.Thread]) -> list[str]:
    """The threads of a service that were not there before; those of other tests may be, or end meanwhile."""
    names = [thread.name for thread in threading.enumerate() if thread not in before]
    return [name for name in names if name.startswith("cachekit-")]


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())


ROUNDS, EACH = 100, 1_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "asynchronous", [pytest.param(False, marks=pytest.mark.nightly), True], ids=["threads", "tasks"]
)
def test_100_000_refreshes_leave_nothing(
    make: MakeService, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    monkeypatch.setattr(workers, "IDLE", 0.2)
    clock, before = FrozenClock(), threading.enumerate()
    service = make(clock=clock, **SWR)
    loads = 0

    @cache(profile="users", version=next(numbers))
    def load(key: int) -> int:
        nonlocal loads
        loads += 1
        return key

    @cache(profile="users", version=next(numbers))
    async def aload(key: int) -> int:
        nonlocal loads
        loads += 1
        return key

    function = aload if asynchronous else load
    counts = []

    async def round_of_tasks() -> None:
        for key in range(EACH):
            assert await aload(key) == key
        assert await service.async_port.wait_for_tasks(30)

    with asyncio.Runner() as runner:
        for number in range(ROUNDS + 1):
            if asynchronous:
                runner.run(round_of_tasks())
            else:
                for key in range(EACH):
                    assert load(key) == key
                assert service.workers.settle(30)
            clock.advance(61)
            if number in (ROUNDS // 5, ROUNDS):
                counts.append((objects(), sys.getallocatedblocks()))
    tally = function.__cachekit__._function.at().tally
    assert loads == EACH * (ROUNDS + 1)
    assert tally.refreshes == {("swr", "stored"): EACH * ROUNDS}
    assert tally.stale == EACH * ROUNDS
    (early_objects, early_blocks), (late_objects, late_blocks) = counts
    assert late_objects - early_objects < 2_000, counts
    # what waits for the next pump of the metrics has a bound of its own: three times 4096 floats
    assert late_blocks - early_blocks < 20_000, counts
    assert len(service.flights) == 0
    if asynchronous:
        assert (len(service.async_port.tasks), service.async_port.refreshing) == (0, 0)
    time.sleep(0.5)
    assert ours(before) == []


@pytest.mark.parametrize("asynchronous", [False, True], ids=["threads", "tasks"])
def test_refreshes_leave_no_lease(
    make: MakeService, source: Source, cachekit_server: Server, asynchronous: bool
) -> None:
    clock = FrozenClock()
    service = make(cachekit_server.url, clock, **SWR)
    load, aload = cached(source), acached(source)

    async def ask() -> None:
        for key in range(300):
            await aload(key)
        assert await service.async_port.wait_for_tasks(30)

    for _ in range(3):
        if asynchronous:
            asyncio.run(ask())
        else:
            for key in range(300):
                load(key)
            assert service.workers.settle(30)
        clock.advance(61)
    assert source.loads == 900
    remote = service.remote("default")
    assert remote is not None
    assert not remote.leases.any
    assert keys(cachekit_server, service, "l") == []


def test_threads_without_work_end_by_themselves(
    make: MakeService, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "IDLE", 0.1)
    clock = FrozenClock()
    service, load = make(clock=clock, **SWR), cached(source)
    before = threading.enumerate()
    for _ in range(2):
        for key in range(10):
            load(key)
        clock.advance(61)
    assert load(1) == "old"
    assert ours(before)
    assert service.workers.settle(5)
    time.sleep(0.5)
    assert ours(before) == []
    clock.advance(61)
    assert load(1) == "old"
    assert service.workers.settle(5), "the next refresh starts a thread again"
    assert load.peek(1) is not MISS
