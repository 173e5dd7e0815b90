"""How the users of each cache write it: the code that the sections run, and nothing else.

A piece of code is given ``function``, plain or a coroutine function, and makes ``memo`` of it. ``URL`` is that of a
server, ``ENTRIES`` how many entries there must be room for. Every entry lives an hour where there is such a thing.
"""

from typing import NamedTuple

from cachekit.bench.worker import LIBRARIES, OURS, REFERENCE

DRIVER = "redis-py"
PICKLE = "pickle"
# Where a library is imported from, and the name that it is installed by.
MODULES = {
    **{name: (library.module, library.distribution) for name, library in LIBRARIES.items()},
    PICKLE: ("pickle", ""),
    "msgpack": ("msgpack", "msgpack"),
    DRIVER: ("redis", "redis"),
    "django-redis": ("django_redis", "django-redis"),
    "python-redis-cache": ("redis_cache", "python-redis-cache"),
    "fastapi-cache2": ("fastapi_cache", "fastapi-cache2"),
    "fastapi-cachex": ("fastapi_cachex", "fastapi-cachex"),
}


OWN = {OURS, "msgpack"}  # measured where we are; the rest in the environment of the peers, if it has them


class Usage(NamedTuple):
    """One way to use a library: a row of a section. ``faces`` are the columns it has."""

    library: str
    name: str
    code: str
    faces: tuple[str, ...] = ("sync",)  # plain functions


BOTH = ("sync", "async")
ASYNC = ("async",)
CODING = ("encode", "decode")

# In the process.

IN_PROCESS = [
    Usage(REFERENCE, REFERENCE, "from functools import lru_cache\nmemo = lru_cache(ENTRIES)(function)"),
    Usage(
        OURS,
        "cachekit",
        "from cachekit import cache\nmemo = cache(backend=None, ttl=3600, max_entries=ENTRIES)(function)",
    ),
    Usage(
        "cachebox",
        "cachebox TTLCache",
        "from cachebox import TTLCache, cached\nmemo = cached(TTLCache(ENTRIES, 3600))(function)",
    ),
    Usage(
        "cachetools",
        "cachetools TTLCache",
        "from cachetools import TTLCache, cached\nmemo = cached(TTLCache(ENTRIES, 3600))(function)",
    ),
    Usage(
        "theine",
        "theine Memoize",
        "from datetime import timedelta\nfrom theine import Memoize\n"
        "memo = Memoize(ENTRIES, timedelta(hours=1))(function)",
    ),
    Usage(
        "methodtools", "methodtools.lru_cache", "from methodtools import lru_cache\nmemo = lru_cache(ENTRIES)(function)"
    ),
    Usage(
        "dogpile.cache",
        "dogpile.cache memory",
        "from dogpile.cache import make_region\n"
        "memo = make_region().configure('dogpile.cache.memory', 3600).cache_on_arguments()(function)",
    ),
    Usage(
        "django",
        "Django LocMemCache",
        """
from django.conf import settings
from django.core.cache import cache
place = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": ENTRIES + 1}}
settings.configure(CACHES={"default": place})
def memo(x):
    return cache.get_or_set(str(x), lambda: function(x), 3600)
""",
    ),
    Usage(
        "flask-caching",
        "Flask-Caching SimpleCache",
        """
from flask import Flask
from flask_caching import Cache
app = Flask("bench")
cache = Cache(app, config={"CACHE_TYPE": "SimpleCache", "CACHE_THRESHOLD": 2 * ENTRIES + 2})
app.app_context().push()
memo = cache.memoize(3600)(function)
""",
    ),
    Usage(
        "async_lru",
        "async_lru",
        "from async_lru import alru_cache\nmemo = alru_cache(ENTRIES, ttl=3600)(function)",
        ASYNC,
    ),
    Usage(
        "aiocache",
        "aiocache SimpleMemoryCache",
        "from aiocache import cached\nmemo = cached(ttl=3600)(function)",
        ASYNC,
    ),
    Usage(
        "cashews",
        "cashews in memory",
        "from cashews import Cache\n"
        "cache = Cache()\ncache.setup('mem://', size=ENTRIES)\nmemo = cache(ttl=3600)(function)",
        ASYNC,
    ),
    Usage(
        "cachekit.io",
        "cachekit.io @cache.local",
        "from cachekit import cache\nmemo = cache.local(max_entries=ENTRIES)(function)",
    ),
]

# On a server alone.

CONFIGURED = """
import os
from cachekit import cache, configure
os.environ["CACHEKIT_MASTER_KEY"] = SECRET
configure(namespace="bench", backends={"default": {"url": URL}})
"""
IO_CONFIGURED = """
import os
os.environ["REDIS_URL"] = URL
from cachekit import cache
"""
DJANGO = """
from django.conf import settings
if not settings.configured:
    settings.configure(CACHES={
        "django-redis": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": URL},
        "core": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": URL},
    })
from django.core.cache import caches
cache = caches["%s"]
def memo(x):
    return cache.get_or_set(f"%s:{x}", lambda: function(x), 3600)
"""
CASHEWS = """
from cashews import Cache
cache = Cache()
cache.setup(URL%s)
memo = cache(ttl=3600%s)(function)
"""
DOGPILE = """
from dogpile.cache import make_region
region = make_region().configure(
    "dogpile.cache.redis",
    expiration_time=3600,
    arguments={"url": URL, "distributed_lock": %s, "thread_local_lock": False},
)
memo = region.cache_on_arguments()(function)
"""
AIOCACHE = """
from urllib.parse import urlsplit
from aiocache import Cache, %s as cached
from aiocache.serializers import PickleSerializer
place = urlsplit(URL)
memo = cached(
    ttl=3600, cache=Cache.REDIS, endpoint=place.hostname, port=place.port, serializer=PickleSerializer()
)(function)
"""

GET = [
    Usage(
        DRIVER,
        "redis-py GET, msgpack",
        """
import msgpack, redis
client = redis.Redis.from_url(URL)
client.set("plain", msgpack.packb(function(7)))
def memo(x):
    return msgpack.unpackb(client.get("plain"))
""",
    ),
    Usage(
        DRIVER,
        "redis-py GET, msgpack",
        """
import msgpack, redis, redis.asyncio
redis.Redis.from_url(URL).set("plain", msgpack.packb(RECORD))
client = redis.asyncio.Redis.from_url(URL)
async def memo(x):
    return msgpack.unpackb(await client.get("plain"))
""",
        ASYNC,
    ),
]
ON_SERVER = [
    Usage(OURS, "cachekit", CONFIGURED + 'memo = cache(ttl=3600, l1={"mode": "off"})(function)', BOTH),
    Usage("aiocache", "aiocache", AIOCACHE % "cached", ASYNC),
    Usage("cashews", "cashews", CASHEWS % ("", ""), ASYNC),
    Usage("dogpile.cache", "dogpile.cache", DOGPILE % False),
    Usage("django", "Django RedisCache", DJANGO % ("core", "core")),
    Usage("django-redis", "django-redis", DJANGO % ("django-redis", "django-redis")),
    Usage(
        "flask-caching",
        "Flask-Caching memoize",
        """
from flask import Flask
from flask_caching import Cache
app = Flask("bench")
cache = Cache(app, config={"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": URL})
memoized = cache.memoize(3600)(function)
def memo(x):
    with app.app_context():
        return memoized(x)
""",
    ),
    Usage(
        "fastapi-cache2",
        "fastapi-cache2",
        """
import redis.asyncio
from fastapi_cache import FastAPICache
from fastapi_cache.backends.redis import RedisBackend
from fastapi_cache.decorator import cache
FastAPICache.init(RedisBackend(redis.asyncio.Redis.from_url(URL)), prefix="bench")
memo = cache(expire=3600)(function)
""",
        ASYNC,
    ),
    Usage(
        "python-redis-cache",
        "python-redis-cache",
        """
from redis import Redis
from redis_cache import RedisCache
memo = RedisCache(redis_client=Redis.from_url(URL)).cache(ttl=3600)(function)
""",
    ),
    Usage("cachekit.io", "cachekit.io", IO_CONFIGURED + "memo = cache(ttl=3600, l1_enabled=False)(function)", BOTH),
]

# With a guard against many callers of one cold key, where it is not the default.

GUARDED = [
    Usage("aiocache", "aiocache cached_stampede", AIOCACHE % "cached_stampede", ASYNC),
    Usage("cashews", "cashews, lock=True", CASHEWS % ("", ", lock=True"), ASYNC),
    Usage("dogpile.cache", "dogpile.cache, distributed_lock", DOGPILE % True),
]

# Encrypted, or signed where there is nothing else. The name is that of the row above, and how.

SECURE = [
    Usage(
        OURS, "cachekit, encrypted", CONFIGURED + 'memo = cache.secure(ttl=3600, l1={"mode": "off"})(function)', BOTH
    ),
    Usage("cashews", "cashews, signed", CASHEWS % (', secret="a secret", digestmod="sha256"', ""), ASYNC),
    Usage(
        "cachekit.io",
        "cachekit.io, encrypted",
        IO_CONFIGURED + "memo = cache.secure(ttl=3600, master_key=SECRET, l1_enabled=False)(function)",
        BOTH,
    ),
]

# What the circuit breaker itself takes: whether to ask, and noting how it went.

BREAKERS = [
    Usage(
        OURS,
        "cachekit, its breaker alone",
        """
from time import monotonic
from cachekit.config.spec import BreakerSpec
from cachekit.l2.breaker import Breaker
breaker = Breaker(BreakerSpec())
def memo(x):
    breaker.allow(monotonic(), False)
    breaker.record(monotonic(), None, False)
    return RECORD
""",
    ),
    Usage(
        "cachekit.io",
        "cachekit.io, its breaker alone",
        """
from cachekit.reliability.circuit_breaker import CircuitBreaker, CircuitBreakerConfig
breaker = CircuitBreaker(CircuitBreakerConfig(), namespace="bench")
def memo(x):
    breaker.record_success(cycle=breaker.admit())
    return RECORD
""",
    ),
]

# Encoding and decoding: ``dump`` and ``load``.

CODECS = [
    Usage(
        PICKLE,
        "pickle",
        "import pickle\ndef dump(value):\n    return pickle.dumps(value, -1)\nload = pickle.loads",
        CODING,
    ),
    Usage(
        OURS,
        "cachekit",
        """
from cachekit.codec import serializers
from cachekit.l1.table import admit
def dump(value):
    return serializers.dump(value, plain=admit(value).plain, limit=1 << 24)
def load(encoded):
    return serializers.load(*encoded)
""",
        CODING,
    ),
    Usage("msgpack", "msgpack with hooks in Python", "from codec import pack as dump, unpack as load", CODING),
    Usage(
        "fastapi-cache2",
        "fastapi-cache2 JsonCoder",
        "from fastapi_cache.coder import JsonCoder\ndump, load = JsonCoder.encode, JsonCoder.decode",
        CODING,
    ),
    *(
        Usage(
            "cachekit.io",
            f"cachekit.io {name}",
            f"from cachekit.serializers import {name}\ncoder = {name}()\ndump = coder.serialize\n"
            "def load(encoded):\n    return coder.deserialize(*encoded)",
            CODING,
        )
        for name in ("StandardSerializer", "AutoSerializer")
    ),
]
