"""What dependencies say of the response to their request: in the headers of the one that FastAPI hands them."""

from typing import Final

from starlette.responses import Response

from cachekit.http import conditional, messages, policy
from cachekit.integrations.starlette.messages import OWN_RESPONSE, fields_of

OURS: Final = frozenset({"cache-control", "expires", "vary", "etag", "date", "age", "x-cache", "cache-status"})


def says(injected: Response | None) -> bool:
    """Whether they say anything."""
    return injected is not None and bool(injected.raw_headers)


def why_around(injected: Response | None, user: str | None) -> str:
    """Why they keep their request out of the cache; empty if they do not."""
    if injected is None or not says(injected):
        return ""
    found = policy.response_directives(messages.Response(200, fields_of(injected.raw_headers), b""))
    forbidding = ("no-store", "no-cache", "private") if user is None else ("no-store", "no-cache")
    return next((name for name in forbidding if name in found), "")


def without_conditions(request: messages.Request) -> messages.Request:
    """The request as the cache is asked then: `answer_with` has to see the whole page."""
    fields = tuple(line for line in request.fields if line[0] not in conditional.CONDITIONS)
    return request._replace(fields=fields)


def answer_with(
    page: messages.Response, injected: Response | None, request: messages.Request, now: float
) -> messages.Response:
    """A kept page with their headers, if FastAPI made it; it drops them where the endpoint makes a response itself."""
    if injected is None or not says(injected):
        return page
    response = conditional.not_modified(page) if conditional.unchanged(request, page, now) else page
    if OWN_RESPONSE in page.fields:
        return response
    own = [line for line in fields_of(injected.raw_headers) if line[0] not in OURS]
    names = {name for name, _ in own}
    return response._replace(fields=(*[line for line in response.fields if line[0] not in names], *own))
