"""Version stamps: random ids that a tag, a function or a region has in L2, and their cached copies, the cells.

An entry carries the stamps it was computed under. A clear deletes the stamp, the next loader makes a new one, and
everything under the old one is outdated at once. Stamps are compared for equality only, so a stamp lost by eviction or
failover is merely a clear that nobody asked for.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Final

STAMP_BYTES: Final = 8
NO_STAMP: Final = bytes(STAMP_BYTES)  # for backends that have no stamps, and where no function is involved
MAX_CELLS: Final = 20_000
DAY_MS: Final = 86_400_000
LONGEST_MS: Final = 3650 * DAY_MS


class Cells:
    """Stamps known to this process. A cell is trusted for ``lifetime`` seconds, and not after a local clear.

    Its owner's lock guards `put` and `forget`; `get` is a plain look-up.
    """

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime
        self._cells: dict[str, tuple[bytes, float]] = {}
        self._event = 0

    def get(self, names: Sequence[str], now: float) -> list[bytes] | None:
        """All of these stamps if all are known and young enough, else None."""
        found = []
        for name in names:
            cell = self._cells.get(name)
            if cell is None or now >= cell[1]:
                return None
            found.append(cell[0])
        return found

    def asked(self, names: Sequence[str]) -> float:
        """When the oldest of these was asked for: what was cleared elsewhere since then may be unknown here."""
        return min(self._cells.get(name, (NO_STAMP, 0.0))[1] for name in names) - self._lifetime

    def ticket(self) -> int:
        """Take one before asking L2."""
        return self._event

    def put(self, names: Sequence[str], stamps: Sequence[bytes], now: float, ticket: int) -> None:
        """Remember what L2 answered, unless something was cleared since ``ticket``."""
        if ticket != self._event:
            return
        if len(self._cells) + len(names) > MAX_CELLS:
            self._cells.clear()  # costs one more question per stamp, nothing else
        until = now + self._lifetime
        self._cells.update(zip(names, [(stamp, until) for stamp in stamps], strict=True))

    def forget(self, names: Iterable[str]) -> None:
        """These were cleared by this process."""
        self._event += 1
        for name in names:
            self._cells.pop(name, None)

    def forget_all(self) -> None:
        """After a fork or a loss of the connection."""
        self._event += 1
        self._cells.clear()


def fresh_stamps(count: int) -> list[bytes]:
    """New ids from the kernel: never from a seeded generator, which forked children would share."""
    drawn = os.urandom(STAMP_BYTES * count)
    return [drawn[at : at + STAMP_BYTES] for at in range(0, len(drawn), STAMP_BYTES)]


def stamp_life_ms(ttl: float | None) -> int:
    """How long a stamp must live at least: twice the longest entry under it."""
    if ttl is None:
        return LONGEST_MS
    return min(max(int(ttl * 2000), 2 * DAY_MS), LONGEST_MS)
