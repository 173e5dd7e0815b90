"""Several real Python processes under one driver: it calls functions in them, holds them up at gates, and ends them."""

import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from cachekit.testing.servers import end, start_guard

START_SECONDS = 60.0
CALL_SECONDS = 30.0
STOP_SECONDS = 5.0
ORDER_SECONDS = 10.0  # for what a process does at once, unless it is paused
SHOWN = 4_000  # characters of a process's output in an error

PROGRAM = (
    "import json, sys; fileno, path, setup = json.loads(sys.argv.pop()); sys.path[:] = path; "
    "from cachekit.testing.child import main; main(fileno, setup)"
)

Function: TypeAlias = str | Callable[..., Any]
Environment: TypeAlias = Mapping[str, str | None]


class CallFailed(Exception):
    """A function in a process raised. ``type`` is the name of its exception's class, ``text`` what that said."""

    def __init__(self, where: str, error: Mapping[str, str]) -> None:
        self.type, self.text, self.trace = error["type"], error["text"], error["trace"]
        super().__init__(f"{where}: {self.type}: {self.text}\n{self.trace}")


class ProcessEnded(Exception):
    """A process ended, or was killed, before it answered."""


class Processes:
    """``count`` Python processes. A context manager; nothing of them is left afterwards, nor when this process dies.

    ``setup`` is a function without arguments, as ``"module:function"`` or itself, which each process runs first, on its
    main thread. Other functions may then be named without their module if it is that one. ``env`` are changes of the
    environment (None removes a variable), or a function that gives them for the number of a process. What this process
    can import its processes can, too.

    Arguments and results travel as JSON: tuples arrive as lists, and keys of dicts as text. An error that leaves the
    ``with`` block carries what the processes wrote.
    """

    def __init__(
        self,
        count: int,
        setup: Function | None = None,
        *,
        env: Environment | Callable[[int], Environment] | None = None,
    ) -> None:
        self._setup = None if setup is None else function_name(setup, None)
        self._env = env if callable(env) else lambda _: env or {}
        self._all = [Process(index, self._setup, self._env(index)) for index in range(count)]

    def __getitem__(self, index: int) -> "Process":
        return self._all[index]

    def __iter__(self) -> "Iterator[Process]":
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def start(self) -> None:
        """Start those that do not run, all at the same time, and return when each is set up."""
        for process in self._all:
            process.launch()
        for process in self._all:
            process.wait_until_ready()

    def stop(self) -> None:
        """End all in order, at the same time, and remove what they left."""
        for process in self._all:
            process._bid_end()
        for process in self._all:
            process.stop()

    def __enter__(self) -> "Processes":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for process in self._all:
                if written := process.output().strip():
                    error.add_note(f"process {process.index} wrote:\n{written[-SHOWN:]}")
        self.stop()


class Process:
    """One of `Processes`. It may be ended, paused and started again; its output is kept all the while."""

    def __init__(self, index: int, setup: str | None, env: Environment) -> None:
        self.index = index
        self.directory = Path(tempfile.mkdtemp(prefix=f"cachekit-process-{index}-"))
        self._setup = setup
        self._environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
        for name, value in env.items():
            self._environ.pop(name, None)
            if value is not None:
                self._environ[name] = value
        self._life: Life | None = None
        self._owner = os.getpid()
        atexit.register(self.stop)

    @property
    def pid(self) -> int:
        """Of the running process. `ProcessEnded` when it is not running."""
        return self._alive().popen.pid

    @property
    def running(self) -> bool:
        """Whether it runs, paused or not."""
        return self._life is not None and self._life.popen.poll() is None

    def call(self, function: Function, /, *args: Any, timeout: float = CALL_SECONDS, **kwargs: Any) -> Any:
        """Run a function there and return what it returns. Raises as `Running.result` does.

        A coroutine function runs on the event loop of the process, any other one in a thread of its own.
        """
        return self.start(function, *args, **kwargs).result(timeout)

    def start(self, function: Function, /, *args: Any, **kwargs: Any) -> "Running":
        """As `call`, without waiting."""
        name = function_name(function, self._setup)
        return Running(self, name, self._alive().ask("call", function=name, args=args, kwargs=kwargs))

    def open(self, gate: str) -> None:
        """Open a gate: who waits there goes on, and who comes later is not held up. Done when this returns."""
        self._order("open", gate=gate)

    def shut(self, gate: str) -> None:
        """Shut a gate again, as all are at the start."""
        self._order("shut", gate=gate)

    def wait_at(self, gate: str, *, count: int = 1, timeout: float = CALL_SECONDS) -> None:
        """Return when ``count`` callers of `gate` wait at this one. TimeoutError shows what is done instead."""
        life = self._alive()
        with life.changed:
            if life.changed.wait_for(lambda: life.ended or life.waiting.get(gate, 0) >= count, timeout):
                if life.ended:
                    raise ProcessEnded(f"{self._describe()} before anybody came to the gate {gate!r}{self._wrote()}")
                return
        raise TimeoutError(f"process {self.index}: nobody came to the gate {gate!r} in {timeout} s{self._stacks()}")

    def kill(self) -> None:
        """End it at once with SIGKILL. Calls that wait for it raise `ProcessEnded`."""
        if self._life is not None:
            self._life.end(in_order=False)

    def pause(self) -> None:
        """SIGSTOP: connections stay open and no thread runs, from the moment this returns."""
        os.kill(self.pid, signal.SIGSTOP)
        if sys.platform == "linux":
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """SIGCONT: go on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Kill it and start a new one in its place."""
        self.kill()
        self.launch()
        self.wait_until_ready()

    def stop(self) -> None:
        """End it in order, as a program that has come to its end, and remove its output. After 5 s, kill it."""
        if os.getpid() != self._owner:
            return
        if self._life is not None:
            self._life.end(in_order=True)
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.stop)

    def _bid_end(self) -> None:
        """Have it end in order; `stop` must follow."""
        if os.getpid() == self._owner and self._life is not None:
            self._life.bid_end()

    def output(self) -> str:
        """What it, and those in its place before, have written to standard output and error."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def launch(self) -> None:
        """Start it unless it runs; `wait_until_ready` must follow."""
        if not self.running:
            self.kill()  # one that ended by itself has left its guard
            self.directory.mkdir(exist_ok=True)
            with self._log.open("ab") as log:
                self._life = Life(self._setup, self._environ, log.fileno(), self.directory)

    def wait_until_ready(self) -> None:
        """Return when it is set up."""
        Running(self, "its setup", self._alive().ready).result(START_SECONDS)

    def _wrote(self) -> str:
        """Its output, for an error."""
        written = self.output().strip()
        return f"\nIts output:\n{written[-SHOWN:]}" if written else ""

    def _stacks(self) -> str:
        """Where its threads are and what it wrote, for an error."""
        with contextlib.suppress(Exception):  # paused, ended, or stuck where no other thread can run
            self._alive().ask("stacks").result(1.0)
        return self._wrote()

    def _describe(self) -> str:
        code = None if self._life is None else self._life.popen.poll()
        return f"process {self.index} {'has not been started' if code is None else f'ended with exit status {code}'}"

    @property
    def _log(self) -> Path:
        return self.directory / "output.log"

    def _order(self, what: str, **details: Any) -> None:
        Running(self, what, self._alive().ask(what, **details)).result(ORDER_SECONDS)

    def _alive(self) -> "Life":
        if self._life is None or self._life.ended:
            raise ProcessEnded(self._describe() + self._wrote())
        return self._life


class Running:
    """A call that has been started in a process."""

    def __init__(self, process: Process, name: str, asked: "Future[dict[str, Any]]") -> None:
        self._process = process
        self._name = name
        self._asked = asked

    def done(self) -> bool:
        """Whether `result` would return or raise at once."""
        return self._asked.done()

    def result(self, timeout: float = CALL_SECONDS) -> Any:
        """What the function returned. Raises `CallFailed`, `ProcessEnded`, or TimeoutError with all stacks."""
        process = self._process
        try:
            answer = self._asked.result(timeout)
        except TimeoutError:
            where = f"process {process.index} did not end {self._name} in {timeout} s"
            raise TimeoutError(where + process._stacks()) from None
        except EOFError:
            raise ProcessEnded(f"{process._describe()} during {self._name}{process._wrote()}") from None
        if "error" in answer:
            raise CallFailed(f"{self._name} in process {process.index}", answer["error"])
        return answer["value"]


class Life:
    """A process from its start to its end, and the link to it."""

    def __init__(self, setup: str | None, environ: Mapping[str, str], log: int, directory: Path) -> None:
        self.ended = False
        self.changed = threading.Condition()  # guards what follows
        self.waiting: dict[str, int] = {}  # callers at each gate
        self._asked: dict[int, Future[dict[str, Any]]] = {}
        self._last = 0
        self._sending = threading.Lock()
        self.ready = self._asked[0] = Future()
        self._link, theirs = socket.socketpair()
        with theirs:
            told = json.dumps([theirs.fileno(), sys.path, setup])
            options = [f"-W{option}" for option in sys.warnoptions]
            self.popen = subprocess.Popen(
                [sys.executable, *options, "-c", PROGRAM, told], pass_fds=[theirs.fileno()], env=environ,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        # It ends by itself when our end is closed, but not while it is stopped.
        self._guard = start_guard(self.popen.pid, directory)
        self._reader = threading.Thread(target=self._read, name="cachekit-test-process", daemon=True)
        self._reader.start()

    def ask(self, what: str, **details: Any) -> "Future[dict[str, Any]]":
        """Have it do something. EOFError in the future when it has ended."""
        answer: Future[dict[str, Any]] = Future()
        with self.changed:
            self._last += 1
            number = self._last
            if not self.ended:
                self._asked[number] = answer
        try:
            line = json.dumps({"do": what, "id": number, **details})
        except BaseException:
            with self.changed:
                self._asked.pop(number, None)
            raise
        try:
            with self._sending:
                self._link.sendall(line.encode() + b"\n")
        except OSError:
            self._fail([answer])
        if self.ended:
            self._fail([answer])
        return answer

    def _read(self) -> None:
        with contextlib.suppress(OSError), self._link.makefile("rb") as lines:
            for line in lines:
                self._take(json.loads(line))
        with contextlib.suppress(subprocess.TimeoutExpired):  # closed its end, and lives on
            self.popen.wait(STOP_SECONDS)
        with self.changed:
            self.ended = True
            left = list(self._asked.values())
            self._asked.clear()
            self.changed.notify_all()
        self._fail(left)

    def _take(self, message: dict[str, Any]) -> None:
        with self.changed:
            if "gate" in message:
                self.waiting[message["gate"]] = message["waiting"]
                self.changed.notify_all()
                return
            answer = self._asked.pop(message["id"])
        answer.set_result(message)

    def _fail(self, asked: "list[Future[dict[str, Any]]]") -> None:
        for answer in asked:
            with contextlib.suppress(Exception):  # two threads may notice the end
                answer.set_exception(EOFError())

    def bid_end(self) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            with contextlib.suppress(OSError):  # it has just ended
                self._link.shutdown(socket.SHUT_WR)

    def end(self, *, in_order: bool) -> None:
        end(self._guard, signal.SIGKILL)  # first, so that it cannot meet a process that got the same id later
        if in_order:
            self.bid_end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(STOP_SECONDS)
        if self.popen.poll() is None:
            end(self.popen, signal.SIGKILL)
        self._reader.join(STOP_SECONDS)
        self._link.close()


def function_name(function: Function, home: str | None) -> str:
    """``"module:function"``, by which another process finds it. ``home`` names one whose module is the default."""
    if not isinstance(function, str):
        module, name = function.__module__, function.__qualname__
        if module == "__main__" or "<" in name:
            raise ValueError(f"{name} of {module} cannot be imported by name: put it into a module, at its top level")
        return f"{module}:{name}"
    if ":" in function:
        return function
    if home is None:
        raise ValueError(f"{function!r} has no module: write 'module:{function}', or give a setup in the same module")
    return f"{home.partition(':')[0]}:{function}"
