"""`cached_response`: the responses of one endpoint of FastAPI or Starlette, kept and given again.

The wrapper stands in the endpoint's place, so dependencies run before it on every request, authentication with them.
What the endpoint returns is rendered once, by the framework's own means, and kept as bytes. If FastAPI has to see what
the endpoint itself returned or raised (a stream, background tasks, an exception that dependencies wait for), it does.
"""

import asyncio
import contextlib
import functools
import inspect
import logging
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from cachekit.context import ENTRY, current_entry
from cachekit.engine.miss import MISS
from cachekit.engine.outcome import Outcome
from cachekit.errors import ConfigError
from cachekit.http import messages, page, policy, short
from cachekit.http.answer import Ask, answer
from cachekit.http.status import Result, told
from cachekit.integrations.starlette import failing, injected, rendering, visitor
from cachekit.integrations.starlette.declared import (
    Checked,
    PerUser,
    Tags,
    checked_tags,
    rules_of,
    tags_of,
    user_of,
)
from cachekit.integrations.starlette.installed import own_service
from cachekit.integrations.starlette.messages import (
    Raw,
    again,
    fields_of,
    key_of,
    nobody,
    nowhere,
    raw_of,
    raw_of_hit,
    request_of,
)
from cachekit.integrations.starlette.pages import PATIENT, Made, Pages
from cachekit.integrations.starlette.reads import ALL
from cachekit.integrations.starlette.rendering import Rendering
from cachekit.integrations.starlette.signature import Given, Inputs

if TYPE_CHECKING:
    from cachekit.config.units import Duration

P = ParamSpec("P")
R = TypeVar("R", covariant=True)

ENTRANCE: Final = "cachekit.entrance"  # in the scope: the application, and the scope as it came in
AGAIN: Final = "cachekit.again"  # in the scope of a request that a load makes behind its caller
ANSWERED: Final = "cachekit.answered"  # in the scope: an endpoint has its own rules

logger = logging.getLogger("cachekit")

_any = False  # whether this process may keep pages of endpoints


class CachedEndpoint(Protocol, Generic[P, R]):
    """An endpoint whose responses are kept. Called without a request of its framework, in a test say, it runs the
    function."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def invalidate(self) -> Outcome:
        """Outdate all pages of this endpoint: of every path and every user."""

    async def ainvalidate(self) -> Outcome:
        """As `invalidate`."""


class _Decorator(Protocol):
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CachedEndpoint[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> CachedEndpoint[P, R]: ...


def cached_response(
    *,
    profile: str = "default",
    ttl: "Duration | None" = None,
    vary: Iterable[str] = (),
    tags: Tags = (),
    per_user: PerUser | None = None,
    statuses: Mapping[int, "Duration"] | None = None,
    client_ttl: "Duration" = 0,
) -> _Decorator:
    """Keep the responses of an endpoint. It goes below the route: ``@app.get(...)``, then ``@cached_response(...)``.

    Requests that show who sends them, by Authorization or a cookie or to an AuthenticationMiddleware, go around the
    cache, and responses that are not for everybody are not kept. Dependencies run on every request.

    Args:
        profile: Where pages are kept, and how stale ones may be given. Its limits on waiting do not apply: the
            dependencies of a request live as long as its endpoint runs.
        ttl: For how long a page is fresh, in seconds or as "5m", unless the response says so itself (Cache-Control,
            Expires); without it, the profile's.
        vary: Names of request fields that tell pages apart, beside those that responses name in Vary and those that a
            FastAPI endpoint and its dependencies declare.
        tags: Tags of every page, or a callable of the request that gives them.
        per_user: A callable of the request, sync or async, that says for whom the response is: with a str the page is
            kept for this user only, and Authorization and cookies are allowed; with None as if there were no
            ``per_user``.
        statuses: Errors that are kept, and for how long: ``{404: "30s"}``.
        client_ttl: For how long browsers may use a page without asking; 0 makes them ask each time, which a 304
            answers.

    Raises:
        ConfigError: A duration or a status that cannot be used.
        TypeError: The function is a generator, or not a function.
    """
    rules = rules_of(ttl=ttl, vary=vary, statuses=statuses, client_ttl=client_ttl, per_user=per_user)
    checked = checked_tags(tags)

    def decorator(function: Any) -> Any:
        return CachedRoute(function, rules, profile, checked, per_user, by_profile=ttl is None).endpoint

    return cast(_Decorator, decorator)


class CachedRoute:
    """One decorated endpoint."""

    def __init__(
        self, function: Any, rules: policy.Rules, profile: str, tags: Checked, per_user: PerUser | None, *,
        by_profile: bool,
    ) -> None:  # fmt: skip
        _refuse(function)
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        self.inputs = Inputs(function)
        self.tags = tags
        self.per_user = per_user
        self.pages = Pages(
            function.__module__, function.__qualname__, rules, profile=profile, by_profile=by_profile, options=PATIENT
        )
        self.endpoint = self._wrapper()
        self._is_told = False
        self._renderings: dict[int, Rendering] = {}  # by route, of which an endpoint may have several
        _note(self)

    def _wrapper(self) -> Any:
        @functools.wraps(self.function)
        async def endpoint(*args: Any, **kwargs: Any) -> Any:
            # What the framework gets in place of what the function returns. Here, since a coroutine more costs a hit.
            given = self.inputs.of(args, kwargs)
            request = given.request
            if request is None:
                return await self.run(args, kwargs)
            scope = request.scope
            if ANSWERED in scope or (scope.get("endpoint") is not endpoint and not self._is_inside(scope, args)):
                return await self._run_for_another(args, kwargs)
            made = self._made(request)
            found = self._at_hand(given, scope, made)
            hit = self._hit(found, scope, made)
            return await self._long(args, given, request, made, found) if hit is None else hit

        made: Any = endpoint
        made.__signature__ = self.inputs.signature
        made.__cachekit_route__ = self
        made.invalidate, made.ainvalidate = self.pages.clear, self.pages.aclear
        return made

    def _is_inside(self, scope: Scope, args: tuple[Any, ...]) -> bool:
        """Whether this is called to answer the request: inside of other decorators, or as a method."""
        endpoint = scope.get("endpoint")
        if isinstance(endpoint, functools.partial):
            endpoint = endpoint.func
        # functools.wraps() takes the attribute along. Without an endpoint there is no other who could have called.
        if endpoint is None or getattr(endpoint, "__cachekit_route__", None) is self:
            return True
        return inspect.isclass(endpoint) and bool(args) and isinstance(args[0], endpoint)

    async def _run_for_another(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the function returns, for the endpoint of the request, which has called this one."""
        if not self._is_told:
            self._is_told = True
            logger.warning(
                "%s: not cached, since it is not the endpoint of this request: cached_response() is for endpoints, and "
                "decorators above it must use functools.wraps; for other functions there is @cache",
                self.function.__qualname__,
            )
        return await self.run(args, kwargs)

    def _at_hand(self, given: Given, scope: Scope, made: Made) -> Any:
        """What lies there, if this is an ordinary request whose page varies by nothing, or MISS."""
        if self.per_user is not None or made.rules.vary or self.rendering(scope).reads.fields or AGAIN in scope:
            return MISS
        if given.response is not None and given.response.raw_headers:  # what dependencies said joins the page's
            return MISS
        if "user" in scope and visitor.is_somebodys(scope):
            return MISS
        key = key_of(scope)
        return MISS if key is None else made.function.at_hand(key)

    def _hit(self, found: Any, scope: Scope, made: Made) -> Response | None:
        """The answer, if that is fresh; None: it takes the long way."""
        if found is MISS:
            return None
        bound = made.function.at()  # once, for the clock and the count
        hit = short.hit(found, bound.service.async_port.wall())
        if hit is None:
            return None
        scope[ANSWERED] = True
        bound.tally.answered("HIT")
        return _Whole(hit.status, raw_of_hit(hit), hit.body)

    async def _long(self, args: tuple[Any, ...], given: Given, native: Request, made: Made, found: Any) -> Any:
        """Whatever is no ordinary hit. ``found``: what lies at hand, if that was looked for."""
        scope, request = native.scope, request_of(native.scope)
        rendering = self.rendering(scope)
        user = visitor.with_cookies(await user_of(self.per_user, native), native, rendering.reads.cookies)
        exchange = EndpointExchange(self, given, args, request, user, rendering)
        scope[ANSWERED] = True
        asked: Again | None = scope.get(AGAIN)
        if asked is not None and asked.route is self:
            return await exchange.hand_over(asked)
        if why := self._why_around(exchange, scope):
            made.counted("BYPASS")
            return _marked(await self.run(args, given.kwargs), given, why)
        return await self._answer(exchange, made, found)

    def _why_around(self, exchange: "EndpointExchange", scope: Scope) -> str:
        why = visitor.why_around(scope, exchange.request, exchange.user)
        why = why or injected.why_around(exchange.given.response, exchange.user)
        return why or ("vary" if ALL in exchange.rendering.reads.fields else "")

    async def _answer(self, exchange: "EndpointExchange", made: Made, found: Any) -> Any:
        rules, native = made.rules, cast(Request, exchange.given.request)
        if names := exchange.rendering.reads.fields:
            rules = rules._replace(vary=tuple(sorted({*rules.vary, *names} - set(policy.CREDENTIALS))))
        ask: Ask = short.Looked(made.ask(tags_of(self.tags, native)), found)
        try:
            response = await answer(exchange, rules, ask, made.wall)
        except asyncio.CancelledError:
            exchange.abandon()
            raise
        except Exception:
            made.counted("MISS")
            raise
        result = _result(response)
        made.counted(result)
        sent = self._sent(exchange, response, made.wall())
        if exchange.error is not None and result in ("MISS", "BYPASS"):  # its dependencies see it, and its handlers
            failing.answer_with(native.scope, exchange.error, sent)
            raise exchange.error
        return sent

    def _sent(self, exchange: "EndpointExchange", response: messages.Response | None, now: float) -> Any:
        if response is None:
            return _marked(exchange.untouched, exchange.given, "stream")
        if not exchange.ran:
            response = injected.answer_with(response, exchange.given.response, exchange.original, now)
        fields = page.sent_by_server(exchange.request, response).fields
        return _Whole(response.status, raw_of(fields), b"" if exchange.request.method == "HEAD" else response.body)

    def _made(self, request: Request) -> Made:
        return self.pages.at(own_service(request), behind=ENTRANCE in request.scope)

    def rendering(self, scope: Scope) -> Rendering:
        """How the route that this request came by makes responses."""
        route = rendering.route_of(scope)
        found = self._renderings.get(id(route))
        if found is None or found.provider.dependency_overrides != found.overrides:
            found = self._renderings[id(route)] = Rendering(route)
        return found

    async def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The function, as its framework would run it."""
        own = self.inputs.own(kwargs)
        if self.is_async:
            return await self.function(*args, **own)
        value = await run_in_threadpool(self.function, *args, **own)
        return await value if inspect.isawaitable(value) else value


def _refuse(function: Any) -> None:
    name = getattr(function, "__qualname__", repr(function))
    if hasattr(function, "__cachekit_route__"):
        raise TypeError(f"{name}: its responses are cached already")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{name}: a stream cannot be cached; return the whole, or leave out @cached_response")
    if inspect.isclass(function) or not callable(function) or not hasattr(function, "__qualname__"):
        raise TypeError(f"@cached_response works on functions, not on {type(function).__name__}")


class Again:
    """A request that a load makes behind its caller, and the response that the endpoint inside hands over."""

    def __init__(self, route: CachedRoute, target: page.Target) -> None:
        self.route = route
        self.target = target
        self.response: messages.Response | None = None


class EndpointExchange:
    """One request to a decorated endpoint."""

    def __init__(
        self, route: CachedRoute, given: Given, args: tuple[Any, ...], request: messages.Request, user: str | None,
        rendering: Rendering,
    ) -> None:  # fmt: skip
        self.route = route
        self.given = given
        self.args = args
        self.original = request
        self.request = injected.without_conditions(request) if injected.says(given.response) else request
        self.user = user
        self.rendering = rendering
        self.ran = False
        self.untouched: Any = None  # what the function returned, or a handler of what it raised, if that is no page
        self.error: Exception | None = None  # that it raised
        self._task: asyncio.Task[Any] | None = None

    async def origin(self) -> messages.Response | None:
        """Run the endpoint: with the dependencies of this request, or if its answer is out, through the application."""
        entry = ENTRY.get()
        if entry is not None and entry.behind:
            return await self._through_application()
        self._task = asyncio.current_task()
        return await self._run()

    def abandon(self) -> None:
        """The request was cancelled, and its dependencies end: who else waits runs the endpoint with its own."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def _run(self) -> messages.Response | None:
        self.ran, request, given = True, cast(Request, self.given.request), self.given
        before = visitor.session_of(request.scope)
        tasks = 0 if given.background is None else len(given.background.tasks)
        try:
            value = self.untouched = await self.route.run(self.args, given.kwargs)
            response = await self.rendering.of(request, value, given.response)
        except Exception as error:
            self.error = error
            return await self._of_error(error)
        added = given.background is not None and len(given.background.tasks) > tasks
        personal = visitor.session_of(request.scope) != before or (
            self.user is None and (before or visitor.is_somebodys(request.scope))
        )
        if response is None or added or personal or not rendering.is_whole(response):
            return None
        return rendering.as_message(response, own=response is value)

    async def _of_error(self, error: Exception) -> messages.Response | None:
        """What the application answers to a failure; None if that is no page. Raises it where nobody answers."""
        response = await failing.handled(cast(Request, self.given.request), error)
        if response is None or (response.status_code >= 500 and not rendering.is_whole(response)):
            raise error
        self.untouched = response
        # Of what an exception led to only that is kept which the route lists.
        is_page = response.status_code >= 400 or response.status_code in self.route.pages.statuses
        return rendering.as_message(response, own=True) if is_page and rendering.is_whole(response) else None

    async def _through_application(self) -> messages.Response | None:
        found: tuple[ASGIApp, Scope] | None = cast(Request, self.given.request).scope.get(ENTRANCE)
        if found is None:  # the endpoint is in several applications, and this one is without CacheKit
            current_entry().no_store()
            return None
        app, entrance = found
        asked = Again(self.route, page.target(self.request, self.user))
        await app({**again(entrance), AGAIN: asked}, nobody(), nowhere)
        if asked.response is None:
            current_entry().no_store()
        return asked.response

    async def hand_over(self, asked: Again) -> Any:
        """The endpoint of such a request: the response goes to the load, if it is what that asked for."""
        if page.target(self.request, self.user) != asked.target:
            return Response(status_code=204)  # which goes nowhere
        asked.response = await self._run()
        if self.error is not None:
            raise self.error
        return self.untouched


def _result(response: messages.Response | None) -> str:
    return "BYPASS" if response is None else messages.joined(response.fields, "x-cache") or "MISS"


def _marked(value: Any, given: Given, why: str) -> Any:
    """What the function returned, with the headers that say that it went around the cache."""
    response = value if isinstance(value, Response) else given.response
    if response is not None:
        before = messages.Response(200, fields_of(response.raw_headers), b"")
        response.raw_headers[:] = raw_of(told(before, Result.BYPASS, why=why).fields)
    return value


class _Whole(Response):
    """A response that is there already."""

    def __init__(self, status: int, raw: Raw, body: bytes) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = raw


# Wrong order


def _note(route: CachedRoute) -> None:
    global _any
    _any = True
    with contextlib.suppress(AttributeError):  # of a bound method
        route.function.__cachekit_above__ = route


def any_endpoint() -> bool:
    """Whether this process may keep pages of endpoints."""
    return _any


def check_routes(routes: Iterable[Any]) -> None:
    """Raises `ConfigError` if a decorator stands in the wrong place."""
    endpoints = list(_all_endpoints(routes))
    known = {id(endpoint) for endpoint in endpoints}
    above = [getattr(each, "__cachekit_above__", None) for each in endpoints if not hasattr(each, "__cachekit_route__")]
    wrong = [route for route in above if route is not None and id(route.endpoint) not in known and _is_named(route)]
    if wrong:
        raise ConfigError("\n".join(dict.fromkeys(map(_misplaced, wrong))))


def _misplaced(route: CachedRoute) -> str:
    return (
        f"{route.function.__module__}.{route.function.__qualname__}: @cached_response stands above the decorator of "
        "the route, which has the function without it; write @app.get(...) above @cached_response(...)"
    )


def _is_named(route: CachedRoute) -> bool:
    """Whether the name of the function means the decorated one, as it does after a decorator; a function may also be
    an endpoint as it is, and decorated for another application. Names inside of functions are not known."""
    found: Any = sys.modules.get(route.function.__module__)
    for name in route.function.__qualname__.split("."):
        if name == "<locals>":
            return True
        found = getattr(found, name, None)
    return found is route.endpoint


def routes_among(routes: Iterable[Any]) -> list[CachedRoute]:
    """The decorated endpoints among these routes."""
    found = [getattr(endpoint, "__cachekit_route__", None) for endpoint in _all_endpoints(routes)]
    return [route for route in found if route is not None]


def _all_endpoints(routes: Iterable[Any]) -> Iterable[Any]:
    for route in routes:
        yield getattr(route, "endpoint", None)
        inside = getattr(route, "original_router", route)  # a router that was included
        yield from _all_endpoints(getattr(inside, "routes", None) or ())
