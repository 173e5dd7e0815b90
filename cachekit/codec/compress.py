"""Smaller payloads: lz4 or zstd above a threshold, when it pays; expanding is bounded by the size of a value."""

import sys
import threading
from typing import Any

import lz4.block  # type: ignore[import-untyped]

from cachekit.codec.envelope import Damaged
from cachekit.config.spec import CodecSpec
from cachekit.errors import ConfigError

NONE, LZ4, ZSTD = 0, 1, 2  # as in the header; part of format 1
_LZ4_RATIO = 255  # the most that lz4's block format can express; a larger claim is a lie
_ENOUGH = 0.9


class Compressor:
    """Compresses as one profile says, expands whatever this process can."""

    def __init__(self, spec: CodecSpec) -> None:
        if spec.compression not in ("lz4", "zstd", "none"):
            raise ConfigError(f"compression = {spec.compression!r}: known are lz4, zstd, none")
        self._kind = spec.compression
        self._above = spec.compress_above
        self._limit = spec.max_value_bytes
        self._zstd = _Zstd() if spec.compression == "zstd" else None

    def shrink(self, payload: bytes) -> tuple[int, bytes]:
        """The code for the header and the bytes to store: compressed only if that saves a tenth."""
        if self._kind == "none" or len(payload) <= self._above:
            return NONE, payload
        if self._zstd is not None:
            code, small = ZSTD, self._zstd.compressor.compress(payload)
        else:
            code, small = LZ4, lz4.block.compress(payload)
        return (code, small) if len(small) <= len(payload) * _ENOUGH else (NONE, payload)

    def expand(self, code: int, payload: bytes | memoryview) -> bytes:
        """The payload as it was before `shrink`. Raises `Damaged`, also if it would exceed ``max_value_bytes``."""
        try:
            if code == LZ4:
                return self._expand_lz4(payload)
            if code == ZSTD:
                return self._expand_zstd(payload)
        except Damaged:
            raise
        except Exception as error:
            raise Damaged("compression") from error
        raise Damaged("compression")

    def _expand_lz4(self, payload: bytes | memoryview) -> bytes:
        size = int.from_bytes(payload[:4], "little")
        if size > min(self._limit, _LZ4_RATIO * len(payload)):
            raise Damaged("compression")
        expanded: bytes = lz4.block.decompress(payload)
        return expanded

    def _expand_zstd(self, payload: bytes | memoryview) -> bytes:
        # Bytes do not make this process import anything: zstd is read where a profile writes it.
        zstandard = sys.modules.get("zstandard")
        if zstandard is None or not 0 <= zstandard.frame_content_size(payload) <= self._limit:
            raise Damaged("compression")
        if self._zstd is None:
            self._zstd = _Zstd()
        expanded: bytes = self._zstd.decompressor.decompress(payload)
        return expanded


class _Zstd(threading.local):
    """One compressor and one decompressor per thread: zstandard's objects must not be shared between threads."""

    compressor: Any
    decompressor: Any

    def __init__(self) -> None:
        try:
            import zstandard  # heavy and optional
        except ImportError:
            raise ConfigError(
                'compression = "zstd" needs the package zstandard: pip install "cachekit[compress]"'
            ) from None
        self.compressor = zstandard.ZstdCompressor(level=3)
        self.decompressor = zstandard.ZstdDecompressor()
