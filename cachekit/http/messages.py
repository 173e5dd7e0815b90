"""Requests and responses as the policy sees them: plain data, names of fields in lower case."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

Fields: TypeAlias = tuple[tuple[str, str], ...]

# A field that is never sent: what an integration keeps with a page beside its fields, and takes out again.
ASIDE: Final = "cachekit-aside"
DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


def fields(pairs: Iterable[tuple[str, str]]) -> Fields:
    """Fields with their names in lower case, in the order they came in."""
    return tuple([(name.lower(), value) for name, value in pairs])


def values_of(found: Fields, name: str) -> list[str]:
    """The values of all lines of a field."""
    return [value for each, value in found if each == name]


def joined(found: Fields, name: str) -> str | None:
    """All lines of a field as one (RFC 9110 section 5.3); None if there is none."""
    values = values_of(found, name)
    return ", ".join(values) if values else None


class Request(NamedTuple):
    """What the policy must know of a request."""

    method: str
    scheme: str
    host: str  # with the port, as the client wrote it
    path: str  # with where the application is mounted, percent-encoded as it came, where the server tells
    query: bytes
    fields: Fields
    body: bool = False  # whether it carries one


class Response(NamedTuple):
    """A complete response."""

    status: int
    fields: Fields
    body: bytes
    ttl: float | None = None  # seconds that the route says of this one response, above its fields and the rules


@lru_cache(200)
def host_of(scheme: str, written: str) -> str:
    """A host as it is compared: in lower case, without the port that the scheme means anyway (RFC 9110 section 4.2.3).

    A name that is no host stays a name of its own.
    """
    written = written.lower()
    host, colon, port = written.rpartition(":")
    whole = ":" not in host or host.endswith("]")  # of an address of IPv6
    return host if colon and whole and port in ("", DEFAULT_PORTS.get(scheme)) else written
