"""What the README tells users of other caches to write does what they had."""

from typing import Any

import pytest

from cachekit import MISS, Outcome, cache, invalidate_tags, region
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock


def test_lru_cache(cachekit_isolated: Service) -> None:
    @cache(backend=None, ttl="never", max_entries=1000)
    def double(number: int) -> int:
        return 2 * number

    assert [double(number) for number in (*range(1500), 1499)][-1] == 2998
    assert double.cache_info()[:4] == (1, 1500, 1000, 1000)
    assert double.cache_parameters()["maxsize"] == 1000
    assert double.__wrapped__(4) == 8
    double.cache_clear()
    assert double.cache_info().currsize == 0


def test_aiocache_decorators(cachekit_isolated: Service, cachekit_clock: FrozenClock) -> None:
    class Shop:
        @cache(ttl=60, ignore=("self",), key=lambda self, user: user["id"])
        def price(self, user: dict[str, Any]) -> int:
            return len(user)

    assert Shop().price({"id": 1}) == 1
    assert Shop().price({"id": 1, "name": "Ann"}) == 1
    cachekit_clock.advance(61)
    assert Shop().price({"id": 1, "name": "Ann"}) == 2


def test_cashews_soft(cachekit_isolated: Service, cachekit_clock: FrozenClock) -> None:
    runs = []

    @cache(ttl=30, stale_ttl=30)
    def rates() -> int:
        runs.append(1)
        if len(runs) > 1:
            raise OSError
        return 7

    assert rates() == 7
    cachekit_clock.advance(31)
    assert rates() == 7
    assert len(runs) == 2
    cachekit_clock.advance(30)
    with pytest.raises(OSError):
        rates()


async def test_aiocache_methods(cachekit_isolated: Service) -> None:
    await region().aset("k", "v", ttl=60)
    assert await region().aget_many(["k", "other"]) == {"k": "v"}


def test_django_redis(cachekit_isolated: Service, cachekit_clock: FrozenClock) -> None:
    region().set("k", "v", ttl=60)
    assert region().get_or_set("k", lambda: "other", ttl=60) == "v"
    assert region().remaining("k") == 60
    cachekit_clock.advance(30)
    assert region().touch("k", ttl=60) is True
    assert region().remaining("k") == 60
    region().set("user:7:name", "Ann", tags=["user:7"])
    assert invalidate_tags("user:7") is Outcome.DONE
    assert region().get("user:7:name", MISS) is MISS
