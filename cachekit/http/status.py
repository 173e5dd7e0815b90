"""What an answer says of the cache: X-Cache for people, Cache-Status (RFC 9211) for machines."""

from enum import Enum
from typing import Final

from cachekit.http.messages import Response, values_of

NAME: Final = "cachekit"
TOLD: Final = frozenset({"x-cache", "cache-status"})


class Result(Enum):
    """How a request was answered."""

    HIT = "HIT"
    MISS = "MISS"
    STALE = "STALE"
    BYPASS = "BYPASS"


class Miss:
    """Why a request was not answered from the cache (RFC 9211 section 2.2)."""

    URI: Final = "uri-miss"
    VARY: Final = "vary-miss"  # only with other values of the request fields that it varies by
    STALE: Final = "stale"
    REQUEST: Final = "request"  # which wanted something newer
    NOT_ASKED: Final = "only-if-cached"  # the route, since the client did not want that


def told(
    response: Response, result: Result, *, why: str = "", fresh_for: float = 0.0, stored: bool = False
) -> Response:
    """The response with both fields. ``why`` of a bypass or a miss is a bounded word."""
    status = f"{NAME}; {_status(result, why, fresh_for, stored)}"
    fields = response.fields
    if not TOLD.isdisjoint([name for name, _ in fields]):  # further inside: that comes first
        status = ", ".join([*values_of(fields, "cache-status"), status])
        fields = tuple([line for line in fields if line[0] not in TOLD])
    fields = (*fields, ("x-cache", result.value), ("cache-status", status))
    return Response(response.status, fields, response.body, response.ttl)


def _status(result: Result, why: str, fresh_for: float, stored: bool) -> str:
    if result is Result.BYPASS:
        return "fwd=method" if why == "method" else f'fwd=bypass; detail="{why}"'
    if result is Result.MISS and why == Miss.NOT_ASKED:
        return f'detail="{why}"'
    if result is Result.MISS:
        kept = "; stored" if stored else ""
        return f"fwd={why or Miss.URI}{kept}"
    return f"hit; ttl={int(fresh_for)}"
