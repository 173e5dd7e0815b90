"""Tables and record batches of Arrow, as the bytes of its own stream format; the columns are read where they lie.

Arrow's reader trusts lengths and offsets until a column is used, so each table is validated in full. Compressed
streams, which could claim any size, are refused: none is written.
"""

import struct
import sys
from collections.abc import Mapping
from typing import Any

from cachekit.foreign.base import Block, Foreign

_OLDEST = (14, 0, 1)  # before it a type in a stream could be a pickle
_BATCHES = ("record batch", "dictionary")


def _arrow() -> Any:
    pyarrow = sys.modules["pyarrow"]
    if tuple(map(int, pyarrow.__version__.split(".")[:3])) < _OLDEST:
        raise TypeError("pyarrow 14.0.1 or newer is needed")
    return pyarrow


def _take(value: Any) -> list[Any]:
    pyarrow = _arrow()
    if type(value) not in (pyarrow.Table, pyarrow.RecordBatch):
        raise TypeError("a class derived from one of Arrow")
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, value.schema) as writer:
        writer.write(value)
    data = sink.getvalue().to_pybytes()
    if not _opened(data).schema.equals(value.schema, check_metadata=True):
        raise TypeError("a schema that would not come back as it is")
    return [data]


def _make(cls: Any, parts: list[Any]) -> Any:
    (data,) = parts
    if type(data) is not bytes:
        raise TypeError("not bytes")
    _refuse_compressed(data)
    if cls is _arrow().Table:
        value = _opened(data).read_all()
    elif cls is _arrow().RecordBatch:
        (value,) = _opened(data)
    else:
        raise TypeError("neither a table nor a record batch")
    value.validate(full=True)
    return value


def _opened(data: bytes) -> Any:
    return _arrow().ipc.open_stream(_arrow().py_buffer(data))


def _refuse_compressed(data: bytes) -> None:
    for message in _arrow().ipc.MessageReader.open_stream(_arrow().py_buffer(data)):
        if message.type in _BATCHES and _is_compressed(memoryview(message.metadata), message.type):
            raise ValueError("a compressed stream")


def _is_compressed(message: memoryview, kind: str) -> bool:
    """Whether the message's record batch has the field that names a compression (Message.fbs, Schema.fbs of Arrow)."""
    batch = _follow(message, _follow(message, None, 0), 2)
    if kind == "dictionary" and batch is not None:
        batch = _follow(message, batch, 1)
    return batch is None or _follow(message, batch, 3) is not None


def _follow(data: memoryview, table: int | None, field: int) -> int | None:
    """Where the table lies that is this field of a table of a flatbuffer; without a table, the root. None: not set."""
    if table is None:
        return int(struct.unpack_from("<I", data, 0)[0])
    vtable = table - struct.unpack_from("<i", data, table)[0]
    slot = 4 + 2 * field
    if vtable < 0 or slot + 2 > struct.unpack_from("<H", data, vtable)[0]:
        return None
    offset = struct.unpack_from("<H", data, vtable + slot)[0]
    if not offset:
        return None
    return int(table + offset + struct.unpack_from("<I", data, table + offset)[0])


def _always(value: Any) -> bool:
    return True


def _same(value: Any) -> Any:
    return value


def _size(value: Any) -> int:
    return 200 + int(value.get_total_buffer_size())


_TABLE = Foreign(_take, _make, Block(_always, _same, _size, shared=True))

KNOWN: Mapping[str, Foreign] = {"pyarrow.lib:Table": _TABLE, "pyarrow.lib:RecordBatch": _TABLE}
