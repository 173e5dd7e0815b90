"""The panel shows the calls of its own request, all of them, with what answered each."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from cachekit.testing.servers import Server

Seen = list[tuple[str, str, str, str]]


@pytest.fixture
def recorder(set_up: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Recordings, with everything as it was before after the test."""
    from cachekit.integrations.django import recording

    for module, name, _ in recording.ENTRANCES:
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setattr(recording.Bound, "quick", recording.Bound.quick)
    monkeypatch.setattr(recording.Region, "_quick", recording.Region._quick)
    monkeypatch.setattr(recording, "_installed", False)
    recording.install()
    return recording


@pytest.fixture
def recorded(recorder: Any, use: Callable[..., None], cachekit_server: Server) -> Callable[..., Any]:
    """What a call asks of the caches: verb, what, outcome, tier. No push takes an entry away while we look."""
    backend = {"url": cachekit_server.url, "coherence": "ttl", "max_staleness": 60}
    use(CACHEKIT={"backends": {"default": backend}})

    def record(call: Callable[[], Any]) -> Seen:
        recording = recorder.Recording()
        try:
            call()
        finally:
            recording.stop()
        return [(row["verb"], row["what"].rpartition(".")[2], row["outcome"], row["tier"]) for row in recording.rows()]

    return record


def test_calls_of_a_function_are_seen_also_where_the_core_would_answer(recorded: Callable[..., Seen]) -> None:
    from cachekit import cache

    @cache
    def load(x: int) -> str:
        return str(x)

    @cache(profile="local")
    def alone(x: int) -> str:
        return str(x)

    for f, name in ((load, "load"), (alone, "alone")):
        assert recorded(partial(f, 1)) == [("get", name, "miss", "")]
        assert recorded(partial(f, 1)) == [("get", name, "hit", "L1")]
        assert recorded(partial(list, map(f, (1, 2)))) == [("get", name, "hit", "L1"), ("get", name, "miss", "")]
        before = f.cache_info()
        f(1)
        assert f.cache_info().hits == before.hits + 1
        assert (before.hits, before.misses) == (2, 2)
    assert recorded(lambda: load.using(skip_l1=True)(1)) == [("get", "load", "hit", "L2")]
    assert recorded(lambda: load.refresh(1)) == [("refresh", "load", "done", "")]
    assert recorded(lambda: load.invalidate(1)) == [("invalidate", "load", "done", "")]
    assert recorded(lambda: load.peek(1)) == [("get", "load", "miss", "")]


def test_calls_of_a_region_and_of_djangos_cache_are_seen(recorded: Callable[..., Seen]) -> None:
    from django.core.cache import cache

    from cachekit import invalidate_tags, region

    names = region("minimal")
    assert recorded(lambda: names.set("a", "x", tags=["red"])) == [("set", "a", "done", "")]
    assert recorded(lambda: names.using(skip_l1=True).get("a")) == [("get", "a", "hit", "L2")]
    assert recorded(lambda: names.get("b")) == [("get", "b", "miss", "")]
    assert recorded(lambda: names.get_or_set("c", lambda: "x")) == [("get", "c", "miss", "")]
    assert recorded(lambda: names.using(skip_l1=True).get_many(["a", "c"])) == [("get_many", "a, c", "hit", "L2")]
    assert recorded(lambda: names.using(skip_l1=True).get_many(["a", "d"])) == [("get_many", "a, d", "miss", "")]
    assert recorded(lambda: names.touch("a")) == [("touch", "a", "done", "")]
    assert recorded(lambda: invalidate_tags("red", "blue")) == [("clear", "2 tags", "done", "")]
    assert recorded(names.clear) == [("clear", "", "done", "")]
    assert recorded(lambda: cache.set("k", "x")) == [("set", ":1:k", "done", "")]
    cache.set("n", 1)
    assert recorded(lambda: cache.incr("n")) == [("incr", ":1:n", "done", "")]


def test_stale_answers_and_failures_are_told_apart(recorded: Callable[..., Seen]) -> None:
    from cachekit import cache

    wrong = False

    @cache(stale_ttl="1h", early_refresh="off")
    def load(x: int) -> str:
        if wrong:
            raise ZeroDivisionError
        return "x"

    load(1)
    load.mark_stale(1)
    wrong = True
    assert recorded(lambda: load(1)) == [("get", "load", "stale", "")]

    def fail() -> None:
        with pytest.raises(ZeroDivisionError):
            load(2)

    assert recorded(fail) == [("get", "load", "ZeroDivisionError", "")]


def test_what_a_load_calls_is_inside_of_it(recorder: Any, on_server: Callable[..., None]) -> None:
    from cachekit import cache

    on_server()

    @cache
    def inner() -> str:
        return "x"

    @cache
    def outer() -> str:
        return inner()

    recording = recorder.Recording()
    outer()
    recording.stop()
    assert [(row["what"].rpartition(".")[2], row["depth"]) for row in recording.rows()] == [("outer", 0), ("inner", 1)]
    first, second = recording.rows()
    assert first["seconds"] > second["seconds"] > 0
    assert recording.totals() == {"miss": 2}


def test_nobody_elses_calls_are_seen(recorder: Any, on_server: Callable[..., None]) -> None:
    from cachekit import cache, region

    on_server()

    @cache
    def load(x: int) -> str:
        return str(x)

    async def task(x: int) -> list[str]:
        recording = recorder.Recording()
        for _ in range(20):
            await region().aset(x, str(x))
            await asyncio.sleep(0)
        recording.stop()
        return [row["what"] for row in recording.rows()]

    async def tasks() -> list[list[str]]:
        return await asyncio.gather(*map(task, range(5)))

    stop = threading.Event()

    def others() -> None:
        while not stop.is_set():
            load(1)

    thread = threading.Thread(target=others)
    thread.start()
    try:
        found = asyncio.run(tasks())
    finally:
        stop.set()
        thread.join()
    assert [len(calls) for calls in found] == [20] * 5
    assert len({what for calls in found for what in calls}) == 5


def test_when_no_recording_runs_hits_are_the_cores_again(recorder: Any, on_server: Callable[..., None]) -> None:
    from cachekit import cache, context

    on_server()

    @cache
    def load(x: int) -> str:
        return str(x)

    before = context._count
    recording = recorder.Recording()
    assert context._count == before + 1
    load(1)
    recording.stop()
    recording.stop()
    assert context._count == before
    load(1)
    assert len(recording.rows()) == 1


@pytest.fixture
def project(recorder: Any, use: Callable[..., None], cachekit_server: Server) -> None:
    """The project with the toolbar for everybody."""
    from debug_toolbar import settings as of_toolbar
    from django.conf import settings

    use(
        CACHES={"default": {"BACKEND": "cachekit.integrations.django.CacheKitCache"}},
        CACHEKIT={"backends": {"default": {"url": cachekit_server.url}}},
        INSTALLED_APPS=[*settings.INSTALLED_APPS, "debug_toolbar"],
        MIDDLEWARE=["debug_toolbar.middleware.DebugToolbarMiddleware", *settings.MIDDLEWARE],
        DEBUG_TOOLBAR_PANELS=[
            "debug_toolbar.panels.history.HistoryPanel",
            "cachekit.integrations.django.panel.CachesPanel",
        ],
        DEBUG_TOOLBAR_CONFIG={"SHOW_TOOLBAR_CALLBACK": lambda request: True},
        ROOT_URLCONF="project.debug_urls",
        SESSION_ENGINE="django.contrib.sessions.backends.db",
    )
    of_toolbar.get_config.cache_clear()
    of_toolbar.get_panels.cache_clear()


@pytest.mark.parametrize("aio", [False, True], ids=["wsgi", "asgi"])
def test_the_panel_shows_the_calls_of_a_request(project: None, aio: bool) -> None:
    from asgiref.sync import async_to_sync
    from debug_toolbar.toolbar import DebugToolbar
    from django.test import AsyncClient, Client

    def get(path: str) -> Any:
        return async_to_sync(AsyncClient().get)(path) if aio else Client().get(path)

    for outcome in ("miss", "hit"):
        response = get("/avalue/k/" if aio else "/value/k/")
        toolbar = DebugToolbar.fetch(response["djdt-request-id"])
        panel = toolbar.get_panel_by_id("CachesPanel")
        (call,) = panel.get_stats()["calls"]
        assert (call["region"], call["verb"], call["what"], call["outcome"]) == ("default", "get", ":1:k", outcome)
        assert panel.nav_subtitle.startswith("1 calls in ")
        assert ":1:k" in panel.content
        assert outcome in panel.content
    assert (
        "asked no cache"
        in DebugToolbar.fetch(get("/whoami/")["djdt-request-id"]).get_panel_by_id("CachesPanel").content
    )


def test_nothing_is_recorded_or_loaded_where_the_toolbar_is_not() -> None:
    import subprocess
    import sys

    code = """
import sys, django
from django.conf import settings
settings.configure(INSTALLED_APPS=["cachekit.integrations.django"])
django.setup()
from cachekit.engine import flow
assert flow.get_or_load.__module__ == "cachekit.engine.flow" and not hasattr(flow.get_or_load, "__wrapped__")
assert not {"debug_toolbar", "cachekit.integrations.django.recording"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
