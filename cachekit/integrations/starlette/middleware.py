"""`CacheMiddleware`: the responses of a whole application, or of a part of it, kept by rules."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from cachekit.context import ENTRY
from cachekit.errors import CacheLoadTimeout
from cachekit.http import conditional, messages, page, policy
from cachekit.http.answer import answer
from cachekit.http.rules import MODULE, Rule, Rulebook
from cachekit.http.status import Result, told
from cachekit.integrations.starlette import visitor
from cachekit.integrations.starlette.capture import AppRun
from cachekit.integrations.starlette.declared import PerUser, Tags, checked_tags, rules_of, tags_of, user_of
from cachekit.integrations.starlette.endpoint import AGAIN, ANSWERED
from cachekit.integrations.starlette.installation import OUTDATING, entrance, outdating
from cachekit.integrations.starlette.installed import own_service, service_of
from cachekit.integrations.starlette.messages import (
    again,
    fields_of,
    inner_path,
    raw_of,
    request_of,
    send_whole,
)
from cachekit.integrations.starlette.pages import Made, Pages
from cachekit.process import default_service

if TYPE_CHECKING:
    from cachekit.config.units import Duration


class CacheMiddleware:
    """Keep the responses of an ASGI application: ``app.add_middleware(CacheMiddleware)``, or around a router.

    Only GET is kept, what says how long it lives (Cache-Control, Expires), and what the rules of the configuration
    (``[[http.rules]]``) or ``ttl`` give a life. Requests that show who sends them go around the cache, streams and
    web sockets are passed on as they come. On a hit nothing of the application runs, neither a route's dependencies nor
    its background tasks: where these decide who may see a page, or have to run each time, use `cached_response`.

    Args:
        app: The application inside.
        profile: Where pages are kept, how stale ones may be given, and how long anybody waits for a new one.
        ttl: For how long a page is fresh that does not say so itself; without it such a page is not kept.
        vary: Names of request fields that tell pages apart, beside those that responses name in Vary.
        tags: Tags of every page, or a callable of the request that gives them.
        per_user: As of `cached_response`; for rules of the configuration with ``per_user = true``, and for paths that
            no rule matches.
        statuses: Errors that are kept, and for how long.
        client_ttl: For how long browsers may use a page without asking.
        proxy: Whether the application passes on what another server answers, which is written for shared caches: what
            that says opens a page to all although its request had an Authorization, keeps an error, and a Last-Modified
            alone gives it a life.

    Raises:
        ConfigError: A duration or a status that cannot be used; at the first request, what is wrong with the rules.
    """

    def __init__(
        self,
        app: ASGIApp,
        profile: str = "default",
        ttl: "Duration | None" = None,
        *,
        vary: Iterable[str] = (),
        tags: Tags = (),
        per_user: PerUser | None = None,
        statuses: "Mapping[int, Duration] | None" = None,
        client_ttl: "Duration" = 0,
        proxy: bool = False,
    ) -> None:
        self.app = app
        self.tags = checked_tags(tags)
        self.per_user = per_user
        rules = rules_of(ttl=ttl, vary=vary, statuses=statuses, client_ttl=client_ttl, per_user=per_user)._replace(
            proxy=proxy
        )
        self._rulebook = Rulebook(_pages, profile, rules, may_know_users=per_user is not None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or AGAIN in scope:
            await self.app(scope, receive, send)
        elif scope["method"] not in policy.SAFE and OUTDATING not in scope:
            await outdating(self._respond, scope, receive, send, service_of(HTTPConnection(scope)))
        else:
            await self._respond(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        own = own_service(HTTPConnection(scope))
        service = default_service() if own is None else own
        rule = self._rulebook.rule(service.spec.http, inner_path(scope))
        if rule is None:
            await self.app(scope, receive, send)
            return
        made, request = rule.pages.at(own), request_of(scope)
        user = await user_of(self.per_user if rule.per_user else None, Request(scope))
        why = visitor.why_around(scope, request, user, proxy=made.rules.proxy)
        if why:
            made.counted("BYPASS")
            await self.app(scope, receive, _telling(scope, send, why))
            return
        await self._answer(AppExchange(self.app, scope, (receive, send), request, user, made), made, rule)

    async def _answer(self, exchange: "AppExchange", made: Made, rule: Rule[Pages]) -> None:
        request, send = exchange.request, exchange.client[1]
        ask = made.ask(tags_of(self.tags, Request(exchange.entrance)))
        try:
            response = await answer(exchange, made.rules, ask, exchange.wall)
        except CacheLoadTimeout:
            response = told(messages.Response(504, (("content-length", "0"),), b""), Result.MISS)
        except BaseException:
            exchange.leave(cancelled=True)
            raise
        if response is not None:
            result = messages.joined(response.fields, "x-cache") or "MISS"
            made.counted(result)
            if result in ("MISS", "BYPASS") and conditional.unchanged(request, response, exchange.wall()):
                response = conditional.not_modified(response)  # the application was asked without its conditions
            await send_whole(page.sent_by_server(request, response), send, head=request.method == "HEAD")
        elif exchange.why:
            made.counted("BYPASS")
        await exchange.finish()


def _pages(name: str, rules: policy.Rules, profile: str) -> Pages:
    return Pages(MODULE, name, rules, profile=profile, by_profile=False, options={})


class AppExchange:
    """One request to the application inside."""

    def __init__(
        self, app: ASGIApp, scope: Scope, client: tuple[Receive, Send], request: messages.Request, user: str | None,
        made: Made,
    ) -> None:  # fmt: skip
        bound = made.function.at()
        self.app = app
        self.scope = scope
        self.entrance = entrance(scope)
        self.client = client
        self.request = request
        self.user = user
        self.limit = bound.tiers.spec.codec.max_value_bytes
        self.wall = bound.service.async_port.wall
        self._run: AppRun | None = None  # with the client's own connection

    @property
    def why(self) -> str:
        """Why the response went past the cache."""
        return "" if self._run is None else self._run.why

    async def origin(self) -> messages.Response | None:
        """Run the application: for the client, once, as its request can be read once, or if that has its answer, for
        nobody."""
        entry = ENTRY.get()
        behind = entry is not None and entry.behind
        run = None if behind else self._run
        if run is None:
            client = None if behind else self.client
            run = AppRun(self.app, again(self.entrance), self.request, self.limit, client, self.wall())
        if not behind:
            self._run = run
        response = await run.response()
        if not behind:
            self.scope.update({key: value for key, value in run.scope.items() if key != "headers"})
        why = "" if response is None else self._why_personal(run)
        if why:
            await run.pass_on(why)
            return None
        return response

    def _why_personal(self, run: AppRun) -> str:
        """What shows, now that the application has run, that its response is for one visitor; empty if nothing."""
        if visitor.session_of(run.scope) != run.session or (run.session and self.user is None):
            return "session"
        return "user" if self.user is None and visitor.is_somebodys(run.scope) else ""

    def leave(self, *, cancelled: bool = False) -> None:
        """The client gets nothing more from the run, which goes on for others or for the cache."""
        if self._run is not None:
            self._run.client = None
            if cancelled and self._run.passed:
                self._run.task.cancel()

    async def finish(self) -> None:
        """The client has its answer. What the application still does for it belongs to this request."""
        run = self._run
        if run is None:
            return
        if not run.passed and not run.whole:
            self.leave()  # another page was given, as this one came too late
            return
        try:
            await asyncio.shield(run.task)
        except asyncio.CancelledError:
            run.task.cancel()
            raise


def _telling(scope: Scope, send: Send, why: str) -> Send:
    """A sending end that says that a response went around the cache, unless an endpoint with rules of its own says
    what it did."""

    async def tell_and_send(message: Any) -> None:
        if message["type"] == "http.response.start" and not scope.get(ANSWERED):
            response = messages.Response(message["status"], fields_of(message.get("headers", ())), b"")
            message = {**message, "headers": raw_of(told(response, Result.BYPASS, why=why).fields)}
        await send(message)

    return tell_and_send
