"""Classes that the application registers are stored by its two functions, in both tiers, and never by guessing."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any

import msgpack
import pytest

import cachekit
from cachekit import ConfigError, register
from cachekit.codec import classes
from cachekit.codec.envelope import Damaged
from cachekit.codec.serializers import MARKED, dump, load
from cachekit.errors import Unstorable
from cachekit.foreign import registered
from cachekit.l1 import values
from cachekit.l1.table import TWIN

TWINS = {"pure": values, **({"native": importlib.import_module("cachekit._native")} if TWIN == "native" else {})}


class Money:
    def __init__(self, amount: Any, currency: str = "EUR") -> None:
        self.amount, self.currency = amount, currency

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]


class Derived(Money):
    pass


class Words(list[str]):
    """Derived from a built-in class, which alone is refused."""


@dataclass
class Known:
    a: int


class Colour(Enum):
    RED = 1


def encode(money: Money) -> Any:
    return [money.amount, money.currency]


def decode(parts: Any) -> Money:
    return Money(*parts)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test registers, it alone has registered."""
    before = set(registered._by_class)
    yield
    for cls in set(registered._by_class) - before:
        registered.remove(cls)
        classes._plans.pop(cls, None)
        for twin in TWINS.values():
            twin.forget(cls)


def stored(value: Any) -> Any:
    return load(*dump(value, plain=False, limit=100_000))


def test_an_instance_comes_back_wherever_it_lies() -> None:
    register(Money, encode=encode, decode=decode)
    money = Money(Decimal("1.10"))
    for value in (money, [money], {"a": (money, {1: money})}, Money([Money(1)])):
        assert stored(value) == value


def test_the_name_on_the_wire_is_the_one_that_was_given() -> None:
    register(Money, encode=encode, decode=decode, name="shop.money")
    register(Words, encode=list, decode=Words)
    assert b"shop.money" in dump(Money(1), plain=False, limit=1000)[1]
    assert b"test_registered:Words" in dump(Words("a"), plain=False, limit=1000)[1]
    assert type(stored(Words("ab"))) is Words


def test_a_class_that_cannot_be_found_by_its_name_can_be_registered() -> None:
    class Local:
        pass

    @dataclass
    class LocalData:
        a: int

    register(Local, encode=lambda _: None, decode=lambda _: Local(), name="local")
    register(LocalData, encode=lambda value: value.a, decode=LocalData)
    assert type(stored(Local())) is Local
    assert stored(LocalData(1)) == LocalData(1)


@pytest.mark.parametrize("twin", TWINS)
def test_in_l1_each_caller_has_an_instance_of_its_own(twin: str) -> None:
    functions = TWINS[twin]
    register(Money, encode=encode, decode=decode)
    money = Money([1])
    for value in (money, {"a": [money]}):
        admitted = functions.admit(value)
        assert (admitted.mode, admitted.plain) == ("copy", False)
        assert admitted == values.admit(value)
        kept, mode, _ = functions.adopt(value, "copy")
        mine = functions.isolate(kept, mode)
        assert mine == value
        (mine if value is money else mine["a"][0]).amount.append(2)
        assert money.amount == [1]
        assert functions.isolate(kept, mode) == value


@pytest.mark.parametrize("twin", TWINS)
def test_many_instances_are_not_mistaken_for_each_other(twin: str) -> None:
    """What ``encode`` returns is gone after each, and the next may come to lie at its address."""
    functions = TWINS[twin]
    register(Money, encode=encode, decode=decode)
    value = [[Money(number), [Money([number])]] for number in range(100)]
    weights = [functions.admit(part).weight for part in value]
    assert functions.admit(value).weight > 0.8 * sum(weights)
    assert functions.isolate(value, "copy") == value
    kept, mode, _ = functions.adopt(value, "copy")
    assert kept == value
    assert functions.isolate(kept, mode) == value
    value[-1].append(Money(object()))
    assert functions.admit(value).mode == "opaque"


@pytest.mark.parametrize("twin", TWINS)
def test_registering_counts_for_classes_that_were_seen_before(twin: str) -> None:
    functions = TWINS[twin]
    assert functions.admit(Money(1)).mode == "opaque"
    register(Money, encode=encode, decode=decode)
    assert functions.admit(Money(1)).mode == "copy"


def test_derived_classes_are_registered_themselves() -> None:
    register(Money, encode=encode, decode=decode)
    with pytest.raises(Unstorable, match=r"rows\[0\]: cannot store test_registered.Derived"):
        stored({"rows": [Derived(1)]})
    assert values.admit(Derived(1)).mode == "opaque"
    register(Derived, encode=encode, decode=lambda parts: Derived(*parts))
    assert type(stored(Derived(1))) is Derived


def test_nothing_is_registered_twice() -> None:
    register(Money, encode=encode, decode=decode, name="money")
    for cls, name in ((Money, "other"), (Derived, "money"), (Money, None)):
        with pytest.raises(ConfigError, match="is registered as 'money'"):
            register(cls, encode=encode, decode=decode, name=name)


@pytest.mark.parametrize("cls", [int, str, list, dict, set, tuple, Decimal, Known, Colour, type(None), bytearray])
def test_what_can_be_stored_already_is_not_registered(cls: type) -> None:
    with pytest.raises(ConfigError, match="stores this class already"):
        register(cls, encode=repr, decode=lambda _: None)


def test_what_l1_shares_it_goes_on_sharing() -> None:
    register(Fraction, encode=str, decode=Fraction)
    assert stored([Fraction(1, 3)]) == [Fraction(1, 3)]
    assert values.admit(Fraction(1, 3)).mode == "share"


@pytest.mark.parametrize(
    "arguments",
    [
        {"type": Money(1), "encode": encode, "decode": decode}, {"type": Money, "encode": 1, "decode": decode},
        {"type": Money, "encode": encode, "decode": None},
        {"type": Money, "encode": encode, "decode": decode, "name": ""},
        {"type": Money, "encode": encode, "decode": decode, "name": "a\0b"},
        {"type": Money, "encode": encode, "decode": decode, "name": 1},
    ],
    ids=["no class", "encode", "decode", "empty name", "name with zero", "name of a number"],
)  # fmt: skip
def test_wrong_arguments_are_type_errors(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="register"):
        register(**arguments)


def test_an_encode_that_fails_is_told_with_the_place() -> None:
    register(Money, encode=lambda money: 1 / 0, decode=decode)
    with pytest.raises(Unstorable, match=r"a\[0\]: cannot store test_registered.Money: ZeroDivisionError"):
        stored({"a": [Money(1)]})
    assert values.admit(Money(1)).mode == "opaque"


def test_an_instance_within_itself_is_told_as_what_it_is() -> None:
    register(Money, encode=encode, decode=decode, name="money")
    inside: Any = Money(1)
    inside.amount = inside
    with pytest.raises(Unstorable, match="cannot store a value nested more than 256 deep, or within itself") as caught:
        dump(inside, plain=False, limit=10_000)
    assert caught.value.reason == "depth"
    for depth in range(2):  # as the last level is that of the instance, or of what it consists of
        value: Any = Money(1)
        for _ in range(depth + 255):
            value = [value]
        with pytest.raises(Unstorable, match=r"<Money>: cannot store a value nested more than 256 deep"):
            dump(value, plain=False, limit=10_000)


def test_an_encoding_that_cannot_be_stored_is_told_with_the_place() -> None:
    register(Money, encode=encode, decode=decode)
    with pytest.raises(Unstorable, match=r"a\.<Money>\[0\]: cannot store object"):
        stored({"a": Money(object())})


BROKEN = {"raises": lambda _: 1 / 0, "none": lambda _: None, "derived": lambda _: Derived(1)}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_decode_that_fails_is_damage(broken: Any) -> None:
    register(Money, encode=encode, decode=broken)
    _, payload = dump(Money(1), plain=False, limit=1000)
    with pytest.raises(Damaged, match="payload"):
        load(MARKED, payload)


@pytest.mark.parametrize("items", [[], [1, 2]], ids=["none", "two"])
def test_forged_parts_are_damage(items: list[Any]) -> None:
    register(Money, encode=encode, decode=decode, name="money")
    for name in (b"money", b"other", b"", b"test_registered:Money", b"money\0\0" + bytes(8)):
        with pytest.raises(Damaged):
            load(MARKED, msgpack.packb([msgpack.ExtType(53, name), *items]))


def test_where_the_class_is_not_registered_the_entry_is_damaged() -> None:
    register(Money, encode=encode, decode=decode, name="money")
    payload = dump(Money(1), plain=False, limit=1000)[1]
    code = f"""
from cachekit.codec import classes
from cachekit.codec.envelope import Damaged
from cachekit.codec.serializers import load
try:
    load({MARKED}, {payload!r})
except Damaged as damaged:
    print(damaged.reason)
"""
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True, timeout=60)
    assert done.stdout == "payload\n"


def test_in_a_cached_function() -> None:
    register(Money, encode=encode, decode=decode)
    runs = 0

    @cachekit.cache(backend=None, on_unstorable="raise", version=1)
    def load_price(number: int) -> Money:
        nonlocal runs
        runs += 1
        return Money([number])

    first, second = load_price(1), load_price(1)
    second.amount.append(2)
    assert (first, load_price(1), runs) == (Money([1]), Money([1]), 1)
