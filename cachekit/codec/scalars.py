"""Values without parts: each becomes one msgpack ext, a code and a few bytes, and comes back as the type that it was.

`ENCODE` maps an exact type to code and writer, `DECODE` a code to its reader. Readers may raise anything: the bytes may
be anything. Codes are part of format 1; the table in `serializers` names them all.
"""

import os
import re
import struct
import zoneinfo
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from functools import lru_cache
from importlib.util import find_spec
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any
from uuid import UUID, SafeUUID

from cachekit.codec.classes import Refused, describe, find_enum, name_of

INT, STR, BYTEARRAY, COMPLEX, DECIMAL, UUID_, DATE, DATETIME, TIME, TIMEDELTA, PATH, ENUM, FLAG = range(1, 14)

MAX_INT_BYTES = 128 * 1024
_DATE = struct.Struct(">HBB")
_DATETIME = struct.Struct(">HBBBBBIB")  # ..., microsecond, fold
_TIME = struct.Struct(">BBBIB")
_TIMEDELTA = struct.Struct(">iii")
_COMPLEX = struct.Struct(">dd")
_OFFSET = struct.Struct(">iii")
_PATHS: dict[str, type[PurePath]] = {"p": PurePosixPath, "w": PureWindowsPath, "P": PosixPath, "W": WindowsPath}
_PATH_LETTERS = {cls: letter for letter, cls in _PATHS.items()}
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")


def _write_int(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    if size > MAX_INT_BYTES:
        raise Refused("size", f"an int of more than {MAX_INT_BYTES} bytes")
    return value.to_bytes(size, "big", signed=True)


def _read_int(data: bytes) -> int:
    if not 0 < len(data) <= MAX_INT_BYTES:
        raise ValueError("length of an int")
    return int.from_bytes(data, "big", signed=True)


def text_bytes(value: str) -> bytes:
    """UTF-8 that can hold any str, lone surrogates too."""
    return value.encode("utf-8", "surrogatepass")


def _read_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _write_complex(value: complex) -> bytes:
    return _COMPLEX.pack(value.real, value.imag)


def _read_complex(data: bytes) -> complex:
    return complex(*_COMPLEX.unpack(data))


def _write_decimal(value: Decimal) -> bytes:
    return str(value).encode("ascii")


def _read_decimal(data: bytes) -> Decimal:
    return Decimal(data.decode("ascii"))


_SAFETY = {b"": SafeUUID.unknown, b"\0": SafeUUID.safe, b"\1": SafeUUID.unsafe}
_SAFETY_BYTES = {safety: data for data, safety in _SAFETY.items()}


def _write_uuid(value: UUID) -> bytes:
    return value.int.to_bytes(16, "big") + _SAFETY_BYTES[value.is_safe]


def _read_uuid(data: bytes) -> UUID:
    if len(data) < 16:
        raise ValueError("length of a UUID")
    return UUID(int=int.from_bytes(data[:16], "big"), is_safe=_SAFETY[data[16:]])


def _write_date(value: date) -> bytes:
    return _DATE.pack(value.year, value.month, value.day)


def _read_date(data: bytes) -> date:
    return date(*_DATE.unpack(data))


def _write_datetime(value: datetime) -> bytes:
    fields = _DATETIME.pack(
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, value.fold
    )
    return fields if value.tzinfo is None else fields + _write_zone(value.tzinfo)


def _read_datetime(data: bytes) -> datetime:
    year, month, day, hour, minute, second, micro, fold = _DATETIME.unpack_from(data)
    zone = _read_zone(data[_DATETIME.size :])
    return datetime(year, month, day, hour, minute, second, micro, zone, fold=fold)


def _write_time(value: time) -> bytes:
    fields = _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    return fields if value.tzinfo is None else fields + _write_zone(value.tzinfo)


def _read_time(data: bytes) -> time:
    hour, minute, second, micro, fold = _TIME.unpack_from(data)
    return time(hour, minute, second, micro, _read_zone(data[_TIME.size :]), fold=fold)


def _write_timedelta(value: timedelta) -> bytes:
    return _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)


def _read_timedelta(data: bytes) -> timedelta:
    return timedelta(*_TIMEDELTA.unpack(data))


def _write_zone(zone: tzinfo) -> bytes:
    """``U`` for UTC, ``F`` a fixed offset with or without ``N`` and a name, ``Z`` and the key of a ZoneInfo."""
    if zone is UTC:
        return b"U"
    if type(zone) is timezone:
        # Only this tells a given name from one made of the offset.
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        data = b"F" + _OFFSET.pack(offset.days, offset.seconds, offset.microseconds)
        return data + b"N" + text_bytes(name[0]) if name else data
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        return b"Z" + zone.key.encode()
    raise Refused("type", f"the time zone {describe(type(zone))}; timezone and ZoneInfo by key can be stored")


def _read_zone(data: bytes) -> tzinfo | None:
    kind, rest = data[:1], data[1:]
    if not kind:
        return None
    if kind == b"U" and not rest:
        return UTC
    if kind == b"Z":
        return _zone(rest.decode("ascii"))
    if kind == b"F":
        offset = timedelta(*_OFFSET.unpack_from(rest))
        name = rest[_OFFSET.size :]
        if not name:
            return timezone(offset)
        if name[:1] == b"N":
            return timezone(offset, _read_text(name[1:]))
    raise ValueError("kind of a time zone")


@lru_cache(maxsize=1024)
def _zone(key: str) -> zoneinfo.ZoneInfo:
    # ZoneInfo looks for an unknown key with an import of tzdata.zoneinfo.<key>: bytes must not choose that.
    if not _ZONE.fullmatch(key):
        raise ValueError("key of a time zone")
    if not any(os.path.isfile(os.path.join(root, key)) for root in (*zoneinfo.TZPATH, *_packaged())):  # noqa: PTH113, PTH118
        raise LookupError("no such time zone here")
    return zoneinfo.ZoneInfo(key)


@lru_cache(maxsize=1)
def _packaged() -> tuple[str, ...]:
    """Where the package tzdata has its zones, for systems that have none. `available_timezones` would import it. Texts
    and not paths, as `TZPATH` has."""
    spec = find_spec("tzdata")
    return tuple([os.path.join(place, "zoneinfo") for place in (spec and spec.submodule_search_locations) or ()])  # noqa: PTH118


def _write_path(value: PurePath) -> bytes:
    cls, text = type(value), str(value)
    if cls(text) != value:  # older Pythons lose the dot of PureWindowsPath("./c:a")
        raise Refused("type", f"{describe(cls)} that its text does not tell in full")
    return text_bytes(_PATH_LETTERS[cls] + text)


def _read_path(data: bytes) -> PurePath:
    text = _read_text(data)
    return _PATHS[text[:1]](text[1:])


def enum_parts(value: Enum) -> tuple[int, bytes]:
    """Code and bytes of a member: by its name, a Flag by its number, since a combination has no name of its own."""
    cls = type(value)
    if isinstance(value, Flag):
        return FLAG, f"{name_of(cls)}\0{value._value_:d}".encode()
    if cls._member_map_.get(value._name_) is not value:
        raise Refused("type", f"a {describe(cls)} that is not a member of its class")
    return ENUM, _member(cls, value._name_)


@lru_cache(maxsize=4096)
def _member(cls: type[Enum], name: str) -> bytes:
    """Asked once for each member: to make sure that the class is found again takes longer than all the rest."""
    return text_bytes(f"{name_of(cls)}\0{name}")


def _read_enum(data: bytes) -> Enum:
    name, _, member = _read_text(data).partition("\0")
    return find_enum(name, flag=False)._member_map_[member]


def _read_flag(data: bytes) -> Enum:
    name, _, number = data.decode().partition("\0")
    cls = find_enum(name, flag=True)
    value = int(number)
    # A combination is made by Flag's own code, not by a _missing_ or __new__ of the application.
    known = cls._value2member_map_.get(value)
    flag: Any = Flag._missing_.__func__(cls, value) if known is None else known  # type: ignore[attr-defined]
    if type(flag) is not cls or flag._value_ != value:
        raise ValueError("not a value of this Flag")
    found: Enum = flag
    return found


Writer = Callable[[Any], bytes]
Reader = Callable[[bytes], Any]

ENCODE: dict[type, tuple[int, Writer]] = {
    bytearray: (BYTEARRAY, bytes),
    complex: (COMPLEX, _write_complex),
    Decimal: (DECIMAL, _write_decimal),
    UUID: (UUID_, _write_uuid),
    date: (DATE, _write_date),
    datetime: (DATETIME, _write_datetime),
    time: (TIME, _write_time),
    timedelta: (TIMEDELTA, _write_timedelta),
    **dict.fromkeys(_PATH_LETTERS, (PATH, _write_path)),
}

# What msgpack has no room for; only used once the encoder has met one.
ENCODE_EXACT: dict[type, tuple[int, Writer]] = {int: (INT, _write_int), str: (STR, text_bytes)}

DECODE: dict[int, Reader] = {
    INT: _read_int,
    STR: _read_text,
    BYTEARRAY: bytearray,
    COMPLEX: _read_complex,
    DECIMAL: _read_decimal,
    UUID_: _read_uuid,
    DATE: _read_date,
    DATETIME: _read_datetime,
    TIME: _read_time,
    TIMEDELTA: _read_timedelta,
    PATH: _read_path,
    ENUM: _read_enum,
    FLAG: _read_flag,
}
