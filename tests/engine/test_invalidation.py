"""P3 within one process: an invalidation always wins, also against a computation that is running.

`test_without_tickets_the_old_value_survives` is the control: with the rule switched off the same check fails.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cachekit import MISS, Outcome, cache, current_entry, invalidate_tags, region
from cachekit.l1.versions import Versions
from cachekit.service import Service

MODES = ["l1", "server", "server without l1"]


def start(make_service: Any, mode: str) -> Any:
    return make_service(mode.split()[0], l1="off" if mode.endswith("without l1") else None)


class Source:
    """Data that changes, and a reader who can be stopped between reading and returning."""

    def __init__(self) -> None:
        self.value = "old"
        self.read = threading.Event()
        self.go_on = threading.Event()

    def load(self) -> str:
        value = self.value
        self.read.set()
        assert self.go_on.wait(10)
        return value

    async def aload(self) -> str:
        value = self.value
        self.read.set()
        while not self.go_on.is_set():
            await asyncio.sleep(0.001)
        return value


def by_key(function: Any) -> Any:
    return function.invalidate(1)


def by_function(function: Any) -> Any:
    return function.invalidate_all()


def by_tag(function: Any) -> Any:
    return invalidate_tags("user:1")


def by_late_tag(function: Any) -> Any:
    return invalidate_tags("late")


def by_region(function: Any) -> Any:
    return region("users").clear()


def by_entry_key(function: Any) -> Any:
    return region("users").delete(function.key(1))


WAYS = [by_key, by_function, by_tag, by_late_tag, by_region, by_entry_key]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_after_an_invalidation_during_the_computation_the_next_read_is_fresh(
    make_service: Any, mode: str, way: Callable[[Any], Any]
) -> None:
    start(make_service, mode)
    assert read_after_invalidation(way) == "new"


def read_after_invalidation(way: Callable[[Any], Any]) -> str:
    source = Source()

    @cache(version=1, profile="users", tags=lambda user_id: [f"user:{user_id}"])
    def load(user_id: int) -> str:
        value = source.load()
        current_entry().tags.add("late")
        return value

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(load, 1)
        assert source.read.wait(10)
        source.value = "new"
        assert way(load) is Outcome.DONE
        source.go_on.set()
        assert running.result(10) == "old", "that call began before the invalidation"
        return load(1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_the_same_for_coroutines(make_service: Any, mode: str, way: Callable[[Any], Any]) -> None:
    start(make_service, mode)
    source = Source()

    @cache(version=1, profile="users", tags=lambda user_id: [f"user:{user_id}"])
    async def load(user_id: int) -> str:
        value = await source.aload()
        current_entry().tags.add("late")
        return value

    running = asyncio.create_task(load(1))
    while not source.read.is_set():
        await asyncio.sleep(0.001)
    source.value = "new"
    outcome = way(load)
    assert (await outcome if asyncio.iscoroutine(outcome) else outcome) is Outcome.DONE
    source.go_on.set()
    assert await running == "old"
    assert await load(1) == "new"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_caller_who_comes_after_the_invalidation_does_not_join_the_old_computation(
    make_service: Any, mode: str, way: Callable[[Any], Any]
) -> None:
    start(make_service, mode)
    if way is by_late_tag:
        # Nobody can know a late tag before the function ends, so the joiner's result is judged at its end; the value
        # that he gets was computed from data read before, which is why tags by argument exist.
        way = by_tag
    source = Source()

    @cache(version=1, profile="users", tags=lambda user_id: [f"user:{user_id}"])
    def load(user_id: int) -> str:
        return source.load()

    with ThreadPoolExecutor(2) as pool:
        old = pool.submit(load, 1)
        assert source.read.wait(10)
        source.value = "new"
        way(load)
        source.read.clear()
        new = pool.submit(load, 1)
        assert source.read.wait(10), "the second caller computes anew"
        source.go_on.set()
        assert (old.result(10), new.result(10)) == ("old", "new")
    assert load(1) == "new"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_is_stored_is_gone_after_an_invalidation(make_service: Any, mode: str, way: Callable[[Any], Any]) -> None:
    start(make_service, mode)
    runs = []

    @cache(version=1, profile="users", tags=lambda user_id: [f"user:{user_id}"])
    def load(user_id: int) -> int:
        runs.append(user_id)
        current_entry().tags.add("late")
        return len(runs)

    assert load(1) == load(1) == 1
    assert way(load) is Outcome.DONE
    assert load.peek(1) is MISS
    assert load(1) == 2


@pytest.mark.parametrize("way", [by_key, by_function, by_tag, by_region], ids=lambda way: way.__name__)
def test_without_tickets_the_old_value_survives(
    pure_twin: None, make_service: Any, monkeypatch: pytest.MonkeyPatch, way: Callable[[Any], Any]
) -> None:
    monkeypatch.setattr(Versions, "allows", lambda *_: True)
    monkeypatch.setattr(Versions, "tag_event", lambda *_: 0)  # tagged entries are judged by it at each hit as well
    start(make_service, "l1")
    assert read_after_invalidation(way) == "old", "the check above would not notice a missing ticket"


def test_without_the_fence_the_old_value_survives_in_l2(make_service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cachekit.l2 import operation

    async def unfenced(*_: Any) -> operation.Held:
        return operation.Held(None)

    monkeypatch.setattr(operation, "acquire", unfenced)
    start(make_service, "server without l1")
    assert read_after_invalidation(by_key) == "old"


def test_an_invalidation_that_cannot_reach_l2_is_obeyed_here_and_delivered_first(
    make_service: Any, own_server: Any
) -> None:
    """Nothing is lost: the process that invalidated never sees the old value again, also after L2 is back."""
    make_service("server", backend={"url": own_server.url, "budget": 0.25, "breaker": quick_breaker()})
    source = {"value": "old"}

    @cache(version=1, profile="users")
    def load(key: int) -> str:
        return source["value"]

    assert load(1) == "old"
    own_server.pause()
    source["value"] = "new"
    assert load.invalidate(1) is Outcome.QUEUED
    assert load(1) == "new"
    own_server.resume()
    region("users").service.tiers("users").table.clear()  # as if L1 had forgotten: L2 still has the old value
    for _ in range(50):
        assert load(1) == "new"
        region("users").service.tiers("users").table.clear()
        threading.Event().wait(0.01)


def quick_breaker() -> Any:
    from cachekit.config.spec import BreakerSpec

    return BreakerSpec(open_for=0.05, open_max=0.1)


def test_a_set_wins_over_a_computation_that_runs(make_service: Any) -> None:
    start(make_service, "server")
    source = Source()
    users = region("users")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(users.get_or_set, "k", source.load)
        assert source.read.wait(10)
        users.set("k", "set")
        source.go_on.set()
        running.result(10)
    assert users.get("k") == "set"


async def test_writers_invalidate_by_tags_after_they_returned(make_service: Any) -> None:
    start(make_service, "server")
    data = {1: "old"}

    @cache(version=1, profile="users", tags=lambda user_id: [f"user:{user_id}"])
    def load(user_id: int) -> str:
        return data[user_id]

    @cache.invalidates(tags=lambda user_id, value: [f"user:{user_id}"])
    def save(user_id: int, value: str) -> None:
        data[user_id] = value

    @cache.invalidates(tags=["user:1"])
    async def asave(value: str) -> str:
        data[1] = value
        return value

    assert load(1) == "old"
    save(1, "new")
    assert load(1) == "new"
    assert await asave("newer") == "newer"
    assert load(1) == "newer"


def test_a_clear_by_another_process_is_seen_within_max_staleness(make_service: Any) -> None:
    """A hit in L2 is judged by stamps that may be as old as that already; L1 must not add the same time again."""
    from cachekit.testing.clock import FrozenClock

    clock = FrozenClock()
    ours = make_service("server", clock=clock, backend={"max_staleness": 3.0})
    other = Service(ours.spec, clock=clock)
    here, there = ours.region("users"), other.region("users")
    for key in ("warm", "k"):
        there.set(key, "old", tags=["t"])
    assert here.get("warm") == "old", "from now on the stamp of the tag is known here"
    clock.advance(2.5)
    there.invalidate_tags("t")
    assert here.get("k") == "old", "within the bound"
    clock.advance(0.6)
    assert here.get("k") is None
    other.close()
