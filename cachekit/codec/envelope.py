"""The bytes around a stored value: format 1, its header, and the checksum that binds both to their key.

========  ==============================================================================================  =====
offset    field (integers are little-endian; "never" is 2**63 - 1)                                          bytes
========  ==============================================================================================  =====
0         magic, format, codec                                                                            2 + 1 + 1
4         flags: compression (bits 0-1), sealed, signed, negative, etag, tags, fingerprint                    1
5         stale mark: 0, or 1 once the store was told that the value is outdated                              1
6         header length: everything before the checksum                                                       2
8         id: random token of the store that wrote the entry                                                 16
24        load_ms (u32), created, soft, hard (u64, wall clock ms)                                            28
52        region stamp, function stamp                                                                       16
68        if flagged: tags (u16 count; digest and stamp of 8 bytes each, sorted)
          if flagged: etag, last_modified (u16 length and UTF-8 text each; empty: None)
          if flagged: fingerprint                                                                             8
          if sealed or signed: id of the key                                                                  4
          if sealed: nonce                                                                                   12
end       xxh3_64 over the full key, the header with the stale mark read as 0, and the payload                8
========  ==============================================================================================  =====

The payload follows. Only the stale mark is outside the checksum: setting it can make an entry stale and nothing else.

A sealed or signed entry has no checksum there, but 16 bytes after the payload: the tag of AES-GCM, or a MAC. They bind
the same things, and the payload of a sealed one is encrypted (`seal`). `unpack` returns payloads that were verified,
and no others.
"""

from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from xxhash import xxh3_64, xxh3_64_intdigest

from cachekit.l1.table import core

if TYPE_CHECKING:
    from cachekit.codec.seal import Lock

NEVER = 2**63 - 1
MAGIC = b"\xcaK"  # not the beginning of any UTF-8 text or number
FORMAT = 1
SEEN = 24
STALE_MARK = 5  # offset

SEALED: Final = 4
SIGNED: Final = 8
_COMPRESSION, _NEGATIVE, _ETAG, _TAGS, _FINGERPRINT = 0b11, 16, 32, 64, 128
_LOCKED = SEALED | SIGNED
_EXTRA = {0: 0, SEALED: 16, SIGNED: 4, _LOCKED: 0}  # bytes at the end of the header: id of the key, nonce
_KEY_ID = 4  # bytes at the end of its header, before the nonce
_LOCK_TAG = 16  # bytes after the payload of a sealed or signed entry
_OPTIONAL = _ETAG | _TAGS | _FINGERPRINT
_HEAD = Struct("<2sBBBBH16sIQQQ8s8s")
_CHECKSUM = Struct("<Q")
_COUNT = Struct("<H")
_PAIR = Struct("8s8s")
_SHORTEST = Struct(_HEAD.format + "Q")  # a header without its optional part, and the checksum
_SEALED_HEAD = Struct(_HEAD.format + "4s12s")  # the same of a sealed entry: id of the key, nonce
_ZERO = bytes(8)
_COPY_BELOW = 32 * 1024  # one hash call over a copy is faster than three calls as long as the copy is small
_new = tuple.__new__


FORGED: Final = frozenset({
    "empty", "magic", "format", "truncated", "header", "stale_mark", "checksum",
    "sealed",  # in a region that is not
    "unsealed",  # or signed, in a region that is
    "key",  # sealed or signed with one that is not known here
    "tampered",  # the tag does not fit
})  # fmt: skip


class Damaged(Exception):
    """Stored bytes are not an entry of this key that this process can use: a counted miss.

    ``reason`` is one of a fixed set of labels: those of `FORGED`, which say that the bytes are not what was written
    here; and codec, compression, weight, depth, payload, fingerprint, which say that this process cannot use what was.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Header(NamedTuple):
    """What is known about an entry without decoding it. Times are wall clock milliseconds; `NEVER` is never."""

    codec: int
    id: bytes
    created: int
    soft: int
    hard: int
    load_ms: int = 0
    compression: int = 0
    stale: bool = False
    negative: bool = False
    region_stamp: bytes = _ZERO
    function_stamp: bytes = _ZERO
    tags: tuple[tuple[bytes, bytes], ...] = ()
    etag: str | None = None
    last_modified: str | None = None  # as the source spelt it, so that it can be sent back unchanged
    fingerprint: bytes | None = None
    key_id: bytes = b""  # of what the entry is sealed or signed with; `pack` takes that of its lock


def pack(header: Header, payload: bytes, key: str, lock: "Lock | None" = None) -> bytes:
    """The bytes to store for ``key``. Raises ValueError for a field that the format cannot hold."""
    (codec, ident, created, soft, hard, load_ms, compression, stale, negative, region, function, tags, etag, modified,
     fingerprint, _) = header  # fmt: skip
    if len(ident) != 16 or len(region) != 8 or len(function) != 8:
        raise ValueError("id has 16 bytes, stamps have 8")
    flags = compression | _NEGATIVE if negative else compression
    optional = b""
    if tags or etag or modified or fingerprint:
        more, optional = _pack_optional(tags, etag, modified, fingerprint)
        flags |= more
    if lock is not None:
        flags |= lock.flag
        mark = lock.mark()
        optional += mark
    length = _HEAD.size + len(optional)
    if length > 0xFFFF:
        raise ValueError(f"a header of {length} bytes; at most 65535: fewer tags or a shorter etag are needed")
    load_ms = min(load_ms, 0xFFFF_FFFF)
    head = _HEAD.pack(MAGIC, FORMAT, codec, flags, 0, length, ident, load_ms, created, soft, hard, region, function)
    head += optional
    if lock is not None:
        rest = lock.close(mark, key.encode() + head, payload)
    else:
        rest = _CHECKSUM.pack(_digest(key, head, payload)) + payload
    if stale:
        head = head[:STALE_MARK] + b"\1" + head[STALE_MARK + 1 :]
    return head + rest


def unpack(data: bytes, key: str, lock: "Lock | None" = None) -> tuple[Header, bytes | memoryview]:
    """Header and payload of what was stored for ``key``. Raises `Damaged` and nothing else, whatever the bytes.

    With a lock only what was closed by it is opened, without one only what is not closed.
    """
    if lock is not None:
        return unlock(data, key, lock)
    if core is not None and (ordinary := core.ordinary(data, key, 0, Header)) is not None:
        usual, bound, written, inner = ordinary
        if written != xxh3_64_intdigest(bound):
            raise Damaged("checksum")
        return usual, inner
    size = len(data)
    if size < _SHORTEST.size:
        raise Damaged(_too_short(data))
    (magic, form, codec, flags, mark, length, ident, load_ms, created, soft, hard, region, function, checksum) = (
        _SHORTEST.unpack_from(data)
    )
    if magic != MAGIC or form != FORMAT or flags or mark or length != _HEAD.size:  # most entries need no closer look
        checksum = _checksum(data, magic, form, flags, mark, length)
    start = length + _CHECKSUM.size
    payload = data[start:] if size < _COPY_BELOW else memoryview(data)[start:]
    head = data[:STALE_MARK] + b"\0" + data[STALE_MARK + 1 : length] if mark else data[:length]
    if checksum != _digest(key, head, payload):
        raise Damaged("checksum")
    tags: tuple[tuple[bytes, bytes], ...] = ()
    etag = modified = fingerprint = None
    if flags & _OPTIONAL:
        tags, etag, modified, fingerprint = _unpack_optional(head, flags)
    elif length != _HEAD.size:
        raise Damaged("header")
    return _new(Header, (
        codec, ident, created, soft, hard, load_ms, flags & _COMPRESSION, mark == 1, flags & _NEGATIVE != 0,
        region, function, tags, etag, modified, fingerprint, b"",
    )), payload  # fmt: skip


def unlock(data: bytes, key: str, lock: "Lock") -> tuple[Header, bytes]:
    """As `unpack`: nothing that is not verified gets out of here, and of the header no more than is needed for that."""
    if core is not None:
        if lock.core is not None and (opened := core.opened(data, key, lock.key_id, lock.core, Header)) is not None:
            return opened  # type: ignore[no-any-return]  # the core is Any where it may be missing
        if (ordinary := core.ordinary(data, key, lock.flag, Header)) is not None:
            header, bound, nonce, rest = ordinary
            return header, lock.open(header.key_id, nonce, bound, rest)
    size = len(data)
    if size < _SEALED_HEAD.size:  # shorter than any, signed ones included
        raise Damaged(_too_short_to_open(data, lock))
    (magic, form, codec, flags, mark, length, ident, load_ms, created, soft, hard, region, function, key_id, nonce) = (
        _SEALED_HEAD.unpack_from(data)
    )
    if magic != MAGIC or form != FORMAT or mark > 1:
        _check_form(magic, form, mark)
    if flags & _LOCKED != lock.flag:
        raise Damaged("unsealed")
    end = length - lock.extra
    if end < _HEAD.size:
        raise Damaged("header")
    if length + _LOCK_TAG > size:
        raise Damaged("truncated")
    head = data[:STALE_MARK] + b"\0" + data[STALE_MARK + 1 : length] if mark else data[:length]
    if length != _SEALED_HEAD.size:  # most sealed entries are so
        key_id, nonce = data[end : end + _KEY_ID], data[end + _KEY_ID : length]
    payload = lock.open(key_id, nonce, key.encode() + head, data[length:])
    tags: tuple[tuple[bytes, bytes], ...] = ()
    etag = modified = fingerprint = None
    if flags & _OPTIONAL:
        tags, etag, modified, fingerprint = _unpack_optional(head[:end], flags)
    elif end != _HEAD.size:
        raise Damaged("header")
    return _new(Header, (
        codec, ident, created, soft, hard, load_ms, flags & _COMPRESSION, mark == 1, flags & _NEGATIVE != 0,
        region, function, tags, etag, modified, fingerprint, key_id,
    )), payload  # fmt: skip


def _check_form(magic: bytes, form: int, mark: int) -> None:
    if magic != MAGIC:
        raise Damaged("magic")
    if form != FORMAT:
        raise Damaged("format")
    if mark > 1:
        raise Damaged("stale_mark")


class Marks(NamedTuple):
    """The stamps of an entry, as far as its first bytes hold them."""

    region: bytes
    function: bytes
    tags: tuple[tuple[bytes, bytes], ...]


def glance(head: bytes) -> Marks | None:
    """The stamps in the first bytes of an entry, without its checksum; None if they are not those of an entry."""
    if len(head) < _HEAD.size:
        return None
    magic, form, _, flags, _, length, *_, region, function = _HEAD.unpack_from(head)
    if magic != MAGIC or form != FORMAT or length < _HEAD.size:
        return None
    if not flags & _TAGS or length < (at := _HEAD.size + _COUNT.size):
        return Marks(region, function, ())
    there = min(len(head), length) - at  # a header may be longer than what was read of it
    count = max(0, min(int.from_bytes(head[_HEAD.size : at], "little"), there // _PAIR.size))
    return Marks(region, function, tuple(_PAIR.iter_unpack(head[at : at + count * _PAIR.size])))


class Span(NamedTuple):
    """The times of an entry in ms of the wall clock, and whether it was marked as stale."""

    created: int
    soft: int
    hard: int
    stale: bool


def span(head: bytes) -> Span | None:
    """The times in the first bytes of an entry, without its checksum; None if they are not those of an entry."""
    if len(head) < _HEAD.size:
        return None
    magic, form, _, _, mark, _, _, _, created, soft, hard, _, _ = _HEAD.unpack_from(head)
    return Span(created, soft, hard, bool(mark)) if magic == MAGIC and form == FORMAT else None


def closed_by(head: bytes) -> tuple[int, bytes] | None:
    """What the first bytes of an entry say of its lock, unverified: `SEALED`, `SIGNED` or 0, and the id of its key.

    Without the id when the header is longer than what was read of it. None: not an entry.
    """
    if len(head) < _HEAD.size:
        return None
    magic, form, _, flags, _, length, *_ = _HEAD.unpack_from(head)
    use = flags & _LOCKED
    at = length - _EXTRA[use]
    if magic != MAGIC or form != FORMAT or at < _HEAD.size or use == _LOCKED:
        return None
    return (use, head[at : at + 4]) if use and length <= len(head) else (use, b"")


def _digest(key: str, head: bytes, payload: bytes | memoryview) -> int:
    if len(payload) < _COPY_BELOW:
        return xxh3_64_intdigest(b"".join((key.encode(), head, payload)))
    running = xxh3_64(key.encode())
    running.update(head)
    running.update(payload)
    return running.intdigest()


def _checksum(data: bytes, magic: bytes, form: int, flags: int, mark: int, length: int) -> int:
    """What is written as the checksum. Raises `Damaged` for a header that this process cannot read."""
    _check_form(magic, form, mark)
    if flags & _LOCKED:
        raise Damaged("sealed")
    if length < _HEAD.size:
        raise Damaged("header")
    if length + _CHECKSUM.size > len(data):
        raise Damaged("truncated")
    found: int = _CHECKSUM.unpack_from(data, length)[0]
    return found


def _too_short(data: bytes) -> str:
    if not data:
        return "empty"
    if data[:2] != MAGIC[: len(data)]:
        return "magic"
    if len(data) > 2 and data[2] != FORMAT:
        return "format"
    return "truncated"


def _too_short_to_open(data: bytes, lock: "Lock") -> str:
    reason = _too_short(data)
    whole = reason == "truncated" and len(data) >= _HEAD.size  # as an entry that is not closed may be
    return "unsealed" if whole and data[4] & _LOCKED != lock.flag else reason


def _pack_optional(
    tags: tuple[tuple[bytes, bytes], ...], etag: str | None, modified: str | None, fingerprint: bytes | None
) -> tuple[int, bytes]:
    flags, parts = 0, []
    if tags:
        if len(tags) > 0xFFFF // _PAIR.size or any(len(name) != 8 or len(stamp) != 8 for name, stamp in tags):
            raise ValueError("at most 4095 tags, each a digest and a stamp of 8 bytes")
        flags |= _TAGS
        parts += [_COUNT.pack(len(tags)), *(name + stamp for name, stamp in sorted(tags))]
    if etag or modified:
        flags |= _ETAG
        for text in (etag, modified):
            encoded = (text or "").encode()
            if len(encoded) > 0xFFFF:
                raise ValueError("etag and last_modified have at most 65535 bytes")
            parts += [_COUNT.pack(len(encoded)), encoded]
    if fingerprint:
        if len(fingerprint) != 8:
            raise ValueError("a fingerprint has 8 bytes")
        flags |= _FINGERPRINT
        parts.append(fingerprint)
    return flags, b"".join(parts)


class _Reader:
    """Takes fields from the optional part of a header, in order, and never beyond its end."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._at = _HEAD.size

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._head):
            raise Damaged("header")
        taken, self._at = self._head[self._at : end], end
        return taken

    def count(self) -> int:
        found: int = _COUNT.unpack(self.take(_COUNT.size))[0]
        return found

    def text(self) -> str | None:
        try:
            return self.take(self.count()).decode() or None
        except UnicodeDecodeError as error:
            raise Damaged("header") from error

    def end(self) -> None:
        if self._at != len(self._head):
            raise Damaged("header")


def _unpack_optional(
    head: bytes, flags: int
) -> tuple[tuple[tuple[bytes, bytes], ...], str | None, str | None, bytes | None]:
    reader = _Reader(head)
    tags: tuple[tuple[bytes, bytes], ...] = ()
    etag = modified = fingerprint = None
    if flags & _TAGS:
        tags = tuple(_PAIR.iter_unpack(reader.take(_PAIR.size * reader.count())))
        if not tags or list(tags) != sorted(tags):
            raise Damaged("header")
    if flags & _ETAG:
        etag, modified = reader.text(), reader.text()
    if flags & _FINGERPRINT:
        fingerprint = reader.take(8)
    reader.end()
    return tags, etag, modified, fingerprint
