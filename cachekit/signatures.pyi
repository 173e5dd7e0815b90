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
    key: Callable[..., Hashable]
    ignore: Iterable[str]
    tags: Iterable[str] | Callable[..., Iterable[str]]
    condition: Callable[[Any], object]
    version: str | int
    ttl: Duration | Callable[[Any], Duration | None] | None
    backend: str | BaseBackend | AsyncBaseBackend | None
    max_entries: int
    max_bytes: int | str
    l1: Mapping[str, Any]
    jitter: Duration
    negative_ttl: Duration | None
    cache_none: bool
    compression: str
    compress_above: int | str
    counters: bool
    max_value_bytes: int | str
    on_unstorable: str
    isolation: str

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
    def dev(self) -> Cache: ...
    @property
    def test(self) -> Cache: ...
    @property
    def local(self) -> Cache: ...
    def invalidates(
        self, *, tags: Iterable[str] | Callable[..., Iterable[str]]
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
