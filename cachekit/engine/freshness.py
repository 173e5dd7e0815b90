"""How long an entry lives: soft and hard end, the cap in L1, when to refresh it early. Pure: values and draws in, times
out."""

import math
from typing import Final, NamedTuple

from cachekit.config.spec import RegionSpec

MAX_JITTER: Final = 60.0  # seconds
EARLY_FROM: Final = 10.0  # seconds of TTL from which `early_refresh = "auto"` is on
LONGEST_PAUSE: Final = 300.0  # seconds for which a source that keeps failing is left alone
NEVER_MS: Final = 2**63 - 1
NEVER_NS: Final = 2**63 - 1  # on the table's clock


class Life(NamedTuple):
    """The ends of a new entry, as seconds from now; None means never. Between soft and hard it is stale."""

    soft: float | None
    hard: float | None

    @property
    def ttl_ms(self) -> int | None:
        """What L2 is told, at least a millisecond."""
        return None if self.hard is None else max(1, round(self.hard * 1000))


def life(ttl: float | None, spec: RegionSpec, draw: float, stale_ttl: float | None = None) -> Life:
    """The life of an entry with this TTL in seconds. ``draw`` in [0, 1) spreads the end: jitter only ever lengthens."""
    if ttl is None:
        return Life(None, None)
    soft = ttl + spread(ttl, spec) * draw
    return Life(soft, soft + (spec.freshness.stale_ttl if stale_ttl is None else stale_ttl))


def spread(ttl: float, spec: RegionSpec) -> float:
    """Seconds that jitter adds to a TTL at most."""
    return min(ttl * spec.jitter if spec.jitter_is_share else spec.jitter, MAX_JITTER)


def longest(ttl: float | None, spec: RegionSpec) -> tuple[int, int, int]:
    """The same in ns for those who draw themselves: TTL, what may be added to it, and how long L1 keeps anything."""
    hard = life(ttl, spec, 1.0).soft
    cap = NEVER_NS if spec.l1.ttl is None else int(spec.l1.ttl * 1e9)
    if ttl is None or hard is None:
        return NEVER_NS, 0, cap
    return int(ttl * 1e9), int((hard - ttl) * 1e9), cap


def beta(spec: RegionSpec, ttl: float | None) -> float:
    """How eagerly an entry with this TTL is refreshed early; 0: not at all."""
    wanted = spec.freshness.early_refresh
    if ttl is None or wanted == "off":
        return 0.0
    if isinstance(wanted, str):  # auto
        return 1.0 if ttl >= EARLY_FROM else 0.0
    return wanted


def early(soft: float, load_seconds: float, eagerness: float, draw: float, requests: float = 0.0) -> float:
    """Seconds from now at which an entry that ends after ``soft`` should be refreshed, never in the first half.

    XFetch (Vattani, Chierichetti, Lowenstein: "Optimal probabilistic cache stampede prevention", VLDB 2015), with the
    draw made once when the entry is stored and not at each hit. For one caller that is the same law: the share of
    entries refreshed at least ``t`` before their end is exp(-t / (load * beta)). Of many callers the earliest draw
    counts, and the expected greatest of n exponential draws is about ln n: ``requests`` is how many come while a load
    takes its time, so that the more of them there are, the surer the refresh ends in time. ``draw`` is in [0, 1).
    """
    return max(soft + load_seconds * eagerness * (math.log1p(-draw) - math.log1p(requests)), soft / 2)


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
