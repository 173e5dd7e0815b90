"""What we rely on in redis-py without its promise: a test for each, so that no new release breaks it unseen."""

import asyncio
import inspect
import os
import socket
import ssl
import time
from collections.abc import Iterator

import pytest
import redis

from cachekit.backends.redis import private
from cachekit.backends.redis.address import Address
from cachekit.testing.servers import Server, start_server

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def secure() -> Iterator[Server]:
    with start_server("redis", tls=True) as server:
        yield server


@pytest.fixture(scope="module")
def path() -> Iterator[str]:
    path = f"/tmp/cachekit-{os.getpid()}-private.sock"
    with start_server("valkey", args=["--unixsocket", path]):
        yield path


def trusting(server: Server) -> Address:
    return Address("tls", "127.0.0.1", server.port, context=ssl.create_default_context(cafile=server.ca))


def answers(sock: socket.socket) -> bool:
    sock.settimeout(5.0)
    sock.sendall(b"PING\r\n")
    return sock.recv(100) == b"+PONG\r\n"


def commands_of(server: Server) -> bytes:
    stats: bytes = server.command("INFO", "commandstats")
    return stats


def test_an_open_socket_is_ours_and_nothing_was_said_on_it(valkey: Server) -> None:
    valkey.command("CONFIG", "RESETSTAT")
    sock = private.open_socket(Address("tcp", "127.0.0.1", valkey.port), "127.0.0.1", 5.0)
    assert b"hello" not in commands_of(valkey)
    assert b"client|" not in commands_of(valkey)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert answers(sock)  # the connection object, now collected, did not close it
    sock.close()


def test_an_open_tls_socket_knows_the_servers_name_and_uses_the_given_context(secure: Server) -> None:
    address = trusting(secure)
    sock = private.open_socket(Address("tls", "localhost", secure.port, context=address.context), "127.0.0.1", 5.0)
    assert isinstance(sock, ssl.SSLSocket)
    assert sock.context is address.context
    assert sock.server_hostname == "localhost"
    assert answers(sock)
    sock.close()


def test_an_open_unix_socket_answers(path: str) -> None:
    sock = private.open_socket(Address("unix", path=path), "", 5.0)
    assert answers(sock)
    sock.close()


class Listener(asyncio.Protocol):
    def __init__(self) -> None:
        self.heard = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.heard.set_result(data)


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
async def test_an_open_transport_talks_to_our_protocol_and_nothing_was_said_on_it(
    valkey: Server, secure: Server, path: str, kind: str
) -> None:
    address = {
        "tcp": Address("tcp", "127.0.0.1", valkey.port),
        "tls": trusting(secure),
        "unix": Address("unix", path=path),
    }[kind]
    valkey.command("CONFIG", "RESETSTAT")
    listener = Listener()
    transport, keep = await private.open_transport(address, listener)
    transport.write(b"PING\r\n")
    assert await asyncio.wait_for(listener.heard, 5.0) == b"+PONG\r\n"
    assert b"hello" not in commands_of(valkey)
    assert b"client|" not in commands_of(valkey)
    assert transport.get_extra_info("socket").fileno() >= 0
    if kind == "tls":
        assert transport.get_extra_info("ssl_object").context is address.context
    transport.abort()
    await asyncio.sleep(0)
    assert keep is not None


@pytest.mark.timed
def test_connecting_is_tried_once_and_fails_with_an_error_of_redis(valkey: Server) -> None:
    nobody = Address("tcp", "127.0.0.1", 1)
    begun = time.monotonic()
    with pytest.raises(private.RedisError):
        private.open_socket(nobody, "127.0.0.1", 5.0)
    with pytest.raises(private.RedisError):
        asyncio.run(private.open_transport(nobody, asyncio.Protocol()))
    assert time.monotonic() - begun < 1.0, "late"


def test_a_connection_that_hangs_is_a_timeout_of_redis(secure: Server) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        silent = Address("tls", "127.0.0.1", listener.getsockname()[1], context=trusting(secure).context)
        with pytest.raises(private.RedisTimeout):
            private.open_socket(silent, "127.0.0.1", 0.1)


def test_an_error_of_tls_stays_visible_behind_the_error_of_redis(secure: Server) -> None:
    address = Address("tls", "127.0.0.1", secure.port, context=ssl.create_default_context())
    with pytest.raises(private.RedisError) as caught:
        private.open_socket(address, "127.0.0.1", 5.0)
    assert isinstance(caught.value.__context__, ssl.SSLCertVerificationError)
    with pytest.raises(private.RedisError) as caught:
        asyncio.run(private.open_transport(address, asyncio.Protocol()))
    assert isinstance(caught.value.__context__ or caught.value.__cause__, ssl.SSLCertVerificationError)


def test_the_method_that_we_override_is_still_there() -> None:
    assert "sock" in inspect.signature(redis.SSLConnection._wrap_socket_with_ssl).parameters
