"""Eight bytes that change when a class changes: the names of its fields and what they are annotated with.

Annotations are taken as they stand in the class body, as text, and are never evaluated here; Python 3.14 makes them
when they are asked for. They must read the same in every process, so only the names of classes count, and of
``Annotated`` only the type: its other arguments do not change what an instance holds.
"""

import re
import sys
from collections.abc import Iterable
from hashlib import blake2b
from typing import Annotated, Any, ForwardRef, Union, get_args, get_origin

from cachekit.modules import imported_as, main_name

SIZE = 8
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_MAIN = re.compile(r"\b__(mp_)?main__\.")


def fingerprint(cls: type, names: Iterable[str]) -> bytes:
    """Of a class whose fields have these names."""
    annotations = _annotations(cls)
    lines = [f"{name}:{_text(annotations[name]) if name in annotations else ''}" for name in names]
    return blake2b("\n".join(lines).encode("utf-8", "surrogatepass"), digest_size=SIZE).digest()


def _annotations(cls: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(type.__getattribute__(cls, "__mro__")):
        own = _own_annotations(base)
        if isinstance(own, dict):
            found.update(own)
    return found


def _own_annotations(cls: type) -> object:
    names = type.__getattribute__(cls, "__dict__")
    if sys.version_info >= (3, 14) and "__annotate_func__" in names:  # made when somebody asks, which runs nothing else
        from annotationlib import Format, get_annotations

        return get_annotations(cls, format=Format.FORWARDREF)
    return names.get("__annotations__")


def _text(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__
    if isinstance(annotation, list):  # the arguments of a Callable
        return f"[{', '.join(map(_text, annotation))}]"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _text(arguments[0])
    if origin is not None:
        name = "|" if origin is Union or getattr(origin, "__name__", "") == "UnionType" else _text(origin)
        return f"{name}[{', '.join(map(_text, arguments))}]"
    if isinstance(annotation, type):
        return f"{imported_as(annotation.__module__)}.{annotation.__qualname__}"
    return _MAIN.sub(lambda _: f"{main_name()}.", _ADDRESS.sub("", repr(annotation)))
