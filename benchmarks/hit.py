"""What a hit in L1 costs, against `functools.lru_cache` without a TTL.

    python benchmarks/hit.py [--json] [--rounds N]

Measured are the generated function and the table below it, without the decorator; hits carry TTL, counters and policy.
Every piece is checked to be hits, and the right ones, before and after.
"""

import argparse
import asyncio
import functools
import inspect
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from interleave import ROUNDS, interleave, loop, report

from cachekit.l1.table import TWIN, Table, Versions, compile_memo
from cachekit.l1.values import admit

HOUR = 3600 * 10**9
ROW = {f"field {number}": number for number in range(10)}


def one(x: Any) -> Any:
    return f"value of {x}"


def two(x: Any, y: Any) -> Any:
    return f"value of {x} {y}"


def keyword(x: Any, *, flag: bool = False) -> Any:
    return f"value of {x} {flag}"


class Service:
    """A method that ignores its object."""

    def method(self, x: Any) -> Any:
        return f"value of {x}"


def row(x: Any) -> Any:
    return dict(ROW)


class Cached:
    """A memo over a table of its own."""

    def __init__(self, func: Callable[..., Any], *, ignore: frozenset[str] = frozenset(), **options: Any) -> None:
        self.func, self.ignore, self.tags = func, ignore, options.pop("tags", ())
        versions = Versions()
        self.table = Table(
            region="bench",
            max_entries=1024,
            max_bytes=1 << 30,
            policy=options.pop("policy", "s3fifo"),
            versions=versions,
        )
        self.slot = self.table.slot(func.__name__)
        self.loads = 0
        self.is_async = inspect.iscoroutinefunction(func)
        on_slow = self.load_async if self.is_async else self.load
        memo = compile_memo(func, inspect.signature(func), on_slow, ignore=ignore, is_async=self.is_async)
        memo.bind_table(self.table, self.slot)
        self.call = memo.call

    def load(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = self.func(*args, **kwargs)
        self.keep(args, kwargs, value)
        return value

    async def load_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = await self.func(*args, **kwargs)
        self.keep(args, kwargs, value)
        return value

    def keep(self, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> None:
        self.loads += 1
        bound = inspect.signature(self.func).bind(*args, **kwargs)
        bound.apply_defaults()
        array = tuple(value for name, value in bound.arguments.items() if name not in self.ignore)
        until = self.table.clock() + HOUR
        stored = self.table.put(
            self.slot, array, value, khash=hash(array), fresh_until=until, keep_until=until, ticket=0, tags=self.tags,
            admission=admit(value),
        )  # fmt: skip
        assert stored


async def coroutine(x: Any) -> Any:
    return x


def awaiting(function: Callable[[Any], Any], calls: int = 2000) -> Callable[[], float]:
    """ns of one await inside a running loop."""

    async def run() -> float:
        start = perf_counter_ns()
        for _ in range(calls):
            await function(7)
        return (perf_counter_ns() - start) / calls

    runner = asyncio.Runner()
    return lambda: runner.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=2 * ROUNDS)
    options = parser.parse_args()

    ours: dict[str, Cached] = {}
    pieces: dict[str, Callable[[], float]] = {}
    references: dict[str, str] = {}

    def compare(name: str, statement: str, cached: Cached, reference: Callable[..., Any], **names: Any) -> None:
        ours[name] = cached
        lru = f"lru_cache {name}"
        expected = eval(statement, {"f": reference, **names})
        assert eval(statement, {"f": cached.call, **names}) == expected
        pieces[lru] = loop(statement, {"f": reference, **names})
        pieces[name] = loop(statement, {"f": cached.call, **names})
        references[name] = references[lru] = lru

    compare("int", "f(x)", Cached(one), functools.lru_cache(one), x=10**12)
    compare("str", "f(x)", Cached(one), functools.lru_cache(one), x="user:1234")
    compare("two", "f(x, y)", Cached(two), functools.lru_cache(two), x=7, y="user:1234")
    compare("kwarg", "f(x, flag=True)", Cached(keyword), functools.lru_cache(keyword), x=7)
    method = Cached(Service.method, ignore=frozenset({"self"}))
    ours_type = type("Ours", (), {"f": method.call})
    theirs_type = type("Theirs", (), {"f": functools.lru_cache(Service.method)})
    ours["method"] = method
    assert ours_type().f(7) == theirs_type().f(7)
    pieces["lru_cache method"] = loop("o.f(7)", {"o": theirs_type()})
    pieces["method"] = loop("o.f(7)", {"o": ours_type()})
    references.update({"method": "lru_cache method", "lru_cache method": "lru_cache method"})
    compare("tagged", "f(x)", Cached(one, tags=["a"]), functools.lru_cache(one), x=7)
    compare("lru policy", "f(x)", Cached(one, policy="lru"), functools.lru_cache(one), x=7)
    compare("copied dict of 10", "f(x)", Cached(row), functools.lru_cache(row), x=7)
    ours["async"] = Cached(coroutine)
    pieces["await nothing"] = awaiting(coroutine)
    pieces["async"] = awaiting(ours["async"].call)
    references.update({"async": "await nothing", "await nothing": "await nothing"})

    rows = interleave(pieces, references, options.rounds)
    for name, cached in ours.items():
        hits = cached.table.stats().hits
        assert cached.loads == 1, f"{name}: {cached.loads} loads"
        assert hits >= options.rounds * 2000 - 1, f"{name}: {hits} hits"
    print(report(rows, as_json=options.json) if options.json else f"twin: {TWIN}\n{report(rows, as_json=False)}")


if __name__ == "__main__":
    main()
