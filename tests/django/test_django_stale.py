"""Django's cache API never gives what is past its timeout, whatever the profile keeps; what computes may."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit.process import default_service, replace_default
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock
from cachekit.testing.servers import Server


@pytest.fixture(params=["l1", "server", "server without l1"])
def clock(request: pytest.FixtureRequest, use: Callable[..., None], cachekit_server: Server) -> Iterator[FrozenClock]:
    """The default cache keeps values for an hour past their time, on a clock that stands still."""
    profile = {
        "jitter": 0,
        "stale_ttl": "1h",
        "swr": True,
        "l1": {"mode": "off" if "without" in request.param else "on"},
    }
    backends = {} if request.param == "l1" else {"default": {"url": cachekit_server.url}}
    use(CACHEKIT={"backends": backends, "profiles": {"default": profile}}, SESSION_CACHE_ALIAS="default")
    clock = FrozenClock()
    service = Service(default_service().spec, clock=clock)
    before = replace_default(service)
    yield clock
    service.close()
    replace_default(before)


@pytest.fixture(params=["", "a"], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call a method of the default cache, blocking or awaited."""
    from django.core.cache import cache

    async def call(name: str, *args: Any, **kwargs: Any) -> Any:
        answer = getattr(cache, request.param + name)(*args, **kwargs)
        return await answer if inspect.isawaitable(answer) else answer

    return call


async def test_what_is_past_its_timeout_is_gone(clock: FrozenClock, ask: Callable[..., Any]) -> None:
    await ask("set", "k", "old", timeout=30)
    clock.advance(29)
    assert await ask("get", "k") == "old"
    clock.advance(2)
    assert await ask("get", "k", "default") == "default"
    assert await ask("get_many", ["k"]) == {}
    assert await ask("has_key", "k") is False
    assert await ask("touch", "k", 30) is False
    assert await ask("delete", "k") is False
    assert await ask("add", "k", "new", timeout=30) is True
    assert await ask("get", "k") == "new"


async def test_what_was_removed_stands_in_for_nothing(clock: FrozenClock, ask: Callable[..., Any]) -> None:
    def fails() -> str:
        raise OSError

    await ask("set", "k", "old", timeout=30)
    await ask("delete", "k")
    with pytest.raises(OSError):
        await ask("get_or_set", "k", fails)


async def test_get_or_set_does_what_the_profile_says(clock: FrozenClock, ask: Callable[..., Any]) -> None:
    await ask("set", "k", "old", timeout=30)
    clock.advance(31)
    assert await ask("get_or_set", "k", lambda: "new", timeout=30) == "old"  # at once
    service = default_service()
    assert await service.async_port.wait_for_tasks(5)
    assert service.workers.settle()
    assert await ask("get", "k") == "new"


async def test_a_session_ends_when_its_time_is_over(clock: FrozenClock) -> None:
    from importlib import import_module

    store = import_module("django.contrib.sessions.backends.cache").SessionStore
    session = store()
    session.set_expiry(60)
    await session.aset("user", 7)
    await session.asave()
    assert await store(session.session_key).aget("user") == 7
    clock.advance(61)
    assert await store(session.session_key).aget("user") is None
