"""Connections and pools for asyncio: one pool per running loop, closed with its loop."""

import asyncio
import os
import socket
import struct
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from time import monotonic
from typing import Any, Final, TypeVar, cast

from cachekit.backends.redis import private
from cachekit.backends.redis.address import Address
from cachekit.backends.redis.commands import Clock, Command, dialogue, greeted, greeting, judged
from cachekit.backends.redis.errors import Dead, broken, no_credentials, no_tls, not_redis, timed_out, while_connecting
from cachekit.backends.redis.peers import Identity, Peer
from cachekit.backends.redis.resp import PENDING, ProtocolError, new_reader, pack
from cachekit.backends.redis.transport import credentials, peer_of, readable, tls_share
from cachekit.errors import BackendError, Fault

T = TypeVar("T")

GIVE_UP: Final = struct.pack("ii", 1, 0)  # SO_LINGER: the kernel forgets what it has not sent yet


class AsyncWire(asyncio.Protocol):
    """One open connection of one loop, with at most one command on it. ``settled`` as in `transport.Wire`."""

    def __init__(self) -> None:
        self._reader = new_reader()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Any] | None = None
        self._answers: list[Any] = []
        self._wanted = 0
        self._unheard = True
        self.clock = Clock()
        self.settled = True
        self.reused = False
        self.server: Identity | None = None
        self.keep: Any = None  # an object of asyncio that would close the transport if it were collected

    async def ask(self, packed: bytes, deadline: float, replies: int = 1) -> Any:
        """Send and read the reply (with ``replies`` > 1: a list of them). Raises BackendError or Dead."""
        transport = self._transport
        if transport is None:
            raise Dead("the connection was closed", unheard=True)
        seconds = deadline - monotonic()
        if seconds <= 0:
            raise timed_out("the connection")
        loop = asyncio.get_running_loop()
        self._answer = answer = loop.create_future()
        self._wanted, self._unheard, self.settled = replies, True, False
        transport.write(packed)
        watchdog = loop.call_later(seconds, self._expire)
        try:
            return await answer
        finally:
            watchdog.cancel()
            self._answer = None

    def looks_alive(self, *, look: bool = False) -> bool:
        """As far as the loop has noticed; with ``look`` also whether something has arrived since."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        return not (look and readable(transport.get_extra_info("socket")))

    def close(self, *, forget: bool = False) -> None:
        """At once. ``forget``: not even what is still in the kernel's buffer may reach the server."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        if forget and (raw := transport.get_extra_info("socket")) is not None:
            try:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, GIVE_UP)
            except OSError:
                pass  # closed from the other side already
        try:
            transport.abort()
        except RuntimeError:
            pass  # its loop was closed before us and took the socket along

    # Called by the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        answer, self._unheard = self._answer, False
        if answer is None or answer.done():
            self.close()  # an answer to nobody's question would be taken for the next one's
            return
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not PENDING:
                self._answers.append(reply)
        except ProtocolError as error:
            answer.set_exception(not_redis(error))
            return
        if len(self._answers) >= self._wanted:
            answers, self._answers = self._answers, []
            self.settled = len(answers) == self._wanted and not self._reader.has_data()
            answer.set_result(answers[0] if self._wanted == 1 else answers)

    def eof_received(self) -> None:
        self._fail(Dead("the server closed the connection", self._unheard))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._fail(Dead(error or "the connection was closed", self._unheard))

    def _expire(self) -> None:
        self._fail(timed_out("the connection"))
        self.close(forget=True)

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


async def open_wire(address: Address, peer: Peer, deadline: float) -> AsyncWire:
    """As `transport.open_wire`."""
    wire = AsyncWire()
    try:
        login = await within(deadline, async_credentials(address))
        seconds = (deadline - monotonic()) * tls_share(address)
        transport, wire.keep = await within(monotonic() + seconds, private.open_transport(address, wire))
        wire.connection_made(transport)
        packets = greeting(address, login)
        replies = await wire.ask(b"".join(packets), deadline, len(packets))
        reached = peer_of(transport.get_extra_info("socket"))
        wire.server = peer.met(Identity(reached, greeted(packets, replies, wire.clock)))
    except (private.RedisError, OSError, ValueError, Dead) as error:
        wire.close(forget=not wire.settled)
        if isinstance(error, TimeoutError) and address.kind == "tls" and await answers_plainly(address, deadline):
            raise no_tls(str(address)) from error
        raise while_connecting(error, str(address)) from error
    except BaseException:
        wire.close(forget=not wire.settled)
        raise
    return wire


async def within(deadline: float, work: Awaitable[T]) -> T:
    async with asyncio.timeout(deadline - monotonic()):
        return await work


async def answers_plainly(address: Address, deadline: float) -> bool:
    """As `transport.answers_plainly`."""
    try:
        async with asyncio.timeout(deadline - monotonic()):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            try:
                writer.write(b"PING\r\n")
                return await reader.read(1) in (b"+", b"-")
            finally:
                writer.close()
    except OSError:
        return False


async def async_credentials(address: Address) -> tuple[str, ...]:
    if address.provider is None:
        return credentials(address)
    find = getattr(address.provider, "get_credentials_async", None)
    if find is None:
        return credentials(address)
    try:
        return tuple(await find())
    except Exception as error:
        raise no_credentials(error) from error


class AsyncPool:
    """At most ``limit`` connections of one loop. Who finds all of them busy waits in line until its deadline."""

    def __init__(self, limit: int, opener: Callable[[float], Awaitable[AsyncWire]], peer: Peer) -> None:
        self.pid = os.getpid()
        self._open = opener
        self._peer = peer
        self._idle: list[AsyncWire] = []
        self._waiting: deque[asyncio.Future[AsyncWire | None]] = deque()
        self._free = limit
        self._closed = False
        self._farewell: AsyncGenerator[None] | None = None

    async def take(self, deadline: float, *, look: bool = False, fresh: bool = False) -> AsyncWire:
        """A connection: a kept one, unless ``fresh``; ``look`` whether it lives even if nothing was heard."""
        if fresh:
            self.drop_idle()
        while True:
            if self._idle and not self._waiting:
                wire: AsyncWire | None = self._idle.pop()
            elif self._free and not self._waiting:
                self._free -= 1
                wire = None
            else:
                wire = await self._wait(deadline)
            if wire is None:
                return await self._opened(deadline)
            if wire.server is self._peer.known and wire.looks_alive(look=look or fresh):
                wire.reused = True
                return wire
            self.discard(wire)

    def give(self, wire: AsyncWire) -> None:
        """Back after use. One with half a conversation on it is closed."""
        if not wire.settled or self._closed or not wire.looks_alive():
            self.discard(wire, forget=not wire.settled)
        elif not self._serve(wire):
            self._idle.append(wire)

    def discard(self, wire: AsyncWire, *, forget: bool = False) -> None:
        wire.close(forget=forget)
        self._leave()

    def drop_idle(self) -> None:
        """Close all that are not in use."""
        while self._idle:
            self.discard(self._idle.pop())

    def close(self) -> None:
        """As `drop_idle`, and those in use as soon as they come back."""
        self._closed = True
        self.drop_idle()

    async def _opened(self, deadline: float) -> AsyncWire:
        try:
            if self._farewell is None:
                self._farewell = farewell(weakref.ref(self))
                await anext(self._farewell)
            return await self._open(deadline)
        except BaseException:
            self._leave()
            raise

    async def _wait(self, deadline: float) -> AsyncWire | None:
        """A connection, or None: one may be opened. BackendError when neither comes in time."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[AsyncWire | None] = loop.create_future()
        self._waiting.append(turn)
        watchdog = loop.call_later(max(0.0, deadline - monotonic()), out_of_patience, turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.exception() is None:  # our turn came in the tick of our cancellation
                wire = turn.result()
                self._leave() if wire is None else self.give(wire)
            raise
        finally:
            watchdog.cancel()
            if turn in self._waiting:
                self._waiting.remove(turn)

    def _serve(self, wire: AsyncWire | None) -> bool:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(wire)
                return True
        return False

    def _leave(self) -> None:
        if not self._serve(None):
            self._free += 1


def out_of_patience(turn: asyncio.Future[Any]) -> None:
    if not turn.done():
        turn.set_exception(BackendError(Fault.DOWN, "pool", "all connections are busy: is max_connections too small?"))


async def farewell(pool: weakref.ref[AsyncPool]) -> AsyncGenerator[None]:
    """A loop that shuts down ends its asynchronous generators first: the one moment at which we are told."""
    try:
        yield
    finally:
        if (found := pool()) is not None:
            found.close()
            await asyncio.sleep(0)  # the transports close their sockets in the next round of the loop


async def converse(wire: AsyncWire, command: Command[T], deadline: float) -> T:
    """Walk through the dialogue about a command."""
    if command.script is None:  # one question; half a microsecond quicker without a generator
        return judged(await wire.ask(pack(command.words), deadline), command.read)
    steps = dialogue(command, wire.clock, deadline)
    packed = next(steps)
    while True:
        reply = await wire.ask(packed, deadline)
        try:
            packed = steps.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result


async def run(
    pool: AsyncPool,
    command: Command[T],
    deadline: float,
    talk: Callable[[AsyncWire, Command[T], float], Awaitable[T]] = converse,
) -> T:
    """One command: sent again only if it may be and a kept connection broke before any answer. Raises BackendError."""
    again = False
    while True:
        wire = await pool.take(deadline, look=not command.repeatable, fresh=again)
        try:
            return await talk(wire, command, deadline)
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


class AsyncPools:
    """The pools of the running loops of this process."""

    def __init__(self, limit: int, opener: Callable[[float], Awaitable[AsyncWire]], peer: Peer) -> None:
        self._limit = limit
        self._opener = opener
        self._peer = peer
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncPool] = weakref.WeakKeyDictionary()

    def here(self) -> AsyncPool:
        loop = asyncio.get_running_loop()
        pool = self._by_loop.get(loop)
        if pool is None or pool.pid != os.getpid():
            pool = self._begin(loop)
        return pool

    def close(self) -> None:
        """Those of the running loop; another loop's can only be closed there."""
        pool = self._by_loop.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            pool.close()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> AsyncPool:
        pool = AsyncPool(self._limit, self._opener, self._peer)
        # Threads with a loop each come here; a copy that loses a race only costs the other loop a new pool.
        by_loop = weakref.WeakKeyDictionary(dict(self._by_loop.items()))
        # A connection holds its loop, so a loop that died without a farewell would stay here for ever.
        for other in [other for other in by_loop if other.is_closed()]:
            by_loop.pop(other).close()
        by_loop[loop] = pool
        self._by_loop = by_loop
        return pool
