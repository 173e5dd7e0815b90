"""Processes for the tests of freshness: services with clocks that stand still, on a real server or on none.

They play the processes of an application; nothing but the server connects them. Blocking and async functions are called
alike, and pushes are read when the test says so.
"""

import asyncio
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cachekit.config.spec import BackendSpec, FreshnessSpec, L1Spec, ServiceSpec, built_in_regions
from cachekit.l1.table import TWIN
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock
from cachekit.testing.servers import Server

numbers = itertools.count()


class SourceDown(Exception):
    """What the function raises while its source is away."""


class Source:
    """What all processes compute from."""

    def __init__(self) -> None:
        self.data: Any = "old"
        self.error: BaseException | None = None
        self.takes = 0.0  # seconds of the frozen clock

    def fail(self, error: BaseException | None = None) -> BaseException:
        self.error = SourceDown("away") if error is None else error
        return self.error

    def recover(self, data: Any = "new") -> None:
        self.data, self.error = data, None


class Process:
    """One process: a service with a clock of its own, and a cached function over the common source."""

    def __init__(self, world: "World", service: Service, clock: FrozenClock, options: dict[str, Any]) -> None:
        self.world, self.service, self.clock = world, service, clock
        self.region = service.region("users")
        self.runs: list[tuple[int, float]] = []  # keys, and when
        self.during: Callable[[], object] = lambda: None  # what happens while the function runs
        self.gate = threading.Event()  # the function ends when it is open
        self.gate.set()
        self.f = self.cached(**options)

    def load(self, key: int) -> Any:
        """What the function does."""
        outcome = self._begin(key)
        assert self.gate.wait(20)
        return self._end(*outcome)

    def _begin(self, key: int) -> tuple[BaseException | None, Any]:
        self.runs.append((key, self.clock.now()))
        outcome = self.world.source.error, self.world.source.data
        if self.world.source.takes:
            self.clock.advance(self.world.source.takes)
        self.during()
        return outcome

    def _end(self, error: BaseException | None, data: Any) -> Any:
        if error is not None:
            raise error
        return data

    def cached(self, **options: Any) -> Any:
        options.setdefault("version", 1)
        if self.world.face == "sync":

            def plain(key: int) -> Any:
                return self.load(key)

            return self.region.cached(plain, **options)

        async def coroutine(key: int) -> Any:
            outcome = self._begin(key)
            while not self.gate.is_set():
                await asyncio.sleep(0.001)
            return self._end(*outcome)

        return self.region.cached(coroutine, **options)

    # Calling

    def wait(self, result: Any) -> Any:
        return self.world.runner.run(awaited(result)) if asyncio.iscoroutine(result) else result

    def call(self, key: int = 1) -> Any:
        return self.wait(self.f(key))

    def in_region(self, name: str, *args: Any) -> Any:
        """One method of the region, by its name in blocking code."""
        return getattr(self.region, f"a{name}" if self.world.face == "async" else name)(*args)

    def many(self, count: int, meanwhile: Callable[[], Any] = lambda: None) -> list[Any]:
        """So many calls at the same time: values, or exceptions. ``meanwhile`` is asked until it is true."""
        if self.world.face == "sync":
            calls = [self.world.threads.submit(self.f, 1) for _ in range(count)]
            for _ in range(5000):
                if meanwhile() is not False:
                    break
                threading.Event().wait(0.002)
            return [call.exception(20) or call.result() for call in calls]

        async def all_of_them() -> list[Any]:
            tasks = [asyncio.create_task(self.f(1)) for _ in range(count)]
            for _ in range(5000):
                if meanwhile() is not False:
                    break
                await asyncio.sleep(0.002)
            return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)

        answers: list[Any] = self.world.runner.run(all_of_them())
        return answers

    def apart(self, work: Callable[[], Any]) -> Any:
        """Do something in another context, since a load, a loop say, may be running on this thread."""
        return self.world.threads.submit(finished, work).result(20)

    def settle(self) -> None:
        """Let what goes on behind the callers end."""
        assert self.service.workers.settle(10)
        if self.world.face == "async":
            assert self.world.runner.run(self.service.async_port.wait_for_tasks(10))

    def until_begun(self, runs: int) -> None:
        """Until the function has begun for so many times, behind the callers too."""

        async def watched() -> None:
            while len(self.runs) < runs:
                await asyncio.sleep(0.002)

        if self.world.face == "async":
            self.world.runner.run(asyncio.wait_for(watched(), 10))
        else:
            self.world.until(lambda: len(self.runs) >= runs)

    # What it knows

    @property
    def tally(self) -> Any:
        self.service.tallies()
        return self.f.__cachekit_function__.at().tally

    @property
    def place(self) -> Any:
        return self.f.__cachekit_function__.at()

    @property
    def table(self) -> Any:
        return self.place.tiers.table

    def view(self, key: int = 1) -> Any:
        """What L1 has."""
        return self.table.entry(self.place.slot, (key,))

    def due(self, key: int = 1) -> float:
        """When an entry of L1 ends or is to be refreshed, whatever is known of changes until then."""
        self.table.alive(2**63 - 1)
        try:
            return float(self.view(key).fresh_until / 1e9)
        finally:
            if self.remote is not None:
                self.remote.reach.alive(self.coherence.proof + self.coherence._spec.max_staleness)

    @property
    def remote(self) -> Any:
        return self.place.tiers.remote

    @property
    def coherence(self) -> Any:
        return self.remote.coherence

    # Hearing of changes

    def connect(self) -> "Process":
        """Have the server tell of changes."""
        self.wait(self.in_region("get", "x"))
        self.turn_until(lambda: self.coherence.live)
        return self.hear()

    def turn_until(self, condition: Callable[[], bool]) -> None:
        for _ in range(400):
            if condition():
                return
            self.coherence.turn(0.05)
            if self.coherence._listener is None:
                self.clock.advance(0.1)
        raise AssertionError("it did not happen")

    def hear(self) -> "Process":
        """Read every push that was written up to now; two PINGs one after the other prove it."""
        self.clock.advance(self.coherence._spec.heartbeat)
        now = self.clock.now()
        self.turn_until(lambda: self.coherence.proof >= now)
        return self


class World:
    """The processes of one application."""

    def __init__(self, server: Server, face: str, tiers: str) -> None:
        self.server, self.face, self.tiers = server, face, tiers
        self.namespace = f"fresh{next(numbers)}"
        self.source = Source()
        self.processes: list[Process] = []
        self.runner = asyncio.Runner()
        self.threads = ThreadPoolExecutor(128)

    def process(
        self, *, ttl: float | None = 60.0, jitter: float = 0.0, l1: Any = None, backend: Any = None,
        region: Any = None, seed: int | None = None, **given: Any,
    ) -> Process:  # fmt: skip
        """``seed`` fixes the draws; ``given`` are fields of `FreshnessSpec`, or else options of the decorator."""
        given = {"stale_ttl": 600.0, "early_refresh": "off", **given}
        names = FreshnessSpec.__slots__
        fresh = FreshnessSpec(**{name: given.pop(name) for name in [*given] if name in names})
        spec = built_in_regions()["default"].but(
            name="users", ttl=ttl, jitter=jitter, freshness=fresh, l1=L1Spec(**(l1 or {})), **(region or {})
        )
        if self.tiers == "l1":
            spec = spec.but(backend="none")
        options = {"url": self.server.url, "budget": 10.0, "adaptive": False, **(backend or {})}
        clock = FrozenClock()
        service = Service(
            ServiceSpec(
                namespace=self.namespace,
                namespace_given=True,
                backends={} if self.tiers == "l1" else {"default": BackendSpec(**options)},
                regions={**built_in_regions(), "users": spec},
            ),
            clock=clock,
        )
        if seed is not None:
            service.rng = random.Random(seed).random
        if self.processes:  # one time for all
            clock.advance(self.processes[0].clock.now() - clock.now())
        process = Process(self, service, clock, given)
        self.processes.append(process)
        if self.tiers == "tracking" and spec.l1.mode == "on":
            process.connect()
            for other in self.processes[:-1]:
                other.clock.advance(clock.now() - other.clock.now())
        return process

    def advance(self, seconds: float) -> None:
        """Time passes for all. Those who hear of changes go on hearing of them."""
        for process in self.processes:
            process.clock.advance(seconds)
        self.hear()

    def hear(self) -> None:
        """Everybody has heard what was written up to now."""
        if self.tiers == "tracking":
            for process in self.processes:
                process.hear()
            latest = max(process.clock.now() for process in self.processes)
            for process in self.processes:
                process.clock.advance(latest - process.clock.now())

    @staticmethod
    def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
        """Wait for other threads."""
        for _ in range(int(seconds / 0.002)):
            if condition():
                return
            threading.Event().wait(0.002)
        raise AssertionError("it did not happen")

    def close(self) -> None:
        for process in self.processes:
            process.gate.set()
            if self.face == "async":
                self.runner.run(process.service.aclose())
            process.service.close()
        self.runner.close()
        self.threads.shutdown(wait=True)


async def awaited(result: Any) -> Any:
    return await result


def finished(work: Callable[[], Any]) -> Any:
    result = work()
    return asyncio.run(awaited(result)) if asyncio.iscoroutine(result) else result


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> str:
    """How the cached function is called."""
    found: str = request.param
    return found


@pytest.fixture(params=["l1", "tracking", "ttl"])
def tiers(request: pytest.FixtureRequest) -> str:
    """In the process alone; with a server that tells of changes; with one that does not."""
    found: str = request.param
    return found


@pytest.fixture(params=["native", "pure"])
def twin(request: pytest.FixtureRequest) -> str:
    """Which implementation of L1."""
    found: str = request.param
    if found == "pure":
        request.getfixturevalue("pure_twin")
    elif TWIN == "pure":
        pytest.skip("this installation has no native core")
    return found


@pytest.fixture
def world(cachekit_server: Server, face: str, tiers: str) -> Iterator[World]:
    world = World(cachekit_server, face, tiers)
    yield world
    world.close()
