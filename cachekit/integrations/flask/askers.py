"""The callables that Flask-Caching's decorators take: asked with the function and its arguments, or with nothing."""

import functools
import inspect
from collections.abc import Callable
from hashlib import sha256
from typing import Any


def asker(name: str, given: Any, function: Callable[..., Any]) -> Callable[..., object] | None:
    """`unless` or `forced_update`, as something that takes the arguments of a call."""
    if given is None:
        return None
    if not callable(given):
        raise TypeError(f"{name}= must be callable, not {type(given).__name__}")
    if inspect.signature(given).parameters:
        return functools.partial(given, function)
    return lambda *args, **kwargs: given()


def stale_asker(given: Any) -> Callable[..., object] | None:
    """`is_stale`, as something that takes the kept value and the arguments of a call."""
    if given is None:
        return None
    if not callable(given):
        raise TypeError(f"is_stale= must be callable, not {type(given).__name__}")
    if len(inspect.signature(given).parameters) == 1:
        return lambda value, *args, **kwargs: given(value)
    return given  # type: ignore[no-any-return]  # a callable


def versioned(function: Callable[..., Any], version: Any, source_check: bool) -> Any:
    """The version of a function's entries; with ``source_check`` its source is part of it."""
    if not source_check:
        return version
    digest = sha256(inspect.getsource(function).encode()).hexdigest()[:16]
    return digest if version is None else f"{version}-{digest}"
