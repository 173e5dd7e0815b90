"""Two visitors who differ in one thing, at the door of Flask: nobody gets what was made for the other, without any
option."""

from typing import Any, NamedTuple

import pytest
from flask_door import FlaskDoor

from cachekit.config.settings import load
from cachekit.process import replace_default
from cachekit.service import Service


class Made(NamedTuple):
    """What a page answers."""

    body: str
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


def with_session(seen: Any) -> Made:
    found = seen.session()
    found["user"] = found.get("user") or seen.headers["x-visitor"]
    return Made(found["user"])


PAGES: dict[str, Any] = {
    "/name": lambda seen: Made(seen.headers.get("authorization") or seen.headers.get("cookie") or "nobody"),
    "/private": lambda seen: Made(seen.headers["x-visitor"], 200, (("cache-control", "private, max-age=60"),)),
    "/sets-cookie": lambda seen: Made(
        seen.headers["x-visitor"], 200, (("set-cookie", f"s={seen.headers['x-visitor']}"),)
    ),
    "/session": with_session,
    "/query": lambda seen: Made(seen.query),
    "/failing": lambda seen: Made("down", 500) if RUNS["/failing"] == 1 else Made("up"),
    "/missing": lambda seen: Made("missing", 404),
    "/method": lambda seen: Made(seen.method),
    "/host": lambda seen: Made(seen.headers["host"]),
    "/language": lambda seen: Made(seen.headers.get("accept-language", ""), 200, (("vary", "Accept-Language"),)),
    "/languages": lambda seen: Made(str(seen.asked.accept_languages.best_match(["de", "fr"]))),
    "/types": lambda seen: Made(str(seen.asked.accept_mimetypes.best_match(["text/html", "text/csv"]))),
    "/charsets": lambda seen: Made(str(seen.asked.accept_charsets.best_match(["utf-8", "latin-1"]))),
    "/encodings": lambda seen: Made(str(seen.asked.accept_encodings.best_match(["gzip", "br"]))),
    "/plain": lambda seen: Made("the same for all"),
}
RUNS: dict[str, int] = {}


def run(path: str, seen: Any) -> Made:
    RUNS[path] = RUNS.get(path, 0) + 1
    made: Made = PAGES[path](seen)
    return made


@pytest.fixture
def ask():
    service = Service(load([], settings={"profiles": {"default": {"backend": "none"}}}, environ={}))
    before = replace_default(service)
    RUNS.clear()
    with FlaskDoor(PAGES, run).open() as ask:
        yield ask
    replace_default(before)
    service.close()


def test_what_is_the_same_for_all_is_kept(ask):
    first, second = ask("/plain"), ask("/plain")
    assert (first.body, first.cache, second.body, second.cache) == ("the same for all", "MISS", first.body, "HIT")


@pytest.mark.parametrize("header", ["authorization", "cookie"])
def test_credentials_go_around_the_cache(ask, header):
    assert ask("/name").body == "nobody"
    for visitor in ("user=alice", "user=bob"):
        answer = ask("/name", **{header: visitor})
        assert (answer.body, answer.cache) == (visitor, "BYPASS")
    assert (ask("/name").body, ask("/name").cache) == ("nobody", "HIT")


def test_a_session_is_one_visitors(ask):
    alice, bob = ask("/session", x_visitor="alice"), ask("/session", x_visitor="bob")
    assert (alice.body, bob.body) == ("alice", "bob")
    assert alice.headers["set-cookie"] != bob.headers["set-cookie"]
    again = ask("/session", x_visitor="bob", cookie=alice.headers["set-cookie"].partition(";")[0])
    assert (again.body, again.cache) == ("alice", "BYPASS")


@pytest.mark.parametrize("path", ["/sets-cookie", "/private"])
def test_a_response_for_one_visitor_is_not_kept(ask, path):
    for visitor in ("alice", "bob", "alice"):
        answer = ask(path, x_visitor=visitor)
        assert (answer.body, answer.cache in ("MISS", "BYPASS")) == (visitor, True)
        assert answer.headers.get("set-cookie", f"s={visitor}") == f"s={visitor}"


def test_the_query_tells_pages_apart_and_its_order_does_not(ask):
    assert [ask(f"/query?x={x}").body for x in (1, 2, 1)] == ["x=1", "x=2", "x=1"]
    assert [ask(f"/query?{query}").cache for query in ("a=1&b=2", "b=2&a=1")] == ["MISS", "HIT"]


def test_an_error_is_not_kept(ask):
    answers = [ask("/failing") for _ in range(3)]
    assert [(each.status, each.body) for each in answers] == [(500, "down"), (200, "up"), (200, "up")]
    assert answers[-1].cache == "HIT"
    assert [ask("/missing").status for _ in range(2)] == [404, 404]
    assert RUNS["/missing"] == 2


def test_another_method_is_never_answered_from_what_get_kept(ask):
    assert [ask("/method", method).body for method in ("GET", "POST", "GET")] == ["GET", "POST", "GET"]
    assert RUNS["/method"] == 3


def test_the_host_tells_pages_apart(ask):
    hosts = ["shop.test", "evil.test", "shop.test"]
    assert [ask("/host", host=host).body for host in hosts] == hosts
    assert RUNS["/host"] == 2


def test_a_page_in_another_language_is_another_page(ask):
    languages = ["de", "fr", "de", "fr", "de"]
    assert [ask("/language", accept_language=language).body for language in languages] == languages
    assert ask("/language", accept_language="fr").cache == "HIT"


@pytest.mark.parametrize(
    ("path", "field", "wanted"),
    [
        ("/languages", "Accept-Language", ["de", "fr"]), ("/types", "Accept", ["text/html", "text/csv"]),
        ("/charsets", "Accept-Charset", ["utf-8", "latin-1"]), ("/encodings", "Accept-Encoding", ["gzip", "br"]),
    ],
)  # fmt: skip
def test_what_a_page_asks_its_request_for_tells_pages_apart(ask, path, field, wanted):
    """Though it does not say so in Vary."""
    answers = [ask(path, **{field: value}) for value in wanted * 2]
    assert [answer.body for answer in answers] == wanted * 2
    assert [answer.cache for answer in answers] == ["MISS", "MISS", "HIT", "HIT"]
    assert {answer.headers["vary"] for answer in answers} == {field}
