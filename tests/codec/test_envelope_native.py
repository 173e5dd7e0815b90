"""The native core reads the headers of ordinary entries, and nobody can tell from what comes out."""

from typing import Any

import pytest
from codec_models import KEY, header
from hypothesis import given, settings
from hypothesis import strategies as st

from cachekit.codec import envelope
from cachekit.codec.envelope import NEVER, Damaged, Header, pack, unpack
from cachekit.codec.keyring import Keyring, Use
from cachekit.codec.seal import Lock, Locks
from cachekit.config.secret import Secret
from cachekit.config.spec import KeySpec
from cachekit.l1.table import core

pytestmark = pytest.mark.skipif(core is None, reason="there is no native core here")

KEYS = ["seal", "sign"]
eights, instants = st.binary(min_size=8, max_size=8), st.integers(0, NEVER)
ordinary = st.builds(
    Header,
    codec=st.integers(0, 255), id=st.binary(min_size=16, max_size=16), created=instants, soft=instants, hard=instants,
    load_ms=st.integers(0, 2**32 - 1), compression=st.integers(0, 3), stale=st.booleans(), negative=st.booleans(),
    region_stamp=eights, function_stamp=eights, tags=st.sampled_from([(), ((b"a" * 8, b"1" * 8),)]),
    etag=st.sampled_from([None, '"x"']), last_modified=st.none(), fingerprint=st.none(), key_id=st.just(b""),
)  # fmt: skip


def lock_of(use: Use | None) -> Lock | None:
    if use is None:
        return None
    return Locks(Keyring(KeySpec(master_key=Secret(bytes(range(32)))), "shop"), "users", use).of("")


LOCKS = [lock_of(use) for use in (None, "seal", "sign")]


def judged(data: Any, key: str, lock: Lock | None) -> object:
    try:
        found, payload = unpack(data, key, lock)
    except Damaged as damage:
        return damage.reason
    assert type(found) is Header
    return found, tuple(map(type, found)), bytes(payload)


def both(data: Any, key: str, lock: Lock | None) -> tuple[object, object]:
    with pytest.MonkeyPatch.context() as patch:
        native = judged(data, key, lock)
        patch.setattr(envelope, "core", None)
        return native, judged(data, key, lock)


@given(ordinary, st.binary(max_size=40), st.text(max_size=5), st.sampled_from(LOCKS), st.sampled_from(LOCKS), st.data())
@settings(max_examples=400, deadline=None)
def test_whatever_the_bytes_both_say_the_same(
    head: Header, payload: bytes, key: str, closing: Lock | None, opening: Lock | None, data: st.DataObject
) -> None:
    key = f"ns:v:{{users:{key}}}".encode("utf-8", "replace").decode()
    entry = pack(head, payload, key, closing)
    native, pure = both(entry, key, opening)
    assert native == pure
    assert (type(native) is tuple) == (closing is opening)
    at = data.draw(st.integers(0, len(entry) - 1))
    flipped = entry[:at] + bytes([entry[at] ^ 1 << data.draw(st.integers(0, 7))]) + entry[at + 1 :]
    for damaged in (flipped, entry[:at], entry[at + 1 :], entry + b"x"):
        native, pure = both(damaged, key, opening)
        assert native == pure
        assert type(native) is str or damaged == flipped  # the stale mark may be set


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("size", [0, 1, 32 * 1024 - 77, 32 * 1024 - 76, 32 * 1024, 100_000])
def test_of_any_size(size: int, lock: Lock | None) -> None:
    entry = pack(header(), b"p" * size, KEY, lock)
    native, pure = both(entry, KEY, lock)
    assert native == pure
    assert type(native) is tuple


@pytest.mark.parametrize("lock", LOCKS)
def test_the_core_reads_those_it_is_for(lock: Lock | None) -> None:
    assert core is not None
    flag = 0 if lock is None else lock.flag
    entry = pack(header(), b"payload", KEY, lock)
    found = core.ordinary(entry, KEY, flag, Header)
    assert found is not None
    assert found[0] == Header(*found[0])
    with_tags = pack(header(tags=((b"a" * 8, b"1" * 8),)), b"payload", KEY, lock)
    unusual = (with_tags, pack(header(stale=True), b"", KEY, lock), bytearray(entry), b"", None)
    assert [core.ordinary(each, KEY, flag, Header) for each in unusual] == [None] * len(unusual)
    assert [core.ordinary(entry, KEY, other, Header) for other in {0, 4, 8, 12, -1, 256} - {flag}] == [None] * 5
    assert core.ordinary(entry, "\ud800", flag, Header) is None
    with pytest.raises(TypeError):
        core.ordinary(entry, KEY, flag, dict)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        core.ordinary(entry, KEY)  # type: ignore[call-arg]


def test_nothing_is_left_behind() -> None:
    import sys

    assert core is not None
    entry, key = pack(header(), b"payload", KEY), "k" * 50

    def round_of(times: int) -> int:
        for _ in range(times):
            core.ordinary(entry, key, 0, Header)
            core.ordinary(entry, key, 4, Header)
        return sys.getallocatedblocks()

    round_of(2_000)
    before = round_of(2_000), sys.getrefcount(Header), sys.getrefcount(None)
    after = round_of(10_000), sys.getrefcount(Header), sys.getrefcount(None)
    assert all(abs(one - other) < 50 for one, other in zip(before, after, strict=True))
