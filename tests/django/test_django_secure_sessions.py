"""Sessions in an encrypted region: who reads the server reads nothing of them, and who writes there is nobody."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
import sites

import cachekit
from cachekit.testing.servers import Server

OURS = "cachekit.integrations.django.CacheKitCache"
KEY, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4
SECRETS = ("ann-secret", "blue-bicycle", "_auth_user", "cart")


@pytest.fixture(params=["cache", "cached_db"])
def engine(request: pytest.FixtureRequest) -> str:
    return f"django.contrib.sessions.backends.{request.param}"


@pytest.fixture(params=["wsgi", "asgi"])
def ask(
    request: pytest.FixtureRequest, use: Any, engine: str, cachekit_server: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[sites.Ask]:
    """A site whose sessions lie in a region with the profile ``secure``; nothing is kept in the process."""
    from django.contrib.auth.models import User

    monkeypatch.setenv("CACHEKIT_MASTER_KEY", KEY)
    use(
        CACHES={
            "default": {"BACKEND": OURS, "LOCATION": "local"},
            "sessions": {"BACKEND": OURS, "LOCATION": "sessions"},
        },
        CACHEKIT={
            "backends": {"default": {"url": cachekit_server.url}},
            "profiles": {"sessions": {"extends": "secure", "ttl": "14d", "l1": {"mode": "off"}}},
        },
    )
    settings = {"SESSION_ENGINE": engine, "SESSION_CACHE_ALIAS": "sessions"}
    with sites.site(request.param, {"/": awaited if request.param == "asgi" else blocking}, **settings) as ask:
        yield ask
    User.objects.all().delete()


def blocking(request: Any) -> Any:
    """Logs in whom it is asked to, and keeps a cart."""
    from django.contrib.auth import login
    from django.contrib.auth.models import User
    from django.http import HttpResponse

    if "login" in request.GET:
        login(request, User.objects.get_or_create(username=request.GET["login"])[0])
        request.session["cart"] = ["blue-bicycle"]
        request.session["name"] = request.GET["login"]
    return HttpResponse(f"{request.user.username} {request.session.get('cart')}")


async def awaited(request: Any) -> Any:
    """The same for those who wait."""
    from django.contrib.auth import alogin
    from django.contrib.auth.models import User
    from django.http import HttpResponse

    if "login" in request.GET:
        await alogin(request, (await User.objects.aget_or_create(username=request.GET["login"]))[0])
        await request.session.aset("cart", ["blue-bicycle"])
        await request.session.aset("name", request.GET["login"])
    return HttpResponse(f"{(await request.auser()).username} {await request.session.aget('cart')}")


def logged_in(ask: sites.Ask) -> str:
    """The cookie of a visitor who has logged in."""
    answer = ask("/?login=ann-secret")
    assert answer.body == "ann-secret ['blue-bicycle']"
    return answer.headers["set-cookie"].partition(";")[0].strip()


def lying_there(server: Server) -> dict[bytes, bytes]:
    """Every key of this project on the server, and what lies there."""
    prefix = cachekit.process.default_service().spec.namespace
    with redis.Redis.from_url(server.url) as client:
        keys = list(client.scan_iter(f"{prefix}:*", count=1000))
        return {key: client.dump(key) or b"" for key in keys}


def test_nothing_of_a_session_can_be_read_on_the_server(ask: sites.Ask, cachekit_server: Server) -> None:
    cookie = logged_in(ask)
    assert ask("/", cookie=cookie).body == "ann-secret ['blue-bicycle']"
    found = lying_there(cachekit_server)
    assert any(b":v:{sessions:" in key or b"sessions" in key for key in found)
    everything = b"\n".join([*found.keys(), *found.values()])
    number = cookie.partition("=")[2]
    for secret in (*SECRETS, number):
        assert secret.encode() not in everything, secret


def test_what_somebody_writes_there_is_nobodys_session(ask: sites.Ask, engine: str, cachekit_server: Server) -> None:
    mine = logged_in(ask)
    before = set(lying_there(cachekit_server))
    yours = logged_in(ask)
    with redis.Redis.from_url(cachekit_server.url) as client:
        (new,) = [key for key in set(lying_there(cachekit_server)) - before if client.type(key) == b"string"]
        old = [key for key in before if client.type(key) == b"string" and len(key) == len(new)]
        for key in old:  # whoever can write puts the one in the other's place
            client.set(key, client.get(new) or b"")
    answer = ask("/", cookie=mine).body
    assert answer == ("ann-secret ['blue-bicycle']" if engine.endswith("cached_db") else " None")
    assert ask("/", cookie=yours).body == "ann-secret ['blue-bicycle']"


def test_another_key_reads_none_of_them(ask: sites.Ask, engine: str, use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = logged_in(ask)
    monkeypatch.setenv("CACHEKIT_MASTER_KEY", OTHER)
    cachekit.configure(replace=True)
    answer = ask("/", cookie=cookie).body
    assert answer == ("ann-secret ['blue-bicycle']" if engine.endswith("cached_db") else " None")
