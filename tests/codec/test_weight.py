"""A payload of a megabyte takes at most 64 MiB of memory, whatever it says; no ordinary value is refused for it."""

import os
from collections import OrderedDict, defaultdict, deque
from decimal import Decimal
from typing import Any

import codec_models as m
import lz4.block
import pytest
import zstandard
from codec_models import FIELDS, KEY

from cachekit.codec import weight
from cachekit.codec.codec import Codec
from cachekit.codec.envelope import Damaged, pack, unpack
from cachekit.codec.serializers import dump
from cachekit.codec.weight import LARGE, check_weight
from cachekit.config.spec import CodecSpec
from cachekit.errors import Unstorable

pytestmark = pytest.mark.slow

MIB = 1 << 20
CODEC = Codec(CodecSpec())
JSON = Codec(CodecSpec(serializer="json"))

UNITS: dict[str, bytes] = {
    "list": b"\x90",
    "list of one": b"\x91\x01",
    "list in list": b"\x91\x90",
    "dict": b"\x80",
    "dict of one": b"\x81\xa0\xc0",
    "list in dict": b"\x81\xa1a\x90",
    "lists 250 deep": b"\x91" * 250 + b"\xc0",
    "dicts 250 deep": b"\x81\xa0" * 250 + b"\xc0",
    "tuple": b"\x91\xc7\x00\x20",
    "set": b"\x91\xc7\x00\x21",
    "frozenset": b"\x91\xc7\x00\x22",
    "any dict": b"\x91\xc7\x00\x23",
    "ordered": b"\x91\xc7\x00\x24",
    "default": b"\x92\xc7\x00\x25\xc0",
    "deque": b"\x92\xc7\x00\x26\xc0",
    "deque, long head": b"\x92\xc8\x00\x00\x26\xc0",
    "long head": b"\xdc\x00\x00",
    "longer head": b"\xdd\x00\x00\x00\x00",
    "dict, long head": b"\xde\x00\x00",
    "path": b"\xd4\x0bP",
    "path of a letter": b"\xd5\x0bPa",
    "decimal": b"\xd4\x051",
    "date": b"\xd6\x07\x07\xea\x01\x01",
    "bytearray": b"\xc7\x00\x03",
    "empty text": b"\xa0",
    "letter": b"\xa1a",
    "text": b"\xa2ab",
    "beyond latin": b"\xa3\xe4\xb8\x80",
    "beyond the plane": b"\xa4\xf0\x9f\x98\x80",
    "number": b"\xcd\x01\x01",
    "float": b"\xca\0\0\0\0",
    "claims of pairs": b"\xff\xff\x00\xfa\xff\xff\xff\x7f\x00\xc7\x0c\xde\xff\xfd",
    "claims": b"\xdd\x00\x0f\xff\xff",
    "pairs claimed": b"\xde\xff\xff",
    "bytes": b"\xc4\x02ab",
    "six keys": b"\x86" + b"".join(b"\xa1%c\xc0" % key for key in b"abcdef"),
}
JSON_UNITS: dict[str, bytes] = {
    "list": b"[],",
    "dict": b"{},",
    "dict of one": b'{"":0},',
    "list in list": b"[[]],",
    "float": b"1e9,",
    "text": b'"ab",',
    "escape": b'"\\u1234",',
    "lists 200 deep": b"[" * 200 + b"]" * 200 + b",",
    "number": b"300,",
    "dicts 200 deep": b'{"":' * 200 + b"0" + b"}" * 200 + b",",
}


def peak_of(codec: Codec, code: int, payload: bytes, compression: int = 0) -> float:
    """MiB that decoding takes at its height, in a process that does nothing else."""
    entry = pack(m.header(codec=code, compression=compression), payload, KEY)
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with open("/proc/self/clear_refs", "w") as reset:  # noqa: PTH123
                reset.write("5")
            before = height()
            try:
                value = codec.loads(entry, KEY)
            except Damaged:
                value = None
            os.write(sender, str((height() - before) / 1024).encode())
            del value
        finally:
            os._exit(0)
    os.close(sender)
    os.waitpid(child, 0)
    with os.fdopen(receiver) as answer:
        return float(answer.read())


def height() -> int:
    with open("/proc/self/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def items(unit: bytes, count: int = 0) -> bytes:
    count = count or (MIB - 5) // len(unit)
    return b"\xdd" + count.to_bytes(4, "big") + unit * count


HEAVIEST = ("list", "dict of one", "deque", "claims of pairs")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in HEAVIEST else pytest.mark.nightly) for name in UNITS]
)
def test_a_megabyte_of_msgpack_takes_little_memory(name: str) -> None:
    for code in (1, 2):
        assert peak_of(CODEC, code, items(UNITS[name])) < 64


@pytest.mark.slow
@pytest.mark.parametrize("name", JSON_UNITS)
def test_a_megabyte_of_json_takes_little_memory(name: str) -> None:
    unit = JSON_UNITS[name]
    assert peak_of(JSON, 3, b"[" + unit * ((MIB - 4) // len(unit)) + b"0]") < 64


@pytest.mark.nightly  # a process that has freed as much before, as one that ran all slow tests, takes no more
def test_the_control_shows_what_would_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachekit.codec.registry.check_weight", lambda payload, room=None: None)
    assert peak_of(CODEC, 2, items(UNITS["deque"])) > 100
    assert peak_of(CODEC, 1, items(UNITS["dicts 250 deep"])) > 64


@pytest.mark.parametrize("name", ["deque", "dict of one", "list"])
def test_what_is_refused_says_why(name: str) -> None:
    with pytest.raises(Damaged) as caught:
        CODEC.loads(pack(m.header(codec=2), items(UNITS[name]), KEY), KEY)
    assert caught.value.reason == "weight"


ORDINARY: dict[str, Any] = {
    "rows": [{"id": number, "name": f"user {number}", "ok": True} for number in range(12_000)],
    "short rows": [{"a": number} for number in range(90_000)],
    "pairs": [[number, number + 1] for number in range(60_000)],
    "tuples": [(number, number + 1) for number in range(60_000)],
    "sets": [{number, -number} for number in range(1, 60_000)],
    "decimals": [Decimal(number) for number in range(60_000)],
    "cyrillic": "Привет, мир! сыр " * 20_000,
    "chinese": "聁聯聁" * 50_000,
    "hindi": ["नमस्ते दुनिया"] * 20_000,
    "bytes that look like heads": b"\x85\x90\xc7" * 200_000,
    "nones": [None] * 300_000,
    "floats": [number * 0.1 for number in range(60_000)],
    "sparse": [{"ids": []} for _ in range(60_000)],
    "orders": [m.Order(number, [number]) for number in range(10_000)],
    "mixed": [OrderedDict(a=1, b=2), defaultdict(list, a=[1]), deque([1, 2])] * 10_000,
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_values_are_never_refused(name: str) -> None:
    value = ORDINARY[name]
    data = Codec(CodecSpec(compression="none")).dumps(value, KEY, **FIELDS)
    assert len(data) > LARGE
    assert CODEC.loads(data, KEY)[0] == value


def test_what_would_not_be_read_is_not_written() -> None:
    with pytest.raises(Unstorable, match="more than 60 bytes of memory for each byte stored") as caught:
        CODEC.dumps([[] for _ in range(1_200_000)], KEY, **FIELDS, plain=True)
    assert caught.value.reason == "size"
    few: list[Any] = [[] for _ in range(700_000)]
    assert CODEC.loads(CODEC.dumps(few, KEY, **FIELDS, plain=True), KEY)[0] == few


@pytest.mark.parametrize("name", ["native", "pure"])
def test_what_little_becomes_much_only_compressed_is_stored_as_it_is(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "pure":
        monkeypatch.setattr(weight, "heavy_msgpack", weight._heavy_msgpack)
    rows = [{"id": number, "tags": []} for number in range(60_000)]
    empty = [{"id": 0, "tags": []} for _ in range(200_000)]
    text = "x" * 15_000_000
    for codec in (CODEC, JSON):
        for value, compressed in ((rows, True), (empty, False), (text, True)):
            data = codec.dumps(value, KEY, **FIELDS)
            assert bool(unpack(data, KEY)[0].compression) == compressed
            assert codec.loads(data, KEY)[0] == value


@pytest.mark.parametrize("codec", [CODEC, JSON], ids=["msgpack", "json"])
def test_a_bomb_of_some_kilobytes_takes_little_memory(codec: Codec) -> None:
    unit, code = (b"\x80", 1) if codec is CODEC else (b"{},", 3)
    count = 15 * MIB // len(unit)
    payload = items(unit, count) if codec is CODEC else b"[" + unit * count + b"0]"
    for compression, small in ((1, lz4.block.compress(payload)), (2, zstandard.ZstdCompressor().compress(payload))):
        assert len(small) < 70_000
        assert peak_of(codec, code, small, compression) < 64
        with pytest.raises(Damaged) as caught:
            codec.loads(pack(m.header(codec=code, compression=compression), small, KEY), KEY)
        assert caught.value.reason == "weight"


def test_small_payloads_are_not_looked_at() -> None:
    check_weight(b"\x90" * (LARGE - 1))
    check_weight(dump([1] * LARGE, plain=True, limit=MIB)[1])
