"""The documented example of a backend keeps the contract against its server, which is a process of its own."""

import functools
import importlib.util
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit.backends.base import BaseBackend
from cachekit.config.spec import BackendSpec
from cachekit.errors import ConfigError
from cachekit.testing import BackendContract
from cachekit.testing.servers import free_port, start_guard

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "http_backend"


@functools.cache
def example() -> Any:
    spec = importlib.util.spec_from_file_location("http_backend", EXAMPLE / "http_backend.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def port_of_server() -> int:
    port = free_port()
    process = subprocess.Popen([sys.executable, str(EXAMPLE / "server.py"), str(port)], start_new_session=True)
    running.append((process, start_guard(process.pid, Path(tempfile.mkdtemp(prefix="cachekit-http-")))))
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return port
        except OSError:
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.02)


running: list[tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]] = []


@pytest.fixture(scope="module", autouse=True)
def ends() -> Any:
    yield
    for process, guard in running:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait(10)


class TestHttpExample(BackendContract):
    offers = frozenset()
    shortest_ttl_ms = 100
    fault_budget = 0.15

    def make_backend(self) -> BaseBackend:
        return self.make_backend_behind(*self.server_address())

    def server_address(self) -> tuple[str, int]:
        return "127.0.0.1", port_of_server()

    def make_backend_behind(self, host: str, port: int) -> BaseBackend:
        made: BaseBackend = example().open_http(BackendSpec(type="http", url=f"http://{host}:{port}"))
        return made


def test_the_example_is_short_enough_to_be_read() -> None:
    assert len((EXAMPLE / "http_backend.py").read_text().splitlines()) < 120


def test_a_decorated_function_keeps_its_values_there() -> None:
    backend = example().HttpBackend("127.0.0.1", port_of_server())
    runs = []

    @cachekit.cache(backend=backend, ttl=60, version="http", l1={"mode": "off"})
    def f(key: int) -> dict[str, tuple[int, int]]:
        runs.append(key)
        return {"a": (key, 2)}

    assert f(1) == f(1) == {"a": (1, 2)}
    assert runs == [1]
    assert backend.get(str(f.key(1)), budget=5.0) is not None
    assert f.invalidate(1) is cachekit.Outcome.DONE
    assert backend.get(str(f.key(1)), budget=5.0) is None


def test_a_wrong_url_is_an_error_at_once() -> None:
    with pytest.raises(ConfigError, match="write http://host:port"):
        example().open_http(BackendSpec(name="web", type="http", url="https://x"))
