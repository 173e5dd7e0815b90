"""Situations of calls: who waits for whom, which arguments share an entry, what becomes of a result."""

import asyncio
import threading
import time
from typing import Any

from adapters import Adapter
from support import NotOffered, counting, run

CALLERS = 30
LOAD = 0.3  # seconds that a function takes where others shall come meanwhile


# --- at the same time ------------------------------------------------------------------------------------------------


def threads_run_it(adapter: Adapter) -> str:
    if adapter.is_async:
        raise NotOffered
    runs: list[int] = []

    def threads_fn(x: int) -> int:
        runs.append(x)
        time.sleep(LOAD)
        return x

    memo, start = adapter.memo(threads_fn), threading.Barrier(CALLERS)

    def caller() -> None:
        start.wait()
        memo(1)

    threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times(len(runs))


def tasks_run_it(adapter: Adapter) -> str:
    runs: list[int] = []

    async def tasks_fn(x: int) -> int:
        runs.append(x)
        await asyncio.sleep(LOAD)
        return x

    memo = adapter.amemo(tasks_fn)

    async def all_of_them() -> None:
        await asyncio.gather(*(memo(1) for _ in range(CALLERS)))

    run(all_of_them())
    return times(len(runs))


def times(count: int) -> str:
    return "once" if count == 1 else "each time" if count > CALLERS / 3 else "several times"  # some may come late


def after_invalidation_during_a_load(adapter: Adapter) -> str:
    """Write, then invalidate, while a load that read the old value is running; what do later callers get?"""
    source = ["old"]
    if adapter.is_async:
        return str(run(_invalidated_task(adapter, source)))
    reading = threading.Event()

    def during_fn(x: int) -> str:
        value = source[0]
        reading.set()
        time.sleep(LOAD)
        return value

    memo = adapter.memo(during_fn)
    thread = threading.Thread(target=memo, args=(1,))
    thread.start()
    reading.wait()
    source[0] = "new"
    adapter.forget(memo, 1)
    thread.join()
    return str(memo(1))


async def _invalidated_task(adapter: Adapter, source: list[str]) -> str:
    async def during_fn(x: int) -> str:
        value = source[0]
        await asyncio.sleep(LOAD)
        return value

    memo = adapter.memo(during_fn)
    task = asyncio.ensure_future(memo(1))
    await asyncio.sleep(LOAD / 3)
    source[0] = "new"
    await adapter.forget(memo, 1)
    await task
    return str(await memo(1))


# --- what can be decorated and asked ---------------------------------------------------------------------------------


def a_function_is_cached(adapter: Adapter) -> str:
    def function_fn(x: int) -> int:
        runs.append(x)
        return x

    runs: list[int] = []
    return _kept(adapter, function_fn, runs)


def a_coroutine_function_is_cached(adapter: Adapter) -> str:
    async def coroutine_fn(x: int) -> int:
        runs.append(x)
        return x

    runs: list[int] = []
    return _kept(adapter, coroutine_fn, runs)


def _kept(adapter: Adapter, function: Any, runs: list[int]) -> str:
    """Whether the second call gets the value without a run."""
    if not adapter.decorates:
        raise NotOffered
    try:
        memo = adapter.memo(function)
        values = [run(memo(1)), run(memo(1))]
    except NotOffered:
        raise
    except Exception:
        return "error"
    return "yes" if values == [1, 1] and runs == [1] else "no"


def a_list_is_an_argument(adapter: Adapter) -> str:
    function, runs = counting(adapter, "list_fn", lambda x: len(x))
    try:
        memo = adapter.memo(function)
        run(memo([1, 2])), run(memo([1, 2]))
    except TypeError:
        return "error"
    return "a hit" if len(runs) == 1 else "a miss"


def none_is_cached(adapter: Adapter) -> str:
    function, runs = counting(adapter, "none_fn", lambda x: None)
    memo = adapter.memo(function)
    run(memo(1)), run(memo(1))
    return "yes" if len(runs) == 1 else "no"


def change_of_a_result_is_seen_by_others(adapter: Adapter) -> str:
    function, _ = counting(adapter, "mutation_fn", lambda x: {"items": [1]})
    memo = adapter.memo(function)
    run(memo(1))
    run(memo(1))["items"].append(2)
    return "no" if run(memo(1)) == {"items": [1]} else "yes"


# --- which calls share an entry --------------------------------------------------------------------------------------


def one_true_and_a_float(adapter: Adapter) -> str:
    if not adapter.decorates:
        raise NotOffered
    function, runs = counting(adapter, "types_fn", lambda x: repr(x))
    memo = adapter.memo(function)
    answers = [run(memo(value)) for value in (1, True, 1.0, "1")]
    assert len(runs) == len(set(answers))
    return ("", "one", "two", "three", "four")[len(runs)]


def spellings(adapter: Adapter) -> str:
    if not adapter.decorates:
        raise NotOffered
    function, runs = counting(adapter, "spelling_fn", lambda x: x)
    memo = adapter.memo(function)
    try:
        run(memo()), run(memo(0)), run(memo(x=0))
    except (TypeError, ValueError):
        return "error"
    return ("one", "two", "three")[len(runs) - 1]


def words_of_two_arguments(adapter: Adapter) -> str:
    """``f("a b", "c")`` and ``f("a", "b c")``."""
    if not adapter.decorates:
        raise NotOffered

    def plain(x: str, y: str) -> list[str]:
        return [x, y]

    async def coroutine(x: str, y: str) -> list[str]:
        return [x, y]

    memo = adapter.memo(coroutine if adapter.is_async else plain)
    run(memo("a b", "c"))
    return "own" if run(memo("a", "b c")) == ["a", "b c"] else "the other's"


def methods_of_one_name(adapter: Adapter) -> str:
    """Two classes with a method of the same name and equal arguments: does each get its own answer?"""
    if not adapter.decorates:
        raise NotOffered

    def made(name: str) -> Any:
        if adapter.is_async:

            async def price(self: Any, x: int) -> str:
                return name

        else:

            def price(self: Any, x: int) -> str:  # type: ignore[misc]
                return name

        price.__qualname__ = f"{name}.price"
        same = {"__repr__": lambda self: "shop", "__eq__": lambda self, other: True, "__hash__": lambda self: 1}
        return type(name, (), {"price": adapter.widest(price), **same, "__cache_key__": lambda self: "shop"})()

    try:
        answers = [run(made(name).price(1)) for name in ("Shop", "Market")]
    except (TypeError, ValueError):
        return "error"
    return "own" if answers == ["Shop", "Market"] else "the other's"


def functions_of_one_factory(adapter: Adapter) -> str:
    """Two closures over different things, made in one place and without a name that tells them apart."""
    if not adapter.decorates:
        raise NotOffered

    def made(country: str) -> Any:
        def plain(x: int) -> str:
            return country

        async def coroutine(x: int) -> str:
            return country

        return adapter.widest(coroutine if adapter.is_async else plain)

    answers = [run(made(country)(1)) for country in ("Chile", "Peru")]
    return "own" if answers == ["Chile", "Peru"] else "the other's"


SITUATIONS = (
    threads_run_it, tasks_run_it, after_invalidation_during_a_load, a_function_is_cached,
    a_coroutine_function_is_cached, a_list_is_an_argument, none_is_cached, change_of_a_result_is_seen_by_others,
    one_true_and_a_float, spellings, words_of_two_arguments, methods_of_one_name,
    functions_of_one_factory,
)  # fmt: skip
