"""One profile's way from values to stored bytes and back: serializer, compression, envelope."""

from typing import TYPE_CHECKING, Any

from cachekit.codec.compress import NONE, Compressor
from cachekit.codec.envelope import Damaged, Header, pack, unpack
from cachekit.codec.registry import open_serializer
from cachekit.codec.weight import room_for
from cachekit.config.spec import CodecSpec
from cachekit.errors import Unstorable

if TYPE_CHECKING:
    from cachekit.codec.seal import Lock

_ZERO = bytes(8)


class Codec:
    """Values to bytes and back, as a profile's `CodecSpec` says. Safe to share between threads."""

    __slots__ = ("_check", "_compressor", "_dump", "_limit", "_load")

    def __init__(self, spec: CodecSpec) -> None:
        """Raise ConfigError for a serializer or a compression that is not available."""
        self._dump, self._load, self._check = open_serializer(spec)
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
        lock: "Lock | None" = None,
    ) -> bytes:
        """The bytes to store for ``key``; the fields are those of `Header`, times in wall clock milliseconds.

        ``plain=True`` promises that the value consists of nothing but None, bool, int, float, str, bytes, list, and
        dict with str keys, each of exactly that type, at every level. Above all no bytearray or memoryview: the quick
        encoder, which is used then, would turn them into bytes. A tuple, a subclass, an int beyond 64 bits, a lone
        surrogate and any depth do no harm: the quick encoder refuses them and the thorough one takes over. When in
        doubt, leave it False. The native encoder looks for itself.

        Raises `Unstorable`, whose ``reason`` is type, depth or size and whose text names the place and the type.
        """
        codec, payload = self._dump(value, plain=plain, limit=self._limit)
        compression, payload = self._shrunk(payload)
        header = Header(
            codec, id, created, soft, hard, load_ms, compression, False, negative, region_stamp, function_stamp, tags,
            etag, last_modified, fingerprint,
        )  # fmt: skip
        try:
            return pack(header, payload, key, lock)
        except ValueError as error:
            raise Unstorable(f"cannot store the entry: {error}", "size") from error

    def _shrunk(self, payload: bytes) -> tuple[int, bytes]:
        """Compressed, unless nobody would read that: little that becomes very much may be a bomb."""
        compression, small = self._compressor.shrink(payload)
        if compression:
            try:
                self._check(payload, room_for(len(small), len(payload)))
            except Damaged:
                return NONE, payload
        return compression, small

    def loads(self, data: bytes, key: str, lock: "Lock | None" = None) -> tuple[Any, Header]:
        """Value and header of what was stored for ``key``. Raises `Damaged` and nothing else, whatever the bytes."""
        header, payload = unpack(data, key, lock)
        return self.decode(header, payload), header

    def decode(self, header: Header, payload: bytes | memoryview) -> Any:
        """The value of a payload that `unpack` returned with this header. Raises `Damaged` and nothing else.

        Never give it another one: where the profile signs or encrypts, what `unpack` returned is proven to be written
        by one who holds the key, and unpickled on the strength of that.
        """
        if not header.compression:
            return self._load(header.codec, payload)
        stored = len(payload)
        payload = self._compressor.expand(header.compression, payload)
        return self._load(header.codec, payload, room_for(stored, len(payload)))
