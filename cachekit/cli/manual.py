"""What ``--help`` prints: pages like those of ``man``, made of docstrings and parameters.

The docstring of a command is its page: a first line that says what it does, paragraphs, one that begins with
``Exit status 1:`` and says when, and below ``Examples:`` lines of a shell.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

WELL: Final = 0
PROBLEM: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
EXITS: Final = {
    WELL: "all is well",
    PROBLEM: "a problem was found",
    USAGE: "the command line is wrong, or names what the configuration does not have",
    INTERRUPTED: "interrupted by Ctrl-C before there was a result",
}
WIDTH: Final = 96  # columns at most


class Text(NamedTuple):
    """A docstring taken apart."""

    summary: str
    paragraphs: list[str]
    problem: str  # what exit status 1 means
    examples: list[str]


def read(docstring: str) -> Text:
    """The parts of a docstring, with its lines joined."""
    described, _, examples = docstring.partition("\nExamples:\n")
    summary, *paragraphs = [" ".join(part.split()) for part in described.strip().split("\n\n")]
    mark = "Exit status 1: "
    problems = [part.removeprefix(mark) for part in paragraphs if part.startswith(mark)]
    return Text(
        summary.rstrip("."),
        [part for part in paragraphs if not part.startswith(mark)],
        (problems or [EXITS[PROBLEM]])[0].rstrip("."),
        [line.strip() for line in examples.splitlines() if line.strip()],
    )


class Page(TyperCommand):
    """A command with such a page."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        _write(self, ctx, formatter)


class PageOfGroup(TyperGroup):
    """A group of commands with such a page."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        _write(self, ctx, formatter)


def apply(app: typer.Typer) -> None:
    """Have every command of the application print its page."""
    for command in app.registered_commands:
        command.cls = Page
    for group in app.registered_groups:
        group.cls = PageOfGroup
        if group.typer_instance is not None:
            apply(group.typer_instance)


def _write(command: Page | PageOfGroup, ctx: Any, formatter: Any) -> None:
    text, path = read(command.help or ""), ctx.command_path
    params: list[Any] = command.get_params(ctx)
    arguments = [param for param in params if param.param_type_name == "argument"]
    options = [param for param in params if param.param_type_name == "option"]
    exits = EXITS | {PROBLEM: text.problem}
    formatter.width = min(formatter.width + 2, WIDTH)  # the two columns that it leaves free
    _section(formatter, "NAME", [f"{path} - {text.summary[:1].lower()}{text.summary[1:]}"])
    _section(formatter, "SYNOPSIS", [" ".join([path, "[OPTIONS]", *map(_metavar, arguments), *_rest(command)])])
    _section(formatter, "DESCRIPTION", text.paragraphs)
    _definitions(formatter, "ARGUMENTS", [(_metavar(param), param.help or "") for param in arguments])
    _definitions(formatter, "OPTIONS", filter(None, (param.get_help_record(ctx) for param in options)))
    if isinstance(command, PageOfGroup):
        parts = sorted(command.commands.items())
        _definitions(formatter, "COMMANDS", [(name, read(part.help or "").summary) for name, part in parts])
    _definitions(formatter, "EXIT STATUS", [(str(number), meaning) for number, meaning in exits.items()])
    _section(formatter, "EXAMPLES", ["\b\n" + "\n".join(text.examples)] if text.examples else [])


def _metavar(argument: Any) -> str:
    """As it was written, whether it may be left out and repeated included."""
    return str(argument.metavar or (argument.name or "").upper())


def _rest(command: Page | PageOfGroup) -> list[str]:
    return ["COMMAND ..."] if isinstance(command, PageOfGroup) else []


def _section(formatter: Any, title: str, paragraphs: list[str]) -> None:
    if not paragraphs:
        return
    with _indented(formatter, title):
        formatter.write_text("\n\n".join(paragraphs))


def _definitions(formatter: Any, title: str, rows: Iterable[tuple[str, str]]) -> None:
    if not (rows := list(rows)):
        return
    with _indented(formatter, title):
        formatter.write_dl(rows, col_max=28)


@contextmanager
def _indented(formatter: Any, title: str) -> Iterator[None]:
    if formatter.buffer:
        formatter.write("\n")
    formatter.write(f"{title}\n")
    formatter.indent()
    formatter.indent()
    yield
    formatter.dedent()
    formatter.dedent()
