"""How commands print: lines and tables for people, JSON for programs, a bar for those who wait."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn

import typer

from cachekit.cli.manual import PROBLEM, WELL

if TYPE_CHECKING:
    from cachekit.engine.outcome import Outcome

UNBOUNDED: Final = 100_000  # columns


def printable(text: str) -> str:
    """What a terminal only shows: what lies in a store is somebody else's text, and may hold orders to the terminal."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def say(text: str, style: str = "", *, err: bool = False) -> None:
    """Print lines, broken nowhere else, in one style."""
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False, stderr=err)
    for line in text.splitlines():
        console.print(Text(printable(line), style=style))


def say_json(value: object) -> None:
    """Print what a program reads."""
    typer.echo(json.dumps(value, indent=2))


def fail(message: str, *, as_json: bool = False, err: bool = False) -> NoReturn:
    """End with exit status 1 and say why: in red, or in the JSON that is waited for."""
    if as_json:
        say_json({"ok": False, "problems": message.splitlines()})
    else:
        say(message, "red", err=err)
    raise typer.Exit(PROBLEM)


def show_table(columns: Sequence[str], rows: Iterable[Iterable[str]]) -> None:
    """Print rows in columns. On a terminal long cells go on below; in a file or a pipe a row is one line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in row))
    unknown = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    Console(highlight=False, width=UNBOUNDED if unknown else None).print(table)


def say_outcomes(outcomes: "Mapping[str, Outcome]", *, as_json: bool) -> NoReturn:
    """Print what became of each, and end: with exit status 1 if a store could not be told."""
    ok = all(outcome.name == "DONE" for outcome in outcomes.values())
    rows = [(name, outcome.name.lower()) for name, outcome in outcomes.items()]
    if as_json:
        say_json({"ok": ok, "outcomes": [{"name": name, "outcome": outcome} for name, outcome in rows]})
    else:
        show_table(("name", "outcome"), rows)
        if not ok:
            say("a store could not be told; see `cachekit doctor`", "red")
    raise typer.Exit(WELL if ok else PROBLEM)


@contextmanager
def progress(first: str, *, shown: bool) -> Iterator[Callable[[str], Any]]:
    """A bar on stderr for what has no known end, with a text that says how far it is; only where somebody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task(first, total=None)
        yield lambda text: bar.update(task, description=text)
