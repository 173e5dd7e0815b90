"""`cachekit doctor`, against real servers."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from cachekit.backends.redis import commands
from cachekit.backends.redis.rights import ALSO, NEEDED, OF_SEVERAL, PROBE, Rights, grant, questions
from cachekit.cli import build
from cachekit.cli.doctor import advice, reach
from cachekit.config.spec import BackendSpec
from cachekit.errors import BackendError, Fault
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


FULL = grant("app", "shop").split()[3:]  # what the remedy gives
PROBES = {line.split()[0].lower() for line in NEEDED}


@pytest.fixture
def user(doctor: Doctor, project: Path, server: Server) -> Iterator[Callable[..., Done]]:
    """``user("~shop:*", "+get")``: what the doctor says with a user of these rights alone."""
    (project / "cachekit.toml").write_text(QUIET)

    def run(*rights: str, words: tuple[str, ...] = ("--json",)) -> Done:
        server.command("ACL", "SETUSER", "app", "reset", "on", ">pw", *rights)
        return doctor(*words, REDIS_URL=f"redis://app:pw@127.0.0.1:{server.port}")

    yield run
    server.command("ACL", "DELUSER", "app")


def rights(done: Done) -> tuple[str, set[str]]:
    (backend,) = done.report["backends"]
    assert (done.status == 1) is bool(backend["missing"])
    return backend["rights"], {command.lower() for command in backend["missing"]}


def test_a_user_with_the_rights_that_the_remedy_gives_has_all(user: Callable[..., Done]) -> None:
    assert rights(user(*FULL)) == ("all", set())
    assert "rights all" in user(*FULL, words=()).text


def test_the_documented_line_is_the_one_that_is_shown() -> None:
    assert f"\n{grant('app', 'shop')}\n" in (Path(__file__).parents[2] / "docs" / "outages.md").read_text()


def test_the_default_user_may_do_everything(doctor: Doctor, server: Server) -> None:
    assert rights(doctor("--json", REDIS_URL=server.url)) == ("all", set())


@pytest.mark.parametrize("command", sorted(PROBES - {"time", "eval"}))
def test_each_refused_command_is_named(user: Callable[..., Done], command: str) -> None:
    done = user(*FULL, f"-{command}")
    assert rights(done) == ("some", {command})
    assert done.report["backends"][0]["remedy"].endswith(grant("app", "shop"))
    lines = user(*FULL, f"-{command}", words=()).text
    assert f"may not run: {command.upper()}" in lines
    assert grant("app", "shop") in lines


def test_without_scripts_the_server_is_asked_one_by_one_where_it_allows_that(user: Callable[..., Done]) -> None:
    without = [*FULL, "-eval", "-del"]
    assert rights(user(*without)) == ("some", {"eval"})  # it tells no more
    assert rights(user(*without, "+acl|whoami", "+acl|dryrun")) == ("some", {"eval", "del"})


def test_a_user_who_may_not_ask_for_the_time_is_told_the_same_line(user: Callable[..., Done]) -> None:
    """Without TIME no connection is opened."""
    reason, remedy = failure(user(*FULL, "-time"))
    assert reason.startswith("noperm:")
    assert remedy.endswith(grant("app", "shop"))


@pytest.mark.parametrize("keys", ["~other:*", "~shop:v:*", "%R~shop:*"])
def test_keys_out_of_reach_are_commands_refused(user: Callable[..., Done], keys: str) -> None:
    status, missing = rights(user(keys, *FULL[1:]))
    assert status == "some"
    assert {"set", "del", "incrby"} <= missing
    assert "time" not in missing


def test_the_remedy_works(user: Callable[..., Done], server: Server) -> None:
    remedy = user("~other:*", "+time", "+eval").report["backends"][0]["remedy"]
    server.command(*remedy.partition(": ")[2].split())
    assert rights(user(*remedy.partition("ACL SETUSER app ")[2].split())) == ("all", set())


def test_a_server_that_does_not_tell_is_unknown_and_no_failure(
    user: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before version 7 scripts lack the function that tells, and there is no ACL DRYRUN."""
    monkeypatch.setattr("cachekit.backends.redis.rights.PROBE", PROBE.replace("acl_check_cmd", "of_a_later_version"))
    assert rights(user(*FULL, "-del")) == ("unknown", set())
    assert rights(user(*FULL, "-del", "+acl|whoami")) == ("unknown", set())
    assert rights(user(*FULL, "-del", "+acl|whoami", "+acl|dryrun")) == ("some", {"del"})
    assert "rights unknown" in user(*FULL, words=()).text


def test_a_server_without_dryrun_is_unknown() -> None:
    asked = questions(["shop:v:{doctor}"])
    for _ in range(2):
        next(asked)
    asked.send("app")
    asked.throw(BackendError(Fault.COMMAND, "command", "ERR older than version 7"))
    with pytest.raises(StopIteration) as done:
        asked.throw(BackendError(Fault.COMMAND, "command", "ERR Unknown subcommand or wrong number of arguments"))
    assert done.value.value == Rights("app", None)


def test_asking_for_rights_changes_nothing(user: Callable[..., Done], server: Server) -> None:
    before = server.command("DBSIZE")
    user(*FULL)
    user(*FULL, "-eval", "+acl|whoami", "+acl|dryrun")
    assert server.command("DBSIZE") == before


def test_every_command_that_is_used_is_asked_about() -> None:
    folder = Path(commands.__file__).parent
    words = r'(?:Command\(\(|pack\(\(|b)"([A-Z]+)"'
    sent = [
        word for file in ("commands", "push", "line") for word in re.findall(words, (folder / f"{file}.py").read_text())
    ]
    called = re.findall(r"redis\.p?call\('([A-Z]+)'", (folder / "scripts.py").read_text())
    used = {word.lower() for word in (*sent, *called)}
    also = (*ALSO, *OF_SEVERAL["sentinel"])
    assert used - {"auth", "noscript", "pong"} == PROBES | {word.lower().partition("|")[0] for word in also}


def test_several_servers_need_a_few_rights_more() -> None:
    page = (Path(__file__).parents[2] / "docs" / "outages.md").read_text()
    for topology, words in OF_SEVERAL.items():
        more = " ".join(f"+{word.lower()}" for word in words)
        assert grant("app", "shop", topology) == f"{grant('app', 'shop')} {more}"
        assert f"`{more}`" in page


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
        ({"mode": "cluster"}, "redis+cluster://"),
    ],
)
def test_settings_of_the_server_that_will_hurt_are_told_with_a_remedy(facts: dict[str, str], word: str) -> None:
    (text,) = advice(facts)
    assert word in text
    assert "; set " in text or "; give " in text


def test_good_settings_are_not_commented() -> None:
    assert not list(advice({"maxmemory": "1000", "maxmemory_policy": "volatile-lru", "role": "master"}))
    assert not list(advice({"mode": "cluster", "topology": "cluster"}))
