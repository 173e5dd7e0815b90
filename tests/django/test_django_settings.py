"""What settings.CACHES and settings.CACHEKIT mean: regions, servers, times, options; and what is wrong with them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachekit import ConfigError, cache, configure, region
from cachekit.process import default_service
from cachekit.testing.servers import Server

OURS = "cachekit.integrations.django.CacheKitCache"
Use = Callable[..., None]


def ours(**values: Any) -> dict[str, Any]:
    return {"BACKEND": OURS, **values}


@pytest.mark.parametrize("location", [None, ""])
def test_without_a_location_it_is_the_region_default(use: Use, location: Any) -> None:
    from django.core.cache import cache

    use(CACHES={"default": ours() if location is None else ours(LOCATION=location)})
    assert cache.region is region("default")


def test_a_name_is_a_region(use: Use) -> None:
    from django.core.cache import cache

    use(CACHES={"default": ours(LOCATION="users")}, CACHEKIT={"profiles": {"users": {"ttl": "7m"}}})
    cache.set("k", 5)
    assert region("users").get(":1:k") == 5
    assert cache.default_timeout == 420


def test_an_unknown_region_names_the_nearest(use: Use) -> None:
    from django.core.cache import cache
    from django.core.exceptions import ImproperlyConfigured

    use(CACHES={"default": ours(LOCATION="usres")}, CACHEKIT={"profiles": {"users": {}}})
    with pytest.raises(ImproperlyConfigured, match="no profile 'usres'; did you mean 'users'"):
        cache.get("k")


@pytest.mark.parametrize("form", ["{}", "{} ,", "{};", ["{}"], ("{}",)])
def test_a_url_is_a_server_and_makes_a_region(use: Use, cachekit_server: Server, form: Any) -> None:
    from django.core.cache import caches

    url = cachekit_server.url
    location = form.format(url) if isinstance(form, str) else type(form)(each.format(url) for each in form)
    use(
        CACHES={"default": ours(), "far": ours(LOCATION=location, OPTIONS={"ttl": "9m", "l1": {"mode": "off"}})},
        CACHEKIT={"backends": {"django.far": {}}},
    )
    far = caches["far"]
    far.set("k", "v")
    assert far.region is region("django.far")
    assert (far.get("k"), caches["default"].get("k")) == ("v", None)
    spec = default_service().spec
    assert spec.backends["django.far"].url == url
    assert spec.regions["django.far"].l1.mode == "off"
    assert far.default_timeout == 540
    assert spec.regions["default"].backend == "none"


def test_each_url_alias_has_its_own_region_and_clear_stays_in_it(use: Use, cachekit_server: Server) -> None:
    from django.core.cache import caches

    names = ("default", "other")
    use(
        CACHES={name: ours(LOCATION=cachekit_server.url, KEY_PREFIX=name) for name in names},
        CACHEKIT={"backends": {f"django.{name}": {} for name in names}},
    )
    for name in names:
        caches[name].set("k", name)
    caches["default"].clear()
    assert (caches["default"].get("k"), caches["other"].get("k")) == (None, "other")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("redis://a,redis://b", "2 URLs; write several servers as one"),
        (["redis://a", "redis://b"], "2 URLs"),
        ([], "0 URLs"),
        ("127.0.0.1:6379;127.0.0.1:6380", "not a URL"),
        ("rediss+sentinel://a", "name of the service"),
        ("reds://a", "did you mean redis"),
    ],
)
def test_a_location_that_cannot_be_used_says_why(use: Use, location: Any, message: str) -> None:
    from django.core.cache import cache
    from django.core.exceptions import ImproperlyConfigured

    with pytest.raises(ImproperlyConfigured, match=message) as caught:  # noqa: PT012  # at once, or when it is used
        use(CACHES={"default": ours(LOCATION=location)})
        cache.get("k")
    assert "CACHES['default']" in str(caught.value)


def test_a_password_is_not_told(use: Use) -> None:
    from django.core.cache import cache
    from django.core.exceptions import ImproperlyConfigured

    use(CACHES={"default": ours(LOCATION="redis://:hunter2@host:x/0")})
    with pytest.raises(ImproperlyConfigured) as caught:
        cache.get("k")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"), [({}, 420), ({"TIMEOUT": 60}, 60), ({"TIMEOUT": "60"}, 60), ({"TIMEOUT": None}, None)]
)
def test_a_timeout_that_is_given_wins_over_the_profile(use: Use, given: dict[str, Any], expected: Any) -> None:
    from django.core.cache import cache

    use(CACHES={"default": ours(**given)}, CACHEKIT={"profiles": {"default": {"ttl": "7m", "jitter": 0}}})
    cache.set("k", 1)
    left = cache.region.remaining(":1:k")
    assert left is None if expected is None else expected - 1 < left <= expected


@pytest.mark.parametrize("timeout", ["5m", "", [60], float("inf"), float("nan")])
def test_a_timeout_that_is_no_number_of_seconds_is_an_error(use: Use, timeout: Any) -> None:
    """Django would take its 300 s instead."""
    from django.core.cache import cache
    from django.core.exceptions import ImproperlyConfigured

    problem = r"'default'\]: TIMEOUT = .* write 300, or None for ever"
    with pytest.raises(ImproperlyConfigured, match=problem):  # noqa: PT012  # at once, or when it is used
        use(CACHES={"default": ours(TIMEOUT=timeout)})
        cache.get("k")


def test_a_timeout_of_0_stores_nothing(use: Use) -> None:
    from django.core.cache import cache

    use(CACHES={"default": ours(TIMEOUT=0)})
    cache.set("k", 1)
    assert cache.get("k") is None
    cache.set("k", 1, 5)
    assert cache.get("k") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tll": 5}, r"OPTIONS\['tll'\]: no such option; did you mean 'ttl'"),
        ({"ttl": "5 parsecs"}, "ttl = '5 parsecs': not a duration"),
        ({"l1": {"max_entires": 5}}, "did you mean 'max_entries'"),
        ({"timeout": 5}, "did you mean 'ttl'"),
        ({"backend": "x"}, "LOCATION says it"),
        ({"budget": "1s"}, r"CACHEKIT\['backends'\]\['django.default'\]\['budget'\]"),
        ({"SERIALIZER": "x.y"}, r"OPTIONS\['SERIALIZER'\]: 'x.y' cannot be used"),
        ({"READ_FROM": "x"}, "no other alias of CACHES"),
        ({"SOCKET_TIMOUT": 5}, "did you mean 'SOCKET_TIMEOUT'"),
        ({"serializer": "pickle"}, "needs sign = true or encrypt = true"),
    ],
)
def test_an_option_that_cannot_be_used_says_why(use: Use, options: dict[str, Any], message: str) -> None:
    from django.core.cache import cache
    from django.core.exceptions import ImproperlyConfigured

    with pytest.raises(ImproperlyConfigured, match=message) as caught:  # noqa: PT012
        use(CACHES={"default": ours(LOCATION="redis://localhost", OPTIONS=options)})
        cache.get("k")
    assert "CACHES['default']" in str(caught.value)


def test_options_of_a_named_region_belong_to_its_profile(use: Use) -> None:
    from django.core.exceptions import ImproperlyConfigured

    with pytest.raises(ImproperlyConfigured, match=r"CACHEKIT\['profiles'\]\['default'\]\['ttl'\]"):
        use(CACHES={"default": ours(OPTIONS={"ttl": 5})})
    use(CACHES={"default": ours(OPTIONS={"MAX_ENTRIES": 5, "CULL_FREQUENCY": 2})})


def test_regions_of_django_count_unless_said_otherwise(use: Use) -> None:
    profiles = {"users": {}, "plain": {"counters": False}, "child": {"extends": "plain"}, "unused": {}}
    use(
        CACHES={name: ours(LOCATION=name) for name in ("default", "users", "plain", "child")},
        CACHEKIT={"profiles": profiles},
    )
    regions = default_service().spec.regions
    counting = {name for name, spec in regions.items() if spec.counters}
    assert counting == {"default", "users"}


def test_cached_functions_share_the_settings(use: Use) -> None:
    @cache(profile="users")
    def load() -> int:
        return 5

    use(CACHEKIT={"profiles": {"users": {"ttl": "7m"}}})
    from django.core.cache import caches

    assert caches["default"] is not None
    assert load() == 5
    assert default_service().spec.regions["users"].ttl == 420


def test_a_configuration_that_was_loaded_before_is_loaded_again(use: Use) -> None:
    from django.core.cache import cache as ours_

    early = default_service()
    region("default").set("k", 1)
    use(CACHEKIT={"profiles": {"users": {}}})
    ours_.set("k", 2)
    assert default_service() is not early
    assert region("users").get("k") is None


def test_configure_stands_above_the_settings(use: Use) -> None:
    from django.core.cache import caches

    use(CACHEKIT={"profiles": {"default": {"ttl": "7m"}, "users": {"ttl": "8m"}}})
    configure(replace=True, profiles={"default": {"ttl": "9m"}})
    spec = default_service().spec
    assert (caches["default"].default_timeout, spec.regions["users"].ttl) == (540, 480)


def test_the_environment_stands_above_the_settings_and_they_above_the_file(
    use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cachekit_server: Server
) -> None:
    (tmp_path / "manage.py").touch()
    (tmp_path / "cachekit.toml").write_text(
        '[profiles.default]\nttl = "1m"\n[profiles.users]\nttl = "2m"\n[profiles.file]\nttl = "4m"\n'
    )
    monkeypatch.setenv("CACHEKIT_PROFILES__USERS__TTL", "3m")
    monkeypatch.setenv("CACHEKIT_PROFILES__DJANGO_FAR__TTL", "6m")
    use(
        BASE_DIR=tmp_path,
        CACHES={"default": ours(), "far": ours(LOCATION=cachekit_server.url, OPTIONS={"ttl": "5m"})},
        CACHEKIT={"profiles": {"default": {"ttl": "7m"}, "users": {"ttl": "8m"}}},
    )
    regions = default_service().spec.regions
    assert {name: regions[name].ttl for name in ("default", "users", "file", "django.far")} == {
        "default": 420, "users": 180, "file": 240, "django.far": 360,
    }  # fmt: skip


def __getattr__(name: str) -> Any:
    """A backend of a project's own, by the name that its settings have."""
    if name != "Mine":
        raise AttributeError(name)
    from cachekit.integrations.django import CacheKitCache

    class Mine(CacheKitCache):
        def __init__(self, location: Any, params: Any) -> None:
            super().__init__(location, params)

    return Mine


def test_a_wrong_table_says_where_it_stands(use: Use) -> None:
    from django.core.cache import cache
    from django.core.exceptions import ImproperlyConfigured

    use(CACHEKIT={"profiles": {"default": {"tll": 5}}})
    with pytest.raises(ImproperlyConfigured, match=r"settings.CACHEKIT: profiles.default.tll: .*'ttl'"):
        cache.get("k")


def test_without_an_entry_in_caches_a_url_has_no_name(use: Use) -> None:
    from django.core.exceptions import ImproperlyConfigured

    from cachekit.integrations.django import CacheKitCache

    use()
    with pytest.raises(ImproperlyConfigured, match=r"settings\.CACHES"):
        CacheKitCache("redis://localhost", {})
    assert CacheKitCache("", {"TIMEOUT": 5}).default_timeout == 5


def test_aliases_that_say_the_same_have_a_region_each(use: Use, cachekit_server: Server) -> None:
    from django.core.cache import caches

    class_of_its_own = {**ours(LOCATION=cachekit_server.url), "BACKEND": "test_django_settings.Mine"}
    use(
        CACHES={
            "redis": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": cachekit_server.url},
            "default": ours(LOCATION=cachekit_server.url),
            "sessions": ours(LOCATION=cachekit_server.url),
            "own": class_of_its_own,
        },
        CACHEKIT={"profiles": {"django.sessions": {"ttl": "14d", "l1": {"mode": "off"}}}},
    )
    names = ("sessions", "default", "own")
    assert [caches[alias].region.name for alias in names] == ["django.sessions", "django.default", "django.own"]
    assert caches["sessions"].default_timeout == 14 * 86_400
    caches["sessions"].set("k", "session")
    assert caches["default"].get("k") is None
    caches["default"].clear()
    assert caches["sessions"].get("k") == "session"


def test_whoever_makes_a_cache_without_its_alias_must_be_able_to_tell_which_it_is(use: Use) -> None:
    from django.core.exceptions import ImproperlyConfigured

    from cachekit.integrations.django import CacheKitCache

    url = "redis://localhost:1"
    use(CACHES={"default": ours(LOCATION=url), "a": ours(LOCATION=url, TIMEOUT=5), "b": ours(LOCATION=url)})
    assert CacheKitCache(url, {"TIMEOUT": 5}).region.name == "django.a"
    with pytest.raises(ImproperlyConfigured, match="'default' and 'b' say the same"):
        CacheKitCache(url, {})


def test_an_isolated_test_sees_no_server_and_every_region(on_server: Use) -> None:
    from django.core.cache import caches

    from cachekit.testing.isolation import isolated

    on_server(CACHES={"default": ours(), "users": ours(LOCATION="users")}, profiles={"users": {}})
    caches["default"].set("k", "outside")
    with isolated() as service:
        for alias in ("default", "users"):
            assert caches[alias].get("k") is None
            caches[alias].set("k", 5)
            assert caches[alias].incr("k") == 6
        assert default_service() is service
    assert caches["default"].get("k") == "outside"


PROJECT = """
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["cachekit.integrations.django"], CACHES={"default": %r}, CACHEKIT=%r, SILENCED_SYSTEM_CHECKS=[],
    ROOT_URLCONF="",
)
import django
django.setup()
from django.core.management import call_command
call_command("check", fail_level="WARNING")
"""


def checked(caches: dict[str, Any], table: dict[str, Any]) -> str:
    """What starting a project and ``manage.py check`` say."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROJECT % (caches, table)], text=True, capture_output=True, timeout=60
    )
    return done.stdout + done.stderr


def test_a_wrong_configuration_stops_the_start() -> None:
    said = checked(ours(), {"profiles": {"users": {"tll": 5}}})
    assert "ImproperlyConfigured: settings.CACHEKIT: profiles.users.tll: no such key; did you mean 'ttl'?" in said
    assert "no issues" in checked(ours(), {})


@pytest.mark.slow
def test_nothing_is_opened_by_a_start() -> None:
    table = {"namespace": "x", "backends": {"default": {"url": "redis://127.0.0.1:1"}}}
    assert "no issues" in checked(ours(), table)


def problems() -> list[str]:
    from cachekit.integrations.django.checks import check_caches

    return [problem.id for problem in check_caches(None)]


def test_checks_find_what_works_and_surprises(use: Use, cachekit_server: Server) -> None:
    url = {"default": {"url": cachekit_server.url}}
    sessions = "django.contrib.sessions.backends."
    quiet = {"SESSION_ENGINE": sessions + "db", "SESSION_CACHE_ALIAS": "default"}
    use(**quiet)
    assert problems() == []
    use(CACHES={"default": ours(), "users": ours(LOCATION="usres")}, **quiet)
    assert problems() == ["cachekit.E001"]
    use(CACHES={"default": ours(OPTIONS={"MAX_ENTRIES": 5})}, **quiet)
    assert problems() == ["cachekit.W002"]
    use(CACHEKIT={"namespace": "cachekit", "backends": url}, **quiet)
    assert problems() == []
    use(**(quiet | {"SESSION_ENGINE": sessions + "cache"}))
    assert problems() == ["cachekit.W003"]
    use(**(quiet | {"SESSION_ENGINE": sessions + "cached_db"}))
    assert problems() == []
    use(CACHEKIT={"backends": url}, **(quiet | {"SESSION_ENGINE": sessions + "cache"}))
    assert problems() == ["cachekit.I001"]
    off = {"default": {"l1": {"mode": "off"}}}
    use(CACHEKIT={"backends": url, "profiles": off}, **(quiet | {"SESSION_ENGINE": sessions + "cache"}))
    assert problems() == []


def test_a_server_without_a_namespace_is_a_warning(cachekit_server: Server) -> None:
    said = checked(ours(), {"backends": {"default": {"url": cachekit_server.url}}})
    assert "cachekit.W001" in said
    assert "CACHEKIT = {'namespace': ...}" in said


def test_other_backends_are_left_alone(use: Use) -> None:
    from django.core.cache import caches

    use(
        CACHES={
            "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "redis://x"},
            "broken": {"BACKEND": "no.such.Backend"},
            "ours": ours(),
        }
    )
    caches["ours"].set("k", 1)
    assert caches["default"].get("k") is None
    assert problems() == []


def test_a_config_error_is_ours_and_djangos(use: Use) -> None:
    from django.core.cache import cache
    from django.core.exceptions import ImproperlyConfigured

    use(CACHES={"default": ours(LOCATION="nowhere")})
    with pytest.raises(ImproperlyConfigured) as caught:
        cache.get("k")
    assert isinstance(caught.value.__cause__, ConfigError)
