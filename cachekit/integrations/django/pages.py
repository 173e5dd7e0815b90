"""The kept pages of one view or rule: the cached function behind them, how a request is answered, what outdates them.

The policy is `cachekit.http`, the same as of the other frameworks.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from django.conf import settings
from django.db import connections
from django.utils.timezone import get_current_timezone_name
from django.utils.translation import get_language

from cachekit.decorator import decorate
from cachekit.engine.miss import MISS
from cachekit.engine.outcome import Outcome
from cachekit.engine.ports import drive
from cachekit.function import Function
from cachekit.http import page, policy
from cachekit.http.answer import Run, answer, outdated_urls
from cachekit.http.control import LONGEST
from cachekit.http.declared import checked_user
from cachekit.http.messages import Response, joined
from cachekit.http.policy import Rules
from cachekit.integrations.django.exchange import AsyncViewExchange, ViewExchange
from cachekit.integrations.django.messages import fields_of, request_of
from cachekit.integrations.django.visitors import why_personal
from cachekit.options import check
from cachekit.process import default_service
from cachekit.regions import clear_tags

PerUser: TypeAlias = Callable[[Any], Any]
Tags: TypeAlias = "Iterable[str] | Callable[[Any], Iterable[str]]"

# A page says its age, so it lives for as long as it says; and the view uses the request, which waits for it.
FIXED: Final = {
    "jitter": 0, "soft_timeout": "never", "hard_timeout": "never", "swr": False, "early_refresh": "off",
}  # fmt: skip
# What shows that an answer is somebody's, in words for the log.
SHOWN: Final = {
    "authorization": "they are authorised", "cookie": "they carry a cookie", "session": "they have a session",
}  # fmt: skip

logger = logging.getLogger("cachekit")


class Pages:
    """The pages of one view or rule. ``by_profile``: whether those that do not say how long they live have the
    profile's ttl."""

    def __init__(self, module: str, name: str, rules: Rules, *, profile: str, by_profile: bool, is_async: bool) -> None:
        loader = _async_loader if is_async else _loader
        options = check({
            **FIXED, "profile": profile, "tags": _tags, "ignore": ("run", "tags"), "version": "http",
        })  # fmt: skip
        self.name = f"{module}.{name}"
        self.is_async = is_async
        self.cached = decorate(_named(loader(), module, name), options, default_service)
        self._profile = profile
        self._rules = rules
        self._by_profile = by_profile
        self._told: set[str] = set()

    @property
    def function(self) -> Function:
        """What lies behind `cached`, with its counts."""
        function: Function = getattr(self.cached, "__cachekit__", self.cached)._function
        return function

    @property
    def rules(self) -> Rules:
        """The rules in force now: the process's service may have been replaced."""
        if not self._by_profile:
            return self._rules
        ttl = default_service().region_spec(self._profile).ttl
        return self._rules._replace(ttl=float(LONGEST) if ttl is None else ttl)

    @property
    def statuses(self) -> frozenset[int]:
        """Errors that are kept."""
        return frozenset(self._rules.statuses)

    async def user(self, per_user: PerUser | None, request: Any) -> str | None:
        """Whom the response to a request is for; None if nobody says."""
        user = None if per_user is None else per_user(request)
        if inspect.isawaitable(user):
            if not self.is_async:
                getattr(user, "close", int)()
                raise TypeError(f"per_user= of {self.name} is async, and the view is not: nobody can wait for it")
            user = await user
        if user == "None":
            raise TypeError("per_user= gave 'None', one user for all who are not logged in: give None for them")
        return checked_user(user)

    async def respond(self, exchange: ViewExchange, tags: Callable[[], tuple[str, ...]]) -> Any:
        """What Django gets in place of what the view returns."""
        why = policy.why_bypassed(exchange.request, exchange.user)
        if not why and exchange.user is None:
            why = why_personal(exchange.native)
        if why:
            return await self._passed(exchange, why)
        ask = _Ask(self.cached, tags, is_async=self.is_async)
        try:
            found = await answer(exchange, self.rules, ask, default_service().sync_port.wall)
        except asyncio.CancelledError:
            exchange.leave()
            raise
        self._counted("BYPASS" if found is None else joined(found.fields, "x-cache") or "BYPASS", exchange)
        return await exchange.answered(found)

    async def _passed(self, exchange: ViewExchange, why: str) -> Any:
        self._counted("BYPASS", exchange)
        if why in SHOWN and not exchange.answered_inside:
            self._tell(exchange, SHOWN[why])
        response = await exchange.run()
        await outdate(exchange.native, response, is_async=self.is_async)
        return exchange.passed(response, why)

    def _counted(self, result: str, exchange: ViewExchange) -> None:
        if not exchange.answered_inside:
            self.function.at().tally.answered(result)

    def _tell(self, exchange: ViewExchange, reason: str) -> None:
        """Once per view and reason: that a page is never kept should not remain a riddle."""
        if reason not in self._told:
            self._told.add(reason)
            route = getattr(exchange.native.resolver_match, "route", exchange.native.path)
            logger.warning("%s at %s: requests are answered without the cache when %s", self.name, route, reason)

    def clear(self) -> Outcome:
        """Outdate all of them."""
        outcome: Outcome = (self.cached.twin() if self.is_async else self.cached).invalidate_all()
        return outcome

    async def aclear(self) -> Outcome:
        """As `clear`."""
        outcome: Outcome = await (self.cached if self.is_async else self.cached.twin()).invalidate_all()
        return outcome


class _Ask:
    """The cached function of pages as `answer` calls it, for one request."""

    def __init__(self, cached: Any, tags: Callable[[], tuple[str, ...]], *, is_async: bool) -> None:
        self._cached = cached
        self._tags = tags
        self._is_async = is_async
        # The response is complete inside of what activates these, so nothing in it may say that it varies by them.
        language = (get_language() or "") if settings.USE_I18N else ""
        self._place = language, get_current_timezone_name() if settings.USE_TZ else ""

    async def __call__(self, key: tuple[Any, ...], run: Run, *, force: bool, allow_stale: bool) -> Any:
        call = self._cached
        if force or not allow_stale:
            call = call.using(force_refresh=force, allow_stale=None if allow_stale else False)
        found = call(*self._place, *key, run, self._tags)
        return await found if self._is_async else found

    async def peek(self, key: tuple[Any, ...]) -> Any:
        """What lies there and is fresh; None if there is nothing."""
        found = self._cached.using(allow_stale=False).peek(*self._place, *key, None, tuple)
        found = await found if self._is_async else found
        return None if found is MISS else found


def _loader() -> Any:
    """A function that takes the key of a page and a way to make it."""

    def load(
        language: str, zone: str, format: int, scheme: str, host: str, path: str, query: bytes, user: str,
        variant: str, run: Run, tags: Any,
    ) -> Any:  # fmt: skip
        return drive(run())

    return load


def _async_loader() -> Any:
    """The same for those who can wait."""

    async def load(
        language: str, zone: str, format: int, scheme: str, host: str, path: str, query: bytes, user: str,
        variant: str, run: Run, tags: Any,
    ) -> Any:  # fmt: skip
        return await run()

    return load


def _named(load: Any, module: str, name: str) -> Any:
    """With the name of the view, for keys and metrics."""
    load.__module__, load.__name__, load.__qualname__ = module, name.rpartition(".")[2], name
    return load


def _tags(
    language: str, zone: str, format: int, scheme: str, host: str, path: str, query: bytes, user: str,
    variant: str, run: Run, tags: Callable[[], tuple[str, ...]],
) -> tuple[str, ...]:  # fmt: skip
    return page.url_tag(scheme, host, path, None), page.url_tag(scheme, host, path, query), *tags()


def exchange_of(is_async: bool) -> type[ViewExchange]:
    """How a view of this kind runs."""
    return AsyncViewExchange if is_async else ViewExchange


def in_place(flow: Coroutine[Any, Any, Any], *, is_async: bool) -> Any:
    """What a view or a middleware of this kind returns: a coroutine, or what becomes of it."""
    return flow if is_async else drive(flow)


# What outdates pages


async def outdate(request: Any, response: Any, *, is_async: bool) -> None:
    """What a request that changes something leaves behind: its own pages are of yesterday, and where it leads to."""
    if request.method in policy.SAFE or getattr(request, "cachekit_outdated", False):
        return
    if not hasattr(response, "status_code"):  # it is no response, which Django says
        return
    request.cachekit_outdated = True  # by a view, and need not be by the middleware
    urls = outdated_urls(request_of(request), Response(response.status_code, fields_of(response), b""))
    service = default_service()
    await clear_tags(service, urls, service.async_port if is_async else service.sync_port)
    if urls and not is_async:  # for async views Django has no transactions
        _again_with_the_commit(lambda: drive(clear_tags(service, urls, service.sync_port)))


def _again_with_the_commit(clear: Callable[[], Any]) -> None:
    """Until a transaction is committed, everybody else makes pages of what was before it."""
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            connection.on_commit(clear, robust=True)


def invalidate_url(url: str, request: Any = None) -> Outcome:
    """Outdate the pages of a URL, whoever keeps them: `cache_page` and `CacheMiddleware`.

    Args:
        url: A whole URL; or a path, as `reverse` gives it, for the scheme and the host of ``request``. With a query,
            only the page of that; without one, the pages of every query.
        request: The request in which this is called.

    Raises:
        ValueError: A path without a request: pages are kept for each host.
    """
    service = default_service()
    return drive(clear_tags(service, [_tag_of(url, request)], service.sync_port))


async def ainvalidate_url(url: str, request: Any = None) -> Outcome:
    """As `invalidate_url`."""
    service = default_service()
    return await clear_tags(service, [_tag_of(url, request)], service.async_port)


def _tag_of(url: str, request: Any) -> str:
    parts = urlsplit(url)
    scheme, host = parts.scheme, parts.netloc
    if not (scheme and host):
        if request is None:
            raise ValueError(f"{url!r} has no host, and pages are kept for each host: give a whole URL, or request=")
        scheme, host = request.scheme, request.get_host()
    query = parts.query.encode("utf-8", "surrogatepass") if "?" in url else None
    return page.url_tag(scheme, host, parts.path or "/", query)
