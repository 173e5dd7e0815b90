"""What Django's settings say about caching: which region each alias uses, and what that adds to the configuration."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from cachekit.config.fields import BACKEND, PROFILE
from cachekit.config.options import suggest
from cachekit.errors import ConfigError
from cachekit.process import Project, adopt_project, default_service
from cachekit.regions import Region, region

DEFAULT_REGION = "default"
PREFIX = "django."  # region and backend of an alias whose LOCATION is a URL

OF_DJANGO = frozenset({"MAX_ENTRIES", "CULL_FREQUENCY"})
OF_DJANGO_REDIS = frozenset({
    "BASE_CLIENT_CLASS", "BASE_CLIENT_KWARGS", "CACHE_HERD_TIMEOUT", "CLIENT_CLASS", "CLOSE_CONNECTION", "COMPRESSOR",
    "COMPRESS_ZSTD_OPTIONS", "CONNECTION_FACTORY", "CONNECTION_POOL_CLASS", "CONNECTION_POOL_CLEANUP",
    "CONNECTION_POOL_KWARGS", "DECOMPRESS_ZSTD_OPTIONS", "IGNORE_EXCEPTIONS", "LOG_IGNORED_EXCEPTIONS",
    "MAX_CONNECTIONS", "PARSER_CLASS", "PASSWORD", "PICKLE_VERSION", "READ_FROM", "REDIS_CLIENT_CLASS",
    "REDIS_CLIENT_KWARGS", "REPLICA_READ_ONLY", "REVERSE_KEY_FUNCTION", "SENTINELS", "SENTINEL_KWARGS", "SERIALIZER",
    "SOCKET_CONNECT_TIMEOUT", "SOCKET_KEEPALIVE", "SOCKET_TIMEOUT", "USERNAME",
})  # fmt: skip
PROFILE_KEYS = frozenset({*PROFILE, "l1", "extends"})


def open_region(location: object, params: Mapping[str, Any]) -> tuple[Region, float | None]:
    """The region of one entry of ``CACHES``, and its TTL. Raises `ImproperlyConfigured` for whatever is wrong."""
    install()
    try:
        name = region_name(_alias_of(location, params), location)
        spec = default_service().region_spec(name)
    except ConfigError as error:
        raise ImproperlyConfigured(str(error)) from error
    return region(name), spec.ttl


def install() -> None:
    """Make the settings part of the process's configuration: once, and again when a test has overridden them.

    Raises `ImproperlyConfigured`.
    """
    global _installed
    current = (settings.CACHES, getattr(settings, "CACHEKIT", None), getattr(settings, "BASE_DIR", None))
    if _installed is None or any(a is not b for a, b in zip(current, _installed, strict=True)):
        try:
            adopt_project(_read(*current))
        except ConfigError as error:
            raise ImproperlyConfigured(str(error)) from error
        _installed = current


_installed: tuple[Any, Any, Any] | None = None


def aliases() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The entries of ``CACHES`` that are ours."""
    from cachekit.integrations.django.backend import CacheKitCache  # it stands on this module

    for alias, config in settings.CACHES.items():
        try:
            backend = import_string(config["BACKEND"])
        except (ImportError, KeyError):  # Django reports it to whoever uses that alias
            continue
        if isinstance(backend, type) and issubclass(backend, CacheKitCache):
            yield alias, config


def aliases_of() -> dict[str, list[str]]:
    """The aliases by the regions that they use; what does not exist is left out."""
    found: dict[str, list[str]] = {}
    for alias, config in aliases():
        with suppress(ConfigError):  # a system check reports it
            found.setdefault(region_name(alias, config.get("LOCATION")), []).append(alias)
    return found


def region_name(alias: str | None, location: object) -> str:
    """The region that an alias with this LOCATION uses."""
    if url_of(location) is None:
        return str(location or DEFAULT_REGION)
    if alias is None:
        raise ConfigError("a LOCATION that is a URL belongs into settings.CACHES, whose alias names its region")
    return PREFIX + alias


def url_of(location: object) -> str | None:
    """The URL in a LOCATION, or None if that names a region."""
    if isinstance(location, (list, tuple)):
        urls = [str(url).strip() for url in location]
    elif re.search(r"://|[,;]", text := str(location or "")):
        urls = re.split(r"\s*[,;]\s*(?=[A-Za-z][A-Za-z0-9+.-]*://|$)", text.strip())
    else:
        return None
    urls = [url for url in urls if url]
    if len(urls) != 1:
        raise ConfigError(
            f"LOCATION has {len(urls)} URLs; write several servers as one: redis+cluster://host:6379,host:6379/"
        )
    return urls[0]


def _alias_of(location: object, params: Mapping[str, Any]) -> str | None:
    """Django does not tell a backend its alias; entries that say the same may share a region."""
    for alias, config in settings.CACHES.items():
        rest = {key: value for key, value in config.items() if key not in ("BACKEND", "LOCATION")}
        if config.get("LOCATION", "") == location and rest == params:
            return str(alias)
    return None


def _read(caches: object, table: Any, directory: Any) -> Project:
    layers: dict[str, Mapping[str, Any]] = {}
    counting = set()
    if table:
        if not isinstance(table, Mapping):
            raise ConfigError("settings.CACHEKIT: not a dict; it is shaped like cachekit.toml")
        layers["settings.CACHEKIT"] = table
    for alias, config in aliases():
        place = f"settings.CACHES[{alias!r}]"
        try:
            name = region_name(alias, config.get("LOCATION"))
            url = url_of(config.get("LOCATION"))
            fields = _profile(config.get("OPTIONS") or {}, name, given=url is not None)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None
        counting.add(name)
        if url is not None:
            layers[place] = {"backends": {name: {"url": url}}, "profiles": {name: {**fields, "backend": name}}}
    return Project(None if directory is None else Path(directory), layers, frozenset(counting))


def _profile(options: Mapping[str, Any], name: str, *, given: bool) -> dict[str, Any]:
    """The fields of a profile in OPTIONS. Their values are checked with the rest of the configuration."""
    fields = {}
    for key, value in options.items():
        if key in OF_DJANGO:
            continue  # a system check says that they do nothing
        if key in OF_DJANGO_REDIS:
            raise ConfigError(f"OPTIONS[{key!r}]: not yet available in this version; OPTIONS takes fields of a profile")
        if key in BACKEND and key not in PROFILE_KEYS:
            raise ConfigError(f"OPTIONS[{key!r}]: belongs to the backend: CACHEKIT['backends'][{name!r}][{key!r}]")
        if key not in PROFILE_KEYS:
            raise ConfigError(f"OPTIONS[{key!r}]: no such option{suggest(key, PROFILE_KEYS | OF_DJANGO_REDIS)}")
        if key == "backend":
            raise ConfigError("OPTIONS['backend']: LOCATION says it already")
        if not given:
            raise ConfigError(f"OPTIONS[{key!r}]: belongs to the region: CACHEKIT['profiles'][{name!r}][{key!r}]")
        fields[key] = value
    return fields
