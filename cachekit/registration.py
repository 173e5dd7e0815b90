"""`register`: how the application says to store a class that cachekit does not know."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from cachekit.errors import ConfigError
from cachekit.foreign import registered
from cachekit.l1 import values
from cachekit.modules import imported_as

T = TypeVar("T")


def register(type: type[T], *, encode: Callable[[T], Any], decode: Callable[[Any], T], name: str | None = None) -> None:
    """Make instances of a class storable.

    ``encode`` turns an instance into any value that can be stored, itself made of registered classes if need be, and
    ``decode`` makes an equal instance of such a value. Both may be called at any time in any thread. Both tiers use
    them: L2 stores what ``encode`` returns, and in L1 each caller gets an instance of its own, of ``decode``.

    The class counts exactly: a class derived from it may hold more, and is registered itself or not stored. If
    ``encode`` raises, the value cannot be stored (`on_unstorable`); if ``decode`` raises or returns anything but an
    instance of the class, the entry is a miss, counted as damaged.

    Call it once per process, where the class is defined: a process that has not registered it does not find the
    entries of one that has.

    Args:
        type: the class.
        encode: called with an instance.
        decode: called with what ``encode`` returned, or with whatever is stored under this name.
        name: by which stored bytes know the class, ``module:qualified.name`` by default. Give one that stays when the
            class moves, and change it when what ``encode`` returns changes.

    Raises:
        ConfigError: for a class or name that is registered already, and for classes that cachekit knows how to store:
            built-in and data classes, models.
        TypeError: if these are not a class, two callables and a name.
    """
    cls = type
    if not isinstance(cls, _TYPE) or not callable(encode) or not callable(decode):
        raise TypeError("register(type, *, encode, decode, name=None) takes a class and two callables")
    if name is not None and (not isinstance(name, str) or not name or "\0" in name):
        raise TypeError(f"register({cls.__qualname__}): a name is a text, not {name!r}")
    if _is_known(cls):
        raise ConfigError(f"register({cls.__qualname__}): cachekit stores this class already; see docs/values.md")
    registered.add(cls, encode, decode, name or f"{imported_as(cls.__module__)}:{cls.__qualname__}")
    values.forget(cls)
    native = sys.modules.get("cachekit._native")
    if native is not None:
        native.forget(cls)


_TYPE = type


def _is_known(cls: type[Any]) -> bool:
    if registered.registered_for(cls) is not None:
        return False  # what was registered before says so itself
    from cachekit.codec.serializers import has_codec  # with msgpack, which a program may never need

    return has_codec(cls)
