"""Each mode of the proxy does to a client what its name says, at once, and `pass_` takes it back."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from cachekit.testing import FaultProxy, Server, start_server
from cachekit.testing.faults import CommandCounter
from cachekit.testing.servers import pack

SILENCE = 0.2  # seconds after which a client takes it that nothing comes


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server() as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    server.command("FLUSHALL")
    server.command("SET", "k", "value")
    with FaultProxy("127.0.0.1", server.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator["Client"]:
    with Client(proxy) as client:
        assert client.ask("PING") == b"+PONG\r\n"
        yield client


class Client:
    """A socket that shows what really arrives."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.socket = socket.create_connection(("127.0.0.1", proxy.port), 5.0)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, *command: str | bytes | int) -> bytes:
        self.socket.sendall(pack(*command))
        return self.hear()

    def hear(self, wait: float = 5.0) -> bytes:
        """What comes; b"" means the end."""
        self.socket.settimeout(wait)
        return self.socket.recv(1 << 20)

    def hears_nothing(self) -> bool:
        try:
            self.hear(SILENCE)
        except TimeoutError:
            return True
        return False


def test_forwards_at_first(proxy: FaultProxy, client: Client) -> None:
    assert client.ask("GET", "k") == b"$5\r\nvalue\r\n"
    assert proxy.url == f"redis://127.0.0.1:{proxy.port}/0"


def test_forwards_megabytes_in_both_directions(client: Client) -> None:
    big = b"x" * 5_000_000
    assert client.ask("SET", "big", big) == b"+OK\r\n"
    got = client.ask("GET", "big")
    while len(got) < len(big) + 12:
        got += client.hear()
    assert got == b"$5000000\r\n" + big + b"\r\n"


def test_the_end_of_one_side_is_the_end_of_the_other(server: Server, proxy: FaultProxy, client: Client) -> None:
    before = len(server.command("CLIENT", "LIST").splitlines())
    with Client(proxy) as other:
        other.ask("PING")
        assert len(server.command("CLIENT", "LIST").splitlines()) == before + 1
    deadline = time.monotonic() + 5
    while len(server.command("CLIENT", "LIST").splitlines()) > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert client.ask("QUIT") == b"+OK\r\n"
    assert client.hear() == b""


def test_a_server_that_is_away_ends_the_connection() -> None:
    with socket.socket() as bound, FaultProxy("127.0.0.1", port_of(bound)) as proxy, Client(proxy) as client:
        assert client.hear() == b""


def port_of(bound: socket.socket) -> int:
    bound.bind(("127.0.0.1", 0))
    port: int = bound.getsockname()[1]
    return port


def test_latency_holds_answers_back(proxy: FaultProxy, client: Client) -> None:
    proxy.latency(0.15)
    begun = time.monotonic()
    assert client.ask("PING") == b"+PONG\r\n"
    assert time.monotonic() - begun >= 0.15


def test_what_latency_holds_comes_at_once_after_pass(proxy: FaultProxy, client: Client) -> None:
    proxy.latency(1000)
    client.socket.sendall(pack("PING"))
    assert client.hears_nothing()
    proxy.pass_()
    assert client.hear() == b"+PONG\r\n"


def test_black_hole_swallows_on_old_and_new_connections(server: Server, proxy: FaultProxy, client: Client) -> None:
    proxy.black_hole()
    with Client(proxy) as new:
        for each in (client, new):
            each.socket.sendall(pack("INCR", "swallowed"))
            assert each.hears_nothing()
    assert server.command("GET", "swallowed") is None
    proxy.pass_()
    assert client.ask("PING") == b"+PONG\r\n"


def test_hang_leaves_new_connections_alone_and_old_ones_in_peace(proxy: FaultProxy, client: Client) -> None:
    proxy.hang()
    with Client(proxy) as new:
        new.socket.sendall(pack("PING"))
        assert new.hears_nothing()
        assert client.ask("PING") == b"+PONG\r\n"
        proxy.pass_()
        assert new.hear() == b"+PONG\r\n"


def test_refuse_aborts_and_refuses_until_pass(proxy: FaultProxy, client: Client) -> None:
    proxy.refuse()
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        client.hear()
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            Client(proxy)
    proxy.pass_()
    with Client(proxy) as new:
        assert new.ask("PING") == b"+PONG\r\n"


def test_every_other_mode_accepts_again_after_refuse(proxy: FaultProxy) -> None:
    proxy.refuse()
    proxy.reply(b"-LOADING\r\n")
    with Client(proxy) as new:
        assert new.ask("PING") == b"-LOADING\r\n"


def test_reset_sends_rst_once_even_to_a_reader(proxy: FaultProxy, client: Client) -> None:
    heard: list[object] = []

    def read() -> None:
        try:
            heard.append(client.hear())
        except OSError as error:
            heard.append(type(error))

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.05)
    proxy.reset()
    reader.join()
    assert heard == [ConnectionResetError]
    with Client(proxy) as new:
        assert new.ask("PING") == b"+PONG\r\n"


def test_reset_reaches_connections_that_hang(proxy: FaultProxy) -> None:
    proxy.hang()
    with Client(proxy) as new:
        deadline = time.monotonic() + 5
        while proxy.connections == 0:
            assert time.monotonic() < deadline
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            new.hear()


def test_slow_lets_answers_drip(proxy: FaultProxy, client: Client) -> None:
    proxy.slow(50)
    client.socket.sendall(pack("GET", "k"))
    begun, pieces = time.monotonic(), [b""]
    while len(b"".join(pieces)) < 11:
        pieces.append(client.hear())
    assert b"".join(pieces) == b"$5\r\nvalue\r\n"
    assert time.monotonic() - begun >= 0.15
    assert len(pieces) > 3


def test_slow_ends_with_the_mode(proxy: FaultProxy, client: Client) -> None:
    proxy.slow(1)
    client.socket.sendall(pack("GET", "k"))
    assert client.hears_nothing()
    proxy.pass_()
    assert client.hear() == b"$5\r\nvalue\r\n"


def test_reply_answers_each_command_and_tells_the_server_nothing(
    server: Server, proxy: FaultProxy, client: Client
) -> None:
    proxy.reply(b"-LOADING wait\r\n")
    client.socket.sendall(pack("INCR", "told") * 3)
    got = b""
    while len(got) < 45:
        got += client.hear()
    assert got == b"-LOADING wait\r\n" * 3
    assert server.command("GET", "told") is None
    proxy.pass_()
    assert client.ask("GET", "k") == b"$5\r\nvalue\r\n"


def test_truncate_counts_per_connection_from_the_call(proxy: FaultProxy, client: Client) -> None:
    proxy.truncate(7)
    assert client.ask("GET", "k") == b"$5\r\nval"
    client.socket.sendall(pack("PING"))
    assert client.hears_nothing()
    with Client(proxy) as new:
        assert new.ask("PING") == b"+PONG\r\n"
    proxy.truncate(2)
    assert client.ask("PING") == b"+P"


def test_truncate_may_end_the_connection(proxy: FaultProxy, client: Client) -> None:
    proxy.truncate(7, eof=True)
    assert client.ask("GET", "k") == b"$5\r\nval"
    assert client.hear() == b""


def test_drop_replies_lets_requests_through(server: Server, proxy: FaultProxy, client: Client) -> None:
    proxy.drop_replies()
    client.socket.sendall(pack("INCR", "counter"))
    assert client.hears_nothing()
    assert server.command("GET", "counter") == b"1"
    proxy.pass_()
    assert client.ask("GET", "counter") == b"$1\r\n1\r\n"


def test_held_requests_arrive_late_although_their_client_left(server: Server, proxy: FaultProxy) -> None:
    with Client(proxy) as client:
        client.ask("PING")
        proxy.hold_requests()
        client.socket.sendall(pack("INCR", "late"))
        assert client.hears_nothing()
    assert server.command("GET", "late") is None
    proxy.pass_()
    deadline = time.monotonic() + 5
    while server.command("GET", "late") != b"1":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_held_replies_come_in_order_afterwards(server: Server, proxy: FaultProxy, client: Client) -> None:
    proxy.hold_replies()
    for _ in range(3):
        client.socket.sendall(pack("INCR", "held"))
    assert client.hears_nothing()
    assert server.command("GET", "held") == b"3"
    proxy.pass_()
    got = b""
    while len(got) < 12:
        got += client.hear()
    assert got == b":1\r\n:2\r\n:3\r\n"


def test_counts_connections_requests_and_bytes(proxy: FaultProxy) -> None:
    with Client(proxy) as client:
        client.ask("PING")
        client.ask("GET", "k")
    with Client(proxy) as client:
        client.ask("PING")
    assert (proxy.connections, proxy.requests) == (2, 3)
    assert proxy.bytes_in == 2 * len(pack("PING")) + len(pack("GET", "k"))
    assert proxy.bytes_out == 2 * len(b"+PONG\r\n") + len(b"$5\r\nvalue\r\n")


def test_close_ends_connections_thread_and_port(server: Server) -> None:
    before = threading.active_count()
    proxy = FaultProxy("127.0.0.1", server.port)
    with Client(proxy) as client:
        client.ask("PING")
        proxy.close()
        proxy.close()
        with pytest.raises(ConnectionResetError):
            client.hear()
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        Client(proxy)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_commands_are_counted_however_they_are_cut(size: int) -> None:
    stream = pack("SET", "k", b"*1\r\n$4\r\nPING\r\n") + pack("PING") + pack("GET", b"")
    counter = CommandCounter()
    assert sum(counter.feed(stream[at : at + size]) for at in range(0, len(stream), size)) == 3


def test_other_protocols_count_once_per_burst() -> None:
    counter = CommandCounter()
    assert counter.feed(b"get k\r\n") == 1
    assert counter.feed(b"GET / HTTP/1.1\r\n\r\n") == 1
    assert counter.feed(b"*x\r\n") == 1
    assert counter.feed(pack("PING")) == 1
