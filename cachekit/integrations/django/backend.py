"""Django's cache API on a region. What L2 cannot do is never an exception here; mistakes in code are.

Each method that may touch L2 is written twice: blocking, and as a coroutine that really waits.
"""

from collections.abc import Iterable, Mapping
from functools import cache, partial
from inspect import isawaitable
from typing import Any, Final

from django.core.cache.backends.base import DEFAULT_TIMEOUT, MEMCACHE_MAX_KEY_LENGTH, BaseCache

from cachekit.config.units import LONGEST
from cachekit.context import is_off
from cachekit.engine.miss import MISS
from cachekit.integrations.django.extras import OVER, Extras
from cachekit.integrations.django.project import READ_FROM, open_region
from cachekit.regions import Region, strict

FOR_EVER: Final = None
SESSION: Final = "django.contrib.sessions.cache"  # begins the keys of the engine "cache"
SESSION_KEY: Final = 32  # characters of a session's own


class CacheKitCache(Extras, BaseCache):  # type: ignore[misc]  # Django has no types
    """A cachekit region as a Django cache.

    ``LOCATION`` is the name of a region (empty: ``default``) or the URL of a server, which makes a region
    ``django.ALIAS`` with the fields of a profile in ``OPTIONS``. ``TIMEOUT`` in seconds, None for ever; without it the
    region's ``ttl``. Raises `ImproperlyConfigured` for what the configuration does not have.
    """

    strict_sessions = True

    def __new__(cls, location: Any, params: Mapping[str, Any]) -> "CacheKitCache":
        made = switching(cls) if READ_FROM in (params.get("OPTIONS") or {}) else cls  # type: ignore[arg-type]
        return super().__new__(made)  # type: ignore[no-any-return]

    def __init__(self, location: Any, params: Mapping[str, Any]) -> None:
        super().__init__(params)
        self._params = params
        self.region, ttl = open_region(location, params)
        if "TIMEOUT" not in params and "timeout" not in params:
            self.default_timeout = ttl

    def validate_key(self, key: Any) -> None:
        """Warn of keys that memcached would refuse, as Django does."""
        # Django looks at each character, which takes longer than all of a hit: it is asked only about likely keys.
        if len(key) > MEMCACHE_MAX_KEY_LENGTH or not (key.isascii() and key.isprintable()) or " " in key:
            super().validate_key(key)

    def _ttl(self, timeout: Any) -> Any:
        """Seconds, `FOR_EVER`, or `OVER`."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        if timeout is None or timeout > LONGEST:
            return FOR_EVER
        return float(timeout) if timeout > 0 else OVER

    def _keys(self, keys: Iterable[Any], version: Any) -> dict[Any, Any]:
        """The region's keys, and the callers' own for each."""
        return {self.make_and_validate_key(key, version=version): key for key in keys}

    def _region_of(self, key: Any) -> Region:
        """Where a value is stored. A session that cannot be is an error, not a visitor logged out."""
        return strict(self.region) if self.strict_sessions and is_session(key) else self.region

    # Reading

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        return self.region.get(self.make_and_validate_key(key, version=version), default)

    async def aget(self, key: Any, default: Any = None, version: Any = None) -> Any:
        return await self.region.aget(self.make_and_validate_key(key, version=version), default)

    def get_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        names = self._keys(keys, version)
        return {names[name]: value for name, value in self.region.get_many(names).items()}

    async def aget_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        names = self._keys(keys, version)
        return {names[name]: value for name, value in (await self.region.aget_many(names)).items()}

    def has_key(self, key: Any, version: Any = None) -> bool:
        return self.get(key, MISS, version=version) is not MISS

    async def ahas_key(self, key: Any, version: Any = None) -> bool:
        return await self.aget(key, MISS, version=version) is not MISS

    # Writing

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None, client: Any = None,
        nx: bool = False, xx: bool = False,
    ) -> bool:  # fmt: skip
        """Store a value. ``nx``: only if there is none, ``xx``: only if there is one; whether it was stored."""
        if nx or xx or client is not None:
            return bool(self.set_if(key, value, self._ttl(timeout), version, client, nx, xx))
        name, ttl = self.make_and_validate_key(key, version=version), self._ttl(timeout)
        if ttl is OVER:
            return self._delete(name)
        self._region_of(key).set(name, value, ttl=ttl)
        return True

    async def aset(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None, client: Any = None,
        nx: bool = False, xx: bool = False,
    ) -> bool:  # fmt: skip
        """As `set`."""
        if nx or xx or client is not None:
            return bool(await self.aset_if(key, value, self._ttl(timeout), version, client, nx, xx))
        name, ttl = self.make_and_validate_key(key, version=version), self._ttl(timeout)
        if ttl is OVER:
            return await self._adelete(name)
        await self._region_of(key).aset(name, value, ttl=ttl)
        return True

    def set_many(self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> list[Any]:
        names, ttl = self._keys(data, version), self._ttl(timeout)
        if ttl is OVER:
            self.region.delete_many(names)
            return []
        failed = self.region.set_many({name: data[key] for name, key in names.items()}, ttl=ttl)
        return [names[name] for name in failed]

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> list[Any]:
        names, ttl = self._keys(data, version), self._ttl(timeout)
        if ttl is OVER:
            await self.region.adelete_many(names)
            return []
        failed = await self.region.aset_many({name: data[key] for name, key in names.items()}, ttl=ttl)
        return [names[name] for name in failed]

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        name, ttl = self.make_and_validate_key(key, version=version), self._ttl(timeout)
        if ttl is OVER:
            return self.region.remaining(name) is MISS
        return self._region_of(key).add(name, value, ttl=ttl) or nobody_knows(self.region)

    async def aadd(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        name, ttl = self.make_and_validate_key(key, version=version), self._ttl(timeout)
        if ttl is OVER:
            return await self.region.aremaining(name) is MISS
        return await self._region_of(key).aadd(name, value, ttl=ttl) or nobody_knows(self.region)

    def get_or_set(self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Any:
        """The value; if there is none, ``default``, called if it can be: once for all who ask at the same time."""
        name, ttl = self.make_and_validate_key(key, version=version), self._ttl(timeout)
        factory = default if callable(default) else lambda: default
        if ttl is not OVER:
            return self.region.get_or_set(name, factory, ttl=ttl)
        value = self.region.get(name, MISS)
        return factory() if value is MISS else value

    async def aget_or_set(self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Any:
        """As `get_or_set`; ``default`` may be a coroutine function. Any other callable runs in the event loop."""
        name, ttl = self.make_and_validate_key(key, version=version), self._ttl(timeout)
        factory = partial(_called, default)
        if ttl is not OVER:
            return await self.region.aget_or_set(name, factory, ttl=ttl)
        value = await self.region.aget(name, MISS)
        return await factory() if value is MISS else value

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        name, ttl = self.make_and_validate_key(key, version=version), self._ttl(timeout)
        return self._delete(name) if ttl is OVER else self.region.touch(name, ttl=ttl)

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        name, ttl = self.make_and_validate_key(key, version=version), self._ttl(timeout)
        return await self._adelete(name) if ttl is OVER else await self.region.atouch(name, ttl=ttl)

    def incr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        """Add to a number, for all processes at once. Raises ValueError if nothing is there."""
        name = self.make_and_validate_key(key, version=version)
        try:
            return self.region.incr(name, delta, create=False)
        except KeyError:
            raise ValueError(f"Key '{key}' not found") from None

    async def aincr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        """As `incr`."""
        name = self.make_and_validate_key(key, version=version)
        try:
            return await self.region.aincr(name, delta, create=False)
        except KeyError:
            raise ValueError(f"Key '{key}' not found") from None

    # Removing

    def delete(self, key: Any, version: Any = None) -> bool:
        return self._delete(self.make_and_validate_key(key, version=version))

    async def adelete(self, key: Any, version: Any = None) -> bool:
        return await self._adelete(self.make_and_validate_key(key, version=version))

    def _delete(self, name: Any) -> bool:
        """Whether there was anything to delete."""
        there = self.region.remaining(name) is not MISS
        self.region.delete(name)  # in any case: what cannot be read may become readable
        return there

    async def _adelete(self, name: Any) -> bool:
        there = await self.region.aremaining(name) is not MISS
        await self.region.adelete(name)
        return there

    def delete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        self.region.delete_many(self._keys(keys, version))

    async def adelete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        await self.region.adelete_many(self._keys(keys, version))

    def clear(self) -> None:
        """Remove everything in this region, and nothing else on the server."""
        self.region.clear()
        self.clear_structures()

    async def aclear(self) -> None:
        """As `clear`."""
        await self.region.aclear()
        await self.aclear_structures()


def is_session(key: Any) -> bool:
    """Whether a session lies under a key, and nowhere else: those of the engine "cached_db" lie in the database too."""
    return type(key) is str and key.startswith(SESSION) and len(key) == len(SESSION) + SESSION_KEY


def nobody_knows(region: Region) -> bool:
    """Whether what is there cannot be told now: no server to ask, and no L1.

    `add()` says then that it has stored, as Django's dummy cache does. Else Django would try 10,000 keys for a session,
    and raise.
    """
    service, name = region.service, region.name
    if not service.spec.enabled or is_off(name):
        return True
    return service.region_spec(name).l1.mode == "off" and not all(remote.well for remote in service.remotes_of(name))


async def _called(default: Any) -> Any:
    value = default() if callable(default) else default
    return await value if isawaitable(value) else value


@cache
def switching(cls: type[CacheKitCache]) -> type[CacheKitCache]:
    """This class, or one of a project's own, with ``READ_FROM``."""
    from cachekit.integrations.django.switching import SwitchingCache  # it stands on this module

    return SwitchingCache if cls is CacheKitCache else type(cls.__name__, (cls, SwitchingCache), {})
