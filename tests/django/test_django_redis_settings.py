"""The settings of django-redis: those of its own documentation work here, and none is ignored in silence."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachekit.integrations.django.options import READERS, SETTINGS
from cachekit.process import default_service
from cachekit.testing.servers import Server

PAGE = Path(__file__).parents[2] / "docs" / "django-settings.md"
OURS = "cachekit.integrations.django.CacheKitCache"
DEFAULT = "django_redis.client.DefaultClient"
PICKLE = "django_redis.serializers.pickle.PickleSerializer"
SENTINELS = [("sentinel-1", 26379), ("sentinel-2", 26379), ("::1", 26379)]
Use = Callable[..., None]


def switched(use: Use, location: Any = "redis://127.0.0.1:6379/1", options: Any = None, **settings: Any) -> Any:
    """The backend's and the region's settings after a switch of the one line."""
    use(CACHES={"default": {"BACKEND": OURS, "LOCATION": location, "OPTIONS": options or {}}}, **settings)
    from django.core.cache import cache

    assert cache.region.name == "django.default"
    spec = default_service().spec
    return spec.backends["django.default"], spec.regions["django.default"]


def said(use: Use, location: Any, options: Any) -> str:
    from django.core.exceptions import ImproperlyConfigured

    with pytest.raises(ImproperlyConfigured) as caught:
        switched(use, location, options)
    return str(caught.value)


def warnings() -> dict[str, str]:
    """What the system checks say does nothing, with the remedies."""
    from cachekit.integrations.django.checks import check_caches

    found = [each for each in check_caches(None) if each.id in ("cachekit.W004", "cachekit.W005")]
    return {
        re.sub(r"CACHES\['default'\]\['OPTIONS'\]\['(.*)'\]", r"\1", each.msg.split()[0]): each.hint for each in found
    }


DOCUMENTED = [
    {"PICKLE_VERSION": -1},
    {"SOCKET_CONNECT_TIMEOUT": 5, "SOCKET_TIMEOUT": 5},
    {"COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor"},
    {"COMPRESSOR": "django_redis.compressors.lzma.LzmaCompressor"},
    {"COMPRESSOR": "django_redis.compressors.lz4.Lz4Compressor"},
    {"COMPRESSOR": "django_redis.compressors.zstd.ZStdCompressor"},
    {"COMPRESSOR": "django_redis.compressors.gzip.GzipCompressor"},
    {"IGNORE_EXCEPTIONS": True},
    {"CONNECTION_POOL_KWARGS": {"max_connections": 100}},
    {"CONNECTION_POOL_KWARGS": {"max_connections": 100, "retry_on_timeout": True}},
    {"CLIENT_CLASS": DEFAULT},
    {"CLIENT_CLASS": "django_redis.client.HerdClient"},
    {"CLIENT_CLASS": DEFAULT, "SERIALIZER": "django_redis.serializers.json.JSONSerializer"},
    {"CLIENT_CLASS": DEFAULT, "SERIALIZER": "django_redis.serializers.msgpack.MSGPackSerializer"},
    {"CLIENT_CLASS": DEFAULT, "CLOSE_CONNECTION": True},
]  # fmt: skip


@pytest.mark.parametrize("options", DOCUMENTED, ids=str)
def test_what_the_documentation_of_django_redis_shows_works(use: Use, cachekit_server: Server, options: Any) -> None:
    from django.core.cache import cache

    switched(use, cachekit_server.url, options, CACHEKIT={"backends": {"django.default": {}}})
    value = {"text": ["x" * 3000], "number": 1.5}
    cache.set("k", value)
    assert cache.get("k") == value


@pytest.mark.parametrize(
    ("location", "options", "url"),
    [
        ("redis://django:mysecret@localhost:6379/0", {}, "redis://django:mysecret@localhost:6379/0"),
        ("redis://h:1/0", {"USERNAME": "django", "PASSWORD": "my/s@cret"}, "redis://django:my%2Fs%40cret@h:1/0"),
        ("redis://django@h:1/0", {"PASSWORD": "mysecret"}, "redis://django:mysecret@h:1/0"),
        ("redis://h:1/0", {"PASSWORD": "mysecret"}, "redis://:mysecret@h:1/0"),
        ("redis://a:b@h:1/0", {"USERNAME": "django", "PASSWORD": "mysecret"}, "redis://a:b@h:1/0"),
        ("unix:///run/redis.sock?db=0", {"PASSWORD": "x"}, "unix://:x@/run/redis.sock?db=0"),
        (
            "redis://service/1",
            {"CLIENT_CLASS": "django_redis.client.SentinelClient", "SENTINELS": SENTINELS,
             "CONNECTION_POOL_CLASS": "redis.sentinel.SentinelConnectionPool",
             "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
             "SENTINEL_KWARGS": {"username": "sentinel-user", "password": "sentinel-pass"}},
            "redis+sentinel://sentinel-1:26379,sentinel-2:26379,[::1]:26379/service/1"
            "?sentinel_username=sentinel-user&sentinel_password=sentinel-pass",
        ),
        (
            ["redis://other/0?is_master=1", "redis://other/0?is_master=0"],
            {"SENTINELS": SENTINELS[:1], "PASSWORD": "x"},
            "redis+sentinel://:x@sentinel-1:26379/other/0",
        ),
    ],
)  # fmt: skip
def test_credentials_and_sentinels_become_a_url(use: Use, location: Any, options: Any, url: str) -> None:
    backend, _ = switched(use, location, options)
    assert backend.url == url
    assert default_service().remote("django.default").faces.sync is not None  # which reads all of it


def test_what_can_be_mapped_is(use: Use) -> None:
    backend, region = switched(
        use,
        "rediss://127.0.0.1:6379/1",
        {
            "SOCKET_TIMEOUT": 0.1, "SOCKET_CONNECT_TIMEOUT": 0.01,
            "SERIALIZER": "django_valkey.serializers.json.JSONSerializer",
            "COMPRESSOR": "django_redis.compressors.identity.IdentityCompressor",
            "CONNECTION_POOL_KWARGS": {
                "max_connections": 7, "ssl_ca_certs": "/ca.pem", "ssl_certfile": "/c.pem", "ssl_keyfile": "/k.pem",
                "ssl_check_hostname": False, "ssl_cert_reqs": "required",
            },
        },
    )  # fmt: skip
    assert (backend.budget, backend.budget_min, backend.max_connections) == (0.01, 0.01, 7)
    assert (backend.tls.ca, backend.tls.cert, backend.tls.key) == ("/ca.pem", "/c.pem", "/k.pem")
    assert backend.tls.check_hostname is False
    assert (region.codec.serializer, region.codec.compression) == ("json", "none")
    backend, region = switched(
        use, options={"SOCKET_TIMEOUT": 5, "COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor"}
    )
    assert (backend.budget, backend.budget_min, region.codec.compression) == (0.25, 0.02, "lz4")
    _, region = switched(
        use, options={"COMPRESSOR": "django_redis.compressors.lz4.Lz4Compressor", "compression": "none"}
    )
    assert region.codec.compression == "none"  # our own name is closer to what is meant


@pytest.mark.parametrize(
    ("location", "options", "message"),
    [
        ("redis://h", {"CLIENT_CLASS": "django_redis.client.ShardClient"}, "client.ShardClient' cannot be used"),
        ("redis://h", {"CLIENT_CLASS": "shop.Client"}, "write redis+cluster://"),
        ("redis://h", {"CLIENT_CLASS": "shop.DefaultClient"}, "OPTIONS['CLIENT_CLASS']: 'shop.DefaultClient' cannot"),
        ("redis://h", {"CONNECTION_FACTORY": "shop.Factory"}, "Remove the option, or write 'credential_provider'"),
        ("redis://h", {"CONNECTION_POOL_CLASS": "myproj.mypool.MyOwnPool"}, "Remove the option"),
        ("redis://h", {"REDIS_CLIENT_CLASS": "my.module.ClientClass"}, "Remove the option"),
        ("redis://h", {"REDIS_CLIENT_KWARGS": {"some_setting": True}}, "belong into CONNECTION_POOL_KWARGS"),
        ("redis://h", {"BASE_CLIENT_KWARGS": {"x": 1}}, "Remove the option"),
        ("redis://h", {"SERIALIZER": "shop.Serializer"}, "entry point of cachekit.serializers"),
        ("redis://h", {"COMPRESSOR": "shop.Compressor"}, "write 'compression': 'lz4' or 'zstd'"),
        ("redis://h", {"SOCKET_TIMEOUT": "5"}, "not a number of seconds"),
        ("redis://h", {"SOCKET_TIMEOUT": True}, "not a number of seconds"),
        ("redis://h", {"SOCKET_CONNECT_TIMEOUT": -1}, "not a number of seconds"),
        ("redis://h", {"CONNECTION_POOL_KWARGS": {"ssl_cert_reqs": None}}, "'ssl_ca_certs'"),
        ("redis://h", {"CONNECTION_POOL_KWARGS": {"max_conections": 5}}, "did you mean 'max_connections'"),
        ("redis://h", {"CONNECTION_POOL_KWARGS": 5}, "not a dict"),
        ("redis://h", {"MAX_CONNECTIONS": 0}, "max_connections"),
        ("redis://h", {"READ_FROM": "old"}, "no other alias of CACHES"),
        ("redis://h?is_master=0", {"SENTINELS": SENTINELS}, "only replicas"),
        ("redis://h/0", {"SENTINELS": ["sentinel-1"]}, "not a list of (host, port)"),
        ("redis://h/0", {"SENTINELS": SENTINELS, "SENTINEL_KWARGS": {"x": 1}}, "username and password can"),
        (["redis://127.0.0.1:6379/1", "redis://127.0.0.1:6378/1"], {}, "leave out replicas"),
        ("", {"SERIALIZER": "django_redis.serializers.json.JSONSerializer"}, "need a LOCATION with a URL"),
        ("", {"PASSWORD": "hunter2"}, "need a LOCATION with a URL"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_what_to_write(use: Use, location: Any, options: Any, message: str) -> None:
    text = said(use, location, options)
    assert message in text
    assert "CACHES['default']" in text
    assert "hunter2" not in text


def test_what_does_nothing_is_told_by_a_check(use: Use) -> None:
    idle = {
        "PICKLE_VERSION": -1, "IGNORE_EXCEPTIONS": False, "REPLICA_READ_ONLY": False, "CLOSE_CONNECTION": True,
        "PARSER_CLASS": "redis.connection.HiredisParser", "SERIALIZER": PICKLE,
        "CACHE_HERD_TIMEOUT": 60, "SOCKET_KEEPALIVE": False, "COMPRESS_ZSTD_OPTIONS": {}, "DECOMPRESS_ZSTD_OPTIONS": {},
        "CONNECTION_POOL_CLEANUP": True,
    }  # fmt: skip
    switched(use, options={**idle, "CONNECTION_POOL_KWARGS": {"retry_on_timeout": True}})
    assert warnings().keys() == {*idle, "CONNECTION_POOL_KWARGS.retry_on_timeout"}
    quiet = {
        "IGNORE_EXCEPTIONS": True, "REPLICA_READ_ONLY": True, "CLOSE_CONNECTION": False, "LOG_IGNORED_EXCEPTIONS": True,
        "CLIENT_CLASS": DEFAULT, "SOCKET_TIMEOUT": 5,
        "REDIS_CLIENT_CLASS": "redis.client.Redis",
        "CONNECTION_POOL_CLASS": "redis.BlockingConnectionPool", "REDIS_CLIENT_KWARGS": {},
        "SOCKET_CONNECT_TIMEOUT": None,
    }  # fmt: skip
    switched(use, options=quiet)
    assert warnings() == {}


def test_global_settings_do_something_or_are_told(use: Use) -> None:
    useful = {
        "DJANGO_REDIS_IGNORE_EXCEPTIONS": True, "DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS": True,
        "DJANGO_REDIS_SCAN_ITERSIZE": 100, "DJANGO_REDIS_CLOSE_CONNECTION": False,
        "DJANGO_REDIS_CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
    }  # fmt: skip
    switched(use, **useful)
    assert warnings() == {}
    idle = {
        "DJANGO_REDIS_IGNORE_EXCEPTIONS": False, "DJANGO_REDIS_LOGGER": "shop", "DJANGO_REDIS_CLOSE_CONNECTION": True,
        "DJANGO_REDIS_CONNECTION_FACTORY": "shop.Factory", "DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS": False,
        "CACHE_HERD_TIMEOUT": 60, "DJANGO_VALKEY_LOGGER": "shop", "DJANGO_REDIS_SCAN_ITERSIZ": 5,
    }  # fmt: skip
    switched(use, **idle)
    assert warnings().keys() == idle.keys()
    use(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}, **idle)
    assert warnings() == {}


def test_the_page_of_settings_has_every_key() -> None:
    text = PAGE.read_text()
    names = [*READERS, *(f"DJANGO_REDIS_{name}" for name in SETTINGS), "READ_FROM"]
    assert [name for name in names if f"`{name}`" not in text] == []
