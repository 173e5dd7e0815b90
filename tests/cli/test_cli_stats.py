"""`cachekit stats`, as a user runs it against a running application."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from cachekit import cache, region
from cachekit.cli import build
from cachekit.cli.stats import Counts, Reading, Stats, as_dict, parse, readings, render
from cachekit.config.settings import load
from cachekit.metrics import MetricsServer, serve
from cachekit.process import replace_default
from cachekit.service import Service
from cachekit.testing.servers import Server

CONFIG = {
    "namespace": "shop",
    "metrics": {"allow": []},
    "profiles": {"default": {"backend": "none"}, "users": {"ttl": "1m"}, "tokens": {"backend": "none"}},
}


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``cachekit stats`` in this process, in an empty project."""
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str, **environ: str) -> Done:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(build(), ["stats", *words])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


def eventually(condition: Callable[[], bool], patience: float = 10.0) -> bool:
    until = time.monotonic() + patience
    while not (met := condition()) and time.monotonic() < until:
        time.sleep(0.01)
    return met


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service(load([], settings=CONFIG, environ={}))
    before = replace_default(service)
    yield service
    replace_default(before)
    service.close()


@pytest.fixture
def page(service: Service) -> Iterator[str]:
    """The address of an application in which square ran twice, answered three times, and failed once."""

    @cache(profile="users", version=1)
    def square(n: int) -> int:
        return 9 // n

    for n in (3, 3, 1, 3, 3):
        square(n)
    with pytest.raises(ZeroDivisionError):
        square(0)
    region("tokens").get("nothing")
    with serve(0) as server:
        yield f"http://127.0.0.1:{server.port}/metrics"


SQUARE = f"{__name__}.page.<locals>.square"


def test_regions_and_functions_are_listed_with_their_counts(run: Run, page: str) -> None:
    done = run("--url", page)
    assert done.returncode == 0, done.stdout
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
    first, second, *_ = done.stdout.splitlines()
    assert first.split() == ["L1", "L2", "hit"]
    assert second.split()[2:] == ["hits", "hits", "misses", "waited", "share", "loads", "errors"]
    assert rows[SQUARE][1:] == ["3", "0", "3", "0", "50.0%", "3", "1"]
    assert rows["users:"][1:3] == ["2", "entries,"]
    assert rows["users:"][5:] == ["3", "0", "3", "0", "50.0%", "3", "1"]
    assert rows["tokens:"][5:] == ["0", "0", "1", "0", "0.0%", "0", "0"]
    assert "(direct use)" in done.stdout


def test_json_has_the_same_as_numbers(run: Run, page: str) -> None:
    done = run("--url", page, "--json")
    stats = json.loads(done.stdout)
    assert stats["url"] == page
    users = stats["regions"]["users"]
    assert users["functions"][SQUARE] == {
        "l1_hits": 3, "l2_hits": 0, "misses": 3, "waited": 0, "loads": 3, "errors": 1, "stale": 0, "hit_share": 0.5,
    }  # fmt: skip
    assert (users["entries"], users["misses"], users["hit_share"]) == (2, 3, 0.5)
    assert users["bytes"] > 0
    assert stats["backends"] == {}


def test_backends_are_shown_as_the_application_finds_them(run: Run, cachekit_server: Server) -> None:
    patient = {"url": cachekit_server.url, "budget": "10s", "adaptive": False}  # the machine may be busy
    backends = {"default": patient, "dead": {"url": "redis://127.0.0.1:1"}}
    profiles = {"users": {}, "lost": {"backend": "dead"}}
    service = Service(load([], settings={"namespace": "stats", "backends": backends, "profiles": profiles}, environ={}))
    users, lost = service.region("users"), service.region("lost")
    users.set("a", 1)
    for key in range(8):
        lost.get(key)
    lost.delete("a")
    assert eventually(lambda: service.health().backends["default"].coherence == "tracking")
    with serve(0, service=service) as server:
        url = f"http://127.0.0.1:{server.port}"
        table, stats = run("--url", url).stdout, json.loads(run("--url", url, "--json").stdout)
    service.close()
    found = stats["backends"]
    assert found["default"]["up"] is True
    assert found["default"]["breaker"] == "closed"
    assert found["default"]["budget"] > 0
    assert (found["dead"]["up"], found["dead"]["breaker"]) == (False, "open")
    assert (found["default"]["coherence"], found["default"]["pending"]) == ("tracking", 0)
    assert (found["dead"]["coherence"], found["dead"]["pending"]) == ("connecting", 1)
    assert stats["regions"]["lost"]["errors"] > 0
    rows = {line.split()[0]: line.split()[1:3] for line in table.splitlines() if line}
    assert (rows["default"], rows["dead"]) == (["up", "closed"], ["down", "open"])
    ends = {line.split()[0]: line.split()[-2:] for line in table.splitlines() if line}
    assert (ends["backend"], ends["default"], ends["dead"]) == (
        ["coherence", "pending"],
        ["tracking", "0"],
        ["connecting", "1"],
    )


def test_stale_answers_are_a_column_only_if_there_are_any() -> None:
    from rich.console import Console

    def shown(stale: int) -> list[list[str]]:
        page = f"""
cachekit_cache_hits_total{{region="r",tier="l1",function="f"}} 5
cachekit_cache_loads_total{{region="r",function="f",result="ok"}} 7
cachekit_cache_stale_total{{region="r",function="f"}} {stale}
cachekit_cache_stale_total{{region="r",function="g"}} {2 * stale}
"""
        text = io.StringIO()
        Console(width=120, file=text).print(render(Reading(parse(page, 0))))
        return [line.split() for line in text.getvalue().splitlines()[1:]]

    head, region, f, g = shown(3)
    assert (head[-3:], region[-3:], f[-3:], g[-3:]) == (
        ["loads", "errors", "stale"], ["7", "0", "9"], ["7", "0", "3"], ["0", "0", "6"],
    )  # fmt: skip
    head, region, f, _ = shown(0)
    assert (head[-1], region[-2:], f[-2:]) == ("errors", ["7", "0"], ["7", "0"])


def test_a_stale_answer_of_an_application_is_told(run: Run, service: Service) -> None:
    @cache(profile="users", stale_ttl="1h", stale_throttle=0)
    def flaky(n: int) -> int:
        if flaky.cache_info().misses > 1:
            raise OSError
        return n

    flaky(1)
    flaky.mark_stale(1)
    assert flaky(1) == 1
    with serve(0) as server:
        stats = json.loads(run("--url", f"http://127.0.0.1:{server.port}", "--json").stdout)
    (counts,) = stats["regions"]["users"]["functions"].values()
    assert (counts["stale"], counts["misses"], counts["errors"]) == (1, 2, 1)


def backends_table(*lines: str) -> list[list[str]]:
    from rich.console import Console

    text = io.StringIO()
    Console(width=120, file=text).print(render(Reading(parse("\n".join(lines) + "\n", 0))))
    return [line.split() for line in text.getvalue().splitlines()[-2:]]


def test_what_waits_for_a_backend_is_a_column_only_if_something_does() -> None:
    up, ttl = 'cachekit_backend_up{backend="b"} 1', 'cachekit_backend_coherence{backend="b"} 0'
    head, row = backends_table(up, ttl, 'cachekit_backend_pending_invalidations{backend="b"} 0')
    assert (head[-1], row[-1]) == ("coherence", "ttl")
    head, row = backends_table(up, ttl, 'cachekit_backend_pending_invalidations{backend="b"} 3')
    assert (head[-1], row[-1]) == ("pending", "3")


def test_an_application_that_tells_nothing_of_coherence_has_none() -> None:
    head, row = backends_table('cachekit_backend_up{backend="b"} 1')
    assert (head[-1], row[-1]) == ("coherence", "–")


def test_an_application_that_did_nothing_yet(run: Run, service: Service) -> None:
    with serve(0) as server:
        done = run("--url", f"http://127.0.0.1:{server.port}")
    assert done.returncode == 0
    assert "no region was used yet" in done.stdout


class TestAddress:
    """Where the page is: --url, else metrics.path at port 8000 of this machine."""

    def test_the_path_of_the_configuration_is_added_to_an_address_without_one(
        self, run: Run, tmp_path: Path, service: Service
    ) -> None:
        (tmp_path / "cachekit.toml").write_text('[metrics]\npath = "/internal"\n')
        own = Service(load([], settings={**CONFIG, "metrics": {"path": "/internal"}}, environ={}))
        with serve(0, service=own) as server:
            base = f"http://127.0.0.1:{server.port}"
            assert run("--url", base).returncode == run("--url", f"{base}/").returncode == 0
            assert run("--url", f"{base}/other").returncode == 1
            other = tmp_path / "other.toml"
            other.write_text('[metrics]\npath = "/other"\n')
            assert "no metrics there" in run("--url", base, "--config", str(other)).stdout
        own.close()

    def test_without_a_url_it_is_port_8000_of_this_machine(self, run: Run) -> None:
        done = run()
        assert "http://127.0.0.1:8000/metrics" in done.stdout or done.returncode == 0

    @pytest.mark.parametrize("url", ["127.0.0.1:8000", "file:///etc/passwd", "http://", "http://[", "ftp://a/b", "x"])
    def test_what_is_no_address_is_an_error(self, run: Run, url: str) -> None:
        done = run("--url", url)
        assert done.returncode == 1
        assert "not an address" in done.stdout

    def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(self, run: Run, page: str) -> None:
        assert run("--url", page, http_proxy="http://127.0.0.1:1").returncode == 0

    def test_a_wrong_configuration_is_told(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "cachekit.toml").write_text('[profiles.users]\nttl = "5 parsecs"\n')
        done = run()
        assert done.returncode == 1
        assert "cachekit.toml:2" in done.stdout


@pytest.fixture
def answering() -> Iterator[Callable[..., str]]:
    """A server that answers as told; gives its address, and remembers the headers of requests in ``seen``."""
    servers: list[ThreadingHTTPServer] = []

    def make(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, seen: Any = None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if seen is not None:
                    seen.append(dict(self.headers))
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/metrics"

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


class TestTrouble:
    """Whatever answers, or nothing: one friendly line, exit status 1, no traceback."""

    def test_nothing_listens(self, run: Run) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        done = run("--url", f"http://127.0.0.1:{port}")
        assert done.returncode == 1
        assert "nothing answers (Connection refused)" in done.stdout
        assert "Traceback" not in done.stdout + done.stderr
        assert len(done.stdout.splitlines()) == 1

    @pytest.mark.parametrize(("status", "words"), [
        (401, "CACHEKIT_METRICS__TOKEN"), (403, "metrics.allow"), (404, "metrics.path"), (500, "status 500"),
    ])  # fmt: skip
    def test_a_refusal_says_what_to_do(self, run: Run, answering: Callable[..., str], status: int, words: str) -> None:
        done = run("--url", answering(status))
        assert done.returncode == 1
        assert words in done.stdout

    @pytest.mark.parametrize(("body", "words"), [
        (b"<html>hello {", "not a metrics page"),
        (b"\xff\xfe\x00{}{", "not a metrics page"),
        (b"# HELP up x\n# TYPE up gauge\nup 1\n", "without cachekit"),
        (b"", "without cachekit"),
    ])  # fmt: skip
    def test_something_else_answers(self, run: Run, answering: Callable[..., str], body: bytes, words: str) -> None:
        done = run("--url", answering(200, body))
        assert done.returncode == 1
        assert words in done.stdout

    def test_something_that_does_not_speak_http(self, run: Run) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def chatter() -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"-ERR unknown command\r\n")

            thread = threading.Thread(target=chatter)
            thread.start()
            done = run("--url", f"http://127.0.0.1:{listener.getsockname()[1]}")
            thread.join()
        assert done.returncode == 1
        assert "no answer to understand" in done.stdout


class TestSecrets:
    """The token goes to the page and nowhere else."""

    @pytest.fixture
    def guarded(self, service: Service) -> Iterator[MetricsServer]:
        with serve(0, token="s3cret") as server:
            yield server

    def test_it_comes_from_the_environment_or_the_option(self, run: Run, guarded: MetricsServer) -> None:
        url = f"http://127.0.0.1:{guarded.port}"
        assert run("--url", url).returncode == 1
        assert run("--url", url, "--token", "s3cret").returncode == 0
        done = run("--url", url, CACHEKIT_METRICS__TOKEN="s3cret")
        assert done.returncode == 0
        assert "s3cret" not in done.stdout

    @pytest.mark.parametrize("token", ["wr0ng", "wr0ng\nX: y", "wr0ng\u20ac"])
    def test_no_error_shows_it(self, run: Run, guarded: MetricsServer, token: str) -> None:
        done = run("--url", f"http://127.0.0.1:{guarded.port}", "--token", token)
        assert done.returncode == 1
        assert "wr0ng" not in done.stdout + done.stderr

    def test_it_does_not_follow_redirections(self, run: Run, answering: Callable[..., str]) -> None:
        seen: list[Any] = []
        elsewhere = answering(200, b"", seen=seen)
        done = run("--url", answering(302, headers={"Location": elsewhere}), "--token", "s3cret")
        assert done.returncode == 1
        assert "status 302" in done.stdout
        assert seen == []

    def test_a_password_in_the_address_is_refused_and_not_shown(self, run: Run) -> None:
        done = run("--url", "http://me:pa55@127.0.0.1:1/metrics?key=pa55")
        assert done.returncode == 1
        assert "pa55" not in done.stdout + done.stderr
        assert "--token" in done.stdout


class TestRates:
    """Between two readings: what was added per second."""

    @staticmethod
    def stats(taken: float, **functions: Counts) -> Stats:
        lines = ["# TYPE cachekit_cache_hits_total counter"]
        for name, counts in functions.items():
            lines.append(f'cachekit_cache_hits_total{{region="r",tier="l1",function="{name}"}} {counts.l1_hits}')
        return parse("\n".join(lines) + "\n", taken)

    def test_they_are_differences_over_the_time_between(self) -> None:
        reading = Reading(
            self.stats(12, f=Counts(l1_hits=30), g=Counts(l1_hits=4)), self.stats(10, f=Counts(l1_hits=10))
        )
        rates = as_dict("", reading)["regions"]["r"]
        assert rates["functions"]["f"]["per_second"]["l1_hits"] == 10
        assert rates["functions"]["g"]["per_second"]["l1_hits"] == 2
        assert rates["per_second"]["l1_hits"] == 12

    def test_a_restarted_application_begins_at_zero(self) -> None:
        reading = Reading(self.stats(12, f=Counts(l1_hits=6)), self.stats(10, f=Counts(l1_hits=1000)))
        assert as_dict("", reading)["regions"]["r"]["per_second"]["l1_hits"] == 3

    def test_several_samples_of_one_function_are_added_up(self) -> None:
        text = "\n".join(
            f'cachekit_cache_errors_total{{region="r",function="f",op="{op}",reason="{reason}"}} 2'
            for op in ("get", "set")
            for reason in ("timeout", "connection")
        )
        assert parse(text + "\n", 0).regions["r"].functions["f"].errors == 8


def test_watching_goes_on_while_the_application_is_away(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from cachekit.cli import stats as module

    monkeypatch.setattr(module, "EVERY", 0.0)
    region("users").get("a")
    server = serve(0)
    page = module.Page(f"http://127.0.0.1:{server.port}", "/metrics", None)
    found = readings(page, page.read())
    assert next(found).before is None
    region("users").get("a")
    second = next(found)
    assert second.rates("users").misses > 0  # type: ignore[union-attr]
    server.close()
    away = next(found)
    assert "nothing answers" in away.problem
    text = io.StringIO()
    Console(width=120, file=text).print(render(away))
    assert "users" in text.getvalue()
    assert "nothing answers" in text.getvalue()
    with serve(server.port):
        assert next(found).problem == ""
        assert next(found).rates("users") is not None


def watching(page: str, tmp_path: Path, *words: str, **streams: Any) -> "subprocess.Popen[bytes]":
    environ = {**os.environ, "COLUMNS": "200", "LINES": "40", "TERM": "xterm", "PYTHONUNBUFFERED": "1"}
    # A shell lets what it runs in the background ignore the signal, and whatever that starts.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{heed}; from cachekit.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, "stats", "--watch", "--url", page, *words],
        cwd=tmp_path,
        env={**environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.PIPE,
        **streams,
    )


def interrupted(process: "subprocess.Popen[bytes]") -> None:
    """It ends at once, without an error."""
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0, errors
    assert errors == b""


@pytest.mark.parametrize("words", [["--json"], []], ids=["json", "table"])
def test_watch_reads_every_second_until_it_is_interrupted(page: str, tmp_path: Path, words: list[str]) -> None:
    process = watching(page, tmp_path, *words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    lines: list[bytes] = []
    for line in process.stdout:
        lines.append(line)
        if b'"per_second"' in line or b"hits/s" in line:
            break
    interrupted(process)
    if words:
        first, *_, last = map(json.loads, lines)
        assert "per_second" not in first["regions"]["users"]
        assert last["regions"]["users"]["per_second"]["misses"] == 0


def test_watch_draws_over_the_same_screen_of_a_terminal(page: str, tmp_path: Path) -> None:
    master, terminal = os.openpty()
    process = watching(page, tmp_path, stdout=terminal)
    os.close(terminal)
    drawn = b""
    while b"hits/s" not in drawn:
        drawn += os.read(master, 65536)
    assert b"\x1b[?1049h" in drawn
    interrupted(process)
    os.close(master)


def test_help_needs_no_heavy_import() -> None:
    code = (
        "import sys; import cachekit.cli.stats; "
        "print([name for name in ('rich.table', 'prometheus_client', 'pydantic', 'redis') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
