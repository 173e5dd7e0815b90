"""Classes and helpers of the codec's tests. Golden files name these classes: keep names and fields."""

import dataclasses
import struct
from collections import OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum
from functools import cached_property
from typing import Any, NamedTuple

import attrs
import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, PrivateAttr, field_validator

from cachekit import register
from cachekit.codec import depth, serializers
from cachekit.codec.envelope import Header

KEY = "shop:v:{users:app.views.get_user:1:9f3c}"
FIELDS: dict[str, Any] = {"id": b"0123456789abcdef", "created": 1_700_000_000_000, "soft": 1_700_000_300_000,
                          "hard": 1_700_000_600_000}  # fmt: skip

ran: list[str] = []  # names of constructors and validators that ran


def header(**changes: Any) -> Header:
    return Header(**{"codec": 1, **FIELDS, **changes})


class Colour(Enum):
    RED = "red"
    BLUE = ("b", 2)
    CRIMSON = "red"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Word(StrEnum):
    YES = "yes"


class Rights(Flag):
    READ = 1
    WRITE = 2


class Bits(IntFlag):
    A = 1
    B = 4


Pair = namedtuple("Pair", "x y")


class Point(NamedTuple):
    x: float
    y: float = 0.0


class Sum(namedtuple("SumBase", "a b")):
    def total(self) -> Any:
        return self.a + self.b


@dataclass
class Order:
    number: int
    lines: list[Any] = field(default_factory=list)
    total: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        ran.append("Order")

    @cached_property
    def heavy(self) -> int:
        return self.number * 2


@dataclass(frozen=True, slots=True)
class Money:
    amount: Any
    currency: str = "EUR"


@dataclass(frozen=True)
class Parent:
    name: str


@dataclass(frozen=True)
class Child(Parent):
    age: int


@attrs.define
class Slotted:
    a: Any
    _b: Any = 2

    def __attrs_post_init__(self) -> None:
        ran.append("Slotted")


@attrs.frozen(cache_hash=True)
class Hashed:
    a: Any


@attrs.define(slots=False)
class Open:
    a: Any


class User(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: int
    name: str = "nobody"
    tags: list[str] = []
    _secret: int = PrivateAttr(default=7)

    @field_validator("name")
    @classmethod
    def check_name(cls, value: str) -> str:
        ran.append("User")
        return value


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    key: Any


class Point3:
    """An ordinary class, which is registered."""

    def __init__(self, x: Any, y: Any, z: Any) -> None:
        ran.append("Point3")
        self.parts = (x, y, z)


register(Point3, encode=lambda point: point.parts, decode=lambda parts: Point3(*parts), name="tests.point3")


class Outer:
    @dataclass
    class Inner:
        a: int


class MyDict(dict[Any, Any]):
    pass


class MyStr(str):
    __slots__ = ()


@dataclass
class DictData(dict[Any, Any]):
    a: int = 0


def shape(value: Any) -> Any:
    """Value and type at every level, in a form that ``==`` compares strictly (1 and True, -0.0, NaN, fold, zones)."""
    cls = type(value)
    if cls is np.ndarray:
        return cls, value.dtype, value.shape, value.flags.f_contiguous, value.flags.writeable, repr(value.tolist())
    if isinstance(value, np.generic):
        return cls, value.dtype, repr(value)
    if cls is Point3:
        return cls, shape(value.parts)
    if cls is float:
        return cls, struct.pack(">d", value)
    if cls is complex:
        return cls, struct.pack(">dd", value.real, value.imag)
    if isinstance(value, Enum):
        return cls, value._name_, value._value_
    if cls in (set, frozenset):
        return cls, sorted(repr(shape(item)) for item in value)
    if cls is deque:
        return cls, value.maxlen, [shape(item) for item in value]
    if cls is defaultdict:
        return cls, value.default_factory, [(shape(k), shape(v)) for k, v in value.items()]
    if cls in (dict, OrderedDict):
        return cls, [(shape(k), shape(v)) for k, v in value.items()]
    if isinstance(value, (list, tuple)):
        return cls, [shape(item) for item in value]
    if isinstance(value, BaseModel):
        return (
            cls,
            shape(value.__dict__),
            shape(value.__pydantic_fields_set__),
            shape(value.__pydantic_extra__),
            shape(value.__pydantic_private__),
        )
    if attrs.has(cls):
        return cls, [shape(getattr(value, a.name)) for a in attrs.fields(cls)]
    if dataclasses.is_dataclass(value):
        return (
            cls,
            [shape(getattr(value, f.name, "unset")) for f in dataclasses.fields(value)],
            shape(getattr(value, "__dict__", None)),
        )
    if hasattr(value, "tzinfo"):
        name = value.tzname() if value.tzinfo is not None else None
        return cls, value.isoformat(), value.fold, repr(value.tzinfo), name
    return cls, repr(value)


def only(library: str, patch: pytest.MonkeyPatch) -> None:
    """As where there is no native core, and where ormsgpack is not installed either."""
    if library != "native":
        patch.setattr(serializers, "_core", None)
        patch.setattr(serializers, "_read", serializers._scalar)
        patch.setattr(serializers, "_read_marker", serializers._scalar_or_marker)
        patch.setattr(serializers, "_restored", serializers._restore)
        patch.setattr(serializers, "deep_msgpack", depth._deep_msgpack)
    if library == "msgpack":
        patch.setattr(serializers, "_quick", None)
