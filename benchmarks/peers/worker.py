"""Measures usages in any interpreter: a program that `sections` starts, which needs the standard library alone.

Every line that it reads and writes is JSON: first it says which of the modules of its argument are here, then it is
told a task, says when it is ready, and does as the task says.
"""

import asyncio
import ctypes
import gc
import json
import os
import platform
import random
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from statistics import mean
from time import perf_counter_ns
from typing import Any
from uuid import UUID

RECORD = {
    f"field_{number}": value
    for number, value in enumerate([1, "two", 3.0, True, None, "six" * 5, 7, "8", 9, "x" * 120])
}
CHUNK = 2_000_000  # ns that a piece takes in a round, or the time of one call
MOST = 10_000  # calls
WARM = 8  # calls before the first that counts: a breaker may open meanwhile

Say = Callable[[Any], None]
Hear = Callable[[], Any]


def here(modules: "dict[str, tuple[str, str]]") -> "dict[str, Any]":
    """The interpreter, and the versions of the libraries that it has."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": sysconfig.get_paths()["purelib"],
        "libraries": {library: installed(name) for library, (module, name) in modules.items() if is_here(module)},
    }


def is_here(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # of the package that the module is in
        return False


def installed(distribution: str) -> str:
    try:
        return version(distribution) if distribution else ""
    except PackageNotFoundError:  # a directory on the path
        return ""


# What is called.


class Function:
    """The function that is cached, plain or a coroutine function, which counts its runs and takes a while."""

    def __init__(self, name: str, face: str, seconds: float = 0.0) -> None:
        self.runs = 0

        def plain(x: Any) -> Any:
            self.runs += 1
            if seconds:
                time.sleep(seconds)
            return dict(RECORD)

        async def coroutine(x: Any) -> Any:
            self.runs += 1
            if seconds:
                await asyncio.sleep(seconds)
            return dict(RECORD)

        self.made: Any = coroutine if face == "async" else plain
        self.made.__name__ = self.made.__qualname__ = name


def made(code: str, names: "dict[str, Any]") -> "dict[str, Any]":
    """What the code of a usage makes."""
    scope = {"RECORD": RECORD, **names}
    exec(code, scope)
    return scope


class Piece:
    """A call that is made over and over. ``problem`` says why it has no figure; it is then called no more."""

    def __init__(self, call: "Callable[[Any], Any]", argument: Any, expected: Any, loop: Any, function: Any) -> None:
        self.call, self.argument, self.expected, self.loop, self.function = call, argument, expected, loop, function
        self.best, self.problem = float("inf"), ""
        for _ in range(WARM):
            self.run(1)
        self.runs = function.runs if function else 0
        taken = min(self.run(1)[0] for _ in range(3))
        self.calls = max(1, min(MOST, CHUNK // max(1, taken)))

    def run(self, calls: int) -> "tuple[int, Any]":
        """The ns of so many calls, and the last value."""
        call, argument, value = self.call, self.argument, None
        if self.loop is not None:
            return self.loop.run_until_complete(self.await_(calls))
        begun = perf_counter_ns()
        for _ in range(calls):
            value = call(argument)
        return perf_counter_ns() - begun, value

    async def await_(self, calls: int) -> "tuple[int, Any]":
        call, argument, value = self.call, self.argument, None
        begun = perf_counter_ns()
        for _ in range(calls):
            value = await call(argument)
        return perf_counter_ns() - begun, value

    def round(self) -> None:
        if self.problem:
            return
        try:
            self.run(1 + self.calls // 4)  # whoever ran before has the processor's caches
            taken, value = self.run(self.calls)
        except Exception as error:
            self.problem = told(error)
            return
        self.best = min(self.best, taken / self.calls)
        if value != self.expected:
            self.problem = "another value than the function's"
        if self.function and self.function.runs != self.runs:
            self.problem = "the function ran again: these were no hits"

    def found(self) -> "dict[str, Any]":
        return {"value": None if self.problem else self.best, "problem": self.problem}


class Broken:
    """A piece that cannot even be made."""

    def __init__(self, problem: str) -> None:
        self.problem = problem

    def round(self) -> None:
        pass

    def found(self) -> "dict[str, Any]":
        return {"value": None, "problem": self.problem}


def told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:100]


def piece(number: int, order: "dict[str, Any]", loop: Any) -> "Piece | Broken":
    try:
        if order["column"] in ("encode", "decode"):
            return codec_piece(order)
        function, face = Function(f"function_{number}", order["column"]), order["column"]
        memo = made(order["code"], {"function": function.made, **order["names"]})["memo"]
        counted = function if order["hits"] else None
        return Piece(memo, 7, RECORD, loop if face == "async" else None, counted)
    except Exception as error:
        return Broken(told(error))


def codec_piece(order: "dict[str, Any]") -> Piece:
    value = typed_rows()
    usage = made(order["code"], {})
    encoded = usage["dump"](value)
    back = usage["load"](encoded)
    if shape(back) != shape(value):
        raise TypeError(f"gives back {different(value[0], back[0])}")
    if order["column"] == "encode":
        return Piece(usage["dump"], value, encoded, None, None)
    return Piece(usage["load"], encoded, value, None, None)


def typed_rows() -> "list[dict[str, Any]]":
    draw = random.Random(7)
    return [
        {
            "id": number,
            "key": UUID(int=draw.getrandbits(128), version=4),
            "price": Decimal(draw.randrange(10**6)).scaleb(-2),
            "at": datetime(2026, 1 + number % 12, 1 + number % 28, number % 24, 5, 7, number, UTC),
            "name": f"item {number}",
        }
        for number in range(100)
    ]


def shape(rows: Any) -> Any:
    """Rows with the type of every field."""
    return [[(name, type(value), value) for name, value in row.items()] for row in rows]


def different(row: "dict[str, Any]", back: Any) -> str:
    """The first field that came back as something else."""
    for name, value in row.items():
        if type(back[name]) is not type(value):
            return f"{type(back[name]).__name__} for {type(value).__name__}"
    return "other values"


# The tasks.


def rounds(order: "dict[str, Any]", say: Say, hear: Hear) -> None:
    """Measure pieces in turns, a round per line, and say what was found after null."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    pieces = [piece(number, each, loop) for number, each in enumerate(order["pieces"])]
    say("ready")
    gc.disable()
    while hear() is not None:
        for each in pieces:
            each.round()
        say("measured")
    say([each.found() for each in pieces])


def caller(order: "dict[str, Any]", function: Function) -> "Callable[[Any, int], None]":
    """Calls what was cached, so many times at once: from threads, or from tasks of one loop."""
    memo = made(order["code"], {"function": function.made, **order["names"]})["memo"]
    if order["face"] == "sync":
        pool = ThreadPoolExecutor(8)

        def call(x: Any, callers: int) -> None:
            if callers == 1:
                memo(x)
            else:
                list(pool.map(memo, [x] * callers))

        return call
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    async def gathered(x: Any, callers: int) -> None:
        await asyncio.gather(*(memo(x) for _ in range(callers)))

    return lambda x, callers: loop.run_until_complete(gathered(x, callers))


def stampede(order: "dict[str, Any]", say: Say, hear: Hear) -> None:
    """Call each key that is told, with many callers; say how often the function ran and when all had its value."""
    function = Function("function", order["face"], order["seconds"])
    call = caller(order, function)
    call(-1, order["callers"])  # connections are there
    say("ready")
    while (key := hear()) is not None:
        before, begun = function.runs, time.monotonic()
        call(key, order["callers"])
        say({"runs": function.runs - before, "seconds": time.monotonic() - begun})


def outage(order: "dict[str, Any]", say: Say, hear: Hear) -> None:
    """Call keys one after the other until the time is over; say how long each call took."""
    call = caller(order, Function("function", order["face"], order["seconds"]))
    call(-1, 1)
    say("ready")
    hear()
    seconds: list[float] = []
    problem = ""

    def give_up() -> None:
        say({"slowest": order["patience"], "mean": order["patience"], "problem": "a call got no answer at all"})
        os._exit(0)

    timer = threading.Timer(order["patience"], give_up)
    timer.daemon = True
    timer.start()
    until = time.monotonic() + order["limit"]
    while len(seconds) < order["calls"] and time.monotonic() < until:
        begun = time.monotonic()
        try:
            call(len(seconds), 1)
        except Exception as error:
            problem = f"{type(error).__name__} reaches the caller"
        seconds.append(time.monotonic() - begun)
    timer.cancel()
    say({"slowest": max(seconds), "mean": mean(seconds), "problem": problem})


def memory(order: "dict[str, Any]", say: Say, hear: Hear) -> None:
    """Fill a cache; say how many bytes each entry takes beyond its key and value."""
    keys = range(100_000, 100_000 + order["entries"])
    values = {key: 2 * key for key in keys}
    runs: list[Any] = []

    def plain(x: Any) -> Any:
        runs.append(None)
        return values[x]

    async def coroutine(x: Any) -> Any:
        runs.append(None)
        return values[x]

    function: Any = coroutine if order["face"] == "async" else plain
    memo = made(order["code"], {"function": function, "ENTRIES": order["entries"]})["memo"]
    keys = list(values)
    loop = asyncio.new_event_loop()

    def fill(some: Any) -> None:
        if order["face"] == "sync":
            for key in some:
                memo(key)
        else:
            loop.run_until_complete(awaiting(some))

    async def awaiting(some: Any) -> None:
        for key in some:
            await memo(key)

    fill(keys[:1])
    before = resident()
    fill(keys[1:])
    after = resident()
    count = len(runs)
    fill(keys[: order["entries"] // 2 : 100])
    problem = "" if len(runs) == count == order["entries"] else "not every entry was kept"
    say({"value": (after - before - 8 * count) / count, "problem": problem})  # `runs` takes 8 bytes for each


def resident() -> int:
    """The bytes of this process in memory, without what malloc keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:  # noqa: PTH123  # it is measured
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


TASKS = {task.__name__: task for task in (rounds, stampede, outage, memory)}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever the libraries print
    own = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  # as the interpreter made it
    sys.path[:] = [*(path for path in sys.path if path != own), os.path.dirname(own)]  # noqa: PTH120

    def say(what: Any) -> None:
        answers.write(json.dumps(what) + "\n")

    def hear() -> Any:
        return json.loads(sys.stdin.readline() or "null")

    say(here(json.loads(sys.argv[1])))
    order = hear()
    TASKS[order["task"]](order, say, hear)
    answers.flush()
    os._exit(0)  # threads and tasks of the libraries would be waited for


if __name__ == "__main__":
    main()
