"""What other clients, flushes, restarts, evictions and outages do to L1: nothing outdated is served after the bounds.

Clocks stand still and pushes are read when the test says so, so a bound is exact and nobody sleeps.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from world import Node, World

from cachekit import Outcome
from cachekit.testing.servers import Server, start_server

MakeWorld = Callable[..., World]


def warmed(world: World, count: int = 1) -> list[Node]:
    """Nodes that have the entry in L1."""
    nodes = [world.node() for _ in range(count)]
    for _ in range(2):
        for node in nodes:
            node.call()
            node.hear()
    for node in nodes:
        node.call()
        assert node.in_l1
    return nodes


@pytest.fixture
def own(face: str) -> Iterator[tuple[World, Server]]:
    """A world whose server the test may kill."""
    with start_server("valkey") as server:
        world = World(server, face)
        yield world, server
        world.close()


@pytest.mark.parametrize("command", ["SET", "DEL", "UNLINK", "PEXPIRE"])
def test_what_a_foreign_client_does_to_a_value_ends_the_entry(make_world: MakeWorld, command: str) -> None:
    world = make_world()
    (a,) = warmed(world)
    world.data = "new"
    arguments = {"SET": ["x"], "PEXPIRE": [1]}.get(command, [])
    world.command(command, str(a.f.key(1)), *arguments)
    if command == "PEXPIRE":
        while world.command("EXISTS", str(a.f.key(1))):
            pass
    a.hear()
    assert a.call() == "new"


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB"])
def test_a_flush_ends_everything_and_costs_one_computation_per_key(own: tuple[World, Server], command: str) -> None:
    world, server = own
    a, b = warmed(world, 2)
    world.data = "new"
    server.command(command)
    for node in (a, b):
        node.turn_until(lambda node=node: not node.coherence.live)  # type: ignore[misc]
        node.turn_until(lambda node=node: node.coherence.live)  # type: ignore[misc]
    before = len(a.runs) + len(b.runs)
    assert [node.call() for node in (a, b, a, b)] == ["new"] * 4
    assert len(a.runs) + len(b.runs) - before == 1


def test_until_a_flush_is_heard_of_the_bound_holds(own: tuple[World, Server]) -> None:
    world, server = own
    (a,) = warmed(world)
    world.data = "new"
    server.command("FLUSHALL")
    a.clock.advance(a.remote.spec.max_staleness)
    assert a.call() == "new"


def test_a_server_that_comes_back_empty(own: tuple[World, Server]) -> None:
    world, server = own
    a, b = warmed(world, 2)
    world.data = "new"
    server.restart()
    for node in (a, b):
        node.turn_until(lambda node=node: not node.coherence.live)  # type: ignore[misc]
        node.turn_until(lambda node=node: node.coherence.live)  # type: ignore[misc]
    before = len(a.runs) + len(b.runs)
    assert [node.call() for node in (a, b, a, b)] == ["new"] * 4
    assert len(a.runs) + len(b.runs) - before == 1


@pytest.mark.parametrize("how", ["key", "tag", "function", "region"])
def test_a_server_that_comes_back_with_an_old_snapshot(own: tuple[World, Server], how: str) -> None:
    """Invalidations of the last minute are delivered again before the new server is used."""
    world, server = own
    a, b = warmed(world, 2)
    kept = {key: server.command("GET", key) for key in server.command("KEYS", "*")}
    world.data = "new"
    ways: dict[str, Callable[[], Any]] = {
        "key": lambda: a.f.invalidate(1),
        "tag": lambda: a.region.invalidate_tags("tag"),
        "function": lambda: a.f.invalidate_all(),
        "region": lambda: a.region.clear(),
    }
    assert a.apart(ways[how]) is Outcome.DONE
    server.kill()
    server.start()
    for key, value in kept.items():
        if value is not None:
            server.command("SET", key, value)
    a.turn_until(lambda: not a.coherence.live)
    a.turn_until(lambda: a.coherence.live)  # it delivers
    b.turn_until(lambda: not b.coherence.live)
    b.turn_until(lambda: b.coherence.live)
    assert (a.call(), b.call()) == ("new", "new")


@pytest.mark.parametrize("stamp", ["region", "function", "tag"])
@pytest.mark.parametrize("how", ["DEL", "PEXPIRE"])
def test_a_stamp_that_is_evicted_or_expires_is_a_clear(make_world: MakeWorld, stamp: str, how: str) -> None:
    """Nothing from before is served, and one process computes once."""
    world = make_world()
    a, b = warmed(world, 2)
    tiers = a.bound.tiers
    from cachekit.engine.keys import tag_digest, tag_stamp

    names = {
        "region": tiers.region_stamp,
        "function": a.bound.stamp,
        "tag": tag_stamp(tiers.namespace, tag_digest("tag")),
    }
    world.data = "new"
    world.command(how, names[stamp], *([1] if how == "PEXPIRE" else []))
    while world.command("EXISTS", names[stamp]):
        pass
    for node in (a, b):
        node.hear()
    before = len(a.runs) + len(b.runs)
    assert [node.call() for node in (a, b, a, b)] == ["new"] * 4
    assert len(a.runs) + len(b.runs) - before == 1


def test_values_that_the_server_evicts_for_want_of_memory_leave_l1(face: str) -> None:
    with start_server("valkey", maxmemory="3mb", args=["--maxmemory-policy", "allkeys-lru"]) as server:
        world = World(server, face)
        (a,) = warmed(world)
        key = str(a.f.key(1))
        world.data = "new"
        for number in range(2000):  # the server samples, so the oldest may stay for a while
            server.command("SET", f"filler{number}", "x" * 30_000)
            if not server.command("EXISTS", key):
                break
        assert not server.command("EXISTS", key)
        for _ in range(20):
            a.coherence.turn(0.05)
            if a.coherence._listener is None:
                a.clock.advance(1.0)
        assert a.call() == "new"
        world.close()


def served(node: Node, keys: int, seconds: float, rate: float, each: Callable[[float], None]) -> Counter[str]:
    """So many seconds of calls at ``rate`` per second, round the keys; ``each`` sees the time."""
    answers: Counter[str] = Counter()
    for number in range(int(seconds * rate)):
        node.clock.advance(1 / rate)
        if number % 50 == 0:
            node.coherence.turn(0)
        each(number / rate)
        answers[node.call(number % keys)] += 1
    return answers


@pytest.mark.parametrize("fault", ["killed", pytest.param("paused", marks=pytest.mark.slow)])
def test_an_outage_of_a_minute_costs_one_computation_per_key_and_disconnected_ttl(
    own: tuple[World, Server], fault: str
) -> None:
    """500 calls a second on 100 keys: no error, and the function runs at most (60 / 30 + 2) times per key."""
    world, server = own
    world.backend["budget"] = 0.25
    a = world.node()
    for key in range(100):
        a.call(key)
    a.hear()
    a.runs.clear()
    server.kill() if fault == "killed" else server.pause()
    answers = served(a, keys=100, seconds=60, rate=500, each=lambda _: None)
    server.resume() if fault == "paused" else None
    assert answers == {"old": 30_000}
    worst = max(Counter(a.runs).values())
    assert worst <= 60 / a.remote.spec.disconnected_ttl + 2, f"{worst} runs of one key"


def test_without_a_disconnected_ttl_nothing_older_than_max_staleness_is_served(own: tuple[World, Server]) -> None:
    world, server = own
    world.backend |= {"budget": 0.25, "disconnected_ttl": 0.0}
    a = world.node()
    changed = {"0.0": 0.0}
    world.data = "0.0"
    for _ in range(2):
        for key in range(10):
            a.call(key)
        a.hear()
    server.kill()
    now = [0.0]

    def change(at: float) -> None:
        now[0] = at
        world.data = str(round(at, 1))  # the source has a new value every tenth of a second
        changed.setdefault(world.data, at)

    for number in range(10_000):
        a.clock.advance(0.001)
        change(number / 1000)
        if number % 100 == 0:
            a.coherence.turn(0)
        value = a.call(number % 10)
        replaced = changed.get(str(round(float(value) + 0.1, 1)), now[0])
        assert now[0] - replaced <= a.remote.spec.max_staleness + 0.1


def test_after_an_outage_l1_and_l2_serve_again_and_nothing_of_the_outage_stays(own: tuple[World, Server]) -> None:
    world, server = own
    world.backend["budget"] = 0.25
    (a,) = warmed(world)
    server.kill()
    a.turn_until(lambda: not a.coherence.live)
    a.clock.advance(a.remote.spec.max_staleness)
    world.data = "during"
    for _ in range(10):
        a.call()
    assert a.in_l1
    assert a.invalidate(2) is Outcome.QUEUED
    server.start()
    world.data = "new"
    a.turn_until(lambda: a.coherence.live)
    assert len(a.remote.outbox) == 0, "delivered before anything else"
    assert not a.in_l1
    assert a.call() == "new"
