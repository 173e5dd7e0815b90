"""Flask-Caching: the same names from another place, with its defaults kept until somebody decides otherwise."""

from typing import Final

import libcst as cst
from libcst.helpers import get_full_name_for_node

from cachekit.migrate.module import Module
from cachekit.migrate.options import KEPT

OURS: Final = "cachekit.integrations.flask"
MODULES: Final = ("flask_caching", "flask_caching.signals", "flask_caching.utils")
NAMES: Final = frozenset({
    "Cache", "CachedResponse", "make_template_fragment_key", "cache_memoize_hit", "cache_memoize_miss",
    "cache_view_hit", "cache_view_miss",
})  # fmt: skip
KNOWN_TYPES: Final = frozenset({
    "null", "nullcache", "simple", "simplecache", "redis", "rediscache", "redissentinel", "redissentinelcache",
    "rediscluster", "redisclustercache",
})  # fmt: skip
DEFAULTS: Final = "flask_caching_defaults=True keeps one page for all visitors; leave it out view by view"
JITTER: Final = "times are up to 10% longer, against stampedes; profiles.default.jitter = 0 keeps them"
TYPE: Final = "there is no such store here; SimpleCache is this process, RedisCache a server"


def plan(module: Module) -> None:
    """Plan the changes of one module."""
    done = [_plan_import(module, each) for each in module.find(cst.ImportFrom)]
    for statement in module.find(cst.Import):
        for alias in statement.names:
            if (get_full_name_for_node(alias.name) or "").partition(".")[0] == "flask_caching":
                module.note(statement, f"write: from {OURS} import Cache")
    for call, name in module.calls():
        if name == "flask_caching.Cache" and isinstance(call.func, cst.Name) and all(done):
            _plan_cache(module, call)
    _note_types(module)


def _plan_import(module: Module, imported: cst.ImportFrom) -> bool:
    """Whether nothing of Flask-Caching is left of an import."""
    name = get_full_name_for_node(imported.module) if imported.module is not None and not imported.relative else None
    if name is None or name.partition(".")[0] != "flask_caching":
        return True
    names = [] if isinstance(imported.names, cst.ImportStar) else [alias.name.value for alias in imported.names]
    if name in MODULES and names and NAMES.issuperset(map(str, names)):
        module.replace(imported.module, OURS)  # type: ignore[arg-type]
        return True
    module.note(imported, f"{OURS} has {', '.join(sorted(NAMES))}, and no more")
    return False


def _plan_cache(module: Module, call: cst.Call) -> None:
    flag = cst.Arg(
        cst.Name("True"), cst.Name("flask_caching_defaults"),
        equal=cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace("")),
    )  # fmt: skip
    module.change(call, lambda updated: updated.with_changes(args=[*updated.args, flag]))
    module.note(call, DEFAULTS)
    module.note(call, JITTER)


def _note_types(module: Module) -> None:
    """A ``CACHE_TYPE`` that has no counterpart stops the application; here is why."""
    for element in module.find(cst.DictElement):
        _note_type(module, element.key, element.value)
    for assign in module.find(cst.Assign):
        target = assign.targets[0].target
        if isinstance(target, cst.Subscript) and isinstance(target.slice[0].slice, cst.Index):
            _note_type(module, target.slice[0].slice.value, assign.value)
        elif isinstance(target, cst.Name) and target.value == "CACHE_TYPE":
            _note_type(module, cst.SimpleString('"CACHE_TYPE"'), assign.value)


def _note_type(module: Module, key: cst.BaseExpression, value: cst.BaseExpression) -> None:
    kind = module.value(value)
    if module.value(key) != "CACHE_TYPE" or not isinstance(kind, str):
        return
    kind = kind.rpartition(".")[2].casefold()
    if kind not in KNOWN_TYPES:
        module.note(value, TYPE)
    elif "redis" in kind:
        module.note(value, KEPT)
