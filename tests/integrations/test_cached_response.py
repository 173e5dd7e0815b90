"""`cached_response`: FastAPI does what it does without it, and the function runs once."""

import asyncio
import contextlib
import functools
import inspect
import textwrap
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import httpx2
import pytest
import uvicorn
from asgi import ask
from fastapi import APIRouter, BackgroundTasks, Cookie, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from fastapi.security import APIKeyCookie, APIKeyHeader, HTTPBearer
from fastapi.testclient import TestClient
from pydantic import AliasChoices, BaseModel, Field, field_validator
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser, requires
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.routing import Mount, Route

from cachekit import ConfigError, cache
from cachekit.config.settings import load
from cachekit.engine.outcome import Outcome
from cachekit.integrations.fastapi import (
    CacheKit,
    CacheMiddleware,
    ainvalidate_url,
    cached_response,
    invalidate_url,
)
from cachekit.process import replace_default
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock

CONFIG = {
    "profiles": {
        "default": {"backend": "none", "early_refresh": "off"},
        "stale": {"ttl": "10s", "stale_ttl": "1h", "swr": True},
        "errors": {"ttl": "10s", "stale_ttl": "1h"},
        "early": {"ttl": "10s", "early_refresh": 1000},
    }
}
OURS = {"x-cache", "cache-status", "etag", "date", "age", "cache-control", "vary"}


@pytest.fixture
def clock():
    return FrozenClock()


@pytest.fixture(autouse=True)
def service(clock):
    service = Service(load([], settings=CONFIG, environ={}), clock=clock)
    before = replace_default(service)
    yield service
    replace_default(before)
    service.close()


@pytest.fixture
def runs():
    return []


def client_of(app: Any, **options: Any) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://shop.test", **options)


class Item(BaseModel):
    id: int
    secret: str = "hidden"


class Shown(BaseModel):
    id: int


def set_headers(response: Response) -> None:
    response.headers["x-dependency"] = "1"
    response.status_code = 202


async def model(item: int) -> Item:
    return Item(id=item)


def plain_dict(item: int, q: str = "a", tags: Annotated[list[str] | None, Header()] = None) -> dict[str, Any]:
    return {"item": item, "q": q, "tags": tags}


async def injected(item: int, response: Response) -> int:
    response.headers["x-own"] = "yes"
    response.status_code = 201
    return item


def raw(item: int, request: Request) -> Response:
    return PlainTextResponse(f"{request.method} {item}", 203, {"x-raw": "1"})


async def nothing(item: int) -> None:
    return None


async def annotated(item: int, asked: Annotated[Request, "the request"]) -> list[str]:
    return [asked.url.path, str(item)]


# The options of the route for each endpoint.
ENDPOINTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "response_model": (model, {"response_model": Shown, "status_code": 203}),
    "exclude_unset": (model, {"response_model_exclude_unset": True}),
    "dict": (plain_dict, {}),
    "injected": (injected, {}),
    "dependency": (plain_dict, {"dependencies": [Depends(set_headers)]}),
    "raw": (raw, {}),
    "204": (nothing, {"status_code": 204}),
    "html": (nothing, {"response_class": HTMLResponse, "response_model": None}),
    "text": (annotated, {"response_class": JSONResponse}),
}


def site(decorate: Any) -> FastAPI:
    app, included = FastAPI(), APIRouter()
    for name, (function, options) in ENDPOINTS.items():
        app.get(f"/{name}/{{item}}", **options)(decorate(function))
        included.get(f"/{name}/{{item}}", **options)(decorate(function))
    app.include_router(included, prefix="/in", default_response_class=PlainTextResponse)
    return app


def without_ours(headers: Any) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name not in OURS]


class TestFastAPI:
    """Whatever a route is like, its response is that of the route without us, bytes and headers, kept or not."""

    @pytest.mark.parametrize("prefix", ["", "/in"], ids=["app", "included"])
    @pytest.mark.parametrize("name", ENDPOINTS)
    def test_the_response_is_that_of_an_application_without_us(self, name, prefix):
        cached, plain = TestClient(site(cached_response(ttl="1m"))), TestClient(site(lambda function: function))
        if prefix and name in ("dict", "injected", "dependency", "exclude_unset", "response_model"):
            pytest.skip("a PlainTextResponse cannot show these")
        wanted = plain.get(f"{prefix}/{name}/7")
        answers = [cached.get(f"{prefix}/{name}/7") for _ in range(2)]
        for answer in answers:
            assert (answer.status_code, answer.content) == (wanted.status_code, wanted.content)
            assert without_ours(answer.headers) == without_ours(wanted.headers)
        kept = "HIT" if wanted.status_code in (200, 203, 204) else "MISS"
        assert [answer.headers["x-cache"] for answer in answers] == ["MISS", kept]

    def test_openapi_is_that_of_an_application_without_us(self):
        assert site(cached_response(ttl="1m")).openapi() == site(lambda function: function).openapi()

    def test_what_is_wrong_with_a_request_is_told_as_ever(self):
        cached, plain = TestClient(site(cached_response())), TestClient(site(lambda function: function))
        assert cached.get("/dict/x").json() == plain.get("/dict/x").json()
        assert cached.post("/dict/1").status_code == 405

    def test_a_hit_is_not_validated_again(self, runs):
        class Watched(BaseModel):
            id: int

            @field_validator("id")
            @classmethod
            def watch(cls, value: int) -> int:
                runs.append(value)
                return value

        app = FastAPI()

        @app.get("/")
        @cached_response(ttl="1m")
        def read() -> Watched:
            return Watched(id=3)

        client = TestClient(app)
        assert client.get("/").json() == {"id": 3}
        before = len(runs)
        assert client.get("/").json() == {"id": 3}
        assert len(runs) == before > 0

    def test_a_response_that_the_model_forbids_is_an_error_as_ever(self):
        app = FastAPI()

        @app.get("/")
        @cached_response(ttl="1m")
        def read() -> Shown:
            return {"id": "no number"}  # type: ignore[return-value]

        client = TestClient(app, raise_server_exceptions=False)
        assert [client.get("/").status_code for _ in range(2)] == [500, 500]

    def test_annotations_that_are_texts_are_understood(self):
        code = textwrap.dedent("""
            from __future__ import annotations
            from fastapi import FastAPI, Request, Response
            from cachekit.integrations.fastapi import cached_response
            app = FastAPI()
            @app.get("/{item}")
            @cached_response(ttl="1m")
            async def read(item: int, asked: Request, answer: Response) -> dict[str, int]:
                answer.headers["x-path"] = asked.url.path
                return {"item": item}
        """)
        namespace: dict[str, Any] = {"__name__": "texts"}
        exec(code, namespace)
        client = TestClient(namespace["app"])
        answers = [client.get("/7") for _ in range(2)]
        assert [each.json() for each in answers] == [{"item": 7}] * 2
        assert [each.headers["x-path"] for each in answers] == ["/7"] * 2
        assert answers[1].headers["x-cache"] == "HIT"
        assert client.get("/x").status_code == 422


class TestDependencies:
    """They run on every request, before a kept page is given."""

    def test_who_may_not_see_a_page_does_not_see_a_kept_one(self, runs):
        app = FastAPI()
        key = APIKeyHeader(name="X-Key")

        def allowed(given: Annotated[str, Depends(key)]) -> str:
            if given not in ("alice", "bob"):
                raise HTTPException(403)
            return given

        @app.get("/")
        @cached_response(ttl="1m")
        def read(user: Annotated[str, Depends(allowed)]) -> str:
            runs.append(user)
            return user

        client = TestClient(app)
        assert client.get("/", headers={"x-key": "alice"}).json() == "alice"
        assert client.get("/", headers={"x-key": "alice"}).headers["x-cache"] == "HIT"
        assert client.get("/", headers={"x-key": "eve"}).status_code == 403
        assert client.get("/").status_code in (401, 403)
        assert client.get("/", headers={"x-key": "bob"}).json() == "bob"  # the scheme says which field is read
        assert runs == ["alice", "bob"]

    def test_bearer_tokens_go_around_unless_the_route_says_whose_they_are(self, runs):
        app, bearer = FastAPI(), HTTPBearer()

        async def user_of(request: Request) -> str | None:
            return request.headers.get("authorization")

        @app.get("/around", dependencies=[Depends(bearer)])
        @cached_response(ttl="1m")
        def around(request: Request) -> str:
            return request.headers["authorization"]

        @app.get("/own", dependencies=[Depends(bearer)])
        @cached_response(ttl="1m", per_user=user_of)
        def own(request: Request) -> str:
            runs.append(1)
            return request.headers["authorization"]

        client = TestClient(app)
        for user in ("Bearer a", "Bearer b", "Bearer a", "Bearer b"):
            around_, own_ = (client.get(path, headers={"authorization": user}) for path in ("/around", "/own"))
            assert (around_.json(), around_.headers["x-cache"], own_.json()) == (user, "BYPASS", user)
            assert own_.headers["cache-control"].startswith("private")
        assert len(runs) == 2
        assert client.get("/own").status_code in (401, 403)

    def test_declared_headers_and_cookies_tell_pages_apart(self):
        app = FastAPI()

        def language(accept_language: Annotated[str, Header()] = "") -> str:
            return accept_language

        @app.get("/")
        @cached_response(ttl="1m")
        def read(
            asked: Annotated[str, Depends(language)],
            x_tenant: Annotated[str, Header()] = "",
            theme: Annotated[str, Cookie()] = "",
        ) -> list[str]:
            return [asked, x_tenant, theme]

        client = TestClient(app)
        for asked, tenant in (("de", "a"), ("de", "b"), ("fr", "a"), ("de", "a")):
            answer = client.get("/", headers={"accept-language": asked, "x-tenant": tenant})
            assert answer.json() == [asked, tenant, ""]
            assert answer.headers["vary"] == "accept-language, x-tenant"
        assert answer.headers["x-cache"] == "HIT"
        assert client.get("/", headers={"cookie": "theme=dark"}).json() == ["", "", "dark"]

    @pytest.mark.parametrize("declare", ["model", "optional model", "dependency", "alias", "choice", "underscores"])
    def test_however_a_header_is_declared_it_tells_pages_apart(self, declare):
        class Tenant(BaseModel):
            x_tenant: str = ""

        class Named(BaseModel):
            tenant: str = Field("", validation_alias="X-Tenant")

        def depends(tenant: Annotated[Tenant, Header()]) -> str:
            return tenant.x_tenant

        kinds = {
            "model": Annotated[Tenant, Header()],
            "optional model": Annotated[Named | None, Header()],
            "dependency": Annotated[str, Depends(depends)],
            "alias": Annotated[str, Header(validation_alias="X-Tenant")],
            "choice": Annotated[str, Header(validation_alias=AliasChoices("X-Other", "X-Tenant"))],
            "underscores": Annotated[Tenant, Header(convert_underscores=False)],
        }
        app = FastAPI()

        @app.get("/")
        @cached_response(ttl="1m")
        def read(said: kinds[declare]) -> Any:  # type: ignore[valid-type]
            return said

        client, name = TestClient(app), "x_tenant" if declare == "underscores" else "x-tenant"
        answers = [client.get("/", headers={name: tenant}) for tenant in ("a", "b", "a")]
        assert ["a" in answers[0].text, "b" in answers[1].text, answers[2].text] == [True, True, answers[0].text]
        assert [each.headers["x-cache"] for each in answers] == ["MISS", "MISS", "HIT"]

    def test_what_takes_whatever_headers_there_are_is_not_kept(self):
        class All(BaseModel, extra="allow"):
            x_tenant: str = ""

        app = FastAPI()

        @app.get("/")
        @cached_response(ttl="1m")
        def read(said: Annotated[All, Header()]) -> Any:
            return said.model_extra

        answers = [TestClient(app).get("/", headers={"x-any": value}) for value in ("a", "b")]
        assert [(each.json()["x-any"], each.headers["x-cache"]) for each in answers] == [
            ("a", "BYPASS"), ("b", "BYPASS"),
        ]  # fmt: skip

    @pytest.mark.parametrize("declare", ["cookie", "model", "key", "all"])
    def test_declared_cookies_of_a_user_tell_their_pages_apart(self, declare):
        class Theme(BaseModel):
            theme: str = ""

        class All(BaseModel, extra="allow"):
            pass

        kinds = {
            "cookie": Annotated[str, Cookie(alias="theme")],
            "model": Annotated[Theme, Cookie()],
            "key": Annotated[str, Depends(APIKeyCookie(name="theme"))],
            "all": Annotated[All, Cookie()],
        }
        app = FastAPI()

        @app.get("/")
        @cached_response(ttl="1m", per_user=lambda request: request.cookies["user"])
        def read(said: kinds[declare], request: Request) -> Any:  # type: ignore[valid-type]
            return [request.cookies["user"], said]

        client = TestClient(app)
        cookies = [f"theme={theme}; user={user}" for theme, user in (("dark", "a"), ("light", "a"), ("dark", "b"))]
        answers = [client.get("/", headers={"cookie": cookie}) for cookie in (*cookies, "user=a; theme=dark")]
        assert [("dark" in each.text, each.json()[0], each.headers["x-cache"]) for each in answers] == [
            (True, "a", "MISS"), (False, "a", "MISS"), (True, "b", "MISS"), (True, "a", "HIT"),
        ]  # fmt: skip

    @pytest.mark.parametrize("where", ["app", "router"])
    def test_what_an_override_declares_tells_pages_apart_as_long_as_it_is_in_force(self, where):
        app, router = FastAPI(), APIRouter()

        def name() -> str:
            return "real"

        def below(x_user: Annotated[str, Header()]) -> str:
            return x_user

        def fake(user: Annotated[str, Depends(below)]) -> str:
            return user

        @(app if where == "app" else router).get("/")
        @cached_response(ttl="1m")
        def read(name: Annotated[str, Depends(name)]) -> str:
            return name

        if where == "router":
            app.include_router(router)
        client = TestClient(app)

        def asked() -> list[tuple[str, str]]:
            answers = [client.get("/", headers={"x-user": user}) for user in ("a", "b", "a")]
            return [(answer.json(), answer.headers["x-cache"]) for answer in answers]

        assert asked() == [("real", "MISS"), ("real", "HIT"), ("real", "HIT")]
        read.invalidate()
        app.dependency_overrides[name] = fake
        assert asked() == [("a", "MISS"), ("b", "MISS"), ("a", "HIT")]
        app.dependency_overrides[name] = lambda: "plain"
        read.invalidate()
        assert asked() == [("plain", "MISS"), ("plain", "HIT"), ("plain", "HIT")]

    def test_overrides_work(self):
        app = FastAPI()

        def name() -> str:
            return "real"

        @app.get("/")
        @cached_response(ttl="1m")
        def read(name: Annotated[str, Depends(name)]) -> str:
            return name

        app.dependency_overrides[name] = lambda: "fake"
        assert TestClient(app).get("/").json() == "fake"

    def test_headers_that_a_dependency_sets_are_those_of_this_request(self):
        app, numbers = FastAPI(), iter(range(9))

        def number(response: Response) -> None:
            response.headers["x-number"] = str(next(numbers))

        @app.get("/", dependencies=[Depends(number)])
        @cached_response(ttl="1m")
        def read(response: Response) -> str:
            response.headers["x-page"] = "p"
            return "page"

        answers = [TestClient(app).get("/") for _ in range(3)]
        assert [(each.headers["x-number"], each.headers["x-page"]) for each in answers] == [
            ("0", "p"), ("1", "p"), ("2", "p"),
        ]  # fmt: skip
        assert answers[2].headers["x-cache"] == "HIT"

    @pytest.mark.parametrize("own", ["endpoint", "handler", ""])
    def test_headers_of_a_dependency_join_what_fastapi_makes_and_nothing_else(self, own):
        app, numbers = FastAPI(), iter(range(9))

        def number(response: Response) -> None:
            response.headers["x-number"] = str(next(numbers))
            if runs:
                response.set_cookie("number", "1")

        @app.get("/", dependencies=[Depends(number)])
        @cached_response(ttl="1m", statuses={404: "1m"})
        def read() -> Any:
            runs.append(1)
            if own == "handler":
                raise HTTPException(404)
            return JSONResponse(1) if own else 1

        runs: list[int] = []
        asked = [{}, {}, {"if-none-match": "*"}]
        answers = [TestClient(app).get("/", headers=fields) for fields in asked]  # each without the cookie
        assert [each.headers["x-cache"] for each in answers] == ["MISS", "HIT", "HIT"]
        assert answers[2].status_code == (404 if own == "handler" else 304)
        assert [each.headers.get("x-number") for each in answers] == ([None] * 3 if own else ["0", "1", "2"])
        assert ["set-cookie" in each.headers for each in answers] == [False, not own, not own]

    @pytest.mark.parametrize("said", ["no-store", "private, no-store", "private, max-age=5", "no-cache"])
    def test_a_dependency_keeps_its_request_out_of_the_cache(self, runs, said):
        app = FastAPI()

        def members(request: Request, response: Response) -> None:
            if request.client and request.client.host == "member":
                response.headers["cache-control"] = said

        @app.get("/", dependencies=[Depends(members)])
        @cached_response(ttl="1m")
        def read(request: Request) -> Any:
            runs.append(1)
            assert request.client
            return JSONResponse(request.client.host)

        visitor, member = TestClient(app, client=("visitor", 1)), TestClient(app, client=("member", 1))
        for _ in range(2):
            answers = [visitor.get("/"), member.get("/")]
            assert [each.json() for each in answers] == ["visitor", "member"]
        assert [each.headers["x-cache"] for each in answers] == ["HIT", "BYPASS"]
        assert len(runs) == 3

    def test_a_cookie_that_a_dependency_sets_keeps_the_response_out(self, runs):
        app = FastAPI()

        def cookie(response: Response) -> None:
            response.set_cookie("sid", str(len(runs)))

        @app.get("/", dependencies=[Depends(cookie)])
        @cached_response(ttl="1m")
        def read() -> int:
            runs.append(1)
            return len(runs)

        answers = [TestClient(app).get("/") for _ in range(2)]
        assert [each.json() for each in answers] == [1, 2]
        assert [each.headers["set-cookie"].partition(";")[0] for each in answers] == ["sid=0", "sid=1"]

    def test_exceptions_reach_dependencies_and_handlers(self, runs):
        app = FastAPI()

        def transaction():
            try:
                yield
            except HTTPException as error:
                runs.append(f"rolled back {error.status_code}")
                raise

        @app.get("/{status}", dependencies=[Depends(transaction)])
        @cached_response(ttl="1m", statuses={404: "30s"})
        def read(status: int) -> None:
            raise HTTPException(status, "why", {"x-why": "w"})

        client = TestClient(app)
        first, second = client.get("/404"), client.get("/404")
        assert runs == ["rolled back 404"]
        assert (first.json(), second.json(), second.headers["x-cache"]) == (
            {"detail": "why"}, {"detail": "why"}, "HIT",
        )  # fmt: skip
        assert second.headers["x-why"] == "w"
        assert [client.get("/410").status_code for _ in range(2)] == [410, 410]
        assert runs == ["rolled back 404", "rolled back 410", "rolled back 410"]


class Gone(Exception):
    """Of the application's own, with a handler."""


class TestHandlers:
    """What the application's handlers make of exceptions is the answer, and they are asked once."""

    def app(self, runs: list[Any], handler: Any = None, **options: Any) -> FastAPI:
        app = FastAPI()

        async def gone(request: Request, error: Exception) -> Response:
            runs.append("handler")
            return JSONResponse({"gone": request.url.path}, 404, {"x-why": "gone"})

        def transaction():
            try:
                yield
            except Gone:
                runs.append("rolled back")
                raise

        app.exception_handler(Gone)(handler or gone)

        @app.get("/page", dependencies=[Depends(transaction)])
        @cached_response(**options)
        async def read() -> str:
            if app.state.gone:
                raise Gone
            return "page"

        app.state.gone = True
        return app

    @pytest.mark.parametrize("statuses", [{}, {404: "30s"}], ids=["not kept", "kept"])
    def test_a_handler_is_run_once_and_its_answer_says_what_the_cache_did(self, runs, statuses):
        client = TestClient(self.app(runs, ttl="1m", statuses=statuses))
        answers = [client.get("/page") for _ in range(2)]
        assert {(each.status_code, each.text, each.headers["x-why"]) for each in answers} == {
            (404, '{"gone":"/page"}', "gone")
        }
        assert [each.headers["x-cache"] for each in answers] == ["MISS", "HIT" if statuses else "MISS"]
        stored = "; stored" if statuses else ""
        assert answers[0].headers["cache-status"] == f"cachekit; fwd=uri-miss{stored}"
        assert runs == ["handler", "rolled back"] * (1 if statuses else 2)

    @pytest.mark.parametrize(("status", "answered"), [(404, 404), (503, 200)])
    def test_a_stale_page_stands_in_by_the_status_of_the_handler(self, runs, clock, status, answered):
        app = self.app(runs, lambda request, error: JSONResponse({}, status), profile="errors")
        client, app.state.gone = TestClient(app), False
        assert client.get("/page").json() == "page"
        app.state.gone = True
        clock.advance(11)
        answer = client.get("/page")
        assert (answer.status_code, answer.headers["x-cache"]) == (answered, "STALE" if answered == 200 else "MISS")

    @pytest.mark.parametrize("response", [
        lambda: JSONResponse({"error": "gone"}), lambda: StreamingResponse(iter(["a", "b"]), 404),
        lambda: PlainTextResponse("gone", 404, background=BackgroundTasks()), lambda: RedirectResponse("/other", 301),
    ])  # fmt: skip
    def test_an_answer_to_an_exception_is_not_kept_unless_it_is_listed(self, runs, response):
        def handler(request: Request, error: Exception) -> Response:
            runs.append("handler")
            return response()

        client = TestClient(self.app(runs, handler, ttl="1m", statuses={410: "30s"}), follow_redirects=False)
        answers = [client.get("/page") for _ in range(2)]
        assert {each.status_code for each in answers} == {response().status_code}
        assert answers[0].content == answers[1].content
        assert runs.count("handler") == 2
        assert "HIT" not in [each.headers["x-cache"] for each in answers]

    def test_a_handler_that_raises_is_the_servers_as_ever(self, runs):
        def handler(request: Request, error: Exception) -> Response:
            raise RuntimeError("broken")

        app = self.app(runs, handler, ttl="1m")
        with pytest.raises(RuntimeError, match="broken"):
            TestClient(app).get("/page")
        assert runs == ["rolled back"]
        assert TestClient(app, raise_server_exceptions=False).get("/page").status_code == 500


class TestUntouched:
    """What cannot be kept goes its way as if we were not there."""

    def test_background_tasks_of_the_function_run_each_time_and_those_of_dependencies_too(self, runs):
        app = FastAPI()

        def note(tasks: BackgroundTasks) -> None:
            tasks.add_task(runs.append, "dependency")

        @app.get("/own")
        @cached_response(ttl="1m")
        def own(tasks: BackgroundTasks) -> str:
            tasks.add_task(runs.append, "own")
            return "page"

        @app.get("/dependency", dependencies=[Depends(note)])
        @cached_response(ttl="1m")
        def dependency() -> str:
            return "page"

        @app.get("/hidden")
        @cached_response(ttl="1m")
        def hidden() -> Response:
            from starlette.background import BackgroundTask

            return PlainTextResponse("page", background=BackgroundTask(runs.append, "hidden"))

        client = TestClient(app)
        for path, last in (("own", "BYPASS"), ("hidden", "BYPASS"), ("dependency", "HIT")):
            assert [client.get(f"/{path}").status_code for _ in range(2)] == [200, 200]
            assert runs == [path] * 2
            assert client.get(f"/{path}").headers["x-cache"] == last
            runs.clear()

    def test_streams_are_passed_on(self, runs):
        app = FastAPI()

        @app.get("/")
        @cached_response(ttl="1m")
        async def read() -> StreamingResponse:
            runs.append(1)
            return StreamingResponse(iter(["a", "b"]))

        assert [TestClient(app).get("/").text for _ in range(2)] == ["ab", "ab"]
        assert len(runs) == 2

    def test_generators_and_classes_are_refused(self):
        def stream():
            yield 1

        async def later():
            yield 1

        for function in (stream, later):
            with pytest.raises(TypeError, match="a stream cannot be cached"):
                cached_response()(function)
        with pytest.raises(TypeError, match="works on functions"):
            cached_response()(Item)
        with pytest.raises(TypeError, match="cached already"):
            cached_response()(cached_response()(raw))

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"ttl": 0}, "ttl = 0: 0 is ambiguous"),
            ({"statuses": {304: "1m"}}, "statuses = 304: not a status"),
            ({"statuses": {404: "soon"}}, r"statuses\[404\] = 'soon': not a duration"),
            ({"vary": "accept"}, "vary = 'accept': not names"),
            ({"client_ttl": -1}, "client_ttl = -1: not a duration"),
        ],
        ids=["ttl", "status", "life", "vary", "client_ttl"],
    )
    def test_options_are_checked_at_once(self, options, problem):
        with pytest.raises(ConfigError, match=problem):
            cached_response(**options)

    async def test_a_direct_call_runs_the_function(self):
        decorated = cached_response()(model)
        assert await decorated(3) == Item(id=3)
        assert await cached_response()(plain_dict)(3) == {"item": 3, "q": "a", "tags": None}
        assert inspect.iscoroutinefunction(decorated)

    @pytest.mark.parametrize("outer", ["plain", "cached", "itself"])
    def test_called_by_an_endpoint_it_gives_what_the_function_returns(self, runs, caplog, outer):
        app = FastAPI()

        @app.get("/articles/{number}")
        @cached_response(ttl="1m")
        async def article(number: int, request: Request) -> dict[str, int]:
            runs.append(number)
            if outer == "itself" and number > 7:
                return await article(number=number - 1, request=request)  # type: ignore[no-any-return]
            return {"number": number}

        async def both(request: Request) -> list[dict[str, int]]:
            return [await article(number=number, request=request) for number in (1, 2)]

        app.get("/both")(cached_response(ttl="1m")(both) if outer == "cached" else both)
        client = TestClient(app)
        assert client.get("/both").json() == [{"number": 1}, {"number": 2}]
        assert caplog.messages[0].endswith(
            "article: not cached, since it is not the endpoint of this request: "
            "cached_response() is for endpoints, and decorators above it must use functools.wraps; for other functions "
            "there is @cache"
        )
        answers = [client.get("/articles/9") for _ in range(2)]
        assert [each.json() for each in answers] == [{"number": 7 if outer == "itself" else 9}] * 2
        assert answers[1].headers["x-cache"] == "HIT"
        assert len(caplog.messages) == 1

    def test_decorators_above_it_may_wrap_it(self):
        def outer(function: Any) -> Any:
            @functools.wraps(function)
            async def around(*args: Any, **kwargs: Any) -> Any:
                return await function(*args, **kwargs)

            return around

        class Page:
            @cached_response(ttl="1m")
            async def method(self, item: int, request: Request) -> int:
                return item

        app, part = FastAPI(), APIRouter()
        app.get("/wrapped/{item}")(outer(outer(cached_response(ttl="1m")(model))))
        part.get("/method/{item}")(Page().method)
        app.get("/partial")(functools.partial(cached_response(ttl="1m")(model), item=1))
        app.include_router(part)
        app.mount("/mounted", Starlette(routes=[Route("/", outer(cached_response(ttl="1m")(lambda _: Response("x"))))]))
        client = TestClient(app)
        for path in ("/wrapped/1", "/method/1", "/mounted/", "/partial"):
            assert [client.get(path).headers["x-cache"] for _ in range(2)] == ["MISS", "HIT"]

    def test_cache_and_cached_response_go_together(self, runs):
        app = FastAPI()

        @app.get("/")
        @cached_response(ttl="1m")
        @cache
        def read() -> int:
            runs.append(1)
            return 3

        assert [TestClient(app).get("/").json() for _ in range(2)] == [3, 3]
        assert runs == [1]


class TestStarlette:
    """Endpoints of Starlette: functions of a request, and methods of endpoint classes."""

    def test_functions_and_methods(self, runs):
        async def home(request: Request) -> Response:
            runs.append("home")
            return PlainTextResponse("home")

        class Page(HTTPEndpoint):
            @cached_response(ttl="1m")
            def get(self, request: Request) -> Response:
                runs.append("page")
                return PlainTextResponse(request.path_params["name"])

        app = Starlette(routes=[Route("/", cached_response(ttl="1m")(home)), Route("/{name}", Page)])
        client = TestClient(app)
        assert [client.get(path).text for path in ("/", "/", "/a", "/b", "/a")] == ["home", "home", "a", "b", "a"]
        assert runs == ["home", "page", "page"]
        head = client.head("/")
        assert (head.headers["x-cache"], head.headers["content-length"], head.content) == ("HIT", "4", b"")

    def test_where_an_application_is_mounted_is_part_of_the_key(self, runs):
        async def path(request: Request) -> Response:
            runs.append(1)
            return PlainTextResponse(request.url.path)

        inner = Starlette(routes=[Route("/x", cached_response(ttl="1m")(path))])
        app = Starlette(routes=[Mount("/a", inner), Mount("/b", inner), Mount("/c", routes=inner.routes)])
        client = TestClient(app)
        for _ in range(2):
            assert [client.get(f"/{mount}/x").text for mount in "abc"] == ["/a/x", "/b/x", "/c/x"]
        assert len(runs) == 3
        assert TestClient(inner, root_path="/a").get("/x").headers["x-cache"] == "HIT"

    def test_an_encoded_slash_is_another_path(self):
        async def path(request: Request) -> Response:
            return PlainTextResponse(request.scope["raw_path"].decode())

        app = Starlette(routes=[Route("/{path:path}", cached_response(ttl="1m")(path))])
        client = TestClient(app)
        assert [client.get(each).text for each in ("/a/b", "/a%2Fb")] == ["/a/b", "/a%2Fb"]


class ByKey(AuthenticationBackend):
    """Users who show a key in a field that no policy knows."""

    async def authenticate(self, conn: Any) -> Any:
        key = conn.headers.get("x-api-key")
        return (AuthCredentials(["authenticated"]), SimpleUser(key)) if key else None


class TestUsers:
    """Whom a middleware has found (`request.user`) is nobody else, whatever it looked at."""

    def app(self, where: str, **options: Any) -> Any:
        async def me(request: Request) -> Response:
            return PlainTextResponse(request.user.display_name)

        endpoint = cached_response(ttl="1m", **options)(me) if where == "endpoint" else me
        app = Starlette(routes=[Route("/", endpoint), Route("/members", requires("authenticated")(endpoint))])
        found = [Middleware(AuthenticationMiddleware, backend=ByKey())]
        if where != "endpoint":
            kept = Middleware(CacheMiddleware, ttl="1m", **options)
            found = [*found, kept] if where == "inside" else [kept, *found]
        for each in reversed(found):
            app.add_middleware(each.cls, **each.kwargs)
        return app

    @pytest.mark.parametrize("path", ["/", "/members"])
    @pytest.mark.parametrize("where", ["endpoint", "inside", "outside"])
    async def test_nobody_is_given_the_page_of_another(self, where, path):
        app = self.app(where)
        for user in ("alice", "bob", "alice"):
            answer = await ask(app, path, ("x-api-key", user))
            assert (answer.body, answer["x-cache"]) == (user, "BYPASS")
            assert answer["cache-status"] == 'cachekit; fwd=bypass; detail="user"'
        answers = [await ask(app, path) for _ in range(2)]
        if path == "/":
            assert [(answer.body, answer["x-cache"]) for answer in answers] == [("", "MISS"), ("", "HIT")]
        else:
            assert [answer.status for answer in answers] == [403, 403]
        if where != "outside":  # where who it is is known before a kept page is given
            assert (await ask(app, path, ("x-api-key", "alice"))).body == "alice"

    @pytest.mark.parametrize("where", ["endpoint", "inside"])
    async def test_whom_per_user_names_has_pages(self, where):
        app = self.app(where, per_user=lambda request: request.user.display_name or None)
        answers = [await ask(app, "/", ("x-api-key", user)) for user in ("alice", "bob", "alice")]
        assert [(answer.body, answer["x-cache"]) for answer in answers] == [
            ("alice", "MISS"), ("bob", "MISS"), ("alice", "HIT"),
        ]  # fmt: skip

    async def test_a_user_who_does_not_say_more_is_somebody(self):
        app = Starlette(routes=[Route("/", cached_response(ttl="1m")(lambda request: Response(request.user)))])
        answers = [await ask(app, "/", user=user) for user in ("alice", "bob")]
        assert [(answer.body, answer["x-cache"]) for answer in answers] == [("alice", "BYPASS"), ("bob", "BYPASS")]
        assert (await ask(app, "/", user=None))["x-cache"] == "MISS"

    async def test_whom_the_endpoint_itself_finds_is_somebody(self):
        async def me(request: Request) -> Response:
            request.scope["user"] = SimpleUser(request.headers["x-api-key"])
            return PlainTextResponse(request.user.display_name)

        app = Starlette(routes=[Route("/", cached_response(ttl="1m")(me))])
        assert [(await ask(app, "/", ("x-api-key", user))).body for user in "ab"] == ["a", "b"]


@pytest.fixture(params=["endpoint", "middleware"])
def echo(request):
    """An application that answers with what it takes the URL of a request for."""

    async def url(request: Request) -> Response:
        return PlainTextResponse(f"{request.url.hostname} {request.scope['raw_path'].decode()}")

    if request.param == "endpoint":
        return Starlette(routes=[Route("/{path:path}", cached_response(ttl="1m")(url))])
    return CacheMiddleware(Starlette(routes=[Route("/{path:path}", url)]), ttl="1m")


class TestUrls:
    """What tells pages apart, by `cached_response` and by `CacheMiddleware`."""

    async def test_who_names_two_hosts_has_nothing_to_do_with_the_cache(self, echo):
        for hosts in (("evil.test", "shop.test"), ("shop.test", "evil.test")):
            answer = await ask(echo, "/", *[("host", host) for host in hosts])
            assert (answer.body, answer["x-cache"]) == (f"{hosts[0]} /", "BYPASS")
            assert answer["cache-status"] == 'cachekit; fwd=bypass; detail="host"'
        answers = [await ask(echo, "/", ("host", host)) for host in ("shop.test", "evil.test")]
        assert [(answer.body, answer["x-cache"]) for answer in answers] == [
            ("shop.test /", "MISS"), ("evil.test /", "MISS"),
        ]  # fmt: skip
        answer = await ask(echo, "/", ("host", "evil.test"), ("host", "shop.test"))  # with both pages kept
        assert (answer.body, answer["x-cache"]) == ("evil.test /", "BYPASS")

    @pytest.mark.parametrize("paths", [
        ("/a%252Fb", "/a%2Fb", "/a%25252Fb", "/a/b"), ("/a%252fb", "/a%2fb"), ("/x%252F%2F", "/x%2F%2F", "/x%2F%252F"),
        ("/a%FF", "/a%FE"),
    ])  # fmt: skip
    async def test_paths_that_differ_are_pages_that_differ(self, echo, paths):
        for _ in range(2):
            answers = [await ask(echo, path) for path in paths]
            assert [answer.body for answer in answers] == [f"shop.test {path}" for path in paths]
        assert {answer["x-cache"] for answer in answers} == {"HIT"}
        for path in paths:
            await ainvalidate_url(f"http://shop.test{path}")
            assert (await ask(echo, path))["x-cache"] == "MISS"


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncIterator[Any]:
    """An application behind uvicorn: how to get the lines that it answers with."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]

    async def lines(path: str, *fields: str) -> list[str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        asked = [f"GET {path} HTTP/1.1", "Host: shop.test", "Connection: close", *fields, "", ""]
        writer.write("\r\n".join(asked).encode())
        answer = (await reader.read()).decode()
        writer.close()
        return answer.partition("\r\n\r\n")[0].lower().split("\r\n")

    try:
        yield lines
    finally:
        server.should_exit = True
        await serving


class TestServers:
    """What goes over the wire, with what a server adds."""

    @pytest.mark.parametrize("door", ["endpoint", "middleware"])
    async def test_an_answer_has_each_field_once(self, door):
        app = FastAPI()
        keep = cached_response(ttl="1m", statuses={404: "1m"}) if door == "endpoint" else lambda function: function

        @app.get("/page")
        @keep
        async def page() -> int:
            return 1

        @app.get("/missing")
        @keep
        async def missing() -> int:
            raise HTTPException(404)

        if door == "middleware":
            app.add_middleware(CacheMiddleware, ttl="1m", statuses={404: "1m"})
        async with served(app) as lines:
            answers = [await lines(path) for path in ("/page", "/page", "/missing", "/missing")]
            answers.append(await lines("/page", "If-None-Match: *"))
            answers += [await lines(path, "Cache-Control: only-if-cached") for path in ("/page", "/page?new")]
        assert [answer[0].split()[1] for answer in answers] == ["200", "200", "404", "404", "304", "200", "504"]
        for answer in answers:
            names = [line.partition(":")[0] for line in answer[1:]]
            assert sorted(names) == sorted({*names})
            assert {"date", "x-cache"} <= {*names}

    async def test_a_date_that_the_endpoint_writes_is_its_own(self):
        date = "Fri, 15 Jan 2027 08:00:00 GMT"
        app = Starlette(routes=[Route("/", cached_response(ttl="1m")(lambda _: Response(headers={"date": date})))])
        answers = [await ask(each, "/") for each in (app, app)]
        assert [(answer["date"], answer["x-cache"]) for answer in answers] == [(date, "MISS"), (date, "HIT")]


class TestOrder:
    """`cached_response` above the route has no effect; it is told when the application starts."""

    def wrong(self, app: Any) -> None:
        @cached_response(ttl="1m")
        @app.get("/wrong")
        def wrong() -> str:
            return "never kept"

    def test_at_the_start(self):
        app = FastAPI()
        CacheKit(app)
        self.wrong(app)
        with (
            pytest.raises(ConfigError, match=r"wrong: @cached_response stands above"),
            TestClient(app),
        ):
            pass

    def test_at_the_first_request_without_one(self):
        app = FastAPI()
        CacheKit(app)
        self.wrong(app)
        with pytest.raises(ConfigError, match="stands above"):
            TestClient(app).get("/other")

    @pytest.mark.parametrize("how", ["include_router", "mount"])
    def test_in_what_belongs_to_the_application(self, how):
        app, part = FastAPI(), APIRouter() if how == "include_router" else FastAPI()
        CacheKit(app)
        self.wrong(part)
        app.include_router(part, prefix="/in") if isinstance(part, APIRouter) else app.mount("/in", part)
        with pytest.raises(ConfigError, match="stands above"), TestClient(app):
            pass

    def test_a_function_that_is_an_endpoint_both_ways_is_right(self):
        app = FastAPI()
        CacheKit(app)
        app.get("/plain/{item}")(model)
        app.get("/kept/{item}")(cached_response()(model))
        with TestClient(app) as client:
            assert client.get("/kept/1").json() == client.get("/plain/1").json()

    def test_a_profile_that_does_not_exist_is_told_there_too(self):
        app = FastAPI()
        CacheKit(app)
        app.get("/{item}")(cached_response(profile="stael")(model))
        with pytest.raises(ConfigError, match="did you mean 'stale'"), TestClient(app):
            pass


class TestServices:
    def test_an_application_with_a_service_of_its_own_keeps_pages_there(self, runs):
        def read() -> int:
            runs.append(1)
            return len(runs)

        decorated = cached_response(profile="mine")(read)
        apps = [FastAPI(), FastAPI()]
        for app in apps:
            CacheKit(app, config={"profiles": {"default": {"backend": "none"}, "mine": {"ttl": "5m"}}})
            app.get("/")(decorated)
        answers = [TestClient(app).get("/") for app in (*apps, *apps)]
        assert [each.json() for each in answers] == [1, 2, 1, 2]
        assert answers[3].headers["cache-status"] == "cachekit; hit; ttl=299"
        assert decorated.invalidate() is Outcome.DONE
        assert [TestClient(app).get("/").json() for app in apps] == [3, 4]

    def test_the_ttl_is_that_of_the_profile_unless_given(self, clock, runs):
        app = FastAPI()

        @app.get("/")
        @cached_response(profile="errors")
        def read() -> int:
            runs.append(1)
            return 1

        client = TestClient(app)
        client.get("/")
        clock.advance(9.5)
        assert client.get("/").headers["x-cache"] == "HIT"
        clock.advance(1)
        assert client.get("/").headers["x-cache"] == "MISS"

    def test_metrics_tell_hits_from_misses_by_route_and_are_not_in_openapi(self):
        app = FastAPI()
        CacheKit(app)
        app.get("/{item}")(cached_response(ttl="1m")(model))
        with TestClient(app) as client:
            for item in (1, 2, 1):
                client.get(f"/{item}")
            client.get("/1", headers={"authorization": "x"})
            text = client.get("/metrics").text
            assert "/metrics" not in client.get("/openapi.json").json()["paths"]
        route = f"{model.__module__}.model"
        for result, count in {"HIT": 1, "MISS": 2, "BYPASS": 1}.items():
            line = f'cachekit_http_responses_total{{region="default",result="{result}",route="{route}"}} {count}.0'
            assert line in text

    def test_who_uses_no_lifespan_and_no_cachekit_is_served(self, runs):
        app = FastAPI()
        app.get("/{item}")(cached_response(ttl="1m")(model))
        assert [TestClient(app).get("/1").headers["x-cache"] for _ in range(2)] == ["MISS", "HIT"]


@dataclass
class Database:
    """Something that ends with the request."""

    open: bool = True


class TestBehind:
    """What is computed when the caller has its answer, and what becomes of callers who wait."""

    def app(self, runs: list[Any], profile: str, clock: FrozenClock, **options: Any) -> FastAPI:
        app = FastAPI()

        async def database():
            session = Database()
            yield session
            session.open = False

        @app.get("/page")
        @cached_response(profile=profile, **options)
        async def read(session: Annotated[Database, Depends(database)], request: Request) -> int:
            assert session.open
            await asyncio.sleep(0)
            assert session.open
            clock.advance(0.5)  # what takes no time is not worth a refresh before it is due
            runs.append(getattr(request.state, "who", None))
            return len(runs)

        return app

    async def settle(self, service: Service) -> None:
        await service.async_port.wait_for_tasks(5)

    @pytest.mark.parametrize("profile", ["stale", "early"])
    async def test_a_refresh_runs_through_the_application_again(self, service, clock, runs, profile):
        app = self.app(runs, profile, clock)
        CacheKit(app)

        @app.middleware("http")
        async def who(request: Request, call_next: Any) -> Any:
            request.state.who = "middleware"
            response = await call_next(request)
            response.headers["x-middleware"] = "outside"
            return response

        async with client_of(app) as client:
            assert (await client.get("/page")).json() == 1
            clock.advance(9 if profile == "early" else 11)
            answer = await client.get("/page")
            assert (answer.json(), answer.headers["x-cache"]) == (1, "HIT" if profile == "early" else "STALE")
            await self.settle(service)
            again = await client.get("/page")
        assert again.json() == 2
        assert again.headers.get_list("x-middleware") == ["outside"]
        assert runs == ["middleware", "middleware"]

    async def test_without_cachekit_nothing_is_computed_behind_callers(self, service, clock, runs):
        app = self.app(runs, "stale", clock)
        async with client_of(app) as client:
            await client.get("/page")
            clock.advance(11)
            answer = await client.get("/page")
            assert (answer.json(), answer.headers["x-cache"]) == (2, "MISS")

    async def test_a_refresh_of_another_user_is_not_taken(self, service, clock, runs):
        users = iter(["alice", "alice", "bob", "alice"])
        app = self.app(runs, "stale", clock, per_user=lambda request: next(users))
        CacheKit(app)
        async with client_of(app) as client:
            assert (await client.get("/page")).json() == 1
            clock.advance(11)
            assert (await client.get("/page")).json() == 1  # the refresh behind it finds that it is bob
            await self.settle(service)
            assert runs == [None]
            assert (await client.get("/page")).json() == 2  # alice makes hers

    async def test_conditions_of_the_client_are_not_those_of_a_refresh(self, service, clock, runs):
        app = self.app(runs, "stale", clock)
        CacheKit(app)
        async with client_of(app) as client:
            tag = (await client.get("/page")).headers["etag"]
            clock.advance(11)
            assert (await client.get("/page", headers={"if-none-match": tag})).status_code == 304
            await self.settle(service)
            assert (await client.get("/page", headers={"if-none-match": tag})).json() == 2

    async def test_a_stale_page_stands_in_for_an_error_and_not_for_an_answer(self, service, clock):
        app, outcomes = FastAPI(), iter([1, HTTPException(503), RuntimeError("down"), HTTPException(404)])

        @app.get("/page")
        @cached_response(profile="errors")
        async def read() -> int:
            outcome = next(outcomes)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        async with client_of(app) as client:
            assert (await client.get("/page")).json() == 1
            for _ in range(2):
                clock.advance("10m")
                answer = await client.get("/page")
                assert (answer.json(), answer.headers["x-cache"]) == (1, "STALE")
            clock.advance("10m")
            assert (await client.get("/page")).status_code == 404

    async def test_many_callers_of_a_cold_page_run_the_function_once(self, runs):
        app, gate = FastAPI(), asyncio.Event()

        @app.get("/page")
        @cached_response(ttl="1m")
        async def read() -> int:
            runs.append(1)
            await gate.wait()
            return 1

        async with client_of(app) as client:
            asked = [asyncio.create_task(client.get("/page")) for _ in range(50)]
            await asyncio.sleep(0.1)
            gate.set()
            answers = await asyncio.gather(*asked)
        assert runs == [1]
        assert {answer.json() for answer in answers} == {1}
        assert sorted(answer.headers["x-cache"] for answer in answers) == ["HIT"] * 49 + ["MISS"]

    @pytest.mark.parametrize("handled", [False, True], ids=["HTTPException", "an exception with a handler"])
    async def test_who_waited_for_a_failure_is_given_all_of_its_answer(self, runs, handled):
        app, gate = FastAPI(), asyncio.Event()

        @app.exception_handler(KeyError)
        async def away(request: Request, error: Exception) -> Response:
            runs.append("handler")
            return JSONResponse({"detail": "maintenance"}, 503, {"retry-after": "120"})

        @app.get("/page")
        @cached_response(ttl="1m")
        async def read() -> None:
            runs.append("run")
            await gate.wait()
            raise KeyError if handled else HTTPException(503, "maintenance", {"retry-after": "120"})

        async with client_of(app) as client:
            asked = [asyncio.create_task(client.get("/page")) for _ in range(20)]
            await asyncio.sleep(0.1)
            gate.set()
            answers = await asyncio.gather(*asked)
            assert {(each.status_code, each.text, each.headers["retry-after"]) for each in answers} == {
                (503, '{"detail":"maintenance"}', "120")
            }
            assert {each.headers["x-cache"] for each in answers} == {"MISS"}
            assert runs == ["run", "handler"][: 1 + handled]
            assert (await client.get("/page")).status_code == 503
        assert runs.count("run") == 2  # it is for nobody after

    async def test_a_cancelled_request_does_not_take_its_dependencies_away_from_who_waits(self, runs):
        app, gate = FastAPI(), asyncio.Event()

        async def database():
            session = Database()
            try:
                yield session
            finally:
                session.open = False

        @app.get("/page")
        @cached_response(ttl="1m")
        async def read(session: Annotated[Database, Depends(database)]) -> bool:
            runs.append(session)
            await gate.wait()
            return session.open

        async with client_of(app) as client:
            first = asyncio.create_task(client.get("/page"))
            await asyncio.sleep(0.05)
            second = asyncio.create_task(client.get("/page"))
            await asyncio.sleep(0.05)
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await first
            await asyncio.sleep(0.05)
            gate.set()
            assert (await second).json() is True
        assert len(runs) == 2
        assert runs[0] is not runs[1]


class TestInvalidation:
    """By endpoint, by URL, by tag, and by requests that change something."""

    @pytest.fixture
    def app(self, runs):
        app = FastAPI()
        CacheKit(app)

        @app.get("/items/{item}")
        @cached_response(ttl="1m", tags=lambda request: [f"item:{request.path_params['item']}", "items"])
        async def read(item: int, q: str = "") -> int:
            runs.append(item)
            return len(runs)

        @app.post("/items/{item}")
        @app.delete("/items/{item}")
        async def write(item: int, fails: bool = False) -> None:
            if fails:
                raise HTTPException(409)

        @app.post("/create")
        async def create(response: Response) -> None:
            response.headers["location"] = "/items/2"

        @app.post("/rename")
        @cache.invalidates(tags=lambda item: [f"item:{item}"])
        def rename(item: int) -> None:
            pass

        @app.post("/forget")
        async def forget(request: Request, url: str) -> str:
            return (await ainvalidate_url(url, request)).name

        app.state.read = read
        return app

    def pages(self, client: Any) -> list[int]:
        return [client.get(path).json() for path in ("/items/1", "/items/1?q=x", "/items/2")]

    @pytest.mark.parametrize(
        ("change", "gone"),
        [
            (lambda client: client.post("/items/1"), [True, True, False]),
            (lambda client: client.delete("/items/1?q=y"), [True, True, False]),
            (lambda client: client.post("/items/1?fails=1"), [False, False, False]),
            (lambda client: client.get("/items/1"), [False, False, False]),
            (lambda client: client.post("/create"), [False, False, True]),
            (lambda client: client.post("/rename?item=1"), [True, True, False]),
            (lambda client: client.post("/forget?url=/items/1"), [True, True, False]),
            (lambda client: client.post("/forget?url=/items/1%3Fq=x"), [False, True, False]),
            (lambda client: invalidate_url("http://testserver/items/2"), [False, False, True]),
            (lambda client: invalidate_url("http://other/items/2"), [False, False, False]),
            (lambda client: client.app.state.read.invalidate(), [True, True, True]),
        ],
        ids=[
            "post", "delete", "failed", "get", "location", "tag", "path", "query", "url", "host", "endpoint",
        ],
    )  # fmt: skip
    def test_what_is_outdated_is_computed_anew_and_nothing_else(self, app, change, gone):
        client = TestClient(app)
        before = self.pages(client)
        assert before == self.pages(client) == [1, 2, 3]
        change(client)
        assert [new != old for new, old in zip(self.pages(client), before, strict=True)] == gone

    async def test_the_awaited_way(self, app, runs):
        async with client_of(app) as client:
            await client.get("/items/1")
            assert await app.state.read.ainvalidate() is Outcome.DONE
            assert await ainvalidate_url("http://shop.test/items/1") is Outcome.DONE
            assert (await client.get("/items/1")).json() == 2

    @pytest.mark.parametrize("door", ["endpoint", "middleware", "failing"])
    async def test_what_a_dependency_commits_after_the_answer_outdates_pages_too(self, door):
        app, stored = FastAPI(), ["old"]
        answered, gate = asyncio.Event(), asyncio.Event()

        async def session():
            changes: list[str] = []
            yield changes
            answered.set()
            await gate.wait()
            stored[:] = changes
            assert door != "failing"

        async def read() -> str:
            return stored[0]

        app.get("/item")(read if door == "middleware" else cached_response(ttl="1h")(read))

        @app.put("/item")
        async def write(changes: Annotated[list[str], Depends(session)]) -> None:
            changes.append("new")

        if door == "middleware":
            app.add_middleware(CacheMiddleware, ttl="1h")
        else:
            CacheKit(app)
        async with client_of(app) as client:
            assert (await client.get("/item")).json() == "old"
            writing = asyncio.create_task(client.put("/item"))
            await asyncio.wait_for(answered.wait(), 10)
            between = await client.get("/item")
            assert (between.json(), between.headers["x-cache"]) == ("old", "MISS")
            gate.set()
            assert (await writing).status_code == 200
            assert (await client.get("/item")).json() == "new"

    def test_a_path_without_a_host_is_refused(self):
        with pytest.raises(ValueError, match="has no host"):
            invalidate_url("/items/1")


def test_inside_of_the_middleware_the_endpoint_decides(runs):
    app = FastAPI()
    app.add_middleware(CacheMiddleware, ttl="1h")

    @app.get("/")
    @cached_response(ttl="10s", client_ttl="5s")
    def read() -> int:
        runs.append(1)
        return 1

    @app.get("/mine")
    @cached_response(ttl="10s", per_user=lambda request: request.headers["authorization"])
    def mine() -> int:
        return 1

    client = TestClient(app)
    answers = [client.get("/") for _ in range(3)]
    assert [answer.headers["x-cache"] for answer in answers] == ["MISS", "HIT", "HIT"]
    results = [client.get("/mine", headers={"authorization": "me"}).headers["x-cache"] for _ in range(2)]
    assert results == ["MISS", "HIT"]  # around the middleware, and not around the endpoint
    assert answers[2].headers["cache-status"] == "cachekit; hit; ttl=10"
    assert runs == [1]
