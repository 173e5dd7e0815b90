"""What each operation sends and how its answer is read: shared by the sync and the async face, without any IO."""

import re
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Generic, Literal, TypeVar

from cachekit.backends.base import HEAD_BYTES, Leased, lease_key
from cachekit.backends.redis import scripts
from cachekit.backends.redis.address import Address, Cluster, Place, Sentinels
from cachekit.backends.redis.errors import from_reply, replica, timed_out
from cachekit.backends.redis.resp import ReplyError, Word, pack
from cachekit.backends.redis.scripts import LATE, Script
from cachekit.errors import BackendError, Fault

T = TypeVar("T")

EARLY_MS: Final = 2  # what the server counts in whole milliseconds, and the last one for which nobody waits
CLOCK_KEPT: Final = 60.0  # seconds; two clocks that drift apart by 100 ppm differ by 6 ms then
KEYS_AT_ONCE: Final = 128  # of one INVALIDATE or EXPIRE_SOFT: others wait for it


@dataclass(slots=True)  # not frozen: that would make each one three times as dear
class Command(Generic[T]):
    """One operation.

    ``words`` is a plain command, or the keys and arguments of ``script``. A ``timed`` one gets its "not after" as the
    last argument. A ``repeatable`` one may be sent again when a kept connection turned out to be dead.
    """

    words: tuple[Word, ...]
    read: Callable[[Any], T]
    script: Script | None = None
    keys: int = 0
    timed: bool = False
    repeatable: bool = True

    @property
    def empty(self) -> bool:
        """Nothing was asked for, as in ``get_many([])``; the answer is that to no words."""
        return len(self.words) < 2 and self.script is None

    def packed(self, script: Script, not_after: int, *, by_source: bool = False) -> bytes:
        """With ``script``, by its digest or in full."""
        verb = (b"EVAL", script.source) if by_source else (b"EVALSHA", script.digest)
        return pack((*verb, self.keys, *self.words, *((not_after,) if self.timed else ())))


class Clock:
    """The server's time, as far as one connection knows it."""

    __slots__ = ("_measured", "_offset")

    def __init__(self) -> None:
        self._offset = 0.0
        self._measured = -CLOCK_KEPT

    def learn(self, server_ms: float) -> None:
        """The server's time in an answer that has just arrived. It can only have grown since, so we are never late."""
        self._measured = monotonic()
        self._offset = server_ms - self._measured * 1000

    def before(self, deadline: float) -> int:
        """What the server's clock shows just before an instant of ours: it must not act after we have given up."""
        return int(self._offset + deadline * 1000) - EARLY_MS

    @property
    def old(self) -> bool:
        return monotonic() - self._measured > CLOCK_KEPT


def dialogue(command: Command[T], clock: Clock, deadline: float) -> Generator[bytes, Any, T]:
    """The whole exchange about one command: yields what to send, is sent the replies, returns the result."""
    script = command.script
    if script is None:
        return judged((yield pack(command.words)), command.read)
    if command.timed and clock.old:
        clock.learn(read_time((yield TIME)))
    reply = yield command.packed(script, clock.before(deadline))
    if isinstance(reply, ReplyError) and reply.code == "NOSCRIPT":
        reply = yield command.packed(script, clock.before(deadline), by_source=True)
    if command.timed and too_late(reply):
        clock.learn(reply[1])
        reply = yield command.packed(script, clock.before(deadline))
        if too_late(reply):
            raise timed_out("the server's clock")
    return judged(reply, command.read)


def judged(reply: Any, read: Callable[[Any], T]) -> T:
    """The meaning of a reply."""
    if isinstance(reply, ReplyError):
        raise from_reply(reply)
    try:
        return read(reply)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise BackendError(Fault.DOWN, "protocol", f"not an answer to this command: {reply!r:.100}") from error


def too_late(reply: Any) -> bool:
    return type(reply) is list and len(reply) == 2 and reply[0] == LATE


# Opening a connection: all in one packet.

TIME: Final = pack(("TIME",))
SERVER: Final = pack(("INFO", "server"))
REPLICATION: Final = pack(("INFO", "replication"))
WHO: Final = (SERVER, REPLICATION)  # an answer to these is welcome, and not needed
ROLE: Final = pack(("ROLE",))


def greeting(address: Address, credentials: Sequence[str]) -> list[bytes]:
    """What is sent first: who we are, which database, and the questions which server it is and what time."""
    packets = [pack(("AUTH", *credentials))] if credentials else []
    packets += [pack(("SELECT", address.db))] if address.db else []
    packets += [ROLE] if address.leads else []
    return [*packets, *WHO, TIME]


def greeted(packets: Sequence[bytes], replies: Sequence[Any], clock: Clock) -> str:
    """Judges the answers to a `greeting` and sets the clock. Returns what the server says it is, "" if it is secret."""
    who = []
    for packet, reply in zip(packets, replies, strict=True):
        if packet in WHO:
            who.append(reply)
        elif packet is ROLE:
            led(reply)
        elif isinstance(reply, ReplyError):
            error = from_reply(reply)
            if error.fault is Fault.COMMAND:  # nothing works without these
                login = b"\r\nAUTH\r\n" in packet
                error = BackendError(Fault.CONFIG, "auth" if login else "command", str(reply))
            raise error
    clock.learn(judged(replies[-1], read_time))
    return identified(*who)


def led(reply: Any) -> None:
    """Raises BackendError when an answer to ROLE is not that of a primary. One that may not be had is no answer."""
    if isinstance(reply, ReplyError):
        error = from_reply(reply)
        if error.fault is not Fault.COMMAND and error.reason != "noperm":
            raise error
    elif (role := judged(reply, lambda reply: reply[0].decode())) != "master":
        raise replica(role)


def identified(server: Any, replication: Any) -> str:
    """What a server says it is, in its answers to `WHO`; "" when we may not ask.

    The id of its run, and that of the history of its data: one that became a replica and then a primary again runs on,
    with the data of another.
    """
    run_id = told(server, "run_id")
    if not run_id.strip("0"):
        return ""
    return f"{run_id} {told(replication, 'master_replid')}".strip()


def told(reply: Any, field: str) -> str:
    """A field of INFO, "" when we may not ask."""
    if isinstance(reply, ReplyError):
        error = from_reply(reply)
        if error.fault is Fault.COMMAND or error.reason == "noperm":
            return ""
        raise error
    return judged(reply, lambda reply: read_info(reply).get(field, ""))


def read_time(reply: Any) -> float:
    if isinstance(reply, ReplyError):
        raise from_reply(reply)
    return int(reply[0]) * 1000 + int(reply[1]) // 1000


# The operations.


def get(key: str) -> Command[bytes | None]:
    return Command(("GET", key), read_value)


def get_many(keys: Sequence[str]) -> Command[list[bytes | None]]:
    return Command(("MGET", *keys), lambda reply: read_values(reply, len(keys)))


def get_or_lease(key: str, token: bytes, lease_ms: int) -> Command[Leased]:
    words = (key, lease_key(key), token, whole(lease_ms))
    return Command(words, read_leased, scripts.GET_OR_LEASE, 2, timed=True)


def lease(key: str, token: bytes, lease_ms: int, seen: bytes | None, steal: bool) -> Command[Leased]:
    words = (key, lease_key(key), token, whole(lease_ms), seen or b"", int(steal))
    return Command(words, read_leased, scripts.LEASE, 2, timed=True)


def store(key: str, data: bytes, ttl_ms: int | None, token: bytes | None) -> Command[bool]:
    if token is None:
        return Command((key, lease_key(key), data, life(ttl_ms)), read_bool, scripts.SET, 2, timed=True)
    # Sent twice it would answer False the second time, although the first stored.
    words = (key, lease_key(key), token, data, life(ttl_ms))
    return Command(words, read_bool, scripts.STORE, 2, repeatable=False)


def store_if(key: str, data: bytes, ttl_ms: int | None, seen: bytes | None, absent: bool) -> Command[bool]:
    words = (key, lease_key(key), data, life(ttl_ms), seen or b"", int(absent))
    return Command(words, read_bool, scripts.SET_IF, 2, timed=True, repeatable=False)


def invalidate(keys: Sequence[str]) -> list[Command[bool]]:
    return in_batches(keys, scripts.INVALIDATE)


def expire_soft(keys: Sequence[str]) -> list[Command[bool]]:
    return in_batches(keys, scripts.EXPIRE_SOFT)


def in_batches(keys: Sequence[str], script: Script) -> list[Command[bool]]:
    """One command per batch of values and their leases."""
    batches = [keys[start : start + KEYS_AT_ONCE] for start in range(0, len(keys), KEYS_AT_ONCE)]
    return [
        Command(tuple(name for key in batch for name in (key, lease_key(key))), read_bool, script, 2 * len(batch))
        for batch in batches
    ]


def release(key: str, token: bytes) -> Command[None]:
    return Command((key, lease_key(key), token), ignore, scripts.RELEASE, 2)


def renew(key: str, token: bytes, lease_ms: int) -> Command[bool]:
    return Command((lease_key(key), token, whole(lease_ms)), read_bool, scripts.RENEW, 1)


def stamps(names: Sequence[str], fresh: Sequence[bytes], ttl_ms: int) -> Command[list[bytes]]:
    if not names:
        return Command((), list)
    words: tuple[Word, ...] = (*names, whole(ttl_ms), *fresh)
    return Command(words, lambda reply: read_stamps(reply, len(names)), scripts.STAMPS, len(names))


def keep(names: Sequence[str]) -> Command[None]:
    """For the server's choice of what to evict; it tells nobody of this."""
    return Command(("TOUCH", *names), ignore)


def clear(names: Sequence[str]) -> Command[None]:
    # Deleting what is not there tells nobody, and nobody needs to be told: what took it away did so.
    return Command(("DEL", *names), ignore)


def incr(key: str, by: int, ttl_ms: int | None, mark: bytes, create: bool) -> Command[int | None]:
    words = (key, lease_key(key), by, life(ttl_ms), mark, int(create))
    return Command(words, read_sum, scripts.INCR, 2, timed=True, repeatable=False)


def touch(key: str, ttl_ms: int | None) -> Command[bool]:
    return Command((key, life(ttl_ms)), read_bool, scripts.TOUCH, 1, timed=True)


def remaining(key: str) -> Command[int | Literal[False] | None]:
    return Command(("PTTL", key), read_remaining)


def scan(prefix: str, cursor: str, count: int) -> Command[tuple[str, list[str]]]:
    """Of one server; with the cursor to go on with, "" after the last page."""
    pattern = re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "*"
    return Command(("SCAN", cursor or "0", "MATCH", pattern, "COUNT", count), read_page)


def heads(keys: Sequence[str]) -> list[Command[Any]]:
    """One command per key, for one packet."""
    return [Command(("GETRANGE", key, 0, HEAD_BYTES - 1), read_value) for key in keys]


def query(command: str, keys: Sequence[str], words: Sequence[Word]) -> Command[Any]:
    """A command of Redis that reads. A script even so: in a cluster it says which of the words are keys."""
    return Command((*keys, command, *words), lambda reply: reply, scripts.QUERY, len(keys))


def alter(command: str, keys: Sequence[str], words: Sequence[Word]) -> Command[Any]:
    """A command of Redis that writes."""
    return Command(
        (*keys, command, *words), lambda reply: reply, scripts.ALTER, len(keys), timed=True, repeatable=False
    )


def reclaim(key: str, seen: bytes) -> Command[bool]:
    return Command((key, seen), read_bool, scripts.RECLAIM, 1)


INFO: Final = Command(("INFO", "everything"), lambda reply: read_info(reply))


def whole(milliseconds: int) -> int:
    """The server refuses zero."""
    return max(1, int(milliseconds))


def life(ttl_ms: int | None) -> int:
    """As the scripts take it: 0 is for ever."""
    return 0 if ttl_ms is None else whole(ttl_ms)


# Their answers.


def ignore(reply: Any) -> None:
    """Any answer will do."""


def read_value(reply: Any) -> bytes | None:
    if reply is None or type(reply) is bytes:
        return reply
    raise TypeError(reply)


def read_values(reply: Any, count: int) -> list[bytes | None]:
    if type(reply) is not list or len(reply) != count:
        raise TypeError(reply)
    return [read_value(value) for value in reply]


def read_stamps(reply: Any, count: int) -> list[bytes]:
    values = read_values(reply, count)
    found = [value for value in values if value is not None]
    if len(found) != count:
        raise TypeError(reply)
    return found


def read_page(reply: Any) -> tuple[str, list[str]]:
    cursor, names = reply
    keys = []
    for name in names:
        with suppress(UnicodeDecodeError):  # none of ours
            keys.append(name.decode())
    return "" if cursor == b"0" else cursor.decode(), keys


def with_heads(keys: Sequence[str], answers: Sequence[Any]) -> list[tuple[str, bytes]]:
    """The keys that have a value. Raises what says more than that one of them is not here any more."""
    found = []
    for key, answer in zip(keys, answers, strict=True):
        if isinstance(answer, BackendError):
            if answer.fault is not Fault.COMMAND and answer.reason != "moved":
                raise answer
            if str(answer).startswith("WRONGTYPE"):
                found.append((key, b""))
        elif answer:
            found.append((key, answer))
    return found


def read_bool(reply: Any) -> bool:
    if type(reply) is not int:
        raise TypeError(reply)
    return reply == 1


def read_sum(reply: Any) -> int | None:
    return None if reply is None else int(reply)


def read_leased(reply: Any) -> Leased:
    kind = reply[0]
    if kind == 1:
        return Leased("found", read_value(reply[1]), positive(reply[2]))
    if kind == 2:
        return Leased("held")
    if kind == 3:
        return Leased("busy", None, positive(reply[1]))
    raise ValueError(reply)


def positive(pttl: int) -> int | None:
    """PTTL says -1 for "never", -2 for "gone since"."""
    return None if pttl < 0 else pttl


def read_remaining(reply: Any) -> int | Literal[False] | None:
    return False if reply == -2 else positive(int(reply))


def read_info(reply: Any) -> dict[str, str]:
    pairs = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in pairs if colon}


def facts(parts: dict[str, str], address: Place) -> dict[str, str]:
    """What `check` reports of INFO."""
    server = parts.get("server_name") or ("valkey" if "valkey_version" in parts else "redis" if parts else "")
    found = {
        "address": str(address),
        "tls": "yes" if address.kind == "tls" else "no",
        "topology": "cluster" if isinstance(address, Cluster) else "sentinel" if isinstance(address, Sentinels) else "",
        "server": server,
        "version": parts.get(f"{server}_version") or parts.get("redis_version", ""),
        "mode": parts.get("server_mode") or parts.get("redis_mode", ""),
        "role": parts.get("role", ""),
        "maxmemory": parts.get("maxmemory", ""),
        "maxmemory_policy": parts.get("maxmemory_policy", ""),
    }
    return {name: value for name, value in found.items() if value}
