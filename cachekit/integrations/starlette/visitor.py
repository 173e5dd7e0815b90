"""Whose request it is, as far as only an application of ASGI can tell."""

from cachekit.http import policy
from cachekit.http.messages import Request, values_of


def why_around(request: Request, user: str | None, *, proxy: bool = False) -> str:
    """Why this request goes around the cache: what the policy says, and what else shows here. Empty if it does not."""
    why = policy.why_bypassed(request, user, proxy=proxy)
    if not why and len(values_of(request.fields, "host")) > 1:  # whose page that is, everybody guesses for themselves
        return "host"
    return why
