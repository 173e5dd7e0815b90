"""The policies keep what is asked for: hit ratios on recorded and seeded traces, and every hit as in the models."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
from l1_eviction import NO_BOUND, Kept, Lru, S3Fifo, lognormal, one, ratio, run, web07, zipf

from cachekit.engine.miss import MISS
from cachekit.l1.values import Admission

pytestmark = pytest.mark.slow

Make = Callable[..., Any]
WEIGHT = Admission("share", 1, True)
STEADY = 10**9
SIZES = {200: 43.63, 820: 52.96, 2000: 57.97, 5100: 64.15}  # of S3-FIFO; the mean, 54.68, is that of libCacheSim 0.3.5


@cache
def modelled(policy: Callable[..., Any], *bounds: int, weigh: Callable[[int], int] = one, **options: Any) -> Any:
    """The hits of a model on the recorded trace, found out once for all implementations."""
    return run(policy(*bounds, **options), web07(), weigh)


# --------------------------------------------------------------------------------------------------- bounds by entries


@pytest.mark.parametrize("size", [200, 820, *[pytest.param(size, marks=pytest.mark.slow) for size in (2000, 5100)]])
def test_s3fifo_reaches_the_published_hit_ratio_on_a_web_trace(rig: Make, size: int) -> None:
    requests = web07()
    assert (len(requests), len(set(requests))) == (76_118, 20_484)
    table = Kept(rig, max_entries=size)
    assert ratio(run(table, requests)) == pytest.approx(SIZES[size], abs=0.3)
    assert len(table.rig.table) == size


def test_s3fifo_is_exact_when_entries_bound_it_whatever_they_weigh(rig: Make) -> None:
    assert run(Kept(rig, max_entries=820), web07(), lognormal) == modelled(S3Fifo, 820, sized=False)


def test_lru_is_exact(rig: Make) -> None:
    assert run(Kept(rig, max_entries=820, policy="lru"), web07()) == modelled(Lru, 820)


def test_lru_is_exact_when_bytes_bind(rig: Make) -> None:
    requests = zipf(20_000, 2_500, 2_000)
    table = Kept(rig, max_entries=NO_BOUND, max_bytes=200_000, policy="lru")
    assert run(table, requests, lognormal) == run(Lru(NO_BOUND, 200_000), requests, lognormal)


def test_s3fifo_beats_lru_on_zipf_and_follows_popularity_that_moves(rig: Make) -> None:
    for requests, margin in [(zipf(20_000, 2_500, STEADY), 3), (zipf(20_000, 2_500, 2_000), -1)]:
        ours, lru = (ratio(run(Kept(rig, max_entries=125, policy=policy), requests)) for policy in ("s3fifo", "lru"))
        assert ours > lru + margin


# ----------------------------------------------------------------------------------------------------- bounds by bytes


def test_s3fifo_is_exact_when_bytes_bind_and_weights_are_equal(rig: Make) -> None:
    table = Kept(rig, max_entries=NO_BOUND, max_bytes=820 * 777)
    assert run(table, web07(), lambda key: 777) == modelled(S3Fifo, 820, sized=False)


@pytest.mark.parametrize("max_bytes", [600_000, 6_000_000])
def test_of_values_of_different_weights_more_are_kept_than_by_plain_s3fifo(rig: Make, max_bytes: int) -> None:
    """And not at the price of the large ones: of the bytes that are asked for, not many fewer are hits."""
    table = Kept(rig, max_entries=NO_BOUND, max_bytes=max_bytes)
    found = run(table, web07(), lognormal)
    assert found == modelled(S3Fifo, NO_BOUND, max_bytes, weigh=lognormal)
    plain = modelled(S3Fifo, NO_BOUND, max_bytes, weigh=lognormal, sized=False)
    assert ratio(found) > ratio(plain) + 2
    assert byte_ratio(found) > byte_ratio(plain) - 2.5
    assert table.rig.table.weight <= max_bytes


def byte_ratio(hits: Sequence[bool]) -> float:
    weights = [lognormal(key) for key in web07()]
    return 100 * sum(weight for weight, hit in zip(weights, hits, strict=True) if hit) / sum(weights)


def test_bounds_by_bytes_keep_the_popular_too(rig: Make) -> None:
    """Values of very different weights: the same table with room for the mean weight keeps about as much."""
    requests = zipf(30_000, 3_000, STEADY)
    weights = [random.Random(key).choice([10, 50, 140, 600]) for key in range(3_000)]
    r = rig(max_entries=10**6, max_bytes=200 * 300)
    for key in requests:
        if r.get(key) is MISS:
            r.put(key, admission=Admission("share", weights[key], True))
        assert r.table.weight <= 200 * 300
    popular = Counter(requests).most_common(50)
    assert sum(r.get(key) is not MISS for key, _ in popular) >= 45
    assert 100 * r.table.stats().hits / len(requests) > ratio(run(Lru(300), requests))


@pytest.mark.parametrize(
    ("weight", "others", "needed"),
    [(1, [7], 0), (2, [6], 1), (3, [8], 2), (2, [2], 2), (7, [2, 2], 2), (4, [1, 1], 3), (8, [1, 1, 0, 0], 3)],
)
def test_the_lighter_the_fewer_hits_are_needed(rig: Make, weight: int, others: list[int], needed: int) -> None:
    """At a quarter of the mean weight, a half, a little more than that, the mean, nearly twice, twice, four times."""
    for hits in range(4):
        r = rig(max_entries=NO_BOUND, max_bytes=weight + sum(others))
        r.put("x", admission=Admission("share", weight, True))
        for other, its_weight in enumerate(others):
            r.put(other, admission=Admission("share", its_weight, True))
        for _ in range(hits):
            r.get("x")
        r.put("newcomer", admission=WEIGHT)
        assert (r.get("x") is not MISS) == (hits >= needed)


@pytest.mark.parametrize(("weight", "lost"), [(60, 0), (2_000, 2)])
def test_a_heavy_value_that_is_wanted_stays(rig: Make, weight: int, lost: int) -> None:
    """Though it weighs more than four times the mean; one that fills the small queue may have to come back for it."""
    r = rig(max_entries=NO_BOUND, max_bytes=10_000)
    missed = 0
    for position, key in enumerate(zipf(20_000, 5_000, 2_000)):
        if r.get(key) is MISS:
            r.put(key, admission=Admission("share", 10, True))
        if position > 5_000 and position % 10 == 0 and r.get("hot") is MISS:
            missed += 1
            r.put("hot", admission=Admission("share", weight, True))
    assert missed <= 1 + lost


def test_a_light_value_that_nobody_wants_leaves(rig: Make) -> None:
    """Also if its weight is nothing: it stays for some rounds longer than a heavy one, not for good."""
    r = rig(max_entries=NO_BOUND, max_bytes=100_000)
    for light in range(50):
        r.put(f"light {light}", admission=Admission("share", light % 2, True))
        for _ in range(3):
            r.get(f"light {light}")
    for cold in range(3_000):
        r.put(cold, admission=Admission("share", 1_000, True))
        r.get(cold)
        r.get(cold)
    assert all(r.get(f"light {light}") is MISS for light in range(50))


# ---------------------------------------------------------------------------------------------------------- every step


@pytest.mark.parametrize("seed", range(30))
def test_each_step_leaves_the_entries_that_the_model_has(rig: Make, seed: int) -> None:
    """Puts of new and known keys, of heavy and light values, and drops; entries bind, or bytes, or each in its turn."""
    rng = random.Random(seed)
    keys = rng.choice([12, 40, 150])
    max_entries = rng.choice([1, 5, 12, 30, NO_BOUND])
    max_bytes = rng.choice([1, 30, 60, 300, 1000, NO_BOUND])
    weights = rng.choice([[0, 1, 5, 10, 10, 20, 40, 90, 400], [1, 2, 3, 4, 8]])
    r = rig(max_entries=max_entries, max_bytes=max_bytes)
    model = S3Fifo(max_entries, max_bytes)
    for step in range(600):
        key = min(rng.randrange(keys), rng.randrange(keys))
        what = rng.random()
        if what < 0.6:
            assert (r.get(key) is not MISS) == model.get(key)
        elif what < 0.97:
            weight = rng.choice(weights)
            r.put(key, admission=Admission("share", weight, True))
            model.put(key, weight)
        else:
            r.table.drop(r.slot, (key,))
            model.drop(key)
        assert (len(r.table), r.table.weight) == (len(model.hits), model.weight), f"step {step}"
        if step % 10 == 0:
            kept = {key for key in range(keys) if r.table.entry(r.slot, (key,)) is not None}
            assert kept == set(model.hits), f"step {step}"


# -------------------------------------------------------------------------------------------------------------- expiry


def test_expired_entries_go_before_live_ones(rig: Make) -> None:
    """With a time to live of some thousand requests, dead entries do not crowd out those that are alive."""
    r = rig(max_entries=1000)
    requests = zipf(30_000, 5_000, STEADY)
    crowded = 0
    for position, key in enumerate(requests):
        r.clock.now += 1
        if r.get(key) is MISS:
            r.put(key, ttl=600, admission=WEIGHT)
        if position % 1000 == 999:
            crowded += len(r.table)
    assert r.table.stats().evictions["capacity"] == 0
    assert crowded / 30 < 700
