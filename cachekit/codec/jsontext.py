"""Values as JSON, for readers in other languages: what JSON cannot hold exactly is refused, never altered."""

import json
from typing import Any, Final, NoReturn

from cachekit.codec.base import JSON
from cachekit.codec.classes import Refused, at, describe
from cachekit.codec.depth import MAX_DEPTH, deep_json
from cachekit.config.spec import CodecSpec

MAX_INT_BITS: Final = 2048  # 617 digits; Python may be told to refuse texts of more than 640
_BY_THEMSELVES: Final = frozenset((bool, type(None)))
_INFINITE: Final = (float("inf"), float("-inf"))


class JSONSerializer:
    """``serializer = "json"``. Safe to share between threads."""

    code = JSON

    def __init__(self, spec: CodecSpec) -> None:
        self._limit = spec.max_value_bytes

    def dumps(self, value: Any, /) -> bytes:
        """The value as UTF-8 text. Raises `Unstorable` with the path to what JSON cannot hold."""
        try:
            _Check(self._limit).look(value, 0)
        except Refused as refused:
            raise refused.unstorable() from None
        return _write(value).encode()

    def loads(self, payload: bytes, /) -> Any:
        """The value. Raises ValueError for what is not JSON, and RecursionError where it is too deep."""
        if deep_json(payload, MAX_DEPTH):
            raise RecursionError("nested too deep")
        return json.loads(str(payload, "utf-8"), parse_constant=_refuse_constant)


_write = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Check:
    """One walk over a value. Raises `Refused`.

    ``room`` bounds the number of items, so that a small web of shared lists cannot grow into an endless text.
    """

    __slots__ = ("_room",)

    def __init__(self, room: int) -> None:
        self._room = room

    def look(self, value: Any, depth: int) -> None:
        cls = type(value)
        if cls in _BY_THEMSELVES:
            return
        if cls is str:
            if not (value.isascii() or _is_utf8(value)):
                raise Refused("type", "text with a lone surrogate as JSON")
        elif cls is int:
            if value.bit_length() > MAX_INT_BITS:
                raise Refused("type", f"an int of more than {MAX_INT_BITS} bits as JSON")
        elif cls is float:
            if value != value or value in _INFINITE:
                raise Refused("type", f"the float {value!r} as JSON")
        elif cls is dict:
            self._dict(value, depth)
        elif cls is list:
            self._list(value, depth)
        else:
            raise Refused("type", f"{describe(cls)} as JSON")

    def _enter(self, size: int, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise Refused("depth", f"a value nested more than {MAX_DEPTH} deep, or within itself")
        self._room -= size
        if self._room < 0:
            raise Refused("size", "a value with more items than max_value_bytes")

    def _dict(self, value: dict[Any, Any], depth: int) -> None:
        self._enter(len(value), depth)
        key: Any = None
        try:
            for key, item in value.items():
                if type(key) is not str:
                    raise Refused("type", f"a key of type {describe(type(key))} as JSON")
                self.look(key, depth)
                self.look(item, depth + 1)
        except Refused as refused:
            refused.path.append(at(key))
            raise

    def _list(self, value: list[Any], depth: int) -> None:
        self._enter(len(value), depth)
        seen = 0
        try:
            for item in value:
                self.look(item, depth + 1)
                seen += 1
        except Refused as refused:
            refused.path.append(f"[{seen}]")
            raise
