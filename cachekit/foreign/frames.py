"""Frames, series, indexes and scalars of pandas: each column as an array of numpy or a list of its values.

A column comes back with its dtype, an index with its class, names and frequency, a frame with its ``attrs``. Extension
types other than those of pandas itself are refused, as are classes derived from those of pandas.
"""

import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from cachekit.foreign.base import Block, Foreign


def _pandas() -> Any:
    return sys.modules["pandas"]


def _numpy() -> Any:
    return sys.modules["numpy"]


# Columns: a letter for the kind, then what it takes to make the values again


def _take_values(values: Any) -> list[Any]:
    """The parts of an extension array, which every series and index has."""
    arrays, dtype = _pandas().arrays, values.dtype
    if isinstance(dtype, _numpy().dtype) or type(values) is arrays.NumpyExtensionArray:
        array = values.to_numpy()
        return ["objects", list(array)] if _is_object(array.dtype) else ["array", array]
    for name, take in _TAKE.items():
        if type(values) is getattr(arrays, name, None):
            return take(values)
    if isinstance(dtype, _pandas().StringDtype):
        missing = values.isna()
        texts = [None if gone else str(text) for text, gone in zip(values, missing, strict=True)]
        return ["text", dtype.storage, dtype.na_value is _pandas().NA, texts]
    raise TypeError(f"a column of the dtype {dtype}")


def _make_values(parts: list[Any]) -> Any:
    kind, *rest = parts
    return _MAKE[kind](*rest)


def _make_array(array: Any) -> Any:
    if type(array) is not _numpy().ndarray or array.ndim != 1:
        raise TypeError("not a column")
    return _pandas().Series(array, copy=False).array


def _make_objects(items: list[Any]) -> Any:
    array = _numpy().empty(len(items), object)
    for at, item in enumerate(items):
        array[at] = item  # one by one: numpy would make more dimensions of lists
    return _pandas().Series(array, dtype=object, copy=False).array


def _make_text(storage: str, marked: bool, texts: list[Any]) -> Any:
    if storage != "python" and "pyarrow" not in sys.modules:
        raise LookupError("pyarrow is not imported")
    if not all(text is None or type(text) is str for text in texts):
        raise TypeError("not text")
    missing = _pandas().NA if marked else _numpy().nan
    return _pandas().array(texts, dtype=_pandas().StringDtype(storage, na_value=missing))


def _take_moments(values: Any) -> list[Any]:
    zone = values.dtype.tz
    return ["moments", values.tz_convert(None).to_numpy(), datetime(1970, 1, 1, tzinfo=zone)]


def _make_moments(array: Any, carrier: datetime) -> Any:
    index = _pandas().DatetimeIndex(_make_array(array))
    return index.tz_localize("UTC").tz_convert(carrier.tzinfo).array


def _take_masked(values: Any) -> list[Any]:
    return ["masked", values._data, values._mask]


def _make_masked(data: Any, mask: Any) -> Any:
    arrays = _pandas().arrays
    cls = {"b": arrays.BooleanArray, "f": arrays.FloatingArray}.get(data.dtype.kind, arrays.IntegerArray)
    if data.ndim != 1 or mask.shape != data.shape:
        raise ValueError("not a column")
    return cls(data, mask)


def _take_categories(values: Any) -> list[Any]:
    return ["categories", values.codes.copy(), values.categories, values.ordered]


def _make_categories(codes: Any, categories: Any, ordered: bool) -> Any:
    return _pandas().Categorical.from_codes(codes, categories, ordered=ordered)


def _take_periods(values: Any) -> list[Any]:
    return ["periods", values.asi8.copy(), values.freqstr]


def _make_periods(ordinals: Any, frequency: str) -> Any:
    return _pandas().PeriodIndex.from_ordinals(ordinals, freq=frequency).array


def _take_intervals(values: Any) -> list[Any]:
    return ["intervals", _take_values(values.left.array), _take_values(values.right.array), values.closed]


def _make_intervals(left: list[Any], right: list[Any], closed: str) -> Any:
    return _pandas().arrays.IntervalArray.from_arrays(_make_values(left), _make_values(right), closed)


def _take_arrow(values: Any) -> list[Any]:
    return ["arrow", sys.modules["pyarrow"].table({"": values.__arrow_array__()})]


def _make_arrow(table: Any) -> Any:
    return _pandas().arrays.ArrowExtensionArray(table.column(0))


_TAKE: Mapping[str, Callable[[Any], list[Any]]] = {
    "DatetimeArray": _take_moments,
    "IntegerArray": _take_masked,
    "FloatingArray": _take_masked,
    "BooleanArray": _take_masked,
    "PeriodArray": _take_periods,
    "IntervalArray": _take_intervals,
    "ArrowExtensionArray": _take_arrow,
    "Categorical": _take_categories,
}
_MAKE: Mapping[str, Callable[..., Any]] = {
    "array": _make_array,
    "objects": _make_objects,
    "text": _make_text,
    "moments": _make_moments,
    "masked": _make_masked,
    "categories": _make_categories,
    "periods": _make_periods,
    "intervals": _make_intervals,
    "arrow": _make_arrow,
}


# Indexes


def _take_index(value: Any) -> list[Any]:
    pandas, cls = _pandas(), type(value)
    if cls is pandas.RangeIndex:
        return [value.start, value.stop, value.step, value.name]
    if cls is pandas.MultiIndex:
        codes = [code.copy() if isinstance(code, _numpy().ndarray) else _numpy().array(code) for code in value.codes]
        return [list(value.levels), codes, list(value.names)]
    if cls not in _indexes():
        raise TypeError("a class derived from an index of pandas")
    frequency = getattr(value, "freq", None) if cls in (pandas.DatetimeIndex, pandas.TimedeltaIndex) else None
    if frequency is not None and pandas.tseries.frequencies.to_offset(frequency.freqstr) != frequency:
        raise TypeError("a frequency that its text does not tell in full")
    return [_take_values(value.array), value.name, None if frequency is None else frequency.freqstr]


def _make_index(cls: Any, parts: list[Any]) -> Any:
    pandas = _pandas()
    if cls is pandas.RangeIndex:
        start, stop, step, name = parts
        return pandas.RangeIndex(start, stop, step, name=name)
    if cls is pandas.MultiIndex:
        levels, codes, names = parts
        return pandas.MultiIndex(levels, codes, names=names)
    column, name, frequency = parts
    if cls not in _indexes():
        raise TypeError("not an index")
    values = _make_values(column)
    if frequency is not None:
        return cls(values, name=name, freq=frequency)
    index = pandas.Index(values, name=name, dtype=values.dtype, tupleize_cols=False)
    return _of(cls, index)


def _indexes() -> tuple[type, ...]:
    pandas = _pandas()
    return (
        pandas.Index, pandas.DatetimeIndex, pandas.TimedeltaIndex, pandas.CategoricalIndex, pandas.PeriodIndex,
        pandas.IntervalIndex,
    )  # fmt: skip


def _of(cls: Any, value: Any) -> Any:
    if type(value) is not cls:
        raise TypeError("not of this class")
    return value


# Series and frames


def _take_series(value: Any) -> list[Any]:
    if type(value) is not _pandas().Series:
        raise TypeError("a class derived from Series")
    return [value.index, value.name, *_take_notes(value), _take_values(value.array)]


def _make_series(cls: Any, parts: list[Any]) -> Any:
    index, name, attrs, unique, column = parts
    values = _make_values(column)
    series = _of(cls, _pandas().Series(values, index=index, name=name, dtype=values.dtype))
    return _put_notes(series, attrs, unique)


def _take_frame(value: Any) -> list[Any]:
    if type(value) is not _pandas().DataFrame:
        raise TypeError("a class derived from DataFrame")
    columns = [_take_values(value.iloc[:, at].array) for at in range(value.shape[1])]
    return [value.index, value.columns, *_take_notes(value), *columns]


def _make_frame(cls: Any, parts: list[Any]) -> Any:
    index, names, attrs, unique, *columns = parts
    if len(names) != len(columns):
        raise ValueError("names and columns do not go together")
    series = {}
    for at, column in enumerate(columns):
        values = _make_values(column)
        series[at] = _pandas().Series(values, index=index, dtype=values.dtype)
    frame = _of(cls, _pandas().DataFrame(series, index=index))
    frame.columns = names
    return _put_notes(frame, attrs, unique)


def _take_notes(value: Any) -> list[Any]:
    return [value.attrs, not value.flags.allows_duplicate_labels]


def _put_notes(value: Any, attrs: Any, unique: Any) -> Any:
    if type(attrs) is not dict:
        raise TypeError("attrs are a dict")
    value.attrs = attrs
    return value.set_flags(allows_duplicate_labels=False) if unique is True else value


# Scalars


def _take_timestamp(value: Any) -> list[Any]:
    if type(value) is not _pandas().Timestamp:
        raise TypeError("a class derived from Timestamp")
    if value.tz is None:
        if value.fold:
            raise TypeError("a Timestamp without a time zone and with a fold")
        return [value.asm8, None]
    return [value.asm8, datetime(1970, 1, 1, tzinfo=value.tz)]


def _make_timestamp(cls: Any, parts: list[Any]) -> Any:
    moment, carrier = parts
    value = _of(cls, cls(_of(_numpy().datetime64, moment)))
    return value if carrier is None else value.tz_localize("UTC").tz_convert(carrier.tzinfo)


def _take_timedelta(value: Any) -> list[Any]:
    if type(value) is not _pandas().Timedelta:
        raise TypeError("a class derived from Timedelta")
    return [value.asm8]


def _make_timedelta(cls: Any, parts: list[Any]) -> Any:
    (duration,) = parts
    return _of(cls, cls(_of(_numpy().timedelta64, duration)))


def _take_nothing(value: Any) -> list[Any]:
    return []


def _make_missing(cls: Any, parts: list[Any]) -> Any:
    () = parts
    return next(value for value in (_pandas().NA, _pandas().NaT) if type(value) is cls)


# In L1


def _has_no_objects(value: Any) -> bool:
    """Whether a copy by pandas is one of everything: it copies neither objects within columns nor categories."""
    if type(value) not in (_pandas().DataFrame, _pandas().Series) or value.attrs:
        return False
    if any(type(axis) is _pandas().CategoricalIndex for axis in value.axes):
        return False
    dtypes = [value.dtype] if value.ndim == 1 else list(value.dtypes)
    return all(isinstance(dtype, (_numpy().dtype, *_dtypes())) and not _is_object(dtype) for dtype in dtypes)


def _is_object(dtype: Any) -> bool:
    return bool(getattr(dtype, "char", "") == "O")


def _dtypes() -> tuple[type, ...]:
    pandas = _pandas()
    return (
        pandas.DatetimeTZDtype, pandas.StringDtype, pandas.PeriodDtype, pandas.IntervalDtype, pandas.ArrowDtype,
        pandas.BooleanDtype, pandas.Int64Dtype.__base__, pandas.Float64Dtype.__base__,
    )  # fmt: skip


def _copy(value: Any) -> Any:
    return value.copy(deep=True)


def _size(value: Any) -> int:
    used = value.memory_usage(index=True, deep=True)
    return 500 + int(used if value.ndim == 1 else used.sum())


def _is_index(value: Any) -> bool:
    return type(value) in (_pandas().RangeIndex, _pandas().MultiIndex, *_indexes())


def _copy_index(value: Any) -> Any:
    """With names and frequency of its own, and those of what it consists of; the elements cannot be changed."""
    pandas = _pandas()
    if type(value) is pandas.CategoricalIndex:
        categories = pandas.CategoricalDtype(_copy_index(value.categories), value.ordered)
        return pandas.CategoricalIndex(pandas.Categorical.from_codes(value.codes, dtype=categories), name=value.name)
    return value.copy(deep=True) if type(value) is pandas.IntervalIndex else value.view()


def _size_of_index(value: Any) -> int:
    return 200 + int(value.memory_usage(deep=True))


_FRAME = Foreign(_take_frame, _make_frame, Block(_has_no_objects, _copy, _size))
_SERIES = Foreign(_take_series, _make_series, Block(_has_no_objects, _copy, _size))
_INDEX = Foreign(_take_index, _make_index, Block(_is_index, _copy_index, _size_of_index))
_MISSING = Foreign(_take_nothing, _make_missing, leaf=True)

KNOWN: Mapping[str, Foreign] = {  # with the names of pandas 3, then those before
    "pandas:DataFrame": _FRAME,
    "pandas:Series": _SERIES,
    "pandas:Index": _INDEX,
    "pandas:Timestamp": Foreign(_take_timestamp, _make_timestamp, leaf=True),
    "pandas:Timedelta": Foreign(_take_timedelta, _make_timedelta, leaf=True),
    "pandas.api.typing:NAType": _MISSING,
    "pandas.api.typing:NaTType": _MISSING,
    "pandas.core.frame:DataFrame": _FRAME,
    "pandas.core.series:Series": _SERIES,
    "pandas.core.indexes.base:Index": _INDEX,
    "pandas._libs.tslibs.timestamps:Timestamp": Foreign(_take_timestamp, _make_timestamp, leaf=True),
    "pandas._libs.tslibs.timedeltas:Timedelta": Foreign(_take_timedelta, _make_timedelta, leaf=True),
    "pandas._libs.missing:NAType": _MISSING,
    "pandas._libs.tslibs.nattype:NaTType": _MISSING,
}
