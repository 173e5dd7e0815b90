"""Version stamps: random ids that a tag, a function or a region has in L2, and their cached copies, the cells.

An entry carries the stamps it was computed under. A clear deletes the stamp, the next loader makes a new one, and
everything under the old one is outdated at once. Stamps are compared for equality only, so a stamp lost by eviction or
failover is merely a clear that nobody asked for.
"""

import os
from collections.abc import Iterable, Sequence
from math import inf
from typing import Final

STAMP_BYTES: Final = 8
NO_STAMP: Final = bytes(STAMP_BYTES)  # for backends that have no stamps, and where no function is involved
MAX_CELLS: Final = 20_000
DAY_MS: Final = 86_400_000
LONGEST_MS: Final = 3650 * DAY_MS


class Cells:
    """Stamps known to this process.

    One that was asked for while L2 told of changes is trusted until it is told of, or until ``alive_until``, when that
    telling was last proven to work plus ``lifetime``. Any other is trusted for ``lifetime`` seconds. Neither is after a
    local clear. Its owner's lock guards `put` and `forget`; `get` is a plain look-up.
    """

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime
        self._cells: dict[str, tuple[bytes, float]] = {}
        self._event = 0
        self._gone: dict[str, int] = {}  # when a name was forgotten last
        self._floor = 0  # ... and any name that is not in there
        self.alive_until = 0.0

    def get(self, names: Sequence[str], now: float) -> list[bytes] | None:
        """All of these stamps if all are known and young enough, else None."""
        known = self.look(names, now)
        return None if known is None else known[0]

    def look(self, names: Sequence[str], now: float) -> tuple[list[bytes], float] | None:
        """As `get`, and the time since which a clear by somebody else may be unknown here."""
        cells, found, first = self._cells, [], inf
        try:
            for name in names:
                stamp, until = cells[name]
                found.append(stamp)
                if not until:
                    until = self.alive_until
                if until < first:
                    first = until
        except KeyError:
            return None
        return None if now >= first else (found, first - self._lifetime)

    def ticket(self) -> int:
        """Take one before asking L2."""
        return self._event

    def put(self, names: Sequence[str], stamps: Sequence[bytes], now: float, ticket: int, live: bool = False) -> None:
        """Remember what L2 answered, but not what was cleared since ``ticket``.

        ``live``: L2 told of changes when the ticket was taken, and has done so since.
        """
        if len(self._cells) + len(names) > MAX_CELLS:
            self._cells.clear()  # costs one more question per stamp, nothing else
        until = 0.0 if live else now + self._lifetime
        for name, stamp in zip(names, stamps, strict=True):
            if self._gone.get(name, self._floor) <= ticket:
                self._cells[name] = (stamp, until)

    def forget(self, names: Iterable[str]) -> None:
        """These were cleared."""
        self._event += 1
        for name in names:
            self._cells.pop(name, None)
            self._gone[name] = self._event
        if len(self._gone) > MAX_CELLS:
            self._gone.clear()
            self._floor = self._event

    def forget_all(self) -> None:
        """After a fork, a loss of the connection, or when L2 begins to tell of changes."""
        self._event += 1
        self._floor = self._event
        self._gone.clear()
        self._cells.clear()

    def __contains__(self, name: str) -> bool:
        return name in self._cells

    def names(self) -> list[str]:
        """Of all stamps that are known."""
        return list(self._cells)


def fresh_stamps(count: int) -> list[bytes]:
    """New ids from the kernel: never from a seeded generator, which forked children would share."""
    drawn = os.urandom(STAMP_BYTES * count)
    return [drawn[at : at + STAMP_BYTES] for at in range(0, len(drawn), STAMP_BYTES)]


def stamp_life_ms(ttl: float | None) -> int:
    """How long a stamp must live at least: twice the longest entry under it."""
    if ttl is None:
        return LONGEST_MS
    return min(max(int(ttl * 2000), 2 * DAY_MS), LONGEST_MS)
