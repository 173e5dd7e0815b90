"""P5: a value has the same type from the function, from L1 and from L2, in every mode, nested as you like."""

import dataclasses
import enum
from collections import OrderedDict, defaultdict, deque, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import numpy as np
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cachekit import cache, register

Point = namedtuple("Point", "x y")  # both kinds of namedtuple


class Named(NamedTuple):
    a: Any
    b: int = 0


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


class Number(enum.IntEnum):
    ONE = 1


class Bits(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass
class Data:
    a: Any
    b: list[Any] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    a: Any


@attrs.define
class Attrs:
    a: Any


class Plain:
    """An ordinary class, which is registered."""

    def __init__(self, a: Any) -> None:
        self.a = a


register(Plain, encode=lambda plain: [plain.a], decode=lambda parts: Plain(*parts))


class Model(pydantic.BaseModel):
    a: Any
    b: int = 0


hashable = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.complex_numbers(allow_nan=False),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.datetimes(),
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=2)), ZoneInfo("Europe/Paris")])),
    st.sampled_from([*Colour, *Number, Bits.A, Bits.A | Bits.B, Path("/a/b"), PurePosixPath("c")]),
)
keys = st.one_of(hashable, st.tuples(hashable, hashable), st.frozensets(hashable, max_size=3))
arrays = hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
numpy_scalars = st.sampled_from([np.float64, np.int8, np.bool_, np.str_]).flatmap(
    lambda cls: st.integers(0, 9).map(cls)
)
leaves = st.one_of(hashable, st.binary().map(bytearray), arrays, numpy_scalars)


def nest(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.lists(inner, max_size=3).map(deque),
        st.lists(inner, max_size=3).map(lambda items: deque(items, maxlen=3)),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(st.text(), inner, max_size=3).map(OrderedDict),
        st.sets(hashable, max_size=4),
        st.frozensets(keys, max_size=4),
        st.builds(Point, inner, inner),
        st.builds(Named, inner),
        st.builds(Data, inner, st.lists(inner, max_size=2)),
        st.builds(Frozen, inner),
        st.builds(Attrs, inner),
        st.builds(Model, a=inner),
        st.builds(Plain, inner),
        st.builds(defaultdict, st.sampled_from([None, list, int]), st.dictionaries(keys, inner, max_size=3)),
    )


values = st.recursive(leaves, nest, max_leaves=12)


def shape(value: Any) -> Any:
    """A value with every type in it spelt out, so that equal means equal in type at every depth."""
    if isinstance(value, dict):
        pairs = [(shape(key), shape(item)) for key, item in value.items()]
        return (type(value), pairs)
    if isinstance(value, (set, frozenset)):
        return (type(value), sorted(map(repr, map(shape, value))))
    if isinstance(value, (list, tuple)):
        return (type(value), [shape(item) for item in value])
    if isinstance(value, deque):
        return (type(value), value.maxlen, [shape(item) for item in value])
    if isinstance(value, pydantic.BaseModel):
        return (type(value), shape(value.__dict__), value.model_fields_set)
    if isinstance(value, (Data, Frozen)):
        return (type(value), [shape(getattr(value, field.name)) for field in dataclasses.fields(value)])
    if isinstance(value, np.ndarray):
        return (type(value), value.dtype, value.shape, value.flags.writeable, repr(value.tolist()))
    if isinstance(value, np.generic):
        return (type(value), value.dtype, repr(value))
    if isinstance(value, (Attrs, Plain)):
        return (type(value), shape(value.a))
    if isinstance(value, (datetime, time)):
        return (type(value), repr(value), value.fold)
    return (type(value), repr(value))


MODES = {"l1": ("l1", "on"), "l1 and l2": ("server", "on"), "l2": ("server", "off")}


@pytest.mark.parametrize("mode", MODES)
def test_types_come_back_in_every_mode(make_service: Any, mode: str) -> None:
    come_back(make_service, mode, 250)


@pytest.mark.nightly
@pytest.mark.parametrize("mode", MODES)
def test_types_come_back_in_every_mode_often(make_service: Any, mode: str) -> None:
    come_back(make_service, mode, 25_000)


def come_back(make_service: Any, mode: str, examples: int) -> None:
    kind, l1 = MODES[mode]
    make_service(kind, l1=l1)
    box: list[Any] = []
    runs = 0

    @cache(version=1, profile="users", on_unstorable="raise")
    def load(number: int) -> Any:
        nonlocal runs
        runs += 1
        return box[0]

    numbers = iter(range(10**9))

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(values)
    def check(value: Any) -> None:
        nonlocal runs
        box[:] = [value]
        number = next(numbers)
        wanted = shape(value)
        before = runs
        assert shape(load(number)) == wanted
        again = load(number)
        assert runs == before + 1, "the second call is a hit"
        assert shape(again) == wanted
        if mode == "l1 and l2":
            load.__cachekit__._function.at().tiers.table.clear()  # type: ignore[attr-defined]
            assert shape(load(number)) == wanted
            assert runs == before + 1, "and so is one from L2"

    check()


@pytest.mark.parametrize("mode", MODES)
def test_what_cannot_be_stored_is_returned_counted_and_logged_once(
    make_service: Any, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    kind, l1 = MODES[mode]
    service = make_service(kind, l1=l1)
    lock = __import__("threading").Lock()

    @cache(version=1, profile="users")
    def load(number: int) -> Any:
        return lock

    assert all(load(number) is lock for number in range(3))
    assert sum(tally.errors.get(("store", "unstorable"), 0) for tally in service.tallies()) == 3
    assert len([record for record in caplog.records if "lock" in record.getMessage()]) == 1


def test_types_not_used_elsewhere_are_real() -> None:
    """The strategies above cover what is promised; a type that is missing there would go unnoticed."""
    assert {type(item) for item in (date(2020, 1, 1), Decimal(1), UUID(int=1), bytearray())}
