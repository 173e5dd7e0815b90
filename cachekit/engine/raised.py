"""Exceptions that are answers ("there is no such user"), kept like values: the fact, never the traceback."""

import sys
from contextlib import suppress
from typing import Any, Final

from cachekit.config.fields import dotted
from cachekit.config.spec import RegionSpec
from cachekit.errors import Unstorable
from cachekit.l1.table import admit, isolate
from cachekit.l1.values import Admission
from cachekit.modules import class_in, names_in

RAISED: Final = Admission("share", 256, False)
KINDS: Final = ("share", "copy")
_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: not set on classes written in C
NOTES: Final = "__notes__"  # of one way that the exception took, as its traceback is


class Raised:
    """That the function raised: the class, the arguments, and what else the instance had."""

    __slots__ = ("_mode", "args", "kind", "state")

    def __init__(self, kind: type[Exception], args: tuple[Any, ...], state: dict[str, Any]) -> None:
        self.kind = kind
        self.args = args
        self.state = state
        self._mode = admit([args, state]).mode

    def check(self) -> "Raised":
        """This. Raises `Unstorable` if not each caller could have one that nobody else changes."""
        if self._mode not in KINDS:
            raise Unstorable("its arguments or attributes cannot be copied")
        try:
            self.error()
        except Exception as failure:
            raise Unstorable(f"it cannot be made again: {failure!r}") from failure
        return self

    def error(self) -> Exception:
        """A fresh instance, so that neither traceback nor arguments are shared.

        Its own `__new__` and `__init__` are not run: they may take other arguments than those that the exception
        keeps, and those of an entry may be anything.
        """
        kind = self.kind
        args, state = isolate([self.args, self.state], self._mode)
        built_in: Any = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
        made: Exception = built_in.__new__(kind, *args)
        with suppress(TypeError):
            built_in.__init__(made, *args)
        made.args = args
        vars(made).update(state)
        return made


def remembered(error: BaseException, spec: RegionSpec) -> float | None:
    """For how many seconds an exception is kept, by the nearest of its classes that has a name there; None: not."""
    if isinstance(error, Exception) and spec.freshness.negative_exceptions:
        known = dict(spec.freshness.negative_exceptions)
        for base in type(error).__mro__:
            if dotted(base) in known:
                return known[dotted(base)]
    return None


def raised_by(error: BaseException) -> Raised:
    """What to keep of an exception. Raises `Unstorable` if it could not be raised again as it is."""
    kind, state = _class(dotted(type(error))), {key: value for key, value in vars(error).items() if key != NOTES}
    if kind is None or kind is not type(error):
        raise Unstorable(f"its class cannot be found as {dotted(type(error))}")
    return Raised(kind, error.args, state).check()


def read(value: Any, spec: RegionSpec) -> Raised | None:
    """What another process wrote of an exception; None unless this process has the class, and remembers such."""
    if not isinstance(value, list) or list(map(type, value)) != [str, list, dict]:
        return None
    kind = _class(value[0])
    known = [name for name, _ in spec.freshness.negative_exceptions]
    if kind is None or not _named(kind, known) or not all(type(key) is str for key in value[2]):
        return None
    try:
        return Raised(kind, tuple(value[1]), value[2]).check()
    except Unstorable:  # the class is another one here
        return None


def written(raised: Raised) -> list[Any]:
    """What L2 keeps of it: of types that every serializer has."""
    return [dotted(raised.kind), list(raised.args), raised.state]


def is_one_of(error: BaseException, names: "tuple[str, ...] | list[str]") -> bool:
    """Whether the class of an exception, or one of its bases, has one of these dotted names."""
    return _named(type(error), names)


def _named(kind: type, names: "tuple[str, ...] | list[str]") -> bool:
    return any(dotted(base) in names for base in kind.__mro__)


def _class(name: str) -> type[Exception] | None:
    """The class of this name, if its module is loaded; nothing is imported because of what a store holds."""
    parts = name.split(".")
    for at in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:at]))
        if module is not None:
            with suppress(AttributeError):  # something else was put in the place of a module
                found = class_in(names_in(module), parts[at:])
                return found if found is not None and issubclass(found, Exception) else None
    return None
