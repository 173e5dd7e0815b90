"""The options of `@cache`, checked by name and type at decoration. Reads no configuration."""

import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, NamedTuple

from cachekit.config.options import check_options
from cachekit.config.spec import NO_BACKEND
from cachekit.engine.miss import MISS
from cachekit.errors import ConfigError

NEEDS_FALLBACK = "outage = 'fallback' needs something to give: fallback=..., None if that is meant"


class Options(NamedTuple):
    """The options of one decorator, checked."""

    profile: str
    parsed: Mapping[str, object]  # profile fields
    key: Callable[..., Hashable] | None
    ignore: frozenset[str]
    tags: Callable[..., Iterable[str]] | None
    condition: Callable[[Any], object] | None
    version: str | int | None
    ttl: Callable[[Any], Any] | None  # of the value
    backend: object  # a backend object, or None
    fallback: object  # a value, or a callable of the arguments; MISS: there is none
    tenant: Callable[..., str | None] | None


def check(options: Mapping[str, Any], profile: str = "default") -> Options:
    """Check names and types of a decorator's options; reads no configuration."""
    given = dict(options)
    profile = _text("profile", given.pop("profile", profile))
    own: dict[str, Any] = {name: given.pop(name, None) for name in ("key", "condition", "tenant")}
    for name, value in own.items():
        if value is not None and not callable(value):
            raise TypeError(f"{name}= must be callable, not {type(value).__name__}")
    tags, ttl, backend = given.get("tags"), given.get("ttl"), given.get("backend")
    if callable(tags):
        del given["tags"]
    if callable(ttl):
        del given["ttl"]
    if "backend" in given and backend is None:
        given["backend"] = NO_BACKEND
    elif "backend" in given and not isinstance(backend, str):
        del given["backend"]
    else:
        backend = None
    fallback = given.pop("fallback", MISS)
    if inspect.iscoroutinefunction(fallback):
        raise TypeError("fallback= is a value or a plain callable of the arguments, since nobody may wait for it")
    version = given.pop("version", None)
    if isinstance(version, bool) or not isinstance(version, str | int | None):
        raise TypeError(f"version= must be a str or an int, not {type(version).__name__}")
    ignore = _names("ignore", given.pop("ignore", ()))
    l1 = {name: given.pop(name) for name in ("max_entries", "max_bytes") if name in given}
    if l1:
        given["l1"] = {**dict(given.get("l1") or {}), **l1}
    parsed = check_options(given)
    if parsed.get("outage") == "fallback" and fallback is MISS:
        raise ConfigError(NEEDS_FALLBACK)
    return Options(
        profile=profile,
        parsed=parsed,
        ignore=ignore,
        tags=tags if callable(tags) else None,
        version=version,
        ttl=ttl if callable(ttl) else None,
        backend=backend,
        fallback=fallback,
        **own,
    )


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}= must be a str, not {type(value).__name__}")
    return value


def _names(name: str, value: object) -> frozenset[str]:
    if isinstance(value, str) or not isinstance(value, Iterable) or not all(isinstance(item, str) for item in value):
        raise TypeError(f'{name}= must be an iterable of names, for example {name}=("self",)')
    return frozenset(value)


def tag_names(tags: object) -> Iterable[str]:
    """What ``tags=`` gave, as an iterable of names."""
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise TypeError(f"tags= must give an iterable of str, not {type(tags).__name__}")
    return tags
