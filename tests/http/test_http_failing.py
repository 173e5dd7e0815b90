"""Routes that fail: how often they are run, and who is given what they answered."""

import asyncio
from typing import Any

import pytest

from cachekit.http.messages import Request, Response
from cachekit.http.policy import Rules

COUNT = 20


async def ask_together(site: Any, *given: tuple[str, str], **each: Any) -> list[Any]:
    """So many answers at the same time; the route answers 503 with these fields when all of them are waiting."""
    gate = asyncio.Event()

    async def page(request: Request) -> Response:
        await gate.wait()
        return Response(503, given, b"away")

    site.route = page
    values = {name: each[name] if isinstance(each[name], list) else [each[name]] for name in each}
    asked = [site.ask(**{name: found[at % len(found)] for name, found in values.items()}) for at in range(COUNT)]
    waiting = asyncio.gather(*asked)
    while not site.requests:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    gate.set()
    return await asyncio.wait_for(waiting, 20)


async def test_an_error_is_for_all_who_waited_and_for_nobody_after(site: Any) -> None:
    answers = await ask_together(site)
    assert {(answer.status, answer.body, answer["x-cache"]) for answer in answers} == {(503, b"away", "MISS")}
    assert len(site.requests) == 1
    assert not (await site.ask()).kept and len(site.requests) == 2


@pytest.mark.parametrize("given", [("set-cookie", "a"), ("cache-control", "private"), ("cache-control", "no-store"),
                                   ("vary", "accept"), ("vary", "*")])  # fmt: skip
async def test_an_error_that_is_for_one_is_given_to_one(site: Any, given: tuple[str, str]) -> None:
    answers = await ask_together(site, given)
    assert {answer.status for answer in answers} == {503} and len(site.requests) == COUNT


async def test_an_error_is_not_for_who_wants_an_answer_of_their_own(site: Any) -> None:
    answers = await ask_together(site, cache_control=["no-cache", "max-age=5"])
    assert {answer.status for answer in answers} == {503}
    assert len(site.requests) == COUNT // 2  # with those of no-cache; one of these was for the others


async def test_an_error_for_somebody_is_not_for_others(sites: Any) -> None:
    """A proxy's requests with credentials wait with the others."""
    site = sites(Rules(ttl=None, proxy=True))
    await ask_together(site, authorization=["a", "b"])
    assert len(site.requests) == COUNT
    assert {request.fields[0][1] for request in site.requests} == {"a", "b"}


async def test_a_listed_error_is_kept(sites: Any) -> None:
    site = sites(Rules(ttl=60.0, statuses={503: 5.0}))
    assert (await site.says(503).twice()).kept
    site.clock.advance(6)
    assert not (await site.ask()).kept


async def test_an_exception_of_the_route_is_its_own(sites: Any) -> None:
    """And a stale page stands in for it, if there is one."""
    site = sites(stale_ttl="1h")

    async def page(request: Request) -> Response:
        raise OSError("away")

    first, site.route = site.route, page
    with pytest.raises(OSError, match="away"):
        await site.ask()
    site.route = first
    await site.ask()
    site.clock.advance(61)
    site.route = page
    answer = await site.ask()
    assert (answer["x-cache"], answer.runs) == ("STALE", 1)


async def test_an_exception_is_raised_where_stale_pages_are_forbidden(sites: Any) -> None:
    site = sites(stale_ttl="1h")

    async def page(request: Request) -> Response:
        raise OSError("away")

    await site.says(cache_control="max-age=10, must-revalidate").ask()
    site.clock.advance(11)
    site.route = page
    with pytest.raises(OSError, match="away"):
        await site.ask()


async def test_a_stale_page_stands_in_for_a_run_that_takes_too_long(sites: Any) -> None:
    """And the run goes on, for the next."""
    site = sites(stale_ttl="1h", soft_timeout="20ms")
    gate = asyncio.Event()

    async def page(request: Request) -> Response:
        await gate.wait()
        return Response(200, (), b"new")

    await site.ask()
    site.clock.advance(61)
    site.route = page
    answer = await site.ask()
    assert (answer["x-cache"], answer.body) == ("STALE", b"page")
    gate.set()
    assert await site.service.async_port.wait_for_tasks(10)
    answer = await site.ask()
    assert answer.kept and answer.body == b"new"
