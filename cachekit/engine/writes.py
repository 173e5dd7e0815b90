"""Storing what a caller has, without a function to compute it: set, add, touch, counters."""

from typing import Any

from cachekit.context import Entry
from cachekit.engine.entries import Sample, from_l1, good_view_of, life_of, put_in_l1, unfit, unstorable, where
from cachekit.engine.freshness import Life, earliest, life
from cachekit.engine.invalidation import forget, invalidate_keys
from cachekit.engine.ports import Port, Result
from cachekit.engine.reading import look_in_l2
from cachekit.engine.tiers import Call
from cachekit.engine.unshared import admission_of
from cachekit.errors import Unstorable, UnsupportedOperation
from cachekit.l1.table import admit
from cachekit.l1.values import Admission
from cachekit.l2 import operation
from cachekit.l2.operation import Found, Held
from cachekit.l2.remote import Unavailable


async def put(
    call: Call, value: Any, port: Port, *, only_if_absent: bool = False, only_if_present: bool = False,
    away: bool = False,
) -> bool:  # fmt: skip
    """Store a value that the caller has. False when it could not be stored where it should be.

    There is no fence between the caller's reading of its source and this: get-or-load has one. ``away``: a step before
    this one has failed on L2, which is not asked again.
    """
    conditional = only_if_absent or only_if_present
    if call.off and conditional:
        return False
    if call.off:
        await invalidate_keys(call.tiers, [call], port)  # or what it replaces would be there again afterwards
        return True
    if call.switches.read_only:
        return False
    sample = Sample(call, port)
    admission = admission_of(value)
    ends = life_of(call, value, Entry(None if callable(call.ttl) else call.ttl, call.named_tags))
    if ends is None:
        return False
    fit, here = where(call, value, admission)
    if not fit:
        if conditional and only_if_absent == (
            from_l1(call) is not None or (sample.usable and isinstance(await look_in_l2(call, port, sample), Result))
        ):
            return False
        unfit(call, value, here)
        await invalidate_keys(call.tiers, [call], port)  # L2 must not go on with an older value
        return here and _replace(call, port, Sample(call, port), value, admission, ends)
    if sample.usable:
        stored = await _set(call, port, sample, value, ends, admission.plain, only_if_absent, only_if_present, away)
        if stored or (not conditional and not sample.usable):
            _replace(call, port, sample, value, admission, ends)
        if not only_if_absent or sample.usable:
            return stored
        # While L2 is away each process decides for itself, as it does for counters.
    with call.tiers.versions.lock:
        if conditional and only_if_absent == (from_l1(call) is not None):
            return False
        sample.ticket = call.tiers.versions.ticket()  # nobody comes in between
        return _replace(call, port, sample, value, admission, ends)


def _replace(call: Call, port: Port, sample: Sample, value: Any, admission: Admission, ends: Life) -> bool:
    """A new value for L1: loads in flight are outdated by it, and an invalidation since the sample outdates it."""
    versions, tiers = call.tiers.versions, call.tiers
    with versions.lock:
        valid = versions.allows(sample.ticket, call.khash, call.tag_ids, call.slot, tiers.spec.name)
        forget(tiers, call)
        sample.ticket = versions.ticket()
        return valid and put_in_l1(call, port, sample, value, admission, ends, call.tag_ids, 0)


async def _set(
    call: Call, port: Port, sample: Sample, value: Any, ends: Life, plain: bool, absent: bool, present: bool, away: bool
) -> bool:
    """An unfenced store. Without an answer the older value may still lie in L2: an invalidation is queued for it."""
    remote = call.tiers.remote
    assert remote is not None and call.key is not None
    conditional = absent or present
    if conditional and not remote.offers("store_if"):
        there = "no value" if absent else "a value"
        raise UnsupportedOperation(f"backend {remote.spec.name!r} cannot store only if there is {there}")
    outdated = not conditional  # whether what lies in L2 is older than what the caller gave
    try:
        if away:
            raise Unavailable("away")
        stamps = await operation.sample(call, remote, call.tags, port)
        sample.stamped = True
        if conditional:
            found = await operation.read(call, remote, port)
            if isinstance(found, Found) is absent:
                return False
            data = operation.envelope(call, value, operation.new_id(), stamps, ends, 0, plain, port)
            outdated = True
            stored = bool(await remote.do(port, "store_if", call.key, data, ends.ttl_ms, found.seen, absent))
        else:
            stored = await operation.store(call, remote, value, Held(None), stamps, ends, 0, plain, port)
    except Unstorable as error:
        unstorable(call, error.__str__)
        await invalidate_keys(call.tiers, [call], port)
        return False
    except Unavailable as error:
        sample.gone(call, "store", error)
        if outdated and not error.final:
            with call.tiers.versions.lock:
                remote.queue([call.key], [], call.tiers.region_stamp)
        return False
    except BaseException:  # cancelled or interrupted: nobody knows which value lies in L2
        with call.tiers.versions.lock:
            if outdated:
                remote.queue([call.key], [], call.tiers.region_stamp)
            forget(call.tiers, call)
        raise
    call.tally.stores += stored
    return stored


async def touch(call: Call, port: Port, *, exact: bool = False) -> bool:
    """A new time to live from now on; False when there is no entry. ``exact``: without jitter.

    The end of an entry is bound to its bytes, so it is written anew, if the old bytes are still there.
    """
    if call.off or call.switches.read_only:
        return False
    sample = Sample(call, port)
    ends = life(call.ttl, call.tiers.spec, 0.0 if exact else call.tiers.rng())
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
        forget(call.tiers, call)
    return touched


def _touch_l1(call: Call, port: Port, sample: Sample, ends: Life) -> bool:
    entry = good_view_of(call)
    if entry is None:
        return False
    # While L2 is away others may have invalidated it: what is left of its life here must not grow.
    fresh_for = ends.soft if call.tiers.remote is None else earliest(ends.soft, entry.fresh_for)
    ends = Life(fresh_for, fresh_for)
    return put_in_l1(call, port, sample, entry.value, admit(entry.value), ends, entry.tags, entry.load_ms)


async def count(call: Call, by: int, port: Port, create: bool) -> int | None:
    """Add to a counter: in L2 for all processes, else in this process. None: there is none, and none may be made."""
    if call.off:
        return by if create else None
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
                forget(call.tiers, call)
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
        ends = Life(fresh_for, fresh_for)
        put_in_l1(call, port, sample, number, admit(number), ends, call.tag_ids, 0, counting=True)
        return number
