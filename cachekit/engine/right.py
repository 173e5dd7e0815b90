"""The right to compute: stamps first, then the lease; or another process's value.

Who finds another process computing waits for it, as long as that pays; with a stale value at hand nobody waits.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cachekit.engine.aging import while_busy
from cachekit.engine.entries import Sample
from cachekit.engine.flight import Flight
from cachekit.engine.ports import Port, Result
from cachekit.engine.reading import hit, look_in_l2
from cachekit.engine.tiers import Call
from cachekit.l2 import operation
from cachekit.l2.lease import is_fast
from cachekit.l2.operation import Busy, Found, Held, Stamps
from cachekit.l2.parking import Parked
from cachekit.l2.remote import Unavailable
from cachekit.l2.stamps import NO_STAMP

TRIES: Final = 20  # of sampling what covers a key, while others clear it at the same time
LOOK_AGAIN: Final = (0.005, 0.05)  # seconds after which who is not told looks whether another process is done
OUTDATED_AGAIN: Final = (0.05, 0.25)  # ... if an outdated value lies there, whose lease may be given back in silence


class Right:
    """What a load holds: the sample it is judged by, the stamps to store under, and the lease, if it was granted."""

    __slots__ = ("busy", "ended", "forced", "held", "sample", "stamps")

    def __init__(self, sample: Sample, forced: bool = False) -> None:
        self.sample = sample
        self.forced = forced  # compute and store although there is a good value
        self.busy: Busy | None = None  # another process computes, and nobody here waits for it
        self.ended = "found"  # how a refresh did: found (another process brought it), stored, failed
        self.stamps: Stamps | None = None
        self.held: Held | None = None

    def end(self, call: Call) -> None:
        """Nobody renews the lease any more."""
        if self.held is not None and self.held.token is not None and call.tiers.remote is not None:
            call.tiers.remote.leases.end(self.held.token)


async def obtain(
    call: Call, port: Port, lead: Flight | None, right: Right, seen: bytes | None, patient: bool
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
            answer = await _prepare(call, port, lead, right, seen)
            if isinstance(answer, Found):
                return hit(call, port, right.sample, answer)
            if not isinstance(answer, Busy):
                return None
            if _ours(call, right) == (True, True):
                right.forced = True
                continue
            if (result := while_busy(call, port)) is not None:
                right.busy = answer
                return result
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
    hard, wait = call.tiers.spec.freshness.hard_timeout, call.tiers.spec.lease_wait
    return wait if hard is None else min(wait, hard)


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
def _unread(lead: Flight | None) -> Iterator[None]:
    """Whoever comes meanwhile may join: nothing was read yet, and what is read will be asked for after a sample."""
    if lead is not None:
        lead.unread = True
    try:
        yield
    finally:
        if lead is not None:
            lead.unread = False


def _sample_again(call: Call, port: Port, lead: Flight | None, right: Right) -> None:
    """Nothing was read yet that the value is made of, so a newer sample will do, for who joins the flight as well."""
    before, right.sample = right.sample, Sample(call, port)
    right.sample.why = before.why
    if lead is not None:
        lead.ticket, lead.started = right.sample.ticket, right.sample.started


async def _prepare(
    call: Call, port: Port, lead: Flight | None, right: Right, seen: bytes | None
) -> Found | Busy | None:
    """Stamps first, then the lease: both before the source is read. None: compute, with what was granted."""
    remote = call.tiers.remote
    assert remote is not None
    try:
        right.stamps = await _sample_stamps(call, port, lead, right)
        right.sample.stamped = True
        if right.forced:
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


async def _sample_stamps(call: Call, port: Port, lead: Flight | None, right: Right) -> Stamps:
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


async def release(call: Call, port: Port, right: Right) -> None:
    if right.held is None or not right.sample.usable:
        return
    assert call.tiers.remote is not None
    try:
        await operation.release(call, call.tiers.remote, right.held, port)
    except Unavailable as error:
        right.sample.gone(call, "release", error)
