"""P2 within one process: one computation per key, whoever asks and from wherever."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from engine_service import connected

from cachekit import CachedFunction, cache, region

MODES = ["l1", "server"]


class Gate:
    """Counts runs and holds them until it is opened."""

    def __init__(self) -> None:
        self.runs = 0
        self.lock = threading.Lock()
        self.entered = threading.Event()
        self.open = threading.Event()

    def run(self) -> int:
        with self.lock:
            self.runs += 1
            mine = self.runs
        self.entered.set()
        assert self.open.wait(10)
        return mine

    async def arun(self) -> int:
        with self.lock:
            self.runs += 1
            mine = self.runs
        self.entered.set()
        while not self.open.is_set():
            await asyncio.sleep(0.001)
        return mine


def waiting(function: Any, count: int) -> None:
    """Until that many callers wait in the flight of a cached function: the gate may be opened then."""
    flights = function.__cachekit__._function.at().service.flights
    for _ in range(2000):
        if sum(flight.interested for flight in list(flights.running.values())) >= count:
            return
        threading.Event().wait(0.005)
    raise AssertionError("the callers did not gather")


@pytest.mark.parametrize("mode", MODES)
def test_100_threads_on_one_cold_key_run_the_function_once(make_service: Any, mode: str) -> None:
    connected(make_service(mode))
    gate = Gate()

    @cache(version=1, profile="users")
    def load(key: int) -> dict[str, int]:
        return {"run": gate.run()}

    with ThreadPoolExecutor(100) as pool:
        futures = [pool.submit(load, 1) for _ in range(100)]
        waiting(load, 100)
        gate.open.set()
        values = [future.result(10) for future in futures]
    assert gate.runs == 1
    assert values == [{"run": 1}] * 100
    assert len({id(value) for value in values}) == 100, "each caller has its own copy"


@pytest.mark.parametrize("mode", MODES)
async def test_100_tasks_on_one_cold_key_run_the_function_once(make_service: Any, mode: str) -> None:
    connected(make_service(mode))
    gate = Gate()

    @cache(version=1, profile="users")
    async def load(key: int) -> dict[str, int]:
        return {"run": await gate.arun()}

    tasks = [asyncio.create_task(load(1)) for _ in range(100)]
    await asyncio.sleep(0.05)
    gate.open.set()
    values = await asyncio.gather(*tasks)
    assert gate.runs == 1
    assert values == [{"run": 1}] * 100
    assert len({id(value) for value in values}) == 100


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("leader", ["thread", "task"])
def test_threads_and_tasks_mixed_share_one_computation(make_service: Any, mode: str, leader: str) -> None:
    connected(make_service(mode))
    gate = Gate()

    @cache(version=1, profile="users")
    def load(key: int) -> dict[str, int]:
        return {"run": gate.run()}

    awaitable = load.twin()

    async def tasks() -> list[dict[str, int]]:
        return list(await asyncio.gather(*(awaitable(1) for _ in range(50))))

    with ThreadPoolExecutor(60) as pool:
        threads: list[Any] = []
        if leader == "thread":
            threads.append(pool.submit(load, 1))
            assert gate.entered.wait(5)
        loop = pool.submit(asyncio.run, tasks())
        if leader == "task":
            assert gate.entered.wait(5)
        threads += [pool.submit(load, 1) for _ in range(50 - len(threads))]
        waiting(load, 100)
        gate.open.set()
        values = [thread.result(10) for thread in threads] + loop.result(10)
    assert gate.runs == 1
    assert values == [{"run": 1}] * 100


async def test_one_cancelled_waiter_cancels_nobody(make_service: Any) -> None:
    make_service("l1")
    gate = Gate()

    @cache
    async def load(key: int) -> int:
        return await gate.arun()

    tasks = [asyncio.create_task(load(1)) for _ in range(10)]
    await asyncio.sleep(0.02)
    tasks[5].cancel()
    await asyncio.sleep(0.02)
    gate.open.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results.pop(5), asyncio.CancelledError)
    assert results == [1] * 9
    assert gate.runs == 1


async def test_a_cancelled_leader_leaves_the_load_to_those_who_wait(make_service: Any) -> None:
    make_service("l1")
    gate = Gate()

    @cache
    async def load(key: int) -> int:
        return await gate.arun()

    leader = asyncio.create_task(load(1))
    await asyncio.sleep(0.01)
    waiters = [asyncio.create_task(load(1)) for _ in range(3)]
    await asyncio.sleep(0.01)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    gate.open.set()
    assert await asyncio.gather(*waiters) == [1] * 3
    assert gate.runs == 1


async def test_a_load_that_nobody_waits_for_is_cancelled(make_service: Any) -> None:
    make_service("l1")
    cancelled = asyncio.Event()

    @cache
    async def load(key: int) -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return 1

    task = asyncio.create_task(load(1))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(cancelled.wait(), 5)


@pytest.mark.parametrize("mode", MODES)
def test_an_exception_reaches_all_waiters_and_is_not_cached(make_service: Any, mode: str) -> None:
    connected(make_service(mode))
    gate = Gate()

    @cache(version=1, profile="users")
    def load(key: int) -> int:
        raise LookupError(f"run {gate.run()}")

    with ThreadPoolExecutor(20) as pool:
        futures = [pool.submit(load, 1) for _ in range(20)]
        waiting(load, 20)
        gate.open.set()
        errors = [future.exception(10) for future in futures]
    assert gate.runs == 1
    assert [str(error) for error in errors] == ["run 1"] * 20
    with pytest.raises(LookupError, match="run 2"):
        load(1)


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration, GeneratorExit, KeyError, TypeError])
def test_exceptions_that_python_itself_uses_arrive_as_they_are(make_service: Any, error: type[BaseException]) -> None:
    make_service("l1")

    @cache
    def load(key: int) -> int:
        raise error("mine")

    with pytest.raises(error, match="mine"):
        load(1)


def test_an_interrupted_leader_hands_over(make_service: Any) -> None:
    make_service("l1")
    gate = Gate()
    first = threading.Event()

    @cache
    def load(key: int) -> int:
        run = gate.run()
        if run == 1:
            first.set()
            raise KeyboardInterrupt
        return run

    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(load, 1) for _ in range(5)]
        waiting(load, 5)
        gate.open.set()
        outcomes = [future.exception(10) or future.result() for future in futures]
    assert sorted(map(str, outcomes)) == ["", "2", "2", "2", "2"]


def test_a_recursion_on_the_same_key_ends(make_service: Any) -> None:
    make_service("l1")
    depth = 0

    @cache
    def load(key: int) -> int:
        nonlocal depth
        depth += 1
        return depth if depth == 3 else load(key)

    assert load(1) == 3


async def test_a_recursion_of_tasks_on_the_same_key_ends(make_service: Any) -> None:
    make_service("l1")
    depth = 0

    @cache
    async def load(key: int) -> int:
        nonlocal depth
        depth += 1
        return depth if depth == 3 else await asyncio.create_task(load(key))

    assert await asyncio.wait_for(load(1), 10) == 3


def circle(make: Callable[[Callable[[], None]], tuple[Any, Any]]) -> list[int]:
    """A -> B -> A across two threads: both are inside before either asks for the other."""
    meet = threading.Barrier(2, timeout=10)
    inside = threading.local()

    def once() -> None:
        if not getattr(inside, "met", False):
            inside.met = True
            meet.wait()

    a, b = make(once)
    with ThreadPoolExecutor(2) as pool:
        return [future.result(20) for future in (pool.submit(a, 1), pool.submit(b, 1))]


def test_a_circle_across_two_threads_ends(make_service: Any) -> None:
    make_service("l1")
    runs = {"a": 0, "b": 0}

    def make(once: Callable[[], None]) -> tuple[Any, Any]:
        @cache
        def a(key: int) -> int:
            runs["a"] += 1
            once()
            return 1 if runs["a"] > 1 else b(key) + 1

        @cache
        def b(key: int) -> int:
            runs["b"] += 1
            once()
            return 1 if runs["b"] > 1 else a(key) + 1

        return a, b

    assert all(isinstance(value, int) for value in circle(make))
    assert runs["a"] <= 2
    assert runs["b"] <= 2


async def test_a_blocking_call_inside_the_loop_does_not_wait_for_a_task_of_that_loop(make_service: Any) -> None:
    make_service("l1")
    gate = Gate()
    gate.open.set()
    runs = 0

    @cache
    def load(key: int) -> int:
        nonlocal runs
        runs += 1
        return runs

    started = asyncio.Event()

    async def slow_factory() -> int:
        started.set()
        await asyncio.sleep(0.2)
        return 1

    users = region("users")
    task = asyncio.create_task(users.aget_or_set("k", slow_factory))
    await started.wait()
    assert users.get_or_set("k", lambda: 2) == 2, "it computed alone instead of blocking the loop for ever"
    assert await task == 1
    assert load(1) == 1
    assert isinstance(load, CachedFunction)
