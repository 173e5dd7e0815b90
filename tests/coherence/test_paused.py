"""Servers and processes that stand still for a while, and clocks that are wrong: nothing outdated comes out of it."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from world import Node, World

from cachekit import Outcome
from cachekit.backends.base import lease_key
from cachekit.backends.redis import commands
from cachekit.l2 import operation
from cachekit.l2.reach import SHORT
from cachekit.testing import FaultProxy, Processes, start_server
from cachekit.testing.servers import Server

pytestmark = [pytest.mark.server, pytest.mark.slow]

RULE = [pytest.param(True, id="rule"), pytest.param(False, id="control")]
BUDGET = 0.2

numbers = itertools.count()


# A server that stands still while clients tell it something and give up


@pytest.fixture
def paused(face: str) -> Iterator[tuple[Server, World]]:
    with start_server("valkey") as server:
        world = World(server, face, budget=BUDGET)
        yield server, world
        world.close()


WHAT = ["set", "get or lease", "store", "invalidate"]


def given_up(node: Node, what: str, stop: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> str:
    """The node tells L2 ``what``, which nobody hears: ``stop`` is called just before. The key."""
    if what == "set":
        for key in (4, 4, 2):
            if key == 2:
                stop()
            entry = node.f.key(key)
            node.wait(node.region.aset(entry, "old")) if node.face == "async" else node.region.set(entry, "old")
            if key == 4:  # its stamps are known afterwards
                node.hear()
        return str(entry)
    if what == "get or lease":
        acquire = operation.acquire

        async def stopped(*args: Any) -> Any:
            stop()
            return await acquire(*args)

        monkeypatch.setattr(operation, "acquire", stopped)
        assert node.call(2) == "old"
        monkeypatch.setattr(operation, "acquire", acquire)
        return str(node.f.key(2))
    if what == "store":
        node.during = stop
        assert node.call(2) == "old"
        return str(node.f.key(2))
    assert node.call(2) == "old"
    stop()
    assert node.invalidate(2) is Outcome.QUEUED
    return str(node.f.key(2))


def act_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of rule W1: what is sent may be done at any time."""
    monkeypatch.setattr(commands.Clock, "before", lambda *_: 2**60)


@pytest.mark.parametrize(("what", "rule"), [*((what, True) for what in WHAT), ("set", False), ("get or lease", False)])
def test_a_server_that_was_paused_does_nothing_for_who_gave_up(
    paused: tuple[Server, World], monkeypatch: pytest.MonkeyPatch, what: str, rule: bool
) -> None:
    """One heartbeat after it goes on nothing old is readable, by anybody, and there is no lease without a holder."""
    server, world = paused
    a, b = world.node(), world.node()
    if not rule:
        act_late(monkeypatch)
    key = given_up(a, what, server.pause, monkeypatch)
    world.data = "new"
    assert b.invalidate(2) is Outcome.QUEUED
    server.resume()
    for _ in range(2):
        server.command("PING")
    if what in ("set", "get or lease"):
        left = [server.command("EXISTS", name) for name in (key, lease_key(key))]
        assert left == ([0, 0] if rule else [1, 0] if what == "set" else [0, 1])
    if not rule:
        return
    c = world.node(connected=False)
    for node in (a, b, c):
        node.call(3)  # whatever was queued is delivered
    for node in (a, b):
        node.turn_until(lambda node=node: node.coherence.live)  # type: ignore[misc]
        node.hear()
    for node in (a, b, c, a):
        assert node.call(2) == "new"
    assert server.command("KEYS", "*:l:*") == []


@pytest.mark.parametrize(("what", "rule"), [*((what, True) for what in WHAT), ("set", False), ("get or lease", False)])
def test_what_arrives_after_another_process_has_invalidated_is_not_done(
    cachekit_server: Server, face: str, monkeypatch: pytest.MonkeyPatch, what: str, rule: bool
) -> None:
    """The network keeps it back; its client gave up; another process invalidates; then it arrives."""
    with FaultProxy("127.0.0.1", cachekit_server.port) as proxy:
        world = World(cachekit_server, face, budget=BUDGET)
        try:
            a, b = world.node(proxy.url), world.node()
            if not rule:
                act_late(monkeypatch)
            key = given_up(a, what, proxy.hold_requests, monkeypatch)
            world.data = "new"
            assert b.invalidate(2) is Outcome.DONE
            proxy.pass_()
            settled(proxy, cachekit_server)
            left = [cachekit_server.command("EXISTS", name) for name in (key, lease_key(key))]
            assert left == ([0, 0] if rule else [1, 0] if what == "set" else [0, 1])
            assert b.call(2) == ("old" if what == "set" and not rule else "new")
        finally:
            world.close()


def settled(proxy: FaultProxy, server: Server) -> None:
    """What the proxy held back has been done."""
    for _ in range(2):
        time.sleep(0.05)  # nobody tells when a closed connection's bytes have arrived
        server.command("PING")


# A process that stands still


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    with Processes(2, env={"PYTHONPATH": str(Path(__file__).parent)}) as started:
        yield started


@pytest.fixture
def namespace() -> str:
    return f"paused{next(numbers)}"


MAX_STALENESS = 1.0


@pytest.mark.parametrize("rule", RULE)
@pytest.mark.parametrize("name", ["load", pytest.param("aload", marks=pytest.mark.slow)])
def test_h1_the_first_answer_of_a_process_that_stood_still_is_fresh(
    two: Processes, cachekit_server: Server, tmp_path: Path, namespace: str, name: str, rule: bool
) -> None:
    """It is stopped for 2 x max_staleness in the middle of hits; meanwhile another process invalidates. Its first calls
    come before it has heard of that."""
    data = tmp_path / "data"
    data.write_text("old")
    sleeper, other = two
    with FaultProxy("127.0.0.1", cachekit_server.port) as proxy:
        for process, url in ((sleeper, proxy.url), (other, cachekit_server.url)):
            backend = {"url": url, "max_staleness": f"{MAX_STALENESS}s", "heartbeat": "200ms", "budget": "300ms"}
            process.call("paused_app:begin", namespace, backend, str(data), process is sleeper and not rule)
        sleeper.call("paused_app:start_loop", name)
        sleeper.call("paused_app:until_hits", name)
        proxy.hold_replies()
        sleeper.pause()
        data.write_text("new")
        assert other.call("load_app:invalidate", "key", name) == "DONE"
        invalidated = time.monotonic()
        time.sleep(2 * MAX_STALENESS)
        sleeper.resume()
        (old, _, last), (new, *_) = sleeper.call("paused_app:end_loop")
    assert (old, new) == ("old", "new")
    told = f"the last outdated answer began {last - invalidated:.3f} s after the invalidation"
    assert (last < invalidated) is rule, told


HOUR = 3600.0
LATE = 0.5  # seconds between the end of a load and the moment from which L2 counts, on a busy machine


@pytest.mark.parametrize(
    ("skews", "ttl"),
    [
        ((0.0, -HOUR), 1.0),
        pytest.param((0.0, HOUR), 1.0, marks=pytest.mark.slow),
        pytest.param((HOUR, -HOUR), 1.0, marks=pytest.mark.slow),
        pytest.param((HOUR, -HOUR), SHORT, marks=pytest.mark.slow),
    ],
)
def test_clocks_that_are_an_hour_apart_make_nothing_live_longer_than_its_ttl(
    two: Processes, cachekit_server: Server, namespace: str, skews: tuple[float, float], ttl: float
) -> None:
    """Not in L2, whose end L1 hears of. With a TTL that is too short to be told of its end, an entry is in L1 for a TTL
    at most as well, however old it was when it was read from L2."""
    for process, skew in zip(two, skews, strict=True):
        process.call("paused_app:begin_skewed", namespace, cachekit_server.url, ttl, skew)
    asked = [process.start("paused_app:oldest", 2.5 * ttl) for process in two]
    seen: list[int] = []
    while not all(running.done() for running in asked):
        keys = cachekit_server.command("KEYS", f"{namespace}:v:*")
        seen += [cachekit_server.command("PTTL", key) for key in keys]
        time.sleep(0.05)
    results = [running.result() for running in asked]
    assert seen
    assert max(seen) <= ttl * 1000
    assert -1 not in seen, "without an end"
    for result in results:
        assert result["errors"] == 0
        assert result["answers"] > 100
        assert result["oldest"] <= (ttl if ttl >= SHORT else 2 * ttl) + LATE
