"""What the handlers of an application answer to an exception of an endpoint.

The policy has to know it before the exception has passed through the dependencies. When it then arrives at the
handlers, they are not run a second time.
"""

import inspect
from typing import Any, Final, NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

HANDLERS: Final = "starlette.exception_handlers"  # in the scope, by Starlette: those by type, and those by status
ANSWER: Final = "cachekit.answer"  # in the scope: an exception that is on its way to its handler, and the answer


class Answer(NamedTuple):
    error: Exception
    response: Response


async def handled(request: Request, error: Exception) -> Response | None:
    """The response that the application's handler makes of an exception; None if there is none, or it raises."""
    handlers, name = _place_of(request.scope, error)
    if handlers is None:
        return None
    handler = handlers[name]
    if not isinstance(handler, _Once):
        handler = handlers[name] = _Once(handler)
    try:
        response: Response | None = await handler(request, error)
    except Exception:  # and again, when dependencies have seen what they wait for
        return None
    if response is not None:
        answer_with(request.scope, error, response)
    return response


def answer_with(scope: Scope, error: Exception, response: Response) -> None:
    """Let this be the handler's response to an exception that is raised now."""
    scope[ANSWER] = Answer(error, response)


def _place_of(scope: Scope, error: Exception) -> tuple[Any, Any]:
    """Where Starlette finds the handler of an exception: a dict of them, and the key there."""
    by_type, by_status = scope.get(HANDLERS, ({}, {}))
    if isinstance(error, HTTPException) and error.status_code in by_status:
        return by_status, error.status_code
    found = [kind for kind in type(error).__mro__ if kind in by_type]
    return (by_type, found[0]) if found else (None, None)


class _Once:
    """A handler, in its place among the others, that is not run for an exception whose answer is there."""

    def __init__(self, handler: Any) -> None:
        self.handler = handler

    async def __call__(self, request: Any, error: Exception) -> Any:
        known: Answer | None = request.scope.get(ANSWER)
        if known is not None and known.error is error:
            return known.response
        if inspect.iscoroutinefunction(self.handler):
            return await self.handler(request, error)
        response = await run_in_threadpool(self.handler, request, error)
        return await response if inspect.isawaitable(response) else response
