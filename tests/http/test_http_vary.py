"""Pages that vary by request fields, as the first response tells: found at once, and never after an invalidation."""

import asyncio
from typing import Any

import pytest

from cachekit.http.messages import Request, Response, joined
from cachekit.http.policy import Rules
from cachekit.testing.servers import Server


class Source:
    """What pages are made of, in one language or another."""

    def __init__(self, *sites: Any, vary: str = "accept-language") -> None:
        self.version = 1
        self.vary = vary
        self.gate = asyncio.Event()
        self.gate.set()
        self.runs = 0
        self.before: Any = None  # what happens before and after a run reads
        self.after: Any = None
        for site in sites:
            site.route = self.page

    async def page(self, request: Request) -> Response:
        self.runs += 1
        await self.gate.wait()
        before, self.before = self.before, None
        if before is not None:
            await before()
        body = f"{self.version} {joined(request.fields, 'accept-language')}".encode()
        after, self.after = self.after, None
        if after is not None:
            await after()
        return Response(200, (("vary", self.vary),), body)


@pytest.fixture(params=["alone", "server"])
def pair(request: pytest.FixtureRequest, sites: Any) -> tuple[Any, Any]:
    """Who fills and who asks: one site with L1, or two on one server."""
    if request.param == "alone":
        site = sites()
        return site, site
    server: Server = request.getfixturevalue("cachekit_server")
    return sites(server=server), sites(server=server)


async def test_the_first_page_is_kept_and_each_variant_is_made_once(pair: tuple[Any, Any]) -> None:
    source = Source(*pair)
    for site in (*pair, *pair):
        for language in ("de", "en", "fr"):
            answer = await site.ask(accept_language=language)
            assert answer.body == f"1 {language}".encode()
    assert source.runs == 3


async def test_each_value_has_its_own_page_whoever_came_first(pair: tuple[Any, Any]) -> None:
    one, other = pair
    source = Source(one, other)
    await one.ask(accept_language="de")
    assert not (await other.ask(accept_language="en")).kept
    assert not (await other.ask()).kept  # absent is a value of its own
    for language in ("de", "en"):
        answer = await other.ask(accept_language=language)
        assert answer.kept and answer.body == f"1 {language}".encode()
    assert (await one.ask()).kept and source.runs == 3


def heard(pair: tuple[Any, Any]) -> None:
    """So much later that every process knows of what others have invalidated (max_staleness)."""
    for site in dict.fromkeys(pair):
        site.clock.advance(5)


async def invalidate(site: Any) -> None:
    await site.ask(method="POST")


@pytest.mark.parametrize("moment", ["before", "after", "later"])
@pytest.mark.parametrize("by", [0, 1])
@pytest.mark.parametrize("variant", ["first", "second"])
async def test_an_invalidation_always_wins(pair: tuple[Any, Any], moment: str, by: int, variant: str) -> None:
    """At each moment of the run: what was read before it is given to nobody who asks after it."""
    source = Source(*pair)

    async def change() -> None:
        source.version = 2
        route, pair[by].route = pair[by].route, pair[by].static
        await invalidate(pair[by])
        pair[by].route = route

    if variant == "second":
        await pair[0].ask(accept_language="en")
    if moment != "later":
        setattr(source, moment, change)
    first = await pair[0].ask(accept_language="de")
    if moment == "later":
        await change()
    heard(pair)
    assert source.version == 2 and first.body == (b"2 de" if moment == "before" else b"1 de")
    for site in pair:
        for language in ("de", "en"):
            assert (await site.ask(accept_language=language)).body == f"2 {language}".encode()
            assert (await site.ask(accept_language=language)).kept


async def test_an_old_page_does_not_come_back_with_what_others_learned(pair: tuple[Any, Any]) -> None:
    """A slow run reads; the page is invalidated, made anew and stored by another; then the slow run ends."""
    one, other = pair
    source = Source(one, other)

    async def meanwhile() -> None:
        source.version = 2
        other.route = other.static
        await invalidate(other)
        other.route = source.page
        assert (await other.ask(accept_language="de")).body == b"2 de"

    source.after = meanwhile
    assert (await one.ask(accept_language="de")).body == b"1 de"
    heard(pair)
    for site in pair:
        for _ in range(2):
            assert (await site.ask(accept_language="de")).body == b"2 de"


async def test_who_waits_gets_the_page_of_the_same_run(pair: tuple[Any, Any]) -> None:
    source = Source(*pair)
    source.gate.clear()
    asked = [site.ask(accept_language="de") for site in pair for _ in range(50)]
    waiting = asyncio.gather(*asked)
    while not source.runs:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    source.gate.set()
    answers = await asyncio.wait_for(waiting, 20)
    assert {answer.body for answer in answers} == {b"1 de"} and source.runs == 1


async def test_who_waits_with_other_values_gets_none_of_it(pair: tuple[Any, Any]) -> None:
    source = Source(*pair)
    source.gate.clear()
    languages = ["de", "en", "fr"] * 10
    waiting = asyncio.gather(*[pair[0].ask(accept_language=language) for language in languages])
    while not source.runs:
        await asyncio.sleep(0.001)
    source.gate.set()
    answers = await asyncio.wait_for(waiting, 20)
    assert [answer.body for answer in answers] == [f"1 {language}".encode() for language in languages]
    assert source.runs == 3


async def test_pages_that_change_their_mind(site: Any) -> None:
    """What the last response says counts (RFC 9111 section 4.1)."""
    source = Source(site)
    given = {"accept_language": "de", "accept": "a", "x_a": "1"}
    for vary in ("accept-language", "accept", "x-a", "accept"):
        source.vary = vary
        await site.ask(cache_control="no-cache", **given)
        answer = await site.ask(**given)
        assert answer.kept and answer.body == b"1 de"
        assert not (await site.ask(**{**given, vary.replace("-", "_"): f"other {source.runs}"})).kept


async def test_a_page_that_never_settles_is_answered(site: Any) -> None:
    async def page(request: Request) -> Response:
        return Response(200, (("vary", f"x-{len(site.requests)}"),), b"page")

    site.route = page
    for _ in range(20):
        assert (await site.ask(cache_control="no-cache")).body == b"page"


async def test_the_route_may_name_fields_itself(sites: Any) -> None:
    site = sites(Rules(ttl=60.0, vary=("accept-language",)))
    source = Source(site, vary="accept")
    for language in ("de", "en", "de", "en"):
        assert (await site.ask(accept_language=language)).body == f"1 {language}".encode()
    assert source.runs == 2


async def test_a_client_reloads_its_own_variant(pair: tuple[Any, Any]) -> None:
    one, other = pair
    source = Source(one, other)
    for language in ("de", "en"):
        await one.ask(accept_language=language)
    source.version = 2
    for language in ("de", "en"):
        await other.ask(accept_language=language, cache_control="no-cache")
    for language in ("de", "en"):
        answer = await one.ask(accept_language=language)
        assert answer.kept and answer.body == f"2 {language}".encode()
    assert source.runs == 4


async def test_variants_end_each_in_its_time(site: Any) -> None:
    source = Source(site)
    await site.ask(accept_language="de")
    site.clock.advance(40)
    await site.ask(accept_language="en")
    site.clock.advance(30)
    assert not (await site.ask(accept_language="de")).kept
    assert (await site.ask(accept_language="en")).kept and source.runs == 3


@pytest.mark.parametrize("swr", [False, True])
async def test_stale_variants(sites: Any, swr: bool) -> None:
    site = sites(stale_ttl="1h", swr=swr)
    Source(site)
    for language in ("de", "en"):
        await site.ask(accept_language=language)
    site.clock.advance(100)
    site.route = site.says(500).static
    for language in ("de", "en"):
        answer = await site.ask(accept_language=language)
        assert (answer.status, answer.body, answer["x-cache"]) == (200, f"1 {language}".encode(), "STALE")
    assert (await site.ask(accept_language="fr")).status == 500
    await site.service.async_port.wait_for_tasks(10)


@pytest.mark.parametrize("how", ["raises", "answers"])
@pytest.mark.parametrize("language", ["de", "en", "fr"])
async def test_a_request_runs_its_route_once(sites: Any, how: str, language: str) -> None:
    """Also if it is looked for in two places, and the first run has failed: what a route does, it would do twice."""
    site = sites(stale_ttl="1h")
    Source(site)
    for first in ("de", "en"):
        await site.ask(accept_language=first)
    site.clock.advance(100)

    async def page(request: Request) -> Response:
        if how == "raises":
            raise OSError("away")
        return Response(503, (), b"away")

    site.route, before = page, len(site.requests)
    if language == "fr" and how == "raises":
        with pytest.raises(OSError, match="away"):
            await site.ask(accept_language=language)
    else:
        answer = await site.ask(accept_language=language)
        expected = (503, b"away", "MISS") if language == "fr" else (200, f"1 {language}".encode(), "STALE")
        assert (answer.status, answer.body, answer["x-cache"]) == expected
    assert len(site.requests) - before == 1


async def test_a_run_behind_a_client_is_not_its_own(sites: Any) -> None:
    """What a page varies by is asked anew behind the client who waits for another page, which is kept too."""
    site = sites(stale_ttl="1h", swr=True)
    source = Source(site)
    await site.ask(accept_language="de")
    site.clock.advance(100)
    source.version = 2
    answer = await site.ask(accept_language="fr")
    assert (answer.body, answer["x-cache"]) == (b"2 fr", "MISS")
    await site.service.async_port.wait_for_tasks(10)
    for _ in range(2):
        answer = await site.ask(accept_language="fr")
        assert answer.kept and answer.body == b"2 fr"
        await site.service.async_port.wait_for_tasks(10)
    assert source.runs == 3


async def test_a_late_page_is_not_kept_over_an_invalidation(sites: Any) -> None:
    """The second look begins while the run is on: it does not know what that has read before it."""
    site = sites(stale_ttl="1h", soft_timeout="20ms")
    source, pages = Source(site), site.pages
    await site.ask(accept_language="de")
    site.clock.advance(100)
    source.gate.clear()
    looks = []

    class Watched:
        def using(self, **switches: Any) -> Any:
            async def watched(key: Any, run: Any) -> Any:
                looks.append(key)
                if len(looks) == 2:
                    route, site.route = site.route, site.static
                    await invalidate(site)
                    site.route = route
                    asyncio.get_running_loop().call_later(0.05, source.gate.set)
                return await pages.using(**switches)(key, run)

            return watched

    site.pages = Watched()
    answer = await asyncio.wait_for(site.ask(accept_language="fr"), 10)
    assert answer.body == b"1 fr" and source.runs == 2 and len(looks) == 2
    source.version = 2
    for language in ("de", "fr"):
        answer = await site.ask(accept_language=language)
        assert (answer.body, answer["x-cache"]) == (f"2 {language}".encode(), "MISS")


async def test_cookies_that_pages_vary_by_are_not_stored(site: Any) -> None:
    """With a user, a page may vary by Cookie; what lies in the cache tells nobody the cookie."""
    seen: list[Any] = []
    ask = site.pages

    class Watched:
        def using(self, **switches: Any) -> Any:
            async def watched(key: Any, run: Any) -> Any:
                found = await ask.using(**switches)(key, run)
                seen.append((key, found))
                return found

            return watched

    site.pages = Watched()
    site.says(vary="cookie")
    assert (await site.twice({"user": "anna", "cookie": "sid=secret"}, user="anna", cookie="sid=secret")).kept
    assert not (await site.ask(user="anna", cookie="sid=other")).kept
    assert seen and "secret" not in repr(seen)
