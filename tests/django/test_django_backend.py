"""CacheKitCache: Django's cache API, blocking and awaited, with and without a server."""

import asyncio
import inspect
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from cachekit import UnsupportedOperation
from cachekit.testing.servers import Server, start_server

OURS = "cachekit.integrations.django.CacheKitCache"
Use = Callable[..., None]


class Face:
    """A cache through its blocking or its awaited methods, called alike."""

    def __init__(self, cache: Any, aio: bool) -> None:
        self.cache = cache
        self.aio = aio

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.cache, ("a" if self.aio else "") + name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            answer = method(*args, **kwargs)
            return await answer if inspect.isawaitable(answer) else answer

        return call


@pytest.fixture(params=["l1", "server", "server without l1"])
def alias(request: pytest.FixtureRequest, use: Use, cachekit_server: Server) -> Any:
    """The default cache, in three configurations."""
    from django.core.cache import cache

    default = {"jitter": 0, "l1": {"mode": "off" if request.param.endswith("without l1") else "on"}}
    backends = {} if request.param == "l1" else {"default": {"url": cachekit_server.url}}
    use(CACHEKIT={"backends": backends, "profiles": {"default": default, "other": {}}}, SESSION_CACHE_ALIAS="default")
    return cache


@pytest.fixture(params=["sync", "async"])
def cache(request: pytest.FixtureRequest, alias: Any) -> Face:
    return Face(alias, request.param == "async")


async def test_values_come_back(cache: Face) -> None:
    assert await cache.get("k") is None
    assert await cache.get("k", "default") == "default"
    await cache.set("k", {"a": (1,)})
    assert await cache.get("k") == {"a": (1,)}
    await cache.set("none", None)
    assert await cache.get("none", "default") is None
    assert await cache.has_key("none") is True
    assert await cache.has_key("k2") is False


async def test_several_at_once_keep_the_callers_keys(cache: Face) -> None:
    assert await cache.set_many({"a": 1, "b": "x", "c": None}) == []
    assert await cache.get_many(iter(["a", "b", "c", "d"])) == {"a": 1, "b": "x", "c": None}
    assert await cache.delete_many(iter(["a", "c"])) is None
    assert await cache.get_many(["a", "b", "c"]) == {"b": "x"}
    assert await cache.set_many({}) == []
    assert await cache.get_many([]) == {}
    assert await cache.delete_many([]) is None


async def test_delete_and_touch_tell_whether_there_was_anything(cache: Face) -> None:
    assert await cache.delete("k") is False
    assert await cache.touch("k") is False
    await cache.set("k", 1)
    assert await cache.touch("k", 100) is True
    assert await cache.delete("k") is True
    assert await cache.delete("k") is False


async def test_add_stores_only_what_is_not_there(cache: Face) -> None:
    for value in ("text", 5):
        assert await cache.add(f"k{value}", value) is True
        assert await cache.add(f"k{value}", "other") is False
        assert await cache.get(f"k{value}") == value


@pytest.mark.parametrize("timeout", [0, -1, -0.5])
async def test_a_timeout_of_0_or_less_stores_nothing_and_deletes(cache: Face, timeout: float) -> None:
    assert await cache.add("k", 1, timeout) is True
    assert await cache.get("k") is None
    await cache.set("k", 1, timeout)
    assert await cache.get("k") is None
    await cache.set("k", 1)
    assert await cache.add("k", 2, timeout) is False
    assert await cache.get("k") == 1
    await cache.set("k", 2, timeout)
    assert await cache.get("k") is None
    await cache.set("k", 3)
    assert await cache.touch("k", timeout) is True
    assert await cache.touch("k", timeout) is False
    assert await cache.get("k") is None
    await cache.set("k", 4)
    assert await cache.set_many({"k": 5, "k2": 6}, timeout) == []
    assert await cache.get_many(["k", "k2"]) == {}
    assert await cache.get_or_set("k", lambda: 7, timeout) == 7
    assert await cache.get("k") is None


async def test_the_timeout_of_a_call_wins_and_none_is_for_ever(cache: Face, alias: Any) -> None:
    async def left(key: str) -> Any:
        return await alias.region.aremaining(alias.make_key(key))

    await cache.set("default", 1)
    assert 295 < await left("default") <= 300
    for timeout, expected in ((50, 50), (50.5, 50.5), (True, 1)):
        await cache.set("k", "x", timeout)
        assert expected - 1 < await left("k") <= expected
    for timeout in (None, 10**12, float("inf")):
        await cache.set("k", "x", timeout)
        assert await left("k") is None
    assert await cache.touch("k", 40) is True
    assert 38 < await left("k") <= 40
    assert await cache.touch("k") is True
    assert 295 < await left("k") <= 300


async def test_get_or_set_takes_values_and_callables(cache: Face) -> None:
    assert await cache.get_or_set("a", 5) == 5
    assert await cache.get_or_set("a", 6) == 5
    assert await cache.get_or_set("b", lambda: "made") == "made"
    assert await cache.get_or_set("b", lambda: 1 / 0) == "made"
    assert await cache.get_or_set("none", None) is None
    assert await cache.get("none", "default") is None
    with pytest.raises(ZeroDivisionError):
        await cache.get_or_set("c", lambda: 1 / 0)
    with pytest.raises(TypeError, match="'default'"):
        await cache.get_or_set("c")


async def test_aget_or_set_awaits_coroutine_functions_and_computes_once(alias: Any) -> None:
    runs = []

    async def made() -> int:
        runs.append(1)
        await asyncio.sleep(0.01)
        return 5

    assert await asyncio.gather(*[alias.aget_or_set("k", made) for _ in range(10)]) == [5] * 10
    assert await alias.aget_or_set("j", made, 0) == 5
    assert len(runs) == 2


def test_get_or_set_computes_once_for_all_threads(alias: Any) -> None:
    runs, start = [], threading.Barrier(30)

    def ask() -> None:
        from django.core.cache import cache

        start.wait()
        cache.get_or_set("k", lambda: runs.append(1))

    threads = [threading.Thread(target=ask) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runs == [1]


async def test_numbers_are_counted_and_never_made(cache: Face) -> None:
    for name in ("incr", "decr"):
        with pytest.raises(ValueError, match="Key 'n' not found"):
            await getattr(cache, name)("n")
    assert await cache.get("n") is None
    await cache.set("n", 41, 50)
    assert await cache.incr("n") == 42
    assert await cache.decr("n", 2) == 40
    assert await cache.incr("n", -50) == -10
    assert await cache.get("n") == -10
    assert 45 < await cache.cache.region.aremaining(cache.cache.make_key("n")) <= 50
    await cache.get_or_set("m", 1)
    assert await cache.incr("m") == 2
    await cache.set("text", "x")
    with pytest.raises(UnsupportedOperation, match="number"):
        await cache.incr("text")
    await cache.clear()
    with pytest.raises(ValueError, match="not found"):
        await cache.incr("n")


async def test_versions_and_prefixes_part_of_the_key(cache: Face) -> None:
    await cache.set("k", 1)
    await cache.set("k", 2, version=2)
    assert (await cache.get("k"), await cache.get("k", version=2)) == (1, 2)
    assert await cache.delete("k", version=2) is True
    assert await cache.incr_version("k") == 2
    assert (await cache.get("k"), await cache.get("k", version=2)) == (None, 1)
    assert await cache.decr_version("k", version=2) == 1
    assert await cache.get("k") == 1
    for name in ("incr_version", "decr_version"):
        with pytest.raises(ValueError, match="not found"):
            await getattr(cache, name)("nothing")


async def test_clear_empties_this_region_and_nothing_else(cache: Face) -> None:
    from cachekit import region

    region("other").set("k", 1)
    await cache.set_many({"a": 1, "b": "x"})
    await cache.clear()
    assert await cache.get_many(["a", "b"]) == {}
    assert region("other").get("k") == 1


def test_clear_leaves_what_others_have_on_the_server(on_server: Use, cachekit_server: Server) -> None:
    import redis
    from django.core.cache import cache, caches

    on_server(
        CACHES={"default": {"BACKEND": OURS}, "sessions": {"BACKEND": OURS, "LOCATION": "sessions"}},
        profiles={"sessions": {}},
    )
    cache.set("k", "mine")
    caches["sessions"].set("k", "a session")
    with redis.Redis.from_url(cachekit_server.url) as client:
        others = dict.fromkeys(("celery", ":1:k", "other:v:{default:=:1:k}"), b"of others")
        client.mset(others)
        try:
            cache.clear()
            assert client.mget(others) == list(others.values())
        finally:
            client.delete(*others)
    assert cache.get("k") is None
    assert caches["sessions"].get("k") == "a session"


async def test_set_many_tells_which_keys_failed(on_server: Use) -> None:
    from django.core.cache import cache as ours

    on_server(
        CACHES={"default": {"BACKEND": OURS, "KEY_PREFIX": "p"}},
        profiles={"default": {"l1": {"mode": "off"}}},
    )
    for aio in (False, True):
        cache = Face(ours, aio)
        assert await cache.set_many({"a": 1, "f": lambda: 1, "b": "x"}, version=2) == ["f"]
        assert await cache.get_many(["a", "f", "b"], version=2) == {"a": 1, "b": "x"}


@pytest.mark.parametrize("aio", [False, True], ids=["sync", "async"])
async def test_set_many_waits_once_for_a_server_that_hangs(use: Use, aio: bool) -> None:
    """Three timeouts would open the breaker, and take as many budgets."""
    from django.core.cache import cache as ours

    from cachekit import health

    cache = Face(ours, aio)
    with start_server() as server:
        backend = {"url": server.url, "budget": "200ms", "adaptive": False}
        use(CACHEKIT={"backends": {"default": backend}})
        old, new = {f"k{number}": "old" for number in range(20)}, {f"k{number}": "new" for number in range(20)}
        assert await cache.set_many(old) == []
        server.pause()
        assert await cache.set_many(new) == list(new)
        assert health().backends["default"].breaker == "closed"
        assert "old" not in (await cache.get_many(new)).values()
        server.resume()
        until = time.monotonic() + 20
        while health().backends["default"].pending and time.monotonic() < until:
            await cache.get("delivers-what-waits")
        assert [key for key in server.command("KEYS", "*") if b"=:1:k" in key] == []


# Responses that cannot be copied: middleware adds the cookies of one visitor to the object that it is given


class Stats:
    """Nothing that could be copied or stored."""


def unfit_response() -> Any:
    from django.http import HttpResponse

    response = HttpResponse("public")
    response.stats = Stats()
    return response


def inside_of_an_object(response: Any) -> Any:
    holder = Stats()
    holder.response = response  # type: ignore[attr-defined]
    return holder


HOLDERS = [lambda r: r, lambda r: [r], lambda r: (1, {"page": r}), lambda r: {1: [{r}]}, inside_of_an_object]


@pytest.mark.parametrize("held", HOLDERS)
async def test_no_response_is_kept_that_cannot_be_copied(cache: Face, alias: Any, held: Any) -> None:
    await cache.set_many({"set": "older", "many": "older"})
    await cache.set("set", held(unfit_response()))
    await cache.set_many({"many": held(unfit_response())})
    assert await cache.add("added", held(unfit_response())) is False
    await cache.set("nx", held(unfit_response()), nx=True)
    made = held(unfit_response())
    assert await cache.get_or_set("made", lambda: made) is made
    assert await cache.get_many(["set", "many", "added", "nx", "made"]) == {}
    assert alias.region.info()["entries"] == 0


async def test_add_leaves_what_is_there_when_a_response_cannot_be_copied(cache: Face) -> None:
    await cache.set("k", "older")
    assert await cache.add("k", unfit_response()) is False
    assert await cache.get("k") == "older"


def test_no_stream_is_kept_and_no_response_of_many_parts_with_something_unfit_at_the_end(alias: Any) -> None:
    from django.http import StreamingHttpResponse

    large = unfit_response()
    large.__dict__ = {"rows": [[number] for number in range(20_000)], **large.__dict__}
    for response in (StreamingHttpResponse(["x"]), large):
        alias.set("k", response)
        assert alias.get("k") is None


def test_a_promise_not_to_change_values_does_not_hold_for_responses(use: Use) -> None:
    from django.core.cache import cache
    from django.http import HttpResponse

    use(CACHEKIT={"profiles": {"default": {"isolation": "share"}}})
    cache.set("k", HttpResponse("public"))
    assert cache.get("k") is None


def test_a_pickled_response_is_shared_by_the_server_alone(on_server: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.core.cache import cache

    monkeypatch.setenv("CACHEKIT_SIGNING_KEY", "0123456789abcdef" * 4)
    on_server(profiles={"default": {"serializer": "pickle", "sign": True}})
    cache.set("k", unfit_response())
    first, second = cache.get("k"), cache.get("k")
    assert first.content == second.content == b"public"
    assert first is not second


def test_who_waits_for_a_response_that_cannot_be_copied_makes_one_of_their_own(alias: Any) -> None:
    begun, go_on, found = threading.Event(), threading.Event(), []

    def make() -> Any:
        begun.set()
        assert go_on.wait(20)
        return unfit_response()

    threads = [threading.Thread(target=lambda: found.append(alias.get_or_set("k", make))) for _ in range(4)]
    threads[0].start()
    assert begun.wait(20)
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.2)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert len({id(response) for response in found}) == 4


def test_no_visitor_is_given_the_session_of_another(use: Use, caplog: pytest.LogCaptureFixture) -> None:
    import sites
    from django.http import HttpResponse
    from django.views.decorators.cache import cache_page

    use()

    def page(request: Any) -> Any:
        response = HttpResponse("public")
        response.stats = Stats()
        return response

    def personal(get_response: Any) -> Any:
        def middleware(request: Any) -> Any:
            response = get_response(request)
            if who := request.headers.get("x-who"):
                response.set_cookie("session", who)
            return response

        return middleware

    sites.personal = personal  # type: ignore[attr-defined]
    with sites.site("wsgi", {"/": cache_page(60)(page)}, MIDDLEWARE=("sites.personal",)) as ask:
        assert "ann" in ask("/", x_who="ann").headers["set-cookie"]
        assert "set-cookie" not in ask("/").headers
    assert caplog.text.count("cannot store test_django_backend.Stats; whoever is given a response") == 1


# Sessions: what cannot be stored must not log a visitor out


def session_of(key: str | None = None) -> Any:
    from django.contrib.sessions.backends.cache import SessionStore

    return SessionStore(key)


async def save(session: Any, *, aio: bool) -> None:
    if aio:
        await session.asave()
    else:
        session.save()


async def test_a_session_holds_what_views_put_into_it(cache: Face) -> None:
    from django.http import QueryDict
    from django.utils.translation import gettext_lazy

    session = session_of()
    session.update({"filters": QueryDict("a=1&a=2"), "note": gettext_lazy("Yes")})
    await save(session, aio=cache.aio)
    again = session_of(session.session_key)
    assert again["filters"].getlist("a") == ["1", "2"]
    assert again["note"] == "Yes"


async def test_a_session_that_cannot_be_stored_is_an_error_and_the_older_one_stays(cache: Face) -> None:
    from cachekit.errors import Unstorable

    session = session_of()
    session["who"] = "ann"
    await save(session, aio=cache.aio)
    again = session_of(session.session_key)
    again["filters"] = {"cart": Stats()}
    with pytest.raises(Unstorable, match=r"filters\.cart: cannot store test_django_backend\.Stats"):
        await save(again, aio=cache.aio)
    assert session_of(session.session_key)["who"] == "ann"
    with pytest.raises(Unstorable):
        await cache.add("django.contrib.sessions.cache" + "a" * 32, {"cart": Stats()})


async def test_of_a_session_that_the_database_has_no_older_one_stays(alias: Any) -> None:
    from django.contrib.sessions.backends.cached_db import KEY_PREFIX

    alias.set(KEY_PREFIX + "a" * 32, {"who": "ann"})
    alias.set(KEY_PREFIX + "a" * 32, {"cart": Stats()})
    assert "who" not in alias.get(KEY_PREFIX + "a" * 32, {})


async def test_close_changes_nothing(cache: Face) -> None:
    await cache.set("k", 1)
    await cache.close(signal=None, sender=None)
    assert await cache.get("k") == 1


def test_in_and_the_keys_that_other_servers_refuse(alias: Any) -> None:
    from django.core.cache import CacheKeyWarning

    alias.set("k", None)
    assert "k" in alias
    assert "j" not in alias
    for key in ("a b", "x" * 300):
        with pytest.warns(CacheKeyWarning):
            alias.set(key, key)
        with pytest.warns(CacheKeyWarning):
            assert alias.get(key) == key


@pytest.mark.parametrize(
    "key",
    ["plain", "", "a b", " ", "tab\t", "line\n", "nul\0", "del\x7f", "\x1f", "~!", "é", "日本", "\x80", "\u2028", "é b"]
    + ["x" * length for length in (249, 250, 251)],
    ids=ascii,
)
def test_warnings_about_keys_are_djangos(use: Use, key: str) -> None:
    from django.core.cache import cache
    from django.core.cache.backends.base import BaseCache

    def warned(of: Any) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            of(key)
        return [f"{warning.category.__name__}: {warning.message}" for warning in caught]

    use()
    expected = warned(lambda key: BaseCache.validate_key(cache, key))
    assert warned(cache.validate_key) == expected
    assert bool(expected) == (len(key) > 250 or any(ord(char) < 33 or ord(char) == 127 for char in key))


def test_a_subclass_makes_and_validates_keys_its_own_way(use: Use) -> None:
    from django.core.cache.backends.base import InvalidCacheKey

    from cachekit.integrations.django import CacheKitCache

    class Strict(CacheKitCache):
        def make_key(self, key: Any, version: Any = None) -> str:
            return f"<{key}>"

        def validate_key(self, key: Any) -> None:
            if "!" in key:
                raise InvalidCacheKey(key)

    use()
    cache = Strict("", {})
    cache.set("k", 1)
    assert cache.region.get("<k>") == cache.get("k") == 1
    for call in (cache.get, cache.delete, cache.has_key, lambda key: cache.get_many([key])):
        with pytest.raises(InvalidCacheKey, match="<a!>"):
            call("a!")


def test_every_method_has_a_twin_that_needs_no_thread(alias: Any) -> None:
    from django.core.cache.backends.base import BaseCache

    calls = {
        "aadd": ("k", 1), "aget": ("k",), "aset": ("k", 1), "atouch": ("k",), "adelete": ("k",), "aget_many": (["k"],),
        "aset_many": ({"k": 1},), "adelete_many": (["k"],), "aget_or_set": ("k", lambda: 5), "ahas_key": ("k",),
        "aincr": ("k",), "adecr": ("k",), "aclear": (), "aclose": (),
    }  # fmt: skip

    of_django = {name for name in dir(BaseCache) if inspect.iscoroutinefunction(getattr(BaseCache, name))}
    assert calls.keys() | {"aincr_version", "adecr_version"} == of_django

    async def use() -> None:
        for name, args in calls.items():
            await getattr(alias, name)(*args)
        await alias.aset("k", 1)
        await alias.aincr_version("k")
        await alias.adecr_version("k", version=2)

    before = set(threading.enumerate())
    asyncio.run(use())
    assert {thread.name for thread in set(threading.enumerate()) - before} <= {"cachekit", "cachekit-listen"}


def test_the_region_key_is_djangos_key(on_server: Use) -> None:
    from django.core.cache import cache, caches

    from cachekit import region

    on_server(
        CACHES={
            "default": {"BACKEND": OURS, "KEY_PREFIX": "p", "VERSION": 3},
            "upper": {"BACKEND": OURS, "KEY_FUNCTION": lambda key, prefix, version: key.upper()},
        }
    )
    cache.set("k", "one")
    caches["upper"].set("k", "two")
    assert region("default").get_many(["p:3:k", "K"]) == {"p:3:k": "one", "K": "two"}


async def test_a_server_that_is_away_is_never_an_exception(use: Use) -> None:
    from django.core.cache import cache as ours

    backend = {"url": "redis://127.0.0.1:1", "budget": "100ms"}
    use(CACHEKIT={"backends": {"default": backend}, "profiles": {"default": {"l1": {"mode": "off"}}}})
    for aio in (False, True):
        cache = Face(ours, aio)
        await cache.set("k", 1)
        assert await cache.get("k", "default") == "default"
        assert await cache.get_many(["k"]) == {}
        assert await cache.add("k", 1) is True  # or Django would look for another number for a session, for ever
        assert await cache.delete("k") is False
        assert await cache.touch("k") is False
        assert await cache.set_many({"k": 1}) == ["k"]
        assert await cache.get_or_set("k", lambda: 5) == 5
        await cache.delete_many(["k"])
        await cache.clear()
        with pytest.raises(ValueError, match="not found"):
            await cache.incr("k")


def test_a_cache_made_under_another_loop_or_thread_still_works(on_server: Use) -> None:
    from asgiref.sync import async_to_sync
    from django.core.cache import cache

    on_server(profiles={"default": {"l1": {"mode": "off"}}})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(3):
            async_to_sync(cache.aset)("k", number)
            assert cache.get("k") == number
            assert asyncio.run(cache.aget("k")) == number
    assert [warning for warning in caught if "never awaited" in str(warning.message)] == []
