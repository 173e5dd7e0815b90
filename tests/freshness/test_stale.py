"""A stale value stands in for an error, the source is left alone meanwhile, and nothing invalidated ever comes back."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cachekit import MISS, Outcome
from cachekit.engine.freshness import LONGEST_PAUSE
from cachekit.testing.servers import Server, start_server

TTL, STALE = 60.0, 600.0
only = pytest.mark.parametrize


def expired(world: Any, **given: Any) -> Any:
    """A process with a value whose TTL is over."""
    process = world.process(**given)
    assert process.call() == "old"
    world.advance(TTL)
    return process


# ------------------------------------------------------------------------------------------ instead of an error


def test_an_error_is_answered_with_the_stale_value_for_as_long_as_that_is_kept(world: Any) -> None:
    process = world.process(stale_throttle=0.0)
    process.call()
    began = process.clock.now()
    world.advance(TTL)
    error = world.source.fail()
    while process.clock.now() < began + TTL + STALE:
        assert process.call() == "old"
        assert process.view() is None or not process.view().fresh
        process.clock.advance(min(100.0, max(began + TTL + STALE - process.clock.now() - 0.01, 0.01)))
        if world.tiers == "tracking" and process.clock.now() < began + TTL + STALE - 5:
            process.hear()
    with pytest.raises(type(error)) as caught:
        process.call()
    assert caught.value is error


def test_without_a_stale_value_the_caller_gets_the_exception_of_the_function(world: Any) -> None:
    process = world.process()
    error = world.source.fail(ValueError("its own"))
    for _ in range(3):
        with pytest.raises(ValueError, match="its own") as caught:
            process.call()
        assert caught.value is error
    assert len(process.runs) == 3, "there is nothing to give meanwhile, so the source is asked"
    world.source.recover()
    assert process.call() == "new"


def test_without_stale_ttl_nothing_stands_in(world: Any) -> None:
    process = world.process(stale_ttl=0.0)
    process.call()
    world.advance(TTL)
    error = world.source.fail()
    with pytest.raises(type(error)):
        process.call()


def test_stale_on_error_can_be_switched_off(world: Any) -> None:
    process = expired(world, stale_on_error=False)
    error = world.source.fail()
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            process.call()
        assert caught.value is error
    assert len(process.runs) == 3


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "no caller gets the exception" in each.getMessage()]


def test_an_exception_that_no_caller_gets_is_logged_once_until_all_is_well_again(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    process = expired(world, stale_throttle=0.0)
    error = world.source.fail()
    for turn in (1, 2):
        for _ in range(3):
            assert process.call() in ("old", "new")
        assert len(told(caplog)) == turn
        assert caplog.records[-1].exc_info is not None and caplog.records[-1].exc_info[1] is error
        world.source.recover()
        assert process.call() == "new"
        world.advance(TTL)
        error = world.source.fail()


def test_a_refresh_that_fails_behind_is_logged_once_too(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    process = expired(world, swr=True, stale_throttle=0.0)
    world.source.fail()
    for _ in range(3):
        assert process.call() == "old"
        process.settle()
    assert len(told(caplog)) == 1


def test_an_exception_that_a_caller_gets_is_not_logged(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    process = world.process()
    error = world.source.fail()
    with pytest.raises(type(error)):
        process.call()
    assert told(caplog) == []


class Refused(PermissionError):
    """An answer, not a failure."""


@only("name", ["builtins.PermissionError", f"{Refused.__module__}.Refused"])
def test_an_exception_that_is_an_answer_reaches_the_caller(world: Any, name: str) -> None:
    process = expired(world, stale_unless=(name,))
    error = world.source.fail(Refused("not you"))
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            process.call()
        assert caught.value is error
    assert len(process.runs) == 3, "nor is the source left alone because of it"
    world.source.fail()
    assert process.call() == "old", "other errors are failures"


@only("error", [KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError()], ids=repr)
@only("tiers", ["l1", "ttl"])
def test_what_ends_a_program_or_a_task_is_never_answered(world: Any, error: BaseException) -> None:
    process = expired(world)
    world.source.fail(error)
    with pytest.raises(type(error)):
        process.call()
    if world.face == "async" and not isinstance(error, asyncio.CancelledError):  # its loop ended with it
        world.runner.close()
        world.runner = asyncio.Runner()
    assert process.tally.stale == 0
    assert not len(process.service.flights), "nobody is left to wait for"
    assert not process.service._pauses.ends
    world.source.recover()
    assert process.call() == "new"


@only("face", ["async"])
@only("tiers", ["l1", "ttl"])
def test_a_caller_that_is_cancelled_while_the_function_runs_gets_no_stale_value(world: Any) -> None:
    process = expired(world)

    async def body() -> None:
        running = asyncio.Event()

        async def hangs(key: int) -> None:
            running.set()
            await asyncio.Event().wait()

        function = process.f.__cachekit_function__
        function.fn, before = hangs, function.fn
        task = asyncio.create_task(process.f(1))
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        function.fn = before
        await process.service.async_port.wait_for_tasks(5)

    world.runner.run(body())
    assert process.tally.stale == 0
    assert not len(process.service.flights)
    world.source.recover()
    assert process.call() == "new", "and its source is not left alone"


def test_allow_stale_false_never_gets_one_and_true_always_does(world: Any) -> None:
    process = expired(world)
    world.source.fail()
    assert process.call() == "old"
    with pytest.raises(Exception, match="away"):
        process.wait(process.f.using(allow_stale=False)(1))
    world.source.recover()
    assert process.call() == "old", "the source is left alone"
    assert process.wait(process.f.using(allow_stale=True)(1)) == "old"
    assert process.wait(process.f.using(allow_stale=False)(1)) == "new"
    assert process.call() == "new"


def test_a_refresh_on_demand_tells_of_its_failure(world: Any) -> None:
    process = expired(world)
    error = world.source.fail()
    for call in (process.f.refresh, process.f.using(force_refresh=True)):
        with pytest.raises(type(error)):
            process.wait(call(1))
    assert process.call() == "old"


# ---------------------------------------------------------------------------------------- the source is left alone


def pauses(first: float) -> list[float]:
    """The times of the source's calls after the first one that failed."""
    times, pause = [0.0], first
    while times[-1] < 3000:
        times.append(times[-1] + pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    return times


def in_seconds(process: Any, key: int = 1, since: float = 0.0) -> list[float]:
    return [round(at - since, 6) for each, at in process.runs if each == key and at >= since]


RATE, KEYS, OUTAGE = 200, 50, 600


def traffic(process: Any, seconds: int, seen: Callable[[int, Any, float], object]) -> None:
    """Requests at `RATE` of the frozen clock, evenly over `KEYS`."""

    async def requests() -> None:
        step = 1 / RATE
        for second in range(seconds):
            for number in range(RATE):
                key = number % KEYS
                value = process.f(key)
                if process.world.face == "async":
                    value = await value
                seen(key, value, process.clock.now())
                process.clock.advance(step)
            if process.world.tiers == "tracking" and process.coherence.live:
                now = process.clock.now()
                process.turn_until(lambda now=now: process.coherence.proof >= now - 1.5)
            elif process.world.tiers == "killed" and second % 10 == 0:
                process.coherence.turn(0.0)

    if process.world.face == "async":
        process.world.runner.run(requests())
    else:
        coroutine = requests()
        with pytest.raises(StopIteration):
            coroutine.send(None)


@only(
    ("face", "tiers"),
    [
        ("sync", "l1"),
        *[
            pytest.param(*each, marks=pytest.mark.slow)
            for each in [
                ("async", "tracking"),
                ("async", "l1"),
                ("sync", "tracking"),
            ]
        ],
        *[pytest.param(*each, marks=pytest.mark.nightly) for each in [("sync", "ttl"), ("async", "ttl")]],
    ],
)
def test_a_source_that_is_down_for_ten_minutes_is_felt_by_nobody(world: Any) -> None:
    outage(world)


def outage(world: Any, kill: Server | None = None) -> None:
    process = world.process(stale_ttl=3600.0, stale_without_proof=3600.0)
    traffic(process, 3, lambda key, value, now: None)  # until L1 has it: the echo of its own store takes it away
    assert len(process.runs) == KEYS
    world.advance(TTL)
    world.source.fail()
    if kill is not None:
        kill.kill()
        world.tiers = "killed"
    began = process.clock.now()
    served = set()
    traffic(process, OUTAGE, lambda key, value, now: served.add(value))
    assert served == {"old"}, "no error reaches a caller, nor anything else"
    ended = process.clock.now()
    expected = [at for at in pauses(30.0) if at < OUTAGE]
    assert expected == [0.0, 30.0, 90.0, 210.0, 450.0]
    for key in range(KEYS):
        calls = in_seconds(process, key, began)
        assert [round(at - calls[0], 2) for at in calls] == expected, key
        assert calls[0] < 0.25 + 1e-9, key
    world.source.recover()
    if kill is not None:
        kill.restart()
        world.tiers = "tracking"
        process.turn_until(lambda: process.coherence.live)
    recovered: dict[int, float] = {}
    traffic(process, 151, lambda key, value, now: recovered.setdefault(key, now) if value == "new" else None)
    assert len(recovered) == KEYS
    if kill is None:
        last = {key: at for key, at in process.runs if at < ended}
        for key, at in recovered.items():
            assert round(at - last[key], 2) == LONGEST_PAUSE, "with the end of its pause each key is well again"
            assert len([each for each, when in process.runs if each == key and when >= ended]) <= 3


@pytest.mark.slow
@only("tiers", ["tracking"])
def test_a_source_and_a_server_that_are_down_for_ten_minutes_are_felt_by_nobody(world: Any) -> None:
    with start_server("valkey") as server:
        world.server = server
        outage(world, server)


def test_each_failure_doubles_the_pause_up_to_five_minutes_and_a_success_ends_that(world: Any) -> None:
    process = expired(world, stale_ttl=36_000.0, stale_throttle=7.0, ttl=TTL)
    world.source.fail()
    began = process.clock.now()
    step, paused = 0.5, pauses(7.0)
    while process.clock.now() - began < 1200:
        assert process.call() == "old"
        process.clock.advance(step)
        if world.tiers == "tracking" and process.clock.now() - process.coherence.proof > 2:
            process.turn_until(lambda: process.clock.now() - process.coherence.proof < 1)
    assert in_seconds(process, since=began) == [at for at in paused if at < 1200]
    world.source.recover()
    world.advance(LONGEST_PAUSE)
    assert process.call() == "new"
    assert process.view().fresh
    world.advance(TTL)
    world.source.fail()
    began = process.clock.now()
    assert process.call() == "new"
    world.advance(6.0 - (1.0 if world.tiers == "tracking" else 0.0))
    assert process.call() == "new"
    world.advance(1.0)
    assert process.call() == "new"
    assert len(in_seconds(process, since=began)) == 2, "it begins with seven seconds again"


def test_keys_are_paused_one_by_one(world: Any) -> None:
    process = world.process()
    for key in (1, 2):
        process.call(key)
    world.advance(TTL)
    world.source.fail()
    assert process.call(1) == "old"
    world.source.recover()
    assert (process.call(1), process.call(2)) == ("old", "new")


def test_an_invalidation_ends_the_pause(world: Any) -> None:
    process = expired(world)
    world.source.fail()
    assert process.call() == "old"
    world.source.recover()
    assert process.wait(process.f.invalidate(1)) is Outcome.DONE
    assert process.call() == "new"


@only("tiers", ["ttl", "tracking"])
def test_the_pause_ends_with_a_value_that_another_process_computed(world: Any) -> None:
    """Its source is well, so ours is: the next failure is judged anew, and so is the next expiry."""
    one, other = world.process(stale_throttle=300.0), world.process()
    one.call()
    world.advance(TTL)
    world.source.fail()
    assert one.call() == "old"
    world.source.recover()
    world.advance(10.0)
    assert other.call() == "new"
    world.hear()
    assert one.call() == "new"
    world.source.recover("newer")
    world.advance(TTL)
    assert one.call() == "newer"


@only("tiers", ["ttl", "tracking"])
def test_what_stands_in_is_neither_stored_nor_told_of(world: Any) -> None:
    one, other = world.process(), world.process()
    one.call()
    world.hear()
    one.call()
    other.call()
    key = str.__str__(one.f.key(1))
    world.advance(TTL)
    before = world.server.command("GET", key)
    expires = int(world.server.command("PEXPIRETIME", key))
    ticket = other.service.versions.ticket()
    world.source.fail()
    for _ in range(30):
        assert one.call() == "old"
        world.advance(10.0)
    assert world.server.command("GET", key) == before
    assert int(world.server.command("PEXPIRETIME", key)) == expires
    if world.tiers == "tracking":
        assert other.view() is not None, "no push took it away"
        assert other.service.versions.ticket() == ticket, "nothing was told of at all"
    assert one.view() is None or not one.view().fresh
    world.source.recover()
    assert other.call() == "new", "another process is not paused by it"


# ---------------------------------------------------------------------------------------------------- waiters


def test_everybody_who_waits_for_a_load_that_fails_gets_the_stale_value(world: Any) -> None:
    process = expired(world)
    world.source.fail()
    answers = together(process, 10)
    assert answers == ["old"] * 10
    assert process.f.cache_info().stale == 10
    assert len(process.runs) == 2, "one load for all of them, and none after it"


def test_everybody_who_waits_for_a_load_that_fails_gets_its_error_if_nothing_is_stale(world: Any) -> None:
    process = world.process()
    error = world.source.fail()
    answers = together(process, 10)
    assert answers == [error] * 10
    assert len(process.runs) == 1


def together(process: Any, count: int) -> list[Any]:
    """So many calls of which one leads and all others wait for it."""

    def waiting() -> bool:
        if not any(flight.interested == count for flight in list(process.service.flights.running.values())):
            return False
        process.gate.set()
        return True

    process.gate.clear()
    try:
        return list(process.many(count, waiting))
    finally:
        assert process.gate.is_set(), "they did not wait for each other"


# ---------------------------------------------------------------------------------------------- what was invalidated

WAYS: dict[str, Callable[[Any], Any]] = {
    "key": lambda process: process.f.invalidate(1),
    "tag": lambda process: process.in_region("invalidate_tags", "tag"),
    "function": lambda process: process.f.invalidate_all(),
    "region": lambda process: process.in_region("clear"),
}


@only("when", ["fresh", "stale", "paused"])
@only("way", WAYS)
def test_an_invalidated_value_never_stands_in(world: Any, way: str, when: str) -> None:
    process = world.process(tags=["tag"])
    process.call()
    if when != "fresh":
        world.advance(TTL)
    error = world.source.fail()
    if when == "paused":
        assert process.call() == "old"
    assert process.wait(WAYS[way](process)) is Outcome.DONE
    if when == "fresh":
        world.advance(TTL)
    for call in (process.f, process.f.using(allow_stale=True)):
        with pytest.raises(type(error)) as caught:
            process.wait(call(1))
        assert caught.value is error


@only("way", WAYS)
def test_a_value_that_is_invalidated_while_the_function_runs_does_not_stand_in(world: Any, way: str) -> None:
    process = expired(world, tags=["tag"])
    error = world.source.fail()
    process.during = lambda: process.apart(lambda: WAYS[way](process))
    with pytest.raises(type(error)) as caught:
        process.call()
    assert caught.value is error


def test_a_value_that_is_marked_as_stale_while_the_function_runs_stands_in(world: Any) -> None:
    process = expired(world)
    world.source.fail()
    process.during = lambda: process.apart(lambda: process.f.mark_stale(1))
    assert process.call() == "old"


@only("tiers", ["ttl", "tracking"])
@only("l1", ["on", "off"])
@only("way", WAYS)
def test_a_value_that_another_process_invalidated_never_stands_in(world: Any, way: str, l1: str) -> None:
    one = world.process(tags=["tag"], l1={"mode": l1})
    other = world.process(tags=["tag"])
    one.call()
    world.advance(TTL)
    error = world.source.fail()
    assert one.call() == "old"
    assert other.wait(WAYS[way](other)) is Outcome.DONE
    if world.tiers == "ttl":
        world.advance(3.0)  # max_staleness
    elif l1 == "on":
        one.hear()
    else:
        world.advance(3.0)
    with pytest.raises(type(error)) as caught:
        one.call()
    assert caught.value is error


@only("tiers", ["ttl", "tracking"])
@only("way", WAYS)
def test_a_value_that_another_process_invalidates_while_the_function_runs_does_not_stand_in(
    world: Any, way: str
) -> None:
    one, other = world.process(tags=["tag"]), world.process(tags=["tag"])
    one.call()
    world.advance(TTL)
    error = world.source.fail()

    def during() -> None:
        assert one.apart(lambda: WAYS[way](other)) is Outcome.DONE
        if world.tiers == "tracking":
            one.hear()
        else:
            world.advance(3.0)

    one.during = during
    with pytest.raises(type(error)) as caught:
        one.call()
    assert caught.value is error


# ---------------------------------------------------------------------------------------------------- mark_stale


def test_what_is_marked_as_stale_is_computed_anew_and_stands_in_if_that_fails(world: Any) -> None:
    process = world.process()
    process.call()
    world.source.fail()
    assert process.wait(process.f.mark_stale(1)) is Outcome.DONE
    assert process.call() == "old"
    assert len(process.runs) == 2
    world.source.recover()
    assert process.call() == "old", "the source is left alone"
    world.advance(30.0)
    assert process.call() == "new"
    assert process.view().fresh


def test_what_is_marked_as_stale_is_computed_anew_at_the_next_call(world: Any) -> None:
    process = world.process()
    process.call()
    world.source.recover()
    assert process.call() == "old"
    process.wait(process.f.mark_stale(1))
    assert process.wait(process.f.peek(1)) is MISS
    assert process.wait(process.f.using(allow_stale=True).peek(1)) == "old"
    assert (process.call(), process.call()) == ("new", "new")
    assert len(process.runs) == 2


def test_marking_ends_a_pause(world: Any) -> None:
    process = expired(world)
    world.source.fail()
    process.call()
    world.source.recover()
    process.wait(process.f.mark_stale(1))
    assert process.call() == "new"


def test_marking_does_not_bring_back_what_was_invalidated(world: Any) -> None:
    process = world.process()
    process.call()
    process.wait(process.f.invalidate(1))
    process.wait(process.f.mark_stale(1))
    error = world.source.fail()
    with pytest.raises(type(error)):
        process.call()


def test_a_region_marks_its_own_keys(world: Any) -> None:
    process = world.process()

    def do(name: str, *args: Any) -> Any:
        return process.wait(process.in_region(name, *args))

    def factory() -> Any:
        return process.load(0)

    assert do("get_or_set", "key", factory) == "old"
    assert do("mark_stale", "key") is Outcome.DONE
    assert do("get", "key") is None
    world.source.fail()
    assert do("get_or_set", "key", factory) == "old"
    world.advance(30.0)
    world.source.recover()
    assert do("get_or_set", "key", factory) == "new"


@only("tiers", ["ttl", "tracking"])
def test_another_process_hears_that_a_value_was_marked_and_may_still_use_it(world: Any) -> None:
    one, other = world.process(), world.process()
    one.call()
    assert other.call() == "old"
    world.hear()
    assert other.call() == "old"
    assert one.wait(one.f.mark_stale(1)) is Outcome.DONE
    world.advance(3.0)
    world.source.fail()
    assert other.call() == "old"
    assert len(other.runs) == 1, "it asked the source"
    world.source.recover()
    world.advance(30.0)
    assert other.call() == "new"


# ------------------------------------------------------------------------------------------------------ from L2


@only("tiers", ["ttl", "tracking"])
@only("l1", ["on", "off"])
def test_a_cold_process_takes_the_stale_value_from_l2(world: Any, l1: str) -> None:
    world.process().call()
    world.advance(TTL)
    world.source.fail()
    cold = world.process(l1={"mode": l1})
    for _ in range(5):
        assert cold.call() == "old"
    assert len(cold.runs) == 1
    world.advance(30.0)
    assert cold.call() == "old"
    assert len(cold.runs) == 2
    assert cold.tally.stale == 6
    world.source.recover()
    world.advance(60.0)
    assert cold.call() == "new"


@only("tiers", ["ttl", "tracking"])
def test_l2_keeps_a_value_for_as_long_as_it_may_stand_in(world: Any) -> None:
    process = world.process()
    process.call()
    left = int(world.server.command("PTTL", str.__str__(process.f.key(1)))) / 1000
    assert TTL + STALE - 5 < left <= TTL + STALE


# ----------------------------------------------------------------------------------------------- L2 is away


@only("tiers", ["tracking", "ttl"])
@only("wanted", [None, 100.0, 0.0])
def test_while_l2_is_away_l1_stands_in_until_the_last_proof_is_too_old(world: Any, wanted: float | None) -> None:
    with start_server("valkey") as server:
        world.server = server
        process = world.process(stale_without_proof=wanted, ttl=5.0, stale_throttle=0.0, backend={"budget": 1.0})
        process.call()
        since = process.clock.now()
        if world.tiers == "tracking":
            process.hear()
            process.call()  # the echo of the own store took it away
            since = process.coherence.proof
        server.kill()
        error = world.source.fail()
        bound = 30.0 if wanted is None else wanted
        if world.tiers == "tracking":
            process.coherence.lose("test")
        process.clock.advance(since + 5.0 - process.clock.now())
        if bound:
            for _ in range(12):  # the breaker opens
                assert process.call() == "old"
                process.clock.advance(0.05)
            assert process.remote.breaker.state(process.clock.now()) == "open"
            process.clock.advance(since + bound - 0.01 - process.clock.now())
            assert process.call() == "old"
            process.clock.advance(0.02)
        with pytest.raises(type(error)) as caught:
            process.call()
        assert caught.value is error


@only("tiers", ["tracking", "ttl"])
def test_what_is_marked_while_l2_is_away_is_removed_there_later(world: Any) -> None:
    with start_server("valkey") as server:
        world.server = server
        process = world.process(backend={"budget": 0.3})
        process.call()
        process.hear() if world.tiers == "tracking" else None
        process.call()
        server.pause()
        try:
            assert process.wait(process.f.mark_stale(1)) is Outcome.QUEUED
            world.source.fail()
            assert process.call() == "old", "this process has it as stale"
        finally:
            server.resume()
        world.source.recover()
        process.clock.advance(40.0)
        for _ in range(10):
            process.clock.advance(5.0)
            if process.call() == "new":
                break
        assert process.call() == "new"
