"""Nobody can change what another caller gets, and nothing about a value changes by being cached."""

import collections
import copy
import dataclasses
import datetime
import enum
import functools
import itertools
import sys
import threading
import typing
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from l1_rig import TWINS
from values_rig import functions_of, way

from cachekit.l1 import values
from cachekit.l1.values import MAX_DEPTH, MAX_NODES, admit, adopt, isolate


@pytest.fixture(params=TWINS, scope="module", autouse=True)
def twin(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs everything here with the functions of either twin."""
    with pytest.MonkeyPatch.context() as patch:
        for function, its in functions_of(request.param).items():
            patch.setattr(sys.modules[__name__], function, its)
        yield


class Colour(enum.Enum):
    RED = "red"
    LIST = typing.cast(Any, ["shared on purpose"])


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: Any


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlots:
    x: Any


@dataclasses.dataclass
class Mutable:
    x: Any
    seen: int = dataclasses.field(default=0, init=False)

    def __post_init__(self) -> None:
        self.seen += 1


@dataclasses.dataclass(slots=True, weakref_slot=True)
class Slots:
    x: Any
    unset: Any = dataclasses.field(init=False, repr=False, compare=False)


@attrs.define
class Attrs:
    x: Any


@attrs.frozen
class AttrsFrozen:
    x: Any


class TakesMore(Frozen):
    """Not frozen itself: Base's `__setattr__` refuses the names of the fields alone."""


class SlotBeside(FrozenSlots):
    __slots__ = ("more",)


@dataclasses.dataclass(frozen=True)
class Remembers:
    x: Any

    @functools.cached_property
    def found(self) -> list[int]:
        return []


@dataclasses.dataclass(frozen=True)
class RemembersToo(Remembers):
    pass


@attrs.frozen
class AttrsRemembers:
    x: Any

    @functools.cached_property
    def found(self) -> list[int]:
        return []


@attrs.frozen(slots=False)
class AttrsDictRemembers:
    x: Any

    @functools.cached_property
    def found(self) -> list[int]:
        return []


@attrs.frozen(cache_hash=True)
class AttrsHashed:
    x: Any


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    x: Any
    _private: list[int] = pydantic.PrivateAttr(default_factory=list)


class Plain:
    def __init__(self) -> None:
        self.x = [1]


class SlottedText(str):
    __slots__ = ()


class Text(str):
    pass


class DictWithData(dict[str, int]):
    pass


@dataclasses.dataclass
class Failing(Exception):
    x: int


SCALARS: list[Any] = [
    None, True, 7, 2**70, 1.5, 1j, "text", b"bytes", range(3), ..., NotImplemented, datetime.datetime(2026, 1, 2, 3),
    datetime.datetime(2026, 1, 2, 3, tzinfo=ZoneInfo("Europe/Paris")),
    datetime.date(2026, 1, 1), datetime.time(1), datetime.timedelta(1),
    datetime.UTC, Decimal("1.0"), Fraction(1, 3), UUID(int=1), Path("/x"), Colour.RED, Colour.LIST, SlottedText("s"),
]  # fmt: skip
SHARED: list[Any] = [
    *SCALARS, (), (1, ("a", None)), frozenset({1, (2, 3)}), Point(1, Point("a", 2)), Frozen((1, Frozen("a"))),
    FrozenSlots(1), AttrsFrozen((1, 2)), AttrsHashed(1),
]  # fmt: skip
COPIED: list[Any] = [
    [1, [2]], {"a": {"b": 1}}, {1, 2}, bytearray(b"x"), collections.deque([1, [2]], maxlen=3),
    collections.OrderedDict(b=[1], a=2), collections.defaultdict(list, a=[1]), collections.Counter("abca"),
    ([1],), (1, {"a": 1}), Point([1], 2), Frozen([1]), FrozenSlots([1]), AttrsFrozen([1]), Mutable([1]), Slots([1]),
    Attrs([1]), Model(x=[1], more={"a": [1]}), [Mutable(Point(1, Attrs(Model(x={1: Frozen([2])}))))],
    {(1, 2): [3]}, {Frozen(1): [1]}, TakesMore(1), SlotBeside(1), Remembers(1), RemembersToo(1), AttrsRemembers(1),
    AttrsDictRemembers(1),
]  # fmt: skip
OPAQUE: list[Any] = [
    threading.Lock(), object(), Plain(), (i for i in range(3)), lambda: None, len, int, memoryview(b"x"), Text("s"),
    DictWithData(a=1), Failing(1), collections.ChainMap(),
]  # fmt: skip


@pytest.mark.parametrize("value", SHARED, ids=repr)
def test_what_cannot_change_is_shared(value: Any) -> None:
    assert admit(value).mode == "share"
    assert isolate(value, "share") is value
    assert adopt(value, "copy").value is value  # were it not known, the copy would find out
    assert adopt(value, "copy").mode == "share"


@pytest.mark.parametrize("value", COPIED, ids=repr)
def test_what_can_change_is_copied_with_types_and_contents(value: Any) -> None:
    assert admit(value).mode == "copy"
    mine = isolate(value, "copy")
    assert mine is not value
    assert type(mine) is type(value)
    assert mine == value
    assert repr(mine) == repr(value)


@pytest.mark.parametrize("cls", [Remembers, RemembersToo, AttrsRemembers, AttrsDictRemembers])
def test_what_a_cached_property_found_is_nobody_elses(cls: Any) -> None:
    kept = adopt(cls(1), admit(cls(1)).mode)
    for _ in range(2):
        mine = isolate(kept.value, kept.mode)
        assert mine.found == []
        mine.found.append(1)


def test_what_a_subclass_of_a_frozen_class_takes_is_nobody_elses() -> None:
    for value, name in ((TakesMore(1), "note"), (SlotBeside(1), "more")):
        mine = isolate(value, admit(value).mode)
        object.__setattr__(mine, name, "mine")
        assert not hasattr(value, name)


@pytest.mark.parametrize("value", OPAQUE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "around", [lambda v: v, lambda v: [1, v], lambda v: {"a": (v,)}, Mutable, lambda v: Point(v, 1)]
)
def test_one_unknown_part_makes_the_whole_opaque(value: Any, around: Any) -> None:
    whole = around(value)
    assert admit(whole).mode == "opaque"
    assert not admit(whole).plain
    assert isolate(whole, "opaque") is whole
    assert isolate(whole, "copy") is whole  # also when the walk was over before it saw that part
    assert adopt(whole, "copy").mode == "opaque"


def test_copies_run_neither_constructors_nor_validators_and_keep_what_was_not_a_field() -> None:
    value = Mutable([1])
    value.extra = [2]  # type: ignore[attr-defined]
    mine = isolate(value, "copy")
    assert mine.seen == 1
    assert mine.extra == [2]
    assert mine.extra is not value.extra  # type: ignore[attr-defined]
    model = Model(x=[1], more=[2])
    model._private.append(3)
    mine = isolate(model, "copy")
    assert mine == model
    assert mine.model_fields_set == {"x", "more"}
    assert mine.model_fields_set is not model.model_fields_set
    assert mine._private == [3]
    assert mine._private is not model._private
    assert mine.more is not model.more  # type: ignore[attr-defined]
    assert not hasattr(isolate(Slots([1]), "copy"), "unset")


def test_the_bound_of_a_deque_and_the_factory_of_a_defaultdict_stay() -> None:
    assert isolate(collections.deque([1], maxlen=3), "copy").maxlen == 3
    assert isolate(collections.defaultdict(list), "copy")["new"] == []
    assert list(isolate(collections.OrderedDict(b=1, a=2), "copy")) == ["b", "a"]


def _containers(value: Any, found: dict[int, Any]) -> dict[int, Any]:
    """Every container and object in a value that can change, by id."""
    if id(value) in found:
        return found
    if isinstance(value, (list, set, dict, collections.deque, bytearray, Mutable, Slots, Attrs, Model)):
        found[id(value)] = value
    if isinstance(value, dict):
        for key, item in value.items():
            _containers(key, found)
            _containers(item, found)
    elif isinstance(value, (list, tuple, set, frozenset, collections.deque)):
        for item in value:
            _containers(item, found)
    elif isinstance(value, (Mutable, Frozen, FrozenSlots, Slots, Attrs, AttrsFrozen, Model)):
        _containers(value.x, found)
    return found


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.sampled_from(SCALARS),
)
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text() | st.integers(), inner, max_size=4),
        st.sets(st.integers()),
        st.lists(inner, max_size=3).map(collections.deque),
        st.builds(Point, inner, inner),
        st.sampled_from([Frozen, FrozenSlots, Mutable, Slots, Attrs, AttrsFrozen]).flatmap(
            lambda c: st.builds(c, inner)
        ),
        st.builds(lambda x: Model(x=x), inner),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(anything)
def test_a_copy_equals_its_original_and_has_no_changeable_part_in_common(value: Any) -> None:
    mode = admit(value).mode
    assert mode != "opaque"
    mine, kept = isolate(value, mode), adopt(value, mode)
    assert mine == value == kept.value
    hit = kept.renew(kept.value) if kept.mode == "copy" else kept.value
    assert hit == value
    parts = [set(_containers(each, {})) for each in (value, mine, kept.value, hit)]
    for index, some in enumerate(parts):
        assert not any(some & other for other in parts[index + 1 :])
    if mode == "share":
        assert mine is value
    assert repr(mine) == repr(copy.deepcopy(value))


def test_an_object_that_occurs_twice_occurs_twice_in_the_copy_and_cycles_stay_cycles() -> None:
    row: list[Any] = [1]
    twice = {"a": row, "b": (row, 2), "c": Mutable(row)}
    assert admit(twice).mode == "copy"
    kept = adopt(twice, "copy")
    for mine in (isolate(twice, "copy"), kept.value, kept.renew(kept.value)):
        assert mine["a"] is mine["b"][0] is mine["c"].x
        assert mine["a"] is not row
    row.append(row)
    assert admit(row).mode == "copy"
    mine = isolate(row, "copy")
    assert mine[1] is mine
    inner: list[Any] = []
    pair = (inner, 1)
    inner.append(pair)
    mine = isolate(pair, "copy")
    assert mine[0][0] is mine
    assert mine is not pair
    node = Mutable(None)
    node.x = {"me": node}
    mine = isolate(node, "copy")
    assert mine.x["me"] is mine


def test_only_values_with_repeated_changeable_parts_pay_for_a_memo() -> None:
    constant = (1, 2)
    assert way(adopt([[1], [2], constant, constant, "a", "a"], "copy")) == "tree"
    assert way(adopt([[1]] * 2, "copy")) == "graph"
    assert way(adopt({"a": 1, 2: None}, "copy")) == "dict"
    assert way(adopt({"a": 1, 2: ([],)}, "copy")) == "tree"


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"a": v}, Mutable, Frozen])
def test_values_nested_too_deep_are_opaque_and_raise_nothing(wrap: Any) -> None:
    def nested(depth: int) -> Any:
        value: Any = [1]
        for _ in range(depth - 1):
            value = wrap(value)
        return value

    assert admit(nested(MAX_DEPTH - 1)).mode == "copy"
    assert admit(nested(MAX_DEPTH)).mode == "opaque"
    deep = nested(20_000)
    assert admit(deep).mode == "opaque"
    assert isolate(deep, "copy") is deep
    assert adopt(deep, "copy").mode == "opaque"
    while not isinstance(deep, list) or type(deep[0]) is not int:  # taken apart by hand: destructors nest as well
        deep = deep.x if dataclasses.is_dataclass(deep) else next(iter(deep.values() if type(deep) is dict else deep))


def test_a_chain_that_is_flat_to_a_walk_but_deep_to_a_copy_raises_nothing() -> None:
    nodes: list[dict[str, Any]] = [{} for _ in range(5000)]
    for node, following in itertools.pairwise(nodes):
        node["next"] = following
    assert isolate(nodes, "copy") is nodes
    assert adopt(nodes, "copy").mode == "opaque"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ({"a": [1, 1.5, None, True, "x", b"y", {"b": []}]}, True), (2**64 - 1, True), (-(2**63), True), ([], True),
        (2**64, False), (-(2**63) - 1, False), ((1,), False), ([(1,)], False), ({1: 2}, False), ([{None: 1}], False),
        ({Colour.RED: 1}, False), ({SlottedText("s"): 1}, False), ([SlottedText("s")], False), (bytearray(b"x"), False),
        ({1, 2}, False), (collections.OrderedDict(a=1), False), (Decimal(1), False), (Mutable(1), False), (1j, False),
        (datetime.date(2026, 1, 1), False), ([1] * (MAX_NODES + 5), False), ([[1], [1]], True),
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_plain_is_what_a_simple_encoder_gives_back_unchanged(value: Any, plain: bool) -> None:
    assert admit(value).plain is plain


def test_cycles_and_deep_values_are_not_plain() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    assert not admit(cycle).plain
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert not admit(value).plain


def test_the_weight_counts_what_a_value_holds_and_estimates_the_rest_of_large_ones() -> None:
    assert admit("x" * 1000).weight >= 1000
    assert admit(["x" * 1000 + str(n) for n in range(10)]).weight >= 10_000
    assert admit(Mutable("x" * 1000)).weight >= 1000
    row = [{"id": number, "name": f"name {number}"} for number in range(1000)]
    one = admit(row[:1]).weight
    assert 0.8 < admit(row).weight / (1000 * one) < 1.2
    many = [{"id": number, "name": f"name {number}"} for number in range(100_000)]
    assert 0.8 < admit(many).weight / (100 * admit(row).weight) < 1.2
    assert 0.8 < admit([many[:50_000], many[50_000:]]).weight / (100 * admit(row).weight) < 1.2


def test_the_walk_is_bounded_and_what_it_did_not_see_is_found_out_by_the_copy() -> None:
    numbers = tuple(range(50_000))
    assert admit(numbers).mode == "copy"
    assert adopt(numbers, "copy").mode == "share"
    late = [*range(50_000), threading.Lock()]
    assert admit(late).mode == "copy"
    assert adopt(late, "copy").mode == "opaque"


class Hostile:
    __slots__ = ()

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise ValueError("no")

    def __sizeof__(self) -> int:
        raise ValueError("no")


def test_a_class_that_raises_makes_its_values_opaque() -> None:
    assert admit(Hostile()).mode == "opaque"
    assert admit([Hostile()]).mode == "opaque"


def test_classes_that_come_and_go_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MAX_PLANS", len(values.PLANS) + 5)
    for number in range(20):
        made = collections.namedtuple(f"T{number}", "x")  # type: ignore[misc]
        assert isolate([made([1])], "copy") == [made([1])]
        assert len(values.PLANS) <= values.MAX_PLANS
    assert admit([1, {"a": Colour.RED}]).mode == "copy"
