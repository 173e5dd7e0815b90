"""A value of one tenant never reaches another, nor nobody: whatever a function looks like and however it is asked."""

import asyncio
import inspect
import itertools
import pickle
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import pytest

from cachekit import MISS, MissingTenant, cache, current_entry, disabled, tenant
from cachekit.codec.envelope import Damaged, unpack
from cachekit.config.spec import FreshnessSpec
from cachekit.process import replace_default
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock
from cachekit.testing.servers import Server

MakeTenants = Callable[..., Service]
WHO = [None, "a", "b"]
LAG = 3.5  # seconds after which another process knows of changes, whether it was told or not

numbers = itertools.count()


def as_(who: str | None) -> Any:
    return nullcontext() if who is None else tenant(who)


def wait(result: Any) -> Any:
    async def awaited() -> Any:
        return await result

    return asyncio.run(awaited()) if inspect.isawaitable(result) else result


class Shelf:
    """Functions of all shapes; each tells who ran it, and how often."""

    def __init__(self, service: Service) -> None:
        self.runs = itertools.count(1)
        self.who: str | None = None  # who really asks
        here, cached = self, service.region("users").cached

        def ran() -> list[Any]:
            return [here.who, next(here.runs)]

        class Things:
            def __cache_key__(self) -> str:
                return "things"

            @cached(version=1)
            def method(self, x: Any) -> Any:
                return ran()

            @cached(version=1)
            @classmethod
            def class_method(cls, x: Any) -> Any:
                return ran()

            @cached(version=1)
            @staticmethod
            def static_method(x: Any) -> Any:
                return ran()

            @cached(version=1)
            async def async_method(self, x: Any) -> Any:
                return ran()

        @cached(version=1)
        def plain(x: Any) -> Any:
            return ran()

        @cached(version=1)
        def two(x: Any, y: Any = None) -> Any:
            return ran()

        @cached(version=1)
        def stars(*args: Any, **kwargs: Any) -> Any:
            return ran()

        @cached(version=1)
        def none() -> Any:
            return ran()

        @cached(version=1, key=lambda x: x)
        def keyed(x: Any) -> Any:
            return ran()

        @cached(version=1, ignore=("x",))
        def ignoring(x: Any) -> Any:
            return ran()

        @cached(version=1, tags=lambda x: [f"tag-{x!r}"])
        def tagged(x: Any) -> Any:
            return ran()

        @cached(version=1, max_entries=10)
        def apart(x: Any) -> Any:
            return ran()

        @cached(version=1)
        async def later(x: Any) -> Any:
            return ran()

        thing = Things()
        self.functions: dict[str, tuple[Callable[..., Any], Any]] = {
            "plain": (plain, ("a",)),
            "unhashable": (plain, (["a"],)),
            "a name before": (two, ("a", "b")),
            "no arguments": (none, ()),
            "stars": (stars, ("a", "b")),
            "no stars": (stars, ()),
            "key": (keyed, ("a",)),
            "key that is a tuple": (keyed, (("a", "b"),)),
            "ignore": (ignoring, ("a",)),
            "tags": (tagged, ("a",)),
            "a table of its own": (apart, ("a",)),
            "method": (thing.method, ("a",)),
            "class method": (Things.class_method, ("a",)),
            "static method": (Things.static_method, ("a",)),
            "async": (later, ("a",)),
            "async method": (thing.async_method, ("a",)),
            "twin of async": (later.twin(), ("a",)),
            "twin of sync": (plain.twin(), ("a",)),
            "using": (plain.using(allow_stale=True), ("a",)),
        }


SHAPES = [
    "plain", "unhashable", "a name before", "no arguments", "stars", "no stars", "key", "key that is a tuple", "ignore",
    "tags", "a table of its own", "method", "class method", "static method", "async", "async method", "twin of async",
    "twin of sync", "using",
]  # fmt: skip


@pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
def test_functions_of_every_shape_keep_tenants_apart(
    make_tenants: MakeTenants, mode: str, twin: str, encrypt: bool
) -> None:
    """Twice each, so that hits are asked for, in turns, so that the last one to store is not who asks."""
    shelf = Shelf(make_tenants(mode, encrypt=encrypt))
    assert list(shelf.functions) == SHAPES
    for shape, (function, args) in shelf.functions.items():
        first = {}
        for shelf.who in WHO:
            with as_(shelf.who):
                wait(function.invalidate(*args))  # some are the same function
                first[shelf.who] = wait(function(*args))
            assert first[shelf.who][0] == shelf.who, shape
        for shelf.who in [*WHO, *WHO]:
            with as_(shelf.who):
                assert wait(function(*args)) == first[shelf.who], shape
                assert wait(function.peek(*args)) == first[shelf.who], shape
        with tenant("a"):
            wait(function.invalidate(*args))
            assert wait(function.peek(*args)) is MISS, shape
        with tenant("b"):
            assert wait(function.peek(*args)) == first["b"], shape
        assert wait(function.peek(*args)) == first[None], shape


def test_hits_of_tenants_are_counted(make_tenants: MakeTenants, mode: str, twin: str) -> None:
    f = make_tenants(mode).region("users").cached(lambda x: x, version=1)
    for who in WHO:
        with as_(who):
            assert [f(1), f(1), f(1)] == [1, 1, 1]
    assert f.cache_info()[:2] == (6, 3)
    assert f.cache_info().currsize == (0 if mode == "l2" else 3)


def test_hits_of_tenants_in_a_region_are_counted(make_tenants: MakeTenants, twin: str) -> None:
    region = make_tenants("l1").region("users")
    for who in WHO:
        with as_(who):
            region.set("k", 1)
            assert (region.get("k"), region.get("k"), region.get_or_set("k", int)) == (1, 1, 1)
    assert region.info()["l1_hits"] == 9
    f = region.cached(lambda: 1, version=1)
    with tenant("a"):
        assert (f(), f.peek(), f.peek()) == (1, 1, 1)
    assert f.cache_info().l1_hits == 2


def test_entries_of_each_tenant_are_sealed_with_a_key_of_its_own(
    make_tenants: MakeTenants, cachekit_server: Server
) -> None:
    service = make_tenants("l2", encrypt=True)
    f = service.region("users").cached(lambda: 1, version=1)
    entries = {}
    for who in WHO:
        with as_(who):
            f()
            entries[who] = str(f.key()), f.key().whose.digest
    locks = service.tiers("users").locks
    assert locks is not None
    for text, mine in entries.values():
        data = cachekit_server.command("GET", text)
        for _, digest in entries.values():
            if digest == mine:
                unpack(data, text, locks.of(digest))
            else:
                with pytest.raises(Damaged, match="tampered"):
                    unpack(data, text, locks.of(digest))


def test_arguments_that_look_like_a_tenant_are_not_taken_for_one(
    make_tenants: MakeTenants, mode: str, twin: str
) -> None:
    """What nobody passes first, another has as the name of its tenant."""
    region = make_tenants(mode).region("users")
    stars = region.cached(lambda *args: args, version=1)
    assert stars("a", 1) == ("a", 1)
    with tenant("a"):
        assert stars(1) == (1,)
        region.set("k", "of a")
    assert region.get(("a", "k")) is None
    region.set(("a", "k"), "of nobody")
    with tenant("a"):
        assert region.get("k") == "of a"
    with tenant("a="):
        assert region.get("k") is None


# tenant= and require_tenant


@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_callable_tells_the_tenant_and_the_function_runs_as_that(
    make_tenants: MakeTenants, mode: str, twin: str, face: str
) -> None:
    """What it calls is of the tenant whose entry it fills, whoever asks."""
    service = make_tenants(mode)
    inner = service.region("users").cached(lambda: next(numbers), version=1)

    def sync_outer(customer: str | None) -> int:
        value: int = inner()
        return value

    async def async_outer(customer: str | None) -> int:
        return sync_outer(customer)

    outer = service.region("users").cached(
        sync_outer if face == "sync" else async_outer, version=1, tenant=lambda customer: customer
    )
    with tenant("a"):
        of_a = inner()
    with tenant("b"):
        of_b = inner()
        assert wait(outer("a")) == of_a
        assert wait(outer(None)) == of_b, "None leaves it to the context"
        assert inner() == of_b
    assert wait(outer("b")) == of_b
    assert wait(outer("a")) == of_a
    assert wait(outer.refresh("a")) == of_a
    with disabled():
        first = wait(outer("a"))
    assert first not in (of_a, of_b), "nothing is cached there"


def test_a_tenant_must_be_a_text_with_something_in_it(make_tenants: MakeTenants) -> None:
    f = make_tenants("l1").region("users").cached(lambda who: who, version=1, tenant=lambda who: who)
    with pytest.raises(TypeError, match=r"a tenant is a str, not int: write str\(\.\.\.\)"):
        f(7)
    with pytest.raises(ValueError, match="must not be empty"):
        f("")
    with pytest.raises(TypeError, match="a tenant is a str, not UUID"):
        tenant(__import__("uuid").uuid4())


@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_region_that_requires_a_tenant_does_nothing_without_one(
    make_tenants: MakeTenants, mode: str, twin: str, face: str
) -> None:
    service = make_tenants(mode, require_tenant=True)
    region = service.region("users")
    ran = []

    def sync_f(x: int) -> int:
        ran.append(x)
        return x

    async def async_f(x: int) -> int:
        return sync_f(x)

    f = region.cached(sync_f if face == "sync" else async_f, version=1)
    with tenant("a"):
        assert wait(f(1)) == wait(f(1)) == 1
        region.set("k", 1)
        entry = f.key(1)
    prefix = "" if face == "sync" else "a"
    asked = [
        lambda: f(1), lambda: f.peek(1), lambda: f.put(1, 1), lambda: f.refresh(1), lambda: f.invalidate(1),
        lambda: f.mark_stale(1), lambda: f.invalidate_all(), lambda: f.twin()(1), lambda: f.using(read_only=True)(1),
        lambda: f.key(1),
        *[
            lambda method=method, args=args: getattr(region, prefix + method)(*args)  # type: ignore[misc]
            for method, *args in [
                ("get", "k"), ("set", "k", 1), ("add", "k", 1), ("get_or_set", "k", int), ("get_many", ["k"]),
                ("set_many", {"k": 1}), ("delete", "k"), ("delete_many", ["k"]), ("touch", "k"), ("remaining", "k"),
                ("mark_stale", "k"), ("clear",),
            ]
        ],
    ]  # fmt: skip
    for ask in asked:
        with pytest.raises(MissingTenant, match="requires a tenant: call it inside"):
            wait(ask())
    assert ran == [1]
    assert region.get(entry) == 1, "a key says whose it is"
    with disabled(), pytest.raises(MissingTenant):
        wait(f(1))
    with tenant("a"):
        assert (wait(f.peek(1)), region.get("k")) == (1, 1)
    region.clear(all_tenants=True)
    with tenant("a"):
        assert (wait(f.peek(1)), region.get("k")) == (MISS, None)
        wait(f(1))
    f.cache_clear()
    with tenant("a"):
        assert wait(f.peek(1)) is MISS


# Contexts


def test_blocks_may_be_nested_and_end_with_an_exception() -> None:
    from cachekit.context import TENANT

    with tenant("a"):
        with suppress(KeyError), tenant("b"):
            assert TENANT.get() == "b"
            raise KeyError
        assert TENANT.get() == "a"
        with tenant("a"):
            assert TENANT.get() == "a"
        assert TENANT.get() == "a"
    assert TENANT.get() is None


def test_one_object_may_be_used_again_and_in_several_threads_at_once() -> None:
    """A thread that leaves its block is nobody again, whichever of them entered last."""
    from cachekit.context import TENANT

    shared, entered, left = tenant("a"), threading.Barrier(2), threading.Event()
    seen = {}

    def first() -> None:
        with shared:
            entered.wait()
        seen["first"] = TENANT.get()
        left.set()

    def second() -> None:
        with shared:
            entered.wait()
            left.wait()
            seen["inside"] = TENANT.get()
        seen["second"] = TENANT.get()

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"first": None, "inside": "a", "second": None}
    with shared, shared:
        assert TENANT.get() == "a"
    assert TENANT.get() is None


def test_generators_that_end_in_another_order_leave_nobody_in_the_wrong_tenant() -> None:
    from cachekit.context import TENANT

    def working_for(name: str) -> Any:
        with tenant(name):
            yield

    one = working_for("a")
    next(one)
    with tenant("b"):
        one.close()
        assert TENANT.get() == "b"
    assert TENANT.get() is None


def test_a_generator_that_ends_in_another_context_changes_nothing_there() -> None:
    from cachekit.context import TENANT

    async def working_for(name: str) -> Any:
        with tenant(name):
            yield

    async def main() -> list[Any]:
        iterator = working_for("a")
        await asyncio.create_task(anext(iterator))
        before = TENANT.get()
        with tenant("b"):
            await asyncio.create_task(iterator.aclose())
            return [before, TENANT.get()]

    assert asyncio.run(main()) == [None, "b"]


@pytest.mark.parametrize("require", [False, True])
def test_tasks_threads_and_executors_have_the_tenant_of_their_context(
    make_tenants: MakeTenants, mode: str, twin: str, require: bool
) -> None:
    """A task has a copy of it and keeps it when the block has ended; a new thread and an executor begin without."""
    service = make_tenants(mode, require_tenant=require)
    region = service.region("users")
    f = region.cached(lambda: next(numbers), version=1)
    nobody = None if require else f()
    with tenant("a"):
        of_a = f()

    async def later(ended: asyncio.Event) -> int:
        await ended.wait()
        return f()

    async def main() -> list[Any]:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        with tenant("a"):
            task = asyncio.create_task(later(ended))
            in_thread = await asyncio.to_thread(f)
            in_executor = await loop.run_in_executor(None, lambda: outcome(f))
        ended.set()
        return [await task, in_thread, in_executor, outcome(f)]

    without = MissingTenant if require else nobody
    assert asyncio.run(main()) == [of_a, of_a, without, without]
    with tenant("a"):
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(outcome(f)))
        thread.start()
        thread.join()
    assert results == [without]


def outcome(f: Callable[[], Any]) -> Any:
    try:
        return f()
    except MissingTenant:
        return MissingTenant


def test_the_first_tenant_of_a_process_is_not_answered_by_what_nobody_has(make_tenants: MakeTenants, twin: str) -> None:
    """Hits go the quick way until there is a tenant; from its first moment on, and in services made before and after,
    they do not."""
    for _ in range(2):
        f = make_tenants("l1").region("users").cached(lambda: next(numbers), version=1)
        nobody = f()
        assert f() == nobody
        with tenant("a"):
            assert f() != nobody


# What runs behind callers


@pytest.mark.parametrize("face", ["sync", "async"])
def test_refreshes_behind_run_for_the_tenant_and_fill_its_entry(
    make_tenants: MakeTenants, mode: str, twin: str, face: str
) -> None:
    from cachekit.context import TENANT

    clock = FrozenClock()
    service = make_tenants(
        mode, clock=clock, ttl=60.0, freshness=FreshnessSpec(stale_ttl=600.0, swr=True, early_refresh="off")
    )

    def sync_f() -> list[Any]:
        return [TENANT.get(), next(numbers)]

    async def async_f() -> list[Any]:
        return sync_f()

    f = service.region("users").cached(sync_f if face == "sync" else async_f, version=1)

    async def call(who: str | None) -> Any:
        with as_(who):
            return await f() if face == "async" else f()

    async def main() -> None:
        first = {who: await call(who) for who in WHO}
        clock.advance(61)
        assert {who: await call(who) for who in WHO} == first, "stale, at once"
        await service.async_port.wait_for_tasks(10)
        service.workers.settle()
        second = {who: await call(who) for who in WHO}
        assert [second[who][0] for who in WHO] == WHO
        assert all(second[who][1] > max(value for _, value in first.values()) for who in WHO)
        if face == "async":
            await service.aclose()

    asyncio.run(main())


def test_a_load_that_goes_on_behind_its_limit_fills_its_tenants_entry(
    make_tenants: MakeTenants, mode: str, twin: str
) -> None:
    from cachekit.context import TENANT

    gate = threading.Event()
    service = make_tenants(mode, freshness=FreshnessSpec(soft_timeout=0.01, early_refresh="off"))

    def slow() -> Any:
        gate.wait(10)
        return TENANT.get()

    f = service.region("users").cached(slow, version=1, fallback="not yet")
    with tenant("a"):
        assert f() == "not yet"
    gate.set()
    assert service.workers.settle()
    with tenant("a"):
        assert f.peek() == "a"
    with tenant("b"):
        assert f.peek() is MISS
    assert f.peek() is MISS


def test_two_tenants_compute_each_for_themselves_and_callers_of_one_share(
    make_tenants: MakeTenants, mode: str, twin: str
) -> None:
    from cachekit.context import TENANT

    gate, begun = threading.Event(), threading.Semaphore(0)
    ran: list[str | None] = []

    def slow() -> Any:
        ran.append(TENANT.get())
        begun.release()
        gate.wait(10)
        return TENANT.get()

    service = make_tenants(mode)
    f = service.region("users").cached(slow, version=1)
    got: list[Any] = []

    def call(who: str | None) -> None:
        with as_(who):
            got.append((who, f()))

    threads = [threading.Thread(target=call, args=(who,)) for who in WHO for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in WHO:
        assert begun.acquire(timeout=10)
    gate.set()
    for thread in threads:
        thread.join()
    assert sorted(got, key=str) == sorted([(who, who) for who in WHO for _ in range(4)], key=str)
    assert sorted(ran, key=str) == sorted(WHO, key=str)


def test_failures_and_pauses_are_each_tenants_own(make_tenants: MakeTenants, mode: str, twin: str) -> None:
    """Remembered exceptions, values that are not stored, and sources that are left alone."""
    from cachekit.context import TENANT

    fresh = FreshnessSpec(negative_exceptions=(("builtins.KeyError", 60.0),), early_refresh="off")
    service = make_tenants(mode, freshness=fresh)
    ran: list[Any] = []

    def f(x: int) -> Any:
        ran.append(TENANT.get())
        if TENANT.get() == "a":
            raise KeyError("a")
        if TENANT.get() == "b":
            current_entry().no_store()
        return TENANT.get()

    f = service.region("users").cached(f, version=1)
    for _ in range(3):
        with tenant("a"), pytest.raises(KeyError):
            f(1)
        with tenant("b"):
            assert f(1) == "b"
        assert f(1) is None
    assert sorted(ran, key=str) == [None, "a", "b", "b", "b"]


def test_switched_off_inside_of_a_tenant_nothing_is_read_or_stored(
    make_tenants: MakeTenants, mode: str, twin: str
) -> None:
    f = make_tenants(mode).region("users").cached(lambda: next(numbers), version=1)
    with tenant("a"):
        kept = f()
        with disabled():
            assert f() != f() != kept
            assert f.peek() is MISS
        assert f() == kept
    with disabled(), tenant("a"):
        assert f() != kept
    with disabled(), tenant("b"):
        f()
    with tenant("b"):
        assert f.peek() is MISS


# Tags


def test_the_tags_of_an_entry_show_none_of_our_own_and_setting_them_loses_none(
    make_tenants: MakeTenants, mode: str, twin: str
) -> None:
    seen = []

    def f() -> int:
        entry = current_entry()
        seen.append(set(entry.tags))
        entry.tags = {"late"}
        return next(numbers)

    region = make_tenants(mode).region("users")
    cached = region.cached(f, version=1, tags=["early"])
    with tenant("a"):
        first = cached()
        assert cached() == first
    with tenant("b"):
        other = cached()
    assert seen == [{"early"}] * 2
    with tenant("a"):
        region.clear()
        assert cached.peek() is MISS
        second = cached()
        cached.invalidate_all()
        assert cached.peek() is MISS
        assert second != first
    with tenant("b"):
        assert cached.peek() == other
        region.invalidate_tags("late")
        assert cached.peek() is MISS


@pytest.mark.parametrize("what", ["clear", "invalidate_all"])
@pytest.mark.parametrize("late", [False, True], ids=["early tags", "late tags"])
@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_clear_while_a_load_runs_keeps_what_was_loaded_out(
    make_tenants: MakeTenants, mode: str, twin: str, face: str, late: bool, what: str
) -> None:
    """By another process, say: its push is not heard before the end of the load, if ever."""
    namespace, clock = f"during{next(numbers)}", FrozenClock()
    mine, theirs = (make_tenants(mode, namespace=namespace, clock=clock) for _ in range(2))
    during: list[Callable[[], Any]] = []

    def sync_f(x: int) -> int:
        if late:
            current_entry().tags.add("late")
        value = next(numbers)
        while during:
            during.pop()()
        return value

    async def async_f(x: int) -> int:
        return await asyncio.to_thread(sync_f, x)

    here = mine.region("users").cached(sync_f, version=1)
    there = (theirs if mode != "l1" else mine).region("users").cached(sync_f, version=1)
    if face == "async":
        here = mine.region("users").cached(async_f, version=2)
        there = (theirs if mode != "l1" else mine).region("users").cached(async_f, version=2)

    async def main() -> None:
        call = here if face == "async" else None

        async def ask() -> Any:
            return await call(1) if call is not None else here(1)

        async def peek() -> Any:
            return await there.peek(1) if face == "async" else there.peek(1)

        with tenant("b"):
            of_b = await ask()
        with tenant("a"):
            await ask()
            await clear()
            clock.advance(LAG)
            during.append(lambda: threaded(clear))
            outdated = await ask()
            assert not during
            assert await peek() is MISS
            clock.advance(LAG)
            assert await ask() != outdated
        with tenant("b"):
            assert await ask() == of_b

    async def clear() -> None:
        region = there.region
        if what == "clear":
            await region.aclear() if face == "async" else region.clear()
        elif face == "async":
            await there.invalidate_all()
        else:
            there.invalidate_all()

    def threaded(work: Callable[[], Any]) -> None:
        """As another process would: in a context of its own that works for the same tenant."""

        def run() -> None:
            with tenant("a"):
                asyncio.run(work())

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    asyncio.run(main())
    asyncio.run(mine.aclose())
    asyncio.run(theirs.aclose())


def test_a_clear_of_the_region_reaches_functions_that_are_encrypted_alone(make_tenants: MakeTenants, twin: str) -> None:
    """Their names are made with a key, and those of the region are not."""
    region = make_tenants("both").region("users")
    f = region.cached(lambda: next(numbers), version=1, encrypt=True)
    g = region.cached(lambda: next(numbers), version=2)
    with tenant("b"):
        of_b = f(), g()
    with tenant("a"):
        f(), g()
        region.clear()
        assert (f.peek(), g.peek()) == (MISS, MISS)
    with tenant("b"):
        assert (f.peek(), g.peek()) == of_b


@pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
def test_a_tag_is_cleared_for_all_tenants(make_tenants: MakeTenants, mode: str, twin: str, encrypt: bool) -> None:
    region = make_tenants(mode, encrypt=encrypt).region("users")
    f = region.cached(lambda: next(numbers), version=1, tags=["users"])
    for who in WHO:
        with as_(who):
            f()
            region.set("k", 1, tags=["users"])
    with tenant("a"):
        region.invalidate_tags("users")
    for who in WHO:
        with as_(who):
            assert (f.peek(), region.get("k")) == (MISS, None)


# Keys in other hands


@pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
def test_a_key_from_another_process_is_its_tenants_whoever_holds_it(
    make_tenants: MakeTenants, twin: str, encrypt: bool
) -> None:
    """Pickled, as it comes out of a queue: it finds, changes and clears that tenant's entry and no other."""
    namespace, clock = f"keys{next(numbers)}", FrozenClock()
    mine, theirs = (make_tenants("both", namespace=namespace, encrypt=encrypt, clock=clock) for _ in range(2))
    f = mine.region("users").cached(lambda: next(numbers), version=1)
    users = theirs.region("users")
    sent = {}
    for who in WHO:
        with as_(who):
            sent[who] = pickle.dumps(f.key()), f()
    with tenant("c"):
        for data, value in sent.values():
            key = pickle.loads(data)
            assert users.get(key) == users.get(key) == value
            assert users.get_many([key]) == {key: value}
    key = pickle.loads(sent["a"][0])
    with tenant("b"):
        users.set(key, "changed")
    clock.advance(LAG)
    with tenant("a"):
        assert f.peek() == "changed"
        f.invalidate_all()
        assert f.peek() is MISS
    clock.advance(LAG)
    assert users.get(key) is None
    users.set(key, "again")
    clock.advance(LAG)
    with tenant("a"):
        assert f.peek() == "again"
        mine.region("users").clear()
        assert f.peek() is MISS, "what was set through the key belongs to the tenant too"
    for who in (None, "b"):
        with as_(who):
            assert f.peek() == sent[who][1]


# The default service


def test_the_default_service_and_decorators_keep_tenants_apart(make_tenants: MakeTenants, twin: str) -> None:
    service = make_tenants("l1")
    before = replace_default(service)
    try:

        @cache(profile="users", tenant=lambda x: None)
        def f(x: int) -> int:
            return next(numbers)

        assert f(1) == f(1)
        with tenant("a"):
            of_a = f(1)
            assert f(1) == of_a
        assert f(1) != of_a
    finally:
        replace_default(before)


def test_nothing_of_a_tenants_name_is_to_be_read_on_the_server(
    make_tenants: MakeTenants, cachekit_server: Server
) -> None:
    service = make_tenants("both", encrypt=True)
    f = service.region("users").cached(lambda x: x, version=1, tags=["secret-tag"])
    with tenant("secret-tenant"):
        f("secret-argument")
        service.region("users").set("secret-key", "secret-value")
        pickled = pickle.dumps(f.key("secret-argument"))
    names = cachekit_server.command("KEYS", f"{service.spec.namespace}:*")
    assert len(names) >= 5
    held = names + [cachekit_server.command("GET", name) or b"" for name in names if b":v:" in name]
    assert not [each for each in [*held, pickled] if b"secret" in bytes(each)]


@pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
def test_space_is_given_back_of_what_was_cleared_for_a_tenant_and_of_nothing_else(
    make_tenants: MakeTenants, cachekit_server: Server, encrypt: bool
) -> None:
    clock = FrozenClock()
    service = make_tenants("both", clock=clock, encrypt=encrypt)
    region = service.region("users")
    f = region.cached(lambda x: x, version=1)

    def names() -> set[bytes]:
        return set(cachekit_server.command("KEYS", f"{service.spec.namespace}:v:*"))

    of: dict[str | None, set[bytes]] = {}
    for who in WHO:
        before = names()
        with as_(who):
            f(1)
            region.set("k", 1)
        of[who] = names() - before
        assert len(of[who]) == 2
    with tenant("a"):
        region.clear()
    for _ in range(100):
        clock.advance(1)
        service.tend()
    assert names() == of[None] | of["b"]
