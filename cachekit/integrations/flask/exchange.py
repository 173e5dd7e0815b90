"""One request and the view that answers it: as the policy runs it, and again behind a visitor who has been answered.

Behind a visitor the request is made anew: a copy of its environment goes through the application, so that what a
request prepares and ends (`before_request`, teardown) happens to this one too, and nothing of the visitor's request is
used after its end.
"""

from collections.abc import Callable
from io import BytesIO
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, Request, Response, current_app, request
from werkzeug.exceptions import HTTPException

from cachekit.http import messages, policy
from cachekit.http.answer import ServerError
from cachekit.http.status import Result
from cachekit.integrations.flask import views
from cachekit.integrations.flask.timeouts import seconds_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

AGAIN: Final = "cachekit.again"  # in the environment of a request that is made behind a visitor
OURS: Final = frozenset({Result.MISS.value, Result.BYPASS.value})  # answers that this exchange's run brought
PRIVATE: Final = ("flask.", "werkzeug.")  # names in the environment of what they keep for one request
# Of the visitor's request alone: its body and its conditions.
DROPPED: Final = frozenset({
    "CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_TRANSFER_ENCODING",
    "wsgi.input",
})  # fmt: skip


class ViewExchange:
    """A request and its view. ``call`` runs the view with its arguments."""

    def __init__(
        self, view: object, call: Callable[[], Any], rules: policy.Rules, user: str | None,
        response_filter: Callable[[Any], object] | None = None,
    ) -> None:  # fmt: skip
        self.view = view
        self.call = call
        self.rules = rules
        self.user = user
        self.response_filter = response_filter
        here = views.current_request()
        self.request = views.request_of(here)
        self.native: Response | None = None  # what the view answered
        self.raised: Exception | None = None
        self.why = ""  # its response has nothing to do with the cache
        self._app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # a LocalProxy
        self._thread = get_ident()
        self._environ = dict(here.environ)  # now, since servers and middleware go on with theirs

    async def origin(self) -> messages.Response | None:
        """Run the view; behind the visitor, as a request of its own."""
        return self.run() if get_ident() == self._thread else self._again()

    def run(self) -> messages.Response | None:
        """Run the view here. None: its response is not for the cache, which ``why`` says."""
        self.native = self.raised = None
        self.why = ""
        later = views.waiting_functions()
        try:
            value = self.call()
            response = current_app.make_response(value)
        except HTTPException as error:
            handled = self._raised(error)
            if isinstance(handled, messages.Response):
                return handled
            value = response = handled
        except Exception as error:
            return self._failed(error, 500)
        self.native = response
        self.why = self._why_untouched(value, response, later)
        if self.why:
            return None
        views.say_what_was_asked(response)
        # Of a `CachedResponse`, which may have been made one of the application's class meanwhile.
        ttl = seconds_of(getattr(response, "cachekit_timeout", None))
        return messages.Response(response.status_code, views.fields_of(response), response.get_data(), ttl)

    def _raised(self, error: HTTPException) -> Response | messages.Response:
        """An error that is to be kept is made a response here; others go on their way through the application."""
        status = error.response.status_code if error.response is not None else error.code or 500
        if status not in self.rules.statuses:
            return self._failed(error, status)
        handled = current_app.handle_user_exception(error)
        if isinstance(handled, HTTPException):  # nobody has made a page of it
            handled = handled.get_response(request.environ)
        return current_app.make_response(handled)

    def _failed(self, error: Exception, status: int) -> messages.Response:
        """What stands for an exception, which only its own visitor gets."""
        self.raised = error
        return messages.Response(status, (("cache-control", "no-store"),), b"")

    def _why_untouched(self, value: Any, response: Response, later: int) -> str:
        if not views.is_whole(response):
            return "stream"
        if views.session_was_changed() or (self.user is None and views.session_was_used(views.current_context())):
            return "session"
        if views.waiting_functions() != later:  # what they do to it would be lost
            return "after-this-request"
        if self.response_filter is not None and not self.response_filter(value):
            return "response-filter"
        return ""

    def answered(self, answer: messages.Response | None, result: str) -> Response:
        """What Flask gets. Raises what the view raised, unless a kept page stands in for it."""
        mine = result in OURS
        if mine and self.raised is not None:
            raise self.raised
        if answer is None:
            assert self.native is not None
            return views.marked(self.native, self.why)
        if mine and self.native is not None:
            return views.completed(self.native, answer)
        return views.made(answer)

    # Behind the visitor

    def _again(self) -> messages.Response | None:
        asked = Again(self)
        kept = {name: value for name, value in self._environ.items() if _is_shared(name)}
        environ: WSGIEnvironment = {**kept, "REQUEST_METHOD": "GET", "wsgi.input": BytesIO(), AGAIN: asked}
        with self._app.app_context():  # not the visitor's, of which this thread has a copy
            try:
                # Without the middleware around it, which has done its part to the environment.
                body = type(self._app).wsgi_app(self._app, environ, _nowhere)
                if callable(close := getattr(body, "close", None)):
                    close()
            except Exception:
                if not asked.reached:
                    raise
        if not asked.taken:
            raise ServerError(503, None)  # it was refused, or is for another user by now
        return asked.response


class Again:
    """What a request behind a visitor is made for."""

    def __init__(self, exchange: ViewExchange) -> None:
        self.exchange = exchange
        self.reached = False
        self.taken = False
        self.response: messages.Response | None = None

    def take(self, exchange: ViewExchange) -> Response:
        """Run the view in this request; its response counts if it is still for the same visitors."""
        self.reached = True
        response = exchange.run()
        wanted = self.exchange
        if (exchange.user, exchange.request[1:5]) == (wanted.user, wanted.request[1:5]):
            self.response, self.taken = response, True
        if exchange.raised is not None:
            raise exchange.raised
        assert exchange.native is not None
        return exchange.native


def _is_shared(name: str) -> bool:
    """Whether a part of a request's environment may be used after its end."""
    return name not in DROPPED and not name.startswith(PRIVATE)


def again_of(view: object, request: Request) -> Again | None:
    """What this request is made for, if it is made behind a visitor of this view."""
    asked = request.environ.get(AGAIN)
    return asked if isinstance(asked, Again) and asked.exchange.view is view else None


def _nowhere(status: str, fields: Any, exc_info: Any = None) -> Callable[[bytes], object]:
    return lambda data: None
