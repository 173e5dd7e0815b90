"""The checker accepts what is promised and rejects each kind of violation. The logs are written by hand."""

from typing import Any

import pytest
from checker import (
    EVERYBODY,
    Bounds,
    Failover,
    Invalidation,
    Log,
    Raised,
    Reached,
    Read,
    Trouble,
    Violation,
    Who,
    check,
    merged,
)

BOUNDS = Bounds(max_staleness=1.0, disconnected_ttl=2.0, slack=0.1, replay_window=60.0)
A, B = Who(0, 1), Who(1, 1)
A_AGAIN = Who(0, 2)
ENTRY = "load:1"


def read(who: Who, at: float, version: int, entry: str = ENTRY, **more: Any) -> Read:
    """A call that begins at this time and takes a moment."""
    fields = {"end": at + 0.01, "how": "call", "of": entry, "latest": 9, **more}
    return Read(who=who, begin=at, entry=entry, version=version, **fields)


def invalidation(
    who: Who, at: float, version: int, outcome: str = "done", how: str = "key", **more: Any
) -> Invalidation:
    """One that returns at this time and began a moment before."""
    fields = {"begin": at - 0.01, "versions": {ENTRY: version}, **more}
    return Invalidation(who=who, end=at, how=how, outcome=outcome, **fields)


def reached(who: Who, at: float) -> Reached:
    return Reached(who, at - 0.01, at)


def judged(*records: Any) -> list[Violation]:
    kinds = [Read, Invalidation, Raised, Reached, Trouble, Failover]
    assert all(type(record) in kinds for record in records)
    return check(Log(*([record for record in records if type(record) is kind] for kind in kinds)), BOUNDS)


def accepted(*records: Any) -> bool:
    return judged(*records) == []


def test_an_empty_log_is_fine() -> None:
    assert accepted()


# The same process


@pytest.mark.parametrize("outcome", ["done", "queued"])
def test_the_process_that_invalidated_obeys_at_once(outcome: str) -> None:
    done = invalidation(A, 10.0, 2, outcome)
    assert accepted(done, read(A, 10.001, 2), read(A, 10.5, 3))
    assert not accepted(done, read(A, 10.001, 1))
    assert not accepted(done, Trouble(0, 0.0, 99.0, "partition"), read(A, 10.001, 1))


def test_a_call_that_began_before_it_returned_may_get_the_older_value() -> None:
    assert accepted(invalidation(A, 10.0, 2), read(A, 10.0, 1), read(A, 9.999, 1, end=30.0))


def test_a_process_in_its_place_counts_as_another() -> None:
    assert accepted(invalidation(A, 10.0, 2), read(A_AGAIN, 10.5, 1))
    assert not accepted(invalidation(A, 10.0, 2), read(A_AGAIN, 11.2, 1))


# Other processes


def test_another_process_follows_within_max_staleness() -> None:
    done = invalidation(A, 10.0, 2)
    assert accepted(done, read(B, 11.09, 1), read(B, 11.2, 2))
    assert not accepted(done, read(B, 11.2, 1))


@pytest.mark.parametrize("how", ["tag", "function", "region"])
def test_whatever_way_it_was_invalidated(how: str) -> None:
    versions = {"load:0": 5, ENTRY: 2}
    done = invalidation(A, 10.0, 0, how=how, versions=versions)
    assert accepted(done, read(B, 11.2, 2), read(B, 11.2, 5, "load:0"), read(B, 11.2, 1, "load:2"))
    assert not accepted(done, read(B, 11.2, 4, "load:0"))
    assert not accepted(done, read(A, 10.1, 1))


def test_the_cut_off_have_until_the_end_of_what_they_computed_alone() -> None:
    done = invalidation(A, 10.0, 2)
    trouble = Trouble(1, 9.0, 9.5, "partition")
    assert accepted(done, trouble, read(B, 11.4, 1)), "the entry of 9.5 lives until 11.5"
    assert not accepted(done, trouble, read(B, 11.7, 1)), "since then it is in touch again"
    lasting = Trouble(1, 9.0, 99.0, "partition")
    assert accepted(done, lasting, read(B, 12.09, 1))
    assert not accepted(done, lasting, read(B, 12.2, 1))


def test_trouble_of_everybody_is_everybodys_and_that_of_another_is_not() -> None:
    done = invalidation(A, 10.0, 2)
    assert accepted(done, Trouble(EVERYBODY, 11.0, 11.0, "down"), read(B, 11.5, 1))
    assert not accepted(done, Trouble(0, 11.0, 11.0, "partition"), read(B, 11.5, 1))
    assert not accepted(done, Trouble(1, 12.0, 13.0, "later"), read(B, 11.5, 1))


def test_who_asks_l2_itself_follows_at_once_if_it_was_the_key() -> None:
    assert not accepted(invalidation(A, 10.0, 2), read(B, 10.001, 1, strict=True))
    assert accepted(invalidation(A, 10.0, 2, how="tag"), read(B, 10.001, 1, strict=True))
    assert accepted(invalidation(A, 10.0, 2, "queued"), read(B, 10.001, 1, strict=True))
    assert not accepted(invalidation(A, 10.0, 2, "queued"), reached(A, 12.0), read(B, 12.001, 1, strict=True))


def test_an_earlier_version_counts_as_long_as_nobody_invalidated_a_later_one() -> None:
    log = [invalidation(A, 10.0, 2), invalidation(A, 20.0, 4)]
    assert accepted(*log, read(B, 19.0, 2), read(B, 20.9, 2), read(B, 19.0, 3))
    assert not accepted(*log, read(B, 21.2, 3))


def test_one_violation_is_told_once_and_with_its_evidence() -> None:
    first, second, wrong = invalidation(A, 10.0, 2), invalidation(A, 10.5, 3), read(B, 15.0, 1)
    (violation,) = judged(first, second, wrong)
    assert violation.entry == ENTRY
    assert violation.evidence == (first, wrong)
    assert "got version 1, but 2 was invalidated (done) 5.000 s before; allowed were 1.100 s" in violation.why


# Queued


def test_a_queued_one_counts_for_others_from_its_delivery() -> None:
    queued = invalidation(A, 10.0, 2, "queued")
    assert accepted(queued, read(B, 99.0, 1)), "not known to be delivered"
    assert accepted(queued, reached(A, 20.0), read(B, 21.0, 1))
    assert not accepted(queued, reached(A, 20.0), read(B, 21.2, 1))
    assert accepted(queued, reached(A, 9.0), reached(B, 20.0), read(B, 21.2, 1)), "before, and another process"


def test_a_process_that_dies_takes_its_queue_along() -> None:
    assert accepted(
        invalidation(A, 10.0, 2, "queued"), reached(A_AGAIN, 20.0), read(B, 99.0, 1), read(A_AGAIN, 99.0, 1)
    )


def test_a_look_that_began_before_it_was_queued_says_nothing() -> None:
    queued = invalidation(A, 10.0, 2, "queued")
    assert accepted(queued, Reached(A, 9.99, 10.5), read(B, 15.0, 1))


# Failover

FAILOVER = Failover(12.0, 14.0)


def test_after_a_failover_it_counts_once_its_process_is_in_touch() -> None:
    done = invalidation(A, 10.0, 2)
    assert not accepted(done, FAILOVER, read(B, 11.9, 1)), "before it nothing is different"
    assert accepted(done, FAILOVER, read(B, 20.0, 1)), "nobody knows whether it was said again"
    assert accepted(done, FAILOVER, reached(A, 13.0), read(B, 20.0, 1)), "that was not the new primary for certain"
    assert accepted(done, FAILOVER, reached(A, 19.0), read(B, 20.0, 1))
    assert not accepted(done, FAILOVER, reached(A, 19.0), read(B, 20.2, 1))
    assert not accepted(done, FAILOVER, reached(A, 19.0), read(B, 19.1, 1, strict=True))


def test_a_failover_excuses_nothing_that_began_after_it() -> None:
    assert not accepted(FAILOVER, invalidation(A, 14.5, 2), read(B, 15.7, 1))
    assert accepted(FAILOVER, invalidation(A, 14.005, 2), read(B, 15.7, 1)), "it began before the end"


def test_the_invalidator_knows_what_it_said_even_after_a_failover() -> None:
    assert not accepted(invalidation(A, 10.0, 2), FAILOVER, read(A, 15.0, 1))


def test_who_died_before_saying_it_again_is_excused() -> None:
    assert accepted(invalidation(A, 10.0, 2), FAILOVER, reached(A_AGAIN, 15.0), read(B, 30.0, 1))


def test_what_was_said_longer_ago_than_the_replay_window_is_excused() -> None:
    late = Failover(72.0, 74.0)
    assert accepted(invalidation(A, 10.0, 2), late, reached(A, 75.0), read(B, 90.0, 1), read(A, 75.0, 1))
    assert not accepted(invalidation(A, 20.0, 2), late, reached(A, 75.0), read(B, 90.0, 1))
    assert not accepted(invalidation(A, 10.0, 2), late, read(A, 71.0, 1))
    assert not accepted(invalidation(A, 10.0, 2, "queued"), reached(A, 30.0), late, reached(A, 75.0), read(B, 90.0, 1))


def test_each_failover_asks_for_it_again() -> None:
    done, again = invalidation(A, 10.0, 2), Failover(20.0, 21.0)
    assert accepted(done, FAILOVER, reached(A, 15.0), again, read(B, 30.0, 1))
    assert not accepted(done, FAILOVER, reached(A, 15.0), again, reached(A, 22.0), read(B, 30.0, 1))


# What is never right


def test_a_value_of_another_entry() -> None:
    (violation,) = judged(read(A, 10.0, 1, of="load:2"))
    assert "got a value of load:2" in violation.why


def test_a_version_that_the_source_never_had() -> None:
    (violation,) = judged(read(A, 10.0, 10, latest=9))
    assert "got version 10, the source has 9" in violation.why


def test_an_exception() -> None:
    (violation,) = judged(Raised(A, 10.0, 10.1, "call load:1", "ValueError: no"))
    assert "call load:1 raised ValueError: no" in violation.why


def test_an_invalidation_that_l2_refused() -> None:
    assert not accepted(invalidation(A, 10.0, 2, "failed"))


def test_violations_come_in_the_order_of_time() -> None:
    found = judged(invalidation(A, 10.0, 2), read(A, 30.0, 1), Raised(A, 20.0, 20.1, "get", "E"), read(A, 11.0, 1))
    assert [violation.at for violation in found] == [11.0, 20.0, 30.0]


def test_spans_that_touch_are_one() -> None:
    assert merged([(3, 4), (1, 2), (1.5, 2.5), (4, 5), (3.1, 3.2)]) == [(1, 2.5), (3, 5)]
