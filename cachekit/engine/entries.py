"""What reading and writing share: the sample before the first step, how long an entry lives, its way into L1."""

from collections.abc import Callable
from sys import maxsize
from typing import Any

from cachekit.context import Entry, inside_load
from cachekit.engine.events import Failed
from cachekit.engine.freshness import NEVER_NS, Life, beta, earliest, early, life, spread
from cachekit.engine.ports import Port, Result
from cachekit.engine.raised import Raised
from cachekit.engine.tiers import Call, logger
from cachekit.engine.unshared import UNSHARED, is_unshared
from cachekit.errors import Unstorable
from cachekit.l1.table import EntryView
from cachekit.l1.values import Admission
from cachekit.l2 import operation
from cachekit.l2.remote import Remote, Unavailable


class Sample:
    """What is known before anything is asked, and whether L2 may still be used by this call."""

    __slots__ = ("alone", "heard", "stamped", "started", "ticket", "usable", "why")

    def __init__(self, call: Call, port: Port) -> None:
        tiers = call.tiers
        remote = tiers.remote
        self.started = port.now()
        self.ticket = tiers.versions.ticket()
        # After the ticket: a loss in between makes it worthless.
        self.heard = remote is not None and tiers.spec.name in remote.reach.covered  # of changes in the region
        self.usable = remote is not None and call.key is not None and not call.switches.skip_l2
        self.stamped = False  # whether the stamps of the entry are known: a clear of one reaches us
        self.alone = False  # computed although another process does so too
        self.why = "absent"

    def gone(self, call: Call, operation_name: str, error: Unavailable) -> None:
        """L2 failed this call."""
        self.usable = False
        self.why = "unavailable"
        call.tally.error(operation_name, error.reason)
        if call.tiers.observers:
            call.tiers.emit(Failed(call.tiers.spec.name, call.tally.function, operation_name, error.reason))


def from_l1(call: Call) -> Result | None:
    """The fresh value of L1, if this call may have it."""
    view = good_view_of(call)
    return None if view is None else result_of(view)


def good_view_of(call: Call) -> EntryView | None:
    """What L1 has of the key, if it is fresh; ``fresh_until`` is the end of that also where a refresh is due before."""
    view = view_of(call)
    if view is not None and view.early and not view.fresh:
        view = view._replace(fresh_until=min(soft_ns(call, view), alive_ns(call, view)))
    return view if view is not None and view.fresh else None


def soft_ns(call: Call, view: EntryView) -> int:
    """When the TTL ends, or ended."""
    if view.keep_until >= NEVER_NS:
        return NEVER_NS
    return view.keep_until - int(call.tiers.spec.freshness.stale_ttl * 1e9)


def alive_ns(call: Call, view: EntryView) -> int:
    """Until when L1 may go by what it heard of changes."""
    remote = call.tiers.remote
    return NEVER_NS if remote is None or view.detached else remote.reach.alive_until


def view_of(call: Call) -> EntryView | None:
    """What L1 has of the key, fresh or not, if this call may know."""
    table = call.tiers.table
    if table is None or call.switches.skip_l1 or (call.tiers.remote is not None and inside_load()):
        return None
    return table.entry(call.slot, call.args)


def result_of(view: EntryView) -> Result:
    """What a caller gets of it."""
    return answered(Result(view.value, mode=view.mode, tags=view.tags))


def answered(result: Result) -> Result:
    """The exception, where the value says that the function raised it."""
    if type(result.value) is not Raised:
        return result
    return Result(error=result.value.error(), tags=result.tags)


def life_of(call: Call, value: Any, entry: Entry) -> Life | None:
    """How long the entry lives; None: do not store."""
    spec = call.tiers.spec
    if not entry.stored:
        return None
    if type(value) is Raised:
        return life(entry.ttl, spec, call.tiers.rng(), stale_ttl=0.0)
    if call.condition is not None and not call.condition(value):
        return None
    ttl = entry.ttl if entry.ttl_given else call.ttl(value) if callable(call.ttl) else call.ttl
    if value is None and not entry.ttl_given:
        if not spec.cache_none:
            return None
        if spec.negative_ttl_set:
            ttl = spec.negative_ttl
    return life(ttl, spec, call.tiers.rng())


def where(call: Call, value: Any, admission: Admission) -> tuple[bool, bool]:
    """Whether a value is fit to be stored as the profile says, and whether this process may keep it in any case."""
    tiers = call.tiers
    unshared = is_unshared(value, admission.mode, tiers.spec.isolation)
    stored = admission.mode != "opaque" or tiers.takes_opaque
    return stored and not (unshared and tiers.remote is None), not unshared


def unfit(call: Call, value: Any, here: bool) -> None:
    """A value that is not, which this process keeps or not. As `unstorable`, with the place of what is in the way."""
    unstorable(call, lambda: f"{_unfit_part(value)}; {'it stays in this process' if here else UNSHARED}", here=here)


def _unfit_part(value: Any) -> str:
    from cachekit.codec import serializers  # who never stores anything does without

    try:
        serializers.dump(value, plain=False, limit=maxsize)
    except Unstorable as error:
        return str(error)
    return f"cannot copy {type(value).__name__}"


def unstorable(call: Call, why: Callable[[], str], *, raising: bool = True, here: bool = True) -> None:
    """A value that cannot be stored: returned all the same, counted, logged once; raised if the profile asks."""
    spec = call.tiers.spec
    raises = spec.codec.on_unstorable == "raise" or call.switches.strict
    if here and call.tiers.remote is None and spec.isolation == "share" and not raises:
        return  # neither copies nor L2 were asked for
    call.tally.error("store", "unstorable")
    if raises and raising:
        raise Unstorable(why())
    if call.tiers.once(f"unstorable {call.tally.function}"):
        where = call.tally.function or f"region {spec.name!r}"
        logger.warning("%s: %s; the value is returned but not shared through L2", where, why())


def unheard(call: Call, error: BaseException) -> None:
    """Nobody gets this exception: something stands in for it, or nobody waits. Logged once, until all is well again."""
    if not call.tally.failing:
        call.tally.failing = True
        where = call.tally.function or f"a factory in region {call.tiers.spec.name!r}"
        logger.warning(
            "%s raised, and no caller gets the exception; not logged again until it ends well", where, exc_info=error
        )


def put_in_l1(
    call: Call,
    port: Port,
    sample: Sample,
    value: Any,
    admission: Admission,
    ends: Life,
    tag_ids: tuple[str, ...],
    load_ms: int,
    counting: bool = False,
) -> bool:
    """Into L1, if nothing that covers the key was invalidated after the sample."""
    tiers, switches = call.tiers, call.switches
    if tiers.table is None or switches.skip_l1 or switches.read_only:
        return False
    if is_unshared(value, admission.mode, tiers.spec.isolation):
        return False
    if tiers.remote is not None and not counting and operation.counts(call, value):
        return False
    detached, limit = (False, None) if tiers.remote is None else _limit_in_l1(call, tiers.remote, sample)
    if limit is not None and limit <= 0:
        return False
    now = port.now()
    until, keep, early = _times(call, sample, ends, load_ms, limit, now)
    if until is not None and until <= now and (keep is None or keep <= now):
        return False  # over already: what it was judged by is older than it may live here
    return tiers.table.put(
        call.slot,
        call.args,
        value,
        khash=call.khash,
        fresh_until=_ns(until),
        keep_until=_ns(keep),
        ticket=sample.ticket,
        tags=tag_ids,
        admission=admission,
        load_ms=load_ms,
        negative=value is None,
        detached=detached,
        early=early,
        aside=type(value) is Raised,
    )


def _ns(end: float | None) -> int:
    return NEVER_NS if end is None else int(end * 1e9)


def _times(
    call: Call, sample: Sample, ends: Life, load_ms: int, limit: float | None, now: float
) -> tuple[float | None, float | None, bool]:
    """Until when the value is a hit in L1 and until when it is kept, on the flow's clock; and whether the first is only
    the moment from which it is to be refreshed. ``limit`` are seconds after the sample that L1 may go by it."""
    spec, draw = call.tiers.spec, call.tiers.rng
    soft = None if ends.soft is None else now + ends.soft
    keep = None if ends.hard is None else now + ends.hard
    cap = spec.l1.ttl
    until = earliest(
        soft,
        None if cap is None else now + cap + spread(cap, spec) * draw(),
        None if limit is None else sample.started + limit,
    )
    if limit is not None and call.tiers.remote is not None:
        keep = earliest(keep, sample.started + max(limit, without_proof(call)))
    if until != soft or soft is None or not load_ms or ends.soft is None:
        return until, keep, False
    eagerness = beta(spec, call.ttl if isinstance(call.ttl, float) else ends.soft)
    if not eagerness or ends.soft <= 0:
        return until, keep, False
    seconds = load_ms / 1000
    return now + early(ends.soft, seconds, eagerness, draw(), _demand(call, now) * seconds), keep, True


def _demand(call: Call, now: float) -> float:
    """Requests per second for an entry of this function, as far as L1 counted them."""
    table, slot = call.tiers.table, call.slot
    return 0.0 if table is None else call.tally.demand(now, lambda: table.stats(slot).entries)


def without_proof(call: Call) -> float:
    """Seconds for which a stale value of L1 may be given while nobody tells of changes."""
    wanted, remote = call.tiers.spec.freshness.stale_without_proof, call.tiers.remote
    return wanted if wanted is not None else 0.0 if remote is None else remote.spec.disconnected_ttl


def _limit_in_l1(call: Call, remote: Remote, sample: Sample) -> tuple[bool, float | None]:
    """With an L2 others may invalidate what lies here: whether it lives apart from the proofs that changes are heard
    of, and how many seconds after the sample it may be used at most (0: not at all)."""
    spec = remote.spec
    if call.switches.skip_l2:  # nobody tells of what lies here alone
        return True, spec.max_staleness
    if not sample.usable:  # computed without L2
        connected = remote.coherence.live and remote.breaker.state(sample.started) == "closed"
        if connected and not sample.stamped:
            return True, 0.0  # one step failed, no more; and a clear of a stamp that nobody made is not told of
        if not connected:
            remote.reach.unproven = True
        return True, spec.disconnected_ttl
    if sample.heard:
        return False, spec.disconnected_ttl if sample.alone else None
    return True, spec.max_staleness
