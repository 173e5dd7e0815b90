"""`functools.lru_cache` and `functools.cache`: no time to live, in the process, the least recently used goes."""

import libcst as cst

from cachekit.migrate.module import Module, Undecided
from cachekit.migrate.options import IN_PROCESS, l1_of, nothing_left, options_of, refuse_unfit

NAMES = ("functools.lru_cache", "functools.cache")


def plan(module: Module) -> None:
    """Plan the changes of one module."""
    for decorator, name, function in module.decorated():
        if name in NAMES:
            try:
                text = _cache(module, name, decorator.decorator, function)
                module.need("cachekit")
                module.replace(decorator.decorator, text)
            except Undecided as why:
                module.note(decorator, str(why))
    for call, name in module.calls():
        if name in NAMES:
            module.note(call, "only functions with a decorator are rewritten; write @cachekit.cache above this one")


def _cache(module: Module, name: str, made: cst.BaseExpression, function: cst.FunctionDef) -> str:
    refuse_unfit(module, function)
    options = options_of(made, ("maxsize", "typed"))
    options.pop("typed", None)  # types count always
    most: cst.BaseExpression | None = None
    if name == "functools.lru_cache":
        most = options.pop("maxsize", cst.Integer("128"))
    nothing_left(options, name)
    return f"cachekit.cache(ttl=None, {IN_PROCESS}, {l1_of(module, most)})"
