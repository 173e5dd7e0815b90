"""One connection that listens: what it hears of changes, and the proof that it has missed none."""

import math
import select
import ssl
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from time import monotonic
from typing import Any, Final

from cachekit.backends.redis import private
from cachekit.backends.redis.address import Address
from cachekit.backends.redis.errors import from_reply, not_redis, timed_out, while_connecting
from cachekit.backends.redis.peers import Identity, Peer
from cachekit.backends.redis.resp import PENDING, ProtocolError, ReplyError, Word, is_push, new_reader, pack
from cachekit.backends.redis.transport import SupportsFileno, connect
from cachekit.errors import BackendError, Fault

CHUNK: Final = 131_072  # bytes that one `read` takes in: what lies there is handed on before more is fetched
SOONEST: Final = 0.25  # seconds within which no answer is called overdue
BEHIND: Final = 4  # times as long, while there is something to read before the answer
ANY_BYTES: Final = "surrogateescape"  # keys of others need not be text
PING: Final = pack(("PING",))
NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Line:
    """A socket that is never waited for, what the answers to come on it are for, and its heartbeat."""

    def __init__(self, address: Address, deadline: float, clock: Callable[[], float], heartbeat: float) -> None:
        try:
            self.sock = connect(address, deadline)
        except (private.RedisError, OSError, ValueError) as error:
            raise while_connecting(error, str(address)) from error
        self.name = str(address)
        self.more = False  # something is left to be read, in the socket or in what TLS has deciphered
        self._reader = new_reader()
        self._awaited: deque[Callable[[Any], object]] = deque()
        self._clock = clock
        self._heartbeat = heartbeat
        self._patience = max(heartbeat, SOONEST)
        self._beaten = clock()  # when the newest heartbeat began
        self._asked: float | None = None  # when the PING was sent whose answer is awaited

    def ask(self, packets: Sequence[bytes], deadline: float) -> list[Any]:
        """Send and wait for the answers. What is heard meanwhile waits for the next `read`."""
        answers: list[Any] = []
        self._awaited += [answers.append] * len(packets)
        try:
            self.sock.settimeout(max(0.001, deadline - monotonic()))
            self.sock.sendall(b"".join(packets))
            self.sock.setblocking(False)
        except OSError as error:
            raise while_connecting(error, self.name) from error
        while len(answers) < len(packets):
            left = deadline - monotonic()
            if left <= 0:
                raise timed_out(self.name)
            if self.more or arrivals([self.sock], left):
                self.read()
        return answers

    def read(self) -> None:
        """Take in what has arrived, if not too much. Raises BackendError when nothing more can come."""
        try:
            for data in self._arrived():
                self._reader.feed(data)
            while (reply := self._reader.gets()) is not PENDING:
                self._take(reply)
        except ProtocolError as error:
            raise not_redis(error) from error

    @property
    def until_alarm(self) -> float:
        """Seconds until something must be done although nothing is heard."""
        alarm = self._beaten + self._heartbeat if self._asked is None else self._asked + self._patience
        return alarm - self._clock()

    def beat(self) -> None:
        """Begin a heartbeat when it is time. Raises BackendError when there is no answer to the last one."""
        now = self._clock()
        if self._asked is None:
            if now >= self._beaten + self._heartbeat:
                self._beaten = self._asked = now
                self._begin()
        elif now > self._asked + self._patience * (BEHIND if self.more else 1):
            raise timed_out(f"{self.name}: the heartbeat")

    def close(self) -> None:
        """Without a word to the server, not even TLS's."""
        try:
            self.sock.close()
        except OSError:
            pass  # closed from the other side; nothing is left to be done

    def __del__(self) -> None:
        if hasattr(self, "sock"):
            self.close()

    def _begin(self) -> None:
        self._send(PING, self._end)

    def _end(self, reply: Any) -> None:
        pong(reply)
        self._asked = None

    def _send(self, packed: bytes, *answers: Callable[[Any], object]) -> None:
        """A few bytes; ``answers`` take what comes back. Raises BackendError when there is no room for them."""
        self._awaited += answers
        try:
            sent = self.sock.send(packed)
        except NOT_NOW:
            sent = 0
        except OSError as error:
            raise self._lost(error) from error
        if sent < len(packed):
            raise self._lost("the server takes nothing more")

    def _arrived(self) -> Iterator[bytes]:
        left, self.more = CHUNK, False
        while left > 0:
            try:
                data = self.sock.recv(left)
            except NOT_NOW:
                return
            except OSError as error:
                raise self._lost(error) from error
            if not data:
                raise self._lost("the server closed the connection")
            left -= len(data)
            yield data
        self.more = True

    def _take(self, reply: Any) -> None:
        if not self._awaited:
            raise not_redis(ProtocolError(f"an answer to no question: {reply!r:.100}"))
        self._awaited.popleft()(reply)

    def _lost(self, why: object) -> BackendError:
        return BackendError(Fault.DOWN, "connection", f"{self.name}: {why}")


class PushLine(Line):
    """Hears of changed keys. ``proof``: every change from before this instant of ``clock`` has been read."""

    def __init__(
        self, address: Address, deadline: float, clock: Callable[[], float], heartbeat: float, peer: Peer
    ) -> None:
        super().__init__(address, deadline, clock, heartbeat)
        self.peer = peer
        self.reached: Identity | None = None  # the server at the other end
        self.heard: list[str | None] = []
        self.proof = self._beaten
        self._question = b""
        self._judge: tuple[Callable[[Any], object], ...] = ()

    def examine(self, question: tuple[Word, ...], judge: Callable[[Any], object]) -> None:
        """Have this asked with each heartbeat, and judged."""
        if question:
            self._question, self._judge = pack(question), (judge,)

    def _begin(self) -> None:
        self._send(PING + self._question, self._halfway, *self._judge)

    def _halfway(self, reply: Any) -> None:
        # An answer overtakes the changes of the same round of the server's loop, which are written at its end. They are
        # certain to come before the answer to what the server reads in a later round: hence a second PING, only now.
        pong(reply)
        self._asked = self._clock()
        self._send(PING, self._end)

    def _end(self, reply: Any) -> None:
        super()._end(reply)
        self.proof = self._beaten

    def _take(self, reply: Any) -> None:
        if not is_push(reply):
            super()._take(reply)
            return
        try:
            if reply[0] == b"invalidate":
                self.heard += [None] if reply[1] is None else [key.decode(errors=ANY_BYTES) for key in reply[1]]
        except (LookupError, TypeError, AttributeError) as error:
            raise not_redis(ProtocolError(f"not news of changed keys: {reply!r:.100}")) from error


class WatchLine(Line):
    """Hears of what is published, in version 2 of the protocol. The first message that ``concerns`` us ends it."""

    def __init__(
        self, address: Address, deadline: float, clock: Callable[[], float], heartbeat: float,
        concerns: Callable[[bytes], bool],
    ) -> None:  # fmt: skip
        super().__init__(address, deadline, clock, heartbeat)
        self._concerns = concerns
        self._confirmed = False

    def _take(self, reply: Any) -> None:
        kind = reply[0] if isinstance(reply, list) and reply else None
        if kind in (b"message", b"pmessage"):
            if not self._concerns(reply[-1]):
                return
            raise BackendError(Fault.DOWN, "moved", f"{self.name}: {reply[-1]!r:.200}")
        if kind in (b"subscribe", b"psubscribe"):  # one for each channel
            if self._confirmed:
                return
            self._confirmed = True
        super()._take(b"PONG" if kind == b"pong" else reply)


def pong(reply: Any) -> None:
    if isinstance(reply, ReplyError):
        raise from_reply(reply)
    if reply != b"PONG":
        raise not_redis(ProtocolError(f"not an answer to PING: {reply!r:.100}"))


def arrivals(sockets: Collection[SupportsFileno], seconds: float) -> set[int]:
    """The descriptors of those on which something has arrived, or which have ended. Waits for the first."""
    if not hasattr(select, "poll"):  # Windows
        return {sock.fileno() for sock in select.select(sockets, [], [], max(0.0, seconds))[0]}
    poll = select.poll()
    for sock in sockets:
        poll.register(sock, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(max(0, math.ceil(seconds * 1000)))}
