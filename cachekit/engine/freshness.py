"""How long an entry lives: soft and hard end, the cap in L1. Pure: values and a random draw in, times out."""

from typing import Final, NamedTuple

from cachekit.config.spec import RegionSpec

MAX_JITTER: Final = 60.0  # seconds
NEVER_MS: Final = 2**63 - 1
NEVER_NS: Final = 2**63 - 1  # on the table's clock


class Life(NamedTuple):
    """The ends of a new entry, as seconds from now; None means never."""

    soft: float | None
    hard: float | None

    @property
    def ttl_ms(self) -> int | None:
        """What L2 is told, at least a millisecond."""
        return None if self.hard is None else max(1, round(self.hard * 1000))


def life(ttl: float | None, spec: RegionSpec, draw: float) -> Life:
    """The life of an entry with this TTL in seconds. ``draw`` in [0, 1) spreads the end: jitter only ever lengthens."""
    if ttl is None:
        return Life(None, None)
    spread = min(ttl * spec.jitter if spec.jitter_is_share else spec.jitter, MAX_JITTER)
    soft = ttl + spread * draw
    return Life(soft, soft)


def longest(ttl: float | None, spec: RegionSpec) -> tuple[int, int, int]:
    """The same in ns for those who draw themselves: TTL, what may be added to it, and how long L1 keeps anything."""
    hard = life(ttl, spec, 1.0).soft
    cap = NEVER_NS if spec.l1.ttl is None else int(spec.l1.ttl * 1e9)
    if ttl is None or hard is None:
        return NEVER_NS, 0, cap
    return int(ttl * 1e9), int((hard - ttl) * 1e9), cap


def left(created_ms: int, end_ms: int, now_ms: float, hard_ms: int) -> float | None:
    """Seconds until ``end_ms`` of a stored entry, by a reader whose wall clock may differ from the writer's.

    The age is clamped between 0 and the entry's whole life, so that a wrong clock moves an expiry by at most its error
    and never makes an entry eternal.
    """
    if end_ms == NEVER_MS:
        return None
    age = now_ms - created_ms
    if age < 0.0:
        age = 0.0
    if hard_ms != NEVER_MS and age > hard_ms - created_ms:
        age = hard_ms - created_ms
    return (end_ms - created_ms - age) / 1000.0


def earliest(*ends: float | None) -> float | None:
    """The smallest of several ends in seconds, where None means never."""
    given = [end for end in ends if end is not None]
    return min(given) if given else None
