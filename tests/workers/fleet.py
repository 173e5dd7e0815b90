"""A web server with several worker processes, clients that ask without pause, and what they and the workers noted."""

import http.client
import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families as parse_text

APPS = Path(__file__).parent / "apps"
HOST = "127.0.0.1"
WORKERS = 2
PATIENCE = 30.0  # seconds that a busy machine gets for what takes one
RECORD = struct.Struct("d")  # what a call leaves in a journal, see apps/work.py
ANSWERED = ("cachekit_cache_hits_total", "cachekit_cache_misses_total", "cachekit_cache_waited_total")

CONFIGURATION = """
namespace = "workers"

[backends.default]
url = "{url}"
budget = "10s"  # the machine may be busy
adaptive = false

[profiles.shared]
ttl = "2s"

[profiles.crowded]
backend = "none"
ttl = "1m"
l1 = {{ max_entries = 16 }}
"""

BIN = Path(sys.executable).parent
UVICORN = (str(BIN / "uvicorn"), "--log-level", "warning", "--timeout-worker-healthcheck", "10")
GUNICORN = (str(BIN / "gunicorn"), "--preload", "--threads", "4", "--graceful-timeout", "20", "--timeout", "60")
SERVERS = {
    "uvicorn-fastapi": lambda port, recycle: uvicorn("fastapi_app:app", port, recycle),
    "uvicorn-django": lambda port, recycle: uvicorn("django_app:asgi", port, recycle),
    "gunicorn-flask": lambda port, recycle: gunicorn("flask_app:app", port, recycle),
    "gunicorn-django": lambda port, recycle: gunicorn("django_app:app", port, recycle),
}


def uvicorn(app: str, port: int, recycle: int) -> list[str]:
    every = ("--limit-max-requests", str(recycle)) if recycle else ()
    return [*UVICORN, "--host", HOST, "--port", str(port), "--workers", str(WORKERS), *every, app]


def gunicorn(app: str, port: int, recycle: int) -> list[str]:
    every = ("--max-requests", str(recycle), "--max-requests-jitter", str(recycle // 2)) if recycle else ()
    return [*GUNICORN, "--bind", f"{HOST}:{port}", "--workers", str(WORKERS), *every, app]


Samples: TypeAlias = "dict[tuple[str, frozenset[tuple[str, str]]], float]"


def answered(samples: Samples) -> Counter[str]:
    """Hits, misses and waits together, by function."""
    sums: Counter[str] = Counter()
    for (name, labels), value in samples.items():
        function = dict(labels).get("function", "").removeprefix("work.")
        if name in ANSWERED and function:
            sums[function] += int(value)
    return sums


class Fleet:
    """The server. A context manager; nothing of it is left afterwards."""

    def __init__(self, kind: str, port: int, directory: Path, url: str, recycle: int = 0) -> None:
        self.kind = kind
        self.port = port
        self.journal, self.metrics, self.log = directory / "journal", directory / "metrics", directory / "log"
        self.journal.mkdir()
        self.metrics.mkdir()
        (directory / "cachekit.toml").write_text(CONFIGURATION.format(url=url))
        self._environment = {
            **os.environ,
            "CACHEKIT_CONFIG": str(directory / "cachekit.toml"),
            "JOURNAL": str(self.journal),
            "PROMETHEUS_MULTIPROC_DIR": str(self.metrics),
            "PYTHONPATH": os.pathsep.join([str(APPS), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]),
        }
        self._command = SERVERS[kind](port, recycle)

    def __enter__(self) -> "Fleet":
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command, cwd=APPS, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self.wait_until(lambda: len(self.pids()) == WORKERS, "the workers did not answer")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)  # the session that we made
            except ProcessLookupError:
                pass
            self.process.wait()

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{what}\n{self.log.read_text()}"
            time.sleep(0.1)

    def get(self, path: str, connection: http.client.HTTPConnection | None = None) -> bytes:
        own = connection or http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)
        try:
            own.request("GET", path)
            response = own.getresponse()
            body = response.read()
        finally:
            if connection is None:
                own.close()
        assert response.status == 200, (path, response.status, body)
        return body

    def pids(self) -> set[int]:
        """The workers that answer several new connections."""
        found = set()
        for _ in range(20):
            try:
                found.add(int(json.loads(self.get("/work/1"))["pid"]))
            except (OSError, http.client.HTTPException):
                break
        return found

    # What was counted

    def calls(self) -> Counter[str]:
        """Calls that processes noted, by function.

        Flask shows its metrics from the first request on: what its parent process called before, nobody reports.
        """
        unseen = {self.process.pid} if "flask" in self.kind else set()
        made: Counter[str] = Counter()
        for pid, function in self.journals() - {(pid, name) for pid in unseen for name in ("square", "cube")}:
            made[function] += len(self.times(pid, function))
        return made

    def journals(self) -> set[tuple[int, str]]:
        """The processes and functions that noted a call."""
        names = [file.name.partition(".") for file in self.journal.iterdir()]
        return {(int(pid), function) for pid, _, function in names}

    def times(self, pid: int, function: str) -> list[float]:
        """When the calls of a process had returned, seconds since the epoch."""
        data = (self.journal / f"{pid}.{function}").read_bytes()
        return [when for (when,) in RECORD.iter_unpack(data)]

    def scrape(self) -> Samples:
        families = parse_text(self.get("/metrics").decode())
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}

    def counted(self) -> Counter[str]:
        """Hits, misses and waits together, by function."""
        return answered(self.scrape())

    def reported(self, pid: int) -> Counter[str]:
        """As `counted`, out of the file that one process left."""
        families = MultiProcessCollector.merge([str(self.metrics / f"counter_{pid}.db")])
        return answered({(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples})

    def settle(self) -> Counter[str]:
        """What was counted when all workers have reported; nothing may come after it."""
        self.wait_until(lambda: not self.calls() - self.counted(), f"counts are missing: {self.calls()}")
        time.sleep(2.5)
        return self.counted()


class Clients:
    """Threads that ask for random keys over connections that they keep. Only a lost connection is tried again."""

    def __init__(self, fleet: Fleet, number: int = 6, keys: int = 40) -> None:
        self.fleet = fleet
        self.keys = keys
        self.answered = 0
        self.again = 0
        self.wrong: list[Any] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._paths = ["/work", "/awork"] if "uvicorn" in fleet.kind else ["/work"]
        self._threads = [threading.Thread(target=self._run, args=(seed,)) for seed in range(number)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, seed: int) -> None:
        connection = http.client.HTTPConnection(HOST, self.fleet.port, timeout=PATIENCE)
        try:
            for path, n in self._requests(random.Random(seed)):
                self._ask(connection, path, n)
        except BaseException as error:
            self.wrong.append(error)
        finally:
            connection.close()

    def _requests(self, rng: random.Random) -> Iterator[tuple[str, int]]:
        while not self._stop.is_set():
            yield rng.choice(self._paths), int(self.keys * rng.random() ** 2)

    def _ask(self, connection: http.client.HTTPConnection, path: str, n: int) -> None:
        for attempt in range(10):
            try:
                answer = json.loads(self.fleet.get(f"{path}/{n}", connection))
            except (ConnectionError, http.client.HTTPException):
                connection.close()
                time.sleep(0.05 * attempt)  # nobody listens while uvicorn or gunicorn replaces a worker
                with self._lock:
                    self.again += 1
                continue
            right = (answer["n"], answer["square"], answer["cube"], answer.get("root", n**2)) == (n, n**2, n**3, n**2)
            with self._lock:
                self.answered += 1
                if not right:
                    self.wrong.append(answer)
            return
        self.wrong.append(f"no answer for {path}/{n}")
