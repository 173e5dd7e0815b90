"""Bytes that a forger made, checksum and all: a miss or a value, never another exception, an import, or much memory."""

import contextlib
import json
import os
import pathlib
import random
import resource
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from time import process_time
from typing import Any
from uuid import UUID
from zoneinfo import TZPATH, ZoneInfo

import codec_models as m
import msgpack
import pytest
from codec_models import KEY, header, only

from cachekit.codec import classes, depth, scalars, serializers
from cachekit.codec.base import JSON
from cachekit.codec.codec import Codec
from cachekit.codec.envelope import Damaged, pack
from cachekit.codec.serializers import MARKED, TREE, dump
from cachekit.config.spec import CodecSpec

CODEC = Codec(CodecSpec())


def forged(payload: bytes, codec: int = MARKED, compression: int = 0) -> bytes:
    return pack(header(codec=codec, compression=compression), payload, KEY)


def reason(payload: bytes, codec: int = MARKED) -> str:
    with pytest.raises(Damaged) as caught:
        CODEC.loads(forged(payload, codec), KEY)
    return caught.value.reason


@pytest.fixture(params=["native", "ormsgpack", "msgpack"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    only(request.param, monkeypatch)


def ext(code: int, data: bytes | str = b"") -> msgpack.ExtType:
    return msgpack.ExtType(code, data.encode() if isinstance(data, str) else data)


def marked(code: int, *items: Any, data: bytes | str = b"") -> list[Any]:
    return [ext(code, data), *items]


POINT, ORDER, USER, MONEY = (classes.plan_for(cls).marker for cls in (m.Point, m.Order, m.User, m.Money))
MOMENT = bytes.fromhex("07ea01010000000000000000")

DAMAGED: dict[str, Any] = {
    "unknown ext": ext(20),
    "unknown marker": marked(99),
    "unset alone": ext(0),
    "unset in a tuple": marked(32, ext(0)),
    "marker alone": ext(32),
    "marker inside": [1, ext(32)],
    "marker as value": {"a": ext(32)},
    "marker with data": marked(32, data="x"),
    "set of lists": marked(33, [1]),
    "set twice": marked(33, 1, 1),
    "frozenset of dicts": marked(34, {}),
    "dict odd": marked(35, 1),
    "dict key list": marked(35, [], 1),
    "dict key twice": marked(35, 1, 2, True, 3),
    "ordered odd": marked(36, 1, 2, 3),
    "default empty": marked(37),
    "default unknown": marked(37, "eval"),
    "default list": marked(37, []),
    "default code": marked(37, "__import__"),
    "deque empty": marked(38),
    "deque text": marked(38, "x"),
    "deque negative": marked(38, -1),
    "deque long": marked(38, 1, 1, 2),
    "deque huge": marked(38, ext(1, b"\x7f" * 20)),
    "int empty": ext(1),
    "int bomb": ext(1, b"\x7f" * (scalars.MAX_INT_BYTES + 1)),
    "str": ext(2, b"\xff"),
    "complex": ext(4, b"1"),
    "decimal": ext(5, "1.2.3"),
    "decimal empty": ext(5),
    "decimal bytes": ext(5, b"\xff"),
    "decimal huge": ext(5, "1e99999999999999999999"),
    "uuid": ext(6, b"1"),
    "uuid safety": ext(6, b"1" * 16 + b"x"),
    "uuid long": ext(6, b"1" * 40),
    "date": ext(7, b"\0\0\0\0"),
    "date short": ext(7, b"\7"),
    "date month": ext(7, b"\7\xea\x0d\1"),
    "datetime": ext(8, bytes(12)),
    "datetime short": ext(8, MOMENT[:-1]),
    "datetime fold": ext(8, MOMENT[:-1] + b"\2"),
    "zone kind": ext(8, MOMENT + b"?"),
    "zone utc": ext(8, MOMENT + b"Ux"),
    "zone day": ext(8, MOMENT + b"F\0\0\0\1\0\0\0\0\0\0\0\0"),
    "zone short": ext(8, MOMENT + b"F\0"),
    "zone huge": ext(8, MOMENT + b"F" + b"\x7f\xff\xff\xff" * 3),
    "zone none": ext(8, MOMENT + b"Z"),
    "zone junk": ext(8, MOMENT + b"ZNo/Where"),
    "zone up": ext(8, MOMENT + b"Z../../etc/passwd"),
    "zone root": ext(8, MOMENT + b"Z/etc/passwd"),
    "zone nul": ext(8, MOMENT + b"Za\0b"),
    "zone dir": ext(8, MOMENT + b"ZEurope"),
    "zone not a zone": ext(8, MOMENT + b"Ztzdata"),
    "zone long": ext(8, MOMENT + b"Z" + b"a" * 70_000),
    "zone text": ext(8, MOMENT + b"Z\xff"),
    "time": ext(9, b"\x18\0\0\0\0\0\0\0"),
    "time short": ext(9, b"\1"),
    "timedelta": ext(10, b"\x7f\xff\xff\xff" * 3),
    "timedelta short": ext(10, b"1"),
    "path": ext(11),
    "path kind": ext(11, "?a"),
    "path class": ext(11, "Wc:/"),
    "enum": ext(12),
    "enum module": ext(12, "nowhere:A\0B"),
    "enum member": ext(12, "codec_models:Colour\0GREEN"),
    "enum dunder": ext(12, "codec_models:Colour\0__class__"),
    "enum flag": ext(12, "codec_models:Rights\0READ"),
    "enum of no enum": ext(12, "codec_models:Order\0x"),
    "enum function": ext(12, "codec_models:shape\0x"),
    "enum no class": ext(12, "codec_models:KEY\0x"),
    "enum module itself": ext(12, "codec_models:\0x"),
    "flag junk": ext(13, "codec_models:Rights\0x"),
    "flag value": ext(13, "codec_models:Rights\064"),
    "flag negative": ext(13, "codec_models:Rights\0-1"),
    "flag bomb": ext(13, "codec_models:Bits\0" + "9" * 9999),
    "flag of enum": ext(13, "codec_models:Level\0001"),
    "class none": marked(49),
    "class builtin": marked(49, data="builtins:dict"),
    "class module": marked(49, data="os:path"),
    "class function": marked(49, data="os:system"),
    "class text": marked(49, data=b"\xff\xff"),
    "class deep": marked(49, data="a" + ".b" * 999),
    "point short": marked(48, 1, data=POINT),
    "point long": marked(48, 1, 2, 3, data=POINT),
    "point pairs": marked(48, 1, 2, "a", 3, data=POINT),
    "point as dataclass": marked(49, 1, 2, data=POINT),
    "other fields": marked(48, 1, 2, data=POINT + b"z"),
    "fewer fields": marked(49, 1, data=b"codec_models:Money\0amount"),
    "no fields": marked(49, data=b"codec_models:Money"),
    "fields of another time": marked(49, 1, 2, data=b"codec_models:Money\0\0" + bytes(8)),
    "money short": marked(49, 1, data=MONEY),
    "money odd": marked(49, 1, 2, 3, data=MONEY),
    "money more": marked(49, 1, 2, "a", 3, data=MONEY),
    "money key": marked(49, 1, 2, [], 3, data=MONEY),
    "order key": marked(49, 1, [], 0, 5, 6, data=ORDER),
    "order as attrs": marked(50, 1, [], 0, data=ORDER),
    "order unset twice": marked(49, 1, [], 0, "a", ext(0), data=ORDER),
    "order with built-in base": marked(49, 1, data="codec_models:DictData\0a"),
    "user bare": marked(51, 1, "a", [], data=USER),
    "user set": marked(51, 1, "a", [], "__pydantic_fields_set__", [], data=USER),
    "user private": marked(51, 1, "a", [], "__pydantic_fields_set__", marked(33), "__pydantic_private__", 1, data=USER),
    "model itself": marked(51, data="pydantic.main:BaseModel"),
    "set of unhashable": marked(33, marked(49, [], [], data=MONEY)),
    "int key": {1: 2},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_contradictory_trees_are_damaged(name: str, either: None) -> None:
    payload = msgpack.packb(DAMAGED[name], strict_types=False)
    assert reason(payload) == ("fingerprint" if "fields" in name else "payload")
    assert reason(payload, TREE) == "payload"


def test_what_the_contradictions_are_variations_of_can_be_read() -> None:
    """Otherwise they would be refused for another reason than the one they test."""
    for tree in (
        marked(48, 1, 2, data=POINT),
        marked(49, 1, 2, data=MONEY),
        marked(49, 1, [], 0, "a", 5, data=ORDER),
        marked(49, ext(0), [], 0, data=ORDER),
        ext(8, MOMENT),
        ext(8, MOMENT + b"U"),
        ext(8, MOMENT + b"ZEurope/Berlin"),
        ext(12, "codec_models:Colour\0RED"),
        ext(13, "codec_models:Rights\0003"),
        marked(38, 2, 1, 2),
        marked(37, "list", 1, 2),
        marked(
            51,
            1,
            "a",
            [],
            "__pydantic_fields_set__",
            marked(33),
            "__pydantic_extra__",
            None,
            "__pydantic_private__",
            None,
            data=USER,
        ),
        ext(6, b"1" * 16),
        ext(1, b"\x7f" * 20),
        marked(33, 1, 2),
    ):
        CODEC.loads(forged(msgpack.packb(tree)), KEY)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xdc\xff\xff" * 500,
        b"\xdd\x00\x10\x00\x00" * 1000,
        b"\xdd\x00\x10\x00\x00" * 200_000,
        b"\xde\xff\xff" * 1000,
        b"\x91" * 5000 + b"\xc0",
        b"\x91" * 1_000_000,
        b"\x81\xa1a" * 100_000,
        b"\xa1\xff",
        b"\x81\xc0\xc0",
        b"\x81\x90\xc0",
        b"\x81\x80\xc0",
        b"\xd4",
        b"\xd8\x01",
    ],
    ids=lambda payload: payload[:6].hex(),
)
@pytest.mark.parametrize("codec", [TREE, MARKED])
def test_malformed_msgpack_is_damaged_and_takes_no_memory(payload: bytes, codec: int, either: None) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason(payload, codec) in ("payload", "depth", "weight")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 16 * 1024 + 40 * len(payload) / 1024


def test_depth_of_marked_trees_is_bounded_as_on_the_way_in(either: None) -> None:
    head = msgpack.packb(ext(32))
    for wrap in (b"\x91", b"\x81\xa1a", b"\x92" + head):
        levels = serializers.MAX_DEPTH
        CODEC.loads(forged(wrap * levels + b"\xc0"), KEY)
        assert reason(wrap * (levels + 1) + b"\xc0") == "depth"


DEEP = {
    "msgpack": (TREE, b"\x91" * 1000 + b"\x90"), "marked": (MARKED, b"\x91" * 1000 + b"\x90"),
    "maps": (TREE, b"\x81\xa1a" * 1000 + b"\x80"), "long heads": (TREE, b"\xdd\0\0\0\x01" * 1000 + b"\x90"),
    "json": (JSON, b"[" * 20_000), "objects": (JSON, b'{"":' * 20_000),
}  # fmt: skip


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("pure", ["0", "1"])
def test_bytes_nested_deep_are_damage_in_a_thread_with_a_small_stack(name: str, pure: str) -> None:
    codec, payload = DEEP[name]
    program = (
        "import threading\nfrom cachekit.codec.codec import Codec\nfrom cachekit.codec.envelope import Damaged\n"
        "from cachekit.config.spec import CodecSpec\n"
        f"codec = Codec(CodecSpec(serializer={'json' if codec == JSON else 'msgpack'!r}))\n"
        "def read():\n    try:\n"
        f"        codec.loads(bytes.fromhex({forged(payload, codec).hex()!r}), {KEY!r})\n"
        "    except Damaged as damage:\n        print(damage.reason)\n"
        "threading.stack_size(256 * 1024)\nthread = threading.Thread(target=read)\nthread.start()\nthread.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-"], input=program, env={**os.environ, "CACHEKIT_PURE": pure, "CACHEKIT_NATIVE": ""},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "depth\n"), done.stderr


@pytest.mark.parametrize("deep", [depth.deep_msgpack, depth._deep_msgpack], ids=["either", "pure"])
def test_depth_is_found_exactly_and_nothing_else_is_taken_for_it(deep: Any) -> None:
    for wrap in (
        b"\x91",
        b"\x81\xa1a",
        b"\x92\xc7\x00\x20",
        b"\xdc\0\1",
        b"\xde\0\1\xa0",
        b"\x93\xc0\xcf12345678",
        b"\x92\xda\0\1a",
    ):
        assert not deep(wrap * 256 + b"\xc0", 256)
        assert deep(wrap * 257 + b"\xc0", 256)
        assert deep(memoryview(wrap * 257), 256)
    for flat in (
        [[]] * 400, {str(number): {"a": []} for number in range(400)}, "\u0451" * 400, [b"\x91" * 400] * 3,
        [msgpack.ExtType(5, b"\x91" * size) for size in (1, 2, 3, 4, 8, 16, 300, 70_000)], ["x" * 70_000, [1.5] * 300],
        [b"\x91" * 70_000, -300, 300, 70_000, -70_000, -(2**40)], [2**40] * 400,
    ):  # fmt: skip
        assert not deep(msgpack.packb(flat), 256)
    assert not deep(b"\xdd\xff\xff\xff\xff" * 200, 256)


@pytest.mark.parametrize("deep", [depth.deep_json, depth._deep_json], ids=["either", "pure"])
def test_depth_of_json_is_found_exactly_and_nothing_else_is_taken_for_it(deep: Any) -> None:
    for opening in (b"[", b'{"":', b'["]",', b'{"\\"]}":', b'["\\\\",'):
        assert not deep(opening * 256, 256)
        assert deep(opening * 257, 256)
    for flat in ([[]] * 400, [{"[{": "[" * 300}] * 300, "[" * 1000, '"' * 300 + "[" * 300, "\\" * 301 + '"[' * 300):
        assert not deep(json.dumps(flat).encode(), 256)
    for cut in (b'["' + b"[" * 300, b'"' + b"\\" * 301, b'"' * 300 + b"]" * 300 + b"[" * 257):
        deep(cut, 256)
    deep(b'"' + b'\\"' * 1_000_000 + b"[" * 300, 256)  # in one pass


def test_a_stack_that_is_nearly_full_is_no_error(either: None) -> None:
    payload = (b"\x92" + msgpack.packb(ext(32))) * 200 + b"\xc0"

    def deeper() -> None:
        try:
            deeper()
        except RecursionError:
            CODEC.loads(forged(payload), KEY)

    with contextlib.suppress(Damaged, RecursionError):  # the native decoder needs no frames
        deeper()


FLOOD = [number * (2**61 - 1) for number in range(1, 30_001)]  # all of one hash


@pytest.mark.parametrize(
    "kind", ["set", "frozenset", "dict", "OrderedDict", "defaultdict", "tuples", "decimals", "uuids"]
)
def test_members_of_one_hash_take_no_time(kind: str, either: None) -> None:
    keys: list[Any] = [ext(1, number.to_bytes(10, "big", signed=True)) for number in FLOOD]
    pairs = [part for key in keys for part in (key, None)]
    tree = {
        "set": marked(33, *keys), "frozenset": marked(34, *keys), "dict": marked(35, *pairs),
        "OrderedDict": marked(36, *pairs), "defaultdict": marked(37, None, *pairs),
        "tuples": marked(33, *(marked(32, key) for key in keys)),
        "decimals": marked(33, *(ext(5, str(number)) for number in FLOOD)),
        "uuids": marked(33, *(ext(6, number.to_bytes(16, "big")) for number in FLOOD)),
    }[kind]  # fmt: skip
    before = process_time()
    assert reason(msgpack.packb(tree)) == "payload"
    assert process_time() - before < 2


def test_many_members_that_nobody_chose_are_read(either: None) -> None:
    for value in (
        set(range(-5000, 5000)),
        {(number, -number) for number in range(5000)},
        {number / 7 for number in range(5000)},
    ):
        assert CODEC.loads(forged(*reversed(dump(value, plain=False, limit=1 << 24))), KEY)[0] == value


class Lazy(types.ModuleType):
    """A module that would import something when asked for a name it does not have."""

    asked = 0

    def __getattr__(self, name: str) -> Any:
        Lazy.asked += 1
        raise AttributeError(name)

    def __getattribute__(self, name: str) -> Any:
        Lazy.asked += 1
        return super().__getattribute__(name)


class Proxy:
    """As a lazy object of a framework: asking for its class runs its code."""

    @property
    def __class__(self) -> Any:
        Lazy.asked += 1
        return type(self)


def test_finding_a_class_runs_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Lazy("lazy_module")
    module.proxy = Proxy()
    monkeypatch.setitem(sys.modules, "lazy_module", module)
    monkeypatch.setitem(sys.modules, "no_module", None)
    Lazy.asked = 0
    for name in ("lazy_module:Absent", "lazy_module:proxy", "lazy_module:proxy.x", "no_module:A", ":", "", ":x", "a"):
        assert reason(msgpack.packb(marked(49, data=name))) == "payload"
        assert reason(msgpack.packb(ext(12, name + "\0A"))) == "payload"
    assert Lazy.asked == 0


def test_nothing_is_imported_for_bytes(tmp_path: pathlib.Path) -> None:
    """In a fresh process, with names of modules that exist and are not loaded, and with a zone that does not exist."""
    (tmp_path / "tzdata" / "zoneinfo").mkdir(parents=True)  # where ZoneInfo would look for it, as a module
    (tmp_path / "tzdata" / "__init__.py").touch()
    (tmp_path / "tzdata" / "zoneinfo" / "__init__.py").touch()
    (tmp_path / "tzdata" / "zones").touch()
    code = """
        import sys
        from cachekit.codec.serializers import load
        from cachekit.codec.envelope import Damaged
        import msgpack

        class Recorder:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name.split(".")[0] in wanted or name.startswith("tzdata."):
                    print(name)

        wanted = {"fractions", "http", "pydantic", "attr", "sched", "plistlib"}
        assert not wanted & set(sys.modules) and "cachekit.region" not in sys.modules
        sys.meta_path.insert(0, Recorder)
        ext = msgpack.ExtType
        moment = bytes.fromhex("07ea01010000000000000000")
        load(1, msgpack.packb(ext(8, moment + b"ZEurope/Berlin")))
        for tree in (
            [ext(49, b"fractions:Fraction")], ext(12, b"http:HTTPStatus\\0OK"), [ext(51, b"pydantic:BaseModel")],
            [ext(50, b"attr:Factory")], [ext(48, b"sched:Event\\0time")], [ext(49, b"cachekit:Region")],
            ext(12, b"plistlib:PlistFormat\\0FMT_XML"), ext(8, moment + b"Zpydantic/x.y"),
            ext(8, moment + b"ZNo/Where"),
        ):
            try:
                load(2, msgpack.packb(tree))
            except Damaged:
                continue
            raise AssertionError(tree)
        assert "cachekit.region" not in sys.modules and "tzdata" not in sys.modules
    """
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.check_output(command, text=True, timeout=60, env={**os.environ, "PYTHONPATH": path}) == ""


def test_zones_that_only_the_package_has_are_read(tmp_path: pathlib.Path) -> None:
    """As on a system without any."""
    zones = tmp_path / "tzdata" / "zoneinfo" / "Europe"
    zones.mkdir(parents=True)
    for folder in (zones.parent.parent, zones.parent, zones):
        (folder / "__init__.py").touch()
    found = next(path for root in TZPATH if (path := pathlib.Path(root) / "Europe" / "Berlin").is_file())
    (zones / "Berlin").write_bytes(found.read_bytes())
    code = """
        from datetime import datetime
        from zoneinfo import TZPATH, ZoneInfo
        from cachekit.codec.serializers import dump, load

        assert TZPATH == ()
        moment = datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Berlin"))
        found = load(*dump(moment, plain=False, limit=1000))
        assert found == moment and found.tzinfo is moment.tzinfo
    """
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONTZPATH": ""}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60, env=environment)


def test_a_zone_is_not_looked_for_outside_the_folders_of_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("os.path.isfile", lambda path: bool(asked.append(path)))
    for key in ("../../etc/passwd", "/net/elsewhere/x", "Europe/../Berlin", "a\0b", "Europe/", ""):
        with pytest.raises(ValueError, match="key of a time zone"):
            scalars._zone(key)
    assert asked == []


SEEDS: list[Any] = [
    {"id": 1, "name": "Ada", "ok": True, "score": 1.5, "tags": ["a", "b"], "n": None, "b": b"xx"},
    [Decimal("1.5"), UUID(int=5), date(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC), time(1), timedelta(1), 2**80],
    (1, {2, 3}, frozenset({(4,)}), {1: 2, (3,): bytearray(b"x")}, "\ud800", 1 + 2j, pathlib.PurePosixPath("/a")),
    [m.Colour.RED, m.Level.LOW, m.Rights(3), m.Point(1, 2), m.Order(1, [2]), m.Money(1), m.Slotted(1), m.Open(2)],
    [m.User(id=1, x=2), m.Frozen(key=1), m.Outer.Inner(2), m.Hashed(1)],  # type: ignore[call-arg]
    [
        datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")),
        m.deque([1], 3),
        m.defaultdict(list, a=1),
        m.OrderedDict(a=1),
    ],
]


def mutations(count: int) -> Iterator[tuple[int, bytes]]:
    rng = random.Random(20261123)
    seeds = [dump(value, plain=False, limit=1 << 20) for value in SEEDS]
    heads = [
        b"\x80",
        b"\x90",
        b"\x93",
        b"\xa3",
        b"\xc0",
        b"\xc4",
        b"\xc7",
        b"\xd4",
        b"\xd8",
        b"\xdd",
        b"\xdf",
        b"\xff",
        b"\0",
    ]
    for _ in range(count):
        codec, payload = rng.choice(seeds)
        data = bytearray(payload)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(6):
                case 0:
                    data[at : at + 1] = rng.randbytes(1)
                case 1:
                    data[at:at] = rng.choice(heads)
                case 2:
                    del data[at : at + rng.randint(1, 5)]
                case 3:
                    other = rng.choice(seeds)[1]
                    start = rng.randrange(len(other))
                    data[at:at] = other[start : start + rng.randint(1, 40)]
                case 4:
                    data[at : at + 1] = bytes([data[at] ^ 1 << rng.randrange(8)]) if at < len(data) else b""
                case _:
                    data[at : at + 1] = bytes(
                        [rng.choice([0, 1, 2, 32, 33, 34, 35, 36, 37, 38, 48, 49, 50, 51, 127, 255])]
                    )
        yield rng.choice([codec, codec, TREE, MARKED]), bytes(data)


def test_random_changes_under_a_checksum_that_fits_never_raise_anything_else(either: None) -> None:
    reason(msgpack.packb(ext(8, MOMENT + b"ZNo/Where")))  # the list of zones is made once
    modules = set(sys.modules)
    m.ran.clear()
    values = damaged = 0
    for codec, payload in mutations(30_000):
        try:
            CODEC.loads(forged(payload, codec), KEY)
            values += 1
        except Damaged:
            damaged += 1
    assert min(values, damaged) > 500, "the changes reach both ends"
    assert set(sys.modules) == modules
    assert m.ran == []
