"""Small sites of a test's own, asked over WSGI or ASGI as a server would."""

import asyncio
import itertools
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from asgiref.sync import async_to_sync

SESSIONS = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
)
OURS = "cachekit.integrations.django.CacheMiddleware"

numbers = itertools.count()


class Answer(NamedTuple):
    """What a visitor gets."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def cache(self) -> str:
        return self.headers.get("x-cache", "")


Ask = Callable[..., Answer]


@contextmanager
def site(kind: str, views: Mapping[str, Any], **settings: Any) -> Iterator[Ask]:
    """Views by their routes, under "wsgi" or "asgi"; how to ask them. ``settings`` are Django's."""
    from django.test import override_settings
    from django.urls import path

    urls = types.ModuleType(f"urls_of_site_{next(numbers)}")
    urls.urlpatterns = [path(route.removeprefix("/"), view) for route, view in views.items()]  # type: ignore[attr-defined]
    sys.modules[urls.__name__] = urls
    settings = {
        "MIDDLEWARE": SESSIONS, "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies", **settings,
    }  # fmt: skip
    try:
        with override_settings(ROOT_URLCONF=urls.__name__, **settings):
            yield _over_asgi() if kind == "asgi" else _over_wsgi()
    finally:
        del sys.modules[urls.__name__]


def _over_wsgi() -> Ask:
    import httpx2
    from django.core.handlers.wsgi import WSGIHandler

    client = httpx2.Client(transport=httpx2.WSGITransport(WSGIHandler()), base_url="http://testserver")

    def ask(path: str, method: str = "GET", *, content: bytes = b"", **headers: str) -> Answer:
        client.cookies.clear()  # every request says itself who sends it
        return _answer(client.request(method, path, headers=_fields(headers), content=content))

    return ask


def _over_asgi() -> Ask:
    import httpx2
    from django.core.handlers.asgi import ASGIHandler

    application = ASGIHandler()

    async def send(path: str, method: str, content: bytes, headers: Mapping[str, str]) -> Answer:
        transport = httpx2.ASGITransport(application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return _answer(await client.request(method, path, headers=_fields(headers), content=content))

    def ask(path: str, method: str = "GET", *, content: bytes = b"", **headers: str) -> Answer:
        return async_to_sync(send)(path, method, content, headers)

    async def together(*paths: str, **headers: str) -> list[Answer]:
        return await asyncio.gather(*[send(path, "GET", b"", headers) for path in paths])

    ask.together = together  # type: ignore[attr-defined]
    return ask


def _fields(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def _answer(response: Any) -> Answer:
    return Answer(response.status_code, response.headers, response.text)
