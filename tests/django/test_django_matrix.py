"""Two visitors who differ in one thing, at the doors of Django: the tests that the other frameworks pass, too."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sites

from cachekit.config.settings import load
from cachekit.process import replace_default
from cachekit.service import Service

sys.path.append(str(Path(__file__).parents[1] / "integrations"))

import http_doors
import test_http_matrix

globals().update({name: test for name, test in vars(test_http_matrix).items() if name.startswith("test_")})


def view_of(path: str, *, is_async: bool) -> Any:
    """The view of a page."""
    from django.http import HttpRequest, HttpResponse

    def view(request: HttpRequest) -> HttpResponse:
        query = request.META["QUERY_STRING"]
        seen = http_doors.Seen(request.method or "", request.headers, query, lambda: request.session)
        made = http_doors.run(path, seen)
        response = HttpResponse(made.body, status=made.status, content_type="text/plain")
        for name, value in made.headers:
            response[name] = value
        return response

    async def aview(request: HttpRequest) -> HttpResponse:
        return view(request)

    made = aview if is_async else view
    made.__qualname__ = made.__name__ = f"page_{path[1:].replace('-', '_')}"
    return made


QUICK = ("wsgi view", "asgi aview", "asgi middleware")
OTHERS = ("wsgi aview", "asgi view", "wsgi middleware")


@pytest.fixture(params=[*QUICK, *(pytest.param(door, marks=pytest.mark.slow) for door in OTHERS)])
def ask(request: pytest.FixtureRequest, use: Any) -> Iterator[sites.Ask]:
    """How to ask a site whose pages are kept, by decorated views under each server or by the middleware."""
    from cachekit.integrations.django import cache_page

    server, door = request.param.split()
    use()
    rules = [{"path": "/**", "ttl": http_doors.TTL}]
    settings = {"profiles": {"default": {"backend": "none"}}, "http": {"rules": rules}}
    service = Service(load([], settings=settings, environ={}))
    before = replace_default(service)
    http_doors.RUNS.clear()
    views = {path: view_of(path, is_async=door == "aview") for path in http_doors.PAGES}
    middleware: tuple[str, ...] = sites.SESSIONS
    if door == "middleware":
        middleware = (*sites.SESSIONS, sites.OURS)
    else:
        views = {path: cache_page(http_doors.TTL)(view) for path, view in views.items()}
    with sites.site(server, views, MIDDLEWARE=middleware) as ask:
        yield ask
    replace_default(before)
    service.close()


def test_the_one_date_is_that_of_the_server(ask: sites.Ask, request: pytest.FixtureRequest) -> None:
    """Servers of ASGI write one always, those of WSGI only where there is none, if at all."""
    if request.node.callspec.params["ask"].startswith("asgi"):
        test_http_matrix.test_the_one_date_is_that_of_the_server(ask)
    else:
        assert all(ask("/plain").headers["date"].endswith("GMT") for _ in "mh")
