"""Situations of several processes on one server. This file is also the program of the other processes."""

import asyncio
import inspect
import json
import subprocess
import sys
import threading
import time
from typing import Any

import redis
from adapters import ADAPTERS, Adapter
from support import run

PROCESSES, CALLERS = 4, 5
LOAD = 0.5  # seconds
TOLD = 1.0  # seconds that news may take


class Other:
    """Another process with the same cache, which does what it is told, and says what came of it."""

    def __init__(self, adapter: Adapter) -> None:
        name = next(name for name, kind in ADAPTERS.items() if kind is type(adapter))
        command = [sys.executable, __file__, name, adapter.url]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.tell("warm")
        self.said()

    def tell(self, what: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()

    def said(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("said "):
                return json.loads(line[5:])
        raise RuntimeError("the other process has ended")

    def asked(self, what: str) -> Any:
        self.tell(what)
        return self.said()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def processes_run_it(adapter: Adapter) -> str:
    """How often the function runs, of 4 processes with 5 callers each that miss one key at once."""
    adapter.shared(lambda x: x)  # NotOffered, if there is no server
    others = [Other(adapter) for _ in range(PROCESSES)]
    try:
        for other in others:
            other.tell("storm")
        runs = sum(other.said() for other in others)
    finally:
        for other in others:
            other.end()
    if runs == 1:
        return "once"
    return "once each" if runs <= PROCESSES else "each time" if runs > PROCESSES * CALLERS * 0.6 else "several times"


def another_process_invalidates(adapter: Adapter) -> str:
    """Both have the entry in their memory; this one writes and invalidates; the other's next call a second later."""
    client = redis.Redis.from_url(adapter.url)
    client.set("source", "old")
    memo, other = adapter.tiered(source_of(adapter)), Other(adapter)
    try:
        assert [run(memo(1)), other.asked("read"), other.asked("read")] == ["old"] * 3
        client.set("source", "new")
        run(adapter.forget(memo, 1))
        time.sleep(TOLD)
        return str(other.asked("read"))
    finally:
        other.end()


def source_of(adapter: Adapter) -> Any:
    """A function of the same name in every process, that reads what is on the server under ``source``."""
    client = redis.Redis.from_url(adapter.url)

    def plain(x: int) -> str:
        return client.get("source").decode()  # type: ignore[union-attr]

    async def coroutine(x: int) -> str:
        return plain(x)

    function = coroutine if adapter.is_async else plain
    function.__module__, function.__name__, function.__qualname__ = "shop", "source_fn", "source_fn"
    return function


SITUATIONS = (processes_run_it, another_process_invalidates)


# --- the other process -----------------------------------------------------------------------------------------------


class Worker:
    """What an `Other` does. Its loop runs while it waits for orders, since some caches listen there."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter, self.runs = adapter, 0
        self.slow = adapter.shared(self.slow_function())

    def slow_function(self) -> Any:
        def plain(x: int) -> int:
            self.runs += 1
            time.sleep(LOAD)
            return x

        async def coroutine(x: int) -> int:
            self.runs += 1
            await asyncio.sleep(LOAD)
            return x

        function = coroutine if self.adapter.is_async else plain
        function.__module__, function.__name__, function.__qualname__ = "shop", "slow_fn", "slow_fn"
        return function

    async def do(self, what: str) -> Any:
        return await getattr(self, what)()

    async def warm(self) -> None:
        """The connection is open and all modules are loaded."""
        client = redis.Redis.from_url(self.adapter.url)
        number = client.incr("warmed") + 1000  # type: ignore[operator]
        value = self.slow(number)
        if inspect.isawaitable(value):
            await value
        self.runs = 0

    async def storm(self) -> int:
        if self.adapter.is_async:
            await asyncio.gather(*(self.slow(1) for _ in range(CALLERS)))
        else:
            threads = [threading.Thread(target=self.slow, args=(1,)) for _ in range(CALLERS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return self.runs

    async def read(self) -> str:
        self.memo = getattr(self, "memo", None) or self.adapter.tiered(source_of(self.adapter))
        value = self.memo(1)
        return str(await value if inspect.isawaitable(value) else value)


async def work() -> None:
    worker = Worker(ADAPTERS[sys.argv[1]](sys.argv[2]))
    loop = asyncio.get_running_loop()
    while order := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        print("said", json.dumps(await worker.do(order)), flush=True)


if __name__ == "__main__":
    asyncio.run(work())
