"""Invalidations that L2 has not heard yet, and those that a failover may have undone; the last act per name counts.

All of them are deletions, so repeating one is harmless and their order does not matter, except that they come before
the next read and the next store.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

AT_ONCE: Final = 1000  # invalidations in one operation: they must be done within one budget


class Pending(NamedTuple):
    """What is to be delivered: value keys to invalidate, names of stamps to delete."""

    keys: tuple[str, ...]
    stamps: tuple[str, ...]
    serial: int

    def parts(self) -> "Iterator[Pending]":
        """The same in pieces, each of which one operation can deliver."""
        for start in range(0, len(self.keys), AT_ONCE):
            yield self._replace(keys=self.keys[start : start + AT_ONCE], stamps=())
        for start in range(0, len(self.stamps), AT_ONCE):
            yield self._replace(keys=(), stamps=self.stamps[start : start + AT_ONCE])


class Waiting(NamedTuple):
    """A value key that waits for its invalidation."""

    serial: int
    region_stamp: str  # for an overflow
    until: float  # seconds of the owner's clock; then no entry from before it can live any more


class Outbox:
    """Bounded sets of undelivered and of recent invalidations. Its owner's lock guards it."""

    def __init__(self, limit: int, window: float = 0.0) -> None:
        self._limit = limit
        self._window = window  # seconds for which a delivered one is remembered
        self._serial = 0
        self._keys: dict[str, Waiting] = {}
        self._stamps: dict[str, int] = {}
        self._recent_keys: dict[str, tuple[float, str]] = {}  # in the order of time
        self._recent_stamps: dict[str, float] = {}
        self.waits = False  # whether anything is to be delivered; asked before every operation, so not counted then
        self.dropped = 0  # that were too old to matter

    def __len__(self) -> int:
        return len(self._keys) + len(self._stamps)

    def add(
        self, keys: Iterable[str], stamps: Iterable[str], region_stamp: str = "", until: float = float("inf")
    ) -> None:
        """Keep for later. More than the limit collapses into one clear per region, which is always safe."""
        self.waits = True  # before anything can interrupt us
        self._serial += 1
        self._keys.update(dict.fromkeys(keys, Waiting(self._serial, region_stamp, until)))
        self._stamps.update(dict.fromkeys(stamps, self._serial))
        if len(self) > self._limit:
            self._stamps.update({waiting.region_stamp: self._serial for waiting in self._keys.values()})
            self._keys.clear()
        self.waits = len(self) > 0

    def peek(self) -> Pending:
        """What is to be delivered now."""
        return Pending(tuple(self._keys), tuple(self._stamps), self._serial)

    def delivered(self, pending: Pending, now: float) -> None:
        """L2 has done it now. What was queued again meanwhile stays."""
        for key in pending.keys:
            if key in self._keys and self._keys[key].serial <= pending.serial:
                self.done([key], [], self._keys.pop(key).region_stamp, now)
        for name in pending.stamps:
            if self._stamps.get(name, pending.serial + 1) <= pending.serial:
                del self._stamps[name]
                self.done([], [name], "", now)
        self.waits = len(self) > 0

    def drop_moot(self, now: float) -> None:
        """Forget what can have no entry any more."""
        moot = [key for key, waiting in self._keys.items() if now >= waiting.until]
        for key in moot:
            del self._keys[key]
        self.dropped += len(moot)
        self.waits = len(self) > 0

    # What L2 has done, and a failover may undo

    def done(self, keys: Iterable[str], stamps: Iterable[str], region_stamp: str, now: float) -> None:
        """Remember for a while what L2 has just confirmed."""
        if not self._window:
            return
        for key in keys:
            self._recent_keys.pop(key, None)  # back to the end of the order
            self._recent_keys[key] = (now, region_stamp)
        for name in stamps:
            self._recent_stamps.pop(name, None)
            self._recent_stamps[name] = now
        self._forget(now)
        if len(self._recent_keys) > self._limit:
            self._recent_stamps.update({stamp: now for _, stamp in self._recent_keys.values()})
            self._recent_keys.clear()

    def replay(self, now: float) -> None:
        """L2 may have lost the latest writes: queue again what it confirmed lately."""
        self._forget(now)
        for key, (_, region_stamp) in self._recent_keys.items():
            self.add([key], [], region_stamp)
        self.add([], self._recent_stamps)
        self._recent_keys.clear()
        self._recent_stamps.clear()

    def _forget(self, now: float) -> None:
        oldest = now - self._window
        while self._recent_keys and self._recent_keys[key := next(iter(self._recent_keys))][0] < oldest:
            del self._recent_keys[key]
        while self._recent_stamps and self._recent_stamps[name := next(iter(self._recent_stamps))] < oldest:
            del self._recent_stamps[name]
