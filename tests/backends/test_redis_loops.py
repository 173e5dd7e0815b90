"""The async face: one pool per loop, closed with it; cancelled calls spoil nothing."""

import asyncio
import gc
import random
import socket
import threading
import time
from typing import Any

import pytest

from cachekit.backends.redis import open_redis
from cachekit.backends.redis.backend import AsyncRedisBackend
from cachekit.config.spec import BackendSpec
from cachekit.errors import BackendError, Fault
from cachekit.testing.faults import FaultProxy
from cachekit.testing.servers import Server

pytestmark = pytest.mark.server

COUNT = 500


def opened(url: str, **options: Any) -> AsyncRedisBackend:
    face = open_redis(BackendSpec(url=url, **options)).aio
    assert isinstance(face, AsyncRedisBackend)
    return face


@pytest.fixture
def keys(valkey: Server) -> list[str]:
    """Keys whose value is their own number."""
    keys = [f"test:v:{{loops:{number}}}" for number in range(COUNT)]
    valkey.command("MSET", *(word for number, key in enumerate(keys) for word in (key, str(number))))
    return keys


def drain(sock: socket.socket) -> None:
    """Read to the end; the end in order is not what the tests want."""
    while sock.recv(1000):
        pass
    raise AssertionError("closed in order")


def clients(valkey: Server) -> int:
    lines: bytes = valkey.command("CLIENT", "LIST")
    return len(lines.splitlines()) - 1  # without the one that asks


async def wrong_answers(backend: AsyncRedisBackend, keys: list[str], seed: int, calls: int) -> int:
    rng, wrong = random.Random(seed), 0
    for _ in range(calls):
        number = rng.randrange(COUNT)
        wrong += await backend.get(keys[number], budget=5.0) != b"%d" % number
        if rng.random() < 0.2:
            await asyncio.sleep(rng.random() / 1000)  # without jitter the loops take turns and prove nothing
    return wrong


def test_a_second_loop_after_the_first_ended_works_and_the_first_left_nothing(valkey: Server, keys: list[str]) -> None:
    before, backend = clients(valkey), opened(valkey.url)
    for seed in range(3):
        assert asyncio.run(wrong_answers(backend, keys, seed, 20)) == 0
        assert clients(valkey) == before
    assert all(loop.is_closed() for loop in backend._pools._by_loop)


def test_four_loops_at_once_in_four_threads_get_their_own_answers(valkey: Server, keys: list[str]) -> None:
    backend, wrong = opened(valkey.url), []

    async def several(seed: int) -> int:
        return sum(await asyncio.gather(*(wrong_answers(backend, keys, 10 * seed + n, 40) for n in range(4))))

    threads = [threading.Thread(target=lambda s=seed: wrong.append(asyncio.run(several(s)))) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [0] * 4


async def test_300_tasks_on_10_connections_get_their_own_answers_and_no_error(valkey: Server, keys: list[str]) -> None:
    before, backend = clients(valkey), opened(valkey.url, max_connections=10)
    results = await asyncio.gather(*(wrong_answers(backend, keys, seed, 3) for seed in range(300)))
    assert sum(results) == 0
    assert clients(valkey) <= before + 10
    await backend.close()


async def test_500_calls_cancelled_on_their_way_spoil_no_other(valkey: Server, keys: list[str]) -> None:
    backend, rng = opened(valkey.url, max_connections=3), random.Random(5)
    await backend.get(keys[0], budget=5.0)
    cancelled = 0
    for turn in range(500):
        task = asyncio.create_task(backend.get(keys[turn % COUNT], budget=5.0))
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        cancelled += task.cancelled()
        number = rng.randrange(COUNT)
        assert await backend.get(keys[number], budget=5.0) == b"%d" % number
    assert cancelled >= 400
    await backend.close()


async def test_cancelled_while_standing_in_line_or_connecting_no_place_is_lost(valkey: Server, keys: list[str]) -> None:
    backend, rng = opened(valkey.url, max_connections=2), random.Random(6)
    for _ in range(30):
        tasks = [asyncio.create_task(backend.get(keys[number], budget=5.0)) for number in range(12)]
        for _ in range(rng.randrange(8)):
            await asyncio.sleep(0)
        for task in rng.sample(tasks, 8):
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in enumerate(results):
            assert isinstance(result, asyncio.CancelledError) or result == b"%d" % number
    assert await asyncio.gather(*(backend.get(keys[n], budget=5.0) for n in range(9))) == [b"%d" % n for n in range(9)]
    pool = backend._pools.here()
    assert pool._free + len(pool._idle) == 2
    assert not pool._waiting
    await backend.close()


async def test_a_timeout_of_the_caller_gives_the_connection_up(
    valkey: Server, proxy: FaultProxy, keys: list[str]
) -> None:
    backend = opened(proxy.url, max_connections=1)
    await backend.get(keys[0], budget=5.0)
    proxy.latency(0.5)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await backend.get(keys[1], budget=5.0)
    proxy.pass_()
    assert await backend.get(keys[2], budget=5.0) == b"2"
    await backend.close()


@pytest.mark.timed
async def test_who_waits_in_vain_is_told_when_the_budget_ends(proxy: FaultProxy) -> None:
    backend = opened(proxy.url, max_connections=1)
    proxy.latency(1.0)
    busy = asyncio.create_task(backend.get("test:v:{loops:x}", budget=10.0))
    while not proxy.requests:
        await asyncio.sleep(0.01)
    begun = time.monotonic()
    with pytest.raises(BackendError) as caught:
        await backend.get("test:v:{loops:x}", budget=0.1)
    took = time.monotonic() - begun
    assert took > 0.09
    assert took < 0.35, "late"
    assert (caught.value.fault, caught.value.reason) == (Fault.DOWN, "pool")
    proxy.pass_()
    assert await busy is None
    assert not backend._pools.here()._waiting
    await backend.close()


async def test_a_hung_server_does_not_block_the_loop(proxy: FaultProxy) -> None:
    backend = opened(proxy.url)
    proxy.black_hole()
    ticks = 0
    call = asyncio.create_task(backend.get("test:v:{loops:x}", budget=0.2))
    while not call.done():
        await asyncio.sleep(0.005)
        ticks += 1
    assert ticks >= 10
    with pytest.raises(BackendError):
        await call


async def test_nothing_is_left_behind_after_faults(valkey: Server, proxy: FaultProxy, keys: list[str]) -> None:
    backend, tasks = opened(proxy.url, max_connections=5), len(asyncio.all_tasks())
    for fault in (proxy.black_hole, proxy.hang, proxy.refuse, proxy.drop_replies):
        fault()
        await asyncio.gather(*(backend.get(key, budget=0.03) for key in keys[:10]), return_exceptions=True)
    proxy.pass_()
    assert await backend.get(keys[3], budget=5.0) == b"3"
    assert len(asyncio.all_tasks()) == tasks
    pool = backend._pools.here()
    assert pool._free + len(pool._idle) == 5
    await backend.close()


async def test_a_connection_on_which_a_call_timed_out_is_reset_so_that_nothing_arrives_later() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        backend = opened(f"redis://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(BackendError):
            await backend.get("test:v:{loops:x}", budget=0.1)
        await asyncio.sleep(0)
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(5.0)
            with pytest.raises(ConnectionResetError):
                drain(accepted)


async def test_an_answer_to_nobodys_question_ends_the_connection(valkey: Server, keys: list[str]) -> None:
    backend = opened(valkey.url, max_connections=1)
    await backend.get(keys[0], budget=5.0)
    wire = backend._pools.here()._idle[0]
    assert wire._transport is not None
    wire._transport.write(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(keys[1]), keys[1].encode()))
    while wire.looks_alive():
        await asyncio.sleep(0.001)
    assert await backend.get(keys[2], budget=5.0) == b"2"
    await backend.close()


def test_pools_of_loops_that_died_without_a_word_are_forgotten(valkey: Server, keys: list[str]) -> None:
    backend = opened(valkey.url)
    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(backend.get(keys[0], budget=5.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    del loop
    gc.collect()
    assert len(backend._pools._by_loop) <= 1


async def test_both_faces_in_one_process_do_not_meet(valkey: Server, keys: list[str]) -> None:
    faces = open_redis(BackendSpec(url=valkey.url))
    assert faces.sync is not None
    assert await faces.aio.get(keys[4], budget=5.0) == faces.sync.get(keys[4], budget=5.0) == b"4"
    faces.sync.close()
    assert await faces.aio.get(keys[5], budget=5.0) == b"5"
    await faces.aio.close()
