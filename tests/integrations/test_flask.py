import asyncio
import functools
import gc
import logging
import subprocess
import sys
import threading
import time
import urllib.request
import weakref
from contextlib import contextmanager

import pytest
from flask import Blueprint, Flask, Response, abort, after_this_request, flash, redirect, request, send_file, session
from flask.views import MethodView, View
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from werkzeug.serving import make_server

import cachekit
from cachekit import ConfigError, Outcome
from cachekit.config.settings import load
from cachekit.integrations.flask import Cache, CacheKit
from cachekit.process import replace_default
from cachekit.service import Service
from cachekit.testing.isolation import isolated
from cachekit.testing.servers import start_server

CONFIG = {"profiles": {"default": {"backend": "none"}, "users": {"ttl": "1m"}, "tokens": {}}}


@pytest.fixture(autouse=True)
def service():
    """A default service of the test's own."""
    service = Service(load([], settings=CONFIG, environ={}))
    before = replace_default(service)
    yield service
    replace_default(before)
    service.close()


@pytest.fixture
def nothing_loaded(monkeypatch, tmp_path):
    """No default service yet, and a working directory without configuration."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    replace_default(None)
    yield tmp_path
    if (left := replace_default(None)) is not None:
        left.close()


def make_app(kit=None, name="shop", **config):
    app = Flask(name)
    app.config["SECRET_KEY"] = "of sessions"
    app.config.update(config)
    (kit or CacheKit()).init_app(app)
    return app


def written(directory, text):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cachekit.toml").write_text(text)
    return directory / "cachekit.toml"


def metric(client, name, path="/metrics", **labels):
    answer = client.get(path)
    assert answer.status_code == 200
    samples = [sample for family in parse_text(answer.text) for sample in family.samples]
    return sum(s.value for s in samples if s.name == name and s.labels.items() >= labels.items())


class TestKeysAndValues:
    """The methods that Flask-Caching has, on the region default of the current application."""

    @pytest.fixture
    def cache(self):
        cache = CacheKit()
        with make_app(cache).app_context():
            yield cache

    def test_values_are_set_read_added_and_removed(self, cache):
        assert cache.get("a") is None
        assert not cache.has("a")
        assert cache.set("a", {"x": (1, None)}) is True
        assert cache.get("a") == {"x": (1, None)}
        assert cache.has("a")
        assert cache.add("a", 2) is False
        assert cache.add("b", 2) is True
        assert cache.delete("a") is True
        assert cache.get("a") is None

    def test_none_is_a_value(self, cache):
        cache.set("a", None)
        assert cache.has("a")
        assert cache.add("a", 1) is False

    def test_many_at_once(self, cache):
        assert cache.set_many({"a": 1, "b": 2, "c": 3}) == ["a", "b", "c"]
        assert cache.get_many("b", "nothing", "a") == [2, None, 1]
        assert cache.get_dict("b", "nothing") == {"b": 2, "nothing": None}
        assert cache.delete_many("a", "nothing") == ["a", "nothing"]
        assert cache.unlink("b") == ["b"]
        assert cache.get_many("a", "b", "c") == [None, None, 3]

    def test_a_timeout_of_zero_is_for_ever_and_none_is_the_profile_s(self, cache):
        region = cachekit.region("default")
        for timeout, least, most in ((None, 299, 331), (5, 4, 5.6), ("2m", 119, 133)):
            cache.set("a", 1, timeout=timeout)
            assert least < region.remaining("a") < most
            cache.add(f"add{timeout}", 1, timeout=timeout)
            assert least < region.remaining(f"add{timeout}") < most
        cache.set("a", 1, timeout=0)
        cache.set_many({"b": 1}, timeout=0)
        assert region.remaining("a") is region.remaining("b") is None

    @pytest.mark.parametrize("timeout", [-1, True, False, "soon"])
    def test_a_timeout_without_meaning_is_refused(self, cache, timeout):
        with pytest.raises(ConfigError):
            cache.set("a", 1, timeout=timeout)
        with pytest.raises(ConfigError):
            cache.memoize(timeout=timeout)

    def test_clear_empties_the_region_default_and_no_other(self, cache):
        cache.set("a", 1)
        cache.region("users").set("a", 2)
        assert cache.clear() is True
        assert cache.get("a") is None
        assert cache.region("users").get("a") == 2

    def test_without_an_application_context_flask_says_what_to_do(self):
        cache = CacheKit()
        make_app(cache)
        with pytest.raises(RuntimeError, match=r"app\.app_context"):
            cache.get("a")

    def test_in_an_application_where_it_is_not_installed_it_says_so(self):
        with Flask("shop").app_context(), pytest.raises(ConfigError, match=r"not installed in shop; call init_app"):
            CacheKit().get("a")


class TestMemoize:
    """memoize caches a function by its arguments, in the current application's service."""

    def test_arguments_find_the_value_however_they_are_spelt(self):
        cache, runs = CacheKit(), []

        @cache.memoize(timeout=60)
        def add(a, b=2):
            """Adds."""
            runs.append((a, b))
            return a + b

        with make_app(cache).app_context():
            assert [add(1), add(1, 2), add(a=1, b=2), add("1", "2")] == [3, 3, 3, "12"]
        assert runs == [(1, 2), ("1", "2")]
        assert add.__doc__ == "Adds."
        assert add.uncached(1) == 3
        assert len(runs) == 3

    def test_delete_memoized_forgets_one_call_or_all(self):
        cache, runs = CacheKit(), []

        @cache.memoize()
        def square(n):
            runs.append(n)
            return n * n

        with make_app(cache).app_context():
            for forget in (
                lambda: cache.delete_memoized(square, 2),
                lambda: cache.delete_memoized(square, n=2),
                lambda: square.delete_memoized(2),
            ):
                square(2), square(3)
                assert forget() is Outcome.DONE
                square(2), square(3)
            assert runs == [2, 3, 2, 2, 2]
            cache.delete_memoized(square)
            square(2), square(3)
        assert runs == [2, 3, 2, 2, 2, 2, 3]

    def test_methods_know_their_instance(self):
        cache, runs = CacheKit(), []

        class Shop:
            def __init__(self, name):
                self.name = name

            def __cache_key__(self):
                return self.name

            @cache.memoize()
            def price(self, article):
                runs.append((self.name, article))
                return article

            @classmethod
            @cache.memoize()
            def rate(cls, country):
                runs.append((cls.__name__, country))
                return 19

        east, west = Shop("east"), Shop("west")
        with make_app(cache).app_context():
            for _ in range(2):
                east.price(1), west.price(1), Shop.rate("de"), east.rate("de")
            assert runs == [("east", 1), ("west", 1), ("Shop", "de")]
            cache.delete_memoized(east.price, 1)
            cache.delete_memoized(Shop.rate, "de")
            east.price(1), west.price(1), Shop.rate("de")
            assert runs[3:] == [("east", 1), ("Shop", "de")]
            cache.delete_memoized(east.price)
            east.price(1), west.price(1)
            assert runs[5:] == [("east", 1), ("west", 1)]

    async def test_async_functions_stay_async(self):
        cache, runs = CacheKit(), []

        @cache.memoize()
        async def square(n):
            runs.append(n)
            return n * n

        assert asyncio.iscoroutinefunction(square) if sys.version_info < (3, 14) else True
        with make_app(cache).app_context():
            assert [await square(3), await square(3)] == [9, 9]
            await cache.delete_memoized(square, 3)
            await square(3)
        assert runs == [3, 3]

    def test_options_of_flask_caching(self):
        cache, runs = CacheKit(), []
        skipping = []

        @cache.memoize(
            args_to_ignore=["how"],
            response_filter=lambda value: value != 0,
            unless=lambda f, n, how=None: n in skipping,
            cache_none=False,
        )
        def load(n, how=None):
            runs.append(n)
            return None if n < 0 else n

        @cache.memoize(unless=lambda: bool(skipping))
        def plain(n):
            runs.append(n)
            return n

        with make_app(cache).app_context():
            for n in (1, 0, -1):
                load(n, how="a"), load(n, how="b")
            assert runs == [1, 0, 0, -1, -1]
            skipping.append(1)
            load(1), plain(7), plain(7)
            assert runs[5:] == [1, 7, 7]

    def test_timeouts(self):
        cache = CacheKit()
        functions = {}
        for timeout in (None, 0, 7, lambda value: value):
            functions[timeout] = cache.memoize(timeout=timeout, version=len(functions) + 1)(lambda n: n)
        with make_app(cache).app_context():
            lives = []
            for function in functions.values():
                function(5)
                cached = cache._here().cached(function.cachekit_recipe)
                lives.append(cached.region.remaining(cached.key(5)))
        assert 299 < lives[0] < 331
        assert lives[1] is None
        assert 6 < lives[2] < 7.8
        assert 4 < lives[3] < 5.6

    def test_what_has_no_meaning_is_refused(self):
        cache = CacheKit()
        with pytest.raises(TypeError, match="unknown option 'tiemout'"):
            cache.memoize(tiemout=5)
        with pytest.raises(TypeError, match="timeout="):
            cache.memoize(ttl=5)
        with pytest.raises(TypeError, match=r"write @cache\.memoize\(\) with parentheses"):
            cache.memoize(lambda n: 1)(7)
        with pytest.raises(TypeError, match="below @classmethod"):
            cache.memoize()(classmethod(lambda cls: 1))
        with make_app(cache).app_context(), pytest.raises(TypeError, match="not memoized"):
            cache.delete_memoized(len, 1)

    def test_metrics_name_function_and_region(self):
        cache = CacheKit()

        @cache.memoize(profile="users")
        def square(n):
            return n * n

        app = make_app(cache)
        with app.app_context():
            square(3), square(3)
        name = f"{__name__}.{square.__qualname__}"
        assert metric(app.test_client(), "cachekit_cache_hits_total", region="users", function=name, tier="l1") == 1


class TestProfilesAreChecked:
    """A decorator that names an unknown profile stops init_app, or the decoration that comes after it."""

    def test_in_init_app(self):
        cache = CacheKit()

        @cache.memoize(profile="usres")
        def load(n):
            return n

        with pytest.raises(ConfigError, match=r"load: there is no profile 'usres'; did you mean 'users'"):
            make_app(cache)

    def test_views_too_and_against_the_application_s_own_configuration(self):
        cache = CacheKit()

        @cache.cached(profile="pages")
        def index():
            return ""

        make_app(cache, CACHEKIT={"profiles": {"pages": {}}})
        with pytest.raises(ConfigError, match=r"index: there is no profile 'pages'"):
            make_app(cache)

    def test_at_decoration_when_there_is_an_application(self):
        cache = CacheKit()
        app = make_app(cache)
        with pytest.raises(ConfigError, match=r"load: there is no profile 'usres'; did you mean 'users'"):

            @cache.memoize(profile="usres")
            def load(n):
                return n

        assert app.test_client().get("/metrics").status_code == 200

    def test_functions_of_the_process_as_well(self):
        @cachekit.cache(profile="usres")
        def load(n):
            return n

        try:
            with pytest.raises(ConfigError, match="load: there is no profile 'usres'"):
                make_app()
            make_app(CACHEKIT=CONFIG)  # which is not theirs
        finally:
            del load
            gc.collect()  # other tests must not meet it

    def test_a_wrong_value_in_app_config_names_key_and_place(self):
        with pytest.raises(ConfigError, match=r"app.config\['CACHEKIT'\]: profiles.users.tll: no such key.*'ttl'"):
            make_app(CACHEKIT={"profiles": {"users": {"tll": 5}}})

    def test_a_table_that_is_none_is_refused(self):
        with pytest.raises(ConfigError, match="not a dict"):
            make_app(CACHEKIT="cachekit.toml")


class TestConfiguration:
    """config= decides alone; app.config stands above the file and below the environment; else the process's service."""

    @staticmethod
    def ttl(app, name="users"):
        with app.app_context():
            return app.extensions["cachekit"].service().region_spec(name).ttl

    def test_without_anything_it_is_the_process_s_service(self, service):
        app = make_app()
        assert app.extensions["cachekit"].service() is service
        with app.app_context():
            app.extensions["cachekit"].kit.set("a", 1)
        assert cachekit.region("default").get("a") == 1

    def test_the_dict_stands_above_the_file_and_below_the_environment(self, tmp_path, monkeypatch):
        file = written(
            tmp_path, '[profiles.users]\nttl = "1s"\n[profiles.tokens]\nttl = "1s"\n[profiles.pages]\nttl = 1\n'
        )
        monkeypatch.setenv("CACHEKIT_PROFILES__USERS__TTL", "3s")
        table = {"profiles": {"users": {"ttl": "2s"}, "tokens": {"ttl": "2s"}}}
        app = make_app(CACHEKIT_CONFIG=str(file), CACHEKIT=table)
        assert [self.ttl(app, name) for name in ("users", "tokens", "pages")] == [3, 2, 1]

    def test_redis_url_stands_above_the_dict(self, monkeypatch):
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/3")
        app = make_app(CACHEKIT={"namespace": "shop", "backends": {"default": {"url": "redis://127.0.0.1:1/2"}}})
        assert app.extensions["cachekit"].service().spec.backends["default"].url.endswith("/3")

    def test_config_decides_alone(self, tmp_path):
        file = written(tmp_path, '[profiles.users]\nttl = "1s"\n')
        for config in (str(file), file, {"profiles": {"users": {"ttl": 1}}}):
            kit = CacheKit(config=config)
            assert self.ttl(make_app(kit, CACHEKIT={"profiles": {"users": {"ttl": 2}}})) == 1
            app = Flask("shop")
            CacheKit().init_app(app, config)
            assert self.ttl(app) == 1

    def test_several_files_base_first_and_relative_to_the_application(self, tmp_path):
        written(tmp_path / "base", '[profiles.users]\nttl = "1s"\n[profiles.tokens]\nttl = "1s"\n')
        written(tmp_path, '[profiles.users]\nttl = "2s"\n')
        for paths in (
            "base/cachekit.toml:cachekit.toml",
            ["base/cachekit.toml", tmp_path / "cachekit.toml"],
        ):
            app = Flask("shop", root_path=str(tmp_path))
            app.config["CACHEKIT_CONFIG"] = paths
            CacheKit(app)
            assert (self.ttl(app), self.ttl(app, "tokens")) == (2, 1)

    def test_a_file_that_is_missing_stops_init_app(self):
        with pytest.raises(ConfigError, match=r"app.config\['CACHEKIT_CONFIG'\]: .*nowhere.toml: no such file"):
            make_app(CACHEKIT_CONFIG="nowhere.toml")

    def test_the_environment_s_file_stands_above_the_application_s(self, tmp_path, monkeypatch):
        ours = written(tmp_path / "ours", '[profiles.users]\nttl = "1s"\n')
        monkeypatch.setenv("CACHEKIT_CONFIG", str(written(tmp_path, '[profiles.users]\nttl = "2s"\n')))
        assert self.ttl(make_app(CACHEKIT_CONFIG=str(ours), CACHEKIT={})) == 2

    @pytest.mark.parametrize("folder", ["shop", "."])
    def test_a_file_beside_the_application_is_the_process_s_configuration(self, nothing_loaded, folder):
        (nothing_loaded / "pyproject.toml").touch()
        written(nothing_loaded / folder, '[profiles.default]\nbackend = "none"\n[profiles.pages]\nttl = "7s"\n')
        (nothing_loaded / "shop").mkdir(exist_ok=True)

        @cachekit.cache(profile="pages")
        def load(n):
            return n

        for _ in range(2):  # two applications of one factory have one configuration
            app = Flask("shop", root_path=str(nothing_loaded / "shop"))
            CacheKit(app)
            assert self.ttl(app, "pages") == 7
            assert app.extensions["cachekit"].service() is cachekit.region("pages").service
        assert load(3) == 3
        del load
        gc.collect()

    def test_a_file_further_up_is_not_looked_for(self, nothing_loaded):
        written(nothing_loaded, '[profiles.pages]\nttl = "7s"\n')
        (nothing_loaded / "a" / "b").mkdir(parents=True)
        app = Flask("shop", root_path=str(nothing_loaded / "a" / "b"))
        CacheKit(app)
        assert "pages" not in app.extensions["cachekit"].service().spec.regions

    def test_a_second_file_is_that_application_s_own(self, nothing_loaded, caplog):
        services = []
        for name, ttl in (("first", 1), ("second", 2)):
            folder = nothing_loaded / name
            written(folder, f'[profiles.default]\nbackend = "none"\n[profiles.users]\nttl = "{ttl}s"\n')
            (folder / "pyproject.toml").touch()
            app = Flask(name, root_path=str(folder))
            CacheKit(app)
            assert self.ttl(app) == ttl
            services.append(app.extensions["cachekit"].service())
        assert cachekit.region("users").service is services[0]
        assert "second uses" in caplog.text

    def test_a_dict_is_laid_over_the_file_beside_the_application(self, nothing_loaded):
        written(nothing_loaded, '[profiles.users]\nttl = "1s"\n[profiles.tokens]\nttl = "1s"\n')
        app = Flask("shop", root_path=str(nothing_loaded))
        app.config["CACHEKIT"] = {"profiles": {"users": {"ttl": 2}}}
        CacheKit(app)
        assert (self.ttl(app), self.ttl(app, "tokens")) == (2, 1)

    def test_an_isolated_test_reads_no_file_beside_the_application(self, tmp_path):
        written(tmp_path, '[backends.default]\nurl = "redis://production"\n')
        with isolated() as service:
            app = Flask("shop", root_path=str(tmp_path))
            CacheKit(app)
            assert app.extensions["cachekit"].service() is service


class TestApplications:
    """One object, many applications: nothing of one is seen by another, and none is kept alive."""

    def test_each_application_with_a_configuration_has_entries_of_its_own(self):
        cache, runs = CacheKit(), []

        @cache.memoize()
        def square(n):
            runs.append(n)
            return n * n

        apps = [make_app(cache, CACHEKIT=CONFIG), make_app(cache, CACHEKIT=CONFIG), make_app(cache), make_app(cache)]
        for app in apps:
            with app.app_context():
                assert cache.get("name") is None or app is apps[3]
                cache.set("name", 1)
                square(3), square(3)
        assert runs == [3, 3, 3]  # the last two share the process's service

    def test_two_objects_in_two_applications(self):
        first, second = CacheKit(config=CONFIG), CacheKit(config=CONFIG)
        with make_app(first).app_context():
            first.set("a", 1)
            with make_app(second).app_context():
                assert second.get("a") is None
                with pytest.raises(ConfigError, match="not installed"):
                    first.get("a")
            assert first.get("a") == 1

    def test_installing_twice_does_nothing_and_something_else_is_refused(self):
        cache = CacheKit(config=CONFIG)
        app = make_app(cache)
        wsgi = app.wsgi_app
        cache.init_app(app)
        cache.init_app(app, CONFIG)
        assert app.wsgi_app is wsgi
        with pytest.raises(ConfigError, match="another config="):
            cache.init_app(app, {"profiles": {}})
        with pytest.raises(ConfigError, match="another CacheKit"):
            CacheKit(app)

    def test_nothing_is_kept_on_the_object(self):
        cache = CacheKit()
        before = dict(vars(cache))
        app = make_app(cache, CACHEKIT=CONFIG)
        assert vars(cache).keys() == before.keys()
        app.test_client().get("/")
        there = weakref.ref(app)
        del app
        gc.collect()
        assert there() is None
        assert list(cache._installations) == []

    def test_cache_is_another_name(self):
        assert Cache is CacheKit

    def test_a_replaced_configuration_is_followed(self, caplog):
        caplog.set_level(logging.INFO)
        cache, runs = CacheKit(), []

        @cache.memoize()
        def square(n):
            runs.append(n)
            return n * n

        app = make_app(cache)
        client = app.test_client()
        assert client.get("/metrics").status_code == 200
        with app.app_context():
            square(3)
            other = Service(load([], settings={**CONFIG, "metrics": {"path": "/other"}}, environ={}))
            mine = replace_default(other)
            try:
                square(3)
                assert runs == [3, 3]
                assert client.get("/other").status_code == 200
                assert client.get("/metrics").status_code == 404
            finally:
                replace_default(mine)
                other.close()
            assert client.get("/metrics").status_code == 200
            assert client.get("/other").status_code == 404
        assert "the application has a route" not in caplog.text


OURS = ("Age", "X-Cache", "Cache-Status")


def without_ours(answer):
    """The fields of an answer but for those that say how it came about."""
    return sorted((name, value) for name, value in answer.headers if name not in OURS)


def counting(view=None, cache=None, rule="/", **options):
    """An application with one cached view that counts its runs; client and counter."""
    cache = cache or CacheKit()
    app = make_app(cache)
    runs = []

    def page(**kwargs):
        runs.append(request.full_path)
        return f"page {len(runs)}" if view is None else view()

    route = options.pop("route", {})
    app.add_url_rule(rule, view_func=cache.cached(**options)(page), **route)
    return app.test_client(use_cookies=False), runs


class TestCachedViews:
    """What is shared, and under which key."""

    def test_the_second_visitor_gets_the_stored_response(self):
        def view():
            return {"a": [1, 2]}, {"X-Mine": "yes", "Cache-Control": "public, max-age=60"}

        client, runs = counting(view)
        first, second = client.get("/"), client.get("/")
        assert len(runs) == 1
        assert (second.status_code, second.data) == (200, first.data)
        assert without_ours(second) == without_ours(first)
        assert second.json == {"a": [1, 2]}

    @pytest.mark.parametrize("answer", ["text", b"bytes", {"a": 1}, [1, 2], ("text", {"X": "1"}), ""])
    def test_every_kind_of_answer(self, answer):
        client, runs = counting(lambda: answer)
        first, second = client.get("/"), client.get("/")
        assert (second.data, without_ours(second)) == (first.data, without_ours(first))
        assert len(runs) == 1

    def test_several_headers_of_one_name_stay(self):
        client, _ = counting(lambda: Response("x", headers=[("Link", "<a>"), ("Link", "<b>")]))
        client.get("/")
        assert client.get("/").headers.getlist("Link") == ["<a>", "<b>"]

    def test_queries_are_told_apart_whatever_their_order(self):
        client, runs = counting()
        groups = [
            ["/", "/?"],
            ["/?a=1&b=2", "/?b=2&a=1"],
            ["/?a=1", "/?a=1"],
            ["/?a=2"],
            ["/?a=1&a=2", "/?a=1&%61=2"][:1],
            ["/?a=2&a=1"],
            ["/?a=1%26b=2"],
            ["/?a"],
        ]
        seen = {}
        for group in groups:
            texts = {client.get(path).text for path in group}
            assert len(texts) == 1
            seen[texts.pop()] = group
        assert len(seen) == len(groups) == len(runs)

    def test_one_name_spelt_in_two_ways_keeps_its_order(self):
        client, runs = counting(lambda: ",".join(request.args.getlist("a")))
        assert client.get("/?%61=1&a=2").text == "1,2"
        assert client.get("/?a=2&%61=1").text == "2,1"
        assert len(runs) == 2

    def test_a_query_that_does_not_matter(self):
        client, runs = counting(query_string=False)
        assert {client.get(path).text for path in ("/?a=1", "/?a=2", "/")} == {"page 1"}
        assert len(runs) == 1

    def test_path_host_scheme_and_mount_point_are_told_apart(self):
        client, runs = counting(rule="/<path:rest>")
        for options in (
            {"path": "/a"},
            {"path": "/b"},
            {"path": "/a", "base_url": "http://evil.test"},
            {"path": "/a", "base_url": "https://localhost"},
            {"path": "/a", "base_url": "http://localhost/mounted"},
        ):
            assert client.get(**options).text == client.get(**options).text
        assert len(runs) == 5

    def test_two_views_of_one_name_do_not_meet(self):
        cache = CacheKit()
        app = make_app(cache)
        for n in range(2):
            blueprint = Blueprint(f"b{n}", __name__, subdomain=None)

            @blueprint.route("/")
            @cache.cached()
            def index(n=n):
                return f"{n}"

            app.register_blueprint(blueprint, url_prefix=f"/{n}")
        client = app.test_client()
        assert [client.get(f"/{n}/").text for n in (0, 1, 0, 1)] == ["0", "1", "0", "1"]

    def test_applications_of_different_names_do_not_meet(self):
        cache = CacheKit()

        @cache.cached()
        def index():
            from flask import current_app

            return current_app.name

        for name in ("a", "b"):
            app = make_app(cache, name)
            app.add_url_rule("/", view_func=index)
            assert app.test_client().get("/").text == name

    def test_head_is_answered_from_what_get_kept(self):
        client, runs = counting()
        assert client.head("/").headers["X-Cache"] == "MISS"
        assert client.get("/").text == client.get("/").text == "page 2"
        answer = client.head("/")
        assert (answer.data, answer.headers["X-Cache"], answer.headers["Content-Length"]) == (b"", "HIT", "6")
        assert len(runs) == 2

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    def test_other_methods_always_reach_the_view(self, method):
        client, runs = counting(route={"methods": ["GET", method]})
        client.get("/")
        assert client.open("/", method=method).text == "page 2"
        assert client.open("/", method=method).text == "page 3"
        assert client.get("/").text == client.get("/").text == "page 4"  # they have outdated the first
        assert len(runs) == 4

    def test_a_prefix_tells_apart_as_a_text_or_per_request(self):
        client, runs = counting(key_prefix=lambda: request.headers.get("X-Tenant"))
        for tenant in ("a", "b", "a", "b"):
            client.get("/", headers={"X-Tenant": tenant})
        assert len(runs) == 2

    def test_unless_goes_around(self):
        client, runs = counting(unless=lambda: "preview" in request.args)
        for _ in range(2):
            client.get("/?preview=1")
        assert len(runs) == 2
        client, runs = counting(unless=lambda view, **kwargs: kwargs["n"] == 1, rule="/<int:n>")
        for n in (1, 1, 2, 2):
            client.get(f"/{n}")
        assert len(runs) == 3

    def test_timeouts_profiles_and_delete_cached(self):
        cache, runs = CacheKit(), []
        app = make_app(cache)

        @app.route("/<int:n>")
        @cache.cached(timeout=0, profile="users", tags=["pages"])
        def page(n):
            runs.append(n)
            return str(n)

        client = app.test_client()

        def twice():
            del runs[:]
            for n in (1, 2, 1, 2):
                client.get(f"/{n}")
            return runs

        assert twice() == [1, 2]
        assert metric(client, "cachekit_cache_entries", region="users") == 2
        with app.app_context():
            assert cache.delete_cached(page) is Outcome.DONE
            assert twice() == [1, 2]
            cachekit.invalidate_tags("pages")
            assert twice() == [1, 2]
            cache.region("users").clear()
            assert twice() == [1, 2]
            assert twice() == []

    def test_class_based_and_async_views(self):
        cache, runs = CacheKit(), []
        app = make_app(cache)

        class Methods(MethodView):
            @cache.cached()
            def get(self, n):
                runs.append(n)
                return str(n)

        class Decorated(View):
            decorators = (cache.cached(),)

            def dispatch_request(self):
                runs.append("view")
                return "view"

        @app.route("/async")
        @cache.cached()
        async def later():
            runs.append("async")
            return "async"

        app.add_url_rule("/m/<int:n>", view_func=Methods.as_view("methods"))
        app.add_url_rule("/v", view_func=Decorated.as_view("view"))
        client = app.test_client()
        for path, text in (("/m/1", "1"), ("/m/2", "2"), ("/v", "view"), ("/async", "async")):
            assert [client.get(path).text for _ in range(2)] == [text, text]
        assert runs == [1, 2, "view", "async"]

    def test_decorators_above_it_that_use_wraps(self):
        cache, runs = CacheKit(), []
        app = make_app(cache)

        def above(view):
            @functools.wraps(view)
            def wrapper(*args, **kwargs):
                return view(*args, **kwargs)

            return wrapper

        @app.route("/")
        @above
        @cache.cached()
        def index():
            runs.append(1)
            return "x"

        for _ in range(2):
            app.test_client().get("/")
        assert runs == [1]
        with app.app_context():
            cache.delete_cached(index)
        app.test_client().get("/")
        assert runs == [1, 1]

    def test_a_function_that_is_no_view_is_not_touched_and_told_so_once(self, caplog):
        cache = CacheKit()
        app = make_app(cache)

        @cache.cached(key_prefix="comments")
        def comments():
            return ["a", "b"]

        app.add_url_rule("/", view_func=lambda: " ".join(comments()), endpoint="index")
        assert [app.test_client().get("/").text for _ in range(3)] == ["a b"] * 3
        assert [record.levelname for record in caplog.records if "memoize()" in record.message] == ["WARNING"]

    def test_what_has_no_meaning_is_refused(self):
        cache = CacheKit()
        for options in ({"tags": 5}, {"key": lambda: 1}, {"ttl": 5}, {"timeuot": 5}, {"unless": True}):
            with pytest.raises(TypeError):
                cache.cached(**options)(lambda: "x")
        with pytest.raises(TypeError):
            cache.cached(lambda: "x")


class TestPrivacy:
    """Nothing that may be meant for one visitor is stored, and no such visitor is answered from the cache."""

    @pytest.mark.parametrize("headers", [
        {"Authorization": "Bearer alice"}, {"Authorization": "nonsense"}, {"Authorization": ""}, {"Cookie": "sid=a"},
    ], ids=str)  # fmt: skip
    def test_a_visitor_who_shows_who_it_is_goes_around_the_cache(self, headers):
        client, runs = counting()
        assert [client.get("/", headers=headers).text for _ in range(2)] == ["page 1", "page 2"]
        assert client.get("/").text == "page 3"
        assert client.get("/", headers=headers).text == "page 4"
        assert client.get("/").text == "page 3"
        assert len(runs) == 4

    def test_so_does_one_whom_the_web_server_knows(self):
        client, runs = counting()
        for _ in range(2):
            client.get("/", environ_overrides={"REMOTE_USER": "alice"})
        assert len(runs) == 2

    def test_and_one_who_sends_a_body(self):
        client, runs = counting()
        for body in (b"a", b"b"):
            client.get("/", data=body)
        assert len(runs) == 2

    @pytest.mark.parametrize("answer", [
        lambda: Response("x", headers={"Set-Cookie": "sid=alice"}),
        lambda: Response("x", headers={"Cache-Control": "private"}),
        lambda: Response("x", headers={"Cache-Control": 'private="X-User"'}),
        lambda: Response("x", headers={"Cache-Control": "max-age=5, No-Store"}),
        lambda: Response("x", headers={"Cache-Control": "no-cache"}),
        lambda: Response("x", headers={"Cache-Control": "max-age=0"}),
        lambda: Response("x", headers={"Cache-Control": "s-maxage=0"}),
        lambda: Response("x", headers={"Vary": "Cookie"}),
        lambda: Response("x", headers={"Vary": "*"}),
        lambda: ("created", 201),
        lambda: redirect("/login"),
        lambda: ("not found", 404),
        lambda: ("broken", 500),
        lambda: abort(403),
        lambda: session.get("user", "nobody"),
        lambda: str("user" in session),
        lambda: session.__setitem__("user", "alice") or "x",
        lambda: flash("hello alice") or "x",
        lambda: str(after_this_request(lambda r: r.set_cookie("sid", "alice") or r)),
        lambda: Response(iter(["a", "b"])),
        lambda: send_file(__file__),
        lambda: Response([b"x"], direct_passthrough=True),
    ])  # fmt: skip
    def test_a_response_that_may_be_one_visitor_s_is_not_stored(self, answer):
        client, runs = counting(answer)
        for _ in range(2):
            client.get("/").close()
        assert len(runs) == 2

    def test_a_session_that_was_used_before_the_view_ran(self):
        client, runs = counting()
        client.application.before_request(lambda: session.get("user") and None)
        for _ in range(2):
            client.get("/")
        assert len(runs) == 2

    def test_a_visitor_whose_session_was_used_before_the_view_gets_no_stored_page(self):
        client, runs = counting()
        client.application.before_request(lambda: session.get("user") if "X-Use" in request.headers else None)
        for headers in ({}, {"X-Use": "1"}, {}):
            client.get("/", headers=headers)
        assert len(runs) == 2

    def test_a_page_that_was_not_stored_once_is_stored_when_it_may_be(self):
        answers = iter([("broken", 500), ("private", {"Cache-Control": "private"}), "for all"])
        client, runs = counting(lambda: next(answers))
        assert [client.get("/").text for _ in range(4)] == ["broken", "private", "for all", "for all"]
        assert len(runs) == 3

    def test_what_follows_the_view_happens_to_hits_too(self):
        client, runs = counting()

        @client.application.after_request
        def stamp(response):
            response.headers["X-Stamp"] = request.headers["X-Who"]
            return response

        assert [client.get("/", headers={"X-Who": who}).headers["X-Stamp"] for who in "abc"] == ["a", "b", "c"]
        assert len(runs) == 1

    def test_streams_and_files_pass_untouched(self):
        closed = []

        def stream():
            def parts():
                try:
                    yield "a"
                    yield "b"
                finally:
                    closed.append(True)

            return Response(parts())

        client, _ = counting(stream)
        answer = client.get("/", buffered=False)
        assert answer.is_streamed
        assert not closed
        assert b"".join(answer.response) == b"ab"
        answer.close()
        assert closed == [True]

    def test_alice_and_bob(self):
        """The view answers each visitor by name; whoever shows a name must never see another's page."""

        def view():
            who = request.headers.get("Authorization") or request.cookies.get("sid") or "nobody"
            answer = Response(who)
            if who != "nobody":
                answer.set_cookie("sid", who)
            return answer

        client, _ = counting(view)
        visitors = [({"Authorization": "alice"}, "alice"), ({"Cookie": "sid=bob"}, "bob"), ({}, "nobody")]
        for _ in range(3):
            for headers, name in visitors:
                assert client.get("/", headers=headers).text == name
            assert "Set-Cookie" not in client.get("/").headers

    def test_one_warning_names_the_route_and_no_secret(self, caplog):
        client, _ = counting(rule="/<name>")
        for n in range(3):
            client.get(f"/page{n}", headers={"Cookie": "sid=s3cret"})
            client.get(f"/page{n}", headers={"Authorization": "s3cret"})
        told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert len(told) == 2
        assert all("/<name>" in message for message in told)
        assert "s3cret" not in caplog.text

    def test_what_is_stored_is_plain_data(self):
        with start_server("valkey") as server:
            backend = {"url": server.url, "budget": "10s", "adaptive": False}  # the machine may be busy
            config = {"namespace": "plain", "backends": {"default": backend}, "profiles": {"default": {}}}
            cache = CacheKit(config=config)
            app = make_app(cache)
            app.add_url_rule("/", view_func=cache.cached()(lambda: ("<html>", {"X": "1"})), endpoint="index")
            client = app.test_client()
            client.get("/")
            own = app.extensions["cachekit"].service()
            own.tables().__iter__().__next__()[1].clear()  # what follows comes from the server
            assert client.get("/").text == "<html>"
            assert client.get("/").headers["X"] == "1"
            assert metric(client, "cachekit_cache_hits_total", tier="l2") >= 1
            own.close()


class TestTogether:
    """Visitors who come at the same time."""

    @staticmethod
    def visit(app, view_started, go_on, waiting):
        """One visitor starts the view, a second one joins, then the view goes on; both answers."""
        answers = {}

        def get(who):
            answers[who] = app.test_client().get("/", headers={"X-Who": who})

        threads = [threading.Thread(target=get, args=(who,)) for who in ("first", "second")]
        threads[0].start()
        assert view_started.wait(10)
        threads[1].start()
        deadline = time.monotonic() + 10
        while not waiting() and time.monotonic() < deadline:
            time.sleep(0.001)
        go_on.set()
        for thread in threads:
            thread.join(10)
        return answers["first"], answers["second"]

    def run(self, service, answer):
        started, go_on, runs = threading.Event(), threading.Event(), []

        def view():
            runs.append(1)
            started.set()
            go_on.wait(10)
            return answer()

        client, _ = counting(view)

        def waiting():
            return any(flight.future is not None for flight in list(service.flights.running.values()))

        return *self.visit(client.application, started, go_on, waiting), len(runs)

    def test_a_page_for_everybody_is_made_once(self, service):
        first, second, runs = self.run(service, lambda: request.headers["X-Who"])
        assert (first.text, second.text, runs) == ("first", "first", 1)

    @pytest.mark.parametrize("header", ["Set-Cookie", "Vary"])
    def test_a_page_for_one_visitor_is_not_given_to_those_who_waited(self, service, header):
        said = {"Set-Cookie": lambda: f"x={request.headers['X-Who']}", "Vary": lambda: "X-Who"}[header]
        first, second, runs = self.run(service, lambda: Response(request.headers["X-Who"], headers={header: said()}))
        assert (first.text, second.text, runs) == ("first", "second", 2)
        assert second.headers[header] == {"Set-Cookie": "x=second", "Vary": "X-Who"}[header]

    def test_an_http_error_is_not_given_to_those_who_waited(self, service):
        def answer():
            abort(Response(request.headers["X-Who"], 403))

        first, second, runs = self.run(service, answer)
        assert (first.text, second.text, runs) == ("first", "second", 2)

    def test_an_exception_is_its_own_visitor_s(self, service):
        def answer():
            raise ValueError(request.headers["X-Who"])

        client, _ = counting(lambda: answer())
        client.application.testing = True
        with pytest.raises(ValueError, match="alice"):
            client.get("/", headers={"X-Who": "alice"})


class TestMetrics:
    """/metrics is there, unless the application has one, and under the configured conditions."""

    @staticmethod
    def client(metrics=None, app=None):
        app = app or Flask("shop")
        CacheKit(app, config={**CONFIG, "metrics": metrics or {}})
        return app.test_client()

    def test_the_format_is_negotiated(self):
        client = self.client()
        assert client.get("/metrics").headers["content-type"].startswith("text/plain; version=")
        answer = client.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert {family.name for family in parse_openmetrics(answer.text)} >= {"cachekit_cache_hits"}

    def test_the_path_is_configured_and_it_can_be_switched_off(self):
        client = self.client({"path": "/internal/metrics"})
        assert client.get("/internal/metrics").status_code == 200
        assert client.get("/metrics").status_code == 404
        assert self.client({"enabled": False}).get("/metrics").status_code == 404

    def test_a_token_is_demanded_and_allowed_networks_need_none(self):
        client = self.client({"token": "s3cret"})
        refused = client.get("/metrics")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert "cachekit_" not in refused.text
        assert client.get("/metrics", headers={"authorization": "Bearer s3cret"}).status_code == 200
        client = self.client({"token": "s3cret", "allow": ["10.0.0.0/8"]})
        assert client.get("/metrics", environ_overrides={"REMOTE_ADDR": "10.9.8.7"}).status_code == 200
        assert client.get("/metrics", environ_overrides={"REMOTE_ADDR": "192.0.2.1"}).status_code == 401
        client = self.client({"allow": ["10.0.0.0/8"]})
        assert client.get("/metrics", environ_overrides={"REMOTE_ADDR": "192.0.2.1"}).status_code == 403

    def test_a_catch_all_route_does_not_hide_it(self):
        for rule in ("/<page>", "/<path:rest>"):
            app = Flask("shop")
            app.add_url_rule(rule, view_func=lambda **_: "page", endpoint="page")
            assert "cachekit_" in self.client(app=app).get("/metrics").text

    def test_another_method_at_the_same_path_stays_the_application_s(self):
        app = Flask("shop")
        app.add_url_rule("/metrics", view_func=lambda: "pushed", endpoint="push", methods=["POST"])
        client = self.client(app=app)
        assert client.post("/metrics").text == "pushed"
        assert client.get("/metrics").status_code == 200

    @pytest.mark.parametrize("registered", ["before", "after"])
    def test_what_guards_the_application_guards_it_too(self, registered):
        app = Flask("shop")
        guard = lambda: ("no", 418)  # noqa: E731
        if registered == "before":
            app.before_request(guard)
        client = self.client(app=app)
        if registered == "after":
            app.before_request(guard)
        assert client.get("/metrics").status_code == 418

    @pytest.mark.parametrize("own", ["before", "after", "blueprint", "slash"])
    def test_an_application_with_a_route_there_shows_ours_with_its_own(self, own):
        app = Flask("shop")
        path = "/metrics/" if own == "slash" else "/metrics"

        def expose():
            return Response(generate_latest(REGISTRY), content_type=CONTENT_TYPE_LATEST)

        if own == "before":
            app.route("/metrics")(expose)
        CacheKit(app)
        if own in ("after", "slash"):
            app.route(path)(expose)
        elif own == "blueprint":
            blueprint = Blueprint("mine", __name__)
            blueprint.route("/metrics")(expose)
            app.register_blueprint(blueprint)
        cachekit.region("users").get("nothing")
        client = app.test_client()
        before = metric(client, "cachekit_cache_misses_total", path, region="users", function="")
        cachekit.region("users").get("nothing")
        assert metric(client, "cachekit_cache_misses_total", path, region="users", function="") == before + 1
        assert "python_info" in client.get(path).text

    def test_an_application_that_matches_hosts_has_it_on_each(self):
        app = Flask("shop", host_matching=True, static_host="static.test")
        client = self.client(app=app)
        for base in ("http://a.test", "http://b.test"):
            assert client.get("/metrics", base_url=base).status_code == 200

    def test_routes_may_be_added_after_the_constructor(self):
        app = Flask("shop")
        client = self.client(app=app)
        app.route("/late")(lambda: "late")
        assert client.get("/late").text == "late"

    def test_labels_are_bounded_whatever_the_paths(self):
        client, _ = counting(rule="/<path:rest>")
        client.get("/x")
        lines = len(client.get("/metrics").text.splitlines())
        for n in range(500):
            client.get(f"/page/{n}?q={n}")
        text = client.get("/metrics").text
        assert len(text.splitlines()) < lines + 40
        assert "/page/" not in text


@contextmanager
def serving(app):
    """A real server in threads; its base URL."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetch(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.status, answer.read().decode()


def visit_together(base, paths, clients):
    """Each client fetches all paths; every answer."""
    answers = []

    def visit():
        for path in paths:
            answers.append((path, *fetch(base + path)))

    threads = [threading.Thread(target=visit) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_a_real_server_under_concurrent_clients_computes_once_and_counts_exactly():
    cache, runs = CacheKit(config=CONFIG), []
    app = make_app(cache)

    @app.route("/<int:n>")
    @cache.cached(profile="users")
    def page(n):
        runs.append(n)
        time.sleep(0.005)
        return str(n * n)

    with serving(app) as base:
        paths = [f"/{n % 10}" for n in range(50)]
        answers = visit_together(base, paths, clients=4)
        client = app.test_client()
        counts = {
            name: metric(client, f"cachekit_cache_{name}_total", region="users")
            for name in ("hits", "misses", "waited", "loads")
        }
    assert len(answers) == 200
    assert all(status == 200 and text == str(int(path[1:]) ** 2) for path, status, text in answers)
    assert sorted(runs) == list(range(10))
    assert counts["misses"] == counts["loads"] == 10
    assert counts["hits"] + counts["misses"] + counts["waited"] == 200


def test_no_request_fails_while_the_store_is_killed_and_returns():
    with start_server("valkey") as store:
        breaker = {"open_for": "200ms", "open_max": "200ms"}
        config = {
            "namespace": "outage",
            "backends": {"default": {"url": store.url, "breaker": breaker}},
            "profiles": {"default": {"l1": {"mode": "off"}}},
        }
        cache = CacheKit(config=config)
        app = make_app(cache)

        @cache.memoize()
        def square(n):
            return n * n

        @app.route("/<int:n>")
        @cache.cached()
        def page(n):
            cache.set("last", n)
            cache.get("last")
            return str(square(n))

        def all_are_right(answers):
            return all(status == 200 and text == str(int(path[1:]) ** 2) for path, status, text in answers)

        paths = [f"/{n}" for n in range(10)]
        with serving(app) as base:
            assert all_are_right(visit_together(base, paths, clients=3))
            store.kill()
            assert all_are_right(visit_together(base, paths, clients=3))
            store.restart()
            deadline = time.monotonic() + 20
            hits = 0.0
            before = metric(app.test_client(), "cachekit_cache_hits_total", tier="l2")
            while hits <= before and time.monotonic() < deadline:
                assert all_are_right(visit_together(base, paths, clients=1))
                hits = metric(app.test_client(), "cachekit_cache_hits_total", tier="l2")
            assert hits > before
        app.extensions["cachekit"].service().close()


def test_importing_cachekit_does_not_import_flask():
    code = "import sys, cachekit; cachekit.region('a'); sys.exit('flask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
