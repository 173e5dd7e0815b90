"""Judges a log of operations by what cachekit promises about invalidations. A pure function of the log and the bounds.

The promise. An invalidation begins when the source of an entry has version v, and returns "done" at t. A call that
begins later than

* t, in the same process,
* t + `max_staleness`, in another process,
* t + the longer of `max_staleness` and `disconnected_ttl`, in a process that was cut off from L2,
* t, if the call asks L2 itself and the entry's own key was invalidated,

does not get a version below v. A process counts as cut off when it was at some time of the last `disconnected_ttl`
before the call, because what it computed meanwhile may still lie in it. "queued" binds the same process at once; for
the others the time counts from the moment at which the process is known to have nothing queued any more. "failed" must
not happen here: no fault of ours makes L2 refuse an invalidation for good.

What is not judged, and nothing else is not:

* for other processes, an invalidation that is queued and not known to be delivered, so also that of a dead process;
* after a failover, one that began before its end, until its process is known to have reached the new primary (it says
  again there what it said in the last `replay_window`); for ever, if that process died before, or if the failover
  began more than `replay_window` after the invalidation. In its own process only the latter is excused;
* calls that began before the bound, whenever they return;
* entries that are written by `set`, which has no fence: nobody says of them in the log which version was invalidated.

Whatever the faults, no call raises, gets a value of another entry, or a version that the source never had.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

EVERYBODY = -1


class Who(NamedTuple):
    """A process: its place, and which of those that ran there one after the other."""

    place: int
    life: int


class Read(NamedTuple):
    """A call that returned a value."""

    who: Who
    begin: float
    end: float
    how: str
    entry: str
    of: str  # the entry that the value says it belongs to
    version: int
    latest: int  # version of the source, looked at after the call returned
    strict: bool = False  # it asked L2 and neither L1 nor another caller


class Invalidation(NamedTuple):
    """A call that invalidated, and for each entry that it covers the version of the source before it began."""

    who: Who
    begin: float
    end: float
    how: str
    outcome: str  # done | queued | failed
    versions: Mapping[str, int]

    @property
    def of_key(self) -> bool:
        return self.how == "key"


class Raised(NamedTuple):
    """A call that raised."""

    who: Who
    begin: float
    end: float
    how: str
    error: str
    trace: str = ""

    def __str__(self) -> str:
        return f"process {self.who.place} ({self.who.life}) at {self.begin:.4f}\n{self.trace}"


class Reached(NamedTuple):
    """At some time between begin and end this process reached L2 and had nothing queued."""

    who: Who
    begin: float
    end: float


class Trouble(NamedTuple):
    """A place, or everybody, could not reach L2 at some time between begin and end."""

    place: int
    begin: float
    end: float
    why: str


class Failover(NamedTuple):
    """Before begin only the old primary was asked, after end only the new one."""

    begin: float
    end: float


class Log(NamedTuple):
    """What happened, in any order."""

    reads: list[Read]
    invalidations: list[Invalidation]
    raised: list[Raised]
    reached: list[Reached]
    troubles: list[Trouble]
    failovers: list[Failover]


class Bounds(NamedTuple):
    """Of the configuration, in seconds. ``slack`` is for the clock and for the process that writes the log."""

    max_staleness: float
    disconnected_ttl: float
    slack: float = 0.05
    replay_window: float = 60.0

    @property
    def longest(self) -> float:
        return max(self.max_staleness, self.disconnected_ttl)


class Violation(NamedTuple):
    """What must not happen: when, to which entry, and why it is wrong."""

    at: float
    entry: str
    why: str
    evidence: tuple[object, ...]


def check(log: Log, bounds: Bounds) -> list[Violation]:
    """Every violation, in the order of time."""
    found = [Violation(each.begin, "", f"{each.how} raised {each.error}", (each,)) for each in log.raised]
    for each in log.invalidations:
        if each.outcome == "failed":
            found.append(Violation(each.begin, min(each.versions, default=""), f"{each.how} failed", (each,)))
    judge = Judge(log, bounds)
    for read in log.reads:
        found += judge.read(read)
    return sorted(found, key=lambda violation: violation.at)


class Judge:
    """The log, arranged for questions."""

    def __init__(self, log: Log, bounds: Bounds) -> None:
        self.bounds = bounds
        self.failovers = sorted(log.failovers)
        self.covering: dict[str, list[tuple[int, Invalidation]]] = defaultdict(list)  # by version
        for invalidation in log.invalidations:
            for entry, version in invalidation.versions.items():
                self.covering[entry].append((version, invalidation))
        for each in self.covering.values():
            each.sort(key=lambda pair: pair[0])
        self.reached: dict[Who, list[tuple[float, float]]] = defaultdict(list)
        for one in sorted(log.reached, key=lambda one: one.begin):
            self.reached[one.who].append((one.begin, one.end))
        self.troubles: dict[int, list[tuple[float, float]]] = {}
        for place in {each.who.place for each in log.reads}:
            mine = [each for each in log.troubles if each.place in (place, EVERYBODY)]
            self.troubles[place] = merged((each.begin, each.end) for each in mine)

    def read(self, read: Read) -> Iterable[Violation]:
        """What is wrong with a read."""
        if read.of != read.entry:
            yield Violation(read.begin, read.entry, f"got a value of {read.of}", (read,))
            return
        if read.version > read.latest:
            yield Violation(
                read.begin, read.entry, f"got version {read.version}, the source has {read.latest}", (read,)
            )
        covering = self.covering.get(read.entry, [])
        for version, invalidation in covering[bisect_left(covering, read.version + 1, key=lambda pair: pair[0]) :]:
            if read.begin <= invalidation.end:
                continue
            until = self.bound(invalidation, read)
            if until is not None and read.begin > until:
                yield Violation(
                    read.begin,
                    read.entry,
                    f"got version {read.version}, but {version} was invalidated ({invalidation.outcome}) "
                    f"{read.begin - invalidation.end:.3f} s before; allowed were {until - invalidation.end:.3f} s",
                    (invalidation, read),
                )
                return  # the others say the same

    def bound(self, invalidation: Invalidation, read: Read) -> float | None:
        """From when on a call must not get what the invalidation outdated; None: never."""
        failovers = [each for each in self.failovers if each.begin < read.end and invalidation.begin < each.end]
        known = invalidation.end if invalidation.outcome == "done" else self.next_reached(invalidation)
        if invalidation.who == read.who:
            told = invalidation.end if known is None else known
            return None if self.too_late(told, failovers) else invalidation.end
        if known is None or self.too_late(known, failovers):
            return None
        for failover in failovers:
            again = self.reached_after(invalidation.who, failover.end)
            if again is None:
                return None
            known = max(known, again)
        if read.strict and invalidation.of_key:
            return known
        cut_off = self.cut_off(read)
        return known + (self.bounds.longest if cut_off else self.bounds.max_staleness) + self.bounds.slack

    def too_late(self, known: float, failovers: Iterable[Failover]) -> bool:
        """Whether a failover came so late that the process does not say again what it said then."""
        return any(each.begin - known > self.bounds.replay_window - self.bounds.slack for each in failovers)

    def next_reached(self, invalidation: Invalidation) -> float | None:
        return self.reached_after(invalidation.who, invalidation.end)

    def reached_after(self, who: Who, time: float) -> float | None:
        """When this process is known to have had nothing queued, later than ``time``."""
        reached = self.reached.get(who, [])
        index = bisect_left(reached, time, key=lambda pair: pair[0])
        return min((end for _, end in reached[index:]), default=None)

    def cut_off(self, read: Read) -> bool:
        """Whether the process may hold what it computed without L2."""
        since = read.begin - self.bounds.longest - self.bounds.slack
        spans = self.troubles[read.who.place]
        index = bisect_left(spans, since, key=lambda span: span[1])
        return index < len(spans) and spans[index][0] <= read.begin


def merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same time covered by spans that do not touch, in their order."""
    result: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if result and begin <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((begin, end))
    return result
