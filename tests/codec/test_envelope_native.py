"""The native core reads the headers of ordinary entries, and nobody can tell from what comes out."""

import subprocess
import sys
from typing import Any

import pytest
from codec_models import KEY, header
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from cachekit.codec import envelope, seal
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
        patch.setattr(seal, "core", None)
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


def test_the_core_opens_those_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = lock_of("seal")
    assert core is not None and lock is not None
    ident, cipher = lock.key_id, lock.core
    entry = pack(header(), b"payload", KEY, lock)
    found = core.opened(entry, KEY, ident, cipher, Header)
    assert found is not None and found[1] == b"payload"
    assert found[0] == Header(*found[0]) == unpack(entry, KEY, lock)[0]
    at_most = 32 * 1024 - len(entry) + len(b"payload") - 1
    assert core.opened(pack(header(), b"p" * at_most, KEY, lock), KEY, ident, cipher, Header) is not None
    unusual = [
        pack(header(), b"p" * (at_most + 1), KEY, lock), pack(header(tags=((b"a" * 8, b"1" * 8),)), b"", KEY, lock),
        pack(header(stale=True), b"", KEY, lock), pack(header(), b"payload", KEY, lock_of("sign")),
        pack(header(), b"payload", KEY), bytearray(entry), b"", None,
    ]  # fmt: skip
    assert [core.opened(each, KEY, ident, cipher, Header) for each in unusual] == [None] * len(unusual)
    for key, name in ((KEY + "x", ident), ("", ident), ("\ud800", ident), (KEY, b"none"), (KEY, b""), (KEY, "text")):
        assert core.opened(entry, key, name, cipher, Header) is None  # type: ignore[arg-type]
    assert core.opened(entry, KEY, ident, core.cipher(bytes(32)), Header) is None
    for count in range(len(entry)):
        assert core.opened(entry[:count], KEY, ident, cipher, Header) is None
        flipped = entry[:count] + bytes([entry[count] ^ 1]) + entry[count + 1 :]
        assert core.opened(flipped, KEY, ident, cipher, Header) is None


@pytest.mark.parametrize("size", [0, 1, 400, 511, 512, 513, 5000])
def test_keys_of_any_length_are_bound(size: int) -> None:
    lock = lock_of("seal")
    key = "k" * size
    entry = pack(header(), b"payload", key, lock)
    assert both(entry, key, lock)[0] == both(entry, key, lock)[1]
    assert judged(entry, key + "k", lock) == "tampered"


def test_hits_are_opened_in_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short ones by the key of today in one step, those of older keys and with tags in two, long ones elsewhere."""
    lock = lock_of("seal")
    assert core is not None and isinstance(lock, seal.Sealer)
    steps: list[str] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            steps.append(name)
            return getattr(core, name)

    monkeypatch.setattr(envelope, "core", Watched())
    monkeypatch.setattr(seal, "core", Watched())
    kinds = [header(), header(tags=((b"a" * 8, b"1" * 8),)), header()]
    sizes = [7, 7, 40_000]
    taken = []
    for head, size in zip(kinds, sizes, strict=True):
        steps.clear()
        assert unpack(pack(head, b"p" * size, KEY, lock), KEY, lock)[1] == b"p" * size
        taken.append(list(steps))
    assert taken == [["opened"], ["opened", "ordinary", "unsealed"], ["opened", "ordinary"]]


def test_ciphers_and_what_they_refuse() -> None:
    lock = lock_of("seal")
    assert core is not None and lock is not None
    for key in (b"", bytes(31), bytes(33), "text", None):
        with pytest.raises(ValueError, match="32 bytes"):
            core.cipher(key)  # type: ignore[arg-type]
    cipher = core.cipher(bytes(32))
    sealed = AESGCM(bytes(32)).encrypt(bytes(12), b"payload", b"bound")
    assert core.unsealed(cipher, bytes(12), b"bound", sealed) == b"payload"
    assert core.unsealed(cipher, bytes(12), b"", AESGCM(bytes(32)).encrypt(bytes(12), b"", b"")) == b""
    for nonce, bound, rest in ((bytes(11), b"bound", sealed), (bytes(13), b"bound", sealed), (bytes(12), b"", sealed),
                               (bytes(12), b"bound", sealed[:15]), (bytes(12), b"bound", b"")):  # fmt: skip
        assert core.unsealed(cipher, nonce, bound, rest) is None
    entry = pack(header(), b"payload", KEY, lock)
    for wrong in (None, object(), lock):
        with pytest.raises((ValueError, TypeError)):
            core.opened(entry, KEY, lock.key_id, wrong, Header)
        with pytest.raises((ValueError, TypeError)):
            core.unsealed(wrong, bytes(12), b"bound", sealed)
    with pytest.raises(TypeError):
        core.unsealed(cipher, bytes(12), bytearray(b"bound"), sealed)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        core.opened(entry, KEY, lock.key_id, lock.core, dict)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        core.opened(entry)  # type: ignore[call-arg]


def test_nothing_is_left_behind() -> None:
    assert core is not None
    lock = lock_of("seal")
    assert lock is not None
    entry, key, sealed = pack(header(), b"payload", KEY), "k" * 50, pack(header(), b"payload", KEY, lock)

    def round_of(times: int) -> tuple[int, int, int]:
        for _ in range(times):
            core.ordinary(entry, key, 0, Header)
            core.ordinary(entry, key, 4, Header)
            core.opened(sealed, KEY, lock.key_id, lock.core, Header)
            core.opened(sealed, key, lock.key_id, lock.core, Header)
            core.unsealed(lock.core, bytes(12), b"", sealed)
        return sys.getallocatedblocks(), sys.getrefcount(Header), sys.getrefcount(None)

    round_of(2_000)
    tries: list[list[int]] = []
    while len(tries) < 3 and (not tries or max(tries[-1]) >= 50):  # other threads of this process may have begun
        before = round_of(2_000)
        tries.append([abs(one - other) for one, other in zip(before, round_of(10_000), strict=True)])
    assert max(tries[-1]) < 50, tries


def test_no_cipher_is_left_behind() -> None:
    """Of 300,000, which would be 160 MB."""
    script = """
import resource
from cachekit.l1.table import core
def made(times):
    for number in range(times):
        core.cipher(number.to_bytes(32))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = made(1_000)
print(made(300_000) - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000
