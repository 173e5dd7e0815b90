"""Requests and responses of ASGI as the caching policy sees them, and back."""

import asyncio
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

from starlette.types import Message, Receive, Scope, Send

from cachekit.http import page, short
from cachekit.http.conditional import CONDITIONS
from cachekit.http.messages import Fields, Request, Response

Raw = list[tuple[bytes, bytes]]

# On pages that an endpoint or a handler made itself as a response: what dependencies say in headers does not join them.
OWN_RESPONSE: Final = ("cachekit-response", "")
UNSENT: Final = frozenset({page.SERVERS_DATE[0], OWN_RESPONSE[0]})  # without a value

LOOKED_AT_RAW: Final = frozenset(name.encode() for name in short.LOOKED_AT)
NO_CONDITIONS: Final = frozenset(name.encode() for name in CONDITIONS)


def request_of(scope: Scope) -> Request:
    """What the policy must know of a request."""
    fields = fields_of(scope["headers"])
    named = dict(reversed(fields))  # of several lines the first, as the application reads them
    return Request(
        scope["method"],
        scope.get("scheme", "http"),
        named.get("host") or _server(scope),
        key_path(path_of(scope), scope.get("raw_path") or b""),
        scope.get("query_string", b""),
        fields,
        named.get("content-length", "0") != "0" or "transfer-encoding" in named,
    )


def key_of(scope: Scope) -> tuple[Any, ...] | None:
    """The key of the page that an ordinary request asks for; None if it is none (`cachekit.http.short`)."""
    if scope["method"] != "GET":
        return None
    headers = scope["headers"]
    named = dict(headers)
    if not b"".join(named).islower():  # no server of today
        named = {name.lower(): value for name, value in headers}
    if not LOOKED_AT_RAW.isdisjoint(named) or len(named) != len(headers):  # a field twice: Host perhaps
        return None
    host, path, raw = named.get(b"host"), scope["path"], scope.get("raw_path") or b""
    if b"%" in raw or "%" in path or scope.get("root_path"):  # few; the others are in keys as they are
        path = key_path(path_of(scope), raw)
    return page.open_key(
        scope.get("scheme", "http"),
        host.decode("latin-1") if host else _server(scope),
        path,
        scope.get("query_string", b""),
    )


def fields_of(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    return tuple([(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers])


def raw_of(fields: Fields) -> Raw:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields if value or name not in UNSENT]


def raw_of_hit(hit: short.Hit) -> Raw:
    """A list of its own for each answer: middleware adds to it."""
    return list(_raw_of_hit(hit.kept, hit.age, hit.ttl))


@lru_cache(1000)
def _raw_of_hit(kept: Fields, age: int, ttl: int) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(raw_of(short.fields_of(kept, age, ttl)))


def _server(scope: Scope) -> str:
    host, port = scope.get("server") or ("", None)
    return host if port is None else f"{host}:{port}"


def path_of(scope: Scope) -> str:
    """The path that the client asked for. Most servers tell it with the mount point in front, some without."""
    path: str = scope["path"]
    root: str = scope.get("root_path") or ""
    if not root:  # most servers
        return path
    root = root.rstrip("/")
    return path if not root or path == root or path.startswith(f"{root}/") else root + path


def inner_path(scope: Scope) -> str:
    """The path as the routes of the application see it, without where it is mounted."""
    root: str = scope.get("root_path", "").rstrip("/")
    return path_of(scope).removeprefix(root) or "/"


def key_path(path: str, raw: bytes) -> str:
    """The path in keys and tags: decoded but for %, so that it is like no other; where decoding would make two paths
    one, as it came."""
    if b"%" in raw and (b"%2f" in raw.lower() or "\ufffd" in path):
        return raw.partition(b"?")[0].decode("latin-1")
    return path.replace("%", "%25")


def key_path_of(reference: str) -> str:
    """As `key_path`, of a path as it is written in a URL."""
    return key_path(unquote(reference), reference.encode("utf-8", "surrogatepass"))


def without_conditions(scope: Scope) -> Scope:
    """A copy of the scope whose application answers in full, since the cache knows what the client has."""
    return {**scope, "headers": [pair for pair in scope["headers"] if pair[0] not in NO_CONDITIONS]}


def again(scope: Scope) -> Scope:
    """A copy of the scope that was kept at the entrance, to run the application with once more."""
    copy = without_conditions(scope)
    if "state" in copy:
        copy["state"] = dict(copy["state"])
    return copy


def nobody() -> Receive:
    """The receiving end of a request whose client is gone, or is not to be asked: an empty body, and then silence."""
    asked = False

    async def receive() -> Message:
        nonlocal asked
        if asked:
            await asyncio.Event().wait()
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive


async def nowhere(message: Message) -> None:
    """The sending end of a request whose client is gone."""


async def send_whole(response: Response, send: Send, *, head: bool) -> None:
    """Send a complete response."""
    await send({"type": "http.response.start", "status": response.status, "headers": raw_of(response.fields)})
    await send({"type": "http.response.body", "body": b"" if head else response.body})
