"""What an endpoint returned, as the response that its framework would make of it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

from starlette.background import BackgroundTasks
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from cachekit.http import messages, page
from cachekit.integrations.starlette.messages import OWN_RESPONSE, fields_of, nobody
from cachekit.integrations.starlette.reads import reads_of

NOTHING_OVERRIDDEN: Final = SimpleNamespace(dependency_overrides={})
VALUE: Final = "cachekit.value"
SAME: Final = (
    "response_model", "status_code", "response_class", "response_model_include", "response_model_exclude",
    "response_model_by_alias", "response_model_exclude_unset", "response_model_exclude_defaults",
    "response_model_exclude_none",
)  # fmt: skip


class Rendering:
    """How one route of FastAPI makes responses; of Starlette's, whose endpoints return them, nothing is known."""

    def __init__(self, route: Any) -> None:
        self.route = route  # kept alive, as its id is what this is found by
        provider = getattr(route, "dependency_overrides_provider", None)
        self.provider: Any = NOTHING_OVERRIDDEN if provider is None else provider
        self.overrides = dict(self.provider.dependency_overrides)  # as long as these are in force, this is right
        self.reads = reads_of(getattr(route, "dependant", None), self.overrides)
        self._handler: Callable[[Request], Any] | None = None

    async def of(self, request: Request, value: Any, injected: Response | None) -> Response | None:
        """The response; None if this is no route of FastAPI's and the value no response."""
        if isinstance(value, Response):
            return value
        if not hasattr(self.route, "response_model"):
            return None
        if self._handler is None:
            self._handler = _handler_like(self.route)
        scope = {**request.scope, VALUE: (value, injected)}
        response: Response = await self._handler(Request(scope, nobody()))
        return response


def route_of(scope: Scope) -> Any:
    """The route that handles a request; in a router that was included, what it is there."""
    inside = scope.get("fastapi")  # since routes are shared between routers
    context = inside.get("effective_route_context") if isinstance(inside, dict) else None
    return context or scope.get("route")


def _handler_like(route: Any) -> Callable[[Request], Any]:
    """What FastAPI itself would make of values that the endpoint of a route returns: a route that renders alike, and
    whose endpoint returns the value that lies in the scope."""
    from fastapi.routing import APIRoute

    async def given(request: Request, response: Response) -> Any:
        value, injected = request.scope[VALUE]
        if injected is not None:
            response.status_code = injected.status_code
            response.raw_headers.extend(injected.raw_headers)
        return value

    return APIRoute("/", given, **{name: getattr(route, name) for name in SAME}).get_route_handler()


def is_whole(response: Response) -> bool:
    """Whether all of a response is at hand: no stream, no file, nothing that goes on after it."""
    body = getattr(response, "body", None)
    sends_itself = type(response).__call__ is Response.__call__ or type(response).__module__.startswith("starlette.")
    return isinstance(body, (bytes, memoryview)) and sends_itself and not _has_tasks(response.background)


def _has_tasks(background: Any) -> bool:
    return len(background.tasks) > 0 if isinstance(background, BackgroundTasks) else background is not None


def as_message(response: Response, *, own: bool) -> messages.Response:
    """A whole response, as the policy sees it. ``own``: it was made by an endpoint or a handler, not by FastAPI."""
    fields = fields_of(response.raw_headers)
    if own:
        fields = (*fields, OWN_RESPONSE)
    return page.dated_by_server(messages.Response(response.status_code, fields, bytes(response.body)))
