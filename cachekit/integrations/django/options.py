"""What the settings of django-redis and django-valkey mean here: each is mapped, refused, or does nothing and says so.

Pure: takes the options of one alias, or Django's settings, and returns what they say.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode

from cachekit.config.options import suggest
from cachekit.config.spec import BackendSpec
from cachekit.errors import ConfigError

PACKAGES: Final = ("django_redis", "django_valkey")
CLIENTS: Final = ("DefaultClient", "HerdClient", "SentinelClient")
POOLS: Final = ("ConnectionPool", "BlockingConnectionPool", "SentinelConnectionPool")
FACTORIES: Final = ("ConnectionFactory", "SentinelConnectionFactory")
SERIALIZERS: Final = {"JSONSerializer": "json", "MSGPackSerializer": "msgpack", "MsgSpecMsgPackSerializer": "msgpack"}
COMPRESSORS: Final = {"IdentityCompressor": "none", "Lz4Compressor": "lz4", "ZStdCompressor": "zstd"}
OTHER_COMPRESSORS: Final = (
    "ZlibCompressor", "GzipCompressor", "LzmaCompressor", "BrotliCompressor", "Bz2Compressor",
)  # fmt: skip
BUDGET: Final = BackendSpec().budget  # seconds that one step takes at most unless the options ask for less
BUDGET_MIN: Final = BackendSpec().budget_min

NEVER_RAISES: Final = "A server that is away is never an exception: every call goes on without it."
OWN_CONNECTIONS: Final = "cachekit has connections and a parser of its own."
NO_REPLICAS: Final = "cachekit reads from the primary, so that nobody gets back what was deleted."
STAYS_OPEN: Final = "Connections stay open for the process and per event loop."
NO_PICKLE: Final = "Values are stored without pickle."


@dataclass(slots=True)
class Meaning:
    """What the options of one alias say: a URL, keys of its backend and its profile, and what does nothing."""

    url: str | None = None
    backend: dict[str, Any] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    idle: dict[str, str] = field(default_factory=dict)  # option -> why it does nothing here


def read(options: Mapping[str, Any], url: str | None) -> Meaning:
    """The meaning of the options that are django-redis's, for a server at ``url``. Raises ConfigError."""
    meaning = Meaning(url)
    for name in sorted(READERS.keys() & options.keys()):
        READERS[name](name, options[name], meaning)
    if url is not None and (options.get("USERNAME") or options.get("PASSWORD")):
        meaning.url = _with_login(meaning.url or url, options.get("USERNAME"), options.get("PASSWORD"))
    return meaning


def sentinel_url(location: object, sentinels: Any, login: Any) -> str:
    """The URL for a LOCATION that names a service, and SENTINELS that know where it is. Raises ConfigError."""
    written = location if isinstance(location, (list, tuple)) else str(location).split(",")
    urls = [str(url).strip() for url in written]
    masters = [
        url for url in urls if dict(parse_qsl(url.partition("?")[2])).get("is_master", "1") not in ("0", "false")
    ]
    if not masters:
        raise ConfigError("LOCATION: only replicas (is_master=0), and cachekit reads from the primary; leave it out")
    scheme, _, rest = masters[0].partition("://")
    place, _, query = rest.partition("?")
    credentials, at, service = place.rpartition("@")
    try:
        hosts = ",".join(f"[{host}]:{port}" if ":" in str(host) else f"{host}:{int(port)}" for host, port in sentinels)
    except (TypeError, ValueError):
        raise ConfigError("OPTIONS['SENTINELS']: not a list of (host, port)") from None
    words = [pair for pair in parse_qsl(query) if pair[0] != "is_master"]
    words += [(f"sentinel_{name}", str(value)) for name, value in _sentinel_login(login)]
    return f"{scheme}+sentinel://{credentials}{at}{hosts}/{service}" + (f"?{urlencode(words)}" if words else "")


def of_settings(settings: Any) -> Iterator[tuple[str, str, str]]:
    """The global settings that django-redis has: ``(name, what is wrong, remedy)`` for those that do nothing here."""
    for name in sorted(dir(settings)):
        kind, _, rest = name.partition("_REDIS_" if name.startswith("DJANGO_REDIS_") else "_VALKEY_")
        if kind == "DJANGO" and rest and name.isupper():
            if rest not in SETTINGS:
                known = [f"{name.removesuffix(rest)}{each}" for each in SETTINGS]
                yield (
                    name,
                    f"is no setting that cachekit knows{suggest(name, known)}",
                    "Remove it, or correct its name.",
                )
            elif remedy := SETTINGS[rest](getattr(settings, name)):
                yield name, "does nothing.", remedy
        elif name == "CACHE_HERD_TIMEOUT":
            yield name, "does nothing.", HERD


# One option each: notes what it means, or raises ConfigError.

Reader = Callable[[str, Any, Meaning], None]


def _accepted(name: str, value: Any, meaning: Meaning) -> None:
    """It says what is so anyway, or is read elsewhere."""


def _does_nothing(why: str, unless: Any = None) -> Reader:
    def read(name: str, value: Any, meaning: Meaning) -> None:
        if value != unless:
            meaning.idle[name] = why

    return read


def _one_of(known: tuple[str, ...], remedy: str) -> Reader:
    """A class of django-redis or of redis-py that does what cachekit does by itself."""

    def read(name: str, value: Any, meaning: Meaning) -> None:
        if _class_name(value) not in known:
            raise ConfigError(f"OPTIONS[{name!r}]: {_shown(value)} cannot be used: {remedy}")

    return read


def _empty(remedy: str) -> Reader:
    def read(name: str, value: Any, meaning: Meaning) -> None:
        if value:
            raise ConfigError(f"OPTIONS[{name!r}]: {remedy}")

    return read


def _time_limit(name: str, value: Any, meaning: Meaning) -> None:
    """How long is waited at most: what cachekit allows a step is less, unless even less is asked for."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise ConfigError(f"OPTIONS[{name!r}]: not a number of seconds above 0")
    budget = min(float(value), meaning.backend.get("budget", BUDGET))
    if budget < BUDGET:
        meaning.backend |= {"budget": budget, "budget_min": min(budget, BUDGET_MIN)}


def _serializer(name: str, value: Any, meaning: Meaning) -> None:
    if _class_name(value) == "PickleSerializer":
        meaning.idle[name] = NO_PICKLE + " To keep it: 'serializer': 'pickle' with 'sign': True."
    elif serializer := SERIALIZERS.get(_class_name(value)):
        meaning.profile["serializer"] = serializer
    else:
        raise ConfigError(
            f"OPTIONS[{name!r}]: {_shown(value)} cannot be used: register it as an entry point of cachekit.serializers "
            "and name it in OPTIONS['serializer']"
        )


def _compressor(name: str, value: Any, meaning: Meaning) -> None:
    if (compressor := _class_name(value)) in OTHER_COMPRESSORS:
        meaning.profile["compression"] = "lz4"
    elif compressor in COMPRESSORS:
        meaning.profile["compression"] = COMPRESSORS[compressor]
    else:
        raise ConfigError(f"OPTIONS[{name!r}]: {_shown(value)} cannot be used: write 'compression': 'lz4' or 'zstd'")


def _pool(name: str, value: Any, meaning: Meaning) -> None:
    """The arguments of a connection pool of redis-py, which are those of its connections too."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"OPTIONS[{name!r}]: not a dict")
    for key, given in value.items():
        place = f"{name}.{key}"
        if key in ("socket_timeout", "socket_connect_timeout"):
            _time_limit(place, given, meaning)
        elif key == "max_connections":
            meaning.backend["max_connections"] = given
        elif key in TLS:
            meaning.backend.setdefault("tls", {})[TLS[key]] = given
        elif key == "ssl_cert_reqs":
            _certificates(place, given)
        elif key in OF_POOL:
            meaning.idle[place] = OWN_CONNECTIONS
        else:
            raise ConfigError(f"OPTIONS[{place!r}]: cannot be used{suggest(key, (*OF_POOL, *TLS, 'max_connections'))}")


def _certificates(place: str, value: Any) -> None:
    if value not in ("required", 2):  # ssl.CERT_REQUIRED
        raise ConfigError(
            f"OPTIONS[{place!r}]: a certificate is always verified; give the one that signed it as 'ssl_ca_certs', and "
            "'ssl_check_hostname': False if the name in it is another"
        )


HERD: Final = "get_or_set() computes once for all who ask. For stale values meanwhile set 'stale_ttl' and 'swr'."
TLS: Final = {
    "ssl_ca_certs": "ca", "ssl_ca_path": "ca", "ssl_certfile": "cert", "ssl_keyfile": "key",
    "ssl_check_hostname": "check_hostname",
}  # fmt: skip
OF_POOL: Final = frozenset({
    "client_name", "decode_responses", "encoding", "encoding_errors", "health_check_interval", "lib_name",
    "lib_version", "parser_class", "protocol", "retry", "retry_on_error", "retry_on_timeout", "socket_keepalive",
    "socket_keepalive_options", "timeout",
})  # fmt: skip
_client = _one_of(CLIENTS, "for several servers write redis+cluster://host:6379,host:6379/ as LOCATION")
_pool_class = _one_of(POOLS, OWN_CONNECTIONS + " Remove the option.")
_factory = _one_of(FACTORIES, OWN_CONNECTIONS + " Remove the option, or write 'credential_provider' in the backend.")
_redis_client = _one_of(("Redis", "StrictRedis", "Valkey", "StrictValkey"), OWN_CONNECTIONS + " Remove the option.")
_no_arguments = _empty(
    OWN_CONNECTIONS + " Remove the option; TLS, times and limits belong into CONNECTION_POOL_KWARGS."
)

READERS: Final[dict[str, Reader]] = {
    "BASE_CLIENT_CLASS": _redis_client,
    "BASE_CLIENT_KWARGS": _no_arguments,
    "CACHE_HERD_TIMEOUT": _does_nothing(HERD),
    "CLIENT_CLASS": _client,
    "CLOSE_CONNECTION": _does_nothing(STAYS_OPEN, unless=False),
    "COMPRESSOR": _compressor,
    "COMPRESS_ZSTD_OPTIONS": _does_nothing("cachekit compresses at the default level."),
    "CONNECTION_FACTORY": _factory,
    "CONNECTION_POOL_CLASS": _pool_class,
    "CONNECTION_POOL_CLEANUP": _does_nothing(STAYS_OPEN, unless=False),
    "CONNECTION_POOL_KWARGS": _pool,
    "DECOMPRESS_ZSTD_OPTIONS": _does_nothing("cachekit compresses at the default level."),
    "IGNORE_EXCEPTIONS": _does_nothing(NEVER_RAISES, unless=True),
    "LOG_IGNORED_EXCEPTIONS": _accepted,
    "MAX_CONNECTIONS": lambda name, value, meaning: meaning.backend.update(max_connections=value),
    "PARSER_CLASS": _does_nothing(OWN_CONNECTIONS),
    "PASSWORD": _accepted,  # read with the URL
    "PICKLE_VERSION": _does_nothing(NO_PICKLE),
    "REDIS_CLIENT_CLASS": _redis_client,
    "REDIS_CLIENT_KWARGS": _no_arguments,
    "REPLICA_READ_ONLY": _does_nothing(NO_REPLICAS, unless=True),
    "REVERSE_KEY_FUNCTION": _accepted,  # read by keys()
    "SENTINELS": _accepted,  # read with the URL
    "SENTINEL_KWARGS": _accepted,
    "SERIALIZER": _serializer,
    "SOCKET_CONNECT_TIMEOUT": _time_limit,
    "SOCKET_KEEPALIVE": _does_nothing("Connections are kept alive.", unless=True),
    "SOCKET_TIMEOUT": _time_limit,
    "USERNAME": _accepted,  # read with the URL
}

# The global ones, without their prefix: what to do where such a value does nothing, None where it does something.
SETTINGS: Final[dict[str, Callable[[Any], str | None]]] = {
    "CLOSE_CONNECTION": lambda value: STAYS_OPEN if value else None,
    "CONNECTION_FACTORY": lambda value: None if _class_name(value) in FACTORIES else OWN_CONNECTIONS,
    "IGNORE_EXCEPTIONS": lambda value: None if value else NEVER_RAISES,
    "LOGGER": lambda value: "Configure the logger 'cachekit' instead.",
    "LOG_IGNORED_EXCEPTIONS": lambda value: None if value else "Set the level of the logger 'cachekit' instead.",
    "SCAN_ITERSIZE": lambda value: None,
}


def _class_name(path: Any) -> str:
    """The last part of a dotted path, if it is one of the packages that are stood in for; else all of it."""
    if not isinstance(path, str):
        return ""
    known = path.partition(".")[0] in (*PACKAGES, "redis", "valkey")
    return path.rpartition(".")[2] if known else path


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else f"a {type(value).__name__}"


def _sentinel_login(login: Any) -> Iterator[tuple[str, Any]]:
    for name, value in (login or {}).items():
        if name in ("username", "password"):
            yield name, value
        elif name not in OF_POOL and name not in ("socket_timeout", "socket_connect_timeout"):
            raise ConfigError(f"OPTIONS['SENTINEL_KWARGS'][{name!r}]: cannot be used; username and password can")


def _with_login(url: str, username: Any, password: Any) -> str:
    """The URL with the credentials that it does not have itself."""
    scheme, _, rest = url.partition("://")
    credentials, _, place = rest.rpartition("@")
    user, _, secret = credentials.partition(":")
    user, secret = user or quote(str(username or ""), safe=""), secret or quote(str(password or ""), safe="")
    return f"{scheme}://{user}:{secret}@{place}" if secret else f"{scheme}://{user}@{place}"
