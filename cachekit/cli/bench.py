"""``cachekit bench``: what a hit in the process costs, beside `functools.lru_cache` and other caches."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cachekit.cli.config import JsonOption
from cachekit.cli.output import fail, say_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from cachekit.bench.measure import Cell, Result

HEADINGS = {"int": "int", "str": "str", "two": "two\narguments", "keyword": "keyword", "method": "bound\nmethod"}
LEAST = 60  # rounds; with fewer a minimum is still a guess


def register(app: typer.Typer) -> None:
    """Add ``bench`` to the application."""
    app.command()(bench)


def bench(
    as_json: JsonOption = False,
    rounds: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="N", help="How many times each piece is measured.")
    ] = 120,
    peers: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Only these.", show_default="all that are installed")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw the result, too.")] = None,
    python: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Measure the peers that this interpreter has there; repeatable."),
    ] = None,
) -> None:
    """Compare a hit in the process with that of functools.lru_cache and of other caches.

    All are measured in turns, in one run, so that the ratios hold on a busy
    machine. Whatever was no hit is told and not counted.

    Exit status 1: a hit of ours was none, or it could not be measured.

    Examples:
        cachekit bench
        cachekit bench --peers cachetools,cashews --plot hits.svg
    """
    from cachekit.bench.measure import BenchError, measure

    wanted, pythons, file = _peers(peers), [sys.executable, *map(_python, python or [])], _plot(plot)
    try:
        with _bar() as told:
            result = measure(pythons, wanted, rounds, told)
        if file is not None:
            from cachekit.bench.draw import svg

            file.write_text(svg(result), encoding="utf-8")
    except (BenchError, OSError) as error:
        fail(str(error), as_json=as_json, err=True)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if as_json:
        say_json(result.as_dict())
    else:
        _show(result)
    raise typer.Exit(0 if result.ok else 1)


# What is asked for.


def _peers(names: str | None) -> list[str]:
    from cachekit.bench.worker import PEERS
    from cachekit.config.units import nearest

    if names is None:
        return list(PEERS)
    wanted = list(dict.fromkeys(name.strip().lower() for name in names.split(",") if name.strip()))
    for name in wanted:
        if name not in PEERS:
            near = nearest(name, PEERS)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(PEERS)}"
            raise typer.BadParameter(f"{name}: no such peer; {hint}", param_hint="--peers")
    return wanted


def _python(path: str) -> str:
    from shutil import which

    found = which(path)
    if found is None:
        raise typer.BadParameter(f"{path}: no such program", param_hint="--python")
    return str(Path(found).absolute())  # not resolved: a link is what makes an environment


def _plot(file: Path | None) -> Path | None:
    if file is not None and file.suffix != ".svg":
        raise typer.BadParameter(f"{file}: what is drawn is an SVG; name it .svg", param_hint="--plot")
    if file is not None and not file.absolute().parent.is_dir():
        raise typer.BadParameter(f"{file}: no such directory", param_hint="--plot")
    return file


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar, on stderr; nothing where nobody watches."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, all: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("getting ready", total=None)

        def told(done: int, all: int) -> None:
            bar.update(task, description="measuring" if done else "getting ready", completed=done, total=all)

        yield told


# Showing it.


def _show(result: "Result") -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(_table(result, HEADINGS))
    console.print()
    console.print(_table(result, {"await": "await"}))
    console.print()
    for line in _lines(result):
        _say(console, line, "")
    for line in _warnings(result):
        _say(console, line, "yellow")


def _table(result: "Result", headings: dict[str, str]) -> "Table":
    """The rows that have one of these columns, with a line between interpreters."""
    from rich.table import Table

    from cachekit.bench.worker import EMPTY, OURS, REFERENCE

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    title = "ns and ratio of a hit" if "int" in headings else "of a coroutine function"
    table.add_column(title, overflow="fold", min_width=len(REFERENCE) + 4)
    for heading in headings.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for row in result.rows:
        if headings.keys() & row.cells.keys():
            style = "bold" if row.library == OURS else "italic" if row.name in (REFERENCE, EMPTY) else ""
            cells = [_cell(row.cells[column]) if column in row.cells else "" for column in headings]
            table.add_row(_name(row.name, row.place), *cells, style=style)
    return table


def _name(name: str, place: int) -> "Text":
    from rich.text import Text

    return Text.assemble(name, (f" [{place + 1}]" if place else "", "dim"))


def _cell(cell: "Cell") -> "Text":
    from rich.text import Text

    ratio = cell.ratio or 0
    style = "green" if ratio < 5 else "yellow" if ratio < 50 else "red"
    cost = cell.cost if not cell.ns or cell.ns < 9_999.5 else f"{cell.ns / 1000:.0f}k"
    return Text.assemble((f"{cost} ", "dim"), (f"{cell.times:>5}", style))


def _lines(result: "Result") -> Iterator[str]:
    """Where and how, and what is not in the tables."""
    first, *others = result.places
    yield f"{result.machine}; {first.python}; cachekit with its {first.twin} twin"
    yield (
        f"ns per call, and how many times the reference of the same interpreter; minimum of {result.rounds} "
        "interleaved rounds, hits alone"
    )
    for number, place in enumerate(others, 2):
        yield f"[{number}] {place.python}, {place.path}"
    versions = dict.fromkeys(f"{row.library} {row.version}" for row in result.rows if row.version)
    yield f"versions: {', '.join(versions)}"


def _warnings(result: "Result") -> Iterator[str]:
    for row in result.rows:
        yield from (f"– {row.name}, {column}: {cell.problem}" for column, cell in row.cells.items() if cell.problem)
    if result.rounds < LEAST:
        yield f"{result.rounds} rounds are few; below {LEAST} the figures are guesses"
    if result.missing:
        yield f"not installed: {', '.join(result.missing)} (--python takes an interpreter that has them)"


def _say(console: "Console", line: str, style: str) -> None:
    from rich.text import Text

    console.print(Text(line, style=style), soft_wrap=True)
