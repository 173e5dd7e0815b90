"""What was invalidated when: one event number, so that a value read before an invalidation is never stored after it."""

from collections.abc import Iterable
from threading import RLock

STRIPES = 1024
MAX_TAGS = 16_384


class Versions:
    """The invalidations of one service, in the order in which they happened.

    Whoever reads a value from its source takes a `ticket` first; what was read may be stored only if nothing that
    covers its key was invalidated since (`allows`). The tables share ``lock``: they hold it from this question to the
    insertion, and an invalidation holds it from its ``bump_...`` to the removal of the entries. It is reentrant because
    finalizers and signal handlers run on any thread, also on one that holds it.

    The numbers change in straight lines of code without a call in them: neither a signal nor the garbage collector can
    come between counting up and writing down.
    """

    __slots__ = ("_all", "_event", "_floor", "_keys", "_regions", "_slot", "_slots", "_tags", "lock")

    def __init__(self) -> None:
        self.lock = RLock()
        self._event = 0
        self._all = 0
        self._floor = 0  # the number of every tag that is not in _tags
        self._keys = [0] * STRIPES  # several keys share a number: a collision only refuses a put
        self._tags: dict[str, int] = {}  # in the order of their numbers
        self._slots: dict[int, int] = {}
        self._regions: dict[str, int] = {}
        self._slot = 0

    def new_slot(self) -> int:
        """A number that no other slot of this service has; never 0."""
        with self.lock:
            self._slot += 1
            return self._slot

    def ticket(self) -> int:
        """The number of the latest event. Needs no lock; take it before the source is read."""
        return self._event

    def bump_key(self, khash: int) -> None:
        """The key was invalidated."""
        with self.lock:
            self._event += 1
            self._keys[khash % STRIPES] = self._event

    def bump_tags(self, tags: Iterable[str]) -> None:
        """Everything with one of these tags was invalidated."""
        names = tuple(tags)
        with self.lock:
            self._event += 1
            for tag in names:
                self._tags.pop(tag, None)  # back to the end of the order
                self._tags[tag] = self._event
            if len(self._tags) > MAX_TAGS:
                self._forget_tags()

    def _forget_tags(self) -> None:
        """Drop the older half. Every tag without a number then counts as invalidated when the last of them was."""
        tags = list(self._tags.items())
        half = len(tags) // 2
        self._floor = tags[half - 1][1]
        self._tags = dict(tags[half:])

    def bump_slot(self, slot: int) -> None:
        """Every entry of a function was invalidated."""
        with self.lock:
            self._event += 1
            self._slots[slot] = self._event

    def bump_region(self, region: str) -> None:
        """Every entry of a region was invalidated."""
        with self.lock:
            self._event += 1
            self._regions[region] = self._event

    def bump_all(self) -> None:
        """Anything may have been invalidated."""
        with self.lock:
            self._event += 1
            self._all = self._event

    def allows(self, ticket: int, khash: int, tags: Iterable[str], slot: int, region: str) -> bool:
        """Whether nothing that covers the key was invalidated after the ticket. Ask under ``lock``."""
        return (
            ticket >= self._all
            and ticket >= self._keys[khash % STRIPES]
            and ticket >= self._slots.get(slot, 0)
            and ticket >= self._regions.get(region, 0)
            and all(ticket >= self.tag_event(tag) for tag in tags)
        )

    def tag_event(self, tag: str) -> int:
        """The number of the tag's last invalidation, or a later one if that number was dropped. Needs no lock."""
        return self._tags.get(tag, self._floor)

    def reset_lock(self) -> None:
        """In a forked child: the thread that held the lock does not exist here."""
        self.lock = RLock()
