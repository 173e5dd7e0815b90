"""The policies keep what is asked for: hit ratios on a recorded trace and on a seeded one, LRU to the digit."""

import lzma
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from cachekit.engine.miss import MISS
from cachekit.l1.values import Admission

Make = Callable[..., Any]
WEIGHT = Admission("share", 1, True)


def web07() -> Sequence[int]:
    """The requests of the recorded trace; the format is in its README."""
    data = lzma.decompress((Path(__file__).parent / "traces" / "web07.xz").read_bytes())
    count = len(data) // 4
    planes = [data[plane * count : (plane + 1) * count] for plane in range(4)]
    return [a | b << 8 | c << 16 | d << 24 for a, b, c, d in zip(*planes, strict=True)]


def zipf(requests: int, keys: int, churn: int) -> Sequence[int]:
    """Zipf's law with exponent 1 over keys of which the most popular change every ``churn`` requests."""
    rng = random.Random(7)
    weights = list(accumulate(1 / rank for rank in range(1, keys + 1)))
    ranks = rng.choices(range(keys), cum_weights=weights, k=requests)
    return [rank + keys * (position // churn) if rank < keys // 20 else rank for position, rank in enumerate(ranks)]


def ratio(rig: Make, requests: Sequence[int], size: int, policy: str, **put: Any) -> float:
    r = rig(max_entries=size, policy=policy)
    for key in requests:
        if r.get(key) is MISS:
            r.put(key, value=key, admission=WEIGHT, **put)
    stats = r.table.stats()
    assert stats.hits + stats.misses == len(requests)
    assert len(r.table) <= size
    return 100 * stats.hits / len(requests)


def exact_lru(requests: Sequence[int], size: int) -> float:
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in requests:
        if key in cache:
            hits += 1
            cache.move_to_end(key)
        else:
            cache[key] = None
            if len(cache) > size:
                cache.popitem(last=False)
    return 100 * hits / len(requests)


@pytest.mark.parametrize(("size", "expected"), [(200, 43.63), (820, 52.96), (2000, 57.97), (5100, 64.15)])
def test_s3fifo_reaches_the_published_hit_ratio_on_a_web_trace(rig: Make, size: int, expected: float) -> None:
    requests = web07()
    assert (len(requests), len(set(requests))) == (76_118, 20_484)
    assert ratio(rig, requests, size, "s3fifo") == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize("size", [200, 2000])
def test_lru_is_exact(rig: Make, size: int) -> None:
    requests = web07()
    assert ratio(rig, requests, size, "lru") == pytest.approx(exact_lru(requests, size), abs=1e-9)


def test_s3fifo_beats_lru_on_zipf_and_follows_popularity_that_moves(rig: Make) -> None:
    steady, moving = zipf(20_000, 2_500, 10**9), zipf(20_000, 2_500, 2_000)
    assert ratio(rig, steady, 125, "s3fifo") > ratio(rig, steady, 125, "lru") + 3
    assert ratio(rig, moving, 125, "s3fifo") > ratio(rig, moving, 125, "lru") - 1


def test_bounds_by_bytes_keep_the_popular_too(rig: Make) -> None:
    """Values of very different weights: the same table with room for the mean weight keeps about as much."""
    requests = zipf(30_000, 3_000, 10**9)
    weights = [random.Random(key).choice([10, 50, 140, 600]) for key in range(3_000)]
    r = rig(max_entries=10**6, max_bytes=200 * 300)
    for key in requests:
        if r.get(key) is MISS:
            r.put(key, admission=Admission("share", weights[key], True))
        assert r.table.weight <= 200 * 300
    popular = Counter(requests).most_common(50)
    assert sum(r.get(key) is not MISS for key, _ in popular) >= 45
    assert 100 * r.table.stats().hits / len(requests) > exact_lru(requests, 300)


def test_expired_entries_go_before_live_ones(rig: Make) -> None:
    """With a time to live of some thousand requests, dead entries do not crowd out those that are alive."""
    r = rig(max_entries=1000)
    requests = zipf(30_000, 5_000, 10**9)
    crowded = 0
    for position, key in enumerate(requests):
        r.clock.now += 1
        if r.get(key) is MISS:
            r.put(key, ttl=600, admission=WEIGHT)
        if position % 1000 == 999:
            crowded += len(r.table)
    assert r.table.stats().evictions["capacity"] == 0
    assert crowded / 30 < 700
