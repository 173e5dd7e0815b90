"""The service of a process: configure, define, health, close, fork."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import cachekit
from cachekit import ConfigError, cache, configure, define, process, region
from cachekit.config.spec import BackendSpec, ServiceSpec, built_in_regions
from cachekit.process import default_service, replace_default
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock
from cachekit.testing.servers import Server


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No default service, no definitions, an empty directory."""
    before = replace_default(None)
    monkeypatch.setattr(process, "_configured", None)
    monkeypatch.setattr(process, "_definitions", {})
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    yield
    replace_default(before)


def test_without_any_configuration_everything_lives_in_the_process() -> None:
    assert default_service().spec.backends == {}
    assert region().get_or_set("k", lambda: 1) == 1


def test_configure_reads_a_file_and_settings_win(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('namespace = "shop"\n[profiles.users]\nttl = "1h"\n')
    configure(tmp_path / "own.toml", namespace="other")
    assert default_service().spec.namespace == "other"
    assert default_service().region_spec("users").ttl == 3600


def test_a_second_configure_must_be_the_same_or_say_replace(tmp_path: Path) -> None:
    configure(namespace="a")
    first = default_service()
    configure(namespace="a")
    assert default_service() is first
    with pytest.raises(ConfigError, match="replace=True"):
        configure(namespace="b")
    configure(replace=True, namespace="b")
    assert default_service().spec.namespace == "b"


def test_configure_after_the_first_use_must_say_replace() -> None:
    region().get("k")
    with pytest.raises(ConfigError, match="first use"):
        configure(namespace="a")


def test_a_wrong_configuration_stops_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "cachekit.toml").write_text('[profiles.users]\nttl = "5 parsecs"\n')
    with pytest.raises(ConfigError, match=r"cachekit.toml:2: profiles.users.ttl"):
        configure()
    with pytest.raises(ConfigError, match="5 parsecs"):
        region("users").get("k")


def test_configure_checks_the_functions_decorated_so_far() -> None:
    @cache(profile="missing")
    def load(x: int) -> int:
        return x

    with pytest.raises(ConfigError, match=r"load: there is no profile 'missing'"):
        configure(namespace="a")


def test_what_is_made_for_production_wants_a_namespace_at_its_first_use(own_url: str) -> None:
    @cache.production
    def load(x: int) -> int:
        return x

    @cache.production(backend=None)
    def alone(x: int) -> int:
        return x

    backends = {"default": {"url": own_url}}
    with pytest.raises(ConfigError, match=r"load: profile 'production': what is made for production needs a namespace"):
        configure(backends=backends)
    service = Service(ServiceSpec(backends={"default": BackendSpec(url=own_url)}, regions=built_in_regions()))
    with pytest.raises(ConfigError, match="'production': what is made for production needs a namespace"):
        service.region("production").get("k")
    replace_default(service)
    assert alone(1) == 1
    with pytest.raises(ConfigError, match="'production': what is made for production needs a namespace"):
        load(1)
    configure(replace=True, backends=backends, namespace="shop")
    assert load(1) == 1


def test_a_definition_that_contradicts_itself_is_an_error_whenever_it_comes() -> None:
    with pytest.raises(ConfigError, match=r"soft_timeout: longer than hard_timeout \(1 s\)"):
        define("early", soft_timeout="2s", hard_timeout="1s")
    region().get("k")
    with pytest.raises(ConfigError, match=r"define\('late'\): swr: needs stale_ttl"):
        define("late", swr=True)
    define("late", swr=True, stale_ttl="1h", negative_exceptions={KeyError: 5})
    assert default_service().region_spec("late").freshness.negative_exceptions == (("builtins.KeyError", 5.0),)


def test_a_definition_may_name_exceptions_by_their_class() -> None:
    define("geolib", negative_exceptions={KeyError: 5})
    assert default_service().region_spec("geolib").freshness.negative_exceptions == (("builtins.KeyError", 5.0),)


def test_a_library_defines_a_profile_and_the_application_overrides_it(tmp_path: Path) -> None:
    define("geolib", ttl="10m")
    define("geolib", ttl="10m")
    with pytest.raises(ConfigError, match="other fields"):
        define("geolib", ttl="20m")
    assert default_service().region_spec("geolib").ttl == 600
    replace_default(None)
    (tmp_path / "cachekit.toml").write_text('[profiles.geolib]\nttl = "1m"\n')
    assert default_service().region_spec("geolib").ttl == 60


def test_a_definition_may_come_after_the_configuration_was_loaded() -> None:
    region().get("k")
    define("late", ttl="10m")
    assert region("late").get_or_set("k", lambda: 1) == 1
    assert default_service().region_spec("late").ttl == 600


def test_a_wrong_definition_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match="ttl"):
        define("x", tttl=1)
    with pytest.raises(ConfigError):
        define("a b", ttl=1)


def test_health_opens_nothing_and_tells_unused_from_down(own_url: str) -> None:
    os.environ["REDIS_URL"] = own_url
    try:
        assert cachekit.health().ok
        assert cachekit.health().backends["default"].state == "unused"
        region().set("k", 1)
        assert cachekit.health().backends["default"].state == "up"
    finally:
        del os.environ["REDIS_URL"]


@pytest.fixture
def own_url(cachekit_server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CACHEKIT_BACKENDS__DEFAULT__BUDGET", "10s")  # the machine may be busy
    monkeypatch.setenv("CACHEKIT_BACKENDS__DEFAULT__ADAPTIVE", "false")
    return cachekit_server.url


def test_close_is_idempotent_and_the_service_works_on(own_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", own_url)
    region().set("k", 1)
    cachekit.close()
    cachekit.close()
    assert region().get("k") == 1
    region().set("k", 2)
    assert region().get("k") == 2


async def test_aclose_too(own_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", own_url)
    await region().aset("k", 1)
    await cachekit.aclose()
    assert await region().aget("k") == 1
    await cachekit.aclose()


def test_expired_entries_leave_without_traffic() -> None:
    clock = FrozenClock()
    service = Service(ServiceSpec(regions=built_in_regions()), clock=clock)
    default = service.region("default")
    for key in range(100):
        default.set(key, key, ttl=10)
    clock.advance("1m")
    service.tick()
    assert default.info()["entries"] == 0


def test_the_tick_runs_and_ends_with_the_service() -> None:
    service = Service(ServiceSpec(regions=built_in_regions()))
    ran = threading.Event()
    service.on_tick(ran.set)
    assert ran.wait(5)
    thread = service._tick
    assert thread is not None
    service.close()
    thread.join(5)
    assert not thread.is_alive()


def test_a_broken_observer_is_dropped_and_breaks_no_call(caplog: pytest.LogCaptureFixture) -> None:
    service = default_service()
    seen: list[object] = []

    def broken(event: object) -> None:
        raise RuntimeError("mine")

    service.observers += [broken, seen.append]
    assert region().get("k") is None
    assert region().get_or_set("k", lambda: 1) == 1
    assert broken not in service.observers
    assert [type(event).__name__ for event in seen] == ["Missed", "Missed", "Loaded"]
    assert "an observer failed" in caplog.text


def test_two_services_share_nothing() -> None:
    one, two = (Service(ServiceSpec(regions=built_in_regions())) for _ in range(2))
    one.region("default").set("k", 1)
    assert two.region("default").get("k") is None


def test_a_child_starts_with_an_empty_l1_and_a_tick_of_its_own() -> None:
    region().set("k", 1)
    parents = default_service()._tick
    assert parents is not None
    pid = os.fork()
    if pid == 0:
        own = default_service()._tick
        ok = region().get("k") is None and own is not None and own is not parents and own.is_alive()
        os._exit(0 if ok and region().get_or_set("k", lambda: 2) == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert region().get("k") == 1


def test_a_use_after_close_starts_the_tick_again() -> None:
    @cache
    def load(x: int) -> int:
        return x

    load(1)
    cachekit.close()
    assert default_service()._tick is None
    load(2)
    assert default_service()._tick is not None


def test_a_backend_that_cannot_be_closed_keeps_no_other_from_closing(caplog: pytest.LogCaptureFixture) -> None:
    from cachekit.backends.memory import MemoryBackend

    class Broken(MemoryBackend):
        closed = False

        def close(self) -> None:
            if not self.closed:  # once: the interpreter closes again at its end
                self.closed = True
                raise RuntimeError("mine")

    class Closing(MemoryBackend):
        closed = False

        def close(self) -> None:
            Closing.closed = True

    for backend in (Broken(), Closing()):
        assert cache(backend=backend)(lambda x: x)(1) == 1
    cachekit.close()
    assert Closing.closed
    assert "could not be closed" in caplog.text
