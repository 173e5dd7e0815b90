"""What the processes of test_paused.py run: loops that ask without a pause, and clocks that are wrong."""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import load_app
from load_app import aload, load

from cachekit import cache
from cachekit import service as service_module
from cachekit.l1.table import Table
from cachekit.l2.reach import SHORT
from cachekit.service import SystemClock

now = time.monotonic  # the same clock in all processes of a machine

_stop = threading.Event()
_loops: list[threading.Thread] = []
_noted: list[list[Any]] = []  # an answer, and when the first and the last call in a row that brought it began


class RefreshedClock:
    """The control of rule H1: a time that a thread refreshes, so that reading it costs less."""

    def __init__(self) -> None:
        self.time = time.monotonic_ns()
        self.refreshed = threading.Condition()
        threading.Thread(target=self._refresh, daemon=True).start()

    def __call__(self) -> int:
        return self.time

    def _refresh(self) -> None:
        while True:
            for _ in range(10):  # after a pause the first one ends at once
                time.sleep(0.03)
            with self.refreshed:
                self.time = time.monotonic_ns()
                self.refreshed.notify_all()


_clocks: list[RefreshedClock] = []


def begin(namespace: str, backend: dict[str, Any], file: str, refreshed: bool) -> None:
    """As in `load_app`, connected. ``refreshed``: L1 has the wrong kind of clock."""
    service_module.Table = Table  # type: ignore[misc]
    _clocks.clear()
    if refreshed:
        _clocks.append(RefreshedClock())
        service_module.Table = lambda **options: Table(**{**options, "clock": _clocks[0]})  # type: ignore[assignment,misc]
    load_app.begin(namespace, backend, {}, file)
    load_app.warm()


def start_loop(name: str) -> None:
    """A thread, or a task, asks for key 1 without a pause."""
    _stop.clear()
    _noted.clear()
    _loops[:] = [threading.Thread(target=_loop if name == "load" else lambda: asyncio.run(_aloop()))]
    _loops[0].start()


def _loop() -> None:
    while not _stop.is_set():
        _note(now(), load(1))


async def _aloop() -> None:
    while not _stop.is_set():
        _note(now(), await aload(1))


def _note(began: float, answer: str) -> None:
    if not _noted or _noted[-1][0] != answer:
        _noted.append([answer, began, began])
    _noted[-1][2] = began


def until_hits(name: str, count: int = 1000) -> None:
    """So many hits of L1 since this call; and the clock has just been refreshed, if it is of that kind."""
    function = load if name == "load" else aload
    before, deadline = function.cache_info().l1_hits, now() + 20
    while function.cache_info().l1_hits < before + count:
        assert now() < deadline, function.cache_info()
        time.sleep(0.01)
    for clock in _clocks:
        with clock.refreshed:
            clock.refreshed.wait(5)


def end_loop(seconds: float = 10.0) -> list[list[Any]]:
    """After the answer has changed; what was noted."""
    deadline = now() + seconds
    while len(_noted) < 2 and now() < deadline:
        time.sleep(0.01)
    _stop.set()
    _loops[0].join(20)
    return _noted


# Clocks that are wrong


def begin_skewed(namespace: str, url: str, ttl: float, skew: float) -> None:
    """The wall clock of this process is wrong by ``skew`` seconds."""
    SystemClock.wall = staticmethod(lambda: time.time() + skew)
    load_app.begin(namespace, {"url": url}, {"ttl": f"{ttl}s"}, "")
    if ttl >= SHORT:
        load_app.warm()


@cache(profile="users", version=1)
def made_at(key: int) -> float:
    return now()


@cache(profile="users", version=1)
async def amade_at(key: int) -> float:
    return now()


def oldest(seconds: float, keys: int = 5) -> dict[str, Any]:
    """Ask for so long, in a thread and in a task; the greatest age of an answer, and what was counted."""
    ages: list[float] = []
    until, rng = now() + seconds, random.Random(0)

    def judge(began: float, made: float) -> None:
        ages.append(began - made)

    def ask() -> None:
        while now() < until:
            judge(now(), made_at(rng.randrange(keys)))
            time.sleep(0.002)

    async def aask() -> None:
        while now() < until:
            judge(now(), await amade_at(rng.randrange(keys)))
            await asyncio.sleep(0.002)

    failures: list[BaseException] = []

    def kept(work: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        return run

    threads = [threading.Thread(target=kept(work)) for work in (ask, lambda: asyncio.run(aask()))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    infos = made_at.cache_info(), amade_at.cache_info()
    return {
        "oldest": max(ages),
        "answers": len(ages),
        "l1": sum(info.l1_hits for info in infos),
        "l2": sum(info.l2_hits for info in infos),
        "errors": sum(info.errors for info in infos),
    }
