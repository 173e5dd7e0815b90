"""What tells arguments apart that Python calls equal: ``1 == True == 1.0``, and ``0.0 == -0.0``."""

from collections.abc import Iterable
from math import copysign
from typing import Any

PLUS_ZERO, MINUS_ZERO = object(), object()


def kinds_of(args: Iterable[Any]) -> tuple[Any, ...]:
    """What tells equal arguments apart: the type of each, and of what a tuple or frozenset holds; the sign of 0.0."""
    return tuple([_kind(arg) for arg in args])


def _kind(arg: Any) -> Any:
    cls = type(arg)
    if cls is tuple:
        return (tuple, *kinds_of(arg))
    if cls is frozenset:
        return (frozenset, frozenset([(_kind(item), item) for item in arg]))
    if cls is float and arg == 0.0:
        return PLUS_ZERO if copysign(1.0, arg) > 0 else MINUS_ZERO
    return cls
