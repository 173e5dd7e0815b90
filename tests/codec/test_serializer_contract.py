"""The contract passes for our serializers and for one that another package registers, and fails for broken ones."""

import json
import sys
from array import array
from collections import OrderedDict, deque
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import codec_models as m
import pytest
from sample_serializers import install

from cachekit.codec import registry
from cachekit.codec.base import JSON, PICKLE, Serializer
from cachekit.codec.envelope import Damaged
from cachekit.codec.jsontext import JSONSerializer
from cachekit.codec.pickled import PickleSerializer
from cachekit.codec.registry import Encoding, open_serializer
from cachekit.codec.serializers import MARKED, TREE
from cachekit.config.spec import CodecSpec
from cachekit.errors import Unstorable
from cachekit.testing import SerializerContract

PLAIN: list[Any] = [None, True, 0, 1.5, -0.0, "é€𝄞", "\0", [], [1, [2]], {}, {"a": {"b": [None]}}, {"": [True, 1, 1.0]}]


class Msgpack:
    """It has two codes, so it is none of the simple kind."""

    code = MARKED

    def dumps(self, value: Any, /) -> bytes:
        return open_serializer(CodecSpec()).dump(value, plain=False, limit=1 << 20)[1]

    def loads(self, payload: bytes, /) -> Any:
        return open_serializer(CodecSpec()).load(MARKED, payload)


class TestMsgpack(SerializerContract):
    values = (*PLAIN, 2**70, float("nan"), "\ud800", b"\0", (1, {2}), {1: (2,)}, m.Colour.RED, m.Order(1, [2]))
    refused = (object(), m.MyStr("a"), len)
    codes = (TREE, MARKED)

    @pytest.fixture
    def encoding(self) -> Encoding:
        return open_serializer(CodecSpec())

    def make_serializer(self) -> Serializer:
        return Msgpack()


class TestJSON(SerializerContract):
    values = (*PLAIN, 2**70, -(2**63) - 1, 1e300, 2**2048 - 1)
    refused = (
        float("nan"),
        float("-inf"),
        b"",
        (),
        {1: 2},
        {None: 1},
        {True: 1},
        {"a": (1,)},
        {1},
        1j,
        Decimal(1),
        datetime(2026, 1, 1, tzinfo=UTC),
        "\ud800",
        {"\ud800": 1},
        "\ud83d\ude00",
        2**2048,
        m.MyStr("a"),
        m.MyDict(a=1),
        m.Word.YES,
        m.Level.LOW,
        m.Pair(1, 2),
        OrderedDict(a=1),
        deque(),
        m.Order(1, []),
        m.User(id=1),
    )
    codes = (JSON,)

    def make_serializer(self) -> Serializer:
        return JSONSerializer(CodecSpec())


class TestPickle(SerializerContract):
    values = (*PLAIN, 2**70, b"\0", (1, {2}), {1: (2,)}, m.Colour.RED, m.Order(1, [2]), range(3), m.MyStr("a"), len)
    refused = (sys.stdout, lambda: None, (each for each in ()))
    codes = (PICKLE,)
    trusting = True

    def same(self, value: Any, other: Any) -> bool:
        return super().same(value, other) or (type(value) is object and type(other) is object)

    def make_serializer(self) -> Serializer:
        return PickleSerializer(CodecSpec())


class TestOfAnotherPackage(SerializerContract):
    values = (array("d"), array("d", [1.5, -0.0]))
    refused = (array("i"), [1.5])

    @pytest.fixture
    def serializer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serializer]:
        monkeypatch.syspath_prepend(install(tmp_path))
        monkeypatch.setattr(registry, "_names", {})
        yield registry.find("doubles", CodecSpec())
        del sys.modules["sample_of_others"]


# Serializers with one mistake each.


class Good:
    code = 77

    def dumps(self, value: Any, /) -> Any:
        return JSONSerializer(CodecSpec()).dumps(value)

    def loads(self, payload: bytes, /) -> Any:
        return JSONSerializer(CodecSpec()).loads(payload)


class Altering(Good):
    def dumps(self, value: Any, /) -> bytes:
        return json.dumps(value).encode()  # tuples, keys


class Derived(Good):
    def dumps(self, value: Any, /) -> bytes:
        if isinstance(value, (tuple, dict)) or value != value:
            raise ValueError(value)
        return json.dumps(value).encode()


class OursByMistake(Good):
    code = JSON


class ChangingValues(Good):
    def dumps(self, value: Any, /) -> bytes:
        payload = super().dumps(value)
        if type(value) is list:
            value.append(1)
        return payload


class Importing(Good):
    def loads(self, payload: bytes, /) -> Any:
        if payload[:1] == b"\xff":
            sys.modules["antigravity_of_test"] = sys
        return super().loads(payload)


class Ending(Good):
    def loads(self, payload: bytes, /) -> Any:
        try:
            return super().loads(payload)
        except ValueError:
            raise SystemExit from None


class Greedy(Good):
    """Refuses what it must store."""

    def dumps(self, value: Any, /) -> Any:
        raise ValueError


class Lax(Good):
    def dumps(self, value: Any, /) -> Any:
        return b"0" if type(value) is bytes else super().dumps(value)


MISTAKES = [
    (Altering, "test_what_it_stores_comes_back_as_itself"),
    (Derived, "test_derived_classes_are_not_turned_into_their_bases"),
    (OursByMistake, "test_has_a_code_of_its_own"),
    (ChangingValues, "test_values_are_left_as_they_were"),
    (Importing, "test_damaged_payloads_are_damaged_or_values_and_import_nothing"),
    (Ending, "test_damaged_payloads_are_damaged_or_values_and_import_nothing"),
    (Greedy, "test_stores_what_it_must"),
    (Lax, "test_refuses_what_it_must"),
]


@pytest.mark.parametrize(("kind", "test"), MISTAKES, ids=[kind.__name__ for kind, _ in MISTAKES])
def test_a_serializer_with_a_mistake_fails_the_test_of_it(kind: type[Good], test: str) -> None:
    class Contract(SerializerContract):
        values = ([1], {"a": 1})
        refused = (b"x",)

    def run(serializer: Good) -> None:
        method = getattr(Contract(), test)
        if "serializer" in method.__code__.co_varnames[: method.__code__.co_argcount]:
            method(serializer)
        else:
            method(registry.guarded(serializer))

    run(Good())
    try:
        with pytest.raises((AssertionError, SystemExit, pytest.fail.Exception, Unstorable, Damaged)):
            run(kind())
    finally:
        sys.modules.pop("antigravity_of_test", None)
