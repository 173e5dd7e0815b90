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

from cachekit.context import LOADING, OFF
from cachekit.engine import aging
from cachekit.engine.behind import due, refresh_behind
from cachekit.engine.entries import Sample
from cachekit.engine.flight import HANDED_OVER, Alone, Flight, Wait, around, in_core, tell
from cachekit.engine.loading import alone, land, load, own_copy
from cachekit.engine.ports import TIMED_OUT, Old, Port, Result, closed
from cachekit.engine.reading import absent, hit, look_in_l2
from cachekit.engine.tiers import Call
from cachekit.l2 import operation
from cachekit.l2.operation import Found
from cachekit.l2.remote import Unavailable


async def get_or_load(call: Call, port: Port) -> Result:
    """The value of a call that L1 could not answer: from another caller's load, from L2, or from the function."""
    tiers = call.tiers
    if call.switches.force_refresh or ((OFF.get() or not tiers.enabled) and call.off):
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
                    if header is not None and header.load_ms and due(call, port, sample, found_there):
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
        refresh_behind(call, port, trigger)
    return result


async def _find_place(call: Call, port: Port, sample: Sample, lead: Flight | None) -> Result | tuple[Flight, Sample]:
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
            if isinstance(place, Flight):
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
    if running is not None and running.late and aging.limit_of(call, port)[1] == "soft":
        if (result := aging.stand_in(call, port)) is not None:
            call.tally.gave_up("soft")
        return result
    return None


async def _owned(
    call: Call, port: Port, lead: Flight | None, sample: Sample, seen: bytes | None, patient: bool = True
) -> Result:
    """The load, so that it outlives a caller who gives up or waits no longer."""
    limits = aging.Limits(call, port)
    result = await port.owned(lambda own: load(call, own, lead, sample, seen, patient=patient), lead, limits)
    if result is TIMED_OUT:
        if lead is not None:
            lead.late = True
        result = limits.over()
        call.answered = True
        return result
    return result  # type: ignore[no-any-return]  # the only other thing that comes back


def _join(call: Call, port: Port, sample: Sample) -> Flight | Wait | Alone:
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
        limits = aging.Limits(call, port)
        limit = next(iter(limits))
        result = await port.wait(place, aging.PATIENCE if limit is None else min(limit, aging.PATIENCE))
        if result is HANDED_OVER:
            return None
        if result is TIMED_OUT and limit is not None and limit < aging.PATIENCE:
            more = next(iter(limits), 0.0)  # None is for ever
            return limits.over() if more == 0.0 else None  # what was to stand in is gone: begin again, with that limit
        if result is TIMED_OUT:
            call.tally.error("wait", "timeout")
        elif _outdated(call, place.flight, sample, result):
            return None
        else:
            call.tally.waited += 1
            if type(result) is Old:
                call.tally.served_stale(result.age)
            return own_copy(result)
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


async def refresh(call: Call, port: Port) -> Result:
    """Compute now, whatever is cached, and store. A failure leaves what was stored."""
    if call.load is not None and call.off:
        return await alone(call, port)
    sample = Sample(call, port)
    limits = aging.Limits(call, port)
    result = await port.owned(lambda own: load(call, own, None, sample, None, forced=True), None, limits)
    return limits.over() if result is TIMED_OUT else result
