"""cachetools: `cached` with a cache of its own, and the decorators of `cachetools.func`."""

from typing import Final

import libcst as cst

from cachekit.migrate.module import UNKNOWN, Module, Undecided
from cachekit.migrate.options import (
    IN_PROCESS,
    first_parameter,
    l1_of,
    nothing_left,
    options_of,
    refuse_attributes,
    refuse_unfit,
    seconds,
)

FUNC: Final = {"cachetools.func.lru_cache": ("maxsize", "typed"), "cachetools.func.ttl_cache": ("maxsize", "ttl")}
POLICIES: Final = ("FIFOCache", "LFUCache", "RRCache", "MRUCache")
OTHERS: Final = tuple(f"cachetools.func.{name}_cache" for name in ("fifo", "lfu", "rr", "mru"))
KEYS: Final = ("cachetools.keys.hashkey", "cachetools.keys.typedkey")
METHOD_KEYS: Final = ("cachetools.keys.methodkey", "cachetools.keys.typedmethodkey")
NO_POLICY: Final = "cachekit evicts by S3-FIFO or LRU: choose one"


def plan(module: Module) -> None:
    """Plan the changes of one module."""
    for decorator, name, function in module.decorated():
        try:
            if name == "cachetools.cached":
                _plan_cached(module, decorator, function)
            elif name in FUNC:
                _carry_out(module, decorator, _func(module, name, decorator.decorator, function))
            elif name in OTHERS:
                raise Undecided(NO_POLICY)
            elif name == "cachetools.cachedmethod":
                raise Undecided("@cachekit.cache here would keep one cache for all instances: decide")
        except Undecided as why:
            module.note(decorator, str(why))
    for call, name in module.calls():
        if name in ("cachetools.cached", "cachetools.cachedmethod", *FUNC, *OTHERS):
            module.note(call, "only functions with a decorator are rewritten; write @cachekit.cache above this one")


def _carry_out(module: Module, decorator: cst.Decorator, text: str) -> None:
    module.need("cachekit")
    module.replace(decorator.decorator, text)


def _func(module: Module, name: str, made: cst.BaseExpression, function: cst.FunctionDef) -> str:
    refuse_unfit(module, function)
    refuse_attributes(module, function, "cache", "cache_key", "cache_lock", "cache_condition")
    options = options_of(made, FUNC[name])
    options.pop("typed", None)  # types count always
    most = options.pop("maxsize", cst.Integer("128"))
    ttl = options.pop("ttl", cst.Integer("600")) if name.endswith("ttl_cache") else None
    nothing_left(options, name)
    return _cache(module, ttl, most)


def _cache(module: Module, ttl: cst.BaseExpression | None, most: cst.BaseExpression | None, more: str = "") -> str:
    profile = "" if ttl is None else ".minimal"  # to the second, and never earlier
    return f"cachekit.cache{profile}(ttl={seconds(module, ttl)}, {IN_PROCESS}, {l1_of(module, most)}{more})"


def _plan_cached(module: Module, decorator: cst.Decorator, function: cst.FunctionDef) -> None:
    refuse_unfit(module, function)
    refuse_attributes(module, function, "cache", "cache_key", "cache_lock", "cache_condition")
    options = options_of(decorator.decorator, ("cache", "key", "lock"))
    options.pop("info", None)
    guards = [options.pop(name) for name in ("lock", "condition") if name in options]
    kept = options.pop("cache", cst.Name("None"))
    made, unneeded = _cache_of(module, kept)
    ttl, most = _limits(module, made)
    key = _key(module, options.pop("key", None), function)
    nothing_left(options, "cached")
    _carry_out(module, decorator, _cache(module, ttl, most, key))
    for statement in (unneeded, *(_only_here(module, guard) for guard in guards)):
        if statement is not None:
            module.remove(statement)


def _cache_of(module: Module, kept: cst.BaseExpression) -> tuple[cst.BaseExpression, cst.CSTNode | None]:
    """What makes the cache, and its assignment if it has a name."""
    if not isinstance(kept, cst.Name) or kept.value == "None":
        return kept, None
    statement = _only_here(module, kept)
    if statement is None:
        raise Undecided(f"{kept.value} is used elsewhere, too, or assigned elsewhere: decide what the others get")
    return cst.ensure_type(cst.ensure_type(statement, cst.SimpleStatementLine).body[0], cst.Assign).value, statement


def _only_here(module: Module, variable: cst.BaseExpression) -> cst.CSTNode | None:
    """The statement that assigns a variable of the module which nothing but this expression uses."""
    if not isinstance(variable, cst.Name):
        return None
    for assign in module.find(cst.Assign):
        target = assign.targets[0].target
        if (
            isinstance(target, cst.Name) and target.value == variable.value and len(assign.targets) == 1
            and module.assigned_once(target.value, assign) and module.uses(target.value, assign) == [variable]
        ):  # fmt: skip
            return module.line_of(assign)
    return None


def _limits(module: Module, made: cst.BaseExpression) -> tuple[cst.BaseExpression | None, cst.BaseExpression | None]:
    """Time to live and number of entries; None for either is no limit."""
    if isinstance(made, cst.Dict) and not made.elements:
        return None, None
    called = module.full_name(made.func) if isinstance(made, cst.Call) else ""
    kind = called.removeprefix("cachetools.")
    if kind in POLICIES:
        raise Undecided(NO_POLICY)
    if kind not in ("LRUCache", "TTLCache"):
        raise Undecided("decide which limits this cache has: write them as max_entries= and ttl=")
    options = options_of(made, ("maxsize", "ttl") if kind == "TTLCache" else ("maxsize",))
    most, ttl = options.pop("maxsize", None), options.pop("ttl", None)
    nothing_left(options, kind)
    if most is not None and (known := module.value(most)) is not UNKNOWN and isinstance(known, float):
        raise Undecided("a number of entries is a whole one")
    return ttl, most


def _key(module: Module, key: cst.BaseExpression | None, function: cst.FunctionDef) -> str:
    """The text of what decides which calls are the same one."""
    name = "" if key is None else module.full_name(key)
    if key is None or name in KEYS:
        return ""
    if name in METHOD_KEYS:
        return f', ignore=("{first_parameter(function)}",)'
    return f", key={_without_hashkey(module, key)}"


def _without_hashkey(module: Module, key: cst.BaseExpression) -> str:
    """``lambda a, b: hashkey(b)`` as ``lambda a, b: (b,)``, which needs no cachetools; anything else as it is."""
    made = key.body if isinstance(key, cst.Lambda) else None
    if not isinstance(made, cst.Call) or module.full_name(made.func) not in KEYS:
        return module.code(key)
    if any(arg.star or arg.keyword for arg in made.args):
        return module.code(key)
    parts = "".join(f"{module.code(arg.value)}, " for arg in made.args)
    return module.code(key.with_changes(body=cst.parse_expression(f"({parts.strip()})")))
