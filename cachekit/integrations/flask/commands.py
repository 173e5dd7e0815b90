"""``flask cachekit``: commands on the service of the application, which has the application's configuration."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NoReturn
from urllib.parse import urlsplit

import click
from flask import current_app
from flask.cli import AppGroup, with_appcontext

from cachekit.engine.outcome import Outcome
from cachekit.errors import ConfigError, MissingTenant
from cachekit.http.page import url_tag
from cachekit.integrations.flask.installation import EXTENSION, Installation
from cachekit.regions import Region

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

cachekit = AppGroup("cachekit", help="Look into the cache of the application, and clear it.")
config = AppGroup("config", help="Check the configuration.")
cachekit.add_command(config)


def _here() -> Installation:
    return current_app.extensions[EXTENSION]  # type: ignore[no-any-return]  # the commands are there with it


def _usable(here: Installation) -> list[Region]:
    """The regions that this configuration can use: one that needs a key may be there without it."""
    service, found = here.service(), []
    for name in sorted(service.spec.regions):
        try:
            service.tiers(name)
        except ConfigError:
            continue
        found.append(here.region(name))
    return found


@cachekit.command()
@as_json
@with_appcontext
def stats(as_json: bool) -> None:
    """Show the regions and whether their stores answer.

    What running servers do is shown by their metrics page: `cachekit stats --url`. Exit status 1 if a store is down.
    """
    here = _here()
    service = here.service()
    for region in _usable(here):
        with suppress(MissingTenant):
            region.get("flask cachekit stats")  # so that its store is asked
    health = service.health()
    regions = [
        {"region": name, "backend": spec.backend, "ttl": spec.ttl, "stale_ttl": spec.freshness.stale_ttl}
        for name, spec in sorted(service.spec.regions.items())
    ]
    backends = [
        {"backend": name, "state": each.state, "breaker": each.breaker, "coherence": each.coherence}
        for name, each in sorted(health.backends.items())
    ]
    if as_json:
        click.echo(json.dumps({"ok": health.ok, "regions": regions, "backends": backends}, indent=2))
    else:
        _table(("region", "backend", "ttl", "stale_ttl"), regions)
        _table(("backend", "state", "breaker", "coherence"), backends)
    if not health.ok:
        raise SystemExit(1)


@cachekit.command()
@click.argument("regions", nargs=-1)
@as_json
@with_appcontext
def clear(regions: tuple[str, ...], as_json: bool) -> None:
    """Remove everything in REGIONS, or in all, of all tenants: values, results of functions, pages; nothing else."""
    here = _here()
    try:
        outcomes = {
            region.name: region.clear(all_tenants=True)
            for region in ([here.region(name) for name in regions] or _usable(here))
        }
    except ConfigError as error:
        _fail(str(error))
    _tell(outcomes, as_json=as_json)


@cachekit.command()
@click.option("--tag", "tags", multiple=True, help="Everything with this tag; repeatable.")
@click.option("--url", "urls", multiple=True, help="The pages of this whole URL, all queries; repeatable.")
@as_json
@with_appcontext
def invalidate(tags: tuple[str, ...], urls: tuple[str, ...], as_json: bool) -> None:
    """Outdate what has a tag, or the pages of a URL."""
    if not tags and not urls:
        raise click.UsageError("give --tag or --url")
    wanted = {tag: tag for tag in tags} | {url: _tag_of(url) for url in urls}
    try:
        _tell({name: _here().outdate([tag]) for name, tag in wanted.items()}, as_json=as_json)
    except ValueError as error:  # of a tag that is none
        _fail(str(error))


@config.command()
@as_json
@with_appcontext
def check(as_json: bool) -> None:
    """Check the configuration and every decorated function against it. Exit status 1 if anything is wrong."""
    service, problems = _here().service(), []
    try:
        service.start()
    except ConfigError as error:
        problems = str(error).splitlines()
    if as_json:
        click.echo(json.dumps({"ok": not problems, "problems": problems, "files": list(service.spec.files)}, indent=2))
    else:
        for line in (*service.spec.files, *problems, *([] if problems else ["the configuration is right"])):
            click.echo(line)
    raise SystemExit(1 if problems else 0)


def _tag_of(url: str) -> str:
    parts = urlsplit(url)
    if not (parts.scheme and parts.netloc):
        raise click.UsageError(f"{url!r} is not a whole URL; pages are kept for each host")
    return url_tag(parts.scheme, parts.netloc, parts.path or "/", None)


def _tell(outcomes: dict[str, Outcome], *, as_json: bool) -> None:
    """What became of each. Exit status 1 if a store could not be told."""
    rows = [{"name": name, "outcome": outcome.name.lower()} for name, outcome in outcomes.items()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        _table(("name", "outcome"), rows)
    if any(outcome is not Outcome.DONE for outcome in outcomes.values()):
        raise SystemExit(1)


def _table(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    lines = [columns, *[[_text(row[column]) for column in columns] for row in rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    click.echo()


def _text(value: Any) -> str:
    return "never" if value is None else str(value)


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    raise SystemExit(1)
