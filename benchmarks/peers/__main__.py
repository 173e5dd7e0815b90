"""What cachekit costs beside other caches, in every respect that they have in common: make bench-peers.

    python benchmarks/peers [--json] [--quick] [--rounds N] [--only NAME,...] [--plots DIR] [--python PATH]

``--python`` is an interpreter of an environment with `requirements.txt`; without it only what is installed beside
cachekit is compared. Everything within a section is measured in turns, so that its ratios hold on a busy machine.
Exits with 1 if something of ours has no figure or is beyond its bound; with ``--quick``, whose figures are guesses, and
without the native core the bounds are not looked at.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import Bench
from results import Cell, Section
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sections import SECTIONS

from cachekit.bench.measure import BenchError, amount, machine, times
from cachekit.bench.worker import OURS
from cachekit.l1.table import TWIN
from cachekit.testing.servers import start_server


def main() -> None:
    options = arguments()
    begun = time.monotonic()
    console = Console(stderr=True)
    try:
        with bytecode(), start_server("valkey") as server:
            bench = Bench([sys.executable, *options.python], server, options.rounds, quick=options.quick)
            found = list(run(bench, options.only, console))
    except (BenchError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    result = report(bench, found, time.monotonic() - begun)
    if options.plots:
        draw(found, options.plots, caption(result))
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(found, result)
    for line in (*result["failures"], *result["over"]):
        console.print(f"not as it should be: {line}", style="red", highlight=False, soft_wrap=True)
    sys.exit(0 if result["ok"] else 1)


@contextmanager
def bytecode() -> Iterator[None]:
    """Let all interpreters keep bytecode, whatever the user's settings: else they would compile at every start."""
    with tempfile.TemporaryDirectory(prefix="cachekit-bench-") as name:
        os.environ |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": name}
        yield


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="few rounds of everything: whether it runs")
    parser.add_argument(
        "--rounds", type=positive, metavar="N", help="how many times each piece is measured (default: 200)"
    )
    parser.add_argument("--only", type=sections, default=list(SECTIONS), metavar="NAME,...", help=", ".join(SECTIONS))
    parser.add_argument("--plots", type=directory, metavar="DIR", help="draw every section into this directory")
    parser.add_argument("--python", type=program, action="append", default=[], metavar="PATH")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 120)
    return options


def positive(number: str) -> int:
    if not number.isdecimal() or int(number) == 0:
        raise argparse.ArgumentTypeError(f"{number}: a whole number, at least 1")
    return int(number)


def sections(names: str) -> list[str]:
    wanted = names.split(",")
    unknown = [name for name in wanted if name not in SECTIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]}: no such section; there are {', '.join(SECTIONS)}")
    return wanted


def directory(name: str) -> Path:
    if not Path(name).is_dir():
        raise argparse.ArgumentTypeError(f"{name}: no such directory")
    return Path(name)


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise argparse.ArgumentTypeError(f"{name}: no such program")
    return str(Path(found).absolute())  # not resolved: a link is what makes an environment


def run(bench: Bench, names: Sequence[str], console: Console) -> Iterator[Section]:
    """The sections one after the other, with a bar for all and one for each on a terminal, else a line for each."""
    with progress(console, len(names)) as (begin, done):
        for name in names:
            bench.told = begin(name)
            begun = time.monotonic()
            yield from SECTIONS[name](bench)
            done(name, time.monotonic() - begun)


@contextmanager
def progress(console: Console, count: int) -> Iterator[tuple[Callable[[str], Any], Callable[[str, float], None]]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        everything, one = bar.add_task("all sections", total=count), bar.add_task("", total=None)

        def begin(name: str) -> Callable[[int, int], None]:
            bar.reset(one, description=name, total=None)
            return lambda done, all: bar.update(one, completed=done, total=all)

        def done(name: str, seconds: float) -> None:
            bar.advance(everything)
            console.print(f"{name}: {seconds:.0f} s", style="dim", highlight=False)

        yield begin, done


def report(bench: Bench, found: Sequence[Section], seconds: float) -> dict[str, Any]:
    """All there is to know, for JSON."""
    judged = TWIN == "native" and not bench.quick
    failures = [line for section in found for line in section.failures()]
    over = [line for section in found for line in section.over()] if judged else []
    return {
        "ok": not failures and not over,
        "failures": failures,
        "over": over,
        "machine": machine(),
        "load": os.getloadavg()[0],
        "python": bench.places[0]["python"],
        "twin": TWIN,
        "quick": bench.quick,
        "rounds": bench.rounds,
        "seconds": seconds,
        "missing": bench.missing,
        "sections": [asdict(section) for section in found],
    }


def caption(result: dict[str, Any]) -> list[str]:
    return [
        f"{result['machine']}; {result['python']}; cachekit with its {result['twin']} twin.",
        "Measured in turns within one run. * see the table for what is wrong with it.",
    ]


def draw(found: Sequence[Section], where: Path, lines: Sequence[str]) -> None:
    for section in found:
        (where / f"peers-{section.name}.svg").write_text(section.svg(lines), encoding="utf-8")


def told(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return "–" if cell.value is None else f"{amount(cell.value)} {times(cell.ratio):>6}"


def show(found: Sequence[Section], result: dict[str, Any]) -> None:
    """Everything as tables."""
    console = Console(highlight=False)
    for section in found:
        table = Table(title=section.title, title_justify="left", box=None, pad_edge=False, title_style="bold")
        table.add_column("")
        for column in section.columns.values():
            table.add_column(", ".join(filter(None, (column.heading, column.unit))), justify="right")
        for row in section.rows:
            cells = (told(row.cells.get(name)) for name in section.columns)
            table.add_row(row.name, *cells, style="bold" if row.library == OURS else "")
        console.print(table)
        for row in section.rows:
            for name, cell in row.cells.items():
                if cell.problem:
                    console.print(f"{row.name}, {name}: {cell.problem}", style="yellow", soft_wrap=True, markup=False)
        console.print()
    console.print(f"{result['machine']}; {result['python']}; {result['rounds']} rounds in {result['seconds']:.0f} s")
    if result["missing"]:
        console.print(f"not installed: {', '.join(result['missing'])}", style="yellow")


if __name__ == "__main__":
    main()
