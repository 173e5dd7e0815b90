"""What is measured beside other caches, and how: one function for each section, in the order of the page."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from bench import Bench, awake, in_turns
from results import Cell, Column, Row, Section
from usages import (
    BREAKERS,
    CODECS,
    GET,
    GUARDED,
    IN_PROCESS,
    ON_SERVER,
    SECURE,
    Usage,
)

from cachekit.bench.measure import BenchError, Result, Worker, environment, measure
from cachekit.bench.worker import EMPTY, OURS, PEERS, REFERENCE

PAGES = Path(__file__).parents[1] / "pages.py"
CALLERS = 5  # in each process of a stampede
CALLS = {"int": "int", "str": "str", "two": "two arguments", "keyword": "keyword", "method": "bound method"}


def l1(bench: Bench) -> Iterator[Section]:
    """Hits in the process, of functions and of coroutine functions."""
    result = measure(bench.pythons, list(PEERS), bench.rounds, bench.told)
    lru = f"a hit of {REFERENCE}"
    yield Section(
        "l1",
        "A hit in the process",
        "As `cachekit bench` measures it: a loop over one call, with a TTL of an hour where the library has one. "
        "The method's object is part of the key.",
        {name: Column(heading, "ns", lru, drawn=name in ("int", "keyword")) for name, heading in CALLS.items()},
        hits_of(result, CALLS),
        {OURS: {"int": 0.7, "str": 0.7, "two": 0.7, "keyword": 0.5}},
    )
    yield Section(
        "async",
        "A hit in the process, of a coroutine function",
        "The same with `await`.",
        {"await": Column("await", "ns", f"awaiting an {EMPTY}")},
        hits_of(result, ["await"]),
        {OURS: {"await": 1.8}},
    )


def hits_of(result: Result, columns: "Sequence[str] | Mapping[str, str]") -> list[Row]:
    """The rows that have one of these columns; of the reference, only that of our interpreter."""
    return [
        Row(
            row.library,
            row.name,
            row.version,
            {name: Cell(cell.ns, cell.ratio, cell.problem) for name, cell in row.cells.items() if name in columns},
            row.library == REFERENCE,
        )
        for row in result.rows
        if set(columns) & row.cells.keys() and (row.library != REFERENCE or row.place == 0)
    ]


def l2(bench: Bench) -> Iterator[Section]:
    """Hits on a server, and what encryption adds to them."""
    with awake():
        rows = in_turns(bench, [*ON_SERVER, *SECURE], GET)
    secured = {usage.name for usage in SECURE}
    driver = "redis-py's GET and msgpack's decoding of the same value"
    yield Section(
        "l2",
        "A hit on the server",
        "A record of ten fields on a Valkey server of this machine, nothing in the process.",
        {"sync": Column("A function", "µs", driver), "async": Column("A coroutine function", "µs", driver)},
        [row for row in rows if row.name not in secured],
        {OURS: {"sync": 1.1, "async": 1.1}},
    )
    plain = {row.name: row.cells for row in rows}
    yield Section(
        "secure",
        "An encrypted hit on the server",
        "The same hit, measured in the same turns: with encryption, or signed where a library has nothing else. The "
        "ratio is to the plain hit of the same library.",
        {
            "sync": Column("A function", "µs", "a plain hit of the same library"),
            "async": Column("A coroutine function", "µs", "a plain hit of the same library"),
        },
        [beside(row, plain[row.name.partition(",")[0]]) for row in rows if row.name in secured],
        {"cachekit, encrypted": {"sync": 1.15, "async": 1.15}},
    )


def beside(row: Row, plain: Mapping[str, Cell]) -> Row:
    """The row with ratios to other cells."""
    return replace(row, cells={face: over(cell, plain[face]) for face, cell in row.cells.items()})


def over(cell: Cell, plain: Cell) -> Cell:
    if cell.value is None or plain.value is None:
        return Cell(None, None, cell.problem or plain.problem)
    return Cell(cell.value, cell.value / plain.value)


def stampede(bench: Bench) -> Iterator[Section]:
    """Many callers of one cold key, in several processes."""
    seconds, processes, keys = (0.3, 2, 1) if bench.quick else (0.3, 4, 3)
    usages = [*ON_SERVER[:1], *GUARDED, *ON_SERVER[1:]]
    yield Section(
        "stampede",
        "Many callers of one cold key",
        f"{processes} processes with {CALLERS} callers each ask at once for a value that takes {seconds} s; threads, "
        "or tasks for a coroutine function. The worst count of runs and the best time of the last caller, of "
        f"{keys} keys.",
        {
            "runs": Column("How often the function ran", "", "one run"),
            "time": Column("Until all had the value", "s", "the time of one run"),
        },
        [stampede_row(bench, usage, face, seconds, processes, keys) for usage, face in each_face(bench, usages)],
        {name: {"runs": 1.0, "time": 2.0} for name in (OURS, f"{OURS}, async")},
    )


def each_face(bench: Bench, usages: Sequence[Usage]) -> Iterator[tuple[Usage, str]]:
    """Every usage with every face that it has, telling of the progress."""
    pairs = [(usage, face) for usage in bench.usable(usages) for face in usage.faces]
    for done, pair in enumerate(pairs):
        yield pair
        bench.told(done + 1, len(pairs))


def named(usage: Usage, face: str) -> str:
    return f"{usage.name}, async" if face == "async" and len(usage.faces) > 1 else usage.name


def stampede_row(bench: Bench, usage: Usage, face: str, seconds: float, processes: int, keys: int) -> Row:
    try:
        cells = stampede_cells(bench, usage, face, seconds, processes, keys)
    except BenchError as error:
        cells = dict.fromkeys(("runs", "time"), Cell(None, None, words(error)))
    return bench.row(usage, named(usage, face), cells)


def stampede_cells(bench: Bench, usage: Usage, face: str, seconds: float, processes: int, keys: int) -> dict[str, Cell]:
    bench.server.command("FLUSHALL")
    task = {
        "task": "stampede", "code": usage.code, "face": face, "names": bench.names, "callers": CALLERS,
        "seconds": seconds,
    }  # fmt: skip
    place = bench.place[usage.library]
    with ExitStack() as stack, ThreadPoolExecutor(processes) as pool:
        workers = [stack.enter_context(bench.worker(place)) for _ in range(processes)]
        list(pool.map(Worker.ask, workers, [task] * processes))
        found = [list(pool.map(Worker.ask, workers, [key] * processes)) for key in range(keys)]
    runs = max(sum(answer["runs"] for answer in answers) for answers in found)
    last = min(max(answer["seconds"] for answer in answers) for answers in found)
    return {"runs": Cell(runs, runs), "time": Cell(last, last / seconds)}


def hung(bench: Bench) -> Iterator[Section]:
    """A server that takes connections and never answers."""
    seconds, calls, limit, patience = (0.05, 3, 1, 3) if bench.quick else (0.05, 20, 30, 60)
    bench.server.command("FLUSHALL")
    pairs = [(usage, face) for usage in bench.usable(ON_SERVER) for face in usage.faces]
    with ExitStack() as stack, ThreadPoolExecutor(len(pairs)) as pool:
        workers = [stack.enter_context(bench.worker(bench.place[usage.library])) for usage, _ in pairs]
        tasks = [
            {
                "task": "outage", "code": usage.code, "face": face, "names": bench.names, "seconds": seconds,
                "calls": calls, "limit": limit, "patience": patience,
            }
            for usage, face in pairs
        ]  # fmt: skip
        prepared = list(pool.map(asked, workers, tasks))
        bench.server.pause()
        try:
            answers = list(pool.map(go, workers, prepared))
        finally:
            bench.server.resume()
    bench.told(1, 1)
    yield Section(
        "hung",
        "A server that hangs",
        f"The server is stopped while connections to it are open. {calls} calls, one after the other, of a function "
        f"that takes {seconds} s and whose values are not kept yet; only so many as begin within {limit} s.",
        {
            "mean": Column("A call, on average", "s", "the function alone"),
            "slowest": Column("The slowest call", "s", "the function alone"),
        },
        [
            bench.row(usage, named(usage, face), outage_cells(answer, seconds))
            for (usage, face), answer in zip(pairs, answers, strict=True)
        ],
        # Five calls of a budget of 0.25 s open the circuit breaker: by construction 2.25 times on average.
        {name: {"mean": 2.5, "slowest": 15.0} for name in (OURS, f"{OURS}, async")},
    )


def go(worker: Worker, prepared: Any) -> Any:
    """The answer of a worker that is ready, or why it is not."""
    return asked(worker, "go") if prepared == "ready" else prepared


def asked(worker: Worker, what: Any) -> Any:
    """The answer, or what went wrong."""
    try:
        return worker.ask(what)
    except BenchError as error:
        return {"problem": words(error)}


def words(error: BenchError) -> str:
    """What a measuring program said at its end."""
    return str(error).partition("run there: ")[2] or str(error)


def outage_cells(answer: Mapping[str, Any], seconds: float) -> dict[str, Cell]:
    return {
        name: Cell(value, None if value is None else value / seconds, answer["problem"])
        for name in ("mean", "slowest")
        for value in [answer.get(name)]
    }


def breaker(bench: Bench) -> Iterator[Section]:
    """What a circuit breaker costs, and what a call costs while nobody listens."""
    with Gone() as gone, awake():
        rows = in_turns(bench, [*BREAKERS, *ON_SERVER], GET, hits=False, URL=gone)
    driver = "a hit of redis-py on a server that is there"
    yield Section(
        "breaker",
        "A server that is gone",
        "Nobody listens at the address. What a call costs beside that of the function, which returns at once, after "
        "some calls in which a circuit breaker may have opened; and what the circuit breaker takes of a call.",
        {"sync": Column("A function", "µs", driver), "async": Column("A coroutine function", "µs", driver)},
        rows,
        {"cachekit, its breaker alone": {"sync": 0.1}, OURS: {"sync": 1.0, "async": 1.0}},
    )


class Gone:
    """The URL of a port that nobody else gets and nobody listens at."""

    def __enter__(self) -> str:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        return f"redis://127.0.0.1:{self._socket.getsockname()[1]}/0"

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def memory(bench: Bench) -> Iterator[Section]:
    """How many bytes of the process an entry takes."""
    entries, turns = (2_000, 1) if bench.quick else (20_000, 3)
    usages = bench.usable(IN_PROCESS)
    found: dict[str, list[Any]] = {usage.name: [] for usage in usages}
    for turn in range(turns):
        for number, usage in enumerate(usages, 1):
            with bench.worker(bench.place[usage.library]) as worker:
                task = {"task": "memory", "code": usage.code, "face": usage.faces[0], "entries": entries}
                found[usage.name].append(asked(worker, task))
            bench.told(turn * len(usages) + number, turns * len(usages))
    base = median(answer["value"] for answer in found[REFERENCE])
    yield Section(
        "memory",
        "Memory per entry",
        f"The resident memory of a fresh process before and after {entries:,} entries, per entry; key and value exist "
        f"before. The median of {turns}.",
        {"bytes": Column("An entry", "bytes", f"an entry of {REFERENCE}")},
        [
            bench.row(
                usage,
                usage.name,
                {"bytes": memory_cell(found[usage.name], base)},
                reference=usage.library == REFERENCE,
            )
            for usage in usages
        ],
        {OURS: {"bytes": 1.0}},
    )


def memory_cell(answers: Sequence[Mapping[str, Any]], base: float) -> Cell:
    problems = [answer["problem"] for answer in answers if answer["problem"]]
    if problems:
        return Cell(None, None, problems[0])
    value = median(answer["value"] for answer in answers)
    return Cell(value, value / base)


IMPORT = """
import time
def function(x):
    return x
ENTRIES = 1000
%s
print(time.process_time())
%s
memo(1)
print(time.process_time())
"""
BARE = "import time\nfor _ in range(2): print(time.process_time())"
AWAITED = """
import asyncio
asyncio.run(memo(1))
print(time.process_time())
"""


def imports(bench: Bench) -> Iterator[Section]:
    """What importing a library takes, and getting a first value from it."""
    turns = 2 if bench.quick else 9
    usages = [usage for usage in bench.usable(IN_PROCESS) if usage.library != REFERENCE]
    programs = {usage.name: (bench.place[usage.library], import_program(usage)) for usage in usages}
    programs |= {f"bare {place}": (place, BARE) for place in range(len(bench.pythons))}
    found: dict[str, list[list[float]]] = {name: [] for name in programs}
    for turn in range(turns):
        for name, (place, program) in programs.items():
            found[name].append(started(bench, place, program))
        bench.told(turn + 1, turns)
    best = {name: [min(column) for column in zip(*runs, strict=True)] for name, runs in found.items()}
    yield Section(
        "import",
        "Importing",
        "The time of the processor that a fresh process has taken after the import, and after a first value from the "
        f"cache; the interpreter itself included. The minimum of {turns}, in turns.",
        {
            "import": Column("After the import", "ms", "an interpreter that does nothing"),
            "value": Column("After a first value", "ms", "an interpreter that does nothing"),
        },
        [
            Row("", "an interpreter that does nothing", "", import_cells(best["bare 0"], best["bare 0"]), True),
            *(
                bench.row(
                    usage,
                    usage.name,
                    import_cells(best[usage.name], best[f"bare {programs[usage.name][0]}"]),
                )
                for usage in usages
            ),
        ],
        {OURS: {"import": 15.0}},
    )


def import_cells(seconds: Sequence[float], bare: Sequence[float]) -> dict[str, Cell]:
    if not seconds:
        return dict.fromkeys(("import", "value"), Cell(None, None, "its program failed"))
    return {
        column: Cell(1000 * cpu, cpu / reference)
        for column, cpu, reference in zip(("import", "value"), seconds, bare, strict=True)
    }


def import_program(usage: Usage) -> str:
    """Its import lines, then the rest of it and a first value."""
    lines = usage.code.strip().splitlines()
    first = next(number for number, line in enumerate(lines) if not line.startswith(("import ", "from ")))
    program = IMPORT % ("\n".join(lines[:first]), "\n".join(lines[first:]))
    if usage.faces == ("async",):
        program = program.replace("def function", "async def function").partition("memo(1)")[0] + AWAITED
    return program


def started(bench: Bench, place: int, program: str) -> list[float]:
    """What a program prints in a fresh process; nothing if it fails.

    Nothing is configured there, and `site` is left out: it takes longer the more packages are installed for editing.
    """
    variables = environment(own=place == 0)
    paths = (variables.get("PYTHONPATH"), bench.places[place]["packages"])
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [bench.pythons[place], "-S", "-c", program], cwd=directory, env=variables, capture_output=True, text=True
        )
    return [float(line) for line in done.stdout.split()] if done.returncode == 0 else []


def codec(bench: Bench) -> Iterator[Section]:
    """Encoding and decoding values of more types than JSON has."""
    rows = in_turns(bench, CODECS[1:], CODECS[:1])
    yield Section(
        "codec",
        "Encoding typed values",
        "A hundred dictionaries with a UUID, a Decimal, a datetime, an int and a text each. Only what gives back the "
        "same types has a figure. Many caches store pickles, which run code when they are read.",
        {"encode": Column("Encoding", "µs", "pickle"), "decode": Column("Decoding", "µs", "pickle")},
        rows,
        {OURS: {"encode": 1.0, "decode": 1.0}},
    )


def pages(bench: Bench) -> Iterator[Section]:
    """Pages from the cache, as benchmarks/pages.py calls them; nothing where it lacks what it compares."""
    if not (PAGES.exists() and bench.places[0]["libraries"].keys() >= PAGE_PEERS):
        return
    done = subprocess.run(
        [sys.executable, str(PAGES), "--json", "--seconds", "0", "--rounds", str(bench.rounds)],
        env=environment(own=True), capture_output=True, text=True,
    )  # fmt: skip
    try:
        called = json.loads(done.stdout)["called"]  # its own bounds may not hold here: the machine has had much to do
    except ValueError:
        said = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise BenchError(f"benchmarks/pages.py: {said}") from None
    bench.told(1, 1)
    yield Section(
        "http",
        "A page from the cache",
        "A route that computes 10 KB of JSON through pydantic, called without a server; its page is in the process. "
        "The floor is what the framework takes to answer with bytes that are there.",
        {name: Column(name, "µs", "the route that computes the page") for name in FRAMEWORKS.values()},
        page_rows(bench, called),
        {OURS: {"FastAPI": 0.25, "Flask": 0.25}, "cachekit, middleware": {"FastAPI": 0.25}},
    )


FRAMEWORKS = {"fastapi": "FastAPI", "flask": "Flask"}
PAGE_ROWS = {
    "without": ("", "no cache"), "floor": ("", "floor"), "cachekit": (OURS, OURS),
    "middleware": (OURS, "cachekit, middleware"), "cache2": ("fastapi-cache2", "fastapi-cache2"),
    "cachex": ("fastapi-cachex", "fastapi-cachex"), "caching": ("flask-caching", "Flask-Caching"),
}  # fmt: skip
PAGE_PEERS = {library for library, _ in PAGE_ROWS.values() if library}


def page_rows(bench: Bench, called: Mapping[str, Any]) -> list[Row]:
    """A row for each cache, of what is named ``framework_cache`` there."""
    cells: dict[str, dict[str, Cell]] = {}
    for name, found in called.items():
        framework, _, kind = name.partition("_")
        cells.setdefault(kind, {})[FRAMEWORKS[framework]] = Cell(found["ns"] / 1000, found["ratio"])
    versions = bench.places[0]["libraries"]
    return [
        Row(library, name, versions.get(library, ""), cells[kind], kind in ("without", "floor"))
        for kind, (library, name) in PAGE_ROWS.items()
        if kind in cells
    ]


SECTIONS: dict[str, Callable[[Bench], Iterator[Section]]] = {
    "l1": l1, "l2": l2, "stampede": stampede, "hung": hung, "breaker": breaker, "memory": memory, "import": imports,
    "codec": codec, "http": pages,
}  # fmt: skip
