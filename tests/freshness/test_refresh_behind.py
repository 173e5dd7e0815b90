"""Stale while revalidating: the old value at once, and one refresh behind the callers' backs."""

import asyncio
import threading
from contextvars import ContextVar
from typing import Any

import pytest

from cachekit import MISS, current_entry
from cachekit.config.spec import BreakerSpec
from cachekit.engine import flow
from cachekit.testing.servers import start_server

TTL, STALE = 60.0, 600.0
only = pytest.mark.parametrize


def expired(world: Any, **given: Any) -> Any:
    """A process with a value whose TTL is over; the source has a new one."""
    process = world.process(**{"swr": True, **given})
    assert process.call() == "old"
    world.hear()
    assert process.call() == "old"
    world.advance(TTL)
    world.source.recover()
    return process


def test_the_caller_gets_the_stale_value_and_the_next_one_a_fresh_one(world: Any) -> None:
    process = expired(world)
    assert process.call() == "old"
    process.settle()
    world.hear()
    assert process.call() == "new"
    assert len(process.runs) == 2
    assert process.tally.refreshes == {("swr", "stored"): 1}
    assert process.f.cache_info().stale == 1


def test_a_hundred_callers_get_a_hundred_stale_values_at_once_and_one_load_runs(world: Any) -> None:
    process = expired(world)
    process.gate.clear()
    assert process.many(100) == ["old"] * 100, "nobody waits for the load, which has not ended"
    assert process.many(100) == ["old"] * 100
    process.until_begun(2)
    assert process.tally.stale == 200
    process.gate.set()
    process.settle()
    world.hear()
    assert process.many(100) == ["new"] * 100
    assert len(process.runs) == 2


def test_when_the_stale_value_may_not_be_kept_any_longer_callers_wait(world: Any) -> None:
    process = expired(world)
    world.advance(STALE)
    assert process.call() == "new"
    assert process.tally.refreshes == {}


def test_without_swr_the_caller_waits(world: Any) -> None:
    process = expired(world, swr=False)
    assert process.call() == "new"


@only("given", [{}, {"stale_on_error": False}])
def test_a_refresh_that_fails_keeps_the_stale_value_and_leaves_the_source_alone(
    world: Any, given: dict[str, Any]
) -> None:
    process = expired(world, **given)
    world.source.fail()
    for _ in range(5):
        assert process.call() == "old"
        process.settle()
    assert len(process.runs) == 2
    world.advance(30.0)
    for _ in range(5):
        assert process.call() == "old"
        process.settle()
    assert len(process.runs) == 3
    assert process.tally.refreshes == {("swr", "failed"): 2}
    world.source.recover("newest")
    world.advance(60.0)
    assert process.call() == "old"
    process.settle()
    world.hear()
    assert process.call() == "newest"


@only("face", ["sync"])
def test_a_refresh_that_ends_its_thread_ends_only_itself(world: Any) -> None:
    process = expired(world)
    world.source.fail(SystemExit(1))
    assert process.call() == "old"
    process.settle()
    assert not len(process.service.flights)
    world.source.recover()
    assert process.call() == "old"
    process.settle()
    world.hear()
    assert process.call() == "new"


@only("kind", ["key", "tag", "function", "region"])
def test_what_is_invalidated_during_a_refresh_is_not_stored_by_it(world: Any, kind: str) -> None:
    process = expired(world, tags=["tag"])
    ways = {
        "key": lambda: process.f.invalidate(1),
        "tag": lambda: process.in_region("invalidate_tags", "tag"),
        "function": lambda: process.f.invalidate_all(),
        "region": lambda: process.in_region("clear"),
    }
    process.during = lambda: process.apart(ways[kind])
    assert process.call() == "old"
    process.settle()
    process.during = lambda: None
    world.source.recover("newest")
    world.hear()
    assert process.call() == "newest", "neither the stale value nor what was computed before the invalidation"


def test_what_is_invalidated_is_not_given_while_a_refresh_runs(world: Any) -> None:
    process = expired(world)
    process.gate.clear()
    assert process.call() == "old"
    process.until_begun(2)
    process.apart(lambda: process.f.invalidate(1))
    world.source.recover("newest")
    process.gate.set()
    assert process.call() == "newest"


variable: ContextVar[str] = ContextVar("variable", default="nothing")


def test_a_refresh_sees_the_context_of_its_caller_and_an_entry_of_its_own(world: Any) -> None:
    process = expired(world)
    seen: list[Any] = []

    def during() -> None:
        seen.append((variable.get(), current_entry().stale_value))
        current_entry().ttl = 5.0

    async def call() -> Any:
        token = variable.set("the caller's")
        try:
            return await process.f(1) if world.face == "async" else process.f(1)
        finally:
            variable.reset(token)

    process.during = during
    if world.face == "async":
        assert world.runner.run(call()) == "old"
    else:
        with pytest.raises(StopIteration, match="old"):
            call().send(None)
    process.settle()
    assert seen == [("the caller's", "old")]
    world.hear()
    assert process.call() == "new"
    world.advance(5.0)
    assert process.wait(process.f.peek(1)) is MISS, "the ttl that was set behind is the one that counts"


def test_allow_stale_takes_the_old_value_and_refreshes_nothing(world: Any) -> None:
    process = expired(world)
    assert process.wait(process.f.using(allow_stale=True)(1)) == "old"
    process.settle()
    assert len(process.runs) == 1
    assert process.wait(process.f.using(allow_stale=False)(1)) == "new"


def test_who_stores_nothing_refreshes_nothing(world: Any) -> None:
    process = expired(world)
    for _ in range(3):
        assert process.wait(process.f.using(read_only=True)(1)) == "old"
        process.settle()
    assert len(process.runs) == 1


def test_a_marked_value_is_refreshed_behind(world: Any) -> None:
    process = world.process(swr=True)
    process.call()
    world.source.recover()
    process.wait(process.f.mark_stale(1))
    assert process.call() == "old"
    process.settle()
    world.hear()
    assert process.call() == "new"


def test_too_many_refreshes_are_dropped_and_counted(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachekit.engine.workers.QUEUE", 3)
    monkeypatch.setattr("cachekit.engine.ports.MOST_TASKS", 7)
    process = world.process(swr=True)
    for key in range(10):
        process.call(key)
    world.hear()
    for key in range(10):
        process.call(key)
    world.advance(TTL)
    world.source.recover()
    process.gate.clear()
    threads_busy = threading.Event()

    async def one_after_the_other() -> list[Any]:
        answers = []
        for key in range(10):
            value = process.f(key)
            answers.append(await value if world.face == "async" else value)
            if world.face == "sync":  # the four threads take what is theirs before the queue is looked at
                for _ in range(500):
                    if process.service.workers.waiting == max(0, key - 3) or key >= 7:
                        break
                    threads_busy.wait(0.01)
        return answers

    if world.face == "async":
        answers = world.runner.run(one_after_the_other())
    else:
        with pytest.raises(StopIteration) as ended:
            one_after_the_other().send(None)
        answers = ended.value.value
    assert answers == ["old"] * 10
    process.gate.set()
    process.settle()
    assert process.tally.refreshes == {("swr", "dropped"): 3, ("swr", "stored"): 7}
    assert len(process.runs) == 17
    world.hear()
    for key in range(10):
        process.call(key)
    process.settle()
    world.hear()
    assert [process.call(key) for key in range(10)] == ["new"] * 10, "those that were dropped had another chance"


@only("face", ["sync"])
def test_a_key_waits_once_for_a_thread(world: Any) -> None:
    process = world.process(swr=True)
    for _ in range(2):
        for key in range(1, 6):
            process.call(key)
        world.hear()
    world.advance(TTL)
    world.source.recover()
    process.gate.clear()
    for key in range(2, 6):  # all threads are taken
        assert process.call(key) == "old"
    world.until(lambda: len(process.runs) == 9)
    assert process.many(100) == ["old"] * 100
    assert process.service.workers.waiting == 1
    process.gate.set()
    process.settle()
    assert [key for key, _ in process.runs].count(1) == 2
    assert process.tally.refreshes == {("swr", "stored"): 5}


def test_who_asks_for_a_refresh_when_one_has_just_ended_begins_no_other(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = expired(world)
    begin, held = flow.refresh_behind, []
    with monkeypatch.context() as patched:
        patched.setattr(flow, "refresh_behind", lambda *args: held.append(args))
        assert process.call() == "old"
    assert process.call() == "old"
    process.settle()

    async def late() -> None:
        begin(*held[0])

    if world.face == "async":
        world.runner.run(late())
    else:
        begin(*held[0])
    process.settle()
    assert len(process.runs) == 2
    assert process.tally.refreshes == {("swr", "stored"): 1, ("swr", "found"): 1}


# -------------------------------------------------------------------------------------------------- several processes


@only("tiers", ["tracking", "ttl"])
@only("l1", ["on", "off"])
def test_a_refresh_reaches_all_processes(world: Any, l1: str) -> None:
    one = expired(world, l1={"mode": l1})
    other = world.process(swr=True, l1={"mode": l1})
    assert one.call() == "old"
    one.settle()
    world.hear()
    assert (one.call(), other.call()) == ("new", "new")
    assert (len(one.runs), len(other.runs)) == (2, 0)


@only("tiers", ["tracking", "ttl"])
@only("l1", ["on", "off"])
def test_while_another_process_refreshes_nobody_waits_and_nobody_computes(world: Any, l1: str) -> None:
    one = expired(world, l1={"mode": l1})
    other = world.process(swr=True, l1={"mode": l1})
    if world.face == "async":  # its refresh goes on while the other one is called

        async def both() -> None:
            one.gate.clear()
            assert await one.f(1) == "old"
            while len(one.runs) < 2:
                await asyncio.sleep(0.001)
            for _ in range(20):
                assert await other.f(1) == "old"
                await other.service.async_port.wait_for_tasks(5)
            one.gate.set()
            await one.service.async_port.wait_for_tasks(5)

        world.runner.run(both())
    else:
        one.gate.clear()
        assert one.call() == "old"
        world.until(lambda: len(one.runs) == 2)
        for _ in range(20):
            assert other.call() == "old"
            other.settle()
        one.gate.set()
        one.settle()
    assert len(other.runs) == 0
    assert other.tally.refreshes == {("swr", "busy"): 1}, "it is not asked after again at once"
    world.advance(3.0)
    assert other.call() == "new"
    assert (len(one.runs), len(other.runs)) == (2, 0)


@only("tiers", ["tracking"])
def test_a_process_that_has_not_heard_of_a_refresh_finds_it_behind(world: Any) -> None:
    one, other = world.process(swr=True), world.process(swr=True)
    one.call()
    world.hear()
    assert (one.call(), other.call()) == ("old", "old")
    world.advance(TTL)
    world.source.recover()
    assert one.call() == "old"
    one.settle()
    assert other.call() == "old", "it has not heard"
    other.settle()
    assert other.runs == []
    assert other.tally.refreshes == {("swr", "found"): 1}
    world.hear()
    assert other.call() == "new"
    assert other.runs == []


@only("tiers", ["tracking", "ttl"])
def test_with_l2_away_a_refresh_goes_to_the_source_and_l1_keeps_it(world: Any) -> None:
    with start_server("valkey") as server:
        world.server = server
        process = expired(world, backend={"budget": 1.0, "breaker": BreakerSpec(failures=1)}, stale_without_proof=300.0)
        server.kill()
        if world.tiers == "tracking":
            process.coherence.lose("test")
        assert process.call() == "old"
        process.settle()
        assert len(process.runs) == 2
        assert process.call() == "new"
        assert len(process.runs) == 2
