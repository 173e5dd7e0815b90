"""What a process of the coherence test runs: cached functions over a source with versions, clients, and a journal.

Values carry the entry that they belong to and the version of its source. The source is a file that all processes map.
A writer raises the version first and invalidates then.
"""

import asyncio
import fcntl
import importlib.util
import json
import mmap
import os
import random
import struct
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cachekit import MISS, ainvalidate_tags, cache, configure, current_entry, invalidate_tags, region
from cachekit.engine.events import Event, Failed
from cachekit.process import default_service

SETTINGS = "COHERENCE_SETTINGS"  # environment variable: what `setup` needs, as JSON
MOST_KEYS = 8
SHARED = ("load", "aload", "late", "outer")  # functions of the region "shared"
LONE = "lone"  # without L2
NOTE = "note"  # written by `set`, so that nobody can tell which version is right
WORD = struct.Struct("q")

# A cached function inside of another one must not take its value from L1. Before that is so, an outer function may
# keep an outdated value for its whole life, and is not judged.
NESTED_IS_SAFE = importlib.util.find_spec("cachekit.l1.nesting") is not None

now = time.monotonic  # the same clock in all processes of a machine


class Source:
    """A version per entry, which only grows. All processes and threads may read and raise it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b")
        self._words = memoryview(mmap.mmap(self._file.fileno(), 0)).cast("q")  # reads and writes one word at a time
        self._lock = threading.Lock()
        self._places: dict[str, int] = {}

    @staticmethod
    def create(path: Path) -> None:
        path.write_bytes(WORD.pack(1) * MOST_KEYS * 16)

    def place(self, entry: str) -> int:
        what, _, key = entry.partition(":")
        what = "load" if what == "outer" else what  # which is computed from `load`
        return sorted((*SHARED, "item", "direct", LONE, NOTE)).index(what) * MOST_KEYS + int(key)

    def version(self, entry: str) -> int:
        return self._words[self.place(entry)]

    def bump(self, entries: Iterable[str]) -> None:
        """New data for these entries."""
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)  # a process that dies or is killed lets go
            try:
                for place in {self.place(entry) for entry in entries}:
                    self._words[place] += 1
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)


class Value(NamedTuple):
    """What is cached."""

    of: str
    version: int


class Journal:
    """One line per event, in the file of this process, written at once: the process may be killed at any time."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._trouble = 0.0
        self.owing = False  # an invalidation was queued and is not known to be delivered

    def write(self, kind: str, *fields: Any) -> None:
        os.write(self._fd, (json.dumps([kind, *fields]) + "\n").encode())

    def observe(self, event: Event) -> None:
        """L2 failed a call. Once in 10 ms is enough."""
        if isinstance(event, Failed) and not event.reason.startswith("damaged"):
            at = now()
            if at - self._trouble > 0.01:
                self._trouble = at
                self.write("trouble", at, f"{event.operation}: {event.reason}")


class World:
    """What this process works with; filled by `setup`."""

    source: Source
    journal: Journal
    keys: int
    gaps: tuple[float, ...]
    rng: random.Random
    whats: tuple[str, ...]


def setup() -> None:
    told = json.loads(os.environ[SETTINGS])
    World.keys, World.gaps, World.whats = told["keys"], tuple(told["gaps"]), tuple(told["whats"])
    World.rng = random.Random(told["seed"] + os.getpid())
    World.source = Source(Path(told["directory"], "source"))
    World.journal = Journal(Path(told["directory"], f"journal-{told['place']}-{os.getpid()}"))
    if told["broken"]:
        break_rule(told["broken"])
    configured(told)
    default_service().observers.append(World.journal.observe)


def configured(told: dict[str, Any]) -> None:
    """With a quick heartbeat."""
    backend = {**told["backend"], "heartbeat": "200ms", "replay_window": "60s"}
    configure(namespace=told["namespace"], backends={"default": backend}, profiles=PROFILES)


PROFILES: dict[str, dict[str, Any]] = {
    "shared": {"ttl": "1m"},
    "items": {"ttl": "3s"},
    "direct": {"ttl": "1m", "l1": {"mode": "off"}},
    "lone": {"ttl": "1m", "backend": "none"},
    "notes": {"ttl": "1m"},
}


def break_rule(which: str) -> None:
    """Switch a rule off, to see that the test notices.

    "put": L1 takes whatever is put into it, although it was invalidated since it was read. "all": nor does anybody look
    at what was invalidated when joining a load. "fence": L2 takes what was computed before an invalidation. ("age" is a
    matter of the configuration: L1 keeps entries for longer than the checker knows.)
    """
    if which == "put":
        from cachekit.l1.pure import Table

        Table._allowed = lambda *args: True  # type: ignore[method-assign]
    elif which == "all":
        from cachekit.l1.versions import Versions

        Versions.allows = lambda *args, **kwargs: True  # type: ignore[method-assign]
        Versions.tag_event = lambda *args: 0  # type: ignore[method-assign]
    elif which == "fence":
        from cachekit.backends.redis import commands

        store = commands.store
        commands.store = lambda key, data, ttl_ms, token: store(key, data, ttl_ms, None)


# The cached functions


def tag(key: int) -> str:
    return f"tag:{key % 2}"


def read_source(entry: str) -> Value:
    return Value(entry, World.source.version(entry))


def gap() -> float:
    """How long this load takes after it read its source. The longest are rare."""
    *short, longest = World.gaps
    return World.rng.choice(short) if short and World.rng.random() < 0.9 else longest


def slowly(entry: str) -> tuple[str, int]:
    of, version = read_source(entry)
    time.sleep(gap())
    return of, version


@cache(profile="shared", tags=lambda key: [tag(key)], version=1)
def load(key: int) -> tuple[str, int]:
    return slowly(f"load:{key}")


@cache(profile="shared", tags=lambda key: [tag(key)], version=1)
async def aload(key: int) -> list[Any]:
    value = read_source(f"aload:{key}")
    await asyncio.sleep(gap())
    return list(value)


@cache(profile="shared", version=1)
def late(key: int) -> tuple[str, int]:
    """Its tag is known only from the value."""
    value = slowly(f"late:{key}")
    current_entry().tags.add(tag(key))
    return value


@cache(profile="shared", tags=lambda key: [tag(key)], version=1)
def outer(key: int) -> tuple[str, int]:
    """Computed from another cached function."""
    _, version = load(key)
    time.sleep(gap())
    return f"outer:{key}", version


@cache(profile="direct", tags=lambda key: [tag(key)], version=1)
def direct(key: int) -> tuple[str, int]:
    return slowly(f"direct:{key}")


@cache(profile="lone", tags=lambda key: [tag(key)], version=1)
def lone(key: int) -> tuple[str, int]:
    return slowly(f"lone:{key}")


items, notes = region("items"), region("notes")
FUNCTIONS: dict[str, Any] = {
    "load": load, "aload": aload, "late": late, "outer": outer, "direct": direct, "lone": lone,
}  # fmt: skip
REGIONS = {"shared": SHARED, "items": ("item",), "direct": ("direct",), "lone": (LONE,)}


# Journal entries. The time before a call is taken last, the time after it first.


def logged(entry: str) -> str:
    """The name of an entry in the log: one of a process alone carries its id."""
    return f"{entry}@{os.getpid()}" if entry.startswith(LONE) else entry


def covered(whats: Iterable[str], keys: Iterable[int]) -> list[str]:
    return [f"{what}:{key}" for what in whats if what in World.whats for key in keys]


@contextmanager
def noting_errors(how: str) -> Any:
    begin = now()
    try:
        yield
    except Exception as error:
        World.journal.write("raised", begin, now(), how, f"{type(error).__name__}: {error}", traceback.format_exc())


def note_read(begin: float, end: float, how: str, entry: str, value: Any, strict: bool = False) -> None:
    if value is not None and value is not MISS:
        of, version = value
        latest = World.source.version(entry)
        World.journal.write("read", begin, end, how, logged(entry), logged(of), version, latest, strict)


def versions_of(entries: Iterable[str]) -> dict[str, int]:
    return {
        logged(entry): World.source.version(entry)
        for entry in entries
        if NESTED_IS_SAFE or not entry.startswith("outer")
    }


def note_invalidation(begin: float, end: float, how: str, outcome: Any, versions: dict[str, int]) -> None:
    World.journal.write("invalidation", begin, end, how, outcome.value, versions)
    if outcome.value == "queued":
        World.journal.owing = True


# What clients do. Each step exists for threads and for tasks.

Step = Callable[[random.Random], None]
AsyncStep = Callable[[random.Random], Coroutine[Any, Any, None]]


def choose(rng: random.Random) -> tuple[str, int]:
    return rng.choice(World.whats), rng.randrange(World.keys)


def step_read(rng: random.Random) -> None:
    what, key = choose(rng)
    entry = f"{what}:{key}"
    with noting_errors(f"read {entry}"):
        begin = now()
        if what != "item":
            value = (aload.twin() if what == "aload" else FUNCTIONS[what])(key)
        elif rng.random() < 0.3:
            value = items.get(key)
        else:
            value = items.get_or_set(key, lambda: slowly(entry), tags=[tag(key)])
        note_read(begin, now(), "read", entry, value)


async def astep_read(rng: random.Random) -> None:
    what, key = choose(rng)
    entry = f"{what}:{key}"
    with noting_errors(f"aread {entry}"):
        begin = now()
        if what != "item":
            value = await (aload if what == "aload" else FUNCTIONS[what].twin())(key)
        elif rng.random() < 0.3:
            value = await items.aget(key)
        else:
            value = await items.aget_or_set(key, lambda: slowly(entry), tags=[tag(key)])
        note_read(begin, now(), "aread", entry, value)


def step_peek(rng: random.Random) -> None:
    key = rng.randrange(World.keys)
    with noting_errors("peek"):
        begin = now()
        value = direct.peek(key)
        note_read(begin, now(), "peek", f"direct:{key}", value, True)


async def astep_peek(rng: random.Random) -> None:
    key = rng.randrange(World.keys)
    with noting_errors("apeek"):
        begin = now()
        value = await direct.twin().peek(key)
        note_read(begin, now(), "apeek", f"direct:{key}", value, True)


def step_key(rng: random.Random) -> None:
    what, key = choose(rng)
    entry = f"{what}:{key}"
    World.source.bump([entry])
    with noting_errors(f"invalidate {entry}"):
        if what == "outer":
            invalidate_nested(key)
            return
        versions, begin = versions_of([entry]), now()
        blocking = aload.twin() if what == "aload" else FUNCTIONS.get(what)
        outcome = items.delete(key) if blocking is None else blocking.invalidate(key)
        note_invalidation(begin, now(), "key", outcome, versions)


def invalidate_nested(key: int) -> None:
    """The inner one first. What follows for the outer one follows only if all processes know of the inner one."""
    versions, begin = versions_of([f"load:{key}"]), now()
    outcome = load.invalidate(key)
    note_invalidation(begin, now(), "key", outcome, versions)
    begin = now()
    outer_outcome = outer.invalidate(key)
    if outcome.value == "done":
        versions = {f"outer:{key}": versions[f"load:{key}"]} if NESTED_IS_SAFE else {}
        note_invalidation(begin, now(), "key", outer_outcome, versions)


async def astep_key(rng: random.Random) -> None:
    what, key = choose(rng)
    entry = f"{what}:{key}"
    World.source.bump([entry])
    with noting_errors(f"ainvalidate {entry}"):
        if what == "outer":
            await asyncio.to_thread(invalidate_nested, key)
            return
        versions, begin = versions_of([entry]), now()
        awaited = aload if what == "aload" else None if what == "item" else FUNCTIONS[what].twin()
        outcome = await (items.adelete(key) if awaited is None else awaited.invalidate(key))
        note_invalidation(begin, now(), "key", outcome, versions)


def some(rng: random.Random, entries: list[str]) -> list[str]:
    return rng.sample(entries, rng.randint(1, len(entries))) if entries else []


def tagged(rng: random.Random) -> tuple[str, list[str]]:
    """A tag and the entries that carry it."""
    parity = rng.randrange(2)
    entries = covered(World.whats, range(parity, World.keys, 2))
    World.source.bump(some(rng, entries))
    return f"tag:{parity}", entries


def step_tag(rng: random.Random) -> None:
    name, entries = tagged(rng)
    with noting_errors(f"invalidate_tags {name}"):
        versions, begin = versions_of(entries), now()
        outcome = invalidate_tags(name)
        note_invalidation(begin, now(), "tag", outcome, versions)


async def astep_tag(rng: random.Random) -> None:
    name, entries = tagged(rng)
    with noting_errors(f"ainvalidate_tags {name}"):
        versions, begin = versions_of(entries), now()
        outcome = await ainvalidate_tags(name)
        note_invalidation(begin, now(), "tag", outcome, versions)


def chosen_function(rng: random.Random) -> tuple[str, list[str]]:
    what = rng.choice([what for what in World.whats if what not in ("item", "outer")])
    entries = covered([what], range(World.keys))
    World.source.bump(some(rng, entries))
    return what, entries


def step_function(rng: random.Random) -> None:
    what, entries = chosen_function(rng)
    with noting_errors(f"invalidate_all {what}"):
        versions, begin = versions_of(entries), now()
        outcome = (aload.twin() if what == "aload" else FUNCTIONS[what]).invalidate_all()
        note_invalidation(begin, now(), "function", outcome, versions)


async def astep_function(rng: random.Random) -> None:
    what, entries = chosen_function(rng)
    with noting_errors(f"ainvalidate_all {what}"):
        versions, begin = versions_of(entries), now()
        outcome = await (aload if what == "aload" else FUNCTIONS[what].twin()).invalidate_all()
        note_invalidation(begin, now(), "function", outcome, versions)


def chosen_region(rng: random.Random) -> tuple[str, list[str]]:
    name = rng.choice([name for name, whats in REGIONS.items() if set(whats) & set(World.whats)])
    entries = covered(REGIONS[name], range(World.keys))
    World.source.bump(some(rng, entries))
    return name, entries


def step_region(rng: random.Random) -> None:
    name, entries = chosen_region(rng)
    with noting_errors(f"clear {name}"):
        versions, begin = versions_of(entries), now()
        outcome = region(name).clear()
        note_invalidation(begin, now(), "region", outcome, versions)


async def astep_region(rng: random.Random) -> None:
    name, entries = chosen_region(rng)
    with noting_errors(f"aclear {name}"):
        versions, begin = versions_of(entries), now()
        outcome = await region(name).aclear()
        note_invalidation(begin, now(), "region", outcome, versions)


def step_note(rng: random.Random) -> None:
    key = rng.randrange(World.keys)
    entry = f"{NOTE}:{key}"
    with noting_errors(f"set, get or delete {entry}"):
        begin = now()
        if rng.random() < 0.3:
            World.source.bump([entry])
            notes.set(key, list(read_source(entry)), tags=[tag(key)])
        elif rng.random() < 0.1:
            notes.delete(key)
        else:
            note_read(begin, now(), "get", entry, notes.get(key))


async def astep_note(rng: random.Random) -> None:
    key = rng.randrange(World.keys)
    entry = f"{NOTE}:{key}"
    with noting_errors(f"aset, aget or adelete {entry}"):
        begin = now()
        if rng.random() < 0.3:
            World.source.bump([entry])
            await notes.aset(key, list(read_source(entry)), tags=[tag(key)])
        elif rng.random() < 0.1:
            await notes.adelete(key)
        else:
            note_read(begin, now(), "aget", entry, await notes.aget(key))


STEPS: dict[str, tuple[Step, AsyncStep]] = {
    "read": (step_read, astep_read),
    "peek": (step_peek, astep_peek),
    "key": (step_key, astep_key),
    "tag": (step_tag, astep_tag),
    "function": (step_function, astep_function),
    "region": (step_region, astep_region),
    "note": (step_note, astep_note),
}


def client(seed: int, until: float, think: float, mix: dict[str, int]) -> int:
    """A thread that works until then; how many steps it did."""
    rng = random.Random(seed)
    names, weights, count = list(mix), list(mix.values()), 0
    while now() < until:
        STEPS[rng.choices(names, weights)[0]][0](rng)
        time.sleep(rng.random() * think)
        count += 1
    return count


async def aclient(seed: int, until: float, think: float, mix: dict[str, int]) -> int:
    """As `client`, a task."""
    rng = random.Random(seed)
    names, weights, count = list(mix), list(mix.values()), 0
    while now() < until:
        await STEPS[rng.choices(names, weights)[0]][1](rng)
        await asyncio.sleep(rng.random() * think)
        count += 1
    return count


# For the driver


def reach() -> bool:
    """Look for something in L2; whether it answered and nothing is queued, which the journal then says."""
    service, begin = default_service(), now()
    failed: list[Event] = []
    service.observers.append(failed.append)
    try:
        region("direct").get("nothing")
    finally:
        service.observers.remove(failed.append)
    # The answer of another call may have come late; then this look says nothing, which does no harm.
    if any(isinstance(event, Failed) for event in failed):
        return False
    remotes = service.remotes_in_use()
    if any(len(remote.outbox) for remote in remotes) or not all(remote.well for remote in remotes):
        return False
    World.journal.write("reached", begin, now())
    return True


def keep_reaching(until: float, every: float) -> None:
    """Look now and then."""
    while now() < until:
        reach()
        time.sleep(every)


def sweep() -> int:
    """Read everything once."""
    count = 0
    for what in World.whats:
        for key in range(World.keys):
            entry = f"{what}:{key}"
            with noting_errors(f"read {entry}"):
                begin = now()
                if what == "item":
                    value = items.get_or_set(key, lambda entry=entry: slowly(entry), tags=[tag(key)])  # type: ignore[misc]
                else:
                    value = (aload.twin() if what == "aload" else FUNCTIONS[what])(key)
                note_read(begin, now(), "sweep", entry, value)
                count += 1
    return count
