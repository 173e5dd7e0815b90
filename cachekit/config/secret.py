"""Values that nobody must see: whatever prints, logs or copies what holds them shows stars."""

from collections.abc import Mapping
from typing import Any, Final, NoReturn, SupportsIndex, overload

STARS: Final = "***"


class Secret(bytes):
    """The bytes of a key. They work as bytes do, and are shown, formatted and logged as stars, and not pickled.

    So they may stand in dataclasses, in containers and in local variables, which loggers and tracebacks show.
    """

    __slots__ = ()

    @classmethod
    def of(cls, key: "bytes | str") -> "Secret":
        """A key as it is, or in hexadecimal digits."""
        return key if isinstance(key, Secret) else cls(bytes.fromhex(key) if isinstance(key, str) else key)

    def __repr__(self) -> str:
        return STARS

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return STARS

    @overload
    def __getitem__(self, at: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, at: slice, /) -> "Secret": ...
    def __getitem__(self, at: SupportsIndex | slice, /) -> "int | Secret":
        part = super().__getitem__(at)
        return Secret(part) if isinstance(part, bytes) else part  # printers that shorten show a part

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("keys are not pickled; each process reads them from its own environment")


class Hidden(dict[str, Any]):
    """A table that may hold secrets (settings from code, the environment), for frames that a traceback may show."""

    def __repr__(self) -> str:
        return f"<{len(self)} values, not shown>"

    __str__ = __repr__


def hidden(table: Mapping[str, Any]) -> Hidden:
    """The same table, copied once."""
    return table if isinstance(table, Hidden) else Hidden(table)
