"""`@cache`: options -> cached function.

Decoration reads no configuration: it checks option names and types, records the function, and binds it at the first
call or when a service starts. The hit path is a function made for the exact signature (`l1.table`); everything else
comes back to `function.Function.slow`.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

from cachekit.cached import AsyncCachedFunction, CachedFunction
from cachekit.config.spec import BUILT_IN
from cachekit.engine.keys import check_tag
from cachekit.function import Function
from cachekit.options import Options, check, tag_names
from cachekit.process import default_service
from cachekit.regions import ainvalidate_tags, invalidate_tags
from cachekit.service import Service

if TYPE_CHECKING:
    from cachekit.signatures import Cache

P = ParamSpec("P")
R = TypeVar("R")

FACES: Final = (
    "refresh", "peek", "put", "invalidate", "mark_stale", "invalidate_all", "using", "key", "cache_info",
    "cache_clear", "cache_parameters", "twin", "region",
)  # fmt: skip


def decorate(fn: Any, options: Options, service: Callable[[], Service]) -> Any:
    """The cached function: what answers the hits, where that binds instances as we want it; else a face of it."""
    _refuse(fn)
    kind = "class" if isinstance(fn, classmethod) else "static" if isinstance(fn, staticmethod) else "method"
    function = Function(fn.__func__ if kind != "method" else fn, options, service, kind)
    face = (AsyncCachedFunction if function.is_async else CachedFunction).of(function)
    if kind != "method" or (not function.memo.binds_by(face) and _in_class_body(function.fn)):
        return face
    made = cast(Any, function.memo.call)
    made.__cachekit__ = face
    for name in FACES:
        setattr(made, name, getattr(face, name))
    return made


def _refuse(fn: Any) -> None:
    name = getattr(fn, "__qualname__", repr(fn))
    if isinstance(fn, CachedFunction):
        raise TypeError(f"{name} is cached already")
    if isinstance(fn, property):
        raise TypeError("@cache goes below @property: @property above, @cache next to the function")
    if inspect.isclass(fn):
        raise TypeError(f"{name}: a class cannot be cached; cache a function that makes instances")
    if isinstance(fn, str):
        raise TypeError(f"cache({fn!r}): say cache(profile={fn!r})")
    fn = fn.__func__ if isinstance(fn, (classmethod, staticmethod)) else fn
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise TypeError(f"{name}: a generator cannot be cached, it would be exhausted after one use; return a list")
    if not callable(fn):
        raise TypeError(f"@cache works on functions, not on {type(fn).__name__}")


def _in_class_body(fn: Any) -> bool:
    """Whether a function was defined in a class body: a plain function would be bound by Python there, and its
    attributes would not know the instance."""
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
            return decorate(fn, check({}, self._profile), default_service)
        checked = check(options, self._profile)
        return lambda function: decorate(function, checked, default_service)

    def invalidates(
        self, *, tags: Iterable[str] | Callable[..., Iterable[str]]
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """For functions that write: when they returned without an exception, entries with these tags are outdated.

        ``tags`` is an iterable, or a callable of the arguments.
        """
        fixed = tags if callable(tags) else tuple(map(check_tag, tag_names(tags)))
        return lambda function: _writer(function, fixed)

    def __getattr__(self, name: str) -> Any:
        if name in BUILT_IN and name != "default":
            return _Cache(name)
        raise AttributeError(
            f"cache.{name} does not exist; only built-in profiles are attributes, write cache(profile={name!r})"
        )

    def __repr__(self) -> str:
        return "<cachekit.cache>" if self._profile == "default" else f"<cachekit.cache.{self._profile}>"


def _writer(function: Any, tags: Any) -> Any:
    def chosen(args: Any, kwargs: Any) -> list[str]:
        return [check_tag(tag) for tag in tag_names(tags(*args, **kwargs) if callable(tags) else tags)]

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            result = await function(*args, **kwargs)
            await ainvalidate_tags(*chosen(args, kwargs))
            return result

        return awaited

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        invalidate_tags(*chosen(args, kwargs))
        return result

    return called


def cached_in(service: Callable[[], Service], profile: str, fn: Any = None, /, **options: Any) -> Any:
    """`Region.cached`."""
    if "profile" in options:
        raise TypeError("profile= does not go with region.cached: the region is the profile")
    checked = check(options, profile)
    return (lambda f: decorate(f, checked, service)) if fn is None else decorate(fn, checked, service)


cache = cast("Cache", _Cache())
"""The decorator: ``@cache`` or ``@cache(ttl="5m", ...)`` above a function makes a `CachedFunction` of it.

The options are those of `Options` below; their names and values are checked at once, the profile at the first call or
at the start of a service. ``cache.minimal``, ``cache.production``, ``cache.dev``, ``cache.test`` and ``cache.local``
are the same decorator for the built-in profiles.
"""
