"""One request and what answers it, as the policy runs it: blocking views in place, async ones in a task."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.core.handlers.exception import response_for_exception
from django.core.signals import got_request_exception
from django.db import connections, transaction
from django.http import Http404, HttpResponseServerError
from django.utils.log import log_response

from cachekit.http import messages, page
from cachekit.http.messages import joined
from cachekit.http.status import Result
from cachekit.integrations.django.messages import completed, fields_of, is_whole, kept_aside, made, marked, request_of
from cachekit.integrations.django.visitors import why_not_for_all

OWN: Final = frozenset({Result.MISS.value, Result.BYPASS.value})  # answers that this exchange's run brought
STATUSES: Final = ((Http404, 404), (PermissionDenied, 403), (BadRequest, 400), (SuspiciousOperation, 400))


class ViewExchange:
    """A request and its view. ``call`` runs the view with its arguments.

    ``errors``: statuses of exceptions that are made pages here, to be kept.
    """

    def __init__(
        self, native: Any, call: Callable[[], Any], *, user: str | None, errors: frozenset[int] = frozenset()
    ) -> None:
        self.native = native
        self.server_dates = hasattr(native, "scope")  # servers of ASGI write a Date, always
        self.call = call
        self.request = request_of(native)
        self.user = user
        self.errors = errors
        self.response: Any = None  # what the view answered
        self.raised: Exception | None = None
        self.why = ""  # its response has nothing to do with the cache
        self._mark()

    def _mark(self) -> None:
        """The last exchange of a request to begin is the one whose rules count: that of the view itself."""
        self.native.cachekit_exchange = self

    @property
    def answered_inside(self) -> bool:
        """Whether a view with rules of its own has answered."""
        return self.native.cachekit_exchange is not self

    async def origin(self) -> messages.Response | None:
        """Run the view. None: its response is not for the cache, which ``why`` says."""
        self.response = self.raised = None
        self.why = ""
        try:
            response = await self.rendered()
        except Exception as error:
            status = _status_of(error)
            if status not in self.errors:
                self.raised = error
                return messages.Response(status, (("cache-control", "no-store"),), b"")  # for this visitor alone
            response = await self.page_of(error)
        self.response = response
        if self.answered_inside:
            return None
        self.why = why_not_for_all(self.native, self.user) if is_whole(response) else "stream"
        aside = () if self.why else kept_aside(response)
        if aside is None:
            self.why = "attributes"
        if self.why:
            return None
        found = messages.Response(response.status_code, (*fields_of(response), *(aside or ())), response.content)
        return page.dated_by_server(found) if self.server_dates else found

    async def answered(self, answer: messages.Response | None) -> Any:
        """What Django gets. Raises what the view raised, unless a kept page stands in for it."""
        mine = answer is None or joined(answer.fields, "x-cache") in OWN
        if mine and self.raised is not None:
            raise self.raised
        if self.raised is not None:
            await self.report(self.raised)
        if answer is None:
            return self.passed(self.response, self.why)
        if self.server_dates:
            answer = page.sent_by_server(self.request, answer)
        if mine and self.response is not None:
            return completed(self.response, answer)
        return made(answer)

    def passed(self, response: Any, why: str) -> Any:
        """A response that went around the cache."""
        return response if self.answered_inside else marked(response, why)

    async def run(self) -> Any:
        """What the view returns."""
        return self.call()

    async def rendered(self) -> Any:
        """The same as a response with its content."""
        with _undone_if_it_raises():
            response = self.call()
            return response.render() if _waits_for_rendering(response) else response

    async def page_of(self, error: Exception) -> Any:
        """What Django makes of an exception."""
        return response_for_exception(self.native, error)

    async def report(self, error: Exception) -> None:
        """Tell of an exception that a page stands in for, as Django does of one that it makes a page of."""
        _report(self.native, error)

    def leave(self) -> None:
        """The request was cancelled."""


class AsyncViewExchange(ViewExchange):
    """The same of an async view."""

    _task: "asyncio.Task[Any] | None" = None  # in which the view runs

    async def run(self) -> Any:
        return await self.call()

    async def rendered(self) -> Any:
        """As above; templates and pages of errors are made in a thread, as Django does."""
        self._task = asyncio.current_task()
        response = await self.call()
        return await sync_to_async(response.render)() if _waits_for_rendering(response) else response

    async def page_of(self, error: Exception) -> Any:
        return await sync_to_async(response_for_exception, thread_sensitive=False)(self.native, error)

    async def report(self, error: Exception) -> None:
        await sync_to_async(_report, thread_sensitive=False)(self.native, error)

    def leave(self) -> None:
        """What belongs to the request ends with it, so who else waits runs the view with what is theirs."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()


@contextmanager
def _undone_if_it_raises() -> Iterator[None]:
    """Where a request is a transaction, what a view wrote that raises is undone, though its exception goes no further:
    before the page of that is made, as if it had."""
    with ExitStack() as stack:
        for connection in connections.all(initialized_only=True):
            if connection.settings_dict["ATOMIC_REQUESTS"] and connection.in_atomic_block:
                stack.enter_context(transaction.atomic(using=connection.alias))
        yield


def _report(request: Any, error: Exception) -> None:
    try:
        raise error  # those who listen ask which exception is being handled
    except Exception:
        got_request_exception.send(sender=None, request=request)
        page = HttpResponseServerError()  # which nobody gets
        log_response("%s: %s", page.reason_phrase, request.path, response=page, request=request, exception=error)


def _status_of(error: Exception) -> int:
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def _waits_for_rendering(response: Any) -> bool:
    return callable(getattr(response, "render", None)) and not getattr(response, "is_rendered", True)
