"""Undelivered invalidations: nothing is lost, nothing grows without bound, what is queued again stays queued."""

import pytest

from cachekit.l2.outbox import Outbox


def test_the_last_act_per_name_counts() -> None:
    box = Outbox(10)
    box.add(["a", "b"], ["tag"])
    box.add(["a"], [])
    pending = box.peek()
    assert (pending.keys, pending.stamps) == (("a", "b"), ("tag",))
    box.delivered(pending, 1.0)
    assert len(box) == 0


def test_what_is_queued_again_during_a_delivery_stays() -> None:
    box = Outbox(10)
    box.add(["a", "b"], ["t1", "t2"])
    pending = box.peek()
    box.add(["a"], ["t1"])
    box.delivered(pending, 1.0)
    assert box.peek()[:2] == (("a",), ("t1",))


def test_an_overflow_becomes_one_clear_per_region() -> None:
    box = Outbox(3)
    box.add(["a1", "a2"], [], "region a")
    box.add(["b1"], ["tag"], "region b")
    assert box.peek()[:2] == ((), ("tag", "region a", "region b"))
    assert len(box) == 3


def test_what_l2_confirmed_is_queued_again_for_a_while() -> None:
    box = Outbox(10, window=60.0)
    box.done(["old"], ["old tag"], "region", 0.0)
    box.done(["a"], ["tag"], "region", 50.0)
    box.replay(100.0)
    assert box.peek()[:2] == (("a",), ("tag",))
    box.replay(100.0)
    assert box.peek()[:2] == (("a",), ("tag",)), "not delivered yet, and only once in the box"


@pytest.mark.parametrize("how", ["replayed", "queued"])
def test_what_was_delivered_later_is_queued_again_by_the_next_failover(how: str) -> None:
    box = Outbox(10, window=60.0)
    if how == "replayed":
        box.done(["a"], ["tag"], "region", 0.0)
        box.replay(50.0)
    else:
        box.add(["a"], ["tag"], "region")
    box.delivered(box.peek(), 50.0)
    assert not box.waits
    box.replay(110.0)
    assert box.peek()[:2] == (("a",), ("tag",))
    box.delivered(box.peek(), 110.0)
    box.replay(170.1)
    assert len(box) == 0


def test_an_overflow_of_what_was_delivered_later_clears_its_region() -> None:
    box = Outbox(3, window=60.0)
    for number in range(5):
        box.add([f"a{number}"], [], "region a")
        box.delivered(box.peek(), 1.0)
    box.replay(2.0)
    assert box.peek()[:2] == (("a4",), ("region a",))


def test_the_last_time_of_a_name_counts() -> None:
    box = Outbox(10, window=60.0)
    box.done(["a", "b"], [], "region", 0.0)
    box.done(["a"], [], "region", 50.0)
    box.replay(100.0)
    assert box.peek().keys == ("a",)


def test_many_confirmed_ones_become_one_clear_per_region() -> None:
    box = Outbox(3, window=60.0)
    for number in range(5):
        box.done([f"a{number}"], [], "region a", 1.0)
    box.replay(2.0)
    assert box.peek()[:2] == (("a4",), ("region a",))


def test_without_a_window_nothing_is_remembered() -> None:
    box = Outbox(3)
    box.done(["a"], ["t"], "region", 1.0)
    box.replay(1.0)
    assert len(box) == 0


def test_what_can_have_no_entry_any_more_is_dropped() -> None:
    box = Outbox(10)
    box.add(["a"], [], "region", until=100.0)
    box.add(["b"], ["tag"], "region")
    box.drop_moot(99.9)
    assert len(box) == 3
    box.drop_moot(100.0)
    assert box.peek()[:2] == (("b",), ("tag",))
    assert box.dropped == 1


def test_it_waits_as_long_as_there_is_anything_to_deliver() -> None:
    box = Outbox(10, window=60.0)
    assert not box.waits
    box.add(["a"], ["tag"], "region", until=100.0)
    first = box.peek()
    box.add(["a"], [], "region", until=100.0)
    box.delivered(first, 1.0)
    assert box.waits, "queued again meanwhile"
    box.drop_moot(100.0)
    assert not box.waits
    box.done(["b"], [], "region", 1.0)
    box.replay(2.0)
    assert box.waits
    box.delivered(box.peek(), 2.0)
    assert not box.waits
