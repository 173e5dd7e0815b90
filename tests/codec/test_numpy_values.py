"""Arrays and scalars of numpy come back with their dtype, shape and order, or are refused; forged ones are a miss."""

import importlib
import resource
import subprocess
import sys
from typing import Any

import msgpack
import numpy as np
import pytest
from codec_models import shape
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cachekit.codec.envelope import Damaged
from cachekit.codec.serializers import MARKED, dump, load
from cachekit.errors import Unstorable
from cachekit.l1 import values
from cachekit.l1.table import TWIN


def stored(value: Any) -> Any:
    return load(*dump(value, plain=False, limit=1 << 24))


def native() -> Any:
    """The functions of the native twin, of the pure one where there is none."""
    return values if TWIN == "pure" else importlib.import_module("cachekit._native")


dtypes = (
    hnp.boolean_dtypes() | hnp.integer_dtypes(endianness="?") | hnp.floating_dtypes(endianness="?")
    | hnp.complex_number_dtypes(endianness="?") | hnp.datetime64_dtypes(endianness="?")
    | hnp.timedelta64_dtypes(endianness="?") | hnp.byte_string_dtypes() | hnp.unicode_string_dtypes()
)  # fmt: skip
arrays = hnp.arrays(
    dtypes | hnp.array_dtypes(dtypes, allow_subarrays=True), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)
).flatmap(lambda array: st.sampled_from([array, np.asfortranarray(array), array[..., ::2] if array.ndim else array]))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(arrays)
def test_every_array_comes_back(array: Any) -> None:
    back = stored([array])[0]
    assert (type(back), back.dtype, back.shape) == (np.ndarray, array.dtype, array.shape)
    assert repr(back.tolist()) == repr(array.tolist())
    assert back.flags.writeable
    assert back.flags.c_contiguous or back.flags.f_contiguous
    if array.flags.c_contiguous or array.flags.f_contiguous:
        assert back.flags.f_contiguous == array.flags.f_contiguous


SCALARS = [
    np.float64(1.5), np.float32("nan"), np.int8(-3), np.longlong(5), np.ulonglong(5), np.intc(3), np.uint16(7),
    np.bool_(True), np.str_("a\0"), np.str_(""), np.bytes_(b"a\0"), np.bytes_(b""), np.datetime64("2026-01-01T01", "h"),
    np.datetime64("NaT", "s"), np.timedelta64(5, "s"), np.longdouble("1.1"), np.clongdouble(1j), np.complex64(1),
    np.float16(2),
    np.array([(1, 2.5)], [("a", ">i4"), ("b", "f8")])[0], np.void(b"abc"),
]  # fmt: skip


@pytest.mark.parametrize("value", SCALARS, ids=lambda value: type(value).__name__)
def test_every_scalar_comes_back(value: Any) -> None:
    for back in (stored(value), stored({"a": (value,)})["a"][0]):
        assert shape(back) == shape(value)
    if not isinstance(value, (np.void, np.timedelta64)):
        assert stored({value: 1}).popitem()[0].dtype == value.dtype
        assert values.admit(value).mode == "share"


def test_what_is_not_contiguous_or_writeable_becomes_both() -> None:
    whole = np.arange(100.0)
    whole.setflags(write=False)
    for array in (whole, whole[::3], whole[::-1], np.broadcast_to(whole[:2], (3, 2))):
        back = stored(array)
        back[...] = 0
    assert whole[5] == 5


def test_memory_between_fields_is_not_stored() -> None:
    dtype = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    array = np.frombuffer((b"\1secret!" + bytes(8)) * 3, dtype)
    assert b"ecret!" not in dump(array, plain=False, limit=1000)[1]
    assert b"ecret!" not in dump(array[0], plain=False, limit=1000)[1]


class Matrix(np.ndarray):  # type: ignore[type-arg]
    pass


class MyFloat(np.float64):
    pass


REFUSED = [
    np.array([[1], {}], object), np.zeros(2, [("a", "O")]), np.ma.array([1], mask=[True]), np.zeros(2).view(Matrix),
    np.zeros(2, [("a", "i4")]).view(np.recarray), np.zeros(2, np.dtypes.StringDType()), np.zeros(3, "V0"),
    np.zeros(2, np.dtype("f8", metadata={"unit": "m"})), MyFloat(1), np.zeros(1, [("a", "O")])[0],
]  # fmt: skip


@pytest.mark.parametrize("value", REFUSED, ids=range(len(REFUSED)))
def test_what_would_come_back_as_something_else_is_refused(value: Any) -> None:
    with pytest.raises(Unstorable) as caught:
        dump({"rows": [1, value]}, plain=False, limit=10_000)
    assert caught.value.reason == "type"
    assert str(caught.value).startswith("rows[1]: cannot store ")


@pytest.mark.parametrize(
    "array",
    [
        np.ones((2, 3), order="F"), np.ones((2, 3)), np.ones((2, 3, 4)).transpose(2, 0, 1), np.ones(3),
        np.ones((4, 4))[::2, ::2],
    ],
    ids=["fortran", "c", "turned", "row", "part"],
)  # fmt: skip
def test_arrays_have_one_order_in_both_tiers(array: Any) -> None:
    for functions in (values, native()):
        for value in (array, [array]):
            kept, mode, _ = functions.adopt(value, functions.admit(value).mode)
            mine, theirs = functions.isolate(kept, mode), stored(value)
            for copy in (mine, kept, theirs) if value is array else (mine[0], kept[0], theirs[0]):
                assert copy.flags.f_contiguous == (array.flags.f_contiguous or array.ndim == 1)
                assert copy.flags.c_contiguous or copy.flags.f_contiguous


def test_arrays_of_callers_are_their_own_and_weigh_what_they_hold() -> None:
    array = np.arange(1000)
    record = np.array([(1, 2)], [("a", "i4"), ("b", "i4")])[0]
    for value in (array, {"a": array}, [array, record], record):
        admitted = values.admit(value)
        assert admitted.mode == "copy"
        assert admitted == native().admit(value)
        assert not admitted.plain
        for adopt in (values.adopt, native().adopt):
            kept = adopt(value, "copy")
            assert shape(kept[0]) == shape(value)
            assert not shares_memory(kept[0], value)
    assert 8000 <= values.admit(array).weight <= 8300
    assert values.admit(np.arange(10**6)[:10]).weight < 1000
    assert values.admit(np.array([[]], object)).mode == "opaque"
    assert native().admit(np.array([[]], object)).mode == "opaque"


def shares_memory(one: Any, other: Any) -> bool:
    if isinstance(one, np.void):
        one, other = np.asarray(one), np.asarray(other)
    if isinstance(one, np.ndarray):
        return np.shares_memory(one, other)
    parts = zip(one.values(), other.values(), strict=True) if isinstance(one, dict) else zip(one, other, strict=True)
    return any(shares_memory(*pair) for pair in parts)


def forged(marker: str, *parts: Any) -> str:
    payload = msgpack.packb([msgpack.ExtType(52, marker.encode()), *parts])
    with pytest.raises(Damaged) as caught:
        load(MARKED, payload)
    return caught.value.reason


FIELD = ["a", None, 0, "<i4"]


@pytest.mark.parametrize(
    "parts",
    [
        [], ["<i4"], ["<i4", [1], False], ["<i4", [1], False, b"123"], ["<i4", [1], False, b"12345"],
        ["<i4", [-1], False, b""], ["<i4", [2**62, 4], False, b""], ["<i4", [2**62], False, b"1234"],
        ["<i4", [True], False, b"1234"], ["<i4", [1.0], False, b"1234"], ["<i4", 1, False, b"1234"],
        ["<i4", [1] * 65, False, b"1234"], ["<i4", [1], False, "1234"], ["|O", [1], False, b"12345678"],
        ["object", [1], False, b"12345678"], ["<i4,<i4", [1], False, b"12345678"], ["(2,)<i4", [1], False, b"12345678"],
        ["<V0", [2**40], False, b""], ["<U0", [2**62], False, b""], ["<i3", [1], False, b"123"],
        ["<U1", [1], False, b"\xff\xff\xff\xff"], ["<U1", [1], False, b"\x00\x00\x11\x00"],
        ["<f16:1", [1], False, bytes(16)],
        ["<M8[xx]", [1], False, bytes(8)], ["<M8[999999999999s]", [1], False, bytes(8)], [None, [1], False, bytes(8)],
        [[4, False, ["a", None, 0, "|O"]], [1], False, bytes(8)],
        [[4, False, ["a", None, 2, "<i4"]], [1], False, bytes(4)],
        [[4, False, FIELD, FIELD], [1], False, bytes(4)], [[4, False, [1, None, 0, "<i4"]], [1], False, bytes(4)],
        [[4, False, ["a", [], 0, "<i4"]], [1], False, bytes(4)], [[-4, False, FIELD], [1], False, bytes(4)],
        [[2**31, False, FIELD], [1], False, bytes(4)], [["<i4", [2**31]], [1], False, bytes(4)],
        [["<i4", [2**20, 2**20]], [1], False, bytes(4)], [[[], []], [1], False, b""], [{}, [1], False, b""],
    ],
    ids=str,
)  # fmt: skip
def test_forged_arrays_are_damage_and_take_no_memory(parts: list[Any]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert forged("numpy:ndarray", *parts) == "payload"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


@pytest.mark.parametrize(
    ("marker", "parts"),
    [
        ("numpy:float64", []), ("numpy:float64", ["<f4", bytes(4)]), ("numpy:float64", ["<f8", bytes(4)]),
        ("numpy:float64", ["<i8", bytes(8)]), ("numpy:int32", ["<i8", bytes(8)]), ("numpy:generic", ["<i8", bytes(8)]),
        ("numpy:str_", [1]), ("numpy:str_", []), ("numpy:bytes_", ["a"]), ("numpy:bytes_", [1 << 40]),
        ("numpy:datetime64", ["<i8", bytes(8)]), ("numpy:object_", ["<i8", bytes(8)]), ("numpy:void", ["|V3", b"ab"]),
        ("numpy:dtype", ["<i8"]), ("numpy:memmap", ["<i8", [1], False, bytes(8)]), ("numpy:matrix", []),
    ],
    ids=str,
)  # fmt: skip
def test_forged_scalars_are_damage(marker: str, parts: list[Any]) -> None:
    assert forged(marker, *parts) == "payload"


def test_a_claim_of_much_takes_nothing_where_there_are_no_elements() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    payload = msgpack.packb([msgpack.ExtType(52, b"numpy:ndarray"), "<U400000000", [0], False, b""])
    assert load(MARKED, payload).size == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


def test_numpy_is_not_imported_for_bytes() -> None:
    program = f"""
import sys
from cachekit.codec.envelope import Damaged
from cachekit.codec.serializers import load
import cachekit.l1.values
for payload in {[dump(value, plain=False, limit=1000)[1] for value in (np.zeros(2), np.float64(1))]!r}:
    try:
        load(2, payload)
    except Damaged:
        print("damaged")
print([name for name in sys.modules if name.split(".")[0] in ("numpy", "pandas", "pyarrow")])
"""
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=True, timeout=60)
    assert done.stdout == "damaged\ndamaged\n[]\n"
