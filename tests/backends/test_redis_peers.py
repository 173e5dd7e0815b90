"""That a name leads to another server is noticed when a connection is opened, and told before it is used."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest

from cachekit.backends.base import Faces
from cachekit.backends.redis import open_redis, peers
from cachekit.backends.redis.peers import Identity, Peers
from cachekit.config.spec import BackendSpec
from cachekit.errors import BackendError
from cachekit.testing.faults import FaultProxy
from cachekit.testing.servers import Server, start_server

pytestmark = pytest.mark.server

A, B = "a" * 40, "b" * 40


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Identity("h:1", A), Identity("h:1", A), True),
        (Identity("h:1", A), Identity("h:1", B), False),
        (Identity("h:1", A), Identity("[::1]:1", A), True),  # a name with two addresses
        (Identity("h:1", A), Identity("h:2", B), False),
        (Identity("h:1"), Identity("h:1"), True),
        (Identity("h:1"), Identity("h:2"), False),
        (Identity("h:1", A), Identity("h:1"), True),  # one of the two was not allowed to ask
        (Identity("h:1", A), Identity("h:2"), False),
        (Identity("h:1", "0" * 40), Identity("h:2", "0" * 40), False),  # a service that does not tell
    ],
)
def test_servers_are_told_apart_by_their_run_or_else_their_address(one: Identity, other: Identity, same: bool) -> None:
    assert one.same(other) is other.same(one) is same


def moves_of(*met: Identity) -> int:
    known, moves = Peers(), []
    known.on_move = lambda: moves.append(1)
    for identity in met:
        known.node().met(identity)
    return len(moves)


def test_the_first_server_is_no_move_and_each_change_is_one() -> None:
    a, b = Identity("h:1", A), Identity("h:1", B)
    assert [moves_of(a), moves_of(a, a, a), moves_of(a, b, b), moves_of(a, b, a)] == [0, 0, 1, 2]


def test_nothing_moves_when_some_connections_may_not_ask() -> None:
    known, secret = Identity("h:1", A), Identity("h:1")
    assert moves_of(secret, secret, secret) == 0
    assert moves_of(known, secret, known, secret) == 0
    assert moves_of(secret, known, secret, known) == 0
    assert moves_of(known, secret, Identity("h:1", B)) == 1  # what was known is not forgotten
    assert moves_of(secret, Identity("h:2")) == 1


def test_nodes_are_apart() -> None:
    known, moves = Peers(), []
    known.on_move = lambda: moves.append(1)
    for name, run in (("n1", A), ("n2", B), ("n1", A), ("n2", B)):
        known.node(name).met(Identity("h:1", run))
    assert moves == []
    known.node("n1").met(Identity("h:1", B))
    assert moves == [1]


def test_what_stands_for_a_server_changes_with_it_and_only_then() -> None:
    peer = Peers().node()
    first = peer.met(Identity("h:1", A))
    assert peer.met(Identity("h:1", A)) is first is peer.known
    second = peer.met(Identity("h:1", B))
    assert second is not first
    assert peer.known is second


def test_nobody_uses_the_other_server_before_the_news_is_out() -> None:
    """Also who comes second: the first has noticed, and is still telling."""
    known, telling, told, order = Peers(), threading.Event(), threading.Event(), []

    def on_move() -> None:
        telling.set()
        assert told.wait(5.0)
        order.append("told")

    known.node().met(Identity("h:1", A))
    known.on_move = on_move
    threads = [threading.Thread(target=lambda: (known.node().met(Identity("h:1", B)), order.append("used")))]
    threads[0].start()
    assert telling.wait(5.0)
    threads.append(threading.Thread(target=lambda: (known.node().met(Identity("h:1", B)), order.append("used"))))
    threads[1].start()
    threads[1].join(0.1)
    assert order == []
    told.set()
    for thread in threads:
        thread.join(5.0)
    assert order == ["told", "used", "used"]


def test_a_child_does_not_wait_for_a_thread_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    known, child = Peers(), os.getpid() + 1
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with known.lock():
            held.set()
            done.wait(5.0)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(5.0)
    monkeypatch.setattr(peers.os, "getpid", lambda: child)
    known.node().met(Identity("h:1", A))
    assert holder.is_alive()
    done.set()
    holder.join()


# With servers.


@pytest.fixture(scope="module")
def twins() -> Iterator[tuple[Server, Server]]:
    with start_server("valkey") as first, start_server("valkey") as second:
        first.command("SET", "test:v:{who:1}", "first")
        second.command("SET", "test:v:{who:1}", "second")
        yield first, second


class Name:
    """A name that leads to the first server until it is switched; both servers go on living."""

    key = "test:v:{who:1}"

    def __init__(self, proxy: FaultProxy, twins: tuple[Server, Server], **options: Any) -> None:
        self.proxy, self.twins = proxy, twins
        self.faces: Faces = open_redis(BackendSpec(url=proxy.url, **options))
        self.moves: list[int] = []
        self.faces.tell_of_moves(self.told)

    def told(self) -> None:
        """Notes how much the second server has been read so far."""
        stats = self.twins[1].command("INFO", "commandstats").decode()
        self.moves.append(stats.count("cmdstat_get:"))

    def switch(self, to: int = 1) -> None:
        self.proxy.target = ("127.0.0.1", self.twins[to].port)


@pytest.fixture
def named(twins: tuple[Server, Server]) -> Callable[..., Any]:
    @contextmanager
    def make(**options: Any) -> Iterator[Name]:
        for server in twins:
            server.command("CONFIG", "RESETSTAT")
        with FaultProxy("127.0.0.1", twins[0].port) as proxy:
            name = Name(proxy, twins, **options)
            yield name
            name.faces.sync.close()

    return make


def test_a_listener_notices_that_data_comes_from_another_server(named: Any) -> None:
    """Also where nobody heard of the move: it happened while the listener connected."""
    with named() as name:
        assert get_sync(name) == b"first"
        listener = name.faces.sync.listen(["test:v:{who:"], heartbeat=60.0, clock=monotonic, budget=5.0)
        assert listener.receive(0) == []
        name.switch()
        name.faces.sync.close()  # its kept connections
        assert get_sync(name) == b"second"
        with pytest.raises(BackendError) as caught:
            listener.receive(0)
        assert caught.value.reason == "moved"
        listener.close()


def get_sync(name: Name) -> bytes | None:
    assert name.faces.sync is not None
    return name.faces.sync.get(name.key, budget=5.0)


async def test_a_new_connection_to_another_server_is_told_before_it_is_used(named: Any) -> None:
    for plain in (True, False):
        with named() as name:

            async def get(name: Name = name, plain: bool = plain) -> bytes | None:
                found: bytes | None = get_sync(name) if plain else await name.faces.aio.get(name.key, budget=5.0)
                return found

            assert await get() == b"first"
            name.proxy.reset()
            assert await get() == b"first"
            assert name.moves == []
            name.switch()
            name.proxy.reset()
            assert await get() == b"second"
            assert await get() == b"second"
            assert name.moves == [0]
            await name.faces.aio.close()


async def test_both_faces_know_the_same_and_kept_connections_to_the_old_server_are_not_used(named: Any) -> None:
    with named() as name:
        assert await name.faces.aio.get(name.key, budget=5.0) == get_sync(name) == b"first"
        name.switch()  # the old server lives on, and so do the connections to it
        assert await name.faces.aio.get(name.key, budget=5.0) == get_sync(name) == b"first"
        name.faces.sync.close()
        assert get_sync(name) == b"second"
        assert await name.faces.aio.get(name.key, budget=5.0) == b"second"
        assert name.moves == [0]
        await name.faces.aio.close()


def test_a_thread_that_finds_the_other_server_spoils_the_connections_of_all(named: Any) -> None:
    with named() as name:
        pool = name.faces.sync._pools.here()
        busy, kept = pool.take(deadline()), pool.take(deadline())
        pool.give(kept)
        name.switch()
        pool.discard(pool._opened(deadline()))
        assert name.moves == [0]
        pool.give(busy)
        assert get_sync(name) == b"second"


def deadline() -> float:
    return monotonic() + 5.0


def test_the_push_connection_notices_it_too(named: Any) -> None:
    with named() as name:
        assert get_sync(name) == b"first"
        name.switch()
        options = {"heartbeat": 1.0, "clock": monotonic, "budget": 5.0}
        name.faces.sync.listen(["test:v:"], **options).close()
        assert name.moves == [0]
        assert get_sync(name) == b"second"
        name.faces.sync.listen(["test:v:"], **options).close()
        assert len(name.moves) == 1


def test_a_restarted_server_is_another_one() -> None:
    with start_server("valkey") as server:
        faces, moves = open_redis(BackendSpec(url=server.url)), []
        faces.tell_of_moves(lambda: moves.append(1))
        assert faces.sync is not None
        for expected in (0, 1, 2):
            faces.sync.get("test:v:{who:1}", budget=5.0)
            assert len(moves) == expected
            server.restart()
        faces.sync.close()


def test_a_user_who_may_not_ask_is_served_and_nothing_seems_to_move(server: Server) -> None:
    server.command("ACL", "SETUSER", "noinfo", "on", ">pw", "~test:*", "+@all", "-info")
    faces, moves = open_redis(BackendSpec(url=f"redis://noinfo:pw@127.0.0.1:{server.port}")), []
    faces.tell_of_moves(lambda: moves.append(1))
    assert faces.sync is not None
    for _ in range(3):
        faces.sync.get("test:v:{who:1}", budget=5.0)
        faces.sync.close()
    server.command("ACL", "SETUSER", "noinfo", "+info")
    faces.sync.get("test:v:{who:1}", budget=5.0)
    assert moves == []
    assert faces.sync.peers.node().known.who  # type: ignore[attr-defined]
    faces.sync.close()
    server.command("ACL", "DELUSER", "noinfo")
