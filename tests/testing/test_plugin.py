"""The pytest plugin costs nothing until a fixture is asked for, and the fixtures leave nothing behind."""

import os
import subprocess
import sys

import pytest

import cachekit
from cachekit.process import default_service, replace_default
from cachekit.service import Service
from cachekit.testing import FrozenClock, assert_cached
from cachekit.testing.isolation import isolated

pytest_plugins = ["pytester"]


def test_loading_it_loads_nothing_else_of_the_package() -> None:
    script = """
import sys, pytest
before = set(sys.modules)
import cachekit.testing.plugin
print(*sorted(set(sys.modules) - before))
"""
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert output.split() == ["cachekit", "cachekit.testing", "cachekit.testing.plugin"]


def test_tests_that_ask_for_nothing_get_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys
        def test_plain(request):
            assert [name for name in request.fixturenames if "cachekit" in name] == []
            assert "redis" not in sys.modules and "cachekit.service" not in sys.modules
    """)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


@pytest.mark.slow
def test_the_fixtures_in_a_users_test_suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://nowhere.invalid:1/0")
    monkeypatch.setenv("CACHEKIT_CONFIG", "/nonexistent.toml")
    pytester.makepyfile("""
        import os, cachekit, pytest

        runs = []

        @cachekit.cache(profile="declared_elsewhere", ttl="5m")
        def load(n):
            runs.append(n)
            return n

        @pytest.mark.parametrize("turn", [1, 2])
        def test_empty_each_time(cachekit_isolated, turn):
            assert "REDIS_URL" not in os.environ
            assert load(7) == load(7) == 7
            assert len(runs) == turn

        def test_clock(cachekit_clock, cachekit_isolated):
            load(8)
            cachekit_clock.advance("4m")
            load(8)
            assert runs.count(8) == 1
            cachekit_clock.advance("2m")
            load(8)
            assert runs.count(8) == 2

        pids = set()

        @pytest.mark.parametrize("turn", [1, 2])
        def test_server(cachekit_server, turn):
            assert cachekit_server.command("PING") == "PONG"
            pids.add(cachekit_server.pid)
            assert len(pids) == 1

        def test_environment_is_back():
            assert os.environ["REDIS_URL"].startswith("redis://nowhere")
    """)
    pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider", "-p", "no:asyncio").assert_outcomes(passed=6)


def test_isolation_puts_the_service_before_back() -> None:
    mine = Service(default_service().spec)
    before = replace_default(mine)
    try:
        with isolated() as service:
            assert default_service() is service
        assert default_service() is mine
    finally:
        replace_default(before)


def test_isolation_ends_although_the_test_configured_anew() -> None:
    before = default_service()
    with isolated() as service:
        cachekit.configure(replace=True)
        assert default_service() is not service
    assert default_service() is before


def test_isolated_entries_are_seen_by_nobody_outside() -> None:
    with isolated():
        cachekit.region("any name").set("key", 1)
        with isolated():
            assert cachekit.region("any name").get("key") is None
        assert cachekit.region("any name").get("key") == 1


def test_an_isolated_service_runs_functions_that_name_a_backend() -> None:
    @cachekit.cache(backend="sessions", ttl=60)
    def load(n: int) -> int:
        return n

    with isolated() as service:
        service.start()
        assert assert_cached(load, 3) == 3
        assert not service.health().backends


@pytest.mark.parametrize("variable", ["CACHEKIT_PURE", "CACHEKIT_NATIVE"])
def test_the_choice_of_the_build_stays(
    variable: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv(variable, "1")
    request.getfixturevalue("cachekit_isolated")
    assert os.environ[variable] == "1"


def test_the_clock_fixture_is_a_frozen_clock(cachekit_clock: FrozenClock) -> None:
    before = cachekit_clock.now()
    cachekit_clock.advance("90s")
    assert cachekit_clock.now() - before == 90.0
