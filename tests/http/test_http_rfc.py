"""What RFC 9111 and RFC 9110 say that a shared cache MUST or MUST NOT do, over a real cached function.

One test for each; its docstring begins with the section, and what that says in our words.
"""

import asyncio
import hashlib
from typing import Any

import pytest

from cachekit.http.dates import format as date
from cachekit.http.messages import Request, Response, fields
from cachekit.http.policy import Rules, kept_fields

NOON = 1_800_000_000.0  # when the sites begin: Fri, 15 Jan 2027 08:00:00 GMT
SAID = "public, max-age=60"


# RFC 9111 section 3: storing


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"])
async def test_other_methods_are_not_stored(site: Any, method: str) -> None:
    """RFC 9111 section 3: MUST NOT store what answers a method that the cache does not understand."""
    site.says(cache_control=SAID)
    assert not (await site.twice({"method": method}, method=method)).kept
    assert not (await site.ask()).kept


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308])
async def test_final_responses_with_a_life_are_stored(site: Any, status: int) -> None:
    """RFC 9111 section 3: MUST NOT store unless there is an explicit life, or one that the cache may assign."""
    site.says(status, b"" if status == 204 else b"page", cache_control="max-age=60")
    answer = await site.twice()
    assert answer.kept and answer.status == status


@pytest.mark.parametrize("status", [201, 202, 206, 302, 303, 304, 307, 400, 403, 404, 410, 418, 451, 499])
async def test_nothing_else_is_stored_without_being_listed(site: Any, status: int) -> None:
    """RFC 9111 section 3: MUST NOT store unless the status is a final one and something allows it."""
    assert not (await site.says(status).twice()).kept


@pytest.mark.parametrize("status", [206, 304])
async def test_parts_are_not_stored_whatever_they_say(sites: Any, status: int) -> None:
    """RFC 9111 section 3: 206 and 304 may be stored only by caches that understand them; this one does not."""
    site = sites(Rules(ttl=60.0, statuses={206: 60.0, 304: 60.0}, proxy=True))
    assert not (await site.says(status, cache_control=SAID).twice()).kept


@pytest.mark.parametrize("name", ["cache_control", "Cache-Control", "CACHE_CONTROL"])
@pytest.mark.parametrize("said", ["no-store", "NO-STORE, max-age=60", ["max-age=60", "no-store"], 'no-store="x"'])
async def test_no_store_is_not_stored(site: Any, name: str, said: str) -> None:
    """RFC 9111 section 5.2.2.5: no part of a response with no-store may be stored."""
    assert not (await site.says(**{name: said}).twice()).kept


@pytest.mark.parametrize("said", ["private", "Private, max-age=60", 'private="x-name"', "private; max-age=60"])
async def test_private_is_not_stored(site: Any, said: str) -> None:
    """RFC 9111 section 5.2.2.7: a shared cache MUST NOT store a response with private."""
    assert not (await site.says(cache_control=said).twice()).kept


async def test_private_is_for_whom_it_is_for(site: Any) -> None:
    """RFC 9111 section 5.2.2.7: the response is meant for one user, who may have it again."""
    site.says(cache_control="private, max-age=60")
    assert (await site.twice({"user": "anna"}, user="anna")).kept
    assert not (await site.ask(user="bert")).kept
    assert not (await site.ask()).kept


@pytest.mark.parametrize("said", ["no-cache", 'no-cache="set-cookie"', "no-cache, max-age=60"])
async def test_no_cache_is_not_used_without_validation(site: Any, said: str) -> None:
    """RFC 9111 section 5.2.2.4: a response with no-cache MUST NOT be used again without asking the origin."""
    assert not (await site.says(cache_control=said).twice()).kept


@pytest.mark.parametrize(("status", "kept"), [(200, True), (218, False), (599, False)])
async def test_must_understand(sites: Any, status: int, kept: bool) -> None:
    """RFC 9111 section 3: with must-understand, only a status that the cache understands may be stored."""
    site = sites(Rules(ttl=None, proxy=True)).says(status, cache_control="must-understand, max-age=60")
    assert (await site.twice()).kept is kept


@pytest.mark.parametrize("credentials", [{"authorization": "Basic YTpi"}, {"cookie": "sid=1"}])
@pytest.mark.parametrize("said", [SAID, "s-maxage=60", "must-revalidate, max-age=60", "max-age=60"])
async def test_responses_to_credentials_are_not_stored(site: Any, credentials: dict[str, str], said: str) -> None:
    """RFC 9111 section 3.5: what answered a request with Authorization MUST NOT answer others in a shared cache, unless
    it allows that; this one does not even then, and not with cookies."""
    site.says(cache_control=said)
    assert not (await site.twice(credentials)).kept
    assert (await site.ask()).kept  # a page for all is kept meanwhile,
    answer = await site.ask(**credentials)
    assert not answer.kept and answer["x-cache"] == "BYPASS"  # and is not for somebody


@pytest.mark.parametrize(("said", "open"), [
    ("public, max-age=60", True), ("s-maxage=60", True), ("must-revalidate, max-age=60", True), ("max-age=60", False),
    ("proxy-revalidate, max-age=60", False),
])  # fmt: skip
async def test_a_proxy_opens_responses_that_say_so(sites: Any, said: str, open: bool) -> None:
    """RFC 9111 section 3.5: must-revalidate, public and s-maxage allow it, nothing else."""
    site = sites(Rules(ttl=None, proxy=True)).says(cache_control=said)
    assert (await site.twice({"authorization": "a"}, authorization="b")).kept is open
    await site.ask()
    assert (await site.ask(authorization="b")).kept is open


@pytest.mark.parametrize("status", [400, 404, 410, 451, 500, 503])
async def test_an_error_is_not_stored_unless_it_is_listed(sites: Any, status: int) -> None:
    """RFC 9111 section 3 lets a cache keep what says how long it is fresh. Of errors the list of the route decides."""
    said = {"status": status, "cache_control": SAID}
    assert not (await sites(Rules(ttl=60.0)).says(**said).twice()).kept
    assert not (await sites(Rules(ttl=60.0, statuses={418: 60.0})).says(**said).twice()).kept
    assert (await sites(Rules(ttl=60.0, statuses={status: 60.0})).says(**said).twice()).kept


async def test_set_cookie_is_not_stored(site: Any) -> None:
    """RFC 9111 section 7.3: Set-Cookie alone does not forbid storing, and servers should say what they mean. Here it
    does: a session that is given to two is worse than any miss."""
    assert not (await site.says(cache_control=SAID, set_cookie="sid=1").twice()).kept


CONNECTION = "x-secret, close"


@pytest.mark.parametrize("name", [
    "connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "proxy-authenticate",
    "proxy-authentication-info", "proxy-authorization", "x-secret",
])  # fmt: skip
def test_fields_of_the_connection_are_not_stored(name: str) -> None:
    """RFC 9111 section 3.1: fields of Connection, and those of section 7.6.1 of RFC 9110, MUST be removed."""
    given = fields([("Connection", CONNECTION), (name, "x"), ("X-Other", "y")])
    assert kept_fields(given) == (("x-other", "y"),)


async def test_all_other_fields_are_stored(site: Any) -> None:
    """RFC 9111 section 3.1: all other fields MUST be stored, known or not; here lines and order too."""
    site.says(link=["</a>", "</b>"], x_unknown="", content_language="de")
    answer = await site.twice()
    assert answer.all("link") == ["</a>", "</b>"] and answer["x-unknown"] == "" and answer["content-language"] == "de"


@pytest.mark.parametrize("given", [{"content_length": "5"}, {"content_length": ["4", "5"]}, {"content_length": "x"},
                                   {"content_range": "bytes 0-3/4"}])  # fmt: skip
async def test_incomplete_responses_are_not_stored(site: Any, given: dict[str, str]) -> None:
    """RFC 9111 section 3.3: what is incomplete MUST NOT answer requests for the whole."""
    assert not (await site.says(**given).twice()).kept


async def test_a_complete_response_with_its_length_is_stored(site: Any) -> None:
    """RFC 9111 section 3.3: complete is what has all octets of its Content-Length."""
    assert (await site.says(content_length="4").twice()).kept


# Section 4: constructing responses


@pytest.mark.parametrize("other", [{"path": "/b"}, {"query": b"x=1"}, {"host": "example.org"}, {"scheme": "https"}])
async def test_another_target_is_another_page(site: Any, other: dict[str, str]) -> None:
    """RFC 9111 section 4: a stored response answers requests for its own target URI only."""
    assert not (await site.twice({}, **other)).kept


async def test_unsafe_requests_go_to_the_route(site: Any) -> None:
    """RFC 9111 section 4: requests with unsafe methods MUST reach the origin."""
    assert (await site.twice({}, method="POST")).runs == 1
    assert site.requests[-1].method == "POST"


async def test_what_is_kept_has_an_age(site: Any) -> None:
    """RFC 9111 section 4: what is answered from the cache MUST have an Age of the cache's own making."""
    await site.ask()
    site.clock.advance(7.9)
    answer = await site.ask()
    assert answer.kept and answer.all("age") == ["7"]


async def test_the_body_of_a_request_is_not_ignored(site: Any) -> None:
    """RFC 9110 section 9.3.1: content in a GET has no general meaning, so a cache cannot know it; it goes around."""
    assert not (await site.twice({}, body=True)).kept


@pytest.mark.parametrize(("vary", "first", "second", "same"), [
    ("accept", {"accept": "a"}, {"accept": "a"}, True),
    ("accept", {"accept": "a"}, {"accept": "b"}, False),
    ("ACCEPT", {"accept": "a"}, {"accept": "b"}, False),
    ("accept", {}, {}, True),  # absent in both
    ("accept", {"accept": "a"}, {}, False),
    ("accept", {}, {"accept": ""}, False),
    ("accept", {"accept": "a"}, {"accept": "a", "x_other": "b"}, True),
    ("accept, x-a", {"accept": "a", "x_a": "1"}, {"accept": "a", "x_a": "1"}, True),
    ("accept, x-a", {"accept": "a", "x_a": "1"}, {"accept": "a", "x_a": "2"}, False),
    (["accept", "x-a"], {"accept": "a", "x_a": "1"}, {"accept": "a", "x_a": "2"}, False),
    ("*", {}, {}, False), ("accept, *", {}, {}, False), (["accept", "*"], {}, {}, False),
    ("accept", {"accept": "a, b"}, {"accept": ["a", "b"]}, True),
    ("cookie", {}, {}, False), ("Authorization", {}, {}, False),
])  # fmt: skip
async def test_vary(site: Any, vary: str, first: dict[str, str], second: dict[str, str], same: bool) -> None:
    """RFC 9111 section 4.1: MUST NOT be used, without asking, unless all request fields that its Vary names match those
    of the request that it answered; an asterisk never matches."""
    assert (await site.says(vary=vary).twice(first, **second)).kept is same


@pytest.mark.parametrize(("given", "life"), [
    ({"cache_control": "max-age=5"}, 5), ({"cache_control": "s-maxage=5, max-age=50"}, 5),
    ({"cache_control": "max-age=50, s-maxage=5"}, 5), ({"cache_control": "s-maxage=50, max-age=5"}, 50),
    ({"cache_control": "max-age=5", "expires": date(NOON + 50)}, 5),
    ({"cache_control": "max-age=5", "expires": "0"}, 5),
    ({"cache_control": "public", "expires": date(NOON + 5)}, 5),
    ({"expires": date(NOON + 5)}, 5), ({"expires": date(NOON + 5), "date": date(NOON)}, 5),
    ({"expires": date(NOON + 5), "date": date(NOON + 2)}, 3), ({"expires": date(NOON + 5), "date": "soon"}, 5),
    ({"expires": date(NOON - 5)}, 0), ({"expires": date(NOON)}, 0), ({"expires": "0"}, 0), ({"expires": ""}, 0),
    ({"expires": [date(NOON + 5), date(NOON + 50)]}, 0), ({"cache_control": "max-age=0"}, 0),
    ({"cache_control": "max-age=x"}, 0), ({"cache_control": "max-age=5, max-age=50"}, 5),
    ({"cache_control": "max-age=-5"}, 0), ({"cache_control": "max-age=5.5"}, 0), ({"cache_control": 'max-age="5"'}, 5),
    ({"cache_control": "x=max-age=5"}, 60), ({"cache_control": 'x="max-age=5"'}, 60), ({"cache_control": ""}, 60),
    ({}, 60), ({"last_modified": date(NOON - 1000)}, 60),
])  # fmt: skip
async def test_life(site: Any, given: dict[str, str], life: int) -> None:
    """RFC 9111 section 4.2.1: s-maxage, max-age, Expires minus Date, in this order. Section 5.3: an
    invalid date, 0 above all, MUST count as one in the past. Else the ttl of the route."""
    await site.says(**given).ask()
    site.clock.advance(max(life - 0.5, 0))
    assert (await site.ask()).kept is (life > 0)
    site.clock.advance(0.6)
    assert not (await site.ask()).kept


async def test_no_life_is_guessed(sites: Any) -> None:
    """RFC 9111 section 4.2.2: MUST NOT guess where a time is given; here never."""
    assert not (await sites(Rules(ttl=None)).says(last_modified=date(NOON - 86400)).twice()).kept


@pytest.mark.parametrize(("status", "given", "life"), [
    (200, {"last_modified": date(NOON - 1000)}, 100), (404, {"last_modified": date(NOON - 1000)}, 100),
    (200, {"last_modified": date(NOON - 1000), "cache_control": "max-age=0"}, 0),
    (200, {"last_modified": date(NOON - 1000), "expires": "0"}, 0),
    (200, {"last_modified": date(NOON + 1000)}, 0), (200, {}, 0), (403, {"last_modified": date(NOON - 1000)}, 0),
    (403, {"last_modified": date(NOON - 1000), "cache_control": "public"}, 100),
])  # fmt: skip
async def test_a_proxy_guesses(sites: Any, status: int, given: dict[str, str], life: int) -> None:
    """RFC 9111 section 4.2.2: heuristics only without an explicit time, and only for codes that may be cached by them,
    or public ones."""
    site = sites(Rules(ttl=None, proxy=True)).says(status, **given)
    await site.ask()
    site.clock.advance(max(life - 1, 0))
    assert (await site.ask()).kept is (life > 0)
    site.clock.advance(2)
    assert not (await site.ask()).kept


@pytest.mark.parametrize(("given", "age"), [
    ({}, 0), ({"age": "10"}, 10), ({"date": date(NOON - 10)}, 10), ({"date": date(NOON - 10), "age": "30"}, 30),
    ({"date": date(NOON - 30), "age": "10"}, 30), ({"date": date(NOON + 30)}, 0), ({"age": ["10", "20"]}, 10),
    ({"age": "10, 20"}, 10), ({"date": "x", "age": "010"}, 10),
])  # fmt: skip
async def test_age(site: Any, given: dict[str, str], age: int) -> None:
    """RFC 9111 section 4.2.3: the age it came with is the greater of that by its Date and its Age; the time it has lain
    here is added. Section 5.1: of several the first."""
    await site.says(**given).ask()
    site.clock.advance(3)
    answer = await site.ask()
    assert answer.kept and answer.all("age") == [str(age + 3)]
    site.clock.advance(57 - age)
    assert not (await site.ask()).kept


@pytest.mark.parametrize("age", ["x", "-1", "1.5", "", "10;x", "9" * 5000, "60"])
async def test_what_is_too_old_or_of_unknown_age_is_not_kept(site: Any, age: str) -> None:
    """RFC 9111 section 5.1: an Age that is no number SHOULD be ignored; here nobody knows then how old the page is."""
    assert not (await site.says(age=age).twice()).kept


STALE = {"stale_ttl": "1h", "swr": True}


@pytest.mark.parametrize("said", ["must-revalidate", "proxy-revalidate", "s-maxage=60"])
@pytest.mark.parametrize("after", [60, 61])  # in the very second that it ends it is stale
async def test_stale_pages_that_forbid_it_are_not_given(sites: Any, said: str, after: int) -> None:
    """RFC 9111 section 4.2.4: MUST NOT give what is stale where a directive of the response forbids it: sections
    5.2.2.2, 5.2.2.8, 5.2.2.10."""
    site = sites(**STALE)
    await site.says(cache_control=f"max-age=60, {said}").ask()
    site.clock.advance(after)
    assert (await site.says(body=b"new").ask()).body == b"new"


@pytest.mark.parametrize("said", ["must-revalidate", "proxy-revalidate", "s-maxage=60"])
async def test_an_error_is_told_where_stale_pages_are_forbidden(sites: Any, said: str) -> None:
    """RFC 9111 section 5.2.2.2: MUST generate an error rather than reuse the stale page."""
    site = sites(**STALE)
    await site.says(cache_control=f"max-age=60, {said}").ask()
    site.clock.advance(61)
    answer = await site.says(503).ask()
    assert answer.status == 503 and answer["x-cache"] == "MISS" and len(site.requests) <= 3


async def test_stale_pages_have_their_full_age(sites: Any) -> None:
    """RFC 9111 section 4.2.4 and 5.1: Age goes on past the life."""
    site = sites(stale_ttl="1h")
    await site.ask()
    site.clock.advance(100)
    answer = await site.says(500).ask()
    assert (answer.status, answer["x-cache"], answer["age"], answer.body) == (200, "STALE", "100", b"page")


@pytest.mark.parametrize(("given", "last"), [
    ({}, 3600), ({"cache_control": "max-age=60, stale-if-error=10"}, 10),
    ({"cache_control": "max-age=60, stale-while-revalidate=10"}, 10),
])  # fmt: skip
async def test_a_stale_page_is_given_no_longer_than_it_says(sites: Any, given: dict[str, str], last: int) -> None:
    """RFC 9111 section 4.2.4: only if disconnected, or where that is permitted; RFC 5861: for how long."""
    site = sites(stale_ttl="1h")
    await site.says(**given).ask()
    site.clock.advance(60 + last - 0.5)
    assert (await site.says(500).ask()).status == 200
    site.clock.advance(1)
    answer = await site.ask()
    assert answer.status == 500 and answer.runs <= 1


# Section 4.3: validation by clients


@pytest.mark.parametrize("name", ["if_match", "if_unmodified_since", "if_range", "range"])
async def test_conditions_for_the_origin_are_left_to_it(site: Any, name: str) -> None:
    """RFC 9111 section 4.3.2: conditions that are for the origin alone MUST NOT be evaluated by a cache. RFC 9110
    section 14.2: Range is the route's affair too."""
    answer = await site.twice({}, **{name: date(NOON)})
    assert not answer.kept and answer.status == 200


async def test_not_modified(site: Any) -> None:
    """RFC 9110 section 15.4.5: the 304 MUST have Cache-Control, Content-Location, Date, ETag, Expires and Vary, if the
    200 had them; and it has no content, and nothing that describes one."""
    given = {
        "cache_control": "max-age=60", "content_location": "/here", "expires": date(NOON + 9), "vary": "accept",
        "etag": '"e"', "content_type": "text/plain", "last_modified": date(NOON - 9), "content_length": "4",
    }  # fmt: skip
    for runs in (1, 0):
        answer = await site.says(**given).ask(if_none_match='"e"')
        assert (answer.status, answer.body, answer.runs) == (304, b"", runs)
        for name in ("cache-control", "content-location", "expires", "vary", "etag"):
            assert answer[name] == given[name.replace("-", "_")]
        assert answer["date"] is not None
        assert [answer[name] for name in ("content-type", "content-length", "last-modified")] == [None] * 3
    assert answer["age"] == "0"


@pytest.mark.parametrize(("given", "status"), [
    ({"if_modified_since": date(NOON - 60)}, 304), ({"if_modified_since": date(NOON)}, 304),
    ({"if_modified_since": date(NOON - 61)}, 200),
    ({"if_modified_since": "yesterday"}, 200),
    ({"if_modified_since": [date(NOON), date(NOON)]}, 200),
    ({"if_modified_since": "Friday, 15-Jan-27 08:00:00 GMT"}, 304),
    ({"if_modified_since": "Fri Jan 15 08:00:00 2027"}, 304),
    ({"if_modified_since": date(NOON), "if_none_match": '"other"'}, 200),  # section 13.1.3: MUST ignore it then
    ({"if_modified_since": date(NOON - 99), "if_none_match": "*"}, 304),
])  # fmt: skip
async def test_if_modified_since(site: Any, given: dict[str, str], status: int) -> None:
    """RFC 9110 section 13.1.3: If-Modified-Since MUST be ignored beside If-None-Match, and if it is no date or several;
    13.2.2: the order."""
    site.says(last_modified=date(NOON - 60), etag='"e"')
    assert (await site.twice({}, **given)).status == status


@pytest.mark.parametrize("status", [404, 301])
async def test_conditions_are_for_what_would_be_a_200(sites: Any, status: int) -> None:
    """RFC 9110 section 13.2.1: conditions MUST be ignored where the response without them is neither 2xx nor 412."""
    site = sites(Rules(ttl=60.0, statuses={404: 60.0})).says(status, etag='"e"')
    answer = await site.twice({}, if_none_match='"e"')
    assert answer.kept and answer.status == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_conditions_of_unsafe_requests_are_the_routes(site: Any, method: str) -> None:
    """RFC 9110 section 13.1.2: If-None-Match of other methods is answered by 412, which the route must see to."""
    assert (await site.twice({}, method=method, if_none_match="*")).status == 200


async def test_entity_tags_are_strong(site: Any) -> None:
    """RFC 9110 section 8.8.1: a strong validator MUST change with the representation: content, type, encoding."""
    found = []
    for given in [{"body": b"a"}, {"body": b"b"}, {"body": b"a", "content_type": "x"},
                  {"body": b"a", "content_encoding": "x"}]:  # fmt: skip
        found.append((await site.says(**given).ask(cache_control="no-cache"))["etag"])
    assert len(set(found)) == 4 and not any(tag is None or tag.startswith("W/") for tag in found)
    assert (await site.says(body=b"a").ask(cache_control="no-cache"))["etag"] == found[0]


# HEAD


async def test_head_is_answered_from_what_get_kept(site: Any) -> None:
    """RFC 9110 section 9.3.2: fields SHOULD be those of GET; RFC 9111 section 4: a GET's response may answer HEAD."""
    got = await site.says(content_length="4").ask()
    answer = await site.ask(method="HEAD")
    assert answer.kept and answer["content-length"] == "4" and answer["etag"] == got["etag"]


async def test_head_fills_nothing(site: Any) -> None:
    """RFC 9111 section 4: a stored response answers only methods that its own allows, and HEAD is not GET."""
    site.says(body=b"", content_length="4")
    assert (await site.ask(method="HEAD")).runs == 1
    assert not (await site.ask(method="HEAD")).kept
    assert not (await site.says().ask()).kept


async def test_head_does_not_keep_others_from_filling(site: Any) -> None:
    """RFC 9110 section 9.3.2: a HEAD has no content, so a GET that comes meanwhile needs a run of its own."""
    gate = asyncio.Event()

    async def page(request: Request) -> Response:
        await gate.wait()
        return Response(200, (), b"" if request.method == "HEAD" else b"page")

    site.route = page
    asked = [asyncio.create_task(site.ask(method=method)) for method in ("HEAD", "GET", "GET")]
    async with asyncio.timeout(20):
        while len(site.requests) < 2:
            await asyncio.sleep(0.001)
    gate.set()
    answers = [(await asyncio.wait_for(task, 20)).body for task in asked]
    assert answers == [b"", b"page", b"page"] and len(site.requests) == 2
    assert (await site.ask()).kept


# Section 4.4: invalidation


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "UNHEARD-OF"])
@pytest.mark.parametrize(
    ("status", "gone"), [(200, True), (204, True), (303, True), (399, True), (404, False), (500, False)]
)
async def test_unsafe_requests_outdate_their_target(site: Any, method: str, status: int, gone: bool) -> None:
    """RFC 9111 section 4.4: the target of an unsafe method, or of one that may be, MUST be invalidated when it has
    been answered without an error."""
    for query in (b"", b"x=1"):
        await site.ask("/a", query=query)
    await site.ask("/b")
    await site.says(status, b"").ask("/a", method=method)
    site.says()
    for query in (b"", b"x=1"):
        assert (await site.ask("/a", query=query)).kept is not gone
    assert (await site.ask("/b")).kept


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
async def test_safe_requests_outdate_nothing(site: Any, method: str) -> None:
    """RFC 9110 section 9.2.1: these are safe."""
    assert (await site.twice({}, method=method)).runs <= 1
    assert (await site.ask()).kept


@pytest.mark.parametrize("name", ["location", "content_location"])
@pytest.mark.parametrize(("reference", "gone"), [
    ("/b", True), ("b", True), ("./x/../b", True), ("/b?x=1", True), ("//example.com/b", True), ("/%62", True),
    ("http://example.com/b", True), ("http://EXAMPLE.com:80/b", True), ("http://example.com:/b#part", True),
    ("http://example.org/b", False), ("http://example.com:8080/b", False), ("https://example.com/b", False),
    ("http://user@example.com/b", False), ("http://[/b", False), ("", False),
])  # fmt: skip
async def test_references_outdate_pages_of_this_origin_only(site: Any, name: str, reference: str, gone: bool) -> None:
    """RFC 9111 section 4.4: what Location and Content-Location name may be invalidated too, but MUST NOT be, if it
    is of another origin than the target."""
    await site.ask("/b")
    for other in ("example.org", "example.com:8080"):
        await site.ask("/b", host=other)
    await site.ask("/b", scheme="https")
    await site.says(201, **{name: reference}).ask("/a", method="POST")
    site.says()
    assert (await site.ask("/b")).kept is not gone
    for other in ("example.org", "example.com:8080"):
        assert (await site.ask("/b", host=other)).kept
    assert (await site.ask("/b", scheme="https")).kept


# Section 5.2.1: what clients ask for


@pytest.mark.parametrize(("asked", "kept"), [
    ("no-cache", False), ("max-age=0", False), ("max-age=9", False), ("max-age=10", True), ("min-fresh=51", False),
    ("min-fresh=50", True), ("no-store", False), ("max-age=x", False), ("max-stale=5", True), ("unknown", True),
    ("no-transform", True), ("only-if-cached", True), ("only-if-cached, no-cache", None),
    ("max-age=99, max-age=1", False),
])  # fmt: skip
async def test_request_directives(site: Any, asked: str, kept: bool | None) -> None:
    """RFC 9111 section 5.2.1: a client may want nothing kept (no-cache), nothing old (max-age), nothing that ends soon
    (min-fresh), nothing stored (no-store), or nothing but what is stored (only-if-cached)."""
    await site.ask()
    site.clock.advance(10)
    answer = await site.ask(cache_control=asked)
    assert answer.kept is bool(kept)
    assert (answer.status, answer.runs) == ((504, 0) if kept is None else (200, 0 if kept else 1))


async def test_a_new_page_that_a_client_asked_for_is_for_all(site: Any) -> None:
    """RFC 9111 section 4: of several stored responses the newest MUST be used, also if no-cache brought it."""
    await site.twice({}, cache_control="no-cache")
    await site.says(body=b"new").ask(cache_control="no-cache")
    answer = await site.ask()
    assert answer.kept and answer.body == b"new"


async def test_no_store_of_a_request_keeps_nothing(site: Any) -> None:
    """RFC 9111 section 5.2.1.5: neither such a request nor what answers it may be stored."""
    assert not (await site.twice({"cache_control": "no-store"})).kept


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_only_if_cached(site: Any, method: str) -> None:
    """RFC 9111 section 5.2.1.7: SHOULD be answered with a stored response or 504."""
    answer = await site.ask(cache_control="only-if-cached", method=method)
    assert (answer.status, answer.runs, answer["x-cache"]) == (504, 0, "MISS") and answer["date"] == date(NOON)
    await site.says(vary="accept").ask(accept="a")
    assert (await site.ask(cache_control="only-if-cached", method=method, accept="a")).kept
    assert (await site.ask(cache_control="only-if-cached", method=method, accept="b")).status == 504
    site.clock.advance(61)
    assert (await site.ask(cache_control="only-if-cached", method=method, accept="a")).status == 504


async def test_a_stale_page_is_not_for_who_names_an_age(sites: Any) -> None:
    """RFC 9111 section 5.2.1.1: who names a max-age without max-stale wants nothing stale."""
    for asked, kept in [("max-age=3600", False), ("max-age=3600, max-stale", True)]:
        site = sites(stale_ttl="1h", swr=True)
        await site.ask()
        site.clock.advance(70)
        assert (await site.ask(cache_control=asked)).kept is kept


@pytest.mark.parametrize(("given", "kept"), [({"pragma": "no-cache"}, False), ({"pragma": "No-Cache, x"}, False),
                                             ({"pragma": "no-cache", "cache_control": "max-age=99"}, True),
                                             ({"pragma": "x"}, True)])  # fmt: skip
async def test_pragma(site: Any, given: dict[str, str], kept: bool) -> None:
    """RFC 9111 section 5.4 deprecates it; by RFC 7234 section 5.4 it is no-cache where there is no Cache-Control."""
    assert (await site.twice({}, **given)).kept is kept


async def test_pragma_in_a_response_means_nothing(site: Any) -> None:
    """RFC 7234 section 5.4: what it means in a response is nowhere said."""
    assert (await site.says(pragma="no-cache").twice()).kept


# What clients see


async def test_answers_have_a_date(site: Any) -> None:
    """RFC 9110 section 6.6.1: an origin with a clock MUST send a Date, and who finds one leaves it."""
    assert (await site.ask())["date"] == date(NOON)
    site.clock.advance(5)
    assert (await site.ask())["date"] == date(NOON)
    await site.says(date=date(NOON - 1)).ask(cache_control="no-cache")
    assert (await site.ask()).all("date") == [date(NOON - 1)]


async def test_an_entity_tag_of_the_route_stays(site: Any) -> None:
    """RFC 9110 section 8.8.3: the origin chooses it."""
    assert (await site.says(etag='W/"mine"').twice()).all("etag") == ['W/"mine"']


@pytest.mark.parametrize(
    ("said", "expected"),
    [([], "x-tenant"), ("Accept", "Accept, x-tenant"), (["Accept", "X-Tenant"], "Accept, X-Tenant")],
)
async def test_what_the_route_tells_apart_is_said(sites: Any, said: Any, expected: str) -> None:
    """RFC 9110 section 12.5.5: or the next cache gives one tenant's page to another."""
    site = sites(Rules(ttl=60.0, vary=("x-tenant",), client_ttl=30.0)).says(vary=said)
    answers = [await site.ask(x_tenant=tenant) for tenant in ("a", "a", "b", "b")]
    assert [answer["x-cache"] for answer in answers] == ["MISS", "HIT"] * 2
    assert {answer["vary"] for answer in answers} == {expected}
    not_modified = await site.ask(x_tenant="a", if_none_match=answers[0]["etag"])
    assert (not_modified.status, not_modified["vary"]) == (304, expected)


@pytest.mark.parametrize(("seconds", "said"), [(0.0, "private, no-cache"), (30.0, "private, max-age=30")])
async def test_a_page_for_nobody_is_not_for_who_has_logged_in_since(sites: Any, seconds: float, said: str) -> None:
    """Where the route knows users, no shared cache may give anybody the page that was made for none of them."""
    site = sites(Rules(ttl=60.0, client_ttl=seconds, per_user=True))
    for user in (None, None, "anna", "anna"):
        assert (await site.ask(user=user))["cache-control"] == said
    assert len(site.requests) == 2


@pytest.mark.parametrize(("method", "given", "expected"), [
    ("GET", {}, "cachekit; hit; ttl=50"), ("POST", {}, "cachekit; fwd=method"),
    ("GET", {"cache_control": "no-cache"}, "cachekit; fwd=request; stored"),
    ("GET", {"cookie": "a"}, 'cachekit; fwd=bypass; detail="cookie"'),
    ("GET", {"path": "/b"}, "cachekit; fwd=uri-miss; stored"),
])  # fmt: skip
async def test_cache_status(site: Any, method: str, given: dict[str, str], expected: str) -> None:
    """RFC 9211 section 2: what each cache did, ours last."""
    await site.says(cache_status="inner; hit").ask()
    site.clock.advance(10)
    assert (await site.ask(method=method, **given))["cache-status"] == f"inner; hit, {expected}"


async def test_cache_status_says_what_was_there(sites: Any) -> None:
    """RFC 9211 section 2.2: nothing for this URI, nothing for these fields, something that is too old."""
    site = sites(stale_ttl="1h").says(vary="accept")
    said = [(await site.ask(accept=value))["cache-status"] for value in "ab"]
    assert said == ["cachekit; fwd=uri-miss; stored", "cachekit; fwd=vary-miss; stored"]
    assert (await site.ask(method="HEAD", accept="c"))["cache-status"] == "cachekit; fwd=vary-miss"
    assert (await site.ask(method="HEAD", accept="a", cache_control="no-cache"))["cache-status"] == (
        "cachekit; fwd=request"
    )
    assert (await site.ask(method="HEAD", path="/b"))["cache-status"] == "cachekit; fwd=uri-miss"
    site.clock.advance(100)
    said = [(await site.ask(accept=value))["cache-status"] for value in "ab"]
    assert said == ["cachekit; fwd=stale; stored"] * 2
    site.clock.advance(100)
    assert (await site.ask(accept="c"))["cache-status"] == "cachekit; fwd=vary-miss; stored"


async def test_cache_status_of_what_was_not_forwarded(site: Any) -> None:
    """RFC 9211 section 2.2: fwd is only of requests that went on."""
    answer = await site.ask(cache_control="only-if-cached")
    assert (answer.status, answer["cache-status"]) == (504, 'cachekit; detail="only-if-cached"')


def test_kept_pages_are_plain_data() -> None:
    """So that any serializer keeps them, and the tag is the same in every process."""
    from cachekit.http import conditional

    tagged = conditional.with_tag(Response(200, (), b"x"))
    content = b"".join(b"0:" for _ in range(3)) + b"x"
    assert tagged.fields == (("etag", f'"{hashlib.sha256(content).hexdigest()[:32]}"'),)
    assert Request("GET", "http", "h", "/", b"", ()).body is False
