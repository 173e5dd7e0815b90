"""Being told of changes: what the servers do, on which all rests, and that the listener neither misses nor forgets."""

import os
import select
import socket
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import hiredis
import pytest

from cachekit.backends.base import lease_key
from cachekit.backends.redis import line, open_redis, push, scripts
from cachekit.backends.redis.address import Address, parse
from cachekit.backends.redis.peers import Peers
from cachekit.backends.redis.resp import PlainReader, pack
from cachekit.codec.envelope import NEVER, Header
from cachekit.codec.envelope import pack as packed_entry
from cachekit.config.spec import BackendSpec, TLSSpec
from cachekit.errors import BackendError, Fault
from cachekit.testing import FrozenClock
from cachekit.testing.faults import FaultProxy
from cachekit.testing.servers import Kind, Server, start_server

pytestmark = pytest.mark.server

HEARTBEAT = 1.0
SOON = 10.0  # real seconds; never reached when all is well


class Ear:
    """A listener on a clock that stands still, and all that it heard."""

    def __init__(self, listener: Any, clock: FrozenClock) -> None:
        self.listener = listener
        self.clock = clock
        self.heard: list[str | None] = []

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SOON
        while not done():
            assert time.monotonic() < deadline, f"heard {self.heard}"
            self.heard += self.listener.receive(0.05)

    def told(self) -> list[str | None]:
        """What was heard by the next proof: all that was done before this call."""
        self.clock.advance(HEARTBEAT)
        now = self.clock()
        self.until(lambda: self.listener.proof >= now and not self.waits)
        heard, self.heard = self.heard, []
        return heard

    @property
    def waits(self) -> bool:
        """For an answer to some PING."""
        return any(one._asked is not None for one in (*self.listener._lines, *self.listener._watches))

    def lost(self) -> BackendError:
        with pytest.raises(BackendError) as caught:
            self.until(lambda: False)
        with pytest.raises(BackendError):
            self.listener.receive(0.0)
        return caught.value


Listen = Callable[..., Ear]


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def listen(clock: FrozenClock) -> Iterator[Listen]:
    """A function that subscribes at a URL."""
    ears: list[Ear] = []

    def subscribe(url: str, *prefixes: str, budget: float = 5.0, heartbeat: float = HEARTBEAT, **options: Any) -> Ear:
        face = open_redis(BackendSpec(url=url, **options)).sync
        assert face is not None
        listener = face.listen(prefixes or ("test:v:",), heartbeat=heartbeat, clock=clock, budget=budget)
        ears.append(Ear(listener, clock))
        return ears[-1]

    yield subscribe
    for ear in ears:
        ear.listener.close()


@pytest.fixture
def ear(listen: Listen, server: Server) -> Ear:
    return listen(server.url)


@pytest.fixture
def behind(listen: Listen, proxy: FaultProxy) -> Ear:
    """A listener whose server is the proxy."""
    return listen(proxy.url)


def kind_of(server: Server) -> Kind:
    return "redis" if "redis" in server._command[0] else "valkey"


def in_one_round(server: Server, *commands: Sequence[Any]) -> None:
    """All of them in one round of the server's loop."""
    with socket.create_connection(("127.0.0.1", server.port), 5.0) as raw:
        whole = [("MULTI",), *commands, ("EXEC",)]
        raw.sendall(b"".join(pack(tuple(words)) for words in whole))
        reader, answers = hiredis.Reader(), 0
        while answers < len(whole):
            reader.feed(raw.recv(65_536))
            while (reply := reader.gets()) is not False:
                assert not isinstance(reply, hiredis.ReplyError), reply
                answers += 1


# What the servers do.


@pytest.mark.parametrize(
    "words",
    [
        ("SET", "K", "1"), ("DEL", "K"), ("UNLINK", "K"), ("PEXPIRE", "K", 60_000), ("SETRANGE", "K", 5, "\1"),
        ("INCR", "N"), ("PERSIST", "E"), ("RENAME", "K", "R"),
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_every_command_that_changes_a_key_pushes_it_once(
    ear: Ear, server: Server, key: str, words: tuple[Any, ...]
) -> None:
    names = {"K": key, "N": f"{key}n", "E": f"{key}e", "R": f"{key}r"}
    server.command("SET", key, "value")
    server.command("SET", f"{key}e", "value", "PX", 60_000)
    ear.told()
    server.command(*(names.get(word, word) for word in words))
    assert sorted(map(str, ear.told())) == sorted(names[word] for word in words if word in names)


@pytest.mark.parametrize(
    "words",
    [
        ("TOUCH", "K"), ("GET", "K"), ("DEL", "A"), ("PEXPIRE", "A", 60_000), ("SET", "K", "2", "NX"),
        ("SET", "other:v:{a}", "1"), ("EXISTS", "K"),
    ],
    ids=lambda words: " ".join(map(str, words)),
)  # fmt: skip
def test_what_changes_no_key_of_ours_pushes_nothing(ear: Ear, server: Server, key: str, words: tuple[str, ...]) -> None:
    names = {"K": key, "A": f"{key}absent"}
    server.command("SET", key, "value")
    ear.told()
    server.command(*(names.get(word, word) for word in words))
    assert ear.told() == []


def test_the_end_of_a_life_pushes(ear: Ear, server: Server, key: str) -> None:
    server.command("SET", key, "value", "PX", 100)
    deadline = time.monotonic() + SOON
    while server.command("EXISTS", key):
        assert time.monotonic() < deadline
    assert ear.told() == [key, key]  # once for its beginning


def test_eviction_pushes(listen: Listen, server: Server, key: str) -> None:
    with start_server(kind_of(server), maxmemory="3mb", args=["--maxmemory-policy", "allkeys-lru"]) as small:
        ear = listen(small.url)
        small.command("SET", key, "value")
        assert ear.told() == [key]
        for number in range(5000):
            small.command("SET", f"filler:{number}", "x" * 10_000)
            if number % 10 == 0 and not small.command("EXISTS", key):
                break
        assert ear.told() == [key]


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB"])
def test_emptying_the_server_is_heard_as_everything(ear: Ear, server: Server, key: str, command: str) -> None:
    server.command("SET", key, "value")
    ear.told()
    server.command(command)
    assert ear.told() == [None]


def script(made: scripts.Script, *words: Any, keys: int) -> tuple[Any, ...]:
    return ("EVAL", made.source, keys, *words)


@pytest.mark.parametrize("full", [False, True], ids=["", "memory full"])
@pytest.mark.parametrize("operation", ["invalidate", "release"])
def test_invalidating_and_releasing_an_absent_key_push_it_once_and_leave_nothing(
    listen: Listen, server: Server, key: str, operation: str, full: bool
) -> None:
    """Also where nothing may be stored: both begin with a DEL."""
    with start_server(kind_of(server)) as own:
        backend, ear, token = open_redis(BackendSpec(url=own.url)).sync, listen(own.url), os.urandom(16)
        assert backend is not None
        backend.get_or_lease(key, token, 60_000, budget=5.0)
        if full:
            own.command("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(BackendError):
                backend.store(key, b"value", None, None, budget=5.0)
        assert ear.told() == []
        if operation == "invalidate":
            backend.invalidate([key], budget=5.0)
        else:
            backend.release(key, token, budget=5.0)
        assert ear.told() == [key]
        assert own.command("EXISTS", key, lease_key(key)) == 0
        backend.close()


def test_marking_as_stale_is_heard_of_what_is_there_and_of_nothing_else(ear: Ear, server: Server, key: str) -> None:
    keys = [f"{key}{number}" for number in range(6)]
    for name in keys[::2]:
        server.command("SET", name, packed_entry(Header(1, os.urandom(16), 1, NEVER, NEVER), b"", name), "PX", 60_000)
    ear.told()
    for _ in range(2):
        server.command(
            *script(scripts.EXPIRE_SOFT, *(word for name in keys for word in (name, lease_key(name))), keys=12)
        )
        assert ear.told() == keys[::2]
    assert server.command("EXISTS", *keys) == 3


def test_a_store_and_an_invalidation_in_one_round_are_one_push(ear: Ear, server: Server, key: str) -> None:
    """So a push that could be the echo of our own store may be another's invalidation, and is never ignored."""
    token, lease = b"t" * 16, lease_key(key)
    server.command("SET", lease, token)
    ear.told()
    in_one_round(
        server,
        script(scripts.STORE, key, lease, token, b"value", "0", keys=2),
        script(scripts.INVALIDATE, key, lease, keys=2),
    )
    assert ear.told() == [key]
    assert server.command("EXISTS", key) == 0


def test_an_answer_overtakes_the_push_of_its_round(server: Server, key: str) -> None:
    """Why one PING proves nothing: a change and a PING that the server finds at the same time."""
    with socket.create_connection(("127.0.0.1", server.port), 5.0) as tracker:
        reader, found = hiredis.Reader(), []

        def read(count: int) -> None:
            while len(found) < count:
                reader.feed(tracker.recv(65_536))
                while (reply := reader.gets()) is not False:
                    found.append(reply)

        tracker.sendall(pack(("HELLO", 3)) + pack(("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "test:v:")))
        read(2)
        with socket.create_connection(("127.0.0.1", server.port), 5.0) as writer:
            server.pause()
            writer.sendall(pack(("SET", key, "value")))
            tracker.sendall(pack(("PING",)))
            server.resume()
            writer.recv(100)
        read(4)
    assert found[2] == b"PONG"
    assert found[3] == [b"invalidate", [key.encode()]]


def test_databases_are_not_told_apart(listen: Listen, server: Server, key: str) -> None:
    zero, one = listen(server.url), listen(server.url.replace("/0", "/1"))
    for words in (("SET", key, "1"), ("DEL", key)):
        in_one_round(server, ("SELECT", 1), words)
        assert zero.told() == one.told() == [key]
        in_one_round(server, words)
        assert zero.told() == one.told() == [key]


def test_prefixes_add_up_and_may_not_overlap(ear: Ear, server: Server, key: str) -> None:
    unique = uuid.uuid4().hex
    for number in range(3):
        ear.listener.track([f"added{number}:"], budget=5.0)
    names = [key, *(f"added{number}:{unique}" for number in range(3))]
    for name in names:
        server.command("SET", name, "value")
    assert ear.told() == names
    with pytest.raises(BackendError, match="overlaps"):
        ear.listener.track(["added"], budget=5.0)
    with pytest.raises(BackendError, match="listen"):
        ear.listener.receive(0.0)


# The heartbeat.


def pings(server: Server) -> int:
    found = server.command("INFO", "commandstats").decode().partition("cmdstat_ping:calls=")[2]
    return int(found.partition(",")[0] or 0)


def test_the_first_proof_is_from_before_the_subscription(listen: Listen, server: Server, clock: FrozenClock) -> None:
    assert listen(server.url).listener.proof == clock()


def test_a_heartbeat_is_two_pings_and_proves_the_instant_of_the_first(
    behind: Ear, proxy: FaultProxy, clock: FrozenClock
) -> None:
    begun, requests = clock(), proxy.requests
    clock.advance(HEARTBEAT - 0.1)
    assert behind.listener.receive(0.0) == []
    clock.advance(0.1)
    proxy.hold_replies()
    behind.listener.receive(0.0)
    sent = clock()
    clock.advance(0.3)
    for _ in range(5):
        behind.listener.receive(0.02)
    assert proxy.requests == requests + 1  # the second waits for the answer to the first
    assert behind.listener.proof == begun
    proxy.pass_()
    behind.until(lambda: behind.listener.proof > begun)
    assert behind.listener.proof == sent
    assert proxy.requests == requests + 2


def test_the_next_heartbeat_begins_one_interval_after_the_last_began(
    behind: Ear, proxy: FaultProxy, clock: FrozenClock
) -> None:
    behind.told()
    requests = proxy.requests
    clock.advance(HEARTBEAT - 0.01)
    behind.listener.receive(0.0)
    assert proxy.requests == requests
    clock.advance(0.01)
    behind.listener.receive(0.0)
    behind.until(lambda: proxy.requests == requests + 2)


def test_a_change_that_an_answer_has_overtaken_is_not_covered_by_its_proof(
    listen: Listen, server: Server, key: str, clock: FrozenClock
) -> None:
    """The server finds the change and our PING at the same time, and its bytes come one by one."""
    with FaultProxy("127.0.0.1", server.port) as proxy:
        ear = listen(proxy.url)
        proxy.slow(200)
        with socket.create_connection(("127.0.0.1", server.port), 5.0) as writer:
            server.pause()
            writer.sendall(pack(("SET", key, "value")))
            clock.advance(HEARTBEAT)
            before = proxy.bytes_in
            ear.listener.receive(0.0)
            while proxy.bytes_in == before:
                time.sleep(0.001)
            time.sleep(0.05)  # from the proxy to the server; if that is not enough the test proves less, and passes
            server.resume()
            writer.recv(100)
        ear.until(lambda: ear.listener.proof >= clock())
        assert ear.heard == [key]


@pytest.mark.parametrize("heartbeat", [1.0, 0.0625])  # exact in binary
def test_an_answer_that_does_not_come_is_a_loss(
    listen: Listen, proxy: FaultProxy, clock: FrozenClock, heartbeat: float
) -> None:
    for second in (False, True):
        proxy.pass_()
        ear, patience = listen(proxy.url, heartbeat=heartbeat), max(heartbeat, 0.25)
        proxy.truncate(len(b"+PONG\r\n") if second else 0)
        requests = proxy.requests
        clock.advance(heartbeat)
        ear.until(lambda: proxy.requests == requests + 1 + second)  # noqa: B023
        clock.advance(patience)
        ear.listener.receive(0.0)
        proof = ear.listener.proof
        clock.advance(0.01)
        error = ear.lost()
        assert (error.fault, error.reason) == (Fault.DOWN, "timeout")
        assert ear.listener.proof == proof


def test_an_answer_that_was_only_not_read_yet_is_none(behind: Ear, clock: FrozenClock) -> None:
    """As after this process was stopped for a while."""
    clock.advance(HEARTBEAT)
    behind.listener.receive(0.0)
    assert line.arrivals([behind.listener._lines[0].sock], SOON)
    sent = clock()
    clock.advance(60.0)
    behind.until(lambda: behind.listener.proof == sent)
    behind.told()


def test_a_heartbeat_goes_out_and_comes_back_while_news_never_ends(
    listen: Listen, server: Server, clock: FrozenClock
) -> None:
    ear, written = listen(server.url), 100_000
    for start in range(0, written, 1000):
        in_one_round(server, *(("SET", f"test:v:{{{number:06}}}", "") for number in range(start, start + 1000)))
    clock.advance(HEARTBEAT)
    before, now = pings(server), clock()
    first = ear.listener.receive(5.0)
    assert 0 < len(first) < written / 10  # handed on before more is fetched
    deadline = time.monotonic() + SOON
    while pings(server) == before:  # though most of it is unread
        assert time.monotonic() < deadline
    clock.advance(2 * HEARTBEAT)  # the answer is somewhere behind the news
    ear.heard += first
    ear.until(lambda: ear.listener.proof >= now)
    assert ear.heard == [f"test:v:{{{number:06}}}" for number in range(written)]
    server.command("FLUSHALL")


def test_one_who_never_gets_to_the_answer_gives_up(listen: Listen, server: Server, clock: FrozenClock) -> None:
    ear = listen(server.url)
    for start in range(0, 50_000, 1000):
        in_one_round(server, *(("SET", f"test:v:{{{number:06}}}", "") for number in range(start, start + 1000)))
    clock.advance(HEARTBEAT)
    assert ear.listener.receive(5.0)
    clock.advance(line.BEHIND * HEARTBEAT + 0.01)
    with pytest.raises(BackendError) as caught:
        ear.listener.receive(5.0)
    assert caught.value.reason == "timeout"
    server.command("FLUSHALL")


# What is heard.


def test_keys_that_are_not_text_do_no_harm(ear: Ear, server: Server, key: str) -> None:
    server.command("SET", b"test:v:\xff\xfe", "value")
    server.command("SET", f"{key} Straße 東京", "value")
    first, second = ear.told()
    assert first is not None
    assert first.encode(errors="surrogateescape") == b"test:v:\xff\xfe"
    assert second == f"{key} Straße 東京"
    server.command("DEL", b"test:v:\xff\xfe")


@pytest.mark.timed
def test_what_arrives_while_a_prefix_is_added_is_heard_next(
    listen: Listen, proxy: FaultProxy, valkey: Server, key: str
) -> None:
    behind = listen(proxy.url, heartbeat=60.0)
    proxy.hold_replies()
    valkey.command("SET", key, "value")
    requests = proxy.requests
    adding = threading.Thread(target=lambda: behind.listener.track(["more:"], budget=SOON))
    adding.start()
    while proxy.requests == requests:
        time.sleep(0.001)
    proxy.pass_()
    adding.join()
    begun = time.monotonic()
    assert behind.listener.receive(2 * SOON) == [key]
    assert time.monotonic() - begun < SOON, "late"


@pytest.mark.timed
def test_adding_a_prefix_costs_its_budget_and_then_the_subscription(behind: Ear, proxy: FaultProxy) -> None:
    proxy.black_hole()
    begun = time.monotonic()
    with pytest.raises(BackendError) as caught:
        behind.listener.track(["more:"], budget=0.1)
    assert caught.value.reason == "timeout"
    assert time.monotonic() - begun < 0.1 + 0.25, "late"
    with pytest.raises(BackendError):
        behind.listener.receive(0.0)


def test_a_prefix_that_is_known_is_not_asked_for_again(behind: Ear, proxy: FaultProxy) -> None:
    behind.listener.track(["more:"], budget=5.0)
    requests = proxy.requests
    behind.listener.track(["test:v:", "more:"], budget=5.0)
    behind.listener.track([], budget=5.0)
    assert proxy.requests == requests


def test_without_a_prefix_nothing_is_heard(server: Server, key: str, clock: FrozenClock) -> None:
    backend = open_redis(BackendSpec(url=server.url)).sync
    assert backend is not None
    ear = Ear(backend.listen([], heartbeat=HEARTBEAT, clock=clock, budget=5.0), clock)
    server.command("SET", key, "value")
    assert ear.told() == []
    ear.listener.track(["test:v:"], budget=5.0)
    server.command("DEL", key)
    assert ear.told() == [key]
    ear.listener.close()


def test_the_slow_reader_hears_the_same(
    listen: Listen, server: Server, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "new_reader", PlainReader)
    ear = listen(server.url)
    names = [f"{key}{number:03}" for number in range(500)]  # as the server sorts those of one round
    in_one_round(server, *(("SET", name, "value") for name in names))
    assert ear.told() == names
    server.command("FLUSHALL")
    assert ear.told() == [None]


def test_it_works_without_poll(listen: Listen, server: Server, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "poll")
    ear = listen(server.url)
    server.command("SET", key, "value")
    assert ear.told() == [key]
    ear.listener.wake()
    ear.clock.advance(HEARTBEAT / 2)
    assert ear.listener.receive(SOON) == []


def test_a_bell_that_was_heard_is_still(ear: Ear) -> None:
    for _ in range(10_000):
        ear.listener.wake()
    ear.listener.receive(SOON)
    for _ in range(10):
        ear.listener.receive(0.0)
    assert not line.arrivals([ear.listener._rung], 0.0)


# Loss.


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (lambda proxy: proxy.reset(), "connection"),
        (lambda proxy: proxy.refuse(), "connection"),
        (lambda proxy: proxy.truncate(0, eof=True), "connection"),
        (lambda proxy: proxy.truncate(9, eof=True), "connection"),
        (lambda proxy: proxy.reply(b"HTTP/1.1 400 Bad Request\r\n"), "protocol"),
        (lambda proxy: proxy.reply(b"+NOPE\r\n"), "protocol"),
        (lambda proxy: proxy.reply(b"+PONG\r\n+PONG\r\n+PONG\r\n+PONG\r\n"), "protocol"),
        (lambda proxy: proxy.reply(b">1\r\n+invalidate\r\n"), "protocol"),
        (lambda proxy: proxy.reply(b">2\r\n+invalidate\r\n:1\r\n"), "protocol"),
        (lambda proxy: proxy.reply(b"-LOADING Redis is loading the dataset in memory\r\n"), "loading"),
    ],
    ids=["reset", "refused", "end", "cut short", "junk", "no answer", "too many", "no keys", "keys?", "error"],
)
def test_each_way_to_lose_it_is_told(
    behind: Ear, proxy: FaultProxy, loss: Callable[[FaultProxy], None], reason: str
) -> None:
    loss(proxy)
    behind.clock.advance(HEARTBEAT)
    error = behind.lost()
    assert (error.fault, error.reason) == (Fault.DOWN, reason)


def test_a_server_that_ends_us_is_noticed_without_a_heartbeat(ear: Ear, server: Server) -> None:
    server.command("CLIENT", "KILL", "TYPE", "normal")
    assert ear.lost().reason == "connection"


def test_other_news_is_ignored(behind: Ear, proxy: FaultProxy, clock: FrozenClock) -> None:
    proxy.reply(b">2\r\n+something\r\n+new\r\n+PONG\r\n")
    now = clock()
    clock.advance(HEARTBEAT)
    behind.until(lambda: behind.listener.proof > now)
    assert behind.heard == []


def test_a_server_that_takes_nothing_more_is_lost_and_not_waited_for(behind: Ear, proxy: FaultProxy) -> None:
    proxy.hold_requests()
    with pytest.raises(BackendError, match="takes nothing more"):
        behind.listener._lines[0]._send(b"x" * 50_000_000)


def test_letting_go_says_nothing_to_the_server(behind: Ear, proxy: FaultProxy) -> None:
    sent = proxy.bytes_in
    behind.listener.abandon()
    behind.listener.abandon()
    with pytest.raises(BackendError):
        behind.listener.receive(0.0)
    assert proxy.bytes_in == sent


# Getting in.


def refused(operation: Callable[[], Any]) -> tuple[Fault, str, str]:
    with pytest.raises(BackendError) as caught:
        operation()
    return caught.value.fault, caught.value.reason, str(caught.value)


@pytest.fixture(scope="module")
def locked() -> Iterator[Server]:
    with start_server("valkey", password="right/pass word?") as server:
        server.command("ACL", "SETUSER", "pusher", "on", ">own", "+@all", "~test:*")
        yield server


@pytest.fixture(scope="module")
def secure() -> Iterator[Server]:
    with start_server("redis", tls=True) as server:
        yield server


class Provider:
    def get_credentials(self) -> tuple[str, str]:
        return "pusher", "own"


def test_every_kind_of_login_works(listen: Listen, locked: Server, key: str) -> None:
    bare = f"redis://127.0.0.1:{locked.port}"
    ears = [
        listen(locked.url),
        listen(bare, password=locked.password),
        listen(bare, username="pusher", password="own"),
        listen(bare, credential_provider=f"{__name__}.Provider"),
        listen(locked.url.replace("/0", "/3")),
    ]
    assert b" db=3 " in locked.command("CLIENT", "LIST", "TYPE", "NORMAL")
    locked.command("SET", key, "value")
    assert [ear.told() for ear in ears] == [[key]] * len(ears)


def test_a_wrong_password_is_a_wrong_setting(listen: Listen, locked: Server) -> None:
    bare = f"redis://127.0.0.1:{locked.port}"
    for options in ({}, {"password": "wr0ng"}, {"username": "nobody", "password": "wr0ng"}):
        fault, reason, text = refused(lambda: listen(bare, **options))  # noqa: B023
        assert (fault, reason) == (Fault.CONFIG, "auth")
        assert "wr0ng" not in text


@pytest.mark.parametrize("right", ["client|tracking", "ping"])
def test_a_user_who_may_not_is_told_before_anything_is_relied_on(listen: Listen, server: Server, right: str) -> None:
    server.command("ACL", "SETUSER", "deaf", "reset", "on", ">pw", "~test:*", "+@all", f"-{right}")
    fault, reason, text = refused(lambda: listen(f"redis://deaf:pw@127.0.0.1:{server.port}"))
    assert (fault, reason) == (Fault.CONFIG, "noperm")
    assert right.upper().replace("|", " ") in text
    server.command("ACL", "DELUSER", "deaf")


def test_without_the_right_to_ask_who_it_is_changes_are_heard(listen: Listen, server: Server, key: str) -> None:
    server.command("ACL", "SETUSER", "noinfo", "reset", "on", ">pw", "~test:*", "+@all", "-info")
    ear = listen(f"redis://noinfo:pw@127.0.0.1:{server.port}")
    server.command("SET", key, "value")
    assert ear.told() == [key]
    server.command("ACL", "DELUSER", "noinfo")


@pytest.mark.parametrize(
    ("reply", "fault", "reason"),
    [
        (b"-ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'u' 's3cret'", Fault.CONFIG, "noperm"),
        (b"-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `s3cret`", Fault.CONFIG, "noperm"),
        (b"-NOPROTO unsupported protocol version", Fault.CONFIG, "command"),
        (b"-ERR Unknown subcommand or wrong number of arguments for 'TRACKING'", Fault.CONFIG, "command"),
        (b"*2\r\n+proto\r\n:2", Fault.CONFIG, "command"),
        (b"%1\r\n+proto\r\n:2", Fault.CONFIG, "command"),
        (b"+OK", Fault.CONFIG, "command"),
        (b"-LOADING Redis is loading the dataset in memory", Fault.DOWN, "loading"),
        (b"HTTP/1.1 400 Bad Request", Fault.DOWN, "protocol"),
    ],
)  # fmt: skip
def test_a_server_that_cannot_is_told_apart_from_one_that_is_ill(
    listen: Listen, proxy: FaultProxy, reply: bytes, fault: Fault, reason: str
) -> None:
    proxy.reply(reply + b"\r\n")
    told = refused(lambda: listen(proxy.url, username="u", password="s3cret"))
    assert told[:2] == (fault, reason)
    assert "s3cret" not in told[2]


def test_a_command_renamed_away_is_told(listen: Listen) -> None:
    with start_server("valkey", args=["--rename-command", "CLIENT", ""]) as server:
        assert refused(lambda: listen(server.url))[:2] == (Fault.CONFIG, "noperm")


@pytest.fixture(params=["tls", "unix"])
def other_way(request: pytest.FixtureRequest, secure: Server) -> Iterator[dict[str, Any]]:
    """The settings of a backend that does not go through plain TCP."""
    if request.param == "tls":
        yield {"url": secure.url, "tls": TLSSpec(ca=secure.ca)}
        return
    path = f"/tmp/ck-{os.getpid()}-push.sock"
    with start_server("valkey", args=["--unixsocket", path]):
        yield {"url": f"unix://{path}?db=2"}


@pytest.mark.timed
def test_much_news_at_once_is_heard_through_tls_and_unix_sockets(
    listen: Listen, other_way: dict[str, Any], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a record of TLS, and more than is read at a time: nothing stays in between, unseen by the socket."""
    ear, backend = listen(heartbeat=60.0, **other_way), open_redis(BackendSpec(**other_way)).sync
    assert backend is not None
    names = [f"{key}{number:100}" for number in range(5000)]
    backend.invalidate(names, budget=SOON)
    monkeypatch.setattr(line, "CHUNK", 1000)  # the most that is read at a time
    begun = time.monotonic()
    while len(ear.heard) < len(names):
        ear.heard += ear.listener.receive(2 * SOON)
    assert time.monotonic() - begun < SOON, "late"
    assert ear.heard == names
    backend.close()


def test_tls_to_an_unknown_authority_is_a_wrong_setting(listen: Listen, secure: Server) -> None:
    assert refused(lambda: listen(secure.url))[:2] == (Fault.CONFIG, "tls")


# Several servers.


class Several:
    """A topology of a test: these primaries, this question, these watchers."""

    def __init__(self, *urls: str, question: tuple[Any, ...] = (), watchers: Sequence[tuple[str, Any]] = ()) -> None:
        self.addresses = [address(url) for url in urls]
        self.question = question
        self.watched = [(address(url), words) for url, words in watchers]
        self.answers: list[Any] = []
        self.moved = False

    def primaries(self, deadline: float) -> list[Address]:
        return self.addresses

    def judge(self, answer: Any) -> None:
        self.answers.append(answer)
        if self.moved:
            raise BackendError(Fault.DOWN, "moved", "another epoch")

    def concerns(self, message: bytes) -> bool:
        return message != b"others"

    def watchers(self) -> list[tuple[Address, tuple[Any, ...]]]:
        return self.watched

    def listen(self, clock: FrozenClock, budget: float = 5.0) -> Ear:
        peers = Peers()
        self.peers = peers
        listener = push.listen(
            self,
            ["test:v:"],
            heartbeat=HEARTBEAT,
            clock=clock,
            deadline=time.monotonic() + budget,
            peers=peers,
            node=str,
        )
        return Ear(listener, clock)


def address(url: str) -> Address:
    return parse(BackendSpec(url=url))


@pytest.fixture
def second() -> Iterator[Server]:
    with start_server("valkey") as server:
        yield server


def test_all_primaries_are_heard_and_the_proof_is_the_oldest(
    valkey: Server, second: Server, key: str, clock: FrozenClock
) -> None:
    with FaultProxy("127.0.0.1", second.port) as proxy:
        topology = Several(valkey.url, proxy.url)
        ear = topology.listen(clock)
        assert topology.peers.node(f"127.0.0.1:{valkey.port}").known
        assert topology.peers.node(f"127.0.0.1:{proxy.port}").known
        for server in (valkey, second):
            server.command("SET", key, "value")
        assert ear.told() == [key, key]
        ear.listener.track(["more:"], budget=5.0)
        for server in (valkey, second):
            server.command("SET", "more:1", "value")
        assert ear.told() == ["more:1", "more:1"]
        proof = ear.listener.proof
        proxy.black_hole()
        clock.advance(HEARTBEAT)
        before = pings(valkey)
        ear.until(lambda: pings(valkey) == before + 2)
        for _ in range(5):
            ear.listener.receive(0.02)
        assert ear.listener.proof == proof  # one is well and has proven it; the other has not
        clock.advance(HEARTBEAT + 0.01)
        assert ear.lost().reason == "timeout"
        assert all(found.sock.fileno() < 0 for found in ear.listener._lines)


def test_a_proof_does_not_cover_what_was_lost_with_the_subscription(valkey: Server, clock: FrozenClock) -> None:
    """One connection proves, and another breaks, at the same time: what the first heard is never handed on."""
    with FaultProxy("127.0.0.1", valkey.port) as slow, FaultProxy("127.0.0.1", valkey.port) as quick:
        ear = Several(slow.url, quick.url).listen(clock)
        first, other = ear.listener._lines
        before = ear.listener.proof
        slow.hold_replies()
        clock.advance(HEARTBEAT)
        ear.until(lambda: other.proof == clock())
        slow.pass_()
        assert line.arrivals([first.sock], SOON)
        ear.listener.receive(0.0)
        assert line.arrivals([first.sock], SOON)  # the second answer
        quick.reset()
        assert line.arrivals([other.sock], SOON)
        with pytest.raises(BackendError):
            ear.listener.receive(0.0)
        assert first.proof == clock()
        assert ear.listener.proof == before


def test_one_primary_that_cannot_be_had_is_all_that_cannot(
    valkey: Server, proxy: FaultProxy, clock: FrozenClock
) -> None:
    proxy.refuse()
    clients = valkey.command("INFO", "clients").partition(b"connected_clients:")[2].split()[0]
    assert refused(lambda: Several(valkey.url, proxy.url).listen(clock))[:2] == (Fault.DOWN, "connection")
    deadline = time.monotonic() + SOON
    while valkey.command("INFO", "clients").partition(b"connected_clients:")[2].split()[0] != clients:
        assert time.monotonic() < deadline  # the connection to the first was closed


def test_each_heartbeat_asks_whether_the_primaries_are_the_same(valkey: Server, clock: FrozenClock) -> None:
    topology = Several(valkey.url, question=("ECHO", "epoch 1"))
    ear = topology.listen(clock)
    ear.told()
    ear.told()
    assert topology.answers == [b"epoch 1"] * 2
    topology.moved = True
    clock.advance(HEARTBEAT)
    proof = ear.listener.proof
    assert ear.lost().reason == "moved"
    assert ear.listener.proof == proof


def test_an_answer_that_is_an_error_is_left_to_be_judged(valkey: Server, clock: FrozenClock) -> None:
    topology = Several(valkey.url, question=("CLUSTER", "INFO"))
    ear = topology.listen(clock)
    ear.told()
    assert "cluster support disabled" in str(topology.answers[0])
    ear.listener.close()


WORDS = ("PSUBSCRIBE", "+switch-master", "+other")


def test_a_message_to_a_watcher_is_a_loss_and_its_confirmation_is_none(
    valkey: Server, second: Server, clock: FrozenClock
) -> None:
    for words, channel in ((WORDS, "+switch-master"), (("SUBSCRIBE", "+switch-master"), "+switch-master")):
        ear = Several(valkey.url, watchers=[(second.url, words)]).listen(clock)
        for _ in range(3):
            assert ear.told() == []
        assert second.command("PUBLISH", channel, "mymaster 127.0.0.1 1 127.0.0.1 2") >= 1
        error = ear.lost()
        assert (error.fault, error.reason) == (Fault.DOWN, "moved")
        assert "mymaster" in str(error)


def test_a_message_about_others_is_none(valkey: Server, second: Server, clock: FrozenClock) -> None:
    """Sentinels look after many services."""
    ear = Several(valkey.url, watchers=[(second.url, WORDS)]).listen(clock)
    second.command("PUBLISH", WORDS[1], "others")
    ear.told()  # a heartbeat later it still listens
    second.command("PUBLISH", WORDS[1], "ours")
    assert ear.lost().reason == "moved"


def test_a_message_to_one_of_several_watchers_is_a_loss(valkey: Server, second: Server, clock: FrozenClock) -> None:
    ear = Several(valkey.url, watchers=[(second.url, WORDS), (valkey.url, WORDS)]).listen(clock)
    assert second.command("PUBLISH", "+other", "1") >= 1
    assert ear.lost().reason == "moved"


def test_one_watcher_is_enough(valkey: Server, second: Server, clock: FrozenClock) -> None:
    with FaultProxy("127.0.0.1", second.port) as first, FaultProxy("127.0.0.1", second.port) as other:
        first.refuse()
        ear = Several(valkey.url, watchers=[(first.url, WORDS), (other.url, WORDS)]).listen(clock)
        ear.told()
        other.reset()
        assert ear.lost().reason == "connection"  # nobody is left who would tell
        first.pass_()
        ear = Several(valkey.url, watchers=[(first.url, WORDS), (other.url, WORDS)]).listen(clock)
        other.reset()
        ear.until(lambda: len(ear.listener._watches) == 1)
        ear.told()
        first.black_hole()
        clock.advance(HEARTBEAT)
        ear.until(lambda: ear.listener.proof >= clock())
        clock.advance(HEARTBEAT + 0.01)
        assert ear.lost().reason == "timeout"


@pytest.mark.timed
def test_no_watcher_at_all_is_no_subscription(valkey: Server, proxy: FaultProxy, clock: FrozenClock) -> None:
    proxy.black_hole()
    begun = time.monotonic()
    told = refused(lambda: Several(valkey.url, watchers=[(proxy.url, WORDS)] * 2).listen(clock, budget=0.4))
    assert told[:2] == (Fault.DOWN, "timeout")
    assert time.monotonic() - begun < 0.4 + 0.25, "late"


# Fork and gevent, in processes of their own.


def run(code: str, url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), url], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "done", done.stderr


FORK = """
    import os, sys, time
    from cachekit.backends.redis import open_redis
    from cachekit.config.spec import BackendSpec

    backend = open_redis(BackendSpec(url=sys.argv[1])).sync
    listener = backend.listen(["test:v:"], heartbeat=0.1, clock=time.monotonic, budget=5.0)
    child = os.fork()
    if child == 0:
        listener.abandon()
        del listener
        own = backend.listen(["test:v:"], heartbeat=0.1, clock=time.monotonic, budget=5.0)
        backend.store("test:v:{fork:1}", b"1", None, None, budget=5.0)
        while own.receive(1.0) == []: pass
        own.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    heard, now = [], time.monotonic()
    while listener.proof < now: heard += listener.receive(1.0)
    assert heard == ["test:v:{fork:1}"], heard
    listener.close()
    backend.close()
    print("done")
"""


def test_a_forked_child_lets_go_and_its_parent_hears_on(server: Server) -> None:
    run(FORK, server.url)


GEVENT = """
    from gevent import monkey; monkey.patch_all()
    import gevent, sys, time
    from cachekit.backends.redis import open_redis
    from cachekit.config.spec import BackendSpec

    backend = open_redis(BackendSpec(url=sys.argv[1])).sync
    listener = backend.listen(["test:v:"], heartbeat=0.1, clock=time.monotonic, budget=5.0)
    heard, ticks = [], []

    def hear():
        while "test:v:{gevent:1}" not in heard: heard.extend(listener.receive(60.0))
        now = time.monotonic()
        while listener.proof < now: listener.receive(60.0)

    def tick():
        while True:
            ticks.append(1)
            gevent.sleep(0.01)

    ticking, hearing = gevent.spawn(tick), gevent.spawn(hear)
    gevent.sleep(0.2)
    assert len(ticks) > 3  # nobody stands still while it waits
    backend.store("test:v:{gevent:1}", b"1", None, None, budget=5.0)
    hearing.get(timeout=30)
    patient = backend.listen(["test:v:"], heartbeat=60.0, clock=time.monotonic, budget=5.0)
    waiting = gevent.spawn(patient.receive, 60.0)
    gevent.sleep(0.05)
    patient.wake()
    assert waiting.get(timeout=30) == []
    for one in (listener, patient, backend): one.close()
    ticking.kill()
    print("done")
"""


def test_with_gevent_others_run_while_it_waits(server: Server) -> None:
    run(GEVENT, server.url)
