"""Each rule of coherence between processes: the trace that breaks without it, and that the trace does break without it.

`ALLOWED` values are what a correct cache may answer. A *control* switches one rule off and expects the old value.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from world import Node, World

from cachekit import Outcome
from cachekit.backends.redis import commands, scripts
from cachekit.backends.redis.push import PushListener
from cachekit.engine import flow, invalidation
from cachekit.engine.entries import Sample
from cachekit.l1.pure import Table
from cachekit.l1.versions import Versions
from cachekit.l2 import operation, remote, stamps
from cachekit.l2.coherence import Coherence
from cachekit.l2.outbox import Outbox
from cachekit.l2.reach import Reach
from cachekit.l2.remote import Remote
from cachekit.testing.faults import FaultProxy
from cachekit.testing.servers import Server, start_server
from cachekit.testing.topologies import follows

MakeWorld = Callable[..., World]
Patch = pytest.MonkeyPatch
RULE = [True, False]  # with the rule, and the control without it


@pytest.fixture(autouse=True)
def controls_can_break_rules(request: pytest.FixtureRequest) -> None:
    """Before any world is made."""
    parameters = getattr(request.node, "callspec", None)
    if parameters is not None and parameters.params.get("rule") is False:
        request.getfixturevalue("pure_twin")


def expect(rule: bool, value: str) -> None:
    """The new value with the rule; without it the old one, or the check above proves nothing."""
    assert value == ("new" if rule else "old")


@pytest.mark.parametrize("rule", RULE)
def test_r1_a_value_from_before_an_invalidation_does_not_enter_l1(
    make_world: MakeWorld, monkeypatch: Patch, rule: bool
) -> None:
    """A has the lease, reads, stores; an invalidation of its own returns before it puts the value into L1."""
    a = make_world().node()
    store = operation.store

    async def stored_and_then(*args: Any) -> bool:
        stored = await store(*args)
        monkeypatch.setattr(operation, "store", store)
        a.world.data = "new"
        assert a.invalidate() is Outcome.DONE
        return stored

    monkeypatch.setattr(operation, "store", stored_and_then)
    if not rule:
        monkeypatch.setattr(Versions, "allows", lambda *_: True)
    assert a.call() == "old"
    expect(rule, a.call())


@pytest.mark.parametrize("rule", RULE)
def test_i1_an_invalidation_takes_the_lease_away(make_world: MakeWorld, monkeypatch: Patch, rule: bool) -> None:
    """A has the lease and has read; B invalidates; A must not store."""
    world = make_world()
    a, b = world.node(), world.node()
    if not rule:
        spare = scripts.script("for i = 1, #KEYS, 2 do redis.call('DEL', KEYS[i]) end return 1")
        monkeypatch.setattr(scripts, "INVALIDATE", spare)
    a.during = lambda: changed_by(b)
    assert a.call() == "old"
    expect(rule, b.call())


def changed_by(node: Node) -> None:
    """The data change, and a node invalidates."""
    node.world.data = "new"
    assert node.invalidate() is Outcome.DONE


@pytest.mark.parametrize("rule", RULE)
def test_i2_an_invalidation_of_nothing_is_told_of(make_world: MakeWorld, monkeypatch: Patch, rule: bool) -> None:
    """A computed while L2 did not answer, so L2 has nothing; B invalidates; A must hear of it."""
    world = make_world()
    a, b = world.node(), world.node()
    if not rule:
        quiet = scripts.script("for i = 1, #KEYS do redis.call('DEL', KEYS[i]) end return 1")
        monkeypatch.setattr(scripts, "INVALIDATE", quiet)
    with failing(a, "get_or_lease"):
        assert a.call() == "old"
    assert a.in_l1, "stamps were known and changes are heard of"
    changed_by(b)
    a.hear()
    expect(rule, a.call())


@contextlib.contextmanager
def failing(node: Node, *methods: str) -> Iterator[None]:
    """These methods of L2 fail for this node."""
    remote_ = node.remote
    call = remote_._call

    async def broken(replays: int, port: Any, name: str, *args: Any) -> Any:
        if name in methods:
            raise remote.Unavailable("test")
        return await call(replays, port, name, *args)

    remote_._call = broken  # type: ignore[method-assign]
    try:
        yield
    finally:
        del remote_._call


@pytest.mark.parametrize("rule", RULE)
def test_i2_nobody_joins_a_load_that_was_invalidated_elsewhere(
    make_world: MakeWorld, monkeypatch: Patch, rule: bool
) -> None:
    """A loads; B invalidates what is not there yet; A hears of it; a caller who comes then computes anew."""
    world = make_world()
    a, b = world.node(), world.node()
    if not rule:
        monkeypatch.setattr(flow, "_joinable", lambda *_: True)
        monkeypatch.setattr(flow, "_outdated", lambda *_: False)
    late: list[Any] = []

    def meanwhile() -> None:
        changed_by(b)
        a.hear()
        late.append(a.late_caller())

    a.during = meanwhile
    assert a.call() == "old"
    expect(rule, late[0].result(10))


@pytest.mark.parametrize("rule", RULE)
def test_i3_what_l2_refused_does_not_enter_l1(make_world: MakeWorld, monkeypatch: Patch, rule: bool) -> None:
    """Another client deletes lease and absent value, of which nobody is told."""
    world = make_world()
    a = world.node()
    if not rule:
        store = operation.store

        async def always(*args: Any) -> bool:
            await store(*args)
            return True

        monkeypatch.setattr(operation, "store", always)

    def deleted() -> None:
        world.data = "new"
        key = str(a.f.key(1))
        world.command("DEL", key.replace(":v:", ":l:"))
        world.command("DEL", key)

    a.during = deleted
    assert a.call() == "old"
    expect(rule, a.call())


@pytest.mark.parametrize("rule", RULE)
def test_i4_the_local_step_of_an_invalidation_comes_last(make_world: MakeWorld, monkeypatch: Patch, rule: bool) -> None:
    """B invalidates; before L2 has heard of it another caller of B takes the old value over from L2."""
    world = make_world()
    a, b = world.node(), world.node()
    a.call()
    tell = invalidation._tell

    async def told_late(remote_: Remote, method: str, names: list[str], port: Any) -> Outcome:
        monkeypatch.setattr(invalidation, "_tell", tell)
        assert b.apart(lambda: b.f(1)) == "old"
        return await tell(remote_, method, names, port)

    monkeypatch.setattr(invalidation, "_tell", told_late)
    if not rule:
        forget, right = invalidation.forget, invalidation.invalidate_keys

        async def forget_first(tiers: Any, calls: Any, port: Any) -> Outcome:
            for call in calls:
                forget(tiers, call)
            monkeypatch.setattr(invalidation, "forget", lambda *_, **__: None)
            return await right(tiers, calls, port)

        monkeypatch.setattr(invalidation, "invalidate_keys", forget_first)
    changed_by(b)
    expect(rule, b.call())


@pytest.mark.parametrize("rule", RULE)
def test_s1_stamps_are_from_before_the_source_was_read(make_world: MakeWorld, monkeypatch: Patch, rule: bool) -> None:
    """A reads; B clears; A stores."""
    world = make_world()
    a, b = world.node(), world.node()
    if not rule:
        store = operation.store

        async def with_new_stamps(call: Any, remote_: Any, value: Any, held: Any, _: Any, *rest: Any) -> bool:
            fresh = await operation.sample(call, remote_, call.tags, rest[-2], known=False)
            return await store(call, remote_, value, held, fresh, *rest)

        monkeypatch.setattr(operation, "store", with_new_stamps)
    a.during = lambda: cleared_by(b)
    assert a.call() == "old"
    expect(rule, b.call())


def cleared_by(node: Node, how: str = "tag") -> None:
    """The data change, and a node clears a tag, the function or the region."""
    node.world.data = "new"
    ways = {
        "tag": lambda: node.region.invalidate_tags("tag"),
        "function": lambda: node.f.invalidate_all(),
        "region": lambda: node.region.clear(),
    }
    assert node.apart(ways[how]) is Outcome.DONE


@pytest.mark.parametrize("rule", RULE)
@pytest.mark.parametrize("how", ["tag", "function", "region"])
def test_s2_a_clear_ends_the_callers_own_entries_at_once(
    make_world: MakeWorld, monkeypatch: Patch, rule: bool, how: str
) -> None:
    a = make_world().node()
    a.call()
    a.hear()  # our own store
    a.call()
    assert a.in_l1
    if not rule:
        monkeypatch.setattr(Versions, "bump_tags", lambda *_: None)
        monkeypatch.setattr(Table, "drop_slot", lambda *_: 0)
        monkeypatch.setattr(Table, "clear", lambda *_: 0)
    cleared_by(a, how)
    expect(rule, a.call())


@pytest.mark.parametrize("rule", RULE)
def test_s2_a_clear_ends_the_entries_of_others_when_they_hear_of_it(
    make_world: MakeWorld, monkeypatch: Patch, rule: bool
) -> None:
    world = make_world()
    a, b = world.node(), world.node()
    for node in (a, b, a, b):
        node.call()
        node.hear()
    b.call()
    assert b.in_l1
    if not rule:
        monkeypatch.setattr(Reach, "_cleared", lambda *_: None)
    cleared_by(a)
    b.hear()
    expect(rule, b.call())


@pytest.mark.parametrize("rule", RULE)
def test_s3_a_lost_clear_does_not_bring_entries_back_with_the_next_one(
    make_world: MakeWorld, monkeypatch: Patch, rule: bool
) -> None:
    """The server that has the stamps is replaced by one that did not hear of the last clear."""
    world = make_world()
    if not rule:
        monkeypatch.setattr(remote, "fresh_stamps", lambda count: [b"\0" * 8] * count)
    a, b = world.node(), world.node()
    a.call()
    stamp = b.bound.tiers.namespace + ":t:{_}:" + stamps_name("tag")
    before = world.command("GET", stamp)
    cleared_by(a)
    world.command("SET", stamp, before)
    cleared_by(a)
    b.hear()
    expect(rule, b.call())


def stamps_name(tag: str) -> str:
    from cachekit.engine.keys import tag_id

    return tag_id(tag)


@pytest.mark.parametrize("rule", RULE)
def test_s4_who_lags_asks_l2_before_it_calls_an_entry_outdated(
    make_world: MakeWorld, monkeypatch: Patch, rule: bool
) -> None:
    """A clears and computes anew; B, which has not read the push, must not compute again."""
    world = make_world()
    a, b = world.node(), world.node()
    b.call()
    b.hear()
    b.call()
    cleared_by(a)
    assert a.call() == "new"
    b.forget_l1()
    runs = len(b.runs)
    if not rule:

        async def at_once(call: Any, remote_: Any, data: bytes, port: Any) -> Any:
            return operation.examine(call, remote_, data, port) or operation.Absent("outdated", data[:24])

        monkeypatch.setattr(operation, "judge", at_once)
    assert b.call() == "new"
    assert len(b.runs) - runs == (0 if rule else 1)


@pytest.mark.parametrize("rule", RULE)
def test_s5_a_tag_known_only_from_the_value_is_cleared_during_the_load(
    make_world: MakeWorld, monkeypatch: Patch, rule: bool
) -> None:
    """B reads and learns the tag; A clears it; B asks for its stamp, and must not store under it."""
    world = make_world()
    a, b = world.node(), world.node()

    def late(key: int) -> str:
        from cachekit import current_entry

        value = world.data
        current_entry().tags.add("late")
        if world.data == "old":
            world.data = "new"
            assert a.apart(lambda: a.region.invalidate_tags("late")) is Outcome.DONE
        return value

    if not rule:
        sample = operation.sample

        async def without_clock(call: Any, remote_: Any, before: Any, tags: Any, port: Any) -> Any:
            return before._replace(tags=(await sample(call, remote_, tags, port, known=False)).tags)

        monkeypatch.setattr(operation, "resample", without_clock)
    of_b, of_a = b.cached(late), a.cached(late)
    assert b.wait(of_b(1)) == "old"
    expect(rule, a.wait(of_a(1)))


@pytest.mark.parametrize("rule", RULE)
def test_f1_nobody_joins_a_load_whose_age_is_beyond_the_bound(
    make_world: MakeWorld, monkeypatch: Patch, rule: bool
) -> None:
    """The push connection is a black hole; a load takes longer than max_staleness; B invalidates meanwhile."""
    world = make_world()
    a, b = world.node(), world.node()
    if not rule:
        monkeypatch.setattr(flow, "_joinable", lambda *_: True)
    late: list[Any] = []

    def meanwhile() -> None:
        changed_by(b)
        world.advance(world.nodes[0].remote.spec.max_staleness + 0.1)
        late.append(a.late_caller())

    a.during = meanwhile
    assert a.call() == "old"
    expect(rule, late[0].result(10))


@pytest.mark.parametrize("rule", RULE)
def test_o1_the_echo_of_an_own_store_counts(make_world: MakeWorld, monkeypatch: Patch, rule: bool) -> None:
    """One push may tell of our store and of another's invalidation: ignoring it as ours loses that."""
    world = make_world()
    a, b = world.node(), world.node()
    a.call()  # the push of this store is not read yet
    assert a.in_l1
    key = str(a.f.key(1))
    if not rule:
        changed = Reach.changed
        monkeypatch.setattr(Reach, "changed", lambda self, name: None if name == key else changed(self, name))
    changed_by(b)
    a.hear()
    expect(rule, a.call())


@pytest.mark.parametrize("rule", RULE)
def test_k1_what_was_sampled_before_the_connection_does_not_enter_l1_after_it(
    make_world: MakeWorld, monkeypatch: Patch, rule: bool
) -> None:
    """A computes without L2 and without push; B invalidates; A is connected again before it keeps the value."""
    world = make_world()
    a, b = world.node(), world.node()
    if not rule:
        monkeypatch.setattr(Versions, "bump_all", lambda *_: None)

    def meanwhile() -> None:
        changed_by(b)
        a.apart(lambda: a.turn_until(lambda: a.coherence.live))

    a.lose()
    a.during = meanwhile
    with failing(a, "get_or_lease"):
        assert a.call() == "old"
    a.hear()
    expect(rule, a.call())


@pytest.mark.parametrize("rule", RULE)
def test_k2_a_new_connection_begins_with_an_empty_l1(make_world: MakeWorld, monkeypatch: Patch, rule: bool) -> None:
    world = make_world()
    a, b = world.node(), world.node()
    for _ in range(2):
        a.call()
        a.hear()
    a.call()
    assert a.in_l1
    a.lose()
    changed_by(b)
    if not rule:
        monkeypatch.setattr(Table, "clear", lambda *_: 0)
    a.turn_until(lambda: a.coherence.live)
    expect(rule, a.call())


@pytest.mark.parametrize("rule", RULE)
def test_q1_what_is_queued_is_delivered_before_l2_is_read(
    make_world: MakeWorld, monkeypatch: Patch, rule: bool
) -> None:
    world = make_world()
    b = world.node()
    b.call()
    if not rule:
        monkeypatch.setattr(Remote, "do", lambda self, *args: self._call(self._replays, *args))
    world.data = "new"
    with failing(b, "invalidate"):
        assert b.invalidate() is Outcome.QUEUED
    expect(rule, b.call())


@pytest.mark.parametrize("rule", RULE)
def test_q1_what_is_queued_is_delivered_before_l2_is_stored_to(
    make_world: MakeWorld, monkeypatch: Patch, rule: bool
) -> None:
    """B holds the lease and has read; its own invalidation cannot reach L2; then L2 is back, and B stores."""
    world = make_world()
    a, b = world.node(), world.node()
    if not rule:
        monkeypatch.setattr(Remote, "do", lambda self, *args: self._call(self._replays, *args))

    def meanwhile() -> None:
        world.data = "new"
        with failing(b, "invalidate"):
            assert b.invalidate() is Outcome.QUEUED

    b.during = meanwhile
    assert b.call() == "old"
    expect(rule, a.call())


@pytest.mark.parametrize("rule", RULE)
def test_q4_a_load_samples_before_it_looks_what_is_queued(
    make_world: MakeWorld, monkeypatch: Patch, rule: bool
) -> None:
    """Between the two another caller's invalidation fails and is queued; L2 is back at once."""
    world = make_world()
    a, b = world.node(), world.node()
    a.call()
    b.hear()
    b.forget_l1()
    world.data = "new"
    plain, sampled = Remote.do, Sample.__init__

    def in_between() -> None:
        monkeypatch.setattr(Sample, "__init__", sampled)
        with failing(b, "invalidate"):
            assert b.invalidate() is Outcome.QUEUED

    def sample_first(self: Sample, *args: Any) -> None:
        sampled(self, *args)
        in_between()

    def look_first(self: Sample, *args: Any) -> None:
        monkeypatch.setattr(Remote, "do", lambda self, *args: self._call(self._replays, *args))
        in_between()
        sampled(self, *args)

    monkeypatch.setattr(Sample, "__init__", sample_first if rule else look_first)
    b.call()
    monkeypatch.setattr(Remote, "do", plain)
    expect(rule, b.call())


@pytest.mark.parametrize("rule", RULE)
def test_q2_a_set_without_an_answer_queues_an_invalidation(
    make_world: MakeWorld, monkeypatch: Patch, rule: bool
) -> None:
    world = make_world()
    a = world.node()
    a.wait(a.region.aset("k", "old")) if a.face == "async" else a.region.set("k", "old")
    if not rule:
        monkeypatch.setattr(Remote, "queue", lambda *_: None)
    with failing(a, "store"):
        a.wait(a.region.aset("k", "new")) if a.face == "async" else a.region.set("k", "new")
    assert a.region.get("k") == "new", "this process has it until L2 is back"
    a.lose()
    a.turn_until(lambda: a.coherence.live)
    assert a.region.get("k") == (None if rule else "old")


@pytest.fixture
def failover(face: str) -> Iterator[tuple[World, Server, Server, FaultProxy]]:
    """A world behind an address that leads to one server, and a second server with what the first one has."""
    with start_server("valkey") as one, start_server("valkey") as two, FaultProxy("127.0.0.1", one.port) as proxy:
        world = World(one, face, url=proxy.url)
        yield world, one, two, proxy
        world.close()


def copy(one: Server, two: Server) -> None:
    """What a replica has."""
    for key in one.command("KEYS", "*"):
        two.command("SET", key, one.command("GET", key))


@pytest.mark.parametrize("rule", RULE)
@pytest.mark.parametrize("how", ["key", "tag"])
def test_q3_a_failover_that_lost_an_invalidation(
    failover: tuple[World, Server, Server, FaultProxy], monkeypatch: Patch, rule: bool, how: str
) -> None:
    """It was confirmed and not replicated; the same process reads from the new primary."""
    world, one, two, proxy = failover
    a = world.node()
    a.call()
    a.hear()
    copy(one, two)
    if not rule:
        monkeypatch.setattr(Outbox, "replay", lambda *_: None)
    changed_by(a) if how == "key" else cleared_by(a)
    proxy.target = ("127.0.0.1", two.port)
    proxy.reset()
    with contextlib.suppress(AssertionError):
        for _ in range(3):
            a.coherence.turn(0.05)
    a.call()
    expect(rule, a.call())


@pytest.mark.parametrize("rule", RULE)
@pytest.mark.parametrize("how", ["key", "tag"])
def test_q3_the_next_failover_may_lose_what_was_delivered_again(
    failover: tuple[World, Server, Server, FaultProxy], monkeypatch: Patch, rule: bool, how: str
) -> None:
    """Sentinels that disagree make one primary and then another, which has not heard from the first."""
    world, one, two, proxy = failover
    a = world.node()
    a.call()
    a.hear()
    with start_server("valkey") as three:
        copy(one, two)
        copy(one, three)
        changed_by(a) if how == "key" else cleared_by(a)
        if not rule:
            monkeypatch.setattr(Outbox, "done", lambda *_: None)
        for new in (two, three):
            proxy.target = ("127.0.0.1", new.port)
            proxy.reset()
            a.turn_until(lambda: not a.coherence.live)
            a.turn_until(lambda: a.coherence.live)
            expect(rule or new is two, a.call())


@pytest.mark.parametrize("rule", RULE)
def test_q3_a_primary_that_was_a_replica_meanwhile_has_the_data_of_another(
    failover: tuple[World, Server, Server, FaultProxy], monkeypatch: Patch, rule: bool
) -> None:
    """It runs on, and what it had confirmed before is gone. Who was idle has seen neither failover."""
    world, one, two, proxy = failover
    if not rule:
        told = commands.told
        monkeypatch.setattr(commands, "told", lambda reply, field: told(reply, field) if field == "run_id" else "")
    a = world.node()
    a.call()
    a.hear()
    copy(one, two)
    changed_by(a)
    a.lose()
    proxy.reset()
    two.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    one.command("REPLICAOF", "127.0.0.1", two.port)
    deadline = time.monotonic() + 10
    while not follows(one, two):
        assert time.monotonic() < deadline, one.log()
        time.sleep(0.01)
    one.command("REPLICAOF", "NO", "ONE")
    expect(rule, a.call())


@pytest.mark.parametrize("rule", RULE)
def test_t1_data_from_one_server_and_pushes_from_another(
    failover: tuple[World, Server, Server, FaultProxy], monkeypatch: Patch, rule: bool
) -> None:
    """The name leads to another server; the old one is still up, and so is the push connection to it."""
    world, _, two, proxy = failover
    a = world.node()
    other = world.node(two.url)
    proxy.target = ("127.0.0.1", two.port)
    if not rule:
        a.remote.faces.tell_of_moves(lambda: None)
        monkeypatch.setattr(PushListener, "astray", False)
    a.remote.close()  # its kept connections
    if a.remote.faces.aio is not None:
        world.runner.run(a.remote.faces.aio.close())
    for _ in range(2):
        a.call()
    assert a.coherence.live is not rule
    changed_by(other)
    a.clock.advance(a.remote.spec.max_staleness * 0.9)  # pushes would have come; the bound is not what is tested
    if not rule:
        a.hear()
    a.clock.advance(a.remote.spec.max_staleness * 0.2 if rule else 0)
    expect(rule, a.call())


def test_w3_tokens_of_forked_children_differ() -> None:
    reader, writer = os.pipe()
    for _ in range(100):
        if os.fork() == 0:
            os.write(writer, operation.new_id())
            os._exit(0)
        os.wait()
    os.close(writer)
    drawn = b""
    while chunk := os.read(reader, 10_000):
        drawn += chunk
    os.close(reader)
    assert len({drawn[at : at + 16] for at in range(0, len(drawn), 16)}) == 100
    assert stamps.STAMP_BYTES == 8


@pytest.mark.parametrize("rule", RULE)
@pytest.mark.parametrize("how", ["key", "tag", "tag only", "in L2"])
def test_n1_a_load_does_not_trust_what_this_process_remembers(
    make_world: MakeWorld, monkeypatch: Patch, rule: bool, how: str
) -> None:
    """A invalidates the inner and the outer one; B has not heard of it when it computes the outer one."""
    world = make_world()
    a, b = world.node(), world.node()
    for _ in range(2):
        for node in (a, b):
            node.call_nested()
            node.hear()
    b.call_nested()
    assert b.in_l1 or b.call() == "old"
    if how == "in L2":
        b.forget_l1()
    if not rule:
        for module in (operation, flow):
            monkeypatch.setattr(f"{module.__name__}.inside_load", lambda: False, raising=False)
        monkeypatch.setattr("cachekit.engine.entries.inside_load", lambda: False)
        monkeypatch.setattr(Table, "watch", lambda *_: None)
    changed_by(a) if how == "key" else cleared_by(a)
    assert a.apart(lambda: a.nested.invalidate(1)) is Outcome.DONE
    b.service.tiers("users").table.drop_slot(b.nested.__cachekit_function__.at().slot)  # as if evicted
    b.call_nested()
    expect(rule, a.call_nested())


def test_coherence_is_what_the_tests_say(make_world: MakeWorld) -> None:
    """The rig itself: connected, hearing, and hits of L1 are hits."""
    world = make_world()
    a = world.node()
    assert isinstance(a.coherence, Coherence)
    assert a.coherence.live
    assert a.coherence.covers("users")
    for _ in range(3):
        a.call()
        a.hear()
    runs = len(a.runs)
    world.command("DEL", "nothing")
    assert a.call() == "old"
    assert len(a.runs) == runs
