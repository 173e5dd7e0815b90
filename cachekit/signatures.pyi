"""The types of `@cache` for type checkers. Never imported at run time.

The order of the overloads matters: class methods before functions, async before sync.
"""

from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, overload

from cachekit.backends.base import AsyncBaseBackend, BaseBackend
from cachekit.cached import AsyncCachedFunction, CachedFunction
from cachekit.config.units import Duration

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

class Options(TypedDict, total=False):
    """The options of `@cache` that exist today."""

    profile: str
    """The profile to start from; its name is part of every key."""
    key: Callable[..., Hashable]
    """A callable of the call's arguments; what it returns is compared in their place."""
    ignore: Iterable[str]
    """Names of parameters that are not part of the key."""
    tags: Iterable[str] | Callable[..., Iterable[str]]
    """Texts, or a callable of the call's arguments that returns them; beside the profile's."""
    condition: Callable[[Any], object]
    """A callable of the value; what it rejects is returned and not stored."""
    version: str | int
    """Part of the key: change it when the meaning of the value changes."""
    ttl: Duration | Callable[[Any], Duration | None] | None
    """Time to live: seconds, a duration like ``"5m"``, None or ``"never"``, or a callable of the value."""
    backend: str | BaseBackend | AsyncBaseBackend | None
    """The name of a backend, None for this process only, or a backend object."""
    max_entries: int
    """At most so many entries in L1, in a table of the function's own."""
    max_bytes: int | str
    """At most so many bytes in L1, in a table of the function's own."""
    l1: Mapping[str, Any]
    """Fields of the table ``l1`` of a profile: ``{"ttl": "5s"}``, ``{"mode": "off"}``."""
    jitter: Duration
    """How much is added to the ttl at random: a share like ``"10%"``, or seconds."""
    negative_ttl: Duration | None
    """Time to live of None."""
    cache_none: bool
    """False keeps None out."""
    serializer: str
    """How values become bytes: ``msgpack``, ``json``, ``pickle`` (signed or encrypted), or one of another package."""
    compression: str
    """Of stored bytes: ``lz4``, ``zstd`` or ``none``."""
    compress_above: int | str
    """Shorter values are not compressed; bytes, or a text like ``"1KiB"``."""
    counters: bool
    """Store every int as a plain number, for ``incr``."""
    max_value_bytes: int | str
    """Longer values are returned and not stored in L2."""
    on_unstorable: str
    """``warn``, or ``raise`` for `Unstorable`."""
    isolation: str
    """``auto`` and ``copy`` give each caller a value of its own, ``share`` all callers the same object."""
    lease: str
    """Whether to wait for another process that computes the same: ``auto`` not for fast functions, ``on``, ``off``."""
    lease_wait: Duration
    """How long; seconds, or a text like ``"2s"``."""
    stale_ttl: Duration
    """How long a value is kept past its ttl, to be given where no fresh one is to be had."""
    stale_on_error: bool
    """Whether the stale value stands in for an exception of the function; so it is if there is a ``stale_ttl``."""
    stale_unless: str | Iterable[str | type[Exception]]
    """Exceptions that are answers and reach the caller nevertheless: classes, or their dotted names."""
    stale_throttle: Duration
    """How long the function is left alone after it raised and a stale value stood in; doubles up to 5 minutes."""
    stale_without_proof: Duration
    """How long stale values may be given while the backend is away."""
    swr: bool
    """Give a stale value at once, and compute a fresh one behind the caller's back."""
    early_refresh: float | str
    """Compute anew before the ttl ends: ``auto`` from a ttl of 10 s on, ``off``, or a number (above 1: earlier)."""
    soft_timeout: Duration | None
    """How long to wait for the function if there is a stale value or a fallback; ``auto`` finds it by itself."""
    hard_timeout: Duration | None
    """How long to wait for the function at all; then `CacheLoadTimeout`, while the function goes on."""
    outage: str
    """While the backend is away and nothing is at hand: ``call`` the function, or give the ``fallback``."""
    negative_exceptions: Mapping[Any, Duration]
    """Exceptions that are remembered, as classes or dotted names, and for how long."""
    fallback: object
    """A value, or a callable of the call's arguments, for when nothing else can be given; never stored."""
    tenant: Callable[..., str | None]
    """A callable of the call's arguments: whose entry it is. None: that of `cachekit.tenant`, if there is one."""
    require_tenant: bool
    """True: without a tenant the call raises `MissingTenant`. Only ever turned on."""
    encrypt: bool
    """True: entries in L2 are encrypted, their names hidden. Only ever turned on."""
    sign: bool
    """True: entries in L2 are signed. Only ever turned on."""
    fail_closed: bool
    """True: an entry that somebody tampered with raises `TamperedEntry`; else it is a miss. Only ever turned on."""
    rewrap: bool
    """Whether entries that an older key closed are stored under the present one when they are read."""

class CachedClassMethod(CachedFunction[Concatenate[type[S], P], R], Generic[S, P, R]):
    """A cached class method: bound to the class however it is reached."""

    def __get__(self, instance: object, owner: type | None = None, /) -> CachedFunction[P, R]: ...  # type: ignore[override]

class AsyncCachedClassMethod(AsyncCachedFunction[Concatenate[type[S], P], R], Generic[S, P, R]):
    """As `CachedClassMethod`, async."""

    def __get__(self, instance: object, owner: type | None = None, /) -> AsyncCachedFunction[P, R]: ...  # type: ignore[override]

class Decorator(Protocol):
    """What `cache(...)` returns."""

    @overload
    def __call__(self, fn: classmethod[S, P, Coroutine[Any, Any, R]], /) -> AsyncCachedClassMethod[S, P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: classmethod[S, P, R], /) -> CachedClassMethod[S, P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[Concatenate[type[S], P], Coroutine[Any, Any, R]], /
    ) -> AsyncCachedClassMethod[S, P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[type[S], P], R], /) -> CachedClassMethod[S, P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> CachedFunction[P, R]: ...

class CachedIn(Decorator, Protocol):
    """What `region.cached` is, and `cache` too: a `Decorator` (overloads must be repeated) that takes options first."""

    @overload
    def __call__(self, fn: classmethod[S, P, Coroutine[Any, Any, R]], /) -> AsyncCachedClassMethod[S, P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: classmethod[S, P, R], /) -> CachedClassMethod[S, P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[Concatenate[type[S], P], Coroutine[Any, Any, R]], /
    ) -> AsyncCachedClassMethod[S, P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[type[S], P], R], /) -> CachedClassMethod[S, P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> CachedFunction[P, R]: ...
    @overload
    def __call__(self, /, **options: Unpack[Options]) -> Decorator: ...

class Cache(CachedIn, Protocol):
    """`cache` itself, and each built-in profile."""

    @property
    def minimal(self) -> Cache: ...
    @property
    def production(self) -> Cache: ...
    @property
    def secure(self) -> Cache: ...
    @property
    def dev(self) -> Cache: ...
    @property
    def test(self) -> Cache: ...
    @property
    def local(self) -> Cache: ...
    def invalidates(
        self, *, tags: Iterable[str] | Callable[..., Iterable[str]]
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
