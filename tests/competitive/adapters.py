"""One adapter per cache: how its users decorate a function, in the process and on Redis, with its defaults.

Runs in the environment of the peers, or for cachekit in ours. An adapter imports its library when it is made.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from threading import Condition
from typing import Any, ClassVar
from urllib.parse import urlsplit

from support import NotOffered

LIFE = 600  # seconds
MASTER_KEY = "0123456789abcdef" * 4

Function = Callable[..., Any]


class Adapter:
    """What the situations need. What a library has nothing for is `NotOffered`."""

    is_async = False  # whether it decorates coroutine functions
    decorates = True  # or takes a key and a function

    def __init__(self, url: str) -> None:
        self.url = url

    def memo(self, function: Function) -> Any:
        """Entries are in the process, if the library has a place there."""
        raise NotOffered

    def amemo(self, function: Function) -> Any:
        """The same for a coroutine function."""
        raise NotOffered

    def shared(self, function: Function) -> Any:
        """Entries are on the server alone."""
        raise NotOffered

    def tiered(self, function: Function) -> Any:
        """Entries are in the process and on the server."""
        raise NotOffered

    def widest(self, function: Function) -> Any:
        """Entries are where those of other functions are, too, if there is such a place."""
        for decorate in (self.tiered, self.shared):
            try:
                return decorate(function)
            except NotOffered:
                pass  # a smaller place then
        return self.memo(function)

    def brief(self, function: Function, ttl: int) -> Any:
        """With a time in seconds."""
        raise NotOffered

    def by_value(self, function: Function, ttl: Callable[[Any], int]) -> Any:
        """With a time in seconds that depends on the result."""
        raise NotOffered

    def tagged(self, function: Function, tag: str) -> Any:
        raise NotOffered

    def forget(self, memo: Any, *args: Any) -> Any:
        """Invalidate one call."""
        raise NotOffered

    def forget_tag(self, tag: str) -> Any:
        raise NotOffered

    def clear(self, memo: Any) -> Any:
        """Empty the cache that ``memo``, a function whose entries are on the server, is in."""
        raise NotOffered

    def expose(self) -> None:
        """What a user has to write so that counts are in the registry of prometheus_client."""

    def sites(self, answer: Function) -> dict[str, Any]:
        """By framework: an application with the page ``answer``, kept; see pages.py."""
        raise NotOffered


class Cachekit(Adapter):
    profile: ClassVar[dict[str, Any]] = {}

    def __init__(self, url: str) -> None:
        super().__init__(url)
        import cachekit

        cachekit.configure(namespace="comparison", backends={"default": {"url": url}})
        self.cachekit = cachekit

    def cache(self, function: Function, **options: Any) -> Any:
        return self.cachekit.cache(**self.profile, **options)(function)

    def memo(self, function: Function) -> Any:
        return self.cache(function, backend=None)

    amemo = memo

    def shared(self, function: Function) -> Any:
        return self.cache(function, l1={"mode": "off"})

    def tiered(self, function: Function) -> Any:
        return self.cache(function)

    def brief(self, function: Function, ttl: int) -> Any:
        return self.cache(function, ttl=ttl, jitter=0)

    def by_value(self, function: Function, ttl: Callable[[Any], int]) -> Any:
        return self.cache(function, ttl=ttl, jitter=0)

    def tagged(self, function: Function, tag: str) -> Any:
        return self.cache(function, tags=[tag])

    def forget(self, memo: Any, *args: Any) -> Any:
        return memo.invalidate(*args)

    def forget_tag(self, tag: str) -> Any:
        return self.cachekit.invalidate_tags(tag)

    def clear(self, memo: Any) -> Any:
        return memo.region.clear()

    def expose(self) -> None:
        from cachekit.metrics import register

        register()

    def sites(self, answer: Function) -> dict[str, Any]:
        from pages import FastapiSite, FlaskSite

        from cachekit.integrations.fastapi import cached_response
        from cachekit.integrations.flask import Cache

        cache = Cache(config={"CACHE_TYPE": "SimpleCache"})
        return {
            "FastAPI": FastapiSite(answer, cached_response(ttl=LIFE)),
            "Flask": FlaskSite(answer, cache.cached(LIFE), cache.init_app),
        }


class LruCache(Adapter):
    typed = False

    def memo(self, function: Function) -> Any:
        return lru_cache(maxsize=None, typed=self.typed)(function)

    def forget(self, memo: Any, *args: Any) -> Any:
        memo.cache_clear()  # it cannot forget one call


class Cachetools(Adapter):
    condition: Any = None

    def memo(self, function: Function) -> Any:
        return self.brief(function, LIFE)

    def brief(self, function: Function, ttl: int) -> Any:
        from cachetools import TTLCache, cached

        return cached(TTLCache(1000, ttl), condition=self.condition)(function)

    def by_value(self, function: Function, ttl: Callable[[Any], int]) -> Any:
        from cachetools import TLRUCache, cached

        return cached(TLRUCache(1000, ttu=lambda key, value, now: now + ttl(value)))(function)

    def forget(self, memo: Any, *args: Any) -> Any:
        memo.cache.pop(memo.cache_key(*args), None)


class Aiocache(Adapter):
    is_async = True

    def memo(self, function: Function) -> Any:
        return self.brief(function, LIFE)

    amemo = memo

    def brief(self, function: Function, ttl: int) -> Any:
        from aiocache import cached

        return cached(ttl=ttl)(function)

    def shared(self, function: Function) -> Any:
        from aiocache import Cache, cached

        parts = urlsplit(self.url)
        return cached(ttl=LIFE, cache=Cache.REDIS, endpoint=parts.hostname, port=parts.port)(function)

    async def forget(self, memo: Any, *args: Any) -> Any:
        await memo.cache.delete(f"{memo.__module__}{memo.__name__}{args}[]")

    def clear(self, memo: Any) -> Any:
        return memo.cache.clear()


class RedisCache(Adapter):
    """python-redis-cache, which has no place in the process."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        from redis import Redis
        from redis_cache import RedisCache

        self.cache = RedisCache(redis_client=Redis.from_url(url))

    def memo(self, function: Function) -> Any:
        return self.brief(function, LIFE)

    shared = memo

    def brief(self, function: Function, ttl: int) -> Any:
        return self.cache.cache(ttl=ttl)(function)

    def forget(self, memo: Any, *args: Any) -> Any:
        memo.invalidate(*args)

    def clear(self, memo: Any) -> Any:
        memo.invalidate_all()


class Dogpile(Adapter):
    locks: ClassVar[dict[str, Any]] = {}

    def __init__(self, url: str) -> None:
        super().__init__(url)
        from dogpile.cache import make_region

        self.memory = make_region().configure("dogpile.cache.memory", expiration_time=LIFE)
        self.redis = make_region().configure(
            "dogpile.cache.redis", expiration_time=LIFE, arguments={"url": url, **self.locks}
        )

    def memo(self, function: Function) -> Any:
        return self.memory.cache_on_arguments()(function)

    def shared(self, function: Function) -> Any:
        return self.redis.cache_on_arguments()(function)

    def brief(self, function: Function, ttl: int) -> Any:
        return self.memory.cache_on_arguments(expiration_time=ttl)(function)

    def forget(self, memo: Any, *args: Any) -> Any:
        memo.invalidate(*args)

    def clear(self, memo: Any) -> Any:
        self.redis.invalidate()


class Cashews(Adapter):
    is_async = True
    options: ClassVar[dict[str, Any]] = {}
    lock: ClassVar[dict[str, Any]] = {}

    def __init__(self, url: str) -> None:
        super().__init__(url)
        from cashews import Cache

        self.memory, self.redis = Cache(), Cache()
        self.memory.setup("mem://")
        self.redis.setup(url, **self.options)

    def memo(self, function: Function) -> Any:
        return self.memory(ttl=LIFE)(function)

    amemo = memo

    def shared(self, function: Function) -> Any:
        return self.redis(ttl=LIFE, **self.lock)(function)

    def brief(self, function: Function, ttl: int) -> Any:
        return self.memory(ttl=ttl)(function)

    def by_value(self, function: Function, ttl: Callable[[Any], int]) -> Any:
        return self.memory(ttl=lambda *args, result, **kwargs: ttl(result))(function)

    def tagged(self, function: Function, tag: str) -> Any:
        return self.redis(ttl=LIFE, tags=[tag])(function)

    async def forget(self, memo: Any, *args: Any) -> Any:
        from cashews.key import get_cache_key

        for cache in (self.memory, self.redis):
            await cache.delete(get_cache_key(memo.__wrapped__, None, args, {}))

    def forget_tag(self, tag: str) -> Any:
        return self.redis.delete_tags(tag)

    def clear(self, memo: Any) -> Any:
        return self.redis.clear()


class FlaskCaching(Adapter):
    none = False
    cached: ClassVar[dict[str, Any]] = {}

    def within(self, function: Function, ttl: int = LIFE, **settings: Any) -> Any:
        """As `memoize` does it, with the application context that every request has."""
        from flask import Flask
        from flask_caching import Cache

        app, cache = Flask(__name__), Cache()
        cache.init_app(app, config=settings)
        memo = cache.memoize(ttl, cache_none=self.none)(function)

        def call(*args: Any, **kwargs: Any) -> Any:
            with app.app_context():
                return memo(*args, **kwargs)

        def forget(*args: Any) -> None:
            with app.app_context():
                cache.delete_memoized(memo, *args)

        def clear() -> None:
            with app.app_context():
                cache.clear()

        call.forget, call.clear = forget, clear  # type: ignore[attr-defined]
        return call

    def memo(self, function: Function) -> Any:
        return self.within(function, CACHE_TYPE="SimpleCache")

    def shared(self, function: Function) -> Any:
        return self.within(function, CACHE_TYPE="RedisCache", CACHE_REDIS_URL=self.url)

    def brief(self, function: Function, ttl: int) -> Any:
        return self.within(function, ttl, CACHE_TYPE="SimpleCache")

    def forget(self, memo: Any, *args: Any) -> Any:
        memo.forget(*args)

    def clear(self, memo: Any) -> Any:
        memo.clear()

    def sites(self, answer: Function) -> dict[str, Any]:
        from flask_caching import Cache
        from pages import FlaskSite

        cache = Cache(config={"CACHE_TYPE": "SimpleCache"})
        return {"Flask": FlaskSite(answer, cache.cached(LIFE, **self.cached), cache.init_app)}


class DjangoRedis(Adapter):
    decorates = False
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, url: str) -> None:
        super().__init__(url)
        from django.conf import settings

        place = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url, "OPTIONS": self.options}
        settings.configure(CACHES={"default": place})
        from django.core.cache import cache

        self.cache = cache

    def memo(self, function: Function) -> Any:
        return self.brief(function, LIFE)

    shared = memo

    def brief(self, function: Function, ttl: int) -> Any:
        def memo(*args: Any) -> Any:
            return self.cache.get_or_set(f"{memo.__qualname__}:{args}", lambda: function(*args), ttl)

        memo.__qualname__ = function.__qualname__
        return memo

    def forget(self, memo: Any, *args: Any) -> Any:
        self.cache.delete(f"{memo.__qualname__}:{args}")

    def clear(self, memo: Any) -> Any:
        self.cache.clear()


class FastapiCache(Adapter):
    is_async = True

    def within(self, function: Function, backend: Any, ttl: int = LIFE) -> Any:
        """Its one backend per process is this one for the time of a call."""
        from fastapi_cache import FastAPICache
        from fastapi_cache.decorator import cache

        memo = cache(ttl)(function)

        def use() -> None:
            FastAPICache.reset()
            FastAPICache.init(backend, prefix="prefix")

        async def call(*args: Any, **kwargs: Any) -> Any:
            use()
            return await memo(*args, **kwargs)

        async def clear() -> None:
            use()
            await FastAPICache.clear()  # of its prefix

        call.clear = clear  # type: ignore[attr-defined]
        return call

    def memo(self, function: Function) -> Any:
        from fastapi_cache.backends.inmemory import InMemoryBackend

        return self.within(function, InMemoryBackend())

    amemo = memo

    def shared(self, function: Function) -> Any:
        return self.brief(function, LIFE)

    def brief(self, function: Function, ttl: int) -> Any:
        from fastapi_cache.backends.redis import RedisBackend
        from redis.asyncio import from_url

        return self.within(function, RedisBackend(from_url(self.url)), ttl)

    def forget(self, memo: Any, *args: Any) -> Any:
        return memo.clear()

    def clear(self, memo: Any) -> Any:
        return memo.clear()

    def sites(self, answer: Function) -> dict[str, Any]:
        from fastapi_cache import FastAPICache
        from fastapi_cache.backends.inmemory import InMemoryBackend
        from fastapi_cache.decorator import cache
        from pages import FastapiSite

        FastAPICache.reset()
        FastAPICache.init(InMemoryBackend())
        return {"FastAPI": FastapiSite(answer, cache(LIFE))}


class CachekitIo(Adapter):
    """The package ``cachekit`` on PyPI, of another project."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        os.environ["CACHEKIT_REDIS_URL"] = url
        from cachekit import cache

        self.cache = cache

    def memo(self, function: Function) -> Any:
        return self.cache(backend=None, ttl=LIFE)(function)

    amemo = memo

    def shared(self, function: Function) -> Any:
        return self.cache(ttl=LIFE, l1_enabled=False)(function)

    def tiered(self, function: Function) -> Any:
        return self.cache(ttl=LIFE)(function)

    def brief(self, function: Function, ttl: int) -> Any:
        return self.cache(ttl=ttl)(function)

    def forget(self, memo: Any, *args: Any) -> Any:
        memo.invalidate_cache(*args)

    def clear(self, memo: Any) -> Any:
        memo.invalidate_cache()


# Options that others offer


class CachekitSecure(Cachekit):
    def __init__(self, url: str) -> None:
        os.environ["CACHEKIT_MASTER_KEY"] = MASTER_KEY
        super().__init__(url)

    def cache(self, function: Function, **options: Any) -> Any:
        return self.cachekit.cache.secure(**options)(function)


class CachekitStale(Cachekit):
    profile: ClassVar = {"stale_ttl": LIFE}


class CachekitShare(Cachekit):
    profile: ClassVar = {"isolation": "share"}


class LruCacheTyped(LruCache):
    typed = True


class CachetoolsCondition(Cachetools):
    condition = Condition()


class AiocacheStampede(Aiocache):
    def memo(self, function: Function) -> Any:
        from aiocache import cached_stampede

        return cached_stampede(ttl=LIFE, lease=2)(function)

    amemo = memo


class RedisCachePickle(RedisCache):
    """With a serializer of the user's, as its README shows."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        import pickle

        self.cache.serializer, self.cache.deserializer = pickle.dumps, pickle.loads


class DogpileLock(Dogpile):
    locks: ClassVar = {"distributed_lock": True, "lock_timeout": 10, "thread_local_lock": False}


class CashewsSigned(Cashews):
    options: ClassVar = {"secret": "secret", "digestmod": "sha256"}


class CashewsLock(Cashews):
    lock: ClassVar = {"lock": True}


class CashewsFailover(Cashews):
    def brief(self, function: Function, ttl: int) -> Any:
        return self.memory.failover(ttl=LIFE)(self.memory(ttl=ttl)(function))


class CashewsClientSide(Cashews):
    options: ClassVar = {"client_side": True}

    def __init__(self, url: str) -> None:
        super().__init__(f"{url}?protocol=2")
        self.url = url

    def tiered(self, function: Function) -> Any:
        return self.shared(function)


class FlaskCachingNone(FlaskCaching):
    none = True


class FlaskCachingQuery(FlaskCaching):
    cached: ClassVar = {"query_string": True}


class DjangoRedisIgnore(DjangoRedis):
    options: ClassVar = {"IGNORE_EXCEPTIONS": True}


class DjangoRedisJson(DjangoRedis):
    options: ClassVar = {"SERIALIZER": "django_redis.serializers.json.JSONSerializer"}


class CachekitIoSecure(CachekitIo):
    def shared(self, function: Function) -> Any:
        return self.cache.secure(ttl=LIFE, l1_enabled=False, master_key=MASTER_KEY, single_tenant_mode=True)(function)


class CachekitIoAuto(CachekitIo):
    def shared(self, function: Function) -> Any:
        return self.cache(ttl=LIFE, l1_enabled=False, serializer="auto")(function)


ADAPTERS: dict[str, type[Adapter]] = {
    "cachekit": Cachekit,
    "lru_cache": LruCache,
    "cachetools": Cachetools,
    "aiocache": Aiocache,
    "redis-cache": RedisCache,
    "dogpile.cache": Dogpile,
    "cashews": Cashews,
    "Flask-Caching": FlaskCaching,
    "django-redis": DjangoRedis,
    "fastapi-cache2": FastapiCache,
    "cachekit.io": CachekitIo,
    "cachekit: @cache.secure": CachekitSecure,
    "cachekit: @cache(stale_ttl=...)": CachekitStale,
    'cachekit: @cache(isolation="share")': CachekitShare,
    "lru_cache(typed=True)": LruCacheTyped,
    "cachetools: cached(condition=Condition())": CachetoolsCondition,
    "aiocache: cached_stampede()": AiocacheStampede,
    "redis-cache: RedisCache(serializer=pickle.dumps, ...)": RedisCachePickle,
    "dogpile.cache: distributed_lock=True": DogpileLock,
    "cashews: setup(secret=..., digestmod=...)": CashewsSigned,
    "cashews: cache(lock=True)": CashewsLock,
    "cashews: failover(ttl=...)": CashewsFailover,
    'cashews: setup("...?protocol=2", client_side=True)': CashewsClientSide,
    "Flask-Caching: memoize(cache_none=True)": FlaskCachingNone,
    "Flask-Caching: cached(query_string=True)": FlaskCachingQuery,
    "django-redis: IGNORE_EXCEPTIONS": DjangoRedisIgnore,
    "django-redis: JSONSerializer": DjangoRedisJson,
    "cachekit.io: @cache.secure": CachekitIoSecure,
    'cachekit.io: @cache(serializer="auto")': CachekitIoAuto,
}
