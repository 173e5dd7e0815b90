"""The short way of an ordinary hit and the long one give the same, and count the same."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any, NamedTuple

import pytest
from fastapi import FastAPI, Request, Response
from flask import Flask
from flask import Response as FlaskResponse
from hypothesis import given
from hypothesis import strategies as st

from cachekit import MISS, disabled, tenant
from cachekit.config.settings import load
from cachekit.function import Function
from cachekit.http import short
from cachekit.integrations import flask as in_flask
from cachekit.integrations.fastapi import CacheKit, cached_response
from cachekit.process import replace_default
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock

NOON = 1_800_000_000.0
CONFIG = {
    "profiles": {
        "default": {
            "backend": "none", "ttl": "1m", "stale_ttl": "1m", "early_refresh": "off",
            "negative_exceptions": {"ZeroDivisionError": "30s"},
        },
    },
}  # fmt: skip

Fields = tuple[tuple[str, str], ...]


class Asked(NamedTuple):
    """A request, and how many seconds after the one before."""

    after: float = 0.0
    method: str = "GET"
    query: str = ""
    fields: Fields = ()
    inside: Any = nullcontext()


class Answer(NamedTuple):
    status: int
    fields: Fields
    body: bytes


class Page(NamedTuple):
    """What the route answers each time."""

    status: int = 200
    fields: Fields = ()
    fails: bool = False


FIELDS = [
    ("Authorization", "Bearer 1"), ("COOKIE", "sid=1"), ("cookie", ""), ("Cache-Control", "no-cache"),
    ("cache-control", "max-age=5"), ("Cache-Control", "only-if-cached"), ("Pragma", "no-cache"),
    ("If-None-Match", "*"), ("if-none-match", '"none"'), ("If-Modified-Since", "Fri, 15 Jan 2027 08:00:00 GMT"),
    ("Range", "bytes=0-1"), ("Upgrade", "h2c"), ("Content-Length", "0"), ("content-length", "1"),
    ("Transfer-Encoding", "chunked"), ("Accept-Language", "pt"), ("Accept", "*/*"), ("X-Other", "1"),
]  # fmt: skip
PAGES = [
    Page(),
    Page(fields=(("vary", "Accept"),)),
    Page(404),
    Page(fails=True),
    Page(fields=(("cache-control", "public, max-age=30"), ("age", "7"), ("cache-status", "inner; hit"))),
]

fields_of_requests = st.lists(st.sampled_from(FIELDS), max_size=2, unique_by=lambda pair: pair[0].lower()).map(tuple)
requests = st.lists(
    st.sampled_from([
        ("Authorization", "Bearer 1"), ("COOKIE", "sid=1"), ("cookie", ""), ("Cache-Control", "no-cache"),
        ("cache-control", "max-age=5"), ("Cache-Control", "only-if-cached"), ("Pragma", "no-cache"),
        ("If-None-Match", "*"), ("if-none-match", '"none"'), ("If-Modified-Since", "Fri, 15 Jan 2027 08:00:00 GMT"),
        ("Range", "bytes=0-1"), ("Upgrade", "h2c"), ("Content-Length", "0"), ("content-length", "1"),
        ("Transfer-Encoding", "chunked"), ("Accept-Language", "pt"), ("Accept", "*/*"), ("X-Other", "1"),
    ]),
    max_size=2, unique_by=lambda pair: pair[0].lower(),
).map(tuple)  # fmt: skip
requests = st.lists(
    st.builds(
        Asked,
        st.sampled_from([0.0, 0.0, 0.25, 1.0, 20.0, 59.75, 60.0, 130.0]),
        st.sampled_from(["GET", "GET", "GET", "HEAD", "POST"]),
        st.sampled_from(["", "a=1&b=2", "b=2&a=1"]),
        st.one_of(st.just(()), fields_of_requests),
        inside=st.just(nullcontext()),
    ),
    max_size=8,
)  # fmt: skip
pages = st.builds(
    Page,
    st.sampled_from([200, 200, 200, 203, 301, 404, 500]),
    st.lists(
        st.sampled_from([
            ("cache-control", "public, max-age=30"), ("cache-control", "private"), ("cache-control", "no-store"),
            ("vary", "Accept-Language"), ("age", "7"), ("cache-status", "inner; hit"), ("x-cache", "inner"),
            ("last-modified", "Fri, 15 Jan 2027 07:00:00 GMT"), ("etag", 'W/"1"'), ("set-cookie", "a=1"),
            ("location", "/elsewhere"), ("connection", "x-hop"), ("x-hop", "1"), ("x-own", "a"), ("x-own", "b"),
        ]),
        max_size=3, unique=True,
    ).map(tuple),
    st.sampled_from([False, False, False, True]),
)  # fmt: skip


# Both frameworks


def of_fastapi(page: Page, runs: list[int]) -> tuple[Callable[[Asked], Answer], Function]:
    app = FastAPI()
    CacheKit(app)

    @app.api_route("/page", methods=["GET", "HEAD", "POST"])
    @cached_response(ttl="1m")
    async def endpoint(request: Request) -> Response:
        runs.append(1)
        assert 1 // (not page.fails)
        response = Response(b"run %d" % len(runs), page.status)
        for name, value in page.fields:
            response.headers.append(name, value)
        return response

    def ask(asked: Asked) -> Answer:
        return asyncio.run(_ask_asgi(app, asked))

    return ask, endpoint.__cachekit_route__.pages.at(None).function  # type: ignore[attr-defined]


async def _ask_asgi(app: Any, asked: Asked) -> Answer:
    fields = (("Host", "shop.test"), *asked.fields)  # as written, which no server of today hands over
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": asked.method, "scheme": "http",
        "path": "/page", "raw_path": b"/page", "query_string": asked.query.encode(), "root_path": "", "state": {},
        "headers": [(name.encode(), value.encode()) for name, value in fields], "server": ("127.0.0.1", 80),
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    with suppress(ZeroDivisionError):  # Starlette answers, and raises it for its server
        await app(scope, receive, send)
    headers = tuple((name.decode(), value.decode()) for name, value in sent[0]["headers"])
    return Answer(sent[0]["status"], headers, b"".join(each.get("body", b"") for each in sent[1:]))


def of_flask(page: Page, runs: list[int]) -> tuple[Callable[[Asked], Answer], Function]:
    app, cache = Flask("short"), in_flask.CacheKit()

    @app.route("/page", methods=["GET", "POST"])
    @cache.cached(timeout="1m")
    def view() -> FlaskResponse:
        runs.append(1)
        assert 1 // (not page.fails)
        response = FlaskResponse(b"run %d" % len(runs), page.status, mimetype="text/plain")
        for name, value in page.fields:
            response.headers.add(name, value)
        return response

    cache.init_app(app)
    client = app.test_client(use_cookies=False)

    def ask(asked: Asked) -> Answer:
        named = {name.lower(): value for name, value in asked.fields}
        length = {"CONTENT_LENGTH": named["content-length"]} if "content-length" in named else {}
        with client.open(
            "/page", method=asked.method, query_string=asked.query, headers=list(asked.fields),
            base_url="http://shop.test", environ_overrides=length,
        ) as answer:  # fmt: skip
            return Answer(answer.status_code, tuple(answer.headers.items()), answer.data)

    recipe = view.cachekit_view.recipe  # type: ignore[attr-defined]
    return ask, app.extensions["cachekit"].function(recipe)


doors = pytest.mark.parametrize("door", [of_fastapi, of_flask], ids=["fastapi", "flask"])


def story(door: Any, page: Page, asked: list[Asked]) -> tuple[list[Answer], Any]:
    """What is answered, and what has been counted."""
    clock = FrozenClock(wall=NOON)
    service = Service(load([], settings=CONFIG, environ={}), clock=clock)
    before = replace_default(service)
    try:
        runs: list[int] = []
        ask, function = door(page, runs)
        answers = []
        for each in asked:
            clock.advance(each.after)
            with each.inside:
                answers.append(ask(each))
        info, tally = function.info(), function.at().tally
        return answers, (info, info.stale, info.l1_hits, dict(tally.answers), len(runs))
    finally:
        replace_default(before)
        service.close()


STEPS: dict[str, Any] = {
    "look": (Function, "at_hand", lambda self, args: MISS),
    "hit": (short, "hit", lambda found, now: None),
}


def both(door: Any, page: Page, asked: list[Asked], without: str) -> tuple[Any, Any]:
    """A story told by the ordinary ways, and with one of the short way's steps taken out."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(*STEPS[without])
        long_way = story(door, page, asked)
    return story(door, page, asked), long_way


@doors
class TestBothWays:
    @pytest.mark.slow
    @pytest.mark.parametrize("without", STEPS)
    @given(page=pages, asked=requests)
    def test_give_the_same_and_count_the_same(self, door: Any, without: str, page: Page, asked: list[Asked]) -> None:
        short_way, long_way = both(door, page, [Asked(), Asked(), *asked], without)
        assert short_way == long_way

    @pytest.mark.parametrize("page", PAGES, ids=["plain", "varies", "missing", "fails", "says"])
    @pytest.mark.parametrize("without", STEPS)
    def test_give_the_same_for_every_kind_of_request(self, door: Any, without: str, page: Page) -> None:
        asked = [Asked(method=method) for method in ("GET", "GET", "HEAD", "GET", "POST", "GET")]
        asked += [Asked(fields=(field,)) for field in FIELDS]
        short_way, long_way = both(door, page, [*asked, Asked(after=60.0), Asked(), Asked(after=130.0)], without)
        assert short_way == long_way

    @pytest.mark.parametrize("inside", [disabled(), disabled("default"), tenant("acme")], ids=["off", "this", "tenant"])
    def test_heed_what_the_context_says(self, door: Any, inside: Any) -> None:
        asked = [Asked(), Asked(), Asked(inside=inside), Asked(inside=inside), Asked()]
        short_way, long_way = both(door, Page(), asked, "look")
        assert short_way == long_way
        assert short_way[0][1].body != short_way[0][2].body

    @pytest.mark.parametrize("after", [0.0, 0.5, 59.0, 59.75])
    def test_say_the_same_age_at_the_edges_of_a_second(self, door: Any, after: float) -> None:
        short_way, long_way = both(door, Page(), [Asked(), Asked(after=after), Asked(after=0.25)], "look")
        assert short_way == long_way


@doors
class TestAnOrdinaryHit:
    def test_goes_the_short_way(self, door: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        given, hit = [], short.hit
        monkeypatch.setattr(short, "hit", lambda found, now: given.append(hit(found, now)) or given[-1])
        answers, _ = story(door, Page(), [Asked(), Asked(after=3.0)])
        assert [(each.body, each.age, each.ttl) for each in given] == [(answers[1].body, 3, 57)]

    @pytest.mark.parametrize("name", sorted(short.LOOKED_AT))
    def test_has_none_of_the_fields_that_are_looked_at(
        self, door: Any, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[Any] = []
        monkeypatch.setattr(Function, "at_hand", lambda self, args: looks.append(args) or MISS)
        story(door, Page(), [Asked(fields=((name.title(), "1"),))])
        assert looks == []


@pytest.mark.parametrize(("after", "ttl"), [(0.0, 60), (59.5, 0), (60.0, None), (61.0, None)])
def test_a_page_that_is_past_its_life_is_no_ordinary_hit_wherever_it_comes_from(after: float, ttl: int | None) -> None:
    kept = (200, (), b"page", NOON, 5.0, 60.0, None, None, False)
    hit = short.hit(kept, NOON + after)
    assert (None if hit is None else hit.ttl) == ttl
