"""What a type checker sees of `cachekit.testing` in somebody's own test suite. Read by type checkers, never run."""

from typing import assert_type

from cachekit.backends.base import AsyncBaseBackend, BaseBackend
from cachekit.testing import (
    BackendContract,
    FaultProxy,
    FrozenClock,
    Process,
    Processes,
    Server,
    agate,
    assert_cached,
    available,
    gate,
    start_server,
)


class TestMyBackend(BackendContract):
    offers = frozenset({"get_many"})

    def make_backend(self) -> BaseBackend:
        return BaseBackend()


class TestMyAsyncBackend(BackendContract):
    shortest_ttl_ms = 1000

    def make_backend(self) -> AsyncBaseBackend:
        return AsyncBaseBackend()


def double(number: int, *, times: int = 1) -> int:
    return 2 * number * times


async def fetch(number: int) -> str:
    return str(number)


async def test_functions() -> None:
    assert_type(assert_cached(double, 4, times=2), int)
    assert_type(await assert_cached(fetch, 4), str)
    assert_cached(double, "4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_faults(cachekit_server: Server, cachekit_clock: FrozenClock) -> None:
    cachekit_clock.advance("5m")
    assert_type(cachekit_clock.now(), float)
    assert_type(cachekit_clock.ns(), int)
    assert_type(cachekit_server.url, str)
    with FaultProxy("127.0.0.1", cachekit_server.port) as proxy:
        proxy.latency(0.1)
        assert_type(proxy.requests, int)
    for kind in available():
        with start_server(kind, maxmemory="10mb") as server:
            server.pause()
    start_server("memcached")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_processes() -> None:
    gate("a")
    await agate("b")
    with Processes(2, "module:setup", env=lambda number: {"NUMBER": str(number), "REDIS_URL": None}) as processes:
        assert_type(processes[0], Process)
        for process in processes:
            running = process.start("double", 2, times=3)
            process.wait_at("a", timeout=1)
            process.open("a")
            assert_type(running.done(), bool)
            process.call(double, 2, timeout=5)
            process.pause()
            process.kill()
    Processes("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
