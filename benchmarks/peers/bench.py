"""Runs usages in the interpreters that have their libraries, in turns."""

import json
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from results import Cell, Row
from usages import MODULES, OWN, Usage

from cachekit.bench.measure import BenchError, Worker, working_directory
from cachekit.testing.servers import Server

WORKER = Path(__file__).with_name("worker.py")
SECRET = secrets.token_hex(32)  # of encrypted entries

Told = Callable[[int, int], None]


class Bench:
    """The interpreters, the server, and how long everything may take. The first interpreter is the one that runs us."""

    def __init__(self, pythons: Sequence[str], server: Server, rounds: int, *, quick: bool) -> None:
        self.pythons, self.server, self.rounds, self.quick = pythons, server, rounds, quick
        self.told: Told = lambda done, all: None
        self.places = [self._here(number) for number in range(len(pythons))]
        self.place = {library: place for library in MODULES if (place := self._place(library)) is not None}

    def _here(self, number: int) -> dict[str, Any]:
        with self.worker(number) as worker:
            here: dict[str, Any] = worker.here
            return here

    def _place(self, library: str) -> int | None:
        """Where a library is measured: in the first of the other interpreters that has it, or in ours."""
        having = [number for number, place in enumerate(self.places) if library in place["libraries"]]
        others = [number for number in having if number and library not in OWN]
        return next(iter(others or having), None)

    @contextmanager
    def worker(self, place: int) -> Iterator[Worker]:
        """A measuring process that waits for its task."""
        program = [str(WORKER), json.dumps(MODULES)]
        with (
            working_directory() as directory,
            Worker(self.pythons[place], directory, own=place == 0, program=program) as worker,
        ):
            yield worker

    def version(self, library: str) -> str:
        return str(self.places[self.place[library]]["libraries"][library])

    @property
    def missing(self) -> list[str]:
        return [library for library in MODULES if library not in self.place]

    def usable(self, usages: Sequence[Usage]) -> list[Usage]:
        return [usage for usage in usages if usage.library in self.place]

    def row(self, usage: Usage, name: str, cells: Mapping[str, Cell], *, reference: bool = False) -> Row:
        return Row(usage.library, name, self.version(usage.library), cells, reference)

    @property
    def names(self) -> dict[str, Any]:
        return {"URL": self.server.url, "SECRET": SECRET}


@contextmanager
def awake() -> Iterator[None]:
    """Exchanges with a server are measured while no processor sleeps, as in the benchmarks beside this directory."""
    sys.path.append(str(WORKER.parents[1]))
    from interleave import awake

    with awake():
        yield


def in_turns(
    bench: Bench, usages: Sequence[Usage], references: Sequence[Usage], *, hits: bool = True, **names: Any
) -> list[Row]:
    """Call the usages in turns, with the references in every interpreter; values are us."""
    by_place: list[list[tuple[Usage, str]]] = [[] for _ in bench.pythons]
    for usage in bench.usable(usages):
        by_place[bench.place[usage.library]] += [(usage, face) for face in usage.faces]
    for pieces in by_place:
        if pieces:
            pieces[:0] = [(usage, face) for usage in references for face in usage.faces]
    with ExitStack() as stack:
        workers = [
            (stack.enter_context(bench.worker(place)), pieces) for place, pieces in enumerate(by_place) if pieces
        ]
        for worker, pieces in workers:
            worker.ask({"task": "rounds", "pieces": [order(bench, piece, references, hits, names) for piece in pieces]})
        for done in range(bench.rounds):
            for worker, _ in workers:
                worker.ask("round")
            bench.told(done + 1, bench.rounds)
        found = [(pieces, worker.ask(None)) for worker, pieces in workers]
    return rows_of(bench, found, references)


def order(
    bench: Bench, piece: tuple[Usage, str], references: Sequence[Usage], hits: bool, names: Mapping[str, Any]
) -> dict[str, Any]:
    """What a worker is told of a piece. References are always hits, of the server that is there."""
    usage, face = piece
    if usage in references:
        return {"code": usage.code, "column": face, "hits": True, "names": bench.names}
    return {"code": usage.code, "column": face, "hits": hits, "names": {**bench.names, **names}}


def rows_of(
    bench: Bench, found: Sequence[tuple[Sequence[tuple[Usage, str]], Any]], references: Sequence[Usage]
) -> list[Row]:
    """A row for each name, with ratios to the reference of the same interpreter; the references only once."""
    cells: dict[str, dict[str, Cell]] = {}
    usages: dict[str, Usage] = {}
    for number, (pieces, answers) in enumerate(found):
        measured = list(zip(pieces, answers, strict=True))
        base = {face: answer for (usage, face), answer in measured if usage in references}
        for (usage, face), answer in measured:
            if base[face]["value"] is None:
                raise BenchError(f"{references[0].name}, which others are compared with: {base[face]['problem']}")
            if number == 0 or usage not in references:
                cells.setdefault(usage.name, {})[face] = in_us(answer, base[face]["value"])
                usages[usage.name] = usage
    return [bench.row(usage, name, cells[name], reference=usage in references) for name, usage in usages.items()]


def in_us(answer: Mapping[str, Any], reference: float) -> Cell:
    """The cell of an answer in ns."""
    ns = answer["value"]
    return Cell(None, None, answer["problem"]) if ns is None else Cell(ns / 1000, ns / reference)
