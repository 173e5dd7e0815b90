"""``OPTIONS["READ_FROM"]``: what is missing here is read once from the cache that this one takes over from.

Every write is repeated there, so that the old cache holds nothing older than what was written here, and whatever still
runs on it goes on. What was removed is *marked* besides, in a region of its own: a reader may hold the old value in its
hands at that moment, the old cache may not be there to be told, and `clear()` must not reach it at all, since that of
Redis backends empties the whole database.

Readers look for marks before they ask the old cache, and again after they have stored what it gave. Removing marks
first and deletes last. So one of both sees the other, in whatever order their steps come.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.core.cache.backends.base import DEFAULT_TIMEOUT

from cachekit.context import TENANT
from cachekit.engine.miss import MISS
from cachekit.engine.pauses import Pauses
from cachekit.engine.ports import Port, drive
from cachekit.engine.tiers import logger
from cachekit.integrations.django.backend import CacheKitCache
from cachekit.integrations.django.extras import OVER
from cachekit.integrations.django.extras.twins import both
from cachekit.integrations.django.project import open_marks
from cachekit.regions import Region
from cachekit.service import Service

EVERYTHING: Final = ("everything",)  # the mark of `clear()`; those of keys are text
SETTLED: Final = 3_600.0  # seconds for which a mark stays of what was removed there too
ABSENT: Final = 5.0  # seconds for which a key that the old cache does not have is not asked for again
REST: Final = 10.0  # seconds for which an old cache is left alone that took its time to fail
SLOW: Final = 0.1  # seconds
FAILED: Final[Any] = object()


class Memory:
    """What a process knows of one old cache, whichever thread or task found out."""

    def __init__(self) -> None:
        self.absent = Pauses()
        self.owed: dict[Any, float | None] = {}  # marks that could not be set yet, and their seconds
        self.rests_until = 0.0
        self.reported = False


_memories: "WeakKeyDictionary[Service, dict[str, Memory]]" = WeakKeyDictionary()


class OldCache:
    """The alias that is read from, and the marks of what must not come back from there. Raises nothing."""

    def __init__(self, alias: str, marks: Region, version: Any) -> None:
        self.alias = alias
        self.version = version  # the new cache's own, for which the old one has its own, too
        self.marks = marks
        self.memory = _memories.setdefault(marks.service, {}).setdefault(marks.name, Memory())

    async def read(self, aio: bool, names: Mapping[Any, Any], version: Any) -> dict[Any, Any]:
        """Its values, by our names, of those keys that it may be asked for."""
        now = self._now()
        asked = {name: key for name, key in names.items() if not self.memory.absent.on(name, now)}
        if self._resting or not (asked := await self.unmarked(aio, asked)):
            return {}
        found = await self._ask(aio, "get_many", list(asked.values()), version=version)
        if found is FAILED:
            return {}
        for name in [name for name, key in asked.items() if key not in found]:
            self.memory.absent.rest(name, now, ABSENT)
        return {name: found[key] for name, key in asked.items() if key in found}

    async def left(self, aio: bool, key: Any, version: Any) -> Any:
        """The seconds that a value has left there, None for ever, or DEFAULT_TIMEOUT where that backend cannot tell."""
        if not hasattr(caches[self.alias], "ttl"):
            return DEFAULT_TIMEOUT
        seconds = await self._ask(aio, "ttl", key, version=version)
        return DEFAULT_TIMEOUT if seconds is FAILED else seconds

    async def tell(self, aio: bool, names: Mapping[Any, Any], method: str, *args: Any, **kwargs: Any) -> Any:
        """Repeat a write. If that fails, what lies there is old from now on, and marked so."""
        answer = FAILED if self._resting else await self._ask(aio, method, *args, **kwargs)
        if answer is FAILED:
            await self.mark(aio, names)
        return answer

    async def remove(self, aio: bool, names: Mapping[Any, Any], method: str, *args: Any, **kwargs: Any) -> Any:
        """Before something is removed here."""
        await self.mark(aio, names, SETTLED)
        return await self.tell(aio, names, method, *args, **kwargs)

    async def remove_matching(self, aio: bool, pattern: str, version: Any, prefix: Any, names_of: Any) -> None:
        """Before keys are removed here by a pattern. If the old cache cannot tell which those are, all are marked."""
        lists = prefix is None and not self._resting and hasattr(caches[self.alias], "keys")
        found = await self._ask(aio, "keys", pattern, version=version) if lists else FAILED
        if found is FAILED:
            await self.mark(aio, [EVERYTHING], None)
        elif found:
            await self.remove(aio, names_of(found, version), "delete_many", found, version=version)

    async def mark(self, aio: bool, names: Iterable[Any], seconds: Any = DEFAULT_TIMEOUT) -> None:
        """Have nobody take these from the old cache. What cannot be marked now is marked later, and known here."""
        if TENANT.get() is not None:
            return
        owed, ttl = self.memory.owed, self.marks_ttl if seconds is DEFAULT_TIMEOUT else seconds
        owed.update(dict.fromkeys(names, ttl))
        for ttl in set(owed.values()):
            due = [name for name, its in tuple(owed.items()) if its == ttl]
            failed = await call(aio, self.marks, "set_many", dict.fromkeys(due, True), ttl=ttl)
            for name in set(due).difference(failed):
                owed.pop(name, None)

    async def unmarked(self, aio: bool, names: Mapping[Any, Any]) -> dict[Any, Any]:
        """Those that may be taken from the old cache: none while nobody can tell."""
        if not names:
            return {}
        if self.memory.owed:
            await self.mark(aio, ())
        marked = {*await call(aio, self.marks, "get_many", [EVERYTHING, *names]), *self.memory.owed}
        told = all(remote.well for remote in self.marks.service.remotes_of(self.marks.name))
        if EVERYTHING in marked or not told:
            return {}
        return {name: key for name, key in names.items() if name not in marked}

    @property
    def _resting(self) -> bool:
        """Whether it is not asked now. It knows no tenants: what it has is nobody's, and theirs must not get there."""
        return TENANT.get() is not None or self._now() < self.memory.rests_until

    @property
    def marks_ttl(self) -> float | None:
        return self.marks.service.region_spec(self.marks.name).ttl

    async def _ask(self, aio: bool, method: str, *args: Any, **kwargs: Any) -> Any:
        began = self._now()
        if kwargs.get("version") == self.version:
            kwargs["version"] = None
        try:
            answer = await call(aio, caches[self.alias], method, *args, **kwargs)
        except Exception as error:  # whatever its client raises
            if method == "incr" and isinstance(error, ValueError):  # it has nothing to count
                return None
            self._failed(error, self._now() - began)
            return FAILED
        self.memory.reported = False
        return answer

    def _failed(self, error: Exception, seconds: float) -> None:
        if seconds >= SLOW:  # one request must not wait for it again and again
            self.memory.rests_until = self._now() + REST
        if not self.memory.reported:
            self.memory.reported = True
            logger.warning(
                "READ_FROM: the cache %r failed (%s); what only it has counts as missing",
                self.alias,
                type(error).__name__,
            )

    def _now(self) -> float:
        return self.marks.service.clock.now()


async def call(aio: bool, target: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    """A method, or its twin for coroutines; one that has none runs in a thread."""
    if not aio:
        return getattr(target, method)(*args, **kwargs)
    twin = getattr(target, "a" + method, None) or sync_to_async(getattr(target, method))
    return await twin(*args, **kwargs)


class SwitchingCache(CacheKitCache):
    """A `CacheKitCache` with ``READ_FROM``. Each body is written once, as a coroutine that ``drive`` can finish."""

    strict_sessions = False  # one that cannot be stored here goes on in the old cache

    def __init__(self, location: Any, params: Mapping[str, Any]) -> None:
        super().__init__(location, params)
        self._old = OldCache(params["OPTIONS"]["READ_FROM"], open_marks(location, params), self.version)

    async def _take(self, aio: bool, names: Mapping[Any, Any], version: Any) -> dict[Any, Any]:
        """From the old cache into the region, unless somebody writes there meanwhile. The values, by our names."""
        found = await self._old.read(aio, names, version)
        added = set()
        for name, value in tuple(found.items()):
            ttl = self._ttl(await self._old.left(aio, names[name], version))
            if ttl is OVER:
                del found[name]
            elif await call(aio, self.region, "add", name, value, ttl=ttl):
                added.add(name)
        good = await self._old.unmarked(aio, found)
        for name in added.difference(good):
            await call(aio, self.region, "delete", name)
        return good

    # Reading

    async def _get(self, aio: bool, key: Any, default: Any, version: Any) -> Any:
        value = await call(aio, super(), "get", key, MISS, version)
        if value is MISS:
            taken = await self._take(aio, self._keys((key,), version), version)
            value = next(iter(taken.values()), MISS)
        return default if value is MISS else value

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        return drive(self._get(False, key, default, version))

    async def aget(self, key: Any, default: Any = None, version: Any = None) -> Any:
        return await self._get(True, key, default, version)

    async def _get_many(self, aio: bool, keys: Iterable[Any], version: Any) -> dict[Any, Any]:
        names = self._keys(keys, version)
        values = await call(aio, super(), "get_many", names.values(), version)
        missing = {name: key for name, key in names.items() if key not in values}
        taken = await self._take(aio, missing, version) if missing else {}
        return {**values, **{names[name]: value for name, value in taken.items()}}

    def get_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        return drive(self._get_many(False, keys, version))

    async def aget_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        return await self._get_many(True, keys, version)

    def get_or_set(self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Any:
        value = self.get(key, MISS, version)
        return super().get_or_set(key, default, timeout, version) if value is MISS else value

    async def aget_or_set(self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Any:
        value = await self.aget(key, MISS, version)
        return await super().aget_or_set(key, default, timeout, version) if value is MISS else value

    # Writing

    async def _repeat_set(self, aio: bool, data: Mapping[Any, Any], timeout: Any, version: Any) -> None:
        timeout = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        names = self._keys(data, version)
        failed = await self._old.tell(aio, names, "set_many", dict(data), timeout, version=version)
        if failed and failed is not FAILED:
            await self._old.mark(aio, [name for name, key in names.items() if key in failed])

    async def _set(
        self, aio: bool, key: Any, value: Any, timeout: Any, version: Any, client: Any, nx: bool, xx: bool
    ) -> bool:
        if self._ttl(timeout) is OVER:
            await self._old.remove(aio, self._keys((key,), version), "delete", key, version=version)
        elif nx or xx:  # whether there is a value
            await self._get(aio, key, None, version)
        answer: bool = await call(aio, super(), "set", key, value, timeout, version, client, nx, xx)
        if answer and self._ttl(timeout) is not OVER:
            await self._repeat_set(aio, {key: value}, timeout, version)
        return answer

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None, client: Any = None,
        nx: bool = False, xx: bool = False,
    ) -> bool:  # fmt: skip
        return drive(self._set(False, key, value, timeout, version, client, nx, xx))

    async def aset(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None, client: Any = None,
        nx: bool = False, xx: bool = False,
    ) -> bool:  # fmt: skip
        return await self._set(True, key, value, timeout, version, client, nx, xx)

    async def _set_many(self, aio: bool, data: Mapping[Any, Any], timeout: Any, version: Any) -> list[Any]:
        over = self._ttl(timeout) is OVER
        if over:
            await self._old.remove(aio, self._keys(data, version), "delete_many", list(data), version=version)
        failed: list[Any] = await call(aio, super(), "set_many", data, timeout, version)
        if data and not over:
            await self._repeat_set(aio, data, timeout, version)
        return failed

    def set_many(self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> list[Any]:
        return drive(self._set_many(False, data, timeout, version))

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> list[Any]:
        return await self._set_many(True, data, timeout, version)

    async def _add(self, aio: bool, key: Any, value: Any, timeout: Any, version: Any) -> bool:
        await self._get(aio, key, None, version)
        added: bool = await call(aio, super(), "add", key, value, timeout, version)
        if added and self._ttl(timeout) is not OVER:
            await self._repeat_set(aio, {key: value}, timeout, version)
        return added

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        return drive(self._add(False, key, value, timeout, version))

    async def aadd(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        return await self._add(True, key, value, timeout, version)

    async def _touch(self, aio: bool, key: Any, timeout: Any, version: Any) -> bool:
        if self._ttl(timeout) is OVER:
            return await self._delete_key(aio, key, version)
        await self._get(aio, key, None, version)
        touched: bool = await call(aio, super(), "touch", key, timeout, version)
        if touched:
            timeout = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
            await self._old.tell(aio, self._keys((key,), version), "touch", key, timeout, version=version)
        return touched

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        return drive(self._touch(False, key, timeout, version))

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        return await self._touch(True, key, timeout, version)

    async def _incr(self, aio: bool, key: Any, delta: int, version: Any) -> int:
        await self._get(aio, key, None, version)
        number: int = await call(aio, super(), "incr", key, delta, version)
        await self._old.tell(aio, self._keys((key,), version), "incr", key, delta, version=version)
        return number

    def incr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        return drive(self._incr(False, key, delta, version))

    async def aincr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        return await self._incr(True, key, delta, version)

    # Removing

    async def _delete_key(self, aio: bool, key: Any, version: Any) -> bool:
        there = await self._old.remove(aio, self._keys((key,), version), "delete", key, version=version)
        return bool(await call(aio, super(), "delete", key, version)) or there is True

    def delete(self, key: Any, version: Any = None) -> bool:
        return drive(self._delete_key(False, key, version))

    async def adelete(self, key: Any, version: Any = None) -> bool:
        return await self._delete_key(True, key, version)

    async def _delete_keys(self, aio: bool, keys: Iterable[Any], version: Any) -> None:
        names = self._keys(keys, version)
        await self._old.remove(aio, names, "delete_many", list(names.values()), version=version)
        await call(aio, super(), "delete_many", names.values(), version)

    def delete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        drive(self._delete_keys(False, keys, version))

    async def adelete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        await self._delete_keys(True, keys, version)

    async def _clear(self, aio: bool) -> None:
        await self._old.mark(aio, [EVERYTHING], None)
        await call(aio, super(), "clear")

    def clear(self) -> None:
        drive(self._clear(False))

    async def aclear(self) -> None:
        await self._clear(True)

    # Beyond Django's cache

    @both
    async def ttl(self, port: Port, key: Any, version: Any = None, client: Any = None) -> Any:
        return await self._timed(port, "ttl", key, version=version, client=client)

    @both
    async def pttl(self, port: Port, key: Any, version: Any = None, client: Any = None) -> Any:
        return await self._timed(port, "pttl", key, version=version, client=client)

    @both
    async def persist(self, port: Port, key: Any, version: Any = None, client: Any = None) -> Any:
        return await self._timed(port, "persist", key, version=version, client=client)

    @both
    async def expire(self, port: Port, key: Any, timeout: Any, version: Any = None, client: Any = None) -> Any:
        return await self._timed(port, "expire", key, timeout, version=version, client=client)

    @both
    async def pexpire(self, port: Port, key: Any, timeout: Any, version: Any = None, client: Any = None) -> Any:
        return await self._timed(port, "pexpire", key, timeout, version=version, client=client)

    @both
    async def expire_at(self, port: Port, key: Any, when: Any, version: Any = None, client: Any = None) -> Any:
        return await self._timed(port, "expire_at", key, when, version=version, client=client)

    @both
    async def pexpire_at(self, port: Port, key: Any, when: Any, version: Any = None, client: Any = None) -> Any:
        return await self._timed(port, "pexpire_at", key, when, version=version, client=client)

    async def _timed(self, port: Port, method: str, key: Any, *args: Any, version: Any, client: Any) -> Any:
        """The time that a value has left, whichever cache has it. One that is given another end is ours alone."""
        await self._get(port.awaits, key, None, version)
        if method not in ("ttl", "pttl"):
            await self._old.mark(port.awaits, self._keys((key,), version))
        return await call(port.awaits, super(), method, key, *args, version=version, client=client)

    @both
    async def delete_pattern(
        self, port: Port, pattern: str, version: Any = None, prefix: Any = None, client: Any = None,
        itersize: int | None = None,
    ) -> Any:  # fmt: skip
        await self._old.remove_matching(port.awaits, pattern, version, prefix, self._keys)
        return await call(
            port.awaits, super(), "delete_pattern", pattern,
            version=version, prefix=prefix, client=client, itersize=itersize,
        )  # fmt: skip
