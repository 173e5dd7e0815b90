"""The test suite of serializers. Whoever writes one inherits it and says how to make it."""

import copy
import random
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from cachekit.codec.base import OF_OTHERS, Serializer
from cachekit.codec.envelope import Damaged
from cachekit.codec.registry import Encoding, guarded
from cachekit.errors import Unstorable

LIMIT = 1 << 24

# Values that any serializer may be given. It stores them exactly or refuses them.
USUAL: Sequence[Any] = (
    None, True, False, 0, -1, 2**63, -(2**63) - 1, 2**70, 10**400, 0.0, -0.0, 1.5, 1e300, float("inf"), float("nan"),
    "", "text", "é€𝄞", "\0", "\ud800", "\ud83d\ude00", b"", b"\0\xff", bytearray(b"ab"), 1 + 2j, [],
    [1, [2, [None]]], (),
    (1, ("a",)), {}, {"a": {"b": []}}, {"": 1}, {1: 2}, {None: 1, "None": 2}, {True: 1}, {(1, 2): 3}, {1.5: 1}, {1, 2},
    frozenset({1}), [True, 1, 1.0], {"a": (1, 2)}, range(3), ..., NotImplemented, int, len, object(), sys.stdout,
    (lambda: (yield))(), lambda: None,
)  # fmt: skip


class Text(str):
    """A class of its own, which must not come back as a str."""

    __slots__ = ()


class Number(int):
    __slots__ = ()


class Items(list[Any]):
    pass


class Table(dict[str, Any]):
    pass


DERIVED: Sequence[Any] = (Text("a"), Number(1), Items([1]), Table(a=1), [Text("a")], {Text("a"): 1}, {"a": Number(1)})


def shape(value: Any) -> Any:
    """A value with the types in it spelt out, so that equal means equal in type at every depth."""
    cls = type(value)
    if isinstance(value, dict):
        return cls, [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return cls, [shape(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return cls, sorted(repr(shape(item)) for item in value)
    if cls in (float, complex):
        return cls, repr(value)  # NaN, and the sign of zero
    return cls, value


class SerializerContract:
    """Everything that cachekit relies on in a serializer. Inherit, and say how to make one::

        class TestMySerializer(SerializerContract):
            values = (MyValue(1), [MyValue(2)])

            def make_serializer(self):
                return MySerializer(CodecSpec())

    It is given values of all kinds. Each must come back equal and of the same type at every depth, or be refused.
    """

    values: ClassVar[Sequence[Any]] = ()  # that it must store
    refused: ClassVar[Sequence[Any]] = ()  # that it must refuse
    codes: ClassVar[Sequence[int]] = OF_OTHERS  # of which its own must be one
    trusting: ClassVar[bool] = False  # true: only for signed or encrypted profiles, so never given damaged bytes

    def make_serializer(self) -> Serializer:
        """The serializer. (Or override the fixture `serializer`.)"""
        raise NotImplementedError("say how to make the serializer: def make_serializer(self): ...")

    def same(self, value: Any, other: Any) -> bool:
        """Whether a value came back as itself; for classes whose ``==`` does not tell."""
        return bool(shape(value) == shape(other))

    @pytest.fixture
    def serializer(self) -> Serializer:
        return self.make_serializer()

    @pytest.fixture
    def encoding(self, serializer: Serializer) -> Encoding:
        return guarded(serializer)

    def stored(self, encoding: Encoding) -> Iterator[tuple[Any, int, bytes]]:
        """The values that it stores, each with codec byte and payload."""
        for value in (*self.values, *USUAL):
            try:
                yield value, *encoding.dump(value, plain=False, limit=LIMIT)
            except Unstorable:
                assert not any(value is must for must in self.values), f"{value!r} was refused"

    def test_has_a_code_of_its_own(self, serializer: Serializer) -> None:
        assert isinstance(serializer, Serializer)
        assert type(serializer.code) is int
        assert serializer.code in self.codes

    def test_stores_what_it_must(self, encoding: Encoding) -> None:
        for value in self.values:
            code, payload = encoding.dump(value, plain=False, limit=LIMIT)
            assert self.same(value, encoding.load(code, payload))

    def test_refuses_what_it_must(self, encoding: Encoding) -> None:
        for value in self.refused:
            with pytest.raises(Unstorable):
                encoding.dump(value, plain=False, limit=LIMIT)

    def test_what_it_stores_comes_back_as_itself(self, encoding: Encoding) -> None:
        for value, code, payload in self.stored(encoding):
            assert self.same(value, encoding.load(code, payload)), f"{value!r} came back as another value"

    def test_derived_classes_are_not_turned_into_their_bases(self, encoding: Encoding) -> None:
        for value in DERIVED:
            try:
                code, payload = encoding.dump(value, plain=False, limit=LIMIT)
            except Unstorable:
                continue
            assert self.same(value, encoding.load(code, payload)), f"{value!r} came back as another value"

    def test_values_are_left_as_they_were(self, encoding: Encoding) -> None:
        for value in self.values:
            before = copy.deepcopy(value)
            encoding.dump(value, plain=False, limit=LIMIT)
            assert self.same(before, value)

    def test_a_value_within_itself_and_one_nested_deep_are_refused_or_stored(self, encoding: Encoding) -> None:
        circle: list[Any] = []
        circle.append(circle)
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        for value in (circle, {"a": circle}, deep):
            try:
                encoding.dump(value, plain=False, limit=LIMIT)
            except Unstorable:
                continue
        while deep:  # or the interpreter has to, by recursion
            deep = deep[0]

    def test_another_code_is_not_read(self, encoding: Encoding) -> None:
        for _, code, payload in self.stored(encoding):
            other = next(each for each in range(255, 0, -1) if each not in (*self.codes, code, 1, 2))
            with pytest.raises(Damaged, match="codec"):
                encoding.load(other, payload)

    def test_a_payload_is_read_from_any_buffer(self, encoding: Encoding) -> None:
        for value, code, payload in self.stored(encoding):
            assert self.same(value, encoding.load(code, memoryview(payload)))

    def test_damaged_payloads_are_damaged_or_values_and_import_nothing(self, encoding: Encoding) -> None:
        if self.trusting:
            return
        rng = random.Random(1)
        payloads = [(code, whole) for _, code, whole in self.stored(encoding) if len(whole) < 10_000]
        for code in sorted({code for code, _ in payloads}):
            payloads += [(code, b""), (code, b"\0"), (code, b"\xff" * 50), (code, b"[" * 5000), (code, b"\x91" * 5000)]
        before = set(sys.modules)
        for code, whole in payloads:
            for _ in range(60):
                data = bytearray(whole)
                for _ in range(rng.randint(1, 3)):
                    at = rng.randrange(len(data) + 1)
                    data[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
                _read(encoding, code, bytes(data))
            for end in range(min(len(whole), 60)):
                _read(encoding, code, whole[:end])
        assert set(sys.modules) == before

    def test_threads_use_it_at_the_same_time(self, encoding: Encoding) -> None:
        values = [value for value, *_ in self.stored(encoding)]

        def work(number: int) -> bool:
            for value in values * 20:
                code, payload = encoding.dump(value, plain=False, limit=LIMIT)
                if not self.same(value, encoding.load(code, payload)):
                    return False
            return True

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(4)))


def _read(encoding: Encoding, code: int, payload: bytes) -> None:
    try:
        encoding.load(code, payload)
    except Damaged:
        pass  # a miss; anything else fails the test
