"""Function -> name: the same in every process that runs the same code, different for different functions.

A function is ``module.qualname``. That is not enough, and a digest follows (``module.qualname#digest``), where

* functions share a qualified name: lambdas, and functions made inside others (``<locals>``). The digest covers code,
  defaults and the variables captured from the functions around. It is taken once, so a captured variable that changes
  later does not change the name;
* the code has no file (REPL, notebook, ``exec``): the digest covers the code, so that an edited cell starts fresh;
* arguments are bound to it (``functools.partial``, bound methods, instances with ``__call__``): it covers those.
"""

import re
from collections.abc import Callable
from functools import partial
from inspect import unwrap
from itertools import count
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from cachekit.engine.encoding import EMPTY, cell_content, class_name, encode, short_digest
from cachekit.errors import ConfigError, UncacheableArgument
from cachekit.modules import MAINS, module_name

_unshared = count()  # not id(): addresses are used again
_MAX_NAME = 160
_MAX_VERSION = 32
_FORBIDDEN = re.compile(r"[^\w.\-<>+@]")  # \w: identifiers need not be ASCII


class _Name(NamedTuple):
    text: str
    details: tuple[bytes, ...] = ()  # what text alone does not tell apart


def function_id(fn: Callable[..., object] | Any, version: str | int | None = None, *, shared: bool = True) -> str:
    """``module.qualname:version``, with a digest after the name where the name alone is not unique.

    ``version`` is 1 unless given. Compute the id when the function is first used, not while it is decorated: a
    function that refers to itself, or to one defined below it, has its variables only then.

    Raises ``ConfigError`` for an unusable version, and for a function that captures something without a stable
    identity. An explicit version permits the latter: such variables then count by their type alone. With
    ``shared=False``, for entries that never leave this process, they are no error either: each id is a new one.
    """
    name = _Namer(vouched=version is not None, shared=shared).name(fn, frozenset())
    return f"{_labelled(name)}:{_version(version)}"


def _labelled(name: _Name) -> str:
    text = _clean(name.text, _MAX_NAME)
    return f"{text}#{short_digest(encode(name.details))}" if name.details else text


def _version(version: str | int | None) -> str:
    if version is None:
        return "1"
    if isinstance(version, bool) or not isinstance(version, str | int) or version == "":
        raise ConfigError(f"version must be an int or a non-empty str, not {version!r}")
    return _clean(str(version), _MAX_VERSION)


def _clean(text: str, limit: int) -> str:
    """Safe inside a key of Redis and of bounded length; what had to be changed carries a digest of the original."""
    clean = _FORBIDDEN.sub("_", text)
    if clean == text and len(text) <= limit:
        return text
    return f"{clean[:limit]}~{short_digest(encode(text))}"


class _Namer:
    """One act of naming. ``vouched``: the caller gave a version and answers for what cannot be encoded."""

    def __init__(self, *, vouched: bool, shared: bool) -> None:
        self.vouched = vouched
        self.shared = shared

    def name(self, fn: Any, above: frozenset[int]) -> _Name:
        """``above`` are the functions being named: one that captures itself must end somewhere."""
        if isinstance(fn, FunctionType):
            if hasattr(fn, "__cachekit_function__"):  # a cached function: what it captures is our machinery
                return self.name(fn.__wrapped__, above)  # type: ignore[attr-defined]
            return self._function(fn, above)
        if isinstance(fn, classmethod | staticmethod):
            return self.name(fn.__func__, above)
        if isinstance(fn, partial):
            return self._partial(fn, above)
        if isinstance(fn, MethodType):
            return self._with(self.name(fn.__func__, above), [self._captured(fn, "self", fn.__self__, above)])
        wrapped = getattr(fn, "__wrapped__", None)
        if callable(wrapped):
            return self.name(wrapped, above)
        return self._other(fn, above)

    def _partial(self, fn: "partial[Any]", above: frozenset[int]) -> _Name:
        # a subclass is how a decorator binds instances: its func is the decorator's machinery
        name = self.name(fn.func if type(fn) is partial else getattr(fn, "__wrapped__", fn.func), above)
        given = [(variable, value) for variable, value in (("args", fn.args), ("keywords", fn.keywords)) if value]
        return self._with(name, [self._captured(fn, variable, value, above) for variable, value in given])

    def _with(self, name: _Name, details: list[bytes]) -> _Name:
        return _Name(name.text, (*name.details, *details))

    def _other(self, fn: Any, above: frozenset[int]) -> _Name:
        if isinstance(fn, type):
            return _Name(class_name(fn))
        qualname = getattr(fn, "__qualname__", None)
        if not isinstance(qualname, str):
            return _Name(class_name(type(fn)), (self._captured(fn, "self", fn, above),))
        name = _Name(f"{getattr(fn, '__module__', None) or 'builtins'}.{qualname}")
        owner = getattr(fn, "__self__", None)
        if owner is None or isinstance(owner, ModuleType):
            return name
        return self._with(name, [self._captured(fn, "self", owner, above)])

    def _function(self, fn: FunctionType, above: frozenset[int]) -> _Name:
        innermost = unwrap(fn)  # a decorator's wrapper bears the name of what it wraps, but its own code
        inner = innermost if isinstance(innermost, FunctionType) else fn
        text = f"{_module(fn, inner)}.{fn.__qualname__}"
        if "<" in fn.__qualname__:
            return _Name(text, tuple(self._made(fn, above | {id(fn)})))
        return _Name(text, (encode(inner.__code__),) if _fileless(inner) else ())

    def _made(self, fn: FunctionType, above: frozenset[int]) -> list[bytes]:
        """Everything that two functions of one qualified name can differ in."""
        details = [encode(fn.__code__)]
        # A default is also an argument of each call that uses it, and refused there if need be.
        defaults = [*enumerate(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).items()]
        details += [encode(place) + _or_type(default) for place, default in defaults]
        for variable, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            if variable != "__class__":  # what super() needs: the class is in the qualified name already
                details.append(encode(variable) + self._cell(fn, variable, cell, above))
        return details

    def _cell(self, fn: Any, variable: str, cell: CellType, above: frozenset[int]) -> bytes:
        content = cell_content(cell)
        return b"-" if content is EMPTY else self._captured(fn, variable, content, above)

    def _captured(self, fn: Any, variable: str, value: Any, above: frozenset[int]) -> bytes:
        function = unwrap(value) if callable(value) else value
        if isinstance(function, FunctionType):
            if id(function) in above:
                return b"<" + encode(function.__qualname__)
            return b"@" + encode(tuple(self.name(value, above)))
        try:
            return encode(value)
        except UncacheableArgument as error:
            if not self.shared:
                return b"!" + encode(next(_unshared))
            if self.vouched:
                return b"?" + encode(type(value).__qualname__)
            raise ConfigError(_refused(fn, variable, value)) from error


def _or_type(value: object) -> bytes:
    try:
        return encode(value)
    except UncacheableArgument:
        return b"?" + encode(type(value).__qualname__)


def _module(fn: FunctionType, inner: FunctionType) -> str:
    # __module__ says where a wrapper belongs; its globals are those of the module that defines the decorator
    if fn.__module__ in MAINS:
        return module_name(inner.__globals__)
    return fn.__module__ or "_"


def _fileless(fn: FunctionType) -> bool:
    filename = fn.__code__.co_filename
    if filename.startswith("<"):
        return not filename.startswith("<frozen ")
    # Notebook kernels invent a file for each cell, but their main module has none.
    return fn.__globals__.get("__file__") is None and fn.__globals__.get("__spec__") is None


def _refused(fn: Any, variable: str, value: object) -> str:
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return (
        f"{name} captures {variable!r}, a {type(value).__qualname__} without an identity that is the same in every "
        f"process, so two functions made here could share their entries. Pass it as an argument, or give version=... "
        "(a different one for each function that must not share entries)"
    )
