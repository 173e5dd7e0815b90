"""What the processes of test_driven_processes.py run."""

import asyncio
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from cachekit.testing import agate, gate

setups: list[str] = []


def setup() -> None:
    assert threading.current_thread() is threading.main_thread()
    setups.append("done")


def setup_that_fails() -> None:
    print("on the way to it")
    raise LookupError("nothing here")


def setup_at_a_gate() -> None:
    gate("setup")


def done() -> list[str]:
    return setups


def echo(*args: Any, **kwargs: Any) -> list[Any]:
    return [list(args), kwargs]


def environment(name: str) -> str | None:
    return os.environ.get(name)


def pid() -> int:
    return os.getpid()


def fail(text: str) -> None:
    print("about to fail")
    raise ValueError(text)


async def fail_later() -> None:
    await asyncio.sleep(0)
    raise KeyError("async")


def leave() -> None:
    sys.exit("no reason")


def untold() -> object:
    return object()


def die() -> None:
    print("last words")
    os.kill(os.getpid(), signal.SIGKILL)


def wait(name: str) -> str:
    gate(name)
    return f"passed {name}"


async def await_(name: str) -> str:
    await agate(name)
    return f"passed {name}"


async def impatient(name: str) -> str:
    try:
        await asyncio.wait_for(agate(name), 0.05)
    except TimeoutError:
        return "gave up"
    return "passed"


async def loop_id() -> int:
    return id(asyncio.get_running_loop())


def sleep_for_long() -> None:
    time.sleep(1000)


def count_to_file(path: str) -> None:
    with Path(path).open("ab", buffering=0) as file:
        while True:
            file.write(b"x")
            time.sleep(0.001)


def leave_word_at_exit(path: str) -> None:
    import atexit

    atexit.register(Path(path).write_text, "bye")


def warn() -> None:
    warnings.warn("look out", UserWarning, stacklevel=1)


class Group:
    @staticmethod
    def member() -> str:
        return "found"
