"""Refreshes of which no caller waits: when one is due, and how it goes."""

import logging
from typing import Final

from cachekit.engine import aging
from cachekit.engine.entries import Sample, good_view_of
from cachekit.engine.loading import load
from cachekit.engine.ports import Port, Result
from cachekit.engine.raised import Raised
from cachekit.engine.reading import absent, hit, is_due, note
from cachekit.engine.right import Right
from cachekit.engine.tiers import Call
from cachekit.errors import TamperedEntry
from cachekit.l2 import operation
from cachekit.l2.operation import Found, Stale
from cachekit.l2.remote import Unavailable

logger = logging.getLogger("cachekit")

SAME: Final = 0.05  # seconds by which two entries of a key may differ in what is left of them, and yet be one
HANDED_ON: Final = 1.0  # seconds for which another process's refresh is not asked after
TAMPERED: Final = 30.0  # ... for which an entry that was tampered with is left alone


def due(call: Call, port: Port, sample: Sample, found: Found) -> bool:
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


def refresh_behind(call: Call, port: Port, trigger: str) -> None:
    """Compute a new value of which nobody waits."""
    if call.switches.read_only or call.tiers.pauses.on(call.ident, port.now()):
        return  # it would not be kept; its source has just failed, or another process computes it
    if call.flight_key in call.tiers.flights.running:
        return
    if not port.spawn(lambda own: _behind(call, own, trigger), call.flight_key):
        call.tally.refreshed(trigger, "dropped")


async def _behind(call: Call, port: Port, trigger: str) -> None:
    """A refresh. What it finds tampered with is left for a caller to be told; the value at hand stays until its end."""
    try:
        await _refreshed(call, port, trigger)
    except TamperedEntry as error:
        call.tally.refreshed(trigger, "failed")
        call.tiers.pauses.rest(call.ident, port.now(), TAMPERED)
        if call.tiers.once("tampered behind"):
            logger.error("a refresh behind the caller was given up: %s", error)


async def _refreshed(call: Call, port: Port, trigger: str) -> None:
    sample, had = Sample(call, port), call.aged
    call.answered = True
    lead = call.tiers.flights.lead(call.flight_key, sample.ticket, sample.started, port.loop())
    if lead is None:
        return  # somebody has begun
    lead.behind = True
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
    await load(call, port, lead, sample, seen, right=right)
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
