"""Corners of the engine: what a caller may still rely on when something unusual happens in the middle of a call."""

import asyncio
import gc
import itertools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cachekit import MISS, Outcome, cache, current_entry, invalidate_tags, region
from cachekit.backends.base import AsyncBaseBackend, BaseBackend, Faces
from cachekit.backends.memory import MemoryBackend, as_coroutines
from cachekit.config.spec import BackendSpec, L1Spec, ServiceSpec, built_in_regions
from cachekit.engine.ports import drive
from cachekit.errors import BackendError, Fault, UnsupportedOperation
from cachekit.process import replace_default
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock

numbers = itertools.count()

Rig = Callable[..., Service]


@pytest.fixture
def rig() -> Iterator[Rig]:
    """``rig(backend)``: the default service with this object as its backend, or without one. `users` counts too."""
    before: list[Service | None] = []

    def make(
        backend: BaseBackend | AsyncBaseBackend | Faces | None = None,
        *,
        l1: str = "on",
        clock: Any = None,
        namespace: str | None = None,
        enabled: bool = True,
        options: Any = None,
        **fields: Any,
    ) -> Service:
        fields = {"jitter": 0.0, "l1": L1Spec(mode=l1), "backend": "default" if backend else "none", **fields}
        base = built_in_regions()["default"].but(**fields)
        spec = ServiceSpec(
            namespace=namespace or f"edges{next(numbers)}",
            namespace_given=True,
            enabled=enabled,
            backends={"default": BackendSpec(adaptive=False, **(options or {}))} if backend else {},
            regions={
                "default": base,
                "users": base.but(name="users"),
                "counts": base.but(name="counts", counters=True),
            },
        )
        service = Service(spec, clock=clock)
        if backend is not None:
            remote = service.remote("default")
            assert remote is not None
            if isinstance(backend, BaseBackend):
                backend = Faces(backend, as_coroutines(backend) if isinstance(backend, MemoryBackend) else None)
            elif not isinstance(backend, Faces):
                backend = Faces(None, backend)
            remote._faces = backend
        before.append(replace_default(service))
        return service

    yield make
    if before:
        replace_default(before[0])


class Minimal(BaseBackend):
    """What every backend must have and nothing more; `store` forgets to answer."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def get(self, key: str, *, budget: float) -> bytes | None:
        return self.values.get(key)

    def store(self, key: str, data: bytes, ttl_ms: int | None, token: bytes | None, *, budget: float) -> bool:
        self.values[key] = data
        return True

    def invalidate(self, keys: Sequence[str], *, budget: float) -> None:
        for key in keys:
            self.values.pop(key, None)

    def close(self) -> None:
        pass


class Down(MemoryBackend):
    """Fails while ``down`` names the operation, or is "all"."""

    down: tuple[str, ...] = ()
    reason = "timeout"

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        known = MemoryBackend.capabilities | {"get", "store", "invalidate"}
        if name not in known or not {name, "all"} & set(self.down):
            return found

        def fail(*args: Any, **kwargs: Any) -> Any:
            raise BackendError(Fault.COMMAND, self.reason)

        return fail


def flights(service: Service) -> int:
    return len(service.flights)


# ------------------------------------------------------------------------------------------ what an invalidation covers


def test_who_comes_after_the_clear_of_a_late_tag_does_not_get_the_older_computation(rig: Rig) -> None:
    service = rig()
    source, inside, go = ["old"], threading.Event(), threading.Event()

    @cache
    def load(key: int) -> str:
        value = source[0]
        if value == "old":
            inside.set()
            assert go.wait(10)
        current_entry().tags.add("late")
        return value

    with ThreadPoolExecutor(2) as pool:
        early = pool.submit(load, 1)
        assert inside.wait(10)
        source[0] = "new"
        invalidate_tags("late")
        after = pool.submit(load, 1)
        while not any(flight.interested == 2 for flight in list(service.flights.running.values())):
            threading.Event().wait(0.001)
        go.set()
        assert early.result(10) == "old"
        assert after.result(10) == "new"
    assert load(1) == "new"


@pytest.mark.parametrize("way", ["tag", "region", "all"])
def test_a_clear_reaches_functions_with_a_backend_of_their_own(rig: Rig, way: str) -> None:
    rig(MemoryBackend())
    runs = itertools.count()

    @cache(profile="users", version=1, backend=MemoryBackend(), tags=("t",), l1={"mode": "off"})
    def load(key: int) -> int:
        return next(runs)

    assert (load(1), load(1)) == (0, 0)
    assert {"tag": lambda: invalidate_tags("t"), "region": region("users").clear, "all": load.invalidate_all}[way]()
    assert load(1) == 1


def test_a_value_judged_by_an_aged_stamp_does_not_live_on_that_time_in_l1(rig: Rig) -> None:
    clock, shared = FrozenClock(), MemoryBackend()
    rig(shared, clock=clock, namespace="shared")
    users = region("users")
    users.set("k", "old", ttl=1000)
    other = rig(shared, clock=clock, namespace="shared").region("users")
    assert other.get("absent") is None
    other.set("x", 1)  # the other process knows the stamp of the region from now on
    clock.advance(2.9)
    first = rig(shared, clock=clock, namespace="shared").region("users")
    assert first.clear() is Outcome.DONE
    assert other.get("k") == "old", "the cell is trusted for a while"
    clock.advance(0.2)
    assert other.get("k") is None, "but not longer than max_staleness after the clear"


async def test_a_cancelled_clear_reaches_every_backend_later(rig: Rig) -> None:
    entered = asyncio.Event()

    class Slow(AsyncBaseBackend):
        capabilities = frozenset({"clear"})

        async def clear(self, names: Sequence[str], *, budget: float) -> None:
            entered.set()
            await asyncio.sleep(60)

    service = rig(Slow())
    other = MemoryBackend()

    @cache(profile="users", version=1, backend=other, tags=("t",))
    def load(key: int) -> int:
        return key

    load(1)
    task = asyncio.create_task(region("users").ainvalidate_tags("t"))
    await asyncio.wait_for(entered.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    waiting = [len(remote.outbox) for remote in (*service._remotes.values(), *service._objects.values())]
    assert waiting == [2, 2], "the clock of tags and the tag, for each"


@pytest.mark.parametrize("face", ["sync", "async"])
async def test_an_interrupted_set_leaves_no_older_value_behind(rig: Rig, face: str) -> None:
    class Stuck(MemoryBackend):
        stuck = False

        def store(self, *args: Any, **kwargs: Any) -> bool:
            if self.stuck:
                raise KeyboardInterrupt
            return super().store(*args, **kwargs)

    backend = Stuck()
    rig(backend)
    users = region("users")
    users.set("k", "old")
    backend.stuck = True
    with pytest.raises(KeyboardInterrupt):
        users.set("k", "new") if face == "sync" else await drained(users.aset("k", "new"))
    assert users.get("k") is None


async def drained(coroutine: Any) -> Any:
    """As await, but KeyboardInterrupt does not stop the loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value


# ------------------------------------------------------------------------------------------------- flights and leases


async def test_a_leader_cancelled_while_it_asks_for_the_lease_leaves_its_load_to_the_waiters(rig: Rig) -> None:
    asked, go = asyncio.Event(), asyncio.Event()
    backend = MemoryBackend()
    faces = Faces(backend, as_coroutines(backend))

    async def get_or_lease(*args: Any, **kwargs: Any) -> Any:
        asked.set()
        await go.wait()
        return backend.get_or_lease(*args, **kwargs)

    faces.aio.get_or_lease = get_or_lease
    service = rig(faces)
    runs = itertools.count(1)

    @cache(profile="users", version=1)
    async def load(key: int) -> int:
        await asyncio.sleep(0.01)
        return next(runs)

    leader = asyncio.create_task(load(1))
    await asyncio.wait_for(asked.wait(), 5)
    waiters = [asyncio.create_task(load(1)) for _ in range(3)]
    await asyncio.sleep(0.01)
    leader.cancel()
    await asyncio.sleep(0.01)
    go.set()
    assert await asyncio.gather(*waiters) == [1, 1, 1]
    assert next(runs) == 2
    assert flights(service) == 0


@pytest.mark.parametrize("l1", ["on", "off"])
async def test_a_call_cancelled_at_any_point_leaves_neither_flight_nor_lease(rig: Rig, l1: str) -> None:
    backend = MemoryBackend()

    def slow(name: str) -> Any:
        async def method(*args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0)
            answer = getattr(backend, name)(*args, **kwargs)
            await asyncio.sleep(0)
            return answer

        return method

    faces = Faces(backend, as_coroutines(backend))
    for name in (*MemoryBackend.capabilities, "get", "store", "invalidate"):
        setattr(faces.aio, name, slow(name))
    service = rig(faces, l1=l1)

    @cache(profile="users", version=1)
    async def load(key: int) -> int:
        await asyncio.sleep(0)
        return key

    async def steps(key: int) -> int:
        """How many turns of the loop a whole call takes."""
        task, count = asyncio.create_task(load(key)), 0
        while not task.done():
            await asyncio.sleep(0)
            count += 1
        return count

    total = await steps(-1)
    for turns in range(total + 1):
        task = asyncio.create_task(load(turns))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for _ in range(20):
            await asyncio.sleep(0)
        assert flights(service) == 0, f"after {turns} turns"
        assert not backend.leases.items, f"after {turns} turns"
        assert await asyncio.wait_for(load(turns), 5) == turns
    port = service.async_port
    assert not port.tasks


def test_an_interrupted_function_gives_its_lease_back(rig: Rig) -> None:
    backend = MemoryBackend()
    rig(backend)
    errors: list[type[BaseException]] = [KeyboardInterrupt, SystemExit]

    @cache(profile="users", version=1)
    def load(key: int) -> int:
        if errors:
            raise errors.pop()
        return key

    for error in list(errors)[::-1]:
        with pytest.raises(error):
            load(1)
        assert not backend.leases.items
    assert load(1) == 1
    assert backend.values.items


def test_a_load_whose_loop_is_gone_keeps_nobody_waiting(rig: Rig) -> None:
    rig()
    started: list[Any] = []

    @cache
    async def load(key: int) -> int:
        if not started:
            started.append(asyncio.current_task())
            await asyncio.sleep(3600)
        return key

    async def start() -> Any:
        task = asyncio.create_task(load(1))
        await asyncio.sleep(0.01)
        return task

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # the tasks are destroyed, as intended
    task = loop.run_until_complete(start())
    loop.close()
    assert asyncio.run(asyncio.wait_for(load(1), 5)) == 1
    del task
    started.clear()
    gc.collect()


def test_a_key_whose_hash_calls_a_cached_function_does_not_block(rig: Rig) -> None:
    rig()

    @cache(condition=lambda value: False)
    def inner(key: int) -> int:
        return key

    class Odd:
        def __hash__(self) -> int:
            return inner(1)

        def __eq__(self, other: object) -> bool:
            return inner(1) == 1

    @cache
    def outer(odd: Odd) -> int:
        return 7

    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(outer(Odd())), daemon=True)
    thread.start()
    thread.join(5)
    assert done == [7]


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration, KeyError])
async def test_whatever_a_blocking_function_raises_in_its_worker_thread_arrives(
    rig: Rig, error: type[Exception]
) -> None:
    rig()

    @cache
    def load(key: int) -> int:
        raise error("mine")

    with pytest.raises((error, RuntimeError), match=r"mine|StopIteration"):
        await asyncio.wait_for(load.twin()(1), 5)


@pytest.mark.parametrize("error", [StopIteration, KeyError, ValueError, AssertionError, RecursionError])
@pytest.mark.parametrize("face", ["sync", "async"])
async def test_a_backend_may_raise_anything(rig: Rig, error: type[Exception], face: str) -> None:
    class Odd(Minimal):
        def get(self, key: str, *, budget: float) -> bytes | None:
            raise error

    rig(Odd())

    @cache(profile="users", version=1)
    def load(key: int) -> int:
        return key

    assert (load(1) if face == "sync" else await asyncio.wait_for(load.twin()(1), 5)) == 1


@pytest.mark.parametrize("answer", ["text", [b"x"], memoryview(b"x"), bytearray(b"x"), b""])
def test_a_backend_may_answer_anything(rig: Rig, answer: Any) -> None:
    class Odd(Minimal):
        def get(self, key: str, *, budget: float) -> Any:
            return answer

        def store(self, *args: Any, **kwargs: Any) -> Any:
            return None

    rig(Odd())

    @cache(profile="users", version=1)
    def load(key: int) -> int:
        return key

    assert load(1) == 1


# ----------------------------------------------------------------------------------------------------- user callables


async def test_a_factory_may_be_anything_that_gives_an_awaitable(rig: Rig) -> None:
    rig()
    runs = itertools.count(1)

    async def fetch(key: int) -> int:
        return next(runs)

    users = region("users")
    for _ in range(2):
        assert await users.aget_or_set("k", lambda: fetch(7)) == 1


def test_a_coroutine_is_refused_where_nobody_can_await_it(rig: Rig) -> None:
    rig()

    async def fetch() -> int:
        return 1

    with pytest.raises(TypeError, match="aget_or_set"):
        region("users").get_or_set("k", lambda: fetch())  # type: ignore[unused-coroutine]
    assert region("users").get("k") is None


@pytest.mark.parametrize("face", ["sync", "async"])
async def test_a_generator_is_refused_whoever_made_it(rig: Rig, face: str) -> None:
    rig()

    @cache
    def load(key: int) -> Any:
        return (number for number in range(key))

    for _ in range(2):
        with pytest.raises(TypeError, match="return a list"):
            load(3) if face == "sync" else await load.twin()(3)


def test_tags_are_names_not_letters(rig: Rig) -> None:
    rig()
    users = region("users")
    for write in (users.set, users.add):
        with pytest.raises(TypeError, match="iterable of str"):
            write("k", 1, tags="user")


def test_tags_of_a_writer_may_come_from_a_generator(rig: Rig) -> None:
    rig()
    runs = itertools.count()

    @cache(tags=("t",))
    def load() -> int:
        return next(runs)

    @cache.invalidates(tags=(tag for tag in ["t"]))
    def write() -> None:
        pass

    for number in range(3):
        assert load() == number
        write()


def test_observers_may_fail_in_several_threads_at_once(rig: Rig) -> None:
    service = rig()
    meet = threading.Barrier(4, timeout=10)

    def broken(event: Any) -> None:
        meet.wait()
        raise ValueError

    service.observers.append(broken)

    @cache
    def load(key: int) -> int:
        return key

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(load, range(4))) == [0, 1, 2, 3]
    assert service.observers == []


# ------------------------------------------------------------------------------------------------------------ regions


def test_a_key_of_a_function_with_a_table_of_its_own_works_in_the_region(rig: Rig) -> None:
    rig(MemoryBackend())

    @cache(profile="users", version=1, max_entries=10)
    def load(key: int) -> str:
        return f"user {key}"

    users, key = region("users"), load.key(7)
    assert users.get(key) is None
    assert load(7) == "user 7"
    assert users.get(key) == "user 7"
    users.set(key, "somebody else")
    assert load(7) == "somebody else"
    assert users.delete(key) is Outcome.DONE
    assert users.get(key) is None
    assert load(7) == "user 7"


def test_the_key_of_one_service_never_finds_another_functions_value_in_the_next(rig: Rig) -> None:
    rig()

    @cache(profile="users", version=1)
    def first(key: int) -> str:
        return "first"

    @cache(profile="users", version=1)
    def second(key: int) -> str:
        return "second"

    first(1)
    key = first.key(1)
    rig()
    second(1)
    assert region("users").get(key) is None


def test_add_is_won_by_one_thread(rig: Rig) -> None:
    rig()
    users = region("users")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for number in range(100):
                won = list(pool.map(lambda who, key=number: users.add(key, who), range(4)))
                assert won.count(True) == 1, number
                assert won[users.get(number)]
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("remote", [False, True])
def test_add_replaces_nothing_even_if_its_value_cannot_be_stored(rig: Rig, remote: bool) -> None:
    rig(MemoryBackend() if remote else None)
    users = region("users")
    users.set("k", 1)
    assert users.add("k", threading.Lock()) is False
    assert users.get("k") == 1


def test_add_while_l2_is_away_changes_nothing(rig: Rig) -> None:
    backend = Down()
    service = rig(backend)
    users = region("users")
    users.set("k", 1)
    backend.down = ("all",)
    assert users.add("k", 2) is False
    assert users.get("k") == 1
    backend.down = ()
    service.tick()
    assert users.get("k") == 1
    fresh = users.add("new", 3)
    assert fresh is True


def test_add_while_l2_is_away_holds_in_this_process(rig: Rig) -> None:
    backend = Down()
    rig(backend)
    users = region("users")
    backend.down = ("all",)
    assert users.add("k", 1) is True
    assert users.add("k", 2) is False
    assert users.get("k") == 1


def test_a_counter_may_begin_with_add(rig: Rig) -> None:
    rig(MemoryBackend())
    counts = region("counts")
    assert counts.add("n", 5)
    assert counts.incr("n") == 6
    assert not counts.add("n", 1)
    assert counts.get("n") == 6


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("value", ["text", None, True, [1]])
def test_what_is_no_number_is_not_counted(rig: Rig, remote: bool, value: Any) -> None:
    rig(MemoryBackend() if remote else None)
    counts = region("counts")
    counts.set("n", value)
    with pytest.raises(UnsupportedOperation, match="number"):
        counts.incr("n")
    assert counts.get("n", MISS) == value


@pytest.mark.parametrize("by", [1.5, True, "1", None])
def test_only_ints_are_added(rig: Rig, by: Any) -> None:
    rig()
    with pytest.raises(TypeError, match="int"):
        region("counts").incr("n", by)


@pytest.mark.parametrize("operation", ["add", "touch"])
def test_what_a_backend_does_not_offer_is_an_error_and_no_fault(rig: Rig, operation: str) -> None:
    service = rig(Minimal())
    users = region("users")
    users.set("k", 1)
    for _ in range(10):
        with pytest.raises(UnsupportedOperation):
            users.add("new", 2) if operation == "add" else users.touch("k")
    assert service.health().ok
    assert service.health().backends["default"].breaker == "closed"


def test_touching_while_l2_is_away_does_not_keep_a_value_alive(rig: Rig) -> None:
    clock, backend = FrozenClock(), Down()
    rig(backend, clock=clock)
    users = region("users")
    users.set("k", "v")
    backend.down = ("all",)
    for _ in range(4):
        clock.advance(1)
        users.touch("k", ttl=1000)
    assert users.get("k") is None, "another process may have invalidated it"


def test_get_many_takes_nothing_twice_and_keys_of_functions(rig: Rig) -> None:
    rig(MemoryBackend())

    @cache(profile="users", version=1, max_entries=10)
    def load(key: int) -> int:
        return key

    load(1)
    users = region("users")
    users.set("a", 1)
    assert users.get_many([]) == {}
    assert users.get_many(iter(["a", "a", "b", load.key(1)])) == {"a": 1, load.key(1): 1}


def test_a_service_that_is_switched_off_touches_no_tier(rig: Rig) -> None:
    class Never(Minimal):
        def get(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("asked")

        def store(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("asked")

    service = rig(Never(), enabled=False)
    runs = itertools.count()

    @cache(profile="users", version=1)
    def load(key: int) -> int:
        return next(runs)

    load.put(5, 1)
    assert (load(1), load.refresh(1), load(1)) == (0, 1, 2)
    assert load.peek(1) is MISS
    users = region("users")
    users.set("k", 1)
    assert (users.get("k"), users.touch("k"), users.remaining("k"), users.add("k", 1)) == (None, False, MISS, False)
    assert service.health().ok
    assert service.health().backends["default"].state == "unused"


# ------------------------------------------------------------------------------------------------------------ service


def test_many_queued_invalidations_are_delivered_in_parts(rig: Rig) -> None:
    class Weak(Down):
        """Cannot do more than 1000 in one budget."""

        def invalidate(self, keys: Sequence[str], *, budget: float) -> None:
            if len(keys) > 1000:
                raise BackendError(Fault.DOWN, "timeout")
            super().invalidate(keys, budget=budget)

    backend = Weak()
    service = rig(backend, options={"pending_invalidations": 5000})
    users = region("users")
    backend.down = ("invalidate",)
    for number in range(5):
        assert users.delete_many(range(number * 900, number * 900 + 900)) is Outcome.QUEUED
    backend.down = ()
    remote = service.remote("default")
    assert remote is not None
    assert len(remote.outbox) == 4500
    users.set("k", 1)
    assert len(remote.outbox) == 0


class Promoted(MemoryBackend):
    """The next `get` finds a replica in the place of the server, and there what `lost` says; ``meanwhile`` another
    thread does something before the answer is looked at."""

    lost: tuple[dict[str, Any], Callable[[], object]] | None = None
    meanwhile: Callable[[], object] | None = None

    def get(self, key: str, *, budget: float) -> bytes | None:
        if self.lost is None:
            return super().get(key, budget=budget)
        (self.values.items, told), self.lost = self.lost, None
        told()
        data = super().get(key, budget=budget)
        if self.meanwhile is not None:
            thread = threading.Thread(target=self.meanwhile)
            thread.start()
            thread.join(10)
        return data


@pytest.mark.parametrize("meanwhile", [True, False])
def test_what_a_failover_brought_back_is_not_read_although_another_thread_has_removed_it_again(
    rig: Rig, meanwhile: bool
) -> None:
    backend = Promoted()
    service = rig(backend, l1="off")
    remote, runs = service.remote("default"), itertools.count(1)
    assert remote is not None
    load = cache(ttl=60, version=1)(lambda key: f"run {next(runs)}")
    assert load(1) == "run 1"
    before = dict(backend.values.items)
    assert load.invalidate(1) is Outcome.DONE
    backend.lost = before, remote.moved
    backend.meanwhile = (lambda: drive(remote.deliver(service.sync_port))) if meanwhile else None
    assert load(1) == "run 2"
    assert remote.outbox.waits is not meanwhile
    assert load(1) in ("run 2", "run 3"), "an answer that came over the move is nobody's"
    assert not remote.outbox.waits


def test_a_move_that_nothing_could_be_lost_by_disturbs_nobody(rig: Rig) -> None:
    backend = Promoted()
    service = rig(backend, l1="off")
    remote, runs = service.remote("default"), itertools.count(1)
    assert remote is not None
    load = cache(ttl=60, version=1)(lambda key: f"run {next(runs)}")
    assert load(1) == "run 1"
    backend.lost = dict(backend.values.items), remote.moved
    assert load(1) == "run 1"


def test_an_invalidation_that_l2_refuses_for_good_does_not_block_reading(rig: Rig) -> None:
    backend = Down()
    service = rig(backend)
    users = region("users")
    users.set("k", 1)
    backend.down, backend.reason = ("store", "invalidate", "clear"), "noperm"
    users.set("other", 2)
    remote = service.remote("default")
    assert remote is not None
    assert len(remote.outbox) == 0
    remote.outbox.add(["x"], ["y"])
    again = Service(service.spec)
    again._remotes["default"] = remote
    replace_default(again)
    assert users.get("k") == 1


def test_a_backend_needs_neither_hash_nor_weak_references(rig: Rig) -> None:
    class Odd(Minimal):
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return True

    rig()
    one, two = Odd(), Odd()

    @cache(backend=one, version=1)
    def load(key: int) -> int:
        return key

    @cache(backend=two, version=1)
    def other(key: int) -> int:
        return key

    assert (load(1), other(1)) == (1, 1)
    assert len(one.values) == len(two.values) == 1
