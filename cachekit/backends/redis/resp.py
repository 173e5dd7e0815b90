"""Bytes of the Redis protocol, versions 2 and 3: commands out, replies in. Without hiredis a slower reader serves."""

from collections.abc import Callable
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


class Push(list[Any]):
    """What the server says of its own accord; anything else is the answer to a question."""


PUSHES: Final[tuple[type, ...]] = (Push,) if hiredis is None else (Push, hiredis.PushNotification)


def is_push(reply: Any) -> bool:
    return isinstance(reply, PUSHES)


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
        line = self._line()
        read = KINDS.get(line[:1])
        if read is None:
            raise ProtocolError(f"Protocol error, got {line[:1]!r} as reply type byte")
        return read(self, line[1:])

    def _line(self) -> bytes:
        # A first byte that is wrong is told before the end of its line, which may never come.
        if self._at < len(self._buffer) and bytes(self._buffer[self._at : self._at + 1]) not in KINDS:
            raise ProtocolError(
                f"Protocol error, got {bytes(self._buffer[self._at : self._at + 1])!r} as reply type byte"
            )
        end = self._buffer.find(b"\r\n", self._at)
        if end < 0:
            raise Incomplete
        line = bytes(self._buffer[self._at : end])
        self._at = end + 2
        return line

    def _list(self, rest: bytes) -> list[Any] | None:
        count = whole(rest)
        return None if count < 0 else [self._parse() for _ in range(count)]

    def _push(self, rest: bytes) -> Push | None:
        items = self._list(rest)
        return None if items is None else Push(items)

    def _map(self, rest: bytes) -> dict[Any, Any] | None:
        count = whole(rest)
        return None if count < 0 else {self._parse(): self._parse() for _ in range(count)}

    def _text(self, rest: bytes) -> bytes | None:
        """With a format in front, as in ``txt:``."""
        text = self._bulk(rest)
        if text is not None and text[3:4] != b":":
            raise ProtocolError("Protocol error, a text without its format")
        return None if text is None else text[4:]

    def _bulk(self, rest: bytes) -> bytes | None:
        length = whole(rest)
        if length < 0:
            return None
        start, end = self._at, self._at + length
        if len(self._buffer) < end + 2:
            raise Incomplete
        if self._buffer[end : end + 2] != b"\r\n":
            raise ProtocolError("Protocol error, a bulk string longer than its length")
        self._at = end + 2
        return bytes(self._buffer[start:end])


def whole(rest: bytes) -> int:
    try:
        return int(rest)
    except ValueError:
        raise ProtocolError("Protocol error, bad length or integer") from None


def fraction(rest: bytes) -> float:
    try:
        return float(rest)
    except ValueError:
        raise ProtocolError("Protocol error, bad double value") from None


def nothing(rest: bytes) -> None:
    if rest:
        raise ProtocolError("Protocol error, bad nil value")


def truth(rest: bytes) -> bool:
    if rest not in (b"t", b"f"):
        raise ProtocolError("Protocol error, bad bool value")
    return rest == b"t"


def large(rest: bytes) -> bytes:
    """As hiredis gives it: digits."""
    whole(rest)
    return rest


KINDS: Final[dict[bytes, Callable[[PlainReader, bytes], Any]]] = {
    b"+": lambda _, rest: rest,
    b"-": lambda _, rest: ReplyError(rest.decode(errors="replace")),
    b":": lambda _, rest: whole(rest),
    b"$": PlainReader._bulk,
    b"*": PlainReader._list,
    # Version 3:
    b">": PlainReader._push,
    b"~": PlainReader._list,
    b"%": PlainReader._map,
    b"=": PlainReader._text,
    b"_": lambda _, rest: nothing(rest),
    b"#": lambda _, rest: truth(rest),
    b",": lambda _, rest: fraction(rest),
    b"(": lambda _, rest: large(rest),
}
