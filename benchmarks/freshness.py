"""What the promises past and before the TTL cost a hit in L1: configured against not configured. Exits 1 over a bound.

    python benchmarks/freshness.py [--json] [--rounds N] [--runs N]

Both sides are the same build, `@cache` with a TTL, and measured in turns; a row is the median over the runs of the
ratio to the side that is not configured in the same run, each side the minimum of at least 120 rounds. Every call is
checked to be a hit, before and after, and every entry to be what the row says. The bounds are those of the native twin.
Rows below the line have none: they are not hits.
"""

import argparse
import asyncio
import itertools
import json
import re
import statistics
import sys
import threading
import time
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from interleave import interleave, loop

from cachekit import cache, configure, disabled
from cachekit.l1.table import TWIN
from cachekit.process import default_service

ROUNDS, RUNS = 120, 5
CALLS, AWAITED = 4_000, 2_000
BOUND = 1.06 if TWIN == "native" else None
PLAIN = {"backend": "none", "ttl": "1h", "early_refresh": "off"}
OLD = {**PLAIN, "ttl": "1ms", "stale_ttl": "1h", "stale_throttle": "5m"}
PROFILES: dict[str, dict[str, Any]] = {
    "nothing": PLAIN,
    "nothing, again": PLAIN,  # how exact the rest is
    "stale_ttl, stale_on_error": {**PLAIN, "stale_ttl": "1h", "stale_on_error": True},
    "swr": {**PLAIN, "stale_ttl": "1h", "swr": True},
    "early_refresh": {**PLAIN, "early_refresh": 1.0},
    "soft and hard timeout": {**PLAIN, "stale_ttl": "1h", "soft_timeout": "1s", "hard_timeout": "2s"},
    "fallback": PLAIN,
    "negative_exceptions": {**PLAIN, "negative_exceptions": {"KeyError": "1m"}},
    "condition, ttl callable": PLAIN,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "fallback": {"fallback": None},
    "condition, ttl callable": {"condition": lambda value: True, "ttl": lambda value: "1h"},
}
OTHERS: dict[str, dict[str, Any]] = {
    "stale answer, source left alone": OLD,
    "stale answer, while a refresh runs": {**OLD, "swr": True},
    "disabled()": PLAIN,
    "using(), a view kept": PLAIN,
    "using(), made for the call": PLAIN,
}
NUMBERS = itertools.count()
door = threading.Event()


def short(name: str) -> str:
    """A profile's name."""
    return re.sub(r"[\W_]+", "-", name).strip("-")


def function(name: str, body: Callable[[int], Any]) -> Any:
    """A cached function of its own, so that no two rows share an entry."""
    copy: Any = type(body)(body.__code__, body.__globals__, body.__name__, None, body.__closure__)
    copy.__qualname__ = f"{body.__name__}_{next(NUMBERS)}"
    return cache(profile=short(name), **OPTIONS.get(name, {}))(copy)


def load(x: int) -> int:
    time.sleep(0.002)  # what is loaded in less than 1 ms is not refreshed early
    return x


async def aload(x: int) -> int:
    await asyncio.sleep(0.002)
    return x


class Hits:
    """The rows with a bound."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.pieces: dict[str, Callable[[], float]] = {}
        self.references: dict[str, str] = {}
        self.functions: dict[str, tuple[Any, int]] = {}
        for name in PROFILES:
            ours = function(name, load)
            for _ in range(3):
                assert ours(7) == 7
            self.add(name, "nothing", ours, loop("f(7)", {"f": ours}, CALLS), CALLS)
        for name in PROFILES:
            ours = function(name, aload)
            for _ in range(3):
                assert self.await_(ours) == 7
            self.add(f"{name}, async", "nothing, async", ours, self.awaiting(ours), AWAITED)

    def add(self, name: str, reference: str, ours: Any, measure: Callable[[], float], calls: int) -> None:
        self.pieces[name], self.references[name], self.functions[name] = measure, reference, (ours, calls)
        self.check(name, ours)

    @staticmethod
    def check(name: str, ours: Any) -> None:
        at = ours.__cachekit__._function.at()
        view = at.tiers.table.entry(at.slot, at.place((7,), {}))
        assert view is not None and view.fresh
        assert view.early is name.startswith("early"), name
        stale = name.startswith(("stale", "swr", "soft"))
        assert (view.keep_until - view.now > 1.5 * 3600e9) is stale, name

    def await_(self, ours: Any) -> Any:
        async def once() -> Any:
            return await ours(7)

        return self.runner.run(once())

    def awaiting(self, ours: Any) -> Callable[[], float]:
        async def run() -> float:
            start = perf_counter_ns()
            for _ in range(AWAITED):
                await ours(7)
            return (perf_counter_ns() - start) / AWAITED

        return lambda: self.runner.run(run())

    def run(self, rounds: int) -> dict[str, tuple[float, float]]:
        """ns and ratio of each row."""
        before = {name: ours.cache_info() for name, (ours, _) in self.functions.items()}
        rows = interleave(self.pieces, self.references, rounds)
        for name, (ours, calls) in self.functions.items():
            info = ours.cache_info()
            assert info.l1_hits - before[name].l1_hits == rounds * calls, f"{name}: {info}"
            assert (info.misses, info.stale) == (before[name].misses, before[name].stale), f"{name}: {info}"
            self.check(name.removesuffix(", async"), ours)
        return {row.name: (row.ns, row.ratio) for row in rows}


class Others:
    """The rows without a bound, against a hit."""

    def __init__(self) -> None:
        self.calls = 400
        hit = function("nothing", load)
        assert hit(7) == hit(7)
        self.stale = {name: self.made_stale(name) for name in OTHERS if name.startswith("stale")}
        self.off, self.seen = function("disabled()", lambda x: x), function("using(), a view kept", load)
        self.seen(7)
        pieces = {
            "hit": loop("f(7)", {"f": hit}, self.calls),
            **{name: loop("f(7)", {"f": ours}, self.calls) for name, ours in self.stale.items()},
            "disabled()": self.without(),
            "using(), a view kept": loop("f(7)", {"f": self.seen.using(allow_stale=True)}, self.calls),
            "using(), made for the call": loop("f.using(allow_stale=True)(7)", {"f": self.seen}, self.calls),
        }
        self.pieces, self.references = pieces, dict.fromkeys(pieces, "hit")

    def made_stale(self, name: str) -> Any:
        """An old value is there; the source fails, or takes as long as we measure."""
        waits = "runs" in name
        runs: list[int] = []

        def body(x: int) -> int:
            runs.append(x)
            if len(runs) > 1 and waits:
                door.wait()
            elif len(runs) > 1:
                raise LookupError
            return x

        ours = function(name, body)
        assert ours(7) == 7
        time.sleep(0.01)
        assert ours(7) == 7
        time.sleep(0.01)  # the refresh, if there is one, has begun
        assert len(runs) == 2
        return ours

    def without(self) -> Callable[[], float]:
        measure = loop("f(7)", {"f": self.off}, self.calls)

        def run() -> float:
            with disabled():
                return measure()

        return run

    def run(self, rounds: int) -> dict[str, tuple[float, float]]:
        """ns and ratio of each row."""
        before = {name: ours.cache_info() for name, ours in self.stale.items()}
        hits = self.seen.cache_info().l1_hits
        rows = interleave(self.pieces, self.references, rounds)
        for name, ours in self.stale.items():
            info = ours.cache_info()
            assert info.stale - before[name].stale == rounds * self.calls, f"{name}: {info}"
            assert info.misses == before[name].misses, f"{name}: {info}"
        assert self.seen.cache_info().l1_hits - hits == 2 * rounds * self.calls
        assert self.off.cache_info()[:2] == (0, 0), "nothing was looked up"
        return {row.name: (row.ns, row.ratio) for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--runs", type=int, default=RUNS)
    options = parser.parse_args()
    configure(namespace="bench", profiles={short(name): fields for name, fields in {**PROFILES, **OTHERS}.items()})
    with asyncio.Runner() as runner:
        hits, others = Hits(runner), Others()
        runs = [hits.run(options.rounds) | others.run(options.rounds) for _ in range(options.runs)]
        door.set()
        assert default_service().workers.settle()
    ns = {name: statistics.median(run[name][0] for run in runs) for name in runs[0]}
    ratios = {name: statistics.median(run[name][1] for run in runs) for name in runs[0]}
    over = [name for name in hits.pieces if BOUND is not None and ratios[name] > BOUND]
    if options.json:
        print(json.dumps({"twin": TWIN, "ratios": ratios, "ns": ns, "bound": BOUND, "over": sorted(over)}))
    else:
        print(f"twin: {TWIN}, Python {sys.version.split()[0]}; median of {options.runs} runs; a hit: at most {BOUND}x")
        for name, ratio in ratios.items():
            if name == "hit":
                print("-" * 60)
            print(f"{name:36} {ns[name]:9.1f} ns {ratio:7.2f}x{'   OVER' if name in over else ''}")
    sys.exit(1 if over else 0)


if __name__ == "__main__":
    main()
