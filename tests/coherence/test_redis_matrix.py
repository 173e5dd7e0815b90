"""The whole engine on each kind of server: races, lost replies, few connections. Clocks and threads are real ones."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest
from world import World

from cachekit import Outcome
from cachekit.config.spec import BackendSpec, ServiceSpec, built_in_regions
from cachekit.l1.versions import Versions
from cachekit.l2 import operation
from cachekit.l2.stamps import Cells
from cachekit.service import Service
from cachekit.testing.faults import FaultProxy
from cachekit.testing.servers import Server

pytestmark = [pytest.mark.server, pytest.mark.slow]

numbers = itertools.count()
Make = Callable[..., Service]


@pytest.fixture
def make(server: Server) -> Iterator[Make]:
    """``make(url, **backend_fields)``: a service, which shares its entries with the others of its test."""
    namespace, made = f"matrix{next(numbers)}", []

    def service(url: str = "", *, ttl: float = 300.0, counters: bool = False, **backend: Any) -> Service:
        users = built_in_regions()["default"].but(name="users", jitter=0.0, ttl=ttl, counters=counters)
        options = {"url": url or server.url, "budget": 5.0, "adaptive": False, **backend}
        made.append(
            Service(
                ServiceSpec(
                    namespace=namespace,
                    namespace_given=True,
                    backends={"default": BackendSpec(**options)},
                    regions={**built_in_regions(), "users": users},
                )
            )
        )
        return made[-1]

    yield service
    for one in made:
        one.close()


def tracking(service: Service) -> Service:
    deadline = time.monotonic() + 10
    while service.health().backends["default"].coherence != "tracking":
        assert time.monotonic() < deadline, service.health()
        service.region("users").get("warm")
        time.sleep(0.005)
    return service


def all_at_once(jobs: list[Callable[[], object]]) -> None:
    """A thread for each; the first failure is raised."""
    failures: list[BaseException] = []

    def run(job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


# Races


class Race:
    """Writers that change the data and invalidate, and readers, in several services on one server.

    A reader notes which version its own service had invalidated for before it began, and which one any service had
    `BOUND` before: an older answer is stale.
    """

    KEYS = 3
    BOUND = 3.5  # seconds: max_staleness, and what a busy machine takes to note an instant

    def __init__(self, services: list[Service], seconds: float) -> None:
        self.services = services
        self.checked = 0
        self.stale: list[str] = []
        self._until = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._source: dict[str, int] = {}  # versions of threads' and tasks' entries
        self._own: dict[tuple[int, str], int] = {}  # confirmed by a service
        self._all: dict[str, list[tuple[float, int]]] = {}  # confirmed by any, and when
        self._functions = [self._function(service) for service in services]

    def _function(self, service: Service) -> tuple[Any, Any]:
        @service.region("users").cached(version=1, tags=lambda key: [f"tag-{key}"])
        def load(key: str) -> int:
            version = self._source.get(key, 0)
            time.sleep(0.001)
            return version

        @service.region("users").cached(version=1, tags=lambda key: [f"tag-{key}"])
        async def aload(key: str) -> int:
            version = self._source.get(key, 0)
            await asyncio.sleep(0.001)
            return version

        return load, aload

    def run(self) -> None:
        jobs: list[Callable[[], object]] = []
        for place in range(len(self.services)):
            jobs += [lambda place=place: self._write(place)]  # type: ignore[misc]
            jobs += [lambda place=place: self._read(place)] * 2  # type: ignore[misc]
            jobs += [lambda place=place: asyncio.run(self._tasks(place))]  # type: ignore[misc]
        all_at_once(jobs)

    def _keys(self, kind: str) -> Iterator[str]:
        for number in itertools.cycle(range(self.KEYS)):
            if time.monotonic() > self._until:
                return
            yield f"{kind}{number}"

    def _change(self, key: str) -> int:
        with self._lock:
            self._source[key] = version = self._source.get(key, 0) + 1
        return version

    def _confirm(self, place: int, key: str, version: int, outcome: Outcome) -> None:
        assert outcome is Outcome.DONE
        with self._lock:
            self._own[place, key] = max(self._own.get((place, key), 0), version)
            self._all.setdefault(key, []).append((time.monotonic(), version))

    def _write(self, place: int) -> None:
        load, _ = self._functions[place]
        region = self.services[place].region("users")
        for key in self._keys("thread"):
            version = self._change(key)
            outcome = load.invalidate(key) if version % 3 else region.invalidate_tags(f"tag-{key}")
            self._confirm(place, key, version, outcome)
            time.sleep(0.01)

    def _read(self, place: int) -> None:
        load, _ = self._functions[place]
        for key in self._keys("thread"):
            floor = self._floor(place, key)
            self._judge(key, load(key), floor)

    async def _tasks(self, place: int) -> None:
        await asyncio.gather(self._awrite(place), self._aread(place), self._aread(place))

    async def _awrite(self, place: int) -> None:
        _, aload = self._functions[place]
        region = self.services[place].region("users")
        for key in self._keys("task"):
            version = self._change(key)
            outcome = await (aload.invalidate(key) if version % 3 else region.ainvalidate_tags(f"tag-{key}"))
            self._confirm(place, key, version, outcome)
            await asyncio.sleep(0.01)

    async def _aread(self, place: int) -> None:
        _, aload = self._functions[place]
        for key in self._keys("task"):
            floor = self._floor(place, key)
            self._judge(key, await aload(key), floor)
            await asyncio.sleep(0)

    def _floor(self, place: int, key: str) -> int:
        long_ago = time.monotonic() - self.BOUND
        with self._lock:
            everybodys = max((version for at, version in self._all.get(key, ()) if at <= long_ago), default=0)
            return max(self._own.get((place, key), 0), everybodys)

    def _judge(self, key: str, version: int, floor: int) -> None:
        self.checked += 1
        if version < floor:
            self.stale.append(f"{key}: {version} after {floor}")


def test_no_answer_of_many_readers_and_writers_in_two_services_is_stale(make: Make) -> None:
    race = Race([tracking(make()), tracking(make())], seconds=4.0)
    race.run()
    assert race.stale == []
    assert race.checked >= 10_000


def test_without_asking_what_was_invalidated_meanwhile_some_are(
    pure_twin: None, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: whatever was read or computed goes into L1."""
    services = [tracking(make()), tracking(make())]
    monkeypatch.setattr(Versions, "allows", lambda *_: True)
    store = operation.store

    async def always(*args: Any) -> bool:
        await store(*args)
        return True

    monkeypatch.setattr(operation, "store", always)
    race = Race(services, seconds=4.0)
    race.run()
    assert race.stale


def test_what_covers_an_entry_may_be_forgotten_while_it_is_read(
    cachekit_server: Server, face: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost between the judgement of what L2 has and its way into L1: it is answered and not kept."""
    world = World(cachekit_server, face)
    a = world.node()
    for _ in range(3):
        a.forget_l1()
        a.call()
        a.hear()
    a.forget_l1()
    look = Cells.look

    def known_and_lost(self: Cells, *args: Any) -> Any:
        found = look(self, *args)
        assert found is not None
        monkeypatch.setattr(Cells, "look", look)
        a.lose()
        return found

    monkeypatch.setattr(Cells, "look", known_and_lost)
    runs = len(a.runs)
    assert a.call() == "old"
    assert len(a.runs) == runs, "L2 had it"
    assert not a.in_l1
    world.close()


# Replies that are lost


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", server.port) as proxy:
        yield proxy


@pytest.mark.parametrize("eof", [False, True], ids=["silence", "end"])
def test_a_count_whose_answer_is_lost_is_counted_once(make: Make, server: Server, proxy: FaultProxy, eof: bool) -> None:
    service = make(proxy.url, counters=True, coherence="ttl", budget=0.3)
    visits = service.region("users")
    assert [visits.incr("home") for _ in range(2)] == [1, 2]
    if eof:
        proxy.truncate(0, eof=True)
    else:
        proxy.drop_replies()
    assert type(visits.incr("home")) is int, "this process counts alone meanwhile"
    proxy.pass_()
    (key,) = server.command("KEYS", f"{service.spec.namespace}:v:*")
    assert server.command("GET", key).startswith(b"3@")


def test_a_lease_whose_answer_is_lost_with_the_connection_is_asked_for_again_by_its_token(
    make: Make, server: Server, proxy: FaultProxy
) -> None:
    """It is held, so the value is stored, after one computation, and nothing is left of the lease."""
    service = make(proxy.url, coherence="ttl")
    runs: list[int] = []

    @service.region("users").cached(version=1)
    def load(key: int) -> int:
        runs.append(key)
        return key

    assert load(1) == 1
    backend = service.tiers("users").remote.faces.sync  # type: ignore[union-attr]
    assert backend is not None
    get_or_lease, leases = backend.get_or_lease, f"{service.spec.namespace}:l:*"

    def cut() -> None:
        deadline = time.monotonic() + 5
        while not server.command("KEYS", leases) and time.monotonic() < deadline:
            time.sleep(0.001)
        proxy.reset()
        proxy.pass_()

    def without_its_answer(*args: Any, **options: Any) -> Any:
        proxy.hold_replies()
        asked.append(threading.Thread(target=cut))
        asked[-1].start()
        try:
            return get_or_lease(*args, **options)
        finally:
            asked[-1].join()

    asked: list[threading.Thread] = []
    backend.get_or_lease = without_its_answer  # type: ignore[method-assign]
    assert load(2) == 2
    assert len(asked) == 1
    backend.get_or_lease = get_or_lease  # type: ignore[method-assign]
    service.tiers("users").table.clear()  # type: ignore[union-attr]
    assert load(2) == 2
    assert runs == [1, 2]
    assert server.command("KEYS", leases) == []


# Many callers


def commands(server: Server) -> int:
    """How many commands have run, those of scripts included, since the last question."""
    lines = server.command("INFO", "commandstats").decode().split()
    server.command("CONFIG", "RESETSTAT")
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in lines if "calls=" in line)


def test_200_callers_of_one_key_in_4_services_cost_one_computation_and_few_commands(make: Make, server: Server) -> None:
    services = [tracking(make()) for _ in range(4)]
    runs: SimpleQueue[int] = SimpleQueue()  # a list would be part of the function's name, and another one after a run

    def slow(key: int) -> int:
        runs.put(key)
        time.sleep(0.2)
        return key

    loads = [service.region("users").cached(slow, version=1) for service in services]
    barrier, answers = threading.Barrier(200), []

    def ask(load: Callable[[int], int]) -> None:
        barrier.wait()
        answers.append(load(7))

    commands(server)
    all_at_once([lambda load=load: ask(load) for load in loads * 50])  # type: ignore[misc]
    assert answers == [7] * 200
    assert runs.qsize() == 1
    assert commands(server) < 200, "those of one process ask L2 once"


CALLERS, BUDGET = 300, 0.5
STEPS = 4  # that a miss takes at most: look, stamps, lease, store


def hurry(service: Service, kind: str) -> tuple[list[float], int]:
    """Callers who come at once, each with a key of its own: the seconds that each took, and the number of errors."""
    times: list[float] = []

    @service.region("users").cached(version=1)
    def load(key: int) -> list[int]:
        return [key, key * key]

    @service.region("users").cached(version=1)
    async def aload(key: int) -> list[int]:
        return [key, key * key]

    barrier = threading.Barrier(CALLERS)

    def ask(key: int) -> None:
        barrier.wait()
        began = time.monotonic()
        assert load(key) == [key, key * key]
        times.append(time.monotonic() - began)

    async def aask(key: int) -> None:
        began = time.monotonic()
        assert await aload(key) == [key, key * key]
        times.append(time.monotonic() - began)

    async def all_tasks() -> None:
        await asyncio.gather(*map(aask, range(CALLERS)))

    if kind == "threads":
        all_at_once([lambda key=key: ask(key) for key in range(CALLERS)])  # type: ignore[misc]
    else:
        asyncio.run(all_tasks())
    return times, (load if kind == "threads" else aload).cache_info().errors


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_300_callers_on_10_connections_stand_in_line_and_none_fails(make: Make, kind: str) -> None:
    times, errors = hurry(tracking(make(max_connections=10, budget=20.0)), kind)
    assert (len(times), errors) == (CALLERS, 0)


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_standing_in_line_is_part_of_the_budget(make: Make, proxy: FaultProxy, kind: str) -> None:
    """The server is so slow that not all can have their turn: they compute, and nothing reaches the caller."""
    service = make(proxy.url, max_connections=10, budget=BUDGET)
    tracking(service)
    proxy.latency(BUDGET / 2)
    times, errors = hurry(service, kind)
    assert len(times) == CALLERS
    assert errors > 0, "some did not get a connection"
    assert max(times) < STEPS * BUDGET + 3.0, "with a turn for each it would be 7.5 s for one step"
