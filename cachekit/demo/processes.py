"""What the demo runs: a Valkey server of its own, unless REDIS_URL names one, and three workers that share it."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.resources import files
from types import TracebackType
from typing import Any, NamedTuple

from cachekit.config.tree import URL_VARIABLES, setting_variables
from cachekit.demo import page
from cachekit.demo.worker import HOST
from cachekit.testing.servers import Server, free_port, start_server

FRAMEWORKS = ("fastapi", "flask", "django")
PORT = 8000
START_SECONDS = 60.0
STOP_SECONDS = 5.0
OWN_BACKEND = "CACHEKIT_BACKENDS__DEFAULT__"  # password, TLS and the like of the server that REDIS_URL names


class DemoError(Exception):
    """The demo cannot go on. The message is one line and says why."""


class Worker(NamedTuple):
    """A process that serves the application of one framework."""

    framework: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


class Demo:
    """Server and workers. A context manager: nothing is left when it ends, nor when this process is killed.

    `wait` comes before anything is asked of the workers.
    """

    def __init__(self, port: int | None = None) -> None:
        self.environment = environment(os.environ)
        self.server: Server | None = None
        self.no_server = ""  # why there is none
        self.workers = [Worker(*pair) for pair in zip(FRAMEWORKS, choose_ports(port, len(FRAMEWORKS)), strict=True)]
        self.environment[page.WORKERS] = " ".join(f"{worker.framework}={worker.url}" for worker in self.workers)
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def has_l2(self) -> bool:
        """Whether the workers share a second tier."""
        return any(self.environment.get(name) for name in URL_VARIABLES)

    def __enter__(self) -> "Demo":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything, and return while the workers are still getting ready."""
        if not self.has_l2:
            self.start_server()
        self.processes = [self.start_worker(worker) for worker in self.workers]

    def wait(self) -> None:
        """Return when all workers answer. `DemoError` when one does not."""
        deadline = time.monotonic() + START_SECONDS
        while not all(answers(worker) for worker in self.workers):
            self.check()
            if time.monotonic() > deadline:
                raise DemoError(f"the workers did not answer in {START_SECONDS:.0f} s")
            time.sleep(0.02)

    def start_server(self) -> None:
        try:
            self.server = start_server("valkey")
        except (LookupError, RuntimeError) as error:
            self.no_server = str(error).splitlines()[0]
        else:
            self.environment["REDIS_URL"] = self.server.url

    def start_worker(self, worker: Worker) -> "subprocess.Popen[bytes]":
        # Its standard input is the worker's life line (see `worker`). A session of its own: Ctrl-C is for us alone,
        # and we end the workers in order.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "cachekit.demo.worker", worker.framework, str(worker.port)],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def check(self) -> None:
        """`DemoError` when a worker has ended."""
        for worker, process in zip(self.workers, self.processes, strict=True):
            if process.poll() is not None:
                raise DemoError(f"the {worker.framework} worker ended with exit status {process.returncode}")

    def counts(self) -> dict[tuple[str, str], dict[str, int]]:
        """What the workers counted, by framework and region."""
        return {
            (worker.framework, region): counts
            for worker in self.workers
            for region, counts in request(worker, "GET", "/stats")["regions"].items()
        }

    def empty(self) -> None:
        """Outdate what an earlier demo may have left on a server that is not ours."""
        request(self.workers[0], "POST", "/invalidate")

    def stop(self) -> None:
        """End the workers, then the server. May be called twice."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self.processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.server is not None:
            self.server.stop()


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The workers' environment: the demo's own file, and of the user's configuration where the server is, no more."""
    foreign = {name for name in setting_variables(ours) if not name.startswith(OWN_BACKEND)}
    config = str(files("cachekit.demo").joinpath("cachekit.toml"))
    return {name: value for name, value in ours.items() if name not in foreign} | {"CACHEKIT_CONFIG": config}


def choose_ports(wanted: int | None, count: int) -> list[int]:
    """So many ports, the first one: the wanted one, which must be free, or else 8000, or else any."""
    if wanted is not None and not is_free(wanted):
        raise DemoError(f"port {wanted} is in use; choose another with --port")
    first = wanted or (PORT if is_free(PORT) else free_port())
    ports = [first]
    while len(ports) < count:
        following = ports[-1] + 1
        ports.append(following if following < 65_536 and is_free(following) else free_port())
    return ports


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: closed connections may linger
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def answers(worker: Worker) -> bool:
    """Whether a worker serves."""
    try:
        request(worker, "GET", "/stats")
    except DemoError:
        return False
    return True


def request(worker: Worker, method: str, path: str) -> Any:
    """What a worker says, out of JSON. `DemoError` when it does not."""
    connection = http.client.HTTPConnection(HOST, worker.port, timeout=STOP_SECONDS)
    try:
        connection.request(method, path)
        return json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException) as error:
        raise DemoError(f"the {worker.framework} worker does not answer: {error or type(error).__name__}") from None
    finally:
        connection.close()
