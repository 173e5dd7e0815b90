"""How long a lease lasts, whether waiting for another's pays, and which leases this process must renew. Pure."""

import threading
from typing import Final, NamedTuple

from cachekit.l2.times import Times

FIRST: Final = 5.0  # seconds, while nothing is known of the function
SHORTEST, LONGEST = 2.0, 30.0
FACTOR: Final = 3.0  # times P99
UNRENEWED_MS: Final = 60_000  # where nobody renews: it must outlive slow functions, and only storing depends on it
ENOUGH: Final = 20  # loads before they say that a function is fast
FAST: Final = 0.002  # seconds; computing it again costs less than waiting for another process


def lease_ms(times: Times) -> int:
    """The length of a lease: three times what loads take, since whoever died with one makes others wait so long."""
    if not times.seen:
        return int(FIRST * 1000)
    return int(min(max(FACTOR * times.quantile(0.99), SHORTEST), LONGEST) * 1000)


def is_fast(times: Times) -> bool:
    """Whether nearly all loads were so short that waiting for another process is not worth it."""
    return times.seen >= ENOUGH and times.quantile(0.95) < FAST


class Held(NamedTuple):
    """A lease of this process. The value of its load will be stored under ``stamps``."""

    key: str
    token: bytes
    ms: int
    due: float  # when it is to be renewed
    stamps: object


class Leases:
    """The leases that this process holds at one backend, and those that it may hold without knowing.

    Each of the first is renewed when a third of it has passed. One of the others was asked for, and no answer came:
    unless it is given back, everybody waits for its end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[bytes, Held] = {}
        self._unsure: dict[str, tuple[bytes, float]] = {}  # key -> token, when it ends at the latest

    def __len__(self) -> int:
        return len(self._held)

    @property
    def any(self) -> bool:
        """Whether this process has a lease, or may have one."""
        return bool(self._held or self._unsure)

    def hold(self, key: str, token: bytes, ms: int, now: float, stamps: object) -> None:
        """Granted just now."""
        with self._lock:
            self._held[token] = Held(key, token, ms, now + ms / 3000, stamps)

    def end(self, token: bytes) -> None:
        """Given back, or of no use any more."""
        with self._lock:
            self._held.pop(token, None)

    def stamps(self, key: str) -> list[object]:
        """Of the loads of this process that have a lease of this key."""
        with self._lock:
            return [held.stamps for held in self._held.values() if held.key == key]

    def unsure(self, key: str, token: bytes, ms: int, now: float) -> None:
        """Asked for, and not answered."""
        with self._lock:
            self._unsure[key] = (token, now + ms / 1000)

    def to_release(self, now: float, key: str | None = None) -> list[tuple[str, bytes]]:
        """What should be given back to be sure, of this key or of all; it is the caller's business from now on."""
        with self._lock:
            keys = list(self._unsure) if key is None else [key] if key in self._unsure else []
            return [(each, token) for each in keys if now < (found := self._unsure.pop(each))[1] for token in found[:1]]

    def all(self) -> list[Held]:
        """Those of loads that still run."""
        with self._lock:
            return list(self._held.values())

    def due(self, now: float) -> list[Held]:
        """What must be renewed now; counted as renewed."""
        with self._lock:
            found = [held for held in self._held.values() if now >= held.due]
            for held in found:
                self._held[held.token] = held._replace(due=now + held.ms / 3000)
        return found

    def after_fork(self) -> None:
        """In a forked child: the parent computes, and renews."""
        self._lock = threading.Lock()
        self._held = {}
        self._unsure = {}
