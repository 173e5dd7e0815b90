"""Settings of Flask-Caching (``CACHE_*``) as ours; what has no counterpart is refused with what to write instead."""

import logging
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote

from flask import Flask

from cachekit.config.units import check_name
from cachekit.errors import ConfigError

NONE: Final = ("null", "nullcache")
MEMORY: Final = ("simple", "simplecache")
REDIS: Final = ("redis", "rediscache")
SENTINEL: Final = ("redissentinel", "redissentinelcache")
CLUSTER: Final = ("rediscluster", "redisclustercache")

# Read elsewhere, or without a meaning here: keys are SHA-256 or BLAKE2 always, and trouble with a store never reaches
# a request.
ACCEPTED: Final = frozenset({
    "CACHE_TYPE", "CACHE_ENABLE_SIGNALS", "CACHE_HASH_METHOD", "CACHE_FILE_HASH_METHOD", "CACHE_IGNORE_ERRORS",
    "CACHE_NO_NULL_WARNING", "CACHE_DEFAULT_TIMEOUT", "CACHE_THRESHOLD", "CACHE_KEY_PREFIX", "CACHE_REDIS_URL",
    "CACHE_REDIS_HOST", "CACHE_REDIS_PORT", "CACHE_REDIS_DB", "CACHE_REDIS_PASSWORD", "CACHE_REDIS_CLUSTER",
    "CACHE_REDIS_SENTINELS", "CACHE_REDIS_SENTINEL_MASTER", "CACHE_REDIS_SENTINEL_PASSWORD",
})  # fmt: skip
MEMCACHED: Final = "there is no Memcached backend; use CACHE_TYPE = 'RedisCache' with a Redis or Valkey server"
# What would change something, and what to write instead.
REFUSED: Final = {
    "CACHE_ARGS": "arguments of a backend's class; set the fields of [backends.default], for example budget",
    "CACHE_OPTIONS": "options of a client library; set the fields of [backends.default], for example budget",
    "CACHE_DIR": "there is no file backend; use CACHE_TYPE = 'SimpleCache', or 'RedisCache' to share between processes",
    "CACHE_SERIALIZER": "set profiles.default.serializer; 'msgpack' is the default, and pickle needs sign or encrypt",
    "CACHE_SOURCE_CHECK": "write source_check=True at the decorators whose source is to count",
    "CACHE_MEMCACHED_SERVERS": MEMCACHED,
    "CACHE_MEMCACHED_USERNAME": MEMCACHED,
    "CACHE_MEMCACHED_PASSWORD": MEMCACHED,
    "CACHE_UWSGI_NAME": "there is no uWSGI backend; use CACHE_TYPE = 'SimpleCache' or 'RedisCache'",
}

logger = logging.getLogger("cachekit")


def of_extension(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of Flask-Caching among those of an application."""
    return {key: value for key, value in config.items() if key.startswith("CACHE_")}


def wants_signals(app: Flask, config: Any) -> bool:
    """Whether signals are sent."""
    given = config if isinstance(config, Mapping) and "CACHE_ENABLE_SIGNALS" in config else app.config
    return bool(given.get("CACHE_ENABLE_SIGNALS", False))


def mapped(given: Mapping[str, Any], where: str, *, alone: bool = False) -> dict[str, Any]:
    """A dict shaped like cachekit.toml. ``alone``: nothing else may be meant by these keys than settings of ours.

    Raises:
        ConfigError: A setting that cannot be followed; the message says what to write.
    """
    for key, value in given.items():
        _check(key, value, where, alone=alone)
    table: dict[str, Any] = {}
    kind = _kind(given, where)
    default: dict[str, Any] = {}
    if kind in NONE:
        table["enabled"] = False
    if kind in (*NONE, *MEMORY):
        default["backend"] = "none"
    elif kind:
        table["backends"] = {"default": {"url": _url(kind, given, where)}}
        table["namespace"] = _namespace(given.get("CACHE_KEY_PREFIX", "flask_cache_"), where)
    elif "CACHE_KEY_PREFIX" in given:
        table["namespace"] = _namespace(given["CACHE_KEY_PREFIX"], where)
    if "CACHE_DEFAULT_TIMEOUT" in given:
        timeout = given["CACHE_DEFAULT_TIMEOUT"]
        default["ttl"] = "never" if timeout == 0 and not isinstance(timeout, bool) else timeout
    if given.get("CACHE_THRESHOLD"):
        default["l1"] = {"max_entries": given["CACHE_THRESHOLD"]}
    if default:
        table["profiles"] = {"default": default}
    return table


def merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Two tables, the second above the first."""
    result = dict(low)
    for key, value in high.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def _check(key: str, value: Any, where: str, *, alone: bool) -> None:
    if key in REFUSED and value:
        raise ConfigError(f"{where}: {key}: {REFUSED[key]}")
    if key not in ACCEPTED and key not in REFUSED:
        if alone:
            raise ConfigError(f"{where}: {key}: no such setting of Flask-Caching")
        logger.warning("%s: %s is no setting of Flask-Caching that cachekit knows, and has no effect on it", where, key)


def _kind(given: Mapping[str, Any], where: str) -> str:
    """What ``CACHE_TYPE`` means, in lower case; empty: nothing is said of a store."""
    written = given.get("CACHE_TYPE")
    if written is None:
        return REDIS[0] if given.get("CACHE_REDIS_URL") or given.get("CACHE_REDIS_HOST") else ""
    kind = str(written).rpartition(".")[2].casefold()
    if kind in (*NONE, *MEMORY, *REDIS, *SENTINEL, *CLUSTER):
        return kind
    raise ConfigError(
        f"{where}: CACHE_TYPE = {written!r}: no such store here; use SimpleCache, RedisCache, RedisSentinelCache, "
        "RedisClusterCache or NullCache, or [backends.default] for a backend of your own"
    )


def _url(kind: str, given: Mapping[str, Any], where: str) -> str:
    password = given.get("CACHE_REDIS_PASSWORD")
    login = f":{quote(str(password), safe='')}@" if password else ""
    db = given.get("CACHE_REDIS_DB") or 0
    if kind in SENTINEL:
        if given.get("CACHE_REDIS_SENTINEL_PASSWORD"):
            raise ConfigError(
                f"{where}: CACHE_REDIS_SENTINEL_PASSWORD: a password of the sentinels themselves cannot be given; "
                "leave it out, or use a backend of your own"
            )
        hosts = ",".join(
            f"{_bracketed(host)}:{port}" for host, port in given.get("CACHE_REDIS_SENTINELS") or [("127.0.0.1", 26379)]
        )
        return f"redis+sentinel://{login}{hosts}/{given.get('CACHE_REDIS_SENTINEL_MASTER') or 'mymaster'}/{db}"
    if kind in CLUSTER:
        hosts = str(given.get("CACHE_REDIS_CLUSTER") or "").replace(" ", "")
        if not hosts:
            raise ConfigError(f"{where}: CACHE_REDIS_CLUSTER: missing; write 'host1:6379,host2:6379'")
        return f"redis+cluster://{login}{hosts}"
    if given.get("CACHE_REDIS_URL"):
        return str(given["CACHE_REDIS_URL"])
    host, port = given.get("CACHE_REDIS_HOST", "localhost"), given.get("CACHE_REDIS_PORT") or 6379
    if not isinstance(host, str):
        raise ConfigError(f"{where}: CACHE_REDIS_HOST: a client object; write the host's name, or CACHE_REDIS_URL")
    return f"redis://{login}{_bracketed(host)}:{port}/{db}"


def _bracketed(host: object) -> str:
    """A host as URLs have it: an address of IPv6 in brackets."""
    text = str(host)
    return f"[{text}]" if ":" in text and not text.startswith("[") else text


def _namespace(prefix: Any, where: str) -> str:
    if callable(prefix):
        raise ConfigError(f"{where}: CACHE_KEY_PREFIX: a callable; keys have one prefix, so write a text")
    text = str(prefix)
    try:
        return check_name(text)
    except ValueError:  # no name for us: what is left of it, and what tells it from others of which the same is left
        name = re.sub(r"[^A-Za-z0-9]+", "_", text).lstrip("_0123456789").rstrip("_")[:48]
        digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        return f"{name or 'flask_cache'}-{digest}"
