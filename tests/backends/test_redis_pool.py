"""Connections are shared by threads, bounded, waited for within the budget, and never shared with a child process."""

import gc
import os
import random
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cachekit.backends.redis import open_redis, transport
from cachekit.backends.redis.backend import RedisBackend
from cachekit.config.spec import BackendSpec
from cachekit.errors import BackendError, Fault
from cachekit.testing.faults import FaultProxy
from cachekit.testing.servers import Server

pytestmark = pytest.mark.server


@pytest.fixture
def open_(valkey: Server) -> Iterator[Callable[..., RedisBackend]]:
    opened: list[RedisBackend] = []

    def make(url: str = valkey.url, **options: Any) -> RedisBackend:
        face = open_redis(BackendSpec(url=url, **options)).sync
        assert isinstance(face, RedisBackend)
        opened.append(face)
        return face

    yield make
    for face in opened:
        face.close()


def filled(valkey: Server, count: int) -> list[str]:
    """Keys whose value is their own number."""
    keys = [f"test:v:{{pool:{number}}}" for number in range(count)]
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


def test_opening_and_importing_connect_to_nothing() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        open_redis(BackendSpec(url=f"redis://127.0.0.1:{listener.getsockname()[1]}"))
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_one_thread_uses_one_connection(open_: Callable[..., RedisBackend], valkey: Server) -> None:
    before, backend = clients(valkey), open_()
    for _ in range(100):
        backend.get("test:v:{pool:x}", budget=5.0)
    assert clients(valkey) == before + 1
    backend.close()
    assert clients(valkey) == before


def test_64_threads_on_4_connections_get_their_own_answers_and_no_error(
    open_: Callable[..., RedisBackend], valkey: Server
) -> None:
    before, keys, backend = clients(valkey), filled(valkey, 500), open_(max_connections=4)
    longest: list[float] = []
    start = threading.Barrier(64)

    def work(seed: int) -> int:
        rng, wrong, slowest = random.Random(seed), 0, 0.0
        start.wait()
        for _ in range(60):
            number, begun = rng.randrange(len(keys)), time.monotonic()
            wrong += backend.get(keys[number], budget=5.0) != b"%d" % number
            slowest = max(slowest, time.monotonic() - begun)
        longest.append(slowest)
        return wrong

    with ThreadPoolExecutor(64) as pool:
        assert sum(pool.map(work, range(64))) == 0
    assert clients(valkey) <= before + 4
    assert max(longest) < 2.0  # in line, nobody is passed over


@pytest.mark.timed
def test_who_waits_in_vain_is_told_when_the_budget_ends(open_: Callable[..., RedisBackend], proxy: FaultProxy) -> None:
    backend = open_(proxy.url, max_connections=2)
    proxy.latency(1.0)
    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(backend.get, "test:v:{pool:x}", budget=10.0) for _ in range(2)]
        while proxy.requests < 2:
            time.sleep(0.01)
        begun = time.monotonic()
        with pytest.raises(BackendError) as caught:
            backend.get("test:v:{pool:x}", budget=0.1)
        took = time.monotonic() - begun
        assert took > 0.09
        assert took < 0.35, "late"
        assert (caught.value.fault, caught.value.reason) == (Fault.DOWN, "pool")
        proxy.pass_()
        assert [call.result() for call in busy] == [None, None]
    assert backend.get("test:v:{pool:x}", budget=5.0) is None


def test_failures_do_not_use_up_the_pool(open_: Callable[..., RedisBackend], proxy: FaultProxy) -> None:
    backend = open_(proxy.url, max_connections=2)
    for fault in (proxy.refuse, proxy.hang, proxy.black_hole):
        fault()
        for _ in range(5):
            with pytest.raises(BackendError) as caught:
                backend.get("test:v:{pool:x}", budget=0.02)
            assert caught.value.reason != "pool"
    proxy.pass_()
    assert backend.get("test:v:{pool:x}", budget=5.0) is None


def test_a_connection_that_is_given_up_frees_its_place_for_who_waits(
    open_: Callable[..., RedisBackend], proxy: FaultProxy
) -> None:
    backend = open_(proxy.url, max_connections=1)
    backend.get("test:v:{pool:x}", budget=5.0)
    proxy.drop_replies()
    with ThreadPoolExecutor(4) as pool:
        hopeless = pool.submit(backend.get, "test:v:{pool:x}", budget=0.3)
        time.sleep(0.05)
        waiting = [pool.submit(backend.get, "test:v:{pool:x}", budget=10.0) for _ in range(3)]
        time.sleep(0.05)
        proxy.pass_()
        with pytest.raises(BackendError):
            hopeless.result()
        assert [call.result() for call in waiting] == [None] * 3


def test_closing_while_in_use_lets_the_calls_finish_and_keeps_nothing(
    open_: Callable[..., RedisBackend], valkey: Server
) -> None:
    before, keys, backend = clients(valkey), filled(valkey, 50), open_()
    stop = threading.Event()

    def work(seed: int) -> int:
        wrong = 0
        while not stop.is_set():
            number = random.Random(seed).randrange(50)
            wrong += backend.get(keys[number], budget=5.0) != b"%d" % number
        return wrong

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(work, seed) for seed in range(4)]
        for _ in range(20):
            backend.close()
            time.sleep(0.005)
        stop.set()
        assert [call.result() for call in calls] == [0] * 4
    backend.close()
    assert clients(valkey) == before


def test_a_dropped_backend_leaves_no_connection_and_no_warning(
    open_: Callable[..., RedisBackend], valkey: Server
) -> None:
    before = clients(valkey)
    face = open_redis(BackendSpec(url=valkey.url)).sync
    assert face is not None
    face.get("test:v:{pool:x}", budget=5.0)
    del face
    gc.collect()
    assert clients(valkey) == before


def test_a_call_interrupted_by_an_exception_of_another_kind_spoils_nothing(
    open_: Callable[..., RedisBackend], valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, backend = filled(valkey, 3), open_(max_connections=1)
    backend.get(keys[0], budget=5.0)
    receive, interrupted = transport.Wire._receive, []

    def interrupt(self: transport.Wire, deadline: float, first: bool) -> bytes:
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        return receive(self, deadline, first)

    monkeypatch.setattr(transport.Wire, "_receive", interrupt)
    with pytest.raises(KeyboardInterrupt):
        backend.get(keys[1], budget=5.0)
    assert backend.get(keys[2], budget=5.0) == b"2"


def test_a_connection_on_which_a_call_timed_out_is_reset_so_that_nothing_arrives_later(
    open_: Callable[..., RedisBackend], valkey: Server
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        backend = open_(f"redis://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(BackendError):
            backend.get("test:v:{pool:x}", budget=0.1)
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(5.0)
            with pytest.raises(ConnectionResetError):
                drain(accepted)


# Fork.


def in_child(work: Callable[[], int]) -> int:
    """The result of ``work`` (0..250) in a forked child; 255 when it raised."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            code = work()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def wrong_answers(backend: RedisBackend, keys: list[str], seed: int, calls: int) -> int:
    rng, wrong = random.Random(seed), 0
    for _ in range(calls):
        number = rng.randrange(len(keys))
        wrong += backend.get(keys[number], budget=5.0) != b"%d" % number
    return wrong


def test_forked_children_and_their_parent_with_busy_threads_never_get_each_others_answers(
    open_: Callable[..., RedisBackend], valkey: Server
) -> None:
    keys, backend = filled(valkey, 2000), open_()
    stop = threading.Event()

    def busy(seed: int) -> int:
        wrong = 0
        while not stop.is_set():
            wrong += wrong_answers(backend, keys, seed, 20)
        return wrong

    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(busy, seed) for seed in range(4)]
        for child in range(8):
            assert in_child(lambda seed=child: wrong_answers(backend, keys, seed, 250)) == 0  # type: ignore[misc]
        stop.set()
        assert [thread.result() for thread in threads] == [0] * 4
    assert wrong_answers(backend, keys, 99, 200) == 0


def test_a_child_that_uses_the_backend_leaves_the_parents_connections_alone(
    open_: Callable[..., RedisBackend], valkey: Server
) -> None:
    backend = open_()
    backend.get("test:v:{pool:x}", budget=5.0)
    mine = backend._pools.here()._idle[0]
    assert in_child(lambda: int(backend.get("test:v:{pool:none}", budget=5.0) is not None)) == 0
    assert backend.get("test:v:{pool:x}", budget=5.0) is None
    assert backend._pools.here()._idle[0] is mine
    assert mine.looks_alive()


def test_children_begin_with_a_clock_of_their_own(open_: Callable[..., RedisBackend], key: str) -> None:
    backend = open_()
    backend.incr(key, 1, None, budget=5.0)
    assert in_child(lambda: backend.incr(key, 1, None, budget=5.0)) == 2


def test_a_fork_while_threads_stand_in_line_hangs_nobody(open_: Callable[..., RedisBackend], valkey: Server) -> None:
    keys, backend = filled(valkey, 200), open_(max_connections=1)
    stop = threading.Event()

    def busy(seed: int) -> None:
        while not stop.is_set():
            wrong_answers(backend, keys, seed, 5)

    with ThreadPoolExecutor(8) as pool:
        for seed in range(8):
            pool.submit(busy, seed)
        for child in range(10):
            assert in_child(lambda seed=child: wrong_answers(backend, keys, seed, 20)) == 0  # type: ignore[misc]
        stop.set()


# gevent patches the standard library, so it has a process of its own.

GEVENT = """
    from gevent import monkey; monkey.patch_all()
    import gevent, sys
    from cachekit.backends.redis import open_redis
    from cachekit.config.spec import BackendSpec
    from cachekit.errors import BackendError

    backend = open_redis(BackendSpec(url=sys.argv[1], max_connections=10)).sync
    keys = [f"test:v:{{pool:{number}}}" for number in range(500)]

    def read(number):
        return backend.get(keys[number % 500], budget=5.0) == b"%d" % (number % 500)

    jobs = [gevent.spawn(read, number) for number in range(2000)]
    gevent.joinall(jobs)
    assert all(job.value for job in jobs), [job.value for job in jobs if not job.value][:5]

    small = open_redis(BackendSpec(url=sys.argv[1], max_connections=1)).sync
    for number in range(200):
        job = gevent.spawn(small.get, keys[0], budget=5.0)
        gevent.sleep(0.0001 * (number % 4))
        job.kill()
        assert small.get(keys[number], budget=5.0) == b"%d" % number
    named = open_redis(BackendSpec(url=sys.argv[1].replace("127.0.0.1", "localhost"))).sync
    assert named.get(keys[7], budget=5.0) == b"7"
    print("done")
"""


def test_greenlets_share_the_pool_and_may_be_killed(valkey: Server) -> None:
    filled(valkey, 500)
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(GEVENT), valkey.url], capture_output=True, text=True, timeout=60
    )
    assert run.stdout.strip() == "done", run.stderr


# Names.


@pytest.mark.timed
def test_a_slow_resolver_costs_the_budget_and_no_more(
    open_: Callable[..., RedisBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered, real = threading.Event(), socket.getaddrinfo

    def slow(host: Any, *args: Any, **options: Any) -> Any:
        if host == "slow.test" and not options.get("flags"):
            answered.wait(10.0)
        return real("127.0.0.1" if host == "slow.test" and not options.get("flags") else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    begun = time.monotonic()
    with pytest.raises(BackendError) as caught:
        open_("redis://slow.test:1").get("test:v:{pool:x}", budget=0.1)
    assert time.monotonic() - begun < 0.35, "late"
    assert caught.value.reason == "timeout"
    answered.set()


def test_the_next_address_of_a_host_is_tried_when_the_first_does_not_answer(
    open_: Callable[..., RedisBackend], valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first in ("127.0.0.9", "224.0.0.1"):  # nobody listens; TCP does not go to groups
        monkeypatch.setattr(transport, "resolve", lambda address, deadline, first=first: [first, "127.0.0.1"])
        backend = open_(f"redis://two.test:{valkey.port}")
        assert backend.get("test:v:{pool:none}", budget=2.0) is None


@pytest.mark.parametrize(
    ("sent", "replies", "answer", "settled"),
    [
        ([b"+a\r\n"], 1, b"a", True),
        ([b"+", b"a\r", b"\n"], 1, b"a", True),
        ([b"+a\r\n+b\r\n"], 1, b"a", False),
        ([b"+a\r\n+"], 1, b"a", False),
        ([b"+a\r\n+b\r\n"], 2, [b"a", b"b"], True),
        ([b"+a\r\n", b"+b", b"\r\n"], 2, [b"a", b"b"], True),
        ([b"+a\r\n", b"+b\r\n+c\r\n"], 2, [b"a", b"b"], False),
    ],
)
def test_a_connection_on_which_more_than_the_answer_came_is_not_kept(
    sent: list[bytes], replies: int, answer: Any, settled: bool
) -> None:
    """What is left would be taken for the answer to the next question."""
    ours, theirs = socket.socketpair()
    wire = transport.Wire(ours, tls=False)

    def serve() -> None:
        theirs.recv(100)
        for part in sent:
            theirs.sendall(part)
            time.sleep(0.02)

    server = threading.Thread(target=serve)
    server.start()
    assert wire.ask(b"question", time.monotonic() + 10, replies) == answer
    assert wire.settled is settled
    server.join(10)
    theirs.close()
    wire.close()


@pytest.mark.parametrize("tls", [False, True])
def test_what_the_kernel_has_no_room_for_follows_in_order(tls: bool) -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    wire, question = transport.Wire(ours, tls=tls), os.urandom(1_000_000)
    heard = bytearray()

    def serve() -> None:
        while len(heard) < len(question):
            heard.extend(theirs.recv(10_000))
        theirs.sendall(b"+a\r\n")

    server = threading.Thread(target=serve)
    server.start()
    assert wire.ask(question, time.monotonic() + 10) == b"a"
    server.join(10)
    assert bytes(heard) == question
    theirs.close()
    wire.close()


def test_linger_is_what_the_kernel_expects() -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, transport.GIVE_UP)
        assert struct.unpack("ii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)) == (1, 0)
