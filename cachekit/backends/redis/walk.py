"""Carries out a procedure that is written as a generator: it yields steps, and is sent their results or failures."""

from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, TypeVar

from cachekit.errors import BackendError

S = TypeVar("S")
T = TypeVar("T")


def walk(steps: Generator[S, Any, T], take: Callable[[S], Any]) -> T:
    """The result of the procedure; ``take`` carries out one step and may raise BackendError."""
    advance: Callable[[], S] = partial(next, steps)
    while True:
        try:
            step = advance()
        except StopIteration as end:
            result: T = end.value
            return result
        try:
            advance = partial(steps.send, take(step))
        except BackendError as error:
            advance = partial(steps.throw, error)


async def async_walk(steps: Generator[S, Any, T], take: Callable[[S], Awaitable[Any]]) -> T:
    """As `walk`."""
    advance: Callable[[], S] = partial(next, steps)
    while True:
        try:
            step = advance()
        except StopIteration as end:
            result: T = end.value
            return result
        try:
            advance = partial(steps.send, await take(step))
        except BackendError as error:
            advance = partial(steps.throw, error)
