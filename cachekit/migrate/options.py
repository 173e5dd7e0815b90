"""Options of another cache's call, and the text of ours."""

from typing import Final

import libcst as cst

from cachekit.migrate.module import UNKNOWN, Module, Undecided

# Other caches keep whatever fits into the number of entries, and give out the very object that they keep.
NO_LIMIT: Final = 'l1={"max_entries": 1_000_000_000, "max_bytes": "1024GiB"}'
KEPT: Final = "popular values are kept in the process, too; l1 = {mode = 'off'} asks the server each time"
IN_PROCESS: Final = 'backend=None, isolation="share"'


def options_of(call: cst.BaseExpression, positional: tuple[str, ...] = ()) -> dict[str, cst.BaseExpression]:
    """The arguments of a call by name; a decorator without a call has none. Raises `Undecided` for ``*`` and ``**``."""
    found: dict[str, cst.BaseExpression] = {}
    args = call.args if isinstance(call, cst.Call) else ()
    for number, arg in enumerate(args):
        if arg.star or (arg.keyword is None and number >= len(positional)):
            raise Undecided("write the options out by their names")
        found[positional[number] if arg.keyword is None else arg.keyword.value] = arg.value
    return found


def nothing_left(options: dict[str, cst.BaseExpression], peer: str) -> None:
    """Raise `Undecided` for options that no rule has taken."""
    if options:
        raise Undecided(f"{peer}'s {', '.join(f'{name}=' for name in sorted(options))} has no counterpart here")


def seconds(module: Module, node: cst.BaseExpression | None) -> str:
    """The text of a time to live; None is for ever. What is not known before a run is checked when it is decorated."""
    if node is None:
        return "None"
    value = module.value(node)
    if value is None:
        return "None"
    if value is not UNKNOWN and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
        raise Undecided("a time to live is more than 0, or None for ever")
    return module.code(node)


def l1_of(module: Module, most: cst.BaseExpression | None) -> str:
    """The text of ``l1=`` for a number of entries, with the limits and the order of eviction of LRU caches."""
    if most is None or module.value(most) is None:
        return NO_LIMIT
    return f'l1={{"policy": "lru", "max_entries": {_count(module, most)}, "max_bytes": "1024GiB"}}'


def _count(module: Module, most: cst.BaseExpression) -> str:
    value = module.value(most)
    if value is not UNKNOWN and (isinstance(value, bool) or not isinstance(value, int) or value <= 0):
        raise Undecided("a cache with room for nothing: remove the decorator")
    return module.code(most)


def first_parameter(function: cst.FunctionDef) -> str:
    """The name of a method's instance. Raises `Undecided` if there is none."""
    for parameter in (*function.params.posonly_params, *function.params.params):
        return parameter.name.value
    raise Undecided("a method without self")


def refuse_unfit(module: Module, function: cst.FunctionDef) -> None:
    """Raise `Undecided` for functions of which a blocking cache keeps something that is used up by its first user."""
    if function.asynchronous is not None:
        raise Undecided("coroutines were cached here, not their results: decide what is meant")
    refuse_generators(module, function)


def refuse_generators(module: Module, function: cst.FunctionDef) -> None:
    """Raise `Undecided` for generators."""
    if module.find(cst.Yield, function.body):
        raise Undecided("a generator is used up by its first user: return a list")


def refuse_attributes(module: Module, function: cst.FunctionDef, *names: str) -> None:
    """Raise `Undecided` if the module uses one of these attributes of a function."""
    used = sorted({each for each in module.attributes(function) if each in names})
    if used:
        shown = ", ".join(f"{function.name.value}.{each}" for each in used)
        raise Undecided(f"{shown} has no counterpart here")
