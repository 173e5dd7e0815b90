"""One profile's way from values to stored bytes and back: serializer, compression, envelope."""

from typing import Any

from cachekit.codec import serializers
from cachekit.codec.compress import Compressor
from cachekit.codec.envelope import Header, pack, unpack
from cachekit.config.spec import CodecSpec
from cachekit.errors import ConfigError, Unstorable

_ZERO = bytes(8)


class Codec:
    """Values to bytes and back, as a profile's `CodecSpec` says. Safe to share between threads."""

    __slots__ = ("_compressor", "_limit")

    def __init__(self, spec: CodecSpec) -> None:
        """Raise ConfigError for a serializer or a compression that is not available."""
        if spec.serializer != "msgpack":
            raise ConfigError(f"serializer = {spec.serializer!r} is not yet available; use msgpack")
        self._compressor = Compressor(spec)
        self._limit = spec.max_value_bytes

    def dumps(
        self,
        value: Any,
        key: str,
        *,
        id: bytes,
        created: int,
        soft: int,
        hard: int,
        load_ms: int = 0,
        negative: bool = False,
        region_stamp: bytes = _ZERO,
        function_stamp: bytes = _ZERO,
        tags: tuple[tuple[bytes, bytes], ...] = (),
        etag: str | None = None,
        last_modified: str | None = None,
        fingerprint: bytes | None = None,
        plain: bool = False,
    ) -> bytes:
        """The bytes to store for ``key``; the fields are those of `Header`, times in wall clock milliseconds.

        ``plain=True`` promises that the value consists of nothing but None, bool, int, float, str, bytes, list, and
        dict with str keys, each of exactly that type, at every level. Above all no bytearray or memoryview: the quick
        encoder, which is used then, would turn them into bytes. A tuple, a subclass, an int beyond 64 bits, a lone
        surrogate and any depth do no harm: the quick encoder refuses them and the thorough one takes over. When in
        doubt, leave it False.

        Raises `Unstorable`, whose ``reason`` is type, depth or size and whose text names the place and the type.
        """
        codec, payload = serializers.dump(value, plain=plain, limit=self._limit)
        compression, payload = self._compressor.shrink(payload)
        header = Header(
            codec, id, created, soft, hard, load_ms, compression, False, negative, region_stamp, function_stamp, tags,
            etag, last_modified, fingerprint,
        )  # fmt: skip
        try:
            return pack(header, payload, key)
        except ValueError as error:
            raise Unstorable(f"cannot store the entry: {error}", "size") from error

    def loads(self, data: bytes, key: str) -> tuple[Any, Header]:
        """Value and header of what was stored for ``key``. Raises `Damaged` and nothing else, whatever the bytes."""
        header, payload = unpack(data, key)
        return self.decode(header, payload), header

    def open(self, data: bytes, key: str) -> tuple[Header, bytes | memoryview]:
        """Header and payload, checked against key and checksum, for `decode` once the header was judged."""
        return unpack(data, key)

    def peek(self, data: bytes, key: str) -> Header:
        """As `open`, the header alone."""
        return unpack(data, key)[0]

    def decode(self, header: Header, payload: bytes | memoryview) -> Any:
        """The value of a payload that `open` returned with this header. Raises `Damaged` and nothing else."""
        if header.compression:
            return serializers.load(header.codec, self._compressor.expand(header.compression, payload))
        return serializers.load(header.codec, payload)
