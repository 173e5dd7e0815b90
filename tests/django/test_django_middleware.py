"""`CacheMiddleware` of Django: the pages of a whole project by rules of the configuration."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sites

from cachekit.config.settings import load
from cachekit.process import replace_default
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock

RULES = [
    {"path": "/never/**", "cache": False},
    {"path": "/mine/*", "ttl": "1m", "per_user": True},
    {"path": "/items/*", "ttl": "1m", "statuses": {"404": "10s"}, "vary": ["X-Taste"], "client_ttl": "5s"},
    {"path": "/stale", "ttl": "1m", "profile": "stale"},
]
PROFILES = {"default": {"backend": "none", "ttl": "1h"}, "stale": {"stale_ttl": "10m"}}

RUNS: list[str] = []


@pytest.fixture(autouse=True)
def clock(use: Any) -> Iterator[FrozenClock]:
    """A service of the test's own, whose clock stands still."""
    use()
    RUNS.clear()
    clock = FrozenClock()
    settings = {"profiles": PROFILES, "http": {"rules": RULES}}
    service = Service(load([], settings=settings, environ={}), clock=clock)
    before = replace_default(service)
    yield clock
    replace_default(before)
    service.close()


def view_of(answer: Callable[[Any], Any], kind: str) -> Any:
    def view(request: Any, **kwargs: Any) -> Any:
        from django.http import HttpResponse

        RUNS.append(request.path)
        made = answer(request)
        return HttpResponse(made) if isinstance(made, str) else made

    async def aview(request: Any, **kwargs: Any) -> Any:
        return view(request, **kwargs)

    return aview if kind == "asgi" else view


@pytest.fixture(params=["wsgi", "asgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["inside", "outside"])
def opened(request: pytest.FixtureRequest, kind: str) -> Iterator[Any]:
    """Makes a site of these views behind our middleware, which stands inside of the others or around them."""
    from contextlib import ExitStack

    order = (*sites.SESSIONS, sites.OURS) if request.param == "inside" else (sites.OURS, *sites.SESSIONS)
    with ExitStack() as stack:

        def make(views: Any, middleware: Any = order) -> sites.Ask:
            made = {route: view_of(view, kind) for route, view in views.items()}
            return stack.enter_context(sites.site(kind, made, MIDDLEWARE=middleware))

        yield make


def test_rules_say_what_is_kept_and_for_how_long(opened: Any, clock: FrozenClock) -> None:
    from django.http import Http404

    def item(request: Any) -> Any:
        if request.path == "/items/0":
            raise Http404
        return f"{request.path} {request.headers.get('x-taste')}"

    ask = opened({"/items/<int:n>": item, "/never/<int:n>": item, "/other": item})
    assert [ask("/items/1").cache for _ in range(2)] == ["MISS", "HIT"]
    assert (ask("/items/1", x_taste="sour").cache, ask("/items/1").cache) == ("MISS", "HIT")
    assert ask("/items/1").headers["cache-control"] == "max-age=5"
    assert [ask("/items/0").cache for _ in range(2)] == ["MISS", "HIT"]
    clock.advance("11s")
    assert (ask("/items/0").cache, ask("/items/1").cache) == ("MISS", "HIT")
    clock.advance("50s")
    assert ask("/items/1").cache == "MISS"
    assert ["x-cache" in ask("/never/1").headers for _ in range(2)] == [False, False]
    assert [ask("/other").cache for _ in range(2)] == ["MISS", "MISS"]


def test_a_page_that_no_rule_knows_is_kept_if_it_says_so(opened: Any) -> None:
    from django.http import HttpResponse

    ask = opened({"/other": lambda request: HttpResponse("x", headers={"Cache-Control": "max-age=20"})})
    assert [ask("/other").cache for _ in range(2)] == ["MISS", "HIT"]


def test_what_changes_something_outdates_the_page_that_another_view_shows(opened: Any) -> None:
    from django.http import HttpResponse, HttpResponseRedirect

    ask = opened({
        "/items/<int:n>": lambda request: HttpResponse(status=204) if request.method == "DELETE" else "item",
        "/never/form": lambda request: HttpResponseRedirect("/items/2"),
    })  # fmt: skip
    for path, method in (("/items/1", "DELETE"), ("/never/form", "POST")):
        ask("/items/1"), ask("/items/2")
        assert ask(path, method).status in (204, 302)
        changed = "/items/1" if method == "DELETE" else "/items/2"
        assert (ask(changed).cache, ask("/items/3").cache, ask("/items/3").cache) == ("MISS", "MISS", "HIT")
        ask("/items/3", "PUT")


def test_a_stale_page_stands_in_for_a_view_that_fails(opened: Any, clock: FrozenClock) -> None:
    broken: list[bool] = []

    def view(request: Any) -> str:
        if broken:
            raise ValueError("a defect")
        return "whole"

    ask = opened({"/stale": view})
    ask("/stale")
    clock.advance("2m")
    broken.append(True)
    assert (ask("/stale").body, ask("/stale").cache) == ("whole", "STALE")
    assert [ask("/items/1").status for _ in range(2)] == [404, 404]


def test_a_view_with_rules_of_its_own_keeps_them(opened: Any, kind: str) -> None:
    from cachekit.integrations.django import cache_page

    made = view_of(lambda request: request.headers.get("x-user", "nobody"), kind)
    own = cache_page("5m", per_user=lambda request: request.headers.get("x-user"))(made)
    with sites.site(
        kind, {"/items/<int:n>": own, "/never/<int:n>": own}, MIDDLEWARE=(*sites.SESSIONS, sites.OURS)
    ) as ask:
        for path in ("/items/1", "/never/1"):
            answers = [ask(path, x_user=user, cookie="a=b") for user in ("ann", "bob", "ann", "bob")]
            assert [(each.body, each.cache) for each in answers] == [
                ("ann", "MISS"), ("bob", "MISS"), ("ann", "HIT"), ("bob", "HIT"),
            ]  # fmt: skip
            assert [ask(path).cache for _ in range(2)] == ["MISS", "HIT"]
            assert ask(path).headers["cache-status"].count("cachekit") == 1


def test_a_stream_passes_untouched(opened: Any, kind: str) -> None:
    from django.http import StreamingHttpResponse

    async def chunks() -> Any:
        yield b"a"

    ask = opened(
        {"/items/<int:n>": lambda request: StreamingHttpResponse(chunks() if kind == "asgi" else iter([b"a"]))}
    )
    answers = [ask("/items/1") for _ in range(2)]
    assert [(each.body, each.cache, "etag" in each.headers) for each in answers] == [("a", "", False)] * 2


def test_pages_of_users_are_kept_for_each(kind: str) -> None:
    """The middleware knows the user that Django's has found in the session, so it stands inside of it."""
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.signed_cookies import SessionStore

    cookies = {}
    for name in ("ann", "bob"):
        user = User.objects.create_user(name)
        session = SessionStore()
        session["_auth_user_id"], session["_auth_user_hash"] = str(user.pk), user.get_session_auth_hash()
        session["_auth_user_backend"] = "django.contrib.auth.backends.ModelBackend"
        session.save()
        cookies[name] = f"sessionid={session.session_key}"

    async def aname(request: Any, n: int) -> Any:
        from django.http import HttpResponse

        RUNS.append(request.path)
        return HttpResponse((await request.auser()).username)

    view = aname if kind == "asgi" else view_of(lambda request: request.user.username, kind)
    with sites.site(kind, {"/mine/<int:n>": view}, MIDDLEWARE=(*sites.SESSIONS, sites.OURS)) as ask:
        for expected in ("MISS", "HIT"):
            for name, cookie in cookies.items():
                answer = ask("/mine/1", cookie=cookie)
                assert (answer.body, answer.cache) == (name, expected)
                assert answer.headers["cache-control"] == "private, no-cache"
        assert [ask("/mine/1").body for _ in range(2)] == ["", ""]
        assert ask("/mine/1", cookie="a=b").cache == "BYPASS"
    assert len(RUNS) == 4
    User.objects.all().delete()
