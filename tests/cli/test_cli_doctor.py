"""`cachekit doctor`, against real servers."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from cachekit.cli import build
from cachekit.cli.doctor import advice, reach
from cachekit.config.spec import BackendSpec
from cachekit.testing.faults import FaultProxy
from cachekit.testing.servers import Server, free_port, start_server

PASSWORD = "s3cret/with:odd@signs"
QUIET = "namespace = 'shop'\n[metrics]\nallow = ['::1']\n"
FIRST_READ = (
    2.0  # seconds for a whole run against a server that hangs, the driver's import included; the budget is 0.25
)


class Done(NamedTuple):
    status: int
    text: str

    @property
    def report(self) -> Any:
        return json.loads(self.text)


Doctor = Callable[..., Done]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project directory, which is also the working directory."""
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def doctor(project: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    def run(*words: str, **environ: str) -> Done:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(build(), ["doctor", *words])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert PASSWORD not in result.output
        return Done(result.exit_code, result.output)

    return run


@pytest.fixture(scope="module")
def locked() -> Iterator[Server]:
    """A server with a password."""
    with start_server("valkey", password=PASSWORD) as server:
        yield server


def test_without_a_backend_all_is_well(doctor: Doctor) -> None:
    done = doctor()
    assert done.status == 0
    assert "set REDIS_URL" in done.text
    assert "all is well" in done.text


def test_versions_are_named(doctor: Doctor) -> None:
    versions = doctor("--json").report["versions"]
    assert versions.keys() == {"cachekit", "python", "redis-py", "hiredis"}
    assert versions["cachekit"].endswith(("(pure)", "(native)"))


def test_a_server_that_answers_is_described(doctor: Doctor, server: Server) -> None:
    done = doctor("--json", REDIS_URL=server.url)
    (backend,) = done.report["backends"]
    assert done.status == 0
    assert done.report["ok"]
    assert backend["reachable"]
    assert backend["origin"] == "env REDIS_URL"
    assert backend["coherence"] == "ttl: L1 entries live at most 3 s"
    assert backend["facts"]["server"] in ("valkey", "redis")
    assert backend["facts"]["version"]
    assert any("memory limit" in warning for warning in backend["warnings"])


def test_people_read_the_same_in_lines(doctor: Doctor, server: Server) -> None:
    text = doctor(REDIS_URL=server.url).text
    assert f"backend default  {server.url} (env REDIS_URL)" in text
    assert "maxmemory 0, maxmemory_policy noeviction" in text
    assert "set namespace" in text
    assert "\x1b[" not in text  # no colour where no terminal is


def test_the_file_and_the_variables_are_named(doctor: Doctor, project: Path, server: Server) -> None:
    (project / "cachekit.toml").write_text(QUIET)
    report = doctor("--json", REDIS_URL=server.url, CACHEKIT_PROFILES__DEFAULT__TTL="5m").report
    assert report["files"] == [str(project / "cachekit.toml")]
    assert report["variables"] == ["CACHEKIT_PROFILES__DEFAULT__TTL", "REDIS_URL"]
    assert report["namespace"] == "shop"
    assert report["warnings"] == []


def test_the_file_can_be_chosen(doctor: Doctor, project: Path) -> None:
    (project / "other.toml").write_text(QUIET)
    assert doctor("--json", "--config", "other.toml").report["namespace"] == "shop"


def test_namespace_and_open_metrics_are_warned_of(doctor: Doctor, server: Server) -> None:
    warnings = doctor("--json", REDIS_URL=server.url).report["warnings"]
    assert [warning.partition(":")[0] for warning in warnings] == ["namespace", "metrics"]


def test_a_right_password_is_accepted_and_not_shown(doctor: Doctor, locked: Server) -> None:
    assert doctor(REDIS_URL=locked.url).status == 0


def failure(done: Done) -> tuple[str, str]:
    """Reason and remedy of the only backend, which failed."""
    (backend,) = done.report["backends"]
    assert done.status == 1
    assert not done.report["ok"]
    assert not backend["reachable"]
    assert "\n" not in backend["reason"]
    return backend["reason"], backend["remedy"]


def test_a_wrong_password_is_told(doctor: Doctor, locked: Server) -> None:
    with_another = f"redis://:another@127.0.0.1:{locked.port}"
    reason, remedy = failure(doctor("--json", REDIS_URL=with_another))
    assert reason.startswith("auth: WRONGPASS")
    assert "CACHEKIT_BACKENDS__DEFAULT__PASSWORD" in remedy
    text = doctor(REDIS_URL=with_another).text
    assert "another" not in text
    assert "remedy " in text


def test_a_missing_password_is_told(doctor: Doctor, locked: Server) -> None:
    reason, _ = failure(doctor("--json", REDIS_URL=f"redis://127.0.0.1:{locked.port}"))
    assert reason.startswith("auth: NOAUTH")


def test_a_refused_connection_is_told(doctor: Doctor) -> None:
    reason, remedy = failure(doctor("--json", REDIS_URL=f"redis://:{'secret'}@127.0.0.1:{free_port()}"))
    assert reason.startswith("connection:")
    assert "refused" in reason
    assert "whether the server runs" in remedy


def test_a_server_that_hangs_costs_the_budget(doctor: Doctor, locked: Server) -> None:
    with FaultProxy("127.0.0.1", locked.port, password=PASSWORD) as proxy:
        proxy.black_hole()
        started = time.monotonic()
        reason, remedy = failure(doctor("--json", REDIS_URL=proxy.url))
        assert time.monotonic() - started < FIRST_READ
    assert reason.startswith("timeout:")
    assert "budget is 250 ms" in remedy


def test_tls_to_a_plain_port_is_told(doctor: Doctor, locked: Server) -> None:
    reason, remedy = failure(doctor("--json", REDIS_URL=f"rediss://127.0.0.1:{locked.port}"))
    assert reason.startswith("tls:")
    assert "write redis://" in remedy


def test_every_backend_is_asked(doctor: Doctor, project: Path, locked: Server) -> None:
    (project / "cachekit.toml").write_text(f"{QUIET}[backends.sessions]\nurl = 'redis://127.0.0.1:{free_port()}'\n")
    done = doctor("--json", REDIS_URL=locked.url)
    assert {backend["name"]: backend["reachable"] for backend in done.report["backends"]} == {
        "default": True,
        "sessions": False,
    }
    assert done.status == 1


def test_nothing_is_written(doctor: Doctor) -> None:
    with start_server("valkey") as server:
        assert doctor(REDIS_URL=server.url).status == 0
        assert server.command("DBSIZE") == 0


@pytest.mark.parametrize("url", ["http://x", f"redis://:{PASSWORD}@h:1"])
def test_a_wrong_configuration_is_a_problem_and_no_traceback(doctor: Doctor, url: str) -> None:
    done = doctor("--json", REDIS_URL=url)
    assert done.status == 1
    assert len(done.report["problems"]) == 1
    assert done.report["problems"][0].startswith("env REDIS_URL: ")
    assert done.report["backends"] == []
    assert "failed" in doctor(REDIS_URL=url).text


def test_a_missing_file_is_a_problem(doctor: Doctor) -> None:
    assert doctor("--config", "nowhere.toml").status == 1


def test_a_switched_off_cache_is_warned_of(doctor: Doctor) -> None:
    assert any("enabled" in warning for warning in doctor("--json", CACHEKIT_ENABLED="false").report["warnings"])


@pytest.mark.slow  # needs redis-server, which make test-all installs
def test_tls_needs_the_right_authority_and_scheme(doctor: Doctor) -> None:
    with start_server("redis", tls=True) as server:
        assert server.ca is not None
        reason, remedy = failure(doctor("--json", REDIS_URL=server.url))
        assert reason.startswith("tls:")
        assert "tls.ca" in remedy
        _, remedy = failure(doctor("--json", REDIS_URL=server.url.replace("rediss:", "redis:")))
        assert "write rediss://" in remedy
        done = doctor("--json", REDIS_URL=server.url, CACHEKIT_BACKENDS__DEFAULT__TLS__CA=server.ca)
    assert done.report["backends"][0]["facts"]["tls"] == "yes"
    assert done.status == 0


def test_a_secret_in_the_servers_own_message_is_hidden() -> None:
    """A server that repeats what it was told: the proxy answers with the password."""
    with start_server("valkey") as server, FaultProxy("127.0.0.1", server.port) as proxy:
        proxy.reply(f"-ERR no such user with {PASSWORD}\r\n".encode())
        found = reach(BackendSpec(url=proxy.url, password=PASSWORD), "shop")
    assert not found.reachable
    assert PASSWORD not in repr(found)
    assert "***" in found.reason


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"maxmemory": "0", "maxmemory_policy": "noeviction"}, "no memory limit"),
        ({"maxmemory": "1000", "maxmemory_policy": "noeviction"}, "refuses to store"),
        ({"maxmemory": "1000", "maxmemory_policy": "allkeys-random"}, "allkeys-random"),
        ({"role": "slave"}, "replica"),
        ({"mode": "cluster"}, "cluster"),
    ],
)
def test_settings_of_the_server_that_will_hurt_are_told_with_a_remedy(facts: dict[str, str], word: str) -> None:
    (text,) = advice(facts)
    assert word in text
    assert "; set " in text or "; give " in text


def test_good_settings_are_not_commented() -> None:
    assert not list(advice({"maxmemory": "1000", "maxmemory_policy": "volatile-lru", "role": "master"}))
