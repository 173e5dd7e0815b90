"""How long something took lately, as a histogram: quantiles without a list of samples. Pure.

The buckets grow by about a quarter, so that recording one costs the same as ever and nothing is sorted. It fades: after
every `FADE_EVERY` samples all counts are halved.
"""

from typing import Final

FADE_EVERY: Final = 1024
SUB_BITS: Final = 2  # 4 buckets per doubling
BUCKETS: Final = 32 << SUB_BITS  # up to an hour in microseconds
_SHIFT: Final = (SUB_BITS - 1) << SUB_BITS


class Times:
    """Samples of seconds. Threads may share it without a lock: a lost count changes nothing that matters."""

    __slots__ = ("_counts", "_faded", "seen")

    def __init__(self) -> None:
        self._counts = [0.0] * BUCKETS
        self._faded = 0  # what `seen` was at the last fading
        self.seen = 0  # samples so far

    def add(self, seconds: float) -> None:
        """Record one."""
        self._counts[bucket(seconds)] += 1.0
        self.seen += 1

    def fade(self) -> None:
        """Halve what is known, if enough has come since; for who asks for quantiles now and then."""
        if self.seen - self._faded >= FADE_EVERY:
            self._counts = [count / 2 for count in self._counts]
            self._faded = self.seen

    def quantile(self, share: float) -> float:
        """The seconds that this share of the samples did not exceed, up to a quarter too long; 0.0 without any."""
        left = (1.0 - share) * sum(self._counts)
        for index in range(BUCKETS - 1, -1, -1):
            left -= self._counts[index]
            if left < 0:
                return upper_end(index)
        return 0.0 if not self.seen else upper_end(0)


def bucket(seconds: float) -> int:
    """Microseconds by their highest bit and the two below it."""
    micros = int(seconds * 1e6) + 1
    below = micros.bit_length() - (1 + SUB_BITS)  # bits that do not count
    if below < 0:
        return 0
    index = (below << SUB_BITS) + (micros >> below) + _SHIFT  # the highest bit is part of what is added
    return index if index < BUCKETS else BUCKETS - 1


def upper_end(index: int) -> float:
    """The seconds below which everything in a bucket lies."""
    high, low = index >> SUB_BITS, index & ((1 << SUB_BITS) - 1)
    return ((1 << SUB_BITS) + low + 1) * 2.0 ** (high - SUB_BITS) / 1e6
