"""How much memory a payload may become, found out before it is decoded.

One byte of msgpack can stand for an empty container of sixty bytes or more, so that a megabyte which nobody would write
might fill a hundred times its size; and compressed it is a few kilobytes. Every value may take `ROOM`, a larger one
`PER_BYTE` bytes for each that is stored, compressed as it is. Payloads below `LARGE` are not looked at: they cannot
become as much.
"""

import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from struct import pack
from typing import Final

from cachekit.codec.envelope import Damaged
from cachekit.l1.table import core

LARGE: Final = 256 * 1024  # bytes of payload
PER_BYTE: Final = 60  # leaves room for the payload itself
ROOM: Final = PER_BYTE * 1024 * 1024

Payload = bytes | memoryview

# What a byte costs at most if it is the head of such a thing, and what any other may cost.
_LISTS: Final = bytes((*range(0x90, 0xA0), 0xDC, 0xDD))
_DICTS: Final = bytes((*range(0x80, 0x90), 0xDE, 0xDF))
_EXTS: Final = bytes((0xC7, 0xC8, 0xC9))
_LIST, _DICT, _EXT, _OTHER = 88, 200, sys.getsizeof(deque()) + 64, 24

# Containers that msgpack has not, by their ext codes, beyond what their items cost; any other ext is less than a path.
_EMPTY: Final = {
    32: sys.getsizeof(()) + 64,  # and the object that stands for the marker
    33: sys.getsizeof(set()),
    34: sys.getsizeof(frozenset()),
    36: sys.getsizeof(OrderedDict()),
    37: sys.getsizeof(defaultdict()),
    38: sys.getsizeof(deque()),
}
_SCALAR: Final = 200
_LETTER: Final = 64
_LETTER_HEAD: Final = b"\xa1"
_DICT_OF_FEW: Final = 192
_LONG_TEXT: Final = 256  # bytes, from which on it is looked at
_COSTS: Final = pack("<256H", *(_EMPTY.get(code, _SCALAR) for code in range(256)))


def room_for(stored: int, expanded: int = 0) -> int:
    """The memory that a payload may become which is stored in so many bytes, and takes that many when expanded."""
    return max(ROOM, PER_BYTE * stored) - expanded


def check_weight(payload: Payload, room: int | None = None) -> None:
    """Raise `Damaged` for msgpack that would become more than this many bytes of memory."""
    size = len(payload)
    if size >= LARGE and heavy_msgpack(payload, room_for(size) if room is None else room, _COSTS):
        raise Damaged("weight")


def check_json(payload: Payload, room: int) -> None:
    """The same of JSON, which only compressed can become much."""
    if len(payload) >= LARGE and _heavy_json(bytes(payload), room):
        raise Damaged("weight")


def _heavy_json(text: bytes, room: int) -> bool:
    wide = 1 if text.isascii() and b"\\u" not in text else 4
    items = text.count(b",") + text.count(b":")
    return wide * len(text) + text.count(b"[") * 72 + text.count(b"{") * _DICT_OF_FEW + items * 64 > room


def _heavy_msgpack(payload: Payload, room: int, costs: bytes) -> bool:
    payload, size = bytes(payload), len(payload)
    heads = _occurrences(payload, _LISTS + _DICTS + _EXTS)
    quick = heads * _EXT + (size - heads) * _OTHER > room and _at_most(payload, heads) > room
    return quick and _weigh(payload, room)  # text beyond ASCII looks like heads, and nothing but reading it tells


def _occurrences(payload: bytes, of: bytes) -> int:
    return len(payload) - len(payload.translate(None, of))


def _at_most(payload: bytes, heads: int) -> int:
    lists, dicts = _occurrences(payload, _LISTS), _occurrences(payload, _DICTS)
    return lists * _LIST + dicts * _DICT + (heads - lists - dicts) * _EXT + (len(payload) - heads) * _OTHER


def _weigh(payload: bytes, left: int) -> bool:
    """Go from head to head; what is inside of what does not matter. Whether it is msgpack at all is for the decoder."""
    at, size = 0, len(payload)
    while at < size:
        length, cost = measure(payload, at)
        if not length:
            return False
        if cost == _DICT_OF_FEW and payload[at + 1 : at + 2] == _LETTER_HEAD:
            cost -= _LETTER  # of keys that short there is one object each
        at += length
        left -= cost
        if left < 0:
            return True
    return False


def measure(payload: bytes, at: int) -> tuple[int, int]:
    """Length and cost of what a head begins, as far as the head says it; (0, 0) where there is none."""
    length, cost = _SHORT[payload[at]]
    return (length, cost) if length else _long(payload, at)


def _list(count: int) -> int:
    return 72 + 8 * count  # 56, in a block of 64, and of 8 more for the items


def _dict(count: int) -> int:
    if not count:
        return 64
    return _DICT_OF_FEW if count < 6 else _DICT_OF_FEW + 64 * count  # tables double


def _text(size: int) -> int:
    if size < 4:
        return (0, _LETTER, 80, 80)[size]
    return 80 + 4 * size  # one character may make all of them wide


def _short(head: int) -> tuple[int, int]:
    """Length and cost of what a head of one byte begins, as far as the head says it; (0, 0) where it does not."""
    if head < 0x80 or head >= 0xE0 or head in (0xC0, 0xC2, 0xC3):  # small numbers, nil, false, true: there already
        return 1, 0
    if head < 0x90:
        return 1, _dict(head & 15)
    if head < 0xA0:
        return 1, _list(head & 15)
    if head < 0xC0:
        return 1 + (head & 31), _text(head & 31)
    if 0xCA <= head <= 0xD3:  # floats, then unsigned and signed numbers
        return 1 + (4, 8, 1, 2, 4, 8, 1, 2, 4, 8)[head - 0xCA], 32
    if 0xD4 <= head <= 0xD8:
        return 2 + (1 << (head - 0xD4)), _SCALAR
    return 0, 0


_SHORT: Final = [_short(head) for head in range(256)]


def _long(payload: bytes, at: int) -> tuple[int, int]:
    """As `_short`, of a head with a number of one, two or four bytes behind it."""
    head = payload[at]
    width = _WIDTHS.get(head)
    if width is None:
        return 0, 0
    count = int.from_bytes(payload[at + 1 : at + 1 + width], "big")
    if head in (0xDC, 0xDD):
        return 1 + width, _list(count)
    if head in (0xDE, 0xDF):
        return 1 + width, _dict(count)
    if head in (0xC7, 0xC8, 0xC9):
        code = payload[at + 1 + width : at + 2 + width]
        return 2 + width + count, count + (_EMPTY.get(code[0], _SCALAR) if code else 0)
    if head < 0xD9:
        return 1 + width + count, 48 + count
    text = payload[at + 1 + width : at + 1 + width + count] if count >= _LONG_TEXT else b""
    return 1 + width + count, 80 + count if len(text) == count and text.isascii() and text else _text(count)


_WIDTHS: Final = {
    0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4,
}  # fmt: skip

# Whether a payload may become more memory than there is room, by what each ext code costs.
heavy_msgpack: Callable[[Payload, int, bytes], bool] = _heavy_msgpack if core is None else core.heavy_msgpack
