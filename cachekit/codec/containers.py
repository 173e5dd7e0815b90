"""Built-in containers that msgpack has no form for: the codes that mark them, and what they consist of.

The codes are part of format 1; the table in `serializers` names them all.
"""

from collections import OrderedDict, defaultdict, deque
from typing import Any

from cachekit.codec.classes import Refused

TUPLE, SET, FROZENSET, DICT, ORDEREDDICT, DEFAULTDICT, DEQUE = range(32, 39)

CONTAINERS: dict[type, int] = {
    tuple: TUPLE,
    set: SET,
    frozenset: FROZENSET,
    OrderedDict: ORDEREDDICT,
    defaultdict: DEFAULTDICT,
    deque: DEQUE,
}

FACTORIES: dict[str, type] = {
    cls.__name__: cls
    for cls in (bool, int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict)
}  # fmt: skip

MANY = 1000  # members, from which on it matters how many have the same hash


def factory_name(value: "defaultdict[Any, Any]") -> str | None:
    """How the factory of a defaultdict is stored; `Refused` unless it is a built-in type or None."""
    factory: Any = value.default_factory
    if factory is None:
        return None
    name = getattr(factory, "__name__", None)
    if not isinstance(name, str) or FACTORIES.get(name) is not factory:
        raise Refused("type", "a defaultdict whose default_factory is not a built-in type")
    return name


def take_container(code: int, value: Any) -> list[Any]:
    """What follows the marker of a container in its array."""
    if code in (ORDEREDDICT, DEFAULTDICT):
        pairs = [part for item in list(value.items()) for part in item]
        return [factory_name(value), *pairs] if code == DEFAULTDICT else pairs
    return [value.maxlen, *value] if code == DEQUE else list(value)


def build(code: int, items: list[Any]) -> Any:
    """The container of a marker from what followed it. Raises when that cannot be its parts."""
    if code == TUPLE:
        return tuple(items)
    if code in (SET, FROZENSET):
        _refuse_flood(items)
        members = set(items) if code == SET else frozenset(items)
        if len(members) != len(items):
            raise ValueError("a member twice")
        return members
    if code == DICT:
        return mapping(items)
    if code == ORDEREDDICT:
        return OrderedDict(mapping(items))
    if code == DEFAULTDICT:
        factory, *pairs = items
        return defaultdict(None if factory is None else FACTORIES[factory], mapping(pairs))
    if code == DEQUE:
        maxlen, *rest = items
        if type(maxlen) is int and maxlen < len(rest):
            raise ValueError("more items than maxlen")
        return deque(rest, maxlen)
    raise ValueError("a marker out of place")


def mapping(items: list[Any]) -> dict[Any, Any]:
    """The dict of keys and values in turns."""
    _refuse_flood(items[::2])
    found = dict(zip(items[::2], items[1::2], strict=True))
    if 2 * len(found) != len(items):
        raise ValueError("a key twice")
    return found


def _refuse_flood(keys: list[Any]) -> None:
    """Keys that somebody chose for their hashes would take seconds to put into one table, each compared with all."""
    if len(keys) > MANY and 2 * len(set(map(hash, keys))) < len(keys):
        raise ValueError("keys with too few hashes")
