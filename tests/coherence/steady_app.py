"""What the processes of test_topologies.py run: calls without a pause, each answer judged at once."""

import asyncio
import random
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from cachekit import Outcome, ainvalidate_tags, cache, configure, current_entry, health, invalidate_tags, region
from cachekit.l2.outbox import Outbox

THREADS, TASKS = 2, 2
OWN = 3  # keys that one worker changes
SHARED = 40  # keys that nobody changes
THINK = 0.002  # seconds between two calls of a worker
CHANGES = 0.1  # share of the steps that change something
WELL = ["tracking", "closed"]

versions: dict[str, int] = {}  # the source of what a worker changes
runs: list[str] = []
wrong: list[str] = []
outcomes: set[str] = set()
replay = Outbox.replay


def begin(namespace: str, url: str, **backend: Any) -> None:
    """Begin anew, as a process that has just started. Only the backend's URL says what kind of setup it is."""
    for each in (versions, runs, wrong, outcomes):
        each.clear()
    Outbox.replay = replay  # type: ignore[method-assign]
    configure(
        namespace=namespace,
        backends={"default": {"url": url, "budget": "10s", "adaptive": False, **backend}},  # the machine may be busy
        profiles={
            "users": {"jitter": 0, "ttl": "1h"},
            "bare": {"jitter": 0, "ttl": "1h", "l1": {"mode": "off"}},
        },
        replace=True,
    )


@cache(profile="users", version=1, tags=lambda key: [f"tag-{key}"])
def own(key: str) -> int:
    runs.append(key)
    current_entry().tags.add(f"late-{key}")
    return versions.get(key, 0)


@cache(profile="users", version=1, tags=lambda key: [f"tag-{key}"])
async def aown(key: str) -> int:
    runs.append(key)
    current_entry().tags.add(f"late-{key}")
    return versions.get(key, 0)


@cache(profile="bare", version=1)
def shared(key: int) -> list[int]:
    runs.append(str(key))
    return [key, key * key]


@cache(profile="bare", version=1)
async def ashared(key: int) -> list[int]:
    runs.append(str(key))
    return [key, key * key]


# Steady work

_stop = threading.Event()
_workers: list[threading.Thread] = []


def work(place: int, ways: list[str] | None = None) -> None:
    """Threads and tasks begin to call; `rest` ends them and tells what was wrong."""
    _stop.clear()
    chosen = ways or ["key", "tag", "late"]
    _workers[:] = [threading.Thread(target=_thread, args=(f"{place}-{n}", chosen)) for n in range(THREADS)]
    _workers.append(threading.Thread(target=asyncio.run, args=(_tasks(place, chosen),)))
    for worker in _workers:
        worker.start()


def rest() -> dict[str, Any]:
    """End the work. What it brought."""
    _stop.set()
    for worker in _workers:
        worker.join(20)
    alive = [worker.name for worker in _workers if worker.is_alive()]
    return {"wrong": wrong[:3] + alive, "outcomes": sorted(outcomes), "calls": calls()}


def until_more_calls(count: int = 100) -> None:
    """The workers did something."""
    wanted = calls() + count
    _until(lambda: calls() >= wanted, 20.0)


def calls() -> int:
    infos = [function.cache_info() for function in (own, aown, shared, ashared)]
    return sum(info.hits + info.misses for info in infos)


def _thread(name: str, ways: list[str]) -> None:
    rng = random.Random(name)
    while not _stop.is_set():
        try:
            _step(name, rng, ways)
        except BaseException:
            wrong.append(traceback.format_exc())
        time.sleep(THINK)


def _step(name: str, rng: random.Random, ways: list[str]) -> None:
    key, number = f"{name}-{rng.randrange(OWN)}", rng.randrange(SHARED)
    if rng.random() < CHANGES:
        versions[key] = versions.get(key, 0) + 1
        way = rng.choice(ways)
        outcome = own.invalidate(key) if way == "key" else invalidate_tags(f"{way}-{key}")
        outcomes.add(outcome.name)
    _judge(f"own {key}", own(key), versions.get(key, 0))
    _judge(f"shared {number}", shared(number), [number, number * number])


def _judge(what: str, answer: Any, right: Any) -> None:
    if answer != right:
        wrong.append(f"{what}: {answer} instead of {right} at {time.monotonic()}")


async def _tasks(place: int, ways: list[str]) -> None:
    await asyncio.gather(*(_task(f"{place}-async-{n}", ways) for n in range(TASKS)))


async def _task(name: str, ways: list[str]) -> None:
    rng = random.Random(name)
    while not _stop.is_set():
        try:
            await _astep(name, rng, ways)
        except BaseException:
            wrong.append(traceback.format_exc())
        await asyncio.sleep(THINK)


async def _astep(name: str, rng: random.Random, ways: list[str]) -> None:
    key, number = f"{name}-{rng.randrange(OWN)}", rng.randrange(SHARED)
    if rng.random() < CHANGES:
        versions[key] = versions.get(key, 0) + 1
        way = rng.choice(ways)
        outcome = await (aown.invalidate(key) if way == "key" else ainvalidate_tags(f"{way}-{key}"))
        outcomes.add(outcome.name)
    _judge(f"aown {key}", await aown(key), versions.get(key, 0))
    _judge(f"ashared {number}", await ashared(number), [number, number * number])


# What the driver asks for


def state() -> list[str]:
    backend = health().backends["default"]
    return [backend.coherence, backend.breaker]


def until_tracking(seconds: float = 15.0) -> float:
    """Seconds until changes are heard of; somebody must use the backend meanwhile, so this does."""
    taken = _until(lambda: region("users").get("warm") is None and state() == WELL, seconds)
    region("bare").set("probe", 1)
    return taken


def until_recovered(seconds: float = 15.0) -> float:
    """Seconds until L2 answers both kinds of calls, the breaker is closed, and changes are heard of.

    The probe is a value that lies in L2. What the workers ask for may wait for a lease whose answer was lost.
    """
    probe = region("bare")
    last: list[Any] = []

    def recovered() -> bool:
        last[:] = state()
        if last == WELL:
            last.append(probe.get("probe"))
            last.append(asyncio.run(probe.aget("probe")))
        last.extend(state())
        return last == [*WELL, 1, 1, *WELL]

    return _until(recovered, seconds, last)


def _until(condition: Callable[[], bool], seconds: float, told: object = "") -> float:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds} s: {told} {health()}")
        time.sleep(0.005)
    return time.monotonic() - began


def put(key: str, version: int) -> None:
    """New data in the source."""
    versions[key] = version


def get(key: str, name: str) -> int:
    return own(key) if name == "own" else asyncio.run(aown(key))


def until_followed(key: str, name: str, version: int) -> float:
    """Seconds until a call answers with this version."""
    return _until(lambda: get(key, name) == version, 10.0)


def invalidate(key: str, name: str, way: str) -> str:
    function = own if name == "own" else aown
    ways: dict[str, Callable[[], Any]] = {
        "key": lambda: function.invalidate(key),
        "tag": lambda: invalidate_tags(f"tag-{key}"),
        "late tag": lambda: invalidate_tags(f"late-{key}"),
        "function": lambda: function.invalidate_all(),
        "region": lambda: region("users").clear(),
    }
    outcome = ways[way]()
    done: Outcome = asyncio.run(_awaited(outcome)) if asyncio.iscoroutine(outcome) else outcome
    return done.name


async def _awaited(result: Any) -> Any:
    return await result


_watched: list[int] = []
_watchers: list[threading.Thread] = []


def watch(key: str, name: str) -> None:
    """Ask for a key again and again, until `watched`."""
    _watched.clear()
    _stop.clear()
    _watchers[:] = [threading.Thread(target=_watch, args=(key, name))]
    _watchers[0].start()


def _watch(key: str, name: str) -> None:
    while not _stop.is_set():
        _watched.append(get(key, name))
        time.sleep(THINK)


def watched() -> dict[str, int]:
    """How often each version was the answer."""
    _stop.set()
    _watchers[0].join(20)
    return {str(version): _watched.count(version) for version in set(_watched)}


def names(key: str, name: str = "own") -> dict[str, str]:
    """What the parts of an entry are called in L2."""
    function = own if name == "own" else aown
    at = function.__cachekit__._function.at()
    return {
        "value": str(function.key(key)),
        "region stamp": at.tiers.region_stamp,
        "tag stamp": f"{at.tiers.namespace}:t:{{_}}:tag",
    }


def number_of_runs() -> int:
    return len(runs)


def forget_what_l2_confirmed() -> None:
    """The control of rule Q3: nothing is delivered again after a failover."""
    Outbox.replay = lambda *_: None  # type: ignore[method-assign,assignment]


def mistakes() -> list[str]:
    """What was wrong so far, while the work goes on."""
    return list(wrong)
