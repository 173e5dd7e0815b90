"""One project under gunicorn and uvicorn with two workers each, and runserver: what one changes the other one knows.

How it could be broken: a worker keeps its copy of what another one has deleted or set; what was opened before a fork is
used in the workers; connections are closed or opened with each request; a coroutine is never awaited; several
processes compute the same; the process that `runserver` replaces leaves something behind.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachekit.testing import Processes
from cachekit.testing.servers import Server, free_port, start_server

HERE = Path(__file__).parent
HOST = "127.0.0.1"
PATIENCE = 60.0  # seconds that a busy machine gets for what takes one
STALENESS = 3.0  # seconds: max_staleness unless set
BUSY = 2.0  # seconds until the right worker has answered

UVICORN = ("uvicorn", "--log-level", "warning", "--timeout-worker-healthcheck", "30", "--workers", "2")
GUNICORN = ("gunicorn", "--graceful-timeout", "5", "--timeout", "60", "--workers", "2")
SERVERS = {
    "gunicorn": (*GUNICORN, "servers_app:wsgi"),
    "gunicorn-threads-preload": (*GUNICORN, "--preload", "--threads", "4", "servers_app:wsgi"),
    "gunicorn-uvicorn": (*GUNICORN, "--worker-class", "uvicorn.workers.UvicornWorker", "servers_app:asgi"),
    "uvicorn": (*UVICORN, "servers_app:asgi"),
}

pytestmark = pytest.mark.slow


class Site:
    """A running server. A context manager; nothing of it is left afterwards."""

    def __init__(self, command: tuple[str, ...], port: int, url: str, log: Path, cwd: Path = HERE) -> None:
        self.port, self.log = port, log
        environment = {**os.environ, "REDIS_URL": url, "PYTHONPATH": os.pathsep.join([str(cwd), *sys.path])}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command], cwd=cwd, env=environment, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # the session that we made
        except ProcessLookupError:
            pass
        self.process.wait()

    def ask(self, path: str) -> dict[str, Any]:
        """Over a connection of its own, which any worker may take."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, (path, response.status, body, self.log.read_text())
            answer: dict[str, Any] = json.loads(body)
            return answer
        finally:
            connection.close()

    def ask_worker(self, pid: int, path: str) -> dict[str, Any]:
        return self.until(lambda: self.ask(path), lambda answer: answer["pid"] == pid)

    def until(self, ask: Callable[[], dict[str, Any]], good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if good(answer := ask()):
                    return answer
            except (OSError, http.client.HTTPException):
                pass
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.01)

    def workers(self) -> tuple[int, int]:
        """Both of them, as soon as they answer."""
        first = self.until(lambda: self.ask("/get/nothing"), lambda answer: True)["pid"]
        second = self.until(lambda: self.ask("/get/nothing"), lambda answer: answer["pid"] != first)["pid"]
        return first, second


@pytest.fixture
def store() -> Iterator[Server]:
    with start_server() as server:
        yield server


@pytest.fixture(params=SERVERS)
def site(request: pytest.FixtureRequest, tmp_path: Path, store: Server) -> Iterator[Site]:
    name, *options = SERVERS[request.param]
    port = free_port()
    where = ("--bind", f"{HOST}:{port}") if name == "gunicorn" else ("--host", HOST, "--port", str(port))
    with Site(("-m", name, *where, *options), port, store.url, tmp_path / "log") as site:
        yield site


def connections(server: Server) -> int:
    clients: bytes = server.command("CLIENT", "LIST")
    return len(clients.splitlines())


@pytest.mark.timed
@pytest.mark.parametrize("a", ["", "a"], ids=["sync", "async"])
def test_what_one_worker_changes_the_other_one_knows(site: Site, a: str) -> None:
    one, other = site.workers()
    for change, expected in ((f"{a}set/k/2", [2]), (f"{a}delete/k", None), (f"{a}set/k/3", [3])):
        site.ask(f"/{a}set/k/1")
        site.until(lambda: site.ask_worker(other, "/get/k"), lambda answer: answer["value"] == [1])
        hits = site.ask_worker(other, f"/{a}get/k")["l1_hits"]
        site.until(lambda: site.ask_worker(other, f"/{a}get/k"), lambda answer, hits=hits: answer["l1_hits"] > hits)
        site.ask_worker(one, f"/{change}")
        changed = time.monotonic()
        site.until(
            lambda: site.ask_worker(other, f"/{a}get/k"), lambda answer, value=expected: answer["value"] == value
        )
        assert time.monotonic() - changed < STALENESS + BUSY, "late"


def test_connections_outlive_requests(site: Site, store: Server) -> None:
    site.workers()
    paths = [f"/{a}{what}" for a in ("", "a") for what in ("set/k/1", "get/k", "get/preloaded", "delete/k")]
    for n in range(40):
        site.ask(paths[n % len(paths)])
    before = connections(store)
    for n in range(200):
        site.ask(paths[n % len(paths)])
    assert abs(connections(store) - before) <= 8  # of 2 workers with up to 4 threads
    log = site.log.read_text()
    assert "never awaited" not in log
    assert "Traceback" not in log


@pytest.mark.parametrize("function", ["cold", "acold"])
def test_four_processes_of_five_callers_compute_once(store: Server, tmp_path: Path, function: str) -> None:
    journal = tmp_path / "journal"
    with Processes(4, "servers_app:set_up", env={"REDIS_URL": store.url}) as processes:
        for n in range(3):
            calls = [process.start(function, f"k{n}", str(journal), 5) for process in processes]
            assert [call.result() for call in calls] == [["value"] * 5] * 4
            assert len(journal.read_text().split()) == n + 1


def test_runserver_begins_anew_with_a_change(store: Server, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    program = tmp_path / "site" / "servers_app.py"
    program.write_text((HERE / "servers_app.py").read_text())
    port = free_port()
    command = ("servers_app.py", "runserver", "--skip-checks", f"{HOST}:{port}")
    with Site(command, port, store.url, tmp_path / "log", tmp_path / "site") as site:
        first = site.until(lambda: site.ask("/aset/k/1"), lambda answer: True)["pid"]
        before = connections(store)

        def change() -> dict[str, Any]:
            """Again, as what is changed before the first look at the files goes unnoticed."""
            program.write_text(program.read_text() + "\n")
            time.sleep(3)
            return site.ask("/aget/k")

        answer = site.until(change, lambda answer: answer["pid"] != first)
        assert answer["value"] == [1]
        site.until(lambda: site.ask("/get/k"), lambda answer: answer["value"] == [1])
        assert connections(store) <= before + 2
        assert "never awaited" not in site.log.read_text()
