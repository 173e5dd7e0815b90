"""`CacheMiddleware`: pages by rules, and everything else passed on as it comes."""

import asyncio
from typing import Any

import httpx2
import jinja2
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.templating import Jinja2Templates

from cachekit import ConfigError
from cachekit.config.settings import load
from cachekit.integrations.starlette import CacheKit, CacheMiddleware, invalidate_url
from cachekit.process import replace_default
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock

PROFILES = {
    "default": {"backend": "none", "early_refresh": "off"},
    "small": {"max_value_bytes": 1000},
    "stale": {"stale_ttl": "1h", "swr": True},
    "errors": {"stale_ttl": "1h"},
    "impatient": {"stale_ttl": "1h", "soft_timeout": "20ms"},
    "hurried": {"hard_timeout": "100ms"},
}
RULES = [
    {"path": "/account/**", "cache": False},
    {"path": "/articles/*", "name": "articles", "ttl": "1m", "statuses": {404: "30s"}, "client_ttl": "20s"},
    {"path": "/mine/*", "ttl": "1m", "per_user": True},
    {"path": "/translated", "ttl": "1m", "vary": ["Accept-Language"]},
]


@pytest.fixture
def clock():
    return FrozenClock()


@pytest.fixture(autouse=True)
def service(clock):
    service = Service(load([], settings={"profiles": PROFILES, "http": {"rules": RULES}}, environ={}), clock=clock)
    before = replace_default(service)
    yield service
    replace_default(before)
    service.close()


@pytest.fixture
def runs():
    return []


def client_of(app: Any) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://shop.test")


def numbered(runs: list[Any], **options: Any) -> Any:
    """An endpoint whose every run is another page."""

    async def page(request: Request) -> Response:
        runs.append(request.url.path)
        return PlainTextResponse(str(len(runs)), **options)

    return page


def app_of(*routes: Any, **options: Any) -> Starlette:
    options.setdefault("per_user", lambda request: None)  # which one of the rules needs
    return Starlette(routes=list(routes), middleware=[Middleware(CacheMiddleware, **options)])


class TestRules:
    """Which responses are kept, and how."""

    def test_without_a_ttl_only_what_says_how_long_it_lives(self, runs):
        client = TestClient(
            app_of(
                Route("/silent", numbered(runs)),
                Route("/says", numbered(runs, headers={"cache-control": "max-age=60"})),
                Route("/no", numbered(runs, headers={"cache-control": "no-store"})),
            )
        )
        results = [[client.get(path).headers["x-cache"] for _ in range(2)] for path in ("/silent", "/says", "/no")]
        assert results == [["MISS", "MISS"], ["MISS", "HIT"], ["MISS", "MISS"]]

    def test_the_first_rule_that_matches_counts(self, runs):
        paths = ("/account/a/b", "/articles/1", "/articles/1/2", "/articles/none")
        gone = Route("/articles/none", numbered(runs, status_code=404))
        client = TestClient(app_of(gone, *[Route(path, numbered(runs)) for path in paths]))
        answers = {path: [client.get(path) for _ in range(2)][1] for path in paths}
        assert [answers[path].headers.get("x-cache") for path in paths] == [None, "HIT", "MISS", "HIT"]
        assert answers["/articles/1"].headers["cache-control"] == "max-age=20"
        assert answers["/articles/none"].status_code == 404

    def test_vary_of_a_rule(self, runs):
        client = TestClient(app_of(Route("/translated", numbered(runs))))
        asked = ["de", "fr", "de"]
        assert [client.get("/translated", headers={"accept-language": each}).text for each in asked] == ["1", "2", "1"]

    def test_per_user_is_for_rules_that_say_so(self, runs):
        routes = [Route(path, numbered(runs)) for path in ("/mine/x", "/articles/1")]
        client = TestClient(app_of(*routes, per_user=lambda request: request.headers.get("authorization")))
        users = [{"authorization": user} for user in ("a", "b", "a")]
        assert [client.get("/mine/x", headers=user).text for user in users] == ["1", "2", "1"]
        assert [client.get("/articles/1", headers=user).headers["x-cache"] for user in users] == ["BYPASS"] * 3

    def test_per_user_without_a_function_is_told(self, runs):
        with pytest.raises(ConfigError, match="per_user = true needs CacheMiddleware"):
            TestClient(app_of(Route("/", numbered(runs)), per_user=None)).get("/")

    def test_the_metrics_name_rules(self, runs):
        app = app_of(*[Route(path, numbered(runs)) for path in ("/articles/1", "/x")])
        CacheKit(app)
        client = TestClient(app)
        for path in ("/articles/1", "/articles/1", "/x"):
            client.get(path)
        text = client.get("/metrics").text
        for result, route in (("HIT", "http.articles"), ("MISS", "http.articles"), ("MISS", "http.default")):
            assert f'cachekit_http_responses_total{{region="default",result="{result}",route="{route}"}} 1.0' in text

    def test_a_router_of_its_own_and_mounted_applications(self, runs):
        part = app_of(Route("/articles/1", numbered(runs)))
        routes = [Route("/articles/1", numbered(runs))]
        client = TestClient(Starlette(routes=[Mount("/a", part), Mount("/b", part), *routes]))
        paths = ["/a/articles/1", "/b/articles/1", "/a/articles/1", "/articles/1", "/articles/1"]
        assert [client.get(path).text for path in paths] == ["1", "2", "1", "3", "4"]

    def test_around_a_whole_application(self, runs):
        app = CacheMiddleware(FastAPI(routes=[Route("/", numbered(runs))]), ttl="1m", per_user=lambda request: None)
        with TestClient(app) as client:  # the lifespan goes through
            assert [client.get("/").text for _ in range(2)] == ["1", "1"]


class TestPassedOn:
    """Streams, web sockets, ranges, what is too large: as if nobody were there."""

    def kept(self, app: Any, path: str = "/", **options: Any) -> list[str | None]:
        with TestClient(app) as client:
            answers = [client.get(path, **options) for _ in range(2)]
        assert {answer.status_code for answer in answers} <= {200, 206}
        assert answers[0].content == answers[1].content
        return [answer.headers.get("x-cache") for answer in answers]

    @pytest.fixture
    def options(self):
        return {"ttl": "1m", "per_user": lambda request: None}

    def test_what_is_too_large_is_not_held_back(self, options):
        def page(size: int, *, stream: bool) -> Any:
            async def endpoint(request: Request) -> Response:
                body = b"x" * size
                if not stream:
                    return Response(body)
                chunks = (body[n : n + 100] for n in range(0, size, 100))
                return StreamingResponse(chunks, headers={"content-length": str(size)})

            return Route(f"/{size}{stream}", endpoint)

        for stream in (False, True):
            assert self.kept(app_of(page(900, stream=stream), profile="small", **options), f"/900{stream}") == [
                "MISS",
                "HIT",
            ]
            assert self.kept(app_of(page(1100, stream=stream), profile="small", **options), f"/1100{stream}") == [
                "BYPASS",
                "BYPASS",
            ]

    async def test_a_stream_comes_as_it_is_made(self, options):
        sent, seen = asyncio.Event(), []

        async def stream():
            yield b"first"
            await sent.wait()
            yield b"last"

        async def endpoint(request: Request) -> Response:
            return StreamingResponse(stream())

        app = app_of(Route("/", endpoint), **options)
        scope = {
            "type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"a")], "query_string": b"",
            "scheme": "http",
        }  # fmt: skip

        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            seen.append(message)
            if message.get("body") == b"first":
                sent.set()  # only now may the last part be made

        await asyncio.wait_for(app(scope, receive, send), 5)
        assert [message.get("body") for message in seen] == [None, b"first", b"last", b""]

    def test_server_sent_events(self, options):
        async def endpoint(request: Request) -> Response:
            return Response("data: 1\n\n", media_type="text/event-stream")

        assert self.kept(app_of(Route("/", endpoint), **options)) == ["BYPASS", "BYPASS"]

    def test_ranges(self, options, tmp_path):
        file = tmp_path / "file.txt"
        file.write_text("0123456789")

        async def endpoint(request: Request) -> Response:
            return FileResponse(file)

        app = app_of(Route("/", endpoint), **options)
        assert self.kept(app, headers={"range": "bytes=2-4"}) == ["BYPASS", "BYPASS"]
        assert self.kept(app) == ["MISS", "HIT"]
        with TestClient(app) as client:
            assert client.get("/", headers={"range": "bytes=2-4"}).text == "234"

    @pytest.mark.parametrize("between", [False, True], ids=["alone", "behind another middleware"])
    @pytest.mark.parametrize("kind", ["sync", "async", "fastapi"])
    def test_background_tasks_run_when_the_application_does(self, options, runs, kind, between):
        async def at_once() -> None:
            runs.append("task")

        async def endpoint(request: Request) -> Response:
            return JSONResponse(1, background=BackgroundTask(at_once))

        async def note(request: Request) -> Response:
            return JSONResponse(1, background=BackgroundTask(runs.append, "task"))

        def in_fastapi(tasks: BackgroundTasks) -> int:
            tasks.add_task(runs.append, "task")
            return 1

        app = FastAPI()
        if kind == "fastapi":
            app.get("/")(in_fastapi)
        else:
            app.router.routes.append(Route("/", endpoint if kind == "async" else note))
        if between:

            @app.middleware("http")
            async def other(request: Request, call_next: Any) -> Any:
                return await call_next(request)

        app.add_middleware(CacheMiddleware, **options)
        assert self.kept(app) == ["MISS", "HIT"]
        assert runs == ["task"]

    @pytest.mark.parametrize("between", [False, True], ids=["alone", "behind another middleware"])
    def test_what_ends_a_dependency_is_no_background_task(self, options, runs, between):
        app = FastAPI()

        async def database():
            yield
            await asyncio.sleep(0.02)
            runs.append("closed")

        @app.get("/", dependencies=[Depends(database)])
        def page() -> int:
            return 1

        if between:

            @app.middleware("http")
            async def other(request: Request, call_next: Any) -> Any:
                return await call_next(request)

        app.add_middleware(CacheMiddleware, **options)
        assert self.kept(app) == ["MISS", "HIT"]
        assert runs == ["closed"]

    def test_neither_the_client_nor_the_cache_waits_for_a_background_task(self, options):
        async def run() -> list[str]:
            order, gate = [], asyncio.Event()

            async def task() -> None:
                await gate.wait()
                order.append("task")

            async def endpoint(request: Request) -> Response:
                return PlainTextResponse("page", background=BackgroundTask(task))

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    order.append(dict(message["headers"])[b"x-cache"].decode())

            async def receive() -> Any:
                return {"type": "http.request", "body": b""}

            scope = {
                "type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"a")], "query_string": b"",
                "scheme": "http",
            }  # fmt: skip
            app = app_of(Route("/", endpoint), **options)
            first = asyncio.create_task(app({**scope}, receive, send))
            while not order:
                await asyncio.sleep(0)
            await app({**scope}, receive, send)
            assert not first.done()  # its request lasts as long as its task
            gate.set()
            await first
            return order

        assert asyncio.run(asyncio.wait_for(run(), 5)) == ["MISS", "HIT", "task"]

    @pytest.mark.parametrize("ttl", ["1m", None], ids=["kept", "not kept"])
    def test_what_a_background_task_raises_is_the_servers_as_ever(self, options, ttl):
        def fail() -> None:
            raise RuntimeError("broken")

        async def endpoint(request: Request) -> Response:
            return PlainTextResponse("page", background=BackgroundTask(fail))

        app = app_of(Route("/", endpoint), **{**options, "ttl": ttl})
        with pytest.raises(RuntimeError, match="broken"):
            TestClient(app).get("/")
        if ttl is not None:
            assert TestClient(app).get("/").headers["x-cache"] == "HIT"

    def test_what_is_sent_beside_a_response_does_not_keep_it_out(self, options):
        """A template tells Starlette's test client what it is made of, before the response begins."""
        templates = Jinja2Templates(env=jinja2.Environment(loader=jinja2.DictLoader({"page": "Hello {{ name }}"})))

        async def endpoint(request: Request) -> Response:
            return templates.TemplateResponse(request, "page", {"name": "you"})

        with TestClient(app_of(Route("/", endpoint), **options)) as client:
            answers = [client.get("/") for _ in range(2)]
        assert [(each.text, each.headers["x-cache"]) for each in answers] == [
            ("Hello you", "MISS"), ("Hello you", "HIT"),
        ]  # fmt: skip
        assert answers[0].template.name == "page"  # type: ignore[attr-defined]

    def test_web_sockets(self, options):
        async def endpoint(websocket: Any) -> None:
            await websocket.accept()
            await websocket.send_text("hello")
            await websocket.close()

        with (
            TestClient(app_of(WebSocketRoute("/", endpoint), **options)) as client,
            client.websocket_connect("/") as socket,
        ):
            assert socket.receive_text() == "hello"

    def test_bodies_of_writes(self, options):
        async def echo(request: Request) -> Response:
            return PlainTextResponse(await request.body())

        with TestClient(app_of(Route("/", echo, methods=["POST"]), **options)) as client:
            answer = client.post("/", content=b"x" * 100_000)
        assert (len(answer.content), answer.headers["x-cache"]) == (100_000, "BYPASS")


class TestConditions:
    def test_the_application_is_asked_without_them_and_the_client_gets_its_304(self, runs):
        async def page(request: Request) -> Response:
            runs.append("if-none-match" in request.headers)
            return PlainTextResponse("page", headers={"etag": '"own"'})

        app = app_of(Route("/kept", page), Route("/not", page), per_user=lambda request: None, ttl=None)
        client = TestClient(app)
        answer = client.get("/not", headers={"if-none-match": '"own"'})
        assert (answer.status_code, answer.headers["etag"], runs) == (304, '"own"', [False])
        assert client.get("/not", headers={"if-none-match": '"other"'}).status_code == 200

    def test_an_unsafe_method_that_succeeds_outdates_its_url(self, runs):
        async def write(request: Request) -> Response:
            return Response(status_code=int(request.query_params.get("status", "204")))

        app = app_of(
            Route("/x", numbered(runs), methods=["GET"]), Route("/x", write, methods=["PUT"]), ttl="1m"
        )  # fmt: skip
        client = TestClient(app)
        texts = [client.get("/x").text]
        for status in (500, 404, 204):
            client.put(f"/x?status={status}")
            texts.append(client.get("/x").text)
        invalidate_url("http://testserver/x")
        assert [*texts, client.get("/x").text] == ["1", "1", "1", "2", "3"]


class TestFailures:
    """Exceptions, slow applications, clients that go away."""

    def test_an_exception_is_the_servers_as_ever(self, runs):
        async def fail(request: Request) -> Response:
            raise RuntimeError("broken")

        for app in (
            app_of(Route("/", fail), ttl="1m"),
            CacheMiddleware(Starlette(routes=[Route("/", fail)]), ttl="1m", per_user=lambda request: None),
        ):
            with pytest.raises(RuntimeError, match="broken"):
                TestClient(app).get("/")
            assert TestClient(app, raise_server_exceptions=False).get("/").text == "Internal Server Error"

    async def test_a_stale_page_stands_in_for_an_error(self, clock, runs):
        async def page(request: Request) -> Response:
            runs.append(1)
            if len(runs) == 2:
                raise RuntimeError("broken")
            return PlainTextResponse("page", 200 if len(runs) == 1 else 503)

        app = app_of(Route("/", page), profile="errors", ttl="10s")
        async with client_of(app) as client:
            await client.get("/")
            for _ in range(2):
                clock.advance("10m")
                answer = await client.get("/")
                assert (answer.status_code, answer.headers["x-cache"]) == (200, "STALE")
        assert len(runs) == 3

    @pytest.mark.parametrize("language", ["de", "en"])
    @pytest.mark.parametrize("how", ["fails", "late"])
    async def test_a_request_runs_its_application_once(self, service, clock, runs, how, language):
        """Though a page that varies is looked for in two places: the body of a request can be read once."""
        gate = asyncio.Event()
        gate.set()

        async def page(request: Request) -> Response:
            await request.body()
            runs.append(1)
            await gate.wait()
            fields = {"vary": "accept-language"}
            return PlainTextResponse(str(len(runs)), 200 if len(runs) < 3 or how == "late" else 503, fields)

        app = app_of(Route("/", page), profile="errors" if how == "fails" else "impatient", ttl="10s")
        async with client_of(app) as client:
            for number, first in enumerate(("de", "en"), 1):
                assert (await client.get("/", headers={"accept-language": first})).text == str(number)
            clock.advance("10m")
            if how == "late":
                gate.clear()
            answer = await asyncio.wait_for(client.get("/", headers={"accept-language": language}), 10)
            kept = "1" if language == "de" else "2"
            assert (answer.status_code, answer.text, answer.headers["x-cache"]) == (200, kept, "STALE")
            gate.set()
            await service.async_port.wait_for_tasks(5)
            assert len(runs) == 3
            if how == "late":
                answer = await client.get("/", headers={"accept-language": language})
                assert (answer.text, answer.headers["x-cache"]) == ("3", "HIT")
        assert len(runs) == 3

    async def test_a_late_page_of_no_kept_variant_is_waited_for(self, service, clock, runs):
        gate = asyncio.Event()

        async def page(request: Request) -> Response:
            await request.body()
            runs.append(1)
            if len(runs) > 1:
                await gate.wait()
            return PlainTextResponse(str(len(runs)), 200, {"vary": "accept-language"})

        app = app_of(Route("/", page), profile="impatient", ttl="10s")
        async with client_of(app) as client:
            await client.get("/", headers={"accept-language": "de"})
            clock.advance("10m")
            asked = asyncio.create_task(client.get("/", headers={"accept-language": "fr"}))
            await asyncio.sleep(0.2)
            gate.set()
            answer = await asyncio.wait_for(asked, 10)
            assert (answer.status_code, answer.text, answer.headers["x-cache"]) == (200, "2", "MISS")
            answer = await client.get("/", headers={"accept-language": "fr"})
        assert (answer.text, answer.headers["x-cache"], len(runs)) == ("2", "HIT", 2)

    async def test_a_late_page_is_not_kept_over_an_invalidation(self, service, clock, runs):
        """And the client who asked before it gets it, with nothing to stand in any more."""
        gate = asyncio.Event()

        async def page(request: Request) -> Response:
            runs.append(request.method)
            if len(runs) == 2:
                await gate.wait()
            return PlainTextResponse(str(len(runs)), 200, {"vary": "accept-language"})

        app = app_of(Route("/", page, methods=["GET", "POST"]), profile="impatient", ttl="10s")
        async with client_of(app) as client:
            await client.get("/", headers={"accept-language": "de"})
            clock.advance("10m")
            asked = asyncio.create_task(client.get("/", headers={"accept-language": "fr"}))
            while len(runs) < 2:
                await asyncio.sleep(0.01)
            await client.post("/")
            await asyncio.sleep(0.2)
            gate.set()
            assert (await asyncio.wait_for(asked, 10)).text == "3"
            answer = await client.get("/", headers={"accept-language": "fr"})
        assert (answer.text, answer.headers["x-cache"], runs) == ("4", "MISS", ["GET", "GET", "POST", "GET"])

    async def test_a_session_that_was_there_already_is_one_visitors(self, runs):
        def with_session(app: Any) -> Any:
            async def asked(scope: Any, receive: Any, send: Any) -> None:
                await app({**scope, "session": {"who": "somebody"}}, receive, send)

            return asked

        app = with_session(
            CacheMiddleware(Starlette(routes=[Route("/", numbered(runs))]), ttl="1m", per_user=lambda _: None)
        )
        async with client_of(app) as client:
            answers = [await client.get("/") for _ in range(2)]
        assert [answer.text for answer in answers] == ["1", "2"]
        assert {answer.headers["x-cache"] for answer in answers} == {"BYPASS"}

    async def test_a_stale_page_is_computed_anew_behind_its_caller(self, service, clock, runs):
        app = app_of(Route("/", numbered(runs)), profile="stale", ttl="10s")
        async with client_of(app) as client:
            await client.get("/")
            clock.advance("1m")
            answer = await client.get("/", headers={"if-none-match": '"x"'})
            assert (answer.text, answer.headers["x-cache"]) == ("1", "STALE")
            await service.async_port.wait_for_tasks(5)
            answer = await client.get("/")
            assert (answer.text, answer.headers["x-cache"]) == ("2", "HIT")

    async def test_who_waits_too_long_gets_504_and_the_page_is_kept(self, service, runs):
        gate = asyncio.Event()

        async def slow(request: Request) -> Response:
            runs.append(1)
            await gate.wait()
            assert not await request.is_disconnected()
            return PlainTextResponse("page")

        app = app_of(Route("/", slow), profile="hurried", ttl="1m")
        async with client_of(app) as client:
            assert (await client.get("/")).status_code == 504
            gate.set()
            await service.async_port.wait_for_tasks(5)
            answer = await client.get("/")
        assert (answer.text, answer.headers["x-cache"], runs) == ("page", "HIT", [1])

    async def test_many_callers_of_a_cold_page_run_the_application_once(self, runs):
        gate = asyncio.Event()

        async def slow(request: Request) -> Response:
            runs.append(1)
            await gate.wait()
            return PlainTextResponse("page")

        app = app_of(Route("/", slow), ttl="1m")
        async with client_of(app) as client:
            asked = [asyncio.create_task(client.get("/")) for _ in range(50)]
            await asyncio.sleep(0.1)
            asked[0].cancel()  # who began it goes away
            await asyncio.sleep(0)
            gate.set()
            answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [answer.text for answer in answers[1:]] == ["page"] * 49
        assert len(runs) == 1

    async def test_a_client_that_leaves_a_stream_ends_it(self):
        ended, begun = asyncio.Event(), asyncio.Event()

        async def stream():
            try:
                while True:
                    yield b"x"
                    begun.set()
                    await asyncio.sleep(0.01)
            finally:
                ended.set()

        async def endpoint(request: Request) -> Response:
            return StreamingResponse(stream())

        app = app_of(Route("/", endpoint), ttl="1m")
        scope = {
            "type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"a")], "query_string": b"",
            "scheme": "http",
        }  # fmt: skip

        async def receive() -> Any:
            await begun.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        await asyncio.wait_for(app(scope, receive, send), 5)
        await asyncio.wait_for(ended.wait(), 5)


@pytest.mark.parametrize("path", ["/x", "/articles/1"], ids=["by the middleware", "by a rule"])
def test_a_proxy_takes_its_server_at_its_word(runs, path):
    """RFC 9111 section 3.5: what is public may be given to all. Without ``proxy`` it is not."""
    for proxy in (True, False):
        app = app_of(Route(path, numbered(runs, headers={"cache-control": "public, max-age=60"})), proxy=proxy)
        client = TestClient(app, base_url=f"http://{proxy}")
        answers = [client.get(path, headers={"authorization": user}).headers["x-cache"] for user in ("a", "b")]
        assert answers == (["MISS", "HIT"] if proxy else ["BYPASS", "BYPASS"])
