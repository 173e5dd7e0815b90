"""Frames, series and indexes of pandas come back with their dtypes, indexes and attrs, or are refused."""

import importlib
from typing import Any

import msgpack
import numpy as np
import pandas as pd
import pytest

from cachekit.codec.envelope import Damaged
from cachekit.codec.serializers import MARKED, dump, load
from cachekit.errors import Unstorable
from cachekit.l1 import values
from cachekit.l1.table import TWIN

TWINS = {"pure": values, **({"native": importlib.import_module("cachekit._native")} if TWIN == "native" else {})}


def stored(value: Any) -> Any:
    return load(*dump(value, plain=False, limit=1 << 24))


def every_column() -> Any:
    return pd.DataFrame(
        {
            "int": [1, 2, 3], "small": np.array([1, 2, 3], "i1"), "float": [1.5, float("nan"), 3],
            "complex": [1j, 2, 3],
            "bool": [True, False, True], "text": ["x", None, "z"], "string": pd.array(["a", None, "b"], dtype="string"),
            "moment": pd.date_range("2026", periods=3), "zoned": pd.date_range("2026", periods=3, tz="Europe/Paris"),
            "utc": pd.date_range("2026", periods=3, tz="UTC").as_unit("s"), "span": pd.to_timedelta([1, 2, None]),
            "category": pd.Categorical(["a", "b", None], ["b", "a"], ordered=True),
            "Int64": pd.array([1, None, 3], dtype="Int64"), "UInt8": pd.array([1, None, 3], dtype="UInt8"),
            "Float32": pd.array([1.5, None, 3], dtype="Float32"), "boolean": pd.array([True, None, False]),
            "period": pd.period_range("2026", periods=3, freq="M"), "interval": pd.interval_range(0, 3),
        },
        index=pd.date_range("2021", periods=3, freq="D", name="when"),
    )  # fmt: skip


def with_attrs() -> Any:
    frame = pd.DataFrame({"a": [1]})
    frame.attrs = {"source": ["x", (1,)]}
    return frame


FRAMES = {
    "every column": every_column(),
    "objects": pd.DataFrame({"a": [[1], {"b": (2,)}, None], "b": [1, "x", pd.NA]}, dtype=object),
    "attrs": with_attrs(),
    "empty": pd.DataFrame(),
    "no columns": pd.DataFrame(index=range(3)),
    "no rows": pd.DataFrame(columns=["a", "b"]),
    "a name twice": pd.DataFrame([[1, 2.5], [3, 4.5]], columns=["a", "a"]),
    "no name twice": pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=False),
    "many levels": pd.DataFrame(
        [[1, 2], [3, 4]],
        columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["p", None]),
        index=pd.MultiIndex.from_product([["x"], [1, 2]]),
    ),
}
SERIES = {
    "named": pd.Series([1, 2], name=("a", 1)),
    "empty": pd.Series([], dtype=object),
    "lists": pd.Series([(1, 2), [3]], dtype=object),
    "text as objects": pd.Series(["a", "b"], dtype=object),
    "indexed": pd.Series([1.5], index=pd.CategoricalIndex(["q"], name="c")),
}
INDEXES = {
    "range": pd.RangeIndex(1, 9, 2, name="a"), "int": pd.Index([3, 1]), "text": pd.Index(["a", None]),
    "tuples": pd.Index([(1, 2)], tupleize_cols=False), "months": pd.date_range("2026", periods=3, freq="ME"),
    "hours": pd.timedelta_range("1h", periods=3), "category": pd.CategoricalIndex(["a"]), "bool": pd.Index([True]),
    "quarters": pd.period_range("2026", periods=2, freq="Q"), "intervals": pd.interval_range(0, 2),
    "Int64": pd.Index([1], dtype="Int64"), "levels": pd.MultiIndex.from_arrays([[1, None], ["a", "b"]]),
    "zoned": pd.date_range("2026", periods=3, tz="Europe/Paris", freq="h"),
}  # fmt: skip
SCALARS = {
    "NA": pd.NA, "NaT": pd.NaT, "ns": pd.Timestamp("2026-01-01 01:02:03.123456789"),
    "s": pd.Timestamp("2026").as_unit("s"),
    "zoned": pd.Timestamp("2026-10-25 02:30", tz="UTC").tz_convert("Europe/Paris"), "delta": pd.Timedelta("5ns"),
}  # fmt: skip


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, pd.Index):
        pd.testing.assert_index_equal(one, other, exact=True, check_exact=True)
        assert getattr(one, "freq", None) == getattr(other, "freq", None)
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_exact=True, check_flags=True)
        assert list(one.dtypes) == list(other.dtypes)
        assert one.attrs == other.attrs
    elif isinstance(one, pd.Series):
        pd.testing.assert_series_equal(one, other, check_exact=True, check_flags=True)
        assert one.dtype == other.dtype
    else:
        assert repr(one) == repr(other)
        assert getattr(one, "unit", None) == getattr(other, "unit", None)


EVERYTHING = {
    f"{kind} {name}": value
    for kind, group in (("frame", FRAMES), ("series", SERIES), ("index", INDEXES), ("scalar", SCALARS))
    for name, value in group.items()
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_everything_comes_back_from_bytes(name: str) -> None:
    assert_same(stored({"a": [EVERYTHING[name]]})["a"][0], EVERYTHING[name])


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("name", EVERYTHING)
def test_everything_comes_back_from_l1(name: str, twin: str) -> None:
    value, functions = EVERYTHING[name], TWINS[twin]
    admitted = functions.admit(value)
    assert admitted.mode == ("share" if name.startswith("scalar") else "copy")
    assert not admitted.plain
    for before in (value, {"a": [value]}):
        kept, mode, _ = functions.adopt(before, functions.admit(before).mode)
        again = functions.isolate(kept, mode)
        assert_same(again["a"][0] if isinstance(before, dict) else again, value)


@pytest.mark.parametrize("twin", TWINS)
def test_callers_have_frames_of_their_own(twin: str) -> None:
    functions = TWINS[twin]
    before = pd.DataFrame({"n": [1.5, 2], "o": [[1], [2]]})
    for frame in (before, before[["n"]].copy()):
        mine = functions.isolate(frame, functions.admit(frame).mode)
        mine.loc[0, "n"] = 9
        mine.attrs["x"] = 1
        if "o" in mine:
            mine["o"].iloc[1].append(3)
        assert (frame.loc[0, "n"], frame.attrs, before["o"][1]) == (1.5, {}, [2])


def renamed(index: Any) -> None:
    """Changes all of an index that can be changed without another one being made."""
    if isinstance(index, pd.MultiIndex):
        index.names = ["mine"] * index.nlevels
        return
    index.name = "mine"
    if isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)):
        index.freq = None
    for part in ("categories", "left", "right"):
        if hasattr(index, part):
            renamed(getattr(index, part))


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("name", INDEXES)
def test_callers_have_names_and_frequencies_of_their_own(name: str, twin: str) -> None:
    functions, index = TWINS[twin], INDEXES[name]
    rows = list(range(len(index)))
    noted = pd.Series(rows, index=index)
    noted.attrs = {"index": index}
    for value in (
        index, [index], pd.Series(rows, index=index), pd.Series([rows] * len(rows), index=index, dtype=object), noted,
        pd.DataFrame({"a": rows}, index=index), pd.DataFrame([rows], columns=index),
        pd.DataFrame({"a": pd.Categorical(["x", "y"])}), pd.Series(pd.Categorical(["x", "y"])),
    ):  # fmt: skip
        kept = functions.adopt(value, functions.admit(value).mode)[0]
        before = stored(kept)
        mine = functions.isolate(kept, "copy")
        for part in mine if isinstance(mine, list) else (mine,):
            for axis in (part,) if isinstance(part, pd.Index) else (*part.axes, *part.attrs.values()):
                renamed(axis)
            if isinstance(part, pd.Series) and part.dtype == "category":
                renamed(part.cat.categories)
            if isinstance(part, pd.DataFrame) and "a" in part and part["a"].dtype == "category":
                renamed(part["a"].cat.categories)
        assert_same(*((kept, before) if not isinstance(kept, list) else (kept[0], before[0])))
        assert repr(stored(kept)) == repr(before)


def test_a_frame_weighs_what_it_holds() -> None:
    frame = pd.DataFrame({"a": np.arange(10_000), "b": np.arange(10_000.0)})
    for functions in TWINS.values():
        assert 160_000 < functions.admit(frame).weight < 170_000
        assert functions.admit([pd.Index(np.arange(10_000))]).weight > 80_000


class Named(pd.DataFrame):
    pass


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Named({"a": [1]}), "[0]: cannot store test_frames.Named"),
        (pd.DataFrame({"a": [object()]}), "[0].<DataFrame>[1][0]: cannot store object"),
        (pd.Series(pd.arrays.SparseArray([0, 1])), "a column of the dtype Sparse"),
        (pd.DataFrame({"a": [pd.offsets.Day()]}, dtype=object), "cannot store pandas"),
    ],
    ids=["derived", "object", "sparse", "offset"],
)
def test_what_would_come_back_as_something_else_is_refused(value: Any, text: str) -> None:
    with pytest.raises(Unstorable, match="cannot store") as caught:
        dump([value], plain=False, limit=10_000)
    assert text in str(caught.value)


def test_random_changes_are_damage_or_a_value() -> None:
    import random

    rng = random.Random(5)
    seen = {"value": 0, "damage": 0}
    payloads = [dump(value, plain=False, limit=1 << 20)[1] for value in EVERYTHING.values()]
    for _ in range(1500):
        data = bytearray(rng.choice(payloads))
        for _ in range(rng.choice([1, 1, 2, 5])):
            data[rng.randrange(len(data))] = rng.choice([0, 1, 127, 255, rng.randrange(256)])
        try:
            load(MARKED, bytes(data))
            seen["value"] += 1
        except Damaged:
            seen["damage"] += 1
    assert min(seen.values()) > 100


def test_forged_frames_are_damage() -> None:
    frame = msgpack.unpackb(dump(pd.DataFrame({"a": [1]}), plain=False, limit=10_000)[1])
    for parts in ([], frame[1:-1], [*frame[1:], 1], [*frame[1:-1], ["eval", "1"]], [*frame[1:3], 5, *frame[4:]]):
        with pytest.raises(Damaged):
            load(MARKED, msgpack.packb([frame[0], *parts], strict_types=False))
