"""How the commands of Redis are sent for one alias: under the region's keys, within its budget, past L1.

Sets, hashes and sorted sets lie under the key that a value of this name would have, so `delete`, `ttl` and `keys` find
them. L1 never has them. A server that is away gives the answer of one that has nothing.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from cachekit.codec.envelope import Damaged
from cachekit.codec.registry import Encoding, open_serializer
from cachekit.engine.events import Failed
from cachekit.engine.invalidation import forget
from cachekit.engine.ports import Port
from cachekit.engine.tiers import Call, Tiers
from cachekit.errors import Unstorable, UnsupportedOperation
from cachekit.l2 import operation
from cachekit.l2.operation import Found
from cachekit.l2.remote import Remote, Unavailable
from cachekit.regions import Region, call_of

T = TypeVar("T")

AT_ONCE: Final = 1_000  # members of one command; Lua cannot hand on more than some thousands
MARK_EVERY: Final = 60.0  # seconds between two marks of a region that has structures
INTEGER: Final = re.compile(rb"-?[0-9]{1,19}")
UNORDERED: Final = (set, frozenset)
NESTED: Final = (tuple, list, *UNORDERED)

_marked: WeakKeyDictionary[Remote, dict[str, float]] = WeakKeyDictionary()


class Commands:
    """What the methods of django-redis have in common. A part of `CacheKitCache`."""

    region: Region
    make_and_validate_key: Callable[..., str]

    def _call(self, key: Any, version: Any, client: Any = None, **options: Any) -> Call:
        """One key on its way; ``client`` may be the alias's own redis client, which changes nothing."""
        if client is not None and client is not self.client.own:  # type: ignore[attr-defined]
            raise UnsupportedOperation(
                "client= takes the client of this alias only, from cache.client.get_client(): cachekit has connections "
                "of its own. For a pipeline or another server call the methods of that client"
            )
        return call_of(self.region, self.make_and_validate_key(key, version=version), **options)

    def _remote(self, tiers: Tiers, what: str) -> Remote:
        """The server of the region. Raises `UnsupportedOperation` where there is none that can do ``what``."""
        remote, name = tiers.remote, tiers.spec.name
        if remote is None:
            raise UnsupportedOperation(
                f"{what} needs a server, and region {name!r} has none: give the alias a LOCATION with a URL, or the "
                "region a backend"
            )
        if not remote.offers("query"):
            raise UnsupportedOperation(f"{what} needs Redis or Valkey, which backend {remote.spec.name!r} is not")
        return remote

    async def _query(
        self, port: Port, calls: Sequence[Call], command: str, *words: Any, read: Callable[[Any], T], otherwise: T
    ) -> T:
        """The answer to a command that reads; ``otherwise`` without a server."""
        remote = self._ready(calls[0], command)
        if remote is None:
            return otherwise
        return await _asked(remote, port, "query", calls, command, words, read, otherwise)

    async def _alter(
        self, port: Port, calls: Sequence[Call], command: str, *words: Any, read: Callable[[Any], T], otherwise: T
    ) -> T:
        """As `_query`, for a command that writes. What L1 may have under these keys is gone afterwards."""
        remote, tiers = self._ready(calls[0], command), calls[0].tiers
        if remote is None:
            return otherwise
        try:
            await _mark(remote, port, calls[0])
            return await _asked(remote, port, "alter", calls, command, words, read, otherwise)
        except Unavailable:
            return otherwise
        finally:
            with tiers.versions.lock:
                for call in calls:
                    forget(tiers, call)

    def _ready(self, call: Call, command: str) -> Remote | None:
        """The server for a command on structures, None where the cache is switched off."""
        remote = self._remote(call.tiers, command)
        if call.tiers.locks is not None:
            raise UnsupportedOperation(
                f"{command}: region {call.tiers.spec.name!r} encrypts or signs, which sets, hashes and sorted sets "
                "cannot; keep them in an alias of their own"
            )
        return None if call.off else remote

    async def _in_parts(
        self, port: Port, call: Call, command: str, words: Sequence[Any], group: int = 1, flags: Sequence[str] = ()
    ) -> int:
        """The sum of the answers to as many commands as these words need; ``group`` of them belong together."""
        total, step = 0, AT_ONCE * group
        for at in range(0, len(words), step):
            total += await self._alter(port, [call], command, *flags, *words[at : at + step], read=int, otherwise=0)
        return total

    # Members and values

    def _member(self, value: Any) -> bytes:
        """A member of a set: equal members, equal bytes. Raises `Unstorable`."""
        if unordered(value):
            raise Unstorable(
                f"{type(value).__name__} with a set inside has no order of its own, so equal members would differ; "
                "use a sorted tuple",
                "type",
            )
        return self._encoded(value)

    def _encoded(self, value: Any) -> bytes:
        """A value as the serializer of the profile writes it; an integer in digits, so that Redis can count."""
        if isinstance(value, int) and not isinstance(value, (bool, Enum)) and -(2**63) <= value < 2**63:
            return b"%d" % value
        codec, payload = self._encoding.dump(value, plain=False, limit=self._tiers.spec.codec.max_value_bytes)
        return bytes((codec,)) + payload

    def _decoded(self, data: bytes) -> Any:
        """The value of such bytes. Raises `Damaged`."""
        if INTEGER.fullmatch(data):
            return int(data)
        if not data:
            raise Damaged("payload")
        return self._encoding.load(data[0], data[1:])

    def _values(self, found: Iterable[bytes]) -> list[Any]:
        """The values of some members; what somebody else has put there and cannot be read is left out, and counted."""
        return [value for data in found if (value := self._value(data)) is not DAMAGED]

    def _value(self, data: bytes) -> Any:
        try:
            return self._decoded(data)
        except Damaged as damage:
            name = self.region.name
            self._tiers.emit(Failed(name, "", "get", f"damaged_{damage.reason}"))
            return DAMAGED

    def _one(self, data: bytes | None) -> Any:
        """The value of what may be missing; None then, and for what cannot be read."""
        value = None if data is None else self._value(data)
        return None if value is DAMAGED else value

    @property
    def _tiers(self) -> Tiers:
        return self.region.service.tiers(self.region.name)

    @property
    def _encoding(self) -> Encoding:
        return open_serializer(self._tiers.spec.codec)


DAMAGED: Final = object()


def unordered(value: Any) -> bool:
    """Whether there is a set somewhere inside."""
    return isinstance(value, UNORDERED) or (isinstance(value, NESTED) and any(map(unordered, value)))


async def _asked(
    remote: Remote, port: Port, how: str, calls: Sequence[Call], command: str, words: Sequence[Any],
    read: Callable[[Any], T], otherwise: T,
) -> T:  # fmt: skip
    """What ``read`` makes of the answer; ``otherwise`` if the server is away, or is not Redis."""
    try:
        reply = await _answer(remote, port, how, calls, command, words)
    except Unavailable as error:
        if error.reason == "command":  # the server is well
            raise UnsupportedOperation(
                f"{command} of {calls[0].args[-1]!r}: the server refuses: another kind of value lies there, keys are "
                "on several nodes of a cluster, or an argument is not valid"
            ) from None
        return otherwise
    try:
        return read(reply)
    except (TypeError, ValueError, LookupError, AttributeError):
        return otherwise


async def _answer(
    remote: Remote, port: Port, how: str, calls: Sequence[Call], command: str, words: Sequence[Any]
) -> Any:
    """What the server says. A value in the way that is outdated, and nobody's any more, is removed first."""
    keys = [call.key for call in calls]
    try:
        return await remote.do(port, how, command, keys, words)
    except Unavailable as error:
        if error.reason != "command" or not any([await _gave_way(remote, port, call) for call in calls]):
            raise
    return await remote.do(port, how, command, keys, words)


async def _gave_way(remote: Remote, port: Port, call: Call) -> bool:
    """Whether a value lay there that cannot be used: it has been removed."""
    try:
        found = await operation.read(call, remote, port)
    except Unavailable as error:
        if error.reason == "command":  # a set, a hash or the like
            return False
        raise
    if isinstance(found, Found) or found.seen is None:
        return False
    return bool(await remote.do(port, "reclaim", call.key, found.seen))


async def _mark(remote: Remote, port: Port, call: Call) -> None:
    """Note on the server that the region has structures: a `clear` must look for them then. Raises `Unavailable`."""
    marks, mark = _marked.setdefault(remote, {}), _mark_of(call)
    if port.now() - marks.get(mark, -MARK_EVERY) >= MARK_EVERY:
        await remote.do(port, "alter", "SET", [mark], ["1"])
        marks[mark] = port.now()


async def has_structures(remote: Remote, port: Port, call: Call) -> bool:
    """Whether there may be some in the region of a call. Raises `Unavailable`."""
    mark = _mark_of(call)
    return mark in _marked.get(remote, {}) or await remote.do(port, "get", mark) is not None


def _mark_of(call: Call) -> str:
    """Where the mark of a region lies."""
    return f"{call.tiers.namespace}:d:{{{call.tiers.spec.name}}}"


# What Redis answers.


def texts(reply: Any) -> list[bytes]:
    """Several members."""
    if type(reply) is not list or not all(type(each) is bytes for each in reply):
        raise TypeError(reply)
    return reply


def text(reply: Any) -> bytes | None:
    """A member, if there is one."""
    if reply is None or type(reply) is bytes:
        return reply
    raise TypeError(reply)


def number(reply: Any) -> float | None:
    """A score, if there is one."""
    return None if reply is None else float(reply)
