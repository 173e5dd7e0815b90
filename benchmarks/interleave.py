"""Ratios between pieces of code, measured in turns, so that a busy machine slows all of them alike.

Each round runs every piece once for a short while; the minimum over the rounds is its cost on a quiet machine. Only
ratios within one run are worth comparing.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter_ns
from typing import Any, NamedTuple

ROUNDS = 60


class Row(NamedTuple):
    """One piece: its cost, and how many times that of its reference."""

    name: str
    ns: float
    ratio: float
    reference: str


@contextmanager
def awake() -> Iterator[None]:
    """Keep the processors from going to sleep, with a niced spinner for each.

    In a virtual machine that idles, waking up takes as long as a whole exchange over loopback (some 35 us), and whoever
    computes longer between sending and reading never sleeps: the slower client would win.
    """
    spin = [sys.executable, "-c", "import os\nos.nice(19)\nwhile os.getppid() != 1: pass"]
    spinners = [subprocess.Popen(spin) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def loop(statement: str, names: Mapping[str, object], calls: int = 4000) -> Callable[[], float]:
    """A measurement: ns of one execution of ``statement``, in a loop in a function with ``names`` as its locals."""
    source = f"""
def make({", ".join(names)}):
    def run(count, clock):
        start = clock()
        for _ in count:
            {statement}
        return clock() - start
    return run
"""
    scratch: dict[str, object] = {}
    exec(source, scratch)
    make = scratch["make"]
    assert callable(make)
    run = make(**names)
    return lambda: run(range(calls), perf_counter_ns) / calls


def awaited(runner: asyncio.Runner, function: Callable[[], Any], calls: int = 200) -> Callable[[], float]:
    """ns of one await inside a running loop."""

    async def run() -> float:
        start = perf_counter_ns()
        for _ in range(calls):
            await function()
        return (perf_counter_ns() - start) / calls

    return lambda: runner.run(run())


def interleave(
    pieces: Mapping[str, Callable[[], float]], references: Mapping[str, str], rounds: int = ROUNDS
) -> list[Row]:
    """Run the pieces in turns; ``references`` names, for each piece, the piece that it is compared with."""
    best = dict.fromkeys(pieces, float("inf"))
    enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, measure in pieces.items():
                best[name] = min(best[name], measure())
    finally:
        if enabled:
            gc.enable()
    return [Row(name, best[name], best[name] / best[references[name]], references[name]) for name in pieces]


def report(rows: Sequence[Row], *, as_json: bool) -> str:
    """The rows as a table for people, or as JSON."""
    if as_json:
        return json.dumps({row.name: {"ns": row.ns, "ratio": row.ratio, "reference": row.reference} for row in rows})
    width = max(len(row.name) for row in rows)
    return "\n".join(f"{row.name:{width}}  {row.ns:9.1f} ns  {row.ratio:6.2f}x {row.reference}" for row in rows)
