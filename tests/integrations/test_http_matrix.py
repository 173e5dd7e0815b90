"""Two visitors who differ in one thing, at every door: nobody gets what was made for the other, without any option."""

import http_doors
import pytest
from http_doors import DOORS, Ask, Door

from cachekit.config.settings import load
from cachekit.process import replace_default
from cachekit.service import Service


@pytest.fixture(autouse=True)
def service():
    service = Service(load([], settings={"profiles": {"default": {"backend": "none"}}}, environ={}))
    before = replace_default(service)
    yield service
    replace_default(before)
    service.close()


@pytest.fixture(params=DOORS, ids=[door.name for door in DOORS])
def ask(request):
    door: Door = request.param
    http_doors.RUNS.clear()
    with door.open() as ask:
        yield ask


def test_what_is_the_same_for_all_is_kept(ask: Ask) -> None:
    first, second = ask("/plain"), ask("/plain")
    assert (first.body, first.cache, second.body, second.cache) == ("the same for all", "MISS", first.body, "HIT")
    assert http_doors.RUNS["/plain"] == 1


@pytest.mark.parametrize("header", ["authorization", "cookie"])
def test_credentials_go_around_the_cache(ask: Ask, header: str) -> None:
    assert ask("/name").body == "nobody"
    for visitor in ("user=alice", "user=bob"):
        answer = ask("/name", **{header: visitor})
        assert (answer.body, answer.cache) == (visitor, "BYPASS")
    assert (ask("/name").body, ask("/name").cache) == ("nobody", "HIT")


def test_a_session_that_a_page_fills_is_one_visitors(ask: Ask) -> None:
    alice, bob = ask("/session", x_visitor="alice"), ask("/session", x_visitor="bob")
    assert (alice.body, bob.body) == ("alice", "bob")
    assert alice.headers["set-cookie"] != bob.headers["set-cookie"]
    again = ask("/session", x_visitor="bob", cookie=alice.headers["set-cookie"].partition(";")[0])
    assert (again.body, again.cache) == ("alice", "BYPASS")


@pytest.mark.parametrize("path", ["/sets-cookie", "/private"])
def test_a_response_for_one_visitor_is_not_kept(ask: Ask, path: str) -> None:
    for visitor in ("alice", "bob", "alice"):
        answer = ask(path, x_visitor=visitor)
        assert (answer.body, answer.cache in ("MISS", "BYPASS")) == (visitor, True)
        assert answer.headers.get("set-cookie", f"sid={visitor}") == f"sid={visitor}"


def test_the_query_tells_pages_apart_and_its_order_does_not(ask: Ask) -> None:
    assert [ask(f"/query?x={x}").body for x in (1, 2, 1)] == ["x=1", "x=2", "x=1"]
    assert ask("/query?a=1&b=2").cache == "MISS"
    assert ask("/query?b=2&a=1").cache == "HIT"


def test_an_error_is_not_kept(ask: Ask) -> None:
    answers = [ask("/failing") for _ in range(3)]
    assert [(each.status, each.body) for each in answers] == [(500, "down"), (200, "up"), (200, "up")]
    assert answers[-1].cache == "HIT"
    assert [ask("/missing").status for _ in range(2)] == [404, 404]
    assert http_doors.RUNS["/missing"] == 2


def test_another_method_is_never_answered_from_what_get_kept(ask: Ask) -> None:
    assert [ask("/method", method).body for method in ("GET", "POST", "GET")] == ["GET", "POST", "GET"]
    assert http_doors.RUNS["/method"] == 3  # the second GET is one of a page that POST has outdated


def test_the_host_tells_pages_apart(ask: Ask) -> None:
    hosts = ["shop.test", "evil.test", "shop.test"]
    assert [ask("/host", host=host).body for host in hosts] == hosts
    assert http_doors.RUNS["/host"] == 2


def test_a_page_in_another_language_is_another_page(ask: Ask) -> None:
    languages = ["de", "fr", "de", "fr", "de"]
    assert [ask("/language", accept_language=language).body for language in languages] == languages
    assert ask("/language", accept_language="fr").cache == "HIT"


def test_entity_tags_answer_who_has_the_page(ask: Ask) -> None:
    tag = ask("/plain").headers["etag"]
    answer = ask("/plain", if_none_match=f'"other", {tag}')
    assert (answer.status, answer.body, answer.headers["etag"]) == (304, "", tag)
    assert ask("/plain", if_none_match='"other"').status == 200
    assert ask("/plain", if_none_match="*").status == 304
    assert {"cache-control", "etag"} <= set(answer.headers)


def test_the_one_date_is_that_of_the_server(ask: Ask) -> None:
    answers = [ask("/plain"), ask("/plain"), ask("/plain", if_none_match="*"), ask("/missing"), ask("/failing")]
    answers.append(ask("/never", cache_control="only-if-cached"))
    assert [(each.status, each.cache) for each in answers[:3]] == [(200, "MISS"), (200, "HIT"), (304, "HIT")]
    assert [each.headers.get("date") for each in answers] == [None] * 6


def test_a_client_who_has_the_page_already_gets_304_from_the_first_run_too(ask: Ask) -> None:
    tag = ask("/plain").headers["etag"]
    fresh = ask("/plain", if_none_match=tag, cache_control="no-cache")
    assert (fresh.status, fresh.cache) == (304, "MISS")
