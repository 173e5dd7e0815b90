"""Conditional requests (RFC 9110 section 13): entity tags, dates, and the 304 that answers them."""

import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from cachekit.http import dates
from cachekit.http.messages import ASIDE, Fields, Request, Response, joined

CONDITIONS: Final = frozenset({"if-none-match", "if-modified-since"})
# RFC 9110 section 15.4.5: what a 304 must tell of the response it stands for.
REPEATED: Final = frozenset({"cache-control", "content-location", "date", "etag", "expires", "vary"})
_MEMBER: Final = re.compile(r'[ \t]*(?:(?:W/)?("[\x21\x23-\x7e\x80-\xff]*"))?[ \t]*(?:,|$)')


def with_tag(response: Response) -> Response:
    """The response with a strong entity tag, made of what it consists of, so that every process makes the same.

    One that has a tag, or is not a 200, stays as it is.
    """
    if response.status != 200 or joined(response.fields, "etag") is not None:
        return response
    digest = sha256()
    for name in ("content-type", "content-encoding", "content-language"):
        value = (joined(response.fields, name) or "").encode("latin-1", "replace")
        digest.update(b"%d:%b" % (len(value), value))
    digest.update(response.body)
    return response._replace(fields=(*response.fields, ("etag", f'"{digest.hexdigest()[:32]}"')))


def unchanged(request: Request, response: Response, now: float) -> bool:
    """Whether the client has this response already (RFC 9110 section 13.2.2, steps 3 and 4)."""
    if response.status != 200 or request.method not in ("GET", "HEAD"):
        return False
    conditions = [line for line in request.fields if line[0] in CONDITIONS]
    if not conditions:  # most requests
        return False
    wanted = [value for name, value in conditions if name == "if-none-match"]
    if wanted:
        return _matches(wanted, joined(response.fields, "etag"))
    since = [value for _, value in conditions]
    if len(since) != 1:
        return False
    asked = dates.parse(since[0], now)
    changed = dates.parse(joined(response.fields, "last-modified") or "", now)
    return asked is not None and changed is not None and changed <= asked


def _matches(wanted: list[str], tag: str | None) -> bool:
    """Weak comparison: what differs in nothing that matters need not be sent again (section 8.8.3.2)."""
    if [item.strip() for item in wanted] == ["*"]:
        return True
    if tag is None:
        return False
    return tag.removeprefix("W/") in {found for value in wanted for found in _opaque(value)}


def _opaque(value: str) -> Iterator[str]:
    """The entity tags of a list without their weakness, up to what is none."""
    at = 0
    while at < len(value) and (match := _MEMBER.match(value, at)):
        at = match.end()
        if match[1] is not None:
            yield match[1]


def not_modified(response: Response) -> Response:
    """The 304 in place of a response. Last-Modified only where there is no entity tag."""
    kept = {*REPEATED, "age", "x-cache", "cache-status", ASIDE}
    if joined(response.fields, "etag") is None:
        kept.add("last-modified")
    fields: Fields = tuple([(name, value) for name, value in response.fields if name in kept])
    return Response(304, fields, b"")
