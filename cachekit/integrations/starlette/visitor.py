"""Whose request it is, as far as only an application of ASGI can tell."""

import copy
from collections.abc import Iterable
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Scope

from cachekit.http import policy
from cachekit.http.messages import Request
from cachekit.integrations.starlette.reads import ALL


def why_around(scope: Scope, request: Request, user: str | None, *, proxy: bool = False) -> str:
    """Why this request goes around the cache: what the policy says, and what else shows here. Empty if it does not."""
    why = policy.why_bypassed(request, user, proxy=proxy)
    if why:
        return why
    if [name for name, _ in request.fields].count("host") > 1:  # whose page that is, everybody guesses for themselves
        return "host"
    return "user" if user is None and is_somebodys(scope) else ""


def is_somebodys(scope: Scope) -> bool:
    """Whether a middleware has found who sends a request (`request.user`), by whatever it looked at."""
    user = scope.get("user")
    return user is not None and bool(getattr(user, "is_authenticated", True))


def session_of(scope: Scope) -> Any:
    """What is in the session now, to be compared; None without one. Asking is not using it."""
    session = scope.get("session")
    return copy.deepcopy(dict(session)) if session else None


def with_cookies(user: str | None, request: "HTTPConnection[Any]", names: Iterable[str]) -> str | None:
    """Whom a response is for that depends on these cookies, too. Without a user, requests with cookies go around."""
    if user is None or not names:
        return user
    cookies = request.cookies
    found = sorted(cookies.items()) if ALL in names else [(name, cookies.get(name)) for name in names]
    return repr((user, found))
