"""Classes for which the application said how to store them (`cachekit.register`)."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from cachekit.errors import ConfigError
from cachekit.foreign.base import Foreign


class Registration(NamedTuple):
    """A class under the name that stored bytes know it by."""

    cls: type
    name: str
    foreign: Foreign


_by_class: dict[type, Registration] = {}
_by_name: dict[str, Registration] = {}
_lock = threading.Lock()


def registered_for(cls: type) -> Registration | None:
    """The registration of exactly this class: a derived one may hold more."""
    return _by_class.get(cls)


def registered_as(name: str) -> type:
    """The class that is registered under a name, or LookupError."""
    return _by_name[name].cls


def add(cls: type, encode: Callable[[Any], Any], decode: Callable[[Any], Any], name: str) -> None:
    """Raise ConfigError if the class or the name is taken."""

    def take(value: Any) -> list[Any]:
        return [encode(value)]

    def make(_: Any, parts: list[Any]) -> Any:
        (part,) = parts
        value = decode(part)
        if type(value) is not cls:
            raise TypeError(f"decode returned {type(value).__qualname__} for {name}")
        return value

    registration = Registration(cls, name, Foreign(take, make))
    with _lock:
        other = _by_class.get(cls) or _by_name.get(name)
        if other is not None:
            raise ConfigError(
                f"register({cls.__qualname__}, name={name!r}): {other.cls.__qualname__} is registered as {other.name!r}"
            )
        _by_class[cls] = registration
        _by_name[name] = registration


def remove(cls: type) -> None:
    """For tests: as if the class had never been registered."""
    with _lock:
        del _by_name[_by_class.pop(cls).name]
