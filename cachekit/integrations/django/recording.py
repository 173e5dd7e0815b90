"""What a request asks of the caches: every call of regions and cached functions in its context, for a panel.

`install` puts a recorder around the engine's entrances, which are looked up in their modules at each call. Until then,
and so wherever no panel is, calls run as if this module did not exist.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from cachekit.codec.opening import place_of
from cachekit.context import WATCHED, watched
from cachekit.engine import flow, invalidation, reading, writes
from cachekit.engine.miss import MISS
from cachekit.engine.outcome import Outcome
from cachekit.engine.ports import Result
from cachekit.engine.tiers import Call
from cachekit.function import Bound
from cachekit.regions import Place, Region

SHOWN: Final = 120  # characters of a key
ENTRANCES: Final = (
    (flow, "get_or_load", "get"), (flow, "refresh", "refresh"), (reading, "look", "get"),
    (reading, "look_many", "get_many"), (writes, "put", "set"), (writes, "touch", "touch"), (writes, "count", "incr"),
    (invalidation, "invalidate_keys", "invalidate"), (invalidation, "clear_own", "clear"),
    (invalidation, "clear_stamps", "clear"),
)  # fmt: skip
COLUMNS: Final = ("region", "verb", "what", "outcome", "tier", "seconds", "depth")
OF_TAGS: Final = "_"  # in place of a region, in the names of stamps
READS: Final = ("get", "get_many")


@dataclass
class Recorded:
    """One call. ``outcome`` is hit, miss, stale, waited (for another caller's computation), the name of an exception's
    class, or of what writes and removals say. ``tier`` is where a hit came from. A call that others were made inside of
    took their time too."""

    region: str
    verb: str
    what: str  # the function, or the key
    outcome: str = ""
    tier: str = ""
    seconds: float = 0.0
    depth: int = 0
    counts: "Counter[str]" = field(default_factory=Counter)

    def judge(self, answer: Any) -> None:
        """What the counts and the answer tell."""
        error = answer.error if isinstance(answer, Result) else answer if isinstance(answer, BaseException) else None
        if error is not None:
            self.outcome = type(error).__name__
        elif self.verb not in READS:
            self.outcome = answer.name.lower() if isinstance(answer, Outcome) else "done"
        elif self.counts["stale"]:
            self.outcome = "stale"
        elif self.counts["waited"]:
            self.outcome = "waited"
        elif self.counts["misses"]:
            self.outcome = "miss"
        else:
            self.outcome, self.tier = "hit", "L2" if self.counts["l2_hits"] else "L1"


class Recording:
    """The calls of one context, from its making to `stop`."""

    def __init__(self) -> None:
        self.calls: list[Recorded] = []
        self._watched = watched()
        _RECORDING.set(self)

    def stop(self) -> None:
        """Record no more; a second time does nothing."""
        _RECORDING.set(None)
        self._watched.stop()

    def totals(self) -> dict[str, int]:
        """How many calls ended in which way, hits by tier."""
        return dict(Counter(" ".join(filter(None, (call.tier, call.outcome))) for call in self.calls))

    def rows(self) -> list[dict[str, Any]]:
        """The calls as plain values, in the order in which they began."""
        return [{name: getattr(call, name) for name in COLUMNS} for call in self.calls]


_RECORDING: "ContextVar[Recording | None]" = ContextVar("cachekit_recording", default=None)
_DEPTH: ContextVar[int] = ContextVar("cachekit_recording_depth", default=0)


@contextmanager
def _recorded(recording: Recording, region: str, verb: str, what: str) -> Iterator[Recorded]:
    depth, started = _DEPTH.get(), perf_counter()
    record = Recorded(region, verb, what[:SHOWN], depth=depth)
    recording.calls.append(record)
    _DEPTH.set(depth + 1)
    try:
        yield record
    except BaseException as error:
        record.judge(error)
        raise
    finally:
        _DEPTH.set(depth)
        record.seconds = perf_counter() - started


class _Noting:
    """A tally that tells one call's record what is counted for it."""

    __slots__ = ("_counts", "_tally")

    def __init__(self, tally: Any, counts: "Counter[str]") -> None:
        object.__setattr__(self, "_tally", tally)
        object.__setattr__(self, "_counts", counts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tally, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._tally, name, value)
        self._counts[name] += 1

    def served_stale(self, age: float) -> None:
        self._tally.served_stale(age)
        self._counts["stale"] += 1


def install() -> None:
    """Put the recorder in place, once for the process."""
    global _installed
    if _installed:
        return
    _installed = True
    for module, name, verb in ENTRANCES:
        setattr(module, name, _entrance(getattr(module, name), verb))
    Bound.quick = _quick(Bound.quick, _function_named)  # type: ignore[method-assign]
    Region._quick = _quick(Region._quick, _key_named)  # type: ignore[method-assign]


_installed = False


def _entrance(original: Callable[..., Any], verb: str) -> Callable[..., Any]:
    """One of the engine's coroutine functions, recorded where somebody records."""

    @functools.wraps(original)
    async def entered(*args: Any, **kwargs: Any) -> Any:
        recording = _RECORDING.get()
        if recording is None:
            return await original(*args, **kwargs)
        calls = [call for call in _flat(args) if isinstance(call, Call)]
        region, what = _names(calls) if calls else _cleared(args)
        with _recorded(recording, region, verb, what) as record:
            for call in calls:
                call.tally = _Noting(call.tally, record.counts)  # type: ignore[assignment]  # it does what a tally does
            answer = await original(*args, **kwargs)
            record.judge(answer)
            return answer

    return entered


def _quick(original: Callable[..., Any], named: Callable[..., tuple[str, str]]) -> Callable[..., Any]:
    """The look into L1, which may answer here; only an answer is recorded, since all else goes further in."""

    @functools.wraps(original)
    def looked(self: Any, *args: Any, **kwargs: Any) -> Any:
        recording = _RECORDING.get()
        if recording is None:
            return original(self, *args, **kwargs)
        started, before = perf_counter(), WATCHED.set(False)
        try:
            value = original(self, *args, **kwargs)
        finally:
            WATCHED.reset(before)
        if value is not MISS:
            region, what = named(self, *args)
            seconds = perf_counter() - started
            recording.calls.append(Recorded(region, "get", what[:SHOWN], "hit", "L1", seconds, _DEPTH.get()))
        return value

    return looked


def _function_named(bound: Bound, *args: Any) -> tuple[str, str]:
    return bound.tiers.spec.name, bound.name


def _key_named(region: Region, place: Place) -> tuple[str, str]:
    key = place[2][-1] if place[2] else ""
    return region.name, key if isinstance(key, str) else repr(key)


def _flat(args: Iterable[Any]) -> Iterator[Any]:
    for arg in args:
        yield from arg if isinstance(arg, list) else (arg,)


def _names(calls: list[Call]) -> tuple[str, str]:
    """The region, and the function or the keys."""
    first = calls[0]
    places = [place_of(call.key) for call in calls if call.key is not None]
    idents = ", ".join(place.ident.removeprefix("=") for place in places if place is not None)
    return first.tiers.spec.name, first.tally.function or idents


def _cleared(args: Iterable[Any]) -> tuple[str, str]:
    """The region, and the function or the number of tags, that a clear is about, by its stamps."""
    stamps = [arg for arg in _flat(args) if isinstance(arg, str)]
    region, _, function = stamps[0].partition("{")[2].partition("}:#") if stamps else ("", "", "")
    if region == OF_TAGS:
        return "", f"{len(stamps) - 1} tags"  # the first is the clock of all tags
    return region, function.removeprefix("f:")
