"""`cachekit doctor`, against real servers."""

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from cachekit.backends.base import LISTEN, BaseBackend, Faces
from cachekit.backends.redis import commands
from cachekit.backends.redis.rights import ALSO, NEEDED, OF_SEVERAL, PROBE, Rights, grant, questions
from cachekit.cli import build
from cachekit.cli.doctor import Finding, advice, reach
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
    def run(*words: str, patient: bool = True, **environ: str) -> Done:
        if patient and "REDIS_URL" in environ:
            environ["CACHEKIT_BACKENDS__DEFAULT__BUDGET"] = "10s"  # the machine may be busy
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
    assert backend["coherence"] == "tracking: the server tells L1 of changes at once"
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
    report = doctor("--json", patient=False, REDIS_URL=server.url, CACHEKIT_PROFILES__DEFAULT__TTL="5m").report
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


@pytest.mark.timed
def test_a_server_that_hangs_costs_the_budget(doctor: Doctor, locked: Server) -> None:
    with FaultProxy("127.0.0.1", locked.port, password=PASSWORD) as proxy:
        proxy.black_hole()
        started = time.monotonic()
        reason, remedy = failure(doctor("--json", patient=False, REDIS_URL=proxy.url))
        assert time.monotonic() - started < FIRST_READ, "late"
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
    unknown = BackendError(Fault.COMMAND, "command", "ERR Unknown subcommand or wrong number of arguments")
    asked.throw(unknown)
    with pytest.raises(StopIteration) as done:
        asked.throw(unknown)
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


TELLING = ("+client|tracking", "+ping")  # HELLO with a password is everybody's


def coherence(done: Done) -> tuple[str, list[str]]:
    """The coherence of the only backend, and what is warned of about it; warnings alone are no failure."""
    (backend,) = done.report["backends"]
    assert done.status == 0
    return backend["coherence"], [text for text in backend["warnings"] if "tell of changes" in text]


def test_a_server_that_tells_of_changes_is_said_to(user: Callable[..., Done]) -> None:
    assert coherence(user(*FULL)) == ("tracking: the server tells L1 of changes at once", [])
    assert "coherence tracking: the server tells L1 of changes at once" in user(*FULL, words=()).text


@pytest.mark.parametrize("right", TELLING)
def test_a_right_that_being_told_takes_is_missed_with_the_line_that_gives_it(
    user: Callable[..., Done], server: Server, right: str
) -> None:
    found, (warning,) = coherence(user(*FULL, right.replace("+", "-")))
    assert found == "ttl: L1 entries live at most 3 s"
    assert warning.startswith("the server does not tell of changes (noperm: ")
    assert warning.endswith(grant("app", "shop"))
    server.command(*warning.partition("needs: ")[2].split())
    assert coherence(user(*warning.partition("ACL SETUSER app ")[2].split()))[1] == []


def test_who_wants_no_news_is_not_asked_for_the_rights_to_it(user: Callable[..., Done], project: Path) -> None:
    (project / "cachekit.toml").write_text(f"{QUIET}[backends.default]\ncoherence = 'ttl'\nmax_staleness = '2s'\n")
    without = [right.replace("+", "-") for right in TELLING]
    assert coherence(user(*FULL, *without)) == ("ttl: L1 entries live at most 2 s", [])


@pytest.mark.parametrize("command", ["HELLO", "CLIENT"])
def test_a_server_that_is_too_old_or_a_proxy_is_told_from_a_missing_right(doctor: Doctor, command: str) -> None:
    """Either knows less commands than a server that tells of changes."""
    with start_server("valkey", args=["--rename-command", command, ""]) as server:
        found, (warning,) = coherence(doctor("--json", REDIS_URL=server.url))
    assert found.startswith("ttl")
    assert f": {command}" in warning
    assert "; being told of changes takes Redis 6 or newer" in warning
    assert '[backends.default] coherence = "ttl"' in warning


class Kept(BaseBackend):
    """A backend that answers, and tells of changes as ``error`` says."""

    capabilities = frozenset({LISTEN})

    def __init__(self, error: BackendError | None) -> None:
        self.error = error
        self.listened: list[Any] = []
        self.open = 0

    def get(self, key: str, *, budget: float) -> bytes | None:
        return None

    def listen(self, prefixes: Sequence[str], **settings: Any) -> Any:
        self.listened.append((tuple(prefixes), settings["budget"]))
        if self.error is not None:
            raise self.error
        self.open += 1
        return self

    def close(self) -> None:
        self.open -= 1


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Kept, Finding]]:
    def run(error: BackendError | None = None, sync: bool = True) -> tuple[Kept, Finding]:
        backend = Kept(error)
        faces = Faces(backend, None) if sync else Faces(None, backend)
        monkeypatch.setattr("cachekit.backends.registry.open_backend", lambda spec: faces)
        return backend, reach(BackendSpec(type="mine", password=PASSWORD), "shop")

    return run


def test_a_backend_is_asked_for_news_of_stamps_within_the_budget_and_let_go(kept: Callable[..., Any]) -> None:
    backend, found = kept()
    assert found.coherence.startswith("tracking")
    assert backend.listened == [(("shop:t:{",), 0.25)]
    assert backend.open == -1  # the listener was closed, and the backend after it


def test_news_that_fail_for_the_moment_are_no_lasting_state(kept: Callable[..., Any]) -> None:
    _, found = kept(BackendError(Fault.DOWN, "timeout", f"PING: no time left\n{PASSWORD}"))
    assert found.reachable
    assert found.coherence == "connecting: until that works L1 entries live at most 3 s"
    (warning,) = found.warnings
    assert "timeout: PING: no time left ***)" in warning
    assert "budget is 250 ms" in warning


def test_a_backend_that_cannot_tell_is_no_trouble(kept: Callable[..., Any]) -> None:
    backend, found = kept(sync=False)
    assert (found.coherence, found.warnings, backend.listened) == ("ttl: L1 entries live at most 3 s", [], [])


def test_a_server_where_a_stalled_reader_stays_is_warned_of(doctor: Doctor) -> None:
    """Where the server says so, and where somebody is told of changes."""

    def warned(server: Server, **environ: str) -> bool:
        (backend,) = doctor("--json", REDIS_URL=server.url, **environ).report["backends"]
        return any("stalled" in text for text in backend["warnings"])

    with start_server("valkey") as plain:
        assert warned(plain)
        assert not warned(plain, CACHEKIT_BACKENDS__DEFAULT__COHERENCE="ttl")
    for args in (["--maxmemory-clients", "5%"], ["--client-output-buffer-limit", "normal", "64mb", "32mb", "60"]):
        with start_server("valkey", args=args) as limited:
            assert not warned(limited, CACHEKIT_BACKENDS__DEFAULT__COHERENCE="auto")


def test_settings_that_the_user_may_not_read_are_unknown_and_no_failure(user: Callable[..., Done]) -> None:
    allowed = user(*FULL, "+config|get").report["backends"][0]
    refused = user(*FULL).report["backends"][0]
    assert allowed["facts"]["maxmemory_clients"] == "0"
    assert "maxmemory_clients" not in refused["facts"]
    assert refused["reachable"]
    assert not any("stalled" in text for text in refused["warnings"])


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
        found = reach(BackendSpec(url=proxy.url, password=PASSWORD, budget=10.0), "shop")
    assert not found.reachable
    assert PASSWORD not in repr(found)
    assert "***" in found.reason


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"maxmemory": "0", "maxmemory_policy": "noeviction"}, "no memory limit"),
        ({"maxmemory": "1000", "maxmemory_policy": "noeviction"}, "refuses to store"),
        ({"maxmemory": "1000", "maxmemory_policy": "allkeys-random"}, "allkeys-random"),
        ({"maxmemory": "1000", "maxmemory_policy": "allkeys-lru"}, "stamps"),
        ({"role": "slave"}, "replica"),
        ({"mode": "cluster"}, "redis+cluster://"),
    ],
)
def test_settings_of_the_server_that_will_hurt_are_told_with_a_remedy(facts: dict[str, str], word: str) -> None:
    (text,) = advice(facts)
    assert word in text
    assert "; set " in text or "; give " in text


LIMITS = {"maxmemory_clients": "0", "client_output_buffer_limit": "normal 0 0 0 slave 1 1 1 pubsub 1 1 1"}


def test_a_reader_that_nobody_limits_is_told_of_where_there_is_one() -> None:
    (text,) = advice(LIMITS, tracking=True)
    assert "; set maxmemory-clients 10%" in text
    assert not list(advice(LIMITS, tracking=False))
    assert not list(advice(LIMITS | {"maxmemory_clients": "1048576"}, tracking=True))
    assert not list(advice(LIMITS | {"client_output_buffer_limit": "normal 1 1 1"}, tracking=True))


def test_good_settings_are_not_commented() -> None:
    assert not list(advice({"maxmemory": "1000", "maxmemory_policy": "volatile-lru", "role": "master"}))
    assert not list(advice({"mode": "cluster", "topology": "cluster"}))
