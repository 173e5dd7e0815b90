"""What happened: plain integers per function for the metrics, frozen records for observers, nothing per L1 hit."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from cachekit.l2.times import Times


class Tally:
    """Counts of one function, or of a region's direct use (``function == ""``). Read by metrics, reset by forks alone:
    ``cache_clear()`` begins those of ``cache_info()`` anew, and these go on.

    L1 hits are not here: the table counts them per slot, without Python per hit on the native core.
    """

    __slots__ = (
        "_demand", "_take_loads", "answers", "before", "errors", "failing", "fallbacks", "function", "hit_seconds",
        "impatient", "l1_hits", "l2_hits", "lease_waits", "load_errors", "load_seconds", "loads", "miss_seconds",
        "misses", "refreshes", "region", "spent", "stale", "stale_ages", "stores", "timeouts", "times", "waited",
    )  # fmt: skip

    def __init__(
        self,
        region: str,
        function: str,
        l1_hits: Callable[[], int],
        take_loads: Callable[[], tuple[int, list[float]]] = lambda: (0, []),
    ) -> None:
        self.region = region
        self.function = function
        self.l1_hits = l1_hits
        self._take_loads = take_loads
        self.times = Times()  # of the function's runs
        self.failing = False  # its last run that nobody else learns of failed, and that was logged
        self._demand = (0.0, 0.0, 0, 0.0)  # of `demand`: when it is due, when it was looked at, hits then, the answer
        self.restart()

    def restart(self) -> None:
        """Forget all counts, but for those of the table: in a forked child, whose parent reports them."""
        self.l2_hits = 0
        self.misses = 0  # neither tier had a usable entry
        self.loads = 0  # runs of the function that ended well
        self.load_errors = 0  # ... that raised
        self.stores = 0  # values that L2 took
        self.waited = 0  # calls answered by another caller's load
        self.lease_waits = 0  # loads that waited for another process
        self.impatient = 0  # ... and computed nevertheless
        self.errors: dict[tuple[str, str], int] = {}  # (operation, reason) -> count
        self.stale = 0  # calls answered with a value past its TTL
        self.fallbacks = 0  # ... with the fallback
        self.refreshes: dict[tuple[str, str], int] = {}  # (trigger, result) -> count
        self.timeouts: dict[str, int] = {}  # soft, hard -> calls that waited no longer
        self.answers: dict[str, int] = {}  # HIT, MISS, STALE, BYPASS -> responses, where pages are kept
        self.spent = 0.0  # seconds of the runs that ended well
        self.before = (0, 0, 0, 0, 0)  # what had been counted at the last `cache_clear()`
        self.hit_seconds: deque[float] = deque(maxlen=4096)  # L2 hits, until the next pump
        self.miss_seconds: deque[float] = deque(maxlen=4096)  # misses, until the next pump
        self.load_seconds: deque[float] = deque(maxlen=4096)  # runs of the function, until the next pump
        self.stale_ages: deque[float] = deque(maxlen=4096)  # seconds past the TTL, until the next pump

    def take_in(self) -> None:
        """Count the loads that the native core ran since the last time. Whoever reads the counts calls this first."""
        loads, seconds = self._take_loads()
        if loads:
            self.miss_seconds.extend(seconds)
            self.load_seconds.extend(seconds)
            self.spent += sum(seconds) / len(seconds) * loads if seconds else 0.0
            self.misses += loads
            self.loads += loads

    @property
    def saved(self) -> float:
        """Seconds that hits would have taken, had each run the function for as long as it takes on average."""
        return self.spent / self.loads * (self.l1_hits() + self.l2_hits) if self.loads else 0.0

    def counted(self) -> tuple[int, int, int, int, int]:
        """Hits of L1 and of L2, misses, errors, stale answers."""
        self.take_in()
        return (self.l1_hits(), self.l2_hits, self.misses, sum(list(self.errors.values())), self.stale)

    def since_clear(self) -> tuple[int, ...]:
        """The same since the last `cache_clear()`."""
        before = self.before  # first: what another thread clears meanwhile must not be taken off twice
        return tuple([count - less for count, less in zip(self.counted(), before, strict=True)])

    def ran(self, seconds: float) -> None:
        """The function ended well after so long."""
        self.failing = False
        self.loads += 1
        self.spent += seconds
        self.load_seconds.append(seconds)

    def served_stale(self, age: float) -> None:
        """A value went out that was so many seconds past its TTL."""
        self.stale += 1
        self.stale_ages.append(age)

    def refreshed(self, trigger: str, result: str) -> None:
        """A refresh that no caller waited for ended, or was not begun. Both are bounded labels."""
        self.refreshes.setdefault((trigger, result), 0)
        self.refreshes[trigger, result] += 1

    def gave_up(self, kind: str) -> None:
        """A caller waited no longer: soft, or hard."""
        self.timeouts.setdefault(kind, 0)
        self.timeouts[kind] += 1

    def answered(self, result: str) -> None:
        """A request was answered. A bounded label."""
        self.answers.setdefault(result, 0)
        self.answers[result] += 1

    def demand(self, now: float, entries: Callable[[], int]) -> float:
        """Requests per second for one entry, on average, since it was last looked at: once in a while, since pure
        Python adds up all entries for it."""
        due, since, before, rate = self._demand
        if now < due:
            return rate
        hits, count = self.l1_hits(), max(1, entries())
        rate = max(0, hits - before) / (now - since) / count if due else 0.0
        self._demand = (now + 1.0 + count / 1000, now, hits, rate)
        return rate

    def error(self, operation: str, reason: str) -> None:
        """Count a failure; operation is get, store, invalidate, load, ...; reason a bounded label."""
        self.errors.setdefault((operation, reason), 0)
        self.errors[operation, reason] += 1  # without a call in between, after which another thread may run


@dataclass(frozen=True, slots=True)
class Missed:
    """Neither tier could answer. ``reason``: absent, expired, outdated, damaged:<why>, unavailable."""

    region: str
    function: str
    reason: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """The function ran. ``error`` is the name of the exception's class, or empty."""

    region: str
    function: str
    seconds: float
    error: str


@dataclass(frozen=True, slots=True)
class Failed:
    """An operation on L2 failed or stored bytes were unusable."""

    region: str
    function: str
    operation: str
    reason: str


Event: TypeAlias = Missed | Loaded | Failed
Observer: TypeAlias = Callable[[Event], None]
