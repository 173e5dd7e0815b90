"""Loads that the native core runs by itself keep every promise that those of `flow` keep."""

import gc
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cachekit import MISS, cache, current_entry
from cachekit.config.spec import ServiceSpec, built_in_regions
from cachekit.engine import flow
from cachekit.engine.events import Event
from cachekit.l1.table import TWIN
from cachekit.process import replace_default
from cachekit.service import Service


@pytest.fixture(autouse=True)
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.delitem(sys.modules, "greenlet", raising=False)  # other tests use it
    regions = {name: spec.but(backend="none") for name, spec in built_in_regions().items()}
    made = Service(ServiceSpec(regions=regions))
    before = replace_default(made)
    yield made
    replace_default(before)
    made.close()


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that took the way through Python, by their keys."""
    taken: list[str] = []
    through = flow.get_or_load

    async def noted(call: Any, port: Any) -> Any:
        taken.append(call.tally.function)
        return await through(call, port)

    monkeypatch.setattr(flow, "get_or_load", noted)
    return taken


native_only = pytest.mark.skipif(TWIN != "native", reason="the pure twin runs no loads by itself")


@native_only
def test_no_miss_of_a_simple_function_goes_through_python(ways: list[str]) -> None:
    @cache
    def double(x: int, *, plus: int = 0) -> int:
        return 2 * x + plus

    assert [double(n) for n in range(5)] == [0, 2, 4, 6, 8]
    assert [double(x=n, plus=0) for n in range(5)] == [0, 2, 4, 6, 8]
    assert len(ways) == 0
    info = double.cache_info()
    assert (info.hits, info.misses, info.currsize) == (5, 5, 5)


@native_only
@pytest.mark.parametrize(
    "options",
    [{"tags": ["t"]}, {"condition": bool}, {"ttl": lambda value: 5}, {"cache_none": False}, {"key": lambda x: str(x)}],
    ids=lambda options: next(iter(options)),
)
def test_functions_with_something_to_decide_never_load_in_the_core(ways: list[str], options: dict[str, Any]) -> None:
    @cache(**options)
    def load(x: int) -> int:
        return x

    for n in range(3):
        assert load(n) == n
    assert len(ways) == 3


@native_only
def test_where_stacks_are_switched_every_miss_goes_through_python(
    ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @cache
    def load(x: int) -> int:
        return x

    load(0)
    monkeypatch.setitem(sys.modules, "greenlet", sys)
    load(1)
    assert len(ways) == 1
    monkeypatch.delitem(sys.modules, "greenlet")
    load(2)
    assert len(ways) == 1


@native_only
def test_who_observes_sees_every_load(service: Service, ways: list[str]) -> None:
    @cache
    def load(x: int) -> int:
        return x

    load(0)
    seen: list[Event] = []
    service.observers.append(seen.append)
    load(1)
    assert len(seen) == 2  # Missed, Loaded
    service.observers.clear()
    load(2)
    assert len(ways) == 1


def test_the_entry_of_a_load_can_be_told_its_ttl_and_its_tags_and_not_to_be_kept() -> None:
    runs = []

    def helper(**changes: Any) -> None:
        entry = current_entry()
        for name, value in changes.items():
            setattr(entry, name, value)
        assert current_entry() is entry

    @cache
    def load(x: int, what: str) -> int:
        runs.append(x)
        if what == "ttl":
            assert current_entry().ttl == 300
            helper(ttl="20ms")
        elif what == "tags":
            helper(tags={"red"})
        elif what == "no_store":
            current_entry().no_store()
        return x

    load(0, "")
    for what in ("ttl", "tags", "no_store"):
        assert load(1, what) == 1
    load(1, "no_store")
    load(1, "tags")
    assert len(runs) == 5
    time.sleep(0.03)
    load(1, "ttl")
    assert len(runs) == 6
    from cachekit import invalidate_tags

    invalidate_tags("red")
    load(1, "tags")
    load(1, "ttl")
    assert len(runs) == 7


def test_each_load_has_an_entry_of_its_own_wherever_it_runs() -> None:
    entries: dict[str, Any] = {}

    @cache(tags=["one way"])
    def tagged(x: int) -> int:
        entries["tagged"] = current_entry()
        plain(x + 100)
        assert current_entry() is entries["tagged"]
        return x

    @cache
    def plain(x: int) -> int:
        entries[f"plain {x}"] = current_entry()
        if x < 100:
            tagged(x)
        assert current_entry() is entries[f"plain {x}"]
        return x

    plain(0)
    plain(1)
    tagged(2)
    assert len({id(entry) for entry in entries.values()}) == len(entries) == 6
    with pytest.raises(RuntimeError, match="inside"):
        current_entry()


def test_recursion_works_and_counts() -> None:
    @cache
    def fib(n: int) -> int:
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    depth = 200 if TWIN == "native" else 40
    assert fib(depth) == round(((1 + 5**0.5) / 2) ** 40 / 5**0.5) if depth == 40 else fib(depth) > 10**40
    assert fib.cache_info().misses == depth + 1


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "opaque"])
def test_many_threads_share_one_load(kept: bool) -> None:
    runs, gate, entered = [], threading.Event(), threading.Event()

    @cache
    def load(x: int) -> Any:
        if x:
            runs.append(x)
            entered.set()
            assert gate.wait(10)
        return [x] if kept else threading.Lock()

    load(0)  # binds
    with ThreadPoolExecutor(40) as pool:
        first = pool.submit(load, 1)
        assert entered.wait(5)
        others = [pool.submit(load, 1) for _ in range(39)]
        time.sleep(0.1)
        gate.set()
        values = [first.result(10), *(other.result(10) for other in others)]
    assert runs == [1]
    assert len({id(value) for value in values}) == (40 if kept else 1)
    info = load.cache_info()
    assert (info.hits, info.misses) == (0, 2)


def test_an_exception_reaches_caller_and_waiters_and_nothing_is_kept() -> None:
    gate, entered, runs = threading.Event(), threading.Event(), []

    @cache
    def load(x: int) -> int:
        if x:
            runs.append(x)
            entered.set()
            assert gate.wait(10)
            raise ValueError("no")
        return x

    load(0)
    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(load, 1)]
        assert entered.wait(5)
        futures += [pool.submit(load, 1) for _ in range(4)]
        time.sleep(0.05)
        gate.set()
        for future in futures:
            with pytest.raises(ValueError, match="no"):
                future.result(10)
    assert len(runs) == 1
    with pytest.raises(ValueError, match="no"):
        load(1)
    assert len(runs) == 2
    assert load.cache_info().misses == 3
    assert load.cache_info().errors == 2


def test_an_interrupted_load_hands_over() -> None:
    gate, entered, runs = threading.Event(), threading.Event(), []

    @cache
    def load(x: int) -> int:
        runs.append(x)
        if len(runs) == 2:
            entered.set()
            assert gate.wait(10)
            raise KeyboardInterrupt
        return x

    load(0)

    def lead() -> None:
        with pytest.raises(KeyboardInterrupt):
            load(1)

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(lead)
        assert entered.wait(5)
        waiter = pool.submit(load, 1)
        time.sleep(0.05)
        gate.set()
        leader.result(10)
        assert waiter.result(10) == 1
    assert runs == [0, 1, 1]


def test_nobody_waits_in_a_circle() -> None:
    """Thread 1 computes a and needs b while thread 2 computes b and needs a."""
    both = threading.Barrier(2, timeout=10)

    @cache
    def a(x: int, meet: bool) -> int:
        if meet:
            both.wait()
            return b(x, True) + 1
        return 0

    @cache
    def b(x: int, meet: bool) -> int:
        if meet:
            if not both.broken and both.n_waiting < 2 and not done.is_set():
                done.set()
                both.wait()
            return 0 if inner.is_set() else _inner(x)
        return 0

    done, inner = threading.Event(), threading.Event()

    def _inner(x: int) -> int:
        inner.set()
        return 10 + a(x, False)

    a(0, False), b(0, False)
    with ThreadPoolExecutor(2) as pool:
        began = time.monotonic()
        futures = [pool.submit(a, 1, True), pool.submit(b, 1, True)]
        values = [future.result(20) for future in futures]
    assert time.monotonic() - began < 10
    assert values[0] == values[1] + 1


def test_two_functions_that_need_each_other_in_two_threads_do_not_block() -> None:
    both = threading.Barrier(2, timeout=10)
    depth = threading.local()

    def needing(other: str) -> Any:
        def load(x: int) -> str:
            if x == 0:
                return ""
            if getattr(depth, "value", 0) > 1:
                return "deep"
            depth.value = getattr(depth, "value", 0) + 1
            try:
                if depth.value == 1:
                    both.wait()
                return functions[other](x) + other
            finally:
                depth.value -= 1

        load.__qualname__ = f"needs_{other}"
        return cache(version=other)(load)

    functions = {"a": needing("b"), "b": needing("a")}
    for function in functions.values():
        function(0)
    with ThreadPoolExecutor(2) as pool:
        began = time.monotonic()
        for future in [pool.submit(functions["a"], 1), pool.submit(functions["b"], 1)]:
            assert future.result(20)
    assert time.monotonic() - began < 10, "somebody waited until patience ended"


@pytest.mark.parametrize("how", ["key", "function", "region", "entry key", "elsewhere"])
def test_what_was_invalidated_while_it_ran_is_returned_and_not_kept(how: str) -> None:
    runs: list[int] = []

    @cache
    def load(x: int) -> int:
        runs.append(x)
        if x == 1 and runs.count(1) == 1:
            if how == "key":
                load.invalidate(1)
            elif how == "function":
                load.invalidate_all()
            elif how == "region":
                load.region.clear()
            elif how == "entry key":
                load.region.delete(load.key(1))
            else:
                import pickle

                load.region.delete(pickle.loads(pickle.dumps(load.key(1))))
        return len(runs)

    load(0)
    assert load(1) == 2
    assert load.peek(1) is MISS
    assert load(1) == 3
    assert load(1) == 3


@native_only
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_forked_inside_of_a_load_does_not_wait_for_loads_of_the_parent() -> None:
    gate, entered = threading.Event(), threading.Event()

    @cache
    def load(x: int) -> int:
        if x == 1 and os.getpid() == parent:
            entered.set()
            assert gate.wait(10)
        return x

    parent = os.getpid()
    load(0)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(load, 1)
        assert entered.wait(5)
        child = os.fork()
        if child == 0:
            os._exit(0 if load(1) == 1 and load(2) == 2 else 1)
        _, status = os.waitpid(child, 0)
        gate.set()
        assert future.result(10) == 1
    assert os.waitstatus_to_exitcode(status) == 0


def test_results_that_only_one_caller_could_use_are_refused() -> None:
    async def work() -> int:
        return 1

    @cache
    def load(x: int) -> Any:
        return 0 if x == 0 else (n for n in range(3)) if x == 1 else work()

    load(0)
    with pytest.raises(TypeError, match="generator"):
        load(1)
    with pytest.raises(TypeError, match="coroutine"):
        load(2)


def test_a_value_is_collected_with_its_entry_and_loads_leave_nothing_behind() -> None:
    import weakref

    class Thing:
        pass

    alive: list[Any] = []

    @cache(isolation="share", l1={"max_entries": 3})
    def load(x: int) -> Any:
        thing = Thing()
        alive.append(weakref.ref(thing))
        return (x, thing) if x % 2 else thing

    for n in range(20):
        load(n)
    gc.collect()
    assert sum(ref() is not None for ref in alive) == 3
