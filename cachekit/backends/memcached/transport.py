"""Connections of pymemcache to one server, each call within its deadline, and the pool that keeps them."""

import os
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, Final

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheClientError, MemcacheError, MemcacheServerError

from cachekit.errors import BackendError, Fault

GIVE_UP: Final = struct.pack("ii", 1, 0)  # SO_LINGER: the kernel forgets what it has not sent yet


class BoundSocket(socket.socket):
    """All that it does ends at its deadline: one timeout for each step would let a dripping server take for ever."""

    deadline = 0.0

    def recv(self, *args: Any) -> bytes:
        self._bind()
        return super().recv(*args)

    def sendall(self, *args: Any) -> None:
        self._bind()
        super().sendall(*args)

    def connect(self, address: Any) -> None:
        self._bind()
        super().connect(address)

    def _bind(self) -> None:
        left = self.deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)


class Sockets:
    """What pymemcache takes from the module `socket`. Addresses are looked up before it is asked."""

    AF_UNSPEC, SOCK_STREAM, IPPROTO_TCP = socket.AF_UNSPEC, socket.SOCK_STREAM, socket.IPPROTO_TCP
    TCP_NODELAY = socket.TCP_NODELAY
    error = OSError

    def __init__(self) -> None:
        self.deadline = 0.0
        self.addresses: list[Any] = []
        self.last: BoundSocket | None = None

    def getaddrinfo(self, *args: Any) -> list[Any]:
        return self.addresses

    def socket(self, *args: Any) -> BoundSocket:
        self.last = BoundSocket(*args)
        self.last.deadline = self.deadline
        return self.last


class Wire:
    """One connection: a client of pymemcache whose socket keeps to deadlines."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._sockets = Sockets()
        self.client = Client((host, port), socket_module=self._sockets, no_delay=True, default_noreply=False)

    def bind(self, deadline: float) -> None:
        """Everything until the next `bind` ends by then; connect if it is not connected any more."""
        self._sockets.deadline = deadline
        sock = self.client.sock
        if isinstance(sock, BoundSocket) and not readable(sock):
            sock.deadline = deadline
            return
        self.client.close()
        self._sockets.addresses = resolve(self._host, self._port, deadline)

    def close(self, *, forget: bool = False) -> None:
        """``forget``: not even what is still in the kernel's buffer may reach the server."""
        if forget and self._sockets.last is not None:
            with suppress(OSError):
                self._sockets.last.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, GIVE_UP)
        self.client.close()

    def __del__(self) -> None:
        self.client.close()


class Pool:
    """At most ``limit`` connections of this process; who finds all of them busy waits until the deadline."""

    def __init__(self, host: str, port: int, limit: int) -> None:
        self._host, self._port, self._limit = host, port, limit
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._idle: deque[Wire] = deque()
        self._free = threading.BoundedSemaphore(self._limit)

    @contextmanager
    def wire(self, deadline: float) -> Iterator[Client]:
        """A client to talk with. Raises BackendError and nothing else, but for what the caller raises."""
        if self._pid != os.getpid():  # the sockets are the parent's; closing our copies says nothing to the server
            self._begin()
        free, left = self._free, deadline - monotonic()
        if left <= 0:
            raise BackendError(Fault.DOWN, "timeout")
        if not free.acquire(timeout=left):
            raise BackendError(Fault.DOWN, "pool", "all connections are busy: is max_connections too small?")
        try:
            wire = self._idle.pop() if self._idle else Wire(self._host, self._port)
            with talking(wire, deadline):
                yield wire.client
            self._idle.append(wire)
        finally:
            free.release()

    def close(self) -> None:
        """Close what is idle. A later call connects again."""
        while self._idle:
            with suppress(IndexError):
                self._idle.pop().close()


@contextmanager
def talking(wire: Wire, deadline: float) -> Iterator[None]:
    """Use of a connection, which is closed if it does not end well."""
    try:
        wire.bind(deadline)
        yield
    except BaseException as error:
        wire.close(forget=True)
        if isinstance(error, (MemcacheError, OSError)):
            raise translated(error) from error
        if isinstance(error, (ValueError, IndexError)):  # pymemcache could not read what came
            raise BackendError(Fault.DOWN, "protocol", "what answers is no memcached server") from error
        raise


def translated(error: MemcacheError | OSError) -> BackendError:
    if isinstance(error, TimeoutError):
        return BackendError(Fault.DOWN, "timeout")
    if isinstance(error, MemcacheServerError):
        text = str(error)
        if "out of memory" in text:
            return BackendError(Fault.READONLY, "oom", text)
        return BackendError(Fault.COMMAND, "command", text)
    if isinstance(error, MemcacheClientError):
        return BackendError(Fault.COMMAND, "command", str(error))
    if isinstance(error, MemcacheError):
        return BackendError(Fault.DOWN, "protocol", f"{type(error).__name__}: what answers may be no memcached server")
    return BackendError(Fault.DOWN, "connection", str(error))


def readable(sock: socket.socket) -> bool:
    """Whether bytes, or the end of the connection, have arrived: neither is due on an idle one."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def resolve(host: str, port: int, deadline: float) -> list[Any]:
    """The addresses of the host. A resolver knows no deadline and may take many seconds, so it runs aside."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        pass  # a name
    found: list[Any] = []
    failed: list[OSError] = []

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=look_up, name="cachekit-resolve", daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - monotonic()))
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError(f"{host} was not resolved in time")
    return found
