"""The frozen clock moves only when told to."""

import threading
import time

import pytest

from cachekit.testing import FrozenClock


def test_stands_still() -> None:
    clock = FrozenClock()
    before = (clock.now(), clock.ns(), clock.wall(), clock())
    time.sleep(0.01)
    assert (clock.now(), clock.ns(), clock.wall(), clock()) == before


@pytest.mark.parametrize(
    ("by", "seconds"), [(1, 1.0), (0.25, 0.25), ("5m", 300.0), ("250ms", 0.25), ("2h5m", 7500.0), (0, 0.0), ("0s", 0.0)]
)
def test_advances_all_its_faces_alike(by: float | str, seconds: float) -> None:
    clock = FrozenClock(wall=1_700_000_000)
    now, ns = clock.now(), clock.ns()
    clock.advance(by)
    assert clock.now() - now == seconds
    assert clock.ns() - ns == seconds * 10**9
    assert clock.wall() == 1_700_000_000 + seconds


def test_many_small_steps_add_up_exactly() -> None:
    clock = FrozenClock()
    before = clock.ns()
    for _ in range(1000):
        clock.advance(0.1)
    assert clock.ns() - before == 100 * 10**9


def test_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="does not go back"):
        FrozenClock().advance(-1)


def test_never_is_not_a_time_to_wait() -> None:
    with pytest.raises(ValueError, match="not a time to wait"):
        FrozenClock().advance("never")


def test_the_wall_clock_may_jump_alone() -> None:
    clock = FrozenClock(wall=1000)
    now = clock.now()
    clock.jump_wall(-400.5)
    assert (clock.wall(), clock.now()) == (599.5, now)


def test_starts_at_the_present_wall_time() -> None:
    assert abs(FrozenClock().wall() - time.time()) < 60


def test_no_step_of_several_threads_is_lost() -> None:
    clock = FrozenClock()
    before = clock.ns()

    def work() -> None:
        for _ in range(500):
            clock.advance(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.ns() - before == 2000 * 10**9
