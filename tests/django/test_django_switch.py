"""Visitors who are logged in stay so while a project moves from another cache to ours, and who logs out stays out."""

import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit.testing.servers import Server, free_port

OURS = "cachekit.integrations.django.CacheKitCache"
OTHERS = {
    "locmem": "django.core.cache.backends.locmem.LocMemCache",
    "RedisCache": "django.core.cache.backends.redis.RedisCache",
    "django-redis": "django_redis.cache.RedisCache",
    "memcached": "django.core.cache.backends.memcached.PyMemcacheCache",
}
Switch = Callable[[bool], None]

pytestmark = pytest.mark.slow


@pytest.fixture(params=OTHERS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def location(kind: str, cachekit_server: Server) -> Iterator[str]:
    """Where the old cache is."""
    if kind != "memcached":
        yield cachekit_server.url
        return
    program = shutil.which("memcached")
    if program is None:
        pytest.skip("memcached is not installed")
    port = free_port()
    with subprocess.Popen([program, "-l", "127.0.0.1", "-p", str(port), "-u", getpass.getuser()]) as server:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "memcached does not answer"
                time.sleep(0.01)
        yield f"127.0.0.1:{port}"
        server.terminate()


@pytest.fixture(params=["cache", "cached_db"])
def switch(
    request: pytest.FixtureRequest, use: Callable[..., None], cachekit_server: Server, kind: str, location: str
) -> Iterator[Switch]:
    """``switch(True)`` is a worker with our cache, ``switch(False)`` one that has not been replaced yet."""
    old = {"BACKEND": OTHERS[kind], "LOCATION": location, "KEY_PREFIX": f"shop-{request.param}"}
    ours = {"BACKEND": OURS, "LOCATION": "sessions", "OPTIONS": {"READ_FROM": "old"}}

    def switch(replaced: bool) -> None:
        use(
            CACHES={"default": {"BACKEND": OURS}, "sessions": ours if replaced else old, "old": old},
            CACHEKIT={
                "namespace": f"switch-{kind}-{request.param}",
                "backends": {"default": {"url": cachekit_server.url}},
                "profiles": {"sessions": {"ttl": "14d"}},
            },
            SESSION_ENGINE=f"django.contrib.sessions.backends.{request.param}",
            SESSION_CACHE_ALIAS="sessions",
        )

    yield switch
    from django.contrib.sessions.models import Session

    Session.objects.all().delete()


@pytest.mark.parametrize("whoami", ["/whoami/", "/awhoami/"])
def test_the_switch_logs_nobody_out(switch: Switch, whoami: str) -> None:
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    def who(visitor: Any) -> bytes:
        """Who the cache says it is: the database is not asked for sessions."""
        with CaptureQueriesContext(connection) as queries:
            content: bytes = visitor.get(whoami).content
        assert not [query for query in queries if "django_session" in query["sql"]]
        return content

    ann, bob = Client(), Client()
    switch(False)
    for visitor in (ann, bob):
        assert visitor.get("/login/").status_code == 200
    assert ann.get("/visits/").json()["visits"] == 1
    switch(True)
    assert who(ann) == who(bob) == b"ann"
    assert ann.get("/visits/").json()["visits"] == 2
    switch(False)
    assert who(ann) == b"ann"
    assert ann.get("/visits/").json()["visits"] == 3


@pytest.mark.parametrize("whoami", ["/whoami/", "/awhoami/"])
def test_who_logs_out_stays_out_everywhere(switch: Switch, whoami: str) -> None:
    from django.test import Client

    visitor = Client()
    switch(False)
    assert visitor.get("/login/").status_code == 200
    cookie = visitor.cookies["sessionid"].value
    switch(True)
    assert visitor.get("/logout/").status_code == 200
    for replaced in (True, False):
        switch(replaced)
        visitor.cookies["sessionid"] = cookie
        assert visitor.get(whoami).content == b""
