"""What the scripts promise beyond the contract: pushes, the memory limit, lost scripts, late arrivals."""

import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from cachekit.backends.base import lease_key
from cachekit.backends.redis import commands
from cachekit.codec.envelope import NEVER, Header, pack, unpack
from cachekit.errors import BackendError, Fault
from cachekit.testing.servers import Server, start_server

pytestmark = pytest.mark.server


class Tracker:
    """A client that is told of every change of a value, as other processes are."""

    def __init__(self, server: Server, prefix: str) -> None:
        self.link = redis.Connection(port=server.port, protocol=3, socket_timeout=5.0)
        self.pushed: list[bytes] = []
        self.ask("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", prefix)
        self.link._parser.set_invalidation_push_handler(self.note)

    def note(self, message: list[Any]) -> None:
        self.pushed += message[1] or []

    def ask(self, *words: str) -> Any:
        self.link.send_command(*words)
        return self.link.read_response()

    def told(self) -> list[bytes]:
        """What was pushed since the last question. Two rounds, because an answer may overtake a push."""
        self.ask("PING")
        self.ask("PING")
        pushed, self.pushed = self.pushed, []
        return pushed


@pytest.fixture
def tracker(server: Server) -> Iterator[Tracker]:
    tracker = Tracker(server, "test:")
    yield tracker
    tracker.link.disconnect()


def token() -> bytes:
    return os.urandom(16)


def stamp_name() -> str:
    return f"test:t:{{_}}:{uuid.uuid4().hex}"


def entry(key: str) -> bytes:
    return pack(Header(1, os.urandom(16), 1, NEVER, NEVER), b"payload", key)


def marked(server: Server, key: str) -> bool:
    return unpack(server.command("GET", key), key)[0].stale


def present(server: Server, *keys: str) -> int:
    count: int = server.command("EXISTS", *keys)
    return count


# Pushes.


def test_invalidating_what_is_absent_pushes_and_leaves_nothing(
    backend: Any, server: Server, tracker: Tracker, key: str
) -> None:
    backend.invalidate([key])
    assert tracker.told() == [key.encode()]
    assert present(server, key, lease_key(key)) == 0


def test_invalidating_what_is_there_pushes_and_leaves_nothing(
    backend: Any, server: Server, tracker: Tracker, key: str
) -> None:
    backend.store(key, b"value", None, None)
    backend.get_or_lease(key, token(), 5000)
    tracker.told()
    backend.invalidate([key])
    assert key.encode() in tracker.told()
    assert present(server, key, lease_key(key)) == 0


def test_releasing_wakes_who_waits_for_an_absent_value(
    backend: Any, server: Server, tracker: Tracker, key: str
) -> None:
    mine = token()
    backend.get_or_lease(key, mine, 5000)
    tracker.told()
    backend.release(key, mine)
    assert key.encode() in tracker.told()
    assert present(server, key, lease_key(key)) == 0


def test_releasing_beside_an_outdated_value_leaves_it_alone(
    backend: Any, server: Server, tracker: Tracker, key: str
) -> None:
    mine = token()
    backend.store(key, b"outdated", None, None)
    backend.lease(key, mine, 5000, b"outdated", False)
    tracker.told()
    backend.release(key, mine)
    assert key.encode() not in tracker.told()
    assert backend.get(key) == b"outdated"


def test_a_stranger_releases_nothing_and_pushes_nothing(backend: Any, tracker: Tracker, key: str) -> None:
    mine = token()
    backend.get_or_lease(key, mine, 5000)
    tracker.told()
    backend.release(key, token())
    assert tracker.told() == []
    assert backend.renew(key, mine, 5000) is True


def test_marking_as_stale_pushes_what_is_there_once_and_nothing_else(
    backend: Any, server: Server, tracker: Tracker, key: str
) -> None:
    number, absent, leased = (f"{key}{name}" for name in ("number", "absent", "leased"))
    backend.store(key, entry(key), 60_000, None)
    backend.incr(number, 1, None)
    backend.get_or_lease(leased, token(), 5000)
    tracker.told()
    backend.expire_soft([absent, key, leased, number])
    pushed = tracker.told()
    assert [name for name in pushed if b":v:" in name] == [key.encode(), number.encode()]
    assert marked(server, key)
    assert 50_000 < server.command("PTTL", key) <= 60_000
    assert present(server, number, absent, leased, *map(lease_key, (key, number, absent, leased))) == 0


def test_marking_as_stale_deletes_what_is_no_string(backend: Any, server: Server, key: str) -> None:
    other = f"{key}other"
    server.command("RPUSH", key, "1", "2", "3", "4", "5", "6", "7")
    backend.store(other, entry(other), None, None)
    backend.expire_soft([key, other])
    assert present(server, key) == 0
    assert marked(server, other)


@pytest.mark.parametrize("operation", ["store", "store with token", "store_if", "incr", "touch", "touch for ever"])
def test_every_write_of_a_value_pushes(backend: Any, tracker: Tracker, key: str, operation: str) -> None:
    mine = token()
    if operation.startswith("touch"):
        backend.store(key, b"value", 60_000, None)
    elif operation == "store with token":
        backend.get_or_lease(key, mine, 5000)
    tracker.told()
    {
        "store": lambda: backend.store(key, b"value", 60_000, None),
        "store with token": lambda: backend.store(key, b"value", 60_000, mine),
        "store_if": lambda: backend.store_if(key, b"value", 60_000, None, True),
        "incr": lambda: backend.incr(key, 1, 60_000),
        "touch": lambda: backend.touch(key, 30_000),
        "touch for ever": lambda: backend.touch(key, None),
    }[operation]()
    assert key.encode() in tracker.told()


def test_reading_pushes_nothing(backend: Any, tracker: Tracker, key: str) -> None:
    backend.store(key, b"value", 60_000, None)
    tracker.told()
    backend.get(key)
    backend.get_many([key])
    backend.remaining(key)
    backend.get_or_lease(key, token(), 5000)
    assert tracker.told() == []


def test_clearing_a_stamp_pushes_it(backend: Any, tracker: Tracker) -> None:
    name = stamp_name()
    backend.stamps([name], [b"12345678"], 60_000)
    assert tracker.told() == [name.encode()]
    backend.clear([name])
    assert tracker.told() == [name.encode()]


def test_a_stamp_is_renewed_only_below_half_its_life_because_that_pushes(
    backend: Any, server: Server, tracker: Tracker
) -> None:
    name = stamp_name()
    backend.stamps([name], [b"12345678"], 60_000)
    server.command("PEXPIRE", name, 40_000)
    tracker.told()
    backend.stamps([name], [b"87654321"], 60_000)
    assert tracker.told() == []
    server.command("PEXPIRE", name, 29_000)
    tracker.told()
    assert backend.stamps([name], [b"87654321"], 60_000) == [b"12345678"]
    assert tracker.told() == [name.encode()]
    assert server.command("PTTL", name) > 50_000


# Many keys, both kinds of life.


def test_more_keys_than_one_batch_are_all_invalidated(backend: Any, server: Server) -> None:
    keys = [f"test:v:{{batch:{uuid.uuid4().hex}}}" for _ in range(2 * commands.KEYS_AT_ONCE + 3)]
    for key in keys[:: commands.KEYS_AT_ONCE - 1]:
        backend.store(key, b"value", None, None)
    backend.invalidate(keys)
    assert present(server, *keys) == 0


def test_more_keys_than_one_batch_are_all_marked(backend: Any, server: Server) -> None:
    keys = [f"test:v:{{batch:{uuid.uuid4().hex}}}" for _ in range(2 * commands.KEYS_AT_ONCE + 3)]
    there = keys[:: commands.KEYS_AT_ONCE - 1]
    for key in there:
        backend.store(key, entry(key), None, None)
    backend.expire_soft(keys)
    assert all(marked(server, key) for key in there)
    assert present(server, *keys) == len(there)


def test_a_life_of_no_milliseconds_is_the_shortest_there_is(backend: Any, key: str) -> None:
    assert backend.store(key, b"value", 0, None) is True
    assert backend.remaining(key) in (False, 0, 1)


def test_nothing_asked_nothing_sent(backend: Any) -> None:
    assert backend.get_many([]) == []
    assert backend.stamps([], [], 1000) == []
    assert backend.clear([]) is None
    assert backend.invalidate([]) is None
    assert backend.expire_soft([]) is None


def test_check_says_which_server_it_is(backend: Any, server: Server) -> None:
    facts = backend.check()
    assert facts["server"] in server._command[0]
    assert facts["version"][0].isdigit()
    assert facts["maxmemory_policy"] == "noeviction"
    assert facts["address"] == f"127.0.0.1:{server.port}"


# The scripts themselves.


def test_scripts_that_the_server_has_forgotten_are_sent_again(backend: Any, server: Server, key: str) -> None:
    backend.store(key, b"value", None, None)
    for _ in range(2):
        server.command("SCRIPT", "FLUSH")
        mine = token()
        assert backend.lease(key, mine, 5000, b"value", False).kind == "held"
        assert backend.store(key, b"value", None, mine) is True
        backend.invalidate([key])
        assert backend.incr(key, 1, None) == 1
        backend.expire_soft([key])
        assert backend.incr(key, 1, None) == 1
        backend.store(key, b"value", None, None)


def test_a_script_is_sent_by_its_digest_once_the_server_knows_it(backend: Any, server: Server, key: str) -> None:
    backend.incr(key, 1, None)
    server.command("CONFIG", "RESETSTAT")
    for _ in range(5):
        backend.incr(key, 1, None)
    stats = server.command("INFO", "commandstats").decode()
    assert "cmdstat_evalsha:calls=5," in stats
    assert "cmdstat_eval:" not in stats
    assert "cmdstat_time:calls=5," in stats  # inside the script; none of ours


# The memory limit.


@pytest.fixture(scope="module")
def full(server: Server) -> Iterator[Server]:
    """A server whose memory is used up."""
    kind: Any = "redis" if "redis" in server._command[0] else "valkey"
    with start_server(kind) as full:
        full.command("SET", "test:v:{full:there}", "value")
        full.command("SET", "test:v:{full:number}", "1")
        full.command("CONFIG", "SET", "maxmemory", "1")
        yield full


@pytest.mark.parametrize("operation", ["store", "store_if", "incr", "get_or_lease", "lease", "stamps"])
def test_a_write_beyond_the_memory_limit_is_refused_as_readonly(
    caller: Callable[..., Any], full: Server, key: str, operation: str
) -> None:
    backend = caller(full.url)
    for attempt in range(2):  # the first sends the source, the second the digest
        with pytest.raises(BackendError) as caught:
            {
                "store": lambda: backend.store(key, b"value", None, None),
                "store_if": lambda: backend.store_if(key, b"value", None, None, True),
                "incr": lambda: backend.incr(key, 1, None),
                "get_or_lease": lambda: backend.get_or_lease(key, token(), 5000),
                "lease": lambda: backend.lease(key, token(), 5000, None, False),
                "stamps": lambda: backend.stamps([stamp_name()], [b"12345678"], 1000),
            }[operation]()
        assert (caught.value.fault, caught.value.reason) == (Fault.READONLY, "oom"), attempt
    assert backend.get(key) is None


def test_reading_and_invalidating_work_when_memory_is_full(caller: Callable[..., Any], full: Server, key: str) -> None:
    backend, tracker = caller(full.url), Tracker(full, "test:")
    assert backend.get("test:v:{full:there}") == b"value"
    assert backend.get_or_lease("test:v:{full:there}", token(), 5000).data == b"value"
    backend.invalidate([key])
    assert tracker.told() == [key.encode()]
    backend.release(key, token())
    backend.clear([stamp_name()])
    assert present(full, key, lease_key(key)) == 0
    tracker.link.disconnect()


def test_marking_as_stale_works_when_memory_is_full(caller: Callable[..., Any], server: Server, key: str) -> None:
    kind: Any = "redis" if "redis" in server._command[0] else "valkey"
    with start_server(kind) as own:
        backend, number = caller(own.url), f"{key}number"
        own.command("SET", key, entry(key))
        own.command("SET", number, 1)
        own.command("CONFIG", "SET", "maxmemory", "1")
        tracker = Tracker(own, "test:")
        for _ in range(2):  # the first sends the source, the second the digest
            backend.expire_soft([key, number])
            assert marked(own, key)
        assert tracker.told() == [key.encode(), number.encode(), key.encode()]
        tracker.link.disconnect()
        backend.close()


# Late arrivals: see also the contract, which holds the bytes back on the way.

LATE: dict[str, tuple[Any, ...]] = {
    "store": (b"late", None, None),
    "store_if": (b"late", None, None, True),
    "incr": (1, None),
    "get_or_lease": (b"t" * 16, 60_000),
    "lease": (b"t" * 16, 60_000, None, False),
    "lease by force": (b"t" * 16, 60_000, None, True),
}


@pytest.mark.parametrize("operation", LATE)
def test_a_paused_server_does_nothing_for_a_caller_who_gave_up(
    backend: Any, server: Server, key: str, operation: str
) -> None:
    name = operation.partition(" ")[0]
    getattr(backend, name)(f"test:v:{{late:{name}}}", *LATE[operation])  # a connection, and the script is known
    server.pause()
    try:
        with pytest.raises(BackendError) as caught:
            getattr(backend.within(0.1), name)(key, *LATE[operation])
    finally:
        server.resume()
    assert (caught.value.fault, caught.value.reason) == (Fault.DOWN, "timeout")
    server.command("PING")
    server.command("PING")
    assert present(server, key, lease_key(key)) == 0


def test_a_touch_that_comes_too_late_changes_nothing(backend: Any, server: Server, key: str) -> None:
    backend.store(key, b"value", None, None)
    backend.touch(key, None)
    server.pause()
    try:
        with pytest.raises(BackendError):
            backend.within(0.1).touch(key, 1)
    finally:
        server.resume()
    server.command("PING")
    assert backend.remaining(key) is None


def test_without_its_guard_a_paused_server_would_store_what_nobody_waits_for(server: Server, key: str) -> None:
    """The test above has teeth: the same with a plain SET writes the value."""
    link = redis.Connection(port=server.port, socket_timeout=0.1)
    link.connect()
    server.pause()
    try:
        link.send_command("SET", key, "late")
        with pytest.raises(redis.TimeoutError):
            link.read_response()
    finally:
        server.resume()
    server.command("PING")
    server.command("PING")
    assert present(server, key) == 1


def test_a_clock_that_went_wrong_is_corrected_and_the_write_repeated_once(
    caller: Callable[..., Any], server: Server, key: str
) -> None:
    backend = caller(server.url, max_connections=1)
    backend.incr(key, 1, None)
    pool = backend.face._pools
    if backend.runner is None:
        wire = pool.here()._idle[0]
    else:
        wire = next(iter(pool._by_loop.values()))._idle[0]
    wire.clock._offset -= 3_600_000  # the server's clock was set forward by an hour
    assert backend.incr(key, 1, None) == 2
    assert abs(wire.clock._offset) > 3_600_000
    wire.clock._offset -= 3_600_000
    server.command("CONFIG", "RESETSTAT")
    backend.incr(key, 1, None)
    backend.incr(key, 1, None)
    assert "cmdstat_evalsha:calls=3," in server.command("INFO", "commandstats").decode()


def test_the_clock_of_a_connection_is_read_again_after_a_while(
    caller: Callable[..., Any], server: Server, key: str
) -> None:
    backend = caller(server.url, max_connections=1)
    backend.incr(key, 1, None)
    pool = backend.face._pools
    wire = pool.here()._idle[0] if backend.runner is None else next(iter(pool._by_loop.values()))._idle[0]
    right = wire.clock._offset
    wire.clock._offset += 3_600_000  # ours drifted away: writes would never be too late
    wire.clock._measured -= commands.CLOCK_KEPT + 1
    assert backend.incr(key, 1, None) == 2
    assert abs(wire.clock._offset - right) < 1000
