"""How deep stored bytes are nested, before a decoder goes down there.

Decoders call themselves for what lies inside of what, so a kilobyte that somebody forged would be the end of a thread
with a small stack, and of the process. Few payloads have as many containers as may lie within one another: the others
are read here from head to head, in one pass and without going down.
"""

import re
from collections.abc import Callable
from itertools import accumulate
from typing import Final

from cachekit.codec.weight import measure
from cachekit.l1.table import core

MAX_DEPTH: Final = 256  # containers within containers

_HEADS: Final = bytes((*range(0x80, 0xA0), *range(0xDC, 0xE0)))
_LONG_HEADS: Final = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}  # with the bytes of the number that follows
_STRINGS: Final = re.compile(rb'"(?:[^"\\]+|\\.?)*+"?', re.DOTALL)
_BRACKETS: Final = b"[{]}"
_NO_BRACKETS: Final = bytes(set(range(256)).difference(_BRACKETS))

Payload = bytes | memoryview


def _deep_msgpack(payload: Payload, limit: int) -> bool:
    if len(payload) <= limit:
        return False
    payload = bytes(payload)
    if len(payload) - len(payload.translate(None, _HEADS)) <= limit:
        return False
    left: list[int] = []  # items of each container that are still to come
    at = 0
    while at < len(payload):
        length, _ = measure(payload, at)
        if not length:
            return False
        if left:
            left[-1] -= 1
        if payload[at] in _HEADS:
            if len(left) >= limit:
                return True
            left.append(_items(payload, at))
        at += length
        while left and not left[-1]:
            left.pop()
        if not left:
            return False
    return False


def _items(payload: bytes, at: int) -> int:
    head, width = payload[at], _LONG_HEADS.get(payload[at])
    count = head & 15 if width is None else int.from_bytes(payload[at + 1 : at + 1 + width], "big")
    return 2 * count if head < 0x90 or head >= 0xDE else count


def _deep_json(payload: Payload, limit: int) -> bool:
    if len(payload) <= limit:
        return False
    payload = bytes(payload)
    if payload.count(b"[") + payload.count(b"{") <= limit:
        return False
    brackets = _STRINGS.sub(b"", payload).translate(None, _NO_BRACKETS)
    return max(accumulate(1 if bracket in b"[{" else -1 for bracket in brackets), default=0) > limit


# Whether more than ``limit`` containers lie within one another. What is no msgpack, or no JSON, is for the decoder.
deep_msgpack: Callable[[Payload, int], bool] = _deep_msgpack if core is None else core.deep_msgpack
deep_json: Callable[[Payload, int], bool] = _deep_json if core is None else core.deep_json
