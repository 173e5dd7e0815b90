"""What L1 promises: a hit faster than `functools.lru_cache`, a cheap miss, small entries. Exits 1 over a bound.

    python benchmarks/l1.py [--json] [--rounds N] [--runs N]

Everything is as users have it: `@cache` with a TTL, statistics, a collector attached, Redis configured; only the row of
misses is of a function without L2, whose misses need no server. A row is the median over the runs of the ratio to its
reference in the same run, each side the minimum of at least 60 interleaved rounds. Every piece is checked to be what it
says, before and after. The bounds are those of the native twin; the pure one has some of its own.
"""

import argparse
import asyncio
import functools
import itertools
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from interleave import ROUNDS, interleave, loop

from cachekit import cache, configure
from cachekit.l1.table import TWIN
from cachekit.metrics import attach, exposition
from cachekit.process import default_service
from cachekit.testing.servers import start_server

NEW = sys.version_info >= (3, 12)
NATIVE = {
    "int": 0.50 if NEW else 0.60, "str": 0.50 if NEW else 0.60, "two arguments": 0.50 if NEW else 0.60,
    "method": 0.50 if NEW else 0.60, "keyword": 0.35, "f(1) and f(x=1)": None, "__cache_key__": None,
    "float": None, "tuple": None, "tagged": None, "isolated dict of 10": 4.0, "100k entries, random order": 0.75,
    "miss, insert, evict": 2.0, "async": 0.7 if NEW else 1.5,
}  # fmt: skip
PURE = {
    "int": 4.0, "str": 4.0, "two arguments": 3.0, "async": 4.0,
}  # fmt: skip
BOUNDS: dict[str, float | None] = NATIVE if TWIN == "native" else {**dict.fromkeys(NATIVE, None), **PURE}
BYTES, IMPORT_MS = 80, 20
MANY = 100_000
ROW = {f"field {number}": number for number in range(10)}


class User:
    """An argument with a key of its own."""

    def __cache_key__(self) -> int:
        return 7


def one(x: Any) -> Any:
    return x


def two(x: Any, y: Any) -> Any:
    return x


def keyword(x: Any, *, flag: bool = False) -> Any:
    return x


def row(x: Any) -> Any:
    return dict(ROW)


async def nothing(x: Any) -> Any:
    return x


class Theirs:
    @functools.lru_cache  # noqa: B019  # it is what we compare with
    def method(self, x: int) -> int:
        return x


def cached(function: Any, **options: Any) -> Any:
    """A function of its own each time, so that no two rows share an entry."""
    copy: Any = type(function)(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copy.__kwdefaults__, copy.__qualname__ = function.__kwdefaults__, f"{function.__name__}_{next(NUMBERS)}"
    return cache(profile="both", **options)(copy)


NUMBERS = itertools.count()


class Bench:
    """The rows of one run: pieces, what each is compared with, and what has to be true of it afterwards."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.pieces: dict[str, Callable[[], float]] = {}
        self.references: dict[str, str] = {}
        self.ours: dict[str, Any] = {}

    def compare(self, name: str, statement: str, ours: Any, theirs: Any, **names: Any) -> None:
        expected = eval(statement, {"f": theirs, **names})
        for _ in range(3):
            assert eval(statement, {"f": ours, **names}) == expected
        self.add(name, loop(statement, {"f": ours, **names}), loop(statement, {"f": theirs, **names}))
        self.ours[name] = ours

    def add(self, name: str, ours: Callable[[], float], theirs: Callable[[], float]) -> None:
        reference = f"lru_cache {name}"
        self.pieces |= {reference: theirs, name: ours}
        self.references |= {name: reference, reference: reference}

    def build(self) -> None:
        self.compare("int", "f(7_000)", cached(one), functools.lru_cache(one))
        self.compare("str", "f('user:1234')", cached(one), functools.lru_cache(one))
        self.compare("two arguments", "f(7, 'de')", cached(two), functools.lru_cache(two))
        self.compare("keyword", "f(7, flag=True)", cached(keyword), functools.lru_cache(keyword))
        self.compare("float", "f(1.5)", cached(one), functools.lru_cache(one))
        self.compare("tuple", "f((1, 'de'))", cached(one), functools.lru_cache(one))
        self.compare("tagged", "f(7)", cached(one, tags=["a"]), functools.lru_cache(one))
        self.compare("isolated dict of 10", "f(7)", cached(row), functools.lru_cache(row))
        user = User()
        self.compare("__cache_key__", "f(u)", cached(lambda u: 1), functools.lru_cache(lambda u: 1), u=user)
        self.method()
        self.spellings()
        self.many()
        self.misses()
        self.awaited()

    def method(self) -> None:
        class Ours:
            @cache(profile="both", ignore=("self",), version=str(next(NUMBERS)))
            def method(self, x: int) -> int:
                return x

        ours, theirs = Ours(), Theirs()
        for _ in range(3):
            assert ours.method(7) == theirs.method(7) == 7
        self.add("method", loop("o.method(7)", {"o": ours}), loop("o.method(7)", {"o": theirs}))
        self.ours["method"] = Ours.method

    def spellings(self) -> None:
        ours, theirs = cached(one), functools.lru_cache(one)
        assert ours(1) == ours(x=1) == theirs(1) == theirs(x=1)
        assert (ours.cache_info().currsize, theirs.cache_info().currsize) == (1, 2)
        statement = "f(1); f(x=1)"
        self.add("f(1) and f(x=1)", loop(statement, {"f": ours}), loop(statement, {"f": theirs}))
        self.ours["f(1) and f(x=1)"] = ours

    def many(self) -> None:
        """Keys that are equal to the stored ones and other objects, in an order that has nothing to do with theirs."""
        ours, theirs = cached(one, l1={"max_entries": MANY}), functools.lru_cache(MANY)(one)
        for number in range(MANY):
            assert ours.put(number, number) is None
            theirs(number)
        for number in range(MANY):  # the pushes that tell of our own stores come late: fill again what they dropped
            ours(number)
        keys = [int(str(number)) for number in range(MANY)]
        random.Random(1).shuffle(keys)

        def walk(function: Any) -> Callable[[], float]:
            def measure() -> float:
                start = perf_counter_ns()
                for key in keys:
                    function(key)
                return (perf_counter_ns() - start) / MANY

            return measure

        self.add("100k entries, random order", walk(ours), walk(theirs))
        self.big = ours

    def misses(self) -> None:
        def load(x: int) -> int:
            return x

        load.__qualname__ = f"load_{next(NUMBERS)}"
        ours = cache(backend=None, ttl="1h", l1={"max_entries": 1024})(load)
        theirs = functools.lru_cache(1024)(load)
        ours(-1)
        numbers = itertools.count()
        self.add(
            "miss, insert, evict",
            loop("f(next(n))", {"f": ours, "n": numbers}, 3000),
            loop("f(next(n))", {"f": theirs, "n": numbers}, 3000),
        )
        self.missing = ours

    def awaited(self) -> None:
        async def ours(x: int) -> int:
            return x

        ours.__qualname__ = f"awaited_{next(NUMBERS)}"
        function = cache(profile="both")(ours)

        def measure(function: Any) -> Callable[[], float]:
            async def run() -> float:
                start = perf_counter_ns()
                for _ in range(2000):
                    await function(7)
                return (perf_counter_ns() - start) / 2000

            return lambda: self.runner.run(run())

        for _ in range(3):
            self.runner.run(self._once(function))
        self.add("async", measure(function), measure(nothing))
        self.ours["async"] = function

    @staticmethod
    async def _once(function: Any) -> Any:
        return await function(7)

    def run(self, rounds: int) -> dict[str, tuple[float, float]]:
        """ns and ratio of each row."""
        before = {name: function.cache_info() for name, function in self.ours.items()}
        missed, big = self.missing.cache_info().misses, self.big.cache_info()
        rows = interleave(self.pieces, self.references, rounds)
        for name, function in self.ours.items():
            info = function.cache_info()
            assert info.misses == before[name].misses, f"{name}: {info.misses - before[name].misses} misses"
            assert info.l1_hits - before[name].l1_hits >= rounds * 2000, f"{name}: {info}"
        assert self.big.cache_info().l1_hits - big.l1_hits == rounds * MANY, "every call was a hit"
        assert self.missing.cache_info().misses - missed == rounds * 3000, "every call was a miss"
        assert self.missing.cache_info().currsize == 1024
        return {row.name: (row.ns, row.ratio) for row in rows if row.name in BOUNDS}


MEMORY = """
import ctypes, os, sys
from cachekit import cache
libc = ctypes.CDLL(None)
def rss():
    libc.malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
def load(x):
    return VALUES[x]
KEYS = list(range(100_000, 200_000))
VALUES = dict(zip(KEYS, range(300_000, 400_000)))
load = cache(backend=None, ttl="1h", l1={"max_entries": 100_000})(load)
load(KEYS[0])
before = rss()
for key in KEYS:
    load(key)
after = rss()
assert load.cache_info().currsize == 100_000 and load(KEYS[5]) == VALUES[KEYS[5]]
print((after - before) / 100_000)
"""

IMPORT = "import time; a=time.process_time(); import cachekit; print((time.process_time()-a)*1000)"


def fresh(program: str, times: int) -> list[float]:
    """What a program prints, in fresh processes."""
    run = functools.partial(subprocess.run, capture_output=True, text=True, check=True)
    return [float(run([sys.executable, "-c", program]).stdout) for _ in range(times)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with start_server("valkey") as server, asyncio.Runner() as runner:
        configure(
            namespace="bench",
            backends={"default": {"url": server.url, "coherence": "ttl", "max_staleness": "1h"}},
            profiles={"both": {"ttl": "1h"}},
        )
        attach(default_service())
        bench = Bench(runner)
        bench.build()
        runs = [bench.run(options.rounds) for _ in range(options.runs)]
        assert b"cachekit_cache_hits_total" in exposition(default_service())[1]
    ns = {name: statistics.median(run[name][0] for run in runs) for name in runs[0]}
    ratios = {name: statistics.median(run[name][1] for run in runs) for name in runs[0]}
    limits = {name: BOUNDS[name] for name in ratios}
    ratios |= {"bytes per entry": statistics.median(fresh(MEMORY, 5)), "import, ms of CPU": min(fresh(IMPORT, 15))}
    limits |= {"bytes per entry": BYTES if TWIN == "native" else None, "import, ms of CPU": IMPORT_MS}
    over = {name: ratio for name, ratio in ratios.items() if (limit := limits[name]) is not None and ratio > limit}
    if options.json:
        print(json.dumps({"twin": TWIN, "ratios": ratios, "ns": ns, "bounds": limits, "over": sorted(over)}))
    else:
        print(f"twin: {TWIN}, Python {sys.version.split()[0]}; median of {options.runs} runs")
        for name, ratio in ratios.items():
            limit = "" if limits[name] is None else f"at most {limits[name]}"
            took = f"{ns[name]:8.1f} ns" if name in ns else " " * 11
            print(f"{name:28} {took} {ratio:7.2f}  {limit}{'   OVER' if name in over else ''}")
    sys.exit(1 if over else 0)


if __name__ == "__main__":
    main()
