"""The push connection is lost at the worst moments, and L2 is away for one process only.

Nothing outdated enters L1 whenever the link is lost; nothing that was invalidated meanwhile is forgotten.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_rules import changed_by, cleared_by, failing
from world import Node, World

from cachekit import Outcome
from cachekit.backends.base import lease_key
from cachekit.engine.ports import SyncPort, drive
from cachekit.errors import BackendError, Fault
from cachekit.l2 import operation
from cachekit.l2.remote import Unavailable
from cachekit.testing.servers import Server, start_server

MakeWorld = Callable[..., World]


def lost_and_changed(a: Node, b: Node) -> None:
    """The link goes, another process invalidates, and nobody tells."""
    a.lose()
    changed_by(b)


def test_lost_between_the_sample_and_the_put(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world()
    a, b = world.node(), world.node()
    b.call()
    read = operation.read

    async def then_lost(*args: Any) -> Any:
        found = await read(*args)
        monkeypatch.setattr(operation, "read", read)
        lost_and_changed(a, b)
        return found

    monkeypatch.setattr(operation, "read", then_lost)
    assert a.call() == "old"
    assert not a.in_l1
    assert a.call() == "new"


def test_lost_twice_in_a_row_during_a_load(make_world: MakeWorld) -> None:
    world = make_world()
    a, b = world.node(), world.node()

    def twice() -> None:
        lost_and_changed(a, b)
        a.apart(lambda: a.turn_until(lambda: a.coherence.live))
        a.lose()
        a.apart(lambda: a.turn_until(lambda: a.coherence.live))

    a.during = twice
    assert a.call() == "old"
    assert a.call() == "new"


@pytest.mark.parametrize("moment", ["before it is confirmed", "after it is confirmed"])
def test_lost_while_a_new_connection_is_made(make_world: MakeWorld, moment: str) -> None:
    """The server confirms, the process has not begun anew yet; what was heard of until then counts for nothing."""
    world = make_world()
    a, b = world.node(), world.node()
    for _ in range(2):
        a.call()
        a.hear()
    a.call()
    assert a.in_l1
    a.lose()
    backend: Any = a.remote.faces.sync
    listen, deliver = backend.listen, a.remote.deliver

    def lost_at_once(*args: Any, **options: Any) -> Any:
        del backend.listen
        listener = listen(*args, **options)
        lost_and_changed(a, b)
        return listener

    async def lost_while_delivering(port: Any) -> None:
        del a.remote.deliver
        lost_and_changed(a, b)
        await deliver(port)

    if moment.startswith("before"):
        backend.listen = lost_at_once
    else:
        a.remote.deliver = lost_while_delivering  # type: ignore[method-assign]
    a.coherence.due = 0.0
    a.coherence.turn(0)
    if moment.startswith("after"):
        assert not a.coherence.live, "it was lost meanwhile"
    a.turn_until(lambda: a.coherence.live)
    assert a.call() == "new"


def in_trouble(a: Node) -> None:
    """An operation has just failed."""
    now = a.clock.now()
    a.remote._failed(BackendError(Fault.DOWN, "connection", "refused"), now, now, False)


def test_an_answer_after_trouble_has_the_listener_connect_at_once(make_world: MakeWorld) -> None:
    """Attempts had grown rare while the backend was away."""
    a = make_world().node()
    backend: Any = a.remote.faces.sync

    def refused(*args: Any, **options: Any) -> Any:
        raise BackendError(Fault.DOWN, "connection", "refused")

    a.lose()
    backend.listen = refused
    for _ in range(5):
        a.clock.advance(1.0)
        a.coherence.turn(0)
    del backend.listen
    assert a.coherence.due > a.clock.now() + 0.2
    in_trouble(a)
    a.call(3)
    a.clock.advance(0.05)
    a.coherence.turn(0)
    assert a.coherence.live


def test_answers_between_failures_do_not_have_the_listener_connect_without_a_pause(make_world: MakeWorld) -> None:
    a = make_world().node()
    backend: Any = a.remote.faces.sync
    attempts = []

    def refused(*args: Any, **options: Any) -> Any:
        attempts.append(a.clock.now())
        raise BackendError(Fault.DOWN, "connection", "refused")

    a.lose()
    backend.listen = refused
    for number in range(100):
        in_trouble(a)
        a.call(number)
        a.coherence.turn(0)
        a.clock.advance(0.01)
    assert 10 < len(attempts) <= 1 + 100 * 0.01 / 0.05


def test_every_listener_that_is_over_is_closed(make_world: MakeWorld) -> None:
    a = make_world().node()
    seen = []
    for _ in range(3):
        seen.append(a.coherence._listener)
        a.lose()
        a.turn_until(lambda: a.coherence.live)
    assert not any(listener._open for listener in seen)  # type: ignore[union-attr]


@pytest.mark.parametrize("how", ["key", "tag", "function", "region"])
def test_what_one_process_could_not_tell_is_told_before_it_reads_or_stores(make_world: MakeWorld, how: str) -> None:
    """L2 is away for A alone; B goes on with what it has until A is back."""
    world = make_world()
    a, b = world.node(), world.node()
    for node in (a, b, a, b):
        node.call()
        node.hear()
    b.call()
    world.data = "new"
    ways: dict[str, Callable[[], Any]] = {
        "key": lambda: a.f.invalidate(1),
        "tag": lambda: a.region.invalidate_tags("tag"),
        "function": lambda: a.f.invalidate_all(),
        "region": lambda: a.region.clear(),
    }
    with failing(a, "invalidate", "clear"):
        assert a.apart(ways[how]) is Outcome.QUEUED
        assert a.call() == "new", "A obeys at once"
    assert a.call(2) == "new"  # its next use of L2 delivers first
    assert len(a.remote.outbox) == 0
    b.hear()
    assert b.call() == "new"


def test_too_many_that_could_not_be_told_become_a_clear_of_their_region(make_world: MakeWorld) -> None:
    world = make_world(pending_invalidations=10)
    a, b = world.node(), world.node()
    for node in (b, b):
        for key in range(20):
            node.call(key)
        node.hear()
    world.data = "new"
    with failing(a, "invalidate"):
        for key in range(20):
            assert a.invalidate(key) is Outcome.QUEUED
    assert len(a.remote.outbox) <= 11
    a.call(500)
    b.hear()
    assert {b.call(key) for key in range(20)} == {"new"}


@pytest.mark.parametrize("mode", ["tracking", "ttl"])
def test_too_many_that_could_not_be_told_are_not_served_by_who_wanted_them_away(
    make_world: MakeWorld, mode: str
) -> None:
    """It knows the stamp of its region, which the clear has just outdated; the push that tells so is not read yet."""
    a = make_world(pending_invalidations=10, coherence=mode).node()
    for key in range(20):
        a.call(key)
    a.world.data = "new"
    with failing(a, "invalidate"):
        for key in range(20):
            assert a.invalidate(key) is Outcome.QUEUED
    assert {a.call(key) for key in range(20)} == {"new"}


def test_what_is_delivered_while_another_server_takes_over_is_delivered_again(make_world: MakeWorld) -> None:
    """The old one has done it, and nobody knows whether the new one has heard of that."""
    a = make_world().node()
    a.call()
    a.world.data = "new"
    with failing(a, "invalidate"):
        assert a.invalidate() is Outcome.QUEUED
    call = a.remote._call

    async def done_by_the_old_one(replays: int, port: Any, method: str, *args: Any) -> Any:
        answer = await call(replays, port, method, *args)
        a.remote.moved()
        return answer

    a.remote._call = done_by_the_old_one  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="moved"):
        drive(a.remote.deliver(SyncPort(a.clock.now)))
    del a.remote._call
    assert len(a.remote.outbox) == 1


@pytest.mark.parametrize("reason", ["moved", "connection"])
def test_who_is_told_of_another_primary_delivers_again(make_world: MakeWorld, reason: str) -> None:
    """By a Sentinel, a cluster's epoch, or the old one, which is a replica now; the data may still come from that."""
    a = make_world().node()
    a.call()
    assert a.invalidate() is Outcome.DONE

    def told(seconds: float) -> Any:
        raise BackendError(Fault.DOWN, reason, "test")

    assert a.coherence._listener is not None
    a.coherence._listener.receive = told  # type: ignore[method-assign]
    a.coherence.turn(0)
    assert not a.coherence.live
    assert len(a.remote.outbox) == (reason == "moved")


def test_what_the_old_server_confirms_while_another_takes_over_counts_as_not_told(make_world: MakeWorld) -> None:
    """What is delivered again has been gathered, and the loss is not noted yet."""
    a = make_world().node()
    a.call()
    lose, outcomes = a.coherence.lose, []
    asked, answered = threading.Event(), threading.Event()
    call = a.remote._call

    async def answered_late(*args: Any) -> Any:
        asked.set()
        assert answered.wait(5.0)
        return await call(*args)

    def meanwhile(why: str) -> None:
        answered.set()
        other.join(0.3)
        lose(why)

    other = threading.Thread(target=lambda: outcomes.append(a.invalidate()))
    a.remote._call = answered_late  # type: ignore[method-assign]
    other.start()
    assert asked.wait(5.0)
    a.coherence.lose = meanwhile  # type: ignore[method-assign]
    a.remote.moved()
    other.join(5.0)
    assert outcomes == [Outcome.QUEUED]


def test_a_clear_whose_link_was_lost_meanwhile_counts_as_not_told(make_world: MakeWorld) -> None:
    """The loss may have decided already what is delivered again."""
    world = make_world()
    a = world.node()
    a.call()
    call = a.remote._call

    async def answered_and_lost(replays: int, port: Any, method: str, *args: Any) -> Any:
        answer = await call(replays, port, method, *args)
        if method in ("invalidate", "clear"):
            a.lose()
        return answer

    a.remote._call = answered_and_lost  # type: ignore[method-assign]
    assert a.invalidate() is Outcome.QUEUED
    del a.remote._call
    cleared_by(a)
    assert a.call() == "new"


WRITER = """
import sys
from cachekit import cache, configure, region
backend = {"url": sys.argv[1], "budget": "2s"}
configure(namespace=sys.argv[2], backends={"default": backend}, profiles={"users": {"ttl": "1h"}})
users = region("users")
users.get("x")
print("ready", flush=True)
sys.stdin.readline()
print(users.delete("k").name, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def own() -> Iterator[Server]:
    with start_server("valkey") as server:
        yield server


@pytest.mark.parametrize("how", ["in order", "killed"])
def test_the_queue_is_delivered_at_an_end_in_order_and_lost_with_a_killed_process(own: Server, how: str) -> None:
    """The second is documented."""
    from cachekit.config.spec import BackendSpec, ServiceSpec, built_in_regions
    from cachekit.service import Service

    regions = {**built_in_regions(), "users": built_in_regions()["default"].but(name="users", ttl=3600.0)}
    backends = {"default": BackendSpec(url=own.url, budget=10.0, adaptive=False)}  # the machine may be busy
    service = Service(ServiceSpec(namespace="queue", namespace_given=True, backends=backends, regions=regions))
    service.region("users").set("k", "old")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, own.url, "queue"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert writer.stdin is not None
    assert writer.stdout is not None
    with writer:
        assert writer.stdout.readline() == "ready\n"
        own.pause()
        writer.stdin.write("\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == "QUEUED\n"
        if how == "killed":
            writer.send_signal(signal.SIGKILL)
            writer.wait(10)
            own.resume()
        else:
            own.resume()
            writer.stdin.write("\n")
            writer.stdin.close()
            assert writer.wait(20) == 0
    deadline = time.monotonic() + 5
    wanted = "old" if how == "killed" else None
    while service.region("users").get("k") != wanted:
        assert time.monotonic() < deadline
    service.close()


@pytest.mark.slow
@pytest.mark.parametrize("ttl", [3.0, 0.0])
def test_a_real_outage_of_six_seconds(own: Server, ttl: float) -> None:
    """A tenth of a minute at 500 calls a second on 100 keys: no error, and few runs of each key's function."""
    from cachekit.config.spec import BackendSpec, BreakerSpec, ServiceSpec, built_in_regions
    from cachekit.service import Service

    backend = BackendSpec(
        url=own.url, budget=0.1, budget_min=0.02, heartbeat=0.1, max_staleness=0.3, disconnected_ttl=ttl,
        breaker=BreakerSpec(open_for=0.2, open_max=1.0),
    )  # fmt: skip
    regions = {**built_in_regions(), "users": built_in_regions()["default"].but(name="users", jitter=0.0)}
    service = Service(
        ServiceSpec(namespace="outage", namespace_given=True, backends={"default": backend}, regions=regions)
    )
    runs: list[int] = []

    def load(key: int) -> float:
        runs.append(key)
        return time.monotonic()  # when the data were read

    function = service.region("users").cached(load, version=1)
    for _ in range(3):
        for key in range(100):
            function(key)
        time.sleep(0.05)
    runs.clear()
    own.kill()
    began, oldest, calls = time.monotonic(), 0.0, 0
    while (now := time.monotonic()) < began + 6.0:
        read_at = function(calls % 100)
        if now > began + backend.max_staleness:
            oldest = max(oldest, now - max(read_at, began))
        calls += 1
        time.sleep(max(0.0, began + calls / 500 - time.monotonic()))
    assert calls > 300, "even on a busy machine"
    worst = max(Counter(runs).values())
    if ttl:
        assert worst <= 6.0 / ttl + 2, f"{worst} runs of one key"
    else:
        assert oldest <= backend.max_staleness + 0.1
    own.start()
    deadline = time.monotonic() + 5
    while not (service.health().ok and service.health().backends["default"].coherence == "tracking"):
        assert time.monotonic() < deadline
        function(1)
        time.sleep(0.01)
    service.close()


@pytest.mark.timed
def test_a_lease_whose_grant_was_not_heard_of_does_not_make_others_wait(make_world: MakeWorld) -> None:
    """The answer to get-or-lease is lost: the process does not know the lease is its own, and gives it back."""
    world = make_world()
    a, b = world.node(), world.node()
    call = a.remote._call

    async def answer_lost(replays: int, port: Any, method: str, *args: Any) -> Any:
        answer = await call(replays, port, method, *args)
        if method == "get_or_lease":
            raise Unavailable("timeout")
        return answer

    a.remote._call = answer_lost  # type: ignore[method-assign]
    assert a.call() == "old"
    del a.remote._call
    lease = lease_key(str(a.f.key(1)))
    assert world.command("EXISTS", lease), "nobody knows who holds it"
    a.service.tend()
    assert not world.command("EXISTS", lease)
    began = time.monotonic()
    assert b.call() == "old"
    assert time.monotonic() - began < 1.0, "late"
