"""`@cache`: options -> cached function, bound to a region at its first call.

Decoration reads no configuration: it checks option names and types, records the function, and binds it at the first
call or when a service starts. The hit path is a function made for the exact signature (`l1.table`); everything else
comes back to `_Function.slow`.
"""

import functools
import inspect
import weakref
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, ParamSpec, TypeVar, cast, overload

from cachekit.config.options import apply_options, check_options
from cachekit.config.spec import BUILT_IN, NO_BACKEND, NOT_YET_BUILT_IN, RegionSpec
from cachekit.engine import flow, keys
from cachekit.engine.events import Tally
from cachekit.engine.keys import EntryKey
from cachekit.engine.miss import MISS, Miss
from cachekit.engine.outcome import Outcome
from cachekit.engine.ports import Load, Port, drive
from cachekit.engine.tiers import Call, Tiers
from cachekit.errors import CacheKitError, ConfigError, UncacheableArgument
from cachekit.l1.table import compile_memo
from cachekit.regions import Region, clear_tags, region
from cachekit.service import Service, default_service, follow

if TYPE_CHECKING:
    from typing import Concatenate, Literal

    from cachekit.signatures import Cache

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")

LATER: Final = frozenset({"fallback", "tenant"})  # options of features that are not built yet
PRIVATE: Final = frozenset({"max_entries", "max_bytes", "isolation", "backend"})  # these need a table of their own
FACES: Final = (
    "refresh", "peek", "put", "invalidate", "invalidate_all", "key", "cache_info", "cache_clear", "cache_parameters",
    "twin", "region",
)  # fmt: skip

_functions: "weakref.WeakSet[_Function]" = weakref.WeakSet()


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


class _Options(NamedTuple):
    """The options of one decorator, checked."""

    profile: str
    parsed: Mapping[str, object]  # profile fields
    key: Callable[..., Hashable] | None
    ignore: frozenset[str]
    tags: Callable[..., Iterable[str]] | None
    condition: Callable[[Any], object] | None
    version: str
    ttl: Callable[[Any], Any] | None  # of the value
    backend: object  # a backend object, or None


def check(options: Mapping[str, Any], profile: str = "default") -> _Options:
    """Check names and types of a decorator's options; reads no configuration."""
    given = dict(options)
    for name in LATER & given.keys():
        raise ConfigError(f"{name}=: not yet available in this version")
    profile = _text("profile", given.pop("profile", profile))
    if profile in NOT_YET_BUILT_IN:
        raise ConfigError(f"profile {profile!r}: not yet available in this version")
    own: dict[str, Any] = {name: given.pop(name, None) for name in ("key", "condition")}
    for name, value in own.items():
        if value is not None and not callable(value):
            raise TypeError(f"{name}= must be callable, not {type(value).__name__}")
    tags, ttl, backend = given.get("tags"), given.get("ttl"), given.get("backend")
    if callable(tags):
        del given["tags"]
    if callable(ttl):
        del given["ttl"]
    if "backend" in given and backend is None:
        given["backend"] = NO_BACKEND
    elif "backend" in given and not isinstance(backend, str):
        del given["backend"]
    else:
        backend = None
    version = given.pop("version", 1)
    if isinstance(version, bool) or not isinstance(version, str | int):
        raise TypeError(f"version= must be a str or an int, not {type(version).__name__}")
    ignore = _names("ignore", given.pop("ignore", ()))
    l1 = {name: given.pop(name) for name in ("max_entries", "max_bytes") if name in given}
    if l1:
        given["l1"] = {**dict(given.get("l1") or {}), **l1}
    return _Options(
        profile=profile,
        parsed=check_options(given),
        ignore=ignore,
        tags=tags if callable(tags) else None,
        version=str(version),
        ttl=ttl if callable(ttl) else None,
        backend=backend,
        **own,
    )


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}= must be a str, not {type(value).__name__}")
    return value


def _names(name: str, value: object) -> frozenset[str]:
    if isinstance(value, str) or not isinstance(value, Iterable) or not all(isinstance(item, str) for item in value):
        raise TypeError(f'{name}= must be an iterable of names, for example {name}=("self",)')
    return frozenset(value)


class _Function:
    """One decorated function: what it was given, and once bound, where its entries live."""

    def __init__(self, fn: Callable[..., Any], options: _Options, service: Callable[[], Service]) -> None:
        _refuse(fn)
        self.fn = fn
        self.options = options
        self.is_async = inspect.iscoroutinefunction(fn)
        self.name = f"{getattr(fn, '__module__', '')}.{getattr(fn, '__qualname__', '')}"
        self.binder = keys.compile_binder(inspect.signature(fn), options.ignore, name=self.name)
        self.service = service
        self.bound: _Bound | None = None
        slow = self.slow_async if self.is_async else self.slow
        ignore = options.ignore if options.key is None else None
        self.memo = compile_memo(fn, self.binder, slow, ignore=ignore or frozenset(), is_async=self.is_async)
        _functions.add(self)
        if service is default_service:
            follow(self)

    def follow(self) -> None:
        """Bind again: the default service was replaced."""
        self.memo.unbind()
        self.bound = None

    def at(self) -> "_Bound":
        """Where the entries of this function live; binds it at the first call."""
        bound = self.bound
        if bound is None:
            service = self.service()
            bound = self.bind(service)
            if bound.fast:
                self.memo.bind_table(bound.tiers.table, bound.slot)
            self.bound = bound
            service.keep_ticking()
        return bound

    def bind(self, service: Service) -> "_Bound":
        """Resolve profile and options against a service. Raises `ConfigError`."""
        return _Bound(self, service)

    def call(self, at: "_Bound", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """The key and everything else that the flow needs to know about one call."""
        place, full = at.place(args, kwargs)
        tags = at.tiers.spec.tags
        if self.options.tags is not None:
            tags = (*tags, *map(keys.check_tag, _tags(self.options.tags(*args, **kwargs))))
        return Call(
            at.tiers,
            full,
            at.slot,
            place,
            at.tally,
            function_stamp=at.stamp,
            load=Load(self.fn, args, kwargs, self.is_async),
            tags=tags,
            ttl=at.tiers.spec.ttl if self.options.ttl is None else self._ttl_of,
            condition=self.options.condition,
        )

    def _ttl_of(self, value: Any) -> float | None:
        from cachekit.config.units import parse_duration

        assert self.options.ttl is not None
        return parse_duration(self.options.ttl(value))

    def slow(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that the hit path could not answer."""
        at = self.at()
        if not at.service.spec.enabled:
            return self.fn(*args, **kwargs)
        value = at.quick(args, kwargs)
        if value is not MISS:
            return value
        return drive(flow.get_or_load(self.call(at, args, kwargs), at.service.sync_port)).unwrap()

    async def slow_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As `slow`, for an async function."""
        at = self.at()
        if not at.service.spec.enabled:
            return await self.fn(*args, **kwargs)
        value = at.quick(args, kwargs)
        if value is not MISS:
            return value
        return (await flow.get_or_load(self.call(at, args, kwargs), at.service.async_port)).unwrap()

    async def peek(self, port: Port, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return await flow.look(self.call(self.at(), args, kwargs), port)

    async def refresh(self, port: Port, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return (await flow.refresh(self.call(self.at(), args, kwargs), port)).unwrap()

    async def put(self, port: Port, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        await flow.put(self.call(self.at(), args, kwargs), value, port)

    async def invalidate(self, port: Port, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
        at = self.at()
        return await flow.invalidate_keys(at.tiers, [self.call(at, args, kwargs)], port)

    async def invalidate_all(self, port: Port) -> Outcome:
        at = self.at()
        return await flow.clear_stamps(at.tiers.remotes, [at.stamp], at.tiers.versions, at.drop, port)

    def clear(self) -> None:
        """This process at once, L2 before it is used again."""
        at = self.at()
        with at.tiers.versions.lock:
            for remote in at.tiers.remotes:
                if remote.offers("clear"):
                    remote.outbox.add([], [at.stamp])
                remote.cells.forget([at.stamp])
            at.drop()

    def info(self) -> CacheInfo:
        at = self.at()
        tally, table = at.tally, at.tiers.table
        stats = None if table is None else table.stats(at.slot)
        l1_hits = tally.l1_hits()
        info = CacheInfo(
            l1_hits + tally.l2_hits,
            tally.misses,
            at.tiers.spec.l1.max_entries if table is not None else None,
            0 if stats is None else stats.entries,
        )
        info.l1_hits, info.l2_hits, info.stale = l1_hits, tally.l2_hits, 0
        info.errors = sum(tally.errors.values())
        info.bytes = 0 if stats is None else stats.weight
        return info


class _Bound:
    """A function bound to the tiers of its region."""

    __slots__ = ("binder", "fast", "fn_id", "key", "name", "namespace", "service", "slot", "stamp", "tally", "tiers")

    def __init__(self, function: _Function, service: Service) -> None:
        options = function.options
        profile = service.region_spec(options.profile)
        spec = apply_options(profile, options.parsed)
        self.service = service
        self.tiers = self._tiers(service, profile, spec, options)
        if self.tiers.remote is not None:
            faces = self.tiers.remote.faces
            if not function.is_async and faces.sync is None:
                raise ConfigError(f"{function.name}: a blocking function cannot use the async-only backend {spec.backend!r}")
        self.fn_id = keys.function_id(function.fn, options.version)
        self.stamp = keys.function_stamp(service.spec.namespace, spec.name, self.fn_id)
        self.name = function.name
        self.binder = function.binder
        self.key = options.key
        table = self.tiers.table
        self.slot = 0 if table is None else table.slot(self.fn_id)
        self.tally: Tally = service.tally(self.tiers, self.slot, function.name)
        # A key= callable decides what is compared, so the arguments themselves must not.
        self.fast = table is not None and options.key is None and service.spec.enabled

    @staticmethod
    def _tiers(service: Service, profile: RegionSpec, spec: RegionSpec, options: _Options) -> Tiers:
        given = options.parsed
        bounds = set(dict(cast("Mapping[str, object]", given.get("l1", {}))))
        if options.backend is not None or PRIVATE & given.keys() or bounds - {"ttl"}:
            return service.private_tiers(spec, options.backend)
        shared = service.tiers(options.profile)
        return shared if spec == profile else shared.but(spec)

    def drop(self) -> None:
        """This process's part of invalidating the whole function."""
        self.tiers.versions.bump_slot(self.slot)
        if self.tiers.table is not None:
            self.tiers.table.drop_slot(self.slot)

    def array(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The argument array: one for all spellings of a call."""
        if self.key is not None:
            self.binder.bind(args, kwargs)  # wrong arguments are the function's TypeError
            return (self.key(*args, **kwargs),)
        return self.binder.bind(args, kwargs)

    def quick(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """L1 alone."""
        table = self.tiers.table
        return MISS if table is None else table.get(self.slot, self._l1_args(self.array(args, kwargs)))

    def place(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], keys.Key | None]:
        """What L1 compares, and the key in L2; no key when the arguments have no stable identity and there is no L2."""
        array = self.array(args, kwargs)
        l1_args = self._l1_args(array)
        try:
            ident = keys.call_ident(self.fn_id, array)
        except UncacheableArgument:
            if self.tiers.remote is not None:
                raise
            return l1_args, None
        return l1_args, keys.full_key(self.tiers.namespace, self.tiers.spec.name, ident)

    def _l1_args(self, array: tuple[Any, ...]) -> tuple[Any, ...]:
        if keys.is_plain(array):
            return array
        try:
            return (keys.digest(array),)
        except UncacheableArgument:
            if self.tiers.remote is not None:
                raise
        try:
            hash(array)
        except TypeError:
            raise UncacheableArgument(
                f"{self.name}: an argument is neither hashable nor has it a stable identity; pass ignore=(...), key=, or "
                "give its class a __cache_key__ method"
            ) from None
        return array


def _tags(tags: object) -> Iterable[str]:
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise TypeError(f"tags= must give an iterable of str, not {type(tags).__name__}")
    return tags


def _refuse(fn: Any) -> None:
    name = getattr(fn, "__qualname__", repr(fn))
    if isinstance(fn, property):
        raise TypeError("@cache goes below @property: @property above, @cache next to the function")
    if inspect.isclass(fn):
        raise TypeError(f"{name}: a class cannot be cached; cache a function that makes instances")
    if isinstance(fn, str):
        raise TypeError(f"cache({fn!r}): say cache(profile={fn!r})")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise TypeError(f"{name}: a generator cannot be cached, it would be exhausted after the first use; return a list")
    if not callable(fn):
        raise TypeError(f"@cache works on functions, not on {type(fn).__name__}")


class _Kind(type):
    """Makes the functions that `@cache` returns count as `CachedFunction`."""

    def __instancecheck__(cls, instance: object) -> bool:
        return super().__instancecheck__(instance) or super().__instancecheck__(
            getattr(instance, "__cachekit__", None)
        )


class CachedFunction(Generic[P, R], metaclass=_Kind):
    """What `@cache` makes of a function: call it as before, and use the attributes below to look into its entries.

    A module-level function becomes a real function with these attributes; in a class body it becomes this object, which
    binds instances and classes, so that ``obj.method.invalidate(7)`` knows ``obj``.
    """

    def __init__(self, function: _Function, kind: str = "function", prefix: tuple[Any, ...] = ()) -> None:
        self._function = function
        self._kind = kind  # function | class | static: how it binds
        self._prefix = prefix  # bound arguments: the instance, or the class
        functools.update_wrapper(self, function.fn, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast(R, self._function.memo.call(*self._prefix, *args, **kwargs))

    def __repr__(self) -> str:
        return f"<cached {self._function.name}>"

    def __reduce__(self) -> str:
        return str(self.__qualname__)

    @overload
    def __get__(self, instance: None, owner: type, /) -> "CachedFunction[P, R]": ...
    @overload
    def __get__(
        self: "CachedFunction[Concatenate[S, Q], R]", instance: S, owner: type | None = None, /
    ) -> "CachedFunction[Q, R]": ...
    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> "CachedFunction[P, R]": ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> "CachedFunction[Any, R]":
        if self._prefix or self._kind == "static":
            return self
        if self._kind == "class":
            return type(self)(self._function, self._kind, (owner if owner is not None else type(instance),))
        return self if instance is None else type(self)(self._function, self._kind, (instance,))

    @property
    def region(self) -> Region:
        """The region that this function's entries belong to."""
        service = self._function.service
        name = self._function.options.profile
        return region(name) if service is default_service else cast(Region, service().region(name))

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function now and store the result, whatever is cached. A failure leaves what was stored."""
        return cast(R, self._run(self._function.refresh(self._port(), self._all(args), kwargs)))

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> "R | Literal[Miss.MISS]":
        """What is cached for this call in either tier, or `MISS`; never runs the function."""
        return cast("R | Literal[Miss.MISS]", self._run(self._function.peek(self._port(), self._all(args), kwargs)))

    def put(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Store a value for this call."""
        return cast(None, self._run(self._function.put(self._port(), value, self._all(args), kwargs)))

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Outcome:
        """Remove what this call cached. Whoever calls afterwards gets a value computed from data read afterwards."""
        return cast(Outcome, self._run(self._function.invalidate(self._port(), self._all(args), kwargs)))

    def invalidate_all(self) -> Outcome:
        """Remove every entry of this function."""
        return cast(Outcome, self._run(self._function.invalidate_all(self._port())))

    def key(self, *args: P.args, **kwargs: P.kwargs) -> EntryKey:
        """The key of this call's entry, which every method of a region takes."""
        at = self._function.at()
        place, full = at.place(self._all(args), kwargs)
        if full is None:
            raise UncacheableArgument(f"{self._function.name}: an argument has no stable identity, so there is no key")
        return EntryKey.of(full, slot=at.slot, args=place, function_stamp=at.stamp)

    def cache_info(self) -> CacheInfo:
        """Hits, misses, maxsize and currsize in this process, as `functools.lru_cache` tells them."""
        return self._function.info()

    def cache_clear(self) -> None:
        """Forget every entry of this function: in this process at once, in L2 before it is used again."""
        self._function.clear()

    def cache_parameters(self) -> dict[str, Any]:
        """The settings of this function."""
        spec = self._function.at().tiers.spec
        return {"maxsize": spec.l1.max_entries, "typed": True, "profile": spec.name, "ttl": spec.ttl}

    def twin(self) -> "AsyncCachedFunction[P, Any]":
        """The same cached function for coroutines: ``await f.twin().invalidate(7)``. Calls run in a worker thread."""
        return AsyncCachedFunction(self._function, self._kind, self._prefix)

    def _all(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*self._prefix, *args)

    def _port(self) -> Port:
        return self._function.at().service.sync_port

    def _run(self, body: Coroutine[Any, Any, Any]) -> Any:
        return drive(body)

    def __getattr__(self, name: str) -> Any:
        if name in ("using", "mark_stale"):
            raise AttributeError(f"{name}() is not yet available in this version")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class AsyncCachedFunction(CachedFunction[P, Coroutine[Any, Any, R]]):
    """`CachedFunction` of an async function: its attributes are coroutines too, but for those that touch no server."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        if self._function.is_async:
            return cast("Coroutine[Any, Any, R]", self._function.memo.call(*self._prefix, *args, **kwargs))
        return cast("Coroutine[Any, Any, R]", self._awaited(self._all(args), kwargs))

    async def _awaited(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The awaitable face of a blocking function."""
        function = self._function
        at = function.at()
        value = at.quick(args, kwargs) if at.service.spec.enabled else MISS
        if value is not MISS:
            return value
        call = function.call(at, args, kwargs)
        if not at.service.spec.enabled:
            assert call.load is not None
            return (await self._port().run(call.load)).unwrap()
        return (await flow.get_or_load(call, self._port())).unwrap()

    def twin(self) -> CachedFunction[P, R]:  # type: ignore[override]  # each is the other's twin
        """The blocking face: ``f.twin().invalidate(7)`` where nothing can be awaited."""
        return _Blocking(self._function, self._kind, self._prefix)

    def _port(self) -> Port:
        return self._function.at().service.async_port

    def _run(self, body: Coroutine[Any, Any, Any]) -> Any:
        return body

    if TYPE_CHECKING:

        def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
        def peek(  # type: ignore[override]
            self, *args: P.args, **kwargs: P.kwargs
        ) -> Coroutine[Any, Any, "R | Literal[Miss.MISS]"]: ...
        def put(  # type: ignore[override]
            self, value: R, /, *args: P.args, **kwargs: P.kwargs
        ) -> Coroutine[Any, Any, None]: ...
        def invalidate(  # type: ignore[override]
            self, *args: P.args, **kwargs: P.kwargs
        ) -> Coroutine[Any, Any, Outcome]: ...
        def invalidate_all(self) -> Coroutine[Any, Any, Outcome]: ...  # type: ignore[override]
        @overload  # type: ignore[override]
        def __get__(self, instance: None, owner: type, /) -> "AsyncCachedFunction[P, R]": ...
        @overload
        def __get__(
            self: "AsyncCachedFunction[Concatenate[S, Q], R]", instance: S, owner: type | None = None, /
        ) -> "AsyncCachedFunction[Q, R]": ...
        @overload
        def __get__(self, instance: object, owner: type | None = None, /) -> "AsyncCachedFunction[P, R]": ...


class _Blocking(CachedFunction[P, R]):
    """The blocking face of an async function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        function = self._function
        at = function.at()
        every = self._all(args)
        value = at.quick(every, kwargs) if at.service.spec.enabled else MISS
        if value is not MISS:
            return cast(R, value)
        return cast(R, drive(flow.get_or_load(function.call(at, every, kwargs), at.service.sync_port)).unwrap())

    def twin(self) -> Any:
        return AsyncCachedFunction(self._function, self._kind, self._prefix)


def _decorate(fn: Any, options: _Options, service: Callable[[], Service]) -> Any:
    """The cached function: a real function at module level, a binding object in a class body."""
    if isinstance(fn, CachedFunction):
        raise TypeError(f"{fn!r} is cached already")
    kind = "class" if isinstance(fn, classmethod) else "static" if isinstance(fn, staticmethod) else "function"
    function = _Function(fn.__func__ if kind != "function" else fn, options, service)
    face: CachedFunction[Any, Any] = (AsyncCachedFunction if function.is_async else CachedFunction)(function, kind)
    if kind != "function" or _in_class_body(function.fn):
        return face
    made = cast(Any, function.memo.call)
    made.__cachekit__ = face
    for name in FACES:
        setattr(made, name, getattr(face, name))
    return made


def _in_class_body(fn: Any) -> bool:
    """Whether a function was defined in a class body: a binding object is needed there, a plain function would be bound
    by Python and its attributes would not know the instance."""
    around, dot, _ = getattr(fn, "__qualname__", "").rpartition(".")
    return bool(dot) and not around.endswith("<locals>")


class _Cache:
    """`cache`: a decorator, with or without options, and the built-in profiles as attributes."""

    def __init__(self, profile: str = "default") -> None:
        self._profile = profile

    def __call__(self, fn: Any = None, /, **options: Any) -> Any:
        if fn is not None and options:
            raise TypeError("cache() takes a function or options, not both; write @cache(...) above the function")
        if fn is not None:
            return _decorate(fn, check({}, self._profile), default_service)
        checked = check(options, self._profile)
        return lambda function: _decorate(function, checked, default_service)

    def invalidates(
        self, *, tags: Iterable[str] | Callable[..., Iterable[str]]
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """For functions that write: when they returned without an exception, entries with these tags are outdated.

        ``tags`` is an iterable, or a callable of the arguments.
        """
        if isinstance(tags, str):
            raise TypeError("tags= must be an iterable of str, not a str")
        return lambda function: _writer(function, tags)

    def __getattr__(self, name: str) -> Any:
        if name in NOT_YET_BUILT_IN:
            raise ConfigError(f"cache.{name}: not yet available in this version")
        if name in BUILT_IN and name != "default":
            return _Cache(name)
        raise AttributeError(
            f"cache.{name} does not exist; only built-in profiles are attributes, write cache(profile={name!r})"
        )

    def __repr__(self) -> str:
        return "<cachekit.cache>" if self._profile == "default" else f"<cachekit.cache.{self._profile}>"


def _writer(function: Any, tags: Any) -> Any:
    def chosen(args: Any, kwargs: Any) -> list[str]:
        return [keys.check_tag(tag) for tag in _tags(tags(*args, **kwargs) if callable(tags) else tags)]

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            result = await function(*args, **kwargs)
            service = default_service()
            await clear_tags(service, chosen(args, kwargs), service.async_port)
            return result

        return awaited

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        service = default_service()
        drive(clear_tags(service, chosen(args, kwargs), service.sync_port))
        return result

    return called


def cached_in(service: Callable[[], Service], profile: str, fn: Any, options: Mapping[str, Any]) -> Any:
    """`Region.cached`."""
    if "profile" in options:
        raise TypeError("profile= does not go with region.cached: the region is the profile")
    checked = check(options, profile)
    return (lambda f: _decorate(f, checked, service)) if fn is None else _decorate(fn, checked, service)


def problems(service: Service) -> list[str]:
    """What is wrong with the decorated functions known so far, judged against a service."""
    found = []
    for function in sorted(_functions, key=lambda each: each.name):
        if service.private if function.service is default_service else function.service() is not service:
            continue
        try:
            service.region_spec(function.options.profile)
            apply_options(service.region_spec(function.options.profile), function.options.parsed)
        except CacheKitError as error:
            found.append(f"{function.name}: {error}")
    return found


cache = cast("Cache", _Cache())
