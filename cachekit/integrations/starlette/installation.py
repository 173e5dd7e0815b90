"""cachekit as a guest of a Starlette application: start, stop, and ``/metrics``.

FastAPI applications are Starlette applications, so this is also the whole of `cachekit.integrations.fastapi` but for
its dependencies.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cachekit.errors import ConfigError
from cachekit.http import policy
from cachekit.http.answer import outdated_urls
from cachekit.http.messages import Response as HttpResponse
from cachekit.integrations.starlette.endpoint import ENTRANCE, any_endpoint, check_routes, routes_among
from cachekit.integrations.starlette.installed import SCOPE_KEY, Config, Installed, installed_in
from cachekit.integrations.starlette.messages import fields_of, request_of
from cachekit.regions import clear_tags
from cachekit.service import Service

Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Any]]

OUTDATING = "cachekit.outdating"  # in the scope: somebody outdates the pages that this request changes
ROUTE_NAME = "cachekit_metrics"

logger = logging.getLogger("cachekit")


class CacheKit:
    """Make an application start, show and stop its cache.

    ``CacheKit(app)``, or ``CacheKit().init_app(app)``, or ``Starlette(lifespan=CacheKit().lifespan())``. Nothing is
    needed for the cache to work: without a start-up (a test client, a mounted application) it starts on first use.

    Args:
        app: The application, if it exists already.
        config: A configuration file's path, or a dict shaped like the file: a service for this application only, which
            `get_region` and FastAPI's ``cache_region`` use inside it. ``@cache`` functions stay with the process's own
            service, and without ``config`` the application does too.
        metrics: Whether to show the metrics at ``metrics.path``; also switched off by ``metrics.enabled = false``.
    """

    def __init__(self, app: Starlette | None = None, *, config: Config = None, metrics: bool = True) -> None:
        self._config = config
        self._metrics = metrics
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Starlette) -> None:
        """Install into an application that has not served a request yet. A second time does nothing.

        Raises:
            ConfigError: Another `CacheKit` is installed there.
        """
        installation = self._installation(app)
        if not installation.wired:
            installation.wired = True
            app.add_middleware(_Mark, installation=installation)
            app.router.lifespan_context = installation.lifespan(app.router.lifespan_context)

    def lifespan(self, inner: Lifespan | None = None) -> Lifespan:
        """A lifespan for the application's constructor: ours around yours, whose state is passed on.

        Ours starts first, which raises `ConfigError` if the configuration is wrong, and stops last.
        """

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[Any]:
            async with self._installation(app).lifespan(inner or _nothing)(app) as state:
                yield state

        return lifespan

    def _installation(self, app: Starlette) -> "Installation":
        there = installed_in(app)
        if not isinstance(there, Installation):
            there = app.state.cachekit_installation = Installation(self, app, self._config, self._metrics)
        elif there.kit is not self:
            raise ConfigError("another CacheKit is installed in this application; install one, with one config=")
        return there


class Installation(Installed):
    """The same with its start and its stop, and whether its metrics are shown."""

    def __init__(self, kit: CacheKit, app: Starlette, config: Config, metrics: bool) -> None:
        super().__init__(app, config)
        self.kit = kit
        self.wired = False
        self._metrics = metrics
        self._shown: Service | None = None  # whose metrics this application shows
        self._route: Route | None = None

    def prepare(self, app: Starlette) -> None:
        """Validate, bind and show the metrics: once, and again if `configure` has replaced the service."""
        service = self.service()
        if service is self._shown:
            return
        with self._lock:
            if service is not self._shown:
                check_routes(app.router.routes)
                for route in routes_among(app.router.routes):
                    route.pages.at(self.own_service())  # so that its profile is checked
                service.start()
                self._show_metrics(app, service)
                self._shown = service

    def lifespan(self, inner: Lifespan) -> Lifespan:
        """``inner`` between our start and our stop."""

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[Any]:
            self._shown = None  # the service may have been closed by an earlier shutdown
            self.prepare(app)
            try:
                async with inner(app) as state:
                    yield state
            finally:
                await self.service().aclose()

        return lifespan

    def _show_metrics(self, app: Starlette, service: Service) -> None:
        spec = service.spec.metrics
        if self._route is not None:
            app.router.routes.remove(self._route)
            self._route = None
        if not (self._metrics and spec.enabled):
            return
        from cachekit.metrics import Access, attach, register  # loads prometheus_client

        if _has_route(app.router.routes, spec.path):
            register(service)
            logger.info("the application has a route at %s: metrics join prometheus_client.REGISTRY", spec.path)
            return
        Access.of(spec)  # a wrong network stops here, not at the first scrape
        attach(service)
        # In front of a catch-all route, which would hide it; else behind, where no other request is compared with it.
        # Not `app.mount`: that wants a slash.
        self._route = Route(spec.path, self._scrape, name=ROUTE_NAME, include_in_schema=False)
        routes = app.router.routes
        hidden = any(route.matches(_asked(spec.path))[0] is Match.FULL for route in routes)
        routes.insert(0 if hidden else len(routes), self._route)

    def _scrape(self, request: Request) -> Response:  # sync: Starlette runs it in a worker thread, not in the loop
        from cachekit.metrics import respond

        answer = respond(
            self.service(),
            accept=", ".join(request.headers.getlist("accept")),
            authorization=request.headers.get("authorization"),
            address=request.client.host if request.client else None,
        )
        return Response(answer.body, answer.status, answer.headers)


class _Mark:
    """ASGI middleware: what belongs to the start-up happens at the first request at the latest, and the applications
    mounted in this one find its service. It remembers requests as they came in, for loads behind their callers, and
    outdates the pages of what requests change."""

    def __init__(self, app: ASGIApp, installation: Installation) -> None:
        self.app = app
        self.installation = installation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and ENTRANCE not in scope:
            scope[ENTRANCE] = (scope["app"], entrance(scope))
        if scope["type"] != "lifespan":
            self.installation.prepare(scope["app"])
            scope[SCOPE_KEY] = self.installation
        if scope["type"] == "http" and scope["method"] not in policy.SAFE and any_endpoint():
            await outdating(self.app, scope, receive, send, self.installation.service())
        else:
            await self.app(scope, receive, send)


def entrance(scope: Scope) -> Scope:
    """The scope as it is now, whatever the application makes of it."""
    copy = {**scope, "headers": list(scope["headers"])}
    if "state" in copy:
        copy["state"] = dict(copy["state"])
    return copy


async def outdating(app: ASGIApp, scope: Scope, receive: Receive, send: Send, service: Service) -> None:
    """Run an application, and outdate the pages of what its request changes: before the client can know that it has
    (RFC 9111 section 4.4), and again at the end, as dependencies of FastAPI may commit when the answer is out."""
    scope[OUTDATING] = True
    request = request_of(scope)
    tags: list[str] = []

    async def outdate_and_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            response = HttpResponse(message["status"], fields_of(message.get("headers", ())), b"")
            tags.extend(outdated_urls(request, response))
            await clear_tags(service, tags, service.async_port)
        await send(message)

    try:
        await app(scope, receive, outdate_and_send)
    finally:
        await clear_tags(service, tags, service.async_port)


def _has_route(routes: list[BaseRoute], path: str) -> bool:
    """Whether a route or mount lies at exactly this path. One that only covers it, like ``/{page}``, does not count."""
    return any(_lies_at(route, candidate) for route in routes for candidate in (path, path.rstrip("/") + "/"))


def _asked(path: str) -> Scope:
    return {"type": "http", "method": "GET", "path": path, "root_path": "", "path_params": {}, "headers": []}


def _lies_at(route: BaseRoute, path: str) -> bool:
    match, child = route.matches(_asked(path))
    if match is not Match.FULL or child.get("path_params"):
        return False
    inside = path.removeprefix(child.get("root_path", ""))
    if not isinstance(route, Mount):
        return True
    return (inside in ("", "/") and route.path != "") or _has_route(route.routes, inside)


@asynccontextmanager
async def _nothing(app: Starlette) -> AsyncIterator[None]:
    yield None
