"""What the policies of the table are measured with: requests, and the policies written as plainly as they can be."""

import lzma
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from cachekit.engine.miss import MISS
from cachekit.l1.values import Admission

TRACES = Path(__file__).with_name("traces")
NO_BOUND = 1 << 62

# ------------------------------------------------------------------------------------------------------------ requests


def unpack(data: bytes) -> Sequence[int]:
    """The numbers of a trace, after decompression: four planes of bytes, the lowest bytes of all numbers first."""
    count = len(data) // 4
    planes = [data[plane * count : (plane + 1) * count] for plane in range(4)]
    return [a | b << 8 | c << 16 | d << 24 for a, b, c, d in zip(*planes, strict=True)]


@cache
def web07() -> Sequence[int]:
    """The requests of the recorded trace."""
    return unpack(lzma.decompress((TRACES / "web07.xz").read_bytes()))


def zipf(requests: int, keys: int, churn: int) -> Sequence[int]:
    """Zipf's law with exponent 1 over keys of which the most popular change every ``churn`` requests."""
    rng = random.Random(7)
    weights = list(accumulate(1 / rank for rank in range(1, keys + 1)))
    ranks = rng.choices(range(keys), cum_weights=weights, k=requests)
    return [rank + keys * (position // churn) if rank < keys // 20 else rank for position, rank in enumerate(ranks)]


def one(key: int) -> int:
    """The weight of all keys, if they have the same."""
    return 1


@cache
def lognormal(key: int) -> int:
    """A weight for a key, whose logarithm is distributed normally around that of 1000 with a deviation of 1.5."""
    return max(16, round(1000 * math.exp(random.Random(key).gauss(0, 1.5))))


# ------------------------------------------------------------------------------------------------------------ policies


class Cache(Protocol):
    """Keys without values."""

    def get(self, key: int) -> bool: ...
    def put(self, key: int, weight: int) -> None: ...


class Lru:
    """Who was used last stays."""

    def __init__(self, max_entries: int, max_bytes: int = NO_BOUND) -> None:
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self.weights: OrderedDict[int, int] = OrderedDict()
        self.weight = 0

    def get(self, key: int) -> bool:
        if key in self.weights:
            self.weights.move_to_end(key)
            return True
        return False

    def drop(self, key: int) -> None:
        self.weight -= self.weights.pop(key, 0)

    def put(self, key: int, weight: int) -> None:
        self.drop(key)
        if weight <= self.max_bytes:
            while len(self.weights) >= self.max_entries or self.weight + weight > self.max_bytes:
                self.drop(next(iter(self.weights)))
            self.weights[key] = weight
            self.weight += weight


class S3Fifo:
    """The policy of the table; without ``sized`` S3-FIFO as published, for which all entries are of one size."""

    def __init__(self, max_entries: int, max_bytes: int = NO_BOUND, *, sized: bool = True) -> None:
        self.max_entries, self.max_bytes, self.sized = max_entries, max_bytes, sized
        self.small: OrderedDict[int, int] = OrderedDict()  # key to weight, the oldest first
        self.main: OrderedDict[int, int] = OrderedDict()
        self.ghosts: OrderedDict[int, None] = OrderedDict()
        self.hits: dict[int, int] = {}  # -2 to 3, of each key in a queue
        self.small_weight = self.weight = 0

    def get(self, key: int) -> bool:
        if key in self.hits:
            self.hits[key] = min(self.hits[key] + 1, 3)
            return True
        return False

    def drop(self, key: int) -> None:
        if key in self.hits:
            del self.hits[key]
            queue = self.small if key in self.small else self.main
            self._leave(queue, key)

    def put(self, key: int, weight: int) -> None:
        queue = self.main if key in self.main else self.small
        self.drop(key)
        if weight > self.max_bytes:
            return
        while True:
            crowded = len(self.hits) >= self.max_entries
            if not crowded and self.weight + weight <= self.max_bytes:
                break
            self._evict(self.sized and not crowded)
        if key in self.ghosts:
            del self.ghosts[key]
            queue = self.main
        self._enter(queue, key, weight)
        self.hits[key] = 0

    def _evict(self, sized: bool) -> None:
        while True:
            full = len(self.small) * 10 >= self.max_entries or self.small_weight * 10 >= self.max_bytes
            queue = self.small if self.small and (full or not self.main) else self.main
            key = next(iter(queue))
            hits = self.hits[key]
            credit = self._credit(queue[key]) if sized else 0
            if hits + credit < (2 if queue is self.small else 1) and hits < 3:
                break
            self.hits[key] = 0 if queue is self.small else hits - 1
            self._enter(self.main, key, self._leave(queue, key))
        if queue is self.small:
            self.ghosts[key] = None
            while len(self.ghosts) * 10 > len(self.hits) * 9:
                self.ghosts.popitem(last=False)
        self.drop(key)

    def _credit(self, weight: int) -> int:
        """How many hits a light entry is given, or a heavy one is denied."""
        mean = self.weight / len(self.hits)
        for ratio, credit in [(1 / 4, 2), (1 / 2, 1)]:
            if weight <= mean * ratio:
                return credit
        for ratio, credit in [(4, -2), (2, -1)]:
            if weight >= mean * ratio:
                return credit
        return 0

    def _enter(self, queue: OrderedDict[int, int], key: int, weight: int) -> None:
        queue[key] = weight
        self.weight += weight
        self.small_weight += weight if queue is self.small else 0

    def _leave(self, queue: OrderedDict[int, int], key: int) -> int:
        weight = queue.pop(key)
        self.weight -= weight
        self.small_weight -= weight if queue is self.small else 0
        return weight


class Kept:
    """The table itself, as the policies above: the rig of the tests around it."""

    def __init__(self, rig: Callable[..., Any], **options: Any) -> None:
        self.rig = rig(**options)

    def get(self, key: int) -> bool:
        return self.rig.get(key) is not MISS

    def put(self, key: int, weight: int) -> None:
        self.rig.put(key, value=key, admission=Admission("share", weight, True))


def run(policy: Cache, requests: Sequence[int], weigh: Callable[[int], int] = one) -> Sequence[bool]:
    """Which requests were hits; a miss is put."""
    found = []
    for key in requests:
        hit = policy.get(key)
        found.append(hit)
        if not hit:
            policy.put(key, weigh(key))
    return found


def ratio(hits: Sequence[bool]) -> float:
    """The share of hits in %."""
    return 100 * sum(hits) / len(hits)
