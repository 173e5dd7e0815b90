"""What every application does for a request: call cached functions, and note each call where SIGKILL cannot undo it."""

import os
import struct
import threading
import time
from pathlib import Path
from typing import Any

from cachekit import cache

RECORD = struct.Struct("d")  # when a call had returned, seconds since the epoch
_files: dict[tuple[int, str], int] = {}
_lock = threading.Lock()


@cache(profile="shared")
def square(n: int) -> dict[str, int]:
    return {"n": n, "square": n * n}


@cache(profile="crowded")
def cube(n: int) -> list[int]:
    return [n, n**3]


@cache(profile="shared")
async def root(n: int) -> dict[str, int]:
    return {"n": n, "root": n**2}


def answer(n: int) -> dict[str, Any]:
    """One call of each of the blocking functions."""
    first = square(n)
    note("square")
    second = cube(n)
    note("cube")
    return report(first, second)


async def answer_async(n: int) -> dict[str, Any]:
    """One call of each function."""
    third = await root(n)
    note("root")
    return {**answer(n), "root": third["root"]}


def many(start: int, count: int) -> int:
    """As many requests with keys of their own."""
    for n in range(start, start + count):
        answer(n)
    return count


def report(first: dict[str, int], second: list[int]) -> dict[str, Any]:
    assert set(first) == {"n", "square"}, first  # nobody else's changes are seen
    assert len(second) == 2, second
    first["pid"] = os.getpid()
    second.append(os.getpid())
    return {"n": first["n"], "square": first["square"], "cube": second[1], "pid": first["pid"]}


def note(function: str) -> None:
    """Append to the journal of this process and function; what a write has taken outlives the process."""
    place = (os.getpid(), function)
    if place not in _files:
        with _lock:
            if place not in _files:
                path = Path(os.environ["JOURNAL"], f"{place[0]}.{function}")
                _files[place] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(_files[place], RECORD.pack(time.time()))
