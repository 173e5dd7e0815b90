"""Arrays and scalars of numpy, as the bytes of their elements under a description of their dtype.

Arrays come back writeable and contiguous, in C order, or in Fortran order if they were. Objects within arrays are
refused, as are subclasses of ndarray (masked arrays, records, memory maps) and dtypes that numpy does not bring itself.
"""

import re
import sys
from collections.abc import Mapping
from math import prod
from sys import getsizeof
from typing import Any

from cachekit.foreign.base import Block, Foreign

_OBJECT = 112  # bytes of an array beside its elements
_MAX_DIMENSIONS = 64
_MAX_CODE_POINT = 0x10FFFF
_SIMPLE = re.compile(r"[<>|][?biufcSUVmM][0-9]{1,9}(\[[0-9]{0,9}(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?")
_LONG = "gG"  # long double, whose bytes mean different numbers on different processors


def _numpy() -> Any:
    return sys.modules["numpy"]


# dtypes: a text, [itemsize, aligned, [name, title, offset, dtype], ...] for structures, [dtype, shape] for subarrays


def _describe(dtype: Any) -> Any:
    """What `_dtype` makes the same dtype of. Raises TypeError where there is no such thing."""
    if dtype.hasobject:
        raise TypeError("an array of Python objects")
    description = _parts_of(dtype)
    if _dtype(description) != dtype or dtype.metadata:
        raise TypeError(f"the dtype {dtype} would not come back as it is")
    return description


def _parts_of(dtype: Any) -> Any:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [_describe(base), list(shape)]
    if dtype.names is not None:
        if dtype.type is not _numpy().void:
            raise TypeError("an array of records")
        return [dtype.itemsize, dtype.isalignedstruct, *(_field(name, *dtype.fields[name]) for name in dtype.names)]
    return f"{dtype.str}:{_precision()}" if dtype.char in _LONG else dtype.str


def _field(name: str, dtype: Any, offset: int, title: str | None = None) -> list[Any]:
    return [name, title, offset, _describe(dtype)]


def _precision() -> int:
    return int(_numpy().finfo(_numpy().longdouble).nmant)


def _dtype(description: Any) -> Any:
    """The dtype of a description, which may be anything."""
    if type(description) is str:
        text, _, precision = description.partition(":")
        if _SIMPLE.fullmatch(text) is None or (precision and precision != str(_precision())):
            raise ValueError("not a dtype")
        return _numpy().dtype(text)
    if len(description) == 2 and type(description[1]) is list:
        return _numpy().dtype((_dtype(description[0]), _shape(description[1])))
    itemsize, aligned, *fields = description
    return _numpy().dtype(
        {
            "names": [_text(field[0]) for field in fields],
            "titles": [field[1] if field[1] is None else _text(field[1]) for field in fields],
            "offsets": [_count(field[2]) for field in fields],
            "formats": [_dtype(field[3]) for field in fields],
            "itemsize": _count(itemsize),
        },
        align=aligned is True,
    )


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("not a name")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("not a count")
    return value


def _shape(value: Any) -> tuple[int, ...]:
    if len(value) > _MAX_DIMENSIONS:
        raise ValueError("too many dimensions")
    return tuple(map(_count, value))


# Arrays: dtype, shape, whether in Fortran order, bytes


def _take_array(value: Any) -> list[Any]:
    if type(value) is not _numpy().ndarray:
        raise TypeError("a subclass of ndarray")
    if not value.itemsize and value.size:
        raise TypeError("an array of elements without bytes")
    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    return [_describe(value.dtype), list(value.shape), fortran, _bytes(value, "F" if fortran else "C")]


def _bytes(value: Any, order: str) -> bytes:
    if value.dtype.names is not None:  # between fields lies whatever was in memory there before
        clean = _numpy().zeros(value.shape, value.dtype, order)
        _fill(clean, value)
        value = clean
    data: bytes = value.tobytes(order)
    return data


def _fill(clean: Any, value: Any) -> None:
    """Field by field: as a whole some versions of numpy copy what lies between as well."""
    for name in value.dtype.names:
        if clean.dtype[name].base.names is None:
            clean[name] = value[name]
        else:
            _fill(clean[name], value[name])


def _make_array(cls: Any, parts: list[Any]) -> Any:
    description, shape, fortran, data = parts
    if cls is not _numpy().ndarray:
        raise TypeError("a subclass of ndarray")
    return _array(_dtype(description), _shape(shape), "F" if fortran is True else "C", data)


def _array(dtype: Any, shape: tuple[int, ...], order: str, data: Any) -> Any:
    """An array of its own of these bytes, which are exactly as many as it needs."""
    count = prod(shape)
    if type(data) is not bytes or count * dtype.itemsize != len(data) or (count and not data):
        raise ValueError("shape, dtype and bytes do not go together")
    if not count:
        return _numpy().empty(shape, dtype, order)
    view = _numpy().ndarray(shape, dtype, data, order=order)
    if dtype.kind == "U" and _numpy().frombuffer(data, dtype.byteorder + "u4").max() > _MAX_CODE_POINT:
        raise ValueError("not text")
    return view.copy(order)


def _is_array(value: Any) -> bool:
    return type(value) is _numpy().ndarray and not value.dtype.hasobject


def _size_of_array(value: Any) -> int:
    return _OBJECT + int(value.nbytes)  # what is kept is a copy, also of a part of a larger array


# Scalars: the dtype and the bytes; of str_ and bytes_, which numpy would strip of zeros at the end, the value itself


def _take_scalar(value: Any) -> list[Any]:
    cls = type(value)
    if cls is not value.dtype.type or not cls.__module__.startswith("numpy"):
        raise TypeError("a class derived from a scalar of numpy")
    return [_describe(value.dtype), _bytes(value, "C")]


def _make_scalar(cls: Any, parts: list[Any]) -> Any:
    description, data = parts
    dtype = _dtype(description)
    value = _array(dtype, (), "C", data)[()]
    if type(value) is not cls and dtype == _numpy().dtype(cls).newbyteorder(dtype.byteorder):
        value = cls(value)  # of two integers of one size, as long and long long, one has the name
    if type(value) is not cls:
        raise TypeError("not of this class")
    return value


def _take_text(value: Any) -> list[Any]:
    if type(value) is not _numpy().str_:
        raise TypeError("a class derived from a scalar of numpy")
    return [str.__str__(value)]


def _take_bytes(value: Any) -> list[Any]:
    if type(value) is not _numpy().bytes_:
        raise TypeError("a class derived from a scalar of numpy")
    return [bytes.__getitem__(value, slice(None))]


def _make_text(cls: Any, parts: list[Any]) -> Any:
    (text,) = parts
    return cls(_text(text))


def _make_bytes(cls: Any, parts: list[Any]) -> Any:
    (data,) = parts
    if type(data) is not bytes:
        raise TypeError("not bytes")
    return cls(data)


def _copy(value: Any) -> Any:
    return value.copy("A")  # the order that it has


def _same(value: Any) -> Any:
    return value


def _has_no_objects(value: Any) -> bool:
    return not value.dtype.hasobject


def _always(value: Any) -> bool:
    return True


_TEXT = Block(_always, _same, getsizeof, shared=True)

KNOWN: Mapping[str, Foreign] = {
    "numpy:ndarray": Foreign(_take_array, _make_array, Block(_is_array, _copy, _size_of_array)),
    "numpy:str_": Foreign(_take_text, _make_text, _TEXT),
    "numpy:bytes_": Foreign(_take_bytes, _make_bytes, _TEXT),
    "numpy:void": Foreign(_take_scalar, _make_scalar, Block(_has_no_objects, _copy, getsizeof)),
    "numpy:generic": Foreign(_take_scalar, _make_scalar, leaf=True),
}
