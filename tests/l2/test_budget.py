"""The budget follows what operations take, within its limits, and does not collapse when they are given up."""

import random

import pytest

from cachekit.config.spec import BackendSpec
from cachekit.l2.budget import ENOUGH, TRUST_AFTER, Budget
from cachekit.l2.times import BUCKETS, FADE_EVERY, bucket, upper_end

SPEC = BackendSpec(budget=0.25, budget_min=0.02)


def fed(seconds: float, times: int = 2000, spec: BackendSpec = SPEC) -> Budget:
    budget = Budget(spec)
    for _ in range(times):
        budget.observe(seconds, False)
    return budget


def test_is_full_while_little_is_known() -> None:
    budget = Budget(SPEC)
    assert budget.next() == SPEC.budget
    for _ in range(ENOUGH - 1):
        budget.observe(0.0001, False)
        assert budget.next() == SPEC.budget


def test_quick_operations_bring_it_to_its_floor() -> None:
    assert fed(0.0003).next() == SPEC.budget_min


def test_slow_operations_leave_it_at_its_ceiling() -> None:
    assert fed(0.2).next() == SPEC.budget


@pytest.mark.parametrize("seconds", [0.01, 0.02, 0.04, 0.07])
def test_in_between_it_is_three_times_what_nearly_all_take(seconds: float) -> None:
    assert 3 * seconds <= fed(seconds).next() <= 3 * seconds * 1.26


def test_one_in_a_hundred_may_be_slow_without_being_noticed_and_three_may_not() -> None:
    rare, frequent = Budget(SPEC), Budget(SPEC)
    for turn in range(2000):
        rare.observe(0.08 if turn % 200 == 0 else 0.001, False)
        frequent.observe(0.08 if turn % 33 == 0 else 0.001, False)
    assert rare.next() == SPEC.budget_min
    assert frequent.next() >= 0.24


def test_is_always_the_full_one_when_not_adaptive() -> None:
    spec = BackendSpec(budget=0.25, budget_min=0.02, adaptive=False)
    budget = fed(0.0001, spec=spec)
    budget.observe(0.25, True)
    assert budget.next() == 0.25


def test_a_floor_above_the_ceiling_means_the_ceiling() -> None:
    assert fed(0.0001, spec=BackendSpec(budget=0.01, budget_min=0.02)).next() == 0.01


def test_after_one_that_was_given_up_the_next_few_have_the_full_time() -> None:
    budget = fed(0.001)
    budget.observe(budget.next(), True)
    for _ in range(TRUST_AFTER):
        assert budget.next() == SPEC.budget
        budget.observe(0.001, False)
    assert budget.next() < SPEC.budget


def test_after_a_reconnection_the_next_few_have_the_full_time() -> None:
    budget = fed(0.001)
    budget.reconnecting()
    for _ in range(TRUST_AFTER):
        assert budget.next() == SPEC.budget
        budget.observe(0.001, False)
    assert budget.next() == SPEC.budget_min


def test_does_not_collapse_when_the_backend_becomes_slower_than_it() -> None:
    """If what is given up did not count, only quick ones would, and the budget would stay at its floor for ever."""
    rng = random.Random(7)
    budget = fed(0.001)
    succeeded = 0
    for _ in range(400):
        takes, given = rng.uniform(0.03, 0.06), budget.next()
        succeeded += takes <= given
        budget.observe(min(takes, given), takes > given)
    assert succeeded >= 380
    assert budget.next() >= 0.15


def test_follows_back_down_when_the_backend_recovers() -> None:
    budget = fed(0.08)
    assert budget.next() > 0.2
    for _ in range(8 * FADE_EVERY):
        budget.observe(0.001, False)
    assert budget.next() == SPEC.budget_min


def test_stays_within_its_limits_whatever_it_is_told() -> None:
    rng = random.Random(3)
    budget = Budget(SPEC)
    for _ in range(20_000):
        budget.observe(rng.choice([0.0, 1e-9, 1e-6, 0.01, 3.0, 7200.0, 10 ** rng.uniform(-7, 4)]), rng.random() < 0.02)
        assert SPEC.budget_min <= budget.next() <= SPEC.budget


def test_each_duration_lies_in_a_bucket_no_wider_than_a_quarter_of_it() -> None:
    rng = random.Random(1)
    for _ in range(5000):
        seconds = 10 ** rng.uniform(-5, 3)
        end = upper_end(bucket(seconds))
        assert seconds <= end <= seconds * 1.26 + 2e-6
    assert [bucket(0.0), bucket(1e9)] == [0, BUCKETS - 1]
    assert all(upper_end(i) < upper_end(i + 1) for i in range(8, BUCKETS - 1))
