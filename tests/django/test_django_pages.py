"""Views with `cache_page`: what is kept, for whom and for how long, what outdates it, and what passes untouched."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sites

import cachekit
from cachekit import ConfigError, Outcome
from cachekit.config.settings import load
from cachekit.process import replace_default
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock

PROFILES = {"default": {"backend": "none", "ttl": "1m"}, "stale": {"stale_ttl": "10m"}}

Site = Callable[..., Any]


@pytest.fixture(autouse=True)
def clock(use: Any) -> Iterator[FrozenClock]:
    """A service of the test's own, whose clock stands still."""
    use()
    clock = FrozenClock()
    service = Service(load([], settings={"profiles": PROFILES}, environ={}), clock=clock)
    before = replace_default(service)
    yield clock
    replace_default(before)
    service.close()


class Page:
    """One cached view, sync or async, and how often it ran. Ask it as a site."""

    def __init__(self, kind: str, view: Any = None, **options: Any) -> None:
        from django.http import HttpResponse

        from cachekit.integrations.django import cache_page

        self.runs = 0

        def page(request: Any, **kwargs: Any) -> Any:
            self.runs += 1
            made = f"page {self.runs}" if view is None else view(request, **kwargs)
            return HttpResponse(made) if isinstance(made, str) else made

        async def apage(request: Any, **kwargs: Any) -> Any:
            return page(request, **kwargs)

        chosen: Any = apage if kind == "asgi" else page
        chosen.__qualname__ = "page"
        self.view = cache_page(**options)(chosen)


@pytest.fixture(params=["wsgi", "asgi"])
def kind(request: pytest.FixtureRequest) -> str:
    """A sync view under WSGI, an async one under ASGI."""
    return str(request.param)


@pytest.fixture
def opened(kind: str) -> Iterator[Site]:
    """Makes a site of one page at ``/`` and whatever else; gives the page and how to ask."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def make(view: Any = None, *, route: str = "/", others: Any = (), settings: Any = (), **options: Any) -> Any:
            page = Page(kind, view, **options)
            ask = stack.enter_context(sites.site(kind, {route: page.view, **dict(others)}, **dict(settings)))
            return page, ask

        yield make


def caches(*answers: sites.Answer) -> list[str]:
    return [answer.cache for answer in answers]


# How long


def test_an_answer_says_what_it_is(opened: Site, clock: FrozenClock) -> None:
    _, ask = opened()
    first = ask("/")
    clock.advance("7s")
    second = ask("/")
    assert caches(first, second) == ["MISS", "HIT"]
    assert first.headers["cache-status"] == "cachekit; fwd=uri-miss; stored"
    assert second.headers["cache-status"] == "cachekit; hit; ttl=53"
    assert (second.headers["age"], second.headers["content-type"]) == ("7", first.headers["content-type"])
    assert first.headers["etag"] == second.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    clock.advance("54s")
    assert ask("/").cache == "MISS"


@pytest.mark.parametrize(
    ("options", "said", "life"),
    [({}, {}, 60), ({"ttl": 5}, {}, 5), ({"ttl": 5}, {"Cache-Control": "max-age=20"}, 20), ({"ttl": "2h"}, {}, 7200)],
)
def test_a_page_lives_as_long_as_it_says_else_the_view_else_the_profile(
    opened: Site, clock: FrozenClock, options: Any, said: Any, life: int
) -> None:
    from django.http import HttpResponse

    _, ask = opened(lambda request: HttpResponse("x", headers=said), **options)
    ask("/")
    clock.advance(life - 1)
    assert ask("/").cache == "HIT"
    clock.advance(2)
    assert ask("/").cache == "MISS"


def test_errors_are_kept_where_the_view_says_so(opened: Site, clock: FrozenClock) -> None:
    from django.http import Http404

    def missing(request: Any) -> Any:
        raise Http404("not here")

    page, ask = opened(missing, statuses={404: "30s"})
    answers = ask("/"), ask("/")
    assert [(each.status, each.cache) for each in answers] == [(404, "MISS"), (404, "HIT")]
    assert answers[0].body == answers[1].body
    assert page.runs == 1
    clock.advance("31s")
    assert ask("/").cache == "MISS"


def test_an_exception_reaches_django_and_is_not_kept(opened: Site) -> None:
    from django.core.exceptions import PermissionDenied

    def refusing(request: Any) -> Any:
        raise PermissionDenied

    page, ask = opened(refusing, statuses={404: "30s"})
    assert [ask("/").status for _ in range(2)] == [403, 403]
    assert page.runs == 2


def test_a_stale_page_stands_in_for_one_that_fails(opened: Site, clock: FrozenClock) -> None:
    broken = False

    def view(request: Any) -> Any:
        if broken:
            raise ValueError("a defect")
        return "whole"

    _, ask = opened(view, profile="stale", ttl="1m")
    ask("/")
    clock.advance("2m")
    broken = True
    answer = ask("/")
    assert (answer.status, answer.cache, answer.body) == (200, "STALE", "whole")


def test_clients_may_keep_a_page_for_as_long_as_the_view_says(opened: Site) -> None:
    _, ask = opened(client_ttl="30s")
    assert ask("/").headers["cache-control"] == "max-age=30"


def test_who_has_the_page_gets_304_from_the_first_run_too_and_what_the_view_opened_is_closed(opened: Site) -> None:
    from django.http import HttpResponse

    closed = []

    class Opened:
        def close(self) -> None:
            closed.append(self)

    def view(request: Any) -> Any:
        response = HttpResponse("x")
        response._resource_closers.append(Opened().close)
        return response

    page, ask = opened(view)
    tag = ask("/").headers["etag"]
    answer = ask("/", if_none_match=tag, cache_control="no-cache")
    assert (answer.status, answer.body, answer.cache) == (304, "", "MISS")
    assert (page.runs, len(closed)) == (2, 2)


# What is kept


def test_a_template_is_rendered_once(opened: Site) -> None:
    from django.template.response import TemplateResponse

    _, ask = opened(lambda request: TemplateResponse(request, "page.html", {"run": 5}))
    answers = ask("/"), ask("/")
    assert caches(*answers) == ["MISS", "HIT"]
    assert answers[0].body == answers[1].body == "<p>run 5</p>\n"


def test_a_stream_passes_untouched(opened: Site, kind: str) -> None:
    from django.http import StreamingHttpResponse

    async def chunks() -> Any:
        yield b"a"
        yield b"b"

    page, ask = opened(lambda request: StreamingHttpResponse(chunks() if kind == "asgi" else iter([b"a", b"b"])))
    untouched(page, [ask("/"), ask("/")], "ab")


def test_a_file_passes_untouched() -> None:
    from django.http import FileResponse

    file = Path(__file__)
    page = Page("wsgi", lambda request: FileResponse(file.open("rb")))
    with sites.site("wsgi", {"/": page.view}) as ask:
        untouched(page, [ask("/"), ask("/")], file.read_text())


def untouched(page: Page, answers: list[sites.Answer], body: str) -> None:
    assert page.runs == len(answers)
    for answer in answers:
        assert (answer.status, answer.body) == (200, body)
        assert not {"x-cache", "cache-status", "etag", "age"} & {*answer.headers}


def test_a_response_keeps_cookies_and_reason_and_is_not_kept(opened: Site) -> None:
    from django.http import HttpResponse

    def view(request: Any) -> Any:
        response = HttpResponse("x", reason="Made up")
        response.set_cookie("a", "b")
        response.set_cookie("c", "d")
        return response

    page, ask = opened(view)
    for _ in range(2):
        answer = ask("/")
        cookies = [each.strip() for each in answer.headers.get_list("set-cookie")]  # type: ignore[attr-defined]
        assert (answer.cache, cookies) == ("MISS", ["a=b; Path=/", "c=d; Path=/"])
    assert page.runs == 2


def attributes_as_headers(get_response: Any) -> Any:
    """Middleware that obeys what a decorator says by an attribute of the response."""
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction

    def obeyed(response: Any) -> Any:
        response["X-Policy"] = repr(getattr(response, "_csp_config", None))
        response["X-Reason"] = response.reason_phrase
        return response

    async def amiddleware(request: Any) -> Any:
        return obeyed(await get_response(request))

    if iscoroutinefunction(get_response):
        return markcoroutinefunction(amiddleware)
    return lambda request: obeyed(get_response(request))


attributes_as_headers.sync_capable = attributes_as_headers.async_capable = True  # type: ignore[attr-defined]
OBEYS = ("django.middleware.clickjacking.XFrameOptionsMiddleware", "test_django_pages.attributes_as_headers")


def test_what_decorators_say_by_attributes_of_the_response_stays_with_the_page(opened: Site) -> None:
    from django.http import HttpResponse

    def view(request: Any) -> Any:
        response = HttpResponse("x", status=203 if "reason" in request.GET else 200)
        response.xframe_options_exempt = True
        response._csp_config = {"default-src": ["'self'"]}
        response.mine = object()
        if "reason" in request.GET:
            response.reason_phrase = "Made up"
        return response

    page, ask = opened(view, settings={"MIDDLEWARE": OBEYS}.items())
    answers = ask("/"), ask("/"), ask("/", if_none_match=ask("/").headers["etag"])
    assert caches(*answers) == ["MISS", "HIT", "HIT"]
    assert [each.status for each in answers] == [200, 200, 304]
    for each in answers:
        assert "x-frame-options" not in each.headers
        assert each.headers["x-policy"] == "{'default-src': [\"'self'\"]}"
        assert not [name for name in each.headers if name.startswith("cachekit")]
    assert [ask("/?reason=1").headers["x-reason"] for _ in range(2)] == ["Made up"] * 2
    assert page.runs == 2


def test_a_page_with_a_policy_that_cannot_be_kept_is_not_kept(opened: Site) -> None:
    from django.http import HttpResponse

    def view(request: Any) -> Any:
        response = HttpResponse("x")
        response._csp_update = {"default-src": object()}
        return response

    _, ask = opened(view)
    assert [ask("/").headers["cache-status"] for _ in range(2)] == ['cachekit; fwd=bypass; detail="attributes"'] * 2


def test_no_field_of_a_response_becomes_an_attribute(opened: Site) -> None:
    from django.http import HttpResponse

    fields = {"Cachekit-Aside": '{"xframe_options_exempt": true, "content": "y", "_csp_update": 1}'}
    _, ask = opened(lambda request: HttpResponse("x", headers=fields), settings={"MIDDLEWARE": OBEYS}.items())
    for answer in (ask("/"), ask("/")):
        assert (answer.headers["x-frame-options"], answer.body) == ("DENY", "x")


def raised(answer: sites.Answer, caplog: pytest.LogCaptureFixture) -> BaseException:
    """What made an answer of 500."""
    assert answer.status == 500
    (record,) = [each for each in caplog.records if each.name == "django.request"]
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    return record.exc_info[1]


def test_what_is_no_response_is_djangos_to_tell(opened: Site, caplog: pytest.LogCaptureFixture) -> None:
    _, ask = opened(lambda request: None)
    error = raised(ask("/"), caplog)
    assert isinstance(error, ValueError)
    assert "didn't return an HttpResponse" in str(error)


# For whom


def test_a_page_with_a_form_is_one_visitors(opened: Site) -> None:
    from django.middleware.csrf import get_token

    middleware = {"MIDDLEWARE": (*sites.SESSIONS, "django.middleware.csrf.CsrfViewMiddleware")}.items()
    for per_user in (None, lambda request: "ann"):
        page, ask = opened(get_token, settings=middleware, per_user=per_user)
        answers = ask("/"), ask("/")
        assert answers[0].body != answers[1].body
        assert [each.headers["cache-status"] for each in answers] == ['cachekit; fwd=bypass; detail="csrf"'] * 2
        assert page.runs == 2


@pytest.mark.parametrize("put", ["lazy", "lazy in the database", "cached"])
def test_a_user_whom_middleware_finds_by_a_header_is_no_stranger(opened: Site, put: str) -> None:
    from django.contrib.auth.models import User
    from django.utils.functional import SimpleLazyObject

    def find(name: str) -> Any:
        if put == "lazy in the database":
            User.objects.filter(username=name).exists()
        return User(pk=7, username=name)

    def by_key(get_response: Any) -> Any:
        from asgiref.sync import iscoroutinefunction, markcoroutinefunction

        def middleware(request: Any) -> Any:
            if name := request.headers.get("x-api-key"):
                if put == "cached":
                    request._cached_user = User(pk=7, username=name)
                else:
                    request.user = SimpleLazyObject(lambda: find(name))
            return get_response(request)

        if iscoroutinefunction(get_response):
            markcoroutinefunction(middleware)
        return middleware

    by_key.sync_capable = by_key.async_capable = True  # type: ignore[attr-defined]
    sites.by_key = by_key  # type: ignore[attr-defined]
    _, ask = opened(settings={"MIDDLEWARE": (*sites.SESSIONS, "sites.by_key")}.items())
    answers = ask("/"), ask("/"), ask("/", x_api_key="ann"), ask("/")
    assert caches(*answers) == ["MISS", "HIT", "BYPASS", "HIT"]
    assert [each.body for each in answers] == ["page 1", "page 1", "page 2", "page 1"]


@pytest.mark.parametrize("use_sessions", [False, True])
def test_a_page_with_a_form_is_one_visitors_also_where_a_decorator_protects_it(use_sessions: bool) -> None:
    from django.http import HttpResponse
    from django.middleware.csrf import get_token
    from django.views.decorators.csrf import csrf_protect

    from cachekit.integrations.django import cache_page

    def form(request: Any) -> Any:
        return HttpResponse(get_token(request))

    def filled(get_response: Any) -> Any:
        def middleware(request: Any) -> Any:
            if use_sessions:
                request.session["_csrftoken"] = "a" * 32
                request.session.modified = False
            return get_response(request)

        return middleware

    sites.filled = filled  # type: ignore[attr-defined]
    view = cache_page("5m", per_user=lambda request: "ann")(csrf_protect(form))
    settings = {"MIDDLEWARE": (*sites.SESSIONS, "sites.filled"), "CSRF_USE_SESSIONS": use_sessions}
    with sites.site("wsgi", {"/": view}, **settings) as ask:
        answers = [ask("/", cookie=f"csrftoken={'a' * 32}").headers["cache-status"] for _ in range(2)]
    assert answers == ['cachekit; fwd=bypass; detail="csrf"'] * 2


@pytest.mark.parametrize("per_user", [None, lambda request: "ann"])
def test_a_message_is_shown_once(opened: Site, per_user: Any) -> None:
    from django.contrib import messages

    def view(request: Any) -> Any:
        if "add" in request.GET:
            messages.info(request, "done")
        return ",".join(str(each) for each in messages.get_messages(request)) or "none"

    _, ask = opened(view, per_user=per_user)
    added = ask("/?add=1")
    assert (added.body, added.cache) == ("done", "BYPASS")
    assert caches(ask("/"), ask("/")) == ["MISS", "HIT"]
    assert ask("/?add=1").body == "done"


def test_a_nonce_in_the_page_belongs_to_the_header_of_this_answer(opened: Site) -> None:
    nonces = iter("abc")

    def view(request: Any) -> Any:
        request._csp_nonce = next(nonces)
        return request._csp_nonce

    _, ask = opened(view)
    assert [ask("/").body for _ in range(2)] == ["a", "b"]


def test_a_session_that_is_filled_is_one_visitors_and_an_empty_one_is_the_same_for_all(opened: Site) -> None:
    def view(request: Any) -> Any:
        if "fill" in request.GET:
            request.session["cart"] = request.GET["fill"]
        return f"{request.session.get('cart')} {request.user.is_authenticated}"

    page, ask = opened(view)
    assert [ask(f"/?fill={name}").cache for name in ("a", "a")] == ["BYPASS"] * 2
    answers = ask("/"), ask("/")
    assert caches(*answers) == ["MISS", "HIT"]
    assert page.runs == 3
    assert answers[1].headers.get("vary") != "Cookie"  # nobody has looked at the session this time


def test_a_page_whose_view_changes_the_session_is_not_kept_for_its_user_either(opened: Site) -> None:
    def view(request: Any) -> str:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return "visited"

    page, ask = opened(view, per_user=lambda request: "ann")
    assert caches(ask("/"), ask("/")) == ["BYPASS"] * 2
    assert page.runs == 2


def test_a_user_whom_a_middleware_knows_goes_around_the_cache(opened: Site) -> None:
    settings = {"MIDDLEWARE": (*sites.SESSIONS, f"{__name__}.knows_by_key")}.items()
    page, ask = opened(lambda request: request.user.username, settings=settings)
    assert [ask("/").body for _ in range(2)] == ["", ""]
    assert page.runs == 1
    for name in ("ann", "bob"):
        answer = ask("/", x_key=name)
        assert (answer.body, answer.cache) == (name, "BYPASS")
    assert (ask("/").body, ask("/").cache) == ("", "HIT")


def knows_by_key(get_response: Any) -> Any:
    """Middleware: a user by a header of the application's own."""
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction
    from django.contrib.auth.models import User

    def middleware(request: Any) -> Any:
        if "X-Key" in request.headers:
            request.user = User(username=request.headers["X-Key"], pk=7)
        return get_response(request)

    return markcoroutinefunction(middleware) if iscoroutinefunction(get_response) else middleware


knows_by_key.sync_capable = knows_by_key.async_capable = True  # type: ignore[attr-defined]


def test_pages_of_users_are_kept_for_each(opened: Site, kind: str) -> None:
    def name(request: Any) -> str | None:
        return request.headers.get("x-user")

    async def aname(request: Any) -> str | None:
        return name(request)

    view = lambda request: request.headers.get("x-user", "nobody")  # noqa: E731
    page, ask = opened(view, per_user=aname if kind == "asgi" else name)
    for _ in range(2):
        for user in ("ann", "bob"):
            answer = ask("/", x_user=user, cookie="sid=1", authorization="x")
            assert answer.body == user
            assert answer.headers["cache-control"] == "private, no-cache"
    assert page.runs == 2
    assert ask("/", cookie="sid=1").cache == "BYPASS"
    assert caches(ask("/"), ask("/")) == ["MISS", "HIT"]
    assert ask("/").headers["cache-control"] == "private, no-cache"  # it is wrong for who has logged in since


def test_an_empty_name_is_nobodys(opened: Site) -> None:
    _, ask = opened(lambda request: request.headers["authorization"], per_user=lambda request: "")
    answers = [ask("/", authorization=name) for name in ("ann", "bob")]
    assert [answer.body for answer in answers] == ["ann", "bob"]
    assert caches(*answers) == ["BYPASS", "BYPASS"]


@pytest.mark.parametrize("wrong", [7, "None", b"x"])
def test_a_user_that_is_no_name_is_refused(opened: Site, wrong: Any, caplog: pytest.LogCaptureFixture) -> None:
    _, ask = opened(per_user=lambda request: wrong)
    error = raised(ask("/"), caplog)
    assert isinstance(error, TypeError)
    assert str(error).startswith("per_user= ")


def test_nobody_can_wait_for_a_user_in_a_view_that_is_not_async(caplog: pytest.LogCaptureFixture) -> None:
    async def user(request: Any) -> str:
        return "ann"

    with sites.site("wsgi", {"/": Page("wsgi", per_user=user).view}) as ask:
        assert "is async, and the view is not" in str(raised(ask("/"), caplog))


def test_the_log_says_once_why_a_page_is_not_kept(opened: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "cachekit")
    _, ask = opened(route="/items/<int:number>", view=lambda request, number: str(number))
    for number in range(3):
        ask(f"/items/{number}", cookie="a=b")
    assert [record.getMessage() for record in caplog.records if record.name == "cachekit"] == [
        f"{__name__}.page at items/<int:number>: requests are answered without the cache when they carry a cookie"
    ]


# What tells pages apart


def test_request_fields_by_vary(opened: Site) -> None:
    from django.http import HttpResponse

    def view(request: Any) -> Any:
        return HttpResponse(request.headers.get("x-a", "") + request.headers.get("x-b", ""), headers={"Vary": "X-B"})

    page, ask = opened(view, vary=["X-A"])
    answers = [ask("/", x_a=a, x_b=b) for a in "12" for b in "34" for _ in range(2)]
    assert {each.headers["vary"] for each in answers} == {"X-B, x-a"}
    bodies = [each.body for each in answers]
    assert bodies == ["13", "13", "14", "14", "23", "23", "24", "24"]
    assert page.runs == 4


def test_the_language_and_the_time_zone(opened: Site) -> None:
    from django.utils import timezone, translation

    settings = {
        "MIDDLEWARE": ("django.middleware.locale.LocaleMiddleware", *sites.SESSIONS, f"{__name__}.zone_by_header"),
        "USE_I18N": True, "LANGUAGES": [("de", "German"), ("fr", "French"), ("en", "English")], "LANGUAGE_CODE": "en",
    }  # fmt: skip

    def view(request: Any) -> Any:
        return f"{translation.get_language()} {timezone.get_current_timezone_name()}"

    page, ask = opened(view, settings=settings.items())
    wanted = [(language, zone) for language in ("de", "fr") for zone in ("UTC", "Europe/Paris")] * 2
    answers = [ask("/", accept_language=language, x_zone=zone) for language, zone in wanted]
    assert [each.body for each in answers] == [f"{language} {zone}" for language, zone in wanted]
    assert caches(*answers) == ["MISS"] * 4 + ["HIT"] * 4
    assert page.runs == 4


def zone_by_header(get_response: Any) -> Any:
    """Middleware: the time zone of a visitor."""
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction
    from django.utils import timezone

    def middleware(request: Any) -> Any:
        timezone.activate(request.headers["X-Zone"])
        return get_response(request)

    async def awaited(request: Any) -> Any:
        with timezone.override(request.headers["X-Zone"]):
            return await get_response(request)

    return markcoroutinefunction(awaited) if iscoroutinefunction(get_response) else middleware


zone_by_header.sync_capable = zone_by_header.async_capable = True  # type: ignore[attr-defined]


def test_paths_and_queries_as_they_were_written(opened: Site) -> None:
    _, ask = opened(lambda request, path: f"{request.path} {request.GET.urlencode()}", route="/<path:path>")
    paths = ["/a", "/a/", "/%C3%A9", "/%25C3%25A9", "/a%20b", "/a?b=%C3%A9", "/a?b=%FF", "/a?b=", "/a?b", "/a%3Fb="]
    first = [ask(path).body for path in paths]
    answers = [ask(path) for path in paths]
    assert [each.body for each in answers] == first
    assert set(caches(*answers)) == {"HIT"}


# What outdates


def test_a_tag_a_url_and_the_view_outdate_pages(opened: Site, kind: str) -> None:
    from cachekit.integrations.django import invalidate_url

    page, ask = opened(
        lambda request, number: f"{number} {page.runs}", route="/items/<int:number>",
        tags=lambda request: [f"item:{request.resolver_match.kwargs['number']}", "items"],
    )  # fmt: skip

    def left(change: Callable[[], object]) -> list[str]:
        asked = ["/items/1", "/items/1?page=2", "/items/2"]
        for each in asked:
            ask(each)
        change()
        return caches(*map(ask, asked))

    @cachekit.cache.invalidates(tags=lambda number: [f"item:{number}"])
    def save(number: int) -> None:
        """A function that writes."""

    assert left(lambda: None) == ["HIT", "HIT", "HIT"]
    assert left(lambda: cachekit.invalidate_tags("item:1")) == ["MISS", "MISS", "HIT"]
    assert left(lambda: save(2)) == ["HIT", "HIT", "MISS"]
    assert left(lambda: invalidate_url("http://testserver/items/1")) == ["MISS", "MISS", "HIT"]
    assert left(lambda: invalidate_url("http://testserver/items/1?page=2")) == ["HIT", "MISS", "HIT"]
    assert left(lambda: invalidate_url("http://testserver/items/1?%70age=%32")) == ["HIT", "MISS", "HIT"]
    assert left(lambda: invalidate_url("https://testserver/items/1")) == ["HIT", "HIT", "HIT"]
    assert left(page.view.invalidate) == ["MISS", "MISS", "MISS"]


async def test_coroutines_outdate_pages() -> None:
    from django.test import RequestFactory

    from cachekit.integrations.django import ainvalidate_url

    page = Page("asgi")
    with sites.site("asgi", {"/page": page.view}) as ask:

        async def state() -> str:
            return (await ask.together("/page"))[0].cache  # type: ignore[attr-defined]

        async def save() -> None:
            """A function that writes."""

        assert [await state(), await state()] == ["MISS", "HIT"]
        assert await ainvalidate_url("/page", RequestFactory().get("/")) is Outcome.DONE
        assert [await state(), await state()] == ["MISS", "HIT"]
        assert await page.view.ainvalidate() is Outcome.DONE
        assert [await state(), await state()] == ["MISS", "HIT"]
    with pytest.raises(ValueError, match="no host"):
        await ainvalidate_url("/page")


def test_a_request_that_changes_something_outdates_its_url_and_where_it_leads(opened: Site) -> None:
    from django.http import HttpResponse, HttpResponseRedirect

    def view(request: Any, number: int) -> Any:
        if request.method == "PUT":
            return HttpResponse(status=409)
        return HttpResponseRedirect("/items/9") if request.method == "POST" else "kept"

    def state() -> list[str]:
        found = caches(*[ask(f"/items/{number}") for number in (1, 2, 9)])
        return found

    _, ask = opened(view, route="/items/<int:number>")
    state()
    assert state() == ["HIT", "HIT", "HIT"]
    assert ask("/items/1", "PUT").status == 409
    assert state() == ["HIT", "HIT", "HIT"]
    assert ask("/items/1", "POST").status == 302
    assert state() == ["MISS", "HIT", "MISS"]


# Views of every kind


def test_classes_and_methods(opened: Site, kind: str) -> None:
    from django.http import HttpResponse
    from django.utils.decorators import method_decorator
    from django.views import View

    from cachekit.integrations.django import cache_page

    runs: list[str] = []

    class Sync(View):
        def get(self, request: Any) -> Any:
            runs.append(request.path)
            return HttpResponse(f"{request.path} {len(runs)}")

    class Async(View):
        async def get(self, request: Any) -> Any:
            runs.append(request.path)
            return HttpResponse(f"{request.path} {len(runs)}")

    base: Any = Async if kind == "asgi" else Sync

    @method_decorator(cache_page(), name="dispatch")
    class Dispatched(base):
        pass

    @method_decorator(cache_page(), name="get")
    class Got(base):
        pass

    routes = {"/whole": cache_page()(base.as_view()), "/dispatch": Dispatched.as_view(), "/get": Got.as_view()}
    _, ask = opened(others=routes)
    for path in routes:
        answers = ask(path), ask(path)
        assert caches(*answers) == ["MISS", "HIT"], path
        assert answers[0].body == answers[1].body
    assert runs == list(routes)


def test_djangos_own_test_client_is_a_visitor_without_cookies(opened: Site) -> None:
    """It sends a field for them in any case."""
    from django.test import Client

    opened()
    assert [Client().get("/")["X-Cache"] for _ in range(2)] == ["MISS", "HIT"]


def test_a_view_is_wrapped_with_its_attributes() -> None:
    from django.views.decorators.csrf import csrf_exempt

    @csrf_exempt
    def view(request: Any) -> None:
        """What it does."""

    from cachekit.integrations.django import cache_page

    wrapped = cache_page()(view)
    assert (wrapped.__name__, wrapped.__doc__, wrapped.csrf_exempt) == ("view", "What it does.", True)


def test_mistakes_are_told_at_once() -> None:
    from django.test import RequestFactory

    from cachekit.integrations.django import cache_page

    for options in ({"ttl": 0}, {"ttl": "5 parsecs"}, {"statuses": {200.5: 1}}, {"vary": "x"}, {"client_ttl": -1}):
        with pytest.raises(ConfigError):
            cache_page(**options)
    with pytest.raises(TypeError, match="with parentheses"):
        cache_page(lambda request: None)
    with pytest.raises(TypeError, match="method_decorator"):
        cache_page()(type("View", (), {}))
    with pytest.raises(TypeError, match="tags="):
        cache_page(tags=5)
    method = cache_page()(lambda self, request: None)
    with pytest.raises(TypeError, match="method_decorator"):
        method(object(), RequestFactory().get("/"))


# Several at once


def test_a_view_runs_once_for_all_threads_that_ask_at_the_same_time() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(request: Any) -> str:
        begun.set()
        go_on.wait(10)
        return "made once"

    page, answers = Page("wsgi", slow), []
    with sites.site("wsgi", {"/": page.view}) as ask:
        visitors = [threading.Thread(target=lambda: answers.append(ask("/"))) for _ in range(8)]
        for visitor in visitors:
            visitor.start()
        assert begun.wait(10)
        go_on.set()
        for visitor in visitors:
            visitor.join(10)
    assert page.runs == 1
    assert {each.body for each in answers} == {"made once"}
    assert sorted(caches(*answers)) == ["HIT"] * 7 + ["MISS"]


async def test_an_async_view_runs_once_for_all_tasks_that_ask_at_the_same_time() -> None:
    from django.http import HttpResponse

    from cachekit.integrations.django import cache_page

    runs = []

    @cache_page()
    async def page(request: Any) -> Any:
        runs.append(request)
        for _ in range(20):  # the others arrive
            await asyncio.sleep(0)
        return HttpResponse("made once")

    with sites.site("asgi", {"/": page}) as ask:
        answers = await ask.together(*["/"] * 8)
    assert len(runs) == 1
    assert {each.body for each in answers} == {"made once"}


async def test_who_waits_for_a_visitor_that_leaves_runs_the_view_with_a_request_of_their_own() -> None:
    """The thread of a request, in which Django runs what is not async, ends with the request."""
    from asgiref.sync import sync_to_async
    from asgiref.testing import ApplicationCommunicator
    from django.core.handlers.asgi import ASGIHandler
    from django.http import HttpResponse

    from cachekit.integrations.django import cache_page

    arrived, runs, left, go_on = [], [], [], asyncio.Event()

    @cache_page(per_user=lambda request: arrived.append(request))
    async def page(request: Any) -> Any:
        runs.append(request)
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            left.append(request)
            raise
        return HttpResponse(await sync_to_async(str)(len(runs)))

    headers = [(b"host", b"testserver")]
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers}
    with sites.site("asgi", {"/": page}):
        visitors = [ApplicationCommunicator(ASGIHandler(), dict(scope)) for _ in range(2)]
        for number, visitor in enumerate(visitors, 1):
            await visitor.send_input({"type": "http.request"})
            await until(lambda number=number: len(arrived) == number)
        await until(lambda: len(runs) == 1)
        await visitors[0].send_input({"type": "http.disconnect"})
        await until(lambda: len(runs) == 2)
        assert left == runs[:1]
        go_on.set()
        assert (await visitors[1].receive_output(10))["status"] == 200
        assert (await visitors[1].receive_output())["body"] == b"2"
        for visitor in visitors:
            await visitor.wait()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


# Transactions of requests, and who hears of a view that failed


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A table that views write to, where each request is a transaction."""
    from django.contrib.auth.models import Group
    from django.db import connections

    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    yield Group.objects
    Group.objects.all().delete()


def test_what_a_view_wrote_that_raised_a_page_is_undone(groups: Any) -> None:
    from django.http import Http404

    def missing(request: Any) -> Any:
        groups.create(name="of the 404")
        raise Http404

    def handler(request: Any, exception: Any) -> Any:
        from django.http import HttpResponseNotFound

        return HttpResponseNotFound(f"{groups.count()} groups")

    page = Page("wsgi", missing, statuses={404: "30s"})
    with sites.site("wsgi", {"/": page.view}) as ask:
        import sys

        from django.conf import settings

        sys.modules[settings.ROOT_URLCONF].handler404 = handler  # type: ignore[attr-defined]
        assert [(each.status, each.cache, each.body) for each in (ask("/"), ask("/"))] == [
            (404, "MISS", "0 groups"), (404, "HIT", "0 groups"),
        ]  # fmt: skip
    assert groups.count() == 0


def test_what_a_view_wrote_before_a_stale_page_stood_in_is_undone(groups: Any, clock: FrozenClock) -> None:
    page: Page

    def failing(request: Any) -> Any:
        groups.create(name=f"of run {page.runs}")
        if page.runs > 1:
            raise ZeroDivisionError("the real reason")
        return "ok"

    page = Page("wsgi", failing, ttl="1m", profile="stale")
    with sites.site("wsgi", {"/": page.view}) as ask:
        ask("/")
        clock.advance(61)
        assert (ask("/").cache, page.runs) == ("STALE", 2)
    assert [group.name for group in groups.all()] == ["of run 1"]


def test_who_listens_for_errors_hears_of_one_that_a_stale_page_hides(
    kind: str, opened: Site, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    import sys

    from django.core.signals import got_request_exception

    heard: list[Any] = []

    def listener(request: Any, **kwargs: Any) -> None:
        heard.append((request.path, repr(sys.exc_info()[1])))

    def failing(request: Any) -> Any:
        if page.runs > 1:
            raise ZeroDivisionError("the real reason")
        return "ok"

    page, ask = opened(failing, ttl="1m", profile="stale")
    ask("/")
    clock.advance(61)
    got_request_exception.connect(listener)
    try:
        assert ask("/").cache == "STALE"
    finally:
        got_request_exception.disconnect(listener)
    assert heard == [("/", "ZeroDivisionError('the real reason')")]
    lines = [line for line in caplog.records if line.name == "django.request"]
    assert [(line.levelname, line.exc_info and repr(line.exc_info[1])) for line in lines] == [
        ("ERROR", "ZeroDivisionError('the real reason')")
    ]
    assert "raise ZeroDivisionError" in caplog.text.partition("no caller gets the exception")[2]


@pytest.mark.parametrize("changed_by", ["cache_page", "the middleware"])
def test_a_page_made_while_a_change_is_not_committed_is_outdated_with_the_commit(groups: Any, changed_by: str) -> None:
    from django.db import transaction
    from django.http import HttpResponse

    from cachekit.integrations.django import cache_page

    read: list[str] = []

    def view(request: Any) -> Any:
        if request.method == "POST":
            groups.create(name="new")
            transaction.on_commit(lambda: read.append(ask("/").body))  # before ours: as if in the middle of it
            return HttpResponse("done")
        return HttpResponse("old" if not read else "new")

    chosen = cache_page("5m")(view) if changed_by == "cache_page" else view
    settings = {} if changed_by == "cache_page" else {"MIDDLEWARE": (*sites.SESSIONS, sites.OURS)}
    with sites.site("wsgi", {"/": chosen}, **settings) as ask:
        assert ask("/", "POST").body == "done"
        assert read == ["old"]
        assert ask("/").body == "new"


def test_what_is_rolled_back_outdates_nothing_more(groups: Any) -> None:
    from django.db import transaction
    from django.http import HttpResponse

    def view(request: Any) -> Any:
        if request.method == "POST":
            transaction.set_rollback(True)
        return HttpResponse("page")

    from cachekit.integrations.django import cache_page

    with sites.site("wsgi", {"/": cache_page("5m")(view)}) as ask:
        assert ask("/", "POST").status == 200
        assert caches(ask("/"), ask("/")) == ["MISS", "HIT"]
