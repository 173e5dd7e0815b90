"""Blocking connections to one server and the pool that keeps them, all within the deadline of each call."""

import os
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Protocol, TypeVar

from cachekit.backends.redis import private
from cachekit.backends.redis.address import Address
from cachekit.backends.redis.commands import Clock, Command, dialogue, greeted, greeting, judged
from cachekit.backends.redis.errors import Dead, broken, no_credentials, no_tls, not_redis, timed_out, while_connecting
from cachekit.backends.redis.peers import Identity, Peer
from cachekit.backends.redis.resp import PENDING, ProtocolError, new_reader, pack
from cachekit.errors import BackendError, Fault

T = TypeVar("T")

CHUNK: Final = 65_536
TRUSTED_IDLE: Final = 1.0  # seconds for which a kept connection is taken to be alive without looking
GIVE_UP: Final = struct.pack("ii", 1, 0)  # SO_LINGER: the kernel forgets what it has not sent yet
HARDLY: Final = 0.001  # seconds that are not worth another attempt


class SupportsFileno(Protocol):
    """A socket, asyncio's view of one included."""

    def fileno(self) -> int: ...


class Wire:
    """One open connection. ``settled`` is False from the moment a command is sent until its reply is complete."""

    __slots__ = (
        "_direct", "_reader", "_sock", "_timeout", "clock", "idle_since", "peer", "reused", "server", "settled",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, *, tls: bool) -> None:
        self._sock = sock
        self._direct = not tls and os.name == "posix"  # its descriptor may be written to
        self._reader = new_reader()
        self._timeout = 0.0
        self.clock = Clock()
        self.settled = True
        self.reused = False
        self.idle_since = 0.0
        self.peer = peer_of(sock)
        self.server: Identity | None = None

    def ask(self, packed: bytes, deadline: float, replies: int = 1) -> Any:
        """Send and read the reply (with ``replies`` > 1: a list of them). Raises BackendError or Dead."""
        reader, unheard = self._reader, True
        try:
            seconds = deadline - monotonic()
            # Setting it is a system call. Budgets of neighbouring calls are alike, so mostly the last one will do.
            if not 0.85 * seconds <= self._timeout <= seconds:
                self._set_timeout(0.95 * seconds)
            self.settled = False
            self._send(packed)
            data = self._receive(deadline, len(packed) <= CHUNK)  # else sending alone may have taken a while
            unheard = False
            reader.feed(data)
            reply = reader.gets()
            if replies != 1 or reply is PENDING:
                answers = self._rest(reply, replies, deadline)
                reply = answers[0] if replies == 1 else answers
        except TimeoutError as error:
            raise timed_out(f"{self.peer}") from error
        except OSError as error:
            raise Dead(error, unheard) from error
        except ProtocolError as error:
            raise not_redis(error) from error
        # More than was asked for would be taken for the answer to the next command: such a connection is not kept.
        self.settled = not reader.has_data()
        return reply

    def _rest(self, reply: Any, replies: int, deadline: float) -> list[Any]:
        """So many replies, ``reply`` being the first one, or `PENDING`."""
        answers: list[Any] = []
        while True:
            if reply is PENDING:
                self._reader.feed(self._receive(deadline, False))
            else:
                answers.append(reply)
                if len(answers) == replies:
                    return answers
            reply = self._reader.gets()

    def looks_alive(self) -> bool:
        """Nothing lies there to be read: neither the end of the connection nor an answer to nobody's question."""
        return not readable(self._sock)

    def close(self, *, forget: bool = False) -> None:
        """``forget``: not even what is still in the kernel's buffer may reach the server."""
        try:
            if forget:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, GIVE_UP)
            self._sock.close()
        except OSError:
            pass  # closed from the other side; nothing is left to be done

    def __del__(self) -> None:
        self.close()

    def _send(self, packed: bytes) -> None:
        sent = 0
        if self._direct:  # a socket with a time limit asks the kernel whether there is room, and mostly there is
            try:
                sent = os.write(self._sock.fileno(), packed)
            except BlockingIOError:
                pass
        if sent < len(packed):
            self._sock.sendall(packed[sent:])

    def _receive(self, deadline: float, first: bool) -> bytes:
        if not first:
            # A server that drips would get the whole time anew with every byte.
            self._set_timeout(deadline - monotonic())
        try:
            data = self._sock.recv(CHUNK)
        except TimeoutError:
            # The socket's own limit may be a little shorter than what is left: see `ask`.
            self._set_timeout(deadline - monotonic())
            data = self._sock.recv(CHUNK)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        return data

    def _set_timeout(self, seconds: float) -> None:
        if seconds < HARDLY:
            raise TimeoutError
        self._timeout = seconds
        self._sock.settimeout(seconds)


def readable(sock: SupportsFileno) -> bool:
    """Whether bytes, or the end of the connection, have arrived. Does not wait."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def peer_of(sock: socket.socket) -> str:
    try:
        peer = sock.getpeername()
    except OSError:
        return ""
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else str(peer)


def open_wire(address: Address, peer: Peer, deadline: float) -> Wire:
    """Connect, log in, ask for the time and which server it is, and tell ``peer``. Raises BackendError."""
    try:
        wire = Wire(connect(address, deadline), tls=address.kind == "tls")
    except (private.RedisError, OSError, ValueError) as error:
        raise while_connecting(error, str(address)) from error
    try:
        packets = greeting(address, credentials(address))
        replies = wire.ask(b"".join(packets), deadline, len(packets))
        wire.server = peer.met(Identity(wire.peer, greeted(packets, replies, wire.clock)))
    except BaseException as error:
        wire.close(forget=not wire.settled)
        if isinstance(error, Dead):
            raise while_connecting(error, str(address)) from error
        raise
    return wire


def connect(address: Address, deadline: float) -> socket.socket:
    """A socket to the first of the server's addresses that answers; each gets an equal share of what is left."""
    hosts = [""] if address.kind == "unix" else resolve(address, deadline)
    for left in range(len(hosts), 0, -1):
        seconds = (deadline - monotonic()) / left * tls_share(address)
        if seconds < HARDLY:
            raise TimeoutError
        try:
            return private.open_socket(address, hosts[-left], seconds)
        except private.RedisError as error:
            late = isinstance(error, private.RedisTimeout)
            if late and address.context and answers_plainly(hosts[-left], address.port, deadline - monotonic()):
                raise no_tls(str(address)) from error
            if left == 1:
                raise
    raise OSError(f"{address.host} has no address")


def tls_share(address: Address) -> float:
    """A plain port never answers the first message of TLS. A share of the time is kept back to find that out."""
    return 0.8 if address.kind == "tls" else 1.0


def answers_plainly(host: str, port: int, seconds: float) -> bool:
    try:
        with socket.create_connection((host, port), timeout=max(HARDLY, seconds)) as plain:
            plain.sendall(b"PING\r\n")
            return plain.recv(1) in (b"+", b"-")
    except OSError:
        return False


def resolve(address: Address, deadline: float) -> list[str]:
    """The IP addresses of the host. A resolver knows no deadline and may take many seconds, so it runs aside."""
    try:
        return numeric(address)
    except socket.gaierror:
        pass
    answers: list[list[str] | OSError] = []
    done = threading.Lock()
    done.acquire()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            answers.append(list(dict.fromkeys(str(entry[4][0]) for entry in found)))
        except OSError as error:
            answers.append(error)
        finally:
            done.release()

    threading.Thread(target=look_up, name="cachekit-resolve", daemon=True).start()
    if not done.acquire(timeout=max(0.0, deadline - monotonic())):
        raise TimeoutError(f"{address.host} was not resolved in time")
    if isinstance(answers[0], OSError):
        raise answers[0]
    return answers[0]


def numeric(address: Address) -> list[str]:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [str(found[0][4][0])]


def credentials(address: Address) -> tuple[str, ...]:
    """The arguments of AUTH."""
    if address.provider is not None:
        try:
            return tuple(address.provider.get_credentials())
        except Exception as error:
            raise no_credentials(error) from error
    if address.password is None and address.username is None:
        return ()
    return (address.username, address.password or "") if address.username else (address.password or "",)


class Waiter:
    """A thread that waits for a connection, or for leave to open one (``wire`` stays None)."""

    __slots__ = ("bell", "served", "wire")

    def __init__(self) -> None:
        self.bell = threading.Lock()
        self.bell.acquire()
        self.served = False
        self.wire: Wire | None = None

    def serve(self, wire: Wire | None) -> None:
        self.wire, self.served = wire, True
        self.bell.release()


class Pool:
    """At most ``limit`` connections. Who finds all of them busy waits in line until its deadline."""

    def __init__(self, limit: int, opener: Callable[[float], Wire], peer: Peer) -> None:
        self._open = opener
        self._peer = peer
        self._idle: deque[Wire] = deque()
        self._waiting: deque[Waiter] = deque()
        self._free = limit  # how many more may be opened
        self._lock = threading.Lock()
        self._closed = False

    def take(self, deadline: float, *, look: bool = False, fresh: bool = False) -> Wire:
        """A connection: a kept one, unless ``fresh``; ``look`` whether it lives even if it was used just now."""
        if fresh:
            self.drop_idle()
        while True:
            try:
                # deque.pop is atomic; those who wait in line come first.
                wire = self._idle.pop() if not self._waiting else self._wait(deadline)
            except IndexError:
                wire = self._wait(deadline)
            if wire is None:
                return self._opened(deadline)
            looked = look or fresh or monotonic() - wire.idle_since > TRUSTED_IDLE
            if wire.server is self._peer.known and (not looked or wire.looks_alive()):
                wire.reused = True
                return wire
            self.discard(wire)

    def give(self, wire: Wire) -> None:
        """Back after use. One with half a conversation on it is closed."""
        if not wire.settled:
            self.discard(wire, forget=True)
            return
        wire.idle_since = monotonic()
        self._idle.append(wire)
        if self._waiting:
            with self._lock:
                self._serve_idle()
        if self._closed:
            self.drop_idle()

    def discard(self, wire: Wire, *, forget: bool = False) -> None:
        """Close it and let another be opened in its place."""
        wire.close(forget=forget)
        self._leave()

    def drop_idle(self) -> None:
        """Close all that are not in use."""
        while True:
            try:
                wire = self._idle.pop()
            except IndexError:
                return
            self.discard(wire)

    def close(self) -> None:
        """As `drop_idle`, and those in use as soon as they come back."""
        self._closed = True
        self.drop_idle()

    def abandon(self) -> None:
        """Close our copies of another process's connections; nothing is sent, and its locks are not touched."""
        for wire in self._idle:
            wire.close()

    def _opened(self, deadline: float) -> Wire:
        try:
            return self._open(deadline)
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().serve(None)
            else:
                self._free += 1

    def _wait(self, deadline: float) -> Wire | None:
        """A connection, or None: one may be opened. BackendError when neither comes in time."""
        waiter = Waiter()
        with self._lock:
            if self._free and not self._waiting:
                self._free -= 1
                return None
            self._waiting.append(waiter)
            self._serve_idle()  # what was given back before we stood in line
        try:
            waiter.bell.acquire(timeout=max(0.0, deadline - monotonic()))
        except BaseException:  # KeyboardInterrupt, a greenlet that is killed
            if not self._withdraw(waiter):
                self._leave() if waiter.wire is None else self.give(waiter.wire)
            raise
        if self._withdraw(waiter):
            raise BackendError(Fault.DOWN, "pool", "all connections are busy: is max_connections too small?")
        return waiter.wire

    def _serve_idle(self) -> None:
        """Locked: hand what lies there to who waits."""
        while self._waiting:
            try:
                wire = self._idle.pop()
            except IndexError:
                return
            self._waiting.popleft().serve(wire)

    def _withdraw(self, waiter: Waiter) -> bool:
        """Leave the line; False when our turn had come."""
        with self._lock:
            if waiter.served:
                return False
            self._waiting.remove(waiter)
            return True


def converse(wire: Wire, command: Command[T], deadline: float) -> T:
    """Walk through the dialogue about a command."""
    steps = dialogue(command, wire.clock, deadline)
    packed = next(steps)
    while True:
        reply = wire.ask(packed, deadline)
        try:
            packed = steps.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result


def run(
    pool: Pool, command: Command[T], deadline: float, talk: Callable[[Wire, Command[T], float], T] | None = None
) -> T:
    """One command: sent again only if it may be and a kept connection broke before any answer. Raises BackendError."""
    again = False
    while True:
        wire = pool.take(deadline, look=not command.repeatable, fresh=again)
        try:
            if talk is not None:
                return talk(wire, command, deadline)
            if command.script is None:  # one question, which is quicker without a dialogue
                return judged(wire.ask(pack(command.words), deadline), command.read)
            return converse(wire, command, deadline)
        except Dead as error:
            if again or not (wire.reused and error.unheard and command.repeatable):
                raise broken(error) from error
            again = True
        except BackendError as error:
            if error.reason == "readonly":  # the name may lead to another server by now
                wire.settled = False
                pool.drop_idle()
            raise
        finally:
            pool.give(wire)


class Pools:
    """The pool of this process; a forked child begins with an empty one."""

    def __init__(self, limit: int, opener: Callable[[float], Wire], peer: Peer) -> None:
        self._limit = limit
        self._opener = opener
        self._peer = peer
        self._by_pid: dict[int, Pool] = {}

    def here(self) -> Pool:
        # Asked at each call, because a server that forks in C may not tell Python.
        pool = self._by_pid.get(os.getpid())
        return self._begin() if pool is None else pool

    def close(self) -> None:
        pool = self._by_pid.pop(os.getpid(), None)
        if pool is not None:
            pool.close()

    def _begin(self) -> Pool:
        # No lock: another thread may have held it at the fork. Each step is atomic.
        pid = os.getpid()
        pool = self._by_pid.setdefault(pid, Pool(self._limit, self._opener, self._peer))
        for other in [other for other in self._by_pid if other != pid]:
            if (old := self._by_pid.pop(other, None)) is not None:
                old.abandon()
        return pool
