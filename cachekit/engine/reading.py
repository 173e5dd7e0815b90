"""Looking into both tiers without computing."""

from typing import Any

from cachekit.context import for_nobody
from cachekit.engine import aging
from cachekit.engine.aging import Aged
from cachekit.engine.entries import Sample, answered, from_l1, put_in_l1
from cachekit.engine.events import Missed
from cachekit.engine.freshness import Life, beta, early
from cachekit.engine.miss import MISS
from cachekit.engine.ports import Port, Result
from cachekit.engine.raised import RAISED, Raised
from cachekit.engine.tiers import Call
from cachekit.l1.table import admit
from cachekit.l2 import operation
from cachekit.l2.operation import Absent, Found, Stale
from cachekit.l2.remote import Unavailable


async def look_in_l2(call: Call, port: Port, sample: Sample) -> Result | bytes | None:
    """The value from L2, or the first bytes of an unusable one, or None. A stale one is noted with the call."""
    remote = call.tiers.remote
    assert remote is not None
    try:
        found = await operation.read(call, remote, port)
    except Unavailable as error:
        sample.gone(call, "get", error)
        return None
    if isinstance(found, Found):
        return hit(call, port, sample, found)
    absent(call, port, sample, found)
    return found.seen


def absent(call: Call, port: Port, sample: Sample, found: Absent) -> None:
    """L2 answered, and has nothing fresh. What L1 has past its time counts no more."""
    sample.why = found.reason
    call.aged = None
    if found.stale is not None and type(found.stale.value) is not Raised:
        note(call, port, sample, found.stale)
        _keep_stale(call, port, sample, found.stale)


def note(call: Call, port: Port, sample: Sample, stale: Stale, age: float | None = None) -> None:
    """A value of L2 is at hand that should be computed anew."""
    header = stale.header
    call.aged = Aged(
        stale.value,
        "",
        tuple([digest.hex() for digest, _ in header.tags]),
        max(0.0, stale.age) if age is None else age,
        None if stale.left is None else port.now() + stale.left,
        sample.ticket,
        header=header,
        payload=stale.payload,
        validators=(header.etag, header.last_modified),
    )


def _keep_stale(call: Call, port: Port, sample: Sample, stale: Stale) -> None:
    """In L1, as stale, so that not every caller asks L2 for it; where changes are heard of."""
    if call.tiers.table is None or not sample.heard or not (stale.left is None or stale.left > 0):
        return
    admission = admit(stale.value)
    put_in_l1(call, port, sample, stale.value, admission, Life(0.0, stale.left), call.aged.tags, stale.header.load_ms)
    _keep_validators(call, sample, call.aged)


def _keep_validators(call: Call, sample: Sample, aged: Aged) -> None:
    if aged.etag is not None or aged.last_modified is not None:
        call.tiers.validators.put(call.khash, sample.ticket, aged.etag, aged.last_modified)


def hit(call: Call, port: Port, sample: Sample, found: Found) -> Result:
    """An entry of L2 goes into L1 and to the caller."""
    tally, header = call.tally, found.header
    tally.l2_hits += 1
    tally.hit_seconds.append(port.now() - sample.started)
    if header is None:
        return Result(found.value, None, "")
    if call.tiers.pauses.ends:  # whoever computed it since had a source that is well
        call.tiers.pauses.over(call.ident, port.now() - (port.wall() - header.created / 1000))
    written = header.tags  # late ones too, whose names are not known here
    tags = tuple([digest.hex() for digest, _ in written]) if written else ()
    if type(found.value) is Raised:
        put_in_l1(call, port, sample, found.value, RAISED, Life(found.fresh_for, found.kept_for), tags, header.load_ms)
        return answered(Result(found.value, tags=tags))
    if call.tiers.table is None:
        return Result(found.value, None, "", tags)
    admission = admit(found.value)
    sample.started = min(sample.started, found.known_at)  # other processes' clears are known up to then
    ends = Life(found.fresh_for, found.kept_for)
    kept = put_in_l1(call, port, sample, found.value, admission, ends, tags, header.load_ms)
    if kept and (header.etag is not None or header.last_modified is not None):
        call.tiers.validators.put(call.khash, sample.ticket, header.etag, header.last_modified)
    return Result(found.value, mode=admission.mode, tags=tags)


def is_due(call: Call, sample: Sample, found: Found) -> bool:
    """Whether a fresh entry of L2 should be refreshed early. Where L1 keeps it to its end, that was drawn with the copy
    in L1."""
    header, spec, remote = found.header, call.tiers.spec, call.tiers.remote
    if header is None or found.fresh_for is None or not header.load_ms or remote is None:
        return False
    told = sample.heard or found.fresh_for <= remote.spec.max_staleness
    capped = spec.l1.ttl is not None and spec.l1.ttl < found.fresh_for
    if call.tiers.table is not None and told and not capped and not call.switches.skip_l1:
        return False
    ttl = (header.soft - header.created) / 1000
    eagerness = beta(spec, ttl)
    return bool(eagerness) and early(ttl, header.load_ms / 1000, eagerness, call.tiers.rng()) <= ttl - found.fresh_for


async def look(call: Call, port: Port, *, first: bool = True) -> Any:
    """The value from either tier, or `MISS`. Never computes. ``first`` is false where L1 was asked already."""
    sample = Sample(call, port)
    if call.off:
        return _nothing(call, sample)
    if first and call.tiers.table is not None and not call.switches.skip_l1:  # which tells nothing inside of a load
        get = call.tiers.table.get
        value = for_nobody(get, call.slot, call.args) if call.tenant else get(call.slot, call.args)
        if value is not MISS and type(value) is not Raised:
            return value
    if (kept := from_l1(call)) is not None and kept.error is None:  # a refresh is due, but of that callers see to
        return kept.value
    if call.switches.allow_stale:
        aging.in_l1(call, port, sample)
    if sample.usable and call.tiers.enabled:
        found = await look_in_l2(call, port, sample)
        if isinstance(found, Result) and found.error is None:
            return found.value
    if call.switches.allow_stale and (stale := aging.at_once(call, port)[0]) is not None:
        return stale.value
    return _nothing(call, sample)


def _nothing(call: Call, sample: Sample) -> Any:
    call.tally.misses += 1
    call.tiers.emit(Missed(call.tiers.spec.name, call.tally.function, sample.why))
    return MISS


async def look_many(calls: list[Call], port: Port) -> list[Any]:
    """The values of several keys of one region that L1 does not have, in one round trip; `MISS` where there is none."""
    tiers = calls[0].tiers
    remote = tiers.remote
    one_by_one = remote is None or not remote.offers("get_many") or calls[0].off or calls[0].switches.skip_l2
    if one_by_one or any(call.tiers.remote is not remote for call in calls):
        return [await look(call, port, first=False) for call in calls]
    assert remote is not None
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
            await operation.reseal(call, call.tiers.remote, found, port)
        except Unavailable as error:
            sample.gone(call, "get", error)
        else:
            if isinstance(found, Found):
                result = hit(call, port, sample, found)
                return _nothing(call, sample) if result.error is not None else result.value
            sample.why = found.reason
    return _nothing(call, sample)
