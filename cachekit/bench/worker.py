"""Measure hits of the caches that an interpreter has: a program that `cachekit.bench.measure` starts.

It needs the standard library alone, so it runs where cachekit is not installed, or another package of that name is.
Every line that it reads and writes is JSON: first it says what is here, then it is told the names of the libraries to
measure and answers when they are ready, then it measures a round per line and says so, and after ``null`` it says what
it found.
"""

import asyncio
import functools
import gc
import json
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from time import perf_counter_ns
from typing import Any, NamedTuple

Decorator = Callable[[Callable[..., Any]], Any]

SIZE, HOUR = 1024, 3600
INT, STR = 10**12, "user:1234"
# What is called, and with which values; ``await`` is for coroutine functions.
COLUMNS: dict[str, tuple[str, dict[str, Any]]] = {
    "int": ("f(x)", {"x": INT}),
    "str": ("f(x)", {"x": STR}),
    "two": ("f(x, y)", {"x": 7, "y": STR}),
    "keyword": ("f(x, flag=True)", {"x": 7}),
    "method": ("o.{name}(x)", {"x": 7}),
    "await": ("f(x)", {"x": 7}),
}
REFERENCE, EMPTY = "functools.lru_cache", "empty coroutine"
CHUNK = 400_000  # ns that a piece takes in a round, or the time of `LEAST` calls
LEAST, MOST = 20, 10_000  # calls


class Way(NamedTuple):
    """One way to use a library: a row. ``special`` are the decorators of single columns."""

    name: str
    memo: Decorator | None = None
    amemo: Decorator | None = None
    special: Mapping[str, Decorator] = {}

    def decorator(self, column: str) -> Decorator | None:
        return self.special.get(column) or (self.amemo if column == "await" else self.memo)


class Library(NamedTuple):
    """A library: where it is imported from, the name that it is installed by, how it is used."""

    module: str
    distribution: str
    ways: Callable[[], Iterator[Way]]


# How users of each library decorate. Every function gets a cache of its own where the library has such a thing.


def lru_cache() -> Iterator[Way]:
    yield Way(REFERENCE, functools.lru_cache(SIZE))


def cachekit() -> Iterator[Way]:
    cached = import_module("cachekit").cache(backend=None, ttl="1h")
    yield Way("cachekit", cached, cached)


def cachekit_io() -> Iterator[Way]:
    cache = import_module("cachekit").cache
    yield Way("cachekit.io @cache.local", cache.local(), cache.local())
    yield Way("cachekit.io @cache(backend=None)", cache(backend=None), cache(backend=None))


def cachetools() -> Iterator[Way]:
    lib = import_module("cachetools")
    yield Way("cachetools LRUCache", lambda f: lib.cached(lib.LRUCache(SIZE))(f))
    yield Way("cachetools TTLCache", lambda f: lib.cached(lib.TTLCache(SIZE, HOUR))(f))
    yield Way("cachetools TTLCache, lock", lambda f: lib.cached(lib.TTLCache(SIZE, HOUR), lock=threading.RLock())(f))


def cachebox() -> Iterator[Way]:
    lib = import_module("cachebox")

    def bare(function: Callable[..., Any]) -> Any:
        return lib.cached(lib.LRUCache(SIZE), lock=None, postprocess=None)(function)

    def ttl(function: Callable[..., Any]) -> Any:
        return lib.cached(lib.TTLCache(SIZE, HOUR))(function)

    yield Way("cachebox LRUCache, bare", bare, bare)
    yield Way("cachebox TTLCache", ttl, ttl)


def theine() -> Iterator[Way]:
    memoize, hour = import_module("theine").Memoize, timedelta(seconds=HOUR)
    yield Way("theine Memoize, no lock", lambda f: memoize(SIZE, hour, nolock=True)(f))
    yield Way("theine Memoize", lambda f: memoize(SIZE, hour)(f), lambda f: memoize(SIZE, hour)(f))


def async_lru() -> Iterator[Way]:
    alru_cache = import_module("async_lru").alru_cache
    yield Way("async_lru", amemo=alru_cache(maxsize=SIZE))
    yield Way("async_lru with a TTL", amemo=alru_cache(maxsize=SIZE, ttl=HOUR))


def aiocache() -> Iterator[Way]:
    yield Way("aiocache SimpleMemoryCache", amemo=import_module("aiocache").cached(ttl=HOUR))


def cashews() -> Iterator[Way]:
    cache = import_module("cashews").Cache()
    cache.setup("mem://")
    yield Way("cashews in memory", amemo=cache(ttl=HOUR))


def dogpile() -> Iterator[Way]:
    lib, util = import_module("dogpile.cache"), import_module("dogpile.cache.util")

    def memo(**options: Any) -> Decorator:
        region = lib.make_region(**options).configure("dogpile.cache.memory", expiration_time=HOUR)
        decorator: Decorator = region.cache_on_arguments()
        return decorator

    keyword = memo(function_key_generator=util.kwarg_function_key_generator)  # the default takes no keywords
    yield Way("dogpile.cache memory", memo(), special={"keyword": keyword})


def diskcache() -> Iterator[Way]:
    cache = import_module("diskcache").Cache("diskcache")
    ignoring_self = cache.memoize(expire=HOUR, ignore={0})  # the key is the pickled arguments
    yield Way("diskcache", cache.memoize(expire=HOUR), special={"method": ignoring_self})


def methodtools() -> Iterator[Way]:
    yield Way("methodtools.lru_cache", import_module("methodtools").lru_cache(maxsize=SIZE))


def keyed(store: Any) -> Mapping[str, Decorator]:
    """For a cache that is asked by keys: its ``get`` where an argument may be one."""

    def holding(key: Any) -> Decorator:
        def stored(function: Callable[..., Any]) -> Any:
            store.set(key, function(key), HOUR)
            return store.get

        return stored

    return {"int": holding(INT), "str": holding(STR)}


def django() -> Iterator[Way]:
    settings = import_module("django.conf").settings
    settings.configure(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}})
    yield Way("Django LocMemCache.get", special=keyed(import_module("django.core.cache").caches["default"]))


def flask_caching() -> Iterator[Way]:
    flask, lib = import_module("flask"), import_module("flask_caching")
    app, cache = flask.Flask(__name__), lib.Cache(config={"CACHE_TYPE": "SimpleCache"})
    cache.init_app(app)
    app.app_context().push()  # every request has one
    yield Way("Flask-Caching SimpleCache.get", special=keyed(cache))
    yield Way("Flask-Caching memoize", cache.memoize(HOUR))


OURS = "cachekit"
LIBRARIES = {
    REFERENCE: Library("functools", "", lru_cache),
    OURS: Library("cachekit.l1.table", "cachekit", cachekit),
    "cachebox": Library("cachebox", "cachebox", cachebox),
    "cachetools": Library("cachetools", "cachetools", cachetools),
    "theine": Library("theine", "theine", theine),
    "methodtools": Library("methodtools", "methodtools", methodtools),
    "dogpile.cache": Library("dogpile.cache", "dogpile.cache", dogpile),
    "diskcache": Library("diskcache", "diskcache", diskcache),
    "django": Library("django", "Django", django),
    "flask-caching": Library("flask_caching", "Flask-Caching", flask_caching),
    "async_lru": Library("async_lru", "async_lru", async_lru),
    "aiocache": Library("aiocache", "aiocache", aiocache),
    "cashews": Library("cashews", "cashews", cashews),
    # Another project of our name: only one of the two can be in an environment.
    "cachekit.io": Library("cachekit.object_cache", "cachekit", cachekit_io),
}
PEERS = tuple(name for name in LIBRARIES if name not in (REFERENCE, OURS))


def is_here(library: Library) -> bool:
    try:
        return find_spec(library.module) is not None
    except ImportError:  # of the package that the module is in
        return False


def version_of(library: Library) -> str:
    try:
        return version(library.distribution) if library.distribution else ""
    except PackageNotFoundError:  # a directory on the path
        return ""


def here() -> dict[str, Any]:
    """The interpreter and the libraries that it has."""
    found = {name: library for name, library in LIBRARIES.items() if is_here(library)}
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "twin": import_module("cachekit.l1.table").TWIN if OURS in found else None,
        "libraries": {name: version_of(library) for name, library in found.items()},
    }


# Measuring.


def plain(column: str, name: str) -> tuple[Callable[..., Any], list[None]]:
    """A function for a column, of that name, and the list that grows each time it runs."""
    runs: list[None] = []

    def one(x: Any) -> str:
        runs.append(None)
        return f"value of {x}"

    def two(x: Any, y: Any) -> str:
        runs.append(None)
        return f"value of {x} {y}"

    def keyword(x: Any, *, flag: bool = False) -> str:
        runs.append(None)
        return f"value of {x} {flag}"

    def method(self: Any, x: Any) -> str:
        runs.append(None)
        return f"value of {x}"

    async def coroutine(x: Any) -> str:
        runs.append(None)
        return f"value of {x}"

    functions: dict[str, Any] = {"two": two, "keyword": keyword, "method": method, "await": coroutine}
    function: Any = functions.get(column, one)
    function.__name__ = name
    function.__qualname__ = f"Shop.{name}" if column == "method" else name  # what decorators tell methods by
    return function, runs


def looped(statement: str, names: Mapping[str, Any], loop: asyncio.AbstractEventLoop | None) -> Callable[[int], Any]:
    """A function that executes the statement so many times and returns the ns and the last value."""
    source = f"""
def make({", ".join(names)}):
    {"async " if loop else ""}def run(count, clock):
        value = None
        start = clock()
        for _ in count:
            value = {"await " if loop else ""}{statement}
        return clock() - start, value
    return run
"""
    scratch: dict[str, Any] = {}
    exec(source, scratch)
    run = scratch["make"](**names)
    if loop is None:
        return lambda calls: run(range(calls), perf_counter_ns)
    return lambda calls: loop.run_until_complete(run(range(calls), perf_counter_ns))


def told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:100]


async def nothing(x: Any) -> Any:
    return x


class Piece:
    """One cell of the table. ``problem`` says why it holds no hits; it is then measured no more."""

    def __init__(self, way: Way, column: str, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.name, self.column, self.problem = way.name, column, ""
        self.best, self.calls = float("inf"), LEAST
        try:
            self._prepare(way.decorator(column), f"function_{number}", loop)
        except Exception as error:
            self.problem = told(error)

    def _prepare(self, decorator: Decorator | None, name: str, loop: asyncio.AbstractEventLoop) -> None:
        statement, values = COLUMNS[self.column]
        function, self.runs = plain(self.column, name)
        if self.name == EMPTY:
            self.expected, made = values["x"], nothing
        else:
            assert decorator is not None
            words = ["value of", *values.values(), *([True] if self.column == "keyword" else [])]
            self.expected = " ".join(map(str, words))
            made = decorator(function)
        names: dict[str, Any] = {"o": type("Shop", (), {name: made})()} if self.column == "method" else {"f": made}
        self.run = looped(statement.format(name=name), names | values, loop if self.column == "await" else None)
        self.run(3)
        self.before = len(self.runs)
        taken, _ = self.run(LEAST)
        self.calls = max(LEAST, min(MOST, CHUNK * LEAST // max(1, taken)))
        self.check()

    def check(self) -> None:
        """That nothing but hits was measured."""
        if len(self.runs) != self.before:
            self.problem = "the function ran again: these were no hits"

    def round(self) -> None:
        try:
            taken, value = self.run(self.calls)
        except Exception as error:
            self.problem = told(error)
            return
        self.best = min(self.best, taken / self.calls)
        if value != self.expected:
            self.problem = f"{value!r} in place of {self.expected!r}"
        self.check()

    def found(self) -> dict[str, Any]:
        return {"ns": None if self.problem else self.best, "problem": self.problem}


def pieces_of(names: list[str], loop: asyncio.AbstractEventLoop) -> Iterator[tuple[str, list[Piece]]]:
    """The rows of these libraries. What cannot be used at all is a row without cells."""
    number = 0
    yield REFERENCE, [Piece(Way(EMPTY), "await", number, loop)]
    for name in names:
        try:
            ways = list(LIBRARIES[name].ways())
        except Exception as error:
            broken = Piece(Way(name), "int", number, loop)
            broken.problem = told(error)
            yield name, [broken]
            continue
        for way in ways:
            columns = [column for column in COLUMNS if way.decorator(column)]
            yield name, [Piece(way, column, number := number + 1, loop) for column in columns]


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever the libraries print
    beside = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  # as the interpreter made it
    sys.path[:] = [path for path in sys.path if path != beside]

    def say(what: Any) -> None:
        answers.write(json.dumps(what) + "\n")

    say(here())
    names = json.loads(sys.stdin.readline())
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    rows = list(pieces_of(names, loop))
    say("ready")
    gc.disable()
    for line in sys.stdin:
        if json.loads(line) is None:
            break
        for _, pieces in rows:
            for piece in pieces:
                if not piece.problem:
                    piece.round()
        say("measured")
    say([
        {"library": library, "name": pieces[0].name, "cells": {piece.column: piece.found() for piece in pieces}}
        for library, pieces in rows
    ])  # fmt: skip
    answers.flush()
    os._exit(0)  # threads and tasks of the libraries would be waited for


if __name__ == "__main__":
    main()
