"""Processes under a driver: they do what they are told, tell what went wrong, and never outlive it."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import process_functions
import pytest

from cachekit.testing import CallFailed, ProcessEnded, Processes, agate, gate
from cachekit.testing.processes import Process

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def shared() -> Iterator[Processes]:
    """Two processes for tests that leave them as they were."""
    with Processes(2, process_functions.setup) as processes:
        yield processes


@pytest.fixture
def process() -> Iterator[Process]:
    """One that a test may end."""
    with Processes(1, "process_functions:setup") as processes:
        yield processes[0]


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A dead child of init may lie there as a zombie for a moment.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_they_are_processes_of_their_own(shared: Processes) -> None:
    pids = [process.call("pid") for process in shared]
    assert pids == [process.pid for process in shared]
    assert len({*pids, os.getpid()}) == len(shared) + 1 == 3


def test_functions_are_found_by_name_and_by_themselves(shared: Processes) -> None:
    assert shared[0].call("done") == ["done"]
    assert shared[0].call("process_functions:Group.member") == "found"
    assert shared[0].call("os.path:basename", "/a/b") == "b"
    assert shared[1].call(process_functions.done) == ["done"]
    assert process_functions.setups == [], "the setup ran there, not here"


def test_arguments_and_results_are_json(shared: Processes) -> None:
    assert shared[0].call("echo", 1, "ä\n", None, [1.5], function="f", do="d", id=3) == [
        [1, "ä\n", None, [1.5]],
        {"function": "f", "do": "d", "id": 3},
    ]
    with pytest.raises(TypeError, match="not JSON serializable"):
        shared[0].call("echo", object())
    with pytest.raises(CallFailed, match="not JSON serializable"):
        shared[0].call("untold")


def test_an_exception_comes_back_with_its_traceback(shared: Processes) -> None:
    with pytest.raises(CallFailed) as caught:
        shared[1].call("fail", "on purpose")
    assert (caught.value.type, caught.value.text) == ("ValueError", "on purpose")
    assert "raise ValueError(text)" in caught.value.trace
    assert "process_functions:fail in process 1: ValueError: on purpose\nTraceback" in str(caught.value)
    with pytest.raises(CallFailed, match="KeyError: 'async'"):
        shared[0].call("fail_later")
    with pytest.raises(CallFailed, match="SystemExit: no reason"):
        shared[0].call("leave")
    with pytest.raises(CallFailed, match="AttributeError"):
        shared[0].call("nowhere")


def test_calls_of_one_process_run_at_the_same_time(shared: Processes) -> None:
    calls = [shared[0].start(function, "together") for function in ("wait", "wait", "await_", "await_")]
    shared[0].wait_at("together", count=4)
    assert not any(call.done() for call in calls)
    shared[0].open("together")
    assert [call.result() for call in calls] == ["passed together"] * 4


def test_coroutine_functions_share_one_loop(shared: Processes) -> None:
    assert shared[0].call("loop_id") == shared[0].call("loop_id")


def test_an_open_gate_stays_open_until_it_is_shut(shared: Processes) -> None:
    first, second = shared
    first.open("here")
    assert first.call("wait", "here") == first.call("await_", "here") == "passed here"
    blocked = second.start("wait", "here")
    second.wait_at("here")
    second.open("here")
    second.shut("here")
    assert blocked.result() == "passed here", "who waited when it was opened goes on, though it is shut again"
    again = second.start("await_", "here")
    second.wait_at("here")
    assert not again.done()
    second.open("here")
    again.result()


def test_a_task_may_give_up_at_a_gate(shared: Processes) -> None:
    assert shared[0].call("impatient", "never") == "gave up"
    shared[0].open("never")


def test_nobody_at_a_gate_shows_what_they_do_instead(shared: Processes) -> None:
    sleeping = shared[0].start("wait", "another")
    with pytest.raises(TimeoutError, match=r"nobody came to the gate 'this' in 0.1 s(?s:.*)in wait\n"):
        shared[0].wait_at("this", timeout=0.1)
    shared[0].open("another")
    sleeping.result()


def test_gates_hold_up_nobody_outside_of_such_a_process() -> None:
    import asyncio

    gate("anything")
    asyncio.run(agate("anything"))


def test_a_call_that_does_not_end_shows_where_it_is(process: Process) -> None:
    with pytest.raises(TimeoutError, match=r"(?s)process 0 did not end .*:sleep_for_long in 0.1 s.*in sleep_for_long"):
        process.call("sleep_for_long", timeout=0.1)


def test_a_killed_process_fails_its_calls_and_can_be_started_again(process: Process) -> None:
    blocked, before = process.start("wait", "for ever"), process.pid
    process.wait_at("for ever")
    process.kill()
    process.kill()
    with pytest.raises(ProcessEnded, match="process 0 ended with exit status -9 during process_functions:wait"):
        blocked.result()
    assert not process.running
    assert not runs(before)
    for attempt in (
        lambda: process.call("pid"),
        lambda: process.open("g"),
        process.pause,
        lambda: process.wait_at("g"),
    ):
        with pytest.raises(ProcessEnded):
            attempt()
    process.restart()
    assert process.call("done") == ["done"]
    assert process.pid != before
    process.restart()
    assert process.running


def test_a_process_that_dies_leaves_its_last_words(process: Process) -> None:
    with pytest.raises(ProcessEnded, match=r"exit status -9 during process_functions:die(?s:.*)last words"):
        process.call("die")
    with pytest.raises(ProcessEnded, match="last words"):
        process.call("pid")
    process.restart()
    assert "last words" in process.output(), "it is kept"


def test_waiting_at_a_gate_of_a_process_that_dies(process: Process) -> None:
    dying = process.start("die")
    with pytest.raises(ProcessEnded):
        process.wait_at("never reached")
    with pytest.raises(ProcessEnded):
        dying.result()


def test_a_paused_process_stands_still(process: Process, tmp_path: Path) -> None:
    file = tmp_path / "count"
    process.start("count_to_file", str(file))
    assert eventually(lambda: file.exists() and file.stat().st_size > 10)
    process.pause()
    size = file.stat().st_size
    with pytest.raises(TimeoutError):
        process.call("pid", timeout=0.2)
    assert file.stat().st_size == size
    assert process.running
    process.resume()
    assert process.call("pid") == process.pid
    assert eventually(lambda: file.stat().st_size > size)


def test_stopped_in_order_it_runs_what_it_has_registered(tmp_path: Path) -> None:
    word = tmp_path / "word"
    with Processes(1, "process_functions:setup") as processes:
        processes[0].call("leave_word_at_exit", str(word))
        processes[0].call("loop_id")
        processes[0].start("wait", "for ever")
        directory, pid = processes[0].directory, processes[0].pid
        processes[0].pause()
    assert word.read_text() == "bye"
    assert not runs(pid)
    assert not directory.exists()


def test_the_environment_is_changed_for_all_or_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOVED", "here")
    monkeypatch.setenv("INHERITED", "here")
    with Processes(1, process_functions.setup, env={"REMOVED": None, "ADDED": "there"}) as processes:
        names = ("REMOVED", "INHERITED", "ADDED")
        assert [processes[0].call("environment", name) for name in names] == [None, "here", "there"]
    with Processes(2, process_functions.setup, env=lambda index: {"NUMBER": str(index)}) as processes:
        assert [process.call("environment", "NUMBER") for process in processes] == ["0", "1"]


def test_a_setup_that_fails_is_shown_and_leaves_nothing() -> None:
    processes = Processes(2, process_functions.setup_that_fails)
    with pytest.raises(CallFailed, match="its setup in process 0: LookupError: nothing here"):
        processes.start()
    pids = [process.pid for process in processes]
    processes.stop()
    assert not any(map(runs, pids))
    with pytest.raises(CallFailed), Processes(1, process_functions.setup_that_fails):
        raise AssertionError("unreachable")


def test_a_setup_may_wait_at_a_gate() -> None:
    processes = Processes(1, process_functions.setup_at_a_gate)
    try:
        processes[0].launch()
        processes[0].wait_at("setup")
        processes[0].open("setup")
        processes[0].wait_until_ready()
    finally:
        processes.stop()


def test_without_a_setup_functions_need_their_module() -> None:
    with Processes(1) as processes:
        assert processes[0].call("process_functions:done") == []
        with pytest.raises(ValueError, match="write 'module:done'"):
            processes[0].call("done")
        with pytest.raises(ValueError, match="cannot be imported by name"):
            processes[0].call(lambda: None)


def test_an_error_in_the_block_carries_their_output() -> None:
    def block() -> None:
        with Processes(1, process_functions.setup) as processes:
            processes[0].call("fail", "x")

    with pytest.raises(CallFailed) as caught:
        block()
    assert caught.value.__notes__ == ["process 0 wrote:\nabout to fail"]


@pytest.mark.parametrize("how", ["exit", "crash", "SIGKILL"])
def test_they_end_with_their_driver_however_that_ends(how: str, tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import os, signal, sys
        from cachekit.testing import Processes
        processes = Processes(2, "process_functions:setup")
        processes.start()
        processes[1].pause()
        print(*(process.pid for process in processes), *(process.directory for process in processes), flush=True)
        if {how!r} == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        if {how!r} == "crash":
            raise RuntimeError
    """)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) is (how == "exit"), done.stderr
    first, second, *directories = done.stdout.split()
    assert eventually(lambda: not runs(int(first)) and not runs(int(second)))
    assert eventually(lambda: not any(Path(directory).exists() for directory in directories))


def test_a_forked_child_of_the_driver_leaves_them_alone(process: Process) -> None:
    pid = os.fork()
    if pid == 0:
        process.stop()
        os._exit(0)
    os.waitpid(pid, 0)
    assert process.call("pid") == process.pid


def test_warnings_of_the_driver_are_theirs(tmp_path: Path) -> None:
    script = "from cachekit.testing import Processes\nwith Processes(1) as p: p[0].call('process_functions:warn')"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    for options, code in ([], 0), (["-W", "error"], 1):
        command = [sys.executable, *options, "-c", script]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
    assert "UserWarning: look out" in done.stderr


def test_a_signal_handler_may_be_set_up_because_it_is_the_main_thread(process: Process) -> None:
    process.call("os:kill", process.pid, signal.SIGCONT)
    assert process.running
