"""The function that users call: generated with the signature of theirs, it answers hits without any other call.

For ``def f(x, *, flag=True)`` the generated code reads, in essence::

    def f(x, *, flag=True):
        try:
            entry = index[x, flag]
            if entry.t0 is type(x) and entry.t1 is type(flag):
                if (now := clock()) < entry.until and now < table.alive_until:
                    entry.hits += 1
                    return entry.value
                if not entry.aside and (value := table.hit(entry)) is not MISS:
                    return value
        except (KeyError, TypeError):  # nothing there, or an argument that cannot be hashed
            pass
        return slow((x,), {"flag": flag})

A real function: wrong arguments raise the interpreter's own TypeError, and tools see what they expect. A hit takes no
lock. Whatever an argument's ``__hash__`` or ``__eq__`` raises happens again, and is seen, on the slow path.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from keyword import iskeyword
from types import FunctionType
from typing import TYPE_CHECKING, Any

from cachekit.engine.miss import MISS

if TYPE_CHECKING:
    from cachekit.l1.pure import Table

SINGLE = ("t0", "t1", "t2", "t3")  # the types of the first arguments; of more, ``kinds`` holds all
HELPERS = ("index", "clock", "table", "slow", "type", "KeyError", "TypeError", "MISS", "entry", "now", "value")


class Memo:
    """A generated function, ``call``, and the table that it looks into. Unbound, every call goes to the slow path."""

    __slots__ = ("_bind", "call")

    def __init__(self, call: Callable[..., Any], bind: Callable[[Any, Any, Any], None]) -> None:
        self.call = call
        self._bind = bind

    def bind_table(self, table: "Table", slot: int) -> None:
        """Answer hits from this slot."""
        self._bind(table._slots[slot].index, table.clock, table)

    def unbind(self) -> None:
        """Answer nothing; every call goes to ``on_slow``."""
        self._bind({}, None, None)

    def binds_by(self, face: Any) -> bool:
        """Let ``instance.f`` be what ``face`` makes of the instance. False: Python binds functions in its own way."""
        return False

    def loads_by(self, *plan: Any, early: bool) -> None:
        """Let the core run loads by itself; here there is none."""

    def stop_loading(self) -> None:
        """Let every miss go to ``on_slow``."""


def compile_memo(
    func: Callable[..., Any],
    signature: Any,
    on_slow: Callable[[tuple[Any, ...], dict[str, Any]], Any],
    *,
    ignore: frozenset[str] = frozenset(),
    is_async: bool = False,
) -> Memo:
    """Generate the function for `func`.

    ``signature`` is an `inspect.Signature` or has one as its attribute of this name. The arguments of an entry are the
    values of the parameters not in ``ignore``, in their order. ``on_slow(args, kwargs)`` gets what the function would
    have got, defaults filled in; for ``is_async`` it returns an awaitable. Functions with ``*args`` or ``**kwargs``
    always go there.
    """
    return Memo(*_compile(_OfTable(func, signature, ignore, is_async), on_slow))


def compile_shell(func: Callable[..., Any], signature: Any, on_slow: Any, *, is_async: bool) -> Callable[..., Any]:
    """The function without a table: every call goes to ``on_slow``."""
    return _compile(_Source(func, signature, frozenset(), is_async), on_slow)[0]


def compile_probe(func: Callable[..., Any], signature: Any, on_slow: Any, probe: Any) -> Callable[..., Any]:
    """An async function that asks ``probe(*args)``, all arguments in their order, and runs if that is MISS."""
    call, bind = _compile(_OfProbe(func, signature, frozenset(), True), on_slow)
    bind(probe, None, None)
    return call


def _compile(source: "_Source", on_slow: Any) -> tuple[Callable[..., Any], Callable[[Any, Any, Any], None]]:
    """The function, and what gives it its table."""
    scratch: dict[str, Any] = {}
    func, parameters = source.func, source.parameters
    exec(compile(source.text(), f"<memo of {getattr(func, '__qualname__', func)}>", "exec"), scratch)
    make = FunctionType(scratch["make"].__code__, getattr(func, "__globals__", {}))
    call, bind = make(on_slow, type, KeyError, TypeError, MISS)
    positional = [p.default for p in parameters if p.kind <= p.POSITIONAL_OR_KEYWORD and p.default is not p.empty]
    call.__defaults__ = tuple(positional) or None
    call.__kwdefaults__ = {
        p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty
    } or None
    functools.update_wrapper(call, func)
    return call, bind


def _anything(*args: Any, **kwargs: Any) -> None:
    """Has the parameters of a function whose own cannot be written down."""


class _Source:
    """The text of the function that makes a function of the same signature, which answers nothing itself."""

    def __init__(self, func: Callable[..., Any], signature: Any, ignore: frozenset[str], is_async: bool) -> None:
        exact = signature if isinstance(signature, inspect.Signature) else signature.signature
        parameters = list(exact.parameters.values())
        if any(iskeyword(p.name) for p in parameters):  # some functions written in C
            parameters = list(inspect.signature(_anything).parameters.values())
        self.func = func
        name = getattr(func, "__name__", "call")
        self.name = name if name.isidentifier() else "call"
        self.parameters = parameters
        self.keys = [p.name for p in parameters if p.name not in ignore]
        self.is_async = is_async
        taken = {p.name for p in parameters} | {self.name}
        prefix = "_"
        while any(prefix + helper in taken for helper in (*HELPERS, "bind")):
            prefix += "_"
        self.names = {helper: prefix + helper for helper in (*HELPERS, "bind")}

    def text(self) -> str:
        n = self.names
        variable = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in self.parameters)
        lines = [
            f"def make({n['slow']}, {n['type']}, {n['KeyError']}, {n['TypeError']}, {n['MISS']}):",
            f"    {n['index']} = {{}}",
            f"    {n['clock']} = {n['table']} = None",
            f"    {'async ' if self.is_async else ''}def {self.name}({', '.join(self._head())}):",
            *([] if variable else ["        " + line for line in self._fast()]),
            f"        return {'await ' if self.is_async else ''}{n['slow']}({self._positional()}, {self._keywords()})",
            f"    def {n['bind']}(index, clock, table):",
            f"        nonlocal {n['index']}, {n['clock']}, {n['table']}",
            f"        {n['index']}, {n['clock']}, {n['table']} = index, clock, table",
            f"    return {self.name}, {n['bind']}",
        ]
        return "\n".join(lines)

    def _head(self) -> Iterator[str]:
        """The parameters as in a ``def``; the defaults are placeholders."""
        previous: inspect.Parameter | None = None
        for p in self.parameters:
            if previous is not None and previous.kind is p.POSITIONAL_ONLY and p.kind is not p.POSITIONAL_ONLY:
                yield "/"
            if p.kind is p.KEYWORD_ONLY and (previous is None or previous.kind < p.VAR_POSITIONAL):
                yield "*"
            star = "*" if p.kind is p.VAR_POSITIONAL else "**" if p.kind is p.VAR_KEYWORD else ""
            yield star + p.name + ("" if p.default is p.empty else "=None")
            previous = p
        if previous is not None and previous.kind is previous.POSITIONAL_ONLY:
            yield "/"

    def _fast(self) -> Iterator[str]:
        """The lines that look for a hit."""
        return iter(())

    def _positional(self) -> str:
        given = [p.name for p in self.parameters if p.kind <= p.POSITIONAL_OR_KEYWORD]
        given += [f"*{p.name}" for p in self.parameters if p.kind is p.VAR_POSITIONAL]
        return "(" + "".join(f"{name}, " for name in given) + ")"

    def _keywords(self) -> str:
        given = [f'"{p.name}": {p.name}' for p in self.parameters if p.kind is p.KEYWORD_ONLY]
        given += [f"**{p.name}" for p in self.parameters if p.kind is p.VAR_KEYWORD]
        return "{" + ", ".join(given) + "}"


class _OfTable(_Source):
    """Looks into the index of a slot of the pure table."""

    def _fast(self) -> Iterator[str]:
        n, keys = self.names, self.keys
        key = ", ".join(keys) or "()"
        yield "try:"
        yield f"    {n['entry']} = {n['index']}[{key}]"
        yield f"    if {self._same_types()}:"
        now = f"({n['now']} := {n['clock']}())"
        yield f"        if {now} < {n['entry']}.until and {n['now']} < {n['table']}.alive_until:"
        yield f"            {n['entry']}.hits += 1"
        yield f"            return {n['entry']}.value"
        hit = f"({n['value']} := {n['table']}.hit({n['entry']}))"
        yield f"        if not {n['entry']}.aside and {hit} is not {n['MISS']}:"
        yield f"            return {n['value']}"
        yield f"except ({n['KeyError']}, {n['TypeError']}):"
        yield "    pass"

    def _same_types(self) -> str:
        n, keys = self.names, self.keys
        if not keys:
            return "True"
        if len(keys) > len(SINGLE):
            types = ", ".join(f"{n['type']}({key})" for key in keys)
            return f"{n['entry']}.kinds == ({types})"
        return " and ".join(
            f"{n['entry']}.{single} is {n['type']}({key})" for single, key in zip(SINGLE, keys, strict=False)
        )


class _OfProbe(_Source):
    """Asks another callable."""

    def _fast(self) -> Iterator[str]:
        n = self.names
        yield f"if ({n['value']} := {n['index']}({', '.join(p.name for p in self.parameters)})) is not {n['MISS']}:"
        yield f"    return {n['value']}"
