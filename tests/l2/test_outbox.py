"""Undelivered invalidations: nothing is lost, nothing grows without bound, what is queued again stays queued."""

from cachekit.l2.outbox import Outbox


def test_the_last_act_per_name_counts() -> None:
    box = Outbox(10)
    box.add(["a", "b"], ["tag"])
    box.add(["a"], [])
    pending = box.peek()
    assert (pending.keys, pending.stamps) == (("a", "b"), ("tag",))
    box.delivered(pending)
    assert len(box) == 0


def test_what_is_queued_again_during_a_delivery_stays() -> None:
    box = Outbox(10)
    box.add(["a", "b"], ["t1", "t2"])
    pending = box.peek()
    box.add(["a"], ["t1"])
    box.delivered(pending)
    assert box.peek()[:2] == (("a",), ("t1",))


def test_an_overflow_becomes_one_clear_per_region() -> None:
    box = Outbox(3)
    box.add(["a1", "a2"], [], "region a")
    box.add(["b1"], ["tag"], "region b")
    assert box.peek()[:2] == ((), ("tag", "region a", "region b"))
    assert len(box) == 3
