"""Processes of one host that share a file: values, invalidations within the bound, and no harm through SIGKILL."""

import itertools
import random
import sqlite3
import stat
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachekit.testing import Process, Processes

pytestmark = pytest.mark.slow

POLL = 0.05  # seconds between two looks for changes: the bound of the page docs/backends.md
PUSHED = {"max_staleness": "30s", "heartbeat": "500ms"}  # what comes sooner than in 30 s was heard of
WAYS = ["key", "tag", "late tag", "function", "region"]

numbers = itertools.count()
Begin = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def four() -> Iterator[Processes]:
    with Processes(4, env={"PYTHONPATH": str(Path(__file__).parent)}) as started:
        yield started


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
def begin(four: Processes, path: Path) -> Begin:
    """``begin(process, ...)``: processes as if they had just started, hearing of changes in the file."""
    namespace = f"file{next(numbers)}"

    def begun(*processes: Process, **backend: Any) -> None:
        chosen = processes or tuple(four)
        for function, arguments in (("begin", [namespace, f"file://{path}"]), ("until_tracking", [])):
            fields = backend if function == "begin" else {}
            for running in [each.start(f"steady_app:{function}", *arguments, **fields) for each in chosen]:
                running.result()

    return begun


def damage(path: Path) -> str:
    """What SQLite finds wrong with the whole file; "ok" is nothing."""
    connection = sqlite3.connect(path, timeout=10)
    try:
        return "\n".join(text for (text,) in connection.execute("PRAGMA integrity_check"))
    finally:
        connection.close()


@pytest.mark.timed
@pytest.mark.parametrize("name", ["own", "aown"])
def test_processes_share_values_and_hear_of_every_kind_of_invalidation(
    four: Processes, begin: Begin, name: str
) -> None:
    begin(**PUSHED)
    first, second = four[0], four[1]
    assert first.call("steady_app:get", "k", name) == 0
    assert second.call("steady_app:get", "k", name) == 0
    assert second.call("steady_app:number_of_runs") == 0, "it came from the file"
    for version, way in enumerate(WAYS, 1):
        for process in (first, second):
            process.call("steady_app:put", "k", version)
        assert first.call("steady_app:invalidate", "k", name, way) == "DONE"
        assert first.call("steady_app:get", "k", name) == version
        assert second.call("steady_app:until_followed", "k", name, version) < 1.0, f"late: {way}"


@pytest.mark.timed
def test_an_invalidation_is_heard_within_the_bound(four: Processes, begin: Begin) -> None:
    begin(**PUSHED)
    first, *others = four
    late = []
    for version in range(1, 12):
        for process in four:
            process.call("steady_app:put", "k", version)
            process.call("steady_app:get", "k", "own")  # into L1
        running = [process.start("steady_app:until_followed", "k", "own", version) for process in others]
        first.call("steady_app:invalidate", "k", "own", "key")
        late += [each.result() for each in running]
    assert statistics.median(late) < POLL + 0.1, f"late: {late}"
    assert max(late) < POLL + 1.0, late


def test_it_outlives_its_processes(four: Processes, begin: Begin) -> None:
    begin()
    four[0].call("steady_app:put", "k", 5)
    assert four[0].call("steady_app:get", "k", "own") == 5
    for process in four:
        process.kill()
    four.start()
    begin()
    assert four[0].call("steady_app:get", "k", "own") == 5
    assert four[0].call("steady_app:number_of_runs") == 0


def test_its_files_are_for_their_owner_alone(four: Processes, begin: Begin, path: Path) -> None:
    begin()
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["cache.db", "cache.db-shm", "cache.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_killed_processes_leave_nothing_wrong_to_the_others(four: Processes, begin: Begin, path: Path) -> None:
    """Threads and tasks of all processes call, store and invalidate without a pause meanwhile."""
    begin()
    for place, process in enumerate(four):
        process.call("steady_app:work", place)
    for victim in list(four)[:2]:
        victim.call("steady_app:until_more_calls", 50)
        victim.kill()
        for process in list(four)[2:]:
            process.call("steady_app:until_more_calls", 50)
    results = [running.result() for running in [process.start("steady_app:rest") for process in list(four)[2:]]]
    assert [result["wrong"] for result in results] == [[], []]
    assert damage(path) == "ok"
    four.start()


class Hammer:
    """A process that works on the file without a pause, until it is killed."""

    def __init__(self, path: Path, seed: int, log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            command = [sys.executable, str(Path(__file__).with_name("file_hammer.py")), str(path), str(seed)]
            self.process = subprocess.Popen(command, stdout=output, stderr=output)

    def until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while b"ready" not in self.log.read_bytes():
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.005)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.mark.parametrize("rounds", [25, pytest.param(100, marks=pytest.mark.nightly)])
def test_nothing_is_damaged_when_processes_are_killed_at_any_moment(path: Path, tmp_path: Path, rounds: int) -> None:
    rng, logs = random.Random(rounds), [tmp_path / f"log-{number}" for number in range(rounds + 4)]
    hammers = [Hammer(path, number, logs[number]) for number in range(4)]
    try:
        for number in range(rounds):
            victim = rng.randrange(4)
            hammers[victim].until_ready()
            time.sleep(rng.random() * 0.03)
            hammers[victim].kill()
            hammers[victim] = Hammer(path, 4 + number, logs[4 + number])
            if number % 20 == 0:
                assert damage(path) == "ok"
        for hammer in hammers:
            hammer.until_ready()
    finally:
        for hammer in hammers:
            hammer.kill()
    assert damage(path) == "ok"
    assert {line for log in logs for line in log.read_text().splitlines()} == {"ready"}
