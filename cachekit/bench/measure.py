"""Runs the workers of all interpreters in turns, and makes one table of what they found."""

import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cachekit.bench.worker import EMPTY, OURS, REFERENCE

WORKER = Path(__file__).with_name("worker.py")
KEPT = ("CACHEKIT_PURE", "CACHEKIT_NATIVE")  # they choose the twin; other settings are none of ours


class BenchError(Exception):
    """Why there is no result."""


def amount(value: float) -> str:
    """A number for people, with three digits or all before the point."""
    return f"{value:.3g}" if value < 99.95 else f"{value:.0f}" if value < 9_999.5 else f"{value:,.0f}"


def times(ratio: float | None) -> str:
    """A ratio for people, with two digits; nothing where there is none."""
    return "" if ratio is None else f"{ratio:.{2 if ratio < 0.995 else 1 if ratio < 9.95 else 0}f}x"


@dataclass(frozen=True)
class Cell:
    """ns of one hit, and how many times that of the reference of the same run. ``problem``: why there is neither."""

    ns: float | None
    ratio: float | None
    problem: str = ""

    @property
    def cost(self) -> str:
        """The ns for people."""
        return "–" if self.ns is None else f"{self.ns:.0f}" if self.ns < 9_999.5 else f"{self.ns:,.0f}"

    @property
    def times(self) -> str:
        """The ratio for people."""
        return times(self.ratio)


@dataclass(frozen=True)
class Row:
    """One way to use a library. ``place`` is the index of the interpreter that it was measured in."""

    library: str
    name: str
    version: str
    place: int
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Place:
    """An interpreter. ``twin`` is which core our package has there, None where it is not."""

    path: str
    python: str
    twin: str | None


@dataclass(frozen=True)
class Result:
    """What one run showed."""

    machine: str
    rounds: int
    places: Sequence[Place]
    rows: Sequence[Row]
    missing: Sequence[str]

    @property
    def ok(self) -> bool:
        """Whether every call of ours was a hit."""
        return not any(cell.problem for row in self.rows if row.library == OURS for cell in row.cells.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"ok": self.ok} | asdict(self)


class Worker:
    """The measuring process in one interpreter. ``own``: the one that runs us, with this very package."""

    def __init__(self, python: str, directory: Path, *, own: bool, program: Sequence[str] = (str(WORKER),)) -> None:
        self.python, self._errors = python, directory / "errors"
        try:
            with self._errors.open("w") as errors:
                self._process = subprocess.Popen(
                    [python, *program], cwd=directory, env=environment(own=own), text=True, bufsize=1,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                )  # fmt: skip
        except OSError as error:
            raise BenchError(f"{python}: cannot be run: {error.strerror}") from None
        self.here = self._answer()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        try:
            self._process.__exit__(None, None, None)
        except BrokenPipeError:
            pass  # it was told something that it did not read; all the rest is closed

    def ask(self, what: Any) -> Any:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
        except BrokenPipeError:
            pass  # what it said at its end is read below
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            return json.loads(line)
        except ValueError:
            self.__exit__()
            said = (self._errors.read_text(errors="replace").strip() or line.strip() or "it said nothing").splitlines()
            raise BenchError(
                f"{self.python}: the measuring program, for Python 3.10 or newer, does not run there: {said[-1]}"
            ) from None


def environment(*, own: bool) -> dict[str, str]:
    """That of a measuring process: without the user's configuration, and with this very package in our interpreter."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT or not _configures(name)}
    path = kept.pop("PYTHONPATH", "")
    if own:
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(WORKER.parents[2]), path)))
    return kept


def _configures(name: str) -> bool:
    return name.startswith("CACHEKIT_") or name in ("REDIS_URL", "PYTHONHOME")


@contextmanager
def working_directory() -> Iterator[Path]:
    """For a measuring process. Its configuration is found before the user's."""
    with tempfile.TemporaryDirectory(prefix="cachekit-bench-") as name:
        directory = Path(name)
        (directory / "cachekit.toml").write_text('namespace = "bench"\n')
        yield directory


def measure(
    pythons: Sequence[str], peers: Sequence[str], rounds: int, told: Callable[[int, int], None] = lambda done, all: None
) -> Result:
    """Run so many rounds of the reference, our package and these peers.

    The first interpreter is the one that runs us. Each peer is measured once, in the first of the others that has it,
    or else in ours. ``told(done, all)`` is called as the rounds go by. Raises `BenchError`.
    """
    with ExitStack() as stack:
        directories = [stack.enter_context(working_directory()) for _ in pythons]
        workers = [
            stack.enter_context(Worker(python, directory, own=number == 0))
            for number, (python, directory) in enumerate(zip(pythons, directories, strict=True))
        ]
        told(0, rounds)
        for worker, names in zip(workers, _shares(workers, peers), strict=True):
            worker.ask(names)
        for done in range(rounds):
            for worker in workers:
                worker.ask("round")
            told(done + 1, rounds)
        found = [worker.ask(None) for worker in workers]
        places = [Place(worker.python, worker.here["python"], worker.here["twin"]) for worker in workers]
        libraries = [worker.here["libraries"] for worker in workers]
    rows = [row for place, raw in enumerate(found) for row in _rows(raw, place, libraries[place])]
    missing = [name for name in peers if not any(name in each for each in libraries)]
    return Result(machine(), rounds, places, rows, missing)


def _shares(workers: Sequence[Worker], peers: Sequence[str]) -> list[list[str]]:
    """What each interpreter measures."""
    shares = [[REFERENCE] for _ in workers]
    shares[0].append(OURS)
    for name in peers:
        having = [number for number, worker in enumerate(workers) if name in worker.here["libraries"]]
        if having:
            others = having[having[0] == 0 :]
            shares[(others or having)[0]].append(name)
    return shares


def _rows(found: Any, place: int, versions: Mapping[str, str]) -> list[Row]:
    """One interpreter's rows, with ratios to its own references."""
    cells = {row["name"]: row["cells"] for row in found}
    reference = cells[REFERENCE] | cells[EMPTY]

    def cell(column: str, ns: float | None, problem: str) -> Cell:
        return Cell(ns, None if ns is None else ns / reference[column]["ns"], problem)

    return [
        Row(
            raw["library"], raw["name"], versions[raw["library"]], place,
            {column: cell(column, **each) for column, each in raw["cells"].items()},
        )
        for raw in found
    ]  # fmt: skip


def machine() -> str:
    """The processor, how many of them, and the system."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} processors, {platform.system()}"
