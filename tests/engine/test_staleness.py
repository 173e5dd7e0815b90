"""Another process goes on with an outdated entry for at most `max_staleness`, whatever way it was invalidated.

Two services with clocks that stand still play the processes; the server is real. The reader is as unlucky as it can be:
it looked at the stamps just before the invalidation, and takes the entry over just before it stops trusting them.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from cachekit import Outcome
from cachekit.config.spec import BackendSpec, ServiceSpec, built_in_regions
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock
from cachekit.testing.servers import Server

MAX_STALENESS = BackendSpec().max_staleness
STEP = 0.1


class Process(NamedTuple):
    """What a process has of its own."""

    service: Service
    load: Any


class World:
    """Two processes, the data that both compute from, and the time that passes for both."""

    def __init__(self, server: Server, namespace: str) -> None:
        self.data = "old"
        self.clocks: list[FrozenClock] = []
        self.spec = ServiceSpec(
            namespace=namespace,
            namespace_given=True,
            backends={"default": BackendSpec(url=server.url, budget=10.0, adaptive=False)},
            regions=built_in_regions(),
        )
        self.writer, self.reader = self.process(), self.process()

    def process(self) -> Process:
        clock = FrozenClock()
        self.clocks.append(clock)
        service = Service(self.spec, clock=clock)

        def load(key: int) -> str:
            return self.data

        return Process(service, service.region().cached(load, tags=["tag"], version=1))

    def advance(self, seconds: float) -> None:
        for clock in self.clocks:
            clock.advance(seconds)


@pytest.fixture
def world(cachekit_server: Server, request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(cachekit_server, f"staleness-{request.node.name.replace('[', '-').rstrip(']')}")
    yield world
    for process in (world.writer, world.reader):
        process.service.close()


WAYS: dict[str, Callable[[Process], Outcome]] = {
    "key": lambda process: process.load.invalidate(2),
    "tag": lambda process: process.service.region().invalidate_tags("tag"),
    "function": lambda process: process.load.invalidate_all(),
    "region": lambda process: process.service.region().clear(),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("read_after", [0.0, MAX_STALENESS - 2 * STEP], ids=["at once", "late"])
def test_another_process_follows_within_max_staleness(world: World, way: str, read_after: float) -> None:
    world.writer.load(1)
    world.writer.load(2)
    world.reader.load(1)  # now the reader knows the stamps
    world.advance(STEP)
    world.data = "new"
    assert WAYS[way](world.writer) is Outcome.DONE
    assert world.writer.load(2) == "new"
    world.advance(read_after)
    waited = read_after
    while world.reader.load(2) == "old":
        world.advance(STEP)
        waited += STEP
        assert waited <= MAX_STALENESS + STEP / 2, f"still outdated after {waited:.1f} s"


def test_an_entry_that_the_other_process_holds_ends_after_max_staleness(world: World) -> None:
    assert world.reader.load(1) == "old"
    world.data = "new"
    assert world.writer.load.invalidate(1) is Outcome.DONE
    assert world.reader.load(1) == "old", "there is no push in this version"
    world.advance(MAX_STALENESS)
    assert world.reader.load(1) == "new"
