"""What L2 is asked for one key: look, judge the bytes, take the lease, store under its fence.

Every function here raises `Unavailable` when L2 cannot be used; no other error of a backend, of the network or of bad
bytes gets out.
"""

import os
import re
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

from cachekit.backends.base import SEEN_BYTES, TOKEN_BYTES, Leased
from cachekit.codec.envelope import FORGED, NEVER, Damaged, Header, pack, unlock, unpack
from cachekit.context import LOADING, inside_load
from cachekit.engine import keys, raised
from cachekit.engine.events import Failed
from cachekit.engine.freshness import Life, left
from cachekit.engine.ports import Port
from cachekit.engine.tiers import Call
from cachekit.errors import TamperedEntry, Unstorable
from cachekit.l2.lease import UNRENEWED_MS, lease_ms
from cachekit.l2.remote import Remote, Unavailable
from cachekit.l2.stamps import NO_STAMP, stamp_life_ms

if TYPE_CHECKING:
    pass

T = TypeVar("T")
Validators: TypeAlias = tuple[str | None, str | None]  # ETag and date of the last change, as the source told them
NO_VALIDATORS: Final[Validators] = (None, None)


class Found(NamedTuple):
    """A usable entry. ``fresh_for`` seconds are left, None means for ever."""

    value: Any
    header: Header | None  # None: a number that L2 counts, which no process may keep in L1
    fresh_for: float | None
    seen: bytes  # the first bytes of the entry, which tell it from any other store
    known_at: float = inf  # nothing that covers it had been cleared then, as far as L1 needs to know
    mark: bytes = b""  # of a number
    covered: bool = False  # judged by stamps
    kept_for: float | None = None  # seconds until nobody may use it any more, stale neither; None: for ever
    payload: bytes | memoryview = b""  # as L2 has the value


class Stale(NamedTuple):
    """A value past its TTL, or marked as stale, that nobody invalidated; ``left`` seconds it may still stand in."""

    value: Any
    header: Header
    payload: bytes | memoryview
    age: float  # seconds since the end of its TTL, below 0 if it was marked before
    left: float | None


class Absent(NamedTuple):
    """No usable entry, and why; ``seen`` are the first bytes of one that lies there but cannot be used."""

    reason: str
    seen: bytes | None = None
    stale: Stale | None = None


class Stamps(NamedTuple):
    """The stamps an entry is computed or judged under."""

    region: bytes
    function: bytes
    clock: bytes
    tags: tuple[tuple[bytes, bytes], ...]  # (digest, stamp), sorted


class Held(NamedTuple):
    """The right to store, until somebody invalidates. Without a token the store is not fenced."""

    token: bytes | None


class Busy(NamedTuple):
    """Another process has the right to compute. ``seconds`` are left of it; None: unknown."""

    seconds: float | None


class NoNumber(Exception):
    """Something that cannot be counted lies there."""


class Number(NamedTuple):
    """A number that L2 can add to. Its mark is the stamp of the region, then digest and stamp of each tag."""

    value: int
    mark: bytes
    region_stamp: bytes
    tags: tuple[tuple[bytes, bytes], ...]
    function_stamp: bytes = NO_STAMP


NUMBER: Final = re.compile(rb"(-?[0-9]{1,19})(@(.{8})((?:.{16})*))", re.DOTALL)
REWRAP_AGAIN: Final = 10.0  # seconds; during a rotation two keys are the present one, each for some processes
TRIES: Final = 10  # of adding to a number that others write at the same time
NOTHING: Final = Absent("absent")
_new: Final = tuple.__new__  # a fifth of the time that a NamedTuple's own constructor takes


async def read(call: Call, remote: Remote, port: Port) -> Found | Absent:
    """Look for the entry of a call."""
    assert call.key is not None
    data = await remote.do(port, "get", call.key)
    if data is None:
        return NOTHING
    found = examine(call, remote, data, port)
    # The first test spares the second one for most calls, which are not inside of anything.
    if found is None or (LOADING.get() is not None and inside_load()):
        found = await judge(call, remote, data, port)
    locks = call.tiers.locks  # nearly all entries are under the present key
    if locks is not None and (
        not isinstance(found, Found) or (header := found.header) is None or header.key_id != locks.key_id
    ):
        await reseal(call, remote, found, port)
    return found


async def reseal(call: Call, remote: Remote, found: Found | Absent, port: Port) -> None:
    """Rewrap what was read, a stale value too, where an older key closed it."""
    locks = call.tiers.locks
    if isinstance(found, Absent):
        if found.stale is None or found.seen is None:
            return
        _, header, payload, _, left = found.stale
        found = Found(None, header, None, found.seen, kept_for=left, payload=payload)
    if locks is not None and found.header is not None and found.header.key_id != locks.key_id:
        await rewrap(call, remote, found, port)


async def rewrap(call: Call, remote: Remote, found: Found, port: Port) -> None:
    """Store an entry that an older key closed under the present one, unless somebody has replaced it meanwhile.

    Its id stays: it is the same store, and whoever judged it may go on with it.
    """
    header, lock = found.header, call.lock
    assert header is not None and lock is not None and call.key is not None
    if not call.tiers.spec.codec.rewrap or call.switches.read_only:
        return
    if not remote.offers("store_if") or call.tiers.rewraps.on(call.key, port.now()):
        return
    call.tiers.rewraps.rest(call.key, port.now(), REWRAP_AGAIN)
    data = pack(header, bytes(found.payload), call.key, lock)
    ttl_ms = None if found.kept_for is None else max(1, int(found.kept_for * 1000))
    with suppress(Unavailable):  # the value is good all the same
        await remote.do(port, "store_if", call.key, data, ttl_ms, found.seen, False)


async def judge(call: Call, remote: Remote, data: bytes, port: Port) -> Found | Absent:
    """Decide whether stored bytes are this key's value, whole, fresh, and not invalidated."""
    found = examine(call, remote, data, port)
    usable = found.covered if isinstance(found, Found) else found is not None and found.stale is not None
    if usable and inside_load():
        found = None  # what is made of it lives on, so it must not be by stamps that may be outdated already
    if found is None:  # before saying that it was cleared, ask L2: the cells may be the ones that lag
        names, written = _covering(call, _number(call, data) or unpack(data, call.key or "", call.lock)[0])
        stamps = await remote.stamps(names, _stamp_life(call), port, known=False)
        found = examine(call, remote, data, port, stamps) if stamps == written else None
    return Absent("outdated", data[:SEEN_BYTES]) if found is None else found


def examine(
    call: Call, remote: Remote, data: bytes, port: Port, stamps: list[bytes] | None = None
) -> Found | Absent | None:
    """As `judge`, by what this process knows; None when the stamps it knows are not those of the entry."""
    tiers, key = call.tiers, call.key
    assert key is not None and tiers.codec is not None
    if tiers.spec.counters and (number := _number(call, data)) is not None:
        names, written = _covering(call, number)
        stamped = remote.offers("stamps")
        if stamped and (stamps or remote.cells.get(names, port.now())) != written:
            return None
        return Found(number.value, None, None, data[:SEEN_BYTES], mark=number.mark, covered=stamped)
    try:
        locks = tiers.locks
        header, payload = unpack(data, key) if locks is None else unlock(data, key, locks.of(call.tenant))
        wall = port.wall() * 1000.0
        fresh_for = left(header.created, header.soft, wall, header.hard)
        stale = header.stale or (fresh_for is not None and fresh_for <= 0)
        if stale and not _stands_in(call, header, wall):
            return Absent("expired", data[:SEEN_BYTES])
        stamped, known_at = remote.offers("stamps"), inf
        if stamped:
            names, written = _covering(call, header)
            known = (stamps, inf) if stamps is not None else remote.cells.look(names, port.now())
            if known is None or known[0] != written:
                return None
            known_at = known[1]
        value = tiers.codec.decode(header, payload)
        if header.negative and value is not None and (value := raised.read(value, tiers.spec)) is None:
            return Absent("negative", data[:SEEN_BYTES])
        kept_for = fresh_for if header.hard == header.soft else left(header.created, header.hard, wall, header.hard)
        if stale:
            held = Stale(value, header, payload, -(fresh_for or 0.0), kept_for)
            return Absent("expired", data[:SEEN_BYTES], held)
        return _new(Found, (value, header, fresh_for, data[:SEEN_BYTES], known_at, b"", stamped, kept_for, payload))
    except Damaged as damage:
        call.tally.error("get", f"damaged_{damage.reason}")
        tiers.emit(Failed(tiers.spec.name, call.tally.function, "get", f"damaged_{damage.reason}"))
        if tiers.spec.codec.fail_closed and damage.reason in FORGED:
            raise TamperedEntry(
                f"region {tiers.spec.name!r}: an entry in backend {tiers.spec.backend!r} is not what was stored there "
                f"({damage.reason}); find out who writes there, then invalidate() or clear()"
            ) from None
        return Absent(f"damaged_{damage.reason}", data[:SEEN_BYTES])


def _stamp_life(call: Call) -> int:
    ttl = call.tiers.spec.ttl
    return stamp_life_ms(None if ttl is None else ttl + call.tiers.spec.freshness.stale_ttl)


def _stands_in(call: Call, header: Header, wall: float) -> bool:
    """Whether a value that is stale may be of use: to be given in place of a fresh one, or to be compared with."""
    if call.load is None and not call.switches.allow_stale:
        return False
    ends = left(header.created, header.hard, wall, header.hard)
    return ends is None or ends > 0


def _covering(call: Call, header: "Header | Number") -> tuple[Sequence[str], list[bytes]]:
    """The names of the stamps that cover an entry, and what they were when it was computed."""
    names: Sequence[str] = call.stamp_names
    written = [header.region_stamp, header.function_stamp] if len(names) > 1 else [header.region_stamp]
    if header.tags:
        names = [*names, *(keys.tag_stamp(call.tiers.namespace, digest) for digest, _ in header.tags)]
        written += [stamp for _, stamp in header.tags]
    return names, written


async def sample(call: Call, remote: Remote, tags: tuple[str, ...], port: Port, *, known: bool = True) -> Stamps:
    """The stamps to store under; taken before the source is read."""
    digests = sorted({keys.tag_digest(tag, call.tiers.name_key) for tag in tags})
    if not remote.offers("stamps"):
        return Stamps(NO_STAMP, NO_STAMP, NO_STAMP, tuple((digest, NO_STAMP) for digest in digests))
    tag_names = [keys.tag_stamp(call.tiers.namespace, digest) for digest in digests]
    names = [call.tiers.clock_stamp, *call.stamp_names, *tag_names]
    clock, region, *rest = await remote.stamps(names, _stamp_life(call), port, known=known)
    function = rest.pop(0) if len(call.stamp_names) > 1 else NO_STAMP
    return Stamps(region, function, clock, tuple(zip(digests, rest, strict=True)))


async def resample(call: Call, remote: Remote, before: Stamps, tags: tuple[str, ...], port: Port) -> Stamps | None:
    """Stamps for tags that became known only from the value; None when any tag was cleared meanwhile."""
    now = await sample(call, remote, tags, port, known=False)
    if now.clock != before.clock:
        return None
    first = dict(before.tags)  # of what was known before the source was read, the stamp of then tells
    return before._replace(tags=tuple([(digest, first.get(digest, stamp)) for digest, stamp in now.tags]))


async def acquire(call: Call, remote: Remote, seen: bytes | None, stamps: Stamps, port: Port) -> Held | Found | Busy:
    """The right to store what is computed from now on; or the value, if somebody stored it meanwhile.

    ``seen`` begins the unusable entry that lies there; what is computed will be stored under ``stamps``.
    """
    assert call.key is not None
    if not (remote.offers("get_or_lease") and remote.offers("lease")):  # the second where an unusable entry lies
        return Held(None)
    held = Held(os.urandom(TOKEN_BYTES))
    return await _or_release(call, remote, held, port, _lease(call, remote, held, seen, stamps, port))


async def _or_release(call: Call, remote: Remote, held: Held, port: Port, asking: Coroutine[Any, Any, T]) -> T:
    """The answer; cancelled or interrupted while waiting for it, give back what may have been granted all the same.

    Where no answer came that has to wait: this call takes no further step.
    """
    try:
        return await asking
    except Unavailable as error:
        if error.reason != "breaker_open" and not error.final and call.key is not None and held.token is not None:
            remote.leases.unsure(call.key, held.token, length_of_lease(call, remote), port.now())
        raise
    except (Exception, GeneratorExit):
        raise
    except BaseException:
        with suppress(Unavailable):
            await release(call, remote, held, port)
        raise


async def _lease(
    call: Call, remote: Remote, held: Held, seen: bytes | None, stamps: Stamps, port: Port
) -> Held | Found | Busy:
    assert call.key is not None and held.token is not None
    ms = length_of_lease(call, remote)
    for key, token in remote.leases.to_release(port.now(), call.key):
        await remote.do(port, "release", key, token)
    if seen is None:
        answer: Leased = await remote.do(port, "get_or_lease", call.key, held.token, ms)
    else:
        answer = await remote.do(port, "lease", call.key, held.token, ms, seen, False)
    if answer.kind == "found" and answer.data is not None:
        found = await judge(call, remote, answer.data, port)
        await reseal(call, remote, found, port)
        if isinstance(found, Found):
            return found
        answer = await remote.do(port, "lease", call.key, held.token, ms, found.seen, False)
    if answer.kind != "held":
        return Busy(None if answer.ttl_ms is None else answer.ttl_ms / 1000)
    remote.leases.hold(call.key, held.token, ms, port.now(), stamps)
    return held


def length_of_lease(call: Call, remote: Remote) -> int:
    """In milliseconds. The maintenance thread renews leases, and it can only call plain methods."""
    renewed = remote.offers("renew") and remote.faces.sync is not None
    return lease_ms(call.tally.times) if renewed else UNRENEWED_MS


async def steal(call: Call, remote: Remote, stamps: Stamps, port: Port) -> Held:
    """The right to store although a good value lies there, or another load has the lease: its value is refused then."""
    assert call.key is not None
    if not remote.offers("lease"):
        return Held(None)
    held, ms = Held(os.urandom(TOKEN_BYTES)), length_of_lease(call, remote)
    assert held.token is not None
    await _or_release(call, remote, held, port, remote.do(port, "lease", call.key, held.token, ms, None, True))
    remote.leases.hold(call.key, held.token, ms, port.now(), stamps)
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
    validators: Validators = NO_VALIDATORS,
) -> bool:
    """Store under the fence; False when an invalidation got in between. Raises `Unstorable` too."""
    assert call.key is not None
    token = held.token or os.urandom(TOKEN_BYTES)
    data = envelope(call, value, token, stamps, life, load_ms, plain, port, validators)
    return bool(await remote.do(port, "store", call.key, data, life.ttl_ms, held.token))


async def keep(
    call: Call, remote: Remote, old: Header, payload: bytes | memoryview, held: Held, stamps: Stamps, life: Life,
    load_ms: int, port: Port, validators: Validators,
) -> bool:  # fmt: skip
    """Store the bytes that lie there once more, under the fence, with a life, stamps and validators of today."""
    assert call.key is not None
    remote.note_ttl(life.hard)
    created, soft, hard = _dates(life, port)
    # Of tags that only the value told of the names are not known here. If one was cleared since, its old stamp tells.
    tags = tuple(sorted({**dict(old.tags), **dict(stamps.tags)}.items()))
    header = old._replace(
        id=held.token or os.urandom(TOKEN_BYTES), created=created, soft=soft, hard=hard, load_ms=load_ms, stale=False,
        region_stamp=stamps.region, function_stamp=stamps.function, tags=tags,
        etag=validators[0], last_modified=validators[1],
    )  # fmt: skip
    data = pack(header, bytes(payload), call.key, call.lock)
    return bool(await remote.do(port, "store", call.key, data, life.ttl_ms, held.token))


def _dates(life: Life, port: Port) -> tuple[int, int, int]:
    """Created, soft and hard end as the envelope has them."""
    created = int(port.wall() * 1000)
    return (
        created,
        NEVER if life.soft is None else created + int(life.soft * 1000),
        NEVER if life.hard is None else created + int(life.hard * 1000),
    )


def envelope(
    call: Call, value: Any, entry_id: bytes, stamps: Stamps, life: Life, load_ms: int, plain: bool, port: Port,
    validators: Validators = NO_VALIDATORS,
) -> bytes:  # fmt: skip
    """The bytes of an entry: a number that L2 can add to, or what the codec makes of the value.

    Raises `Unstorable`, also for what is too large for the backend.
    """
    assert call.key is not None and call.tiers.codec is not None
    remote = call.tiers.remote
    if remote is not None:
        remote.note_ttl(life.hard)
    if counts(call, value):
        return b"%d%b" % (value, _mark(stamps))
    negative = value is None
    if type(value) is raised.Raised:
        value, negative, plain = raised.written(value), True, False
    created, soft, hard = _dates(life, port)
    data = call.tiers.codec.dumps(
        value,
        call.key,
        id=entry_id,
        created=created,
        soft=soft,
        hard=hard,
        load_ms=load_ms,
        negative=negative,
        region_stamp=stamps.region,
        function_stamp=stamps.function,
        tags=stamps.tags,
        etag=validators[0],
        last_modified=validators[1],
        plain=plain,
        lock=call.lock,
    )
    if remote is not None and (largest := remote.faces.largest) is not None and len(data) > largest:
        raise Unstorable(f"an entry of {len(data)} bytes; backend {remote.spec.name!r} takes {largest} at most", "size")
    return data


def rewritten(call: Call, found: Found, ends: Life, port: Port) -> bytes:
    """An entry with a new life."""
    header = found.header
    assert header is not None
    stamps = Stamps(header.region_stamp, header.function_stamp, NO_STAMP, header.tags)
    validators = header.etag, header.last_modified
    return envelope(call, found.value, new_id(), stamps, ends, header.load_ms, False, port, validators)


def counts(call: Call, value: Any) -> bool:
    """Whether a value is stored as a number that L2 can add to: under a key of the region itself, not of a function."""
    return call.tiers.spec.counters and len(call.stamp_names) == 1 and type(value) is int and -(2**63) <= value < 2**63


def _mark(stamps: Stamps) -> bytes:
    return b"@" + stamps.region + b"".join([part for pair in stamps.tags for part in pair])


def _number(call: Call, data: bytes) -> Number | None:
    parts = NUMBER.fullmatch(data) if len(call.stamp_names) == 1 else None
    if parts is None:
        return None
    value, mark, region_stamp, tags = parts.groups()
    pairs = [(tags[at : at + 8], tags[at + 8 : at + 16]) for at in range(0, len(tags), 16)]
    return Number(int(value), mark, region_stamp, tuple(pairs))


async def count(call: Call, remote: Remote, by: int, ttl_ms: int | None, create: bool, port: Port) -> int | None:
    """Add to the number of a call; None when there is none and none may be created. Raises `NoNumber` too."""
    assert call.key is not None
    mark = _mark(await sample(call, remote, call.tags, port))
    for _ in range(TRIES):
        number: int | None = await remote.do(port, "incr", call.key, by, ttl_ms, mark, create)
        if number is not None:
            return number
        found = await read(call, remote, port)
        if isinstance(found, Found):
            if found.header is not None:
                raise NoNumber
            mark = found.mark  # it has other tags
        elif not create:
            return None
        elif found.seen is not None and not counts(call, by):
            raise NoNumber
        elif found.seen is not None and await remote.do(
            port, "store_if", call.key, b"%d%b" % (by, mark), ttl_ms, found.seen, True
        ):
            return by
    raise Unavailable("contention")


async def release(call: Call, remote: Remote, held: Held, port: Port) -> None:
    """Give the right back without storing."""
    if held.token is not None and remote.offers("release"):
        assert call.key is not None
        await remote.do(port, "release", call.key, held.token)


def new_id() -> bytes:
    """The id of a store without a lease; from the kernel, so that forked children never draw the same."""
    return os.urandom(TOKEN_BYTES)
