"""What users of Flask-Caching find under its names: switches, templates, signals, settings, old defaults."""

import asyncio
import json
import logging

import pytest
from flask import Flask, abort, make_response, render_template, render_template_string, request
from jinja2 import DictLoader
from typer.testing import CliRunner

from cachekit import ConfigError, Outcome, tenant
from cachekit.cli import build
from cachekit.config.settings import load
from cachekit.integrations import flask as ours
from cachekit.integrations.flask import CachedResponse, CacheKit, make_template_fragment_key
from cachekit.process import replace_default
from cachekit.service import Service

CONFIG = {"profiles": {"default": {"backend": "none"}, "users": {"ttl": "1m"}}}


@pytest.fixture(autouse=True)
def service():
    service = Service(load([], settings=CONFIG, environ={}))
    before = replace_default(service)
    yield service
    replace_default(before)
    service.close()


def make_app(cache, **config):
    app = Flask("names", static_folder=None)
    app.config.update(config)
    cache.init_app(app)
    return app


@pytest.fixture
def cache():
    cache = CacheKit()
    with make_app(cache).app_context():
        yield cache


class TestMemoizeSwitches:
    """What is asked for each call."""

    def counted(self, cache, **options):
        runs = []

        @cache.memoize(**options)
        def number(n):
            runs.append(n)
            return len(runs)

        return number, runs

    def test_an_update_is_forced(self, cache):
        wanted = []
        number, _ = self.counted(cache, forced_update=lambda: bool(wanted))
        assert [number(1), number(1)] == [1, 1]
        wanted.append(1)
        assert number(1) == 2
        wanted.clear()
        assert number(1) == 2
        number, _ = self.counted(cache, version=2, forced_update=lambda function, n: n == 3)
        assert [number(1), number(1), number(3), number(3)] == [1, 1, 2, 3]

    @pytest.mark.parametrize("asked", [lambda value: value < 2, lambda value, n: value < 2 and n == 1])
    def test_a_value_is_judged(self, cache, asked):
        number, _ = self.counted(cache, is_stale=asked)
        assert [number(1), number(1), number(1)] == [1, 2, 2]

    def test_none_is_kept_unless_it_is_not_wanted(self, cache):
        for cache_none, expected in ((None, 1), (True, 1), (False, 2)):
            runs = []
            function = cache.memoize(cache_none=cache_none, version=str(cache_none))(lambda n: runs.append(n))  # noqa: B023
            function(1), function(1)
            assert len(runs) == expected

    def test_names_and_sources_make_keys(self, cache):
        def first(n):
            return 1

        def second(n):
            return 2

        second.__qualname__ = first.__qualname__
        keys = {
            cache.memoize(make_name=lambda name: f"{name}_v1")(first).make_cache_key(first, 1),
            cache.memoize(make_name=lambda name: f"{name}_v2")(first).make_cache_key(first, 1),
            cache.memoize(source_check=True)(first).make_cache_key(first, 1),
            cache.memoize(source_check=True)(second).make_cache_key(second, 1),
        }
        assert len(keys) == 4
        assert all("_v1" in key for key in keys if "_v2" not in key and "first_" in key)

    def test_attributes(self, cache):
        number, runs = self.counted(cache, timeout=50)
        assert number.cache_timeout == 50
        number(1)
        key = number.make_cache_key(number.uncached, 1)
        region = cache.region()
        assert 40 < region.remaining(key) < 60
        number.cache_timeout = 500
        number(2)
        assert 400 < region.remaining(number.make_cache_key(number.uncached, 2)) < 600
        cache.delete(key)
        number(1)
        assert runs == [1, 2, 1]

    def test_all_calls_are_forgotten(self, cache):
        number, runs = self.counted(cache, hash_method=object())
        number(1), number(2)
        assert cache.delete_memoized_verhash(number) is Outcome.DONE
        assert number.delete_memoized() is Outcome.DONE
        number(1), number(2)
        assert runs == [1, 2, 1, 2]

    def test_async_functions_have_the_switches_too(self):
        cache = CacheKit()
        runs = []

        @cache.memoize(is_stale=lambda value: value < 2, forced_update=lambda f, n: n == 7)
        async def number(n):
            runs.append(n)
            return len(runs)

        async def calls():
            with make_app(cache).app_context():
                return [await number(n) for n in (1, 1, 1, 7, 7)]

        assert asyncio.run(calls()) == [1, 2, 2, 3, 4]


class TestViewSwitches:
    """What is asked for each request."""

    def client(self, view=lambda: "page", **options):
        cache, runs = CacheKit(), []
        app = Flask("names")

        def page():
            runs.append(1)
            return view()

        app.add_url_rule("/", view_func=cache.cached(**options)(page))
        cache.init_app(app)
        return app.test_client(), runs

    @staticmethod
    def results(client, count=3):
        return [client.get("/").headers["X-Cache"] for _ in range(count)]

    def test_an_update_is_forced(self):
        client, _ = self.client(forced_update=lambda: True)
        assert self.results(client) == ["MISS"] * 3

    def test_a_page_is_judged(self):
        client, runs = self.client(is_stale=lambda response: response.get_data() == b"page" and len(runs) < 2)
        assert self.results(client) == ["MISS", "MISS", "HIT"]

    def test_a_response_is_filtered(self):
        client, _ = self.client(response_filter=lambda value: value != "page")
        assert self.results(client) == ["BYPASS"] * 3
        client, _ = self.client(lambda: ("other", 200), response_filter=lambda value: value == ("other", 200))
        assert self.results(client) == ["MISS", "HIT", "HIT"]

    def test_a_hit_is_indicated(self):
        client, _ = self.client(response_hit_indication=True)
        assert [client.get("/").headers.get("hit_cache") for _ in range(2)] == [None, "True"]

    def test_going_around_says_so(self):
        client, _ = self.client(unless=lambda: True)
        assert client.get("/").headers["Cache-Status"] == 'cachekit; fwd=bypass; detail="unless"'


class TestObject:
    """Where the extension is found."""

    def test_as_flask_caching_is(self):
        cache = CacheKit()
        app = make_app(cache)
        assert app.extensions["cache"][cache] is cache.cache is cache
        with app.app_context():
            assert cache.cache.set("a", 1) is True
            assert cache.get("a") == 1

    def test_beside_another_extension_of_that_name(self):
        app = Flask("names")
        app.extensions["cache"] = "another"
        CacheKit(app)
        assert app.extensions["cache"] == "another"

    def test_arguments_by_position(self):
        app = Flask("names")
        CacheKit(app, False, {"profiles": {}})
        assert "cachekit" in app.extensions
        with pytest.raises(Exception, match="unknown tag 'cache'"), app.app_context():
            render_template_string("{% cache 5 %}x{% endcache %}")


class TestFragments:
    """The tag of templates."""

    def rendered(self, template, **context):
        return render_template_string(template, **context)

    def test_a_fragment_is_rendered_once_for_each_key(self, cache):
        template = "{% cache 60, 'name', user %}{{ text }}{% endcache %}!"
        assert self.rendered(template, user=1, text="<a>") == "&lt;a&gt;!"
        assert self.rendered(template, user=1, text="b") == "&lt;a&gt;!"
        assert self.rendered(template, user=2, text="b") == "b!"
        cache.delete(make_template_fragment_key("name", [1]))
        assert self.rendered(template, user=1, text="c") == "c!"

    def test_timeouts(self, cache):
        for timeout, least, most in (("None", 250, 350), ("0", None, None), ("7", 6, 8), ("'7m'", 400, 480)):
            name = f"fragment {timeout}"
            self.rendered("{% cache " + timeout + ", name %}x{% endcache %}", name=name)
            left = cache.region().remaining(make_template_fragment_key(name))
            assert left is least is None or least < left < most

    def test_del_forgets(self, cache):
        keep, forget = "{% cache 60, 'n' %}{{ text }}{% endcache %}", "{% cache 'del', 'n' %}{{ text }}{% endcache %}"
        assert [self.rendered(keep, text="a"), self.rendered(forget, text="b")] == ["a", "b"]
        assert self.rendered(keep, text="c") == "c"

    def test_without_a_key_the_place_is_the_key(self, cache):
        template = "{% cache %}{{ text }}{% endcache %}\n{% cache 60 %}{{ text }}2{% endcache %}"
        assert self.rendered(template, text="a") == "a\na2"
        assert self.rendered(template, text="b") == "a\na2"

    def test_two_tags_of_one_line_are_two_fragments(self, cache):
        template = (
            "{% cache 60 %}{{ a }}{% endcache %}|{% cache 60 %}{{ b }}{% cache 60 %}{{ c }}{% endcache %}{% endcache %}"
        )
        for _ in range(2):
            assert self.rendered(template, a=1, b=2, c=3) == "1|23"
        assert self.rendered(template, a=4, b=5, c=6) == "1|23"

    def test_templates_without_a_name_are_told_apart_by_what_they_are(self, cache):
        one, other = "{% cache 60 %}{{ text }}{% endcache %}", "<p>{% cache 60 %}{{ text }}{% endcache %}"
        assert [self.rendered(one, text="a"), self.rendered(other, text="b")] == ["a", "<p>b"]
        assert [self.rendered(one, text="c"), self.rendered(other, text="c")] == ["a", "<p>b"]

    def test_a_template_with_a_name_keeps_its_fragment_in_every_process(self):
        texts = []
        for text in ("a", "b"):
            app = make_app(CacheKit())
            app.jinja_loader = DictLoader(
                {"one": "{% cache 60 %}{{ text }}{% endcache %}", "two": "{% include 'one' %}"}
            )
            with app.app_context():
                texts += [render_template("two", text=text), render_template("one", text=text)]
        assert texts == ["a"] * 4

    def test_keys_do_not_meet(self):
        keys = [
            make_template_fragment_key(*each) for each in (("a", ["b_c"]), ("a_b", ["c"]), ("a", ["b", "c"]), ("a",))
        ]
        assert len(set(keys)) == 4
        assert make_template_fragment_key("a", [1]) == make_template_fragment_key("a", ["1"])


class TestSignals:
    """Sent if it is wanted, with the arguments that Flask-Caching gives."""

    def heard(self, monkeypatch, **config):
        cache, heard = CacheKit(), []
        app = Flask("names")

        @cache.memoize()
        def double(n):
            return 2 * n

        app.add_url_rule("/<int:n>", view_func=cache.cached()(lambda n: str(double(n))))
        app.config.update(config)
        cache.init_app(app)
        for name in ("cache_view_hit", "cache_view_miss", "cache_memoize_hit", "cache_memoize_miss"):
            receiver = lambda sender, name=name, **said: heard.append((name, said))  # noqa: E731
            signal = getattr(ours, name)
            signal.connect(receiver, weak=False)
            monkeypatch.setattr(signal, "_undo", receiver, raising=False)
        try:
            for _ in range(2):
                app.test_client().get("/3")
            with app.app_context():
                double(3)
        finally:
            for name in ("cache_view_hit", "cache_view_miss", "cache_memoize_hit", "cache_memoize_miss"):
                getattr(ours, name).receivers.clear()
        return cache, heard

    def test_if_it_is_wanted(self, monkeypatch):
        cache, heard = self.heard(monkeypatch, CACHE_ENABLE_SIGNALS=True)
        assert [name for name, _ in heard] == [
            "cache_memoize_miss", "cache_view_miss", "cache_view_hit", "cache_memoize_hit",
        ]  # fmt: skip
        assert all(said["cache"] is cache and said["cache_key"] for _, said in heard)
        assert [(said["args"], said["kwargs"]) for _, said in heard] == [
            ((3,), {}),
            ((), {"n": 3}),
            ((), {"n": 3}),
            ((3,), {}),
        ]

    def test_and_not_otherwise(self, monkeypatch):
        assert self.heard(monkeypatch)[1] == []


def spec_of(**config):
    app = Flask("names")
    app.config.update(config)
    CacheKit(app)
    return app.extensions["cachekit"].service().spec


class TestSettings:
    """CACHE_* settings are followed, or refused with what to write instead."""

    def test_stores(self):
        assert spec_of(CACHE_TYPE="SimpleCache").regions["default"].backend == "none"
        assert spec_of(CACHE_TYPE="flask_caching.backends.SimpleCache").regions["default"].backend == "none"
        assert spec_of(CACHE_TYPE="NullCache").enabled is False
        url = lambda **config: spec_of(**config).backends["default"].url  # noqa: E731
        assert url(CACHE_TYPE="RedisCache", CACHE_REDIS_URL="redis://r:1/2") == "redis://r:1/2"
        assert url(CACHE_TYPE="redis") == "redis://localhost:6379/0"
        assert url(CACHE_REDIS_HOST="r", CACHE_REDIS_PORT=1, CACHE_REDIS_DB=2, CACHE_REDIS_PASSWORD="p/w") == (
            "redis://:p%2Fw@r:1/2"
        )
        sentinels = {"CACHE_REDIS_SENTINELS": [("a", 1), ("b", 2)], "CACHE_REDIS_SENTINEL_MASTER": "main"}
        assert url(CACHE_TYPE="RedisSentinelCache", **sentinels) == "redis+sentinel://a:1,b:2/main/0"
        assert url(CACHE_TYPE="RedisClusterCache", CACHE_REDIS_CLUSTER="a:1, b:2") == "redis+cluster://a:1,b:2"

    def test_addresses_of_ipv6(self):
        backend = spec_of(CACHE_TYPE="RedisCache", CACHE_REDIS_HOST="::1", CACHE_REDIS_PORT="7").backends["default"]
        assert backend.url == "redis://[::1]:7/0"
        sentinels = {"CACHE_REDIS_SENTINELS": [("fe80::1", 1), ("[::1]", 2)]}
        backend = spec_of(CACHE_TYPE="RedisSentinelCache", **sentinels).backends["default"]
        assert backend.url == "redis+sentinel://[fe80::1]:1,[::1]:2/mymaster/0"

    def test_every_prefix_has_a_namespace_of_its_own(self):
        prefixes = [
            "shop", "shop_", "shop:eu", "shop_eu", "shop eu", "shop__eu", "Shop", "ä", "ü", "магазин", "", "1", "2:",
            "flask_cache", "flask_cache_", "s" * 64, "s" * 65, "s" * 66, 7,
        ]  # fmt: skip
        names = [spec_of(CACHE_TYPE="RedisCache", CACHE_KEY_PREFIX=prefix).namespace for prefix in prefixes]
        assert len({*names}) == len(prefixes)
        assert names[:2] == ["shop", "shop_"]

    def test_the_rest(self):
        spec = spec_of(CACHE_TYPE="RedisCache", CACHE_DEFAULT_TIMEOUT=0, CACHE_THRESHOLD=7, CACHE_KEY_PREFIX="shop:v1_")
        assert (spec.namespace, spec.regions["default"].ttl, spec.regions["default"].l1.max_entries) == (
            "shop_v1-8189056a",
            None,
            7,
        )
        assert spec_of(CACHE_TYPE="RedisCache").namespace == "flask_cache_"
        assert spec_of(CACHE_DEFAULT_TIMEOUT=9).regions["default"].ttl == 9
        harmless = {"CACHE_NO_NULL_WARNING": True, "CACHE_IGNORE_ERRORS": True, "CACHE_HASH_METHOD": object()}
        assert spec_of(CACHE_TYPE="simple", **harmless, CACHE_OPTIONS={}).namespace == "cachekit"

    @pytest.mark.parametrize(("setting", "remedy"), [
        ({"CACHE_TYPE": "FileSystemCache"}, "use SimpleCache, RedisCache"),
        ({"CACHE_TYPE": "MemcachedCache"}, "use SimpleCache, RedisCache"),
        ({"CACHE_DIR": "/tmp"}, "no file backend; use CACHE_TYPE"),
        ({"CACHE_MEMCACHED_SERVERS": ["a"]}, "no Memcached backend"),
        ({"CACHE_OPTIONS": {"a": 1}}, r"set the fields of \[backends.default\]"),
        ({"CACHE_SERIALIZER": "pickle"}, "set profiles.default.serializer"),
        ({"CACHE_SOURCE_CHECK": True}, "source_check=True at the decorators"),
        ({"CACHE_KEY_PREFIX": lambda: "x"}, "so write a text"),
        ({"CACHE_TYPE": "redis", "CACHE_REDIS_HOST": object()}, "write the host's name"),
        ({"CACHE_TYPE": "RedisClusterCache"}, "host1:6379,host2:6379"),
        ({"CACHE_TYPE": "RedisSentinelCache", "CACHE_REDIS_SENTINEL_PASSWORD": "x"}, "cannot be given"),
    ], ids=lambda given: None if isinstance(given, str) else "-".join(given))  # fmt: skip
    def test_what_cannot_be_followed_is_refused(self, setting, remedy):
        for give in (lambda: spec_of(**setting), lambda: CacheKit(Flask("names"), config=setting)):
            with pytest.raises(ConfigError, match=remedy):
                give()

    def test_unknown_ones(self, caplog):
        assert spec_of(CACHE_BUSTER="x").namespace == "cachekit"
        assert "CACHE_BUSTER is no setting of Flask-Caching" in caplog.text
        with pytest.raises(ConfigError, match="CACHE_TIPE: no such setting"):
            CacheKit(Flask("names"), config={"CACHE_TIPE": "simple"})

    def test_of_the_constructor_with_ours_above(self):
        app = Flask("names")
        CacheKit(app, config={"CACHE_TYPE": "simple", "CACHE_DEFAULT_TIMEOUT": 9, "profiles": {"default": {"ttl": 8}}})
        default = app.extensions["cachekit"].service().spec.regions["default"]
        assert (default.backend, default.ttl) == ("none", 8)
        assert (
            spec_of(CACHE_DEFAULT_TIMEOUT=9, CACHEKIT={"profiles": {"default": {"ttl": 8}}}).regions["default"].ttl == 8
        )


class TestOldDefaults:
    """flask_caching_defaults=True: what Flask-Caching does, with one warning."""

    def site(self, view, rule="/", **options):
        cache, runs = CacheKit(flask_caching_defaults=True), []
        app = Flask("names")
        app.config["SECRET_KEY"] = "x"

        def page(**kwargs):
            runs.append(1)
            return view(**kwargs)

        made = cache.cached(**options)(page)
        app.add_url_rule(rule, view_func=made, methods=["GET", "POST"])
        cache.init_app(app)
        return app, cache, made, runs

    @pytest.mark.parametrize("second", [
        {"headers": {"Authorization": "bob"}}, {"headers": {"Cookie": "a=bob"}}, {"query_string": "x=2"},
        {"method": "POST"}, {"base_url": "http://evil.test"},
    ], ids=str)  # fmt: skip
    def test_one_page_for_all(self, second):
        app, *_ = self.site(lambda: request.headers.get("Authorization", "nobody"))
        client = app.test_client(use_cookies=False)
        first = client.get("/", headers={"Authorization": "alice"})
        assert client.open("/", **second).text == first.text == "alice"

    def test_errors_and_cookies_are_kept(self):
        app, *_, runs = self.site(lambda: ("down", 500, {"Set-Cookie": "sid=alice"}))
        answers = [app.test_client().get("/") for _ in range(2)]
        assert [(a.status_code, a.headers["Set-Cookie"]) for a in answers] == [(500, "sid=alice")] * 2
        app, *_, runs = self.site(lambda n: abort(404), rule="/other/<n>")
        assert [app.test_client().get("/other/1").status_code for _ in range(2)] == [404, 404]
        assert len(runs) == 1

    def test_one_warning_lists_what_that_exposes(self, caplog):
        app, *_ = self.site(lambda: "x")
        for _ in range(2):
            app.test_client().get("/")
        told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert len(told) == 1
        for word in ("Authorization", "cookies", "host", "method", "query", "errors", "Set-Cookie"):
            assert word in told[0]

    @pytest.mark.parametrize("option", [
        {"per_user": lambda request: request.headers.get("X-Name")}, {"vary": ["X-Name"]}, {"statuses": {404: 1}},
        {"tags": ["t"]}, {"client_ttl": 9}, {"stale_ttl": "1h"},
    ], ids=lambda option: next(iter(option)))  # fmt: skip
    def test_an_option_of_ours_makes_a_view_safe(self, option):
        app, cache, page, _ = self.site(
            lambda: request.headers.get("X-Name", "") + request.query_string.decode(), **option
        )
        client = app.test_client(use_cookies=False)
        seen = [client.get("/", query_string=f"n={n}", headers={"Cookie": "a=1"}) for n in (1, 2)]
        assert [answer.text for answer in seen] == ["n=1", "n=2"]
        assert {answer.headers["X-Cache"] for answer in seen} == {"BYPASS"}
        if "per_user" in option or "vary" in option:
            for name in ("alice", "bob", "alice"):
                answer = client.get("/", headers={"X-Name": name})
                assert answer.text == name
            assert answer.headers["X-Cache"] == "HIT"
        with app.app_context():
            assert cache.delete_cached(page, path="/") is Outcome.DONE

    def test_a_profile_that_does_not_exist_stops_the_start(self):
        with pytest.raises(ConfigError, match=r"page.*nonsense"):
            self.site(lambda: "x", profile="nonsense")
        cache = CacheKit(flask_caching_defaults=True)
        app = make_app(cache)  # which is not held by the cache
        with app.app_context(), pytest.raises(ConfigError, match=r"user.*did you mean 'users'"):
            cache.cached(profile="user")(lambda: "x")

    def test_keys_are_those_of_flask_caching(self):
        app, cache, page, runs = self.site(lambda: "x", query_string=None)
        client = app.test_client()
        client.get("/")
        with app.app_context():
            assert cache.get("view//")[2] == b"x"
            assert page.make_cache_key(path="/") == "view//"
            cache.delete_cached(page, path="/")
        client.get("/")
        assert len(runs) == 2

    def test_switches(self):
        wanted = []
        app, *_, runs = self.site(
            lambda: "x", query_string=True, unless=lambda: "around" in request.args, forced_update=lambda: bool(wanted),
            is_stale=lambda response: response.get_data() == b"old",
            response_filter=lambda response: response.get_data() != b"no",
            response_hit_indication=True,
        )  # fmt: skip
        client = app.test_client()
        for path in ("/?a=1&b=2", "/?b=2&a=1", "/?around", "/?around"):
            client.get(path)
        assert len(runs) == 3
        assert client.get("/?a=1&b=2").headers["hit_cache"] == "True"
        wanted.append(1)
        client.get("/?a=1&b=2")
        assert len(runs) == 4

    def test_a_function_that_is_no_view_is_kept_under_its_prefix(self):
        cache, runs = CacheKit(flask_caching_defaults=True), []
        app = make_app(cache)

        @cache.cached(key_prefix="comments", timeout=0)
        def comments():
            runs.append(1)
            return ["a"]

        with app.test_request_context("/"):
            assert comments() == comments() == cache.get("comments") == ["a"]
            assert cache.region().remaining("comments") is None
        assert len(runs) == 1

    def test_a_response_says_how_long_it_lives_and_none_is_not_kept(self):
        app, cache, *_ = self.site(lambda: CachedResponse(make_response("x"), 9))
        app.test_client().get("/")
        with app.app_context():
            assert 7 < cache.region().remaining("view//") < 11
            runs = []
            nothing = cache.memoize()(lambda n: runs.append(n))
            nothing(1), nothing(1)
        assert len(runs) == 2


class TestCommands:
    """flask cachekit, on the application's own service."""

    @pytest.fixture
    def app(self):
        cache = CacheKit(config={**CONFIG, "namespace": "commands"})
        app = Flask("names")
        app.add_url_rule("/", "page", cache.cached(tags=["pages"])(lambda: "page"))
        cache.init_app(app)
        app.test_client().get("/")
        return app

    @staticmethod
    def run(app, *words):
        return app.test_cli_runner().invoke(args=["cachekit", *words])

    @staticmethod
    def result(app):
        return app.test_client().get("/").headers["X-Cache"]

    def test_stats(self, app):
        done = self.run(app, "stats", "--json")
        said = json.loads(done.output)
        assert (done.exit_code, said["ok"]) == (0, True)
        assert {"region": "users", "backend": "none", "ttl": 60.0, "stale_ttl": 0.0} in said["regions"]
        assert "users" in self.run(app, "stats").output

    def test_stats_of_a_store_that_is_down(self):
        app = Flask("names")
        CacheKit(app, config={"namespace": "x", "backends": {"default": {"url": "redis://127.0.0.1:1"}}})
        done = self.run(app, "stats", "--json")
        assert (done.exit_code, json.loads(done.output)["backends"][0]["state"]) == (1, "down")

    @pytest.mark.parametrize("words", [
        ["clear"], ["clear", "default"], ["invalidate", "--tag", "pages"], ["invalidate", "--url", "http://localhost/"],
    ], ids=" ".join)  # fmt: skip
    def test_clear_and_invalidate(self, app, words):
        assert self.result(app) == "HIT"
        done = self.run(app, *words)
        assert done.exit_code == 0
        assert "done" in done.output
        assert self.result(app) == "MISS"
        assert all(row["outcome"] == "done" for row in json.loads(self.run(app, *words, "--json").output))

    def test_others_stay(self, app):
        self.run(app, "clear", "users")
        self.run(app, "invalidate", "--tag", "other", "--url", "http://localhost/other")
        assert self.result(app) == "HIT"

    def test_regions_that_want_a_tenant(self):
        """Are shown, and cleared of all tenants."""
        app = Flask("names")
        cache = CacheKit(app, config={"namespace": "x", "profiles": {"tenants": {"require_tenant": True}}})
        assert self.run(app, "stats").exit_code == 0
        for words in (["clear"], ["clear", "tenants"]):
            with app.app_context(), tenant("acme"):
                cache.region("tenants").set("k", 1)
            assert self.run(app, *words).exit_code == 0
            with app.app_context(), tenant("acme"):
                assert cache.region("tenants").get("k") is None

    def test_mistakes(self, app):
        assert self.run(app, "clear", "usres").exit_code == 1
        assert "did you mean 'users'" in self.run(app, "clear", "usres").output
        for words in (["invalidate"], ["invalidate", "--url", "/"]):
            assert self.run(app, *words).exit_code == 2
        assert self.run(app, "invalidate", "--tag", "#x").exit_code == 1

    def test_config_check(self, app):
        done = self.run(app, "config", "check", "--json")
        found = json.loads(done.output)
        assert (done.exit_code, found) == (0, {"ok": True, "problems": [], "warnings": found["warnings"], "files": []})
        assert "the configuration is right" in self.run(app, "config", "check").output

    @pytest.mark.parametrize("strict", [False, True])
    def test_config_check_warns_as_the_other_one_does(self, monkeypatch, tmp_path, strict):
        file = tmp_path / "cachekit.toml"
        file.write_text(f"strict = {str(strict).lower()}\n[backends.default]\nurl = 'redis://:secret@127.0.0.1:1'\n")
        monkeypatch.setenv("CACHEKIT_CONFIG", str(file))
        replace_default(None)
        app = Flask("names")
        CacheKit(app)
        mine = self.run(app, "config", "check", "--json")
        other = CliRunner().invoke(build(), ["config", "check", "--json"])
        assert (mine.exit_code, json.loads(mine.output)) == (other.exit_code, json.loads(other.output))
        assert mine.exit_code == int(strict)
        warnings = json.loads(mine.output)["warnings"]
        assert [each.partition(":")[0] for each in warnings] == [str(file), "namespace", "metrics"]
        text = self.run(app, "config", "check").output
        assert f"{'error' if strict else 'warning'}: namespace: not set" in text
        assert ("the configuration is right" in text) is not strict
        assert "secret" not in mine.output + text

    def test_config_check_warns_without_a_file(self):
        replace_default(None)
        app = Flask("names")
        CacheKit(app)
        done = self.run(app, "config", "check")
        assert (done.exit_code, "warning: metrics: /metrics is open to everybody" in done.output) == (0, True)
        assert self.run(app, "config", "check", "--strict").exit_code == 1
