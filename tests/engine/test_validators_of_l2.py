"""ETag and date of a value that L1 has from L2 are known when it is computed anew, each of them alone too."""

import pytest

from cachekit import cache, current_entry
from cachekit.config.spec import FreshnessSpec
from cachekit.testing.clock import FrozenClock
from cachekit.testing.servers import Server


@pytest.mark.parametrize("validators", [('"v1"', None), (None, "Thu, 01 Jan 2026"), ('"v1"', "Thu, 01 Jan 2026")])
def test_a_value_from_l2_keeps_its_validators_in_l1(
    make_service, own_server: Server, validators: tuple[str | None, str | None]
) -> None:
    clock = FrozenClock()
    backend = {"url": own_server.url}
    freshness = FreshnessSpec(stale_ttl=3600.0, stale_without_proof=3600.0, early_refresh="off")
    service = make_service("server", clock=clock, backend=backend, freshness=freshness, ttl=60.0, jitter=0.0)
    seen = []

    @cache(profile="users", version=1)
    def load(number: int) -> int:
        entry = current_entry()
        seen.append((entry.etag, entry.last_modified))
        if len(seen) == 2:
            return entry.not_modified()
        entry.etag, entry.last_modified = validators
        return number

    assert load(7) == 7
    for _, table in service.tables():
        table.clear()
    service._validators.clear()  # as in another process
    assert load(7) == 7
    assert load.cache_info().l2_hits == 1
    own_server.kill()
    clock.advance(61)
    assert load(7) == 7  # computed, from what L1 has
    assert seen == [(None, None), validators]
