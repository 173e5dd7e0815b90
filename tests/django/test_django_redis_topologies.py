"""The methods of django-redis behind Sentinels, in a cluster and over TLS: raw clients and patterns find their way."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit import UnsupportedOperation
from cachekit.testing.servers import start_server
from cachekit.testing.topologies import start_cluster, start_sentinel

OURS = "cachekit.integrations.django.CacheKitCache"
Use = Callable[..., None]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with start_cluster("valkey") as started:
        yield started


@pytest.fixture(scope="module")
def sentinel() -> Iterator[Any]:
    with start_sentinel("valkey", replicas=0, sentinels=1, password="pass/word") as started:
        yield started


def on(use: Use, location: str, **options: Any) -> Any:
    from django.core.cache import cache

    patient = {"django.default": {"adaptive": False, "budget": "5s"}}
    use(
        CACHES={"default": {"BACKEND": OURS, "LOCATION": location, "OPTIONS": {"jitter": 0, **options}}},
        CACHEKIT={"backends": patient},
    )
    return cache


def exercise(cache: Any) -> None:
    connection = cache.client.get_client()
    assert connection.ping()
    for number in range(20):
        cache.set(f"k{number}", number, 60)
        cache.sadd(f"s{number}", number, "x")
    assert cache.ttl("k7") == 60
    assert len(cache.keys("*")) == len(set(cache.iter_keys("*", itersize=5))) == 40
    assert all(cache.smembers(f"s{number}") == {number, "x"} for number in range(20))
    assert connection.scard(cache.client.make_key("s3")) == 2
    assert cache.delete_pattern("s1*") == 11
    with cache.lock("lock", timeout=5):
        assert cache.lock("lock").acquire(blocking=False) is False
    cache.clear()
    assert cache.keys("*") == []
    assert cache.smembers("s3") == set()


def test_in_a_cluster(use: Use, cluster: Any) -> None:
    cache = on(use, cluster.url)
    exercise(cache)
    for number in range(20):
        cache.sadd(f"s{number}", "x")
    with pytest.raises(UnsupportedOperation, match="on several nodes of a cluster"):
        cache.sinter(*(f"s{number}" for number in range(20)))


def test_behind_sentinels(use: Use, sentinel: Any) -> None:
    exercise(on(use, sentinel.url))


def test_behind_sentinels_with_the_settings_of_django_redis(use: Use, sentinel: Any) -> None:
    exercise(
        on(
            use,
            f"redis://{sentinel.service}/0",
            CLIENT_CLASS="django_redis.client.SentinelClient",
            SENTINELS=[("127.0.0.1", each.port) for each in sentinel.sentinels],
            PASSWORD="pass/word",
        )
    )


def test_over_tls_with_the_settings_of_django_redis(use: Use) -> None:
    try:
        server = start_server("redis", tls="mutual", password="pw")
    except LookupError as error:
        pytest.skip(str(error))
    with server:
        certificates = {
            "ssl_ca_certs": str(server.ca), "ssl_certfile": server.client_cert, "ssl_keyfile": server.client_key,
        }  # fmt: skip
        location = f"rediss://127.0.0.1:{server.port}/0"
        exercise(on(use, location, PASSWORD="pw", CONNECTION_POOL_KWARGS={"max_connections": 5, **certificates}))
