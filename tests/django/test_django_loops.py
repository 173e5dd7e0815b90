"""One cache for blocking and awaited code: event loops one after another and at once, threads, a fork, requests.

How it could be broken: a connection of a loop that has ended is used, or kept open for ever; every request opens new
ones, since `request_finished` closed them; a coroutine is never awaited; a blocking call inside of a loop waits for
that loop; a child uses the sockets of its parent.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cachekit.testing.servers import Server, start_server

OURS = "cachekit.integrations.django.CacheKitCache"
THREADS, KEYS = 8, 20
QUESTIONS = 2  # connections of a test's own questions


@pytest.fixture
def own_server() -> Iterator[Server]:
    with start_server() as server:
        yield server


@pytest.fixture
def cache(use: Callable[..., None], own_server: Server) -> Any:
    """Without L1: every call needs a connection."""
    from django.core.cache import cache

    use(
        CACHES={"default": {"BACKEND": OURS}, "sessions": {"BACKEND": OURS}},
        CACHEKIT={
            "backends": {"default": {"url": own_server.url}},
            "profiles": {"default": {"l1": {"mode": "off"}}},
        },
    )
    return cache


def connections(server: Server) -> int:
    """Of everybody but this question."""
    clients: bytes = server.command("CLIENT", "LIST")
    return len([line for line in clients.splitlines() if b"cmd=client" not in line])


async def visit(cache: Any, who: str, bridge: bool = True) -> None:
    """Some calls, awaited, and blocking ones from a thread of the loop (``bridge``) and from the loop itself."""
    from asgiref.sync import sync_to_async

    for n in range(KEYS):
        await cache.aset(f"{who}{n}", n)
        assert not bridge or await sync_to_async(cache.get)(f"{who}{n}") == n
        assert cache.get(f"{who}{n}") == await cache.aget(f"{who}{n}") == n
        assert await cache.aget_or_set(f"{who}made{n}", lambda n=n: n) == n
    assert await cache.aget_many([f"{who}{n}" for n in range(KEYS)]) == {f"{who}{n}": n for n in range(KEYS)}


def test_loops_one_after_another_leave_nothing_open(cache: Any, own_server: Server) -> None:
    from asgiref.sync import async_to_sync

    asyncio.run(visit(cache, "first"))
    before = connections(own_server)
    for n in range(10):
        asyncio.run(visit(cache, f"run{n}"))
        async_to_sync(visit)(cache, f"bridge{n}")
    assert cache.get("run9made5") == 5
    assert connections(own_server) <= before + 1


def test_loops_at_once_share_their_values(cache: Any) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda n: asyncio.run(visit(cache, f"loop{n}")), range(THREADS)))
    assert cache.get_many([f"loop{n}0" for n in range(THREADS)]) == {f"loop{n}0": 0 for n in range(THREADS)}


def test_threads_and_loops_that_ask_for_the_same_compute_once(cache: Any) -> None:
    made: list[int] = []
    ready = threading.Barrier(THREADS)

    def compute() -> str:
        made.append(1)
        threading.Event().wait(0.2)
        return "value"

    def ask(n: int) -> Any:
        ready.wait()
        return asyncio.run(cache.aget_or_set("k", compute)) if n % 2 else cache.get_or_set("k", compute)

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(ask, range(THREADS))) == ["value"] * THREADS
    assert len(made) == 1


def test_requests_open_no_new_connections(cache: Any, own_server: Server) -> None:
    """Threads have one each; so has an event loop, which under ASGI is the same for all requests."""
    from django.test import AsyncClient, Client

    async def awaited(count: int) -> None:
        client = AsyncClient()
        for n in range(count):
            assert (await client.get(f"/avalue/k{n}/")).status_code == 200
            assert (await client.get(f"/value/k{n}/")).status_code == 200

    def blocking(count: int) -> None:
        client = Client()
        for n in range(count):
            assert client.get(f"/value/k{n}/").status_code == 200

    async def both(count: int) -> None:
        await awaited(2)
        opened = total(own_server)
        await awaited(count)
        assert total(own_server) - opened <= QUESTIONS

    blocking(2)
    opened = total(own_server)
    blocking(50)
    assert total(own_server) - opened <= QUESTIONS
    asyncio.run(both(50))


def test_awaited_views_under_wsgi_leave_nothing_open(cache: Any, own_server: Server) -> None:
    """Each of them has an event loop of its own, and so a connection, which ends with it."""
    from django.test import Client

    client = Client()
    client.get("/avalue/k/")
    before = connections(own_server)
    for n in range(20):
        assert client.get(f"/avalue/k{n}/").status_code == 200
    assert connections(own_server) <= before


def total(server: Server) -> int:
    """Connections that the server has ever accepted."""
    info: bytes = server.command("INFO", "stats")
    return int(info.split(b"total_connections_received:")[1].split()[0])


def test_a_forked_child_has_connections_of_its_own(cache: Any, own_server: Server) -> None:
    cache.set("k", "parent")
    asyncio.run(visit(cache, "parent", bridge=False))  # threads of asgiref do not survive a fork
    pid = os.fork()
    if pid == 0:  # nothing of pytest may run here
        try:
            right = cache.get("k") == "parent"
            asyncio.run(visit(cache, "child", bridge=False))
            cache.set("k", "child")
            os._exit(0 if right and cache.get("k") == "child" else 1)
        except BaseException:
            os._exit(2)
    for n in range(KEYS):
        cache.set("mine", n)
        assert cache.get("mine") == n
    assert os.waitpid(pid, 0)[1] == 0
    assert cache.get("k") == "child"
    asyncio.run(visit(cache, "again"))
