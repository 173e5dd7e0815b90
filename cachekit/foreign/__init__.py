"""Classes that are neither built in nor data classes, and what their instances consist of.

Those of other packages are known by name: none of these packages is imported here, since an instance cannot exist
before its package is. Those of the application are known because it registered them. L1 copies by the parts, the codec
stores them. Neither runs an ``__init__``.
"""

from cachekit.foreign import arrays, frames, models, querysets, responses, tables, wrapped
from cachekit.foreign.base import Block, Foreign
from cachekit.foreign.registered import registered_for

__all__ = ["Block", "Foreign", "foreign_for"]

KNOWN = {
    **arrays.KNOWN, **frames.KNOWN, **tables.KNOWN, **models.KNOWN, **querysets.KNOWN, **responses.KNOWN,
    **wrapped.KNOWN,
}  # fmt: skip


def foreign_for(cls: type) -> Foreign | None:
    """How to deal with instances of a class, if it is known here."""
    registration = registered_for(cls)
    if registration is not None:
        return registration.foreign
    for base in cls.__mro__:
        found = KNOWN.get(f"{base.__module__}:{base.__qualname__}")
        if found is not None:
            return found
    return None
