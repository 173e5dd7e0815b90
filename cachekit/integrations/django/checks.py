"""System checks: what is wrong with ``CACHES``, and what works but may surprise."""

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import Error, Info, Tags, Warning, register

from cachekit.config.spec import NO_BACKEND, RegionSpec
from cachekit.errors import ConfigError
from cachekit.integrations.django.options import of_settings
from cachekit.integrations.django.project import OF_DJANGO, aliases, meaning_of, region_name
from cachekit.process import default_service

SESSION_ENGINES = ("django.contrib.sessions.backends.cache", "django.contrib.sessions.backends.cached_db")


@register(Tags.caches)  # type: ignore[untyped-decorator]
def check_caches(app_configs: Any, **kwargs: Any) -> list[Any]:
    """Every alias of ours: does its region exist, does each option do something?"""
    found: list[Any] = []
    regions = {}
    for alias, config in aliases():
        try:
            regions[alias] = default_service().region_spec(region_name(alias, config.get("LOCATION")))
        except ConfigError as error:
            found.append(Error(f"CACHES[{alias!r}]: {error}", id="cachekit.E001"))
        for option in sorted(OF_DJANGO & (config.get("OPTIONS") or {}).keys()):
            found.append(
                Warning(
                    f"CACHES[{alias!r}]['OPTIONS'][{option!r}] does nothing.",
                    hint="The server evicts by its own policy; what a process keeps is bounded by l1.max_entries.",
                    id="cachekit.W002",
                )
            )
        found += _idle(alias, config)
    found += _global_settings()
    found += _namespace(regions)
    found += _sessions(regions)
    return found


def _idle(alias: str, config: Any) -> Iterator[Any]:
    try:
        idle = meaning_of(config).idle
    except ConfigError:  # the start told of it
        return
    for option, why in idle.items():
        yield Warning(f"CACHES[{alias!r}]['OPTIONS'][{option!r}] does nothing.", hint=why, id="cachekit.W004")


def _global_settings() -> Iterator[Any]:
    if any(True for _ in aliases()):
        for name, problem, remedy in of_settings(settings):
            yield Warning(f"{name} {problem}", hint=remedy, id="cachekit.W005")


def _namespace(regions: dict[str, RegionSpec]) -> Iterator[Any]:
    spec = default_service().spec
    if not spec.namespace_given and any(region.backend != NO_BACKEND for region in regions.values()):
        yield Warning(
            f"No namespace is set: every project that shares the server uses {spec.namespace!r} and may read the "
            "others' entries.",
            hint="Set CACHEKIT = {'namespace': ...}, namespace in cachekit.toml, or CACHEKIT_NAMESPACE.",
            id="cachekit.W001",
        )


def _sessions(regions: dict[str, RegionSpec]) -> Iterator[Any]:
    alias = settings.SESSION_CACHE_ALIAS
    region = regions.get(alias)
    if region is None or settings.SESSION_ENGINE not in SESSION_ENGINES:
        return
    if region.backend == NO_BACKEND and SESSION_ENGINES[0] == settings.SESSION_ENGINE:
        yield Warning(
            f"Sessions are kept in CACHES[{alias!r}], whose region {region.name!r} has no server: each process has its "
            "own, and a restart logs everybody out.",
            hint="Give the region a backend with a URL, or use django.contrib.sessions.backends.cached_db.",
            id="cachekit.W003",
        )
    elif region.backend != NO_BACKEND and region.l1.mode == "on":
        lag = default_service().spec.backends[region.backend].max_staleness
        yield Info(
            f"Sessions are kept in CACHES[{alias!r}], whose region {region.name!r} keeps copies in each process: "
            f"after a logout another process may know the session for up to {lag:g} s.",
            hint="Set l1 = {'mode': 'off'} for a region that only sessions use.",
            id="cachekit.I001",
        )
