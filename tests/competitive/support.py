"""What the situations share: functions that count their runs, waiting for what must be awaited, answers in words."""

import asyncio
import inspect
import sys
from collections.abc import Callable
from typing import Any

NOT_OFFERED = "–"

loop = asyncio.new_event_loop()


class NotOffered(Exception):
    """The library has nothing for this situation."""


def run(value: Any) -> Any:
    """The value, awaited if it must be."""
    return loop.run_until_complete(value) if inspect.isawaitable(value) else value


def counting(adapter: Any, name: str, body: Callable[..., Any]) -> tuple[Any, list[Any]]:
    """A function with a name of its own, of the kind that the library decorates, and its runs."""
    runs: list[Any] = []

    def plain(x: Any = 0) -> Any:
        runs.append(x)
        return body(x)

    async def coroutine(x: Any = 0) -> Any:
        runs.append(x)
        return body(x)

    function = coroutine if adapter.is_async else plain
    function.__name__ = function.__qualname__ = name
    return function, runs


def named(value: Any) -> str:
    """The type with its article: ``a tuple``, ``an int``."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def ask_for(wish: str) -> None:
    """Have the server killed or started by the process that started it, which answers when that is done."""
    print(f"!{wish}", flush=True)
    sys.stdin.readline()
