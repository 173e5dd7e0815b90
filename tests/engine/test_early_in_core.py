"""What the native core loads by itself is refreshed early too, as on the pure twin."""

import pytest

from cachekit import cache
from cachekit.testing.clock import FrozenClock


@pytest.mark.parametrize("twin", ["chosen", "pure_twin"])
@pytest.mark.parametrize(("early_refresh", "runs"), [("auto", 2), ("off", 1)])
def test_a_load_of_the_core_that_took_time_is_refreshed_early(
    make_service, request: pytest.FixtureRequest, twin: str, early_refresh: str, runs: int
) -> None:
    if twin == "pure_twin":
        request.getfixturevalue(twin)
    clock = FrozenClock()
    service = make_service(clock=clock)
    service.rng = lambda: 0.999999  # so early that the first half is all that is left
    ran = []

    @cache(ttl=100, jitter=0, early_refresh=early_refresh)
    def slow(number: int) -> int:
        clock.advance(5)
        ran.append(number)
        return len(ran)

    assert slow(1) == 1
    clock.advance(90)
    assert slow(1) == 1  # not past its TTL
    assert service.workers.settle()
    assert slow(1) == runs
