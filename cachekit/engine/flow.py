"""The order of steps of one call, written once for threads and tasks. No clock, no threads, no event loop in here.

get_or_load:  L1 was asked already -> local flight -> L1 again -> L2 -> function -> fenced store to L2 -> L1

Rules that every line below keeps:
- a *ticket* is taken before L2 is asked or the function starts; L1 accepts a value only if nothing that covers the key
  was invalidated after its ticket;
- after one step of L2 failed, this call takes no further step on L2;
- the result of the function is carried as a `Result`, so that its exceptions are not mistaken for the flow's.
"""

from contextlib import suppress
from contextvars import ContextVar, Token
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final, TypeVar

from cachekit.context import ENTRY, LOADING, Entry
from cachekit.engine.entries import Sample, from_l1, life_of, put_in_l1, unstorable
from cachekit.engine.events import Loaded, Missed
from cachekit.engine.flight import HANDED_OVER, Chain, Flight, Lead, Wait
from cachekit.engine.freshness import Life
from cachekit.engine.keys import check_tag, tag_id
from cachekit.engine.miss import MISS
from cachekit.engine.ports import TIMED_OUT, Port, Result, closed
from cachekit.engine.tiers import Call
from cachekit.errors import Unstorable
from cachekit.l1.values import admit, isolate
from cachekit.l2 import operation
from cachekit.l2.operation import Found, Held, Stamps
from cachekit.l2.remote import Unavailable

T = TypeVar("T")

USED_UP: Final = (GeneratorType, AsyncGeneratorType)
PATIENCE: Final = 60.0  # seconds that anybody waits for another caller's load in this process; bounds unseen circles


async def get_or_load(call: Call, port: Port) -> Result:
    """The value of a call that L1 could not answer: from another caller's load, from L2, or from the function."""
    if not call.tiers.enabled and call.load is not None:
        return await port.run(call.load)
    while True:
        sample = Sample(call, port)
        place = call.tiers.flights.join(
            call.flight_key,
            ticket=sample.ticket,
            started=sample.started,
            chain=LOADING.get(),
            loop=port.loop(),
            blocked=port.blocked,
            may_join=lambda flight, sample=sample: _joinable(call, sample, flight),  # type: ignore[misc]
        )
        if isinstance(place, Lead):
            return await _lead(call, port, place, sample)
        if isinstance(place, Wait):
            result = await port.wait(place, PATIENCE)
            if result is HANDED_OVER:
                continue
            if result is TIMED_OUT:
                call.tally.error("wait", "timeout")
            elif _outdated(call, place.flight, sample, result):
                continue
            else:
                call.tally.waited += 1
                return _own_copy(result)
        return await _load(call, port, None, sample, None)


def _outdated(call: Call, flight: Flight, sample: Sample, result: Result) -> bool:
    """Whether a tag that only the value told of was cleared after the flight began, perhaps before this call did."""
    versions = call.tiers.versions
    return flight.ticket < sample.ticket and any(versions.tag_event(tag) > flight.ticket for tag in result.tags)


def _joinable(call: Call, sample: Sample, flight: Flight) -> bool:
    """Whether a flight's result will be good enough for this caller: nothing was invalidated since it began."""
    tiers = call.tiers
    remote = tiers.remote
    if not tiers.versions.allows(flight.ticket, call.khash, call.tag_ids, call.slot, tiers.spec.name):
        return False
    if closed(flight.loop):
        return False
    if remote is None:
        return True
    # Other processes' invalidations are not seen while a load runs, so its age bounds what it may have missed.
    bound = remote.spec.max_staleness
    return sample.started - flight.started <= (bound if remote.well else max(bound, remote.spec.disconnected_ttl))


async def _lead(call: Call, port: Port, lead: Lead, sample: Sample) -> Result:
    """Look into both tiers once more; the function only if neither has the value."""
    seen, mine = None, True
    try:
        result = from_l1(call)
        if result is not None:
            call.tally.waited += 1  # another caller's load has just ended
        elif sample.usable:
            found = await look_in_l2(call, port, sample)
            if isinstance(found, Result):
                result = found
            else:
                seen = found
        if result is None:
            mine = False  # the load goes on for the waiters, if this caller gives up
            return await port.owned(lambda own: _load(call, own, lead, sample, seen), lead)
    except BaseException:
        if mine:
            lead.hand_over()  # one of the waiters goes on
        raise
    _land(lead, result)
    return result


async def look_in_l2(call: Call, port: Port, sample: Sample) -> Result | bytes | None:
    """The value from L2, or the first bytes of an unusable one, or None."""
    remote = call.tiers.remote
    assert remote is not None
    try:
        found = await operation.read(call, remote, port)
    except Unavailable as error:
        sample.gone(call, "get", error)
        return None
    if not isinstance(found, Found):
        sample.why = found.reason
        return found.seen
    return _hit(call, port, sample, found)


def _hit(call: Call, port: Port, sample: Sample, found: Found) -> Result:
    """An entry of L2 goes into L1 and to the caller."""
    call.tally.l2_hits += 1
    call.tally.hit_seconds.append(port.now() - sample.started)
    if found.header is None:
        return Result(found.value, mode="")
    written = found.header.tags  # late ones too, whose names are not known here
    tags = tuple([digest.hex() for digest, _ in written]) if written else ()
    if call.tiers.table is None:
        return Result(found.value, mode="", tags=tags)
    admission = admit(found.value)
    sample.started = min(sample.started, found.known_at)  # other processes' clears are known up to then
    put_in_l1(call, port, sample, found.value, admission, found.fresh_for, tags, found.header.load_ms)
    return Result(found.value, mode=admission.mode, tags=tags)


def _land(lead: Lead | None, result: Result) -> None:
    """Give the result to those who wait: a copy that the leading caller cannot change any more."""
    future = None if lead is None else lead.end()
    if future is not None and not future.done():
        try:
            future.set_result(_own_copy(result))
        except BaseException:  # interrupted while it copied
            if not future.done():
                future.set_result(HANDED_OVER)
            raise


def _own_copy(result: Result) -> Result:
    if result.error is not None:
        return result
    mode = result.mode or admit(result.value).mode
    return Result(isolate(result.value, mode), mode=mode, tags=result.tags)


async def _load(
    call: Call, port: Port, lead: Lead | None, sample: Sample, seen: bytes | None, refresh: bool = False
) -> Result:
    """Stamps, lease, function, store, L1, waiters: the whole load, so that it can go on without its caller."""
    chain = LOADING.get()
    inside = LOADING.set(Chain(lead.flight, chain) if lead is not None else chain)
    stamps, held = None, None
    try:
        if sample.usable:
            stamps, held = await _prepare(call, port, sample, seen, refresh)
        if isinstance(held, Found):
            result = _hit(call, port, sample, held)
        else:
            result = await _compute(call, port, sample, stamps, held)
    except BaseException as error:
        try:
            if isinstance(held, Held) and not isinstance(error, GeneratorExit):  # after which nothing may be awaited
                await _release(call, port, sample, held)
        finally:
            if lead is not None:
                lead.hand_over()
        raise
    finally:
        _restore(LOADING, inside)
    _land(lead, result)
    return result


def _restore(variable: ContextVar[T], token: Token[T]) -> None:
    with suppress(ValueError):  # an abandoned coroutine is closed in the context of whoever collects the garbage
        variable.reset(token)


async def _prepare(
    call: Call, port: Port, sample: Sample, seen: bytes | None, refresh: bool
) -> tuple[Stamps | None, Held | Found | None]:
    """Stamps first, then the lease: both before the source is read."""
    remote = call.tiers.remote
    assert remote is not None
    try:
        stamps = await operation.sample(call, remote, call.tags, port)
        if refresh:
            return stamps, await operation.steal(call, remote, port)
        return stamps, await operation.acquire(call, remote, seen, port)
    except Unavailable as error:
        sample.gone(call, "lease", error)
        return None, None


async def _compute(call: Call, port: Port, sample: Sample, stamps: Stamps | None, held: Held | None) -> Result:
    """Run the function and keep what it brought."""
    assert call.load is not None
    tally, tiers = call.tally, call.tiers
    tally.misses += 1
    tiers.emit(Missed(tiers.spec.name, tally.function, sample.why))
    entry = Entry(None if callable(call.ttl) else call.ttl, call.tags)
    around = ENTRY.set(entry)
    began = port.now()
    try:
        result = await port.run(call.load)
    finally:
        _restore(ENTRY, around)
    if type(result.value) in USED_UP:
        result = Result(
            error=TypeError("a generator cannot be cached, it would be exhausted after one use; return a list")
        )
    seconds = port.now() - began
    tiers.emit(Loaded(tiers.spec.name, tally.function, seconds, type(result.error).__name__ if result.error else ""))
    if result.error is not None:
        tally.load_errors += 1
        tally.error("load", type(result.error).__name__)
        await _release(call, port, sample, held)
        return result
    tally.loads += 1
    tally.miss_seconds.append(port.now() - sample.started)
    try:
        await _keep(call, port, sample, result, entry, stamps, held, seconds)
    except Exception as error:
        # on_unstorable = "raise", a broken ttl= or condition=: mistakes in code reach the caller
        await _release(call, port, sample, held)
        return Result(error=error)
    return result


async def _release(call: Call, port: Port, sample: Sample, held: Held | None) -> None:
    if held is None or not sample.usable:
        return
    assert call.tiers.remote is not None
    try:
        await operation.release(call, call.tiers.remote, held, port)
    except Unavailable as error:
        sample.gone(call, "release", error)


async def _keep(
    call: Call,
    port: Port,
    sample: Sample,
    result: Result,
    entry: Entry,
    stamps: Stamps | None,
    held: Held | None,
    seconds: float,
) -> None:
    """Store a computed value in both tiers, as far as its options and the rules allow."""
    admission = admit(result.value)
    result.mode = admission.mode if call.tiers.spec.isolation != "share" else "share"
    ends = life_of(call, result.value, entry)
    if ends is None:
        await _release(call, port, sample, held)
        return
    tags = tuple(sorted(check_tag(tag) for tag in entry.tags))
    result.tags = tuple(map(tag_id, tags))
    if admission.mode == "opaque":
        unstorable(call, f"{type(result.value).__name__} cannot be copied or stored; it stays in this process")
        await _release(call, port, sample, held)
    elif (
        held is not None
        and stamps is not None
        and not await _store(call, port, sample, result.value, held, stamps, ends, seconds, tags, admission.plain)
    ):
        return  # an invalidation got in between: nobody may keep this value
    put_in_l1(call, port, sample, result.value, admission, ends.soft, result.tags, int(seconds * 1000))


async def _store(
    call: Call,
    port: Port,
    sample: Sample,
    value: Any,
    held: Held,
    stamps: Stamps,
    ends: Life,
    seconds: float,
    tags: tuple[str, ...],
    plain: bool,
) -> bool:
    """Store in L2. False only when L2 refused because of an invalidation; trouble is counted and the call goes on."""
    remote = call.tiers.remote
    assert remote is not None
    try:
        if set(tags) - set(call.tags):  # tags known only from the value
            late = await operation.resample(call, remote, stamps, tags, port)
            if late is None:
                await operation.release(call, remote, held, port)
                return False
            stamps = late
        stored = await operation.store(call, remote, value, held, stamps, ends, int(seconds * 1000), plain, port)
    except Unstorable as error:
        unstorable(call, str(error))
        await _release(call, port, sample, held)
        return True
    except Unavailable as error:
        sample.gone(call, "store", error)
        return True
    call.tally.stores += stored
    return stored


async def refresh(call: Call, port: Port) -> Result:
    """Compute now, whatever is cached, and store. A failure leaves what was stored."""
    sample = Sample(call, port)
    return await port.owned(lambda own: _load(call, own, None, sample, None, True), None)


async def look(call: Call, port: Port, *, first: bool = True) -> Any:
    """The value from either tier, or `MISS`. Never computes. ``first`` is false where L1 was asked already."""
    sample = Sample(call, port)
    if first and call.tiers.table is not None:
        value = call.tiers.table.get(call.slot, call.args)
        if value is not MISS:
            return value
    if sample.usable and call.tiers.enabled:
        found = await look_in_l2(call, port, sample)
        if isinstance(found, Result):
            return found.value
    return _nothing(call, sample)


def _nothing(call: Call, sample: Sample) -> Any:
    call.tally.misses += 1
    call.tiers.emit(Missed(call.tiers.spec.name, call.tally.function, sample.why))
    return MISS


async def look_many(calls: list[Call], port: Port) -> list[Any]:
    """The values of several keys of one region that L1 does not have, in one round trip; `MISS` where there is none."""
    tiers = calls[0].tiers
    remote = tiers.remote
    if remote is None or not remote.offers("get_many") or any(call.tiers.remote is not remote for call in calls):
        return [await look(call, port, first=False) for call in calls]
    samples = [Sample(call, port) for call in calls]
    try:
        stored = await remote.do(port, "get_many", [call.key for call in calls if call.key is not None])
    except Unavailable as error:
        samples[0].gone(calls[0], "get", error)
        return [_nothing(call, samples[0]) for call in calls]
    return [await _judged(call, port, sample, data) for call, sample, data in zip(calls, samples, stored, strict=True)]


async def _judged(call: Call, port: Port, sample: Sample, data: bytes | None) -> Any:
    if data is not None and call.tiers.remote is not None:
        try:
            found = await operation.judge(call, call.tiers.remote, data, port)
        except Unavailable as error:
            sample.gone(call, "get", error)
        else:
            if isinstance(found, Found):
                return _hit(call, port, sample, found).value
            sample.why = found.reason
    return _nothing(call, sample)
