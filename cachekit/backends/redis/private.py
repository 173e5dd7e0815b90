"""All that we use of redis-py that it does not promise: its connections open the sockets, and we take them over.

redis-py resolves, connects, sets socket options and starts TLS. Its own handshake, parser, pool and retries are left
out: none of them knows a deadline, and together they cost more than the command.
"""

import asyncio
import socket
import ssl
from typing import Any

from redis import Connection, SSLConnection, UnixDomainSocketConnection, exceptions
from redis import asyncio as redis_asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from cachekit.backends.redis.address import Address

try:
    from redis.driver_info import DriverInfo as _DriverInfo  # noqa: F401  (newer releases)

    QUIET: dict[str, Any] = {"driver_info": None}
except ImportError:
    QUIET = {"lib_name": None, "lib_version": None}


RedisError = exceptions.RedisError
RedisTimeout = exceptions.TimeoutError
LASTING: dict[str, Any] = {"socket_keepalive": True}  # older releases leave it off
TCP: Any = Connection
UNIX: Any = UnixDomainSocketConnection


def nothing(connection: Any) -> None:
    """In place of redis-py's handshake."""


class SharedContext(SSLConnection):
    """TLS with a context made once, and the server's name although we connect to its address."""

    context: ssl.SSLContext
    server_name: str

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
        return self.context.wrap_socket(sock, server_hostname=self.server_name)


def open_socket(address: Address, host: str, seconds: float) -> socket.socket:
    """A connected socket, after the TLS handshake. ``host`` is an IP address of ``address.host``.

    Each step, the whole TLS handshake being one, takes at most ``seconds``. Raises RedisError.
    """
    options = {
        **QUIET, "protocol": 2, "redis_connect_func": nothing, "retry": Retry(NoBackoff(), 0),
        "socket_timeout": seconds, "socket_connect_timeout": seconds,
    }  # fmt: skip
    connection: Any
    if address.kind == "unix":
        connection = UNIX(path=address.path, **options)
    elif address.context is not None:
        connection = SharedContext(host=host, port=address.port, **options, **LASTING)
        connection.context, connection.server_name = address.context, address.host
    else:
        connection = TCP(host=host, port=address.port, **options, **LASTING)
    connection.connect()
    sock: socket.socket = connection._sock
    connection._sock = None  # ours from now on; its __del__ would close it
    return sock


async def open_transport(address: Address, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, object]:
    """A connected transport that talks to ``protocol``, and what must be kept as long as it, or it would be closed.

    The caller limits the time. Raises RedisError.
    """
    options: dict[str, Any] = {
        **QUIET, "protocol": 2, "redis_connect_func": nothing, "retry": None,
        "socket_timeout": None, "socket_connect_timeout": None,
    }  # fmt: skip
    connection: Any
    if address.kind == "unix":
        connection = redis_asyncio.UnixDomainSocketConnection(path=address.path, **options)
    elif address.context is not None:
        connection = redis_asyncio.SSLConnection(host=address.host, port=address.port, **options, **LASTING)
        connection.ssl_context.context = address.context
    else:
        connection = redis_asyncio.Connection(host=address.host, port=address.port, **options, **LASTING)
    await connection.connect()
    writer = connection._writer
    connection._reader = connection._writer = None  # ours from now on
    writer.transport.set_protocol(protocol)
    return writer.transport, writer
