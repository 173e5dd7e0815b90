"""Values as msgpack in which every type comes back as itself. The ext codes below are part of format 1.

====  ===========  ========================================  ====  =============  =================================
code  scalar       bytes                                     code  marker         what follows it in its array
====  ===========  ========================================  ====  =============  =================================
1     int          signed, big-endian; beyond 64 bits        32    tuple          items
2     str          UTF-8 with lone surrogates                33    set            items
3     bytearray    as it is                                  34    frozenset      items
4     complex      two float64                               35    dict           key, value, key, value, ...
5     Decimal      its text                                  36    OrderedDict    key, value, ...
6     UUID         16 bytes, safety if known                 37    defaultdict    name of the factory or nil, key, ...
7     date         year, month, day                          38    deque          maxlen or nil, items
8     datetime     fields, fold, zone                        48    namedtuple     items
9     time         fields, fold, zone                        49    dataclass      fields, then name, value, ...
10    timedelta    days, seconds, microseconds               50    attrs          fields, then name, value, ...
11    path         letter of the class, text                 51    pydantic       fields, then name, value, ...
12    Enum         class, name of the member                  52    foreign        class, then its parts
13    Flag         class, number                             53    registered     its encoding
                                                          54    Django model   its parts
                                                          0     unset          (stands for a field without value)
====  ===========  ========================================  ====  =============  =================================

None, bool, int of 64 bits, float, str, bytes, list, and dict with str keys are plain msgpack. Every other container is
an array whose first item is a marker: an ext with one of the codes on the right, empty but for 48 to 54. Those carry
the name of the class: ``module:qualified.name``, with 53 the name under which it is registered, with 54 its
``app_label.model``. With 48 to 51 and 54 two zero bytes and a fingerprint of the fields follow (`fingerprints`); the
first entries had, with 48 to 51, the names of the fields after a zero byte each. A tree with such arrays has the codec
`MARKED`, any other `TREE`, which the C decoder alone can read. The classes of 52 are those that `cachekit.foreign`
knows.

`MAX_DEPTH` bounds what is written and what is read (`depth`).
"""

from collections.abc import Callable, Collection, Iterable
from enum import Enum
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]

from cachekit.codec import native
from cachekit.codec.classes import NAMEDTUPLE, UNSET, Plan, Refused, describe, plan_for, plan_of, rebuild, take_apart
from cachekit.codec.classes import at as _at
from cachekit.codec.containers import CONTAINERS, DEFAULTDICT, DEQUE, DICT, ORDEREDDICT, build, factory_name
from cachekit.codec.depth import MAX_DEPTH, deep_msgpack
from cachekit.codec.envelope import Damaged
from cachekit.codec.scalars import DECODE, ENCODE, ENCODE_EXACT, enum_parts
from cachekit.errors import Unstorable


def _import_quick() -> Any:
    try:
        import ormsgpack
    except ImportError:  # not on PyPy; msgpack does all of it, more slowly
        return None
    return ormsgpack


_quick = _import_quick()

TREE, MARKED = 1, 2  # the codec byte of the envelope; `base` has them all

_UNSET = 0
_INSTANCES = range(48, 55)
_MARKERS = frozenset((_UNSET, *range(32, 39), *_INSTANCES))
_PLAIN = frozenset((type(None), bool, int, float, str, bytes))
_PLAIN_EXACT = _PLAIN - {int, str}
_STR_ONLY = {str}

# With these it refuses what it would otherwise turn into something else, as far as it can be told to.
_STRICT = _quick and (
    _quick.OPT_PASSTHROUGH_SUBCLASS | _quick.OPT_PASSTHROUGH_TUPLE | _quick.OPT_PASSTHROUGH_DATACLASS
    | _quick.OPT_PASSTHROUGH_DATETIME | _quick.OPT_PASSTHROUGH_ENUM | _quick.OPT_PASSTHROUGH_UUID
)  # fmt: skip


def dump(value: Any, *, plain: bool, limit: int) -> tuple[int, bytes]:
    """Codec and payload of a value. Raises `Unstorable`, also when it would be longer than ``limit`` bytes.

    ``plain`` as in `Codec.dumps`; the native encoder, which looks itself, does not ask.
    """
    if _core is not None:
        done: tuple[int, bytes] | None = _core.encode(value, limit)
        if done is not None:
            return done
    codec, payload = _dump_quick(value, plain, limit)
    if len(payload) > limit:
        raise Unstorable(f"a value of {len(payload)} bytes; max_value_bytes is {limit}", "size")
    return codec, payload


def _dump_quick(value: Any, plain: bool, limit: int) -> tuple[int, bytes]:
    if _quick is not None:
        if plain:
            try:
                return TREE, _quick.packb(value, None, _STRICT)
            except TypeError:
                pass  # an int beyond 64 bits, a lone surrogate, too deep: the encoder below knows
        encoder = Encoder(_quick.Ext, exact=False, room=limit)
        tree = _checked(encoder, value)
        try:
            return encoder.codec, _quick.packb(tree)
        except TypeError:
            pass
    encoder = Encoder(msgpack.ExtType, exact=True, room=limit)
    tree = _checked(encoder, value)
    payload: bytes = msgpack.packb(tree)
    return encoder.codec, payload


def _checked(encoder: "Encoder", value: Any) -> Any:
    try:
        return encoder.encode(value, 0)
    except Refused as refused:
        raise refused.unstorable() from None
    except RecursionError:
        raise Unstorable("cannot store a value at this depth of the stack", "depth") from None
    except Exception as error:
        # Another thread changed a container meanwhile, or an object breaks the rules of its type.
        raise Unstorable(f"cannot store {describe(type(value))}: {type(error).__name__}: {error}", "type") from error


class Encoder:
    """Turns one value into a tree of what msgpack knows.

    Not ``exact``, it takes every int for one of 64 bits and every str for one that UTF-8 can hold; msgpack refuses the
    tree where that is wrong. ``room`` bounds the number of items, so that a small web of shared lists cannot grow into
    an endless tree.
    """

    __slots__ = ("_exact", "_ext", "_plain", "_room", "_scalars", "codec")

    def __init__(self, ext: Callable[[int, bytes], Any], *, exact: bool, room: int) -> None:
        self._ext = ext
        self._exact = exact
        self._plain = _PLAIN_EXACT if exact else _PLAIN
        self._scalars = ENCODE
        self._room = room
        self.codec = TREE

    def encode(self, value: Any, depth: int) -> Any:
        """The tree of a value. Raises `Refused`."""
        cls = type(value)
        if cls in self._plain:
            return value
        if cls is dict:
            return self._dict(value, depth)
        if cls is list:
            return self._items([], value, depth)
        scalar = self._scalars.get(cls)
        if scalar is not None:
            return self._ext(scalar[0], scalar[1](value))
        container = CONTAINERS.get(cls)
        if container is not None:
            return self._marked(container, value, depth)
        if cls in ENCODE_EXACT:
            return self._beyond_msgpack(value)
        if isinstance(value, Enum):
            return self._ext(*enum_parts(value))
        return self._instance(value, depth)

    def _beyond_msgpack(self, value: Any) -> Any:
        if type(value) is int:
            if -(2**63) <= value < 2**64:
                return value
        elif _is_utf8(value):
            return value
        code, write = ENCODE_EXACT[type(value)]
        return self._ext(code, write(value))

    def _enter(self, size: int, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise Refused("depth", f"a value nested more than {MAX_DEPTH} deep, or within itself")
        self._room -= size
        if self._room < 0:
            raise Refused("size", "a value with more items than max_value_bytes")

    def _dict(self, value: dict[Any, Any], depth: int) -> Any:
        self._enter(len(value), depth)
        if value and (set(map(type, value)) != _STR_ONLY or (self._exact and not all(map(_is_utf8, value)))):
            self.codec = MARKED
            return self._pairs([self._ext(DICT, b"")], value.copy().items(), depth)
        tree, plain = {}, self._plain
        key: Any = None
        try:
            for key, item in value.items():
                tree[key] = item if type(item) in plain else self.encode(item, depth + 1)
        except Refused as refused:
            refused.path.append(_at(key))
            raise
        return tree

    def _items(self, tree: list[Any], items: Collection[Any], depth: int) -> list[Any]:
        """Append the trees of the items. ``tree`` may have a head already."""
        self._enter(len(items), depth)
        head, plain = len(tree), self._plain
        try:
            for item in items:
                tree.append(item if type(item) in plain else self.encode(item, depth + 1))
        except Refused as refused:
            refused.path.append(f"[{len(tree) - head}]")
            raise
        return tree

    def _pairs(self, tree: list[Any], pairs: Iterable[tuple[Any, Any]], depth: int) -> list[Any]:
        key: Any = None
        try:
            for key, item in pairs:
                tree.append(self.encode(key, depth + 1))
                tree.append(self.encode(item, depth + 1))
        except Refused as refused:
            refused.path.append(_at(key))
            raise
        return tree

    def _marked(self, code: int, value: Any, depth: int) -> list[Any]:
        # A list is made in one step: another thread that moves a key meanwhile would have it stored twice.
        self.codec = MARKED
        tree = [self._ext(code, b"")]
        if code in (ORDEREDDICT, DEFAULTDICT):
            if code == DEFAULTDICT:
                tree.append(factory_name(value))
            self._enter(len(value), depth)
            return self._pairs(tree, list(value.items()), depth)
        if code == DEQUE:
            tree.append(value.maxlen)
        return self._items(tree, list(value), depth)

    def _instance(self, value: Any, depth: int) -> list[Any]:
        plan = plan_for(type(value))
        if plan.foreign is not None:
            return self._foreign(plan, value, depth)
        fields, others = take_apart(plan, value)
        self._enter(len(plan.names) + len(others), depth)
        self.codec = MARKED
        tree = [self._ext(plan.kind, plan.marker)]
        plain = self._plain
        try:
            for item in fields:
                if item is UNSET:
                    tree.append(self._ext(_UNSET, b""))
                else:
                    tree.append(item if type(item) in plain else self.encode(item, depth + 1))
        except Refused as refused:
            refused.path.append(f".{plan.names[len(tree) - 1]}")
            raise
        return self._pairs(tree, others.items(), depth) if others else tree

    def _foreign(self, plan: Plan, value: Any, depth: int) -> list[Any]:
        assert plan.foreign is not None
        self.codec = MARKED
        try:
            parts = plan.foreign.take(value)
        except Exception as error:  # of another package or of the application
            what = f"{describe(plan.cls)}: {type(error).__name__}: {error}"
            raise Refused("type", what) from error
        try:
            return self._items([self._ext(plan.kind, plan.marker)], parts, depth)
        except Refused as refused:
            # Instead of the number of the part, which nobody knows; without one it is the instance that is too deep.
            refused.path[-1:] = [f".<{plan.cls.__qualname__}>"]
            raise


def has_codec(cls: type) -> bool:
    """Whether instances of exactly this class can be stored, as far as the class tells."""
    if cls in _PLAIN or cls in ENCODE or cls in CONTAINERS or cls in (list, dict) or issubclass(cls, Enum):
        return True
    try:
        plan_for(cls)
    except Refused:
        return False
    return True


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def load(codec: int, payload: bytes | memoryview) -> Any:
    """The value of a payload. Raises `Damaged` and nothing else, whatever the bytes; imports nothing."""
    try:
        if deep_msgpack(payload, MAX_DEPTH):
            raise Damaged("depth")
        if codec == TREE and _quick is not None:
            return _quick.unpackb(payload, ext_hook=_read)
        if codec not in (TREE, MARKED):
            raise Damaged("codec")
        if codec == TREE:
            return _unpack(payload, _read)
        return _restored(_unpack(payload, _read_marker))
    except Damaged:
        raise
    except RecursionError as error:
        raise Damaged("depth") from error
    except Exception as error:
        raise Damaged("payload") from error


def _unpack(payload: bytes | memoryview, ext_hook: Callable[[int, bytes], Any]) -> Any:
    if _quick is not None:
        return _quick.unpackb(payload, ext_hook=ext_hook)
    return msgpack.unpackb(payload, ext_hook=ext_hook, strict_map_key=True)


def _scalar(code: int, data: bytes) -> Any:
    return DECODE[code](data)


class _Marker(NamedTuple):
    """The head of an array that stands for another container. No scalar is a tuple."""

    code: int
    data: bytes


def _scalar_or_marker(code: int, data: bytes) -> Any:
    read = DECODE.get(code)
    if read is not None:
        return read(data)
    if code in _MARKERS:
        return _Marker(code, data)
    raise LookupError("unknown code")


_NESTED = frozenset((dict, list, _Marker))


def _restore(tree: Any, depth: int = 0) -> Any:
    """The value of an unpacked tree, which is used up."""
    cls = type(tree)
    if cls not in _NESTED:
        return tree
    if depth >= MAX_DEPTH:
        raise Damaged("depth")
    if cls is dict:
        for key, item in tree.items():
            if type(item) in _NESTED:
                tree[key] = _restore(item, depth + 1)
        return tree
    if cls is list:
        if tree and type(tree[0]) is _Marker:
            return _rebuild(tree[0], tree[1:], depth)
        return _restore_items(tree, depth)
    raise ValueError("a marker out of place")


def _restore_items(items: list[Any], depth: int) -> list[Any]:
    for at, item in enumerate(items):
        if type(item) in _NESTED:
            items[at] = _restore(item, depth + 1)
    return items


def _rebuild(marker: _Marker, items: list[Any], depth: int) -> Any:
    code = marker.code
    if code in _INSTANCES:
        return _rebuild_instance(marker, items, depth)
    if marker.data:
        raise ValueError("a marker with data")
    _restore_items(items, depth)
    return build(code, items)


def _rebuild_instance(marker: _Marker, items: list[Any], depth: int) -> Any:
    plan = plan_of(marker.code, marker.data)
    count = len(plan.names)
    for at, item in enumerate(items):
        if type(item) is _Marker and item.code == _UNSET and at < count and plan.kind != NAMEDTUPLE:
            items[at] = UNSET
        elif type(item) in _NESTED:
            items[at] = _restore(item, depth + 1)
    return rebuild(plan, items)


_core = native.install(_scalar, _scalar_or_marker, _Marker, MAX_DEPTH)
_read, _read_marker, _restored = (
    (_scalar, _scalar_or_marker, _restore) if _core is None else (_core.scalar, _core.scalar_or_marker, _core.restore)
)
