"""How long the next operation on a backend may take: a multiple of what operations took lately. Pure.

The samples lie in a histogram whose buckets grow by about a quarter, so that recording one costs the same as ever and
nothing is sorted. It fades: after every `FADE_EVERY` samples all counts are halved.
"""

from typing import Final

from cachekit.config.spec import BackendSpec

FACTOR: Final = 3.0  # times P99
SHARE: Final = 0.99
ENOUGH: Final = 50  # samples before they say anything
FADE_EVERY: Final = 1024
RENEW_EVERY: Final = 32  # the result is recomputed after so many samples
TRUST_AFTER: Final = 5  # successes after a failure before the budget is narrowed again
SUB_BITS: Final = 2  # 4 buckets per doubling
BUCKETS: Final = 32 << SUB_BITS  # up to an hour in microseconds


class Budget:
    """The seconds that the next operation gets.

    Threads may share it without a lock: a lost count changes nothing that matters.
    """

    __slots__ = ("_adaptive", "_ceiling", "_counts", "_current", "_distrust", "_floor", "_seen", "_since_fade")

    def __init__(self, spec: BackendSpec) -> None:
        self._ceiling = spec.budget
        self._floor = min(spec.budget_min, spec.budget)
        self._adaptive = spec.adaptive
        self._counts = [0.0] * BUCKETS
        self._seen = 0
        self._since_fade = 0
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
        self._counts[bucket(seconds)] += 1
        self._seen += 1
        self._since_fade += 1
        if censored or self._seen % RENEW_EVERY == 0:
            self._renew()

    def reconnecting(self) -> None:
        """The next operations open new connections, which takes longer than what was measured."""
        if self._adaptive:
            self._distrust = TRUST_AFTER

    def _renew(self) -> None:
        if self._since_fade >= FADE_EVERY:
            self._counts = [count / 2 for count in self._counts]
            self._since_fade = 0
        if self._seen >= ENOUGH:
            self._current = min(max(FACTOR * self._p99(), self._floor), self._ceiling)

    def _p99(self) -> float:
        left = (1.0 - SHARE) * sum(self._counts)
        for index in range(BUCKETS - 1, 0, -1):
            left -= self._counts[index]
            if left < 0:
                return upper_end(index)
        return upper_end(0)


def bucket(seconds: float) -> int:
    """Microseconds by their highest bit and the two below it."""
    micros = int(seconds * 1e6) + 1
    high = micros.bit_length() - 1
    if high < SUB_BITS:
        return 0
    index = (high << SUB_BITS) + ((micros >> (high - SUB_BITS)) & ((1 << SUB_BITS) - 1))
    return index if index < BUCKETS else BUCKETS - 1


def upper_end(index: int) -> float:
    """The seconds below which everything in a bucket lies."""
    high, low = index >> SUB_BITS, index & ((1 << SUB_BITS) - 1)
    return ((1 << SUB_BITS) + low + 1) * 2.0 ** (high - SUB_BITS) / 1e6
