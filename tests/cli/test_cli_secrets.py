"""`cachekit secrets`, as a user runs it: making keys, seeing them, and a rotation against a real server."""

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from typer.testing import CliRunner

import cachekit
from cachekit import cache, process
from cachekit.backends.base import AsyncBaseBackend, BaseBackend
from cachekit.backends.memory import MemoryBackend
from cachekit.backends.registry import faces_of
from cachekit.cli import build
from cachekit.codec.keyring import Keyring
from cachekit.config.settings import load
from cachekit.config.spec import BackendSpec, KeySpec
from cachekit.l2.rewrap import Rewrap
from cachekit.service import Service
from cachekit.testing.servers import Server

OLD, NEW, NAMES, SIGNING, UNKNOWN = (f"{digit}123456789abcdef" * 4 for digit in "89abc")
FILE = """
namespace = "{space}"
[metrics]
allow = ["::1"]
[profiles.secure]
ttl = "1h"
jitter = 0
[profiles.signed]
sign = true
ttl = "1h"
jitter = 0
[profiles.plain]
[backends.default]
budget = "10s"  # the machine may be busy
adaptive = false
"""


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Secrets = Callable[..., Done]


@pytest.fixture
def space(request: pytest.FixtureRequest) -> str:
    """A namespace for each test, since walks look at all of one."""
    return "s" + re.sub(r"\W", "", request.node.name)[-40:]


@pytest.fixture
def secrets(space: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Secrets:
    """The command in this process, in a project with a server."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "cachekit.toml").write_text(FILE.format(space=space))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(process, "_default", None)

    def run(*words: str) -> Done:
        result = CliRunner().invoke(build(), ["secrets", *words])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the keys of the environment, these and no others."""

    def set_keys(**values: str) -> None:
        for name in ("MASTER_KEY", "PREVIOUS_KEYS", "SIGNING_KEY", "NAME_KEY"):
            monkeypatch.delenv(f"CACHEKIT_{name}", raising=False)
        for name, value in values.items():
            monkeypatch.setenv(f"CACHEKIT_{name.upper()}", value)

    return set_keys


@pytest.fixture
def serving(secrets: Secrets) -> Iterator[Callable[[], Service]]:
    """An application that starts with the keys of now."""
    started: list[Service] = []

    def start() -> Service:
        service = Service(load())
        started.append(service)
        process.replace_default(service)
        return service

    yield start
    for service in started:
        service.close()


def ids(**given: Any) -> tuple[str, str]:
    """What seals and what signs, by their ids."""
    ring = Keyring(KeySpec(**given), "any")
    return ring.present("seal").id.hex(), ring.present("sign").id.hex()


loads: list[object] = []


@cache.secure(tags=["users"], version=1)
def user(number: int) -> dict[str, int]:
    loads.append(number)
    return {"number": number}


@cache(profile="plain", encrypt=True)
def by_decorator(number: int) -> int:
    loads.append(number)
    return number


@pytest.fixture(autouse=True)
def bind_again() -> None:
    loads.clear()
    for function in (user, by_decorator):
        function.__cachekit_function__.follow()  # type: ignore[attr-defined]


def fill(service: Service) -> int:
    """One entry of each kind under the present keys; how many those are."""
    user(1)
    by_decorator(1)
    service.region("secure").set("a", "A", ttl=None)
    service.region("signed").set("b", ["B"])
    service.region("signed").set(("c", 1), "C", tags=[f"tag{number}" for number in range(60)])  # a long header
    with cachekit.tenant("acme"):
        user(1)
        service.region("secure").set("a", "of acme")
        service.region("signed").set("b", "of acme")
        service.region("signed").set(("c", 1), "of acme")
    service.region("plain").set("p", 1)
    return 9


def read(service: Service) -> list[object]:
    found = [user(1), by_decorator(1), service.region("secure").get("a"), service.region("signed").get("b")]
    found.append(service.region("signed").get(("c", 1)))
    with cachekit.tenant("acme"):
        found += [user(1), service.region("secure").get("a"), service.region("signed").get("b")]
        found.append(service.region("signed").get(("c", 1)))
    return found


WHAT_WAS_STORED = [{"number": 1}, 1, "A", ["B"], "C", {"number": 1}, "of acme", "of acme", "of acme"]


def remaining(server: Server, space: str) -> dict[bytes, int]:
    with redis.Redis.from_url(server.url) as client:
        return {key: client.pttl(key) for key in client.scan_iter(f"{space}:v:*")}


MISSING = "backend default: it does not offer remaining, scan, store_if"


class Bare(BaseBackend):
    """A backend with nothing but what every one has."""


class Coroutines(AsyncBaseBackend):
    """A backend that has no plain methods."""


class TestGenerate:
    def test_two_keys_are_printed_as_lines_for_the_environment(self, secrets: Secrets) -> None:
        done = secrets("generate")
        master, names = done.stdout.splitlines()
        assert re.fullmatch("CACHEKIT_MASTER_KEY=[0-9a-f]{64}", master)
        assert re.fullmatch("CACHEKIT_NAME_KEY=[0-9a-f]{64}", names)
        assert (done.returncode, done.stderr) == (0, "")
        assert secrets("generate").stdout.splitlines()[0] != master

    def test_what_is_printed_works(self, secrets: Secrets, keys: Callable[..., None]) -> None:
        made = json.loads(secrets("generate", "--json").stdout)
        keys(master_key=made["CACHEKIT_MASTER_KEY"], name_key=made["CACHEKIT_NAME_KEY"])
        assert load().keys.master_key == bytes.fromhex(made["CACHEKIT_MASTER_KEY"])

    def test_it_needs_no_configuration_that_is_right(self, secrets: Secrets) -> None:
        Path("cachekit.toml").write_text("nonsense = 1\n[profiles.secure]\nttl = 5\n")
        assert secrets("generate").returncode == 0

    def test_the_name_key_keeps_the_names_of_the_present_master_key(
        self, secrets: Secrets, keys: Callable[..., None]
    ) -> None:
        keys(master_key=OLD)
        before = Service(load()).keyring().name_key
        (line,) = secrets("generate", "--name-key").stdout.splitlines()
        assert json.loads(secrets("generate", "--name-key", "--json").stdout) == dict([line.split("=")])
        keys(master_key=NEW, previous_keys=OLD, name_key=line.removeprefix("CACHEKIT_NAME_KEY="))
        assert Service(load()).keyring().name_key == before
        keys(master_key=NEW)
        assert Service(load()).keyring().name_key != before

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"master_key": OLD, "name_key": NAMES}, "CACHEKIT_NAME_KEY is set already: names do not depend"),
            ({"signing_key": OLD}, "cachekit.toml:5: profiles.secure: what is encrypted needs a master key"),
        ],
    )
    def test_where_there_is_nothing_to_pin_it_says_so(
        self, secrets: Secrets, keys: Callable[..., None], given: dict[str, str], message: str
    ) -> None:
        keys(**given)
        done = secrets("generate", "--name-key")
        assert done.returncode == 1
        assert done.stdout.startswith(message)
        Path("cachekit.toml").write_text("")
        keys()
        assert "there is no master key whose names could be kept" in secrets("generate", "--name-key").stdout


class TestCheck:
    def test_keys_are_shown_by_origin_and_id_and_regions_by_need(
        self, secrets: Secrets, keys: Callable[..., None], tmp_path: Path
    ) -> None:
        (tmp_path / "master").write_text(NEW)
        (tmp_path / "master").chmod(0o600)
        keys(master_key_file="master", previous_keys=f"{OLD},{UNKNOWN}", signing_key=SIGNING, name_key=NAMES)
        done = secrets("check", "--json")
        found = json.loads(done.stdout)
        assert (done.returncode, found["ok"], found["problems"], found["warnings"]) == (0, True, [], [])
        seal, sign = ids(master_key=NEW, signing_key=SIGNING)
        by_name = {each["key"]: each for each in found["keys"]}
        assert list(by_name) == ["master_key", "signing_key", "name_key", "previous_keys[0]", "previous_keys[1]"]
        assert (by_name["master_key"]["origin"], by_name["master_key"]["seals"]) == (
            "env CACHEKIT_MASTER_KEY_FILE", seal,
        )  # fmt: skip
        assert by_name["signing_key"] == {
            "key": "signing_key", "origin": "env CACHEKIT_SIGNING_KEY", "seals": "", "signs": sign,
        }  # fmt: skip
        assert by_name["previous_keys[0]"]["seals"] == ids(master_key=OLD)[0]
        assert by_name["name_key"]["origin"] == "env CACHEKIT_NAME_KEY"
        regions = {each["region"]: each for each in found["regions"]}
        assert set(regions) == {"secure", "signed"}
        assert (regions["secure"]["protection"], regions["secure"]["needs"], regions["secure"]["key_id"]) == (
            "encrypted", "master_key", seal,
        )  # fmt: skip
        assert (regions["signed"]["protection"], regions["signed"]["needs"], regions["signed"]["key_id"]) == (
            "signed", "signing_key", sign,
        )  # fmt: skip

    def test_the_table_says_the_same(self, secrets: Secrets, keys: Callable[..., None]) -> None:
        keys(master_key=NEW)
        done = secrets("check")
        seal, sign = ids(master_key=NEW)
        lines = [line.split() for line in done.stdout.splitlines()]
        assert ["master_key", "env", "CACHEKIT_MASTER_KEY", seal, sign] in lines
        assert ["secure", "encrypted", "master_key", seal, "no"] in lines
        assert "warning: name_key: not set; a rotation of the master key will change names" in done.stdout
        assert NEW not in done.stdout

    def test_a_missing_key_is_an_error(self, secrets: Secrets, keys: Callable[..., None]) -> None:
        keys()
        done = secrets("check")
        assert done.returncode == 1
        assert "error: cachekit.toml:5: profiles.secure: what is encrypted needs a master key" in done.stdout

    def test_no_key_and_no_need_is_none(self, secrets: Secrets, keys: Callable[..., None]) -> None:
        keys()
        Path("cachekit.toml").write_text("")
        done = secrets("check")
        assert done.returncode == 0
        assert "no key is configured" in done.stdout
        assert "secure  encrypted   master_key  no key: not usable" in done.stdout

    def test_a_probe_counts_entries_by_key(
        self, secrets: Secrets, keys: Callable[..., None], serving: Callable[[], Service]
    ) -> None:
        keys(master_key=OLD, name_key=NAMES)
        fill(serving())
        keys(master_key=NEW, previous_keys=OLD, name_key=NAMES)
        serving().region("secure").set("new", 1)
        done = secrets("check", "--probe", "--json")
        found = json.loads(done.stdout)
        (old_seal, old_sign), (seal, _) = ids(master_key=OLD), ids(master_key=NEW)
        regions = {each["region"]: each["entries"] for each in found["regions"]}
        assert regions == {"secure": {old_seal: 4, seal: 1}, "signed": {old_sign: 4}, "plain": {old_seal: 1}}
        assert (found["sampled"], found["complete"], found["ok"]) == (11, True, True)
        keys(master_key=NEW, name_key=NAMES)
        done = secrets("check", "--probe")
        assert done.returncode == 1
        assert f"error: region secure: 4 entries lie under the key {old_seal}, which is not known here" in done.stdout

    def test_a_probe_of_a_server_that_is_away_is_an_error(
        self, secrets: Secrets, keys: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keys(master_key=NEW)
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
        monkeypatch.setattr("cachekit.l2.rewrap.PAUSE", 0.0)
        done = secrets("check", "--probe")
        assert done.returncode == 1
        assert "error: backend default: " in done.stdout


class TestRotate:
    def test_everything_is_stored_under_the_present_key_and_stays_what_it_is(
        self, secrets: Secrets, keys: Callable[..., None], serving: Callable[[], Service], server: Server, space: str
    ) -> None:
        keys(master_key=OLD, name_key=NAMES)
        count = fill(serving())
        before = remaining(server, space)
        keys(master_key=NEW, previous_keys=OLD, name_key=NAMES)
        done = secrets("rotate", "--json")
        report = json.loads(done.stdout)
        assert (done.returncode, report["ok"], report["rewrapped"], report["plain"]) == (0, True, count, 1)
        assert report["verdict"] == (
            "no entry is left under an older key: once every process has the present one, CACHEKIT_PREVIOUS_KEYS may go"
        )
        after = remaining(server, space)
        assert after.keys() == before.keys()
        assert all(-5000 < after[key] - before[key] <= 0 for key in before)
        again = json.loads(secrets("rotate", "--json").stdout)
        assert (again["rewrapped"], again["current"], again["ok"]) == (0, count, True)
        loads.clear()
        keys(master_key=NEW, name_key=NAMES)  # the old one is gone
        assert read(serving()) == WHAT_WAS_STORED
        assert loads == []

    def test_tags_and_stamps_stay(
        self, secrets: Secrets, keys: Callable[..., None], serving: Callable[[], Service]
    ) -> None:
        keys(master_key=OLD, name_key=NAMES)
        fill(serving())
        keys(master_key=NEW, previous_keys=OLD, name_key=NAMES)
        secrets("rotate")
        service = serving()
        loads.clear()
        service.region("secure").invalidate_tags("users")
        user(1)
        assert loads == [1]

    def test_a_dry_run_only_counts(
        self, secrets: Secrets, keys: Callable[..., None], serving: Callable[[], Service]
    ) -> None:
        keys(master_key=OLD, name_key=NAMES)
        count = fill(serving())
        keys(master_key=NEW, previous_keys=OLD, name_key=NAMES)
        for _ in range(2):
            report = json.loads(secrets("rotate", "--dry-run", "--json").stdout)
            assert (report["older"], report["rewrapped"], report["current"]) == (count, 0, 0)
            assert report["verdict"] == f"{count} entries lie under older keys, which are still needed"
        (old_seal, old_sign) = ids(master_key=OLD)
        assert report["by_key"] == {old_seal: 5, old_sign: 4}

    def test_regions_may_be_named(
        self, secrets: Secrets, keys: Callable[..., None], serving: Callable[[], Service]
    ) -> None:
        keys(master_key=OLD, name_key=NAMES)
        fill(serving())
        keys(master_key=NEW, previous_keys=OLD, name_key=NAMES)
        report = json.loads(secrets("rotate", "secure", "--json").stdout)
        assert (report["rewrapped"], report["looked_at"]) == (4, 4)
        assert report["verdict"].endswith("look at the other regions before you remove one")
        done = secrets("rotate", "secre")
        assert (done.returncode, done.stdout) == (2, "")

    def test_a_signing_key_is_rotated_too(
        self, secrets: Secrets, keys: Callable[..., None], serving: Callable[[], Service]
    ) -> None:
        Path("cachekit.toml").write_text(Path("cachekit.toml").read_text().replace("[profiles.secure]", "[profiles.x]"))
        keys(signing_key=OLD)
        serving().region("signed").set("a", "A")
        keys(signing_key=SIGNING, previous_keys=OLD)
        assert json.loads(secrets("rotate", "--json").stdout)["rewrapped"] == 1
        keys(signing_key=SIGNING)
        assert serving().region("signed").get("a") == "A"

    def test_entries_under_unknown_keys_are_counted_and_left(
        self, secrets: Secrets, keys: Callable[..., None], serving: Callable[[], Service]
    ) -> None:
        keys(master_key=UNKNOWN, name_key=NAMES)
        fill(serving())
        keys(master_key=NEW, previous_keys=OLD, name_key=NAMES)
        done = secrets("rotate", "--json")
        report, (seal, sign) = json.loads(done.stdout), ids(master_key=UNKNOWN)
        assert (done.returncode, report["ok"], report["unreadable"]) == (1, False, {"key": 9})
        assert report["unknown_keys"] == {seal: 5, sign: 4}
        assert report["verdict"].startswith("entries under unknown keys are left")
        shown = secrets("rotate").stdout
        assert f"        5  under the unknown key {seal}" in shown
        keys(master_key=NEW, previous_keys=f"{OLD} {UNKNOWN}", name_key=NAMES)
        assert json.loads(secrets("rotate", "--json").stdout)["rewrapped"] == 9

    def test_what_was_tampered_with_is_counted_and_left_as_it_is(
        self, secrets: Secrets, keys: Callable[..., None], serving: Callable[[], Service], server: Server, space: str
    ) -> None:
        keys(master_key=OLD, name_key=NAMES)
        serving().region("secure").set("a", "A")
        with redis.Redis.from_url(server.url) as client:
            (key,) = client.scan_iter(f"{space}:v:*")
            data = client.get(key)
            assert isinstance(data, bytes)
            client.set(key, data[:-1] + bytes([data[-1] ^ 1]))
            client.set(f"{space}:v:{{signed:=x}}", b"hello")
            client.set(f"{space}:v:{{secure:=y}}", data[:4] + b"\0" + data[5:])
            keys(master_key=NEW, previous_keys=OLD, name_key=NAMES)
            report = json.loads(secrets("rotate", "--json").stdout)
            assert report["unreadable"] == {"tampered": 1, "magic": 1, "unsealed": 1}
            assert client.get(key) == data[:-1] + bytes([data[-1] ^ 1])

    def test_what_is_replaced_meanwhile_stays(
        self,
        secrets: Secrets,
        keys: Callable[..., None],
        serving: Callable[[], Service],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from cachekit.l2 import rewrap

        keys(master_key=OLD, name_key=NAMES)
        serving().region("secure").set("a", "A")
        keys(master_key=NEW, previous_keys=OLD, name_key=NAMES)
        service = serving()
        ask = rewrap.Rewrap._ask

        def late(self: Any, operation: str, *arguments: Any) -> Any:
            if operation == "remaining":
                service.region("secure").set("a", "B")
            return ask(self, operation, *arguments)

        monkeypatch.setattr(rewrap.Rewrap, "_ask", late)
        report = json.loads(secrets("rotate", "--json").stdout)
        assert (report["replaced"], report["rewrapped"]) == (1, 0)
        assert report["verdict"].startswith("1 entries were replaced meanwhile")
        assert serving().region("secure").get("a") == "B"

    def test_what_is_under_the_present_key_is_not_read(
        self,
        secrets: Secrets,
        keys: Callable[..., None],
        serving: Callable[[], Service],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from cachekit.l2 import rewrap

        keys(master_key=OLD, name_key=NAMES)
        fill(serving())
        asked: list[str] = []
        ask = rewrap.Rewrap._ask

        def noted(self: Any, operation: str, *arguments: Any) -> Any:
            asked.append(operation)
            return ask(self, operation, *arguments)

        monkeypatch.setattr(rewrap.Rewrap, "_ask", noted)
        secrets("rotate")
        assert asked.count("get") == 1  # the one whose header is longer than what a walk sees
        assert set(asked) == {"scan", "get"}

    def test_the_rate_is_kept(
        self,
        secrets: Secrets,
        keys: Callable[..., None],
        serving: Callable[[], Service],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        keys(master_key=OLD, name_key=NAMES)
        fill(serving())
        slept: list[float] = []
        monkeypatch.setattr("cachekit.cli.stores.time.sleep", slept.append)
        secrets("rotate", "--rate", "1")
        assert 8 < max(slept) <= 10
        slept.clear()
        secrets("rotate", "--rate", "1000000")
        assert sum(slept) < 0.01

    @pytest.mark.parametrize(
        ("backend", "problem"),
        [
            (MemoryBackend, ""),
            (Bare, f"{MISSING}, so entries cannot be found there or replaced"),
            (Coroutines, "backend default: it has coroutines only, which this command cannot use"),
        ],
    )
    def test_a_backend_that_cannot_be_walked_through_is_a_problem(
        self,
        secrets: Secrets,
        keys: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
        backend: Callable[[], Any],
        problem: str,
    ) -> None:
        keys(master_key=NEW, name_key=NAMES)
        opened = faces_of(backend(), BackendSpec())
        monkeypatch.setattr("cachekit.backends.registry.open_backend", lambda spec: opened)
        report = json.loads(secrets("rotate", "--json").stdout)
        assert (report["problems"], report["ok"]) == ([problem] if problem else [], not problem)
        assert not problem or report["verdict"].startswith("not everything was looked at")

    def test_without_a_key_there_is_nothing_to_rotate_to(self, secrets: Secrets, keys: Callable[..., None]) -> None:
        keys()
        Path("cachekit.toml").write_text("")
        done = secrets("rotate")
        assert done.returncode == 1
        assert done.stdout.startswith("what is encrypted needs a master key")

    def test_an_application_may_serve_meanwhile(
        self, secrets: Secrets, keys: Callable[..., None], serving: Callable[[], Service]
    ) -> None:
        keys(master_key=OLD, name_key=NAMES)
        region = serving().region("secure")
        region.set_many({number: number for number in range(300)})
        keys(master_key=NEW, previous_keys=OLD, name_key=NAMES)
        service = serving()

        async def both() -> Done:
            rotating = asyncio.create_task(asyncio.to_thread(secrets, "rotate", "--json"))
            while not rotating.done():
                for number in range(0, 300, 7):
                    assert await service.region("secure").using(skip_l1=True).aget(number) == number
                await asyncio.sleep(0)
            return await rotating

        report = json.loads(asyncio.run(both()).stdout)
        assert report["rewrapped"] + report["current"] + report["replaced"] >= 300
        assert report["unreadable"] == {}

    def test_what_was_done_until_an_interruption_is_counted(
        self, secrets: Secrets, keys: Callable[..., None], serving: Callable[[], Service],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        keys(master_key=OLD, name_key=NAMES)
        serving().region("signed").set_many({number: number for number in range(10)})
        keys(master_key=NEW, previous_keys=OLD, name_key=NAMES)
        take, looked = Rewrap._take, itertools.count(1)

        def interrupted(walk: Rewrap, key: str, head: bytes) -> Any:
            if next(looked) == 4:
                raise KeyboardInterrupt
            return take(walk, key, head)

        monkeypatch.setattr(Rewrap, "_take", interrupted)
        report = json.loads(secrets("rotate", "--json").stdout)
        assert (report["complete"], report["rewrapped"]) == (False, 3)

    @pytest.mark.slow
    def test_it_may_be_interrupted_and_run_again(
        self, secrets: Secrets, keys: Callable[..., None], serving: Callable[[], Service]
    ) -> None:
        keys(master_key=OLD, name_key=NAMES)
        serving().region("signed").set_many({number: number for number in range(600)})
        keys(master_key=NEW, previous_keys=OLD, name_key=NAMES)
        words = ["secrets", "rotate", "--json", "--rate", "20"]
        running = subprocess.Popen(
            [sys.executable, "-c", "from cachekit.cli import main; main()", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored, if tests run behind a shell
        )  # fmt: skip
        until = time.monotonic() + 60
        (_, sign), done = ids(master_key=NEW), 0
        while done < 2 and time.monotonic() < until:  # of the second it may not know yet that it is stored
            regions = json.loads(secrets("check", "--probe", "--json").stdout)["regions"]
            done = next(each["entries"].get(sign, 0) for each in regions if each["region"] == "signed")
        running.send_signal(signal.SIGINT)
        output, complaints = running.communicate(timeout=60)
        report = json.loads(output)
        assert (running.returncode, complaints) == (1, "")
        assert (report["complete"], report["ok"]) == (False, False)
        assert 0 < report["rewrapped"] < 600
        assert report["verdict"].startswith("not everything was looked at")
        rest = json.loads(secrets("rotate", "--json").stdout)
        assert (rest["ok"], rest["rewrapped"] + rest["current"]) == (True, 600)
        assert rest["current"] >= report["rewrapped"]


@pytest.mark.slow
def test_every_primary_of_a_cluster_is_walked_through(
    secrets: Secrets, keys: Callable[..., None], serving: Callable[[], Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cachekit.testing.topologies import start_cluster

    with start_cluster() as cluster:
        monkeypatch.setenv("REDIS_URL", cluster.url)
        keys(master_key=OLD, name_key=NAMES)
        serving().region("secure").set_many({number: number for number in range(100)})
        keys(master_key=NEW, previous_keys=OLD, name_key=NAMES)
        report = json.loads(secrets("rotate", "--json").stdout)
        assert (report["ok"], report["rewrapped"]) == (True, 100)
        keys(master_key=NEW, name_key=NAMES)
        assert len(serving().region("secure").get_many(range(100))) == 100
