"""Assertions about cached functions."""

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


def assert_cached(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call twice; the second call must not run the function and must give an equal value of the same type.

    Returns the value. For an async function it is a coroutine: ``await assert_cached(load, 7)``. AssertionError tells
    what differs; TypeError when the function is not cached. Nobody else may call it meanwhile: runs are counted by
    the misses of ``cache_info()``.
    """
    if not hasattr(function, "cache_info"):
        raise TypeError(f"{function!r} has no cache_info(): it is not a cached function")
    first = function(*args, **kwargs)
    if inspect.isawaitable(first):
        return cast(R, finish(function, first, args, kwargs))
    before = misses(function)
    compare(function, args, kwargs, before, first, function(*args, **kwargs))
    return first


async def finish(function: Callable[..., Any], awaitable: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    first = await awaitable
    before = misses(function)
    compare(function, args, kwargs, before, first, await function(*args, **kwargs))
    return first


def misses(function: Any) -> int:
    count: int = function.cache_info().misses
    return count


def compare(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], before: int, first: Any, second: Any) -> Any:
    spelling = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
    call = f"{getattr(function, '__qualname__', function)}({', '.join(spelling)})"
    if misses(function) != before:
        raise AssertionError(f"{call} ran again: the first call's value was not found in the cache")
    if type(second) is not type(first):
        raise AssertionError(f"{call} came back as {type(second).__name__}, it was {type(first).__name__}")
    if second is not first and second != first:
        raise AssertionError(f"{call} came back as {second!r}, it was {first!r}")
