"""Options of a decorator, of `define()` and of a region: checked by the standard library alone, at import time."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from cachekit.config.fields import L1, PROFILE, Field
from cachekit.config.spec import (
    CODEC_FIELDS,
    FRESHNESS_FIELDS,
    ONLY_TIGHTENED,
    SERIALIZERS,
    CodecSpec,
    FreshnessSpec,
    RegionSpec,
)
from cachekit.config.units import nearest
from cachekit.config.urls import redact_url
from cachekit.errors import ConfigError

# Options that only a decorator has. They are not fields of a profile, but a misspelt option may mean one of them.
DECORATOR_OPTIONS = frozenset({
    "profile", "key", "ignore", "condition", "fallback", "tenant", "version", "max_entries", "max_bytes",
})  # fmt: skip

# What other libraries call it.
FOREIGN: Mapping[str, str] = {
    "expire": "ttl",
    "expires": "ttl",
    "expiry": "ttl",
    "timeout": "ttl",
    "maxsize": "max_entries",
    "noself": 'ignore=("self",)',
    "key_builder": "key",
}

_REGION_FIELDS = frozenset({
    "backend", "ttl", "cache_none", "tags", "counters", "isolation", "lease", "lease_wait", "require_tenant",
})  # fmt: skip
_LONGEST_SHOWN = 60
SERIALIZERS_GROUP = "cachekit.serializers"  # of entry points
NEEDS_PROOF = (
    "needs sign = true or encrypt = true: whoever can write to the server could run code in every process that reads"
)


def suggest(name: str, known: Collection[str]) -> str:
    """``"; did you mean 'ttl'?"`` for a name that does not exist, or an empty text."""
    meant = FOREIGN.get(name.casefold())
    if meant is None or meant.partition("=")[0] not in known:
        meant = nearest(name, known)
        meant = f"'{meant}'" if meant else None
    elif "=" not in meant:
        meant = f"'{meant}'"
    return f"; did you mean {meant}?" if meant else ""


def shown(value: object) -> str:
    """A value as it may appear in a message: short, on one line, and without what might be a password."""
    if isinstance(value, str):
        if "://" in value or "@" in value:
            return repr(redact_url(value))
        return repr(value if len(value) <= _LONGEST_SHOWN else value[:_LONGEST_SHOWN] + "...")
    if value is None or isinstance(value, (bool, int, float)):
        text = repr(value) if not isinstance(value, int) or abs(value) < 10**18 else "a very long number"
        return {"True": "true", "False": "false"}.get(text, text)
    return f"<{type(value).__name__}>"  # a container may hold a password anywhere


def check_options(options: Mapping[str, object]) -> dict[str, object]:
    """The options parsed: profile fields, and ``l1`` as a table.

    Raises `TypeError` for a name that does not exist, and `ConfigError` for a value that cannot be used.
    """
    parsed: dict[str, object] = {}
    for name, value in options.items():
        if name == "l1":
            parsed[name] = _check_l1(value)
        elif name in PROFILE:
            parsed[name] = _parse(name, PROFILE[name], value)
        else:
            known = {*PROFILE, "l1", *DECORATOR_OPTIONS}
            raise TypeError(f"unknown option {name!r}{suggest(name, known)}")
    # What is not given may come from a profile, so only what is wrong whatever that says.
    fresh: dict[str, Any] = {name: value for name, value in parsed.items() if name in FRESHNESS_FIELDS}
    for name, problem in unfit(replace(FreshnessSpec(stale_ttl=1.0), **fresh)) if fresh else ():
        raise ConfigError(f"{name}: {problem}")
    return parsed


def unfit(fresh: FreshnessSpec) -> Iterator[tuple[str, str]]:
    """What is wrong with values that are right one by one: the key, and why."""
    soft, hard = fresh.soft_timeout, fresh.hard_timeout
    if isinstance(soft, float) and hard is not None and soft > hard:
        yield "soft_timeout", f"longer than hard_timeout ({hard:g} s)"
    if fresh.swr and not fresh.stale_ttl:
        yield "swr", "needs stale_ttl, the time for which a value may be given past its TTL"
    if fresh.stale_on_error and not fresh.stale_ttl:
        yield "stale_on_error", "needs stale_ttl, the time for which a value may be given past its TTL"


def unsafe(spec: RegionSpec) -> Iterator[tuple[str, str]]:
    """As `unfit`, of how values become bytes, and of secrets."""
    if spec.counters and (spec.codec.encrypt or spec.codec.sign):
        yield "counters", "a number that the server adds to can be neither encrypted nor signed"
    yield from unfit_codec(spec.codec)


def unfit_codec(codec: CodecSpec) -> Iterator[tuple[str, str]]:
    """As `unfit`, of how values become bytes."""
    protected = codec.encrypt or codec.sign
    if codec.fail_closed and not protected:
        yield "fail_closed", "needs sign or encrypt: a checksum can be forged"
    if codec.serializer == "pickle" and not protected:
        yield "serializer", NEEDS_PROOF
    if codec.serializer not in SERIALIZERS and codec.serializer not in (installed := _installed_serializers()):
        meant = nearest(codec.serializer, (*SERIALIZERS, *installed))
        hint = f"did you mean '{meant}'?" if meant else f"known are {', '.join((*SERIALIZERS, *sorted(installed)))}"
        yield "serializer", f"no such serializer is installed; {hint}"


def _installed_serializers() -> set[str]:
    from importlib.metadata import entry_points  # 15 ms, and only for those who name one of another package

    return {point.name for point in entry_points(group=SERIALIZERS_GROUP)}


def _check_l1(value: object) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"l1 = {shown(value)}: not a table; write l1={{'ttl': '5s'}} or l1={{'mode': 'off'}}")
    table: dict[str, object] = {}
    for name, item in value.items():
        if name not in L1:
            raise TypeError(f"unknown option 'l1.{name}'{suggest(str(name), L1)}")
        table[name] = _parse(f"l1.{name}", L1[name], item)
    return table


def _parse(name: str, field: Field, value: object) -> object:
    if name == "tags" and isinstance(value, str):  # in code a text is one tag, not a list with commas
        raise ConfigError(f"tags = {shown(value)}: not a list; write tags=[{shown(value)}]")
    try:
        return field.parse(value)
    except ValueError as error:
        problem = f"{name} = {shown(value)}: {error}"
    raise ConfigError(problem)


def loosened(spec: RegionSpec, parsed: Mapping[str, object]) -> list[str]:
    """What these options would turn off that the profile has turned on."""
    return [name for name in tight(spec) if parsed.get(name) is False]


def tight(spec: RegionSpec) -> list[str]:
    """What a profile has turned on of that which nothing turns off."""
    return [name for name in ONLY_TIGHTENED if getattr(spec if hasattr(spec, name) else spec.codec, name)]


ONLY_ON = "may be turned on here, but not off; take another profile where it is not wanted"


def apply_options(spec: RegionSpec, parsed: Mapping[str, object]) -> RegionSpec:
    """A copy of ``spec`` with the options that `check_options` returned."""
    changes: dict[str, Any] = {name: value for name, value in parsed.items() if name in _REGION_FIELDS}
    codec: dict[str, Any] = {name: value for name, value in parsed.items() if name in CODEC_FIELDS}
    if codec:
        changes["codec"] = replace(spec.codec, **codec)
    fresh: dict[str, Any] = {name: value for name, value in parsed.items() if name in FRESHNESS_FIELDS}
    if "negative_exceptions" in fresh:  # a table, so it merges key by key
        table = dict(spec.freshness.negative_exceptions)
        fresh["negative_exceptions"] = tuple({**table, **dict(fresh["negative_exceptions"])}.items())
    if fresh:
        changes["freshness"] = replace(spec.freshness, **fresh)
    if "jitter" in parsed:
        changes["jitter"], changes["jitter_is_share"] = PROFILE["jitter"].parse(parsed["jitter"])
    if "negative_ttl" in parsed:
        changes["negative_ttl"], changes["negative_ttl_set"] = parsed["negative_ttl"], True
    if "counters" in parsed:
        changes["counters_set"] = True
    l1 = parsed.get("l1")
    if isinstance(l1, Mapping) and l1:
        changes["l1"] = replace(spec.l1, **l1)
    return spec.but(**changes) if changes else spec
