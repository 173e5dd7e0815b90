"""Tables of Arrow come back equal and without a copy of their columns; forged streams are a miss. Needs pyarrow."""

import importlib
import random
import resource
from typing import Any

import msgpack
import pytest

from cachekit.codec.envelope import Damaged
from cachekit.codec.serializers import MARKED, dump, load
from cachekit.errors import Unstorable
from cachekit.l1 import values
from cachekit.l1.table import TWIN

pytestmark = pytest.mark.slow  # for the size of what it needs

TWINS = {"pure": values, **({"native": importlib.import_module("cachekit._native")} if TWIN == "native" else {})}


def arrow() -> Any:
    return importlib.import_module("pyarrow")


def table(rows: int = 3) -> Any:
    pa = arrow()
    columns = {
        "int": [*range(rows - 1), None], "text": ["é" * (n % 5) for n in range(rows)],
        "words": pa.array(["x", "y", "x"] * (rows // 3)).dictionary_encode(), "lists": [[n] for n in range(rows)],
        "struct": [{"a": n, "b": None} for n in range(rows)], "bytes": [b"\xff"] * rows,
    }  # fmt: skip
    return pa.table(columns).replace_schema_metadata({"k": "v"})


def stored(value: Any) -> Any:
    return load(*dump(value, plain=False, limit=1 << 26))


def test_tables_and_batches_come_back() -> None:
    pa = arrow()
    whole = table(30)
    batch = whole.to_batches()[0]
    empty = pa.RecordBatch.from_pylist([], schema=whole.schema)
    for value in (whole, whole.slice(3, 9), pa.table({}), whole.slice(0, 0), pa.concat_tables([whole, whole]), batch,
                  batch.slice(2, 3), empty):  # fmt: skip
        back = stored({"a": [value]})["a"][0]
        assert type(back) is type(value)
        assert back.equals(value, check_metadata=True)


def test_columns_are_read_where_they_lie() -> None:
    pa = arrow()
    value = pa.table({"a": range(1_000_000)})
    payload = dump(value, plain=False, limit=1 << 26)
    before = pa.total_allocated_bytes()
    back = load(*payload)
    assert pa.total_allocated_bytes() - before < 100_000
    assert back.equals(value)


def test_everybody_shares_one_table_and_it_weighs_what_it_holds() -> None:
    value = arrow().table({"a": range(100_000)})
    for functions in TWINS.values():
        assert functions.admit(value).mode == "share"
        assert 800_000 <= functions.admit([value]).weight < 900_000
        kept, mode, _ = functions.adopt([value], functions.admit([value]).mode)
        assert functions.isolate(kept, mode)[0] is value


def test_what_would_come_back_as_something_else_is_refused() -> None:
    pa = arrow()
    for value in (pa.array([1]), pa.schema([]), pa.chunked_array([[1]])):
        with pytest.raises(Unstorable, match="cannot store pyarrow"):
            dump(value, plain=False, limit=1000)


def forged(data: Any, marker: bytes = b"pyarrow.lib:Table") -> None:
    with pytest.raises(Damaged):
        load(MARKED, msgpack.packb([msgpack.ExtType(52, marker), data]))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_streams_are_damage(compression: str) -> None:
    pa = arrow()
    for value in (pa.table({"a": [0] * 100_000}), table(300).select(["words"])):
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with pa.ipc.new_stream(sink, value.schema, options=options) as writer:
            writer.write(value)
        forged(sink.getvalue().to_pybytes())


def test_forged_streams_are_damage_or_sound_tables() -> None:
    _, payload = dump(table(30), plain=False, limit=1 << 20)
    data = msgpack.unpackb(payload)[1]
    forged(b"")
    forged("text")
    forged(data[:-100])
    forged(data, b"pyarrow.lib:RecordBatchReader")
    forged(data, b"pyarrow.lib:Schema")
    rng, values_seen, damaged = random.Random(3), 0, 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3000):
        changed = bytearray(data)
        for _ in range(rng.choice([1, 2, 8])):
            changed[rng.randrange(len(changed))] = rng.choice([0, 1, 127, 128, 255])
        try:
            back = load(MARKED, msgpack.packb([msgpack.ExtType(52, b"pyarrow.lib:Table"), bytes(changed)]))
            back.to_pylist()  # every value can be looked at
            values_seen += 1
        except (Damaged, UnicodeDecodeError):
            damaged += 1
    assert min(values_seen, damaged) > 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_columns_of_arrow_in_a_frame_come_back() -> None:
    pd = importlib.import_module("pandas")
    arrow()
    frame = pd.DataFrame(
        {"a": pd.array([1, None], dtype="int64[pyarrow]"), "b": pd.array(["x", None], dtype="string[pyarrow]")}
    )
    back = stored(frame)
    pd.testing.assert_frame_equal(back, frame)
    assert list(back.dtypes) == list(frame.dtypes)
