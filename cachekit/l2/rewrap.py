"""Brings what lies in L2 under older keys under the present one: each entry is replaced by itself, closed anew.

One page of keys is looked at after the other. An entry is stored with the rest of its life, and only if it is still the
one that was read. So it may be ended at any time, begun again, and run while the cache is in use.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from cachekit.backends.base import SEEN_BYTES, TOKEN_BYTES, BaseBackend
from cachekit.codec.envelope import Damaged, closed_by, pack
from cachekit.codec.opening import USES, Opener, place_of
from cachekit.errors import BackendError

PAGE: Final = 200  # keys that are looked at in one step
NEEDED: Final = frozenset({"scan", "store_if", "remaining"})
TRIES: Final = 5  # of one operation
PAUSE: Final = 0.2  # seconds before the second, doubling

Outcome: TypeAlias = Literal["plain", "current", "older", "rewrapped", "replaced", "unreadable"]


class Seen(NamedTuple):
    """What was found under a key, and what became of it."""

    region: str
    outcome: Outcome
    key_id: bytes = b""  # as the entry says it; of older and unreadable ones
    reason: str = ""  # why it cannot be read: one of the labels of `Damaged`


class Rewrap:
    """One walk over a backend.

    ``protected`` are the regions where nothing is plain; entries that are closed are taken up in every region, since
    decorators may close them too. Without ``write`` it only looks: what is to be done counts as older.
    """

    def __init__(
        self,
        backend: BaseBackend,
        budget: float,
        namespace: str,
        opener: Opener,
        protected: Collection[str],
        regions: Collection[str] = (),
        *,
        write: bool = True,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._backend = backend
        self._budget = budget
        self._prefix = f"{namespace}:v:{{"
        self._opener = opener
        self._protected = protected
        self._regions = regions  # empty: all
        self._write = write
        self._sleep = sleep

    def pages(self) -> Iterator[Iterator[Seen]]:
        """Page by page what was found, each entry once it is done: whoever is interrupted knows what was. Raises
        `BackendError` when the backend stays away."""
        # One prefix for all regions: a server looks at all of its keys anyway.
        cursor = ""
        while True:
            cursor, page = self._ask("scan", self._prefix, cursor, PAGE)
            yield (seen for key, head in page if (seen := self._take(key, head)) is not None)
            if not cursor:
                return

    def _take(self, key: str, head: bytes) -> Seen | None:
        place = place_of(key)
        if place is None or (self._regions and place.region not in self._regions):
            return None
        closed = closed_by(head)
        if closed is None or not closed[0]:
            if place.region not in self._protected:
                return Seen(place.region, "plain")
            return Seen(place.region, "unreadable", reason="magic" if closed is None else "unsealed")
        if closed[1] and closed[1] == self._opener.present(USES[closed[0]]):
            return Seen(place.region, "current", closed[1])
        data = self._ask("get", key)
        return Seen(place.region, "replaced") if data is None else self._renew(place.region, key, data)

    def _renew(self, region: str, key: str, data: bytes) -> Seen:
        use, key_id = closed_by(data) or (0, b"")
        try:
            header, payload, lock = self._opener.open(key, data)
        except Damaged as damage:
            return Seen(region, "unreadable", key_id, damage.reason)
        if lock is None or key_id == lock.key_id:
            return Seen(region, "current" if use else "replaced", key_id)
        if not self._write:
            return Seen(region, "older", key_id)
        anew = pack(header._replace(id=os.urandom(TOKEN_BYTES)), bytes(payload), key, lock)
        left = self._ask("remaining", key)
        if left is False or not self._ask("store_if", key, anew, left, data[:SEEN_BYTES], False):
            return Seen(region, "replaced", key_id)
        return Seen(region, "rewrapped", key_id)

    def _ask(self, operation: str, *arguments: Any) -> Any:
        """One operation, again if the backend is away for a moment."""
        pause = PAUSE
        for attempt in range(1, TRIES + 1):
            try:
                return getattr(self._backend, operation)(*arguments, budget=self._budget)
            except BackendError as error:
                if attempt == TRIES or error.reason == "noperm":
                    raise
            self._sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")
