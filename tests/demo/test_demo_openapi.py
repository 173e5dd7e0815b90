"""Whatever the demo's OpenAPI allows a client to send, the answer with kept pages is the answer without them."""

from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings

import cachekit.demo
from cachekit.config.settings import load
from cachekit.integrations.fastapi import CacheMiddleware
from cachekit.process import replace_default
from cachekit.service import Service

schemathesis = pytest.importorskip("schemathesis")

from cachekit.demo.fastapi_app import app  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

OWN = {"x-cache", "cache-status", "etag", "date", "age", "cache-control"}
RULES = [{"path": "/stats", "cache": False}]  # it says what this process has done meanwhile
SEEN = {
    "GET /nearest": {"MISS", "HIT"},
    "GET /search": {"MISS", "HIT"},
    "GET /ranking/{country}": {"MISS"},  # there are few countries: nearly all is 404, and not kept
    "POST /invalidate": {"BYPASS"},
    "GET /stats": {None},
}
OPERATIONS = [found.ok() for found in schemathesis.openapi.from_dict(app.openapi()).get_all_operations()]


@pytest.fixture(scope="module")
def clients():
    file = Path(cachekit.demo.__file__).with_name("cachekit.toml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cachekit.function._functions", WeakSet())  # of other tests, with profiles of their own
        yield from _clients(file)


def _clients(file):
    service = Service(load([file], settings={"http": {"rules": RULES}}, environ={}))
    before = replace_default(service)
    with (
        TestClient(app, raise_server_exceptions=False) as plain,
        TestClient(CacheMiddleware(app, ttl="1m"), raise_server_exceptions=False) as cached,
    ):
        yield plain, cached
    replace_default(before)
    service.close()


def shown(answer: Any) -> Any:
    body = answer.json() if "json" in answer.headers.get("content-type", "") else answer.text
    if isinstance(body, dict) and answer.request.url.path == "/stats":
        body = sorted(body)
    headers = {name: value for name, value in answer.headers.items() if name not in OWN | {"content-length"}}
    return answer.status_code, headers, body


@pytest.mark.parametrize("operation", OPERATIONS, ids=[operation.label for operation in OPERATIONS])
def test_caching_makes_no_difference(clients: Any, operation: Any) -> None:
    plain, cached = clients
    results = set()

    @settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def same(case: Any) -> None:
        request = case.as_transport_kwargs(base_url="http://testserver")
        del request["cookies"]
        wanted = shown(plain.request(**request))
        for _ in range(2):
            answer = cached.request(**request)
            assert shown(answer) == wanted
            results.add(answer.headers.get("x-cache"))

    same()
    assert results >= SEEN[operation.label]
