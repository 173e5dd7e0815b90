"""What this process remembers of keys beside their values: a pause after a failure, that nothing is stored, an ETag."""

from collections.abc import Hashable
from math import inf
from typing import Final

from cachekit.engine.freshness import LONGEST_PAUSE

MOST: Final = 10_000  # keys; the oldest is forgotten, which costs a call of the source


class Pauses:
    """Times are seconds of the flow's clock. Threads share it without a lock: what they may lose is one pause."""

    def __init__(self) -> None:
        self.ends: dict[Hashable, tuple[float, float]] = {}  # when it ends, how long it was

    def on(self, key: Hashable, now: float) -> bool:
        """Whether the key is to be left alone."""
        return key in self.ends and now < self.ends.get(key, (0.0,))[0]

    def failed(self, key: Hashable, now: float, first: float) -> None:
        """Another failure: a pause of ``first`` seconds, twice as long each time, up to `LONGEST_PAUSE`."""
        _, before = self.ends.pop(key, (0.0, 0.0))
        self._add(key, now, max(first, min(2 * before, LONGEST_PAUSE)))

    def rest(self, key: Hashable, now: float, seconds: float) -> None:
        """A pause that says nothing of the source."""
        if not self.on(key, now):
            self._add(key, now, seconds)

    def over(self, key: Hashable, since: float = inf) -> None:
        """All was well ``since`` then, so a pause that began before is over."""
        end, seconds = self.ends.get(key, (0.0, 0.0))
        if end - seconds < since:
            self.ends.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self.ends.clear()

    def _add(self, key: Hashable, now: float, seconds: float) -> None:
        if seconds > 0:
            self.ends[key] = (now + seconds, seconds)
        while len(self.ends) > MOST:
            self.ends.pop(next(iter(self.ends), None), None)


class Validators:
    """ETag and date of the values that lie in L1: which value they belong to is told by its ticket."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, str | None, str | None]] = {}

    def put(self, khash: int, ticket: int, etag: str | None, last_modified: str | None) -> None:
        """Of the value that was stored with this ticket."""
        self._known.pop(khash, None)
        if etag is not None or last_modified is not None:
            self._known[khash] = (ticket, etag, last_modified)
        while len(self._known) > MOST:
            self._known.pop(next(iter(self._known), 0), None)

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()

    def get(self, khash: int, ticket: int) -> tuple[str | None, str | None]:
        """Both, if they are known of this very value."""
        found = self._known.get(khash)
        return (None, None) if found is None or found[0] != ticket else found[1:]
