"""What reading and writing share: the sample before the first step, how long an entry lives, its way into L1."""

from typing import Any

from cachekit.context import Entry, inside_load
from cachekit.engine.events import Failed
from cachekit.engine.freshness import NEVER_NS, Life, earliest, life
from cachekit.engine.ports import Port, Result
from cachekit.engine.tiers import Call, logger
from cachekit.errors import Unstorable
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
        self.usable = remote is not None and call.key is not None
        self.stamped = False  # whether the stamps of the entry are known: a clear of one reaches us
        self.alone = False  # computed although another process does so too
        self.why = "absent"

    def gone(self, call: Call, operation_name: str, error: Unavailable) -> None:
        """L2 failed this call."""
        self.usable = False
        self.why = "unavailable"
        call.tally.error(operation_name, error.reason)
        call.tiers.emit(Failed(call.tiers.spec.name, call.tally.function, operation_name, error.reason))


def from_l1(call: Call) -> Result | None:
    if call.tiers.table is None or (call.tiers.remote is not None and inside_load()):
        return None
    entry = call.tiers.table.entry(call.slot, call.args)
    return None if entry is None or not entry.fresh else Result(entry.value, mode=entry.mode, tags=entry.tags)


def life_of(call: Call, value: Any, entry: Entry) -> Life | None:
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


def unstorable(call: Call, why: str) -> None:
    """A value that cannot be stored: returned all the same, counted, logged once; raised if the profile asks."""
    spec = call.tiers.spec
    if call.tiers.remote is None and spec.isolation == "share" and spec.codec.on_unstorable != "raise":
        return  # neither copies nor L2 were asked for
    call.tally.error("store", "unstorable")
    if spec.codec.on_unstorable == "raise":
        raise Unstorable(why)
    if call.tiers.once(f"unstorable {call.tally.function}"):
        where = call.tally.function or f"region {spec.name!r}"
        logger.warning("%s: %s; the value is returned but not shared through L2", where, why)


def put_in_l1(
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
    detached, limit = (False, None) if tiers.remote is None else _limit_in_l1(tiers.remote, sample)
    if limit is not None and limit <= 0:
        return False
    until = earliest(
        None if fresh_for is None else port.now() + fresh_for,
        None if tiers.spec.l1.ttl is None else port.now() + tiers.spec.l1.ttl,
        None if limit is None else sample.started + limit,
    )
    if until is not None and until <= port.now():
        return False  # over already: what it was judged by is older than it may live here
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
        detached=detached,
    )


def _limit_in_l1(remote: Remote, sample: Sample) -> tuple[bool, float | None]:
    """With an L2 others may invalidate what lies here: whether it lives apart from the proofs that changes are heard
    of, and how many seconds after the sample it may be used at most (0: not at all)."""
    spec = remote.spec
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
