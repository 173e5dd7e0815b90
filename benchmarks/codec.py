"""What it costs to encode and decode values, against msgpack with hooks in Python that give the same types back.

    python benchmarks/codec.py [--json] [--rounds N]

Every piece is checked to give back what went in, equal in value and in the type of every part. Encoding includes the
walk that a value goes through when it enters the cache, in a line of its own. Exits with 1 if a bound does not hold.
"""

import argparse
import random
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgpack
from interleave import ROUNDS, interleave, loop, report

from cachekit.codec import serializers
from cachekit.codec.codec import Codec
from cachekit.config.spec import CodecSpec
from cachekit.l1.table import TWIN, admit

BOUNDS = {
    "dict of 10 plain fields: encode": 0.6, "dict of 10 plain fields: decode": 1.0,
    "100 typed dicts: encode": 0.35, "100 typed dicts: decode": 0.6,
}  # fmt: skip
LIMIT = 1 << 24
MOMENT = struct.Struct(">HBBBBBI")


class Status(Enum):
    OPEN = "open"
    PAID = "paid"
    SENT = "sent"


@dataclass
class Order:
    number: int
    customer: str
    status: Status
    lines: tuple[tuple[str, int, float], ...]
    note: str | None = None


def typed_rows() -> list[dict[str, Any]]:
    draw = random.Random(7)
    return [
        {
            "id": number,
            "key": UUID(int=draw.getrandbits(128), version=4),
            "price": Decimal(draw.randrange(10**6)).scaleb(-2),
            "at": datetime(2026, 1 + number % 12, 1 + number % 28, number % 24, 5, 7, draw.randrange(10**6), UTC),
            "name": f"item {number}",
        }
        for number in range(100)
    ]


def orders() -> list[Order]:
    statuses = list(Status)
    return [
        Order(n, f"customer {n % 7}", statuses[n % 3], tuple((f"article {i}", i, 1.5 * i) for i in range(n % 4)))
        for n in range(100)
    ]


VALUES: dict[str, tuple[Any, int]] = {  # and how many times it is encoded in one measurement
    "dict of 10 plain fields": ({f"field {n}": [n, f"text {n}", n / 7, None, True][n % 5] for n in range(10)}, 2000),
    "100 typed dicts": (typed_rows(), 10),
    "100 data classes": (orders(), 10),
    "20,000 ints and strings": ([each for n in range(10_000) for each in (n * 12345, f"value {n}")], 1),
}


# ------------------------------------------------------------------------------------------------------------ control


def write(value: Any) -> msgpack.ExtType:
    """What msgpack does not know, as an ext."""
    cls = type(value)
    if cls is datetime:
        if value.tzinfo is not UTC:
            raise TypeError("UTC is all that is needed here")
        fields_of_it = value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond
        return msgpack.ExtType(1, MOMENT.pack(*fields_of_it))
    if cls is Decimal:
        return msgpack.ExtType(2, str(value).encode())
    if cls is UUID:
        return msgpack.ExtType(3, value.bytes)
    if cls is tuple:
        return msgpack.ExtType(4, pack(list(value)))
    if cls is Order:
        return msgpack.ExtType(5, pack([value.number, value.customer, value.status, value.lines, value.note]))
    if cls is Status:
        return msgpack.ExtType(6, value.name.encode())
    raise TypeError(cls)


def read(code: int, data: bytes) -> Any:
    if code == 1:
        return datetime(*MOMENT.unpack(data), UTC)
    if code == 2:
        return Decimal(data.decode())
    if code == 3:
        return UUID(bytes=data)
    if code == 4:
        return tuple(unpack(data))
    if code == 5:
        return Order(*unpack(data))
    return Status[data.decode()]


def pack(value: Any) -> bytes:
    data: bytes = msgpack.packb(value, default=write, strict_types=True)
    return data


def unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, ext_hook=read)


# -------------------------------------------------------------------------------------------------------- measurement


def dump(value: Any) -> tuple[int, bytes]:
    return serializers.dump(value, plain=PLAIN[id(value)], limit=LIMIT)


PLAIN = {id(value): admit(value).plain for value, _ in VALUES.values()}


def shape(value: Any) -> Any:
    """A value with the type of every part."""
    cls = type(value)
    if cls in (list, tuple):
        return cls, [shape(item) for item in value]
    if cls is dict:
        return cls, [(shape(key), shape(item)) for key, item in value.items()]
    if is_dataclass(value):
        return cls, [shape(getattr(value, field.name)) for field in fields(value)]
    return cls, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()

    codec = Codec(CodecSpec())
    stored = {"id": bytes(16), "created": 0, "soft": 1, "hard": 2}
    pieces: dict[str, Callable[[], float]] = {}
    references: dict[str, str] = {}

    def compare(name: str, theirs: str, statement: str, calls: int, **names: Any) -> None:
        pieces[name] = loop(statement, names, calls)
        references[name] = theirs

    for name, (value, calls) in VALUES.items():
        theirs, ours = pack(value), dump(value)
        entry = codec.dumps(value, "key", plain=PLAIN[id(value)], **stored)
        for back in (unpack(theirs), serializers.load(*ours), codec.loads(entry, "key")[0]):
            assert shape(back) == shape(value), name
        encoding, decoding = f"msgpack, {name}: encode", f"msgpack, {name}: decode"
        compare(encoding, encoding, "f(v)", calls, f=pack, v=value)
        compare(f"{name}: encode", encoding, "f(v)", calls, f=dump, v=value)
        compare(f"{name}: encode, in an envelope", encoding, "f(v, 'key', plain=p, **s)", calls,
                f=codec.dumps, v=value, p=PLAIN[id(value)], s=stored)  # fmt: skip
        compare(f"{name}: admit", encoding, "f(v)", calls, f=admit, v=value)
        compare(decoding, decoding, "f(v)", calls, f=unpack, v=theirs)
        compare(f"{name}: decode", decoding, "f(*v)", calls, f=serializers.load, v=ours)
        compare(f"{name}: decode, from an envelope", decoding, "f(v, 'key')", calls, f=codec.loads, v=entry)

    rows = interleave(pieces, references, options.rounds)
    print(report(rows, as_json=options.json) if options.json else f"twin: {TWIN}\n{report(rows, as_json=False)}")
    missed = [f"{row.name}: {row.ratio:.2f}x, at most {BOUNDS[row.name]}x" for row in rows
              if row.ratio > BOUNDS.get(row.name, row.ratio)]  # fmt: skip
    if missed and TWIN == "native":  # without the core the bounds are not promised
        sys.exit("\n".join(["bounds that do not hold:", *missed]))


if __name__ == "__main__":
    main()
