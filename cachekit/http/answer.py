"""One exchange, in order: around the cache, or a kept page, or the route's own response. Once for all frameworks.

The cached function behind it (`Ask`) does the rest: one run for all who want the same page at the same time, both
tiers, stale pages, invalidations. A page that varies by request fields is found in two steps: under its target lies
what it varies by, with the page of whoever came first, and under target and values the other pages. What one load
brought is kept by that load alone, so that no invalidation in between is overlooked.
"""

import math
from collections.abc import Awaitable, Callable, Coroutine
from copy import copy
from typing import Any, Final, Literal, Protocol, TypeAlias
from urllib.parse import urljoin, urlsplit

from cachekit.context import current_entry
from cachekit.http import conditional, page, policy
from cachekit.http.control import Directives
from cachekit.http.messages import Request, Response, host_of, values_of
from cachekit.http.page import Kept, Page
from cachekit.http.policy import Life, Rules
from cachekit.http.status import Miss, Result, told

# The request fields that a page varies by, and the page itself for the values (`page.variant`) of the first request.
Varies: TypeAlias = tuple[Literal["vary"], tuple[str, ...], str, Kept]
Run: TypeAlias = Callable[[], Coroutine[Any, Any, Kept | Varies | None]]

HOPS: Final = 4  # from what a page varies by to the page; more only if it changes its mind each time


class Exchange(Protocol):
    """A request and the route that answers it, as an integration has them."""

    request: Request
    user: str | None  # whom the response is for, where the route knows

    async def origin(self) -> Response | None:
        """Run the route. None: its response went to the client untouched, as it is no complete page."""


class Ask(Protocol):
    """A cached function of a page's key, whose load is ``run``."""

    def __call__(
        self, key: tuple[Any, ...], run: Run, *, force: bool, allow_stale: bool
    ) -> Awaitable[Kept | Varies | None]: ...

    def peek(self, key: tuple[Any, ...]) -> Awaitable[Kept | Varies | None]:
        """What lies there and is fresh; None if there is nothing. Runs nothing."""


class ServerError(Exception):
    """The route answered 5xx. Inside only: so that a stale page can stand in, as for an exception.

    ``response``: what those get who waited for the same page, if nothing in it is for one of them.
    """

    def __init__(self, status: int, response: Response | None) -> None:
        super().__init__(status)
        self.response = response


class Origin:
    """The run of the route for the client of an exchange: one, however often a page is looked for.

    A run may outlast the first look, if that found a stale page; the second one then waits for the same run.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.begun = False
        self._ended = False
        self._response: Response | None = None
        self._error: Exception | None = None

    async def run(self) -> Response | None:
        self.begun = True
        if not self._ended:
            try:
                self._response = await self.exchange.origin()
            except Exception as error:
                self._error = error
            self._ended = True
        if self._error is not None:
            raise self._error
        return self._response


class Fill:
    """One caller's load: runs the route, and keeps what may be kept."""

    def __init__(self, origin: Origin, rules: Rules, names: tuple[str, ...], wall: Callable[[], float]) -> None:
        self.origin = origin
        self.exchange = origin.exchange
        self.rules = rules
        self.names = names
        self.wall = wall
        self.ran = False
        self.failed = False  # the route raised, answered 5xx or has not ended yet: a stale page may stand in
        self.response: Response | None = None  # for the client; None: it has it already
        self.why = ""  # not kept
        self.miss = ""  # what lay there instead, if anything did

    async def run(self) -> Kept | Varies | None:
        """Called by the engine, at most once for this caller, and perhaps once more when it has been answered."""
        # Behind a caller, in another thread perhaps, nothing may look as if that caller's own run had ended.
        mine = self
        if current_entry().behind:
            mine = copy(self)
            mine.origin = Origin(self.exchange)
        return await mine._run()

    async def _run(self) -> Kept | Varies | None:
        self.ran = self.failed = True
        self.miss = _instead(self.exchange.request, current_entry().stale_value)
        before = self.origin.begun  # this load, and so perhaps an invalidation
        response = self.response = await self.origin.run()
        self.failed = False
        if response is None:
            self.why = "stream"
            current_entry().no_store()
            return None
        now, request, user = self.wall(), self.exchange.request, self.exchange.user
        self.why = policy.why_not_kept(request, response, self.rules, user) or ("late" if before else "")
        life = None if self.why else policy.life(response, self.rules, now)
        if life is not None:
            return self._kept(response, life, now)
        if response.status >= 500:
            for_all = self.why in ("", "error") and {*policy.varies_by(response)} <= {*self.names}
            self.why, self.failed = "error", True
            error = ServerError(response.status, page.dated(response, now) if for_all else None)
            raise error from getattr(self.exchange, "raised", None)  # what the route raised, for the log
        self.why = self.why or "not-fresh"
        current_entry().no_store()
        return None

    def _kept(self, response: Response, life: Life, now: float) -> Kept | Varies:
        current_entry().ttl = life.fresh
        varies = tuple(sorted({*self.names, *policy.varies_by(response)}))
        age = policy.age_of(response.fields, now) or 0.0
        response = policy.emitted(page.dated(conditional.with_tag(response), now), self.rules, life, self.exchange.user)
        self.response = response
        kept = page.keep(response, life, now, age)
        return kept if varies == self.names else ("vary", varies, page.variant(self.exchange.request, varies), kept)


async def answer(exchange: Exchange, rules: Rules, ask: Ask, wall: Callable[[], float]) -> Response | None:
    """The response to an exchange; None if it went to the client already. Raises what the route raises."""
    request = exchange.request
    origin = Origin(exchange)
    why = policy.why_bypassed(request, exchange.user, proxy=rules.proxy)
    if why:
        return _passed(await origin.run(), why)
    wishes = policy.asked(request)
    if request.method == "HEAD" or policy.only_kept(wishes):  # which fill nothing
        return await _if_kept(exchange, rules, ask, wall, wishes)
    place, names = page.target(request, exchange.user, query=rules.query), rules.vary
    force, allow_stale, miss = False, True, Miss.URI
    for _ in range(HOPS):
        fill, failure = Fill(origin, rules, names, wall), None
        try:
            found = await ask((*place, page.variant(request, names)), fill.run, force=force, allow_stale=allow_stale)
        except ServerError as error:
            found, failure = None, error.response
        if fill.ran and (found is None or not fill.failed):
            return _fresh(request, fill, Miss.REQUEST if force else fill.miss or miss, wall())
        if (
            failure is not None
            and policy.is_for(request, failure, exchange.user)
            and not policy.wants_new(wishes, rules, 0.0, math.inf)  # with no-cache not even one that was just made
        ):
            return told(failure, Result.MISS, why=miss)
        if found is None:  # another caller's response was not for everybody, or not for this one
            return _passed(await origin.run(), "not-shared")
        kept, more = _chosen(request, found)
        if kept is None:
            names, miss = more, Miss.VARY
            continue
        now = wall()
        looked = page.look(kept, now)
        if not policy.is_for(request, looked.response, exchange.user):
            return _passed(await origin.run(), "authorization")
        if policy.wants_new(wishes, rules, looked.age, looked.fresh_for) and not force:
            force = True
        elif not _too_old(looked):
            return _hit(request, looked, now)
        elif fill.response is not None:  # a 5xx
            return _fresh(request, fill, Miss.REQUEST if force else fill.miss or miss, now)
        elif allow_stale:
            allow_stale = False
        else:
            break
    return _passed(await origin.run(), "vary")


async def _if_kept(
    exchange: Exchange, rules: Rules, ask: Ask, wall: Callable[[], float], wishes: Directives
) -> Response | None:
    """A kept page and nothing else: for HEAD, and for who wants no more than that (only-if-cached)."""
    request, names, miss = exchange.request, rules.vary, Miss.URI
    place = page.target(request, exchange.user, query=rules.query)
    for _ in range(HOPS):
        found = await ask.peek((*place, page.variant(request, names)))
        if found is None:
            break
        kept, names = _chosen(request, found)
        if kept is None:
            miss = Miss.VARY
            continue
        looked = page.look(kept, wall())
        wanted = not policy.wants_new(wishes, rules, looked.age, looked.fresh_for)
        if wanted and looked.fresh_for > 0 and policy.is_for(request, looked.response, exchange.user):
            return _hit(request, looked, wall())
        miss = miss if wanted else Miss.REQUEST
        break
    if policy.only_kept(wishes):
        return told(page.dated(Response(504, (("content-length", "0"),), b""), wall()), Result.MISS, why=Miss.NOT_ASKED)
    response = await exchange.origin()
    return None if response is None else told(response, Result.MISS, why=miss)


def _chosen(request: Request, found: Kept | Varies) -> tuple[Kept | None, tuple[str, ...]]:
    """The page for this request, or what it varies by."""
    if found[0] != "vary":
        return found, ()
    _, names, variant, kept = found
    return (kept if variant == page.variant(request, names) else None), names


def _too_old(looked: Page) -> bool:
    """Whether a stale page may not be given, by what it said itself."""
    stale = -looked.fresh_for
    if stale < 0:  # in the very second that it ends it is stale (RFC 9111 section 4.2)
        return False
    allowed = [seconds for seconds in (looked.swr, looked.on_error) if seconds is not None]
    return looked.strict or (bool(allowed) and stale > max(allowed))


def _passed(response: Response | None, why: str) -> Response | None:
    return None if response is None else told(response, Result.BYPASS, why=why)


def _instead(request: Request, stale: Any) -> str:
    """What a load found in place of a fresh page."""
    if not isinstance(stale, tuple):
        return ""
    return Miss.VARY if _chosen(request, stale)[0] is None else Miss.STALE


def _fresh(request: Request, fill: Fill, miss: str, now: float) -> Response | None:
    """What the route has just answered."""
    response = fill.response
    if response is None:
        return None
    if not fill.why and conditional.unchanged(request, response, now):
        response = conditional.not_modified(response)
    return told(response, Result.MISS, why=miss, stored=not fill.why)


def _hit(request: Request, looked: Page, now: float) -> Response:
    response = looked.response
    if conditional.unchanged(request, response, now):
        response = conditional.not_modified(response)
    result = Result.HIT if looked.fresh_for > 0 else Result.STALE
    return told(response, result, fresh_for=looked.fresh_for)


def outdated_urls(request: Request, response: Response) -> list[str]:
    """The tags of the pages that an unsafe request has changed: its target, and what the response names on this host
    (RFC 9111 section 4.4)."""
    if not policy.invalidated(request, response):
        return []
    tags = [page.url_tag(request.scheme, request.host, request.path, None)]
    for name in ("location", "content-location"):
        for value in values_of(response.fields, name):
            if (path := _path_here(request, value)) is not None:
                tags.append(page.url_tag(request.scheme, request.host, path, None))
    return tags


def _path_here(request: Request, reference: str) -> str | None:
    """The path of a reference, if it leads to the host of the request: nobody may outdate the pages of others."""
    try:
        there = urlsplit(urljoin(f"{request.scheme}://{request.host}{request.path}", reference.strip()))
    except ValueError:
        return None
    mine = request.scheme, host_of(request.scheme, request.host)
    return (there.path or "/") if (there.scheme, host_of(there.scheme, there.netloc)) == mine else None
