"""A small project: pages, fragments and sessions on our backend, under WSGI and ASGI."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit.testing.servers import Server

OURS = "cachekit.integrations.django.CacheKitCache"
SESSIONS = "django.contrib.sessions.backends."
Use = Callable[..., None]


@pytest.fixture(params=["server", "server without l1", "no server"])
def project(request: pytest.FixtureRequest, use: Use, cachekit_server: Server) -> Use:
    """The project with a server or without, ready for other settings."""
    backends = {} if request.param == "no server" else {"backends": {"default": {"url": cachekit_server.url}}}

    def settings(**values: Any) -> None:
        use(
            CACHES={"default": {"BACKEND": OURS}, "sessions": {"BACKEND": OURS, "LOCATION": "sessions"}},
            CACHEKIT={
                **backends,
                "profiles": {
                    "default": {"l1": {"mode": "off" if request.param.endswith("without l1") else "on"}},
                    "sessions": {"ttl": "14d"},
                },
            },
            **values,
        )

    settings()
    return settings


class Visitor:
    """A client of the WSGI or the ASGI application, called alike."""

    def __init__(self, aio: bool) -> None:
        from django.test import AsyncClient, Client

        self.client: Any = AsyncClient() if aio else Client()
        self.aio = aio

    async def get(self, path: str, **headers: str) -> Any:
        from asgiref.sync import sync_to_async

        if self.aio:
            return await self.client.get(path, headers=headers)
        return await sync_to_async(self.client.get)(path, headers=headers)


@pytest.fixture(params=["wsgi", "asgi"])
def visitor(request: pytest.FixtureRequest, project: Use) -> Callable[[], Visitor]:
    """Makes visitors, who do not share cookies."""
    return lambda: Visitor(request.param == "asgi")


async def test_a_page_is_made_once(visitor: Callable[[], Visitor]) -> None:
    first, second = await visitor().get("/page/"), await visitor().get("/page/")
    assert first.content == second.content
    assert first.content.endswith(": é".encode("latin-1"))
    for response in (first, second):
        assert (response.status_code, response.reason_phrase) == (200, "Cached")
        assert response["X-Run"] == "yes"
        assert "max-age=60" in response["Cache-Control"]
        assert response.cookies["seen"].OutputString() == first.cookies["seen"].OutputString()
    other = await visitor().get("/page/", **{"X-Flavour": "sour"})
    assert other.content != first.content
    assert (await visitor().get("/page/?q=1")).content != first.content


async def test_a_template_response_is_rendered_once(visitor: Callable[[], Visitor]) -> None:
    first, second = await visitor().get("/template/"), await visitor().get("/template/")
    assert first.content == second.content
    assert first.content.startswith(b"<p>run ")


async def test_a_fragment_is_rendered_once_and_not_escaped(visitor: Callable[[], Visitor]) -> None:
    first, second = await visitor().get("/fragment/"), await visitor().get("/fragment/")
    assert first.content == second.content
    assert first.content.startswith(b"<i>")
    assert b"&lt;b&gt;" in first.content


@pytest.mark.parametrize("path", ["/value/k/", "/avalue/k/"])
async def test_values_are_shared_by_sync_and_async_views(visitor: Callable[[], Visitor], path: str) -> None:
    value = json.loads((await visitor().get(path)).content)
    for other in ("/value/k/", "/avalue/k/"):
        assert json.loads((await visitor().get(other)).content) == value


@pytest.fixture(params=["cache", "cached_db"])
def sessions(request: pytest.FixtureRequest, project: Use) -> Iterator[str]:
    project(SESSION_ENGINE=SESSIONS + request.param, SESSION_CACHE_ALIAS="sessions")
    yield request.param
    from django.contrib.auth.models import User
    from django.contrib.sessions.models import Session

    User.objects.all().delete()
    Session.objects.all().delete()


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_sessions(sessions: str, kind: str) -> None:
    from asgiref.sync import async_to_sync

    mine, yours = Visitor(kind == "asgi"), Visitor(kind == "asgi")

    def get(visitor: Visitor, path: str) -> Any:
        return async_to_sync(visitor.client.get)(path) if visitor.aio else visitor.client.get(path)

    visits = [json.loads(get(mine, path).content)["visits"] for path in ("/visits/", "/avisits/", "/visits/")]
    assert visits == [1, 2, 3]
    assert json.loads(get(yours, "/avisits/").content)["visits"] == 1
    assert get(mine, "/whoami/").content == b""
    assert get(mine, "/login/").status_code == 200
    assert get(mine, "/whoami/").content == get(mine, "/awhoami/").content == b"ann"
    assert get(yours, "/whoami/").content == b""
    stolen = mine.client.cookies["sessionid"].value
    assert get(mine, "/logout/").status_code == 200
    assert get(mine, "/whoami/").content == b""
    yours.client.cookies["sessionid"] = stolen
    assert get(yours, "/whoami/").content == get(yours, "/awhoami/").content == b""


def test_a_session_survives_the_cache_where_the_database_has_it(project: Use) -> None:
    from django.core.cache import caches
    from django.test import Client

    for engine, expected in (("cached_db", 2), ("cache", 1)):
        project(SESSION_ENGINE=SESSIONS + engine, SESSION_CACHE_ALIAS="sessions")
        client = Client()
        client.get("/visits/")
        caches["sessions"].clear()
        assert client.get("/visits/").json()["visits"] == expected


def test_the_metrics_are_shown_to_whom_they_may(project: Use) -> None:
    from django.test import AsyncClient, Client

    response = Client().get("/metrics")
    assert response.status_code == 200
    assert b"cachekit_cache_misses_total" in response.content
    assert "no-store" in response["Cache-Control"]
    assert Client().post("/metrics").status_code == 405

    from cachekit import configure

    configure(replace=True, metrics={"token": "secret", "allow": ["10.0.0.0/8"]})
    assert Client().get("/metrics").status_code == 401
    assert Client().get("/metrics", headers={"Authorization": "Bearer secret"}).status_code == 200
    assert Client(REMOTE_ADDR="10.1.2.3").get("/metrics").status_code == 200

    from asgiref.sync import async_to_sync

    assert async_to_sync(AsyncClient().get)("/metrics").status_code == 401


def test_metrics_are_no_page_of_the_site(project: Use) -> None:
    from django.conf import settings
    from django.test import Client

    project(
        MIDDLEWARE=[
            "django.middleware.cache.UpdateCacheMiddleware",
            *settings.MIDDLEWARE,
            "django.contrib.auth.middleware.LoginRequiredMiddleware",
            "django.middleware.cache.FetchFromCacheMiddleware",
        ]
    )
    client = Client()
    first = client.get("/metrics")
    assert first.status_code == 200
    client.get("/value/k/")
    assert client.get("/metrics").content != first.content


async def test_the_asgi_application_serves_and_answers_the_servers_lifespan(project: Use) -> None:
    """That its end loses nothing, tests/workers shows for workers of uvicorn."""
    from asgiref.testing import ApplicationCommunicator
    from project.asgi import application

    life = ApplicationCommunicator(application, {"type": "lifespan"})
    await life.send_input({"type": "lifespan.startup"})
    assert await life.receive_output() == {"type": "lifespan.startup.complete"}
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/nowhere",
        "query_string": b"",
        "headers": [(b"host", b"testserver")],
    }
    request = ApplicationCommunicator(application, scope)
    await request.send_input({"type": "http.request"})
    assert (await request.receive_output())["status"] == 404
    await request.wait()
    await life.send_input({"type": "lifespan.shutdown"})
    assert await life.receive_output() == {"type": "lifespan.shutdown.complete"}
    await life.wait()
