"""The order of steps of one call, written once for threads and tasks. No clock, no threads, no event loop in here.

get_or_load:  L1 was asked already -> local flight -> L1 again -> L2 -> function -> fenced store to L2 -> L1
invalidate:   L2 first, then this process, in a finally

Rules that every line below keeps:
- a *ticket* is taken before L2 is asked or the function starts; L1 accepts a value only if nothing that covers the key
  was invalidated after its ticket;
- after one step of L2 failed, this call takes no further step on L2;
- the result of the function is carried as a `Result`, so that its exceptions are not mistaken for the flow's.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import ContextVar, Token
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final, TypeVar

from cachekit.context import ENTRY, LOADING, Entry
from cachekit.engine.events import Failed, Loaded, Missed
from cachekit.engine.flight import HANDED_OVER, Chain, Flight, Lead, Wait
from cachekit.engine.freshness import NEVER_NS, Life, earliest, life
from cachekit.engine.keys import check_tag, tag_id
from cachekit.engine.miss import MISS
from cachekit.engine.outcome import Outcome
from cachekit.engine.ports import TIMED_OUT, Port, Result, closed
from cachekit.engine.tiers import Call, Tiers, logger
from cachekit.errors import Unstorable, UnsupportedOperation
from cachekit.l1.values import Admission, admit, isolate
from cachekit.l1.versions import Versions
from cachekit.l2 import operation
from cachekit.l2.operation import Found, Held, Stamps
from cachekit.l2.remote import Remote, Unavailable

T = TypeVar("T")

USED_UP: Final = (GeneratorType, AsyncGeneratorType)
PATIENCE: Final = 60.0  # seconds that anybody waits for another caller's load in this process; bounds unseen circles


class Sample:
    """What is known before anything is asked, and whether L2 may still be used by this call."""

    __slots__ = ("started", "ticket", "usable", "why")

    def __init__(self, call: Call, port: Port) -> None:
        self.started = port.now()
        self.ticket = call.tiers.versions.ticket()
        self.usable = call.tiers.remote is not None and call.key is not None
        self.why = "absent"

    def gone(self, call: Call, operation_name: str, error: Unavailable) -> None:
        """L2 failed this call."""
        self.usable = False
        self.why = "unavailable"
        call.tally.error(operation_name, error.reason)
        call.tiers.emit(Failed(call.tiers.spec.name, call.tally.function, operation_name, error.reason))


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
        result = _from_l1(call)
        if result is not None:
            call.tally.waited += 1  # another caller's load has just ended
        elif sample.usable:
            found = await _look(call, port, sample)
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


def _from_l1(call: Call) -> Result | None:
    if call.tiers.table is None:
        return None
    entry = call.tiers.table.entry(call.slot, call.args)
    return None if entry is None or not entry.fresh else Result(entry.value, mode=entry.mode, tags=entry.tags)


async def _look(call: Call, port: Port, sample: Sample) -> Result | bytes | None:
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
    _put(call, port, sample, found.value, admission, found.fresh_for, tags, found.header.load_ms)
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
    except (
        Exception
    ) as error:  # on_unstorable = "raise", a broken ttl= or condition=: mistakes in code reach the caller
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
    ends = _life_of(call, result.value, entry)
    if ends is None:
        await _release(call, port, sample, held)
        return
    tags = tuple(sorted(check_tag(tag) for tag in entry.tags))
    result.tags = tuple(map(tag_id, tags))
    if admission.mode == "opaque":
        _unstorable(call, f"{type(result.value).__name__} cannot be copied or stored; it stays in this process")
        await _release(call, port, sample, held)
    elif (
        held is not None
        and stamps is not None
        and not await _store(call, port, sample, result.value, held, stamps, ends, seconds, tags, admission.plain)
    ):
        return  # an invalidation got in between: nobody may keep this value
    _put(call, port, sample, result.value, admission, ends.soft, result.tags, int(seconds * 1000))


def _life_of(call: Call, value: Any, entry: Entry) -> Life | None:
    """How long the entry lives; None: do not store."""
    spec = call.tiers.spec
    if not entry.stored or (call.condition is not None and not call.condition(value)):
        return None
    ttl = entry.ttl if entry.ttl_given else call.ttl(value) if callable(call.ttl) else call.ttl
    if value is None and not entry.ttl_given:
        if not spec.cache_none:
            return None
        if spec.negative_ttl_set:
            ttl = spec.negative_ttl
    return life(ttl, spec, call.tiers.rng())


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
        _unstorable(call, str(error))
        await _release(call, port, sample, held)
        return True
    except Unavailable as error:
        sample.gone(call, "store", error)
        return True
    call.tally.stores += stored
    return stored


def _unstorable(call: Call, why: str) -> None:
    """A value that cannot be stored: returned all the same, counted, logged once; raised if the profile asks."""
    spec = call.tiers.spec
    call.tally.error("store", "unstorable")
    if spec.codec.on_unstorable == "raise":
        raise Unstorable(why)
    if call.tiers.once(f"unstorable {call.tally.function}"):
        where = call.tally.function or f"region {spec.name!r}"
        logger.warning("%s: %s; the value is returned but not shared through L2", where, why)


def _put(
    call: Call,
    port: Port,
    sample: Sample,
    value: Any,
    admission: Admission,
    fresh_for: float | None,
    tag_ids: tuple[str, ...],
    load_ms: int,
    counting: bool = False,
) -> bool:
    """Into L1, if nothing that covers the key was invalidated after the sample."""
    tiers = call.tiers
    if tiers.table is None or (tiers.remote is not None and not counting and operation.counts(call, value)):
        return False
    until = earliest(
        None if fresh_for is None else port.now() + fresh_for,
        None if tiers.spec.l1.ttl is None else port.now() + tiers.spec.l1.ttl,
        None if tiers.remote is None else sample.started + _longest_in_l1(tiers, sample),
    )
    ends = NEVER_NS if until is None else int(until * 1e9)
    return tiers.table.put(
        call.slot,
        call.args,
        value,
        khash=call.khash,
        fresh_until=ends,
        keep_until=ends,
        ticket=sample.ticket,
        tags=tag_ids,
        admission=admission,
        load_ms=load_ms,
        negative=value is None,
    )


def _longest_in_l1(tiers: Tiers, sample: Sample) -> float:
    """With an L2, other processes may invalidate what lies here: seconds that an entry may outlive that."""
    assert tiers.remote is not None
    return tiers.remote.spec.max_staleness if sample.usable else tiers.remote.spec.disconnected_ttl


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
        found = await _look(call, port, sample)
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


async def put(call: Call, value: Any, port: Port, *, only_if_absent: bool = False) -> bool:
    """Store a value that the caller has. False when it could not be stored where it should be.

    There is no fence between the caller's reading of its source and this: get-or-load has one.
    """
    sample = Sample(call, port)
    admission = admit(value)
    ends = _life_of(call, value, Entry(None if callable(call.ttl) else call.ttl, call.tags))
    if ends is None:
        return False
    if admission.mode == "opaque":
        if only_if_absent and (
            _from_l1(call) is not None or (sample.usable and isinstance(await _look(call, port, sample), Result))
        ):
            return False
        _unstorable(call, f"{type(value).__name__} cannot be copied or stored; it stays in this process")
        await invalidate_keys(call.tiers, [call], port)  # L2 must not go on with an older value
        return _replace(call, port, Sample(call, port), value, admission, ends)
    if sample.usable:
        stored = await _set(call, port, sample, value, ends, admission.plain, only_if_absent)
        if stored or (not only_if_absent and not sample.usable):
            _replace(call, port, sample, value, admission, ends)
        return stored
    with call.tiers.versions.lock:
        if only_if_absent and _from_l1(call) is not None:
            return False
        sample.ticket = call.tiers.versions.ticket()  # nobody comes in between
        return _replace(call, port, sample, value, admission, ends)


def _replace(call: Call, port: Port, sample: Sample, value: Any, admission: Admission, ends: Life) -> bool:
    """A new value for L1: loads in flight are outdated by it, and an invalidation since the sample outdates it."""
    versions, tiers = call.tiers.versions, call.tiers
    with versions.lock:
        valid = versions.allows(sample.ticket, call.khash, call.tag_ids, call.slot, tiers.spec.name)
        _forget(tiers, call)
        sample.ticket = versions.ticket()
        return valid and _put(call, port, sample, value, admission, ends.soft, call.tag_ids, 0)


async def _set(
    call: Call, port: Port, sample: Sample, value: Any, ends: Life, plain: bool, only_if_absent: bool
) -> bool:
    """An unfenced store. Without an answer the older value may still lie in L2: an invalidation is queued for it."""
    remote = call.tiers.remote
    assert remote is not None and call.key is not None
    if only_if_absent and not remote.offers("store_if"):
        raise UnsupportedOperation(f"backend {remote.spec.name!r} cannot store only if there is no value")
    outdated = not only_if_absent  # whether what lies in L2 is older than what the caller gave
    try:
        stamps = await operation.sample(call, remote, call.tags, port)
        if only_if_absent:
            found = await operation.read(call, remote, port)
            if isinstance(found, Found):
                return False
            data = operation.envelope(call, value, operation.new_id(), stamps, ends, 0, plain, port)
            outdated = True
            stored = bool(await remote.do(port, "store_if", call.key, data, ends.ttl_ms, found.seen, True))
        else:
            stored = await operation.store(call, remote, value, Held(None), stamps, ends, 0, plain, port)
    except Unstorable as error:
        _unstorable(call, str(error))
        await invalidate_keys(call.tiers, [call], port)
        return False
    except Unavailable as error:
        sample.gone(call, "store", error)
        if outdated and not error.final:
            with call.tiers.versions.lock:
                remote.outbox.add([call.key], [], call.tiers.region_stamp)
        return False
    except BaseException:  # cancelled or interrupted: nobody knows which value lies in L2
        with call.tiers.versions.lock:
            if outdated:
                remote.outbox.add([call.key], [], call.tiers.region_stamp)
            _forget(call.tiers, call)
        raise
    call.tally.stores += stored
    return stored


async def invalidate_keys(tiers: Tiers, calls: list[Call], port: Port) -> Outcome:
    """Remove entries. L2 first, then this process, so that no load can bring the old value back in between."""
    remote = tiers.remote
    texts = [call.key for call in calls if call.key is not None]
    outcome = Outcome.DONE if remote is None or not texts else Outcome.QUEUED
    try:
        if remote is not None and texts:
            outcome = await _tell(remote, "invalidate", texts, port)
    finally:
        with tiers.versions.lock:
            if outcome is Outcome.QUEUED and remote is not None:
                remote.outbox.add(texts, [], tiers.region_stamp)
            for call in calls:
                _forget(tiers, call)
    return outcome


def _forget(tiers: Tiers, call: Call) -> None:
    """This process's part of an invalidation."""
    tiers.versions.bump_key(call.khash)
    for table in tiers.tables:
        table.drop_key(call.khash)


async def clear_stamps(
    remotes: Iterable[Remote], stamps: list[str], versions: Versions, local: Callable[[], object], port: Port
) -> Outcome:
    """Outdate everything under these stamps: delete them in every L2, then run ``local`` for this process.

    The worst outcome counts.
    """
    outcomes = dict.fromkeys(remotes, Outcome.QUEUED)  # also of those that an interruption leaves out
    try:
        for remote in outcomes:
            outcomes[remote] = await _tell(remote, "clear", stamps, port)
    finally:
        with versions.lock:
            for remote, outcome in outcomes.items():
                if outcome is Outcome.QUEUED:
                    remote.outbox.add([], stamps)
                remote.cells.forget(stamps)
            local()
    return worst(outcomes.values())


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The one that counts when several backends were told."""
    return max([Outcome.DONE, *outcomes], key=_SEVERITY.index)


async def _tell(remote: Remote, operation_name: str, names: list[str], port: Port) -> Outcome:
    """Have L2 do it: DONE, QUEUED when it cannot be reached, FAILED when it will never do it."""
    if operation_name == "clear" and not remote.offers("clear"):
        if remote.once("no clear"):
            logger.error(
                "backend %r cannot clear tags, functions or regions; only this process forgot", remote.spec.name
            )
        return Outcome.FAILED
    try:
        await remote.do(port, operation_name, names)
    except Unavailable as error:
        return Outcome.FAILED if error.final else Outcome.QUEUED
    return Outcome.DONE


_SEVERITY: Final = (Outcome.DONE, Outcome.QUEUED, Outcome.FAILED)


async def touch(call: Call, port: Port) -> bool:
    """A new time to live from now on; False when there is no entry.

    The end of an entry is bound to its bytes, so it is written anew, if the old bytes are still there.
    """
    sample = Sample(call, port)
    ends = life(call.ttl, call.tiers.spec, call.tiers.rng())
    if not sample.usable:
        return _touch_l1(call, port, sample, ends)
    remote, key = call.tiers.remote, call.key
    assert remote is not None and key is not None
    try:
        found = await operation.read(call, remote, port)
        if not isinstance(found, Found):
            return False
        needed = "touch" if found.header is None else "store_if"
        if not remote.offers(needed):
            raise UnsupportedOperation(f"backend {remote.spec.name!r} cannot change the time to live of an entry")
        if found.header is None:
            return bool(await remote.do(port, "touch", key, ends.ttl_ms))
        data = operation.rewritten(call, found, ends, port)
        touched = bool(await remote.do(port, "store_if", key, data, ends.ttl_ms, found.seen, False))
    except Unavailable as error:
        sample.gone(call, "touch", error)
        return _touch_l1(call, port, sample, ends)
    with call.tiers.versions.lock:
        _forget(call.tiers, call)
    return touched


def _touch_l1(call: Call, port: Port, sample: Sample, ends: Life) -> bool:
    table = call.tiers.table
    entry = None if table is None else table.entry(call.slot, call.args)
    if entry is None or not entry.fresh:
        return False
    # While L2 is away others may have invalidated it: what is left of its life here must not grow.
    fresh_for = ends.soft if call.tiers.remote is None else earliest(ends.soft, entry.fresh_for)
    return _put(call, port, sample, entry.value, admit(entry.value), fresh_for, entry.tags, entry.load_ms)


async def count(call: Call, by: int, port: Port, create: bool) -> int | None:
    """Add to a counter: in L2 for all processes, else in this process. None: there is none, and none may be made."""
    sample = Sample(call, port)
    ends = life(call.ttl, call.tiers.spec, 0.0)
    if sample.usable:
        remote, key = call.tiers.remote, call.key
        assert remote is not None and key is not None
        if not (remote.offers("incr") and remote.offers("store_if")):
            raise UnsupportedOperation(f"backend {remote.spec.name!r} cannot count")
        try:
            number = await operation.count(call, remote, by, ends.ttl_ms, create, port)
        except operation.NoNumber:
            raise _no_number(call) from None
        except Unavailable as error:
            sample.gone(call, "incr", error)
            if error.reason == "command":  # L2 is well
                raise _no_number(call) from None
        else:
            with call.tiers.versions.lock:
                _forget(call.tiers, call)
            return number
    return _count_here(call, by, port, sample, ends, create)


def _no_number(call: Call) -> UnsupportedOperation:
    return UnsupportedOperation(
        f"incr() of {call.args[0]!r} in region {call.tiers.spec.name!r}: what lies there is no number, or the sum is "
        "beyond 64 bits; delete() it first"
    )


def _count_here(call: Call, by: int, port: Port, sample: Sample, ends: Life, create: bool) -> int | None:
    with call.tiers.versions.lock:
        sample.ticket = call.tiers.versions.ticket()  # nobody comes in between
        table = call.tiers.table
        entry = None if table is None else table.entry(call.slot, call.args)
        if entry is not None and entry.fresh and type(entry.value) is not int:
            raise _no_number(call)
        if entry is None or not entry.fresh:
            if not create:
                return None
            number, fresh_for = by, ends.soft
        else:
            number, fresh_for = entry.value + by, entry.fresh_for
        _put(call, port, sample, number, admit(number), fresh_for, call.tag_ids, 0, counting=True)
        return number
