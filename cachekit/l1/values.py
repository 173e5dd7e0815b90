"""Which values callers may share, how the others are copied, and about how many bytes they occupy.

Modes of a value:

``share``   deeply immutable: numbers, text, dates and the like, enum members, and tuples, frozensets, named tuples and
            frozen classes of such. Everybody gets the same object.
``copy``    holds something that can be changed. L1 keeps a copy of its own and every caller gets another one.
``opaque``  holds something that cannot be copied faithfully (a lock, a file, an object of an unknown class) or is
            nested deeper than `MAX_DEPTH`. Shared as it is.

A copy keeps the shape of the value: an object that occurs twice in it, or contains itself, does so in the copy. Looking
for such objects costs a dictionary entry per container, so `adopt` finds out once whether a value has any, and the hits
that follow copy plain trees without it.
"""

import dataclasses
import datetime
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from operator import length_hint
from sys import getsizeof
from types import BuiltinFunctionType, EllipsisType, FunctionType, MemberDescriptorType, NotImplementedType
from typing import Any, Literal, NamedTuple, TypeAlias

from cachekit.foreign import Foreign, foreign_for

MAX_DEPTH = 200
MAX_NODES = 10_000
MAX_PLANS = 4096

Mode: TypeAlias = Literal["share", "copy", "opaque"]
Memo: TypeAlias = dict[int, Any] | None


class Admission(NamedTuple):
    """What `admit` found out about a value.

    ``weight`` estimates its bytes in memory. ``plain`` says that an encoder that knows only None, bool, int, float,
    str, bytes, list and dict gives it back unchanged.
    """

    mode: str
    weight: int
    plain: bool


class Opaque(Exception):
    """Inside only: a value that cannot be copied."""


class Plan:
    """How to look into the instances of one class, and how to copy one."""

    __slots__ = ("copy", "mutable", "parts", "plain", "size")

    def __init__(
        self,
        parts: Callable[[Any], Iterable[Any] | None],
        copy: Callable[[Any, Memo], Any],
        *,
        mutable: bool,
        plain: bool = False,
        size: Callable[[Any], int] | None = None,
    ) -> None:
        self.parts = parts  # what it holds; None: this instance is opaque
        self.copy = copy  # the object itself if nothing in it can change
        self.mutable = mutable
        self.plain = plain  # an exact list or dict
        self.size = size or _size  # bytes of an instance of a class that is not in `EXACT`


# --------------------------------------------------------------------------------------------------------- admission

PLAIN_LEAVES = frozenset({type(None), bool, int, float, str, bytes})
INTS = range(-(2**63), 2**64)
FLAT = Admission("share", 0, False)


def admit(value: object) -> Admission:
    """Decide mode, weight and plainness in one walk of at most `MAX_NODES` nodes; the weight of the rest is estimated.

    A value that is larger than the walk counts as ``copy`` and not ``plain``, whatever was seen of it; `adopt` knows
    better. Never raises.
    """
    try:
        return _Walk().run(value)
    except Exception:  # a class whose attributes raise, a dictionary that another thread is changing
        return Admission("opaque", getsizeof(object), False)


class _Walk:
    """The walk of `admit`: depth first, with a stack of its own."""

    __slots__ = ("frames", "made", "mutable", "nodes", "opaque", "plain", "seen", "weight")

    def __init__(self) -> None:
        self.frames: list[tuple[Iterator[Any], int, int]] = []  # what is left, how many there were, weight before them
        self.seen: set[int] = set()
        self.made: list[
            Any
        ] = []  # parts that exist for this walk alone: nothing else may come to lie at their addresses
        self.nodes = 0
        self.weight = 0
        self.mutable = False
        self.opaque = False
        self.plain = True

    def run(self, value: object) -> Admission:
        self._visit(value)
        frames = self.frames
        while frames:
            for item in frames[-1][0]:
                self._visit(item)
                if self.nodes >= MAX_NODES:
                    return self._cut()
                break
            else:
                frames.pop()
        if self.opaque:
            return Admission("opaque", self.weight, False)
        return Admission("copy" if self.mutable else "share", self.weight, self.plain)

    def _visit(self, item: object) -> None:
        self.nodes += 1
        cls = type(item)
        if cls in PLAIN_LEAVES:
            self.weight += getsizeof(item)
            if cls is int and item not in INTS:
                self.plain = False
            return
        plan = PLANS.get(cls) or plan_for(cls)
        self.weight += getsizeof(item) if cls in EXACT else plan.size(item)
        self.plain &= plan.plain
        if plan is LEAF:
            return
        if id(item) in self.seen:  # again, or inside itself: an encoder may not survive that
            self.plain = False
            return
        self.seen.add(id(item))
        parts = plan.parts(item)
        if parts is None or len(self.frames) >= MAX_DEPTH - 1:
            self.opaque, self.plain = True, False
            return
        self.mutable |= plan.mutable
        if plan.size is not _size:
            self.made.append(parts)
        if cls is dict and self.plain and not all(type(key) is str for key in item):  # type: ignore[attr-defined]
            self.plain = False
        self.frames.append((iter(parts), length_hint(parts), self.weight))

    def _cut(self) -> Admission:
        """The walk is over before the value is: what was not seen weighs what was seen beside it."""
        for rest, total, before in reversed(self.frames):
            left = length_hint(rest)
            if 0 < left < total:
                self.weight = before + (self.weight - before) * total // (total - left)
        return Admission("opaque" if self.opaque else "copy", self.weight, False)


def _size(item: object) -> int:
    """Bytes of an instance of a class; its ``__sizeof__`` is the user's and not asked."""
    attributes = getattr(item, "__dict__", None)
    return type(item).__basicsize__ + (getsizeof(attributes) if type(attributes) is dict else 0)


# --------------------------------------------------------------------------------------------------------- isolation


def isolate(value: Any, mode: str) -> Any:
    """What a caller may have: a copy of its own in mode ``copy``, else the value itself. Never raises.

    A part that turns out not to be copyable makes the whole value shared, as in `admit`.
    """
    if mode != "copy":
        return value
    try:
        return copy_graph(value)
    except Exception:  # Opaque; RecursionError; a class whose attributes raise
        return value


class Adopted(NamedTuple):
    """A value as L1 keeps it, and the quickest way to copy it for a caller (mode ``copy`` only)."""

    value: Any
    mode: str
    renew: Callable[[Any], Any]


def adopt(value: Any, mode: str) -> Adopted:
    """Make the copy that L1 keeps, and learn from it what the bounded walk of `admit` may have missed. Never raises."""
    if mode != "copy":
        return Adopted(value, mode, copy_tree)
    memo: dict[int, Any] = {}
    try:
        mine = copy(value, memo)
    except Exception:
        return Adopted(value, "opaque", copy_tree)
    return Adopted(mine, "share" if mine is value else "copy", _renewal(mine, SHARED in memo))


def _renewal(value: Any, repeated: bool) -> Callable[[Any], Any]:
    shallow = SHALLOW.get(type(value))
    if shallow is not None and all(type(part) in LEAVES for part in EXACT[type(value)].parts(value) or ()):
        return shallow
    return copy_graph if repeated else copy_tree


SHALLOW: dict[type, Callable[[Any], Any]] = {list: list.copy, dict: dict.copy, set: set.copy}


def copy_tree(value: Any) -> Any:
    """Copy a value in which no changeable object occurs twice. Raises as `copy` does."""
    return copy(value, None)


def copy_graph(value: Any) -> Any:
    """Copy a value with the shape that it has. Raises as `copy` does."""
    return copy(value, {})


SHARED = -1  # in a memo: an object that was copied once occurred again; no id is negative


def copy(value: Any, memo: Memo) -> Any:
    """Copy a value; raises `Opaque` where that is impossible and RecursionError where it is too deep.

    ``memo`` maps the ids of containers to their copies; None if the value is known to be a tree.
    """
    plan = PLANS.get(type(value)) or plan_for(type(value))
    if plan is LEAF or memo is None:
        return plan.copy(value, memo)
    done = memo.get(id(value), SHARED)
    if done is not SHARED:
        if done is not value:
            memo[SHARED] = True
        return done
    new = plan.copy(value, memo)
    return memo.setdefault(id(value), new)  # an immutable object inside itself was copied on the way


def _copy_list(value: list[Any], memo: Memo) -> list[Any]:
    if memo is None:
        return [item if type(item) in LEAVES else copy(item, None) for item in value]
    new: list[Any] = []
    memo[id(value)] = new
    new += [item if type(item) in LEAVES else copy(item, memo) for item in value]
    return new


def _copy_dict(value: dict[Any, Any], memo: Memo) -> dict[Any, Any]:
    if memo is None:
        return {
            key if type(key) in LEAVES else copy(key, None): item if type(item) in LEAVES else copy(item, None)
            for key, item in value.items()
        }
    new: dict[Any, Any] = {}
    memo[id(value)] = new
    _fill(new, value, memo)
    return new


def _fill(new: Any, value: dict[Any, Any], memo: Memo) -> None:
    for key, item in value.items():
        new[key if type(key) in LEAVES else copy(key, memo)] = item if type(item) in LEAVES else copy(item, memo)


def _copy_set(value: set[Any], memo: Memo) -> set[Any]:
    new: set[Any] = set()
    if memo is not None:
        memo[id(value)] = new
    new.update([item if type(item) in LEAVES else copy(item, memo) for item in value])
    return new


def _copy_deque(value: deque[Any], memo: Memo) -> deque[Any]:
    new: deque[Any] = deque(maxlen=value.maxlen)
    if memo is not None:
        memo[id(value)] = new
    new.extend([item if type(item) in LEAVES else copy(item, memo) for item in value])
    return new


def _copy_ordered(value: OrderedDict[Any, Any], memo: Memo) -> OrderedDict[Any, Any]:
    new: OrderedDict[Any, Any] = OrderedDict()
    if memo is not None:
        memo[id(value)] = new
    _fill(new, value, memo)
    return new


def _copy_defaultdict(value: defaultdict[Any, Any], memo: Memo) -> defaultdict[Any, Any]:
    new: defaultdict[Any, Any] = defaultdict(value.default_factory)
    if memo is not None:
        memo[id(value)] = new
    _fill(new, value, memo)
    return new


def _copy_counter(value: Counter[Any], memo: Memo) -> Counter[Any]:
    new: Counter[Any] = Counter()
    if memo is not None:
        memo[id(value)] = new
    _fill(new, value, memo)
    return new


def _copy_bytearray(value: bytearray, memo: Memo) -> bytearray:
    return bytearray(value)


def _copied(items: Iterable[Any], memo: Memo) -> tuple[list[Any], bool]:
    """Copies of the items, and whether any differs from its original."""
    old = list(items)
    new = [item if type(item) in LEAVES else copy(item, memo) for item in old]
    return new, any(map(_differs, old, new))


def _differs(a: object, b: object) -> bool:
    return a is not b


def _copy_tuple(value: tuple[Any, ...], memo: Memo) -> tuple[Any, ...]:
    new, changed = _copied(value, memo)
    if not changed:
        return value
    return tuple(new) if memo is None else memo.get(id(value)) or tuple(new)


def _copy_frozenset(value: frozenset[Any], memo: Memo) -> frozenset[Any]:
    new, changed = _copied(value, memo)
    return frozenset(new) if changed else value


def _same(value: Any, memo: Memo) -> Any:
    return value


def _refuse(value: Any, memo: Memo) -> Any:
    raise Opaque(type(value).__qualname__)


def _nothing(value: Any) -> Iterable[Any]:
    return ()


def _unknown(value: Any) -> None:
    return None


def _itself(value: Iterable[Any]) -> Iterable[Any]:
    return value


def _listed(value: Iterable[Any]) -> Iterable[Any]:
    return list(value)  # in one step: another thread may be changing the set


def _keys_and_values(value: dict[Any, Any]) -> Iterable[Any]:
    return [part for item in list(value.items()) for part in item]


LEAF = Plan(_nothing, _same, mutable=False)
OPAQUE = Plan(_unknown, _refuse, mutable=False)

EXACT: dict[type, Plan] = {
    list: Plan(_itself, _copy_list, mutable=True, plain=True),
    dict: Plan(_keys_and_values, _copy_dict, mutable=True, plain=True),
    tuple: Plan(_itself, _copy_tuple, mutable=False),
    set: Plan(_listed, _copy_set, mutable=True),
    frozenset: Plan(_itself, _copy_frozenset, mutable=False),
    bytearray: Plan(_nothing, _copy_bytearray, mutable=True),
    deque: Plan(_listed, _copy_deque, mutable=True),
    OrderedDict: Plan(_keys_and_values, _copy_ordered, mutable=True),
    defaultdict: Plan(_keys_and_values, _copy_defaultdict, mutable=True),
    Counter: Plan(_keys_and_values, _copy_counter, mutable=True),
}

# Classes whose instances cannot change, derived ones first. Modules that may not be loaded are asked by name.
IMMUTABLE: tuple[type, ...] = (
    type(None), bool, int, float, complex, str, bytes, range, EllipsisType, NotImplementedType,
    datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone,
)  # fmt: skip
IMMUTABLE_BY_NAME = (
    ("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID"), ("pathlib", "PurePath"), ("re", "Pattern"),
    ("zoneinfo", "ZoneInfo"), ("ipaddress", "IPv4Address"), ("ipaddress", "IPv6Address"), ("ipaddress", "IPv4Network"),
    ("ipaddress", "IPv6Network"),
)  # fmt: skip

LEAVES: set[type] = set(IMMUTABLE)  # grows with the classes that `plan_for` finds to be leaves
PLANS: dict[type, Plan] = {**dict.fromkeys(IMMUTABLE, LEAF), **EXACT}


# ---------------------------------------------------------------------------------------------------- plans of classes


def plan_for(cls: type) -> Plan:
    """The plan of a class, made once. The number of plans is bounded, since each keeps its class alive."""
    plan = _compile(cls)
    if len(PLANS) >= MAX_PLANS:
        PLANS.clear()
        PLANS.update({**dict.fromkeys(IMMUTABLE, LEAF), **EXACT})
        LEAVES.clear()
        LEAVES.update(IMMUTABLE)
    PLANS[cls] = plan
    if plan is LEAF:
        LEAVES.add(cls)
    return plan


def forget(cls: type) -> None:
    """Find out anew about a class of which it was just said how to take it apart."""
    if PLANS.get(cls) is not EXACT.get(cls):
        del PLANS[cls]
        LEAVES.discard(cls)


def _compile(cls: type) -> Plan:
    if issubclass(cls, Enum) or _is_immutable(cls):
        return LEAF
    if issubclass(cls, tuple):
        return _namedtuple_plan(cls) if hasattr(cls, "_fields") else OPAQUE
    foreign = foreign_for(cls)
    if foreign is not None:
        return _foreign_plan(cls, foreign)
    if issubclass(cls, (FunctionType, BuiltinFunctionType, type)) or not _is_data(cls):
        return OPAQUE
    try:
        object.__new__(cls)
    except TypeError:  # the class has state of C code, as one derived from dict or Exception
        return OPAQUE
    return _data_plan(cls)


def _is_immutable(cls: type) -> bool:
    """A class of immutable values, or one derived from it that adds no place where an instance could keep anything."""
    for base in (*IMMUTABLE, *_loaded(IMMUTABLE_BY_NAME)):
        if issubclass(cls, base):
            return cls is base or (
                (cls.__dictoffset__ == 0 or base.__dictoffset__ != 0) and cls.__basicsize__ == base.__basicsize__
            )
    return False


def _loaded(names: Iterable[tuple[str, str]]) -> Iterator[type]:
    for module, name in names:
        found = getattr(sys.modules.get(module), name, None)
        if isinstance(found, type):
            yield found


def _is_data(cls: type) -> bool:
    """A data class of the standard library, of attrs or of pydantic."""
    return (
        dataclasses.is_dataclass(cls)
        or hasattr(cls, "__attrs_attrs__")
        or any(issubclass(cls, model) for model in _loaded([("pydantic.main", "BaseModel")]))
    )


def _is_frozen(cls: type) -> bool:
    """Whether the class itself forbids changes, and keeps nothing in an instance behind its own back."""
    own = vars(cls)
    if "__setattr__" not in own:  # an undecorated subclass of a frozen class takes new attributes
        return False
    if "__dataclass_params__" in own:
        names = {field.name for field in dataclasses.fields(cls)}
        forbids = bool(own["__dataclass_params__"].frozen)
    else:
        names = {field.name for field in own.get("__attrs_attrs__", ())} | {"_attrs_cached_hash"}
        forbids = "__attrs_attrs__" in own and own["__setattr__"].__name__ == "_frozen_setattrs"
    return forbids and names.issuperset(name for name, _ in _slots(cls)) and not _caches_properties(cls)


def _slots(cls: type) -> list[tuple[str, MemberDescriptorType]]:
    """The slots of a class and its bases."""
    members = (item for base in cls.__mro__ for item in vars(base).items())
    return [(name, member) for name, member in members if isinstance(member, MemberDescriptorType)]


def _caches_properties(cls: type) -> bool:
    """With functools.cached_property, or that of Django or werkzeug: it writes into ``__dict__``."""
    members = (type(member) for base in cls.__mro__ for member in vars(base).values())
    return any(kind.__name__ == "cached_property" for member in members for kind in member.__mro__)


def _namedtuple_plan(cls: type) -> Plan:
    def parts(value: Any) -> Iterable[Any] | None:
        return None if getattr(value, "__dict__", None) else value

    def copy_instance(value: Any, memo: Memo) -> Any:
        if getattr(value, "__dict__", None):
            raise Opaque(cls.__qualname__)
        new, changed = _copied(value, memo)
        return tuple.__new__(cls, new) if changed else value

    return Plan(parts, copy_instance, mutable=False)


def _foreign_plan(cls: type, foreign: Foreign) -> Plan:
    if foreign.leaf:
        return LEAF
    take, make, block = foreign.take, foreign.make, foreign.block

    def parts(value: Any) -> Iterable[Any] | None:
        try:
            return () if block is not None and block.whole(value) else take(value)
        except Exception:  # an instance that its package or the application does not take apart
            return None

    def copy_instance(value: Any, memo: Memo) -> Any:
        if block is not None and block.whole(value):
            new = block.copy(value)
        else:
            old = take(value)
            if memo is not None:
                memo[id(old)] = old  # until the copy is done: nothing else may come to lie where its parts do
            new = make(cls, _copied(old, memo)[0])
        return new if memo is None else memo.setdefault(id(value), new)

    def size(value: Any) -> int:
        return block.size(value) if block is not None and block.whole(value) else _size(value)

    return Plan(parts, copy_instance, mutable=block is None or not block.shared, size=size)


def _data_plan(cls: type) -> Plan:
    """Fields lie in slots, in ``__dict__`` or in both; pydantic's private attributes are slots of its base class.

    Copying fills a bare instance through the slots' descriptors, so neither ``__init__`` nor a validator nor a
    ``__setattr__`` that forbids changes is run.
    """
    slots = [member for _, member in _slots(cls)]
    has_dict = cls.__dictoffset__ != 0
    frozen = _is_frozen(cls)

    def parts(value: Any) -> Iterable[Any]:
        held = list(value.__dict__.values()) if has_dict else []
        for slot in slots:
            try:
                held.append(slot.__get__(value))
            except AttributeError:  # never set
                pass
        return held

    def copy_instance(value: Any, memo: Memo) -> Any:
        new: Any = object.__new__(cls)
        if memo is not None and not frozen:
            memo[id(value)] = new
        changed = not frozen
        if has_dict:
            old = value.__dict__
            attributes = _copy_dict(old, None) if memo is None else _attributes(old, memo)
            changed = changed or any(attributes[name] is not old[name] for name in attributes)
            object.__setattr__(new, "__dict__", attributes)
        for slot in slots:
            try:
                held = slot.__get__(value)
            except AttributeError:
                continue
            mine = held if type(held) in LEAVES else copy(held, memo)
            changed = changed or mine is not held
            slot.__set__(new, mine)
        return new if changed else value

    return Plan(parts, copy_instance, mutable=not frozen)


def _attributes(old: dict[str, Any], memo: Memo) -> dict[str, Any]:
    new: dict[str, Any] = {}
    _fill(new, old, memo)
    return new
