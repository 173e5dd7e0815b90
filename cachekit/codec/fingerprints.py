"""Eight bytes that change when a class changes: the names of its fields and what they are annotated with.

Annotations are taken as they stand in the class body, as text, and are never evaluated. They must read the same in
every process, so only the names of classes count, and of ``Annotated`` only the type: its other arguments do not change
what an instance holds.
"""

import re
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
        own = type.__getattribute__(base, "__dict__").get("__annotations__")
        if isinstance(own, dict):
            found.update(own)
    return found


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
