"""Who waits for a key is woken when it changes, also when that happens before they wait; nobody is left over."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cachekit.engine.ports import AsyncPort, Port, SyncPort, drive
from cachekit.l2.parking import Parking


@pytest.fixture(params=["sync", "async"])
def port(request: pytest.FixtureRequest) -> Port:
    return SyncPort() if request.param == "sync" else AsyncPort()


def wait(port: Port, parked: object, seconds: float) -> bool:
    waiting = port.park(parked, seconds)  # type: ignore[arg-type]
    return asyncio.run(waiting) if isinstance(port, AsyncPort) else drive(waiting)  # type: ignore[arg-type]


def test_what_happens_before_the_wait_is_not_missed(port: Port) -> None:
    parking = Parking()
    parked = parking.enter(1)
    parking.wake(1)
    assert wait(port, parked, 10.0)


def test_another_key_wakes_nobody_and_patience_ends(port: Port) -> None:
    parking = Parking()
    parked = parking.enter(1)
    parking.wake(2)
    assert not wait(port, parked, 0.01)


def test_again_forgets_what_happened(port: Port) -> None:
    parking = Parking()
    parked = parking.enter(1)
    parking.wake(1)
    parked.again()
    assert not wait(port, parked, 0.01)


@pytest.mark.parametrize("wake", [lambda parking: parking.wake("x"), lambda parking: parking.wake_all()])
def test_all_who_wait_are_woken(port: Port, wake: object) -> None:
    parking = Parking()
    several = [parking.enter("x") for _ in range(5)]
    with ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(wait, port, parked, 10.0) for parked in several]
        while any(parked._future is None for parked in several):
            threading.Event().wait(0.001)
        wake(parking)  # type: ignore[operator]
        assert [one.result(10) for one in waiting] == [True] * 5


def test_who_left_leaves_nothing_behind(port: Port) -> None:
    parking = Parking()
    first, second = parking.enter(1), parking.enter(1)
    parking.leave(first)
    assert len(parking) == 1
    parking.leave(second)
    assert len(parking) == 0
    parking.wake(1)
    parking.after_fork()
    parking.leave(second)  # it was entered before the fork


def test_a_task_that_is_cancelled_while_it_waits_disturbs_nobody() -> None:
    async def run() -> None:
        parking, port = Parking(), AsyncPort()
        parked = parking.enter(1)
        task = asyncio.create_task(port.park(parked, 10.0))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        parking.wake(1)
        assert await port.park(parked, 0.0)

    asyncio.run(run())
