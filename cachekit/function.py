"""One decorated function: bound to a region at its first call; the way of a call that the hit path could not answer."""

import gc
import inspect
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, cast

from cachekit.config.options import ONLY_ON, apply_options, loosened, unfit, unsafe
from cachekit.config.spec import NEEDS_NAMESPACE, RegionSpec
from cachekit.context import TENANT, check_tenant, for_nobody, within
from cachekit.engine import flow, invalidation, keys, reading, writes
from cachekit.engine.events import Tally
from cachekit.engine.freshness import beta, longest
from cachekit.engine.miss import MISS
from cachekit.engine.outcome import Outcome
from cachekit.engine.ports import Load, Port, drive
from cachekit.engine.quick import Hooks
from cachekit.engine.raised import Raised
from cachekit.engine.tiers import ORDINARY, Call, Switches, Tiers, missing_tenant
from cachekit.errors import CacheKitError, ConfigError, UncacheableArgument
from cachekit.l1.table import compile_memo, is_plain
from cachekit.modules import call_in_main, in_main
from cachekit.options import NEEDS_FALLBACK, Options, tag_names
from cachekit.process import default_service, follow
from cachekit.service import Service

PRIVATE: Final = frozenset({"isolation", "backend"})  # these, and bounds of L1, need a table of their own

_functions: "weakref.WeakSet[Function]" = weakref.WeakSet()


class _Counts(NamedTuple):
    hits: int
    misses: int
    maxsize: int | None
    currsize: int


class CacheInfo(_Counts):
    """Counts of a cached function: the tuple of `functools.lru_cache`, with what else is known as attributes."""

    l1_hits: int
    l2_hits: int
    stale: int
    errors: int
    bytes: int


class Function:
    """One decorated function: what it was given, and once bound, where its entries live."""

    face: Any  # the `CachedFunction` that was made of it

    def __init__(self, fn: Callable[..., Any], options: Options, service: Callable[[], Service], kind: str) -> None:
        self.fn = fn
        self.kind = kind  # how it binds as an attribute of a class: method, class, static
        self.options = options
        self.is_async = inspect.iscoroutinefunction(fn)
        self.name = f"{getattr(fn, '__module__', '')}.{getattr(fn, '__qualname__', '')}"
        self.binder = keys.compile_binder(inspect.signature(fn), options.ignore, name=self.name)
        self.service = service
        self.bound: Bound | None = None
        self.firsts: dict[int, Bound] = {}  # by service: of several threads that bind at once the first wins
        self.resting = False  # loads could run in the native core, but the service was closed meanwhile
        slow = self.slow_async if self.is_async else self.slow
        ignore = options.ignore if options.key is None else None
        self.memo = compile_memo(fn, self.binder, slow, ignore=ignore or frozenset(), is_async=self.is_async)
        self.memo.call.__cachekit_function__ = self  # type: ignore[attr-defined]  # it has a __dict__
        _functions.add(self)
        if service is default_service:
            follow(self)

    def follow(self) -> None:
        """Bind again: the default service was replaced."""
        self.firsts = {}
        self.resting = False
        self.memo.unbind()
        self.bound = None

    def give_way(self) -> None:
        """Another function has the name from now on."""
        bound = self.bound
        self.follow()
        if bound is not None:
            with bound.tiers.versions.lock:
                bound.drop()

    def at(self) -> "Bound":
        """Where the entries of this function live; binds it at the first call. Raises `ConfigError`."""
        bound = self.bound
        if bound is not None and self.resting:
            self._load_in_core(bound)
        while bound is None:
            service = self.service()
            bound = self.firsts.setdefault(id(service), Bound(self, service))
            if bound.fast and bound.tiers.table is not None:
                self.memo.bind_table(bound.tiers.table, bound.slot)
                if self._needs_only_itself(bound.tiers):
                    self._load_in_core(bound)
            self.bound = bound
            if self.service() is not service:  # replaced while we were binding
                self.follow()
                bound = None
        return bound

    def _needs_only_itself(self, tiers: Tiers) -> bool:
        """Whether a load is the function, and then its value into L1, with nothing to be decided."""
        options, spec = self.options, tiers.spec
        special = options.tags is not None or spec.tags or options.ttl is not None or options.condition is not None
        fresh = spec.freshness
        waits = fresh.stale_ttl > 0 or fresh.soft_timeout is not None or fresh.hard_timeout is not None
        answers = fresh.negative_exceptions != () or spec.negative_ttl_set or not spec.cache_none
        simple = not (special or waits or answers or options.fallback is not MISS)
        return simple and not self.is_async and tiers.remote is None

    def rest(self) -> None:
        """The service was closed: its next use is to be seen."""
        self.memo.stop_loading()
        self.resting = True

    def _load_in_core(self, at: "Bound") -> None:
        self.resting = False
        at.service.loads_in_core(self)
        tiers, load = at.tiers, Load(self.fn, (), {}, False)

        def call(place: tuple[Any, ...]) -> Call:
            return Call(tiers, at.text(place), at.slot, place, at.tally, at.stamp_names, load=load, ttl=tiers.spec.ttl)

        hooks = Hooks(call, lambda: at.service.sync_port, tiers.spec.ttl)
        times = longest(tiers.spec.ttl, tiers.spec)
        early = beta(tiers.spec, tiers.spec.ttl) > 0
        self.memo.loads_by(self.fn, tiers.flights.running, tiers.observers, hooks, *times, early=early)

    def at_hand(self, args: tuple[Any, ...]) -> Any:
        """What a call with these arguments, all plain and in their order, would be answered with from L1, counted as
        its hit, or a `Raised`; MISS where it would have to do more."""
        bound = self.bound
        if bound is None or not bound.fast or bound.tiers.table is None:
            return MISS
        return bound.tiers.table.get(bound.slot, args)

    def call(
        self, at: "Bound", args: tuple[Any, ...], kwargs: dict[str, Any], given: "tuple[Any, str | None] | None" = None
    ) -> Call:
        """The key and everything else that the flow needs to know about one call."""
        place, tenant = given or at.place(args, kwargs)
        options, tiers = self.options, at.tiers
        tags = tiers.spec.tags
        if options.tags is not None:
            tags = (*tags, *map(keys.check_tag, tag_names(options.tags(*args, **kwargs))))
        ttl = tiers.spec.ttl if options.ttl is None else self._ttl_of
        fn = self.fn if options.tenant is None or tenant is None else within(tenant, self.fn, self.is_async)
        load = Load(fn, args, kwargs, self.is_async)
        whose = keys.NOBODY if tenant is None else at.whose(tenant)
        # By position: with names it would cost twice as much.
        call = Call(
            tiers, at.text(place, whose.digest), at.slot, place, at.tally, at.stamp_names, load, tags, ttl,
            options.condition, whose,
        )  # fmt: skip
        if options.fallback is not MISS:
            call.fallback = options.fallback
        return call

    def call_with(self, switches: Switches, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """A call of one of the attributes below, or through `using()`."""
        call = self.call(self.at(), args, kwargs)
        return call if switches == ORDINARY else call.using(switches)

    def _ttl_of(self, value: Any) -> float | None:
        from cachekit.config.units import parse_duration

        assert self.options.ttl is not None
        return parse_duration(self.options.ttl(value))

    def slow(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that the hit path could not answer."""
        if self.bound is None or self.resting:
            self.at()
            return self.memo.call(*args, **kwargs)  # it may need no more than that now
        at = self.bound or self.at()
        given = at.place(args, kwargs)
        if at.tiers.table is not None and (value := at.quick(*given)) is not MISS:
            return value
        return drive(flow.get_or_load(self.call(at, args, kwargs, given), at.service.sync_port)).unwrap()

    async def slow_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As `slow`, for an async function."""
        at = self.bound or self.at()
        given = at.place(args, kwargs)
        if at.tiers.table is not None and (value := at.quick(*given)) is not MISS:
            return value
        return (await flow.get_or_load(self.call(at, args, kwargs, given), at.service.async_port)).unwrap()

    async def load(self, port: Port, switches: Switches, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call through `using()`."""
        call = self.call_with(switches, args, kwargs)
        if not (switches.skip_l1 or switches.force_refresh):
            value = self.at().quick(call.args, call.tenant or None)
            if value is not MISS:
                return value
        return (await flow.get_or_load(call, port)).unwrap()

    async def peek(self, port: Port, switches: Switches, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return await reading.look(self.call_with(switches, args, kwargs), port)

    async def refresh(self, port: Port, switches: Switches, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return (await flow.refresh(self.call_with(switches, args, kwargs), port)).unwrap()

    async def put(
        self, port: Port, switches: Switches, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        await writes.put(self.call_with(switches, args, kwargs), value, port)

    async def mark_stale(self, port: Port, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
        at = self.at()
        return await invalidation.invalidate_keys(at.tiers, [self.call(at, args, kwargs)], port, soft=True)

    async def invalidate(self, port: Port, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
        at = self.at()
        return await invalidation.invalidate_keys(at.tiers, [self.call(at, args, kwargs)], port)

    async def invalidate_all(self, port: Port) -> Outcome:
        at = self.at()
        tenant = at.tenant_here()
        if tenant is not None:
            mine = keys.tag_digest(at.whose(tenant).tags[-1], at.tiers.name_key)
            return await invalidation.clear_own(at.tiers, [mine], at.tiers.remotes, port)
        return await invalidation.clear_stamps(at.tiers.remotes, [at.stamp], at.tiers.versions, at.drop, port)

    def clear(self) -> None:
        """This process at once, L2 before it is used again."""
        at = self.at()
        with at.tiers.versions.lock:
            for remote in at.tiers.remotes:
                if remote.offers("clear"):
                    remote.queue([], [at.stamp])
                remote.cells.forget([at.stamp])
            at.drop()
            at.tally.before = at.tally.counted()

    def info(self) -> CacheInfo:
        at = self.at()
        table = at.tiers.table
        stats = None if table is None else table.stats(at.slot)
        l1_hits, l2_hits, misses, errors, stale = at.tally.since_clear()
        info = CacheInfo(l1_hits + l2_hits, misses, at.maxsize, 0 if stats is None else stats.entries)
        info.l1_hits, info.l2_hits, info.stale, info.errors = l1_hits, l2_hits, stale, errors
        info.bytes = 0 if stats is None else stats.weight
        return info


class Bound:
    """A function bound to the tiers of its region: profile and options resolved against a service."""

    __slots__ = (
        "__weakref__", "binder", "fast", "fn_id", "key", "name", "prefix", "service", "slot", "stamp", "stamp_names",
        "tally", "tenant_of", "tiers",
    )  # fmt: skip

    def __init__(self, function: Function, service: Service) -> None:
        options = function.options
        profile = service.region_spec(options.profile)
        spec = _settings(function, profile)
        self.service = service
        own = self._has_own_tiers(options)
        self.tiers = self._tiers(service, profile, spec, options, own)
        if self.tiers.remote is not None:
            faces = self.tiers.remote.faces
            if not function.is_async and faces.sync is None:
                name = self.tiers.remote.spec.name
                raise ConfigError(f"{function.name}: a blocking function cannot use the async-only backend {name!r}")
        fn_id = keys.function_id(function.fn, options.version, shared=self.tiers.remote is not None)
        if not service.claim(fn_id, function):
            self.tiers = self.tiers.but(spec, off=True)
        elif in_main(function.fn):
            call_in_main()
        self.prefix = keys.call_prefix(service.spec.namespace, spec.name, fn_id)
        self.stamp = keys.function_stamp(service.spec.namespace, spec.name, fn_id)
        self.stamp_names = (self.tiers.region_stamp, self.stamp)
        self.fn_id = fn_id
        self.name = function.name
        self.tenant_of = options.tenant
        self.binder = function.binder
        self.key = options.key
        table = self.tiers.table
        self.slot = 0 if table is None else table.slot(fn_id)
        self.tally: Tally = service.tally(self.tiers, self.slot, function.name)
        if self.tiers.remote is not None:
            self.tiers.remote.reach.owns(self.stamp, self.slot, table)
        # A key= callable decides what is compared, so the arguments themselves must not.
        self.fast = table is not None and options.key is None and self.tiers.enabled and not self.by_tenant
        if own and table is not None:  # nobody finds these entries any more when this is gone
            weakref.finalize(self, table.clear).atexit = False

    @staticmethod
    def _has_own_tiers(options: Options) -> bool:
        given = options.parsed
        bounds = set(dict(cast("Mapping[str, object]", given.get("l1", {}))))
        return bool(options.backend is not None or PRIVATE & given.keys() or bounds - {"ttl"})

    @staticmethod
    def _tiers(service: Service, profile: RegionSpec, spec: RegionSpec, options: Options, own: bool) -> Tiers:
        if own:
            return service.private_tiers(spec, options.backend)
        shared = service.tiers(options.profile)
        return shared if spec == profile else shared.but(spec)

    @property
    def maxsize(self) -> int:
        """How many entries this process keeps at most."""
        return 0 if self.tiers.table is None else self.tiers.spec.l1.max_entries

    def drop(self) -> None:
        """This process's part of invalidating the whole function."""
        self.tiers.versions.bump_slot(self.slot)
        if self.tiers.table is not None:
            self.tiers.table.drop_slot(self.slot)

    @property
    def by_tenant(self) -> bool:
        """Whether every call is for some tenant."""
        return self.tenant_of is not None or self.tiers.spec.require_tenant

    def tenant_here(self) -> str | None:
        """The tenant that the context says. Raises `MissingTenant` where there must be one."""
        tenant = TENANT.get()
        if tenant is None and self.tiers.spec.require_tenant:
            raise missing_tenant(self.tiers.spec, self.name)
        return tenant

    def whose(self, tenant: str | None) -> keys.Whose:
        """A tenant as keys and entries know it."""
        return keys.whose(tenant, self.tiers.name_key, self.tiers.spec.name, self.fn_id)

    def place(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], str | None]:
        """What L1 compares, and the tenant."""
        tenant = None if self.tenant_of is None else self.tenant_of(*args, **kwargs)
        tenant = self.tenant_here() if tenant is None else check_tenant(tenant)
        return self._place(args, kwargs, tenant), tenant

    def _place(self, args: tuple[Any, ...], kwargs: dict[str, Any], tenant: str | None) -> tuple[Any, ...]:
        """One for all spellings of a call: the tenant if there is one and the argument array, or the digest of all that
        if it is not plain."""
        array = self.binder.array(*args, **kwargs)  # wrong arguments are the function's TypeError
        if self.key is not None:
            array = (self.key(*args, **kwargs),)
        if tenant is not None:
            array = (tenant, *array)
        if is_plain(array):
            return array
        try:
            return (keys.digest(array, self._names(tenant)),)
        except UncacheableArgument:
            if self.tiers.remote is not None:
                raise
        try:
            hash(array)
        except TypeError:
            raise UncacheableArgument(
                f"{self.name}: an argument is neither hashable nor has a stable identity; pass ignore=(...) or key=, "
                "or give its class a __cache_key__ method"
            ) from None
        return array

    def _names(self, tenant: str | None) -> tuple[str, ...]:
        return self.binder.names if tenant is None else ("tenant", *self.binder.names)

    def quick(self, place: tuple[Any, ...], tenant: str | None) -> Any:
        """L1 alone."""
        table = self.tiers.table
        if table is None or not self.tiers.enabled:
            return MISS
        value = table.get(self.slot, place) if tenant is None else for_nobody(table.get, self.slot, place)
        if type(value) is Raised:
            raise value.error()
        return value

    def text(self, place: tuple[Any, ...], tenant: str = "") -> str | None:
        """The key in L2; None when the arguments have no stable identity and there is no L2."""
        try:
            digest = keys.hex_digest(place, self._names(tenant or None), self.tiers.hasher)
        except UncacheableArgument:  # `place` let it pass, so there is no L2
            return None
        return f"{self.prefix}{tenant}:{digest}}}" if tenant else f"{self.prefix}{digest}}}"


def _settings(function: Function, profile: RegionSpec) -> RegionSpec:
    """The profile with the options of a function. Raises `ConfigError` if they do not go together."""
    for name in loosened(profile, function.options.parsed):
        raise ConfigError(f"{function.name}: {name} = false: {ONLY_ON}")
    spec = apply_options(profile, function.options.parsed)
    for name, problem in (*unfit(spec.freshness), *unsafe(spec)):
        raise ConfigError(f"{function.name}: {name}: {problem}")
    if spec.freshness.outage == "fallback" and function.options.fallback is MISS:
        raise ConfigError(f"{function.name}: {NEEDS_FALLBACK}")
    return spec


def problems(service: Service) -> list[str]:
    """What is wrong with the decorated functions known so far, judged against a service."""
    if not _problems(service):
        return []
    gc.collect()  # functions that nobody can call any more are no problem
    return _problems(service)


def _problems(service: Service) -> list[str]:
    found = []
    for function in sorted(_functions, key=lambda each: each.name):
        if service.private if function.service is default_service else function.service() is not service:
            continue
        try:
            profile = service.region_spec(function.options.profile)
        except CacheKitError as error:
            found.append(f"{function.name}: {error}")
            continue
        try:
            spec = _settings(function, profile)
        except CacheKitError as error:
            found.append(str(error))
        else:
            if missing := service.missing_key(spec):
                found.append(f"{function.name}: profile {spec.name!r}: {missing}")
            if spec.needs_namespace and spec.backend in service.spec.backends and not service.spec.namespace_given:
                found.append(f"{function.name}: profile {spec.name!r}: {NEEDS_NAMESPACE}")
    return found
