"""Every call is counted exactly once, whatever other threads do to the entry meanwhile."""

import random
import sys
import threading

import pytest

from cachekit import cache
from cachekit.engine.events import Tally
from cachekit.process import replace_default

THREADS = 8
CALLS = 1500


@pytest.fixture
def hasty():
    """Threads take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(work):
    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
@pytest.mark.parametrize("make", [lambda n: n, lambda n: [[n] * 3] * 10], ids=["shared", "copied"])
def test_hits_misses_and_waits_add_up_to_the_calls(make_service, hasty, policy, make):
    """Entries are evicted and invalidated all the time, also while their value is being copied for a caller."""
    service = make_service(users={"l1": {"max_entries": 8, "policy": policy}})
    before = replace_default(service)

    @cache(profile="users")
    def load(n):
        return make(n)

    def work(number):
        rng = random.Random(number)
        for turn in range(CALLS):
            n = int(rng.random() ** 3 * 16)
            assert load(n) == make(n)
            if turn % 97 == 0:
                load.invalidate(n)

    try:
        together(work)
    finally:
        replace_default(before)
    (tally,) = service.tallies()
    assert tally.l1_hits() + tally.l2_hits + tally.misses + tally.waited == THREADS * CALLS
    assert tally.l2_hits == 0
    assert tally.misses == tally.loads
    assert min(tally.l1_hits(), tally.misses) > 0


def test_no_error_goes_uncounted(hasty):
    tally = Tally("users", "app.load", lambda: 0)

    def work(_):
        for _ in range(20_000):
            tally.error("get", "timeout")

    together(work)
    assert tally.errors == {("get", "timeout"): THREADS * 20_000}
