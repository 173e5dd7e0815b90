"""``cachekit entries``: what lies in the stores, one row for each entry, without its value."""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cachekit.cli.config import ConfigOption, JsonOption
from cachekit.cli.output import progress, say, say_json, show_table
from cachekit.cli.stores import (
    RATE,
    RateOption,
    Refused,
    check_backend,
    check_regions,
    complete_region,
    opened,
    pace,
)

if TYPE_CHECKING:
    from cachekit.l2.listing import Listed
    from cachekit.service import Service

LIMIT = 100  # rows, unless told otherwise
COLUMNS = ("key", "bytes", "left", "protection", "state")


def register(app: typer.Typer) -> None:
    """Add ``entries`` to the application."""
    app.command()(entries)


def entries(
    region: Annotated[
        str | None,
        typer.Argument(metavar="[REGION]", help="This region alone; otherwise all.", autocompletion=complete_region),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, metavar="N", help="Rows at most; 0: all.")] = LIMIT,
    rate: RateOption = RATE,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the entries that lie in the stores.

    A row has the whole key, which `cachekit inspect` takes, the bytes in the
    store, what is left of the entry's life there, how it is protected, and
    whether it is fresh, stale, outdated (something that it was stored under
    was cleared), a number, or foreign. Values are not shown, and names of
    encrypted entries are digests.

    Nothing is written. The server is asked by SCAN, at most --rate keys a
    second, those of others included. A value of more than 512 bytes is read
    to know its size.

    Exit status 1: there is no store, or it cannot be read.

    Examples:
        cachekit entries users
        cachekit entries --limit 0 --rate 500 --json
    """
    with opened(config, as_json=as_json) as service:
        with progress("looking", shown=not as_json) as tell:
            found = list(islice(_listed(service, region, pace(rate), tell), limit + 1 if limit else None))
        rows, more = (found[:limit], len(found) > limit) if limit else (found, False)
    if as_json:
        say_json({"ok": True, "entries": [each._asdict() for each in rows], "more": more})
    else:
        _show(rows, more=more)


def _listed(
    service: "Service", region: str | None, wait: Callable[[int], None], tell: Callable[[str], Any]
) -> "Iterator[Listed]":
    from cachekit.l2.listing import PAGE, list_stores

    if region is not None:
        check_regions([region], service.spec)
        check_backend(region, service)
        names = {service.region_spec(region).backend}
    elif not (names := set(service.spec.backends)):
        raise Refused("no backend is configured: entries live in the application alone; set REDIS_URL to share them")
    remotes = [remote for name in sorted(names) if (remote := service.remote(name)) is not None]
    asked = found = 0

    def turn() -> None:
        nonlocal asked
        tell(f"{asked} keys looked at, {found} found")
        wait(asked)
        asked += PAGE

    for entry in list_stores(remotes, service.spec.namespace, region, time.time(), turn):
        found += 1
        yield entry


def _show(rows: "list[Listed]", *, more: bool) -> None:
    if not rows:
        say("no entries")
        return
    show_table(COLUMNS, [(row.key, _size(row.bytes), _left(row.kept_until), row.protection, row.state) for row in rows])
    if more:
        say(f"and more: this is the limit of {len(rows)} rows; --limit 0 lists all", "yellow")


def _size(size: int | None) -> str:
    return "gone" if size is None else str(size)


def _left(seconds: float | None) -> str:
    from cachekit.config.units import format_duration

    if seconds is None:
        return "never ends"
    return format_duration(float(round(seconds))) if seconds > 0 else "over"
