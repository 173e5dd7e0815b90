"""In a cluster each command goes to the node that has its slot, whatever moves and whoever is gone."""

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from failovers import SOON, at_work, replaced

from cachekit.backends.redis import commands, open_redis
from cachekit.backends.redis.address import Address, Cluster
from cachekit.backends.redis.backend import ClusterBackend
from cachekit.backends.redis.cluster import MOVES, ClusterTopology, Routes, Send, SendAll
from cachekit.backends.redis.errors import from_reply
from cachekit.backends.redis.peers import Peers
from cachekit.backends.redis.resp import ReplyError
from cachekit.backends.redis.rights import grant
from cachekit.backends.redis.slots import Range, slot_of
from cachekit.codec.envelope import NEVER, Header, unpack
from cachekit.codec.envelope import pack as packed_entry
from cachekit.config.spec import BackendSpec
from cachekit.errors import BackendError, Fault
from cachekit.testing import ClusterSetup, Server, start_cluster
from cachekit.testing.servers import pack, read_reply

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture(scope="module")
def started() -> Iterator[ClusterSetup]:
    with start_cluster(replicas=1, password="hush") as setup:
        yield setup


@pytest.fixture
def setup(started: ClusterSetup) -> Iterator[ClusterSetup]:
    yield started
    started.settle()


def failure(operation: Callable[[], Any]) -> BackendError:
    with pytest.raises(BackendError) as caught:
        operation()
    assert "hush" not in str(caught.value)
    return caught.value


def other_than(setup: ClusterSetup, server: Server) -> Server:
    return next(primary for primary in setup.primaries if primary is not server)


@contextlib.contextmanager
def moving(setup: ClusterSetup, key: str) -> Iterator[tuple[int, Server]]:
    """The slot of a key and the node that it is about to move to; back again afterwards."""
    slot = setup.slot(key)
    source = setup.primary_of(slot)
    target = other_than(setup, source)
    setup.start_move(slot, target)
    try:
        yield slot, target
    finally:
        if setup.primary_of(slot) is source:
            setup.end_move(slot, target)
        setup.move(slot, source)


def on(server: Server, key: str) -> Any:
    """What this node itself has of a slot that is on its way to it."""
    with server._connect(5.0) as connection, connection.makefile("rb") as answers:
        connection.sendall(pack("AUTH", server.password or "") + pack("ASKING") + pack("GET", key))
        return [read_reply(answers) for _ in range(3)][-1]


# On a live cluster.


def test_values_are_on_the_node_that_has_their_slot(caller: Callable[..., Any], setup: ClusterSetup) -> None:
    backend = caller(setup.url)
    keys = [f"test:v:{{nodes:{number}}}" for number in range(30)]
    for key in keys:
        assert backend.store(key, key.encode(), None, None) is True
    assert {setup.primary_of(key) for key in keys} == set(setup.primaries)
    for key in keys:
        assert setup.primary_of(key).command("GET", key) == key.encode()
    assert backend.get_many([*keys, "absent", keys[0]]) == [*(key.encode() for key in keys), None, keys[0].encode()]
    backend.invalidate(keys[10:])
    assert backend.get_many(keys) == [*(key.encode() for key in keys[:10]), *[None] * 20]


def entry(key: str) -> bytes:
    return packed_entry(Header(1, os.urandom(16), 1, NEVER, NEVER), b"payload", key)


def test_values_of_all_nodes_are_marked_as_stale(caller: Callable[..., Any], setup: ClusterSetup) -> None:
    backend, token = caller(setup.url), os.urandom(16)
    keys = [f"test:v:{{stale:{number}}}" for number in range(30)]
    there, absent = keys[:20], keys[20:]
    backend.invalidate(keys)
    for key in there:
        backend.store(key, entry(key), 60_000, None)
    for key in keys:
        backend.lease(key, token, 60_000, None, False)
    assert {setup.primary_of(key) for key in there} == {setup.primary_of(key) for key in absent} == set(setup.primaries)
    backend.expire_soft(keys)
    for key in there:
        assert unpack(setup.primary_of(key).command("GET", key), key)[0].stale
        assert 0 < backend.remaining(key) <= 60_000
    assert backend.get_many(absent) == [None] * 10
    assert not any(backend.store(key, entry(key), None, token) for key in keys)


def test_one_node_in_the_url_is_enough(caller: Callable[..., Any], setup: ClusterSetup, key: str) -> None:
    for server in setup.servers:  # replicas too
        backend = caller(f"redis+cluster://:hush@localhost:{server.port}")
        assert backend.get(key) is None
        assert backend.check()["topology"] == "cluster"


def test_a_node_of_the_url_that_is_gone_is_passed_over(
    caller: Callable[..., Any], setup: ClusterSetup, key: str
) -> None:
    assert caller(setup.url.replace("127.0.0.1", "127.0.0.1:1,127.0.0.1", 1)).get(key) is None
    error = failure(lambda: caller("redis+cluster://127.0.0.1:1,127.0.0.1:2").get(key))
    assert (error.fault, error.reason) == (Fault.DOWN, "connection")


def test_a_server_that_is_no_cluster_is_told(caller: Callable[..., Any], server: Server, key: str) -> None:
    error = failure(lambda: caller(server.url.replace("redis:", "redis+cluster:")).get(key))
    assert (error.fault, error.reason) == (Fault.CONFIG, "command")
    assert "redis://" in str(error)


def test_a_plain_url_of_a_node_is_told(caller: Callable[..., Any], setup: ClusterSetup, key: str) -> None:
    port = other_than(setup, setup.primary_of(key)).port
    error = failure(lambda: caller(f"redis://:hush@127.0.0.1:{port}").get(key))
    assert (error.fault, error.reason) == (Fault.CONFIG, "moved")
    assert "redis+cluster://" in str(error)


def test_a_value_is_found_while_its_slot_moves_and_afterwards(
    caller: Callable[..., Any], setup: ClusterSetup, key: str
) -> None:
    """ASK, then MOVED."""
    backend, moves, gone = caller(setup.url), [], f"{key}:gone"
    backend.store(key, b"stays", None, None)
    backend.face.on_move = lambda: moves.append(1)
    with moving(setup, key) as (slot, target):
        assert slot_of(gone) == slot
        setup.primary_of(slot).command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000, "AUTH", "hush")
        assert on(target, key) == b"stays"
        assert backend.get(key) == b"stays"
        assert backend.get_many(["other", key]) == [None, b"stays"]
        assert backend.touch(key, 60_000) is True  # a script
        assert backend.get(gone) is None
        assert failure(lambda: backend.get_or_lease(gone, os.urandom(16), 5000)).fault is Fault.DOWN  # two keys
        assert not moves
        setup.end_move(slot, target)
        assert backend.get(key) == b"stays"
        assert moves == [1, 1], "before the new map is used, and when the old one no longer is"
        assert backend.store(key, b"new", None, None) is True
        assert backend.get_many([key, "other"]) == [b"new", None]
        assert target.command("GET", key) == b"new"
        assert moves == [1, 1]
    assert backend.get(key) == b"new"


@pytest.mark.timed
def test_calls_go_on_after_a_failover_by_hand(caller: Callable[..., Any], setup: ClusterSetup, key: str) -> None:
    backend, old = caller(setup.url), setup.primary_of(key)
    with at_work(backend, key) as worker:
        assert replaced(worker, lambda: setup.failover(old), lambda: None) < SOON, "late"
    assert setup.primary_of(key) is not old
    assert worker.faults <= {"DOWN connection", "DOWN timeout"}
    assert len(worker.counted) <= int(setup.primary_of(key).command("GET", key)) <= worker.attempts


@pytest.mark.timed
@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "pause"])
def test_calls_go_on_soon_after_a_node_that_is_gone_has_been_replaced(
    caller: Callable[..., Any], setup: ClusterSetup, key: str, how: str
) -> None:
    backend, old = caller(setup.url), setup.primary_of(key)
    with at_work(backend, key) as worker:
        assert replaced(worker, getattr(old, how), lambda: setup.promoted(old)) < SOON, "late"
        assert worker.faults <= {"DOWN connection", "DOWN timeout", "DOWN loading"}
    assert int(setup.primary_of(key).command("GET", key)) <= worker.attempts


def test_all_primaries_are_listened_to_and_a_failover_is_heard_of(setup: ClusterSetup) -> None:
    backend = open_redis(BackendSpec(url=setup.url)).sync
    assert isinstance(backend, ClusterBackend)
    listener = backend.listen(["test:v:{heard:"], heartbeat=0.2, clock=time.monotonic, budget=5.0)
    keys = {f"test:v:{{heard:{number}}}" for number in range(30)}
    for key in keys:
        setup.primary_of(key).command("SET", key, "1")
    heard: set[str | None] = set()
    while heard != keys:
        heard.update(listener.receive(1.0))
    setup.failover(setup.primaries[0])
    error = failure(lambda: [listener.receive(1.0) for _ in range(100)])
    assert error.fault is Fault.DOWN
    backend.close()


def test_the_documented_rights_are_enough(caller: Callable[..., Any], setup: ClusterSetup) -> None:
    for server in setup.servers:
        server.command(*grant("app", "test", "cluster").split(), "on", ">pw")
    backend = caller(setup.url.replace(":hush@", "app:pw@"))
    keys = [f"test:v:{{rights:{number}}}" for number in range(10)]
    for key in keys:
        assert backend.store(key, b"1", None, None) is True
    assert backend.get_many(keys) == [b"1"] * 10
    stale = [f"test:v:{{rights:stale:{number}}}" for number in range(10)]
    for key in stale:
        backend.store(key, entry(key), None, None)
    backend.expire_soft(stale)
    assert all(unpack(backend.get(key), key)[0].stale for key in stale)
    with moving(setup, keys[0]) as (slot, target):
        setup.primary_of(slot).command("MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5000, "AUTH", "hush")
        assert backend.get(keys[0]) == b"1"


# The way of a command, step by step.

A, B = "t:v:{a}", "t:v:{b}"
LATER = 10.0


def slot_map(**owners: str) -> list[Range]:
    """All slots are of ``rest``, but those that are named."""
    ranges = [Range(0, 16383, ((owners.pop("rest", "one"), 1),))]
    return ranges + [Range(slot_of(name), slot_of(name), ((owner, 1),)) for name, owner in owners.items()]


class Walk:
    """A command on its way: what it does next, and how that goes."""

    def __init__(self, routes: Routes, command: commands.Command[Any], seconds: float = LATER) -> None:
        self.steps: Generator[Any, Any, Any] = routes.run(command, time.monotonic() + seconds)
        self.step: Any = next(self.steps)
        self.result: Any = None

    def __repr__(self) -> str:
        if isinstance(self.step, SendAll):
            return f"{self.step.node.name}: {[' '.join(map(str, command.words)) for command in self.step.commands]}"
        words = " ".join(map(str, self.step.command.words[:2]))
        return f"{self.step.node.name}: {'ASKING ' * self.step.asking}{words}"

    def answered(self, answer: Any) -> "Walk":
        try:
            self.step = self.steps.throw(answer) if isinstance(answer, BackendError) else self.steps.send(answer)
        except StopIteration as end:
            self.step, self.result = None, end.value
        return self

    @property
    def asks_for_the_map(self) -> bool:
        return isinstance(self.step, SendAll) and self.step.commands[0].words == ("CLUSTER", "SLOTS")


def error(text: str) -> BackendError:
    return from_reply(ReplyError(text))


REFUSED = BackendError(Fault.DOWN, "connection", "refused")


@pytest.fixture
def peers() -> Peers:
    return Peers()


@pytest.fixture
def routes(peers: Peers) -> Routes:
    """A cluster whose map is known: node one has everything but the slot of b."""
    primary = Address("tcp", "one", 1)
    routes = Routes(Cluster(primary, (primary,)), peers)
    walk = Walk(routes, commands.get(A))
    assert walk.asks_for_the_map
    assert repr(walk.answered([slot_map(b="two"), 7])) == f"one:1: GET {A}"
    walk.answered(b"1")
    assert walk.result == b"1"
    return routes


def test_the_map_is_asked_for_once(routes: Routes) -> None:
    walk = Walk(routes, commands.get(B))
    assert repr(walk) == f"two:1: GET {B}"
    assert walk.answered(None).result is None


def test_values_of_a_node_are_asked_for_in_one_step(routes: Routes) -> None:
    walk = Walk(routes, commands.get_many([A, B, "t:v:{c}"]))
    assert repr(walk) == f"one:1: ['MGET {A}', 'MGET t:v:{{c}}']"
    assert repr(walk.answered([[b"1"], [b"3"]])) == f"two:1: ['MGET {B}']"
    assert walk.answered([[b"2"]]).result == [b"1", b"2", b"3"]


def test_of_several_only_what_failed_is_asked_for_again(routes: Routes) -> None:
    walk = Walk(routes, commands.get_many([A, B, "t:v:{c}"]))
    walk.answered([error(f"MOVED {slot_of(A)} two:1"), [b"3"]]).answered([[b"2"]])
    assert repr(walk) == f"one:1: MGET {A}"
    assert walk.answered(error(f"MOVED {slot_of(A)} two:1")).asks_for_the_map
    assert repr(walk.answered([slot_map(b="two", a="two"), 8])) == f"two:1: MGET {A}"
    assert walk.answered([b"1"]).result == [b"1", b"2", b"3"]


def test_a_slot_that_has_moved_is_followed_and_its_new_node_asked_for_the_map(routes: Routes, peers: Peers) -> None:
    moves: list[str] = []
    peers.on_move = lambda: moves.append(str(routes.map.owners[slot_of(A)]))
    walk = Walk(routes, commands.get(A)).answered(error(f"MOVED {slot_of(A)} three:1"))
    assert walk.asks_for_the_map
    assert walk.step.node.name == "three:1"
    assert repr(walk.answered([slot_map(a="three"), 8])) == f"three:1: GET {A}"
    assert moves == ["one:1", "three:1"], "before the new map is used, and when the old one no longer is"
    assert walk.answered(b"1").result == b"1"
    assert repr(Walk(routes, commands.get(B))) == f"one:1: GET {B}"  # the new map says so


def test_a_slot_that_has_moved_is_followed_even_if_nobody_tells_the_map(routes: Routes) -> None:
    walk = Walk(routes, commands.get(A)).answered(error(f"MOVED {slot_of(A)} :2"))
    while walk.asks_for_the_map:
        walk.answered(REFUSED)
    assert repr(walk) == f"one:2: GET {A}"  # without a host it is that of the node that sent us on
    walk.answered(b"1")
    assert repr(Walk(routes, commands.get(A))) == f"one:2: GET {A}"


def test_a_slot_on_its_way_is_asked_for_with_permission_and_the_map_stays(routes: Routes) -> None:
    walk = Walk(routes, commands.get(A)).answered(error(f"ASK {slot_of(A)} two:1"))
    assert repr(walk) == f"two:1: ASKING GET {A}"
    assert walk.answered(b"1").result == b"1"
    assert repr(Walk(routes, commands.get(A))) == f"one:1: GET {A}"


def test_nodes_that_send_on_in_a_circle_are_left(routes: Routes) -> None:
    walk, sent = Walk(routes, commands.get(A)), 0
    told: BackendError | None = None
    while told is None:
        answer = error(f"MOVED {slot_of(A)} {'two' if walk.step.node.name == 'one:1' else 'one'}:1")
        if walk.asks_for_the_map:
            answer = REFUSED
        else:
            sent += 1
        try:
            walk.answered(answer)
        except BackendError as caught:
            told = caught
    assert (told.fault, told.reason, sent) == (Fault.DOWN, "moved", MOVES + 1)


def test_a_read_goes_to_the_node_that_took_over(routes: Routes) -> None:
    walk = Walk(routes, commands.get(A)).answered(REFUSED)
    assert walk.asks_for_the_map
    assert walk.step.node.name == "two:1"  # those that failed are asked last
    assert repr(walk.answered([slot_map(a="two"), 8])) == f"two:1: GET {A}"
    with pytest.raises(BackendError):
        walk.answered(REFUSED)  # once


def test_a_read_whose_node_still_has_the_slot_fails(routes: Routes) -> None:
    walk = Walk(routes, commands.get(A)).answered(REFUSED)
    with pytest.raises(BackendError, match="refused"):
        walk.answered([slot_map(b="two"), 7])
    walk = Walk(routes, commands.get(A))
    assert walk.asks_for_the_map  # the next one asks first, but only for this node
    assert repr(Walk(routes, commands.get(B))) == f"two:1: GET {B}"
    assert repr(walk.answered([slot_map(b="two"), 7])) == f"one:1: GET {A}"
    walk.answered(b"1")
    assert repr(Walk(routes, commands.get(A))) == f"one:1: GET {A}"


@pytest.mark.parametrize(
    "command",
    [
        commands.incr(A, 1, None, b"", True),
        commands.store(A, b"1", None, b"t" * 16),
        commands.store_if(A, b"1", None, None, True),
    ],
)
def test_what_may_have_been_executed_is_sent_again_only_if_it_may_be(
    routes: Routes, command: commands.Command[Any]
) -> None:
    walk = Walk(routes, command)
    assert isinstance(walk.step, Send)
    with pytest.raises(BackendError, match="refused"):
        walk.answered(REFUSED)
    walk = Walk(routes, command)
    assert walk.asks_for_the_map  # the next call finds the new node
    assert walk.answered([slot_map(a="two"), 8]).step.node.name == "two:1"
    walk.answered(error(f"MOVED {slot_of(A)} three:1"))  # this is not an execution
    assert walk.answered([slot_map(a="three"), 9]).step.node.name == "three:1"
    assert walk.answered(1 if command.read(1) == 1 else True).step is None


@pytest.mark.parametrize("text", ["NOPERM no", "WRONGTYPE x", "OOM x", "ERR x"])
def test_what_fails_for_a_reason_of_its_own_is_not_asked_elsewhere(routes: Routes, text: str) -> None:
    with pytest.raises(BackendError):
        Walk(routes, commands.get(A)).answered(error(text))
    assert repr(Walk(routes, commands.get(A))) == f"one:1: GET {A}"


def test_a_slot_that_nobody_serves_is_down(routes: Routes) -> None:
    walk = Walk(routes, commands.get(A)).answered(error(f"MOVED {slot_of(A)} two:1"))
    walk.answered([[Range(0, 0, (("one", 1),))], 8])
    with pytest.raises(BackendError) as caught:
        Walk(routes, commands.get(B)).answered([[Range(0, 0, (("one", 1),))], 8])
    assert (caught.value.fault, caught.value.reason) == (Fault.DOWN, "loading")


def test_nobody_is_asked_after_the_deadline(peers: Peers) -> None:
    primary = Address("tcp", "one", 1)
    with pytest.raises(BackendError) as caught:
        Walk(Routes(Cluster(primary, (primary,)), peers), commands.get(A), -1.0)
    assert caught.value.reason == "timeout"


class Told:
    """In place of a router: the map is what it is told."""

    def __init__(self, routes: Routes, epoch: int | None) -> None:
        self.routes, self.epoch = routes, epoch

    def refresh(self, deadline: float) -> Any:
        steps = self.routes.refresh(deadline)
        next(steps)
        try:
            steps.send([slot_map(b="two"), BackendError(Fault.CONFIG, "noperm") if self.epoch is None else self.epoch])
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize(
    ("known", "state", "epoch", "moved"),
    [(7, "ok", 7, False), (7, "ok", 6, False), (7, "ok", 8, True), (7, "fail", 7, True), (None, "ok", 8, False)],
)
def test_the_heartbeat_judges_state_and_epoch(
    routes: Routes, known: int | None, state: str, epoch: int, moved: bool
) -> None:
    topology = ClusterTopology(Told(routes, known))  # type: ignore[arg-type]
    assert [str(address) for address in topology.primaries(time.monotonic() + LATER)] == ["one:1", "two:1"]
    answer = f"cluster_state:{state}\r\ncluster_current_epoch:{epoch}\r\n".encode()
    if moved:
        caught = failure(lambda: topology.judge(answer))
        assert (caught.fault, caught.reason) == (Fault.DOWN, "moved")
    else:
        topology.judge(answer)
    topology.judge(ReplyError("NOPERM this user has no permissions"))
    assert failure(lambda: topology.judge(ReplyError("LOADING"))).reason == "loading"
    assert failure(lambda: topology.judge(b"nonsense")).fault is Fault.DOWN
