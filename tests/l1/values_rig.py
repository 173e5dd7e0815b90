"""The functions of both twins of `cachekit.l1.values` under the same names."""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from cachekit.l1 import values
from cachekit.l1.values import Adopted

WAYS = ("itself", "dict", "list", "set", "tree", "graph")  # by the numbers that the native twin gives them
PURE_WAYS: dict[Any, str] = {
    dict.copy: "dict", list.copy: "list", set.copy: "set", values.copy_tree: "tree", values.copy_graph: "graph",
}  # fmt: skip


class NativeWay(NamedTuple):
    """How the native twin copies a value for a caller, as a function."""

    how: int

    def __call__(self, value: Any) -> Any:
        return native().renew(value, self.how)


def native() -> Any:
    return importlib.import_module("cachekit._native")


def native_adopt(value: Any, mode: str) -> Adopted:
    kept, mode, how = native().adopt(value, mode)
    return Adopted(kept, mode, NativeWay(how))


def functions_of(twin: str) -> dict[str, Callable[..., Any]]:
    if twin == "pure":
        return {"admit": values.admit, "isolate": values.isolate, "adopt": values.adopt}
    return {"admit": native().admit, "isolate": native().isolate, "adopt": native_adopt}


def way(kept: Adopted) -> str:
    """The name of the way in which an adopted value is copied for callers."""
    if kept.mode != "copy":
        return "itself"
    return WAYS[kept.renew.how] if isinstance(kept.renew, NativeWay) else PURE_WAYS[kept.renew]
