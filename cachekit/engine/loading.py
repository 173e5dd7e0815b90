"""The load of one key: the right to compute, the function, a fenced store to L2, L1, and those who wait for it.

It goes on without its caller, who may have given up, or have been given something else.
"""

from contextvars import ContextVar, Token
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cachekit.context import ENTRY, LOADING, NOT_MODIFIED, Entry
from cachekit.engine import aging
from cachekit.engine.entries import Sample, life_of, put_in_l1, unfit, unstorable, where
from cachekit.engine.events import Loaded, Missed
from cachekit.engine.flight import HANDED_OVER, Chain, Flight, around
from cachekit.engine.freshness import Life
from cachekit.engine.keys import check_tag, tag_id
from cachekit.engine.ports import Old, Port, Result, blocking
from cachekit.engine.raised import RAISED, Raised, is_one_of, raised_by, remembered
from cachekit.engine.reading import look_in_l2
from cachekit.engine.right import Right, obtain, release
from cachekit.engine.tiers import Call
from cachekit.engine.unshared import admission_of, is_for_one
from cachekit.errors import Unstorable
from cachekit.l1.table import admit, isolate
from cachekit.l2 import operation
from cachekit.l2.remote import Unavailable

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

USED_UP: Final = (GeneratorType, AsyncGeneratorType)


async def load(
    call: Call, port: Port, lead: Flight | None, sample: Sample, seen: bytes | None, *,
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


def land(future: "Future[Any]", result: Result) -> None:
    """Give the result to those who wait: a copy that the leading caller cannot change any more. Where that is not to be
    had, each of them runs the function."""
    if not future.done():
        try:
            future.set_result(HANDED_OVER if is_for_one(result) else own_copy(result))
        except BaseException:  # interrupted while it copied
            if not future.done():
                future.set_result(HANDED_OVER)
            raise


def own_copy(result: Result) -> Result:
    if result.error is not None:
        return result
    mode = result.mode or admit(result.value).mode
    value = isolate(result.value, mode)
    if type(result) is Old:
        return Old(value, mode, result.tags, result.age)
    return Result(value, mode=mode, tags=result.tags)


async def _compute(call: Call, port: Port, lead: Flight | None, right: Right) -> Result:
    """Run the function and keep what it brought."""
    assert call.load is not None
    tally, tiers = call.tally, call.tiers
    tally.misses += 1
    if tiers.observers:
        tiers.emit(Missed(tiers.spec.name, tally.function, right.sample.why))
    ttl = None if callable(call.ttl) else call.ttl
    entry = Entry(ttl, call.named_tags, call.aged, behind=call.answered)
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


async def alone(call: Call, port: Port) -> Result:
    """The function as if it were not cached; what it asks of its entry comes to nothing."""
    assert call.load is not None
    outer = ENTRY.set(Entry(None if callable(call.ttl) else call.ttl, call.named_tags))
    try:
        return await port.run(call.load)
    finally:
        _restore(ENTRY, outer)


def _restore(variable: ContextVar[T], token: Token[T]) -> None:
    try:  # and not suppress, which takes longer
        variable.reset(token)
    except ValueError:  # an abandoned coroutine is closed in the context of whoever collects the garbage
        pass


async def _ran(call: Call, port: Port, right: Right, result: Result, entry: Entry, seconds: float) -> Result:
    """The function has run."""
    tally, tiers = call.tally, call.tiers
    if type(result.value) in USED_UP:
        result = Result(
            error=TypeError("a generator cannot be cached, it would be exhausted after one use; return a list")
        )
    tally.times.add(seconds)
    if tiers.observers:
        error = type(result.error).__name__ if result.error else ""
        tiers.emit(Loaded(tiers.spec.name, tally.function, seconds, error))
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
            reason = f"{type(result.error).__name__} is not remembered: {error}"
            unstorable(call, lambda: reason, raising=False)
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


def _chain(call: Call, lead: Flight | None, sample: Sample, began: float) -> Chain:
    """What the function is inside of. One without a flight of its own, a refresh say, is inside of that around it."""
    outer = around(LOADING.get())
    if call.tiers.remote is None:
        since = None if outer is None else outer.began
    else:
        since = began
    if lead is not None:
        return Chain(lead, outer, since)
    if outer is not None:
        return outer._replace(began=since)
    return Chain(Flight(call.tiers.flights, None, sample.ticket, sample.started, None), None, since)


async def _keep(
    call: Call, port: Port, right: Right, result: Result, entry: Entry, seconds: float, old: aging.Aged | None = None
) -> None:
    """Store a computed value in both tiers, as far as its options and the rules allow. ``old``: it is the one that lies
    there, for another TTL."""
    admission = admission_of(result.value) if type(result.value) is not Raised else RAISED
    result.mode = admission.mode if call.tiers.spec.isolation != "share" else "share"
    ends = life_of(call, result.value, entry)
    if ends is None:
        call.tiers.unstored.rest(call.ident, port.now(), aging.UNSTORED)
        await release(call, port, right)
        return
    tags = (*sorted(check_tag(tag) for tag in entry.tags), *call.tags[len(call.named_tags) :])
    ids = [tag_id(tag, call.tiers.name_key) for tag in tags]
    result.tags = tuple(dict.fromkeys((*ids, *(old.tags if old is not None else ()))))
    fit, here = where(call, result.value, admission)
    if not here:
        call.tiers.unstored.rest(call.ident, port.now(), aging.UNSTORED)  # nobody need wait for what is another's
    if set(tags) - set(call.tags) and (right.held is None or not fit):
        right.sample.heard = False  # of these tags there may be no stamp, and then nobody tells of their clears
    if not fit:
        unfit(call, result.value, here)
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
        unstorable(call, error.__str__)
        await release(call, port, right)
        return True
    except Unavailable as error:
        right.sample.gone(call, "store", error)
        return True
    call.tally.stores += stored
    return stored
