"""Two values have one encoding exactly when they are the same typed value, in every process."""

import collections
import datetime as dt
import decimal
import enum
import fractions
import functools
import gc
import ipaddress
import math
import operator
import os
import pathlib
import re
import struct
import subprocess
import sys
import threading
import time
import uuid
import weakref
import zoneinfo
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import attrs
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachekit.engine.encoding import MAX_DEPTH, encode, encode_plain
from cachekit.engine.keys import Digest
from cachekit.errors import UncacheableArgument


class Colour(enum.Enum):
    RED = "red"
    CRIMSON = "red"
    BLUE = "blue"


class Shade(enum.Enum):
    RED = "red"


class Text(enum.StrEnum):
    A = "a"


class Number(enum.IntEnum):
    ONE = 1


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class MyInt(int): ...


class MyStr(str): ...


class SlottedStr(str):
    __slots__ = ()


class MyList(list[Any]):
    def __iter__(self) -> Any:
        raise AssertionError("overridden methods are not asked")


class Celsius(float):
    unit: str


class Point(NamedTuple):
    x: int
    y: int


class Other(NamedTuple):
    x: int
    y: int


@dataclass
class Filter:
    a: Any
    b: Any = None
    hidden: Any = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Slotted:
    a: Any
    b: Any = None


class Grown(Filter):
    """Not decorated: what it adds is no field."""

    def __init__(self, a: Any, more: Any) -> None:
        super().__init__(a)
        self.more = more


@attrs.define
class AttrsFilter:
    a: Any
    b: Any = None


class Model(pydantic.BaseModel):
    a: Any
    b: Any = None
    _secret: Any = pydantic.PrivateAttr(default=0)


class Open(pydantic.BaseModel, extra="allow"):
    a: Any


class Account:
    def __init__(self, pk: Any) -> None:
        self.pk = pk

    def __cache_key__(self) -> Any:
        return self.pk

    def balance(self) -> None: ...

    @classmethod
    def create(cls) -> None: ...


class Customer(Account):
    def balance(self) -> None: ...

    def inherited(self) -> Any:
        return super().balance


class Plain: ...


def function() -> None: ...


def other_function() -> None: ...


@functools.wraps(function)
def wrapper() -> None: ...


@functools.lru_cache
def memoised() -> None: ...


PARIS = zoneinfo.ZoneInfo("Europe/Paris")
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
NOON = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
AUTUMN = dt.datetime(2024, 10, 27, 2, 30, tzinfo=PARIS)


class Cet(dt.tzinfo):
    def __init__(self, name: str = "CET") -> None:
        self.name = name

    def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(hours=1)

    def tzname(self, when: dt.datetime | None) -> str:
        return self.name

    def dst(self, when: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(0)


def subclass(cls: type, value: Any, **attributes: Any) -> Any:
    made = cls(value)
    vars(made).update(attributes)
    return made


def private(a: int, secret: int) -> Model:
    model = Model(a=a)
    model._secret = secret
    return model


DISTINCT: list[list[Any]] = [
    [1, "1", True, 1.0, Decimal(1), b"1", 1 + 0j, fractions.Fraction(1), MyInt(1), Number.ONE, [1], (1,), {1}, "i1;"],
    [0, False, None, "", b"", (), [], {}, set(), frozenset(), 0.0, -0.0, "None", "N", ..., NotImplemented, Plain],
    [("a b", "c"), ("a", "b c"), ("a", "b", "c"), ("a b c",), (("a", "b"), "c"), ("a", ("b", "c")), "a b c"],
    [("a", ""), ("", "a"), ("a",), ("a", None), ("s1:a",), (("a",),)],
    [(1, 23), (12, 3), (123,), (1, 2, 3)],
    [b"x", "x", bytearray(b"x"), ["x"], ("x",), {"x"}, frozenset({"x"}), {"x": None}, {"x": "x"}],
    [(1, 2), [1, 2], {1, 2}, frozenset({1, 2}), range(1, 3), Point(1, 2), Other(1, 2),
     slice(1, 2), collections.deque((1, 2))],
    [{1: 2}, {2: 1}, {1: 2, 2: 1}, {"1": 2}, {1: "2"}, {True: 2}, [(1, 2)], {1: {2: 1}}],
    [{"a": "b", "c": "d"}, {"a": "d", "c": "b"}, {"ab": "cd"}],
    [Colour.RED, "red", Colour.BLUE, Shade.RED, "RED", "Colour.RED", ("Colour", "RED")],
    [Text.A, "a", MyStr("a"), SlottedStr("a"), subclass(MyStr, "a", extra=1), subclass(MyStr, "a", extra=2)],
    [Right.READ, Right.WRITE, Right.READ | Right.WRITE, Right(0), 1, 3],
    [uuid.UUID(int=1), str(uuid.UUID(int=1)), uuid.UUID(int=1).bytes, 1],
    [Decimal("1"), Decimal("1.0"), "1", 1, Decimal("NaN"), Decimal("sNaN"),
     Decimal("Infinity"), Decimal("-0"), Decimal("0")],
    [dt.date(2024, 5, 1), dt.datetime(2024, 5, 1), "2024-05-01", dt.datetime(2024, 5, 1, tzinfo=dt.UTC)],
    [NOON, NOON.astimezone(PARIS), NOON.astimezone(BERLIN), NOON.replace(tzinfo=None),
     NOON.astimezone(dt.timezone(dt.timedelta(hours=2))), NOON.astimezone(Cet()), NOON.astimezone(Cet("MEZ"))],
    [AUTUMN, AUTUMN.replace(fold=1)],
    [dt.time(1, 2), dt.time(2, 1), dt.time(1, 2, tzinfo=dt.UTC), dt.time(1, 2, fold=1),
     dt.timedelta(hours=1, minutes=2)],
    [dt.timedelta(1), dt.timedelta(0, 1), dt.timedelta(0, 0, 1), dt.timedelta(-1), 1],
    [dt.UTC, dt.timezone(dt.timedelta(0), "Z"), zoneinfo.ZoneInfo("UTC"), PARIS, "UTC"],
    [pathlib.Path("/a"), "/a", pathlib.PurePosixPath("/a"), pathlib.PureWindowsPath("/a"), pathlib.Path("/a/b")],
    [ipaddress.ip_address("127.0.0.1"), "127.0.0.1", ipaddress.ip_network("127.0.0.1"),
     ipaddress.ip_interface("127.0.0.1")],
    [re.compile("a"), re.compile("a", re.IGNORECASE), re.compile(b"a"), "a"],
    [range(3), range(0, 3, 2), range(1, 3), slice(3), [0, 1, 2]],
    [Filter(1), Filter(2), Filter(1, 2), Filter(None, 1), Filter(1, hidden=2), Slotted(1),
     AttrsFilter(1), AttrsFilter(2), Model(a=1), Open(a=1), {"a": 1, "b": None}, (1, None)],
    [Grown(1, 2), Grown(1, 3), Filter(1)],
    [Model(a=1), Model(a=1, b=None), Model(a=1, b=2), private(1, 5)],
    [Open(a=1), Open(a=1, b=2), Open(a=1, b=3)],
    [Account(1), Account("1"), Account(2), Customer(1), 1, (Account, 1)],
    [int, str, Plain, Account, "Account", Colour, Account(1)],
    [function, other_function, memoised, len, math.sqrt, "function", str.upper, str.lower, bytes.upper, dict.fromkeys],
    [Account(1).balance, Account(2).balance, Account.balance, Account.create, Customer.create, Customer(1).balance,
     Customer(1).inherited()],
    ["a".upper, "b".upper, "a".lower, (1).__add__, (2).__add__, int.__add__],
    [functools.partial(function), functools.partial(function, 1), functools.partial(function, a=1), function],
    [collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1),
     {"a": 1, "b": 2}, collections.Counter(a=1, b=2)],
    [collections.defaultdict(int, a=1), collections.defaultdict(list, a=1),
     {"a": 1}, collections.defaultdict(None, a=1)],
    [collections.deque([1]), collections.deque([1], 5), [1], collections.deque([5, 1])],
    [Celsius(1), 1.0, subclass(Celsius, 1, unit="C"), subclass(Celsius, 1, unit="F")],
    [math, os, "math"],
    ["\ud83d\ude00", "\U0001f600", "\ud83d", "?"],
    ["\u00e9", "e\u0301"],
    [2**64, 2**64 + 1, -(2**64), 10**5000],
]  # fmt: skip


@pytest.mark.parametrize("values", DISTINCT, ids=lambda values: str(type(values[0]).__name__))
def test_different_values_have_different_encodings(values: list[Any]) -> None:
    seen: dict[bytes, Any] = {}
    for value in values:
        other = seen.setdefault(encode(value), value)
        assert other is value, f"{other!r} and {value!r} share an encoding"
        assert encode((value,)) != encode([value]) != encode(value)


SAME: list[tuple[Any, Any]] = [
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({1, "a", None, (2,)}, {(2,), None, "a", 1}),
    (Colour.RED, Colour.CRIMSON),
    (float("nan"), -float("nan")),
    (Filter({1}), Filter({1})),
    (Model(a=[1]), Model(a=[1])),
    (Account(1), Account(1)),
    (AttrsFilter({"x": 1}), AttrsFilter({"x": 1})),
    (pathlib.Path("a/b"), pathlib.Path("a") / "b"),
    (MyInt(5), MyInt(5)),
    (MyList([1]), MyList([1])),
    (Account(1).balance, Account(1).balance),
    (zoneinfo.ZoneInfo.no_cache("Europe/Paris"), PARIS),
    (Cet(), Cet()),
    (collections.OrderedDict(a=1), collections.OrderedDict(a=1)),
]


@pytest.mark.parametrize(("one", "two"), SAME)
def test_equal_values_have_one_encoding(one: Any, two: Any) -> None:
    assert encode(one) == encode(two)


def test_the_context_of_decimal_does_not_matter() -> None:
    value = Decimal("1E+5")
    with decimal.localcontext() as context:
        context.capitals = 0
        other = encode(value)
    assert other == encode(value)


def test_the_uuid_of_asyncpg_is_a_uuid() -> None:
    twin = type("UUID", (uuid.UUID,), {"__module__": "asyncpg.pgproto.pgproto", "__slots__": ()})
    assert encode(twin(int=5)) == encode(uuid.UUID(int=5))
    assert encode(type("OrderId", (uuid.UUID,), {})(int=5)) != encode(uuid.UUID(int=5))


# Equal exactly when the typed values are

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 2)
    | st.floats()
    | st.sampled_from([0.0, -0.0, 1.0, "1", b"1", Decimal(1), Decimal("1.0"), Colour.RED, Text.A, Number.ONE, MyInt(1)])
    | st.text(max_size=3)
    | st.text("s:1;,()", max_size=4)
    | st.binary(max_size=3)
    | st.decimals(allow_nan=False, places=1)
    | st.uuids()
    | st.dates()
    | st.datetimes(timezones=st.none() | st.sampled_from([dt.UTC, PARIS, BERLIN]))
    | st.timedeltas()
)


def hashables(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples() | st.tuples(children) | st.tuples(children, children) | st.frozensets(children, max_size=3)


hashable_values = st.recursive(scalars, hashables, max_leaves=4)


def containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(children, max_size=3)
        | st.lists(children, max_size=3).map(tuple)
        | st.dictionaries(hashable_values, children, max_size=3)
        | st.sets(hashable_values, max_size=3)
        | st.builds(Filter, children, children)
        | st.builds(Slotted, children)
        | st.builds(AttrsFilter, children)
        | st.builds(Point, children, children)
    )


values = st.recursive(scalars | hashable_values, containers, max_leaves=8)


def typed(value: Any) -> Hashable:
    """An independent account of what a value is, comparable by ==."""
    kind = type(value)
    if kind is float:
        return kind, "nan" if math.isnan(value) else struct.pack(">d", value)
    if isinstance(value, enum.Enum):
        return kind, value.name
    if isinstance(value, Filter | Slotted | AttrsFilter):
        return kind, tuple(typed(getattr(value, name)) for name in ("a", "b"))
    if isinstance(value, dict):
        return kind, frozenset(collections.Counter((typed(k), typed(v)) for k, v in value.items()).items())
    if isinstance(value, set | frozenset):
        return kind, frozenset(collections.Counter(map(typed, value)).items())
    if isinstance(value, list | tuple):
        return kind, tuple(map(typed, value))
    if isinstance(value, dt.datetime):
        return kind, value.replace(tzinfo=None, fold=0), value.fold, str(value.tzinfo)
    if isinstance(value, Decimal):
        return kind, value.as_tuple()
    return kind, value


@given(values, values)
@settings(max_examples=300)
def test_encodings_are_equal_exactly_when_typed_values_are(one: Any, two: Any) -> None:
    assert (encode(one) == encode(two)) is (typed(one) == typed(two))


@given(st.lists(st.sampled_from([1, True, 1.0, "1", b"1", "", (), None, (1,), ("1",)]), max_size=3), st.data())
def test_encodings_of_nearly_equal_sequences_differ(items: list[Any], data: st.DataObject) -> None:
    other = data.draw(st.permutations(items))
    shape = data.draw(st.sampled_from([tuple, list]))
    assert (encode(tuple(items)) == encode(shape(other))) is (typed(tuple(items)) == typed(shape(other)))


@given(values)
def test_no_encoding_is_the_beginning_of_another(value: Any) -> None:
    encoded = encode(value)
    for other in (1, 12, "", "a", None, (), (1,), [], 0.0, Decimal(1)):
        longer = encode(other)
        assert encoded == longer or not (encoded.startswith(longer) or longer.startswith(encoded))


# Refused


def generator() -> Any:
    yield


def lazily_wrong() -> list[tuple[str, Callable[[], Any]]]:
    return [
        ("object", object),
        ("Plain", Plain),
        ("function", lambda: lambda x: x),
        ("function", lambda: wrapper),
        ("generator", generator),
        ("lock", threading.Lock),
        ("iterator", lambda: iter([])),
        ("local", threading.local),
        ("memoryview", lambda: memoryview(b"")),
        ("itemgetter", lambda: operator.itemgetter(1)),
        ("struct_time", time.localtime),  # carries more than the tuple shows
        ("Exception", lambda: Exception("x")),
        ("function", lambda: collections.defaultdict(lambda: 1)),
    ]


@pytest.mark.parametrize(("name", "make"), lazily_wrong())
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (1, [x]), lambda x: {"a": x}, lambda x: Filter(x)])
def test_without_a_stable_identity_a_value_is_refused(name: str, make: Callable[[], Any], wrap: Any) -> None:
    with pytest.raises(UncacheableArgument, match=rf"a \S*{name}.*ignore=.*__cache_key__.*key=") as caught:
        encode(wrap(make()))
    assert isinstance(caught.value, TypeError)


def test_an_open_file_is_refused(tmp_path: pathlib.Path) -> None:
    with (tmp_path / "x").open("w") as file, pytest.raises(UncacheableArgument, match="TextIOWrapper"):
        encode(file)


def test_a_zone_without_a_name_is_refused() -> None:
    folder = next(path for path in map(pathlib.Path, zoneinfo.TZPATH) if (path / "UTC").exists())
    with (folder / "UTC").open("rb") as file:
        zone = zoneinfo.ZoneInfo.from_file(file)
    with pytest.raises(UncacheableArgument, match="ZoneInfo"):
        encode(dt.datetime(2024, 1, 1, tzinfo=zone))


def cyclic_list() -> Any:
    value: list[Any] = [1]
    value += [value, value]
    return value


def cyclic_dict() -> Any:
    value: dict[str, Any] = {}
    value["x"] = [value]
    return value


def cyclic_instance() -> Any:
    value = Filter(1)
    value.b = {"x": value}
    return value


def cyclic_hook() -> Any:
    value = Account(1)
    value.pk = (value,)
    return value


def cyclic_subclass() -> Any:
    value = MyStr("x")
    vars(value)["self"] = value
    return value


@pytest.mark.parametrize("make", [cyclic_list, cyclic_dict, cyclic_instance, cyclic_hook, cyclic_subclass])
def test_a_cycle_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(UncacheableArgument, match="contains itself"):
        encode(make())


def test_one_object_in_two_places_is_no_cycle() -> None:
    shared = [1]
    assert encode([shared, shared, (shared, Filter(shared))]) == encode([[1], [1], ([1], Filter([1]))])


def nested(wrap: Callable[[Any], Any], levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.parametrize("wrap", [lambda x: (x,), lambda x: [x], lambda x: {"a": x}, lambda x: frozenset({x})])
def test_values_may_be_nested_as_deeply_as_promised(wrap: Callable[[Any], Any]) -> None:
    assert encode(nested(wrap, MAX_DEPTH))
    with pytest.raises(UncacheableArgument, match="deeper than 256"):
        encode(nested(wrap, MAX_DEPTH + 1))


@pytest.mark.parametrize("wrap", [lambda x: (x,), lambda x: [x], Filter, lambda x: Model.model_construct(a=x), Account])
@pytest.mark.parametrize("levels", [300, 2_000])
def test_deeper_values_are_refused_and_never_exhaust_the_stack(wrap: Callable[[Any], Any], levels: int) -> None:
    with pytest.raises(UncacheableArgument, match="deeper than 256"):
        encode(nested(wrap, levels))


def test_recursion_of_the_caller_stays_a_recursion_error() -> None:
    def recurse() -> None:
        encode((1, (2, (3,))))
        recurse()

    with pytest.raises(RecursionError):
        recurse()


# Classes that their names do not tell apart


def make_class(number: int, bonus: int) -> type:
    if number == 1:

        @dataclass
        class Local:
            a: int

            def total(self) -> int:
                return self.a + bonus
    else:

        @dataclass
        class Local:  # type: ignore[no-redef]
            a: int

            def total(self) -> int:
                return self.a - bonus

    return Local


def test_local_classes_of_one_name_differ_by_what_they_do() -> None:
    made = [make_class(1, 1)(5), make_class(2, 1)(5), make_class(1, 2)(5)]
    assert len({encode(value) for value in made}) == 3
    assert encode(make_class(1, 1)(5)) == encode(made[0])


def test_classes_of_one_name_differ_by_their_fields() -> None:
    one, two = collections.namedtuple("Pair", "a b"), collections.namedtuple("Pair", "c d")
    assert encode(one(1, 2)) != encode(two(1, 2))
    assert encode(enum.Enum("E", "A B").A) != encode(enum.Enum("E", "A C").A)  # type: ignore[attr-defined]
    assert encode(enum.Enum("E", "A B").A) == encode(enum.Enum("E", "A B").A)  # type: ignore[attr-defined]


def test_classes_are_not_kept_alive() -> None:
    cls = make_class(1, 1)
    encode(cls(5))
    encode(type("Sub", (int,), {})(5))
    alive = weakref.ref(cls)
    del cls
    gc.collect()
    assert alive() is None


def test_a_class_may_get_its_hook_later() -> None:
    cls = type("Late", (), {})
    with pytest.raises(UncacheableArgument):
        encode(cls())
    cls.__cache_key__ = lambda self: 5  # type: ignore[attr-defined]
    assert encode(cls())


# The same in every process


GOLDEN: list[tuple[Any, str]] = [
    (None, "N"), (True, "T"), (False, "F"), (..., "."), (7, "i7;"), (-255, "i-ff;"), ("ab", "s2:ab"), ("é", "s2:é"),
    (b"ab", "b2:ab"), ((1, "a"), "t2:i1;s1:a"), ([1], "l1:i1;"), ({"b": 1, "a": 2}, "d2:s1:ai2;s1:bi1;"),
    ({2, 1}, "e2:i1;i2;"), (frozenset({1}), "E1:i1;"), (bytearray(b"x"), "B1:x"), (range(3), "r3:i0;i3;i1;"),
    (Decimal("1.50"), "x7:decimal4:1.50"), (dt.date(2024, 5, 1), "x4:date8:2024-5-1"),
    (dt.timedelta(1, 2, 3), "x9:timedelta5:1:2:3"), (pathlib.PurePosixPath("/a"), "x13:PurePosixPath2:/a"),
    (PARIS, "x4:zone12:Europe/Paris"), (fractions.Fraction(1, 2), "x8:fraction3:1/2"),
    (dt.datetime(2024, 5, 1, 12), "x8:datetime3:b8:2024-5-1b10:12:0:0.0/0N"),
    (int, "c12:builtins.int"), (len, "n12:builtins.len"),
    (Colour.RED, f"y2:c{len(__name__) + 7}:{__name__}.Colours3:RED"),
    (Account(7), f"k2:c{len(__name__) + 8}:{__name__}.Accounti7;"),
    (Point(1, 2), f"uc{len(__name__) + 6}:{__name__}.Pointt2:i1;i2;a1:N"),
    (Filter(1, 2), f"g2:c{len(__name__) + 7}:{__name__}.Filterd3:s1:ai1;s1:bi2;s6:hiddeni0;"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), GOLDEN)
def test_the_encoding_does_not_change(value: Any, text: str) -> None:
    assert encode(value) == text.encode()


@pytest.mark.parametrize(
    ("value", "digits"),
    [
        (1.5, "663ff8000000000000"),
        (-0.0, "668000000000000000"),
        (float("nan"), "667ff8000000000000"),
        (1 + 2j, "6a3ff00000000000004000000000000000"),
        ("\ud800", "73333aeda080"),
        (uuid.UUID(int=1), "78343a7575696431363a00000000000000000000000000000001"),
    ],
)
def test_the_encoding_of_bytes_does_not_change(value: Any, digits: str) -> None:
    assert encode(value).hex() == digits


PROGRAM = """
import sys, enum, uuid, decimal, pathlib, datetime, dataclasses
sys.path.insert(0, {folder!r})
from cachekit.engine.encoding import encode, short_digest
class Colour(enum.Enum):
    RED = 1
def local():
    @dataclasses.dataclass
    class Inner:
        a: object
        limit = 5
        def method(self):
            return {{"x", "y", "z"}} & {{self.a}} and [n for n in "abc" if n in ("a", "b")]
    return Inner
value = (
    {{"a", "b", "c", "d"}}, frozenset("xyz"), {{name: {{name}} for name in "hello world"}}, Colour.RED, Colour,
    uuid.UUID(int=1), decimal.Decimal("1.0"), pathlib.PurePath("a"),
    datetime.datetime(2024, 1, 1), local()({{"q", "r"}}),
    None, object.__str__, len, 1.5, (1,), local,
)
print(short_digest(encode(value)))
"""


def test_processes_with_other_hashes_agree(tmp_path: pathlib.Path) -> None:
    root = str(pathlib.Path(__file__).parents[2])
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(folder=root))
    outputs = {
        subprocess.run(
            [sys.executable, str(script)], env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().strip()) == 16


def test_nothing_is_imported_to_look_at_a_value(tmp_path: pathlib.Path) -> None:
    program = (
        "import sys; from cachekit.engine.keys import *; from cachekit.engine.encoding import encode\n"
        "class A:\n    __cache_key__ = lambda self: 1\n"
        "encode((A(), 1, 'a', [2.5]))\n"
        "print(*{'pydantic', 'attr', 'uuid', 'decimal', 'pathlib', 'asyncio', 'zoneinfo'} & sys.modules.keys())"
    )
    before = "import sys; " + program.rpartition("\n")[2]
    run = functools.partial(subprocess.run, check=True, capture_output=True, cwd=pathlib.Path(__file__).parents[2])
    command = [sys.executable, "-S", "-c"]
    assert run([*command, program]).stdout == run([*command, before]).stdout


@given(st.lists(st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.binary()), max_size=4).map(tuple))
def test_the_quick_encoding_of_plain_arguments_is_the_ordinary_one(args: tuple[Any, ...]) -> None:
    assert encode_plain(args) == encode(args)


@pytest.mark.parametrize("arg", [1.5, (1,), [1], Digest(b"x"), object()])
def test_the_quick_encoding_takes_nothing_else(arg: object) -> None:
    with pytest.raises(KeyError):
        encode_plain((arg,))
