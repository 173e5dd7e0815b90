"""Requests and responses of Django as the caching policy sees them, and back."""

import json
from typing import Any, Final

from django.http import HttpResponse
from django.http.response import ResponseHeaders

from cachekit.http import messages
from cachekit.http.environ import fields_in, quoted, spelt
from cachekit.http.messages import ASIDE, Fields
from cachekit.http.page import SERVERS_DATE
from cachekit.http.status import Result, told

COOKIE = "set-cookie"  # lies beside the headers in Django
# Attributes by which decorators tell middleware what to do with a response: of Django, and of django-csp.
SAID: Final = ("xframe_options_", "_csp_")
REASON: Final = "reason_phrase"


def request_of(request: Any) -> messages.Request:
    """What the policy must know of a request. Raises `DisallowedHost`, as Django's own pages do."""
    meta = request.META
    fields = [(name, value) for name, value in fields_in(meta) if name != "cookie" or value]  # a test client's is empty
    return messages.Request(
        request.method,
        request.scheme,
        request.get_host(),
        quoted(request.path),
        _query_of(request),
        tuple(fields),
        meta.get("CONTENT_LENGTH") not in (None, "", "0", 0) or "HTTP_TRANSFER_ENCODING" in meta,
    )


def _query_of(request: Any) -> bytes:
    """The query as it was sent: WSGI hands bytes over as latin-1, Django's ASGI decodes them."""
    query: str = request.META.get("QUERY_STRING", "")
    return query.encode("latin-1" if hasattr(request, "environ") else "utf-8", "replace")


def fields_of(response: Any) -> Fields:
    """The fields of a response, with its cookies."""
    headers = [pair for pair in _headers_of(response) if pair[0] != ASIDE]  # a view must not say it
    return (*headers, *((COOKIE, morsel.OutputString()) for morsel in response.cookies.values()))


def _headers_of(response: Any) -> Fields:
    return messages.fields(response.items())


def kept_aside(response: Any) -> Fields | None:
    """What is no field of a response and has to stay with its page, as one that `made` takes out again; None if that is
    impossible."""
    said = {name: value for name, value in vars(response).items() if name.startswith(SAID)}
    if response._reason_phrase is not None:
        said[REASON] = response.reason_phrase
    try:
        return ((ASIDE, json.dumps(said)),) if said else ()
    except (TypeError, ValueError):
        return None


def is_whole(response: Any) -> bool:
    """Whether its body lies there: a stream is one visitor's, and a file belongs to the server."""
    return isinstance(response, HttpResponse)


def made(answered: messages.Response) -> Any:
    """A response of Django, with no other fields than these."""
    response = HttpResponse(answered.body, status=answered.status)
    sent = {spelt(name): value for name, value in _sent(answered)}
    response.headers = ResponseHeaders(sent)
    for name, value in json.loads(dict(answered.fields).get(ASIDE, "{}")).items():
        if name != REASON or answered.status != 304:
            setattr(response, name, value)
    return response


def completed(response: Any, answered: messages.Response) -> Any:
    """The view's own response with what the policy has added to its fields; a 304 in place of it."""
    if answered.status != response.status_code:
        short = made(answered)
        short._resource_closers.extend(response._resource_closers)  # with `close` the request would end here
        return short
    before = _headers_of(response)
    after = _sent(answered)
    for name in {name for name, _ in before} - {name for name, _ in after}:
        del response[name]
    for name, value in set(after) - set(before):
        response[spelt(name)] = value
    return response


def _sent(answered: messages.Response) -> list[tuple[str, str]]:
    return [pair for pair in answered.fields if pair[0] not in (COOKIE, ASIDE) and pair != SERVERS_DATE]


def marked(response: Any, why: str) -> Any:
    """A response that has nothing to do with the cache, and says so. A stream or a file stays as it is."""
    if not is_whole(response):
        return response
    bare = messages.Response(response.status_code, _headers_of(response), b"")
    return completed(response, told(bare, Result.BYPASS, why=why))
