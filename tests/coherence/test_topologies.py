"""Sentinel and Cluster behind nothing but a URL: values are shared, changes are heard of, and a failover hurts nobody.

Real servers and real processes that call without a pause. *Promoted* is the moment at which every node that answers
names the new primary; from then on the engine has `SOON` to be as it was.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from world import Node, World

from cachekit import Outcome
from cachekit.backends.redis.push import PushListener
from cachekit.testing import ClusterSetup, Processes, SentinelSetup, start_cluster, start_sentinel
from cachekit.testing.faults import FaultProxy, Link
from cachekit.testing.servers import Server

pytestmark = [pytest.mark.server, pytest.mark.slow]

SOON = 1.0  # seconds after a promotion
BUDGET = "250ms"  # where servers hang
AT_ONCE = 1.0  # seconds for news between processes, on a busy machine; max_staleness is many times that
PUSHED = {"max_staleness": "30s", "heartbeat": "500ms"}  # what comes sooner than in 30 s was pushed
WAYS = ["key", "tag", "late tag", "function", "region"]

numbers = itertools.count()
Begin = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def sentinel() -> Iterator[SentinelSetup]:
    with start_sentinel() as setup:
        yield setup


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterSetup]:
    with start_cluster(replicas=1) as setup:
        yield setup


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    """Processes that the tests of this file share."""
    with Processes(2, env={"PYTHONPATH": str(Path(__file__).parent)}) as started:
        yield started


@pytest.fixture
def begin(two: Processes) -> Begin:
    """``begin(url, **backend_fields)``: two processes as if they had just started, connected."""

    def begun(url: str, **backend: Any) -> list[Any]:
        namespace = f"topology{next(numbers)}"
        for running in [each.start("steady_app:begin", namespace, url, **backend) for each in two]:
            running.result()
        for running in [each.start("steady_app:until_tracking") for each in two]:
            running.result()
        return list(two)

    return begun


@pytest.fixture(params=["sentinel", "cluster"])
def setup(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Either topology, put right again afterwards."""
    found: SentinelSetup | ClusterSetup = request.getfixturevalue(request.param)
    yield found
    found.settle()


@pytest.mark.timed
@pytest.mark.parametrize("name", ["own", "aown"])
def test_processes_share_values_and_hear_of_every_kind_of_invalidation(setup: Any, begin: Begin, name: str) -> None:
    first, second = begin(setup.url, **PUSHED)
    assert first.call("steady_app:get", "k", name) == 0
    assert second.call("steady_app:get", "k", name) == 0
    assert second.call("steady_app:number_of_runs") == 0, "it came from L2"
    for version, way in enumerate(WAYS, 1):
        for process in (first, second):
            process.call("steady_app:put", "k", version)
        assert first.call("steady_app:invalidate", "k", name, way) == "DONE"
        assert first.call("steady_app:get", "k", name) == version
        assert second.call("steady_app:until_followed", "k", name, version) < AT_ONCE, f"late: {way}"
    assert [process.call("steady_app:state") for process in (first, second)] == [["tracking", "closed"]] * 2


@contextmanager
def working(processes: list[Any]) -> Iterator[None]:
    """Meanwhile threads and tasks of each process call, change data, and invalidate; nothing may be wrong."""
    for place, process in enumerate(processes):
        process.call("steady_app:work", place)
    try:
        for running in [process.start("steady_app:until_recovered") for process in processes]:
            running.result()
        yield
    finally:
        results = [running.result() for running in [process.start("steady_app:rest") for process in processes]]
    for result in results:
        assert not result["wrong"], "\n".join(result["wrong"])
        assert "FAILED" not in result["outcomes"]


def assert_recovery(processes: list[Any]) -> None:
    """L2 answers threads and tasks of all of them, and tells them of changes."""
    for running in [process.start("steady_app:until_recovered") for process in processes]:
        assert running.result() < SOON, "late"
    for running in [process.start("steady_app:until_more_calls") for process in processes]:
        running.result()


def hurt(setup: Any, how: str, key: str | None = None) -> Server:
    """Replace a primary, of a key if there is one; returns the old one."""
    old: Server = setup.primary if isinstance(setup, SentinelSetup) else setup.primary_of(key or 0)
    if how == "manual":
        setup.failover() if isinstance(setup, SentinelSetup) else setup.failover(old)
    else:
        getattr(old, how)()
        setup.promoted(old)
    return old


@pytest.mark.timed
@pytest.mark.parametrize("how", ["manual", *(pytest.param(how, marks=pytest.mark.slow) for how in ("kill", "pause"))])
def test_a_failover_raises_nothing_answers_nothing_wrong_and_is_over_soon(setup: Any, begin: Begin, how: str) -> None:
    processes = begin(setup.url, budget=BUDGET)
    with working(processes):
        hurt(setup, how)
        assert_recovery(processes)
        setup.settle()  # the old one comes back, as a replica
        assert_recovery(processes)


@pytest.fixture
def whole_cluster(cluster: ClusterSetup) -> Iterator[ClusterSetup]:
    yield cluster
    cluster.settle()


def apart(cluster: ClusterSetup, process: Any) -> dict[str, str]:
    """Names of an entry whose value is not where its region's stamps are."""
    for number in range(1000):
        names: dict[str, str] = process.call("steady_app:names", f"k{number}")
        if cluster.primary_of(names["value"]) is not cluster.primary_of(names["region stamp"]):
            return names
    raise AssertionError("all slots are on one primary")


@pytest.mark.timed
@pytest.mark.slow
@pytest.mark.parametrize("part", ["value", "region stamp", "tag stamp"])
def test_the_primary_of_values_or_of_stamps_alone_is_lost(whole_cluster: ClusterSetup, begin: Begin, part: str) -> None:
    processes = begin(whole_cluster.url, budget=BUDGET)
    names = apart(whole_cluster, processes[0])
    with working(processes):
        hurt(whole_cluster, "kill", names[part])
        assert_recovery(processes)


# A push connection that is silent while the other ones are well


class DeafProxy(FaultProxy):
    """While it is ``deaf``, the connections that tell of changes are black holes. Others are not hurt."""

    deaf = False

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = PushLink(self, reader, writer)
        self._links.add(link)
        link.task = self._loop.create_task(link.run())
        link.task.add_done_callback(lambda _: self._links.discard(link))


class PushLink(Link):
    push = False

    async def to_server(self, chunk: bytes) -> None:
        self.push = self.push or b"TRACKING" in chunk
        if not self._swallows():
            await super().to_server(chunk)

    async def to_client(self, chunk: bytes) -> None:
        if not self._swallows():
            await super().to_client(chunk)

    def _swallows(self) -> bool:
        return self.push and isinstance(self.proxy, DeafProxy) and self.proxy.deaf


@pytest.fixture(scope="module")
def proxied() -> Iterator[dict[Server, DeafProxy]]:
    """A cluster whose nodes announce the ports of the proxies before them."""
    with start_cluster(primaries=3) as setup:
        proxies = {server: DeafProxy("127.0.0.1", server.port) for server in setup.servers}
        for server, proxy in proxies.items():
            server.command("CONFIG", "SET", "cluster-announce-port", proxy.port)
        setup._wait(lambda: announced(setup) == {proxy.port for proxy in proxies.values()}, 20.0, "did not announce")
        yield proxies
        for proxy in proxies.values():
            proxy.close()


def announced(setup: ClusterSetup) -> set[int]:
    """The ports that all nodes name for all nodes."""
    told = [{node[1] for _, _, node, *_ in server.command("CLUSTER", "SLOTS")} for server in setup.servers]
    return set.union(*told) if all(one == told[0] for one in told) else set()


def before(proxies: dict[Server, DeafProxy], name: str) -> DeafProxy:
    """The proxy before the node that has this key."""
    anyone = next(iter(proxies))
    slot = anyone.command("CLUSTER", "KEYSLOT", name)
    ranges = anyone.command("CLUSTER", "SLOTS")
    port = next(node[1] for first, last, node, *_ in ranges if first <= slot <= last)
    return next(proxy for proxy in proxies.values() if proxy.port == port)


@pytest.mark.parametrize("rule", [True, False])
@pytest.mark.parametrize("deaf", ["value", "stamp"])
def test_k4_the_bound_holds_when_one_of_several_push_connections_is_silent(
    proxied: dict[Server, DeafProxy], monkeypatch: pytest.MonkeyPatch, face: str, deaf: str, rule: bool
) -> None:
    """The others prove that they have told everything, which says nothing of what this one has not told."""
    server, proxy = next(iter(proxied.items()))
    world = World(server, face, url=proxy.url.replace("redis:", "redis+cluster:"))
    try:
        a, b = world.node(), world.node()
        silent, other = (before(proxied, name) for name in (str(a.f.key(1)), a.bound.tiers.region_stamp))
        assert silent is not other, "choose another key"
        if deaf == "stamp":
            silent = other
        for node in (a, b, a, b):
            node.call()
            node.hear()
        a.call()
        assert a.in_l1
        a.hear()
        proven, bound = a.coherence.proof, a.remote.spec.max_staleness
        silent.deaf = True
        if not rule:
            newest = property(lambda self: max(line.proof for line in self._lines))
            monkeypatch.setattr(PushListener, "proof", newest)
        world.data = "new"
        assert b.apart(lambda: b.f.invalidate(1) if deaf == "value" else b.region.clear()) is Outcome.DONE
        hear_from_some(a, proven)
        assert a.coherence.live
        a.clock.advance(proven + bound * 0.99 - a.clock.now())
        assert a.call() == "old", "the others were heard, and the bound is not over"
        a.clock.advance(proven + bound - a.clock.now())
        assert a.call() == ("new" if rule else "old")
    finally:
        for each in proxied.values():
            each.deaf = False
        world.close()


def hear_from_some(node: Node, proven: float) -> None:
    """One heartbeat, which not all connections answer."""
    listener = node.coherence._listener
    assert isinstance(listener, PushListener)
    node.clock.advance(node.coherence._spec.heartbeat)
    node.turn_until(lambda: sum(line.proof > proven for line in listener._lines) == len(listener._lines) - 1)
    node.coherence.turn(0)


# A failover that loses what the primary has confirmed


@pytest.mark.slow
@pytest.mark.parametrize("rule", [pytest.param(True, id="rule"), pytest.param(False, id="control")])
@pytest.mark.parametrize(("way", "name"), [("key", "own"), ("tag", "aown")])
def test_q3_an_invalidation_that_a_failover_lost_is_delivered_again(
    setup: Any, begin: Begin, way: str, name: str, rule: bool
) -> None:
    """The primary confirms it, no replica hears of it, the primary dies: who invalidated does not get the old value."""
    process = begin(setup.url)[0]
    place = "value" if way == "key" else "tag stamp"

    def primary_of(key: str) -> Server:
        if isinstance(setup, SentinelSetup):
            return setup.primary
        return setup.primary_of(process.call("steady_app:names", key, name)[place])

    primary = primary_of("k")
    other = next(key for key in map(str, range(1000)) if primary_of(key) is primary)
    for key in ("k", other):
        assert process.call("steady_app:get", key, name) == 0
    if not rule:
        process.call("steady_app:forget_what_l2_confirmed")
    stop_replication(setup, primary)
    for key in ("k", other):
        process.call("steady_app:put", key, 1)
        assert process.call("steady_app:invalidate", key, name, way) == "DONE"
    process.call("steady_app:watch", "k", name)
    primary.kill()
    setup.promoted(primary)
    process.call("steady_app:until_tracking")
    assert process.call("steady_app:get", other, name) == (1 if rule else 0), "nobody has asked for it since"
    answers = process.call("steady_app:watched")
    if rule:
        assert set(answers) == {"1"}, answers


def stop_replication(setup: Any, primary: Server) -> None:
    """From now on no replica hears of anything."""
    primary.command("ACL", "SETUSER", "default", "-psync", "-sync")
    primary.command("CLIENT", "KILL", "TYPE", "replica")
    setup._wait(lambda: primary.command("ROLE")[2] == [], 10.0, "went on to replicate")
