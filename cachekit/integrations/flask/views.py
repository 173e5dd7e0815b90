"""Which responses of a view may be shared between visitors, under which key, and as which data.

Whatever might be meant for one visitor goes around the cache: a page shown to the wrong person is worse than any number
of misses.
"""

import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import unquote_to_bytes

from flask import Request, Response, current_app, request
from flask.globals import request_ctx

from cachekit.context import current_entry

FORMAT: Final = 1  # of the key and of what is stored

# What only one of many visitors may see, or what depends on headers that are not part of the key.
PERSONAL: Final = frozenset({"no-store", "private", "no-cache"})
UNSHARED: Final = ("Set-Cookie", "Vary", "Content-Encoding")

Stored: TypeAlias = tuple[int, tuple[tuple[str, str], ...], bytes]  # status, headers, body

logger = logging.getLogger("cachekit")


class Page(NamedTuple):
    """The key of a response: what a view may make it of without saying so."""

    format: int
    application: str
    prefix: str
    method: str
    base: str  # scheme, host and where the application is mounted
    path: str
    query: bytes


def page_of(request: Request, prefix: str, *, query_string: bool) -> Page:
    """The key of the response to this request."""
    return Page(
        FORMAT,
        current_app.name,
        prefix,
        request.method,
        f"{request.scheme}://{request.host}{request.root_path}",
        request.path,
        sorted_query(request.query_string) if query_string else b"",
    )


def sorted_query(query: bytes) -> bytes:
    """The query in order of the parameters' names; those of one name keep their order, which has a meaning."""
    parameters = sorted(query.split(b"&"), key=_name)
    return b"&".join(parameters)


def _name(parameter: bytes) -> bytes:
    return unquote_to_bytes(parameter.partition(b"=")[0].replace(b"+", b" "))


def why_personal(request: Request) -> str:
    """Why the response to this request may be meant for one visitor; empty if nothing shows that it is."""
    if request.authorization is not None or "Authorization" in request.headers or request.remote_user:
        return "it is authorised"
    if "Cookie" in request.headers:
        return "it carries a cookie"
    if session_was_used():
        return "the session was used"
    return ""


def may_be_stored(response: Response, later: int) -> bool:
    """Whether everybody may see this response: a complete 200 without anything that is one visitor's.

    ``later`` is the number of functions that wait for the response (`flask.after_this_request`) since before the view
    ran: what they do to it would be lost.
    """
    control = response.cache_control
    return (
        response.status_code == 200
        and response.is_sequence  # a generator is one visitor's, and a file belongs to the server
        and not response.direct_passthrough
        and not any(header in response.headers for header in UNSHARED)
        and not PERSONAL & {str(directive).lower() for directive in control}
        and control.max_age != 0
        and control.s_maxage != 0
        and not session_was_used()
        and waiting_functions() == later
    )


def freeze(response: Response) -> Stored:
    """A response as plain data."""
    return response.status_code, tuple(response.headers.items()), response.get_data()


def thaw(stored: Stored) -> Response:
    """A response of the application's own class."""
    status, headers, body = stored
    return current_app.response_class(body, status=status, headers=list(headers))


def session_was_used() -> bool:
    """Whether anything in this request looked at the session. Asking by `flask.session` would be looking, too."""
    state = vars(_context())
    session = state.get("_session", state.get("session"))
    return bool(getattr(session, "accessed", False) or getattr(session, "modified", False))


def waiting_functions() -> int:
    """How many functions `flask.after_this_request` has collected."""
    return len(getattr(_context(), "_after_request_functions", ()))


def _context() -> object:
    return request_ctx._get_current_object()  # type: ignore[attr-defined]  # a LocalProxy


def answer(cached: Callable[..., Stored | None], page: Page, view: Callable[[], Any]) -> Any:
    """The response from the cache, or the view's own.

    Callers that wait for another visitor's response get it only if everybody may see it; else they run the view.
    """
    mine: list[Response | Exception] = []

    def run() -> Stored | None:
        later = waiting_functions()
        try:
            response = current_app.make_response(view())
        except Exception as error:  # an HTTP error may be meant for one visitor as well
            mine.append(error)
        else:
            mine.append(response)
            if may_be_stored(response, later):
                return freeze(response)
        current_entry().no_store()
        return None

    stored = cached(*page, run)
    if not mine:
        return view() if stored is None else thaw(stored)
    if isinstance(mine[0], Exception):
        raise mine.pop()  # type: ignore[misc]  # it is one
    return mine[0]


def loader(view: Callable[..., Any]) -> Callable[..., Stored | None]:
    """A function with the name of the view, for keys and metrics, that takes the key of a page and a way to make it."""

    def page(
        format: int, application: str, prefix: str, method: str, base: str, path: str, query: bytes,
        run: Callable[[], Stored | None],
    ) -> Stored | None:  # fmt: skip
        return run()

    page.__module__ = getattr(view, "__module__", __name__)
    page.__name__ = getattr(view, "__name__", "view")
    page.__qualname__ = getattr(view, "__qualname__", page.__name__)
    return page


def is_view_of_request(wrapper: object, args: tuple[Any, ...]) -> bool:
    """Whether Flask calls ``wrapper`` to answer this request, by itself, inside other decorators, or as a method."""
    if request.endpoint is None:
        return False
    view: Any = current_app.view_functions.get(request.endpoint)
    while view is not None:
        view_class = getattr(view, "view_class", None)
        if view is wrapper or (view_class is not None and args and isinstance(args[0], view_class)):
            return True
        view = getattr(view, "__wrapped__", None)
    return False
