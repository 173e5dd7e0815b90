"""The breaker opens within a few calls, asks again now and then, and never stays stuck."""

import random
import threading

import pytest

from cachekit.config.spec import BreakerSpec
from cachekit.errors import Fault
from cachekit.l2.breaker import MIN_CALLS, Breaker, Gate

SPEC = BreakerSpec(failures=5, ratio=0.5, window=10.0, open_for=2.0, open_max=30.0)


class Driven:
    """A breaker and a clock that only the test moves."""

    def __init__(self, spec: BreakerSpec = SPEC) -> None:
        self.breaker = Breaker(spec)
        self.now = 1000.0

    def call(self, fault: Fault | None = None, *, write: bool = False, late: bool = False) -> Gate:
        gate = self.breaker.allow(self.now, write)
        if gate is not Gate.OPEN:
            self.breaker.record(self.now, fault, write, late=late)
        return gate

    def allow(self, *, write: bool = False) -> Gate:
        return self.breaker.allow(self.now, write)

    def state(self, *, write: bool = False) -> str:
        return self.breaker.state(self.now, write)


@pytest.fixture
def driven() -> Driven:
    return Driven()


def opened(fault: Fault = Fault.DOWN, *, write: bool = False) -> Driven:
    driven = Driven()
    for _ in range(SPEC.failures):
        driven.call(fault, write=write)
    return driven


def test_begins_closed_and_stays_closed_while_all_is_well(driven: Driven) -> None:
    assert [driven.call() for _ in range(1000)] == [Gate.GO] * 1000
    assert driven.state() == "closed"


def test_opens_after_so_many_failures_in_a_row_and_not_before(driven: Driven) -> None:
    for _ in range(SPEC.failures - 1):
        assert driven.call(Fault.DOWN) is Gate.GO
    assert driven.state() == "closed"
    assert driven.call(Fault.DOWN) is Gate.GO
    assert driven.state() == "open"
    assert driven.call() is Gate.OPEN


def test_failures_that_callers_waited_for_count_twice_in_a_row(driven: Driven) -> None:
    """20 calls to a server that hangs cost three budgets: less than a second."""
    assert [driven.call(Fault.DOWN, late=True) for _ in range(20)] == [Gate.GO] * 3 + [Gate.OPEN] * 17
    driven = Driven()
    gates = [driven.call(Fault.DOWN, late=turn == 0) for turn in range(6)]
    assert gates == [Gate.GO] * 4 + [Gate.OPEN] * 2
    driven = Driven(BreakerSpec(failures=1))
    assert [driven.call(Fault.DOWN, late=True) for _ in range(2)] == [Gate.GO, Gate.OPEN]


def test_and_once_among_many(driven: Driven) -> None:
    """A server that is late now and then is not away."""
    gates = [driven.call(Fault.DOWN if turn % 3 == 0 else None, late=True) for turn in range(10 * MIN_CALLS)]
    assert gates == [Gate.GO] * (10 * MIN_CALLS)


def test_a_success_in_between_begins_the_row_anew(driven: Driven) -> None:
    for _ in range(3):
        for _ in range(SPEC.failures - 1):
            driven.call(Fault.DOWN)
        driven.call()
    assert driven.state() == "closed"


def test_opens_when_half_of_the_calls_fail_although_never_in_a_row(driven: Driven) -> None:
    gates = [driven.call(Fault.DOWN if turn % 2 else None) for turn in range(MIN_CALLS)]
    assert gates == [Gate.GO] * MIN_CALLS
    assert driven.state() == "open"


def test_a_ratio_of_few_calls_says_nothing(driven: Driven) -> None:
    for turn in range(MIN_CALLS - 1):
        driven.call(Fault.DOWN if turn % 2 else None)
    assert driven.state() == "closed"


def test_failures_below_the_ratio_leave_it_closed_however_many(driven: Driven) -> None:
    for turn in range(10_000):
        driven.now += 0.01
        driven.call(Fault.DOWN if turn % 3 == 0 else None)
    assert driven.state() == "closed"


def test_old_calls_fade_from_the_ratio(driven: Driven) -> None:
    for _ in range(200):
        driven.call()
    for _ in range(6):
        driven.now += SPEC.window + 0.1
        driven.call()
    for turn in range(MIN_CALLS):
        driven.call(None if turn % 3 == 0 else Fault.DOWN)
    assert driven.state() == "open"


def test_a_long_silence_is_not_held_against_anybody(driven: Driven) -> None:
    for turn in range(MIN_CALLS - 1):
        driven.call(Fault.DOWN if turn % 2 else None)
    driven.now += 3 * SPEC.window
    driven.call(Fault.DOWN)
    driven.call(Fault.DOWN)
    assert driven.state() == "closed"


def test_after_open_for_one_call_probes_and_the_others_wait() -> None:
    driven = opened()
    driven.now += SPEC.open_for - 0.01
    assert driven.allow() is Gate.OPEN
    driven.now += 0.01
    assert driven.state() == "half_open"
    assert [driven.allow() for _ in range(4)] == [Gate.PROBE, Gate.OPEN, Gate.OPEN, Gate.OPEN]
    assert driven.state() == "half_open"


def test_a_probe_that_succeeds_closes_it() -> None:
    driven = opened()
    driven.now += SPEC.open_for
    assert driven.call() is Gate.PROBE
    assert driven.state() == "closed"
    for _ in range(SPEC.failures - 1):
        assert driven.call(Fault.DOWN) is Gate.GO
    assert driven.state() == "closed"


def test_the_open_time_doubles_with_each_failed_probe_up_to_open_max() -> None:
    driven = opened()
    waits = []
    for _ in range(7):
        begun = driven.now
        while driven.call(Fault.DOWN) is Gate.OPEN:
            driven.now += 0.25
        waits.append(driven.now - begun)
    assert waits == [2, 4, 8, 16, 30, 30, 30]


def test_after_a_recovery_the_open_time_begins_anew() -> None:
    driven = opened()
    for wait in (2, 4):
        driven.now += wait
        driven.call(Fault.DOWN)
    driven.now += 8
    driven.call()
    for _ in range(SPEC.failures):
        driven.call(Fault.DOWN)
    driven.now += SPEC.open_for
    assert driven.call() is Gate.PROBE


def test_a_probe_whose_caller_vanishes_is_followed_by_another() -> None:
    driven = opened()
    for _ in range(5):
        driven.now += SPEC.open_for
        assert driven.allow() is Gate.PROBE
        assert driven.allow() is Gate.OPEN
    driven.now += SPEC.open_for
    assert driven.call() is Gate.PROBE
    assert driven.state() == "closed"


def test_a_sign_of_life_has_somebody_try_at_once() -> None:
    driven = opened()
    for _ in range(3):
        driven.now += SPEC.open_max
        driven.call(Fault.DOWN)
    assert driven.allow() is Gate.OPEN
    driven.breaker.hasten(driven.now)
    assert driven.call(Fault.DOWN) is Gate.PROBE
    driven.now += 2 * SPEC.open_for
    assert driven.call() is Gate.PROBE, "the open time began anew"
    assert driven.state() == "closed"


def test_a_sign_of_life_during_a_probe_has_somebody_else_try_at_once() -> None:
    """The probe may be on its way to what the backend has just replaced."""
    driven = opened()
    driven.now += SPEC.open_for
    began = driven.now
    assert driven.allow() is Gate.PROBE
    driven.now += 0.1
    driven.breaker.hasten(driven.now)
    assert driven.allow() is Gate.PROBE
    driven.now += 0.1
    driven.breaker.record(driven.now, Fault.DOWN, False, late=True, began=began)
    driven.breaker.record(driven.now, None, False)
    assert driven.state() == "closed"


def test_signs_of_life_that_come_and_go_do_not_keep_it_closed(driven: Driven) -> None:
    """A server that takes connections and answers nothing."""
    for _ in range(20):
        began = driven.now
        driven.now += 0.1
        driven.breaker.hasten(driven.now)
        driven.breaker.record(driven.now, Fault.DOWN, False, late=True, began=began)
    assert driven.state() != "closed"


def test_what_began_before_a_sign_of_life_does_not_open_it(driven: Driven) -> None:
    began = driven.now
    driven.now += 0.1
    driven.breaker.hasten(driven.now)
    for _ in range(SPEC.failures):
        driven.breaker.record(driven.now, Fault.DOWN, False, late=True, began=began)
    assert driven.state() == "closed"
    for _ in range(SPEC.failures):
        driven.call(Fault.DOWN)
    assert driven.state() == "open"


def test_what_began_before_a_probe_does_not_fail_it() -> None:
    driven = opened()
    began = driven.now
    driven.now += SPEC.open_for
    assert driven.allow() is Gate.PROBE
    driven.breaker.record(driven.now, Fault.DOWN, False, began=began)
    driven.breaker.record(driven.now, None, False)
    assert driven.state() == "closed"


@pytest.mark.parametrize("late", [None, Fault.DOWN])
def test_results_of_calls_from_before_it_opened_change_nothing(late: Fault | None) -> None:
    driven = opened()
    for _ in range(50):
        driven.breaker.record(driven.now, late, False)
    assert driven.state() == "open"
    driven.now += SPEC.open_for
    assert driven.allow() is Gate.PROBE


def test_a_fault_of_writes_stops_writes_while_reads_go_on() -> None:
    driven = opened(Fault.READONLY, write=True)
    assert driven.call(write=True) is Gate.OPEN
    assert [driven.call() for _ in range(100)] == [Gate.GO] * 100
    assert driven.state() == "closed"
    assert driven.state(write=True) == "open"
    driven.now += SPEC.open_for
    assert driven.call() is Gate.GO
    assert driven.call(write=True) is Gate.PROBE
    assert driven.state(write=True) == "closed"


def test_reads_in_between_do_not_hide_that_writes_fail(driven: Driven) -> None:
    for _ in range(SPEC.failures):
        driven.call(Fault.READONLY, write=True)
        driven.call()
    assert driven.call(write=True) is Gate.OPEN


def test_a_write_that_probes_a_backend_which_is_readonly_opens_it_for_reads() -> None:
    driven = opened(Fault.DOWN, write=True)
    driven.now += SPEC.open_for
    assert driven.call(Fault.READONLY, write=True) is Gate.PROBE
    assert driven.call() is Gate.GO


def test_a_write_does_not_use_up_the_probe_of_reads() -> None:
    driven = opened(Fault.READONLY, write=True)
    driven.now += SPEC.open_for
    driven.call(Fault.READONLY, write=True)  # writes: open for 4 s from here
    for _ in range(SPEC.failures):
        driven.call(Fault.DOWN)  # everything: open for 2 s
    driven.now += SPEC.open_for
    assert driven.call(write=True) is Gate.OPEN
    assert driven.call() is Gate.PROBE


def test_a_writes_probe_that_meets_a_dead_backend_is_a_failed_probe() -> None:
    driven = opened(Fault.READONLY, write=True)
    driven.now += SPEC.open_for
    assert driven.call(Fault.DOWN, write=True) is Gate.PROBE
    driven.now += SPEC.open_for
    assert driven.allow(write=True) is Gate.OPEN
    driven.now += SPEC.open_for
    assert driven.allow(write=True) is Gate.PROBE


def test_a_fault_of_the_configuration_opens_at_once_with_slow_probes(driven: Driven) -> None:
    assert driven.call(Fault.CONFIG) is Gate.GO
    assert driven.state() == "open"
    for _ in range(3):
        driven.now += SPEC.open_max - 0.01
        assert driven.call() is Gate.OPEN
        driven.now += 0.01
        assert driven.call(Fault.CONFIG) is Gate.PROBE
    driven.now += SPEC.open_max
    assert driven.call() is Gate.PROBE
    assert driven.state() == "closed"


def test_a_probe_that_meets_a_fault_of_the_configuration_slows_the_probes_down() -> None:
    driven = opened()
    driven.now += SPEC.open_for
    driven.call(Fault.CONFIG)
    driven.now += SPEC.open_max - 0.01
    assert driven.allow() is Gate.OPEN


@pytest.mark.parametrize("write", [False, True])
def test_a_command_that_fails_by_itself_never_opens_it_and_proves_that_the_backend_lives(write: bool) -> None:
    driven = Driven()
    assert [driven.call(Fault.COMMAND, write=write) for _ in range(1000)] == [Gate.GO] * 1000
    driven = opened()
    driven.now += SPEC.open_for
    assert driven.call(Fault.COMMAND, write=write) is Gate.PROBE
    assert driven.state() == "closed"


def test_one_failure_is_enough_when_told_so() -> None:
    driven = Driven(BreakerSpec(failures=1))
    driven.call(Fault.DOWN)
    assert driven.call() is Gate.OPEN


def test_many_threads_get_one_probe() -> None:
    driven = opened()
    driven.now += SPEC.open_for
    gates: list[Gate] = []
    start = threading.Barrier(16)

    def ask() -> None:
        start.wait()
        gates.extend(driven.allow() for _ in range(50))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gates.count(Gate.PROBE) == 1
    assert gates.count(Gate.OPEN) == 16 * 50 - 1


def test_whatever_happens_a_backend_that_recovers_is_used_again_within_open_max() -> None:
    for seed in range(300):
        rng = random.Random(seed)
        driven = Driven()
        for _ in range(rng.randrange(1, 200)):
            driven.now += rng.expovariate(1.0)
            if rng.random() < 0.2:
                driven.allow(write=rng.random() < 0.5)  # and is never heard of again
            else:
                driven.call(rng.choice([None, *Fault]), write=rng.random() < 0.5)
        driven.now += SPEC.open_max
        for _ in range(2):
            driven.call(write=True)
            driven.now += SPEC.open_max
        assert driven.call(write=True) is Gate.GO, seed
        assert driven.call() is Gate.GO, seed
