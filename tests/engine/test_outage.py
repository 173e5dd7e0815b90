"""P4: a slow or dead L2 neither breaks nor slows the application. Real server, real faults, sync and async."""

import asyncio
import logging
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachekit import cache, health, region
from cachekit.config.spec import BreakerSpec, TLSSpec
from cachekit.testing.faults import FaultProxy
from cachekit.testing.servers import Server, available, start_server

BUDGET = 0.25
BREAKER = BreakerSpec(open_for=0.5, open_max=1.0)


Calls = tuple[Callable[[int], int], Callable[[int], int]]


@pytest.fixture
def functions() -> Iterator[Calls]:
    """A blocking and an async function, both called blocking: every call gets a key of its own."""

    @cache(version=1, profile="users")
    def load(key: int) -> int:
        return key

    @cache(version=1, profile="users")
    async def aload(key: int) -> int:
        return key

    with asyncio.Runner() as runner:
        yield load, lambda key: runner.run(aload(key))


def timed(call: Callable[[int], int], keys: range) -> list[float]:
    seconds = []
    for key in keys:
        began = time.monotonic()
        assert call(key) == key
        seconds.append(time.monotonic() - began)
    return seconds


def assert_within_budget(seconds: list[float]) -> None:
    """The median within the budget, each with slack for a machine that is busy."""
    assert statistics.median(seconds[:11]) <= BUDGET + 0.02, "late"
    assert max(seconds) <= BUDGET + 0.25, "late"


FAULTS: dict[str, Callable[[FaultProxy, Server], object]] = {
    "refused": lambda proxy, server: proxy.refuse(),
    "killed": lambda proxy, server: server.kill(),
    "stopped": lambda proxy, server: server.pause(),
    "black hole": lambda proxy, server: proxy.black_hole(),
    "hung handshake": lambda proxy, server: (proxy.reset(), proxy.hang()),
    "slow drip": lambda proxy, server: proxy.slow(20),
    "loading": lambda proxy, server: proxy.reply(b"-LOADING Redis is loading the dataset in memory\r\n"),
    "junk": lambda proxy, server: proxy.reply(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
}


# All of them in make test-all: each takes two seconds, and these meet every kind of fault once.
QUICK = {("refused", 0), ("killed", 1), ("stopped", 0), ("black hole", 1), ("hung handshake", 0), ("slow drip", 1),
         ("loading", 0), ("junk", 1)}  # fmt: skip


@pytest.mark.timed
@pytest.mark.parametrize(
    ("fault", "face"),
    [
        pytest.param(
            fault,
            face,
            id=f"{fault}-{'async' if face else 'sync'}",
            marks=[] if (fault, face) in QUICK else [pytest.mark.slow],
        )
        for fault in FAULTS
        for face in (0, 1)
    ],
)
def test_calls_go_on_within_their_budget_and_recover(
    make_service: Any, own_server: Server, functions: Calls, fault: str, face: int
) -> None:
    with FaultProxy("127.0.0.1", own_server.port) as proxy:
        make_service(
            "server", l1="off", backend={"url": proxy.url, "budget": BUDGET, "adaptive": True, "breaker": BREAKER}
        )
        call = functions[face]
        timed(call, range(3))
        assert health().ok
        FAULTS[fault](proxy, own_server)
        seconds = timed(call, range(100, 130))
        assert_within_budget(seconds)
        assert sum(seconds) <= 3 * BUDGET + 0.25, "late: the breaker spares the others the wait"
        assert not health().ok
        state = health().backends["default"]
        assert state.breaker in ("open", "half_open")
        assert state.last_error
        proxy.pass_()
        if fault == "killed":
            own_server.restart()
        elif fault == "stopped":
            own_server.resume()
        deadline = time.monotonic() + 5
        key = 1000
        while not health().ok:
            assert time.monotonic() < deadline, f"no recovery within 5 s: {health()}"
            call(key)
            key += 1
            time.sleep(0.02)
        assert health().backends["default"].breaker == "closed"
        hits = region("users").service.tiers("users").remote
        assert hits is not None
        call(5000)
        assert_hit(call, 5000)


def assert_hit(call: Callable[[int], int], key: int) -> None:
    tallies = region("users").service.tallies()
    before = sum(tally.l2_hits for tally in tallies)
    call(key)
    assert sum(tally.l2_hits for tally in tallies) == before + 1


@pytest.mark.timed
def test_a_server_that_was_never_there_costs_nothing_but_the_hits(make_service: Any, functions: Calls) -> None:
    make_service("server", l1="off", backend={"url": "redis://127.0.0.1:1", "budget": BUDGET, "adaptive": True})
    call, acall = functions
    assert_within_budget(timed(call, range(20)))
    assert_within_budget(timed(acall, range(100, 120)))
    assert not health().ok


def test_an_outage_costs_the_source_one_computation_per_key_while_l1_lasts(
    make_service: Any, own_server: Server
) -> None:
    make_service("server", backend={"url": own_server.url, "budget": BUDGET, "breaker": BREAKER})
    runs = []

    @cache(version=1, profile="users")
    def load(key: int) -> int:
        runs.append(key)
        return key

    own_server.kill()
    for _ in range(20):
        for key in range(10):
            assert load(key) == key
    assert len(runs) == 10


def config_faults() -> dict[str, Callable[[], tuple[Server, dict[str, Any]]]]:
    def wrong_password() -> tuple[Server, dict[str, Any]]:
        server = start_server("valkey", password="right")
        return server, {"url": f"redis://:wrong@127.0.0.1:{server.port}"}

    def tls_to_plain() -> tuple[Server, dict[str, Any]]:
        server = start_server("valkey")
        return server, {"url": f"rediss://127.0.0.1:{server.port}"}

    def untrusted() -> tuple[Server, dict[str, Any]]:
        server = start_server("redis", tls=True)
        return server, {"url": f"rediss://127.0.0.1:{server.port}", "tls": TLSSpec()}

    faults = {"wrong password": wrong_password, "tls to a plain port": tls_to_plain}
    if "redis" in available():
        faults["untrusted certificate"] = untrusted
    return faults


@pytest.mark.timed
@pytest.mark.parametrize("fault", ["wrong password", "tls to a plain port", "untrusted certificate"])
@pytest.mark.parametrize("face", [0, 1], ids=["sync", "async"])
def test_a_mistake_in_the_configuration_is_one_error_line_at_first_contact(
    make_service: Any, functions: Calls, caplog: pytest.LogCaptureFixture, fault: str, face: int
) -> None:
    faults = config_faults()
    assert fault in faults, "this needs Debian's redis-server: apt-get install redis-server"
    server, backend = faults[fault]()
    with server, caplog.at_level(logging.INFO, "cachekit"):
        service = make_service("server", l1="off", backend={"budget": BUDGET, "adaptive": True, **backend})
        service.start()
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR], "nothing connects at start"
        call = functions[face]
        began = time.monotonic()
        assert call(1) == 1
        assert time.monotonic() - began < 1.0, "late"
        seconds = timed(call, range(2, 30))
        assert statistics.median(seconds) < 0.02, "late: fail-open: the breaker is open at once"
        errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(errors) == 1
        assert "wrong@" not in errors[0].getMessage()
        assert not health().ok
        assert health().backends["default"].breaker == "open"


def test_faults_do_not_leak_threads_or_sockets(make_service: Any, own_server: Server, functions: Calls) -> None:
    make_service(
        "server",
        l1="off",
        backend={"url": own_server.url, "budget": BUDGET, "breaker": BreakerSpec(failures=1000, ratio=1.0)},
    )
    call = functions[0]
    call(1)
    own_server.pause()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for key in range(4):
        call(100 + key)
    own_server.resume()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
