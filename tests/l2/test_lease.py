"""How long leases last, when waiting pays, and what must be renewed when."""

from cachekit.l2.lease import ENOUGH, FAST, FIRST, LONGEST, SHORTEST, Leases, is_fast, lease_ms
from cachekit.l2.times import Times


def times(seconds: float, count: int = 100) -> Times:
    found = Times()
    for _ in range(count):
        found.add(seconds)
    return found


def test_a_lease_is_three_times_what_loads_take_within_limits() -> None:
    assert lease_ms(Times()) == FIRST * 1000
    assert lease_ms(times(0.01)) == SHORTEST * 1000
    assert 3000 <= lease_ms(times(1.0)) <= 3000 * 1.26
    assert lease_ms(times(60.0)) == LONGEST * 1000


def test_one_slow_load_in_twenty_makes_the_lease_long() -> None:
    mixed = times(0.01, 95)
    for _ in range(5):
        mixed.add(4.0)
    assert lease_ms(mixed) >= 12_000


def test_a_function_is_fast_when_nearly_all_loads_were() -> None:
    assert not is_fast(times(FAST / 4, ENOUGH - 1)), "too few to tell"
    assert is_fast(times(FAST / 4, ENOUGH))
    assert not is_fast(times(FAST * 2))
    mixed = times(FAST / 4, 90)
    for _ in range(10):
        mixed.add(0.1)
    assert not is_fast(mixed)


def test_a_lease_is_due_when_a_third_of_it_has_passed_and_again_after_another() -> None:
    leases = Leases()
    leases.hold("k", b"t", 3000, 100.0, "stamps")
    assert leases.due(100.9) == []
    assert [held.token for held in leases.due(101.0)] == [b"t"]
    assert leases.due(101.5) == []
    assert [held.key for held in leases.due(102.0)] == ["k"]
    leases.end(b"t")
    assert leases.due(1000.0) == []
    assert len(leases) == 0
    leases.end(b"t")


def test_the_stamps_of_the_loads_of_a_key_are_known() -> None:
    leases = Leases()
    leases.hold("k", b"1", 3000, 0.0, "a")
    leases.hold("k", b"2", 3000, 0.0, "b")
    leases.hold("other", b"3", 3000, 0.0, "c")
    assert sorted(map(str, leases.stamps("k"))) == ["a", "b"]
    leases.after_fork()
    assert leases.stamps("k") == []


def test_a_lease_that_may_have_been_granted_is_to_be_given_back_once() -> None:
    leases = Leases()
    leases.unsure("k", b"1", 5000, 0.0)
    leases.unsure("other", b"2", 5000, 0.0)
    assert leases.to_release(1.0, "nothing") == []
    assert leases.to_release(1.0, "k") == [("k", b"1")]
    assert leases.to_release(1.0, "k") == []
    assert leases.to_release(1.0) == [("other", b"2")]
    leases.unsure("k", b"3", 5000, 0.0)
    assert leases.to_release(5.0) == [], "it has ended by itself"
