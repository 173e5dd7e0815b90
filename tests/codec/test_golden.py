"""Entries that an earlier version wrote are read for ever, and today's version writes the same bytes.

A file is written once, by ``python tests/codec/test_golden.py``, which never touches one that exists. When one of these
tests fails the format has changed: give it a new number, or take the change back.
"""

import pathlib
from collections import OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import codec_models as m
import numpy as np
import pytest
from codec_models import FIELDS, KEY, shape

from cachekit.codec.codec import Codec
from cachekit.codec.envelope import NEVER, pack, unpack
from cachekit.config.spec import CodecSpec

FOLDER = pathlib.Path(__file__).parent / "golden"
ALL_FIELDS: dict[str, Any] = {
    **FIELDS, "hard": NEVER, "load_ms": 250, "negative": True, "region_stamp": b"regionst",
    "function_stamp": b"function",
    "tags": ((b"tag-one.", b"stamp-1."), (b"tag-two.", b"stamp-2.")), "etag": 'W/"abc"',
    "last_modified": "Mon, 23 Nov 2026 00:00:00 GMT", "fingerprint": b"fingerpr",
}  # fmt: skip
PLAIN = {
    "none": None, "true": True, "false": False, "ints": [0, -1, 127, -32, 255, 65535, 2**32, -(2**63), 2**64 - 1],
    "float": 1.5, "zero": -0.0, "str": "é€𝄞", "bytes": b"\0\xff", "nested": {"a": [{"b": []}]},
}  # fmt: skip
SCALARS = [
    2**64, -(2**63) - 1, "\ud800", bytearray(b"ab"), 1 - 2j, Decimal("-1.50"), Decimal("sNaN3"),
    UUID("12345678-1234-5678-1234-567812345678"), date(2026, 11, 23), datetime(2026, 11, 23, 1, 2, 3, 456789),
    datetime(2026, 11, 23, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=timezone(-timedelta(hours=5, seconds=1), "X")),
    datetime(2026, 11, 23, tzinfo=timezone(timedelta(hours=5.5))),
    datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1), time(1, 2, 3, 4), time(5, tzinfo=UTC),
    timedelta(days=-1, microseconds=7), pathlib.PurePosixPath("/a/b"), pathlib.PureWindowsPath("c:\\a"),
    m.Colour.BLUE, m.Level.HIGH, m.Word.YES, m.Rights(3), m.Bits(64),
]  # fmt: skip
CONTAINERS = [
    (), (1, ("a",)), {1}, frozenset({"x"}), {1: "a", None: 2, (1, 2): 3.5, m.Word.YES: 4}, {"\ud800": 1},
    OrderedDict([("b", 1), (2, "c")]), defaultdict(list, {"a": [1]}), defaultdict(None, {1: 2}), deque([1, 2]),
    deque(["x"], 5),
]  # fmt: skip

ARRAYS = [
    np.arange(6, dtype="<i4").reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(5, ">u2"),
    np.zeros((0, 3)), np.array(["a\0b", "é"]), np.array(["2026-11-23", "NaT"], "M8[ns]"), np.array([True]),
    np.array([(1, (2, 3), b"x")], np.dtype([("a", "i1"), ("b", "<f8", (2,)), ("c", "S3")], align=True)),
    np.float64(1.5), np.int8(-3), np.bool_(True), np.str_("a\0"), np.bytes_(b"a\0"),
    np.datetime64("2026-11-23T01", "h"), np.timedelta64(5, "D"), np.complex64(1j), np.float16(2),
]  # fmt: skip


JSON = {
    "none": None, "bools": [True, False], "ints": [0, -1, 2**53 + 1, 2**64, -(2**100)], "floats": [1.5, -0.0, 1e300],
    "text": "é€𝄞\0\"\\\n", "nested": {"": [{}, [], [[1]]]},
}  # fmt: skip
PICKLED = [{"set": {1}, (1, 2): (3.5, b"x")}, date(2026, 11, 23), m.Colour.BLUE, m.Order(7, [1]), m.MyStr("own"), len]


def instances() -> list[Any]:
    order, unset = m.Order(7, [1, (2,)]), m.Order(8)
    assert order.heavy == 14  # a cached property lies beside the fields
    del unset.lines
    user = m.User(id=1, name="Ada", more=(1,))  # type: ignore[call-arg]
    # One name only: the order of a set of several differs between processes.
    object.__setattr__(user, "__pydantic_fields_set__", {"id"})
    return [
        m.Pair(1, [2]), m.Point(1.0, -0.0), m.Sum(1, 2), order, unset, m.Money(Decimal("1.10")), m.Child("Ann", 3),
        m.Slotted(1, (2,)), m.Hashed("a"), m.Open({"a": 1}), m.Outer.Inner(1), user, m.Frozen(key=b"k"),
    ]  # fmt: skip


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (PLAIN, FIELDS),
    "header": (None, ALL_FIELDS),
    "scalars": (SCALARS, FIELDS),
    "containers": (CONTAINERS, FIELDS),
    "instances": (instances(), FIELDS),  # with the names of the fields
    "fingerprints": (instances(), FIELDS),
    "numpy": (ARRAYS, FIELDS),
    "lz4": ({"text": "the same words again, " * 200}, FIELDS),
    "zstd": ({"text": "the same words again, " * 200}, FIELDS),
    "json": (JSON, FIELDS),
    "json_lz4": ({"text": "the same words again, " * 200}, FIELDS),
    "pickle": (PICKLED, FIELDS),
}
# Pickles are laid out as each version of Python likes, compressed bytes as each version of the compressor does.
AS_THEY_LIKE = ("lz4", "zstd", "json_lz4", "pickle")


def codec_of(name: str, compression: str) -> Codec:
    serializer = name.partition("_")[0]
    serializer = serializer if serializer in ("json", "pickle") else "msgpack"
    return Codec(CodecSpec(serializer=serializer, compression=compression, sign=serializer == "pickle"))


def written(name: str) -> bytes:
    value, fields = CASES[name]
    return codec_of(name, "zstd" if name == "zstd" else "lz4").dumps(value, KEY, **fields, plain=name == "plain")


@pytest.mark.parametrize("name", CASES)
def test_what_was_written_is_read(name: str) -> None:
    data = (FOLDER / f"{name}.bin").read_bytes()
    value, fields = CASES[name]
    found, header = codec_of(name, "zstd").loads(data, KEY)
    assert shape(found) == shape(value)
    assert header._asdict() == {**header._asdict(), **fields}


@pytest.mark.parametrize("name", CASES)
def test_the_same_header_and_payload_make_the_same_bytes(name: str) -> None:
    data = (FOLDER / f"{name}.bin").read_bytes()
    header, payload = unpack(data, KEY)
    assert pack(header, bytes(payload), KEY) == data


@pytest.mark.parametrize("name", [name for name in CASES if name not in (*AS_THEY_LIKE, "instances")])
def test_the_same_value_makes_the_same_bytes(name: str) -> None:
    """Compressed bytes may differ between versions of the compressors; the form of instances is no longer written."""
    assert written(name) == (FOLDER / f"{name}.bin").read_bytes()


if __name__ == "__main__":
    for case in CASES:
        file = FOLDER / f"{case}.bin"
        if not file.exists():
            file.write_bytes(written(case))
