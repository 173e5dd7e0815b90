"""What the processes of test_stampede.py and test_between_processes.py run: cached functions over data in a file."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

from cachekit import MISS, cache, configure, current_entry, health, invalidate_tags, region
from cachekit.process import default_service
from cachekit.testing import agate, gate

runs: list[str] = []
options: dict[str, Any] = {}


def begin(namespace: str, backend: dict[str, Any], profile: dict[str, Any], file: str) -> None:
    """Begin anew, as a process that has just started; the data are in a file that all processes read."""
    runs.clear()
    options.clear()
    options["data"] = file
    configure(
        namespace=namespace,
        backends={
            "default": {"budget": "5s", "adaptive": False, "heartbeat": "200ms", "max_staleness": "1s", **backend}
        },
        profiles={
            "users": {"jitter": 0, "ttl": "1h", **profile},
            "short": {"jitter": 0, "ttl": "2s"},
            "bare": {"jitter": 0, "ttl": "1h", "l1": {"mode": "off"}},
        },
        replace=True,
    )


def data() -> str:
    return Path(options["data"]).read_text()


def number_of_runs() -> int:
    return len(runs)


def seconds(value: float) -> None:
    options["seconds"] = value


def at_gate(name: str) -> None:
    options["gate"] = name


def _work() -> str:
    runs.append("")
    value = data()
    current_entry().tags.add("late")
    time.sleep(options.get("seconds", 0.0))
    if "gate" in options:
        gate(options["gate"])
    return value


@cache(profile="users", version=1, tags=lambda key: ["tag"])
def load(key: int) -> str:
    return _work()


@cache(profile="short", version=1)
def load_short(key: int) -> str:
    return _work()


@cache(profile="bare", version=1)
def load_bare(key: int) -> str:
    return _work()


@cache(profile="users", version=1, tags=lambda key: ["tag"])
async def aload(key: int) -> str:
    runs.append("")
    value = data()
    current_entry().tags.add("late")
    await asyncio.sleep(options.get("seconds", 0.0))
    if "gate" in options:
        await agate(options["gate"])
    return value


@cache(profile="users", version=1)
def load_opaque(key: int) -> Any:
    runs.append("")
    gate("opaque")
    return threading.Lock()


@cache(profile="users", version=1)
def outer(key: int) -> str:
    return "outer " + load(key)


def call(key: int, name: str = "load") -> str:
    return str(globals()[name](key))


async def acall(key: int) -> str:
    return await aload(key)


def many(name: str, count: int) -> list[str]:
    """So many threads, or tasks, that call at the same time."""
    function = globals()[name]
    if asyncio.iscoroutinefunction(function):

        async def all_of_them() -> list[str]:
            return list(await asyncio.gather(*(function(1) for _ in range(count))))

        return asyncio.run(all_of_them())
    answers: list[str] = []
    barrier = threading.Barrier(count)

    def one() -> None:
        barrier.wait()
        answers.append(function(1))

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def warm() -> None:
    """Connect, so that what follows is not about connecting."""
    deadline = time.monotonic() + 10
    while health().backends["default"].coherence != "tracking" and time.monotonic() < deadline:
        region("users").get("warm")
        time.sleep(0.01)


def invalidate(way: str, name: str = "load", key: int = 1) -> str:
    function = globals()[name]
    ways = {
        "key": lambda: function.invalidate(key),
        "tag": lambda: invalidate_tags("tag"),
        "late tag": lambda: invalidate_tags("late"),
        "function": lambda: function.invalidate_all(),
        "region": lambda: region("users").clear(),
    }
    outcome = ways[way]()
    return str((asyncio.run(_awaited(outcome)) if asyncio.iscoroutine(outcome) else outcome).name)


async def _awaited(result: Any) -> Any:
    return await result


def peek(key: int = 1) -> str | None:
    found = load.peek(key)
    return None if found is MISS else found


def counts(name: str = "load") -> list[int]:
    function = globals()[name].__cachekit__._function
    tally = function.at().tally
    return [tally.lease_waits, tally.impatient, tally.stores]


def coherence() -> list[Any]:
    remote = default_service().tiers("users").remote
    assert remote is not None
    return [remote.coherence.state, remote.coherence.losses]
