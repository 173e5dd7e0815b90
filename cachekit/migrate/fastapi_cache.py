"""fastapi-cache2: decorated endpoints, other decorated coroutine functions, and `FastAPICache`."""

from typing import Final

import libcst as cst

from cachekit.migrate.module import UNKNOWN, Module, Undecided
from cachekit.migrate.options import KEPT, nothing_left, options_of

CACHE: Final = "fastapi_cache.decorator.cache"
INIT: Final = ("fastapi_cache.FastAPICache.init",)
CLEAR: Final = ("fastapi_cache.FastAPICache.clear",)
OURS: Final = "cachekit.integrations.fastapi"
ROUTES: Final = frozenset({"get", "head", "api_route", "route"})
UNSAFE: Final = frozenset({"post", "put", "patch", "delete", "options", "trace"})
CODERS: Final = ("fastapi_cache.coder.JsonCoder", "fastapi_cache.JsonCoder", "fastapi_cache.coder.PickleCoder")
VISITORS: Final = (
    "requests with Authorization or a cookie go around the cache now, unless per_user= says whose they are"
)
HEADER: Final = "X-Cache stands for X-FastAPI-Cache"
SERVER: Final = "the server is that of REDIS_URL or cachekit.toml, and so is the prefix: its namespace"
SETTINGS: Final = "what these options said is said in cachekit.toml or at the functions: decide, and remove this"
STILL: Final = "remove this when nothing decorates with fastapi_cache any more"
CHECKED: Final = "the return annotation is the response model now; response_model=None in the route keeps it unchecked"
TYPED: Final = "hits came back through the coder; now they are what the function returned"


def plan(module: Module) -> None:
    """Plan the changes of one module."""
    inits = [call for call, name in module.calls() if name in INIT]
    clears = [call for call, name in module.calls() if name in CLEAR]
    done, left = 0, 0
    for decorator, name, function in module.decorated():
        if name == CACHE:
            try:
                _plan_cached(module, decorator, function, inits)
                done += 1
            except Undecided as why:
                left += 1
                module.note(decorator, str(why))
    left += len([clear for clear in clears if not _plan_clear(module, clear)])
    for init in inits:
        line = module.line_of(init) if isinstance(module.parent(init), cst.Expr) else None
        if {arg.keyword.value for arg in init.args if arg.keyword is not None} - {"backend", "prefix", "expire"}:
            module.note(init, SETTINGS)
        elif done and not left and line is not None:
            _remove_init(module, line)
        else:
            module.note(init, STILL)


def _plan_cached(module: Module, decorator: cst.Decorator, function: cst.FunctionDef, inits: list[cst.Call]) -> None:
    options = options_of(decorator.decorator, ("expire",))
    ttl = _ttl(module, options.pop("expire", None), inits)
    namespace, coder = options.pop("namespace", None), options.pop("coder", None)
    options.pop("injected_dependency_namespace", None)
    if "key_builder" in options:
        raise Undecided("key_builder=: host, path and query are the key of a page; vary=, per_user= or key= add to it")
    nothing_left(options, "fastapi_cache")
    if coder is not None and module.full_name(coder) not in CODERS:
        raise Undecided("a coder of one's own: a page is kept as its bytes, a value with its types")
    tags = f", tags=[{module.code(namespace)}]" if namespace is not None and module.value(namespace) != "" else ""
    methods = _methods(decorator, function)
    if methods & UNSAFE:
        raise Undecided("fastapi_cache kept GET alone: leave this route without a cache")
    if methods:
        module.need(OURS, "cached_response")
        module.replace(decorator.decorator, f'cached_response(profile="minimal", ttl={ttl}, client_ttl={ttl}{tags})')
        module.note(decorator, VISITORS)
        module.note(decorator, HEADER)
        if function.returns is not None and not _has_model(function):
            module.note(decorator, CHECKED)
    elif function.asynchronous is None:
        raise Undecided("this function became a coroutine function: make it one, or let its callers not await it")
    else:
        module.need("cachekit")
        module.replace(decorator.decorator, f"cachekit.cache.minimal(ttl={ttl}{tags})")
        module.note(decorator, TYPED)


def _ttl(module: Module, expire: cst.BaseExpression | None, inits: list[cst.Call]) -> str:
    """The text of a time to live: the decorator's own, or that of the one ``init`` in this module."""
    if (expire is None or module.value(expire) in (None, 0)) and len(inits) == 1:
        expire = options_of(inits[0], ("backend", "prefix", "expire")).get("expire")
    value = UNKNOWN if expire is None else module.value(expire)
    if expire is None or isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise Undecided("expire= is not known here: write ttl= and use cached_response or cachekit.cache")
    return module.code(expire)


def _has_model(function: cst.FunctionDef) -> bool:
    """Whether a route says itself what its answers look like."""
    calls = [each.decorator for each in function.decorators if isinstance(each.decorator, cst.Call)]
    names = {arg.keyword.value for call in calls for arg in call.args if arg.keyword is not None}
    return "response_model" in names


def _methods(decorator: cst.Decorator, function: cst.FunctionDef) -> set[str]:
    """The methods of the routes above a decorator: none for a function that is no endpoint."""
    found: set[str] = set()
    for each in function.decorators:
        if each is decorator:
            return found
        made = each.decorator
        if isinstance(made, cst.Call) and isinstance(made.func, cst.Attribute):
            found |= {made.func.attr.value} & (ROUTES | UNSAFE)
    return found


def _plan_clear(module: Module, call: cst.Call) -> bool:
    """``await FastAPICache.clear(namespace="x")`` as a statement; whether it could be rewritten."""
    awaited = module.parent(call)
    alone = isinstance(awaited, cst.Await) and isinstance(module.parent(awaited), cst.Expr)
    try:
        options = options_of(call, ("namespace",))
        if not alone or set(options) != {"namespace"}:
            raise Undecided("tags=[...] at the functions, and cachekit.ainvalidate_tags(...) here")
        module.need("cachekit")
        module.replace(call, f"cachekit.ainvalidate_tags({module.code(options['namespace'])})")
    except Undecided as why:
        module.note(call, str(why))
        return False
    return True


def _remove_init(module: Module, statement: cst.SimpleStatementLine) -> None:
    module.remove(statement)
    around = module.parent(statement)
    while not isinstance(around, (cst.FunctionDef, cst.Module)):
        around = module.parent(around)
    for text in (SERVER, KEPT):
        module.note(around if isinstance(around, cst.FunctionDef) else module.tree.body[0], text)
