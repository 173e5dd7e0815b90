"""On real servers: what a clear outdated vanishes, everything else stays, and no caller pays for it."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit import Outcome
from cachekit.backends.redis.rights import grant
from cachekit.config.spec import BackendSpec, L1Spec, ServiceSpec, built_in_regions
from cachekit.l2.reclaim import AFTER, APART, PAUSE
from cachekit.l2.remote import Remote
from cachekit.service import Service
from cachekit.testing import ClusterSetup, start_cluster
from cachekit.testing.clock import FrozenClock
from cachekit.testing.servers import Server, available, start_server

pytestmark = [pytest.mark.server, pytest.mark.slow]

PATIENCE = 30.0  # seconds
numbers = itertools.count()


class Process:
    """A service; its maintenance thread does its turns when told, unless the clock is the real one."""

    def __init__(self, url: str, namespace: str, *, real: bool = False) -> None:
        self.clock = FrozenClock()
        base = built_in_regions()["default"].but(jitter=0.0, l1=L1Spec(mode="off"), lease="off", ttl=3600.0)
        spec = ServiceSpec(
            namespace=namespace,
            namespace_given=True,
            backends={"default": BackendSpec(url=url, budget=5.0, adaptive=False)},
            regions={
                **{name: base.but(name=name) for name in ("default", "users", "other")},
                "counts": base.but(name="counts", counters=True),
            },
        )
        self.service = Service(spec, clock=None if real else self.clock)
        self.users = self.service.region("users")
        self.f = self.users.cached(lambda number: number, version="f")
        self.g = self.users.cached(lambda number: number, version="g")

    @property
    def remote(self) -> Remote:
        remote = self.service.remote("default")
        assert remote is not None
        return remote

    def scan(self, between: Callable[[], object] = lambda: None) -> None:
        """The maintenance thread's turns from a clear to the end of its scan."""
        self.clock.advance(APART + AFTER)
        assert self.service.tend() == PAUSE
        between()
        while self.service.tend() == PAUSE:
            between()
            self.clock.advance(PAUSE)


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=[] if kind == "valkey" else [pytest.mark.slow]) for kind in available()],
)
def own(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Where nobody else sends commands."""
    with start_server(request.param) as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterSetup]:
    with start_cluster() as setup:
        yield setup


@pytest.fixture
def begin() -> Iterator[Callable[..., Process]]:
    """``begin(url)``: a process; with ``namespace`` one among others."""
    made: list[Process] = []

    def make(url: str, namespace: str = "", **options: Any) -> Process:
        made.append(Process(url, namespace or f"reclaim{next(numbers)}", **options))
        return made[-1]

    yield make
    for process in made:
        process.service.close()


Begin = Callable[..., Process]


def values(servers: list[Server], process: Process) -> set[str]:
    """The names of all values of a namespace."""
    found = set()
    for server in servers:
        found |= {key.decode() for key in server.command("KEYS", f"{process.service.spec.namespace}:v:*")}
    return found


def calls(server: Server) -> dict[str, int]:
    """How often each command ran since the last question; those of scripts count, too."""
    found = {}
    for line in server.command("INFO", "commandstats").decode().split():
        if line.startswith("cmdstat_"):
            name, _, rest = line.removeprefix("cmdstat_").partition(":")
            found[name] = int(rest.partition("calls=")[2].partition(",")[0])
    server.command("CONFIG", "RESETSTAT")
    return {name: count for name, count in found.items() if name not in ("info", "config|resetstat", "keys", "time")}


def fill(process: Process, count: int) -> None:
    """Entries of every kind, ``count`` in all; every second one of those with tags has one."""
    counts, other = process.service.region("counts"), process.service.region("other")
    for number in range(count // 10):
        process.f(number)
        process.g(number)
    for number in range(count // 5):
        process.users.set(f"plain{number}", number)
        counts.set(f"{number}", number, tags=["tag"] if number % 2 else [])
    for number in range(count // 10 * 4):
        other.set(f"{number}", number, tags=["tag"] if number % 2 else [])


def check(process: Process, neighbour: Process, servers: list[Server], count: int) -> None:
    """Fill, clear by tag, function and region, one after the other."""
    prefix = f"{process.service.spec.namespace}:v:"
    fill(process, count)
    for number in range(100):
        neighbour.users.set(f"plain{number}", number, tags=["tag"])
    before, theirs = values(servers, process), values(servers, neighbour)
    assert len(before) == count

    assert process.users.invalidate_tags("tag") is Outcome.DONE
    assert values(servers, process) == before
    process.scan()
    after_tag = values(servers, process)
    tagged = {("counts", number) for number in range(1, count // 5, 2)}
    tagged |= {("other", number) for number in range(1, count // 10 * 4, 2)}
    assert before - after_tag == {f"{prefix}{{{region}:={number}}}" for region, number in tagged}

    assert process.f.invalidate_all() is Outcome.DONE
    process.scan()
    after_function = values(servers, process)
    assert after_tag - after_function == {str(process.f.key(number)) for number in range(count // 10)}
    assert process.remote.reclaimed == len(tagged) + count // 10

    fresh: list[int] = []

    def store() -> None:
        for number in range(len(fresh), min(len(fresh) + 20, count // 10)):
            process.users.set(f"plain{number}", "new")
            process.g(number)
            fresh.append(number)

    assert process.users.clear() is Outcome.DONE
    process.scan(between=store)
    after_region = values(servers, process)
    assert {key for key in after_region if "{users:" in key} == {
        *(str(process.g.key(number)) for number in fresh),
        *(f"{prefix}{{users:=plain{number}}}" for number in fresh),
    }
    assert len(fresh) >= 100 or len(fresh) == count // 10
    assert all(process.users.get(f"plain{number}") == "new" for number in fresh)
    assert {key for key in after_function ^ after_region if "{users:" not in key} == set()
    assert values(servers, neighbour) == theirs
    assert neighbour.users.get("plain5") == 5


def test_what_is_outdated_vanishes_and_nothing_else(own: Server, begin: Begin) -> None:
    check(begin(own.url), begin(own.url), [own], 5000)


def test_in_a_cluster_on_every_node(cluster: ClusterSetup, begin: Begin) -> None:
    check(begin(cluster.url), begin(cluster.url), cluster.servers, 1500)


def test_a_clear_costs_its_caller_the_same_however_much_it_reaches(own: Server, begin: Begin) -> None:
    process = begin(own.url)
    ways: list[Callable[[], Outcome]] = [
        process.users.clear, process.f.invalidate_all, lambda: process.users.invalidate_tags("tag"),
    ]  # fmt: skip
    costs = []
    for count in (1, 500):
        for number in range(count):
            process.f(number)
            process.users.set(number, number, tags=["tag"])
        calls(own)
        costs.append([(clear(), calls(own))[1] for clear in ways])
    assert costs == [[{"del": 1}] * 3] * 2


def test_of_two_processes_one_scans(own: Server, begin: Begin) -> None:
    a = begin(own.url)
    b = begin(own.url, a.service.spec.namespace)
    for number in range(500):
        a.users.set(number, number)
    for process in (a, b):
        process.users.clear()
        process.clock.advance(AFTER)
    calls(own)
    assert a.service.tend() == PAUSE
    assert b.service.tend() != PAUSE
    assert calls(own)["scan"] == 1
    while a.service.tend() == PAUSE:
        a.clock.advance(PAUSE)
        b.service.tend()
    assert a.remote.reclaimed == 500
    assert b.remote.reclaimed == 0
    b.scan()
    assert own.command("KEYS", f"{a.service.spec.namespace}:l:*") == []


def test_who_stores_at_the_same_time_loses_nothing(own: Server, begin: Begin) -> None:
    a = begin(own.url)
    writer = begin(own.url, a.service.spec.namespace)
    for number in range(1000):
        a.users.set(number, "old")
    stop, kept = threading.Event(), set[int]()

    def write() -> None:
        for number in itertools.cycle(range(1000)):
            if stop.is_set():
                return
            writer.users.set(number, "new")
            kept.add(number)

    assert a.users.clear() is Outcome.DONE
    writer.clock.advance(60)  # what it knew of stamps is too old: it asks
    thread = threading.Thread(target=write)
    thread.start()
    try:
        a.scan(between=lambda: time.sleep(0.01))
    finally:
        stop.set()
        thread.join()
    assert len(kept) > 20
    assert [number for number in kept if a.users.get(number) != "new"] == []
    assert all(a.users.get(number) is None for number in set(range(1000)) - kept)


def test_the_process_does_it_by_itself(own: Server, begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachekit.l2.reclaim.AFTER", 0.0)
    process = begin(own.url, real=True)
    for number in range(1000):
        process.users.set(number, number)
    process.users.clear()
    deadline = time.monotonic() + PATIENCE
    while process.remote.reclaimed < 1000:  # counted once the answer is here, which is after they are gone
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not values([own], process)
    assert process.remote.reclaimed == 1000


@pytest.mark.parametrize("without", ["scan", "getrange"])
def test_without_the_right_to_look_everything_else_works(
    own: Server, begin: Begin, without: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cachekit")
    namespace = f"reclaim{next(numbers)}"
    own.command(*grant("app", namespace).split(), "on", ">pw", f"-{without}")
    process = begin(f"redis://app:pw@127.0.0.1:{own.port}/0", namespace)
    for _ in range(3):
        process.users.set("key", 1)
        assert process.users.clear() is Outcome.DONE
        process.clock.advance(APART + AFTER)
        while process.service.tend() == PAUSE:
            process.clock.advance(PAUSE)
        assert process.users.get("key") is None
        assert process.service.health().ok
    assert process.remote.reclaimed == 0
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    own.command("ACL", "DELUSER", "app")
