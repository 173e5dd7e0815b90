"""``cachekit invalidate``: remove what has a tag, or single entries."""

from typing import TYPE_CHECKING, Annotated

import typer

from cachekit.cli.config import ConfigOption, JsonOption
from cachekit.cli.output import say_outcomes
from cachekit.cli.stores import (
    Refused,
    check_enabled,
    check_regions,
    complete_region,
    face_of,
    opened,
    region_of,
    whole_keys,
)

if TYPE_CHECKING:
    from cachekit.engine.outcome import Outcome
    from cachekit.service import Service


def register(app: typer.Typer) -> None:
    """Add ``invalidate`` to the application."""
    app.command()(invalidate)


def invalidate(
    tags: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Everything with this tag; repeatable.")
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="KEY", help="This entry; repeatable. A whole key unless --region is given."),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option("--region", metavar="REGION", help="Whose keys --key gives.", autocompletion=complete_region),
    ] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="TENANT", help="Whose, with --region.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove every entry with one of these tags, in all regions, or single entries.

    A tag is removed in all its regions at constant cost, of all tenants. A
    --key is the whole text of a key, as `f.key(...)` and `cachekit entries`
    give it, or with --region what `region.get` takes. Processes that hold it
    follow as soon as the server told them; at the latest after max_staleness.

    Exit status 1: a store could not be told, or there is none.

    Examples:
        cachekit invalidate --tag user:7 --tag user:8
        cachekit invalidate --region users --key 7
    """
    if not tags and not keys:
        raise typer.BadParameter("give --tag or --key")
    if (region is not None and not keys) or (tenant is not None and region is None):
        raise typer.BadParameter("--region goes with --key, and --tenant with --region")
    _check_tags(tags or [])
    with opened(config, as_json=as_json) as service:
        regions = {key: region or region_of(key, service.spec) for key in keys or []}
        check_regions(regions.values(), service.spec)
        outcomes = _by_tags(service, tags) if tags else {}
        for key, name in regions.items():
            texts = whole_keys(service, name, key, tenant) if region else [key]
            outcomes[key] = _removed(service, name, texts)
    say_outcomes(outcomes, as_json=as_json)


def _check_tags(tags: list[str]) -> None:
    from cachekit.engine.keys import check_tag

    for tag in tags:
        try:
            check_tag(tag)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--tag") from None


def _by_tags(service: "Service", tags: list[str]) -> "dict[str, Outcome]":
    from cachekit.engine.ports import drive
    from cachekit.regions import clear_tags

    check_enabled(service)
    if not service.remotes_in_use():
        raise Refused("no region has a backend: entries live in the application alone; set REDIS_URL to share them")
    return {tag: drive(clear_tags(service, [tag], service.sync_port)) for tag in tags}


def _removed(service: "Service", region: str, texts: list[str]) -> "Outcome":
    from cachekit.engine.outcome import Outcome

    face, budget = face_of(region, service)
    face.invalidate(texts, budget=budget)
    return Outcome.DONE
