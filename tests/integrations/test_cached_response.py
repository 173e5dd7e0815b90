"""`cached_response`: FastAPI does what it does without it, and the function runs once."""

import asyncio
import contextlib
import inspect
import textwrap
from dataclasses import dataclass
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import APIRouter, BackgroundTasks, Cookie, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.testclient import TestClient
from pydantic import BaseModel, field_validator
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
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
