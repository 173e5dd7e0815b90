"""What an answer says of the cache: X-Cache for people, Cache-Status (RFC 9211) for machines."""

from enum import Enum
from typing import Final

from cachekit.http.messages import Response

NAME: Final = "cachekit"


class Result(Enum):
    """How a request was answered."""

    HIT = "HIT"
    MISS = "MISS"
    STALE = "STALE"
    BYPASS = "BYPASS"


def told(
    response: Response, result: Result, *, why: str = "", fresh_for: float = 0.0, stored: bool = False
) -> Response:
    """The response with both fields. ``why`` of a bypass or a miss is a bounded word."""
    status = f"{NAME}; {_status(result, why, fresh_for, stored)}"
    before = [value for name, value in response.fields if name == "cache-status"]
    fields = [(name, value) for name, value in response.fields if name not in ("x-cache", "cache-status")]
    fields += [("x-cache", result.value), ("cache-status", ", ".join([*before, status]))]
    return response._replace(fields=tuple(fields))


def _status(result: Result, why: str, fresh_for: float, stored: bool) -> str:
    if result is Result.BYPASS:
        return "fwd=method" if why == "method" else f'fwd=bypass; detail="{why}"'
    if result is Result.MISS:
        kept = "; stored" if stored else ""
        return f"fwd={why or 'uri-miss'}{kept}"
    return f"hit; ttl={int(fresh_for)}"
