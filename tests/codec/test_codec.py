"""The whole way from a value to stored bytes and back."""

from typing import Any

import codec_models as m
import pytest
from codec_models import FIELDS, KEY, shape

from cachekit.codec import serializers
from cachekit.codec.codec import Codec
from cachekit.codec.envelope import NEVER, Damaged, Header, pack, unpack
from cachekit.config.spec import CodecSpec
from cachekit.errors import ConfigError, Unstorable

CODEC = Codec(CodecSpec())
VALUE = {"id": 7, "name": "Ada", "tags": ["a", "b"], "big": "words " * 500}


def test_value_and_header_come_back() -> None:
    fields: dict[str, Any] = {
        **FIELDS, "hard": NEVER, "load_ms": 9, "negative": True, "region_stamp": b"r" * 8, "function_stamp": b"f" * 8,
        "tags": ((b"t" * 8, b"s" * 8),), "etag": "e", "last_modified": "l", "fingerprint": b"p" * 8,
    }  # fmt: skip
    data = CODEC.dumps(VALUE, KEY, **fields, plain=True)
    value, header = CODEC.loads(data, KEY)
    assert value == VALUE
    assert header == Header(codec=1, compression=1, **fields)
    again, payload = unpack(data, KEY)
    assert (again, CODEC.decode(again, payload)) == (header, VALUE)


@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
@pytest.mark.parametrize("plain", [False, True])
def test_small_and_large_values(compression: str, plain: bool) -> None:
    codec = Codec(CodecSpec(compression=compression))
    for size in (0, 10, 1100, 100_000):
        value = {"text": "abc" * size, "rows": [{"n": n} for n in range(size // 10)]}
        assert codec.loads(codec.dumps(value, KEY, **FIELDS, plain=plain), KEY)[0] == value


def test_a_value_of_another_key_is_damaged() -> None:
    data = CODEC.dumps(VALUE, KEY, **FIELDS)
    for read in (CODEC.loads, unpack):
        with pytest.raises(Damaged, match="checksum"):
            read(data, KEY + "x")


def test_a_changed_entry_never_yields_another_value() -> None:
    """Every bit and every length, through to the value."""
    data = CODEC.dumps((1, {"a": b"x"}), KEY, **FIELDS)
    bad = [data[:n] for n in range(len(data))] + [
        data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for at in range(len(data)) for bit in range(8)
    ]
    for entry in bad:
        try:
            value, header = CODEC.loads(entry, KEY)
        except Damaged:
            continue
        assert header.stale
        assert value == (1, {"a": b"x"})


def test_an_unknown_codec_is_damaged() -> None:
    for codec in (0, 3, 4, 255):
        with pytest.raises(Damaged, match="codec"):
            CODEC.loads(pack(m.header(codec=codec), b"\xc0", KEY), KEY)


def test_size_is_bounded_before_compression() -> None:
    codec = Codec(CodecSpec(max_value_bytes=2000))
    with pytest.raises(Unstorable, match="max_value_bytes is 2000") as caught:
        codec.dumps("a" * 2000, KEY, **FIELDS, plain=True)
    assert caught.value.reason == "size"
    with pytest.raises(Unstorable) as caught:
        codec.dumps(1, KEY, **FIELDS, tags=((b"t" * 8, b"s" * 8),) * 5000)
    assert caught.value.reason == "size"


def test_a_refusal_names_the_place() -> None:
    with pytest.raises(Unstorable, match=r"^orders\[1\]\.lock: cannot store object$"):
        CODEC.dumps({"orders": [0, {"lock": object()}]}, KEY, **FIELDS)


def test_a_serializer_that_is_not_there_stops_at_start_up() -> None:
    with pytest.raises(ConfigError, match="no such serializer is installed; did you mean 'msgpack'"):
        Codec(CodecSpec(serializer="msgpak"))


BROKEN_PROMISES: list[Any] = [
    (1, [2]), {1: 2}, {m.Word.YES: 1}, m.Word.YES, m.Level.LOW, m.Order(1), m.User(id=1), {1}, 2**70, "\ud800",
    {"\ud800": 2**90}, [m.Pair(1, 2)],
]  # fmt: skip


@pytest.mark.parametrize("value", BROKEN_PROMISES, ids=repr)
def test_a_broken_promise_of_plainness_costs_time_only(value: Any) -> None:
    data = CODEC.dumps(value, KEY, **FIELDS, plain=True)
    assert shape(CODEC.loads(data, KEY)[0]) == shape(value)


@pytest.mark.parametrize("value", [m.MyStr("a"), m.MyDict(a=1), [m.MyStr("a")], {m.MyStr("a"): 1}])
def test_subclasses_are_refused_whatever_was_promised(value: Any) -> None:
    for plain in (True, False):
        with pytest.raises(Unstorable):
            CODEC.dumps(value, KEY, **FIELDS, plain=plain)


def test_the_quick_encoder_is_used_for_plain_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serializers, "Encoder", None)
    data = CODEC.dumps(VALUE, KEY, **FIELDS, plain=True)
    assert CODEC.loads(data, KEY)[0] == VALUE
    assert unpack(data, KEY)[0].codec == serializers.TREE
