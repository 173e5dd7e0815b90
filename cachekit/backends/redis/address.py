"""Where a Redis or Valkey server is and how to get in: the URL and settings of a backend, checked when it is opened."""

import ssl
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from cachekit.config.spec import BackendSpec, TLSSpec
from cachekit.errors import ConfigError

SCHEMES: Final = {"redis": "tcp", "valkey": "tcp", "rediss": "tls", "valkeys": "tls", "unix": "unix"}
QUERY: Final = ("db", "username", "password")
DEFAULT_PORT: Final = 6379


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

    def __str__(self) -> str:
        return self.path if self.kind == "unix" else f"{self.host}:{self.port}"


def parse(spec: BackendSpec) -> Address:
    """The address in a backend's settings. ConfigError names what is wrong with them. Connects to nothing."""
    try:
        url = urlsplit(spec.url)
        port = url.port
    except ValueError as error:
        raise wrong(spec, "url", str(error)) from None
    kind = SCHEMES.get(url.scheme)
    if kind is None:
        shown = f"{url.scheme}://" if url.scheme else "a URL without a scheme"
        raise wrong(spec, "url", f"{shown}; known are {', '.join(f'{name}://' for name in SCHEMES)}")
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    if unknown := sorted(set(query) - set(QUERY)):
        raise wrong(spec, "url", f"unknown parameter {unknown[0]!r}; known are {', '.join(QUERY)}")
    if kind == "unix" and not url.path:
        raise wrong(spec, "url", "no path of the socket; write unix:///run/redis.sock")
    if kind != "tls" and spec.tls != TLSSpec():
        raise wrong(spec, "tls", "the URL does not ask for TLS; write rediss:// or valkeys://")
    username = spec.username or query.get("username") or unquote(url.username or "") or None
    password = spec.password or query.get("password") or unquote(url.password or "") or None
    if spec.credential_provider and (username or password):
        raise wrong(spec, "credential_provider", "give either this or a username and password")
    return Address(
        kind=kind,
        host=unquote(url.hostname or "localhost"),
        port=port or DEFAULT_PORT,
        path=unquote(url.path) if kind == "unix" else "",
        db=database(spec, query.get("db") or ("" if kind == "unix" else url.path.strip("/"))),
        username=username,
        password=password,
        provider=provider(spec) if spec.credential_provider else None,
        context=tls_context(spec) if kind == "tls" else None,
    )


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
