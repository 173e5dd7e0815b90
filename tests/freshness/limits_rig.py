"""Cached functions whose source can be held, changed and made to fail; blocking or awaited, on either twin.

A test is written once: `World.cached` makes a blocking or an async function of a `Source`, and what it returns is
called from this thread, or started in another thread or as a task of an event loop that runs aside.
"""

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from cachekit.config.spec import BackendSpec, L1Spec, ServiceSpec, built_in_regions
from cachekit.l1.table import TWIN
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock
from cachekit.testing.servers import Server

FACES = ["sync", "async"]
TWINS = ["native", "pure"] if TWIN == "native" else ["pure"]
LONG = 10.0  # seconds after which what should have happened will not

numbers = itertools.count()


class Source:
    """What a cached function reads. ``value`` may be a callable of the number of the run."""

    def __init__(self, value: Any = None) -> None:
        self.value = value if value is not None else (lambda run: f"run {run}")
        self.error: BaseException | None = None
        self.inside: Callable[[], Any] | None = None  # runs in the function, before it ends; what it gives is returned
        self.runs = 0
        self.ended = 0
        self.threads: list[str] = []
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def load(self, key: Any) -> Any:
        run = self._begin()
        assert self._open.wait(LONG)
        return self._end(run)

    async def aload(self, key: Any) -> Any:
        run = self._begin()
        while not self._open.is_set():
            await asyncio.sleep(0.001)
        return self._end(run)

    def _begin(self) -> int:
        with self._lock:
            self.runs += 1
            self.threads.append(threading.current_thread().name)
            return self.runs

    def _end(self, run: int) -> Any:
        try:
            if self.inside is not None and (given := self.inside()) is not None:
                return given
            if self.error is not None:
                raise self.error
            return self.value(run) if callable(self.value) else self.value
        finally:
            with self._lock:
                self.ended += 1


class Cached:
    """A cached function, its source, and ways to call it from a test that is not async."""

    def __init__(self, world: "World", function: Any, source: Source, service: Service) -> None:
        self.world = world
        self.function = function
        self.source = source
        self.service = service

    def __call__(self, *args: Any) -> Any:
        return self.start(*args).result(LONG) if self.world.is_async else self.function(*args)

    def start(self, *args: Any) -> "Future[Any]":
        """In a thread, or as a task, which can be cancelled."""
        return self.world.start(self.function, *args)

    def do(self, attribute: str, *args: Any) -> Any:
        """`peek`, `refresh`, `put` and the like."""
        return self.world.run(getattr(self.function, attribute), *args)

    def using(self, **switches: Any) -> "Cached":
        return Cached(self.world, self.function.using(**switches), self.source, self.service)

    @property
    def tally(self) -> Any:
        tally = inner(self.function).at().tally
        tally.take_in()
        return tally

    @property
    def flights(self) -> Any:
        return self.service.flights.running

    def gather(self, callers: int) -> None:
        """Until so many callers have met in the flights of the service."""
        self.world.until(lambda: sum(flight.interested for flight in list(self.flights.values())) >= callers)


class World:
    """Services that play processes, a clock that stands still for all, and a loop for what is async."""

    def __init__(self, server: Server, face: str) -> None:
        self.server = server
        self.is_async = face == "async"
        self.clock = FrozenClock()
        self.namespace = f"freshness{next(numbers)}"
        self.services: list[Service] = []
        self.sources: list[Source] = []
        self._pool = ThreadPoolExecutor(64)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def service(
        self, mode: str = "l1", *, l1: str = "on", clock: Any = None, backend: Any = None, **fields: Any
    ) -> Service:
        """``mode``: "l1", or "server" for an L2 as well; the same for all "processes". ``fields`` of all profiles."""
        options = {"url": self.server.url, "budget": 10.0, "adaptive": False, **(backend or {})}
        spec = ServiceSpec(
            namespace=self.namespace,
            namespace_given=True,
            backends={} if mode == "l1" else {"default": BackendSpec(**options)},
            regions={
                name: region.but(jitter=0.0, l1=L1Spec(mode=l1), **fields)
                for name, region in built_in_regions().items()
            },
        )
        service = Service(spec, clock=clock or self.clock)
        self.services.append(service)
        return service

    def cached(
        self, service: Service, source: Source | None = None, *, like: Cached | None = None, **options: Any
    ) -> Cached:
        """``like``: the same function in another process."""
        source = source or Source()
        self.sources.append(source)
        version = inner(like.function).options.version if like is not None else next(numbers)
        options = {"early_refresh": "off", "version": version, **options}

        if self.is_async:

            async def load(key: int) -> Any:
                return await source.aload(key)

        else:

            def load(key: int) -> Any:
                return source.load(key)

        return Cached(self, service.region().cached(load, **options), source, service)

    def start(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        if not self.is_async:
            return self._pool.submit(function, *args)
        return self.spawn(function(*args))

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(_awaited(coroutine), self._loop)

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.start(function, *args).result(LONG) if self.is_async else function(*args)

    def settle(self) -> None:
        """Until nothing runs behind anybody."""
        for service in self.services:
            assert service.workers.settle(LONG)
            if self.is_async:
                assert self.spawn(service.async_port.wait_for_tasks(LONG)).result(LONG)

    @staticmethod
    def until(condition: Callable[[], object]) -> None:
        for _ in range(int(LONG / 0.002)):
            if condition():
                return
            threading.Event().wait(0.002)
        raise AssertionError("it did not come to that")

    def close(self) -> None:
        for source in self.sources:
            source.release()
        for service in self.services:
            self.spawn(service.aclose()).result(LONG)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LONG)
        self._loop.close()
        self._pool.shutdown(wait=False)
        for service in self.services:
            service.close()


def inner(function: Any) -> Any:
    """The `Function` behind what users hold."""
    return getattr(function, "__cachekit__", function)._function


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


@pytest.fixture(name="world", params=[f"{face}-{twin}" for face in FACES for twin in TWINS])
def made_world(request: pytest.FixtureRequest, cachekit_server: Server) -> Iterator[World]:
    """Blocking and async functions, on both twins."""
    face, twin = request.param.split("-")
    if twin == "pure":
        request.getfixturevalue("pure_twin")
    world = World(cachekit_server, face)
    yield world
    world.close()


def choose(*params: str) -> Any:
    """Only these, for what cannot differ otherwise."""
    return pytest.mark.parametrize("world", params, indirect=True)
