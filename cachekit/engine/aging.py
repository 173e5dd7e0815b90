"""Values past their time: what is at hand of a key, whether it may be given, and what else may stand in for a load."""

from collections.abc import Iterator
from typing import Any, Final

from cachekit.codec.envelope import Header
from cachekit.context import for_nobody
from cachekit.engine.entries import Sample, alive_ns, result_of, soft_ns, unheard, view_of, without_proof
from cachekit.engine.freshness import NEVER_NS
from cachekit.engine.miss import MISS
from cachekit.engine.ports import Old, Port, Result
from cachekit.engine.raised import Raised
from cachekit.engine.tiers import Call
from cachekit.errors import CacheLoadTimeout
from cachekit.l1.table import EntryView, admit, isolate

PATIENCE: Final = 60.0  # seconds that anybody waits for another caller's load in this process; bounds unseen circles
AUTO: Final = (0.05, 2.0)  # seconds between which a soft limit lies that is found by itself
ENOUGH: Final = 20  # loads, before one is
UNSTORED: Final = 5.0  # seconds for which it is remembered that a value was not to be stored


class Aged:
    """A value that is at hand and should be computed anew.

    ``age`` is how many seconds ago its TTL ended, below 0 if it has not; after ``until`` (of the flow's clock, None:
    never) it must not be given. ``sure``: nothing was invalidated since, as far as anybody can know without asking L2.
    """

    __slots__ = (
        "_value", "age", "etag", "header", "last_modified", "mode", "payload", "sure", "tags", "ticket", "until",
    )  # fmt: skip

    def __init__(
        self, value: Any, mode: str, tags: tuple[str, ...], age: float, until: float | None, ticket: int, *,
        sure: bool = True, header: Header | None = None,
        payload: "bytes | memoryview" = b"", validators: tuple[str | None, str | None] = (None, None),
    ) -> None:  # fmt: skip
        self._value = value
        self.mode = mode  # of isolation; "": not looked at yet
        self.tags = tags
        self.age = age
        self.until = until
        self.ticket = ticket  # from before it was looked at
        self.sure = sure
        self.header = header  # as L2 has it, with the bytes of the value
        self.payload = payload
        self.etag, self.last_modified = validators

    def copy(self) -> Any:
        """The value, for somebody who may change it."""
        self.mode = self.mode or admit(self._value).mode
        return isolate(self._value, self.mode)

    def left(self, now: float) -> float:
        """Seconds for which it may still be given."""
        return float("inf") if self.until is None else self.until - now


# What is at hand


def in_l1(call: Call, port: Port, sample: Sample) -> tuple[Result | None, bool]:
    """A value of L1 for the caller, and whether it is to be refreshed early. An aged one is noted with the call."""
    view = view_of(call)
    if view is None:
        return None, False
    if view.fresh:
        call.tally.waited += 1  # another caller's load has just ended
        return result_of(view), False
    if view.early and view.now < min(soft_ns(call, view), alive_ns(call, view)) and call.tiers.table is not None:
        mine = call.tiers.table.refreshed(call.slot, call.args, soft_ns(call, view))
        value = for_nobody(call.tiers.table.get, call.slot, call.args)  # which counts the hit
        if mine:
            _note(call, port, sample, view)
        if value is MISS:  # it has just left
            call.tally.waited += 1
            value = view.value
        return Result(value, mode=view.mode, tags=view.tags), mine
    if type(view.value) is not Raised:
        _note(call, port, sample, view)
    return None, False


def _note(call: Call, port: Port, sample: Sample, view: EntryView) -> None:
    remote, soft = call.tiers.remote, soft_ns(call, view)
    until = None if view.keep_until >= NEVER_NS else view.keep_until / 1e9
    sure = remote is None or (sample.heard and not view.detached and view.now >= soft)
    if remote is not None and not view.detached:
        proven = remote.coherence.proof + without_proof(call)
        until = proven if until is None else min(until, proven)
    validators = call.tiers.validators.get(view.khash, view.born)
    age = (view.now - soft) / 1e9
    if not view.early:  # one that was marked, or that L1 may not go by any more
        age = max(0.0, age)
    call.aged = Aged(view.value, view.mode, view.tags, age, until, sample.ticket, sure=sure, validators=validators)


# Whether it may be given


def outdated(call: Call) -> bool:
    """Whether something that covers the value at hand was invalidated, or marked as stale, since it was looked at."""
    aged, tiers = call.aged, call.tiers
    tags = (*call.tag_ids, *aged.tags)
    return not tiers.versions.allows(aged.ticket, call.khash, tags, call.slot, tiers.spec.name)


def again_in_l1(call: Call, port: Port) -> None:
    """What L1 has now: nothing that was invalidated, but what was marked as stale."""
    call.aged, sample = None, Sample(call, port)
    view = view_of(call)
    if view is not None and type(view.value) is not Raised:
        _note(call, port, sample, view)


def at_once(call: Call, port: Port) -> tuple[Result | None, bool]:
    """A stale value, if the caller need not wait for a fresh one; and whether one is to be computed behind its back."""
    switches, now = call.switches, port.now()
    aged = _servable(call, now)
    if aged is None or aged.age < 0:
        return None, False
    fresh = call.tiers.spec.freshness
    if switches.allow_stale:
        return given(call, aged), False
    if not (fresh.swr or fresh.serves_on_error):
        return None, False
    if call.tiers.pauses.on(call.ident, now):
        return given(call, aged), False
    return (given(call, aged), True) if fresh.swr else (None, False)


def _servable(call: Call, now: float) -> Aged | None:
    """The aged value, if the caller may have it. A load behind may find another one at any moment."""
    aged: Aged | None = call.aged
    return aged if aged is not None and call.switches.allow_stale is not False and aged.left(now) > 0 else None


def given(call: Call, aged: Aged) -> Result:
    """The aged value goes to the caller."""
    age = max(0.0, aged.age)
    if not call.answered:
        call.tally.served_stale(age)
    value = aged.copy()  # which finds out the mode
    return Old(value, aged.mode, aged.tags, age)


def while_busy(call: Call, port: Port) -> Result | None:
    """What to give while another process computes; it spares the caller the wait."""
    fresh, aged = call.tiers.spec.freshness, _servable(call, port.now())
    if aged is None:
        return None
    if aged.age < 0:  # it is fresh, and nobody waits
        return Result(aged.copy(), mode=aged.mode, tags=aged.tags)
    return given(call, aged) if fresh.swr or fresh.serves_on_error else None


# What stands in for a load


class Limits:
    """For how long one caller waits for a load: an iterator of seconds, of which None is for ever.

    The hard limit comes after the soft one if what was to stand in was invalidated meanwhile.
    """

    def __init__(self, call: Call, port: Port) -> None:
        self.call = call
        self.port = port
        self.kind = ""
        self._instead: Result | None = None
        self._waits = self._each()

    def __iter__(self) -> Iterator[float | None]:
        return self._waits

    def _each(self) -> Iterator[float | None]:
        seconds, self.kind = limit_of(self.call, self.port)
        yield seconds
        self._instead = stand_in(self.call, self.port)
        if self.kind == "soft" and self._instead is None:
            self.kind, hard = "hard", self.call.tiers.spec.freshness.hard_timeout
            yield None if hard is None or seconds is None else hard - seconds
            self._instead = stand_in(self.call, self.port)

    def over(self) -> Result:
        """What the caller gets who has waited so long; the load goes on."""
        call = self.call
        call.tally.gave_up(self.kind)
        if self._instead is not None:
            return self._instead
        seconds = call.tiers.spec.freshness.hard_timeout
        what = call.tally.function or f"the factory in region {call.tiers.spec.name!r}"
        return Result(
            error=CacheLoadTimeout(
                f"{what} ran longer than hard_timeout = {seconds:g} s; it goes on, and its result will be cached"
            )
        )


def limit_of(call: Call, port: Port) -> tuple[float | None, str]:
    """How long this caller waits for a load at first, in seconds, and which limit that is: soft or hard."""
    fresh = call.tiers.spec.freshness
    hard, soft = fresh.hard_timeout, fresh.soft_timeout
    if soft is not None and (call.fallback is not MISS or _servable(call, port.now()) is not None):
        seconds = _usual(call) if isinstance(soft, str) else soft
        if seconds is not None and (hard is None or seconds < hard):
            return seconds, "soft"
    return hard, "hard"


def stand_in(call: Call, port: Port) -> Result | None:
    """What a caller gets who waits no longer, if there is anything that was not invalidated meanwhile."""
    if call.aged is not None and outdated(call):
        again_in_l1(call, port)
    if (aged := _servable(call, port.now())) is not None:
        return given(call, aged)
    return None if call.fallback is MISS else fallback(call)


def _usual(call: Call) -> float | None:
    """Twice what nearly all loads take, if that is known."""
    times = call.tally.times
    return min(max(2 * times.quantile(0.95), AUTO[0]), AUTO[1]) if times.seen >= ENOUGH else None


def after_error(call: Call, port: Port, result: Result) -> Result:
    """The function raised: what the caller gets instead, if there is anything, and the source is left alone a while."""
    fresh = call.tiers.spec.freshness
    instead = None
    if call.aged is not None:
        call.tiers.pauses.failed(call.ident, port.now(), fresh.stale_throttle)
        if fresh.serves_on_error and (aged := _servable(call, port.now())) is not None:
            instead = given(call, aged)
    if instead is None and call.fallback is not MISS:
        instead = fallback(call)
    if result.error is not None and (instead is not None or call.answered):
        unheard(call, result.error)
    return instead or result


def without_l2(call: Call, port: Port) -> Result | None:
    """L2 is away and nothing fresh is at hand: what else there is, where the profile says that the source is to be
    spared."""
    if call.tiers.spec.freshness.outage != "fallback" or call.fallback is MISS:
        return None
    aged = _servable(call, port.now())
    return fallback(call) if aged is None else given(call, aged)


def fallback(call: Call) -> Result:
    """What `fallback=` gives, never stored."""
    call.tally.fallbacks += not call.answered
    value = call.fallback
    if callable(value):
        assert call.load is not None
        try:
            value = value(*call.load.args, **call.load.kwargs)
        except Exception as error:
            return Result(error=error)
        return Result(value, mode="")
    return Result(isolate(value, admit(value).mode), mode="")
