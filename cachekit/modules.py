"""The names of modules in keys and in stored values: those under which others import them.

The program's main module is named by its spec or its file, so that a program, its workers and those that import the
file share entries. A process may have the file twice, as its main module and imported, with two classes of each name.
The name is the imported one's then: where a program starts its server by name (``uvicorn.run("main:app")``), that is
what runs. Once functions of the main module are called beside it, nothing tells which class an entry means, and it
means none.
"""

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any, Final

MAINS: Final = ("__main__", "__mp_main__")  # the second in a worker of multiprocessing, where it is also the first

_named: tuple[ModuleType | None, str] = (None, "__main__")  # the main module whose name is known, and its name
_called = False  # a cached function of the main module


def module_name(namespace: dict[str, Any]) -> str:
    """The name of a module as others import it."""
    name = namespace.get("__name__")
    if not isinstance(name, str):
        return "_"
    if name not in MAINS:
        return name
    spec = namespace.get("__spec__")
    if spec is not None and spec.name not in MAINS:
        return str(spec.name)
    file = namespace.get("__file__")
    if not isinstance(file, str) or file.startswith("<"):  # a program read from a pipe has the file <stdin>
        return "__main__"
    from pathlib import Path  # not for the sake of one file name at every start

    script = Path(file).absolute()
    # `python folder` runs folder/__main__.py; `python -m folder` calls the same thing folder.__main__
    return f"{script.parent.name}.__main__" if script.stem == "__main__" else script.stem


def main_name() -> str:
    """The name of the program's main module."""
    global _named
    main = sys.modules.get("__main__")
    if main is None:
        return "__main__"
    known, name = _named
    if known is not main:
        name = module_name(names_in(main))
        _named = (main, name)
    return name


def in_main(function: object) -> bool:
    """Whether a function is one of the main module."""
    return getattr(function, "__module__", None) in MAINS


def imported_as(module: str) -> str:
    """What ``__module__`` of a class says, as others import it."""
    return main_name() if module in MAINS else module


def is_there_twice(name: str) -> bool:
    """Whether this is the main module, which is also loaded by its name."""
    return name == main_name() and sys.modules.get(name, sys.modules.get("__main__")) is not sys.modules.get("__main__")


def named(name: str) -> dict[str, Any] | None:
    """What the loaded module of this name holds, None if there is none. Runs no code."""
    if name == main_name():
        if _called and is_there_twice(name):
            return None
        module = sys.modules.get(name) or sys.modules.get("__main__")
    else:
        module = None if name in MAINS else sys.modules.get(name)
    return None if module is None else names_in(module)


def names_in(module: ModuleType) -> dict[str, Any]:
    """The ``__dict__`` of a module, whose own ``__getattr__`` or ``__getattribute__`` might import something."""
    found: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return found


def class_in(names: Any, path: Iterable[str]) -> type | None:
    """The class that these names lead to. Runs no code, of proxies neither: only real classes are looked into."""
    found: Any = None
    for part in path:
        found = names.get(part)
        if not issubclass(type(found), type):  # isinstance would ask a proxy for its __class__, which is its code
            return None
        names = type.__getattribute__(found, "__dict__")
    return found  # type: ignore[no-any-return]


def call_in_main() -> None:
    """From now on functions of the main module use the cache."""
    global _called
    _called = True
