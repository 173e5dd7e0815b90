"""What one cache does in each of the situations below; prints the answers as JSON.

python probe.py PEER REDIS_URL URL_OF_A_SERVER_THAT_NEVER_ANSWERS
"""

import asyncio
import inspect
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from adapters import ADAPTERS, Adapter

CALLERS = 30
LOAD = 0.3  # seconds that a function takes where others shall come meanwhile
NOT_OFFERED = "–"

loop = asyncio.new_event_loop()


def run(value: Any) -> Any:
    """The value, awaited if it must be."""
    return loop.run_until_complete(value) if inspect.isawaitable(value) else value


def counting(adapter: Adapter, name: str, body: Callable[..., Any]) -> tuple[Any, list[Any]]:
    """A function with a name of its own, of the kind that the library decorates, and its runs."""
    runs: list[Any] = []

    def plain(x: Any = 0) -> Any:
        runs.append(x)
        return body(x)

    async def coroutine(x: Any = 0) -> Any:
        runs.append(x)
        return body(x)

    function = coroutine if adapter.is_async else plain
    function.__name__ = function.__qualname__ = name
    return function, runs


# --- the situations --------------------------------------------------------------------------------------------------


def threads_run_it(adapter: Adapter) -> str:
    if adapter.is_async:
        return NOT_OFFERED
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
    if memo is None:
        return NOT_OFFERED

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
        return run(_invalidated_task(adapter, source))
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


def one_true_and_a_float(adapter: Adapter) -> str:
    if not adapter.decorates:
        return NOT_OFFERED
    function, runs = counting(adapter, "types_fn", lambda x: repr(x))
    memo = adapter.memo(function)
    answers = [run(memo(value)) for value in (1, True, 1.0, "1")]
    return (
        "four"
        if len(runs) == 4 and answers == ["1", "True", "1.0", "'1'"]
        else ["", "one", "two", "three", "four"][len(runs)]
    )


def spellings(adapter: Adapter) -> str:
    if not adapter.decorates:
        return NOT_OFFERED
    function, runs = counting(adapter, "spelling_fn", lambda x: x)
    memo = adapter.memo(function)
    run(memo()), run(memo(0)), run(memo(x=0))
    return ("one", "two", "three")[len(runs) - 1]


def methods_of_one_name(adapter: Adapter) -> str:
    """Two classes with a method of the same name and equal arguments: does each get its own answer?"""
    if not adapter.decorates:
        return NOT_OFFERED

    def made(name: str) -> Any:
        if adapter.is_async:

            async def price(self: Any, x: int) -> str:
                return name

        else:

            def price(self: Any, x: int) -> str:  # type: ignore[misc]
                return name

        price.__qualname__ = f"{name}.price"
        same = {"__repr__": lambda self: "shop", "__eq__": lambda self, other: True, "__hash__": lambda self: 1}
        return type(name, (), {"price": adapter.memo(price), **same, "__cache_key__": lambda self: "shop"})()

    return "own" if [run(made(name).price(1)) for name in ("Shop", "Market")] == ["Shop", "Market"] else "the other's"


def tuple_from_the_server(adapter: Adapter) -> str:
    if not adapter.has_server:
        return NOT_OFFERED
    function, _ = counting(adapter, "tuple_fn", lambda x: (1, "a"))
    memo = adapter.shared(function)
    run(memo(1))
    return "a " + type(run(memo(1))).__name__


def stored(url: str) -> list[tuple[Any, bytes, bytes]]:
    """Every text on the server, with its client and key."""
    import redis

    client = redis.Redis.from_url(url)
    return [(client, key, client.get(key)) for key in client.scan_iter() if client.type(key) == b"string"]  # type: ignore[union-attr]


def pickle_on_the_server(adapter: Adapter) -> str:
    if not adapter.has_server:
        return NOT_OFFERED
    function, _ = counting(adapter, "pickle_fn", lambda x: {"a": "b" * 100})
    run(adapter.shared(function)(1))
    return (
        "yes" if any(b"\x80\x04\x95" in data or b"\x80\x05\x95" in data for _, _, data in stored(adapter.url)) else "no"
    )


def damaged_bytes(adapter: Adapter) -> str:
    """One bit of a stored text is another one."""
    if not adapter.has_server:
        return NOT_OFFERED
    function, runs = counting(adapter, "damage_fn", lambda x: "q" * 200)
    memo = adapter.shared(function)
    run(memo(1))
    for client, key, data in stored(adapter.url):
        at = data.find(b"q" * 200)
        if at >= 0:
            client.set(key, data[: at + 100] + b"p" + data[at + 101 :], keepttl=True)
    try:
        answer = run(memo(1))
    except Exception:
        return "error"
    return "wrong value" if answer != "q" * 200 else "miss" if len(runs) == 2 else "not damaged"


SITUATIONS = (
    threads_run_it, tasks_run_it, after_invalidation_during_a_load, none_is_cached,
    change_of_a_result_is_seen_by_others, one_true_and_a_float, spellings, methods_of_one_name, tuple_from_the_server,
    pickle_on_the_server, damaged_bytes,
)  # fmt: skip


def hung_server(adapter: Adapter) -> str:
    """A server that takes connections and never answers: how long one call takes, and what becomes of it."""
    if not adapter.has_server:
        return NOT_OFFERED
    function, _ = counting(adapter, "hung_fn", lambda x: x)
    memo = adapter.shared(function)
    timed(memo, 1)  # the first call loads modules as well
    seconds, became = timed(memo, 2)
    return f"{'under 1' if seconds < 1 else round(seconds)} s{became}"


def timed(memo: Any, x: int) -> tuple[float, str]:
    started, became = time.monotonic(), ""
    try:
        run(memo(x))
    except Exception:
        became = ", then an error"
    return time.monotonic() - started, became


def main() -> None:
    name, url, hung = sys.argv[1:]
    asyncio.set_event_loop(loop)
    facts = {}
    if url:
        adapter = ADAPTERS[name](url)
        for situation in SITUATIONS:
            facts[situation.__name__] = situation(adapter)
    else:
        facts["hung_server"] = hung_server(ADAPTERS[name](hung))
    sys.stdout.write("\n" + json.dumps(facts) + "\n")
    sys.stdout.flush()
    os._exit(0)  # connections to a server that never answers would be waited for


if __name__ == "__main__":
    main()
