"""Requests of several tenants at the same time, each told by a header that a middleware reads."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cachekit import MissingTenant, tenant
from cachekit.service import Service

MakeTenants = Callable[..., Service]
WHO = ["a", "b", "c"]

numbers = itertools.count()


@pytest.fixture
def load(make_tenants: MakeTenants, mode: str) -> Callable[[], list[Any]]:
    """A cached function that must have a tenant, and tells which one it ran for."""
    from cachekit.context import TENANT

    service = make_tenants(mode, require_tenant=True)
    return service.region("users").cached(lambda: [TENANT.get(), next(numbers)], version=1)


class TenantOfHeader:
    """As an ASGI application would have it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        name = dict(scope.get("headers", ())).get(b"x-tenant")
        if name is None:
            await self.app(scope, receive, send)
            return
        with tenant(name.decode()):
            await self.app(scope, receive, send)


def checked(answers: list[tuple[str, list[Any]]]) -> None:
    """Each got its own, and all of one tenant the same."""
    assert all(got[0] == who for who, got in answers)
    assert len({tuple(got) for _, got in answers}) == len(WHO)


@pytest.mark.parametrize("middleware", ["asgi", "base", "dependency"])
@pytest.mark.parametrize("path", ["/sync", "/async"])
def test_fastapi(load: Any, middleware: str, path: str) -> None:
    """Sync routes run in a thread pool, with a copy of the context."""
    import httpx2 as httpx
    from fastapi import Depends, FastAPI, Request
    from starlette.middleware.base import BaseHTTPMiddleware

    async def of_header(request: Request) -> Any:
        with tenant(request.headers["x-tenant"]):
            yield

    app = FastAPI(dependencies=[Depends(of_header)] if middleware == "dependency" else [])
    of_header.__annotations__["request"] = Request

    @app.get("/sync")
    def sync() -> list[Any]:
        return load()  # type: ignore[no-any-return]

    @app.get("/async")
    async def later() -> list[Any]:
        await asyncio.sleep(0)
        return load()  # type: ignore[no-any-return]

    if middleware == "asgi":
        app.add_middleware(TenantOfHeader)  # type: ignore[arg-type]
    if middleware == "base":

        class Base(BaseHTTPMiddleware):
            async def dispatch(self, request: Request, call_next: Any) -> Any:
                with tenant(request.headers["x-tenant"]):
                    return await call_next(request)

        app.add_middleware(Base)

    async def main() -> list[tuple[str, list[Any]]]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

            async def ask(who: str) -> tuple[str, list[Any]]:
                return who, (await client.get(path, headers={"x-tenant": who})).json()

            first = [await ask(who) for who in WHO]
            return first + await asyncio.gather(*[ask(who) for who in WHO * 5])

    checked(asyncio.run(main()))


def test_flask(load: Any) -> None:
    """A thread of the server has many tenants, one after the other."""
    from flask import Flask, jsonify

    app = Flask(__name__)

    @app.get("/")
    def view() -> Any:
        return jsonify(load())

    inner = app.wsgi_app

    def of_header(environ: Any, start_response: Any) -> Any:
        if "HTTP_X_TENANT" not in environ:
            return inner(environ, start_response)
        with tenant(environ["HTTP_X_TENANT"]):
            return inner(environ, start_response)

    app.wsgi_app = of_header  # type: ignore[method-assign]
    app.testing = True
    answers: list[tuple[str, list[Any]]] = []

    def ask(*every: str) -> None:
        for who in every:
            answers.append((who, app.test_client().get("/", headers={"x-tenant": who}).json))
        with pytest.raises(MissingTenant):
            app.test_client().get("/")

    ask(*WHO)
    threads = [threading.Thread(target=ask, args=WHO) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 18
    checked(answers)
