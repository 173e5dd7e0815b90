"""What the processes of test_freshness_processes.py run: cached functions over a file, whose loads are noted."""

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

from cachekit import cache, close, configure, health, region
from cachekit.process import default_service
from cachekit.testing import agate, gate

runs: list[tuple[float, str]] = []  # when a load began, on a clock that all processes share, and in which thread
options: dict[str, Any] = {}
_stop = threading.Event()
_loops: list[threading.Thread] = []
_strange: list[str] = []


def begin(namespace: str, backend: dict[str, Any], profile: dict[str, Any], file: str) -> None:
    """Begin anew, as a process that has just started."""
    runs.clear()
    options.clear()
    options["data"] = file
    configure(
        namespace=namespace,
        backends={
            "default": {"budget": "5s", "adaptive": False, "heartbeat": "200ms", "max_staleness": "500ms", **backend}
        },
        profiles={"users": {"jitter": 0, "early_refresh": "off", **profile}},
        replace=True,
    )


def warm() -> None:
    """Connect, so that what follows is not about connecting."""
    deadline = time.monotonic() + 10
    while health().backends["default"].coherence == "connecting" and time.monotonic() < deadline:
        region("users").get("warm")
        time.sleep(0.01)


def option(name: str, value: Any) -> None:
    options[name] = value


def _read() -> str:
    runs.append((time.monotonic(), threading.current_thread().name))
    if options.get("fails"):
        raise LookupError("the source is away")
    return Path(options["data"]).read_text()


@cache(profile="users", version=1)
def load(key: int) -> str:
    value = _read()
    time.sleep(options.get("seconds", 0.0))
    if "gate" in options:
        gate(options["gate"])
    return value


@cache(profile="users", version=1)
async def aload(key: int) -> str:
    value = _read()
    await asyncio.sleep(options.get("seconds", 0.0))
    if "gate" in options:
        await agate(options["gate"])
    return value


def call(name: str, key: int = 1) -> str:
    return str(globals()[name](key))


async def acall(name: str, key: int = 1) -> str:
    """On the event loop of the process, which goes on afterwards."""
    return str(await globals()[name](key))


def many(name: str, count: int) -> list[str]:
    """So many threads that call at the same time."""
    answers: list[str] = []
    barrier = threading.Barrier(count)

    def one() -> None:
        barrier.wait()
        answers.append(globals()[name](1))

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


async def amany(name: str, count: int) -> list[str]:
    return list(await asyncio.gather(*(globals()[name](1) for _ in range(count))))


def loads() -> list[tuple[float, str]]:
    return runs


def start_asking(name: str) -> None:
    """A thread, or a task on a loop of its own, that asks every few milliseconds."""
    _stop.clear()
    _strange.clear()
    function = globals()[name]

    async def ask() -> None:
        while not _stop.is_set():
            if (answer := await function(1)) != "old":
                _strange.append(answer)
            await asyncio.sleep(0.005)
        await default_service().async_port.wait_for_tasks(5)

    def run() -> None:
        if asyncio.iscoroutinefunction(function):
            asyncio.run(ask())
            return
        while not _stop.wait(0.005):
            if (answer := function(1)) != "old":
                _strange.append(answer)

    _loops[:] = [threading.Thread(target=run, name="asking")]
    _loops[0].start()


def stop_asking() -> list[str]:
    _stop.set()
    for thread in _loops:
        thread.join()
    return _strange


def refreshes(name: str) -> dict[str, int]:
    """How many refreshes behind callers ended how."""
    tally = globals()[name].__cachekit__._function.at().tally
    return {f"{trigger} {result}": count for (trigger, result), count in tally.refreshes.items()}


def counts(name: str) -> dict[str, int]:
    info = globals()[name].cache_info()
    return {"misses": info.misses, "stale": info.stale, "l1": info.l1_hits, "l2": info.l2_hits}


def close_in_a_forked_child() -> float:
    """How long it takes there, in seconds."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        close(10)
        os._exit(0)
    os.waitpid(child, 0)
    return time.monotonic() - began


def settled() -> bool:
    """Whether nothing runs in threads any more."""
    return default_service().workers.settle(10)


async def asettled() -> bool:
    return await default_service().async_port.wait_for_tasks(10)
