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
        "_take_loads", "before", "errors", "function", "hit_seconds", "impatient", "l1_hits", "l2_hits", "lease_waits",
        "load_errors", "loads", "miss_seconds", "misses", "region", "stores", "times", "waited",
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
        self.before = (0, 0, 0, 0)  # what had been counted at the last `cache_clear()`
        self.hit_seconds: deque[float] = deque(maxlen=4096)  # L2 hits, until the next pump
        self.miss_seconds: deque[float] = deque(maxlen=4096)  # misses, until the next pump

    def take_in(self) -> None:
        """Count the loads that the native core ran since the last time. Whoever reads the counts calls this first."""
        loads, seconds = self._take_loads()
        if loads:
            self.miss_seconds.extend(seconds)
            self.misses += loads
            self.loads += loads

    def counted(self) -> tuple[int, int, int, int]:
        """Hits of L1 and of L2, misses, errors."""
        self.take_in()
        return (self.l1_hits(), self.l2_hits, self.misses, sum(list(self.errors.values())))

    def since_clear(self) -> tuple[int, ...]:
        """The same since the last `cache_clear()`."""
        before = self.before  # first: what another thread clears meanwhile must not be taken off twice
        return tuple([count - less for count, less in zip(self.counted(), before, strict=True)])

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
