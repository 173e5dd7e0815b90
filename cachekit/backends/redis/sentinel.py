"""Connections to the primary that a Sentinel names: each Sentinel is asked in turn, for a share of the time."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, TypeAlias

from cachekit.backends.redis import aio, private, transport
from cachekit.backends.redis.address import Address, Sentinels
from cachekit.backends.redis.commands import judged, led
from cachekit.backends.redis.errors import Dead, no_primary, timed_out, unknown_service, while_connecting
from cachekit.backends.redis.peers import Peer
from cachekit.backends.redis.resp import Word, pack
from cachekit.backends.redis.walk import async_walk, walk
from cachekit.errors import BackendError, Fault

CHANGED: Final = "+switch-master"


@dataclass(frozen=True, slots=True)
class Question:
    """A step: ask this Sentinel; its result is the answer."""

    sentinel: Address
    words: tuple[Word, ...]
    deadline: float


@dataclass(frozen=True, slots=True)
class Opening:
    """A step: connect to this primary, if it says that it is one; its result is that of the whole."""

    address: Address
    deadline: float


Steps: TypeAlias = Generator[Question | Opening, Any, Any]


class Finder:
    """Knows which Sentinel answered last, and asks that first. Shared by all threads of a face."""

    def __init__(self, place: Sentinels) -> None:
        self.place = place
        self._order: Sequence[Address] = place.sentinels

    def find(self, deadline: float) -> Steps:
        """A connection to the primary. Raises BackendError."""
        order, failures, tried = self._order, [], set()
        for left in range(len(order), 0, -1):
            sentinel, now = order[-left], monotonic()
            try:
                # As much is kept back for the connection to the primary.
                primary = yield from self._named_by(sentinel, now + (deadline - now) / (left + 1))
                if str(primary) in tried:
                    continue
                tried.add(str(primary))
                opened = yield Opening(primary, deadline)
            except BackendError as error:
                if tried and error.fault is Fault.CONFIG:
                    raise
                failures.append(error)
            else:
                self._order = (sentinel, *(one for one in order if one is not sentinel))
                return opened
            if monotonic() >= deadline:
                break
        raise no_primary(self.place.service, failures) if failures else timed_out("the Sentinels")

    def _named_by(self, sentinel: Address, deadline: float) -> Generator[Question, Any, Address]:
        words = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.place.service)
        reply = yield Question(sentinel, words, deadline)
        if reply is None:
            raise unknown_service(str(sentinel), self.place.service)
        host, port = judged(reply, lambda pair: (pair[0].decode(), int(pair[1])))
        return self.place.at(host, port)


def open_wire(finder: Finder, peer: Peer, deadline: float) -> transport.Wire:
    """As `transport.open_wire`, to the primary."""

    def take(step: Question | Opening) -> Any:
        return ask(step) if isinstance(step, Question) else transport.open_wire(step.address, peer, step.deadline)

    wire: transport.Wire = walk(finder.find(deadline), take)
    return wire


async def async_open_wire(finder: Finder, peer: Peer, deadline: float) -> aio.AsyncWire:
    """As `open_wire`."""

    async def take(step: Question | Opening) -> Any:
        if isinstance(step, Question):
            return await async_ask(step)
        return await aio.open_wire(step.address, peer, step.deadline)

    wire: aio.AsyncWire = await async_walk(finder.find(deadline), take)
    return wire


def ask(step: Question) -> Any:
    """The answer of a Sentinel, on a connection of its own."""
    address = step.sentinel
    try:
        wire = transport.Wire(transport.connect(address, step.deadline), tls=address.kind == "tls")
        try:
            packets = asked(step)
            return answered(packets, wire.ask(b"".join(packets), step.deadline, len(packets)))
        finally:
            wire.close()
    except (private.RedisError, OSError, ValueError, Dead) as error:
        raise while_connecting(error, str(address)) from error


async def async_ask(step: Question) -> Any:
    """As `ask`."""
    address, wire = step.sentinel, aio.AsyncWire()
    try:
        opened = await aio.within(step.deadline, private.open_transport(address, wire))
        wire.connection_made(opened[0])
        wire.keep = opened[1]
        packets = asked(step)
        return answered(packets, await wire.ask(b"".join(packets), step.deadline, len(packets)))
    except (private.RedisError, OSError, ValueError, Dead) as error:
        raise while_connecting(error, str(address)) from error
    finally:
        wire.close()


def asked(step: Question) -> list[bytes]:
    """What is sent."""
    secrets = transport.credentials(step.sentinel)
    return [*([pack(("AUTH", *secrets))] if secrets else []), pack(step.words)]


def answered(packets: Sequence[bytes], replies: Any) -> Any:
    """The answer to the question. Raises BackendError when the login failed."""
    for reply in replies if len(packets) > 1 else [replies]:
        found = judged(reply, lambda answer: answer)
    return found


class SentinelTopology:
    """A `topology.Topology`: one primary, as long as it says that it is one and no Sentinel names another."""

    question: tuple[Word, ...] = ("ROLE",)

    def __init__(self, finder: Finder) -> None:
        self._finder = finder

    def primaries(self, deadline: float) -> list[Address]:
        def take(step: Question | Opening) -> Any:
            if isinstance(step, Question):
                return ask(step)
            transport.open_wire(step.address, Peer(), step.deadline).close()
            return step.address

        return [walk(self._finder.find(deadline), take)]

    def judge(self, answer: Any) -> None:
        led(answer)

    def watchers(self) -> list[tuple[Address, tuple[Word, ...]]]:
        return [(sentinel, ("SUBSCRIBE", CHANGED)) for sentinel in self._finder.place.sentinels]

    def concerns(self, message: bytes) -> bool:
        # "<service> <old host> <old port> <new host> <new port>"
        return message.partition(b" ")[0] == self._finder.place.service.encode()
