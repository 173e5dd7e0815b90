"""Decides from the faults of a backend whether it is asked at all. Pure; the clock is passed in.

There are two circuits. Faults of the whole backend open the first, which stops everything. Faults that only writes
meet (memory full, read-only replica) open the second, and reads go on.
"""

import threading
from enum import Enum
from math import inf
from typing import Final, Literal, TypeAlias

from cachekit.config.spec import BreakerSpec
from cachekit.errors import Fault

MIN_CALLS: Final = 20  # before the ratio of failures says anything
LATE: Final = 2  # what a failure counts in a row that took its whole budget: callers waited for it

State: TypeAlias = Literal["closed", "open", "half_open"]


class Gate(Enum):
    """What a call may do. Who got a PROBE should record how it ended; if that never comes, another probe follows."""

    GO = "go"
    PROBE = "probe"
    OPEN = "open"


class Breaker:
    """The circuit breaker of one backend. After any answer of `allow` but OPEN, `record` is called. Thread-safe."""

    __slots__ = ("_all", "_lock", "_writes")

    def __init__(self, spec: BreakerSpec) -> None:
        self._lock = threading.Lock()
        self._all = Circuit(spec)
        self._writes = Circuit(spec)

    def allow(self, now: float, write: bool) -> Gate:
        """Whether an operation may be sent at ``now`` (monotonic seconds)."""
        if self._all.closed and (self._writes.closed or not write):
            return Gate.GO
        with self._lock:
            circuits = (self._all, self._writes) if write else (self._all,)
            waiting = [circuit for circuit in circuits if not circuit.closed]
            if not waiting:
                return Gate.GO
            if not all(circuit.due(now) for circuit in waiting):
                return Gate.OPEN
            for circuit in waiting:
                circuit.probe(now)
            return Gate.PROBE

    def record(
        self, now: float, fault: Fault | None, write: bool, *, late: bool = False, began: float | None = None
    ) -> None:
        """How an operation ended: ``None`` when the backend answered as it should. ``late``: its budget ended it.

        ``began`` is when it was allowed. A failure of one that began before the last probe, or before the last sign of
        life, is no news.
        """
        if fault is None and self._all.quiet(now) and (not write or self._writes.quiet(now)):
            return
        with self._lock:
            began = now if began is None else began
            failed = fault in (Fault.DOWN, Fault.CONFIG)
            self._all.record(now, began, failed=failed, hopeless=fault is Fault.CONFIG, late=late)
            if write and (fault is not Fault.DOWN or not self._writes.closed):
                # What stops everybody is no news about writes, but it does end their probe.
                self._writes.record(now, began, failed=fault not in (None, Fault.COMMAND), hopeless=False, late=late)

    def hasten(self, now: float) -> None:
        """There is a sign of life: who is to try next need not wait any longer, even for a probe under way.

        What that one was sent to may be what the backend has just replaced: a primary that is gone.
        """
        with self._lock:
            for circuit in (self._all, self._writes):
                circuit.hasten(now)

    def state(self, now: float, write: bool = False) -> State:
        """Of the backend as a whole, or of writing to it. "half_open": a probe is under way or due."""
        with self._lock:
            circuit = self._writes if write and self._all.closed else self._all
            if circuit.closed:
                return "closed"
            return "half_open" if circuit.probing or circuit.due(now) else "open"


class Circuit:
    """One switch: closed, or open until its next probe. Not locked."""

    __slots__ = (
        "_alive", "_bad", "_calls", "_hold", "_news", "_row", "_since", "_spec", "_until", "_window", "closed",
        "probing",
    )  # fmt: skip

    def __init__(self, spec: BreakerSpec) -> None:
        self._spec = spec
        self._window = spec.window
        self._hold = spec.open_for
        self._until = 0.0  # open: when the next probe is due
        self._news = -inf  # a failure of what began before is no news
        self._alive = -inf  # the last sign of life that made news
        self.closed = True
        self.probing = False
        self._start_counting(0.0)

    def due(self, now: float) -> bool:
        return now >= self._until

    def probe(self, now: float) -> None:
        # Should its caller vanish, the next probe is due after the ordinary time.
        self.probing = True
        self._news = now
        self._until = now + self._spec.open_for

    def hasten(self, now: float) -> None:
        self._hold = self._spec.open_for
        if now - self._alive >= self._spec.open_for:  # one that comes and goes would excuse all failures
            self._alive = self._news = now
            self.probing = False
        if not self.closed and not self.probing:
            self._until = min(self._until, now)

    def record(self, now: float, began: float, *, failed: bool, hopeless: bool, late: bool) -> None:
        if failed and began < self._news:
            return
        if self.closed:
            self._count(now, failed, LATE if late else 1)
            if hopeless or self._too_many():
                self._open(now, self._spec.open_max if hopeless else self._spec.open_for)
        elif self.probing and failed:
            self._open(now, self._spec.open_max if hopeless else min(2 * self._hold, self._spec.open_max))
        elif self.probing:
            self.closed, self.probing = True, False
            self._start_counting(now)
        # else: a straggler from before the circuit opened; it is no news

    def quiet(self, now: float) -> bool:
        """Count a success without a lock, as long as there was no trouble: a lost count changes nothing then."""
        if self._bad or not self.closed or now - self._since > self._window:
            return False
        self._calls += 1
        return True

    def _open(self, now: float, hold: float) -> None:
        self.closed, self.probing = False, False
        self._hold = hold
        self._until = now + hold

    def _start_counting(self, now: float) -> None:
        self._row = 0
        self._calls = self._bad = 0.0
        self._since = now

    def _count(self, now: float, failed: bool, weight: int) -> None:
        if now - self._since > self._spec.window:
            # Fading by half each window forgets old trouble without keeping a list of it; long silence forgets it all.
            keep = 0.5 if now - self._since < 2 * self._spec.window else 0.0
            self._calls, self._bad, self._since = self._calls * keep, self._bad * keep, now
        self._calls += 1
        self._row = self._row + weight if failed else 0
        if failed:
            self._bad += 1

    def _too_many(self) -> bool:
        if self._row >= self._spec.failures:
            return True
        return self._row > 0 and self._calls >= MIN_CALLS and self._bad >= self._spec.ratio * self._calls
