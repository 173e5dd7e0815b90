"""Value -> bytes: a typed encoding that is the same in every process, and different for values that are not the same.

Every encoding begins with a tag and knows its own length, so encodings can stand next to each other without a
separator that a value could forge. Types count: ``1``, ``True``, ``1.0`` and ``"1"`` are four values, an Enum member is
not its value, a subclass of ``int`` is not an ``int``. Sets and dicts do not depend on the order of insertion.

A class is named by module and qualified name. Where that name does not lead back to the class (it was made inside a
function, or replaced), a digest of the class body is added: its bases, the names and constants in it and the code of
its methods. Two local classes that agree in all of that, and differ only in objects their methods close over, share
a name; give such a class a ``__cache_key__`` method.

Modules that a program may not have imported (``decimal``, ``pathlib``, pydantic, ...) are looked up in ``sys.modules``
and never imported here: a value of their types cannot exist before.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import blake2b
from inspect import unwrap
from struct import pack
from types import (
    BuiltinFunctionType,
    CellType,
    ClassMethodDescriptorType,
    CodeType,
    EllipsisType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    NoneType,
    NotImplementedType,
    WrapperDescriptorType,
)
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from cachekit.errors import UncacheableArgument
from cachekit.modules import module_name

MAX_DEPTH = 256
EMPTY = object()
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: not set on classes written in C or Cython
_SCALARS = frozenset({int, str, bytes, bool, float, NoneType})

Walk: TypeAlias = set[int]  # ids of the objects around the value: finds cycles, counts depth
Encoder: TypeAlias = Callable[[Any, Walk], bytes]


def encode(value: object) -> bytes:
    """The typed encoding of a value. ``UncacheableArgument`` where the value has no stable identity."""
    walk: Walk = set()
    try:
        return _encoder(type(value))(value, walk)
    except RecursionError as error:
        if len(walk) < 32:  # the caller's own recursion, not the value's
            raise
        raise _too_deep(value) from error


def encode_plain(args: tuple[Any, ...]) -> bytes:
    """`encode` of a tuple of plain values, in one step; ``KeyError`` if there are others. It is asked at every miss."""
    encoded = b"t%d:" % len(args)
    for arg in args:
        encoded += _PLAIN[type(arg)](arg, _NOWHERE)
    return encoded


def short_digest(encoded: bytes) -> str:
    """16 hexadecimal digits, for names that a program makes and its users cannot influence."""
    return blake2b(encoded, digest_size=8).hexdigest()


# Parts of encodings


def _sized(tag: bytes, payload: bytes) -> bytes:
    return b"%b%d:%b" % (tag, len(payload), payload)


def _named(name: bytes, payload: bytes) -> bytes:
    """A value of a type of the standard library; the name is ours, because modules move between Python versions."""
    return b"x%d:%b%d:%b" % (len(name), name, len(payload), payload)


def _parts(owner: object, values: Iterable[object], walk: Walk) -> list[bytes]:
    """The encodings of what an object consists of."""
    identity = id(owner)
    if identity in walk:
        raise UncacheableArgument(f"a {_type_name(owner)} that contains itself has no stable identity. {_REMEDIES}")
    if len(walk) >= MAX_DEPTH:
        raise _too_deep(owner)
    walk.add(identity)
    parts = []
    for value in values:  # a loop and not a comprehension: one frame less per level on Python 3.11
        parts.append((_EXACT.get(type(value)) or _encoder(type(value)))(value, walk))
    walk.discard(identity)
    return parts


def _node(tag: bytes, owner: object, values: Iterable[object], walk: Walk) -> bytes:
    parts = _parts(owner, values, walk)
    return b"%b%d:%b" % (tag, len(parts), b"".join(parts))


# Built-in types. Methods are taken from the base class, since these also serve subclasses that may override them.


def _int(value: int, walk: Walk) -> bytes:
    return b"i%x;" % value  # hexadecimal: CPython limits the length of decimal conversions


def _str(value: str, walk: Walk) -> bytes:
    text = str.encode(value, "utf-8", "surrogatepass")
    return b"s%d:%b" % (len(text), text)


def _bytes(value: bytes, walk: Walk) -> bytes:
    return b"b%d:%b" % (len(value), value)


def _bytearray(value: bytearray, walk: Walk) -> bytes:
    return _sized(b"B", bytes(memoryview(value)))


def _float(value: float, walk: Walk) -> bytes:
    return b"f" + _double(value)


def _complex(value: complex, walk: Walk) -> bytes:
    return b"j" + _double(value.real) + _double(value.imag)


def _double(value: float) -> bytes:
    # The sign and payload of a NaN depend on the processor and say nothing.
    return b"\x7f\xf8\0\0\0\0\0\0" if value != value else pack(">d", value)


def _tuple(value: tuple[object, ...], walk: Walk) -> bytes:
    return _node(b"t", value, tuple.__iter__(value), walk)


def _list(value: list[object], walk: Walk) -> bytes:
    return _node(b"l", value, list.__iter__(value), walk)


def _set(value: set[object], walk: Walk) -> bytes:
    return b"e%d:%b" % (set.__len__(value), b"".join(sorted(_parts(value, list(set.__iter__(value)), walk))))


def _frozenset(value: frozenset[object], walk: Walk) -> bytes:
    return b"E%d:%b" % (frozenset.__len__(value), b"".join(sorted(_parts(value, frozenset.__iter__(value), walk))))


def _dict(value: dict[object, object], walk: Walk) -> bytes:
    parts = _parts(value, [item for pair in dict.items(value) for item in pair], walk)
    pairs = sorted(map(bytes.__add__, parts[::2], parts[1::2]))
    return b"d%d:%b" % (len(pairs), b"".join(pairs))


def _range(value: range, walk: Walk) -> bytes:
    return _node(b"r", value, (value.start, value.stop, value.step), walk)


def _slice(value: slice, walk: Walk) -> bytes:
    return _node(b"S", value, (value.start, value.stop, value.step), walk)


# The standard library


def _date(value: Any, walk: Walk) -> bytes:
    return _named(b"date", b"%d-%d-%d" % (value.year, value.month, value.day))


def _datetime(value: Any, walk: Walk) -> bytes:
    day = b"%d-%d-%d" % (value.year, value.month, value.day)
    return _node(b"x8:datetime", value, (day, _clock(value), value.tzinfo), walk)


def _time(value: Any, walk: Walk) -> bytes:
    return _node(b"x4:time", value, (_clock(value), value.tzinfo), walk)


def _clock(value: Any) -> bytes:
    return b"%d:%d:%d.%d/%d" % (value.hour, value.minute, value.second, value.microsecond, value.fold)


def _timedelta(value: Any, walk: Walk) -> bytes:
    return _named(b"timedelta", b"%d:%d:%d" % (value.days, value.seconds, value.microseconds))


def _timezone(value: Any, walk: Walk) -> bytes:
    return _node(b"x8:timezone", value, (value.utcoffset(None), value.tzname(None)), walk)


def _zoneinfo(value: Any, walk: Walk) -> bytes:
    if value.key is None:
        raise _refusal(value)  # read from an open file: no name
    return _named(b"zone", value.key.encode())


def _tzinfo(value: Any, walk: Walk) -> bytes:
    # pickling is part of the contract of tzinfo, so its reduction says all there is to say
    return _node(b"Z", value, (value.__reduce__(),), walk)


def _decimal(value: Any, walk: Walk) -> bytes:
    return _named(b"decimal", str(value).upper().encode())  # upper: the exponent's letter depends on the context


def _fraction(value: Any, walk: Walk) -> bytes:
    return _named(b"fraction", b"%x/%x" % (value.numerator, value.denominator))


def _uuid(value: Any, walk: Walk) -> bytes:
    return _named(b"uuid", value.bytes)


def _path(value: Any, walk: Walk) -> bytes:
    flavour = next(cls.__name__ for cls in type(value).__mro__ if cls in _EXACT)
    return _named(flavour.encode(), str(value).encode("utf-8", "surrogatepass"))


def _address(value: Any, walk: Walk) -> bytes:
    return _named(type(value).__name__.encode(), str(value).encode())


def _pattern(value: Any, walk: Walk) -> bytes:
    return _node(b"x7:pattern", value, (value.pattern, value.flags), walk)


def _ordered(value: Any, walk: Walk) -> bytes:
    return _node(b"x7:ordered", value, [item for pair in value.items() for item in pair], walk)


def _deque(value: Any, walk: Walk) -> bytes:
    return _node(b"x5:deque", value, [value.maxlen, *value], walk)


def _defaultdict(value: Any, walk: Walk) -> bytes:
    return _node(b"x11:defaultdict", value, (value.default_factory, dict(value)), walk)


def _partial(value: Any, walk: Walk) -> bytes:
    return _node(b"x7:partial", value, (value.func, value.args, value.keywords), walk)


_STDLIB: dict[str, dict[str, Encoder]] = {
    "datetime": {
        "date": _date,
        "datetime": _datetime,
        "time": _time,
        "timedelta": _timedelta,
        "timezone": _timezone,
        "tzinfo": _tzinfo,
    },
    "zoneinfo": {"ZoneInfo": _zoneinfo},
    "decimal": {"Decimal": _decimal},
    "fractions": {"Fraction": _fraction},
    "uuid": {"UUID": _uuid},
    "pathlib": dict.fromkeys(("PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath"), _path),
    "ipaddress": dict.fromkeys(
        ("IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network", "IPv4Interface", "IPv6Interface"), _address
    ),
    "re": {"Pattern": _pattern},
    "collections": {"OrderedDict": _ordered, "deque": _deque, "defaultdict": _defaultdict},
    "functools": {"partial": _partial},
}


# Classes, functions, modules: by the name that leads to them


def class_name(cls: type) -> str:
    """Module and qualified name, and a digest of the body where that name does not lead back to the class."""
    name = _CLASS_NAMES.get(cls)
    if name is None:
        name = _imported_as(cls) or f"{_qualified(cls)}#{short_digest(_body(cls))}"
        _CLASS_NAMES[cls] = name
    return name


def _qualified(thing: Any) -> str:
    module = sys.modules.get(thing.__module__)
    return f"{thing.__module__ if module is None else module_name(vars(module))}.{thing.__qualname__}"


def _imported_as(thing: Any) -> str | None:
    """The qualified name of a class or function, if importing that name gives this very object."""
    module, qualname = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str):
        return None
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return _qualified(thing) if found is thing else None


def _body(cls: type) -> bytes:
    parts = [_str(_qualified(base), set()) for base in cls.__bases__]
    for name, member in sorted(vars(cls).items()):
        if isinstance(member, property):
            member = member.fget
        member = unwrap(getattr(member, "__func__", member))
        if isinstance(member, FunctionType):
            captured = map(_constant, map(cell_content, member.__closure__ or ()))
            parts += (_str(name, set()), _code(member.__code__, set()), *captured)
        elif not name.startswith("__"):  # of those, Python and frameworks add some as the program runs
            parts += (_str(name, set()), _constant(member))
    return b"".join(parts)


def _constant(value: object) -> bytes:
    """A plain value; of everything else the type, since it may change as the program runs."""
    if type(value) in _SCALARS or (type(value) is tuple and _SCALARS.issuperset(map(type, value))):
        return encode(value)
    return _str(type(value).__qualname__, set())


def cell_content(cell: CellType) -> object:
    """What a closure holds, EMPTY before the assignment."""
    try:
        return cell.cell_contents
    except ValueError:
        return EMPTY


def _class(value: type, walk: Walk) -> bytes:
    return _sized(b"c", class_name(value).encode())


def _module(value: ModuleType, walk: Walk) -> bytes:
    return _sized(b"M", module_name(vars(value)).encode())


def _code(value: CodeType, walk: Walk) -> bytes:
    """What code does: everything that execution depends on, nothing about where it stands."""
    shape = (value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags)
    names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
    return _node(b"o", value, (value.co_code, value.co_exceptiontable, value.co_consts, shape, names), walk)


def _callable(value: Any, walk: Walk) -> bytes:
    """What can be imported by its name; everything that nothing else knows ends here too."""
    name = _imported_as(value)
    if name is None:
        raise _refusal(value)
    return _sized(b"n", name.encode())


def _method(value: MethodType, walk: Walk) -> bytes:
    found = getattr(value.__self__, value.__func__.__name__, None)
    # a class method's function cannot be imported, but its class leads to it
    reached = isinstance(found, MethodType) and found.__func__ is value.__func__
    return _node(b"m", value, (value.__func__.__name__ if reached else value.__func__, value.__self__), walk)


def _bound(value: Any, walk: Walk) -> bytes:
    """A subclass of partial, which is how a decorator binds instances: as the method that it is."""
    name = getattr(value, "__name__", None)
    if len(value.args) == 1 and isinstance(name, str) and getattr(value.args[0], name, None) == value:
        return _node(b"m", value, (name, value.args[0]), walk)
    return _callable(value, walk)


def _builtin(value: Any, walk: Walk) -> bytes:
    if value.__self__ is None or isinstance(value.__self__, ModuleType):
        return _callable(value, walk)
    return _node(b"m", value, (value.__name__, value.__self__), walk)


def _descriptor(value: Any, walk: Walk) -> bytes:
    return _node(b"m", value, (value.__name__, value.__objclass__), walk)


# Instances of other classes: how to encode them is decided once per class


def _encoder(cls: type) -> Encoder:
    return _EXACT.get(cls) or _PLANS.get(cls) or _plan(cls)


def _plan(cls: type) -> Encoder:
    _learn_stdlib()
    encoder = _EXACT.get(cls)
    if encoder is None:
        encoder = _instance_encoder(cls)
        if encoder is not _callable:  # a class that is refused now may get its __cache_key__ later
            _PLANS[cls] = encoder
    return encoder


def _learn_stdlib() -> None:
    for module, encoders in list(_STDLIB.items()):
        loaded = sys.modules.get(module)
        if loaded is not None and all(hasattr(loaded, name) for name in encoders):
            _EXACT.update((getattr(loaded, name), encoder) for name, encoder in encoders.items())
            _STDLIB.pop(module, None)


def _instance_encoder(cls: type) -> Encoder:
    if hasattr(cls, "__cache_key__"):
        return _hooked
    if issubclass(cls, type):
        return _class
    if issubclass(cls, Enum):
        return _enum
    pydantic = sys.modules.get("pydantic.main")
    if pydantic is not None and issubclass(cls, pydantic.BaseModel):
        return _pydantic
    names = _field_names(cls)
    base = next((known for known in cls.__mro__[1:] if known in _EXACT), None)
    if base is None:
        return _callable if names is None else _fields_encoder(cls, names)
    if _EXACT[base] is _partial:
        return _bound
    if _hides_state(cls, base):
        return _callable
    return _same_as_uuid(cls, base) or _subclass_encoder(_EXACT[base])


def _hooked(value: Any, walk: Walk) -> bytes:
    return _node(b"k", value, (type(value), type(value).__cache_key__(value)), walk)


def _enum(value: Enum, walk: Walk) -> bytes:
    # a combination of flags need not have a name
    return _node(b"y", value, (type(value), value._value_ if value._name_ is None else value._name_), walk)


def _pydantic(value: Any, walk: Walk) -> bytes:
    """Fields, extra and private attributes, and which fields were given: ``exclude_unset`` depends on it."""
    fields = {name: value.__dict__.get(name) for name in type(value).__pydantic_fields__}
    state = (fields, value.__pydantic_extra__, value.__pydantic_private__, value.__pydantic_fields_set__)
    return _node(b"p", value, (type(value), *state), walk)


def _field_names(cls: type) -> tuple[str, ...] | None:
    """The fields of a dataclass or an attrs class."""
    if is_dataclass(cls):
        return tuple(field.name for field in fields(cls))
    attrs_fields = getattr(cls, "__attrs_attrs__", None)
    return None if attrs_fields is None else tuple(field.name for field in attrs_fields)


def _fields_encoder(cls: type, names: tuple[str, ...]) -> Encoder:
    # The encoders below do not refer to cls: a plan that did would keep its class alive.
    def decorated(value: Any, walk: Walk) -> bytes:
        return _node(b"g", value, (type(value), _field_values(value, names)), walk)

    def subclass(value: Any, walk: Walk) -> bytes:
        return _node(b"g", value, (type(value), _field_values(value, names), _state(value)), walk)

    own = vars(cls)
    # what an undecorated subclass adds is no field
    return decorated if "__dataclass_fields__" in own or "__attrs_attrs__" in own else subclass


def _field_values(value: object, names: tuple[str, ...]) -> dict[str, object]:
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _subclass_encoder(base: Encoder) -> Encoder:
    """A subclass of a type we know: class, the base's value, attributes."""

    def subclass(value: Any, walk: Walk) -> bytes:
        attributes = _node(b"a", value, (_state(value),), walk)
        return b"u%b%b%b" % (_class(type(value), walk), base(value, walk), attributes)

    return subclass


def _state(value: object) -> object:
    return object.__getstate__(value) or None


def _hides_state(cls: type, base: type) -> bool:
    """A class in C between the two (a pandas timestamp over datetime) can carry more than the base shows."""
    between = cls.__mro__[: cls.__mro__.index(base)]
    return any(not known.__flags__ & _HEAP_TYPE for known in between) or (
        getattr(cls, "n_fields", 0) != getattr(cls, "n_sequence_fields", 0)  # time.struct_time and its kind
    )


def _same_as_uuid(cls: type, base: type) -> Encoder | None:
    # asyncpg returns a faster twin of uuid.UUID that is meant to be taken for it
    return _uuid if base.__name__ == "UUID" and cls.__module__.endswith("pgproto.pgproto") else None


# Errors

_REMEDIES = (
    'Leave the parameter out of the key with ignore=("name",), give the class a __cache_key__() method that returns '
    "what identifies it, or build the key with key=..."
)


def _refusal(value: object) -> UncacheableArgument:
    name = getattr(value, "__qualname__", None)
    what = f"a {_type_name(value)} ({name})" if isinstance(name, str) else f"a {_type_name(value)}"
    return UncacheableArgument(f"{what} has no identity that is the same in every process. {_REMEDIES}")


def _too_deep(value: object) -> UncacheableArgument:
    return UncacheableArgument(f"a {_type_name(value)} is nested deeper than {MAX_DEPTH} levels. {_REMEDIES}")


def _type_name(value: object) -> str:
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


_CLASS_NAMES: WeakKeyDictionary[type, str] = WeakKeyDictionary()
_PLANS: WeakKeyDictionary[type, Encoder] = WeakKeyDictionary()
_EXACT: dict[type, Encoder] = {
    NoneType: lambda value, walk: b"N",
    bool: lambda value, walk: b"T" if value else b"F",
    EllipsisType: lambda value, walk: b".",
    NotImplementedType: lambda value, walk: b"!",
    int: _int,
    float: _float,
    complex: _complex,
    str: _str,
    bytes: _bytes,
    bytearray: _bytearray,
    tuple: _tuple,
    list: _list,
    dict: _dict,
    set: _set,
    frozenset: _frozenset,
    range: _range,
    slice: _slice,
    type: _class,
    ModuleType: _module,
    CodeType: _code,
    FunctionType: _callable,
    MethodType: _method,
    BuiltinFunctionType: _builtin,
    MethodWrapperType: _builtin,
    MethodDescriptorType: _descriptor,
    WrapperDescriptorType: _descriptor,
    ClassMethodDescriptorType: _descriptor,
}

_PLAIN = {kind: _EXACT[kind] for kind in (int, str, bytes, bool, NoneType)}
_NOWHERE: Walk = set()  # plain values consist of nothing, so nobody looks into it
