"""aiocache: the decorators `cached` and `cached_stampede`, in memory and on Redis."""

from typing import Final

import libcst as cst

from cachekit.migrate.module import Module, Undecided
from cachekit.migrate.options import (
    IN_PROCESS,
    KEPT,
    NO_LIMIT,
    first_parameter,
    nothing_left,
    options_of,
    refuse_attributes,
    seconds,
)

POSITIONAL: Final = {"cached": ("ttl",), "cached_stampede": ("lease",)}
MEMORY: Final = ("aiocache.Cache.MEMORY", "aiocache.SimpleMemoryCache", "aiocache.backends.memory.SimpleMemoryCache")
REDIS: Final = ("aiocache.Cache.REDIS", "aiocache.RedisCache", "aiocache.backends.redis.RedisCache")
CONNECTION: Final = (
    "endpoint", "port", "db", "password", "namespace", "timeout", "pool_min_size", "pool_max_size",
    "create_connection_timeout",
)  # fmt: skip
METHODS: Final = ("add", "delete", "exists", "expire", "get", "increment", "set")  # of a cache, with a key
SWITCHES: Final = ("cache_read", "cache_write", "aiocache_wait_for_write")
SERVER: Final = "the server is that of REDIS_URL or cachekit.toml; so are namespace= and the like"
THROUGH_JSON: Final = "hits came back through JSON, tuples as lists; now they are what the function returned"


def plan(module: Module) -> None:
    """Plan the changes of one module."""
    for decorator, name, function in module.decorated():
        kind = _kind(name)
        try:
            if kind in POSITIONAL:
                cached = _Cached(module, decorator, function, kind)
                text = cached.text()
                module.need("cachekit")
                module.replace(decorator.decorator, text)
                for note in cached.notes:
                    module.note(decorator, note)
            elif kind == "multi_cached":
                raise Undecided("several keys of one call: cachekit.region().aget_many() and aset_many()")
        except Undecided as why:
            module.note(decorator, str(why))
    for call, name in module.calls():
        if _kind(name) in ("Cache", "SimpleMemoryCache", "RedisCache", "Cache.from_url"):
            module.note(call, "keys and values without a function are cachekit.region(): aget, aset, adelete")
        elif _kind(name) == "caches.set_config":
            module.note(call, "these settings belong into cachekit.toml, an alias into [profiles.ALIAS]")


def _kind(name: str) -> str:
    package, _, rest = name.partition(".")
    return rest.removeprefix("decorators.") if package == "aiocache" else ""


class _Cached:
    """One decorated coroutine function."""

    def __init__(self, module: Module, decorator: cst.Decorator, function: cst.FunctionDef, kind: str) -> None:
        self.module = module
        self.function = function
        self.options = options_of(decorator.decorator, POSITIONAL[kind])
        self.notes: list[str] = []  # for when it can be rewritten
        self.stampede = kind == "cached_stampede"

    def text(self) -> str:
        if self.function.asynchronous is None:
            raise Undecided("aiocache decorates coroutine functions")
        refuse_attributes(self.module, self.function, "cache")
        self.refuse_switches()
        ttl = seconds(self.module, self.options.pop("ttl", None))
        shared, place = self.place()
        parts = [f"ttl={ttl}", *place, "cache_none=False", *self.key(), *self.condition(), *self.lease(shared)]
        nothing_left(self.options, "aiocache")
        return f"cachekit.cache.minimal({', '.join(parts)})"

    def refuse_switches(self) -> None:
        for use in self.module.uses(self.function.name.value, self.function):
            call = self.module.parent(use)
            for arg in call.args if isinstance(call, cst.Call) and call.func is use else ():
                if arg.keyword is not None and arg.keyword.value in SWITCHES:
                    raise Undecided(f"{arg.keyword.value}= of a call: f.refresh() and f.using() do this here")

    def place(self) -> tuple[bool, list[str]]:
        """Whether entries lie on a server, and the options that say so."""
        cache = self.options.pop("cache", None)
        name = "" if cache is None else self.module.full_name(cache)
        serializer = self.serializer()
        if name in REDIS:
            for each in CONNECTION:
                self.options.pop(each, None)
            self.notes += [SERVER, KEPT]
            if serializer in ("", "JsonSerializer"):
                self.notes.append(THROUGH_JSON)
            return True, []
        if cache is not None and name not in MEMORY:
            raise Undecided("decide where entries are kept: backend=None is this process, else a server")
        self.options.pop("namespace", None)
        if serializer == "JsonSerializer":
            self.notes.append(THROUGH_JSON)
        own = IN_PROCESS if serializer in ("", "NullSerializer") else "backend=None"
        return False, [own, NO_LIMIT]

    def serializer(self) -> str:
        given = self.options.pop("serializer", None)
        name = self.module.full_name(given.func) if isinstance(given, cst.Call) and not given.args else ""
        kind = name.rpartition(".")[2]
        if given is not None and kind not in ("JsonSerializer", "PickleSerializer", "NullSerializer"):
            raise Undecided("another serializer: serializer= names one of cachekit's, or one that is installed")
        return kind

    def key(self) -> list[str]:
        """What decides which calls are the same one. A fixed key wins over a callable, and that over the arguments."""
        fixed, builder = self.options.pop("key", None), self.options.pop("key_builder", None)
        noself = self.options.pop("noself", None)
        if fixed is not None:
            self.refuse_shared(fixed)
            return [f"key=lambda *args, **kwargs: {self.module.code(fixed)}"]
        if builder is not None:
            if not self.module.is_global(self.function):
                raise Undecided("key_builder= of a method or an inner function: write key= for its arguments")
            arguments = f"{self.function.name.value}, *args, **kwargs"
            return [f"key=lambda *args, **kwargs: {self.module.callee(builder)}({arguments})"]
        if noself is not None and self.module.value(noself) is True:
            return [f'ignore=("{first_parameter(self.function)}",)']
        return []

    def refuse_shared(self, key: cst.BaseExpression) -> None:
        """A key is the function's own here, and the whole cache's there."""
        same = [arg for arg in self.module.find(cst.Arg) if arg.value is not key and arg.value.deep_equals(key)]
        same = [arg for arg in same if self.is_key(arg)]
        if same or not isinstance(self.module.value(key), str):
            raise Undecided("this key is used more than once, or is made at run time: keys are a function's own here")

    def is_key(self, arg: cst.Arg) -> bool:
        """Whether an argument may be a key: by its name, or because a cache may be asked with it."""
        call = self.module.parent(arg)  # or a class, of whose bases it is one
        asked = isinstance(call, cst.Call) and isinstance(call.func, cst.Attribute) and call.func.attr.value in METHODS
        return asked if arg.keyword is None else arg.keyword.value == "key"

    def condition(self) -> list[str]:
        skip = self.options.pop("skip_cache_func", None)
        return [] if skip is None else [f"condition=lambda value: not {self.module.callee(skip)}(value)"]

    def lease(self, shared: bool) -> list[str]:
        """In one process a function runs once for all that wait; over several, with a lease."""
        self.options.pop("lease", None)
        return ['lease="auto"'] if self.stampede and shared else []
