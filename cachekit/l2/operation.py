"""What L2 is asked for one key: look, judge the bytes, take the lease, store under its fence.

Every function here raises `Unavailable` when L2 cannot be used; no other error of a backend, of the network or of bad
bytes gets out.
"""

import math
import os
import re
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

from cachekit.backends.base import SEEN_BYTES, TOKEN_BYTES, Leased
from cachekit.codec.envelope import NEVER, Damaged, Header, unpack
from cachekit.engine import keys
from cachekit.engine.events import Failed
from cachekit.engine.freshness import Life, left
from cachekit.engine.ports import Port
from cachekit.engine.tiers import Call
from cachekit.l2.remote import Remote, Unavailable
from cachekit.l2.stamps import NO_STAMP, stamp_life_ms

T = TypeVar("T")

LEASE_MS: Final = 60_000  # a lease is not renewed, so it must outlive slow functions; only storing depends on it


class Found(NamedTuple):
    """A usable entry. ``fresh_for`` seconds are left, None means for ever."""

    value: Any
    header: Header | None  # None: a plain counter, which no process may keep in L1
    fresh_for: float | None
    seen: bytes  # the first bytes of the entry, which tell it from any other store
    known_at: float = math.inf  # nothing that covers it had been cleared then, as far as L1 needs to know


class Absent(NamedTuple):
    """No usable entry, and why; ``seen`` are the first bytes of one that lies there but cannot be used."""

    reason: str
    seen: bytes | None = None


class Stamps(NamedTuple):
    """The stamps an entry is computed or judged under."""

    region: bytes
    function: bytes
    clock: bytes
    tags: tuple[tuple[bytes, bytes], ...]  # (digest, stamp), sorted


class Held(NamedTuple):
    """The right to store, until somebody invalidates. Without a token the store is not fenced."""

    token: bytes | None


COUNTER: Final = re.compile(rb"-?[0-9]{1,19}")
NOTHING: Final = Absent("absent")


async def read(call: Call, remote: Remote, port: Port) -> Found | Absent:
    """Look for the entry of a call."""
    assert call.key is not None
    data = await remote.do(port, "get", call.key)
    if data is None:
        return NOTHING
    return await judge(call, remote, data, port)


async def judge(call: Call, remote: Remote, data: bytes, port: Port) -> Found | Absent:
    """Decide whether stored bytes are this key's value, whole, fresh, and not invalidated."""
    codec = call.tiers.codec
    assert call.key is not None and codec is not None
    if call.tiers.spec.counters and COUNTER.fullmatch(data):
        return Found(int(data), None, None, data[:SEEN_BYTES])
    try:
        header, payload = unpack(data, call.key)
        fresh_for = left(header.created, header.soft, port.wall() * 1000.0, header.hard)
        if header.stale or (fresh_for is not None and fresh_for <= 0):
            return Absent("expired", data[:SEEN_BYTES])
        names, written = _covering(call, header)
        if remote.cells.get(names, port.now()) != written and remote.offers("stamps"):
            # Before saying that it was cleared, ask L2: the cells may be the ones that lag.
            stamps = await remote.stamps(names, stamp_life_ms(call.tiers.spec.ttl), port, known=False)
            if stamps != written:
                return Absent("outdated", data[:SEEN_BYTES])
        known_at = remote.cells.asked(names) if call.tiers.table is not None and remote.offers("stamps") else math.inf
        return Found(codec.decode(header, payload), header, fresh_for, data[:SEEN_BYTES], known_at)
    except Damaged as damage:
        call.tally.error("get", f"damaged_{damage.reason}")
        call.tiers.emit(Failed(call.tiers.spec.name, call.tally.function, "get", f"damaged_{damage.reason}"))
        return Absent(f"damaged_{damage.reason}", data[:SEEN_BYTES])


def _covering(call: Call, header: Header) -> tuple[Sequence[str], list[bytes]]:
    """The names of the stamps that cover an entry, and what they were when it was computed."""
    names: Sequence[str] = call.stamp_names
    written = [header.region_stamp, header.function_stamp][: len(names)]
    if header.tags:
        names = [*names, *(keys.tag_stamp(call.tiers.namespace, digest) for digest, _ in header.tags)]
        written += [stamp for _, stamp in header.tags]
    return names, written


async def sample(call: Call, remote: Remote, tags: tuple[str, ...], port: Port, *, known: bool = True) -> Stamps:
    """The stamps to store under; taken before the source is read."""
    digests = sorted({keys.tag_digest(tag) for tag in tags})
    if not remote.offers("stamps"):
        return Stamps(NO_STAMP, NO_STAMP, NO_STAMP, tuple((digest, NO_STAMP) for digest in digests))
    tag_names = [keys.tag_stamp(call.tiers.namespace, digest) for digest in digests]
    names = [call.tiers.clock_stamp, *call.stamp_names, *tag_names]
    clock, region, *rest = await remote.stamps(names, stamp_life_ms(call.tiers.spec.ttl), port, known=known)
    function = rest.pop(0) if len(call.stamp_names) > 1 else NO_STAMP
    return Stamps(region, function, clock, tuple(zip(digests, rest, strict=True)))


async def resample(call: Call, remote: Remote, before: Stamps, tags: tuple[str, ...], port: Port) -> Stamps | None:
    """Stamps for tags that became known only from the value; None when any tag was cleared meanwhile."""
    now = await sample(call, remote, tags, port, known=False)
    if now.clock != before.clock:
        return None
    return before._replace(tags=now.tags)


async def acquire(call: Call, remote: Remote, seen: bytes | None, port: Port) -> Held | Found | None:
    """The right to store what is computed from now on; or the value, if somebody stored it meanwhile; or None: busy.

    ``seen`` begins the unusable entry that lies there.
    """
    assert call.key is not None
    if not remote.offers("get_or_lease"):
        return Held(None)
    held = Held(os.urandom(TOKEN_BYTES))
    return await _or_release(call, remote, held, port, _lease(call, remote, held, seen, port))


async def _or_release(call: Call, remote: Remote, held: Held, port: Port, asking: Coroutine[Any, Any, T]) -> T:
    """The answer; cancelled or interrupted while waiting for it, give back what may have been granted all the same."""
    try:
        return await asking
    except (Exception, GeneratorExit):
        raise
    except BaseException:
        with suppress(Unavailable):
            await release(call, remote, held, port)
        raise


async def _lease(call: Call, remote: Remote, held: Held, seen: bytes | None, port: Port) -> Held | Found | None:
    assert call.key is not None
    if seen is None:
        answer: Leased = await remote.do(port, "get_or_lease", call.key, held.token, LEASE_MS)
    else:
        answer = await remote.do(port, "lease", call.key, held.token, LEASE_MS, seen, False)
    if answer.kind == "found" and answer.data is not None:
        found = await judge(call, remote, answer.data, port)
        if isinstance(found, Found):
            return found
        answer = await remote.do(port, "lease", call.key, held.token, LEASE_MS, found.seen, False)
    return held if answer.kind == "held" else None


async def steal(call: Call, remote: Remote, port: Port) -> Held:
    """The right to store although a good value lies there: a refresh."""
    assert call.key is not None
    if not remote.offers("lease"):
        return Held(None)
    held = Held(os.urandom(TOKEN_BYTES))
    await _or_release(call, remote, held, port, remote.do(port, "lease", call.key, held.token, LEASE_MS, None, True))
    return held


async def store(
    call: Call,
    remote: Remote,
    value: Any,
    held: Held,
    stamps: Stamps,
    life: Life,
    load_ms: int,
    plain: bool,
    port: Port,
) -> bool:
    """Store under the fence; False when an invalidation got in between. Raises `Unstorable` too."""
    assert call.key is not None
    data = envelope(call, value, held.token or os.urandom(TOKEN_BYTES), stamps, life, load_ms, plain, port)
    return bool(await remote.do(port, "store", call.key, data, life.ttl_ms, held.token))


def envelope(
    call: Call, value: Any, entry_id: bytes, stamps: Stamps, life: Life, load_ms: int, plain: bool, port: Port
) -> bytes:
    """The bytes of an entry."""
    assert call.key is not None and call.tiers.codec is not None
    created = int(port.wall() * 1000)
    return call.tiers.codec.dumps(
        value,
        call.key,
        id=entry_id,
        created=created,
        soft=NEVER if life.soft is None else created + int(life.soft * 1000),
        hard=NEVER if life.hard is None else created + int(life.hard * 1000),
        load_ms=load_ms,
        negative=value is None,
        region_stamp=stamps.region,
        function_stamp=stamps.function,
        tags=stamps.tags,
        plain=plain,
    )


def rewritten(call: Call, found: Found, ends: Life, port: Port) -> bytes:
    """An entry with a new life."""
    header = found.header
    assert header is not None
    stamps = Stamps(header.region_stamp, header.function_stamp, NO_STAMP, header.tags)
    return envelope(call, found.value, new_id(), stamps, ends, header.load_ms, False, port)


async def release(call: Call, remote: Remote, held: Held, port: Port) -> None:
    """Give the right back without storing."""
    if held.token is not None and remote.offers("release"):
        assert call.key is not None
        await remote.do(port, "release", call.key, held.token)


def new_id() -> bytes:
    """The id of a store without a lease; from the kernel, so that forked children never draw the same."""
    return os.urandom(TOKEN_BYTES)
