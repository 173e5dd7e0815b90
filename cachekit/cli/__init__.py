"""The ``cachekit`` command: one file per command, each with ``register(app)``.

To add a command, write ``cachekit/cli/<name>.py`` and name it in `COMMANDS`. Such a file imports typer, `output` and
`stores` at its top and the rest inside its functions, so that ``cachekit --help`` stays quick. The docstring of the
command is its page (`manual`), and ``make docs`` writes docs/cli.md from it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

COMMANDS = (
    "bench", "clear", "config", "demo", "doctor", "entries", "inspect", "invalidate", "migrate", "secrets",
    "stats",
)  # fmt: skip
HELP = """Check the configuration of cachekit, look into its caches, and empty them.

`cachekit COMMAND --help` is the page of a command. Every command takes --json,
for programs: then a failure is JSON too, with "ok" and "problems". What is
wrong with the command line is told on stderr.

Examples:
    cachekit doctor
    cachekit config check --strict
    cachekit --install-completion
"""


def build() -> "typer.Typer":
    """The application with all its commands."""
    import typer

    from cachekit.cli import manual

    # Pretty tracebacks show local variables, and those may hold passwords.
    app = typer.Typer(
        name="cachekit",
        cls=manual.PageOfGroup,
        help=HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    @app.callback(invoke_without_command=True)
    def version(
        version: bool = typer.Option(False, "--version", help="Print the version and stop.", is_eager=True),
    ) -> None:
        if version:
            from importlib.metadata import version as installed

            typer.echo(f"cachekit {installed('cachekit')}")
            raise typer.Exit

    for name in COMMANDS:
        import_module(f"cachekit.cli.{name}").register(app)
    manual.apply(app)
    return app


def main() -> None:
    """The entry point of the ``cachekit`` command."""
    build()()
