"""Whose request it is, as far as only an application of ASGI can tell."""

from collections.abc import Iterable
from typing import Any

from starlette.requests import HTTPConnection

from cachekit.http import policy
from cachekit.http.messages import Request, values_of
from cachekit.integrations.starlette.reads import ALL


def why_around(request: Request, user: str | None, *, proxy: bool = False) -> str:
    """Why this request goes around the cache: what the policy says, and what else shows here. Empty if it does not."""
    why = policy.why_bypassed(request, user, proxy=proxy)
    if not why and len(values_of(request.fields, "host")) > 1:  # whose page that is, everybody guesses for themselves
        return "host"
    return why


def with_cookies(user: str | None, request: "HTTPConnection[Any]", names: Iterable[str]) -> str | None:
    """Whom a response is for that depends on these cookies, too. Without a user, requests with cookies go around."""
    if user is None or not names:
        return user
    cookies = request.cookies
    found = sorted(cookies.items()) if ALL in names else [(name, cookies.get(name)) for name in names]
    return repr((user, found))
