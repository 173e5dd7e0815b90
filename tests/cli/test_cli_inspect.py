"""`cachekit inspect`, as a user runs it against a real server."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from typer.testing import CliRunner

import cachekit
from cachekit import cache, process
from cachekit.cli import build
from cachekit.codec import envelope
from cachekit.config.settings import load
from cachekit.service import Service
from cachekit.testing.servers import Server

SPACE = "looked-into"
KEY = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
FILE = f"""
namespace = "{SPACE}"
[backends.default]
budget = "10s"  # the machine may be busy
adaptive = false
[profiles.users]
ttl = "1h"
jitter = 0
stale_ttl = "1h"
[profiles.signed]
sign = true
[profiles.secure]
ttl = "1h"
[profiles.counters]
counters = true
[profiles.here]
backend = "none"
"""
SECRET = "plaintext of somebody"


class Done(NamedTuple):
    returncode: int
    stdout: str

    @property
    def rows(self) -> dict[str, str]:
        return {line[:24].strip(): line[25:] for line in self.stdout.splitlines()}


Inspect = Callable[..., Done]


@pytest.fixture
def service(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The default service, configured by file and environment in an empty project."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "cachekit.toml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CACHEKIT_MASTER_KEY", KEY)
    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.setenv("COLUMNS", "200")
    service = Service(load())
    before = process.replace_default(service)
    yield service
    process.replace_default(before)
    service.close()


@pytest.fixture
def inspect(service: Service) -> Inspect:
    def run(*words: str) -> Done:
        result = CliRunner().invoke(build(), ["inspect", *words])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.stderr == ""
        return Done(result.exit_code, result.stdout)

    return run


def facts(done: Done) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def client(server: Server) -> "redis.Redis":
    return redis.Redis.from_url(server.url)


@cache(profile="users", tags=["all"])
def user(number: int) -> dict[str, int]:
    entry = cachekit.current_entry()
    entry.etag = "v1"
    return {"number": number}


@pytest.fixture(autouse=True)
def bind_again() -> None:
    user.__cachekit_function__.follow()  # type: ignore[attr-defined]


def test_every_field_of_an_entry_of_a_function_is_shown(inspect: Inspect, server: Server) -> None:
    user(1)
    key = user.key(1)
    found = facts(inspect(key, "--json", "--value"))
    with client(server) as raw:
        data = raw.get(key)
    assert isinstance(data, bytes)
    assert (found["key"], found["region"], found["bytes"], found["format"]) == (key, "users", len(data), 1)
    assert (found["protection"], found["codec"], found["compression"], found["state"]) == (
        "none", "msgpack", "none", "fresh",
    )  # fmt: skip
    assert 7000 < found["left_on_server_seconds"] <= 7200
    assert -60 < found["created"]["seconds"] <= 0
    assert 3500 < found["fresh_until"]["seconds"] <= 3600
    assert 7100 < found["kept_until"]["seconds"] <= 7200
    assert (found["etag"], found["last_modified"], found["negative"], found["marked_as_stale"]) == (
        "v1", None, False, False,
    )  # fmt: skip
    assert found["id"] == data[8:24].hex()
    region, function, tag = found["stamps"]
    assert region == "region"
    assert function.startswith(f"function {__name__}.user:")
    assert tag.startswith("tag ")
    assert set(found["stamps"].values()) == {"holds"}
    assert found["value"] == "{'number': 1}"


def test_the_table_says_the_same(inspect: Inspect) -> None:
    user(2)
    done = inspect(user.key(2), "--value")
    assert done.returncode == 0
    assert done.rows["key"] == user.key(2)
    assert done.rows["fresh until"].endswith(" left)")
    assert done.rows["created"].endswith(" ago)")
    assert done.rows["negative"] == "no"
    assert done.rows["value"] == "{'number': 2}"
    assert "last modified" not in done.rows


def test_orders_to_the_terminal_are_shown_and_not_given(inspect: Inspect, server: Server) -> None:
    """Whoever writes to the server chooses etags and keys."""
    user(4)
    key = user.key(4)
    with client(server) as raw:
        header, payload = envelope.unpack(raw.get(key), key)
        evil = header._replace(etag="\x1b]0;mine\x07\x9b2J\u202e", last_modified="\x1b[31m\r")
        raw.set(key, envelope.pack(evil, bytes(payload), key))
    done = inspect(key)
    assert done.rows["etag"] == r"\x1b]0;mine\x07\x9b2J\u202e"
    assert done.rows["last modified"] == r"\x1b[31m"
    assert facts(inspect(key, "--json"))["etag"] == evil.etag


def test_what_no_longer_holds_is_told(inspect: Inspect, service: Service) -> None:
    user(3)
    key = user.key(3)
    service.region("users").invalidate_tags("all")
    stamps = facts(inspect(key, "--json"))["stamps"]
    assert [stamps[name] for name in stamps if name.startswith("tag")] == ["cleared, or lost by the server"]
    assert stamps["region"] == "holds"
    user.mark_stale(3)
    found = facts(inspect(key, "--json"))
    assert (found["marked_as_stale"], found["state"]) == (True, "stale")


def test_a_key_of_a_region_is_found_by_its_text_or_number(inspect: Inspect, service: Service) -> None:
    users = service.region("users")
    users.set("a b", [1, (2,)], ttl=None)
    users.set(7, "seven")
    done = inspect("users", "a b", "--value")
    assert done.rows["value"] == "[1, (2,)]"
    assert (done.rows["codec"], done.rows["fresh until"]) == ("msgpack with types", "never")
    assert inspect("users", "7", "--value").rows["value"] == "'seven'"
    with cachekit.tenant("acme"):
        users.set("t", 1)
    assert inspect("users", "t").returncode == 1
    assert inspect("users", "t", "--tenant", "acme", "--value").rows["value"] == "1"


def test_a_number_that_the_server_adds_to_is_shown_as_one(inspect: Inspect, service: Service) -> None:
    service.region("counters").incr("hits", 5)
    found = facts(inspect("counters", "hits", "--json"))
    assert (found["format"], found["value"]) == ("a number that the server adds to", 5)
    assert inspect("counters", "hits", "--value").returncode == 0


def test_a_signed_entry_names_its_key_and_shows_its_value(inspect: Inspect, service: Service) -> None:
    service.region("signed").set("a", {"x": 1})
    found = facts(inspect("signed", "a", "--json", "--value"))
    assert (found["protection"], found["closed_by"], found["value"]) == ("signed", "master_key, derived", "{'x': 1}")
    assert found["key_id"] == service.keyring().present("sign").id.hex()


@pytest.mark.parametrize("tenant", [None, "acme"])
def test_an_encrypted_entry_shows_its_header_and_never_its_value(
    inspect: Inspect, service: Service, tenant: str | None
) -> None:
    secure = service.region("secure")
    who: list[str] = []
    if tenant is None:
        secure.set("a", SECRET)
    else:
        who = ["--tenant", tenant]
        with cachekit.tenant(tenant):
            secure.set("a", SECRET)
    found = facts(inspect("secure", "a", "--json", *who))
    assert (found["protection"], found["closed_by"], found["state"]) == ("encrypted", "master_key", "fresh")
    assert found["key_id"] == service.keyring().present("seal").id.hex()
    assert "=a" not in found["key"]
    for words in (["--value"], ["--value", "--json"]):
        done = inspect("secure", "a", *who, *words)
        assert done.returncode == 1
        assert "the entry is encrypted: its value is not shown here; ask the application for it" in done.stdout
        assert SECRET not in done.stdout
    assert SECRET not in inspect("secure", "a", *who).stdout


@pytest.mark.parametrize(
    ("region", "change", "reason"),
    [
        ("users", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "checksum"),
        ("users", lambda data: data[:40], "truncated"),
        ("users", lambda data: b"", "empty"),
        ("users", lambda data: b"hello", "magic"),
        ("users", lambda data: data[:2] + b"\2" + data[3:], "format"),
        ("signed", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "tampered"),
        ("secure", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "tampered"),
    ],
)
def test_bad_bytes_have_a_reason(
    inspect: Inspect, service: Service, server: Server, region: str, change: Callable[[bytes], bytes], reason: str
) -> None:
    service.region(region).set("bad", SECRET)
    key = facts(inspect(region, "bad", "--json"))["key"]
    with client(server) as raw:
        data = raw.get(key)
        assert isinstance(data, bytes)
        raw.set(key, change(data))
    done = inspect(region, "bad", "--value")
    assert done.returncode == 1
    assert done.rows["problem"] == f"the bytes are not an entry that can be read here: {reason}"
    assert region != "secure" or SECRET not in done.stdout


def test_a_plain_entry_where_there_must_be_none_is_bad(inspect: Inspect, service: Service, server: Server) -> None:
    service.region("users").set("x", SECRET)
    service.region("signed").set("x", SECRET)
    keys = [facts(inspect(region, "x", "--json"))["key"] for region in ("users", "signed")]
    with client(server) as raw:
        raw.set(keys[1], raw.get(keys[0]))
    done = inspect("signed", "x", "--value")
    assert (done.returncode, done.rows["problem"].rpartition(" ")[2]) == (1, "unsealed")
    assert SECRET not in done.stdout


def test_an_unknown_key_is_named_by_its_id(inspect: Inspect, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    user.__cachekit_function__.follow()  # type: ignore[attr-defined]
    service.region("secure").set("k", 1)
    key, ident = facts(inspect("secure", "k", "--json"))["key"], service.keyring().present("seal").id.hex()
    monkeypatch.setenv("CACHEKIT_MASTER_KEY", OTHER)
    done = inspect(key)
    assert done.returncode == 1
    assert (done.rows["key id"], done.rows["closed by"]) == (ident, "a key that is not known here")
    assert done.rows["problem"].endswith(": key")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["users", "no such"], f"nothing lies under {SPACE}:v:{{users:=no such}}"),
        (["here", "a"], "region 'here' has no backend: its entries live in the application alone"),
    ],
)
def test_what_cannot_be_shown_is_a_sentence(inspect: Inspect, words: list[str], message: str) -> None:
    done = inspect(*words)
    assert done.returncode == 1
    assert done.stdout.startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no key"], f"'no key' is not a whole key: it begins with {SPACE}:v:{{REGION:"),
        (["other:v:{users:=a}"], f"'other:v:{{users:=a}}' is not a whole key: it begins with {SPACE}:v:{{REGION:"),
        (["usrs", "a"], "there is no region 'usrs'; did you mean 'users'?"),
        ([f"{SPACE}:v:{{usrs:=a}}"], "there is no region 'usrs'; did you mean 'users'?"),
        (["a", "b", "c"], "write the whole key, or a region and its key; --tenant goes with the latter"),
        (["a", "--tenant", "b"], "write the whole key, or a region and its key; --tenant goes with the latter"),
    ],
)
def test_what_no_command_line_can_mean_is_exit_status_2(service: Service, words: list[str], message: str) -> None:
    result = CliRunner().invoke(build(), ["inspect", *words])
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.replace("│", "").split())


def test_a_server_that_is_away_is_a_sentence(inspect: Inspect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    done = inspect("users", "a")
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 1)


def test_the_command_as_a_process(service: Service) -> None:
    service.region("users").set("process", 1)
    words = ["inspect", "users", "process", "--json", "--value"]
    done = subprocess.run(
        [sys.executable, "-c", "from cachekit.cli import main; main()", *words],
        capture_output=True, text=True, check=False, timeout=60, env=dict(os.environ),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["value"] == "1"
