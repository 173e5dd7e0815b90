"""Where Redis or Valkey servers are and how to get in: the URL and settings of a backend, checked when it is opened."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import SplitResult, parse_qs, unquote

from cachekit.config.spec import BackendSpec, TLSSpec
from cachekit.config.urls import CLUSTER, SENTINEL, TLS_SCHEMES, check_url, split_hosts
from cachekit.errors import ConfigError

QUERY: Final = ("db", "username", "password")
SENTINEL_QUERY: Final = ("sentinel_username", "sentinel_password")  # if Sentinels have credentials of their own
DEFAULT_PORT: Final = 6379
SENTINEL_PORT: Final = 26379


@dataclass(frozen=True, slots=True)
class Address:
    """A server and the way in. ``str()`` is without secrets."""

    kind: str  # tcp | tls | unix
    host: str = "localhost"
    port: int = DEFAULT_PORT
    path: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    provider: Any = None  # of credentials: has get_credentials(), as redis.credentials.CredentialProvider
    context: ssl.SSLContext | None = None
    leads: bool = False  # whether to use it only if it says that it is a primary

    def __str__(self) -> str:
        if self.kind == "unix":
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Group:
    """Several servers and the way in to each of them; ``primary`` is it to one that holds data, but for its host."""

    primary: Address

    @property
    def kind(self) -> str:
        return self.primary.kind

    @property
    def username(self) -> str | None:
        return self.primary.username

    def at(self, host: str, port: int) -> Address:
        """The way in to one that holds data."""
        return replace(self.primary, host=host, port=port)


@dataclass(frozen=True, slots=True)
class Sentinels(Group):
    """Sentinels, which know where the primary of their service is."""

    sentinels: tuple[Address, ...]
    service: str

    def __str__(self) -> str:
        return f"{self.service} of {', '.join(map(str, self.sentinels))}"


@dataclass(frozen=True, slots=True)
class Cluster(Group):
    """Nodes of a cluster, which know the others."""

    nodes: tuple[Address, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.nodes))


Place: TypeAlias = Address | Sentinels | Cluster


def parse(spec: BackendSpec) -> Place:
    """The place in a backend's settings. ConfigError names what is wrong with them. Connects to nothing."""
    scheme, query = checked(spec)
    hosts = split_hosts(spec.url)
    form = scheme.partition("+")[2]
    first = one_address(spec, scheme, hosts[0], query)
    if form == "sentinel":
        return sentinels(spec, first, hosts, query)
    if form == "cluster":
        nodes = tuple(replace(first, host=host, port=port) for host, port in places(hosts, DEFAULT_PORT))
        return Cluster(first, nodes)
    return first


def checked(spec: BackendSpec) -> tuple[str, dict[str, str]]:
    """The scheme and the parameters of the URL."""
    try:
        check_url(spec.url)
    except ValueError as error:
        raise wrong(spec, "url", str(error)) from None
    scheme = spec.url.partition("://")[0].casefold()
    query = {name: values[0] for name, values in parse_qs(split_hosts(spec.url)[0].query).items()}
    known = (*QUERY, *SENTINEL_QUERY) if scheme.endswith(SENTINEL) else QUERY
    if unknown := sorted(set(query) - set(known)):
        raise wrong(spec, "url", f"unknown parameter {unknown[0]!r}; known are {', '.join(known)}")
    if scheme not in TLS_SCHEMES and spec.tls != TLSSpec():
        raise wrong(spec, "tls", "the URL does not ask for TLS; write rediss:// or valkeys://")
    return scheme, query


def one_address(spec: BackendSpec, scheme: str, url: SplitResult, query: Mapping[str, str]) -> Address:
    """The way in to the first host."""
    kind = "unix" if scheme == "unix" else "tls" if scheme in TLS_SCHEMES else "tcp"
    username = spec.username or query.get("username") or unquote(url.username or "") or None
    password = spec.password or query.get("password") or unquote(url.password or "") or None
    if spec.credential_provider and (username or password):
        raise wrong(spec, "credential_provider", "give either this or a username and password")
    db = database(spec, query.get("db") or ("" if kind == "unix" else database_in(scheme, url.path)))
    if scheme.endswith(CLUSTER) and db:
        raise wrong(spec, "url", "a cluster has no other database than 0")
    return Address(
        kind=kind,
        host=unquote(url.hostname or "localhost"),
        port=url.port or DEFAULT_PORT,
        path=unquote(url.path) if kind == "unix" else "",
        db=db,
        username=username,
        password=password,
        provider=provider(spec) if spec.credential_provider else None,
        context=tls_context(spec) if kind == "tls" else None,
        leads=scheme.endswith(SENTINEL),
    )


def database_in(scheme: str, path: str) -> str:
    """In ``/0``, or in ``/mymaster/0``."""
    return path.strip("/").partition("/")[2] if scheme.endswith(SENTINEL) else path.strip("/")


def sentinels(spec: BackendSpec, primary: Address, hosts: list[SplitResult], query: Mapping[str, str]) -> Sentinels:
    """Those that are asked; what is said of credentials means the servers with data, unless it says otherwise."""
    username, password = query.get("sentinel_username"), query.get("sentinel_password")
    if username and not password:
        raise wrong(spec, "url", "sentinel_username without sentinel_password")
    one = replace(primary, db=0, username=username, password=password, provider=None, leads=False)
    service = unquote(hosts[0].path.strip("/").partition("/")[0])
    asked = tuple(replace(one, host=host, port=port) for host, port in places(hosts, SENTINEL_PORT))
    return Sentinels(primary, asked, service)


def places(hosts: list[SplitResult], default: int) -> list[tuple[str, int]]:
    return [(unquote(host.hostname or "localhost"), host.port or default) for host in hosts]


def database(spec: BackendSpec, text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise wrong(spec, "url", f"the database is not a number: {text!r}")
    return int(text)


def provider(spec: BackendSpec) -> Any:
    """The credential provider behind a dotted path: an object, or a class or function that makes one."""
    path = spec.credential_provider or ""
    module, _, name = path.replace(":", ".").rpartition(".")
    try:
        found = getattr(import_module(module), name)
        made = found() if isinstance(found, type) or not hasattr(found, "get_credentials") else found
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise wrong(spec, "credential_provider", f"{path!r} cannot be used: {error}") from error
    if not hasattr(made, "get_credentials"):
        raise wrong(spec, "credential_provider", f"{path!r} gives no object with get_credentials()")
    return made


def tls_context(spec: BackendSpec) -> ssl.SSLContext:
    """One context for all connections: reading the system's certificates for each would cost it 20 ms."""
    tls = spec.tls
    for name, file in (("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)):
        if file is not None and not Path(file).exists():
            raise wrong(spec, f"tls.{name}", f"there is no file {file!r}")
    if tls.key is not None and tls.cert is None:
        raise wrong(spec, "tls.key", "a key without tls.cert")
    try:
        directory = tls.ca is not None and Path(tls.ca).is_dir()
        context = ssl.create_default_context(cafile=None if directory else tls.ca, capath=tls.ca if directory else None)
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
    except OSError as error:  # of which ssl.SSLError is one
        raise wrong(spec, "tls", str(error)) from error
    context.check_hostname = tls.check_hostname
    return context


def wrong(spec: BackendSpec, key: str, reason: str) -> ConfigError:
    """A mistake in these settings. The URL itself is never shown, since it may carry a password."""
    origin = f" ({spec.url_origin})" if key == "url" and spec.url_origin else ""
    return ConfigError(f"[backends.{spec.name}] {key}{origin}: {reason}")
