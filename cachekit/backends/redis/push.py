"""Being told of changed keys: a connection to each primary, all of which must prove that nothing was missed."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Any, Final

from cachekit.backends.redis.address import Address
from cachekit.backends.redis.commands import REPLICATION, SERVER, WHO, identified
from cachekit.backends.redis.errors import from_reply
from cachekit.backends.redis.line import PING, Line, PushLine, WatchLine, arrivals
from cachekit.backends.redis.peers import Identity, Peers
from cachekit.backends.redis.resp import ReplyError, pack
from cachekit.backends.redis.topology import Topology
from cachekit.backends.redis.transport import credentials, peer_of
from cachekit.errors import BackendError, Fault

OVER: Final = "the subscription is over; listen() again"


class PushListener:
    """A `base.Listener` over the push connections of all primaries and what watches for new ones."""

    def __init__(self, lines: Sequence[PushLine], watches: Sequence[WatchLine], prefixes: Sequence[str]) -> None:
        self._lines = list(lines)
        self._watches = list(watches)
        self._prefixes = set(prefixes)
        self._closing = threading.Lock()  # a bell that is rung while it is closed might ring at somebody else's door
        self._bell, self._rung = socket.socketpair()
        self._bell.setblocking(False)
        self._rung.setblocking(False)
        self._open = True
        self._proof = min(line.proof for line in lines)

    @property
    def proof(self) -> float:
        """Of the line that is furthest behind, as of the end of the last `receive`."""
        return self._proof

    @property
    def astray(self) -> bool:
        """Whether data comes from another server than the news by now."""
        return not all(line.reached is line.peer.known for line in self._lines)

    def track(self, prefixes: Sequence[str], *, budget: float) -> None:
        """Hear of keys with these prefixes as well. Whatever goes wrong ends the subscription."""
        deadline, new = monotonic() + budget, [prefix for prefix in prefixes if prefix not in self._prefixes]
        if not new:
            return
        self._must_be_open()
        try:
            for line in self._lines:
                for reply in line.ask([tracking(new)], deadline):
                    accepted(reply, "CLIENT TRACKING")
        except BaseException:
            self.close()
            raise
        self._prefixes.update(new)

    def receive(self, seconds: float) -> Sequence[str | None]:
        """Keys that changed; returns at least once in each heartbeat."""
        self._must_be_open()
        try:
            for line, readable in self._wait(seconds):
                self._attend(line, readable)
        except BaseException:
            self.close()
            raise
        if self.astray:
            self.close()
            raise BackendError(Fault.DOWN, "moved", "a connection led to another server than this one")
        heard: list[str | None] = []
        for line in self._lines:
            heard += line.heard
            line.heard = []
        self._proof = min(line.proof for line in self._lines)
        return heard

    def wake(self) -> None:
        with self._closing:
            try:
                self._bell.send(b"!")
            except OSError:
                pass  # it has been rung often enough, or nobody listens any more

    def close(self) -> None:
        with self._closing:
            self.abandon()

    def abandon(self) -> None:
        # No lock: another thread may have held it at the fork.
        self._open = False
        for line in (*self._lines, *self._watches):
            line.close()
        self._bell.close()
        self._rung.close()

    def __del__(self) -> None:
        if hasattr(self, "_rung"):
            self.abandon()

    def _must_be_open(self) -> None:
        if not self._open:
            raise BackendError(Fault.DOWN, "connection", OVER)

    def _wait(self, seconds: float) -> Iterator[tuple[Line, bool]]:
        """All lines, with whether there is something to read. Waits until there is, or for an alarm or the bell."""
        lines: tuple[Line, ...] = (*self._lines, *self._watches)
        if any(line.more for line in lines) or any(line.heard for line in self._lines):
            seconds = 0.0
        seconds = min(seconds, *(line.until_alarm for line in lines))
        arrived = arrivals([self._rung, *(line.sock for line in lines)], seconds)
        if self._rung.fileno() in arrived:
            self._rung.recv(4096)
        return ((line, line.more or line.sock.fileno() in arrived) for line in lines)

    def _attend(self, line: Line, readable: bool) -> None:
        try:
            if readable:
                line.read()
            line.beat()
        except BackendError as error:
            if error.reason == "moved" or line not in self._watches or len(self._watches) == 1:
                raise
            self._watches.remove(line)  # others tell the same
            line.close()


def listen(
    topology: Topology, prefixes: Sequence[str], *, heartbeat: float, clock: Callable[[], float], deadline: float,
    peers: Peers, node: Callable[[Address], str] = lambda _: "",
) -> PushListener:  # fmt: skip
    """Connect to all primaries and subscribe. ``node`` names a primary for ``peers``. Raises BackendError."""
    lines: list[PushLine] = []
    watches: list[WatchLine] = []
    try:
        # Those that tell of a new primary come first: one that takes over while we connect is not missed.
        watches += watch(topology, clock, heartbeat, deadline)
        for address in topology.primaries(deadline):
            lines.append(line := PushLine(address, deadline, clock, heartbeat, peers.node(node(address))))
            who = subscribe(line, address, prefixes, deadline)
            line.reached = line.peer.met(Identity(peer_of(line.sock), who))
            line.examine(topology.question, topology.judge)
        return PushListener(lines, watches, prefixes)
    except BaseException:
        for opened in (*lines, *watches):
            opened.close()
        raise


def watch(topology: Topology, clock: Callable[[], float], heartbeat: float, deadline: float) -> list[WatchLine]:
    """Connections to those that answer in their share of half the time; one is enough, since they tell the same."""
    wanted = topology.watchers()
    watches: list[WatchLine] = []
    failure: BackendError | None = None
    share = (deadline - monotonic()) / 2 / max(1, len(wanted))
    for address, words in wanted:
        until = monotonic() + share
        try:
            line = WatchLine(address, until, clock, heartbeat, topology.concerns)
            secrets = credentials(address)
            packets = {"AUTH": pack(("AUTH", *secrets))} if secrets else {}
            packets[str(words[0])] = pack(words)
            for name, reply in zip(packets, line.ask(list(packets.values()), until), strict=True):
                accepted(reply, name)
        except BackendError as error:
            failure = error
        else:
            watches.append(line)
    if failure is not None and not watches:
        raise failure
    return watches


def subscribe(line: Line, address: Address, prefixes: Sequence[str], deadline: float) -> str:
    """Log in and have the server confirm that it will tell. Returns what the server says it is."""
    packets = {"HELLO 3": pack(("HELLO", 3, *login(credentials(address))))}
    if address.db:
        packets["SELECT"] = pack(("SELECT", address.db))
    packets |= {"INFO": SERVER, "INFO replication": REPLICATION, "PING": PING}
    if prefixes:  # without any the server would tell of all keys
        packets["CLIENT TRACKING"] = tracking(prefixes)
    replies = dict(zip(packets, line.ask(list(packets.values()), deadline), strict=True))
    for name, reply in replies.items():
        if packets[name] not in WHO:
            accepted(reply, name)
        # What answers for the server and understands no pushes would keep them all from us, and answer each PING.
        if name == "HELLO 3" and not (isinstance(reply, dict) and reply.get(b"proto") == 3):
            raise unable(name, "is answered, but not in version 3 of the protocol")
    return identified(replies["INFO"], replies["INFO replication"])


def login(secrets: Sequence[str]) -> tuple[str, ...]:
    """Credentials as HELLO takes them."""
    if not secrets:
        return ()
    return ("AUTH", *(("default", *secrets) if len(secrets) == 1 else secrets))


def tracking(prefixes: Sequence[str]) -> bytes:
    # Without NOLOOP: our own changes must be heard, too, since one push may stand for ours and another's.
    return pack(("CLIENT", "TRACKING", "ON", "BCAST", *(word for prefix in prefixes for word in ("PREFIX", prefix))))


def accepted(reply: Any, command: str) -> None:
    """Raises BackendError when the reply is a refusal; CONFIG when it will be the same the next time."""
    if not isinstance(reply, ReplyError):
        return
    error = from_reply(reply)
    if error.fault is Fault.COMMAND:
        raise unable(command, said(reply))
    raise BackendError(error.fault, error.reason, f"{command}: {said(reply)}")


def said(reply: ReplyError) -> str:
    """Without the arguments of an unknown command, which the server repeats: a password may be among them."""
    return str(reply).partition(", with args beginning with")[0]


def unable(command: str, why: str) -> BackendError:
    return BackendError(
        Fault.CONFIG, "command", f"{command}: {why}. Being told of changes takes Redis 6 or Valkey, without a proxy"
    )
