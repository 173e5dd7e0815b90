"""``cachekit clear``: remove everything in regions."""

from typing import Annotated

import typer

from cachekit.cli.config import ConfigOption, JsonOption
from cachekit.cli.output import fail, say_outcomes
from cachekit.cli.stores import check_backend, check_enabled, check_regions, complete_region, opened


def register(app: typer.Typer) -> None:
    """Add ``clear`` to the application."""
    app.command()(clear)


def clear(
    regions: Annotated[
        list[str], typer.Argument(metavar="REGION...", help="To be emptied.", autocompletion=complete_region)
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove everything in regions, of all tenants, and nothing else.

    Values, results of functions and pages are outdated at once, in the store
    and, as far as they are told of changes, in every process; at the latest
    after max_staleness. It costs the same however much there is, and the space
    is given back as lives end.

    Exit status 1: it was not confirmed, a store could not be told, or a region
    has none.

    Examples:
        cachekit clear users
        cachekit clear users pages --yes --json
    """
    with opened(config, as_json=as_json) as service:
        check_regions(regions, service.spec)
        check_enabled(service)
        for name in regions:
            check_backend(name, service)
        if not yes:
            _confirm(regions, as_json=as_json)
        outcomes = {name: service.region(name).clear(all_tenants=True) for name in regions}
    say_outcomes(outcomes, as_json=as_json)


def _confirm(regions: list[str], *, as_json: bool) -> None:
    """End the command unless somebody agrees. Asked on stderr: the standard output may be for a program."""
    try:
        agreed = typer.confirm(f"This will remove everything in {', '.join(regions)}. Go on?", err=True)
    except typer.Abort:
        agreed = False
    if not agreed:
        fail("nothing was removed, for nobody agreed to it; --yes goes on without asking", as_json=as_json)
