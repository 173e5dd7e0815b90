"""The ``cachekit`` command: one file per command, each with ``register(app)``.

To add a command, write ``cachekit/cli/<name>.py`` and name it in `COMMANDS`. Such a file imports nothing but typer at
its top, and the rest inside its functions, so that ``cachekit --help`` stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

COMMANDS = ("bench", "config", "demo", "doctor", "inspect", "migrate", "secrets", "stats")


def build() -> "typer.Typer":
    """The application with all its commands."""
    import typer

    # Pretty tracebacks show local variables, and those may hold passwords.
    app = typer.Typer(
        name="cachekit",
        help="Check the configuration of cachekit and look into its caches.",
        no_args_is_help=True,
        add_completion=False,
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
    return app


def main() -> None:
    """The entry point of the ``cachekit`` command."""
    build()()
