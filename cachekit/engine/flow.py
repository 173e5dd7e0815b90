"""The order of steps of one call, written once for threads and tasks. No clock, no threads, no event loop in here.

get_or_load:  L1 was asked already -> local flight -> L1 again -> L2 -> stamps, lease (or wait for who has it)
              -> function -> fenced store to L2 -> L1

Rules that every line below keeps:
- a *ticket* is taken before L2 is asked or the function starts; L1 accepts a value only if nothing that covers the key
  was invalidated after its ticket;
- after one step of L2 failed, this call takes no further step on L2;
- inside of a load, cached calls trust nothing that this process remembers: what is made of it would outlive the push
  that is still on its way;
- the result of the function is carried as a `Result`, so that its exceptions are not mistaken for the flow's.
"""

import random
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cachekit.context import ENTRY, LOADING, Entry
from cachekit.engine.entries import Sample, from_l1, life_of, put_in_l1, unstorable
from cachekit.engine.events import Loaded, Missed
from cachekit.engine.flight import HANDED_OVER, Alone, Chain, Flight, Lead, Wait, around, in_core, tell
from cachekit.engine.freshness import Life
from cachekit.engine.keys import check_tag, tag_id
from cachekit.engine.miss import MISS
from cachekit.engine.ports import TIMED_OUT, Port, Result, blocking, closed
from cachekit.engine.tiers import Call
from cachekit.errors import Unstorable
from cachekit.l1.table import admit, isolate
from cachekit.l2 import operation
from cachekit.l2.lease import is_fast
from cachekit.l2.operation import Busy, Found, Held, Stamps
from cachekit.l2.parking import Parked
from cachekit.l2.remote import Unavailable
from cachekit.l2.stamps import NO_STAMP

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

USED_UP: Final = (GeneratorType, AsyncGeneratorType)
PATIENCE: Final = 60.0  # seconds that anybody waits for another caller's load in this process; bounds unseen circles
TRIES: Final = 20  # of sampling what covers a key, while others clear it at the same time
LOOK_AGAIN: Final = (0.005, 0.05)  # seconds after which who is not told looks whether another process is done
OUTDATED_AGAIN: Final = (0.05, 0.25)  # ... if an outdated value lies there, whose lease may be given back in silence


async def get_or_load(call: Call, port: Port) -> Result:
    """The value of a call that L1 could not answer: from another caller's load, from L2, or from the function."""
    tiers = call.tiers
    if not tiers.enabled and call.load is not None:
        return await port.run(call.load)
    while True:
        sample = Sample(call, port)
        lead = tiers.flights.lead(call.flight_key, sample.ticket, sample.started, port.loop())
        if unseen := in_core():  # known to nobody yet; from now on the core begins no other, as somebody leads
            if lead is not None:
                lead.hand_over()
            tell(unseen)
            continue
        place = lead or _join(call, port, sample)
        if isinstance(place, Lead):
            break
        result = await _wait(call, port, place, sample)
        if result is not None:
            return result
    # We lead. Look into both tiers once more; the function only if neither has the value.
    seen, mine = None, True
    try:
        result = None if tiers.table is None else from_l1(call)
        if result is not None:
            call.tally.waited += 1  # another caller's load has just ended
        elif sample.usable and tiers.remote is not None:
            try:
                found = await operation.read(call, tiers.remote, port)
            except Unavailable as error:
                sample.gone(call, "get", error)
            else:
                if isinstance(found, Found):
                    result = _hit(call, port, sample, found)
                else:
                    sample.why, seen = found.reason, found.seen
        if result is None:
            mine = False  # the load goes on for the waiters, if this caller gives up
            return await _owned(call, port, place, sample, seen)
    except BaseException:
        if mine:
            place.hand_over()  # one of the waiters goes on
        raise
    if (waiting := place.end()) is not None:
        land(waiting, result)
    return result


def _owned(call: Call, port: Port, lead: Lead, sample: Sample, seen: bytes | None) -> Coroutine[Any, Any, Result]:
    """The load, so that it outlives a caller who gives up."""
    return port.owned(lambda own: _load(call, own, lead, sample, seen), lead)


def _join(call: Call, port: Port, sample: Sample) -> Lead | Wait | Alone:
    """Somebody leads the load: wait for it, or take over from a flight that is not good enough, or do without."""
    return call.tiers.flights.join(
        call.flight_key,
        ticket=sample.ticket,
        started=sample.started,
        chain=around(LOADING.get()),
        loop=port.loop(),
        blocked=port.blocked,
        may_join=lambda flight: _joinable(call, sample, flight),
    )


async def _wait(call: Call, port: Port, place: Wait | Alone, sample: Sample) -> Result | None:
    """What another caller's load brings, or our own load without a flight; None: begin again."""
    if isinstance(place, Wait):
        result = await port.wait(place, PATIENCE)
        if result is HANDED_OVER:
            return None
        if result is TIMED_OUT:
            call.tally.error("wait", "timeout")
        elif _outdated(call, place.flight, sample, result):
            return None
        else:
            call.tally.waited += 1
            return _own_copy(result)
    return await _load(call, port, None, sample, None, patient=not isinstance(place, Alone))


def _outdated(call: Call, flight: Flight, sample: Sample, result: Result) -> bool:
    """Whether a tag that only the value told of was cleared after the flight began, perhaps before this call did."""
    versions = call.tiers.versions
    return flight.ticket < sample.ticket and any(versions.tag_event(tag) > flight.ticket for tag in result.tags)


def _joinable(call: Call, sample: Sample, flight: Flight) -> bool:
    """Whether a flight's result will be good enough for this caller: nothing was invalidated since it began."""
    tiers = call.tiers
    remote, versions = tiers.remote, tiers.versions
    if closed(flight.loop):
        return False
    if flight.unread:
        return True
    if not versions.allows(flight.ticket, call.khash, call.tag_ids, call.slot, tiers.spec.name):
        return False
    if remote is None:
        return True
    chain = LOADING.get()
    if chain is not None and chain.began is not None and flight.started < chain.began:
        return False
    # What other processes invalidated may be unknown here since then.
    known = max(flight.started, remote.coherence.proof) if sample.heard else flight.started
    bound = remote.spec.max_staleness
    return sample.started - known <= (bound if remote.well else max(bound, remote.spec.disconnected_ttl))


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
    tally, header = call.tally, found.header
    tally.l2_hits += 1
    tally.hit_seconds.append(port.now() - sample.started)
    if header is None:
        return Result(found.value, None, "")
    written = header.tags  # late ones too, whose names are not known here
    tags = tuple([digest.hex() for digest, _ in written]) if written else ()
    if call.tiers.table is None:
        return Result(found.value, None, "", tags)
    admission = admit(found.value)
    sample.started = min(sample.started, found.known_at)  # other processes' clears are known up to then
    put_in_l1(call, port, sample, found.value, admission, found.fresh_for, tags, header.load_ms)
    return Result(found.value, mode=admission.mode, tags=tags)


def land(future: "Future[Any]", result: Result) -> None:
    """Give the result to those who wait: a copy that the leading caller cannot change any more."""
    if not future.done():
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
    call: Call,
    port: Port,
    lead: Lead | None,
    sample: Sample,
    seen: bytes | None,
    *,
    refresh: bool = False,
    patient: bool = True,
) -> Result:
    """Stamps, lease, function, store, L1, waiters: the whole load, so that it can go on without its caller."""
    right = Right(sample)
    try:
        result = await _obtain(call, port, lead, right, seen, refresh, patient) if sample.usable else None
        if result is None:
            result = await _compute(call, port, lead, right)
    except BaseException as error:
        try:
            if not isinstance(error, GeneratorExit):  # after which nothing may be awaited
                await _release(call, port, right)
        finally:
            if lead is not None:
                lead.hand_over()
        raise
    finally:
        right.end(call)
    if lead is not None and (waiting := lead.end()) is not None:
        land(waiting, result)
    return result


class Right:
    """What a load holds: the sample it is judged by, the stamps to store under, and the lease, if it was granted."""

    __slots__ = ("held", "sample", "stamps")

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.stamps: Stamps | None = None
        self.held: Held | None = None

    def end(self, call: Call) -> None:
        """Nobody renews the lease any more."""
        if self.held is not None and self.held.token is not None and call.tiers.remote is not None:
            call.tiers.remote.leases.end(self.held.token)


async def _obtain(
    call: Call, port: Port, lead: Lead | None, right: Right, seen: bytes | None, refresh: bool, patient: bool
) -> Result | None:
    """The right to compute, before the source is read; or the value, if another process brought it.

    Who finds another process computing waits for it, as long as that pays. Who waited in vain computes without the
    right to store.
    """
    remote = call.tiers.remote
    assert remote is not None
    parked = remote.reach.parking.enter(call.khash)  # before L2 is asked, so that no push slips through
    try:
        until = None
        while True:
            parked.again()
            answer = await _prepare(call, port, lead, right, seen, refresh)
            if isinstance(answer, Found):
                return _hit(call, port, right.sample, answer)
            if not isinstance(answer, Busy):
                return None
            if _ours(call, right) == (True, True):
                refresh = True
                continue
            if until is None:
                until = port.now() + (_patience(call, port, right) if patient else 0.0)
                call.tally.lease_waits += 1
            if port.now() >= until:
                call.tally.impatient += 1
                right.sample.alone = True
                return None
            with _unread(lead):
                await _wait_for_change(call, port, parked, right.sample, answer, seen, until)
                _sample_again(call, port, lead, right)
            found = await look_in_l2(call, port, right.sample)
            if isinstance(found, Result):
                return found
            seen = found
            if not right.sample.usable:
                return None
    finally:
        remote.reach.parking.leave(parked)


def _ours(call: Call, right: Right) -> tuple[bool, bool]:
    """Whether it is this process that computes, for a flight that this caller may not join; and whether something was
    cleared since, so that nobody will use what it stores."""
    assert call.tiers.remote is not None and call.key is not None and right.stamps is not None
    now = right.stamps._replace(clock=NO_STAMP)
    others = call.tiers.remote.leases.stamps(call.key)
    return bool(others), all(isinstance(it, Stamps) and it._replace(clock=NO_STAMP) != now for it in others)


def _patience(call: Call, port: Port, right: Right) -> float:
    """Seconds to wait for another load."""
    lease = call.tiers.spec.lease
    if port.blocked() is not None:  # a blocking call must not stop the event loop of its thread
        return 0.0
    if (lease == "off" or (lease == "auto" and is_fast(call.tally.times))) and not _ours(call, right)[0]:
        return 0.0
    return call.tiers.spec.lease_wait


async def _wait_for_change(
    call: Call, port: Port, parked: Parked, sample: Sample, busy: Busy, seen: bytes | None, until: float
) -> None:
    """Until the key changes, as far as anybody tells us, the other's lease ends, or patience does."""
    seconds = until - port.now()
    if busy.seconds is not None:
        seconds = min(seconds, busy.seconds + 0.001)
    if not sample.heard:
        seconds = min(seconds, random.uniform(*LOOK_AGAIN))
    elif seen is not None:
        seconds = min(seconds, random.uniform(*OUTDATED_AGAIN))
    await port.park(parked, seconds)


@contextmanager
def _unread(lead: Lead | None) -> Iterator[None]:
    """Whoever comes meanwhile may join: nothing was read yet, and what is read will be asked for after a sample."""
    if lead is not None:
        lead.flight.unread = True
    try:
        yield
    finally:
        if lead is not None:
            lead.flight.unread = False


def _sample_again(call: Call, port: Port, lead: Lead | None, right: Right) -> None:
    """Nothing was read yet that the value is made of, so a newer sample will do, for who joins the flight as well."""
    before, right.sample = right.sample, Sample(call, port)
    right.sample.why = before.why
    if lead is not None:
        lead.flight.ticket, lead.flight.started = right.sample.ticket, right.sample.started


def _restore(variable: ContextVar[T], token: Token[T]) -> None:
    with suppress(ValueError):  # an abandoned coroutine is closed in the context of whoever collects the garbage
        variable.reset(token)


async def _prepare(
    call: Call, port: Port, lead: Lead | None, right: Right, seen: bytes | None, refresh: bool
) -> Found | Busy | None:
    """Stamps first, then the lease: both before the source is read. None: compute, with what was granted."""
    remote = call.tiers.remote
    assert remote is not None
    try:
        right.stamps = await _sample_stamps(call, port, lead, right)
        right.sample.stamped = True
        if refresh:
            answer: Held | Found | Busy = await operation.steal(call, remote, right.stamps, port)
        else:
            answer = await operation.acquire(call, remote, seen, right.stamps, port)
    except Unavailable as error:
        right.sample.gone(call, "lease", error)
        return None
    if not isinstance(answer, Held):
        return answer
    right.held = answer
    return None


async def _sample_stamps(call: Call, port: Port, lead: Lead | None, right: Right) -> Stamps:
    """The stamps to store under, from after a sample that still holds: we may have made one and been told so."""
    tiers = call.tiers
    assert tiers.remote is not None
    with _unread(lead):
        for _ in range(TRIES):
            stamps = await operation.sample(call, tiers.remote, call.tags, port)
            if tiers.versions.allows(right.sample.ticket, call.khash, call.tag_ids, call.slot, tiers.spec.name):
                return stamps
            _sample_again(call, port, lead, right)
    raise Unavailable("contention")


async def _compute(call: Call, port: Port, lead: Lead | None, right: Right) -> Result:
    """Run the function and keep what it brought."""
    assert call.load is not None
    tally, tiers = call.tally, call.tiers
    tally.misses += 1
    tiers.emit(Missed(tiers.spec.name, tally.function, right.sample.why))
    entry = Entry(None if callable(call.ttl) else call.ttl, call.tags)
    outer = ENTRY.set(entry)
    began = port.now()
    inside = LOADING.set(_chain(call, lead, right.sample, began))
    tiers.nesting.enter(tiers.remote is not None)
    try:
        result = await port.run(call.load)
    finally:
        tiers.nesting.leave(tiers.remote is not None)
        _restore(LOADING, inside)
        _restore(ENTRY, outer)
    return await _ran(call, port, right, result, entry, port.now() - began)


async def _ran(call: Call, port: Port, right: Right, result: Result, entry: Entry, seconds: float) -> Result:
    """The function has run."""
    tally, tiers = call.tally, call.tiers
    if type(result.value) in USED_UP:
        result = Result(
            error=TypeError("a generator cannot be cached, it would be exhausted after one use; return a list")
        )
    tally.times.add(seconds)
    tiers.emit(Loaded(tiers.spec.name, tally.function, seconds, type(result.error).__name__ if result.error else ""))
    if result.error is not None:
        tally.load_errors += 1
        tally.error("load", type(result.error).__name__)
        await _release(call, port, right)
        return result
    tally.loads += 1
    tally.miss_seconds.append(port.now() - right.sample.started)
    try:
        await _keep(call, port, right, result, entry, seconds)
    except Exception as error:
        # on_unstorable = "raise", a broken ttl= or condition=: mistakes in code reach the caller
        await _release(call, port, right)
        return Result(error=error)
    return result


async def ended(
    call: Call, port: Port, result: Result, entry: Entry, ticket: int, began: float, seconds: float
) -> Result:
    """As if the function had been run here, without L2: for a load that the core ran."""
    sample = Sample(call, port)
    sample.ticket, sample.started, sample.usable = ticket, began, False
    call.tally.misses += 1
    assert call.load is not None
    return await _ran(call, port, Right(sample), blocking(call.load, result), entry, seconds)


def _chain(call: Call, lead: Lead | None, sample: Sample, began: float) -> Chain:
    """What the function is inside of. One without a flight of its own, a refresh say, is inside of that around it."""
    outer = around(LOADING.get())
    if call.tiers.remote is None:
        since = None if outer is None else outer.began
    else:
        since = began
    if lead is not None:
        return Chain(lead.flight, outer, since)
    if outer is not None:
        return outer._replace(began=since)
    return Chain(Flight(None, sample.ticket, sample.started, None), None, since)


async def _release(call: Call, port: Port, right: Right) -> None:
    if right.held is None or not right.sample.usable:
        return
    assert call.tiers.remote is not None
    try:
        await operation.release(call, call.tiers.remote, right.held, port)
    except Unavailable as error:
        right.sample.gone(call, "release", error)


async def _keep(call: Call, port: Port, right: Right, result: Result, entry: Entry, seconds: float) -> None:
    """Store a computed value in both tiers, as far as its options and the rules allow."""
    admission = admit(result.value)
    result.mode = admission.mode if call.tiers.spec.isolation != "share" else "share"
    ends = life_of(call, result.value, entry)
    if ends is None:
        await _release(call, port, right)
        return
    tags = tuple(sorted(check_tag(tag) for tag in entry.tags))
    result.tags = tuple(map(tag_id, tags))
    if set(tags) - set(call.tags) and (right.held is None or admission.mode == "opaque"):
        right.sample.heard = False  # of these tags there may be no stamp, and then nobody tells of their clears
    if admission.mode == "opaque":
        unstorable(call, f"{type(result.value).__name__} cannot be copied or stored; it stays in this process")
        await _release(call, port, right)
    elif right.held is not None and not await _store(
        call, port, right, result.value, ends, seconds, tags, admission.plain
    ):
        return  # an invalidation got in between: nobody may keep this value
    put_in_l1(call, port, right.sample, result.value, admission, ends.soft, result.tags, int(seconds * 1000))


async def _store(
    call: Call,
    port: Port,
    right: Right,
    value: Any,
    ends: Life,
    seconds: float,
    tags: tuple[str, ...],
    plain: bool,
) -> bool:
    """Store in L2. False only when L2 refused because of an invalidation; trouble is counted and the call goes on."""
    remote, held, stamps = call.tiers.remote, right.held, right.stamps
    assert remote is not None and held is not None and stamps is not None
    try:
        if set(tags) - set(call.tags):  # tags known only from the value
            right.sample.stamped = False
            late = await operation.resample(call, remote, stamps, tags, port)
            if late is None:
                await operation.release(call, remote, held, port)
                return False
            stamps, right.sample.stamped = late, True
        stored = await operation.store(call, remote, value, held, stamps, ends, int(seconds * 1000), plain, port)
    except Unstorable as error:
        unstorable(call, str(error))
        await _release(call, port, right)
        return True
    except Unavailable as error:
        right.sample.gone(call, "store", error)
        return True
    call.tally.stores += stored
    return stored


async def refresh(call: Call, port: Port) -> Result:
    """Compute now, whatever is cached, and store. A failure leaves what was stored."""
    sample = Sample(call, port)
    return await port.owned(lambda own: _load(call, own, None, sample, None, refresh=True), None)


async def look(call: Call, port: Port, *, first: bool = True) -> Any:
    """The value from either tier, or `MISS`. Never computes. ``first`` is false where L1 was asked already."""
    sample = Sample(call, port)
    if first and call.tiers.table is not None:  # which tells nothing inside of a load
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
