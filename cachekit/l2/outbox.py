"""Invalidations that L2 has not heard yet; the last act per name counts.

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


class Outbox:
    """A bounded set of undelivered invalidations. Its owner's lock guards it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._serial = 0
        self._keys: dict[str, tuple[int, str]] = {}  # value key -> when queued, the region's stamp for an overflow
        self._stamps: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._keys) + len(self._stamps)

    def add(self, keys: Iterable[str], stamps: Iterable[str], region_stamp: str = "") -> None:
        """Keep for later. More than the limit collapses into one clear per region, which is always safe."""
        self._serial += 1
        self._keys.update(dict.fromkeys(keys, (self._serial, region_stamp)))
        self._stamps.update(dict.fromkeys(stamps, self._serial))
        if len(self) > self._limit:
            self._stamps.update({name: self._serial for _, name in self._keys.values()})
            self._keys.clear()

    def peek(self) -> Pending:
        """What is to be delivered now."""
        return Pending(tuple(self._keys), tuple(self._stamps), self._serial)

    def delivered(self, pending: Pending) -> None:
        """Forget what has been delivered, but not what was queued again meanwhile."""
        for key in pending.keys:
            if key in self._keys and self._keys[key][0] <= pending.serial:
                del self._keys[key]
        for name in pending.stamps:
            if self._stamps.get(name, pending.serial + 1) <= pending.serial:
                del self._stamps[name]
