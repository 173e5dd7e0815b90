"""What commands that look into stores, or empty them, have in common: the configuration at work, names, keys, pace."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cachekit.cli.output import fail

if TYPE_CHECKING:
    from cachekit.backends.base import BaseBackend
    from cachekit.config.spec import ServiceSpec
    from cachekit.service import Service

RATE = 2_000  # keys a second

RateOption = Annotated[int, typer.Option("--rate", min=1, metavar="N", help="Keys a second at most.")]


class Refused(Exception):
    """What was asked for cannot be done here, and why."""


@contextmanager
def opened(config: list[Path] | None, *, as_json: bool) -> "Iterator[Service]":
    """A service with the configuration. What cannot be done with it ends the command with exit status 1."""
    from cachekit.config.settings import load_tree
    from cachekit.errors import CacheKitError
    from cachekit.service import Service

    service: Service | None = None
    try:
        service = Service(load_tree(config).spec)
        yield service
    except (CacheKitError, Refused) as error:
        fail(str(error), as_json=as_json)
    finally:
        if service is not None:
            service.close(0.0)


def complete_region(ctx: typer.Context, incomplete: str) -> list[str]:
    """For the completion of shells: the regions of the configuration, none where it is wrong."""
    from cachekit.config.settings import load_tree
    from cachekit.errors import ConfigError

    try:
        names = load_tree(ctx.params.get("config") or None).spec.regions
    except ConfigError:
        return []
    return [name for name in sorted(names) if name.startswith(incomplete)]


def check_regions(names: Iterable[str], spec: "ServiceSpec") -> None:
    """End the command with exit status 2 if there is no region of such a name."""
    from cachekit.config.units import nearest

    for name in names:
        if name not in spec.regions:
            near = nearest(name, spec.regions)
            hint = f"; did you mean {near!r}?" if near else f"; there are {', '.join(sorted(spec.regions))}"
            raise typer.BadParameter(f"there is no region {name!r}{hint}", param_hint="REGION")


def check_backend(region: str, service: "Service") -> None:
    """Raise `Refused` for a region without a store; as `check_regions` for what is no region."""
    check_regions([region], service.spec)
    if service.remote(service.region_spec(region).backend) is None:
        raise Refused(f"region {region!r} has no backend: its entries live in the application alone")


def check_enabled(service: "Service") -> None:
    """Raise `Refused` where nothing would be removed, and it would look as if it were."""
    if not service.spec.enabled:
        raise Refused("caching is switched off, so nothing would be removed; run it with CACHEKIT_ENABLED=true")


def face_of(region: str, service: "Service") -> "tuple[BaseBackend, float]":
    """The store of a region, and the budget of one step on it; a command is in no hurry. Raises `Refused`."""
    check_backend(region, service)
    remote = service.remote(service.region_spec(region).backend)
    assert remote is not None
    if remote.faces.sync is None:
        raise Refused(f"backend {remote.spec.name!r} has coroutines only, which this command cannot use")
    return remote.faces.sync, max(1.0, remote.spec.budget)


def region_of(key: str, spec: "ServiceSpec") -> str:
    """The region of a whole key. Ends the command with exit status 2 for what is none."""
    from cachekit.codec.opening import place_of

    place = place_of(key)
    if place is None or place.namespace != spec.namespace:
        raise typer.BadParameter(f"{key!r} is not a whole key: it begins with {spec.namespace}:v:{{REGION:")
    return place.region


def whole_keys(service: "Service", region: str, key: str, tenant: str | None) -> list[str]:
    """The whole keys that may be meant by a region's key: a text, or a whole number."""
    from cachekit.regions import text_of

    tiers = service.tiers(region)
    digits = key.removeprefix("-")
    plain: list[Any] = [key, int(key)] if digits.isdecimal() and digits.isascii() else [key]
    return [text_of(tiers, each, tenant) for each in plain]


def pace(rate: int) -> Callable[[int], None]:
    """To be told how many keys were looked at so far; waits where that is more than ``rate`` a second."""
    began = time.monotonic()

    def wait(done: int) -> None:
        ahead = done / rate - (time.monotonic() - began)
        if ahead > 0:
            time.sleep(ahead)

    return wait
