"""Tags reach the pages and values of applications that have a configuration, and so a service, of their own."""

import itertools
from collections.abc import Callable
from typing import Any

import flask
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import cachekit
from cachekit import Outcome
from cachekit.integrations.fastapi import CacheKit, cached_response
from cachekit.integrations.flask import Cache
from cachekit.testing.servers import Server

Get = Callable[[], str]
PATIENT = {"budget": "10s", "adaptive": False}  # the machine may be busy


@cachekit.cache.invalidates(tags=["news"])
def written() -> str:
    return "written"


@cachekit.cache.invalidates(tags=["news"])
async def written_async() -> str:
    return "written"


def flask_page(config: dict[str, Any]) -> Get:
    app, runs = flask.Flask("shop"), itertools.count(1)
    cache = Cache(app, config=config)

    @app.route("/news")
    @cache.cached(timeout=60, tags=["news"])
    def news() -> str:
        return str(next(runs))

    client = app.test_client()
    return lambda: client.get("/news").text


def fastapi_page(config: dict[str, Any]) -> Get:
    app, runs = FastAPI(), itertools.count(1)
    CacheKit(app, config=config)

    @app.get("/news")
    @cached_response(ttl=60, tags=["news"])
    async def news() -> int:
        return next(runs)

    client = TestClient(app)
    return lambda: client.get("/news").text


@pytest.fixture(params=[flask_page, fastapi_page])
def door(request: pytest.FixtureRequest) -> Callable[[dict[str, Any]], Get]:
    made: Callable[[dict[str, Any]], Get] = request.param
    return made


def of_a_server(server: Server, namespace: str) -> dict[str, Any]:
    return {"namespace": namespace, "backends": {"default": {"url": server.url, **PATIENT}}}


def test_tags_reach_an_application_with_a_configuration_of_its_own(door: Callable[[dict[str, Any]], Get]) -> None:
    get = door({"namespace": "own"})
    assert [get(), get()] == ["1", "1"]
    assert cachekit.invalidate_tags("news") is Outcome.DONE
    assert [get(), get()] == ["2", "2"]
    written()
    assert [get(), get()] == ["3", "3"]


async def test_coroutines_reach_it_too(door: Callable[[dict[str, Any]], Get]) -> None:
    get = door({"namespace": "own"})
    assert [get(), get()] == ["1", "1"]
    assert await cachekit.ainvalidate_tags("news") is Outcome.DONE
    assert [get(), get()] == ["2", "2"]
    await written_async()
    assert [get(), get()] == ["3", "3"]


def test_every_application_is_reached_on_its_server(cachekit_server: Server) -> None:
    pages = [door(of_a_server(cachekit_server, f"own{door.__name__}")) for door in (flask_page, fastapi_page)]
    assert [get() for get in pages] == ["1", "1"]
    assert cachekit.invalidate_tags("news") is Outcome.DONE
    assert [get() for get in pages] == ["2", "2"]


def test_the_worst_of_their_outcomes_is_told() -> None:
    down = {"namespace": "down", "backends": {"default": {"url": "redis://127.0.0.1:1"}}}
    pages = [flask_page(down), flask_page({"namespace": "well"})]
    assert [get() for get in pages] == ["1", "1"]
    assert cachekit.invalidate_tags("news") is Outcome.QUEUED
    assert [get() for get in pages] == ["2", "2"]


def test_settings_of_flask_caching_make_such_an_application() -> None:
    app, runs = flask.Flask("shop"), itertools.count(1)
    app.config["CACHE_TYPE"] = "SimpleCache"
    cache = Cache(app)

    @cache.memoize(timeout=60)
    def number() -> int:
        return next(runs)

    @app.route("/news")
    @cache.cached(timeout=60, tags=["news"])
    def news() -> str:
        return str(next(runs))

    with app.app_context():
        assert [number(), number()] == [1, 1]
    assert [app.test_client().get("/news").text for _ in "ab"] == ["2", "2"]
    cachekit.invalidate_tags("news")
    assert app.test_client().get("/news").text == "3"
    with app.app_context():
        assert number() == 1, "without the tag"
