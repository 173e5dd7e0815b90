"""What Django and packages around it do with a cache, in a site over our backend: the cache middlewares and
`cache_page`, conditional requests, fragments, throttling in Django REST framework, django-ratelimit."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sites

from cachekit.testing.servers import Server

OURS = "cachekit.integrations.django.CacheKitCache"
UPDATE, FETCH = "django.middleware.cache.UpdateCacheMiddleware", "django.middleware.cache.FetchFromCacheMiddleware"
CONDITIONAL = "django.middleware.http.ConditionalGetMiddleware"
WHOLE_SITE = (UPDATE, CONDITIONAL, *sites.SESSIONS, FETCH)


@pytest.fixture(params=["l1 and server", pytest.param("server", marks=pytest.mark.slow), "l1"], autouse=True)
def tiers(request: pytest.FixtureRequest, use: Any, cachekit_server: Server) -> str:
    """The project with both tiers, and with either."""
    backends = {} if request.param == "l1" else {"default": {"url": cachekit_server.url}}
    mode = "off" if request.param == "server" else "on"
    profile = {"l1": {"mode": mode}, "on_unstorable": "raise", "jitter": 0}
    use(
        CACHES={"default": {"BACKEND": OURS}, "other": {"BACKEND": OURS, "KEY_PREFIX": "other"}},
        CACHEKIT={"backends": backends, "profiles": {"default": profile}},
    )
    return str(request.param)


@pytest.fixture(params=["wsgi", "asgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def runs() -> list[str]:
    return []


@pytest.fixture
def opened(kind: str, runs: list[str]) -> Iterator[Any]:
    """Makes a site of one view, sync under WSGI and async under ASGI, that says how often it ran."""
    from contextlib import ExitStack

    from django.http import HttpResponse

    with ExitStack() as stack:

        def make(view: Any = None, *, decorate: Any = lambda view: view, **settings: Any) -> sites.Ask:
            def page(request: Any) -> Any:
                runs.append(request.method)
                made = f"run {len(runs)}" if view is None else view(request)
                return HttpResponse(made) if isinstance(made, str) else made

            async def apage(request: Any) -> Any:
                return page(request)

            chosen = apage if kind == "asgi" else page
            return stack.enter_context(sites.site(kind, {"/": decorate(chosen)}, **settings))

        yield make


# The middlewares of Django, and its cache_page: with its rules


def test_the_middlewares_keep_the_pages_of_a_site(opened: Any, runs: list[str]) -> None:
    ask = opened(MIDDLEWARE=WHOLE_SITE, CACHE_MIDDLEWARE_SECONDS=30, CACHE_MIDDLEWARE_KEY_PREFIX="site")
    answers = [ask("/"), ask("/"), ask("/?q=1"), ask("/", "HEAD")]
    assert [each.body for each in answers] == ["run 1", "run 1", "run 2", answers[3].body]
    assert (answers[3].status, answers[3].headers["etag"]) == (200, answers[0].headers["etag"])
    assert "max-age=30" in answers[1].headers["cache-control"]
    assert [ask("/", "POST").body for _ in range(2)] == ["run 3", "run 4"]
    assert ask("/", authorization="x").body == "run 1"  # as Django does, which looks at what responses say
    assert runs == ["GET", "GET", "POST", "POST"]


def test_a_response_comes_back_as_it_was(opened: Any, runs: list[str]) -> None:
    from django.http import HttpResponse

    def view(request: Any) -> Any:
        response = HttpResponse("é".encode("latin-1"), reason="Made up", content_type="text/plain; charset=latin-1")
        response["X-Run"] = str(len(runs))
        response.set_cookie("seen", "1; 2", httponly=True)
        return response

    from django.views.decorators.cache import cache_page

    ask = opened(view, decorate=cache_page(60))
    first, second = ask("/"), ask("/")
    assert runs == ["GET"]
    assert second._replace(headers={}) == first._replace(headers={}) == sites.Answer(200, {}, "é")
    for name in ("content-type", "x-run", "set-cookie", "expires", "cache-control"):
        assert second.headers[name] == first.headers[name]


@pytest.mark.parametrize(
    ("headers", "kept"),
    [({"Cache-Control": "private"}, 0), ({"Cache-Control": "max-age=0"}, 0), ({}, 1), ({"Vary": "X-Who"}, 2)],
)
def test_what_a_response_says_decides(opened: Any, runs: list[str], headers: Any, kept: int) -> None:
    from django.http import HttpResponse

    ask = opened(lambda request: HttpResponse(request.headers["x-who"], headers=headers), MIDDLEWARE=WHOLE_SITE)
    for who in ("ann", "bob") * 2:
        ask("/", x_who=who)
    assert len(runs) == {0: 4, 1: 1, 2: 2}[kept]


def test_a_session_of_a_visitor_without_cookie_is_not_kept_and_others_are_kept_apart(
    opened: Any, runs: list[str]
) -> None:
    def view(request: Any) -> str:
        request.session.setdefault("who", request.headers["x-who"])
        return str(request.session["who"])

    ask = opened(view, MIDDLEWARE=WHOLE_SITE)
    cookies = {who: ask("/", x_who=who).headers["set-cookie"].partition(";")[0].strip() for who in ("ann", "bob")}
    for _ in range(2):
        for who, cookie in cookies.items():
            assert ask("/", x_who="nobody", cookie=cookie).body == who
    assert len(runs) == 4


def test_aliases_and_prefixes_keep_pages_apart(opened: Any, runs: list[str]) -> None:
    from django.core.cache import caches
    from django.views.decorators.cache import cache_page

    ask = opened(decorate=cache_page(60, cache="other", key_prefix="p"))
    assert [ask("/").body for _ in range(2)] == ["run 1"] * 2
    caches["other"].clear()
    assert ask("/").body == "run 2"


def test_conditional_requests_are_answered_with_304_and_without_the_view(opened: Any, runs: list[str]) -> None:
    ask = opened(MIDDLEWARE=WHOLE_SITE)
    tag = ask("/").headers["etag"]
    answer = ask("/", if_none_match=tag)
    assert (answer.status, answer.body, answer.headers["etag"]) == (304, "", tag)
    assert ask("/", if_none_match='"other"').body == "run 1"
    assert runs == ["GET"]


def test_our_pages_too_have_one_entity_tag_behind_the_conditional_middleware(opened: Any, runs: list[str]) -> None:
    from cachekit.integrations.django import cache_page

    ask = opened(decorate=cache_page(60), MIDDLEWARE=(CONDITIONAL, *sites.SESSIONS))
    first, second = ask("/"), ask("/")
    assert (first.cache, second.cache, first.headers["etag"]) == ("MISS", "HIT", second.headers["etag"])
    answer = ask("/", if_none_match=first.headers["etag"])
    assert (answer.status, answer.cache) == (304, "HIT")
    assert runs == ["GET"]


# Fragments


def test_fragments_are_kept_for_each_of_what_they_name(kind: str, runs: list[str]) -> None:
    from django.core.cache import caches
    from django.core.cache.utils import make_template_fragment_key
    from django.http import HttpResponse
    from django.template import engines

    template = engines["django"].from_string(
        '{% load cache %}{% cache 60 box who using="other" %}<b>{{ who }} {{ run }}</b>{% endcache %}'
    )

    def run() -> int:
        runs.append("")
        return len(runs)

    def page(request: Any) -> Any:
        return HttpResponse(template.render({"who": request.headers["x-who"], "run": run}))

    async def apage(request: Any) -> Any:
        return page(request)

    with sites.site(kind, {"/": apage if kind == "asgi" else page}) as ask:
        bodies = [ask("/", x_who=who).body for who in ("<ann>", "bob") * 2]
        assert bodies == ["<b>&lt;ann&gt; 1</b>", "<b>bob 2</b>"] * 2
        assert caches["other"].delete(make_template_fragment_key("box", ["bob"]))
        assert [ask("/", x_who=who).body for who in ("<ann>", "bob")] == ["<b>&lt;ann&gt; 1</b>", "<b>bob 3</b>"]


# Throttling


def test_django_rest_framework_throttles_each_visitor(runs: list[str]) -> None:
    from rest_framework.response import Response
    from rest_framework.throttling import AnonRateThrottle, ScopedRateThrottle
    from rest_framework.views import APIView

    class Anonymous(AnonRateThrottle):
        rate = "3/day"

    class Scoped(ScopedRateThrottle):
        def get_rate(self) -> str:
            return "2/day"

    class View(APIView):
        throttle_classes = (Anonymous,)

        def get(self, request: Any) -> Any:
            runs.append("")
            return Response({"run": len(runs)})

    class Items(View):
        throttle_classes = (Scoped,)
        throttle_scope = "items"

    with sites.site("wsgi", {"/": View.as_view(), "/items": Items.as_view()}) as ask:
        statuses = [ask("/", x_forwarded_for="10.0.0.1").status for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        refused = ask("/", x_forwarded_for="10.0.0.1")
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        assert [ask("/", x_forwarded_for="10.0.0.2").status for _ in range(4)] == [200, 200, 200, 429]
        assert [ask("/items", x_forwarded_for="10.0.0.1").status for _ in range(3)] == [200, 200, 429]


def test_django_ratelimit_counts_what_threads_ask_at_the_same_time(runs: list[str]) -> None:
    from django.http import HttpResponse
    from django_ratelimit.decorators import ratelimit

    @ratelimit(key="header:x-who", rate="5/d", block=True)
    def view(request: Any) -> Any:
        runs.append("")
        return HttpResponse("x")

    statuses: list[int] = []
    with sites.site("wsgi", {"/": view}) as ask:
        threads = [threading.Thread(target=lambda: statuses.append(ask("/", x_who="ann").status)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(statuses) == [200] * 5 + [403] * 7
        assert ask("/", x_who="bob").status == 200
    assert len(runs) == 6


# Views of Django REST framework with our cache_page


@pytest.mark.parametrize("place", ["dispatch", "get"])
def test_views_of_rest_framework_are_kept_as_they_were_negotiated(place: str, runs: list[str]) -> None:
    from django.http import Http404
    from django.utils.decorators import method_decorator
    from rest_framework.renderers import BaseRenderer, JSONRenderer
    from rest_framework.response import Response
    from rest_framework.views import APIView

    from cachekit.integrations.django import cache_page

    class Text(BaseRenderer):
        media_type, format = "text/plain", "txt"

        def render(self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None) -> bytes:
            return str(data).encode()

    @method_decorator(cache_page("1m", statuses={404: "1m"}), name=place)
    class View(APIView):
        renderer_classes = (JSONRenderer, Text)

        def get(self, request: Any) -> Any:
            runs.append("")
            if "missing" in request.query_params:
                raise Http404
            return Response({"run": len(runs)})

    with sites.site("wsgi", {"/": View.as_view()}) as ask:
        answers = [ask("/", accept=accept) for accept in ("application/json", "text/plain") * 2]
        assert [each.body for each in answers] == ['{"run":1}', "{'run': 2}"] * 2
        assert [each.cache for each in answers] == ["MISS", "MISS", "HIT", "HIT"]
        assert {each.headers["allow"] for each in answers} == {"GET, HEAD, OPTIONS"}
        assert ask("/", authorization="Basic eA==").cache == "BYPASS" or place == "get"
        missing = ask("/?missing=1", accept="application/json")
        assert (missing.status, missing.headers["content-type"]) == (404, "application/json")


# What serializers give, in Django's own cache_page


def test_django_keeps_responses_made_by_serializers(runs: list[str]) -> None:
    from django.utils.decorators import method_decorator
    from django.views.decorators.cache import cache_page
    from rest_framework import serializers
    from rest_framework.pagination import LimitOffsetPagination
    from rest_framework.response import Response
    from rest_framework.views import APIView

    class Item(serializers.Serializer):  # type: ignore[misc]
        name = serializers.CharField()

    class View(APIView):
        @method_decorator(cache_page(60))
        def get(self, request: Any) -> Any:
            runs.append("")
            if "one" in request.query_params:
                return Response(Item({"name": "a"}).data)
            pages = LimitOffsetPagination()
            items = pages.paginate_queryset([{"name": "a"}, {"name": "b"}], request)
            data = Item(items or [{"name": "a"}, {"name": "b"}], many=True).data
            return pages.get_paginated_response(data) if items else Response(data)

    with sites.site("wsgi", {"/": View.as_view()}) as ask:
        for url, text in (("/?one=1", '"name":"a"'), ("/", '"name":"b"'), ("/?limit=1", '"results":[')):
            first, second = ask(url), ask(url)
            assert first.body == second.body
            assert text in first.body
            assert second.headers["content-type"] == "application/json"
    assert len(runs) == 3
