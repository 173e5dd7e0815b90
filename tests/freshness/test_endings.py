"""A process that ends in the middle of a refresh lets it end, and leaves no lease: whatever server it is part of."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cachekit.testing.servers import HOST, Server, free_port, start_server

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
PATIENCE = 30.0  # seconds that a busy machine gets

CONFIGURATION = """
namespace = "ending"

[backends.default]
url = "{url}"
budget = "10s"  # the machine may be busy
adaptive = false

[profiles.users]
ttl = "1s"
stale_ttl = "1m"
swr = true
jitter = 0
early_refresh = "off"
"""

ONE = ("--workers", "1", "--graceful-timeout", "20")
SERVERS: dict[str, Callable[[int], list[str]]] = {
    "gunicorn sync": lambda port: gunicorn(port, "flask_app()"),
    "gunicorn threads": lambda port: gunicorn(port, "flask_app()", "--threads", "4"),
    "gunicorn gevent": lambda port: gunicorn(port, "flask_app()", "-k", "gevent"),
    "gunicorn uvicorn": lambda port: gunicorn(port, "fastapi_app()", "-k", "uvicorn.workers.UvicornWorker"),
    "uvicorn fastapi": lambda port: uvicorn(port, "fastapi_app", "--factory"),
    "uvicorn starlette": lambda port: uvicorn(port, "starlette_app", "--factory"),
    "uvicorn workers": lambda port: uvicorn(port, "fastapi_app", "--factory", "--workers", "2"),
    "uvicorn plain": lambda port: uvicorn(port, "plain_app"),
}


def gunicorn(port: int, app: str, *options: str) -> list[str]:
    return [str(BIN / "gunicorn"), *ONE, "--bind", f"{HOST}:{port}", *options, f"ending_app:{app}"]


def uvicorn(port: int, app: str, *options: str) -> list[str]:
    return [str(BIN / "uvicorn"), "--host", HOST, "--port", str(port), *options, f"ending_app:{app}"]


@pytest.fixture(scope="module")
def store() -> Iterator[Server]:
    with start_server() as server:
        yield server


class Ending:
    """A program that is started, and watched until its end."""

    def __init__(self, directory: Path, store: Server) -> None:
        self.directory, self.store, self.log = directory, store, directory / "log"
        (directory / "cachekit.toml").write_text(CONFIGURATION.format(url=store.url))
        store.command("FLUSHALL")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: list[str]) -> None:
        environment = {
            **os.environ,
            "CACHEKIT_CONFIG": str(self.directory / "cachekit.toml"),
            "ENDING_DIRECTORY": str(self.directory),
            "PYTHONPATH": os.pathsep.join([str(HERE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]),
            "PYTHONWARNINGS": "default",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.directory, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)  # the session that we made
            except ProcessLookupError:
                pass
            self.process.wait()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{what}\n{self.log.read_text()}"
            time.sleep(0.02)

    def begun(self) -> None:
        """The refresh runs, under a lease."""
        self.until((self.directory / "begun").exists, "no refresh began")
        assert len(self.leases()) == 1

    def bid(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        os.kill(self.process.pid, how)

    def ended(self) -> int:
        assert self.process is not None
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.log.read_text()) from None

    def leases(self) -> list[bytes]:
        return list(self.store.command("KEYS", "ending:l:*"))

    def stored(self) -> bytes:
        (key,) = self.store.command("KEYS", "ending:v:*")
        return bytes(self.store.command("GET", key))


@pytest.fixture
def ending(tmp_path: Path, store: Server) -> Iterator[Ending]:
    made = Ending(tmp_path, store)
    yield made
    made.kill()


def get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode().strip('"')
    finally:
        connection.close()


def answers(port: int, path: str) -> bool:
    try:
        return get(port, path) == "old"
    except (OSError, http.client.HTTPException):
        return False


PATHS = [(kind, path) for kind in SERVERS for path in ("/value", "/avalue") if path == "/value" or "uvicorn" in kind]


@pytest.mark.parametrize(("kind", "path"), PATHS, ids=[f"{kind} {path[1:]}" for kind, path in PATHS])
def test_a_web_server_that_is_terminated(ending: Ending, kind: str, path: str) -> None:
    port = free_port()
    ending.start(SERVERS[kind](port))
    ending.until(lambda: answers(port, path), "no answer")
    time.sleep(1.1)
    assert get(port, path) == "old"
    ending.begun()
    ending.bid()
    ending.ended()
    assert ending.leases() == []
    assert b"new" in ending.stored()


def test_a_worker_of_gunicorn_that_is_replaced(ending: Ending) -> None:
    """Its second request was the last that it takes."""
    port = free_port()
    ending.start([*gunicorn(port, "flask_app()")[:-1], "--max-requests", "2", "ending_app:flask_app()"])
    ending.until(lambda: answers(port, "/value"), "no answer")
    time.sleep(1.1)
    assert get(port, "/value") == "old"
    ending.begun()
    ending.until(lambda: "Autorestarting worker" in ending.log.read_text(), "it was not replaced")
    ending.until(lambda: not ending.leases(), "a lease is left")
    assert b"new" in ending.stored()


@pytest.mark.parametrize(("how", "code"), [("exit", 3), ("end", 0), ("error", 1)])
def test_a_program_that_ends(ending: Ending, how: str, code: int) -> None:
    ending.start([sys.executable, str(HERE / "ending_app.py"), how])
    ending.begun()
    (ending.directory / "end").touch()
    assert ending.ended() == code
    assert ending.leases() == []
    assert b"new" in ending.stored()


POOLS = {
    "solo": ["--pool=solo"],
    "threads": ["--pool=threads"],
    "prefork": ["--pool=prefork"],
    "prefork, one task each": ["--pool=prefork", "--max-tasks-per-child=1"],
}


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_of_celery(ending: Ending, monkeypatch: pytest.MonkeyPatch, pool: str) -> None:
    """The processes of its prefork pool run no exit handlers; a signal of Celery's tells us."""
    monkeypatch.setenv("ENDING_SECONDS", "3")  # it takes a second or two to end by itself
    ending.start([sys.executable, str(HERE / "ending_celery.py"), "--loglevel=info", *POOLS[pool]])
    ending.begun()
    if "one task" not in pool:
        ending.bid()
        ending.ended()
    ending.until(lambda: not ending.leases(), "a lease is left")
    assert b"new" in ending.stored(), ending.log.read_text()
