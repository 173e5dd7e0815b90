"""An entry is read whole, for its own key, or not at all."""

import codec_models as m
import pytest
from codec_models import KEY, header
from hypothesis import given, settings
from hypothesis import strategies as st

from cachekit.backends import base
from cachekit.codec import envelope
from cachekit.codec.envelope import MAGIC, NEVER, SEEN, STALE_MARK, Damaged, Header, pack, unpack

PAYLOAD = b"\x93\x01\xa3two\xc3" * 3
TAGS = ((b"a" * 8, b"1" * 8), (b"b" * 8, b"2" * 8))
FULL = header(
    load_ms=250, compression=1, negative=True, region_stamp=b"r" * 8, function_stamp=b"f" * 8, tags=TAGS, etag='W/"x"',
    last_modified="Mon, 23 Nov 2026 00:00:00 GMT", fingerprint=b"F" * 8,
)  # fmt: skip
ENTRIES = [pack(header(), PAYLOAD, KEY), pack(FULL, PAYLOAD, KEY), pack(header(), b"", KEY)]
entries = pytest.mark.parametrize("entry", ENTRIES, ids=["plain", "full", "empty"])


def reason(data: bytes, key: str = KEY) -> str:
    with pytest.raises(Damaged) as caught:
        unpack(data, key)
    return caught.value.reason


def changed(entry: bytes, at: int, value: int) -> bytes:
    return entry[:at] + bytes([value]) + entry[at + 1 :]


eights = st.binary(min_size=8, max_size=8)
instants = st.integers(0, NEVER)
headers = st.builds(
    Header,
    codec=st.integers(0, 255), id=st.binary(min_size=16, max_size=16), created=instants, soft=instants, hard=instants,
    load_ms=st.integers(0, 2**32 - 1), compression=st.integers(0, 3), stale=st.booleans(), negative=st.booleans(),
    region_stamp=eights, function_stamp=eights,
    tags=st.lists(st.tuples(eights, eights), max_size=5).map(lambda tags: tuple(sorted(tags))),
    etag=st.none() | st.text(min_size=1), last_modified=st.none() | st.text(min_size=1), fingerprint=st.none() | eights,
    key_id=st.just(b""),
)  # fmt: skip


@settings(max_examples=300, deadline=None, database=None)
@given(headers, st.binary(max_size=100), st.text(max_size=40))
def test_every_header_comes_back(wanted: Header, payload: bytes, key: str) -> None:
    key = key.encode("utf-8", "replace").decode()
    data = pack(wanted, payload, key)
    found, view = unpack(data, key)
    assert found == wanted
    assert [type(a) for a in found] == [type(a) for a in wanted]
    assert view == payload
    assert pack(found, bytes(view), key) == data


def test_the_layout_is_the_documented_one() -> None:
    data = ENTRIES[0]
    assert data[:3] == MAGIC + b"\1"
    assert (data[3], data[4], data[5]) == (1, 0, 0)
    assert int.from_bytes(data[6:8], "little") == 68
    assert data[8:24] == m.FIELDS["id"]
    assert int.from_bytes(data[28:36], "little") == m.FIELDS["created"]
    assert int.from_bytes(data[44:52], "little") == m.FIELDS["hard"]
    assert len(data) == 76 + len(PAYLOAD)
    assert SEEN == base.SEEN_BYTES == 24
    assert data[:SEEN] != pack(header(id=b"x" * 16), PAYLOAD, KEY)[:SEEN]


@entries
def test_a_flipped_bit_anywhere_is_noticed(entry: bytes) -> None:
    fixed = {0: {"magic"}, 1: {"magic"}, 2: {"format"}, 3: {"checksum"}, 5: {"stale_mark"}}
    fixed[4] = {"sealed", "checksum"}
    fixed[6] = fixed[7] = {"header", "truncated", "checksum"}
    for at in range(len(entry)):
        for bit in range(8):
            if (at, bit) == (STALE_MARK, 0):
                continue
            assert reason(changed(entry, at, entry[at] ^ 1 << bit)) in fixed.get(at, {"checksum"}), (at, bit)


@entries
def test_the_stale_mark_makes_an_entry_stale_and_nothing_else(entry: bytes) -> None:
    before, payload = unpack(entry, KEY)
    after, same = unpack(changed(entry, STALE_MARK, 1), KEY)
    assert (before.stale, after) == (False, before._replace(stale=True))
    assert same == payload


@entries
def test_a_truncated_entry_is_noticed_at_every_length(entry: bytes) -> None:
    assert reason(b"") == "empty"
    head = int.from_bytes(entry[6:8], "little") + 8
    for length in range(1, len(entry)):
        assert reason(entry[:length]) == ("truncated" if length < head else "checksum"), length


@entries
@pytest.mark.parametrize("more", [b"\0", b"x", PAYLOAD, bytes(4096)])
def test_an_extended_entry_is_noticed(entry: bytes, more: bytes) -> None:
    assert reason(entry + more) == "checksum"
    assert reason(more + entry) == "magic"


@entries
@pytest.mark.parametrize("key", ["", KEY + "x", KEY[:-1], KEY.upper(), KEY.replace("shop", "shoq"), "é" + KEY])
def test_an_entry_of_another_key_is_noticed(entry: bytes, key: str) -> None:
    assert reason(entry, key) == "checksum"


@pytest.mark.parametrize(
    ("junk", "expected"),
    [
        (b"42", "magic"), (b"-1", "magic"), (b"x", "magic"), (b"\xca", "truncated"), (b"\xcaK\1", "truncated"),
        (b"\xcaK\2", "format"), (bytes(500), "magic"), (b"\xff" * 500, "magic"), (b"CK\3" + bytes(99), "magic"),
        (b"\x80\x05K\x01." * 40, "magic"), (b'{"a": 1}' * 20, "magic"), (MAGIC + b"\2" + bytes(99), "format"),
        (MAGIC + bytes(99), "format"), (MAGIC + b"\1" + bytes(99), "header"),
    ],
)  # fmt: skip
def test_foreign_bytes_are_a_miss(junk: bytes, expected: str) -> None:
    assert reason(junk) == expected


def test_sealed_and_signed_entries_are_not_read_without_a_seal() -> None:
    for flag in (4, 8, 12):
        assert reason(changed(ENTRIES[0], 4, flag)) == "sealed"


def sealed_up(head: bytes, payload: bytes = PAYLOAD) -> bytes:
    """An entry with this header and a checksum that fits, as only a forger would make it."""
    head = head[:6] + len(head).to_bytes(2, "little") + head[8:]
    return head + envelope._digest(KEY, head, payload).to_bytes(8, "little") + payload


HEAD = ENTRIES[0][:68]


@pytest.mark.parametrize(
    ("flags", "rest"),
    [
        (0, b"\0"), (64, b""), (64, b"\0\0"), (64, b"\1\0" + bytes(15)), (64, b"\1\0" + bytes(17)), (64, b"\xff\xff"),
        (64, b"\2\0" + b"b" * 16 + b"a" * 16), (32, b""), (32, b"\1\0"), (32, b"\1\0a"), (32, b"\0\0\0\0\0"),
        (32, b"\1\0\xff\0\0"), (128, bytes(7)), (128, bytes(9)), (224, bytes(6)),
    ],
)  # fmt: skip
def test_a_header_that_contradicts_itself_is_refused_although_its_checksum_fits(flags: int, rest: bytes) -> None:
    assert reason(sealed_up(changed(HEAD, 4, flags) + rest)) == "header"


def test_large_payloads_have_the_same_checksum_as_small_ones() -> None:
    """Above a size the hash is computed in pieces."""
    for size in (envelope._COPY_BELOW - 1, envelope._COPY_BELOW, envelope._COPY_BELOW + 1):
        payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
        data = pack(header(), payload, KEY)
        assert unpack(data, KEY)[1] == payload
        whole = KEY.encode() + data[:68] + payload
        assert int.from_bytes(data[68:76], "little") == envelope.xxh3_64_intdigest(whole)
        assert reason(changed(data, size, data[size] ^ 1)) == "checksum"


def test_tags_are_stored_sorted() -> None:
    found, _ = unpack(pack(header(tags=TAGS[::-1]), PAYLOAD, KEY), KEY)
    assert found.tags == TAGS


def test_a_load_time_beyond_the_field_is_clamped() -> None:
    assert unpack(pack(header(load_ms=2**40), b"", KEY), KEY)[0].load_ms == 2**32 - 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": b"x"}, {"region_stamp": b"1"}, {"function_stamp": b"1" * 9}, {"tags": ((b"a", b"b"),)},
        {"tags": TAGS * 2048}, {"etag": "x" * 70_000}, {"etag": "x" * 65_500}, {"fingerprint": b"1"},
    ],
)  # fmt: skip
def test_a_header_that_the_format_cannot_hold_is_an_error(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"bytes|tags"):
        pack(header(**wrong), b"", KEY)
