"""The primary that a Sentinel names is used, whoever that is now; a Sentinel that is silent or wrong costs little."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from failovers import SOON, at_work, replaced

from cachekit.backends.redis import open_redis
from cachekit.backends.redis.backend import RedisBackend
from cachekit.backends.redis.rights import grant
from cachekit.codec.envelope import NEVER, Header, pack, unpack
from cachekit.config.spec import BackendSpec
from cachekit.errors import BackendError, Fault
from cachekit.testing import FaultProxy, SentinelSetup, start_sentinel

pytestmark = [pytest.mark.server, pytest.mark.slow]

PASSWORD = "hush word"


@pytest.fixture(scope="module")
def started() -> Iterator[SentinelSetup]:
    with start_sentinel(password=PASSWORD) as setup:
        yield setup


@pytest.fixture
def setup(started: SentinelSetup) -> Iterator[SentinelSetup]:
    yield started
    started.settle()


def through(setup: SentinelSetup, *ports: int, service: str = "mymaster", query: str = "") -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"redis+sentinel://:{PASSWORD.replace(' ', '%20')}@{hosts}/{service}/0{query}"


def failure(operation: Callable[[], Any]) -> BackendError:
    with pytest.raises(BackendError) as caught:
        operation()
    assert "hush" not in str(caught.value)
    return caught.value


def test_values_are_on_the_primary(caller: Callable[..., Any], setup: SentinelSetup, key: str) -> None:
    backend = caller(setup.url)
    assert backend.store(key, b"value", None, None) is True
    assert backend.get(key) == b"value"
    assert setup.primary.command("GET", key) == b"value"
    facts = backend.check()
    assert (facts["topology"], facts["role"]) == ("sentinel", "master")
    assert "mymaster of 127.0.0.1:" in facts["address"]


def test_the_database_is_the_one_of_the_url(caller: Callable[..., Any], setup: SentinelSetup, key: str) -> None:
    caller(setup.url.removesuffix("0") + "3").store(key, b"third", None, None)
    assert caller(setup.url).get(key) is None
    assert (
        setup.primary.command("EVAL", "redis.call('SELECT', 3) return redis.call('GET', KEYS[1])", 1, key) == b"third"
    )


def test_a_service_that_no_sentinel_knows_is_a_mistake_in_the_url(
    caller: Callable[..., Any], setup: SentinelSetup, key: str
) -> None:
    error = failure(lambda: caller(through(setup, setup.sentinels[0].port, service="other")).get(key))
    assert (error.fault, error.reason) == (Fault.CONFIG, "service")
    assert "'other'" in str(error)


def test_that_no_sentinel_answers_is_told(caller: Callable[..., Any], setup: SentinelSetup, key: str) -> None:
    for sentinel in setup.sentinels:
        sentinel.kill()
    error = failure(lambda: caller(setup.url).get(key))
    assert (error.fault, error.reason) == (Fault.DOWN, "connection")
    assert "no Sentinel led to a primary of 'mymaster'" in str(error)


def test_a_wrong_password_of_the_primary_is_a_mistake(
    caller: Callable[..., Any], setup: SentinelSetup, key: str
) -> None:
    wrong = setup.url.replace(":hush", ":bad")
    assert failure(lambda: caller(wrong).get(key)).fault is Fault.CONFIG


@pytest.mark.slow
def test_sentinels_may_have_a_password_of_their_own(caller: Callable[..., Any], key: str) -> None:
    with start_sentinel(replicas=0, sentinels=2, password=PASSWORD, sentinel_password="hush 2") as setup:
        assert caller(setup.url).get(key) is None
        for url in (setup.url.partition("?")[0], setup.url.replace("hush%202", "bad")):
            error = failure(lambda url=url: caller(url).get(key))  # type: ignore[misc]
            assert (error.fault, error.reason) == (Fault.CONFIG, "auth")


@pytest.mark.timed
def test_a_silent_sentinel_costs_its_share_of_the_budget_and_once(
    caller: Callable[..., Any], setup: SentinelSetup, key: str
) -> None:
    setup.sentinels[0].pause()
    backend = caller(through(setup, *(sentinel.port for sentinel in setup.sentinels)), 2.0)
    begun = time.monotonic()
    assert backend.get(key) is None
    took = time.monotonic() - begun
    assert took > 0.45
    assert took < 1.5, "late"
    backend.close()
    begun = time.monotonic()
    assert backend.get(key) is None  # the one that answered is asked first now
    assert time.monotonic() - begun < 0.45, "late"


def test_a_sentinel_that_names_a_replica_is_not_believed(
    caller: Callable[..., Any], setup: SentinelSetup, key: str
) -> None:
    with FaultProxy("127.0.0.1", setup.sentinels[0].port) as proxy:
        port = str(setup.replicas[0].port)
        proxy.reply(f"*2\r\n$9\r\n127.0.0.1\r\n${len(port)}\r\n{port}\r\n".encode())
        assert caller(through(setup, proxy.port, setup.sentinels[1].port)).store(key, b"1", None, None) is True
        assert setup.primary.command("GET", key) == b"1"
        error = failure(lambda: caller(through(setup, proxy.port)).get(key))
        assert (error.fault, error.reason) == (Fault.DOWN, "moved")
        proxy.reply(b"+hello\r\n")
        assert failure(lambda: caller(through(setup, proxy.port)).get(key)).reason == "protocol"


@pytest.mark.timed
def test_calls_go_on_at_the_new_primary_after_a_failover_by_hand(
    caller: Callable[..., Any], setup: SentinelSetup, key: str
) -> None:
    """The old primary goes on for a while, takes no writes then, and its connections are closed."""
    backend, moves = caller(setup.url), []
    backend.face.on_move = lambda: moves.append(1)
    old = setup.primary
    with at_work(backend, key) as worker:
        assert replaced(worker, setup.failover, setup.settle) < SOON, "late"
    assert setup.primary is not old
    assert moves
    assert backend.incr(key, 1, None) == int(setup.primary.command("GET", key))


@pytest.mark.timed
@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "pause"])
def test_calls_go_on_soon_after_a_primary_that_is_gone_has_been_replaced(
    caller: Callable[..., Any], setup: SentinelSetup, key: str, how: str
) -> None:
    backend, old = caller(setup.url), setup.primary
    with at_work(backend, key) as worker:
        assert replaced(worker, getattr(old, how), lambda: setup.promoted(old)) < SOON, "late"
        assert worker.faults <= {"DOWN connection", "DOWN timeout", "DOWN moved"}
    assert setup.primary is not old
    assert backend.incr(key, 1, None) == int(setup.primary.command("GET", key)) <= worker.attempts + 1


def test_a_listener_hears_of_a_failover_and_a_new_one_listens_at_the_new_primary(
    setup: SentinelSetup, key: str
) -> None:
    backend = open_redis(BackendSpec(url=setup.url)).sync
    assert isinstance(backend, RedisBackend)
    listener = backend.listen([key], heartbeat=0.2, clock=time.monotonic, budget=5.0)
    setup.failover()
    error = failure(lambda: [listener.receive(1.0) for _ in range(100)])
    assert (error.fault, error.reason) == (Fault.DOWN, "moved")
    setup.settle()
    listener = backend.listen([key], heartbeat=0.2, clock=time.monotonic, budget=5.0)
    setup.primary.command("SET", key, "1")
    heard: list[str | None] = []
    while not heard:
        heard += listener.receive(1.0)
    assert heard == [key]
    listener.close()
    backend.close()


def test_the_documented_rights_are_enough(caller: Callable[..., Any], setup: SentinelSetup) -> None:
    for server in setup.servers:
        server.command(*grant("app", "test", "sentinel").split(), "on", ">pw")
    backend = caller(setup.url.replace(f":{PASSWORD.replace(' ', '%20')}@", "app:pw@"))
    assert backend.store("test:v:{rights}", b"1", None, None) is True
    assert backend.get("test:v:{rights}") == b"1"
    key = "test:v:{rights:stale}"
    backend.store(key, pack(Header(1, b"i" * 16, 1, NEVER, NEVER), b"payload", key), None, None)
    backend.expire_soft([key])
    assert unpack(backend.get(key), key)[0].stale
