"""Two engines on one real server, with clocks that stand still and pushes that are read when the test says so.

They play two processes: nothing but the server connects them. Sync and async functions are called alike.
"""

import asyncio
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from cachekit import Outcome
from cachekit.config.spec import BackendSpec, L1Spec, ServiceSpec, built_in_regions
from cachekit.l2.coherence import Coherence
from cachekit.l2.remote import Remote
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock
from cachekit.testing.servers import Server

numbers = itertools.count()


class Node:
    """One process: a service, its clock, and cached functions over the data that all nodes share."""

    def __init__(self, world: "World", url: str, face: str) -> None:
        self.world = world
        self.face = face
        self.clock = FrozenClock()
        self.service = Service(world.spec(url), clock=self.clock)
        self.region = self.service.region("users")
        self.runs: list[int] = []
        self.during: Callable[[], object] = lambda: None  # what happens after a load has read its data
        self.f = self.cached(self._load, tags=lambda key: ["tag"])
        self.nested = self.cached(self._nested)

    def cached(self, body: Callable[[int], str], **options: Any) -> Any:
        if self.face == "sync":

            def plain(key: int) -> str:
                return body(key)

            return self.region.cached(plain, version=body.__name__, **options)

        async def coroutine(key: int) -> str:
            return str(await value) if asyncio.iscoroutine(value := body(key)) else value

        return self.region.cached(coroutine, version=body.__name__, **options)

    def _load(self, key: int) -> str:
        self.runs.append(key)
        value = self.world.data
        during, self.during = self.during, lambda: None
        during()
        return value

    def _nested(self, key: int) -> Any:
        return self.f(key)  # a coroutine, where the face is async

    def wait(self, result: Any) -> Any:
        return self.world.runner.run(_awaited(result)) if asyncio.iscoroutine(result) else result

    def call(self, key: int = 1) -> str:
        value: str = self.wait(self.f(key))
        return value

    def call_nested(self, key: int = 1) -> str:
        value: str = self.wait(self.nested(key))
        return value

    def apart(self, work: Callable[[], Any]) -> Any:
        """Do something of this node's in another context, since a load, a loop say, may be running on this thread."""
        return self.world.threads.submit(_finished, work).result(20)

    def late_caller(self) -> "Future[str]":
        """Somebody calls while a load runs; returns when he has either got a value or waits for that load."""
        late: Future[str] = self.world.threads.submit(_finished, lambda: self.f(1))
        for _ in range(2000):
            flights = list(self.service.flights.running.values())
            if late.done() or any(flight.interested > 1 for flight in flights):
                return late
            threading.Event().wait(0.005)
        raise AssertionError("the caller neither waits nor has an answer")

    def invalidate(self, key: int = 1) -> Outcome:
        outcome: Outcome = self.apart(lambda: self.f.invalidate(key))
        return outcome

    @property
    def remote(self) -> Remote:
        remote = self.service.tiers("users").remote
        assert remote is not None
        return remote

    @property
    def coherence(self) -> Coherence:
        return self.remote.coherence

    def connect(self) -> "Node":
        """Have the server tell of changes."""
        self.call(999)
        self.turn_until(lambda: self.coherence.live)
        self.hear()
        return self

    def turn_until(self, condition: Callable[[], bool]) -> None:
        for _ in range(200):
            if condition():
                return
            self.coherence.turn(0.05)
            if self.coherence._listener is None:
                self.clock.advance(0.1)
        raise AssertionError("it did not happen")

    def hear(self) -> None:
        """Read every push that was written up to now: two PINGs one after the other prove it."""
        self.clock.advance(self.coherence._spec.heartbeat)
        now = self.clock.now()
        self.turn_until(lambda: self.coherence.proof >= now)

    def lose(self) -> None:
        """The push connection ends."""
        self.coherence.lose("test")

    @property
    def in_l1(self) -> bool:
        table = self.service.tiers("users").table
        assert table is not None
        slot = self.bound.slot
        entry = table.entry(slot, (1,))
        return entry is not None and entry.fresh

    @property
    def bound(self) -> Any:
        """Where the function's entries live."""
        return self.f.__cachekit_function__.at()

    def forget_l1(self) -> None:
        table = self.service.tiers("users").table
        assert table is not None
        table.clear()


async def _awaited(result: Any) -> Any:
    return await result


def _finished(work: Callable[[], Any]) -> Any:
    result = work()
    return asyncio.run(_awaited(result)) if asyncio.iscoroutine(result) else result


class World:
    """The server, the data, the nodes."""

    def __init__(self, server: Server, face: str = "sync", *, url: str = "", **backend: Any) -> None:
        self.command = server.command
        self.url = url or server.url
        self.face = face
        self.namespace = f"world{next(numbers)}"
        self.backend = backend
        self.data = "old"
        self.runner = asyncio.Runner()
        self.threads = ThreadPoolExecutor(8)
        self.nodes: list[Node] = []

    def spec(self, url: str) -> ServiceSpec:
        users = built_in_regions()["default"].but(name="users", jitter=0.0, l1=L1Spec(), lease_wait=2.0)
        options = {"url": url, "budget": 5.0, "adaptive": False, **self.backend}
        return ServiceSpec(
            namespace=self.namespace,
            namespace_given=True,
            backends={"default": BackendSpec(**options)},
            regions={**built_in_regions(), "users": users},
        )

    def node(self, url: str = "", *, connected: bool = True) -> Node:
        node = Node(self, url or self.url, self.face)
        self.nodes.append(node)
        return node.connect() if connected else node

    def advance(self, seconds: float) -> None:
        for node in self.nodes:
            node.clock.advance(seconds)

    def close(self) -> None:
        for node in self.nodes:
            node.service.close()
            self.runner.run(node.service.aclose())
        self.runner.close()
        self.threads.shutdown()
