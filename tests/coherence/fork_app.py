"""What the processes of test_forks.py run: forks while other threads are busy, and many event loops."""

import asyncio
import json
import os
import random
import signal
import threading
import time
import traceback
from typing import Any

import load_app
from load_app import aload, load

from cachekit import cache, health
from cachekit.process import default_service

LOOPS, TASKS = 4, 25

_go = threading.Event()
_holding = threading.Event()
_threads: list[threading.Thread] = []
_children: list[tuple[int, int, int]] = []  # pid, where it tells, where it is told to end


def hold_lock() -> None:
    """A thread holds the lock under which L1 is changed and pushes are applied, until `let_go`."""
    _go.clear()
    _holding.clear()
    _threads[:] = [threading.Thread(target=_hold)]
    _threads[0].start()
    _holding.wait()


def _hold() -> None:
    with default_service().versions.lock:
        _holding.set()
        _go.wait()


def let_go() -> None:
    _go.set()
    _threads[0].join()


def fork() -> int:
    """The child uses the cache, tells what it saw, and lives until `end_child`."""
    tells, told = os.pipe()
    ends, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)  # if it hangs
        try:
            answer: Any = _in_child()
        except BaseException:
            answer = {"error": traceback.format_exc()}
        os.write(told, json.dumps(answer).encode() + b"\n")
        os.close(end)
        os.read(ends, 1)
        os._exit(0)
    os.close(told)
    os.close(ends)
    _children.append((pid, tells, end))
    return pid


def _in_child() -> dict[str, Any]:
    load_app.options.pop("gate", None)  # nobody opens it here
    load_app.runs.clear()
    seen = {
        "inherited": [load(2), asyncio.run(aload(2))],
        "runs": len(load_app.runs),
        "in flight": [load(1), asyncio.run(aload(1))],
    }
    load_app.Path(load_app.options["data"]).write_text("new")
    seen["outcomes"] = [load_app.invalidate("key", name, 2) for name in ("load", "aload")]
    seen["after"] = [load(2), asyncio.run(aload(2))]
    load_app.warm()
    seen["coherence"] = load_app.coherence()
    return seen


def child_saw() -> Any:
    with os.fdopen(os.dup(_children[-1][1])) as told:
        return json.loads(told.readline())


def end_child() -> int:
    """Its exit status."""
    pid, tells, end = _children.pop()
    os.close(tells)
    os.close(end)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def until_followed(value: str, key: int = 2) -> float:
    """Seconds until calls of both kinds answer so."""
    began = time.monotonic()
    while (load(key), asyncio.run(aload(key))) != (value, value):
        assert time.monotonic() - began < 10, health()
        time.sleep(0.005)
    return time.monotonic() - began


# Many event loops

changed: dict[int, int] = {}  # the source: how often a key was changed


@cache(profile="users", version=1, tags=lambda key: [f"tag-{key}"])
async def square(key: int) -> list[int]:
    await asyncio.sleep(random.random() / 1000)
    return [key, key * key, changed.get(key, 0)]


def loops(count: int) -> dict[str, Any]:
    """Four event loops in four threads, each with its share of the keys, and with some that all of them ask for."""
    wrong: list[str] = []
    asked = [0] * LOOPS

    async def task(number: int, keys: list[int], rng: random.Random) -> None:
        for key in keys:
            try:
                for _ in range(2):
                    if await square(key) != [key, key * key, changed.get(key, 0)]:
                        wrong.append(f"wrong for {key}")
                    asked[number] += 1
                    if rng.random() < 0.05:
                        await asyncio.sleep(rng.random() / 200)
                    if rng.random() < 0.02:
                        changed[key] = changed.get(key, 0) + 1
                        await square.invalidate(key)
                common = -rng.randrange(1, 100)
                if await square(common) != [common, common * common, 0]:
                    wrong.append(f"wrong for {common}")
            except BaseException:
                wrong.append(traceback.format_exc())

    async def tasks(number: int) -> None:
        mine = range(number, count, LOOPS)
        await asyncio.gather(*(task(number, list(mine[n::TASKS]), random.Random(n)) for n in range(TASKS)))

    threads = [threading.Thread(target=lambda number=number: asyncio.run(tasks(number))) for number in range(LOOPS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    info = square.cache_info()
    return {
        "wrong": wrong[:3],
        "asked": sum(asked),
        "errors": info.errors,
        "l1": info.l1_hits,
        "state": health().backends["default"].coherence,
    }
