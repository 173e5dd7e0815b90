"""Write docs/cli.md from what ``cachekit COMMAND --help`` prints.

.venv/bin/python tools/cli_page.py            write the page
.venv/bin/python tools/cli_page.py --check    only tell whether it is up to date
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from cachekit.cli import build
from cachekit.cli.manual import WIDTH

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
OPENING = """# The command line

Every command of `cachekit`, as `--help` prints it: what it does, its options, exit status and examples.
Written by `make docs` from the program itself; do not edit.

Programs pass `--json` to any command: then the standard output is JSON, of a failure too (`ok` is false and `problems`
says why), and a bar or a question goes to stderr. The exit status is the same everywhere: 0 for well, 1 for a problem,
2 for a command line that cannot be meant.

Bash, zsh and fish complete commands, options, and the names of regions in the configuration of the directory after

```sh
cachekit --install-completion
```

Django projects have the same acts with their own settings in [`manage.py cachekit`](django-admin.md), Flask
applications in [`flask cachekit`](flask.md).
"""


def pages() -> Iterator[tuple[str, str]]:
    """The whole name of each command, groups before what they have, and its page."""
    yield from _pages(typer.main.get_command(build()), "cachekit", None)


def _pages(command: Any, name: str, parent: Any) -> Iterator[tuple[str, str]]:
    context = command.context_class(command, info_name=name, parent=parent, terminal_width=WIDTH - 2)
    yield context.command_path, command.get_help(context).rstrip()
    for each, inner in sorted(getattr(command, "commands", {}).items()):
        yield from _pages(inner, each, context)


def page() -> str:
    """The whole page."""
    return OPENING + "".join(f"\n## {name}\n\n```text\n{text}\n```\n" for name, text in pages())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        sys.exit(f"{PAGE.name} is not what the program says: run make docs")


if __name__ == "__main__":
    main()
