"""The inside of a process of `Processes`: runs what its driver asks for, and waits at gates that the driver opens.

Messages are lines of JSON over a socket pair. The process ends when the driver's end is closed.
"""

import asyncio
import contextlib
import faulthandler
import inspect
import json
import socket
import threading
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from importlib import import_module
from typing import Any, cast

LOOP_SECONDS = 5.0  # that the event loop gets to start, and to end what runs on it


def gate(name: str) -> None:
    """Wait until the driver opens this gate of this process; outside of a process of `Processes` go on at once.

    Gates are shut until they are opened. For coroutines there is `agate`.
    """
    if _inside is not None:
        _inside.arrive(name).result()


async def agate(name: str) -> None:
    """As `gate`, for coroutines: the event loop goes on."""
    if _inside is not None:
        await asyncio.wrap_future(_inside.arrive(name))


def resolve(name: str) -> Callable[..., Any]:
    """The function that is called ``"module:function"`` or ``"module:Class.method"``."""
    module, _, path = name.partition(":")
    found: Any = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return cast(Callable[..., Any], found)


class Gates:
    """Who waits where. Reports each change, so that the driver's picture is in the order of its own commands."""

    def __init__(self, report: Callable[..., None]) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._open: set[str] = set()
        self._waiting: dict[str, list[Future[None]]] = {}

    def arrive(self, name: str) -> "Future[None]":
        """A future that is done when the gate is open."""
        passed: Future[None] = Future()
        with self._lock:
            if name in self._open:
                passed.set_result(None)
            else:
                waiting = self._waiting.setdefault(name, [])
                waiting.append(passed)
                self._report(gate=name, waiting=len(waiting))
        return passed

    def open(self, name: str) -> None:
        with self._lock:
            self._open.add(name)
            waiting = self._waiting.pop(name, [])
            self._report(gate=name, waiting=0)
        for passed in waiting:
            if passed.set_running_or_notify_cancel():  # not a task that was cancelled at the gate
                passed.set_result(None)

    def shut(self, name: str) -> None:
        with self._lock:
            self._open.discard(name)


class Loop:
    """An event loop on a thread of its own, started by the first coroutine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine; the calling thread waits."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=asyncio.run, args=(self._live(),), name="cachekit-test-loop", daemon=True
                )
                self._thread.start()
        loop, _ = self._started.result(LOOP_SECONDS)
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    async def _live(self) -> None:
        ending = asyncio.Event()
        self._started.set_result((asyncio.get_running_loop(), ending))
        await ending.wait()  # then asyncio.run cancels what is left, and closes the loop

    def end(self) -> None:
        if self._thread is not None:
            loop, ending = self._started.result(LOOP_SECONDS)
            loop.call_soon_threadsafe(ending.set)
            self._thread.join(LOOP_SECONDS)


class Inside:
    """What the process knows of its driver."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._sending = threading.Lock()
        self._ended = threading.Event()
        self._loop = Loop()
        self._gates = Gates(self.send)
        self.arrive = self._gates.arrive

    def live(self, setup: str | None) -> None:
        """Set up, on the main thread as in any program; then only wait for the end."""
        threading.Thread(target=self._obey, name="cachekit-test-driver", daemon=True).start()
        self._answer(0, (lambda: None) if setup is None else lambda: self._called(setup, [], {}))
        self._ended.wait()
        self._loop.end()

    def send(self, **message: Any) -> None:
        self._send(json.dumps(message))

    def _send(self, line: str) -> None:
        with self._sending, contextlib.suppress(OSError):  # the driver is gone: so are we, soon
            self._link.sendall(line.encode() + b"\n")

    def _obey(self) -> None:
        with self._link.makefile("rb") as lines:
            for line in lines:
                self._do(json.loads(line))
        self._ended.set()

    def _do(self, order: dict[str, Any]) -> None:
        number, what = order["id"], order["do"]
        if what == "call":
            work = lambda: self._called(order["function"], order["args"], order["kwargs"])  # noqa: E731
            threading.Thread(
                target=self._answer, args=(number, work), name=f"call of {order['function']}", daemon=True
            ).start()
            return
        if what == "stacks":
            faulthandler.dump_traceback(2)  # standard error, whatever sys.stderr has become
        else:
            (self._gates.open if what == "open" else self._gates.shut)(order["gate"])
        self.send(id=number, value=None)

    def _called(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        function = resolve(name)
        if inspect.iscoroutinefunction(function):
            return self._loop.run(function(*args, **kwargs))
        return function(*args, **kwargs)

    def _answer(self, number: int, work: Callable[[], Any]) -> None:
        try:
            self._send(json.dumps({"id": number, "value": work()}))
        except BaseException as error:  # SystemExit too: the driver waits for an answer
            kind, trace = type(error), traceback.format_exc()
            name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
            self.send(id=number, error={"type": name, "text": str(error), "trace": trace})


_inside: Inside | None = None


def main(fileno: int, setup: str | None) -> None:
    """Run as a process of `Processes` until the driver closes its end."""
    global _inside
    link = socket.socket(fileno=fileno)
    link.set_inheritable(False)  # programs that are started here must not keep it open
    with link:
        _inside = Inside(link)
        _inside.live(setup)
