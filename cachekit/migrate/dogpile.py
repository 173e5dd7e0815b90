"""dogpile.cache: regions of this module that are configured in it, and functions decorated with them."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import libcst as cst

from cachekit.migrate.module import UNKNOWN, Module, Undecided
from cachekit.migrate.options import (
    KEPT,
    NO_LIMIT,
    nothing_left,
    options_of,
    refuse_attributes,
    refuse_generators,
)

MAKE: Final = ("dogpile.cache.make_region", "dogpile.cache.region.make_region")
NO_VALUE: Final = ("dogpile.cache.api.NO_VALUE", "dogpile.cache.NO_VALUE")
BACKENDS: Final = {
    "dogpile.cache.memory": f'backend="none", isolation="share", {NO_LIMIT}',
    "dogpile.cache.memory_pickle": f'backend="none", {NO_LIMIT}',
    "dogpile.cache.redis": "",
    "dogpile.cache.valkey": "",
    "dogpile.cache.redis_sentinel": "",
    "dogpile.cache.valkey_sentinel": "",
}
FUNCTION_ATTRIBUTES: Final = {"set": "put", "original": "__wrapped__"}
SERVER: Final = "the server is that of REDIS_URL or cachekit.toml, not that of arguments="
NOTHING: Final = "a look-up without a result is cachekit.MISS: compare with `is`, for it is not false as NO_VALUE was"


class Call(NamedTuple):
    """One use of a region: a method, and its call."""

    attribute: cst.Attribute
    call: cst.Call

    @property
    def method(self) -> str:
        return self.attribute.attr.value


def plan(module: Module) -> None:
    """Plan the changes of one module."""
    known: list[cst.CSTNode] = []
    for assign in module.find(cst.Assign):
        made = _made_by(module, assign.value)
        if made is not None:
            known.append(made)
            try:
                _Region(module, assign, made).plan()
            except Undecided as why:
                module.note(assign, str(why))
    for call in module.find(cst.Call):
        if module.full_name(call.func) in MAKE and call not in known:
            module.note(call, "only a region that a variable of this module names is rewritten")


def _made_by(module: Module, value: cst.BaseExpression) -> cst.Call | None:
    """The call of ``make_region`` in a value, also where a method of its result follows."""
    while isinstance(value, cst.Call):
        if module.full_name(value.func) in MAKE:
            return value
        if not isinstance(value.func, cst.Attribute):
            return None
        value = value.func.value
    return None


class _Region:
    """One region. Either all of its uses have a counterpart here, or none is touched."""

    def __init__(self, module: Module, assign: cst.Assign, made: cst.Call) -> None:
        target = assign.targets[0].target
        if len(assign.targets) != 1 or not isinstance(target, cst.Name) or not module.is_global(assign):
            raise Undecided("only a region that one variable of the module names is rewritten")
        self.module = module
        self.assign = assign
        self.made = made
        self.variable = target.value
        self.steps: list[Callable[[], None]] = []  # once all is known to be possible
        if not module.assigned_once(self.variable, assign):
            raise Undecided(f"{self.variable} is assigned more than once")

    def plan(self) -> None:
        settings: list[cst.Call] = []
        if self.assign.value is not self.made:
            settings.append(cst.ensure_type(self.assign.value, cst.Call))
        for use in self.module.uses(self.variable, self.assign):
            found = self.call(use)
            if found.method == "configure":
                settings.append(found.call)
            else:
                self.use(found)
        if len(settings) != 1 or not self.configures(settings[0]):
            raise Undecided("decide where entries are kept, and write cachekit.define(...) for this region")
        self.define(self.definition(settings[0]), settings[0])
        for step in self.steps:
            step()

    def call(self, use: cst.CSTNode) -> Call:
        attribute = self.module.parent(use)
        call = self.module.parent(attribute) if isinstance(attribute, cst.Attribute) else None
        if not isinstance(attribute, cst.Attribute) or not isinstance(call, cst.Call) or call.func is not attribute:
            raise Undecided(f"{self.variable} is given to others, who expect a region of dogpile.cache")
        return Call(attribute, call)

    # How it is configured

    def configures(self, call: cst.Call) -> bool:
        return isinstance(call.func, cst.Attribute) and call.func.attr.value == "configure"

    def definition(self, call: cst.Call) -> str:
        """The fields of the profile."""
        made = options_of(self.made, ("name",))
        for each in ("name", "key_mangler"):
            made.pop(each, None)
        generator = made.pop("function_key_generator", None)
        if generator is not None and not self.module.full_name(generator).endswith(".kwarg_function_key_generator"):
            raise Undecided("function_key_generator=: write key= at the functions that need it")
        options = options_of(call, ("backend", "expiration_time", "arguments"))
        backend = self.module.value(options.pop("backend", cst.Name("None")))
        if backend not in BACKENDS:
            raise Undecided(f"there is no counterpart of the backend {backend}: decide where entries are kept"
                            if isinstance(backend, str) else "decide where entries are kept")  # fmt: skip
        options.pop("arguments", None)
        ttl = self.ttl(options.pop("expiration_time", None)) or "None"
        nothing_left({**made, **options}, "dogpile.cache")
        place = BACKENDS[str(backend)]
        if not place:
            self.steps += [lambda: self.module.note(self.assign, SERVER), lambda: self.module.note(self.assign, KEPT)]
        return ", ".join(filter(None, ['extends="minimal"', f"ttl={ttl}", place]))

    def ttl(self, node: cst.BaseExpression | None) -> str:
        """The text of a time to live; nothing where the region's holds."""
        value = None if node is None else self.module.value(node)
        if node is None or value is None:
            return ""
        if value == -1:
            return "None"
        if value is UNKNOWN or isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise Undecided("expiration_time= is known only at run time: decide what ttl= is")
        return self.module.code(node)

    def define(self, definition: str, settings: cst.Call) -> None:
        """Define the profile where the region is made, so that it exists wherever that is imported."""
        statement, configured = self.module.line_of(self.assign), self.module.line_of(settings)
        if statement is None or configured is None:
            raise Undecided("write one statement on a line")
        if settings is not self.assign.value and not isinstance(self.module.parent(settings), cst.Expr):
            raise Undecided("the result of configure() is used")
        self.module.need("cachekit")
        if settings is not self.assign.value:
            self.module.remove(configured)
        name = self.name()
        defined = cst.parse_statement(f'cachekit.define("{name}", {definition})\n', self.module.tree.config_for_parsing)
        region = cst.parse_expression(f'cachekit.region("{name}")')
        self.module.forget(self.made)
        self.module.change(self.assign, lambda updated: updated.with_changes(value=region))
        self.module.change(statement, lambda updated: cst.FlattenSentinel([
            defined.with_changes(leading_lines=updated.leading_lines), updated.with_changes(leading_lines=[]),
        ]))  # fmt: skip

    def name(self) -> str:
        """Of the profile: no other module's region has it."""
        path = self.module.path
        parts = [self.variable] if path.stem == "__init__" else [path.stem, self.variable]
        while (path.parent / "__init__.py").exists():
            path = path.parent
            parts.insert(0, path.name)
        return ".".join(part.strip("_") for part in parts)[-64:].lstrip("._-0123456789")

    # How it is used

    def use(self, found: Call) -> None:
        method = getattr(self, f"use_{found.method}", None)
        if method is None:
            raise Undecided(f"{self.variable}.{found.method}() has no counterpart here")
        method(found)

    def rename(self, found: Call, name: str, keywords: dict[str, str] | None = None) -> None:
        attribute, call = found
        self.later(attribute, lambda updated: updated.with_changes(attr=cst.Name(name)))
        for arg in call.args:
            if arg.keyword is not None and arg.keyword.value in (keywords or {}):
                self.later(arg.keyword, lambda _, arg=arg: cst.Name((keywords or {})[arg.keyword.value]))

    def later(self, node: cst.CSTNode, change: Any) -> None:
        self.steps.append(lambda: self.module.change(node, change))

    def refuse_result(self, found: Call) -> None:
        if not isinstance(self.module.parent(found.call), cst.Expr):
            raise Undecided(f"the result of {self.variable}.{found.method}() is used, and another here")

    def use_cache_on_arguments(self, found: Call) -> None:
        decorator = self.module.parent(found.call)
        function = self.module.parent(decorator)
        if not isinstance(decorator, cst.Decorator) or not isinstance(function, cst.FunctionDef):
            raise Undecided("cache_on_arguments() is used otherwise than as a decorator")
        refuse_generators(self.module, function)
        if function.asynchronous is not None:
            raise Undecided("coroutines were cached here, not their results")
        options = options_of(found.call, ("namespace", "expiration_time", "should_cache_fn"))
        options.pop("namespace", None)  # functions are told apart by their qualified names
        ttl, condition = self.ttl(options.pop("expiration_time", None)), options.pop("should_cache_fn", None)
        nothing_left(options, "cache_on_arguments")
        first = [each.name.value for each in function.params.params[:1]]
        parts = [
            f"ttl={ttl}" if ttl else "",
            "" if condition is None else f"condition={self.module.code(condition)}",
            f'ignore=("{first[0]}",)' if first in (["self"], ["cls"]) else "",
        ]
        text = f"{self.variable}.cached({', '.join(filter(None, parts))})"
        self.steps.append(lambda: self.module.replace(found.call, text))
        self.attributes(function)

    def attributes(self, function: cst.FunctionDef) -> None:
        """What dogpile.cache puts onto a decorated function."""
        refuse_attributes(self.module, function, "get")
        for use in self.module.uses(function.name.value, function):
            around = self.module.parent(use)
            if isinstance(around, cst.Attribute) and around.attr.value in FUNCTION_ATTRIBUTES:
                name = cst.Name(FUNCTION_ATTRIBUTES[around.attr.value])
                self.later(around, lambda updated, name=name: updated.with_changes(attr=name))

    def use_get_or_create(self, found: Call) -> None:
        options = options_of(found.call, ("key", "creator", "expiration_time"))
        if set(options) - {"key", "creator", "expiration_time"}:
            raise Undecided("get_or_create() with should_cache_fn= or creator_args= has no counterpart here")
        ttl = self.ttl(options.get("expiration_time"))
        self.rename(found, "get_or_set", {"creator": "factory"})
        if "expiration_time" in options:
            if not ttl:
                raise Undecided("leave expiration_time= out where it is that of the region")
            new = cst.ensure_type(cst.parse_expression(f"f(ttl={ttl})"), cst.Call).args[0]
            arg = cst.ensure_type(self.module.parent(options["expiration_time"]), cst.Arg)
            self.later(arg, lambda updated: updated.with_changes(keyword=new.keyword, value=new.value, equal=new.equal))

    def use_get(self, found: Call) -> None:
        options = options_of(found.call, ("key",))
        if set(options) != {"key"}:
            raise Undecided("get() with other options than a key has no counterpart here")
        miss = cst.Arg(cst.parse_expression("cachekit.MISS"))
        spaced = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
        self.later(
            found.call,
            lambda updated: updated.with_changes(args=[cst.Arg(updated.args[0].value, comma=spaced), miss]),
        )
        self.steps.append(lambda: self.module.note(found.call, NOTHING))
        self.steps.append(self.replace_no_value)

    def replace_no_value(self) -> None:
        for node in (*self.module.find(cst.Name), *self.module.find(cst.Attribute)):
            inside = isinstance(self.module.parent(node), (cst.ImportAlias, cst.Attribute))
            if self.module.full_name(node) in NO_VALUE and not inside:
                self.module.replace(node, "cachekit.MISS")

    def use_set(self, found: Call) -> None:
        options_of(found.call, ("key", "value"))

    def use_set_multi(self, found: Call) -> None:
        self.refuse_result(found)
        self.rename(found, "set_many")

    def use_delete(self, found: Call) -> None:
        self.refuse_result(found)

    def use_delete_multi(self, found: Call) -> None:
        self.refuse_result(found)
        self.rename(found, "delete_many")

    def use_invalidate(self, found: Call) -> None:
        options = options_of(found.call, ("hard",))
        if "hard" in options and self.module.value(options["hard"]) is not True:
            raise Undecided("invalidate(hard=False): a stale_ttl in the profile, and mark_stale() of each entry")
        self.rename(found, "clear")
        self.later(found.call, lambda updated: updated.with_changes(args=[]))
