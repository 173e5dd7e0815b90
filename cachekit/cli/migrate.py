"""``cachekit migrate``: rewrite a program that uses another cache."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cachekit.cli.config import JsonOption
from cachekit.cli.manual import PROBLEM
from cachekit.cli.output import fail, say_json

if TYPE_CHECKING:
    from cachekit.migrate.files import Result

STYLES = {"+": "green", "-": "red", "@": "cyan"}
MISSING = "cachekit migrate needs LibCST: pip install 'cachekit[migrate]'"


def register(app: typer.Typer) -> None:
    """Add ``migrate`` to the application."""
    app.command()(migrate)


def migrate(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", exists=True, help="A file, or a directory with all its Python files.")
    ],
    peers: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="NAME", help="Only what uses this cache; repeatable.", show_default="all"),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Change the files; without it they are only shown.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit status 1 if anything would change.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Rewrite code that uses another cache, and show the difference.

    Known are lru_cache, cachetools, aiocache, dogpile, django-redis,
    flask-caching and fastapi-cache. What would not stay the same program is
    left as it is, with a comment "# cachekit: ..." for a human.

    Exit status 1: a file cannot be read or written, LibCST is missing, or with
    --check something would change.

    Examples:
        cachekit migrate src
        cachekit migrate src --from lru_cache --write
        cachekit migrate src --check --json
    """
    names = _known(peers)
    try:
        import libcst  # noqa: F401  # the rules need it, and only they
    except ImportError:
        fail(MISSING, as_json=as_json, err=True)
    results = _results(path, names, quiet=as_json)
    problems = [f"{each.path}: {each.problem}" for each in results if each.problem]
    changed = [each for each in results if each.changed]
    if write:
        problems += _written(changed)
    if as_json:
        say_json(_report(results, changed, problems, write))
    else:
        _show(changed, problems, write)
    raise typer.Exit(PROBLEM if problems or (check and changed) else 0)


def _known(peers: list[str] | None) -> tuple[str, ...]:
    from cachekit.config.units import nearest
    from cachekit.migrate import PEERS

    for name in peers or ():
        if name not in PEERS:
            meant = nearest(name, PEERS)
            hint = f"did you mean '{meant}'?" if meant else f"known are {', '.join(PEERS)}"
            raise typer.BadParameter(f"{name!r}; {hint}", param_hint="--from")
    return tuple(peers or PEERS)


def _results(path: Path, names: tuple[str, ...], *, quiet: bool) -> "list[Result]":
    """Of every file, with a bar on the terminal while it takes its time."""
    from rich.console import Console
    from rich.progress import track

    from cachekit.migrate.files import migrated, python_files

    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    files = track(python_files(path), "Reading", console=console, transient=True, disable=hidden)
    return [migrated(each, names) for each in files]


def _written(changed: "list[Result]") -> list[str]:
    from cachekit.migrate.files import write

    return [f"{each.path}: {problem}" for each in changed if (problem := write(each))]


def _report(results: "list[Result]", changed: "list[Result]", problems: list[str], written: bool) -> dict[str, Any]:
    """What JSON says: the files that change, and those with something for a human."""
    shown = [each for each in results if each.changed or each.notes()]
    files = [
        {
            "path": str(each.path),
            "changed": each.changed,
            "diff": each.diff(),
            "notes": [{"line": line, "text": text} for line, text in each.notes()],
        }
        for each in shown
    ]
    return {
        "ok": not problems, "files": files, "changed": len(changed), "read": len(results), "written": written,
        "problems": problems,
    }  # fmt: skip


def _show(changed: "list[Result]", problems: list[str], written: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    for each in changed:
        for line in each.diff():
            bold = line.startswith(("+++", "---"))
            console.print(Text(line, style="bold" if bold else STYLES.get(line[:1], "")))
    for problem in problems:
        console.print(Text(problem, style="red"))
    notes = sum(len(each.notes()) for each in changed)
    console.print(Text(_summary(len(changed), notes, written), style="bold"))


def _summary(changed: int, notes: int, written: bool) -> str:
    if not changed:
        return "nothing to change"
    files = f"{changed} file{'s' if changed != 1 else ''} {'changed' if written else 'would change'}"
    decisions = f"; look for '# cachekit:' at {notes} place{'s' if notes != 1 else ''}" if notes else ""
    return files + decisions + ("" if written else "; --write changes them")
