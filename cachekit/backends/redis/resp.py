"""Bytes of the Redis protocol, version 2: commands out, replies in. Without hiredis a slower reader takes its place."""

from typing import Any, Final, Protocol, TypeAlias

hiredis: Any
try:
    import hiredis
except ImportError:  # PyPy and platforms without a wheel
    hiredis = None

Word: TypeAlias = bytes | str | int


class ReplyError(Exception):
    """The server answered with an error; its first word is the code."""

    @property
    def code(self) -> str:
        return str(self).partition(" ")[0]


class ProtocolError(Exception):
    """What came is not the Redis protocol."""


class Pending:
    """Type of the one object that means: more bytes are needed."""

    def __repr__(self) -> str:
        return "PENDING"


PENDING: Final = Pending()


class Reader(Protocol):
    """Takes bytes as they come, gives one reply at a time. Error replies come as `ReplyError` objects."""

    def feed(self, data: bytes, /) -> Any: ...
    def gets(self) -> Any: ...
    def has_data(self) -> bool: ...


def new_reader() -> Reader:
    if hiredis is None:
        return PlainReader()
    reader: Reader = hiredis.Reader(protocolError=ProtocolError, replyError=ReplyError, notEnoughData=PENDING)
    return reader


def pack(words: tuple[Word, ...]) -> bytes:
    """One command."""
    if hiredis is not None:
        packed: bytes = hiredis.pack_command(words)
        return packed
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if type(word) is bytes else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


class Incomplete(Exception):
    """Internal: the reply has not arrived in full."""


class PlainReader:
    """As hiredis.Reader, in Python."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0

    def feed(self, data: bytes, /) -> None:
        self._buffer += data

    def has_data(self) -> bool:
        return bool(self._buffer)

    def gets(self) -> Any:
        self._at = 0
        try:
            reply = self._parse()
        except Incomplete:
            return PENDING
        del self._buffer[: self._at]
        return reply

    def _parse(self) -> Any:
        kind, rest = self._line()
        if kind == b"+":
            return rest
        if kind == b"-":
            return ReplyError(rest.decode(errors="replace"))
        number = self._number(kind, rest)
        if kind == b":":
            return number
        if number < 0:
            return None
        if kind == b"*":
            return [self._parse() for _ in range(number)]
        return self._bulk(number)

    def _line(self) -> tuple[bytes, bytes]:
        if self._buffer and self._buffer[0] not in b"+-:$*":
            raise ProtocolError(f"Protocol error, got {bytes(self._buffer[:1])!r} as reply type byte")
        end = self._buffer.find(b"\r\n", self._at)
        if end < 0:
            raise Incomplete
        line = bytes(self._buffer[self._at : end])
        self._at = end + 2
        return line[:1], line[1:]

    def _number(self, kind: bytes, rest: bytes) -> int:
        if kind not in (b":", b"$", b"*"):
            raise ProtocolError(f"Protocol error, got {kind!r} as reply type byte")
        try:
            return int(rest)
        except ValueError:
            raise ProtocolError("Protocol error, bad length or integer") from None

    def _bulk(self, length: int) -> bytes:
        start, end = self._at, self._at + length
        if len(self._buffer) < end + 2:
            raise Incomplete
        if self._buffer[end : end + 2] != b"\r\n":
            raise ProtocolError("Protocol error, a bulk string longer than its length")
        self._at = end + 2
        return bytes(self._buffer[start:end])
