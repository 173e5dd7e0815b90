"""Forks, event loops, greenlets, while L1 hears of changes: no deadlock, no wrong answer, nobody hears another's news.

tests/engine/test_processes.py shows the same of values alone.
"""

import http.client
import itertools
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

pytestmark = [pytest.mark.server, pytest.mark.slow]

HERE = Path(__file__).parent
AT_ONCE = 0.75  # seconds for news between processes; max_staleness is 1 s

numbers = itertools.count()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server without other clients."""
    with start_server("valkey") as server:
        yield server


def listeners(server: Server) -> set[bytes]:
    """The addresses of clients that are told of changes."""
    clients = [
        dict(field.split(b"=", 1) for field in line.split()) for line in server.command("CLIENT", "LIST").splitlines()
    ]
    return {client[b"addr"] for client in clients if b"t" in client[b"flags"]}


@pytest.mark.timed
def test_a_fork_while_a_lock_a_lease_and_a_flight_are_held_hangs_nobody(own_server: Server, tmp_path: Path) -> None:
    """The child has a connection of its own; its parent goes on to hear of everything, the child's changes too."""
    data = tmp_path / "data"
    data.write_text("old")
    with Processes(1, env={"PYTHONPATH": str(HERE)}) as processes:
        (parent,) = processes
        backend = {"url": own_server.url, "max_staleness": "30s"}
        parent.call("load_app:begin", "forks", backend, {"lease_wait": "300ms"}, str(data))
        parent.call("load_app:warm")
        assert parent.call("fork_app:until_followed", "old") < 10
        of_parent = listeners(own_server)
        assert len(of_parent) == 1
        parent.call("load_app:at_gate", "slow")
        flights = [parent.start("load_app:call", 1), parent.start("load_app:acall", 1)]
        parent.wait_at("slow", count=2)
        assert len(own_server.command("KEYS", "*:l:*")) == 2
        parent.call("fork_app:hold_lock")
        parent.call("fork_app:fork")
        saw = parent.call("fork_app:child_saw")
        parent.call("fork_app:let_go")
        parent.open("slow")
        assert "error" not in saw, saw["error"]
        assert saw["inherited"] == ["old", "old"]
        assert saw["runs"] == 0, "values came from L2"
        assert saw["in flight"] == ["old", "old"]
        assert saw["outcomes"] == ["DONE", "DONE"]
        assert saw["after"] == ["new", "new"]
        assert saw["coherence"] == ["tracking", 0]
        assert len(listeners(own_server) - of_parent) == 1, "the child's own"
        assert of_parent < listeners(own_server)
        assert [flight.result() for flight in flights] == ["old", "old"]
        assert parent.call("load_app:counts")[2] >= 2, "its leases were not given away"
        assert parent.call("fork_app:until_followed", "new") < AT_ONCE, "late"
        assert parent.call("load_app:coherence") == ["tracking", 0]
        assert parent.call("fork_app:end_child") == 0
        assert listeners(own_server) == of_parent
        data.write_text("newer")
        assert parent.call("load_app:invalidate", "tag") == "DONE"
        assert parent.call("fork_app:until_followed", "newer") < AT_ONCE, "late"


@pytest.mark.parametrize("keys", [1000, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_four_event_loops_in_four_threads_give_no_wrong_answer_while_changes_are_heard_of(
    cachekit_server: Server, keys: int
) -> None:
    """With jitter; some keys change, and some are asked for by all."""
    with Processes(1, env={"PYTHONPATH": str(HERE)}) as processes:
        (process,) = processes
        process.call("load_app:begin", f"loops{next(numbers)}", {"url": cachekit_server.url}, {}, "")
        process.call("load_app:warm")
        result = process.call("fork_app:loops", keys, timeout=600)
    assert result["wrong"] == []
    assert result["errors"] == 0
    assert result["state"] == "tracking"
    assert result["asked"] == 2 * keys
    assert result["l1"] > 100


@pytest.mark.parametrize("keys", [1000, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_gevent_gives_no_wrong_answer_and_no_error_and_hears_of_changes(own_server: Server, keys: int) -> None:
    """200 greenlets at once; some are killed, and some give up, wherever they are."""
    program = [sys.executable, "-W", "error", str(HERE / "gevent_app.py"), own_server.url, str(keys)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["wrong"], result["count"]) == ([], 0)
    assert (result["before"], result["after"]) == ("tracking", "tracking")
    assert result["errors"] == {"square": 0, "cube": 0}
    assert result["l1"] > 0


# gunicorn


class Gunicorn:
    """Two workers of an application that was loaded, and used the cache, before they were forked."""

    def __init__(self, url: str, data: Path, log: Path) -> None:
        self.port = free_port()
        self.log = log
        self._command = [
            str(Path(sys.executable).parent / "gunicorn"), "--preload", "--workers", "2", "--threads", "2",
            "--graceful-timeout", "5", "--bind", f"127.0.0.1:{self.port}", "preload_app:app",
        ]  # fmt: skip
        path = os.pathsep.join([str(HERE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
        self._environment = {**os.environ, "PYTHONPATH": path, "PRELOAD_URL": url, "PRELOAD_DATA": str(data)}

    def __enter__(self) -> "Gunicorn":
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=HERE, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        finally:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)  # the session that we made
            except ProcessLookupError:
                pass
            self._process.wait()

    def ask(self, path: str) -> tuple[int, Any]:
        """The worker that answered, and what."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            pid, answer = json.loads(connection.getresponse().read())
            return pid, answer
        finally:
            connection.close()

    def from_both(self, path: str, wanted: Callable[[Any], bool], seconds: float = 20.0) -> dict[int, Any]:
        """Ask until both workers have given an answer that is wanted; the last one of each."""
        answers: dict[int, Any] = {}
        deadline = time.monotonic() + seconds
        while len(answers) < 2 or not all(map(wanted, answers.values())):
            assert time.monotonic() < deadline, (answers, self.log.read_text())
            try:
                pid, answer = self.ask(path)
            except (ConnectionError, http.client.HTTPException):
                time.sleep(0.05)  # it starts
            else:
                answers[pid] = answer
        return answers


@pytest.mark.timed
def test_workers_that_gunicorn_forked_after_the_app_used_the_cache_hear_of_each_others_changes(
    own_server: Server, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.write_text("old")
    with Gunicorn(own_server.url, data, tmp_path / "log") as gunicorn:
        gunicorn.from_both("/get/1", lambda answer: answer == "old")
        states = gunicorn.from_both("/state", lambda answer: answer[0] == "tracking")
        assert [losses for _, losses in states.values()] == [0, 0]
        assert len(listeners(own_server)) == 3, "the process that forked listens, too"
        for start in range(0, 4000, 500):
            assert gunicorn.ask(f"/use/{start}")[1] == []
        for version, way in enumerate(["key", "tag", "late%20tag", "function", "region"]):
            data.write_text(f"new {version}")
            _, outcome = gunicorn.ask(f"/invalidate/{way}")
            began = time.monotonic()
            assert outcome == "DONE"
            gunicorn.from_both("/get/1", lambda answer, version=version: answer == f"new {version}")  # type: ignore[misc]
            assert time.monotonic() - began < AT_ONCE, "late"
        states = gunicorn.from_both("/state", lambda answer: answer[0] == "tracking")
        assert [losses for _, losses in states.values()] == [0, 0]
    assert "Traceback" not in gunicorn.log.read_text()
