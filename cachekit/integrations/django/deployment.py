"""System checks of a deployment, for ``manage.py check --deploy``: what several processes and a real server will show.

One of them asks the servers; nothing else connects anywhere.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from django.core.checks import Info, Tags, Warning, register

from cachekit.config.spec import NO_BACKEND, RegionSpec
from cachekit.errors import ConfigError
from cachekit.integrations.django.project import aliases, region_name
from cachekit.process import default_service


@register(Tags.caches, deploy=True)  # type: ignore[untyped-decorator]  # Django has no types
def check_servers(app_configs: Any, **kwargs: Any) -> list[Any]:
    """Does every configured server answer, within its budget?"""
    from cachekit.cli.doctor import reach  # for who deploys, not for every start

    service = default_service()
    found = [reach(spec, service.spec.namespace) for spec in service.spec.backends.values()]
    return [
        Warning(
            f"Backend {each.name!r} at {each.url} cannot be used: {each.reason}.",
            hint=each.remedy or "See `manage.py cachekit check`.",
            id="cachekit.W011",
        )
        for each in found
        if not each.reachable
    ]


@register(Tags.caches, deploy=True)  # type: ignore[untyped-decorator]
def check_deployment(app_configs: Any, **kwargs: Any) -> list[Any]:
    """What is right in one process, and surprises in several, or once a key is lost."""
    regions = dict(_regions())
    return [*_copies(regions), *_pickles(default_service().spec.regions.values())]


@register(Tags.caches)  # type: ignore[untyped-decorator]
def check_shared(app_configs: Any, **kwargs: Any) -> list[Any]:
    """Which aliases mean the same entries?"""
    entries: dict[tuple[Any, ...], str] = {}
    found = []
    configs = dict(aliases())
    for alias, region in _regions():
        config = configs[alias]
        told_by = ("KEY_PREFIX", ""), ("VERSION", 1), ("KEY_FUNCTION", None)
        other = entries.setdefault((region.name, *(config.get(key, usual) for key, usual in told_by)), alias)
        if other != alias:
            found.append(
                Warning(
                    f"CACHES[{other!r}] and CACHES[{alias!r}] share the entries of region {region.name!r}: a key of "
                    "one is the same key of the other.",
                    hint="Name another region in LOCATION, or give them different KEY_PREFIX.",
                    id="cachekit.W014",
                )
            )
    return found


def _regions() -> Iterator[tuple[str, RegionSpec]]:
    """The aliases that are ours, and their regions; what does not exist is reported elsewhere."""
    for alias, config in aliases():
        try:
            yield alias, default_service().region_spec(region_name(alias, config.get("LOCATION")))
        except ConfigError:
            continue


def _copies(regions: dict[str, RegionSpec]) -> Iterator[Any]:
    """Of L1, in processes that do not hear of changes."""
    service = default_service()
    for alias, region in regions.items():
        if region.l1.mode != "on":
            continue
        spec = service.spec.backends.get(region.backend)
        if spec is None or region.backend == NO_BACKEND:
            yield Warning(
                f"CACHES[{alias!r}]: region {region.name!r} has no server, so each process has entries of its own: "
                "what one sets or deletes the others do not know of.",
                hint="Set REDIS_URL, or give the region a backend with a url.",
                id="cachekit.W012",
            )
        elif spec.coherence == "ttl":
            yield Info(
                f"CACHES[{alias!r}]: backend {spec.name!r} does not tell of changes (coherence = 'ttl'): a process may "
                f"use what another has changed for up to {spec.max_staleness:g} s.",
                hint="Leave coherence out where the server can tell, or set l1 = {'mode': 'off'}.",
                id="cachekit.I011",
            )


def _pickles(regions: Iterable[RegionSpec]) -> Iterator[Any]:
    for region in regions:
        if region.codec.serializer == "pickle":
            yield Warning(
                f"Region {region.name!r} stores pickles: whoever gets hold of its signing or master key can run code "
                "in every process that reads it.",
                hint="Leave serializer out: models, querysets and responses need no pickle.",
                id="cachekit.W013",
            )
