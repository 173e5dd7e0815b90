"""A project whose server hangs, refuses or is gone: every page is answered, within the budgets, blocking and awaited.

How it could be broken: a call waits longer than its budget, or the breaker does not open, so that a page with many
calls takes seconds; an error of the server reaches a view, a session or a middleware; the session that lies in the
database is not looked for there; or it stays so when the server is back.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit.testing import FaultProxy
from cachekit.testing.servers import Server, start_server

OURS = "cachekit.integrations.django.CacheKitCache"
BUDGET = 0.25  # seconds of one call that the server does not answer
FAILURES = 3  # calls that wait, before the breaker spares the others
BUSY = 1.0  # seconds that a busy machine gets
FAULTS = ("stopped", "black hole", "refused", "killed")

pytestmark = pytest.mark.slow


class Outage:
    """A server of this test's own behind a proxy, and one fault."""

    def __init__(self, fault: str, server: Server, proxy: FaultProxy) -> None:
        self.fault, self.server, self.proxy = fault, server, proxy

    def begin(self) -> None:
        {
            "stopped": self.server.pause,
            "black hole": self.proxy.black_hole,
            "refused": self.proxy.refuse,
            "killed": self.server.kill,
        }[self.fault]()

    def end(self) -> None:
        {
            "stopped": self.server.resume,
            "black hole": self.proxy.pass_,
            "refused": self.proxy.pass_,
            "killed": self.server.start,
        }[self.fault]()


@pytest.fixture(params=FAULTS)
def outage(request: pytest.FixtureRequest) -> Iterator[Outage]:
    with start_server() as server, FaultProxy("127.0.0.1", server.port) as proxy:
        yield Outage(request.param, server, proxy)
        if server.running:
            server.resume()


@pytest.fixture(params=["cache", "cached_db"])
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["on", pytest.param("off", marks=pytest.mark.nightly)], ids=["l1", "without l1"])
def project(request: pytest.FixtureRequest, use: Callable[..., None], outage: Outage, engine: str) -> Iterator[None]:
    use(
        CACHES={"default": {"BACKEND": OURS}, "sessions": {"BACKEND": OURS, "LOCATION": "sessions"}},
        CACHEKIT={
            "backends": {"default": {"url": outage.proxy.url, "budget": BUDGET, "adaptive": True}},
            "profiles": {
                "default": {"l1": {"mode": request.param}},
                "sessions": {"ttl": "14d", "l1": {"mode": request.param}},
            },
        },
        ROOT_URLCONF="outage_urls",
        SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}",
        SESSION_CACHE_ALIAS="sessions",
    )
    yield
    from django.contrib.sessions.models import Session

    Session.objects.all().delete()


class Visitor:
    """A client of the WSGI or the ASGI application."""

    def __init__(self, kind: str) -> None:
        from asgiref.sync import async_to_sync
        from django.test import AsyncClient, Client

        client: Any = AsyncClient() if kind == "asgi" else Client()
        self._get = async_to_sync(client.get) if kind == "asgi" else client.get

    def get(self, path: str) -> Any:
        response = self._get(path)
        assert response.status_code == 200, (path, response.content)
        return response


@pytest.fixture(params=["wsgi", "asgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


PAGES = ("/page/", "/template/", "/fragment/", "/value/k/", "/avalue/k/", "/twenty/", "/atwenty/", "/metrics")


@pytest.mark.timed
def test_pages_go_on_within_their_budgets(project: None, outage: Outage, kind: str, engine: str) -> None:
    visitor, newcomer = Visitor(kind), Visitor(kind)
    visitor.get("/login/")
    visits = visitor.get("/visits/").json()["visits"]
    for page in PAGES:
        visitor.get(page)
    outage.begin()
    began = time.monotonic()
    assert visitor.get("/twenty/" if kind == "wsgi" else "/atwenty/").json() == [0, 1, 2, 3]
    assert time.monotonic() - began < FAILURES * BUDGET + BUSY, "late"
    for _ in range(3):
        for page in PAGES:
            began = time.monotonic()
            visitor.get(page)
            assert time.monotonic() - began < BUDGET + BUSY, f"late: {page}"  # a probe may be among its calls
    for path in ("/visits/", "/avisits/"):
        newcomer.get(path)
    if engine == "cached_db":
        assert visitor.get("/whoami/").content == visitor.get("/awhoami/").content == b"ann"
        for path in ("/visits/", "/avisits/"):
            visits += 1
            assert visitor.get(path).json()["visits"] == visits
        assert newcomer.get("/visits/").json()["visits"] == 3
    else:
        visitor.get("/whoami/")


def test_all_is_well_when_the_server_is_back(project: None, outage: Outage, kind: str) -> None:
    from django.core.cache import cache

    visitor = Visitor(kind)
    cache.set("before", 1)
    outage.begin()
    visitor.get("/twenty/")
    cache.delete("before")
    outage.end()
    deadline = time.monotonic() + 20
    while not outage.server.command("KEYS", "*:1:probe*"):
        assert time.monotonic() < deadline, "nothing reaches the server"
        cache.set("probe", 1)
        visitor.get("/avalue/k/")
        time.sleep(0.05)
    assert cache.get("before") is None
    assert cache.get("probe") == 1
    visitor.get("/login/")
    assert visitor.get("/whoami/").content == b"ann"
