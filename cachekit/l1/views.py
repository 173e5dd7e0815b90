"""What a table shows of itself."""

from typing import Any, Final, NamedTuple

NEVER: Final = 2**63 - 1  # a time that does not come, in ns


class EntryView(NamedTuple):
    """An entry as `Table.entry` saw it. Times are ns of the table's clock."""

    value: Any  # the caller's own copy, if the value can be changed
    fresh_until: int  # never later than the table's `alive`
    keep_until: int
    born: int  # its ticket
    tags: tuple[str, ...]
    load_ms: int
    khash: int
    mode: str  # share, copy, opaque
    negative: bool
    now: int  # when it was looked at
    early: bool  # fresh_until is when to refresh it; the value is good until later
    detached: bool

    @property
    def fresh(self) -> bool:
        """Whether it was fresh."""
        return self.now < self.fresh_until

    @property
    def fresh_for(self) -> float | None:
        """Seconds for which it was still fresh; None: for ever."""
        return None if self.fresh_until >= NEVER else max(0, self.fresh_until - self.now) / 1e9


class Stats(NamedTuple):
    """Counts since the table was made, exact whatever threads do; ``entries`` and ``weight`` are those of now."""

    hits: int
    misses: int
    entries: int
    weight: int
    evictions: dict[str, int]  # by reason: capacity, expired, invalidated
    puts: int
    refused: int
