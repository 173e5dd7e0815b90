"""Requests and responses of Flask as the HTTP policy sees them, and back; what shows that one is a visitor's own."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

from flask import Flask, Request, Response, current_app, request
from flask.globals import request_ctx
from werkzeug.datastructures import Headers

from cachekit.http import control, messages, page, short
from cachekit.http.environ import fields_in, is_plain, quoted, spelt
from cachekit.http.messages import Fields
from cachekit.http.status import Result, told

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_REWRITTEN: Final = frozenset({"location", "content-location"})  # by Werkzeug, as each request needs it
# Of a request, and the field that it is made of: in the request's `vars` once anybody has asked for it.
_NEGOTIATED: Final = {
    "accept_languages": "Accept-Language", "accept_mimetypes": "Accept", "accept_charsets": "Accept-Charset",
    "accept_encodings": "Accept-Encoding",
}  # fmt: skip


class CachedResponse(Response):
    """A response that says how long it may be kept: ``return CachedResponse(make_response(page), timeout=60)``.

    ``timeout`` is in seconds or a duration like "5m"; 0 is for ever, None what the decorator says.
    """

    def __init__(self, response: Response, timeout: Any) -> None:
        self.__dict__.update(vars(response))
        self.timeout = self.cachekit_timeout = timeout


def request_of(request: Request) -> messages.Request:
    """What the policy must know of a request."""
    environ = request.environ
    return messages.Request(
        request.method,
        request.scheme,
        request.host,
        quoted(f"{request.root_path}{request.path}"),
        request.query_string,
        fields_in(environ),
        environ.get("CONTENT_LENGTH", "") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ,
    )


def key_of(request: Request, *, query: bool) -> tuple[Any, ...] | None:
    """The key of the page that an ordinary request asks for; None if it is none (`cachekit.http.short`)."""
    if request.method != "GET" or not is_plain(request.environ):
        return None
    path = quoted(f"{request.root_path}{request.path}")
    return page.open_key(request.scheme, request.host, path, request.query_string if query else b"")


def fields_of(response: Response) -> Fields:
    """The fields of a response."""
    return messages.fields(response.headers.items())


def say_what_was_asked(response: Response) -> None:
    """Name in Vary what this request was asked for: the page may have been chosen by it, and say nothing."""
    asked = vars(current_request())
    said = response.headers.getlist("Vary")
    missing = [name for key, name in _NEGOTIATED.items() if key in asked and name.lower() not in control.names(said)]
    if missing:
        response.headers["Vary"] = ", ".join([*said, *missing])


def is_whole(response: Response) -> bool:
    """Whether its body lies there: a generator is one visitor's, and a file belongs to the server."""
    return response.is_sequence and not response.direct_passthrough


def made(answered: messages.Response) -> Response:
    """A response of the application's own class."""
    kind: Any = current_app.response_class
    response: Response = _ready(kind)([answered.body], status=answered.status, headers=_headers(answered.fields))
    return response


def made_of_hit(hit: short.Hit, app: Flask) -> Response:
    """The same of an ordinary hit."""
    kind: Any = app.response_class
    if kind.__init__ is not Response.__init__:  # which may do anything
        return made(messages.Response(hit.status, short.fields_of(hit.kept, hit.age, hit.ttl), hit.body))
    first = _first(kind, hit.status, hit.kept, hit.age, hit.ttl)
    response = object.__new__(type(first))
    response.__dict__.update(vars(first), headers=_Copied(first.headers), response=[hit.body], _on_close=[])
    return response


@lru_cache(1000)
def _first(kind: Any, status: int, kept: Fields, age: int, ttl: int) -> Response:
    """The first of the responses with these fields, without a body: others are its copies."""
    headers = _headers(short.fields_of(kept, age, ttl))
    response: Response = _ready(kind)([], status=status, headers=headers)
    if isinstance(response, _Ready) and response.go_out_as_they_are():
        response.known = headers
    return response


def _headers(fields: Fields) -> Headers:
    headers = Headers()
    headers[:] = [(spelt(name), value) for name, value in fields]  # all at once takes half the time
    return headers


class _Copied(Headers):
    """A copy of fields that Werkzeug has looked at once: its own copies look at each of them again."""

    def __init__(self, known: Headers) -> None:
        self._list = known._list.copy()


class _Ready(Response):
    """A response whose fields lie there as they go out: Werkzeug would look through all of them and copy each."""

    known: Headers | None = None  # fields of which this is known

    def go_out_as_they_are(self) -> bool:
        known = self.known
        if known is not None and known._list == self.headers._list and self._status_code == 200:
            return True
        names = {name.lower() for name, _ in self.headers}
        return self.status_code == 200 and "content-length" in names and names.isdisjoint(_REWRITTEN)

    def get_wsgi_headers(self, environ: "WSGIEnvironment") -> Headers:
        return self.headers if self.go_out_as_they_are() else super().get_wsgi_headers(environ)


class _Whole(_Ready):
    """One that nothing has to be done for when it has been sent: the server gets the list with its body."""

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        body = cast("list[bytes]", self.response)
        ready = type(body) is list and all(type(part) is bytes for part in body) and self.go_out_as_they_are()
        if not ready or self._on_close or environ["REQUEST_METHOD"] != "GET":
            return super().__call__(environ, start_response)
        start_response(self._status, self.headers._list)
        return body


_OWN_WAYS: Final = ("__call__", "get_wsgi_response", "get_app_iter", "iter_encoded", "close")


@lru_cache(100)
def _ready(kind: Any) -> Any:  # a type is not Hashable to mypy
    """The same for the class of an application, unless that does these things in its own way."""
    if kind.get_wsgi_headers is not Response.get_wsgi_headers:
        return kind
    plain = all(getattr(kind, name) is getattr(Response, name) for name in _OWN_WAYS)
    return type(kind.__name__, (_Whole if plain else _Ready, kind), {"__module__": kind.__module__})


def completed(response: Response, answered: messages.Response) -> Response:
    """The view's own response with what the policy has added to its fields; a 304 in place of it."""
    if answered.status != response.status_code:
        response.close()
        return made(answered)
    told_before = fields_of(response)
    if answered.fields != told_before:
        added = {name for name, _ in set(answered.fields) ^ set(told_before)}
        for name in added:
            response.headers.pop(name, None)
        for name, value in answered.fields:
            if name in added:
                response.headers.add(spelt(name), value)
    return response


def marked(response: Response, why: str) -> Response:
    """A response that has nothing to do with the cache, and says so. A stream or a file stays as it is."""
    if not is_whole(response):
        return response
    return completed(
        response, told(messages.Response(response.status_code, fields_of(response), b""), Result.BYPASS, why=why)
    )


# Whose it is


def session_was_used(context: Any) -> bool:
    """Whether anything in this request looked at the session. Asking by `flask.session` would be looking, too."""
    session = _session(context)
    return bool(getattr(session, "accessed", False) or getattr(session, "modified", False))


def session_was_changed() -> bool:
    """Whether the session goes to the client, as a cookie."""
    return bool(getattr(_session(current_context()), "modified", False))


@contextmanager
def looking_at_session() -> Iterator[None]:
    """Look at the session of whoever shows no cookie, to learn who it is, without using it for the page."""
    context = current_context()
    session, before = _session(context), session_was_used(context)
    yield
    if not before and session is not None and not session_was_changed() and "Cookie" not in request.headers:
        session.accessed = False


def _session(context: Any) -> Any:
    state = vars(context)
    return state.get("_session", state.get("session"))


def waiting_functions() -> int:
    """How many functions `flask.after_this_request` has collected."""
    return len(getattr(current_context(), "_after_request_functions", ()))


def current_context() -> Any:
    """The context of the request itself: each look through a proxy costs as much as several at it."""
    return request_ctx._get_current_object()  # type: ignore[attr-defined]  # a LocalProxy


def current_request() -> Request:
    """The request itself, as `current_context`."""
    return request._get_current_object()  # type: ignore[attr-defined,no-any-return]  # a LocalProxy


def is_view_of_request(context: Any, wrapper: object, args: tuple[Any, ...]) -> bool:
    """Whether Flask calls ``wrapper`` to answer this request, by itself, inside other decorators, or as a method."""
    view: Any = context.app.view_functions.get(context.request.endpoint)
    while view is not None:
        if view is wrapper:
            return True
        view_class = getattr(view, "view_class", None)
        if view_class is not None and args and isinstance(args[0], view_class):
            return True
        view = getattr(view, "__wrapped__", None)
    return False
