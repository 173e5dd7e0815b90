"""Where quick encoders change values silently, each way to encode keeps them or refuses them."""

import contextlib
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

import codec_models as m
import pytest
from codec_models import only, shape

from cachekit import foreign
from cachekit.codec import classes, serializers
from cachekit.codec.serializers import MAX_DEPTH, dump, load
from cachekit.errors import Unstorable
from cachekit.l1.table import admit, core

LIMIT = 1 << 24


@pytest.fixture(params=["native", "ormsgpack", "msgpack"], autouse=True)
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    only(request.param, monkeypatch)
    return str(request.param)


def stored(value: Any, limit: int = LIMIT) -> tuple[int, bytes]:
    """As the engine stores it, with what admission found out about it."""
    return dump(value, plain=admit(value).plain, limit=limit)


def there_and_back(value: Any) -> Any:
    return load(*stored(value))


def refusal(value: Any, limit: int = LIMIT) -> Unstorable:
    with pytest.raises(Unstorable) as caught:
        stored(value, limit)
    return caught.value


def everywhere(value: Any) -> list[Any]:
    """The value in every place that a container has for it."""
    return [value, [value], {"a": [value]}, (value,), [{"a": (value, value)}], m.Order(1, [value]), {1: value}]


class Text(str):
    pass


class Number(int):
    pass


class Words(dict[str, Any]):
    pass


class Items(list[Any]):
    pass


class Blob(bytes):
    pass


class Amount(Decimal):
    pass


class Ident(UUID):
    pass


class Moment(datetime):
    pass


class Triple(tuple[Any, ...]):
    pass


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 300], ids=len)
def test_a_bytearray_does_not_become_bytes(data: bytes) -> None:
    for value in everywhere(bytearray(data)):
        assert shape(there_and_back(value)) == shape(value)


def test_a_memoryview_is_refused() -> None:
    for value in everywhere(memoryview(b"x")):
        assert refusal(value).reason == "type"


@pytest.mark.parametrize(
    "key",
    [m.Colour.RED, m.Word.YES, m.Level.HIGH, m.Rights.READ, 1, True, None, 1.5, b"k", (1, "a"), 2**70, "\ud800",
     datetime(2026, 1, 1), UUID(int=3), m.Money(1), Decimal("1.0")],
    ids=lambda key: type(key).__name__,
)  # fmt: skip
def test_a_key_stays_what_it_is(key: Any) -> None:
    for value in ({key: 1}, {"a": 1, key: 2}, {"a": {key: [key]}}):
        assert shape(there_and_back(value)) == shape(value)


@pytest.mark.parametrize("member", [m.Colour.BLUE, m.Word.YES, m.Level.HIGH, m.Bits.A | m.Bits.B, m.Rights(0)], ids=str)
def test_a_member_of_an_enum_does_not_become_its_value(member: Any) -> None:
    for value in everywhere(member):
        assert shape(there_and_back(value)) == shape(value)


@pytest.mark.parametrize(
    "value",
    [
        Text("a"),
        Number(1),
        Words(a=1),
        Items([1]),
        Blob(b"a"),
        Amount(1),
        Ident(int=1),
        Moment(2026, 1, 1),
        Triple((1,)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_does_not_become_its_base(value: Any) -> None:
    for each in everywhere(value):
        assert refusal(each).reason == "type"


def test_a_subclass_as_a_key_is_refused() -> None:
    for key in (Text("a"), Number(1), Blob(b"a")):
        assert refusal({"b": 2, key: 1}).reason == "type"


@pytest.mark.parametrize(
    "number", [edge + step for edge in (0, 2**5, 2**7, 2**8, 2**15, 2**16, 2**31, 2**32, 2**63, 2**64, 2**70)
               for step in (-1, 0, 1)],
)  # fmt: skip
def test_an_int_of_any_size(number: int) -> None:
    for value in (*everywhere(number), *everywhere(-number)):
        assert shape(there_and_back(value)) == shape(value)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 8, 15, 16, 17, 31, 32, 33, 255, 256, 65535, 65536])
def test_lengths_at_which_heads_change(size: int) -> None:
    for value in ("x" * size, "\xe9" * size, "\u20ac" * size, b"x" * size, bytearray(size), [None] * size,
                  (None,) * size, dict.fromkeys(map(str, range(size))), dict.fromkeys(range(size)), set(range(size)),
                  Decimal("1" * size or "0")):  # fmt: skip
        assert there_and_back(value) == value
        assert type(there_and_back(value)) is type(value)


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\U0001f600\ud83d", "\xe9\udc80"], ids=ascii)
def test_a_lone_surrogate(text: str) -> None:
    for value in (*everywhere(text), {text: 1}, [{text: {"a": text}}]):
        assert shape(there_and_back(value)) == shape(value)


@pytest.mark.parametrize("bits", [0x7FF8000000000123, 0xFFF8000000000001, 0x7FF0000000000001, 0x8000000000000000])
def test_every_bit_of_a_float(bits: int) -> None:
    (number,) = struct.unpack(">d", bits.to_bytes(8, "big"))
    for value in (number, [number][0]):
        assert struct.pack(">d", there_and_back(value)) == bits.to_bytes(8, "big")
    assert struct.pack(">d", there_and_back({"a": [(number,)]})["a"][0][0]) == bits.to_bytes(8, "big")


WRAPS: dict[str, Callable[[Any], Any]] = {
    "list": lambda v: [v], "dict": lambda v: {"a": v}, "tuple": lambda v: (v,), "pairs": lambda v: {1: v},
    "data class": m.Money, "named tuple": lambda v: m.Sum(v, 1), "slots": lambda v: m.Slotted(v, 2),
    "frozenset": lambda v: frozenset([v]),
    "model": lambda v: m.User(id=1, more=v),  # type: ignore[call-arg]
}  # fmt: skip


@pytest.mark.parametrize("kind", WRAPS)
def test_depth_is_bounded_exactly(kind: str) -> None:
    wrap, value = WRAPS[kind], None
    for _ in range(MAX_DEPTH):
        value = wrap(value)
    if kind == "model":  # a model carries a dict and a set
        assert refusal(value).reason == "depth"
        return
    assert type(there_and_back(value)) is type(value)
    assert refusal(wrap(value)).reason == "depth"


def test_a_cycle_is_refused() -> None:
    ring: list[Any] = []
    ring.append({"a": (ring,)})
    order = m.Order(1)
    order.lines.append(order)
    for value in (ring, order):
        assert refusal(value).reason == "depth"


def test_what_occurs_twice_is_stored_twice() -> None:
    inner = [Decimal(1)]
    back = there_and_back([inner, (inner,), {1: inner}])
    assert back == [inner, (inner,), {1: inner}]


def test_a_web_of_shared_containers_does_not_become_an_endless_tree() -> None:
    for wrap in (lambda v: [v, v], lambda v: (v, v), lambda v: {1: v, 2: v}, lambda v: m.Point(v, v)):
        web: Any = ()
        for _ in range(60):
            web = wrap(web)
        assert refusal(web, 5_000).reason == "size"


def test_size_is_bounded_to_the_byte() -> None:
    value = {"a": [Decimal(1), (b"x" * 1000,)]}
    size = len(stored(value)[1])
    assert stored(value, size) == stored(value)
    assert refusal(value, size - 1).reason == "size"


def test_every_zone_and_fold_of_a_datetime() -> None:
    zones = [None, UTC, timezone.utc, timezone(timedelta(0)), timezone(timedelta(0), "UTC"), ZoneInfo("UTC"),  # noqa: UP017
             timezone(timedelta(hours=1), "\ud800"), ZoneInfo("Europe/Berlin")]  # fmt: skip
    for zone in zones:
        for moment in (datetime.min, datetime.max, datetime(2026, 10, 25, 2, 30, 59, 999999)):
            for fold in (0, 1):
                value = [moment.replace(tzinfo=zone, fold=fold), moment.date(), moment.time()]
                back = there_and_back(value)
                assert shape(back) == shape(value)
                assert (back[0].fold, repr(back[0].tzinfo)) == (fold, repr(zone))


@pytest.mark.parametrize("safety", SafeUUID, ids=str)
@pytest.mark.parametrize("number", [0, 1, 2**64 - 1, 2**64, 2**127, 2**128 - 1])
def test_every_bit_of_a_uuid_and_its_safety(number: int, safety: SafeUUID) -> None:
    back = there_and_back([UUID(int=number, is_safe=safety)])[0]
    assert (type(back), back.int, back.is_safe) == (UUID, number, safety)
    assert hash(back) == hash(UUID(int=number))
    with pytest.raises(TypeError, match="immutable"):
        back.int = 1


def test_a_uuid_that_is_none_is_refused() -> None:
    for number in (2**128, -1):
        forged = UUID(int=0)
        object.__setattr__(forged, "int", number)
        assert refusal([forged]).reason == "type"


@dataclass
class Meddling:
    """Its parts are taken by code that changes what it lies in."""

    where: Any
    change: Callable[[Any], None]


CHANGES: dict[str, Callable[[], Meddling]] = {
    "shorter list": lambda: within([1, 2], lambda it: it.clear()),
    "longer list": lambda: within([1, 2], lambda it: it.append(3)),
    "emptied dict": lambda: within({"a": 1}, lambda it: it.clear()),
    "larger dict": lambda: within({"a": 1}, lambda it: it.update({str(n): n for n in range(100)})),
    "a key that moves": lambda: within({"a": 1}, lambda it: it.update(a=it.pop("a"))),
    "another key that moves": lambda: within({1: 1}, lambda it: it.update({1: it.pop(1)})),
    "other keys": lambda: within({"a": 1}, lambda it: it.update({1: 2})),
}


def within(container: Any, change: Callable[[Any], None]) -> Meddling:
    it = Meddling(container, change)
    if type(container) is list:
        container[:0] = [it]
        container.append(it)
    else:
        container |= {"b": it, "c": it, "d": 4}
    return it


@pytest.mark.parametrize("name", CHANGES)
def test_a_value_that_changes_meanwhile_is_refused_or_stored_as_something_whole(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(value: Meddling) -> list[Any]:
        value.change(value.where)
        return []

    make = foreign.Foreign(take, lambda cls, parts: "made")
    monkeypatch.setattr(foreign, "KNOWN", {"test_typed_encoding:Meddling": make})
    monkeypatch.setattr(classes, "_kind", lambda cls: (classes.FOREIGN, ()))
    monkeypatch.setattr(classes, "_plans", {})
    value = CHANGES[name]().where
    with contextlib.suppress(Unstorable):
        assert type(load(*dump(value, plain=False, limit=LIMIT))) is type(value)


def test_what_changes_while_another_thread_stores_it_is_whole_or_refused() -> None:
    shared: dict[Any, Any] = {}
    over = threading.Event()

    def change() -> None:
        number = 0
        while not over.is_set():
            number += 1
            shared[number % 50] = [m.Colour.RED, (number,), number % 50]
            shared.pop((number * 7) % 50, None)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(100):
            with contextlib.suppress(Unstorable):
                back = there_and_back([shared])[0]
                assert all(item == [m.Colour.RED, (item[1][0],), key] for key, item in back.items())
    finally:
        over.set()
        thread.join()


def test_a_class_is_compared_by_what_it_is_now() -> None:
    """An attribute beside the fields, a field that is gone, an attribute of a base's slot."""
    beside, gone, both = m.Order(1), m.Order(2), m.Slotted(1, 2)
    beside.note = "x"  # type: ignore[attr-defined]
    del gone.lines
    for value in (beside, gone, both, [beside, gone, both]):
        assert shape(there_and_back(value)) == shape(value)


@pytest.mark.skipif(core is None, reason="there is no native core")
def test_the_native_encoder_does_the_usual_by_itself() -> None:
    """Else all that is shown here would be shown of the thorough one."""
    value = [
        1, 2**64 - 1, "a\xe9", b"x", bytearray(b"x"), None, 1.5, True, (1, (2,)), {1: 2}, {"a": {3}}, frozenset([4]),
        Decimal("1.5"), UUID(int=1), datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo")),
        m.Colour.RED, m.Order(1, [m.Point(1, 2)]), m.Slotted(1, 2), m.Sum(1, 2), m.OrderedDict(a=1), m.deque([1]),
        m.User(id=1), m.Hashed("a"),
    ]  # fmt: skip
    assert core.encode(value, LIMIT) == serializers._dump_quick(value, False, LIMIT)
    assert core.encode([2**64], LIMIT) is None
    assert core.encode([object()], LIMIT) is None
    assert core.encode("x" * 100, 99) is None
