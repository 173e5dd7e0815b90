"""Several workers behind one port: nothing fails, nothing is wrong, and every call is counted once."""

import os
import signal
import time
from collections.abc import Callable

import pytest
from fleet import SERVERS, WORKERS, Clients, Fleet

from cachekit.testing.servers import Server

pytestmark = pytest.mark.slow

MakeFleet = Callable[..., Fleet]
LOST_SECONDS = 2.0  # a tick, and as long again for a busy machine
THREADS = 40  # more than any worker has: calls that have been counted and not noted yet
KEYS = 40


# Each server and each framework twice is more than one change needs.
AT_NIGHT = ("uvicorn-fastapi", "gunicorn-django")


@pytest.fixture(params=[pytest.param(each, marks=pytest.mark.nightly if each in AT_NIGHT else ()) for each in SERVERS])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_call_is_counted_once_while_workers_come_and_go(
    make_fleet: MakeFleet, own_server: Server, kind: str
) -> None:
    """Workers are replaced after some hundred requests and by SIGTERM; the store is killed and comes back empty."""
    fleet = make_fleet(kind, recycle=400)
    with Clients(fleet, keys=KEYS) as clients:
        time.sleep(1.5)
        own_server.kill()
        time.sleep(1.5)
        os.kill(max(fleet.pids()), signal.SIGTERM)
        own_server.start()
        time.sleep(3)
        fleet.wait_until(lambda: len({pid for pid, _ in fleet.journals()}) > WORKERS, "no worker was replaced")
    assert not clients.wrong
    assert clients.answered > 200
    counted, made = fleet.settle(), fleet.calls()
    assert counted == made
    assert made["square"] == made["cube"] >= clients.answered
    assert len({pid for pid, _ in fleet.journals()}) > WORKERS


def test_a_killed_worker_takes_its_last_second_along_and_no_more(make_fleet: MakeFleet, kind: str) -> None:
    """What it had reported stays in the sums, and its entries leave them. Others lose nothing."""
    fleet = make_fleet(kind)
    with Clients(fleet, keys=KEYS) as clients:
        victim = max(fleet.pids())
        fleet.wait_until(lambda: len(fleet.times(victim, "square")) > 100, "the worker has nothing to do")
        time.sleep(LOST_SECONDS + 0.5)
        os.kill(victim, signal.SIGKILL)
        killed = time.time()
        time.sleep(2)
        fleet.wait_until(lambda: len(fleet.pids()) == WORKERS, "the worker was not replaced")
    assert not clients.wrong
    time.sleep(2.5)
    made, counted, left = fleet.calls(), fleet.counted(), fleet.reported(victim)
    for function in ("square", "cube"):
        times = fleet.times(victim, function)
        assert 100 <= sum(when < killed - LOST_SECONDS for when in times) <= left[function] <= len(times) + THREADS
        assert counted[function] - left[function] == made[function] - len(times)
    held = {labels: value for (name, labels), value in fleet.scrape().items() if name == "cachekit_cache_entries"}
    of_the_parent = 1  # gunicorn's, from before the fork
    assert 0 < held[frozenset({("region", "crowded")})] <= WORKERS * 16 + of_the_parent


def test_ten_thousand_keys_make_no_series(make_fleet: MakeFleet, kind: str) -> None:
    """Labels are names of code and configuration: whatever the keys, whichever worker has them."""
    fleet = make_fleet(kind)

    def ask(start: int, stop: int) -> None:
        for n in range(start, stop, 100):
            fleet.get(f"/many/{n}/100")

    def shown() -> set[tuple[str, frozenset[tuple[str, str]]]]:
        """All series but errors: on a busy machine an operation may time out, whatever its key."""
        return {series for series in fleet.scrape() if series[0] != "cachekit_cache_errors_total"}

    ask(0, 1_000)
    fleet.settle()
    before = shown()
    ask(1_000, 11_000)
    assert fleet.settle() == fleet.calls()
    assert shown() == before
    assert not any("1234" in str(labels) for _, labels in fleet.scrape())
