"""Classes of the application: found among what is already imported, taken apart and rebuilt without running them.

No import, no ``__init__``, no validator, no property and no ``__setattr__`` of a class runs here. What an instance is
made of are its slots and its ``__dict__``; a namedtuple is its items.
"""

import dataclasses
import sys
from collections.abc import Iterable
from enum import Enum, Flag
from types import MemberDescriptorType
from typing import Any, Final

from cachekit.codec.envelope import Damaged
from cachekit.codec.fingerprints import fingerprint
from cachekit.errors import Unstorable
from cachekit.foreign import foreign_for, models
from cachekit.foreign.registered import registered_as, registered_for
from cachekit.modules import class_in, imported_as, is_there_twice, named

# Ext codes; the table in `serializers` names them all.
NAMEDTUPLE, DATACLASS, ATTRS, PYDANTIC, FOREIGN, REGISTERED, MODEL = range(48, 55)
_BY_PARTS = frozenset((FOREIGN, REGISTERED, MODEL))
_MANY_PLANS = 10_000


class Refused(Exception):
    """A value cannot be stored. Travels up to where its path is complete."""

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(what)
        self.reason = reason
        self.what = what
        self.path: list[str] = []  # innermost first

    def unstorable(self) -> Unstorable:
        """What the caller is told."""
        path = "".join(reversed(self.path)).removeprefix(".")
        message = f"cannot store {self.what}"
        return Unstorable(f"{path}: {message}" if path else message, self.reason)


def at(key: Any) -> str:
    """A key as a path shows it. Only names and numbers are shown: a key may be personal data, and paths are logged."""
    if type(key) is str and key.isidentifier() and len(key) <= 40:
        return f".{key}"
    if type(key) is int and abs(key) < 1_000_000:
        return f"[{key}]"
    return f"[<{type(key).__name__}>]"


class Unset:
    """Stands for a field that an instance does not have."""

    __slots__ = ()


UNSET: Final = Unset()


class Plan:
    """How instances of one class are taken apart and rebuilt.

    ``marker`` is how the wire names the class: with a fingerprint, so that what a class of other fields or annotations
    wrote is not read. ``old_marker`` has the names of the fields instead, as the first entries had. ``layout`` is what
    the native core needs to do that by itself, None where it must not.
    """

    __slots__ = ("cls", "foreign", "kind", "layout", "marker", "names", "old_marker", "slots")

    def __init__(self, cls: type, kind: int, names: tuple[str, ...]) -> None:
        self.cls = cls
        self.kind = kind
        self.names = names
        self.marker, self.old_marker = _markers(cls, kind, names)
        self.slots = {} if kind == NAMEDTUPLE else _slots(cls)
        self.foreign = foreign_for(cls) if kind in _BY_PARTS else None
        self.layout = _layout(self)


def _markers(cls: type, kind: int, names: tuple[str, ...]) -> tuple[bytes, bytes]:
    if kind == REGISTERED:
        registration = registered_for(cls)
        assert registration is not None
        name = registration.name.encode()
        return name, name
    if kind == MODEL:
        try:
            marker = b"\0\0".join((models.label_of(cls).encode(), models.fingerprint_of(cls)))
        except TypeError as error:
            raise Refused("type", f"{describe(cls)}: {error}") from None
        return marker, marker
    foreign = foreign_for(cls) if kind == FOREIGN else None
    name = (foreign.name if foreign is not None and foreign.name else name_of(cls)).encode()
    if kind == FOREIGN:
        return name, name
    return b"\0\0".join((name, fingerprint(cls, names))), b"\0".join((name, *map(str.encode, names)))


Layout = tuple[int, bytes, tuple[str, ...], tuple[MemberDescriptorType | None, ...], bool]

_plans: dict[type, Plan] = {}
layouts: dict[type, Layout] = {}  # of the plans that have one


def plan_for(cls: type) -> Plan:
    """The plan of a class that can be stored; raises `Refused` for any other."""
    plan = _plans.get(cls)
    if plan is None:
        if len(_plans) >= _MANY_PLANS:  # only code that makes and drops classes all the time gets here
            _plans.clear()
            layouts.clear()
        plan = _plans[cls] = _compile(cls)
        if plan.layout is not None:
            layouts[cls] = plan.layout
    return plan


def plan_of(kind: int, marker: bytes) -> Plan:
    """The plan that a marker names. Raises LookupError or `Refused` unless it is that of a class of this kind, and
    `Damaged` unless the fields of the class are as recorded."""
    name, _, _ = marker.partition(b"\0")
    plan = plan_for(_named(kind, name.decode()))
    if plan.kind != kind:
        raise LookupError("another kind of class of that name")
    if marker not in (plan.marker, plan.old_marker):
        raise Damaged("fingerprint")
    return plan


def _named(kind: int, name: str) -> type:
    if kind == REGISTERED:
        return registered_as(name)
    if kind != MODEL:
        return find(name)
    model: type | None = models.model_named(name)
    if model is None:
        raise LookupError("no such model")
    return model


def name_of(cls: type) -> str:
    """``module:qualified.name`` by which the class is found again; `Refused` if it is not."""
    module = imported_as(cls.__module__)
    name = f"{module}:{cls.__qualname__}"
    if "<locals>" in name:
        raise Refused("type", f"{describe(cls)}: a class made inside a function cannot be found again by its name")
    try:
        found: type | None = find(name)
    except LookupError:
        found = None
    if found is not cls and is_there_twice(module):
        raise Refused("type", f"{describe(cls)}: the main module is also imported as {module}, with another such class")
    if found is not cls:
        raise Refused("type", f"{describe(cls)}: its module has no such class, or another one, under this name")
    return name


def find(name: str) -> type:
    """The class of this name among the modules already imported, or LookupError. Runs no code of any module."""
    module, _, path = name.partition(":")
    names = named(module)
    if names is None:
        raise LookupError(f"{module} is not imported")
    cls = class_in(names, path.split("."))
    if cls is None:
        raise LookupError(f"{name} is not a class")
    return cls


def find_enum(name: str, flag: bool) -> type[Enum]:
    """The Enum (or Flag) class of this name, or LookupError."""
    cls = find(name)
    if not issubclass(cls, Enum) or issubclass(cls, Flag) != flag:
        raise LookupError(f"{name} is not that kind of Enum")
    return cls


def describe(cls: type) -> str:
    """The class as a message names it."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def take_apart(plan: Plan, value: Any) -> tuple[Iterable[Any], dict[str, Any]]:
    """The values of the fields in the order of ``plan.names``, and whatever else the instance carries."""
    state: dict[str, Any] = dict(getattr(value, "__dict__", ()))
    if plan.kind == NAMEDTUPLE:
        if state or len(value) != len(plan.names):
            raise Refused("type", f"{describe(plan.cls)} with attributes beside its items")
        return tuple.__iter__(value), state
    for name, slot in plan.slots.items():
        try:
            state[name] = slot.__get__(value)
        except AttributeError:
            pass  # never set
    if "_attrs_cached_hash" in state:
        state["_attrs_cached_hash"] = None  # hashes of str differ between processes; attrs computes it anew
    return [state.pop(name, UNSET) for name in plan.names], state


def rebuild(plan: Plan, items: list[Any]) -> Any:
    """An instance from what follows its marker. Raises when that cannot be its parts."""
    if plan.foreign is not None:
        return plan.foreign.make(plan.cls, items)
    count = len(plan.names)
    others = dict(zip(items[count::2], items[count + 1 :: 2], strict=True))
    if count + 2 * len(others) != len(items):
        raise ValueError("a name twice, or too few fields")
    return put_together(plan, items[:count], others)


def put_together(plan: Plan, values: list[Any], others: dict[Any, Any]) -> Any:
    """An instance with these values. Raises when they cannot be its parts."""
    if plan.kind == NAMEDTUPLE:
        if len(values) != len(plan.names) or others:
            raise ValueError("wrong number of items")
        return tuple.__new__(plan.cls, values)
    instance: Any = object.__new__(plan.cls)
    state = {}
    for name, value in (*zip(plan.names, values, strict=True), *others.items()):
        if value is UNSET:
            continue
        slot = plan.slots.get(name)
        if slot is not None:
            slot.__set__(instance, value)
        elif type(name) is str:
            state[name] = value
        else:
            raise TypeError("names of attributes are str")
    if state:
        object.__getattribute__(instance, "__dict__").update(state)
    if plan.kind == PYDANTIC:
        _check_pydantic(others)
    return instance


def _check_pydantic(others: dict[str, Any]) -> None:
    """What every method of a model relies on."""
    if type(others.get("__pydantic_fields_set__")) is not set:
        raise TypeError("a model without the set of its fields")
    for name in ("__pydantic_extra__", "__pydantic_private__"):
        if type(others.get(name)) not in (dict, type(None)):
            raise TypeError(f"{name} of a model is a dict or None")


def _compile(cls: type) -> Plan:
    kind, names = _kind(cls)
    plan = Plan(cls, kind, names)
    if kind in _BY_PARTS:
        return plan
    try:
        if kind == NAMEDTUPLE:
            tuple.__new__(cls)
        else:
            object.__new__(cls)
    except TypeError:
        # The interpreter knows: a base written in C (dict, Exception, ...) keeps state that we would lose.
        raise Refused("type", f"{describe(cls)}: it has a built-in base whose content would be lost") from None
    return plan


def _kind(cls: type) -> tuple[int, tuple[str, ...]]:
    """What kind of class this is, and the names of its fields."""
    if registered_for(cls) is not None:
        return REGISTERED, ()
    pydantic = sys.modules.get("pydantic.main")  # a model cannot exist before pydantic is imported
    if pydantic is not None and issubclass(cls, pydantic.BaseModel):
        return PYDANTIC, tuple(_static(cls, "__pydantic_fields__") or ())
    attributes = _static(cls, "__attrs_attrs__")
    if isinstance(attributes, tuple):
        return ATTRS, tuple(attribute.name for attribute in attributes)
    if isinstance(_static(cls, "__dataclass_fields__"), dict):
        return DATACLASS, tuple(field.name for field in dataclasses.fields(cls))
    foreign = foreign_for(cls)
    if foreign is not None:
        return (MODEL if foreign is models.DJANGO_MODEL else FOREIGN), ()
    names = _static(cls, "_fields")
    if issubclass(cls, tuple) and isinstance(names, tuple) and all(type(name) is str for name in names):
        return NAMEDTUPLE, names
    raise Refused("type", describe(cls))


def _static(cls: type, name: str) -> Any:
    """A class attribute, without running a metaclass or a descriptor."""
    for base in type.__getattribute__(cls, "__mro__"):
        namespace = type.__getattribute__(base, "__dict__")
        if name in namespace:
            return namespace[name]
    return None


def _layout(plan: Plan) -> Layout | None:
    """Kind, marker, names of the fields, the slot of each, and whether instances have a ``__dict__``."""
    has_dict = plan.cls.__dictoffset__ != 0
    if plan.kind == NAMEDTUPLE:
        simple = not has_dict
    else:
        simple = plan.kind in (DATACLASS, ATTRS) and plan.slots.keys() <= set(plan.names)
    slots = tuple([plan.slots.get(name) for name in plan.names])
    return (plan.kind, plan.marker, plan.names, slots, has_dict) if simple else None


def _slots(cls: type) -> dict[str, MemberDescriptorType]:
    """Every slot of the class and its bases; a redefinition hides the one further up."""
    return {
        name: member
        for base in reversed(cls.__mro__)
        for name, member in vars(base).items()
        if isinstance(member, MemberDescriptorType)
    }
