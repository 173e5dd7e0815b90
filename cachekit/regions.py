"""A named region: one profile at work, as a store of keys and values.

Every method that may touch L2 has a twin for coroutines with an ``a`` in front: `get` and `aget`.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, Union, cast, overload

from cachekit.config.units import Duration, parse_duration
from cachekit.context import TENANT, for_nobody
from cachekit.engine import flow, invalidation, keys, reading, writes
from cachekit.engine.entries import good_view_of
from cachekit.engine.keys import EntryKey
from cachekit.engine.miss import MISS, Miss
from cachekit.engine.outcome import Outcome
from cachekit.engine.ports import Load, Port, drive
from cachekit.engine.raised import Raised
from cachekit.engine.tiers import ORDINARY, Call, Tiers, missing_tenant
from cachekit.errors import ConfigError, UnsupportedOperation
from cachekit.l1.table import is_plain
from cachekit.l2 import operation
from cachekit.l2.operation import Found
from cachekit.l2.remote import Unavailable
from cachekit.options import tag_names
from cachekit.process import all_services, default_service, follow
from cachekit.service import Service

if TYPE_CHECKING:
    from uuid import UUID

    from cachekit.signatures import CachedIn


Key: TypeAlias = Union[str, int, bytes, "UUID", tuple["Key", ...]]

Place: TypeAlias = tuple[Tiers, int, tuple[Any, ...]]

T = TypeVar("T")

NOT_GIVEN: Final[Any] = object()


class _Bound:
    """A region's name resolved against one service."""

    __slots__ = ("service", "slot", "tally", "tiers")

    def __init__(self, service: Service, name: str) -> None:
        self.service = service
        self.tiers = service.tiers(name)
        table = self.tiers.table
        self.slot = 0 if table is None else table.slot("")
        self.tally = service.tally(self.tiers, self.slot, "")
        service.keep_ticking()


class Region:
    """Keys and values of one profile, in both tiers. Made by `cachekit.region(name)`; cheap, resolved on first use.

    Keys are str, int, bytes, UUID or tuples of them, told apart by type: ``7`` is not ``"7"``. Entries of cached
    functions live apart; ``f.key(7)`` gives a key that every method here takes.
    """

    def __init__(self, name: str, service: Callable[[], Service] = default_service) -> None:
        self.name = name
        self._service = service
        self._bound: _Bound | None = None
        self._switches = ORDINARY

    def __repr__(self) -> str:
        return f"<cachekit region {self.name!r}>"

    def follow(self) -> None:
        """Resolve again: the default service was replaced."""
        self._bound = None

    def _at(self) -> _Bound:
        bound = self._bound
        if bound is None:
            bound = self._bound = _Bound(self._service(), self.name)
        return bound

    @property
    def service(self) -> Service:
        """The service that this region belongs to."""
        return self._at().service

    # Reading

    def get(self, key: Key, default: Any = None) -> Any:
        """The value, or ``default``. ``get(key, MISS)`` tells a cached None from a miss."""
        at = self._at()
        place = _place(at, key)
        value = self._quick(place)
        if value is MISS:
            value = drive(reading.look(self._call(at, key, place), at.service.sync_port, first=False))
        return default if value is MISS else value

    async def aget(self, key: Key, default: Any = None) -> Any:
        """As `get`."""
        at = self._at()
        place = _place(at, key)
        value = self._quick(place)
        if value is MISS:
            value = await reading.look(self._call(at, key, place), at.service.async_port, first=False)
        return default if value is MISS else value

    def get_many(self, keys: Iterable[Key]) -> dict[Key, Any]:
        """The values of those keys that are cached; one round trip to L2 for all that L1 does not have."""
        return drive(self._get_many(keys, self._at().service.sync_port))

    async def aget_many(self, keys: Iterable[Key]) -> dict[Key, Any]:
        """As `get_many`."""
        return await self._get_many(keys, self._at().service.async_port)

    def get_or_set(
        self, key: Key, factory: Callable[[], T], *, ttl: Duration | None = NOT_GIVEN, tags: Iterable[str] = ()
    ) -> T:
        """The value; if there is none, ``factory()`` computes it, once for all who ask at the same time."""
        at = self._at()
        place = _place(at, key)
        value: T | Miss = self._quick(place, loads=True)
        if value is not MISS:
            return value
        load = Load(factory, (), {}, inspect.iscoroutinefunction(factory))
        call = self._call(at, key, place, ttl=ttl, tags=tags, load=load)
        loaded: T = drive(flow.get_or_load(call, at.service.sync_port)).unwrap()
        return loaded

    @overload
    async def aget_or_set(
        self,
        key: Key,
        factory: Callable[[], Awaitable[T]],
        *,
        ttl: Duration | None = NOT_GIVEN,
        tags: Iterable[str] = (),
    ) -> T: ...
    @overload
    async def aget_or_set(
        self, key: Key, factory: Callable[[], T], *, ttl: Duration | None = NOT_GIVEN, tags: Iterable[str] = ()
    ) -> T: ...
    async def aget_or_set(
        self,
        key: Key,
        factory: Callable[[], Any],
        *,
        ttl: Duration | None = NOT_GIVEN,
        tags: Iterable[str] = (),
    ) -> Any:
        """As `get_or_set`; the factory may be a coroutine function, else it runs in a worker thread."""
        at = self._at()
        place = _place(at, key)
        value = self._quick(place, loads=True)
        if value is not MISS:
            return value
        load = Load(factory, (), {}, inspect.iscoroutinefunction(factory))
        call = self._call(at, key, place, ttl=ttl, tags=tags, load=load)
        return (await flow.get_or_load(call, at.service.async_port)).unwrap()

    def remaining(self, key: Key) -> "float | Miss | None":
        """Seconds that an entry is still fresh, None for ever, `MISS` when there is none."""
        return drive(self._remaining(key, self._at().service.sync_port))

    async def aremaining(self, key: Key) -> "float | Miss | None":
        """As `remaining`."""
        return await self._remaining(key, self._at().service.async_port)

    # Writing

    def set(self, key: Key, value: Any, *, ttl: Duration | None = NOT_GIVEN, tags: Iterable[str] = ()) -> None:
        """Store a value in both tiers. ``ttl`` in seconds, as a duration like "5m", or None for ever."""
        drive(self._set(key, value, ttl, tags, self._at().service.sync_port))

    async def aset(self, key: Key, value: Any, *, ttl: Duration | None = NOT_GIVEN, tags: Iterable[str] = ()) -> None:
        """As `set`."""
        await self._set(key, value, ttl, tags, self._at().service.async_port)

    def set_many(
        self, mapping: Mapping[Any, Any], *, ttl: Duration | None = NOT_GIVEN, tags: Iterable[str] = ()
    ) -> list[Any]:
        """Store several values; returns the keys that could not be stored."""
        return drive(self._set_many(mapping, ttl, tags, self._at().service.sync_port))

    async def aset_many(
        self, mapping: Mapping[Any, Any], *, ttl: Duration | None = NOT_GIVEN, tags: Iterable[str] = ()
    ) -> list[Any]:
        """As `set_many`."""
        return await self._set_many(mapping, ttl, tags, self._at().service.async_port)

    def add(self, key: Key, value: Any, *, ttl: Duration | None = NOT_GIVEN, tags: Iterable[str] = ()) -> bool:
        """Store only if there is no value; whether it was stored."""
        return drive(self._set(key, value, ttl, tags, self._at().service.sync_port, only_if_absent=True))

    async def aadd(self, key: Key, value: Any, *, ttl: Duration | None = NOT_GIVEN, tags: Iterable[str] = ()) -> bool:
        """As `add`."""
        return await self._set(key, value, ttl, tags, self._at().service.async_port, only_if_absent=True)

    def touch(self, key: Key, *, ttl: Duration | None = NOT_GIVEN) -> bool:
        """Give an entry a new time to live, counted from now; False when there is none."""
        return drive(self._touch(key, ttl, self._at().service.sync_port))

    async def atouch(self, key: Key, *, ttl: Duration | None = NOT_GIVEN) -> bool:
        """As `touch`."""
        return await self._touch(key, ttl, self._at().service.async_port)

    def incr(self, key: Key, by: int = 1, *, ttl: Duration | None = NOT_GIVEN, create: bool = True) -> int:
        """Add to a counter that starts at 0 and lives for ``ttl`` from its first use; the new number.

        Needs ``counters = true``. With an L2 it counts for all processes, without one, or while L2 is away, in this
        process only. ``create=False`` raises `KeyError` instead of starting one.
        """
        return drive(self._incr(key, by, ttl, create, self._at().service.sync_port))

    async def aincr(self, key: Key, by: int = 1, *, ttl: Duration | None = NOT_GIVEN, create: bool = True) -> int:
        """As `incr`."""
        return await self._incr(key, by, ttl, create, self._at().service.async_port)

    # Removing

    def delete(self, key: Key) -> Outcome:
        """Remove one entry."""
        return self.delete_many((key,))

    async def adelete(self, key: Key) -> Outcome:
        """As `delete`."""
        return await self.adelete_many((key,))

    def delete_many(self, keys: Iterable[Key]) -> Outcome:
        """Remove several entries."""
        return drive(self._delete(keys, self._at().service.sync_port))

    async def adelete_many(self, keys: Iterable[Key]) -> Outcome:
        """As `delete_many`."""
        return await self._delete(keys, self._at().service.async_port)

    def mark_stale(self, key: Key) -> Outcome:
        """Have an entry computed anew, and keep its value for where stale values may be given."""
        return drive(self._mark_stale(key, self._at().service.sync_port))

    async def amark_stale(self, key: Key) -> Outcome:
        """As `mark_stale`."""
        return await self._mark_stale(key, self._at().service.async_port)

    def clear(self, *, all_tenants: bool = False) -> Outcome:
        """Remove everything in this region, cached functions' entries included. Nothing outside of it is touched.

        Inside `tenant` only what is that tenant's, unless ``all_tenants``. Where the region requires a tenant and there
        is none, `MissingTenant` is raised.
        """
        return drive(self._clear(all_tenants, self._at().service.sync_port))

    async def aclear(self, *, all_tenants: bool = False) -> Outcome:
        """As `clear`."""
        return await self._clear(all_tenants, self._at().service.async_port)

    def invalidate_tags(self, *tags: str) -> Outcome:
        """Remove every entry of the namespace that carries one of these tags, in all regions."""
        service = self._at().service
        return drive(clear_tags(service, tags, service.sync_port))

    async def ainvalidate_tags(self, *tags: str) -> Outcome:
        """As `invalidate_tags`."""
        service = self._at().service
        return await clear_tags(service, tags, service.async_port)

    def using(
        self,
        *,
        force_refresh: bool = False,
        skip_l1: bool = False,
        skip_l2: bool = False,
        read_only: bool = False,
        allow_stale: bool | None = None,
    ) -> "Region":
        """The same region for who wants it otherwise than the profile says: ``users.using(skip_l1=True).get(7)``.

        ``force_refresh`` has `get_or_set` compute and store whatever is cached; ``skip_l1`` and ``skip_l2`` neither
        read nor write that tier; ``read_only`` stores nothing, but removes what it is asked to; ``allow_stale`` takes a
        stale value rather than none, False never.
        """
        made = Region(self.name, self._service)
        made._switches = self._switches.also(force_refresh, skip_l1, skip_l2, read_only, allow_stale)
        return made

    # Functions and facts

    @property
    def cached(self) -> "CachedIn":
        """Cache a function in this region: ``@region.cached`` or ``@region.cached(ttl="5m")``.

        The same as ``@cache(profile=...)``, for this region's service.
        """
        from cachekit.decorator import cached_in  # decorator.py stands on this module

        return cast("CachedIn", partial(cached_in, self._service, self.name))

    def info(self) -> dict[str, Any]:
        """What this region holds in this process, and how its direct use did."""
        at = self._at()
        stats = None if at.tiers.table is None else at.tiers.table.stats()
        return {
            "region": self.name,
            "backend": at.tiers.spec.backend,
            "ttl": at.tiers.spec.ttl,
            "entries": 0 if stats is None else stats.entries,
            "bytes": 0 if stats is None else stats.weight,
            "l1_hits": at.tally.l1_hits(),
            "l2_hits": at.tally.l2_hits,
            "misses": at.tally.misses,
        }

    # The bodies, once for both kinds of callers

    def _quick(self, place: Place, *, loads: bool = False) -> Any:
        """L1 alone."""
        tiers, slot, args = place
        if tiers.table is None or self._switches.skip_l1 or (loads and self._switches.force_refresh):
            return MISS
        known = TENANT.get() is None  # else the place has the tenant in it, or the key says whose it is
        value = tiers.table.get(slot, args) if known else for_nobody(tiers.table.get, slot, args)
        return MISS if type(value) is Raised else value

    def _call(
        self,
        at: _Bound,
        key: Key,
        place: Place | None = None,
        *,
        ttl: Duration | None = NOT_GIVEN,
        tags: Iterable[str] = (),
        load: Load | None = None,
    ) -> Call:
        tiers, slot, args = place or _place(at, key)
        if isinstance(key, EntryKey):
            text, stamp_names, whose = str.__str__(key), key.stamp_names, key.whose
        else:
            whose = keys.whose(_tenant(tiers), tiers.name_key, self.name)
            text = _text(tiers, key, whose.digest)
            stamp_names = (tiers.region_stamp,)
        named = () if tags == () else tuple([keys.check_tag(tag) for tag in tag_names(tags)])
        call = Call(
            tiers,
            text,
            slot,
            args,
            at.tally,
            stamp_names,
            load=load,
            tags=(*tiers.spec.tags, *named),
            ttl=_ttl(tiers, ttl),
            whose=whose,
        )
        call.elsewhere = isinstance(key, EntryKey) and args is not key.args
        return call if self._switches == ORDINARY else call.using(self._switches)

    async def _get_many(self, wanted: Iterable[Key], port: Port) -> dict[Key, Any]:
        at = self._at()
        found: dict[Key, Any] = {}
        missing: list[Key] = []
        wanted = dict.fromkeys(wanted)
        for key in wanted:
            value = self._quick(_place(at, key))
            if value is MISS:
                missing.append(key)
            else:
                found[key] = value
        if missing:
            calls = [self._call(at, key) for key in missing]
            for key, value in zip(missing, await reading.look_many(calls, port), strict=True):
                if value is not MISS:
                    found[key] = value
        return {key: found[key] for key in wanted if key in found}

    async def _set(
        self, key: Key, value: Any, ttl: Any, tags: Iterable[str], port: Port, *, only_if_absent: bool = False,
        away: bool = False,
    ) -> bool:  # fmt: skip
        call = self._call(self._at(), key, ttl=ttl, tags=tags)
        return await writes.put(call, value, port, only_if_absent=only_if_absent, away=away)

    async def _set_many(self, mapping: Mapping[Any, Any], ttl: Any, tags: Iterable[str], port: Port) -> list[Any]:
        tags, remote = tuple(tags), self._at().tiers.remote
        failed: list[Any] = []
        for key, value in mapping.items():
            # Waiting once is enough: if L2 failed a key, it is not asked about the rest.
            away = bool(failed) and remote is not None and not remote.well
            if not await self._set(key, value, ttl, tags, port, away=away):
                failed.append(key)
        return failed

    async def _delete(self, wanted: Iterable[Key], port: Port) -> Outcome:
        at = self._at()
        by_tiers: dict[Tiers, list[Call]] = {at.tiers: []}  # functions may have others
        for call in [self._call(at, key) for key in wanted]:
            by_tiers.setdefault(call.tiers, []).append(call)
        return invalidation.worst(
            [await invalidation.invalidate_keys(tiers, calls, port) for tiers, calls in by_tiers.items()]
        )

    async def _mark_stale(self, key: Key, port: Port) -> Outcome:
        call = self._call(self._at(), key)
        return await invalidation.invalidate_keys(call.tiers, [call], port, soft=True)

    async def _clear(self, all_tenants: bool, port: Port) -> Outcome:
        at = self._at()
        tiers = at.tiers
        remotes = at.service.remotes_of(self.name)
        tenant = None if all_tenants else _tenant(tiers)
        if tenant is not None:
            names = [(keys.whose(tenant, key, self.name).tags[0], key) for key in at.service.name_keys()]
            return await invalidation.clear_own(tiers, [keys.tag_digest(*name) for name in names], remotes, port)

        def local() -> None:
            tiers.versions.bump_region(self.name)
            for table in tiers.tables:
                table.clear()

        return await invalidation.clear_stamps(remotes, [tiers.region_stamp], tiers.versions, local, port)

    async def _remaining(self, key: Key, port: Port) -> "float | Miss | None":
        return await left_of(self._call(self._at(), key), port)

    async def _touch(self, key: Key, ttl: Any, port: Port) -> bool:
        """An entry's end is bound to its bytes: a new end means new bytes, stored if the old ones are still there."""
        at = self._at()
        return await writes.touch(self._call(at, key, ttl=ttl), port)

    async def _incr(self, key: Key, by: int, ttl: Any, create: bool, port: Port) -> int:
        at = self._at()
        if type(by) is not int:
            raise TypeError(f"incr() adds an int, not {type(by).__name__}")
        if not at.tiers.spec.counters:
            raise UnsupportedOperation(
                f"incr() needs plain numbers in region {self.name!r}: set counters = true in [profiles.{self.name}]"
            )
        number = await writes.count(self._call(at, key, ttl=ttl), by, port, create)
        if number is None:
            raise KeyError(key)
        return number


def _place(at: _Bound, key: Key) -> Place:
    """The tiers of a key, and where L1 keeps it: slot and argument array."""
    if isinstance(key, EntryKey):
        home = key.tiers
        if home is not None and home.versions is at.tiers.versions and home.spec.name == at.tiers.spec.name:
            return home, key.slot, key.args
        return at.tiers, at.slot, (keys.Digest(key.encode()),)  # from another process, service or region
    tenant = _tenant(at.tiers)
    args = (key,) if tenant is None else (tenant, key)
    if not is_plain(args):
        ident = keys.Digest(keys.region_ident(key).encode())
        args = (ident,) if tenant is None else (tenant, ident)
    return at.tiers, at.slot, args


def _tenant(tiers: Tiers) -> str | None:
    tenant = TENANT.get()
    if tenant is None and tiers.spec.require_tenant:
        raise missing_tenant(tiers.spec, f"region({tiers.spec.name!r})")
    return tenant


def _text(tiers: Tiers, key: Key, tenant: str) -> str:
    """The key in L2."""
    ident = keys.region_ident(key)
    if tiers.name_key is not None:
        ident = keys.hidden(ident, tiers.name_key)
    if tenant and not ident.startswith("="):
        tenant += ":"
    return f"{tiers.namespace}:v:{{{tiers.spec.name}:{tenant}{ident}}}"


def text_of(tiers: Tiers, key: Key, tenant: str | None) -> str:
    """A tenant's key in L2, or nobody's."""
    return _text(tiers, key, keys.whose(tenant, tiers.name_key, tiers.spec.name).digest)


async def left_of(call: Call, port: Port) -> "float | Miss | None":
    """As `Region.remaining`."""
    remote = call.tiers.remote
    if call.off:
        return MISS
    if remote is None or call.switches.skip_l2:
        return _left_in_l1(call)
    try:
        found = await operation.read(call, remote, port)
        if not isinstance(found, Found):
            return MISS
        if found.header is not None:
            return found.fresh_for
    except Unavailable as error:
        if error.reason != "command":
            return _left_in_l1(call)
    # The server itself must tell of a number, and of what is no string of bytes: a set, a hash.
    if not remote.offers("remaining"):
        raise UnsupportedOperation(f"backend {remote.spec.name!r} cannot tell how long a counter lives")
    try:
        ms = await remote.do(port, "remaining", call.key)
    except Unavailable:
        return _left_in_l1(call)
    return MISS if ms is False else None if ms is None else ms / 1000


def _left_in_l1(call: Call) -> "float | Miss | None":
    entry = good_view_of(call)
    return MISS if entry is None else entry.fresh_for


def _ttl(tiers: Tiers, ttl: Any) -> float | None:
    if ttl is NOT_GIVEN:
        return tiers.spec.ttl
    try:
        return parse_duration(ttl)
    except ValueError as error:
        raise ConfigError(f"ttl = {ttl!r}: {error}") from None


async def clear_tags(service: Service, tags: Iterable[str], port: Port) -> Outcome:
    """Outdate everything with one of these tags, on every backend of the service; the worst outcome counts."""
    names = [keys.check_tag(tag) for tag in tags]
    if not names:
        return Outcome.DONE
    namespace = service.spec.namespace
    digests = [keys.tag_digest(name, key) for name in names for key in service.name_keys()]
    stamps = [keys.tag_stamp(namespace, digest) for digest in digests]
    ids = [digest.hex() for digest in digests]
    remotes = service.remotes_in_use()
    stamps.insert(0, keys.clock_stamp(namespace))

    def local() -> None:
        service.versions.bump_tags(ids)  # tagged entries are judged when they are hit

    return await invalidation.clear_stamps(remotes, stamps, service.versions, local, port)


def call_of(region: Region, key: Key, **options: Any) -> Call:
    """One key of a region as the engine takes it: for integrations with operations of their own. ``ttl=`` as in `set`.

    Raises `MissingTenant`.
    """
    return region._call(region._at(), key, **options)


def strict(region: Region) -> Region:
    """The same region for values that must not be lost unnoticed: what cannot be stored raises `Unstorable`, and what
    was there stays."""
    made = Region(region.name, region._service)
    made._switches = region._switches._replace(strict=True)
    return made


_regions: dict[str, Region] = {}


def region(name: str = "default", /) -> Region:
    """The region of this name in the default service. May be called at import time: it is resolved on first use.

    The same name gives the same object. An unknown name raises `ConfigError` on first use.
    """
    made = _regions.get(name)
    if made is None:
        made = _regions.setdefault(name, Region(name))
        follow(made)
    return made


def invalidate_tags(*tags: str) -> Outcome:
    """Remove every entry with one of these tags, in both tiers and all regions, at constant cost.

    That is in the namespace of the process, and in those of applications in it with a configuration of their own.
    """
    return _worst([drive(clear_tags(service, tags, service.sync_port)) for service in all_services()])


async def ainvalidate_tags(*tags: str) -> Outcome:
    """As `invalidate_tags`."""
    return _worst([await clear_tags(service, tags, service.async_port) for service in all_services()])


def _worst(outcomes: list[Outcome]) -> Outcome:
    return max(outcomes, key=list(Outcome).index)
