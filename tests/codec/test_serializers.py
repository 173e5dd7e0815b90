"""Values come back equal and of the same type, or are refused with a reason; nothing else ever happens."""

import math
import pathlib
import re
import sys
import threading
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, make_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_address, ip_network
from typing import Any, Generic, TypeVar
from zoneinfo import ZoneInfo

import codec_models as m
import numpy as np
import pytest
from codec_models import only, shape
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import BaseModel, SecretStr

from cachekit.codec import serializers
from cachekit.codec.serializers import MARKED, MAX_DEPTH, TREE, dump, load
from cachekit.errors import Unstorable

LIMIT = 1 << 24
T = TypeVar("T")
ZONES = ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC"]


@pytest.fixture(params=["native", "ormsgpack", "msgpack"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every way to encode; the native one is the second again where there is no native core."""
    only(request.param, monkeypatch)
    return str(request.param)


def there_and_back(value: Any, plain: bool = False) -> Any:
    return load(*dump(value, plain=plain, limit=LIMIT))


def refusal(value: Any, limit: int = LIMIT, plain: bool = False) -> Unstorable:
    with pytest.raises(Unstorable) as caught:
        dump(value, plain=plain, limit=limit)
    return caught.value


fixed = st.builds(
    lambda minutes, name: timezone(timedelta(minutes=minutes), *name),
    st.integers(-1439, 1439),
    st.lists(st.text(max_size=5), max_size=1),
)
zones = st.none() | st.just(UTC) | fixed | st.sampled_from(ZONES).map(ZoneInfo)
texts = st.text(max_size=8) | st.text(st.characters(categories=["Cs", "Lu"]), max_size=3)
numbers = (
    st.integers() | st.sampled_from([2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 2**2000])
    | st.floats() | st.sampled_from([-0.0, math.inf]) | st.complex_numbers()
)  # fmt: skip
moments = (
    st.builds(
        lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
        st.datetimes(), zones, st.integers(0, 1),
    )
    | st.dates() | st.timedeltas()
    | st.builds(lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold), st.times(), zones, st.integers(0, 1))
)  # fmt: skip
paths = st.builds(
    lambda cls, parts: cls(*parts),
    st.sampled_from([pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.Path]),
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters=":\0"), max_size=4), max_size=3),
)
members = st.sampled_from([
    *m.Colour, *m.Level, *m.Word, m.Rights(0), m.Rights.READ | m.Rights.WRITE, m.Rights.WRITE, m.Bits(0), m.Bits.A,
    m.Bits.A | m.Bits.B, m.Bits(64 + 1),
])  # fmt: skip
hashable_leaves = (
    st.none() | st.booleans() | numbers | texts | st.binary(max_size=8) | moments | st.uuids() | paths | members
    | st.decimals(allow_nan=False)
)  # fmt: skip


def short(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The same with a short repr: Hypothesis warns about the long ones of nested recursive strategies."""

    @st.composite
    def value(draw: st.DrawFn) -> Any:
        return draw(strategy)

    return value()


def frozen_containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    inner = short(inner)
    return (
        st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3) | st.builds(m.Pair, inner, inner)
        | st.builds(m.Money, inner) | st.builds(m.Frozen, key=inner) | st.builds(m.Hashed, inner)
    )  # fmt: skip


hashables = short(st.recursive(short(hashable_leaves), frozen_containers, max_leaves=4))
numpy_scalars = st.sampled_from([np.float64, np.float32, np.int8, np.uint64, np.bool_, np.complex64, np.str_]).flatmap(
    lambda cls: st.integers(0, 100).map(cls)
)
arrays = hnp.arrays(
    hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)
) | hnp.arrays("<U3", st.integers(0, 3))  # fmt: skip
leaves = arrays | numpy_scalars | hashable_leaves
leaves |= st.binary(max_size=8).map(bytearray) | st.decimals() | st.just(Decimal("-sNaN12"))


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    inner = short(inner)
    lists, words = st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)
    mixed = st.dictionaries(hashables, inner, max_size=4)
    return (
        lists | words | mixed | lists.map(tuple) | st.sets(hashables, max_size=4) | st.frozensets(hashables, max_size=4)
        | st.builds(deque, lists, st.none() | st.integers(4, 9)) | mixed.map(OrderedDict)
        | st.builds(defaultdict, st.sampled_from([None, list, int, set, dict, str]), mixed)
        | st.builds(m.Pair, inner, inner) | st.builds(m.Point, inner) | st.builds(m.Sum, inner, inner)
        | st.builds(m.Order, st.integers(), lists) | st.builds(m.Money, inner) | st.builds(m.Child, st.text(), inner)
        | st.builds(m.Slotted, inner, inner) | st.builds(m.Open, inner)
        | st.builds(m.Point3, inner, inner, inner)
        | st.builds(lambda id, extra: m.User(id=id, more=extra), st.integers(), inner)
    )  # fmt: skip


values = st.recursive(short(leaves), containers, max_leaves=8)
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
# With those of test_numpy_values.py and of engine/test_roundtrip.py more than 2,000.
quickly = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@pytest.mark.nightly
@settings(quickly, max_examples=100_000)
@given(values)
def test_every_value_comes_back_of_very_many(value: Any) -> None:
    assert shape(there_and_back(value)) == shape(value)


@quickly
@given(values)
def test_every_value_comes_back_equal_and_of_the_same_type(value: Any) -> None:
    assert shape(there_and_back(value)) == shape(value)


@quickly
@given(plain_values)
def test_the_quick_and_the_thorough_encoder_agree(value: Any) -> None:
    assert shape(there_and_back(value, plain=True)) == shape(value) == shape(there_and_back(value))


@quickly
@given(values)
def test_every_way_to_encode_gives_the_same_bytes(value: Any) -> None:
    written = set()
    for library in ("native", "ormsgpack", "msgpack"):
        with pytest.MonkeyPatch.context() as patch:
            only(library, patch)
            written.add(dump(value, plain=False, limit=LIMIT))
            assert all(shape(load(*each)) == shape(value) for each in written)
    assert len(written) == 1


SAMPLES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    2**64,
    -(2**63) - 1,
    10**400,
    -0.0,
    math.nan,
    -math.inf,
    "",
    "\ud800x",
    b"",
    bytearray(b"x"),
    (),
    (1,),
    ((),),
    [],
    [()],
    set(),
    {1, "a"},
    frozenset({(1, 2)}),
    {},
    {1: 2},
    {"\ud800": 1},
    {None: 1, (1, "x"): [2]},
    {m.Word.YES: 1, "yes2": 2},
    {b"k": bytearray(b"v")},
    complex(-0.0, math.nan),
    deque([1, 2], 2),
    deque(),
    deque(maxlen=0),
    OrderedDict([(2, 1), (1, 2)]),
    defaultdict(None, a=1),
    defaultdict(frozenset, {(): 1}),
    Decimal("-0"),
    Decimal("1.10"),
    Decimal("sNaN7"),
    Decimal("-Infinity"),
    Decimal("1E+999999"),
    uuid.UUID(int=0),
    uuid.uuid1(),
    uuid.uuid4(),
    date.min,
    date.max,
    datetime.min,
    datetime.max,
    datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(0), "Zulu")),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(seconds=-1, microseconds=5))),
    time(1, 2, 3, 4, UTC, fold=1),
    time.max,
    timedelta.min,
    timedelta.max,
    timedelta(microseconds=-1),
    pathlib.Path("/a/b"),
    pathlib.PurePosixPath("//a"),
    pathlib.PureWindowsPath("c:\\x"),
    pathlib.Path("\udcff"),
    m.Colour.BLUE,
    m.Colour.CRIMSON,
    m.Level.HIGH,
    m.Word.YES,
    m.Rights(3),
    m.Rights(0),
    m.Bits(65),
    m.Pair(1, [2]),
    m.Point(1.0),
    m.Sum((1,), 2),
    m.Money(Decimal(1)),
    m.Child("a", 3),
    m.Slotted(1, {2}),
    m.Open([1]),
    m.Outer.Inner(1),
    m.Frozen(key=(1,)),
]


@pytest.mark.parametrize("value", SAMPLES, ids=lambda value: f"{type(value).__name__}")
def test_a_sample_of_each_type(value: Any, either: str) -> None:
    """Each alone, and within a list, a tuple and a dict."""
    for each in (value, [value, value], (value,), {"a": value}, {1: [value]}):
        assert shape(there_and_back(each)) == shape(each)


def test_what_identity_there_is_comes_back() -> None:
    """Members of an Enum, UTC and zones are singletons."""
    back = there_and_back([m.Colour.RED, datetime(2026, 1, 1, tzinfo=UTC), time(1, tzinfo=ZoneInfo("Asia/Kolkata"))])
    assert back[0] is m.Colour.RED
    assert back[1].tzinfo is UTC
    assert back[2].tzinfo is ZoneInfo("Asia/Kolkata")


def test_no_constructor_and_no_validator_runs_on_the_way_back() -> None:
    data = dump([m.Order(1), m.Slotted(1), m.User(id=1, name="x")], plain=False, limit=LIMIT)
    m.ran.clear()
    load(*data)
    assert m.ran == []


def test_state_beside_the_fields_is_kept() -> None:
    order = m.Order(4)
    assert order.heavy == 8
    order.note = "x"  # type: ignore[attr-defined]
    assert there_and_back(order).__dict__ == order.__dict__


def test_a_field_that_was_never_set_stays_unset() -> None:
    order, money = m.Order(4), object.__new__(m.Money)
    del order.lines
    assert "lines" not in there_and_back(order).__dict__
    with pytest.raises(AttributeError):
        there_and_back([money])[0].amount


def test_a_model_keeps_what_was_set_its_extras_and_its_private_attributes() -> None:
    user = m.User(id=1, other=(1, 2))  # type: ignore[call-arg]
    user._secret = 9
    back = there_and_back(user)
    assert back == user
    assert (back.model_fields_set, back.model_extra, back._secret) == ({"id", "other"}, {"other": (1, 2)}, 9)
    back.model_dump_json()
    assert back.model_copy() == user


def test_a_cached_hash_is_not_stored() -> None:
    """The hash of a str differs between processes; attrs keeps it in the instance."""
    value = m.Hashed("text")
    hash(value)
    back = there_and_back(value)
    assert back._attrs_cached_hash is None
    assert hash(back) == hash(value)


def test_order_of_keys_is_kept() -> None:
    value = {"z": 1, "a": 2, 3: 4, "m": 5}
    assert list(there_and_back(value)) == list(value)


def local_class() -> Any:
    @dataclass
    class Local:
        a: int

    return Local(1)


class Hidden(BaseModel):
    password: SecretStr


class Box(BaseModel, Generic[T]):
    x: T


def generic_model() -> Any:
    class Inner(BaseModel):
        a: int = 1

    return Box[Inner](x=Inner())


class OwnZone(tzinfo):
    def utcoffset(self, _: Any) -> timedelta:
        return timedelta(0)


Renamed = make_dataclass("Elsewhere", ["a"])
LOCK = threading.Lock()
WITH_ATTRIBUTE = m.Sum(1, 2)
WITH_ATTRIBUTE.more = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"orders": [1, 2, 3, {"lock": LOCK}]}, "orders[3].lock: cannot store _thread.lock"),
        (LOCK, "cannot store _thread.lock"),
        ([LOCK], "[0]: cannot store _thread.lock"),
        (m.Order(1, [(1, LOCK)]), "lines[0][1]: cannot store _thread.lock"),
        ({"not a name": LOCK, 1: 2}, "[<str>]: cannot store _thread.lock"),
        ({7: LOCK}, "[7]: cannot store _thread.lock"),
        ({LOCK: 1}, "[<lock>]: cannot store _thread.lock"),
        (m.MyDict(a=1), "cannot store codec_models.MyDict"),
        (m.MyStr("a"), "cannot store codec_models.MyStr"),
        (Counter("a"), "cannot store collections.Counter"),
        (object(), "cannot store object"),
        (len, "cannot store builtin_function_or_method"),
        (int, "cannot store type"),
        (range(3), "cannot store range"),
        (slice(3), "cannot store slice"),
        (re.compile("a"), "cannot store re.Pattern"),
        (Fraction(1, 3), "cannot store fractions.Fraction"),
        (ip_address("10.0.0.1"), "cannot store ipaddress.IPv4Address"),
        (ip_network("10.0.0.0/8"), "cannot store ipaddress.IPv4Network"),
        (Hidden(password="x"), "password: cannot store pydantic.types.SecretStr"),
        (generic_model(), "inside a function"),
        (memoryview(b"a"), "cannot store memoryview"),
        (sys.version_info, "cannot store sys.version_info"),
        (iter([]), "cannot store list_iterator"),
        (ValueError("a"), "cannot store ValueError"),
        (m.DictData(1), "built-in base"),
        (local_class(), "inside a function"),
        (Renamed(1), "no such class, or another one"),
        (defaultdict(lambda: 1), "default_factory"),
        (datetime(2026, 1, 1, tzinfo=OwnZone()), "time zone"),
        (WITH_ATTRIBUTE, "attributes beside its items"),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_what_cannot_be_kept_is_refused_by_place_and_type(value: Any, text: str, plain: bool) -> None:
    if plain and type(value) is memoryview:
        return  # excluded by the promise
    error = refusal(value, plain=plain)
    assert text in str(error)
    assert error.reason == "type"


def nested(levels: int, wrap: Any = lambda inner: [inner]) -> Any:
    value: Any = None
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    "wrap",
    [lambda v: [v], lambda v: {"a": v}, lambda v: (v,), lambda v: {1: v}, m.Money, lambda v: deque([v])],
    ids=["list", "dict", "tuple", "mixed", "dataclass", "deque"],
)
@pytest.mark.parametrize("plain", [False, True])
def test_depth_is_bounded_exactly(wrap: Any, plain: bool, either: str) -> None:
    back = there_and_back(nested(MAX_DEPTH, wrap), plain=plain)
    assert type(back) is type(wrap(None))
    assert refusal(nested(MAX_DEPTH + 1, wrap), plain=plain).reason == "depth"


def test_a_cycle_is_refused() -> None:
    ring: list[Any] = []
    ring += [ring, ring, ring]
    assert refusal(ring).reason == "depth"
    order = m.Order(1)
    order.lines.append({"self": order})
    assert refusal(order).reason == "depth"


def test_size_is_bounded() -> None:
    assert refusal("x" * 1000, limit=1000).reason == "size"
    assert refusal(["x" * 10] * 100, limit=1000, plain=True).reason == "size"
    assert dump(b"x" * 900, plain=False, limit=1000)[0] == TREE
    assert refusal(1 << (8 * 128 * 1024 + 8)).reason == "size"


def test_a_small_web_of_shared_lists_does_not_become_an_endless_tree() -> None:
    web: Any = []
    for _ in range(60):
        web = [web, web]
    assert refusal(web, limit=100_000).reason == "size"


def test_an_error_on_the_way_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when another thread adds to a dict that is being walked."""

    def changed(_: Any) -> Any:
        raise RuntimeError("dictionary changed size during iteration")

    monkeypatch.setitem(serializers.ENCODE, complex, (4, changed))
    assert "RuntimeError: dictionary changed size" in str(refusal([1j]))


def test_values_without_marked_containers_need_only_the_c_decoder() -> None:
    assert dump({"a": [1, Decimal(1), datetime.min, bytearray()]}, plain=False, limit=LIMIT)[0] == TREE
    assert dump({"a": (1,)}, plain=False, limit=LIMIT)[0] == MARKED
