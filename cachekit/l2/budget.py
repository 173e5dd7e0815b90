"""How long the next operation on a backend may take: a multiple of what operations took lately. Pure."""

from typing import Final

from cachekit.config.spec import BackendSpec
from cachekit.l2.times import Times

FACTOR: Final = 3.0  # times P99
SHARE: Final = 0.99
ENOUGH: Final = 50  # samples before they say anything
RENEW_EVERY: Final = 32  # the result is recomputed after so many samples
TRUST_AFTER: Final = 5  # successes after a failure before the budget is narrowed again


class Budget:
    """The seconds that the next operation gets.

    Threads may share it without a lock: a lost count changes nothing that matters.
    """

    __slots__ = ("_adaptive", "_ceiling", "_current", "_distrust", "_floor", "_latest", "_times")

    def __init__(self, spec: BackendSpec) -> None:
        self._ceiling = spec.budget
        self._floor = min(spec.budget_min, spec.budget)
        self._adaptive = spec.adaptive
        self._times = Times()
        self._latest: list[float] = []  # taken into account when there are enough, which costs less than one by one
        self._distrust = 0
        self._current = spec.budget

    def next(self) -> float:
        """The full budget while little is known, after a failure and when not adaptive; else clamp(3 x P99)."""
        return self._ceiling if self._distrust else self._current

    def observe(self, seconds: float, censored: bool) -> None:
        """Record how long an operation took; ``censored`` when it was given up, so that it would have taken longer.

        One that was given up counts double its time: if it counted as what it was given, or not at all, the slow ones
        would vanish from the samples and the budget would shrink to what the quick ones need.
        """
        if not self._adaptive:
            return
        if censored:
            seconds *= 2
            self._distrust = TRUST_AFTER
        elif self._distrust:
            self._distrust -= 1
        self._latest.append(seconds)
        if censored or len(self._latest) >= RENEW_EVERY:
            self._renew()

    def reconnecting(self) -> None:
        """The next operations open new connections, which takes longer than what was measured."""
        if self._adaptive:
            self._distrust = TRUST_AFTER

    def _renew(self) -> None:
        latest, self._latest = self._latest, []
        for seconds in latest:
            self._times.add(seconds)
        self._times.fade()
        if self._times.seen >= ENOUGH:
            self._current = min(max(FACTOR * self._times.quantile(SHARE), self._floor), self._ceiling)
