"""What `cached_response` and `CacheMiddleware` are given by their users, in terms of Starlette."""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from starlette.requests import Request

from cachekit.http.declared import Checked, checked_tags, checked_user, rules_of, tags_of

__all__ = ["Checked", "PerUser", "Tags", "checked_tags", "rules_of", "tags_of", "user_of"]

PerUser: TypeAlias = Callable[[Request], "str | Awaitable[str | None] | None"]
Tags: TypeAlias = "Iterable[str] | Callable[[Request], Iterable[str]]"


async def user_of(per_user: PerUser | None, request: Request) -> str | None:
    """Whom the response to a request is for; None if nobody says."""
    if per_user is None:
        return None
    user = per_user(request)
    if inspect.isawaitable(user):
        user = await user
    return checked_user(user)
