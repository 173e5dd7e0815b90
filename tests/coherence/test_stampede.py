"""One computation per key across processes: real processes, one real server."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachekit.testing import Processes
from cachekit.testing.servers import Server

numbers = itertools.count()
MakeProcesses = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def eight() -> Iterator[Processes]:
    """Processes that the tests of this file share, since starting them takes longer than most tests."""
    with Processes(8, env={"PYTHONPATH": str(Path(__file__).parent)}) as started:
        yield started


@pytest.fixture
def processes(eight: Processes, cachekit_server: Server, tmp_path: Path) -> MakeProcesses:
    """``processes(count, **profile_fields)``: as if they had just started; the data are what the file says."""
    (tmp_path / "data").write_text("old")
    namespace = f"stampede{next(numbers)}"

    def begun(count: int, **profile: Any) -> list[Any]:
        eight.start()  # those that a test has killed
        some = [eight[index] for index in range(count)]
        for process in some:
            for gate in ("slow", "opaque", "never"):
                process.shut(gate)
        backend = {"url": cachekit_server.url}
        for running in [
            process.start("load_app:begin", namespace, backend, profile, str(tmp_path / "data")) for process in some
        ]:
            running.result()
        return some

    return begun


def runs(processes: list[Any]) -> int:
    return sum(process.call("load_app:number_of_runs") for process in processes)


@pytest.mark.parametrize("name", ["load", "aload", "load_short", "load_bare"])
@pytest.mark.parametrize("warm", [True, False], ids=["connected", "cold"])
def test_200_callers_in_8_processes_run_the_function_once(processes: MakeProcesses, name: str, warm: bool) -> None:
    """8 x 25 threads, or tasks; whether changes are heard of (load, aload) or not."""
    eight = processes(8, lease_wait="30s")  # a busy machine may import modules for longer than the 5 s of the default
    for process in eight:
        process.call("load_app:seconds", 0.05)
        if warm:
            process.call("load_app:warm")
    started = [process.start("load_app:many", name, 25) for process in eight]
    for running in started:
        assert running.result() == ["old"] * 25
    assert runs(eight) == 1


@pytest.mark.timed
def test_a_killed_holder_is_replaced_when_its_lease_ends(processes: MakeProcesses) -> None:
    """The first lease is 5 s; then three times what loads take, and 2 s at least."""
    first, second = processes(2, lease_wait="20s")
    for process in (first, second):
        process.call("load_app:warm")
    first.call("load_app:call", 7)  # now it knows how long loads take
    first.call("load_app:at_gate", "never")
    first.start("load_app:call", 1)
    first.wait_at("never")
    taken = time.monotonic()
    waiting = second.start("load_app:call", 1)
    first.kill()
    assert waiting.result(10) == "old"
    assert time.monotonic() - taken <= 2.0 + 0.25, "late"


@pytest.mark.slow
def test_a_load_longer_than_its_lease_keeps_it(processes: MakeProcesses) -> None:
    """It is renewed: others go on waiting, and the value is stored."""
    first, second = processes(2, lease_wait="20s")
    for process in (first, second):
        process.call("load_app:warm")
    first.call("load_app:call", 7)
    first.call("load_app:seconds", 5.0)  # its lease is 2 s
    running = first.start("load_app:call", 1)
    while first.call("load_app:number_of_runs") < 2:
        time.sleep(0.01)
    assert second.call("load_app:call", 1) == running.result() == "old"
    assert (first.call("load_app:number_of_runs"), second.call("load_app:number_of_runs")) == (2, 0)
    assert second.call("load_app:counts")[:2] == [1, 0]


@pytest.mark.timed
def test_who_is_out_of_patience_computes_and_does_not_store(processes: MakeProcesses) -> None:
    first, second = processes(2, lease_wait="300ms")
    for process in (first, second):
        process.call("load_app:warm")
    first.call("load_app:at_gate", "slow")
    running = first.start("load_app:call", 1)
    first.wait_at("slow")
    began = time.monotonic()
    assert second.call("load_app:call", 1) == "old"
    took = time.monotonic() - began
    assert took >= 0.3
    assert took < 2.0, "late"
    assert second.call("load_app:counts") == [1, 1, 0]
    first.open("slow")
    assert running.result() == "old"
    assert first.call("load_app:counts")[2] == 1, "the holder was not disturbed"


def test_with_lease_off_nobody_waits_and_one_stores(processes: MakeProcesses) -> None:
    first, second = processes(2, lease="off")
    first.call("load_app:at_gate", "slow")
    running = first.start("load_app:call", 1)
    first.wait_at("slow")
    assert second.call("load_app:call", 1) == "old"
    first.open("slow")
    assert running.result() == "old"
    assert (first.call("load_app:counts")[2], second.call("load_app:counts")[2]) == (1, 0)


@pytest.mark.timed
def test_a_value_that_cannot_be_stored_wakes_who_waits(processes: MakeProcesses) -> None:
    first, second = processes(2, lease_wait="20s")
    for process in (first, second):
        process.call("load_app:warm")
        process.call("load_app:at_gate", "opaque")
    running = first.start("load_app:call", 1, "load_opaque")
    first.wait_at("opaque")
    waiting = second.start("load_app:call", 1, "load_opaque")
    time.sleep(0.3)
    assert second.call("load_app:number_of_runs") == 0
    second.open("opaque")
    began = time.monotonic()
    first.open("opaque")
    running.result()
    waiting.result()
    assert time.monotonic() - began < 1.0, "late: it did not wait for the end of the lease"
    assert second.call("load_app:number_of_runs") == 1


WAYS = ["key", "tag", "late tag", "function", "region"]


@pytest.mark.parametrize("name", ["load", "aload"])
@pytest.mark.parametrize("way", WAYS)
def test_an_invalidation_during_a_load_in_another_process_wins(
    processes: MakeProcesses, tmp_path: Path, way: str, name: str
) -> None:
    first, second = processes(2)
    for process in (first, second):
        process.call("load_app:warm")
    first.call("load_app:at_gate", "slow")
    running = first.start("load_app:call", 1) if name == "load" else first.start("load_app:acall", 1)
    first.wait_at("slow")
    (tmp_path / "data").write_text("new")
    assert second.call("load_app:invalidate", way, name) == "DONE"
    first.open("slow")
    assert running.result() == "old", "that call began before the invalidation"
    for process in (first, second, first):
        assert read(process, name) == "new"


def read(process: Any, name: str) -> str:
    answer: str = process.call("load_app:call", 1) if name == "load" else process.call("load_app:acall", 1)
    return answer


def test_who_comes_after_an_invalidation_does_not_get_what_was_read_before(
    processes: MakeProcesses, tmp_path: Path
) -> None:
    """A caller in the process that invalidated, while another process still computes from old data."""
    first, second = processes(2)
    for process in (first, second):
        process.call("load_app:warm")
    first.call("load_app:at_gate", "slow")
    running = first.start("load_app:call", 1)
    first.wait_at("slow")
    (tmp_path / "data").write_text("new")
    assert second.call("load_app:invalidate", "key") == "DONE"
    assert second.call("load_app:call", 1) == "new"
    first.open("slow")
    assert running.result() == "old"
    assert first.call("load_app:call", 1) == "new"


@pytest.mark.parametrize("way", ["tag", "function", "region"])
def test_8_processes_that_read_what_was_cleared_compute_it_once(
    processes: MakeProcesses, tmp_path: Path, way: str
) -> None:
    eight = processes(8)
    for process in eight:
        process.call("load_app:warm")
        process.call("load_app:call", 1)
        process.call("load_app:seconds", 0.05)
    before = runs(eight)
    (tmp_path / "data").write_text("new")
    assert eight[0].call("load_app:invalidate", way) == "DONE"
    for process in eight:  # what the others have in L1 they may use until they have heard of it
        deadline = time.monotonic() + 5
        while process.call("load_app:peek") == "old":
            assert time.monotonic() < deadline
    started = [process.start("load_app:many", "load", 5) for process in eight]
    answers = [answer for running in started for answer in running.result()]
    assert set(answers) == {"new"}
    assert runs(eight) - before == 1
