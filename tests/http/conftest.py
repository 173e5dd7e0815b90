"""A site for the tests of the policy: a route behind a real cached function, on a clock that stands still."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from cachekit import MISS
from cachekit.config.spec import BackendSpec, L1Spec, ServiceSpec, built_in_regions
from cachekit.context import ENTRY
from cachekit.http.answer import answer, outdated_urls
from cachekit.http.messages import Request, Response, fields, joined, values_of
from cachekit.http.page import tags_of
from cachekit.http.policy import Rules
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock
from cachekit.testing.servers import Server

NOON = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT
numbers = itertools.count()


def lines(given: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Fields from arguments: ``cache_control="..."``; several lines of one field as a list."""
    pairs = [
        (name.replace("_", "-"), value)
        for name, values in given.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    return fields(pairs)


class Answer:
    """What a client got."""

    def __init__(self, response: Response, runs: int) -> None:
        self.status, self.fields, self.body, _ = response
        self.runs = runs  # of the route, for this answer alone

    def __getitem__(self, name: str) -> str | None:
        return joined(self.fields, name)

    def all(self, name: str) -> list[str]:
        return values_of(self.fields, name)

    @property
    def kept(self) -> bool:
        """Whether it came from the cache."""
        return self["x-cache"] in ("HIT", "STALE") and self.runs == 0


class Exchange:
    def __init__(self, site: "Site", request: Request, user: str | None) -> None:
        self.site, self.request, self.user = site, request, user
        self.runs = 0
        self._running: asyncio.Task[Response | None] | None = None

    async def origin(self) -> Response | None:
        entry = ENTRY.get()
        if entry is not None and entry.behind:
            return await self._run()
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await asyncio.shield(self._running)

    async def _run(self) -> Response | None:
        self.runs += 1
        self.site.requests.append(self.request)
        response: Response | None = await self.site.route(self.request)
        return response


class Site:
    """One process that serves pages: what `Ask` is over the cached function, as integrations make it."""

    def __init__(self, service: Service, clock: FrozenClock, rules: Rules, options: dict[str, Any]) -> None:
        self.service, self.clock, self.rules = service, clock, rules
        self.region = service.region("pages")
        self.requests: list[Request] = []  # that the route has seen
        self.route: Callable[[Request], Any] = self.static
        self.says()
        settings = {"ttl": "1m", "early_refresh": "off", "jitter": 0, "version": 1, **options}

        async def pages(key: tuple[Any, ...], run: Any) -> Any:
            return await run()

        self.pages = self.region.cached(pages, ignore=("run",), tags=lambda key, run: tags_of(key), **settings)

    async def __call__(self, key: tuple[Any, ...], run: Any, *, force: bool, allow_stale: bool) -> Any:
        return await self.pages.using(force_refresh=force, allow_stale=None if allow_stale else False)(key, run)

    async def peek(self, key: tuple[Any, ...]) -> Any:
        found = await self.pages.peek(key, None)
        return None if found is MISS else found

    # The route

    def says(self, status: int = 200, body: bytes = b"page", **given: Any) -> "Site":
        """What it answers from now on."""
        self.response = Response(status, lines(given), body)
        return self

    async def static(self, request: Request) -> Response:
        return self.response

    # Its clients

    async def ask(
        self, path: str = "/", *, method: str = "GET", query: bytes = b"", host: str = "example.com",
        scheme: str = "http", user: str | None = None, body: bool = False, **given: Any,
    ) -> Answer:  # fmt: skip
        request = Request(method, scheme, host, path, query, lines(given), body)
        exchange = Exchange(self, request, user)
        response = await answer(exchange, self.rules, self, self.clock.wall)
        assert response is not None
        if tags := outdated_urls(request, response):
            await self.region.ainvalidate_tags(*tags)
        return Answer(response, exchange.runs)

    async def twice(self, first: dict[str, Any] | None = None, **second: Any) -> Answer:
        """The second of two answers; ``first`` are fields of the first request."""
        await self.ask(**(first or {}))
        return await self.ask(**second)


class Sites:
    """Makes sites, and closes them in the end."""

    def __init__(self) -> None:
        self.made: list[Site] = []
        self.namespace = f"http{next(numbers)}"

    def __call__(self, rules: Rules | None = None, server: Server | None = None, **options: Any) -> Site:
        """With a server: sites of one namespace, which keep nothing in themselves."""
        clock = FrozenClock(wall=NOON)
        regions = built_in_regions()
        pages = regions["default"].but(name="pages", backend="none")
        backends = {}
        if server is not None:
            pages = pages.but(backend="default", l1=L1Spec(mode="off"))
            backends = {"default": BackendSpec(url=server.url, budget=10.0, adaptive=False)}
        spec = ServiceSpec(
            namespace=self.namespace, namespace_given=True, backends=backends, regions={**regions, "pages": pages}
        )
        site = Site(Service(spec, clock=clock), clock, rules or Rules(ttl=60.0), options)
        self.made.append(site)
        return site

    async def aclose(self) -> None:
        for site in self.made:
            await site.service.aclose()


@pytest.fixture
async def sites() -> AsyncIterator[Sites]:
    sites = Sites()
    yield sites
    await sites.aclose()


@pytest.fixture
def make_sites() -> type[Sites]:
    """For who has an event loop of their own."""
    return Sites


@pytest.fixture
def site(sites: Sites) -> Site:
    """One with pages that live for 60 seconds if they say nothing."""
    return sites()
