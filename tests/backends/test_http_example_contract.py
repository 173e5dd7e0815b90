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
from cachekit.config.spec import BackendSpec, RegionSpec, ServiceSpec
from cachekit.errors import ConfigError
from cachekit.service import Service
from cachekit.testing import BackendContract
from cachekit.testing.servers import free_port, start_guard

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


def test_two_processes_worth_of_services_share_what_lies_there() -> None:
    backend = example().HttpBackend("127.0.0.1", port_of_server())
    spec = ServiceSpec(namespace="http-example", namespace_given=True, regions={"r": RegionSpec(name="r")})
    one, other = Service(spec), Service(spec)
    for service in (one, other):
        service._tiers["r"] = service.private_tiers(service.region_spec("r"), backend)
    one.region("r").set("key", {"a": (1, 2)})
    assert other.region("r").get("key") == {"a": (1, 2)}
    assert one.region("r").delete("key") is cachekit.Outcome.DONE
    assert one.region("r").get("key") is None
    one.close()
    other.close()


def test_a_wrong_url_is_an_error_at_once() -> None:
    with pytest.raises(ConfigError, match="write http://host:port"):
        example().open_http(BackendSpec(name="web", type="http", url="https://x"))
