"""What each key accepts: one parser per key, the same for files, the environment, decorators and `define`.

A parser takes what was written and returns the value, or raises `ValueError` saying what to write instead. It also
takes its own result.
"""

import builtins
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from cachekit.config.secret import Secret
from cachekit.config.units import (
    check_name,
    format_duration,
    format_size,
    nearest,
    parse_bool,
    parse_duration,
    parse_list,
    parse_size,
)

Parser = Callable[[object], Any]


class Jitter(NamedTuple):
    """How much is added to a TTL: a share of it, or seconds."""

    amount: float
    is_share: bool


class Field(NamedTuple):
    """One key: how its value is read, and how it is shown again."""

    parse: Parser
    show: Callable[[Any], str] = lambda value: _plain(value)


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = ..." for key in value) + "}"
    return f'"{value}"' if isinstance(value, str) else "-" if value is None else f"{value:g}"


def _duration(text: Callable[[float | None], str] = format_duration, *, zero: bool, never: bool) -> Field:
    def parse(value: object) -> float | None:
        seconds = parse_duration(value, zero=zero)
        if seconds is None and not never:
            raise ValueError("must have an end; write a duration such as '250ms' or '30s'")
        return seconds

    return Field(parse, lambda value: f'"{text(value)}"')


def _whole(least: int) -> Field:
    def parse(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"-?\d{1,15}", value.strip(), re.ASCII):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"not a whole number from {least}")
        return value

    return Field(parse, str)


def _size(least: int) -> Field:
    def parse(value: object) -> int:
        size = parse_size(value)
        if size < least:
            raise ValueError(f"must be at least {least} bytes")
        return size

    return Field(parse, lambda value: f'"{format_size(value)}"')


def _choice(*names: str) -> Field:
    def parse(value: object) -> str:
        if isinstance(value, str):
            if value.strip().casefold() in names:
                return value.strip().casefold()
            if (known := nearest(value, names)) is not None:
                raise ValueError(f"did you mean '{known}'?")
        raise ValueError("must be one of " + ", ".join(f"'{name}'" for name in names))

    return Field(parse)


def parse_text(value: object) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("not a text, or an empty one")
    return value


def parse_jitter(value: object) -> Jitter:
    """``"10%"`` of the TTL, or a duration."""
    if isinstance(value, Jitter):
        return value
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*%", value.strip(), re.ASCII)):
        share = float(match[1]) / 100
        if share <= 1:
            return Jitter(share, True)
        raise ValueError("more than 100%")
    try:
        seconds = parse_duration(value, zero=True)
    except ValueError:
        seconds = None
    if seconds is None:
        raise ValueError("neither a share nor a duration; write '10%', '5s' or 0")
    return Jitter(seconds, seconds == 0)


def _show_jitter(value: Jitter) -> str:
    if not value.amount:
        return "0"
    return (
        f'"{value.amount:.4%}"'.replace("0000%", "%").replace(".%", "%")
        if value.is_share
        else (f'"{format_duration(value.amount)}"')
    )


def _parse_ratio(value: object) -> float:
    try:
        ratio = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        ratio = math.nan
    if not 0 < ratio <= 1:
        raise ValueError("not a ratio above 0 and up to 1, such as 0.5")
    return ratio


def _parse_table(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("not a table")
    return dict(value)


def _parse_backend(value: object) -> str:
    return "none" if value is None else check_name(value)


def _parse_beta(value: object) -> float | str:
    if isinstance(value, str) and value.strip().casefold() in ("auto", "off"):
        return value.strip().casefold()
    try:
        beta = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        beta = math.nan
    if not 0 < beta < math.inf:
        raise ValueError("must be 'auto', 'off' or a number above 0")
    return beta


def _parse_soft_timeout(value: object) -> float | str | None:
    return "auto" if isinstance(value, str) and value.strip().casefold() == "auto" else parse_duration(value)


def _show_soft_timeout(value: float | str | None) -> str:
    return '"auto"' if value == "auto" else f'"{format_duration(value)}"'  # type: ignore[arg-type]  # no other text


def dotted(kind: type) -> str:
    """The name by which configuration knows a class of exceptions."""
    return f"{kind.__module__}.{kind.__qualname__}"


LOCAL: Final = "<locals>"  # in the name of what was defined inside of a function


def _exception_name(value: object) -> str:
    """``"app.errors.NotFound"``, a built-in one by its bare name, or in code the class itself."""
    if isinstance(value, type) and issubclass(value, Exception):
        return dotted(value)
    if isinstance(value, str) and value.isidentifier():
        known = getattr(builtins, value, None)
        if isinstance(known, type) and issubclass(known, Exception):
            return dotted(known)
    elif isinstance(value, str) and all(part.isidentifier() or part == LOCAL for part in value.split(".")):
        return value
    raise ValueError("not an exception; write 'package.module.NotFound', or 'KeyError' for a built-in one")


def _parse_exceptions(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = parse_list(value)
    if not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise ValueError("not a list of exceptions; write ['package.module.NotFound']")
    return tuple([_exception_name(item) for item in value])


def _parse_negative(value: object) -> tuple[tuple[str, float], ...]:
    """Exceptions and how long each of them is remembered."""
    if isinstance(value, tuple) and all(isinstance(item, tuple) and len(item) == 2 for item in value):
        value = dict(value)  # what this returned
    if not isinstance(value, Mapping):
        raise ValueError("not a table; write { 'package.module.NotFound' = '30s' }")
    return tuple({_exception_name(key): _remembered_for(key, ttl) for key, ttl in _flat(value)}.items())


def _flat(table: Mapping[Any, Any], before: str = "") -> Iterator[tuple[Any, Any]]:
    """The table with whole names: to TOML a dotted key without quotes is a table in a table."""
    for key, value in table.items():
        if isinstance(value, Mapping) and isinstance(key, str):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield (f"{before}{key}" if isinstance(key, str) else key), value


def _remembered_for(key: object, ttl: object) -> float:
    name = _exception_name(key)
    if LOCAL in name:
        raise ValueError(f"{name} is defined inside of a function, where no process can find it again by its name")
    return _with_end(name, ttl)


def _with_end(name: object, ttl: object) -> float:
    """The seconds that a table gives to one of its names."""
    try:
        seconds = parse_duration(ttl)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if seconds is None:
        raise ValueError(f"{name}: must have an end; write a duration such as '30s'")
    return seconds


def _show_negative(value: tuple[tuple[str, float], ...]) -> str:
    return "{" + ", ".join(f'"{name}" = "{format_duration(seconds)}"' for name, seconds in value) + "}"


BOOL = Field(parse_bool)
LIST = Field(parse_list)
TEXT = Field(parse_text)

L1: Mapping[str, Field] = {
    "mode": _choice("on", "off"),
    "max_entries": _whole(1),
    "max_bytes": _size(1),
    "ttl": _duration(zero=False, never=True),
    "policy": _choice("s3fifo", "lru"),
}

# `l1` is a table and `extends` is for files only; both are added where they apply.
PROFILE: Mapping[str, Field] = {
    "backend": Field(_parse_backend),
    "ttl": _duration(zero=False, never=True),
    "jitter": Field(parse_jitter, _show_jitter),
    "negative_ttl": _duration(zero=False, never=True),
    "cache_none": BOOL,
    "tags": LIST,
    "serializer": Field(check_name),
    "compression": _choice("lz4", "zstd", "none"),
    "compress_above": _size(0),
    "counters": BOOL,
    "max_value_bytes": _size(1),
    "on_unstorable": _choice("warn", "raise"),
    "isolation": _choice("auto", "copy", "share"),
    "lease": _choice("auto", "on", "off"),
    "lease_wait": _duration(zero=True, never=False),
    "stale_ttl": _duration(zero=True, never=False),
    "stale_on_error": BOOL,
    "stale_unless": Field(_parse_exceptions),
    "stale_throttle": _duration(zero=True, never=False),
    "stale_without_proof": _duration(zero=True, never=False),
    "swr": BOOL,
    "early_refresh": Field(_parse_beta),
    "soft_timeout": Field(_parse_soft_timeout, _show_soft_timeout),
    "hard_timeout": _duration(zero=False, never=True),
    "outage": _choice("call", "fallback"),
    "negative_exceptions": Field(_parse_negative, _show_negative),
    "encrypt": BOOL,
    "sign": BOOL,
    "fail_closed": BOOL,
    "require_tenant": BOOL,
    "rewrap": BOOL,
}


BREAKER: Mapping[str, Field] = {
    "failures": _whole(1),
    "ratio": Field(_parse_ratio),
    "window": _duration(zero=False, never=False),
    "open_for": _duration(zero=False, never=False),
    "open_max": _duration(zero=False, never=False),
}

TLS: Mapping[str, Field] = {"ca": TEXT, "cert": TEXT, "key": TEXT, "check_hostname": BOOL}


def _parse_url_env(value: object) -> tuple[str, ...]:
    names = parse_list(value)
    if not all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII) for name in names):
        raise ValueError("not names of environment variables")
    return names


def _parse_dotted(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_]\w*(?:[.:][A-Za-z_]\w*)+", value):
        raise ValueError("not a dotted path; write 'package.module.name'")
    return value


BACKEND: Mapping[str, Field] = {
    "type": Field(check_name),
    "url": TEXT,
    "url_env": Field(_parse_url_env),
    "username": TEXT,
    "password": TEXT,
    "credential_provider": Field(_parse_dotted),
    "max_connections": _whole(1),
    "budget": _duration(zero=False, never=False),
    "budget_min": _duration(zero=False, never=False),
    "adaptive": BOOL,
    "coherence": _choice("auto", "tracking", "ttl"),
    "max_staleness": _duration(zero=False, never=False),
    "disconnected_ttl": _duration(zero=True, never=False),
    "heartbeat": _duration(zero=False, never=False),
    "replay_window": _duration(zero=True, never=False),
    "pending_invalidations": _whole(1),
    "options": Field(_parse_table),
}


def _parse_path(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"/[\w./~-]+", value, re.ASCII):
        raise ValueError("not a path; write '/metrics'")
    return value


def _parse_networks(value: object) -> tuple[str, ...]:
    from ipaddress import ip_network  # for those who set it only

    networks = parse_list(value)
    for network in networks:
        try:
            ip_network(network)
        except ValueError:
            raise ValueError("not a list of networks; write ['10.0.0.0/8', '::1']") from None
    return networks


METRICS: Mapping[str, Field] = {
    "enabled": BOOL,
    "path": Field(_parse_path),
    "token": TEXT,
    "allow": Field(_parse_networks),
}


def _parse_pattern(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError("not a path; write '/articles/*', or '/static/**' for all below")
    return value


def _parse_names(value: object) -> tuple[str, ...]:
    names = parse_list(value)
    if not all(re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) for name in names):
        raise ValueError("not names of request fields; write ['accept-language']")
    return tuple(sorted({name.casefold() for name in names}))


def _parse_statuses(value: object) -> tuple[tuple[int, float], ...]:
    """Statuses of errors and for how long their responses are kept."""
    if not isinstance(value, Mapping):
        raise ValueError("not a table; write { 404 = '30s' }")
    return tuple([(_parse_status(key), _with_end(key, ttl)) for key, ttl in value.items()])


def _parse_status(value: object) -> int:
    text = str(value)
    if not re.fullmatch(r"[2-5]\d\d", text, re.ASCII) or text in ("206", "304"):
        raise ValueError(f"{text}: not a status whose response can be kept; write {{ 404 = '30s' }}")
    return int(text)


def _show_statuses(value: tuple[tuple[int, float], ...]) -> str:
    return "{" + ", ".join(f'{status} = "{format_duration(seconds)}"' for status, seconds in value) + "}"


RULE: Mapping[str, Field] = {  # of [[http.rules]]
    "path": Field(_parse_pattern),
    "name": Field(check_name),
    "cache": BOOL,
    "profile": Field(check_name),
    "ttl": _duration(zero=False, never=True),
    "vary": Field(_parse_names),
    "statuses": Field(_parse_statuses, _show_statuses),
    "client_ttl": _duration(zero=True, never=False),
    "per_user": BOOL,
}


def _parse_rules(value: object) -> object:
    """A list of tables; in a variable as JSON."""
    if isinstance(value, str):
        import json  # for those who write them there

        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, (list, tuple)) or not all(isinstance(rule, Mapping) for rule in value):
        raise ValueError("not a list of tables; write [[http.rules]], or in a variable JSON")
    return tuple(value)


HTTP: Mapping[str, Field] = {"rules": Field(_parse_rules)}


def _parse_key(value: object) -> Secret:
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Fa-f]{64}", value.strip(), re.ASCII):
        raise ValueError("not a key of 64 hexadecimal digits; make one with `cachekit secrets generate`")
    if len(set(value.strip().casefold())) < WEAK:
        raise ValueError("not a random key; make one with `cachekit secrets generate`")
    return Secret.of(value.strip())


def _parse_keys(value: object) -> tuple[Secret, ...]:
    keys = [part for part in re.split(r"[\s,]+", value) if part] if isinstance(value, str) else value
    if not isinstance(keys, (list, tuple)):
        raise ValueError("not a list of keys with commas")
    return tuple([_parse_key(key) for key in keys])


WEAK: Final = 6  # different digits; 64 random ones have fewer than that about once in 10**27 keys
KEYS: Mapping[str, Field] = {  # of encryption and signatures; the older ones only open and verify
    "master_key": Field(_parse_key),
    "previous_keys": Field(_parse_keys),
    "signing_key": Field(_parse_key),
    "name_key": Field(_parse_key),
}
SERVICE: Mapping[str, Field] = {
    "namespace": Field(check_name),
    "enabled": BOOL,
    "strict": BOOL,
    **KEYS,
}
