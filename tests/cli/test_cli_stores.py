"""`cachekit entries`, `clear` and `invalidate`, as a user runs them against real servers."""

import json
import os
import pty
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
from cachekit.config.settings import load
from cachekit.service import Service
from cachekit.testing.servers import Server

SPACE = "emptied"
FILE = f"""
namespace = "{SPACE}"
[profiles.users]
ttl = "1h"
jitter = 0
[profiles.pages]
[profiles.signed]
sign = true
[profiles.tenants]
require_tenant = true
[profiles.counters]
counters = true
[profiles.here]
backend = "none"
"""
PATIENT = f'{FILE}[backends.default]\nbudget = "5s"\nadaptive = false\n'  # the machine may be busy
SECRET = "plaintext of somebody"
ARGUMENTS = [sys.executable, "-c", "from cachekit.cli import main; main()"]


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def wrong(self) -> str:
        """What is wrong with the command line, without the box around it."""
        assert (self.code, self.stdout) == (2, "")
        return " ".join(self.stderr.replace("│", "").split())


@pytest.fixture
def service(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The default service of an application in a project of its own, on a server of its own."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "cachekit.toml").write_text(PATIENT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CACHEKIT_MASTER_KEY", "0123456789abcdef" * 4)
    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.setenv("COLUMNS", "300")
    redis.Redis.from_url(server.url).flushall()
    service = Service(load())
    before = process.replace_default(service)
    yield service
    process.replace_default(before)
    service.close()


def run(*words: str, text: str = "") -> Done:
    result = CliRunner().invoke(build(), words, input=text)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


def there(service: Service, **wanted: str) -> list[str]:
    """The regions in whose store, whatever this process has, a key still has its value."""
    return [name for name, key in wanted.items() if service.region(name).using(skip_l1=True).get(key) is not None]


class TestEntries:
    def rows(self, *words: str) -> dict[str, dict[str, Any]]:
        found: list[dict[str, Any]] = run("entries", "--json", *words).json["entries"]
        return {row["key"].partition(":v:")[2]: row for row in found}

    def test_every_entry_is_a_row_with_size_rest_and_protection(self, service: Service, server: Server) -> None:
        @cache(profile="users", ttl="30m")
        def load_user(number: int) -> dict[str, int]:
            return {"id": number}

        load_user(7)
        service.region("users").set("small", "x")
        service.region("users").set("large", os.urandom(50_000))
        service.region("users").set("ever", "x", ttl=None)
        service.region("signed").set("k", "x")
        service.region("counters").incr("visits", ttl="1h")
        rows = self.rows()
        client = redis.Redis.from_url(server.url)
        assert len(rows) == 6
        for row in rows.values():
            assert row["bytes"] == client.strlen(row["key"])
            left = client.pttl(row["key"])
            assert (row["kept_until"] is None) if left < 0 else abs(row["kept_until"] - left / 1000) < 5
        assert rows["{users:=large}"]["bytes"] > 50_000
        assert {row["protection"] for row in rows.values()} == {"none", "signed"}
        assert rows["{counters:=visits}"]["state"] == "number"
        (call,) = [row for row in rows.values() if row["function"]]
        assert "load_user" in call["function"]
        table = run("entries").stdout
        assert table.splitlines()[0].split() == ["key", "bytes", "left", "protection", "state"]
        assert len(table.splitlines()) == 7
        assert "59m59s" in table or " 1h " in table
        assert "never ends" in table

    def test_orders_to_the_terminal_are_shown_and_not_given(self, service: Service, server: Server) -> None:
        redis.Redis.from_url(server.url).set(f"{SPACE}:v:{{users:=\x1b[31m\x9b2J größe}}", "x")
        table = run("entries").stdout
        assert r"=\x1b[31m\x9b2J größe" in table
        assert "\x1b" not in table
        assert "\x9b" not in table

    def test_nothing_of_an_encrypted_region_is_shown_but_that_it_is_there(
        self, service: Service, server: Server
    ) -> None:
        service.region("secure").set("name of somebody", SECRET, tags=["tag of somebody"])
        (row,) = self.rows("secure").values()
        assert row["protection"] == "encrypted"
        for done in (run("entries"), run("entries", "--json")):
            assert "secure" in done.stdout
            assert "of somebody" not in done.stdout

    def test_a_region_is_listed_alone_and_what_is_outdated_or_foreign_is_told(
        self, service: Service, server: Server
    ) -> None:
        service.region("users").set("a", "x", tags=["red"])
        service.region("users").set("b", "x")
        service.region("pages").set("a", "x")
        redis.Redis.from_url(server.url).set(f"{SPACE}:v:{{users:=odd}}", "bytes of another", ex=60)
        service.region("users").invalidate_tags("red")
        rows = self.rows("users")
        assert {key: row["state"] for key, row in rows.items()} == {
            "{users:=a}": "outdated", "{users:=b}": "fresh", "{users:=odd}": "foreign",
        }  # fmt: skip
        assert "bytes of" not in run("entries").stdout

    def test_there_is_a_limit_of_rows(self, service: Service) -> None:
        assert run("entries").stdout == "no entries\n"
        service.region("users").set_many({f"k{number}": number for number in range(450)})
        assert (len(self.rows()), run("entries", "--json").json["more"]) == (100, True)
        assert len(self.rows("--limit", "0")) == 450
        short = run("entries", "--limit", "3").stdout.splitlines()
        assert (len(short), short[-1]) == (5, "and more: this is the limit of 3 rows; --limit 0 lists all")
        assert not run("entries", "--limit", "450", "--json").json["more"]

    def test_the_server_is_asked_for_so_many_keys_a_second(
        self, service: Service, monkeypatch: pytest.MonkeyPatch, server: Server
    ) -> None:
        """Also where they are keys of others, which are no rows."""
        others = redis.Redis.from_url(server.url)
        others.mset({f"other:{number}": "x" for number in range(2_000)})
        service.region("users").set("a", "x")
        slept: list[float] = []
        monkeypatch.setattr("cachekit.cli.stores.time.sleep", slept.append)
        assert run("entries", "--rate", "100").code == 0
        assert 15 < max(slept) <= 20  # 2,001 keys, of which the last 200 need no waiting after them
        slept.clear()
        run("entries", "--rate", "1000000")
        assert sum(slept) < 0.01

    def test_one_server_of_two_backends_is_listed_once(self, service: Service, server: Server) -> None:
        Path("cachekit.toml").write_text(f'{PATIENT}[backends.second]\nurl = "{server.url}"\n')
        service.region("users").set("a", "x")
        assert len(run("entries", "--json").json["entries"]) == 1

    @pytest.mark.slow
    def test_a_bar_is_shown_on_a_terminal_and_the_table_stays_clean(self, service: Service) -> None:
        service.region("users").set_many({f"k{number}": number for number in range(300)})
        ours, theirs = pty.openpty()
        done = subprocess.Popen(
            [*ARGUMENTS, "entries", "--limit", "0", "--rate", "400"], stdout=subprocess.PIPE, stderr=theirs,
            env=os.environ | {"TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        os.close(theirs)
        out, _ = done.communicate(timeout=60)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
        os.close(ours)
        assert done.returncode == 0
        assert b"keys looked at" in shown
        assert len(out.splitlines()) == 301
        assert b"\x1b" not in out

    def test_what_cannot_be_listed_is_a_sentence(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "there is no region 'usrs'; did you mean 'users'?" in run("entries", "usrs").wrong
        assert run("entries", "here").stdout.startswith("region 'here' has no backend")
        problem = {"ok": False, "problems": ["region 'here' has no backend: its entries live in the application alone"]}
        assert run("entries", "here", "--json").json == problem
        Path("cachekit.toml").write_text(FILE)
        monkeypatch.delenv("REDIS_URL")
        done = run("entries")
        assert (done.code, done.stdout.partition(":")[0]) == (1, "no backend is configured")
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
        done = run("entries", "--json")
        assert (done.code, done.json["ok"], len(done.json["problems"])) == (1, False, 1)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # its other end is closed
        return b""


class TestClear:
    def test_what_is_named_is_emptied_once_it_is_confirmed(self, service: Service) -> None:
        def fill() -> None:
            for name in ("users", "pages", "default"):
                service.region(name).set("k", 1)

        wanted = {"users": "k", "pages": "k", "default": "k"}
        fill()
        for text in ("", "n\n"):
            done = run("clear", "users", text=text)
            assert (done.code, "nothing was removed" in done.stdout) == (1, True)
            assert "This will remove everything in users. Go on?" in done.stderr
        assert there(service, **wanted) == ["users", "pages", "default"]
        done = run("clear", "users", text="y\n")
        assert (done.code, done.stdout.split()[-4:]) == (0, ["name", "outcome", "users", "done"])
        assert there(service, **wanted) == ["pages", "default"]
        done = run("clear", "pages", "users", "--yes", "--json")
        assert done.json == {
            "ok": True, "outcomes": [{"name": "pages", "outcome": "done"}, {"name": "users", "outcome": "done"}],
        }  # fmt: skip
        assert there(service, **wanted) == ["default"]

    def test_tenants_and_encrypted_regions_are_emptied_too(self, service: Service) -> None:
        with cachekit.tenant("acme"):
            service.region("tenants").set("k", 1)
        service.region("secure").set("k", 1)
        assert run("clear", "tenants", "secure", "-y").code == 0
        assert there(service, secure="k") == []
        with cachekit.tenant("acme"):
            assert there(service, tenants="k") == []

    def test_a_process_that_runs_follows(self, service: Service) -> None:
        """Without the word of anybody: L1 of the application hears it from the server."""
        service.region("users").set("k", 1)
        assert service.region("users").get("k") == 1
        run("clear", "users", "--yes")
        assert _becomes_none(lambda: service.region("users").get("k"))

    def test_what_cannot_be_emptied_is_a_sentence_before_anything_is_removed(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service.region("users").set("k", 1)
        assert "did you mean 'pages'?" in run("clear", "users", "pagse", "--yes").wrong
        assert run("clear").code == 2
        assert run("clear", "users", "here", "--yes").code == 1
        for words in (["clear", "users", "--yes"], ["invalidate", "--tag", "red"]):
            with monkeypatch.context() as off:
                off.setenv("CACHEKIT_ENABLED", "false")
                done = run(*words)
            assert (done.code, done.stdout.partition(",")[0]) == (1, "caching is switched off")
        assert there(service, users="k") == ["users"]
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
        done = run("clear", "users", "--yes", "--json")
        assert (done.code, done.json) == (1, {"ok": False, "outcomes": [{"name": "users", "outcome": "queued"}]})
        assert "see `cachekit doctor`" in run("clear", "users", "--yes").stdout


class TestInvalidate:
    def test_what_has_a_tag_is_removed_in_all_regions(self, service: Service) -> None:
        service.region("users").set("k", 1, tags=["red"])
        service.region("pages").set("k", 1, tags=["blue", "red"])
        service.region("secure").set("k", 1, tags=["blue"])
        service.region("default").set("k", 1, tags=["green"])
        done = run("invalidate", "--tag", "red", "--tag", "blue", "--json")
        assert (done.code, done.json["ok"], len(done.json["outcomes"])) == (0, True, 2)
        assert there(service, users="k", pages="k", secure="k", default="k") == ["default"]

    def test_an_entry_is_removed_by_its_whole_key(self, service: Service) -> None:
        @cache(profile="users")
        def double(number: int) -> int:
            return 2 * number

        double(7)
        double(8)
        assert run("invalidate", "--key", double.key(7)).code == 0
        assert double.using(skip_l1=True).peek(7) is cachekit.MISS
        assert double.using(skip_l1=True).peek(8) == 16
        assert _becomes_none(lambda: None if double.peek(7) is cachekit.MISS else 14)

    def test_an_entry_is_removed_by_region_and_key(self, service: Service) -> None:
        for key in (7, "7", "a"):
            service.region("users").set(key, 1)
        with cachekit.tenant("acme"):
            service.region("users").set("a", 1)
        assert run("invalidate", "--region", "users", "--key", "7").stdout.split() == ["name", "outcome", "7", "done"]
        assert service.region("users").using(skip_l1=True).get_many([7, "7", "a"]) == {"a": 1}
        assert run("invalidate", "--region", "users", "--key", "a", "--tenant", "acme").code == 0
        assert there(service, users="a") == ["users"]
        with cachekit.tenant("acme"):
            assert there(service, users="a") == []

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([], "give --tag or --key"),
            (["--tag", "#f"], "begins with '#'"),
            (["--tag", "a", "--region", "users"], "--region goes with --key"),
            (["--key", "a", "--tenant", "x"], "--tenant with --region"),
            (["--key", "7"], f"'7' is not a whole key: it begins with {SPACE}:v:{{REGION:"),
            (["--key", "another:v:{users:=a}"], "is not a whole key"),
            (["--region", "usrs", "--key", "7"], "there is no region 'usrs'; did you mean 'users'?"),
        ],
    )
    def test_what_no_command_line_can_mean_is_exit_status_2(
        self, service: Service, words: list[str], message: str
    ) -> None:
        assert message in run("invalidate", *words).wrong

    def test_a_store_that_cannot_be_told_is_a_problem(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        assert run("invalidate", "--region", "here", "--key", "a").code == 1
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
        done = run("invalidate", "--tag", "red", "--json")
        assert (done.code, done.json["outcomes"]) == (1, [{"name": "red", "outcome": "queued"}])
        assert run("invalidate", "--region", "users", "--key", "a", "--json").json["ok"] is False
        Path("cachekit.toml").write_text(FILE)
        monkeypatch.delenv("REDIS_URL")
        done = run("invalidate", "--tag", "red")
        assert (done.code, done.stdout.partition(":")[0]) == (1, "no region has a backend")


def _becomes_none(ask: Callable[[], Any]) -> bool:
    """Whether it does within the time that a server needs to tell, with much to spare."""
    import time

    end = time.monotonic() + 10
    while ask() is not None and time.monotonic() < end:
        time.sleep(0.01)
    return ask() is None
