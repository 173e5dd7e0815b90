"""What is kept of a response, under which key, and what is made of it for an answer."""

from collections.abc import Collection
from hashlib import sha256
from string import hexdigits
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import unquote_to_bytes

from cachekit.http import dates, policy
from cachekit.http.messages import Fields, Request, Response, host_of, joined
from cachekit.http.policy import Life, kept_fields

FORMAT: Final = 2  # of keys and of what is kept
# Whose values mean the same in any case (RFC 9110 sections 12.5.3 and 12.5.4).
CASELESS: Final = frozenset({"accept-encoding", "accept-language"})
# In place of a Date, where neither the application writes one nor we, but the server, always: two would say different
# things (RFC 9110 section 5.3). It is not sent. How old a page is, its Age tells.
SERVERS_DATE: Final = ("date", "")
PERCENT: Final = ord("%")
ENCODED: Final = {(one + other).encode(): int(one + other, 16) for one in hexdigits for other in hexdigits}

# status, fields, body, when it was kept, its age then, seconds it is fresh, swr, on error, strict
Kept: TypeAlias = tuple[int, Fields, bytes, float, float, float, float | None, float | None, bool]


class Target(NamedTuple):
    """What a request asks for, without what the response may vary by."""

    format: int
    scheme: str
    host: str
    path: str
    query: bytes
    user: str


def target(request: Request, user: str | None, *, query: bool = True) -> Target:
    """The key of a page. HEAD is answered from what GET kept. ``query``: whether it matters.

    The path stays as it was written: ``/a%2Fb`` and ``/a/b`` may be two pages.
    """
    asked = sorted_query(request.query) if query else b""
    host = host_of(request.scheme, request.host)
    return Target(FORMAT, request.scheme, host, request.path, asked, "" if user is None else _digest(user))


def open_key(scheme: str, host: str, path: str, query: bytes) -> tuple[Any, ...]:
    """`target` and `variant` of a request that is nobody's, for a page that varies by nothing."""
    return FORMAT, scheme, host_of(scheme, host), path, sorted_query(query), "", ""


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sorted_query(query: bytes) -> bytes:
    """The query in order of the parameters' names; those of one name keep their order, which has a meaning."""
    if b"&" not in query:
        return query
    parameters: list[bytes] = query.split(b"&")
    parameters.sort(key=_name)
    return b"&".join(parameters)


def _name(parameter: bytes) -> bytes:
    return unquote_to_bytes(parameter.partition(b"=")[0].replace(b"+", b" "))


def variant(request: Request, names: Collection[str]) -> str:
    """A digest of the values of the request fields that a page varies by (RFC 9111 section 4.1); empty without any.

    Only a digest, since they may be cookies, and lie beside the page.
    """
    if not names:
        return ""
    return _digest(repr([(name, _normal(name, joined(request.fields, name))) for name in names]))


def _normal(name: str, value: str | None) -> str | None:
    """A value as others write it who mean the same: white space around commas, and case where it does not matter."""
    if value is None or '"' in value:  # quoted text means what it says
        return value
    value = ",".join(part.strip(" \t") for part in value.split(","))
    return value.lower() if name in CASELESS else value


def keep(response: Response, life: Life, now: float, age: float) -> Kept:
    """What is kept: plain data."""
    return (
        response.status, kept_fields(response.fields), response.body, now, age, life.fresh, life.swr, life.on_error,
        life.strict,
    )  # fmt: skip


class Page(NamedTuple):
    """A kept response, looked at now."""

    response: Response
    age: float
    fresh_for: float  # below 0: stale since
    swr: float | None
    on_error: float | None
    strict: bool


def look(kept: Kept, now: float) -> Page:
    """A kept response as an answer; its Age is made anew (RFC 9111 section 5.1)."""
    status, fields, body, _, _, _, swr, on_error, strict = kept
    age, fresh_for = ages(kept, now)
    return Page(Response(status, aged(fields, age), body), age, fresh_for, swr, on_error, strict)


def aged(fields: Fields, age: float) -> Fields:
    """The fields of a kept response with its age."""
    return (*fields, ("age", str(int(age))))


def ages(kept: Kept, now: float) -> tuple[float, float]:
    """Seconds since it was made, and for how many it is still fresh."""
    resident = max(0.0, now - kept[3])
    return kept[4] + resident, kept[5] - resident


def dated(response: Response, now: float) -> Response:
    """With a Date, which an origin with a clock must send (RFC 9110 section 6.6.1)."""
    if joined(response.fields, "date") is not None:
        return response
    return response._replace(fields=(*response.fields, ("date", dates.format(now))))


def dated_by_server(response: Response) -> Response:
    """The response of an application whose server writes the Date, so that it gets none from us."""
    if joined(response.fields, "date") is not None:
        return response
    return response._replace(fields=(*response.fields, SERVERS_DATE))


def sent_by_server(request: Request, response: Response) -> Response:
    """The answer, without the Date of the one that is made without the application: 504 to only-if-cached."""
    if response.status != 504 or not policy.only_kept(policy.asked(request)):
        return response
    return response._replace(fields=tuple([line for line in response.fields if line[0] != "date"]))


def url_tag(scheme: str, host: str, path: str, query: bytes | None) -> str:
    """The tag of every page of a URL; without a query, of every page of a path.

    However both are percent-encoded: servers and references do it differently, and a tag too wide only costs a run.
    """
    asked = b"" if query is None else b"?" + unquote_to_bytes(sorted_query(query).replace(b"+", b" "))
    text = f"{scheme}://{host_of(scheme, host)}".encode("utf-8", "surrogatepass") + _decoded(path) + asked
    return f"http:{sha256(text).hexdigest()[:32]}"


def _decoded(path: str) -> bytes:
    """A path without percent-encoding, however often it was encoded: in one pass from its end, whatever is sent."""
    first, *parts = path.encode("utf-8", "surrogatepass").split(b"%")
    backwards = bytearray()
    for part in reversed(parts):
        backwards += part[::-1]
        byte = PERCENT
        while byte == PERCENT and (encoded := ENCODED.get(bytes(backwards[:-3:-1]))) is not None:
            del backwards[-2:]
            byte = encoded
        backwards.append(byte)
    return first + backwards[::-1]


def tags_of(key: tuple[Any, ...]) -> tuple[str, ...]:
    """The tags of the page that lies under a key: of its URL, and of its path whatever the query."""
    _, scheme, host, path, query, *_ = key
    return url_tag(scheme, host, path, query), url_tag(scheme, host, path, None)
