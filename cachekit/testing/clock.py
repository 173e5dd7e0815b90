"""A clock that stands still until it is told to move."""

import threading
import time


class FrozenClock:
    """Monotonic and wall time for tests; calling it gives the monotonic seconds. Safe to share between threads.

    >>> clock = FrozenClock()
    >>> before = clock.now()
    >>> clock.advance("5m")
    >>> clock.now() - before
    300.0
    """

    # Far from zero, so that a forgotten time of 0.0 is always in the past; whole seconds, so that sums are exact.
    START_NS = 1_000_000 * 10**9

    def __init__(self, *, wall: float | None = None) -> None:
        self._lock = threading.Lock()
        self._ns = self.START_NS
        self._wall_offset_ns = int(time.time() if wall is None else wall) * 10**9 - self._ns

    def __call__(self) -> float:
        return self.now()

    def now(self) -> float:
        """Monotonic seconds."""
        return self._ns / 10**9  # of integers: exact to the last digit

    def ns(self) -> int:
        """Monotonic nanoseconds."""
        return self._ns

    def wall(self) -> float:
        """Seconds since 1970."""
        return (self._ns + self._wall_offset_ns) / 10**9

    def advance(self, by: float | str) -> None:
        """Move on by seconds or by a duration like "5m". ValueError when that is negative."""
        nanoseconds = round(seconds(by) * 1e9)
        if nanoseconds < 0:
            raise ValueError("a clock does not go back; use jump_wall() for a changed system time")
        with self._lock:
            self._ns += nanoseconds

    def jump_wall(self, by: float | str) -> None:
        """Change the wall time alone, forwards or backwards, as when somebody sets the system's clock."""
        with self._lock:
            self._wall_offset_ns += round(seconds(by) * 1e9)


def seconds(duration: float | str) -> float:
    if not isinstance(duration, str):
        return float(duration)
    from cachekit.config.units import parse_duration  # numbers need no parser

    parsed = parse_duration(duration, zero=True)
    if parsed is None:
        raise ValueError(f"{duration!r} is not a time to wait")
    return float(parsed)
