"""Compression pays or is left out; what expands is bounded."""

import os
import subprocess
import sys
import threading
import tracemalloc

import lz4.block
import pytest
import zstandard

from cachekit.codec.compress import LZ4, NONE, ZSTD, Compressor
from cachekit.codec.envelope import Damaged
from cachekit.config.spec import CodecSpec
from cachekit.errors import ConfigError

TEXT = b"the same words again and again, " * 200


def make(**changes: object) -> Compressor:
    return Compressor(CodecSpec(**changes))  # type: ignore[arg-type]


def refused(compressor: Compressor, code: int, payload: bytes) -> None:
    with pytest.raises(Damaged) as caught:
        compressor.expand(code, memoryview(payload))
    assert caught.value.reason == "compression"


@pytest.mark.parametrize(("name", "code"), [("lz4", LZ4), ("zstd", ZSTD)])
def test_what_was_shrunk_expands(name: str, code: int) -> None:
    compressor = make(compression=name)
    found, small = compressor.shrink(TEXT)
    assert found == code
    assert len(small) < len(TEXT) // 10
    assert compressor.expand(code, memoryview(small)) == TEXT


@pytest.mark.parametrize("name", ["lz4", "zstd", "none"])
def test_what_does_not_shrink_by_a_tenth_is_left_as_it_is(name: str) -> None:
    compressor, noise = make(compression=name), os.urandom(5000)
    assert compressor.shrink(noise) == (NONE, noise)
    slightly = os.urandom(5000) + bytes(300)
    assert compressor.shrink(slightly) == (NONE, slightly)
    assert compressor.shrink(TEXT[:1024]) == (NONE, TEXT[:1024])
    assert (compressor.shrink(TEXT)[0] == NONE) == (name == "none")


def test_any_profile_reads_lz4() -> None:
    """So that compression can be switched off or changed while old entries are around."""
    for name in ("none", "zstd"):
        assert make(compression=name).expand(LZ4, memoryview(lz4.block.compress(TEXT))) == TEXT


def test_zstd_is_read_where_it_is_loaded() -> None:
    assert make().expand(ZSTD, memoryview(zstandard.ZstdCompressor().compress(TEXT))) == TEXT


def test_bytes_do_not_load_zstandard() -> None:
    """A fresh process that does not write zstd counts such an entry as damaged."""
    code = f"""if True:
        import sys
        from cachekit.codec.compress import Compressor
        from cachekit.codec.envelope import Damaged
        from cachekit.config.spec import CodecSpec
        try:
            Compressor(CodecSpec()).expand(2, memoryview({zstandard.ZstdCompressor().compress(TEXT)!r}))
        except Damaged as damage:
            assert damage.reason == "compression" and "zstandard" not in sys.modules
            print("refused")
    """
    assert subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60) == "refused\n"


@pytest.mark.parametrize("code", [LZ4, ZSTD, 3])
@pytest.mark.parametrize("junk", [b"", b"\1", b"\1\0\0\0", b"\xff\xff\xff\xff" * 4, b"\xff\xff\xff\x7fabc", bytes(50)])
def test_junk_is_damaged(code: int, junk: bytes) -> None:
    if (code, junk) == (LZ4, bytes(50)):
        junk = b"\5" + bytes(50)
    refused(make(), code, junk)


def test_a_bomb_is_refused_before_it_expands() -> None:
    big = bytes(1 << 20)
    for code, small in ((LZ4, lz4.block.compress(big)), (ZSTD, zstandard.ZstdCompressor().compress(big))):
        refused(make(max_value_bytes=len(big) - 1), code, small)
        assert make(max_value_bytes=len(big)).expand(code, memoryview(small)) == big
    # A frame that does not tell its size.
    refused(make(), ZSTD, zstandard.ZstdCompressor(write_content_size=False).compress(big))


def test_a_claim_beyond_what_lz4_can_express_is_not_even_allocated() -> None:
    claim = (1 << 23).to_bytes(4, "little") + lz4.block.compress(b"x", store_size=False)
    tracemalloc.start()
    refused(make(), LZ4, claim)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("code", [LZ4, ZSTD])
def test_cut_or_changed_blocks_never_raise_anything_else(code: int) -> None:
    compressor = make()
    small = lz4.block.compress(TEXT) if code == LZ4 else zstandard.ZstdCompressor().compress(TEXT)
    for at in range(len(small)):
        for bad in (small[:at], small[:at] + bytes([small[at] ^ 0x55]) + small[at + 1 :]):
            try:
                compressor.expand(code, memoryview(bad))
            except Damaged:
                pass  # anything else fails the test


def test_threads_share_a_compressor() -> None:
    compressor, wrong = make(compression="zstd"), []

    def work(number: int) -> None:
        text = TEXT + bytes([number]) * 3000
        for _ in range(100):
            if compressor.expand(ZSTD, memoryview(compressor.shrink(text)[1])) != text:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_zstd_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ConfigError, match=r'pip install "cachekit\[compress\]"'):
        make(compression="zstd")


def test_an_unknown_compression_is_an_error() -> None:
    with pytest.raises(ConfigError, match="lz4, zstd, none"):
        make(compression="brotli")
