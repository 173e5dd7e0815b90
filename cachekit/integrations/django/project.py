"""What Django's settings say about caching: which region each alias uses, and what that adds to the configuration."""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from cachekit.config.fields import BACKEND, PROFILE
from cachekit.config.options import suggest
from cachekit.errors import ConfigError
from cachekit.integrations.django import options
from cachekit.process import Project, adopt_project, default_service
from cachekit.regions import Region, region

DEFAULT_REGION = "default"
PREFIX = "django."  # region and backend of an alias whose LOCATION is a URL
READ_FROM = "READ_FROM"  # the option that names the alias to take over from
MARKS = ".read-from"  # ends the region with the marks of what must not be taken over
MARKED = "14d"  # as long as sessions live, unless a project says otherwise

OF_DJANGO = frozenset({"MAX_ENTRIES", "CULL_FREQUENCY"})
OF_OTHERS = frozenset({*options.READERS, READ_FROM})  # read elsewhere
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


def open_marks(location: object, params: Mapping[str, Any]) -> Region:
    """The region beside that of an entry with ``READ_FROM``. Raises `ImproperlyConfigured`."""
    alias = _alias_of(location, params)
    if alias is None:
        raise ImproperlyConfigured("OPTIONS['READ_FROM']: belongs into settings.CACHES, where both caches are")
    return region(PREFIX + alias + MARKS)


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
    if not names_server(location):
        return str(location or DEFAULT_REGION)
    if alias is None:
        raise ConfigError("a LOCATION that is a URL belongs into settings.CACHES, whose alias names its region")
    return PREFIX + alias


def names_server(location: object) -> bool:
    """Whether a LOCATION is a URL, or several, and not the name of a region."""
    return isinstance(location, (list, tuple)) or re.search(r"://|[,;]", str(location or "")) is not None


def url_of(location: object) -> str | None:
    """The URL in a LOCATION, or None if that names a region."""
    if not names_server(location):
        return None
    if isinstance(location, (list, tuple)):
        urls = [str(url).strip() for url in location]
    else:
        urls = re.split(r"\s*[,;]\s*(?=[A-Za-z][A-Za-z0-9+.-]*://|$)", str(location).strip())
    urls = [url for url in urls if url]
    if len(urls) != 1:
        raise ConfigError(
            f"LOCATION has {len(urls)} URLs; write several servers as one: redis+cluster://host:6379,host:6379/, and "
            "leave out replicas: cachekit reads from the primary"
        )
    return urls[0]


def meaning_of(config: Mapping[str, Any]) -> options.Meaning:
    """What the LOCATION and the upper-case OPTIONS of an alias say. Raises ConfigError."""
    given, location = config.get("OPTIONS") or {}, config.get("LOCATION")
    if given.get("SENTINELS"):
        location = options.sentinel_url(location, given["SENTINELS"], given.get("SENTINEL_KWARGS"))
    meaning = options.read(given, url_of(location))
    if meaning.url is None and (meaning.backend or meaning.profile or given.get("USERNAME") or given.get("PASSWORD")):
        raise ConfigError(
            "OPTIONS of django-redis need a LOCATION with a URL; for a region that is named write "
            "CACHEKIT['profiles'] and CACHEKIT['backends']"
        )
    return meaning


def _alias_of(location: object, params: Mapping[str, Any]) -> str | None:
    """The alias of a backend, which Django does not tell it. Raises ConfigError if it may be one of several."""
    same = [alias for alias, config in aliases() if _says(config, location, params)]
    wanted = _asked_for()
    if wanted in same:
        return wanted
    if len(same) > 1 and names_server(location):
        raise ConfigError(
            f"{' and '.join(map(repr, same))} say the same, and a backend that Django does not make is either: ask "
            "django.core.cache.caches for it"
        )
    return same[0] if same else None


def _says(config: Mapping[str, Any], location: object, params: Mapping[str, Any]) -> bool:
    """Whether Django makes a backend with these arguments of an entry of ``CACHES``."""
    rest = {key: value for key, value in config.items() if key not in ("BACKEND", "LOCATION")}
    return config.get("LOCATION", "") == location and rest == params


def _asked_for() -> str | None:
    """The alias for which Django makes a backend right now. Its own frame knows; nothing else tells entries apart that
    say the same."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "create_connection":  # of django.core.cache.caches
        frame = frame.f_back
    return None if frame is None else frame.f_locals.get("alias")


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
            meaning = meaning_of(config)
            fields = {**meaning.profile, **_profile(config.get("OPTIONS") or {}, name, given=meaning.url is not None)}
            _check_timeout(config.get("TIMEOUT"))
            marks = _marks(caches, alias, config, name)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None
        counting.add(name)
        layer: dict[str, Any] = {"profiles": marks}
        if meaning.url is not None:
            backend = {**meaning.backend, "url": meaning.url}
            layer = {"backends": {name: backend}, "profiles": {**marks, name: {**fields, "backend": name}}}
        layers[place] = layer
    return Project(None if directory is None else Path(directory), layers, frozenset(counting))


def _check_timeout(timeout: Any) -> None:
    """Django takes 300 for whatever is no number, without a word."""
    try:
        None if timeout is None else int(timeout)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"TIMEOUT = {timeout!r}: not a number of seconds; write 300, or None for ever") from None


def _marks(caches: Any, alias: str, config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The profile of the marks of an alias with ``READ_FROM``: where its entries are, and out of reach of `clear()`."""
    old = (config.get("OPTIONS") or {}).get(READ_FROM)
    if old is None:
        return {}
    if old == alias or old not in list(caches):
        raise ConfigError(f"OPTIONS['READ_FROM']: {old!r} is no other alias of CACHES; name the one to take over from")
    if READ_FROM in (caches[old].get("OPTIONS") or {}):
        raise ConfigError(f"OPTIONS['READ_FROM']: {old!r} reads from another one itself; name that one")
    return {PREFIX + alias + MARKS: {"extends": name, "ttl": MARKED, "jitter": 0}}


def _profile(written: Mapping[str, Any], name: str, *, given: bool) -> dict[str, Any]:
    """The fields of a profile in OPTIONS. Their values are checked with the rest of the configuration."""
    fields = {}
    for key, value in written.items():
        if key in OF_DJANGO or key in OF_OTHERS:
            continue  # a system check says of which that they do nothing
        if key in BACKEND and key not in PROFILE_KEYS:
            raise ConfigError(f"OPTIONS[{key!r}]: belongs to the backend: CACHEKIT['backends'][{name!r}][{key!r}]")
        if key not in PROFILE_KEYS:
            raise ConfigError(f"OPTIONS[{key!r}]: no such option{suggest(key, PROFILE_KEYS | OF_OTHERS)}")
        if key == "backend":
            raise ConfigError("OPTIONS['backend']: LOCATION says it already")
        if not given:
            raise ConfigError(f"OPTIONS[{key!r}]: belongs to the region: CACHEKIT['profiles'][{name!r}][{key!r}]")
        fields[key] = value
    return fields
