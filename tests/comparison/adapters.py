"""One adapter per cache: how its users decorate a function, in the process and on Redis, with its defaults.

Runs in the environment of the peers, or for cachekit in ours. An adapter imports its library when it is made.
"""

from collections.abc import Callable
from functools import lru_cache
from threading import Condition
from typing import Any

LIFE = 600  # seconds


class Adapter:
    """What a probe needs. ``memo`` and ``shared`` decorate; the latter's entries live on the server alone."""

    is_async = False  # whether it decorates coroutine functions only
    decorates = True  # or takes a key and a function
    has_server = True

    def __init__(self, url: str) -> None:
        self.url = url

    def memo(self, function: Callable[..., Any]) -> Any:
        raise NotImplementedError

    def shared(self, function: Callable[..., Any]) -> Any:
        raise NotImplementedError

    def amemo(self, function: Callable[..., Any]) -> Any:
        """For coroutine functions; None where the library has nothing for them."""
        return None

    def forget(self, memo: Any, *args: Any) -> Any:
        """Invalidate one call."""
        raise NotImplementedError


class Cachekit(Adapter):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        import cachekit

        cachekit.configure(namespace="comparison", backends={"default": {"url": url}})
        self.cache = cachekit.cache

    def memo(self, function: Callable[..., Any]) -> Any:
        return self.cache(backend=None, version=function.__qualname__)(function)

    def shared(self, function: Callable[..., Any]) -> Any:
        return self.cache(l1={"mode": "off"}, version=function.__qualname__)(function)

    amemo = memo

    def forget(self, memo: Any, *args: Any) -> Any:
        return memo.invalidate(*args)


class LruCache(Adapter):
    has_server = False
    typed = False

    def memo(self, function: Callable[..., Any]) -> Any:
        return lru_cache(maxsize=None, typed=self.typed)(function)

    def forget(self, memo: Any, *args: Any) -> Any:
        memo.cache_clear()  # it cannot forget one call


class Cachetools(Adapter):
    has_server = False
    condition: Any = None

    def memo(self, function: Callable[..., Any]) -> Any:
        from cachetools import TTLCache, cached

        return cached(TTLCache(1000, LIFE), condition=self.condition)(function)

    def forget(self, memo: Any, *args: Any) -> Any:
        memo.cache.pop(memo.cache_key(*args), None)


class Aiocache(Adapter):
    is_async = True

    def memo(self, function: Callable[..., Any]) -> Any:
        from aiocache import cached

        return cached(ttl=LIFE)(function)

    amemo = memo

    def shared(self, function: Callable[..., Any]) -> Any:
        from urllib.parse import urlsplit

        from aiocache import Cache, cached

        parts = urlsplit(self.url)
        return cached(ttl=LIFE, cache=Cache.REDIS, endpoint=parts.hostname, port=parts.port)(function)

    async def forget(self, memo: Any, *args: Any) -> Any:
        await memo.cache.delete(f"{memo.__module__}{memo.__name__}{args}[]")


class Dogpile(Adapter):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        from dogpile.cache import make_region

        self.memory = make_region().configure("dogpile.cache.memory", expiration_time=LIFE)
        self.redis = make_region().configure("dogpile.cache.redis", expiration_time=LIFE, arguments={"url": url})

    def memo(self, function: Callable[..., Any]) -> Any:
        return self.memory.cache_on_arguments()(function)

    def shared(self, function: Callable[..., Any]) -> Any:
        return self.redis.cache_on_arguments()(function)

    def forget(self, memo: Any, *args: Any) -> Any:
        memo.invalidate(*args)


class Cashews(Adapter):
    is_async = True

    def __init__(self, url: str) -> None:
        super().__init__(url)
        from cashews import Cache

        self.memory, self.redis = Cache(), Cache()
        self.memory.setup("mem://")
        self.setup(self.redis, url)

    def setup(self, cache: Any, url: str) -> None:
        cache.setup(url)

    def memo(self, function: Callable[..., Any]) -> Any:
        return self.memory(ttl=LIFE)(function)

    amemo = memo

    def shared(self, function: Callable[..., Any]) -> Any:
        return self.redis(ttl=LIFE)(function)

    async def forget(self, memo: Any, *args: Any) -> Any:
        await self.memory.delete_match("*")


class FlaskCaching(Adapter):
    none = False

    def within(self, function: Callable[..., Any], **settings: Any) -> Any:
        """As `memoize` does it, with the application context that every request has."""
        from flask import Flask
        from flask_caching import Cache

        app, cache = Flask(__name__), Cache()
        cache.init_app(app, config=settings)
        memo = cache.memoize(LIFE, cache_none=self.none)(function)

        def call(*args: Any, **kwargs: Any) -> Any:
            with app.app_context():
                return memo(*args, **kwargs)

        def forget(*args: Any) -> None:
            with app.app_context():
                cache.delete_memoized(memo, *args)

        call.forget = forget  # type: ignore[attr-defined]
        return call

    def memo(self, function: Callable[..., Any]) -> Any:
        return self.within(function, CACHE_TYPE="SimpleCache")

    def shared(self, function: Callable[..., Any]) -> Any:
        return self.within(function, CACHE_TYPE="RedisCache", CACHE_REDIS_URL=self.url)

    def forget(self, memo: Any, *args: Any) -> Any:
        memo.forget(*args)


class DjangoRedis(Adapter):
    decorates = False

    def __init__(self, url: str) -> None:
        super().__init__(url)
        from django.conf import settings

        if not settings.configured:
            place = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url}
            settings.configure(CACHES={"default": place})
        from django.core.cache import cache

        self.cache = cache

    def memo(self, function: Callable[..., Any]) -> Any:
        def memo(*args: Any) -> Any:
            return self.cache.get_or_set(f"{memo.__qualname__}:{args}", lambda: function(*args), LIFE)

        memo.__qualname__ = function.__qualname__
        return memo

    shared = memo

    def forget(self, memo: Any, *args: Any) -> Any:
        self.cache.delete(f"{memo.__qualname__}:{args}")


# Options that others offer


class LruCacheTyped(LruCache):
    typed = True


class CachetoolsCondition(Cachetools):
    condition = Condition()


class AiocacheStampede(Aiocache):
    def memo(self, function: Callable[..., Any]) -> Any:
        from aiocache import cached_stampede

        return cached_stampede(ttl=LIFE, lease=2)(function)

    amemo = memo


class FlaskCachingNone(FlaskCaching):
    none = True


class CashewsSigned(Cashews):
    def setup(self, cache: Any, url: str) -> None:
        cache.setup(url, secret="secret", digestmod="sha256")


ADAPTERS: dict[str, type[Adapter]] = {
    "cachekit": Cachekit,
    "lru_cache": LruCache,
    "cachetools": Cachetools,
    "aiocache": Aiocache,
    "dogpile.cache": Dogpile,
    "cashews": Cashews,
    "Flask-Caching": FlaskCaching,
    "django-redis": DjangoRedis,
    "lru_cache(typed=True)": LruCacheTyped,
    "cachetools: cached(condition=Condition())": CachetoolsCondition,
    "aiocache: cached_stampede()": AiocacheStampede,
    "cashews: setup(secret=..., digestmod=...)": CashewsSigned,
    "Flask-Caching: memoize(cache_none=True)": FlaskCachingNone,
}
