"""The order of steps of one call, written once for threads and tasks. No clock, no threads, no event loop in here.

get_or_load:  L1 was asked already -> local flight -> L1 again -> L2 -> stamps, lease (or wait for who has it)
              -> function -> fenced store to L2 -> L1

With a stale value at hand the caller may have that at once, and the rest of the way goes on behind its back.

Rules that every line below keeps:
- a *ticket* is taken before L2 is asked or the function starts; L1 accepts a value only if nothing that covers the key
  was invalidated after its ticket;
- after one step of L2 failed, this call takes no further step on L2;
- inside of a load, cached calls trust nothing that this process remembers: what is made of it would outlive the push
  that is still on its way;
- the result of the function is carried as a `Result`, so that its exceptions are not mistaken for the flow's.
"""

from contextlib import suppress
from contextvars import ContextVar, Token
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cachekit.context import ENTRY, LOADING, NOT_MODIFIED, OFF, Entry
from cachekit.engine import aging
from cachekit.engine.entries import Sample, good_view_of, life_of, put_in_l1, unstorable
from cachekit.engine.events import Loaded, Missed
from cachekit.engine.flight import HANDED_OVER, Alone, Chain, Flight, Lead, Wait, around, in_core, tell
from cachekit.engine.freshness import Life
from cachekit.engine.keys import check_tag, tag_id
from cachekit.engine.ports import TIMED_OUT, Old, Port, Result, blocking, closed
from cachekit.engine.raised import RAISED, Raised, is_one_of, raised_by, remembered
from cachekit.engine.reading import absent, hit, is_due, look_in_l2, note
from cachekit.engine.right import Right, obtain, release
from cachekit.engine.tiers import Call
from cachekit.errors import Unstorable
from cachekit.l1.table import admit, isolate
from cachekit.l2 import operation
from cachekit.l2.operation import Found, Stale
from cachekit.l2.remote import Unavailable

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

USED_UP: Final = (GeneratorType, AsyncGeneratorType)
SAME: Final = 0.05  # seconds by which two entries of a key may differ in what is left of them, and yet be one
HANDED_ON: Final = 1.0  # seconds for which another process's refresh is not asked after


async def get_or_load(call: Call, port: Port) -> Result:
    """The value of a call that L1 could not answer: from another caller's load, from L2, or from the function."""
    tiers = call.tiers
    if call.switches.force_refresh or ((OFF.get() is not None or not tiers.enabled) and call.off):
        return await refresh(call, port)
    if tiers.unstored.ends and tiers.unstored.on(call.ident, port.now()):
        return await _unqueued(call, port)
    sample = Sample(call, port)
    lead = tiers.flights.lead(call.flight_key, sample.ticket, sample.started, port.loop())
    if lead is None or in_core():
        found = await _find_place(call, port, sample, lead)
        if isinstance(found, Result):
            return found
        lead, sample = found
    # We lead. Look into both tiers once more; the function only if neither has a value that will do.
    result, trigger, seen, mine = None, "", None, True
    try:
        if tiers.table is not None:
            result, trigger = _from_l1(call, port, sample)
        if result is None and sample.usable and tiers.remote is not None:
            try:
                found_there = await operation.read(call, tiers.remote, port)
            except Unavailable as error:
                sample.gone(call, "get", error)
            else:
                if isinstance(found_there, Found):
                    result = hit(call, port, sample, found_there)
                    header = found_there.header
                    if header is not None and header.load_ms and _due(call, port, sample, found_there):
                        trigger = "early"
                else:
                    seen = found_there.seen
                    absent(call, port, sample, found_there)
        if result is None:
            result, trigger = _instead(call, port, sample)
        if result is None:
            mine = False  # the load goes on for the waiters, if this caller gives up
            return await _owned(call, port, lead, sample, seen)
    except BaseException:
        if mine:
            lead.hand_over()  # one of the waiters goes on
        raise
    if (waiting := lead.end()) is not None:
        land(waiting, result)
    if trigger:
        _refresh_behind(call, port, trigger)
    return result


async def _find_place(call: Call, port: Port, sample: Sample, lead: Lead | None) -> Result | tuple[Lead, Sample]:
    """Somebody leads already, or it may be so: a result, or the lead all the same."""
    tiers = call.tiers
    while True:
        if unseen := in_core():  # known to nobody yet; from now on the core begins no other, as somebody leads
            if lead is not None:
                lead.hand_over()
            tell(unseen)
        elif lead is not None:
            return lead, sample
        else:
            if (result := await _at_hand(call, port, sample)) is not None:
                return result
            place = _join(call, port, sample)
            if isinstance(place, Lead):
                return place, sample
            if (result := await _wait(call, port, place, sample)) is not None:
                return result
        sample = Sample(call, port)
        lead = tiers.flights.lead(call.flight_key, sample.ticket, sample.started, port.loop())


async def _unqueued(call: Call, port: Port) -> Result:
    """Callers of what is not stored must not wait for one another: each of them computes."""
    sample = Sample(call, port)
    result, _ = aging.in_l1(call, port, sample)
    sample.usable = False
    return result or await _owned(call, port, None, sample, None)


def _from_l1(call: Call, port: Port, sample: Sample) -> tuple[Result | None, str]:
    """What L1 has for who leads, without asking L2, and what begins a refresh behind it."""
    result, early = aging.in_l1(call, port, sample)
    if early:
        return result, "early"
    if result is not None:
        return result, ""
    return _stale(call, port) if call.aged is not None and call.aged.sure else (None, "")


def _instead(call: Call, port: Port, sample: Sample) -> tuple[Result | None, str]:
    """What may stand in for a value that neither tier has."""
    result, trigger = _stale(call, port) if call.aged is not None else (None, "")
    if result is None and sample.why == "unavailable":
        result = aging.without_l2(call, port)
    return result, trigger


def _stale(call: Call, port: Port) -> tuple[Result | None, str]:
    result, behind = aging.at_once(call, port)
    return result, "swr" if behind else ""


async def _at_hand(call: Call, port: Port, sample: Sample) -> Result | None:
    """Somebody leads the load already; a value that will do meanwhile."""
    fresh = call.tiers.spec.freshness
    if not (fresh.stale_ttl or fresh.early_refresh != "off" or fresh.soft_timeout):
        return None
    result, _ = aging.in_l1(call, port, sample)
    if result is not None:
        return result
    if call.aged is not None and call.aged.sure and (result := aging.at_once(call, port)[0]) is not None:
        return result
    running = call.tiers.flights.running.get(call.flight_key)
    if running is not None and running.behind and sample.usable:  # what it is to replace lies in L2
        found = await look_in_l2(call, port, sample)
        return found if isinstance(found, Result) else aging.at_once(call, port)[0]
    if running is not None and running.late and (limit := aging.limit_of(call, port))[1] == "soft" and limit[0]:
        return aging.after_limit(call, port, "soft")
    return None


async def _owned(
    call: Call, port: Port, lead: Lead | None, sample: Sample, seen: bytes | None, patient: bool = True
) -> Result:
    """The load, so that it outlives a caller who gives up or waits no longer."""
    limit, kind = aging.limit_of(call, port)
    result = await port.owned(lambda own: _load(call, own, lead, sample, seen, patient=patient), lead, limit)
    if result is TIMED_OUT:
        if lead is not None:
            lead.flight.late = True
        result = aging.after_limit(call, port, kind)
        call.answered = True
        return result
    return result  # type: ignore[no-any-return]  # the only other thing that comes back


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
        limit, kind = aging.limit_of(call, port)
        result = await port.wait(place, aging.PATIENCE if limit is None else min(limit, aging.PATIENCE))
        if result is HANDED_OVER:
            return None
        if result is TIMED_OUT and limit is not None and limit < aging.PATIENCE:
            return aging.after_limit(call, port, kind)
        if result is TIMED_OUT:
            call.tally.error("wait", "timeout")
        elif _outdated(call, place.flight, sample, result):
            return None
        else:
            call.tally.waited += 1
            if type(result) is Old:
                call.tally.served_stale(result.age)
            return _own_copy(result)
    return await _owned(call, port, None, sample, None, patient=not isinstance(place, Alone))


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
    value = isolate(result.value, mode)
    if type(result) is Old:
        return Old(value, mode, result.tags, result.age)
    return Result(value, mode=mode, tags=result.tags)


async def _load(
    call: Call, port: Port, lead: Lead | None, sample: Sample, seen: bytes | None, *,
    forced: bool = False, patient: bool = True, right: Right | None = None,
) -> Result:  # fmt: skip
    """Stamps, lease, function, store, L1, waiters: the whole load, so that it can go on without its caller."""
    right = right or Right(sample, forced)
    try:
        writes = sample.usable and not call.switches.read_only
        result = await obtain(call, port, lead, right, seen, patient) if writes else None
        if result is None:
            result = await _compute(call, port, lead, right)
    except BaseException as error:
        try:
            if not isinstance(error, GeneratorExit):  # after which nothing may be awaited
                await release(call, port, right)
        finally:
            if lead is not None:
                lead.hand_over()
        raise
    finally:
        right.end(call)
    if lead is not None and (waiting := lead.end()) is not None:
        land(waiting, result)
    return result


async def refresh(call: Call, port: Port) -> Result:
    """Compute now, whatever is cached, and store. A failure leaves what was stored."""
    if call.load is not None and call.off:
        return await _alone(call, port)
    sample = Sample(call, port)
    limit, kind = aging.limit_of(call, port)
    result = await port.owned(lambda own: _load(call, own, None, sample, None, forced=True), None, limit)
    return aging.after_limit(call, port, kind) if result is TIMED_OUT else result


# Behind the callers' backs


def _due(call: Call, port: Port, sample: Sample, found: Found) -> bool:
    """Whether a fresh entry of L2 is to be refreshed early; then it is at hand meanwhile."""
    if (
        found.header is None
        or found.fresh_for is None
        or type(found.value) is Raised
        or not is_due(call, sample, found)
    ):
        return False  # nothing to be refreshed, or not now
    _at_hand_in_l2(call, port, sample, found)
    return True


def _at_hand_in_l2(call: Call, port: Port, sample: Sample, found: Found) -> None:
    """A fresh value is to be computed anew, and until then it is as good as ever."""
    if found.header is not None and type(found.value) is not Raised:
        stale = Stale(found.value, found.header, found.payload, 0.0, found.kept_for)
        note(call, port, sample, stale, None if found.fresh_for is None else -found.fresh_for)


def _refresh_behind(call: Call, port: Port, trigger: str) -> None:
    """Compute a new value of which nobody waits."""
    if call.switches.read_only or call.tiers.pauses.on(call.ident, port.now()):
        return  # it would not be kept; its source has just failed, or another process computes it
    if call.flight_key in call.tiers.flights.running:
        return
    if not port.spawn(lambda own: _behind(call, own, trigger), call.flight_key):
        call.tally.refreshed(trigger, "dropped")


async def _behind(call: Call, port: Port, trigger: str) -> None:
    sample, had = Sample(call, port), call.aged
    call.answered = True
    lead = call.tiers.flights.lead(call.flight_key, sample.ticket, sample.started, port.loop())
    if lead is None:
        return  # somebody has begun
    lead.flight.behind = True
    right, seen = Right(sample), None
    try:
        if _newer_in_l1(call, had):  # stored between the look of who asked for this, and now
            lead.hand_over()
            call.tally.refreshed(trigger, "found")
            return
        if sample.usable:
            result = await _newer(call, port, sample, had)
            if isinstance(result, Result):
                lead.hand_over()
                call.tally.refreshed(trigger, "found")
                return
            seen, call.aged = result, call.aged or had
    except BaseException:
        lead.hand_over()
        raise
    await _load(call, port, lead, sample, seen, right=right)
    if right.busy is not None:
        pause = HANDED_ON if right.busy.seconds is None else min(right.busy.seconds, HANDED_ON)
        call.tiers.pauses.rest(call.ident, port.now(), pause)
    call.tally.refreshed(trigger, "busy" if right.busy is not None else right.ended)


def _newer_in_l1(call: Call, had: aging.Aged | None) -> bool:
    view = good_view_of(call)
    return view is not None and (had is None or view.fresh_for is None or view.fresh_for > SAME - had.age)


async def _newer(call: Call, port: Port, sample: Sample, had: aging.Aged | None) -> Result | bytes | None:
    """What another process computed meanwhile; or the first bytes of what lies in L2."""
    assert call.tiers.remote is not None
    try:
        found = await operation.read(call, call.tiers.remote, port)
    except Unavailable as error:
        sample.gone(call, "get", error)
        return None
    if not isinstance(found, Found):
        absent(call, port, sample, found)
        return found.seen
    if had is None or found.fresh_for is None or found.fresh_for > SAME - had.age:
        return hit(call, port, sample, found)
    _at_hand_in_l2(call, port, sample, found)
    return found.seen


# The function


async def _compute(call: Call, port: Port, lead: Lead | None, right: Right) -> Result:
    """Run the function and keep what it brought."""
    assert call.load is not None
    tally, tiers = call.tally, call.tiers
    tally.misses += 1
    tiers.emit(Missed(tiers.spec.name, tally.function, right.sample.why))
    entry = Entry(None if callable(call.ttl) else call.ttl, call.tags, call.aged)
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


async def _alone(call: Call, port: Port) -> Result:
    """The function as if it were not cached; what it asks of its entry comes to nothing."""
    assert call.load is not None
    outer = ENTRY.set(Entry(None if callable(call.ttl) else call.ttl, call.tags))
    try:
        return await port.run(call.load)
    finally:
        _restore(ENTRY, outer)


def _restore(variable: ContextVar[T], token: Token[T]) -> None:
    with suppress(ValueError):  # an abandoned coroutine is closed in the context of whoever collects the garbage
        variable.reset(token)


async def _ran(call: Call, port: Port, right: Right, result: Result, entry: Entry, seconds: float) -> Result:
    """The function has run."""
    tally, tiers = call.tally, call.tiers
    if type(result.value) in USED_UP:
        result = Result(
            error=TypeError("a generator cannot be cached, it would be exhausted after one use; return a list")
        )
    tally.times.add(seconds)
    tiers.emit(Loaded(tiers.spec.name, tally.function, seconds, type(result.error).__name__ if result.error else ""))
    right.ended = "stored" if result.error is None else "failed"
    if result.error is not None:
        tally.load_errors += 1
        tally.error("load", type(result.error).__name__)
        return await _failed(call, port, right, result, entry, seconds)
    tally.ran(seconds)
    tally.miss_seconds.append(port.now() - right.sample.started)
    if tiers.pauses.ends:
        tiers.pauses.over(call.ident)
    try:
        if result.value is NOT_MODIFIED:
            result = await _keep_old(call, port, right, entry, seconds)
        else:
            await _keep(call, port, right, result, entry, seconds)
    except Exception as error:
        # on_unstorable = "raise", a broken ttl= or condition=: mistakes in code reach the caller
        tally.error("load", type(error).__name__)  # of a load that nobody waits for it is all that is seen
        await release(call, port, right)
        return Result(error=error)
    return result


async def _failed(call: Call, port: Port, right: Right, result: Result, entry: Entry, seconds: float) -> Result:
    """The function raised. Some exceptions are answers, and kept as such."""
    assert result.error is not None
    seconds_kept = remembered(result.error, call.tiers.spec)
    if seconds_kept is not None:
        if not entry.ttl_given:
            entry.ttl = seconds_kept
        try:
            kept = Result(raised_by(result.error))
            await _keep(call, port, right, kept, entry, seconds)
            result.tags = kept.tags
        except Unstorable as error:
            unstorable(call, f"{type(result.error).__name__} is not remembered: {error}", raising=False)
            await release(call, port, right)
        except Exception:  # the exception that the caller waits for is more important
            await release(call, port, right)
        return result
    await release(call, port, right)
    if right.forced or is_one_of(result.error, call.tiers.spec.freshness.stale_unless):
        return result
    return await _look_again(call, port, right.sample) or aging.after_error(call, port, result)


async def _look_again(call: Call, port: Port, before: Sample) -> Result | None:
    """What is at hand may have been invalidated while the function ran: then it must not stand in. A fresh value, if
    another process has computed one meanwhile."""
    if call.aged is None or not call.tiers.spec.freshness.serves_on_error:
        return None
    sample = Sample(call, port)
    if before.usable and not (before.heard and sample.heard and not aging.outdated(call)):
        found = await look_in_l2(call, port, sample)
        if isinstance(found, Result):
            return found
        if sample.usable:  # L2 has answered
            return None
    if aging.outdated(call):
        aging.again_in_l1(call, port)
    return None


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


async def _keep(
    call: Call, port: Port, right: Right, result: Result, entry: Entry, seconds: float, old: aging.Aged | None = None
) -> None:
    """Store a computed value in both tiers, as far as its options and the rules allow. ``old``: it is the one that lies
    there, for another TTL."""
    admission = admit(result.value) if type(result.value) is not Raised else RAISED
    result.mode = admission.mode if call.tiers.spec.isolation != "share" else "share"
    ends = life_of(call, result.value, entry)
    if ends is None:
        call.tiers.unstored.rest(call.ident, port.now(), aging.UNSTORED)
        await release(call, port, right)
        return
    tags = tuple(sorted(check_tag(tag) for tag in entry.tags))
    result.tags = tuple(dict.fromkeys((*map(tag_id, tags), *(old.tags if old is not None else ()))))
    if set(tags) - set(call.tags) and (right.held is None or admission.mode == "opaque"):
        right.sample.heard = False  # of these tags there may be no stamp, and then nobody tells of their clears
    if admission.mode == "opaque":
        unstorable(call, f"{type(result.value).__name__} cannot be copied or stored; it stays in this process")
        await release(call, port, right)
    elif right.held is not None and not await _store(
        call, port, right, result.value, ends, seconds, tags, admission.plain, entry, old
    ):
        return  # an invalidation got in between: nobody may keep this value
    elif right.held is not None and call.switches.skip_l1:
        for table in call.tiers.tables:  # what lies there is older by now
            table.drop_key(call.khash)
    kept = put_in_l1(call, port, right.sample, result.value, admission, ends, result.tags, int(seconds * 1000))
    if kept and (entry.etag is not None or entry.last_modified is not None):
        call.tiers.validators.put(call.khash, right.sample.ticket, entry.etag, entry.last_modified)


async def _keep_old(call: Call, port: Port, right: Right, entry: Entry, seconds: float) -> Result:
    """The source says that the stale value still holds."""
    result = Result(call.aged.copy())
    await _keep(call, port, right, result, entry, seconds, call.aged)
    return result


async def _store(
    call: Call, port: Port, right: Right, value: Any, ends: Life, seconds: float, tags: tuple[str, ...], plain: bool,
    entry: Entry, old: aging.Aged | None,
) -> bool:  # fmt: skip
    """Store in L2. False only when L2 refused because of an invalidation; trouble is counted and the call goes on."""
    remote, held, stamps = call.tiers.remote, right.held, right.stamps
    assert remote is not None and held is not None and stamps is not None
    load_ms, validators = int(seconds * 1000), (entry.etag, entry.last_modified)
    try:
        if set(tags) - set(call.tags):  # tags known only from the value
            right.sample.stamped = False
            late = await operation.resample(call, remote, stamps, tags, port)
            if late is None:
                await operation.release(call, remote, held, port)
                return False
            stamps, right.sample.stamped = late, True
        if old is not None and old.header is not None:
            stored = await operation.keep(
                call, remote, old.header, old.payload, held, stamps, ends, load_ms, port, validators
            )
        else:
            stored = await operation.store(call, remote, value, held, stamps, ends, load_ms, plain, port, validators)
    except Unstorable as error:
        unstorable(call, str(error))
        await release(call, port, right)
        return True
    except Unavailable as error:
        right.sample.gone(call, "store", error)
        return True
    call.tally.stores += stored
    return stored
