import asyncio
import gc
import inspect
import subprocess
import sys
import threading
import weakref
from contextlib import asynccontextmanager
from typing import Annotated

import httpx2
import pytest
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse

import cachekit
from cachekit import ConfigError, Region
from cachekit.config.settings import load
from cachekit.integrations.fastapi import CacheKit, RegionDependency, cache_region
from cachekit.process import replace_default
from cachekit.service import Service

CONFIG = {"profiles": {"default": {"backend": "none"}, "users": {"ttl": "1m"}, "tokens": {}}}

Default = Annotated[Region, Depends(cache_region)]
Users = Annotated[Region, Depends(cache_region("users"))]


@pytest.fixture(autouse=True)
def service():
    """A default service of the test's own."""
    service = Service(load([], settings=CONFIG, environ={}))
    before = replace_default(service)
    yield service
    replace_default(before)
    service.close()


def make_app(**options):
    """The application most tests use: both dependencies, in sync and async endpoints."""
    app = FastAPI(**options)

    @app.get("/async")
    async def in_async(default: Default, users: Users) -> list[str]:
        return [default.name, users.name]

    @app.get("/sync")
    def in_sync(default: Default, users: Users) -> list[str]:
        return [default.name, users.name]

    @app.get("/count")
    async def count(users: Users) -> int:
        seen = await users.aget("seen", 0) + 1
        await users.aset("seen", seen)
        return seen

    return app


def metric(client, name, path="/metrics", **labels):
    families = parse_text(client.get(path).raise_for_status().text)
    found = [s.value for f in families for s in f.samples if s.name == name and s.labels.items() >= labels.items()]
    return sum(found)


class TestRegions:
    """Depends(cache_region) is the region default, Depends(cache_region("users")) the region users."""

    @pytest.mark.parametrize("path", ["/async", "/sync"])
    @pytest.mark.parametrize("installed", [True, False], ids=["CacheKit", "no CacheKit"])
    def test_both_forms_work_in_sync_and_async_endpoints(self, path, installed):
        app = make_app()
        if installed:
            CacheKit(app)
        assert TestClient(app).get(path).json() == ["default", "users"]

    def test_both_forms_work_as_default_values_and_below_other_dependencies(self):
        app = FastAPI()

        def names(default=Depends(cache_region), users=Depends(cache_region("users"))) -> list[str]:  # noqa: B008
            return [default.name, users.name]

        @app.get("/")
        def read(names: Annotated[list[str], Depends(names)], default=Depends(cache_region)):  # noqa: B008
            return [*names, default.name]

        assert TestClient(app).get("/").json() == ["default", "users", "default"]

    @pytest.mark.parametrize("path", ["/async", "/sync"])
    def test_no_request_parameter_chooses_a_region(self, path):
        client = TestClient(make_app())
        sneaky = {"name": "tokens", "connection": "tokens", "self": "tokens", "kw": "tokens", "values": "tokens"}
        client.cookies.update(sneaky)
        assert client.get(path, params=sneaky, headers=sneaky).json() == ["default", "users"]

    def test_no_body_chooses_a_region(self):
        app = FastAPI()

        @app.post("/")
        async def write(default: Default, users: Users, item: dict[str, str]) -> list[str]:
            return [default.name, users.name, *item]

        answer = TestClient(app).post("/", json={"connection": "tokens", "name": "tokens"})
        assert answer.json() == ["default", "users", "connection", "name"]

    def test_openapi_is_that_of_an_application_without_us(self):
        app, plain = FastAPI(), FastAPI()
        CacheKit(app)

        @app.get("/{item}")
        def read(item: int, q: str, default: Default, users: Users) -> int:
            return item

        @plain.get("/{item}", name="read")
        def read_plain(item: int, q: str) -> int:
            return item

        with TestClient(app) as client:
            ours = client.get("/openapi.json").json()
        theirs = TestClient(plain).get("/openapi.json").json()
        assert str(ours).replace("read_plain", "read") == str(theirs).replace("read_plain", "read")

    def test_web_sockets_get_regions(self):
        app = FastAPI()
        CacheKit(app)

        @app.websocket("/ws")
        async def talk(socket: WebSocket, default: Default, users: Users) -> None:
            await socket.accept()
            await socket.send_json([default.name, users.name])
            await socket.close()

        with TestClient(app).websocket_connect("/ws?name=tokens&connection=tokens") as socket:
            assert socket.receive_json() == ["default", "users"]

    def test_both_forms_can_be_overridden(self):
        app = make_app()
        app.dependency_overrides[cache_region] = lambda: cachekit.region("tokens")
        app.dependency_overrides[cache_region("users")] = lambda: cachekit.region("local")
        client = TestClient(app)
        assert client.get("/async").json() == ["tokens", "local"]
        app.dependency_overrides.clear()
        assert client.get("/async").json() == ["default", "users"]

    def test_a_dependency_is_equal_by_name_hashable_and_frozen(self):
        assert cache_region("users") == cache_region("users") == RegionDependency("users")
        assert cache_region("users") != cache_region("tokens")
        assert len({cache_region("users"), cache_region("users")}) == 1
        with pytest.raises(AttributeError):
            cache_region("users").name = "tokens"  # type: ignore[misc]

    def test_values_reach_the_region_that_the_rest_of_the_process_uses(self):
        client = TestClient(make_app())
        assert [client.get("/count").json() for _ in range(3)] == [1, 2, 3]
        assert cachekit.region("users").get("seen") == 3
        assert cachekit.region("tokens").get("seen") is None

    def test_an_unknown_region_is_a_config_error_with_the_nearest_name(self):
        app = FastAPI()

        @app.get("/")
        async def read(region: Annotated[Region, Depends(cache_region("user"))]) -> str:
            return str(await region.aget("x"))

        with pytest.raises(ConfigError, match="users"):
            TestClient(app).get("/")


class TestOlderFastAPI:
    """FastAPI before it unwrapped dependencies sees a plain callable and calls it in its thread pool."""

    def test_the_signature_has_only_the_connection_and_no_string_annotation(self):
        for call in (cache_region, RegionDependency("users")):
            (parameter,) = inspect.signature(call).parameters.values()
            assert parameter.annotation is HTTPConnection
        assert inspect.iscoroutinefunction(inspect.unwrap(cache_region))

    def test_without_a_running_loop_the_region_itself_comes_back(self):
        connection = HTTPConnection({"type": "http"})
        assert cache_region(connection=connection).name == "default"

    async def test_in_a_running_loop_a_coroutine_comes_back(self):
        connection = HTTPConnection({"type": "http"})
        assert (await cache_region(connection=connection)).name == "default"
        assert (await asyncio.to_thread(cache_region, connection=connection)).name == "default"


class TestServices:
    """config= makes a service for one application; all others share the process's."""

    def test_an_application_with_config_has_regions_of_its_own(self, tmp_path):
        file = tmp_path / "cachekit.toml"
        file.write_text('[profiles.default]\nbackend = "none"\n[profiles.users]\nttl = "7s"\n')
        apps = [make_app(), make_app(), make_app()]
        for app, config in zip(apps, (None, CONFIG, file), strict=True):
            CacheKit(app, config=config)
        clients = [TestClient(app) for app in apps]
        for _ in range(2):
            counts = [client.get("/count").json() for client in clients]
        assert counts == [2, 2, 2]
        assert cachekit.region("users").get("seen") == 2

    def test_one_object_serves_many_applications_with_a_service_each(self):
        kit = CacheKit(config=CONFIG)
        apps = [make_app(), make_app()]
        for app in apps:
            kit.init_app(app)
        assert [TestClient(app).get("/count").json() for app in apps] == [1, 1]

    def test_a_mounted_application_uses_the_service_of_the_one_around_it(self):
        outer, inner = make_app(), make_app()
        CacheKit(outer, config=CONFIG)
        outer.mount("/inner", inner)
        client = TestClient(outer)
        assert [client.get(path).json() for path in ("/count", "/inner/count", "/count")] == [1, 2, 3]
        assert cachekit.region("users").get("seen") is None

    def test_a_mounted_application_with_a_service_of_its_own_keeps_it(self):
        outer, inner = make_app(), make_app()
        CacheKit(outer)
        CacheKit(inner, config=CONFIG)
        outer.mount("/inner", inner)
        client = TestClient(outer)
        assert [client.get(path).json() for path in ("/count", "/inner/count", "/inner/count", "/count")] == [
            1,
            1,
            2,
            2,
        ]

    def test_an_application_may_call_its_own_state_cachekit(self):
        app = make_app()
        app.state.cachekit = CacheKit(app, config=CONFIG)
        assert TestClient(app).get("/count").json() == 1
        assert cachekit.region("users").get("seen") is None

    def test_installing_twice_does_nothing_and_a_second_object_is_refused(self):
        app = make_app()
        kit = CacheKit(app)
        kit.init_app(app)
        assert len(app.user_middleware) == 1
        with pytest.raises(ConfigError, match="another CacheKit"):
            CacheKit(app)

    def test_an_application_is_not_kept_alive(self):
        app = make_app()
        kit = CacheKit(app)
        TestClient(app).get("/async")
        there = weakref.ref(app)
        del app
        gc.collect()
        assert there() is None
        assert kit is not None

    def test_a_replaced_configuration_is_followed(self):
        app = make_app()
        CacheKit(app)
        client = TestClient(app)
        assert client.get("/count").json() == 1
        other = Service(load([], settings={**CONFIG, "metrics": {"path": "/other"}}, environ={}))
        mine = replace_default(other)
        try:
            assert client.get("/count").json() == 1
            assert client.get("/other").status_code == 200
            assert client.get("/metrics").status_code == 404
        finally:
            replace_default(mine)
            other.close()


class TestLifespan:
    """Ours starts first and stops last; the application's own goes on as it was; nothing depends on either."""

    @staticmethod
    def recording(log, service):
        service.on_close(lambda: log.append("cachekit stops"))

        @asynccontextmanager
        async def lifespan(app):
            shown = any(getattr(route, "path", "") == "/metrics" for route in app.routes)
            log.append(f"starts, cachekit {'is there' if shown else 'is not there'}")
            yield {"db": "the database"}
            log.append("stops")

        return lifespan

    @staticmethod
    def with_state(app):
        from fastapi import Request

        @app.get("/state")
        def state(request: Request) -> str:
            return request.state.db

        return app

    ORDER = ("starts, cachekit is there", "stops", "cachekit stops")

    def test_the_application_s_lifespan_keeps_its_state_and_runs_inside_ours(self, service):
        log = []
        app = self.with_state(make_app(lifespan=self.recording(log, service)))
        CacheKit(app)
        with TestClient(app) as client:
            assert client.get("/state").json() == "the database"
            assert client.get("/async").json() == ["default", "users"]
        assert tuple(log) == self.ORDER

    def test_a_composed_lifespan_does_the_same(self, service):
        log = []
        app = self.with_state(make_app(lifespan=CacheKit().lifespan(self.recording(log, service))))
        with TestClient(app) as client:
            assert client.get("/state").json() == "the database"
            assert client.get("/metrics").status_code == 200
        assert tuple(log) == self.ORDER

    def test_a_composed_lifespan_with_a_configuration_of_its_own(self):
        app = make_app(lifespan=CacheKit(config=CONFIG).lifespan())
        with TestClient(app) as client:
            assert client.get("/count").json() == 1
        assert cachekit.region("users").get("seen") is None

    def test_a_composed_lifespan_and_init_app_together_start_once_and_show_one_route(self):
        kit = CacheKit()
        app = make_app(lifespan=kit.lifespan())
        kit.init_app(app)
        with TestClient(app) as client:
            assert client.get("/metrics").status_code == 200
        assert len([route for route in app.routes if getattr(route, "path", "") == "/metrics"]) == 1

    def test_it_may_start_and_stop_again(self):
        app = make_app()
        CacheKit(app)
        for _ in range(2):
            with TestClient(app) as client:
                assert client.get("/async").status_code == 200
                assert client.get("/metrics").status_code == 200

    def test_without_a_lifespan_everything_works(self):
        app = make_app()
        CacheKit(app)
        client = TestClient(app)
        assert client.get("/metrics").status_code == 200
        assert client.get("/async").json() == ["default", "users"]

    def test_a_wrong_configuration_stops_the_start_before_the_application_s_own(self, service):
        log = []
        app = make_app(lifespan=self.recording(log, service))
        CacheKit(app, config={"profiles": {"users": {"tll": "5m"}}})
        with pytest.raises(ConfigError, match="ttl"), TestClient(app):
            pass
        assert log == []

    def test_a_wrong_configuration_without_a_start_stops_the_first_request(self):
        app = make_app()
        CacheKit(app, config={"profiles": {"users": {"tll": "5m"}}})
        with pytest.raises(ConfigError, match="ttl"):
            TestClient(app).get("/async")

    @pytest.fixture
    def misspelt(self):
        @cachekit.cache(profile="usres")
        def load_user(user_id: int) -> int:
            return user_id

        yield
        del load_user
        gc.collect()  # start-ups of other tests must not meet it

    @pytest.mark.usefixtures("misspelt")
    def test_a_misspelt_profile_of_a_decorated_function_stops_the_start(self):
        app = make_app()
        CacheKit(app)
        with pytest.raises(ConfigError, match=r"load_user: there is no profile 'usres'; did you mean 'users'"):
            self.start(app)

    @pytest.mark.usefixtures("misspelt")
    def test_functions_of_the_process_are_not_checked_against_an_application_s_own_service(self):
        app = make_app()
        CacheKit(app, config=CONFIG)
        self.start(app)

    @staticmethod
    def start(app):
        with TestClient(app):
            pass

    def test_when_the_application_fails_to_start_ours_stops(self, service):
        log = []
        service.on_close(lambda: log.append("cachekit stops"))

        @asynccontextmanager
        async def lifespan(app):
            raise RuntimeError("no database")
            yield

        app = make_app(lifespan=lifespan)
        CacheKit(app)
        with pytest.raises(RuntimeError, match="no database"), TestClient(app):
            pass
        assert log == ["cachekit stops"]


class TestMetrics:
    """/metrics is there, unless the application has one, and under the configured conditions."""

    @staticmethod
    def client(metrics=None, app=None, client=("127.0.0.1", 50000), **options):
        app = app or make_app()
        CacheKit(app, config={**CONFIG, "metrics": metrics or {}}, **options)
        return TestClient(app, client=client)

    def test_hits_and_misses_of_requests_are_counted(self):
        client = self.client()
        for _ in range(5):
            client.get("/count")
        assert metric(client, "cachekit_cache_hits_total", region="users", tier="l1") == 4
        assert metric(client, "cachekit_cache_misses_total", region="users") == 1
        assert metric(client, "cachekit_cache_entries", region="users") == 1

    def test_the_format_is_negotiated(self):
        client = self.client()
        text = client.get("/metrics")
        assert text.headers["content-type"].startswith("text/plain; version=")
        open_ = client.get(
            "/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
        )
        assert open_.headers["content-type"].startswith("application/openmetrics-text")
        assert {family.name for family in parse_openmetrics(open_.text)} >= {"cachekit_cache_hits"}

    def test_the_path_is_configured(self):
        client = self.client({"path": "/internal/metrics"})
        assert client.get("/internal/metrics").status_code == 200
        assert client.get("/metrics").status_code == 404

    def test_it_can_be_switched_off_in_the_configuration_or_in_code(self):
        assert self.client({"enabled": False}).get("/metrics").status_code == 404
        assert self.client(metrics=None).get("/metrics").status_code == 200
        app = make_app()
        CacheKit(app, metrics=False)
        assert TestClient(app).get("/metrics").status_code == 404

    def test_a_token_is_demanded(self):
        client = self.client({"token": "s3cret"})
        refused = client.get("/metrics")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert "cachekit_" not in refused.text
        assert client.get("/metrics", headers={"authorization": "Bearer s3cret"}).status_code == 200

    def test_allowed_networks_need_no_token(self):
        spec = {"token": "s3cret", "allow": ["10.0.0.0/8"]}
        assert self.client(spec, client=("10.9.8.7", 1)).get("/metrics").status_code == 200
        assert self.client(spec, client=("192.0.2.1", 1)).get("/metrics").status_code == 401
        assert self.client({"allow": ["10.0.0.0/8"]}, client=("192.0.2.1", 1)).get("/metrics").status_code == 403

    def test_a_catch_all_route_does_not_hide_it(self):
        for catch in ("/{page}", "/{rest:path}"):
            app = FastAPI()
            app.get(catch)(lambda: "page")
            assert "cachekit_" in self.client(app=app).get("/metrics").text
        app = FastAPI()
        app.mount("/", PlainTextResponse("site"))
        assert "cachekit_" in self.client(app=app).get("/metrics").text

    def test_another_method_at_the_same_path_stays_the_application_s(self):
        app = FastAPI()
        app.post("/metrics")(lambda: "pushed")
        client = self.client(app=app)
        assert client.post("/metrics").json() == "pushed"
        assert client.get("/metrics").status_code == 200

    def test_middleware_of_the_application_guards_it_too(self):
        app = make_app()

        @app.middleware("http")
        async def refuse(request, call_next):
            return PlainTextResponse("no", 418)

        assert self.client(app=app).get("/metrics").status_code == 418

    @pytest.mark.parametrize("own", ["route", "included", "nested", "mount", "later"])
    def test_an_application_with_a_route_there_shows_ours_with_its_own(self, own):
        app = FastAPI()

        def expose():
            return PlainTextResponse(generate_latest(REGISTRY).decode(), media_type=CONTENT_TYPE_LATEST)

        async def mounted(scope, receive, send):
            await expose()(scope, receive, send)

        router = APIRouter()
        router.get("/metrics")(expose)
        outer = APIRouter()
        outer.include_router(router)
        path = "/metrics"
        if own == "route":
            app.get("/metrics")(expose)
        elif own == "included":
            app.include_router(router)
        elif own == "nested":
            app.include_router(outer)
        elif own == "mount":
            app.mount("/metrics", mounted)
            path = "/metrics/"
        kit = CacheKit(app)
        if own == "later":  # after the constructor: the test for it runs at the first request
            app.get("/metrics")(expose)
        cachekit.region("users").get("nothing")
        before = metric(TestClient(app), "cachekit_cache_misses_total", path, region="users", function="")
        cachekit.region("users").get("nothing")
        client = TestClient(app)
        assert metric(client, "cachekit_cache_misses_total", path, region="users", function="") == before + 1
        assert "python_info" in client.get(path).text
        assert kit is not None

    def test_labels_are_bounded_whatever_the_keys(self):
        app = make_app()
        CacheKit(app)

        @app.get("/many")
        def many(users: Users) -> int:
            for key in range(10_000):
                users.set(f"user:{key}", key)
                users.get(f"user:{key}")
            return 0

        client = TestClient(app)
        client.get("/metrics")
        client.get("/many")
        lines = client.get("/metrics").text.splitlines()
        client.get("/many")
        assert len(client.get("/metrics").text.splitlines()) == len(lines) < 400
        assert not [line for line in lines if "user:" in line]


@pytest.fixture
def served():
    """The base URL of a real server around an application whose function counts its runs."""
    app, runs = FastAPI(), []
    CacheKit(app)

    @cachekit.cache(profile="users")
    async def square(n: int) -> int:
        runs.append(n)
        await asyncio.sleep(0.02)
        return n * n

    @app.get("/square/{n}")
    async def read(n: int) -> int:
        return await square(n)

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", runs
    server.should_exit = True
    thread.join()


def test_a_real_server_under_concurrent_clients_computes_once_and_counts_exactly(served):
    base, runs = served
    answers = []

    def visit():
        with httpx2.Client(base_url=base) as client:
            answers.extend(client.get(f"/square/{n % 10}").json() for n in range(100))

    clients = [threading.Thread(target=visit) for _ in range(2)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert sorted(answers) == sorted([n * n for n in range(10)] * 20)
    assert sorted(runs) == list(range(10))
    with httpx2.Client(base_url=base) as client:
        hits = metric(client, "cachekit_cache_hits_total", region="users")
        misses = metric(client, "cachekit_cache_misses_total", region="users")
        loads = metric(client, "cachekit_cache_loads_total", region="users", result="ok")
        waited = metric(client, "cachekit_cache_waited_total", region="users")
    assert misses == loads == 10
    assert hits + misses + waited == 200


def test_neither_module_imports_fastapi():
    code = "import sys; import cachekit.integrations.fastapi; sys.exit('fastapi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_starlette_module_has_no_fastapi_names():
    from cachekit.integrations import starlette

    assert starlette.CacheKit is CacheKit
    assert not hasattr(starlette, "cache_region")
    assert not hasattr(starlette, "RegionDependency")
