"""Serializers through the real engine and a real server: what is stored, what is a counted miss, and why."""

import json
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zstandard

from cachekit import Unstorable, cache, region
from cachekit.codec import registry
from cachekit.codec.envelope import pack, unpack
from cachekit.config.spec import CodecSpec
from cachekit.testing.servers import Server

PICKLE = CodecSpec(serializer="pickle", sign=True)


class Session:
    """A class that only pickle can store."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return type(other) is Session and other.name == self.name

    __hash__ = None  # type: ignore[assignment]


class NotFound(LookupError):
    pass


def reasons(service: Any) -> Counter[str]:
    total: Counter[str] = Counter()
    for tally in service.tallies():
        total.update({reason: count for (_, reason), count in tally.errors.items()})
    return total


class Entry:
    """One stored entry of a cached function, whose bytes can be replaced."""

    def __init__(self, make_service: Any, server: Server, value: Any, codec: CodecSpec) -> None:
        self.service = make_service("server", l1="off", codec=codec)
        self.server = server
        self.runs = 0
        self.value = value

        @cache(version=1, profile="users")
        def load(key: int) -> Any:
            self.runs += 1
            return self.value

        self.load = load
        load(1)
        self.key = str(load.key(1))
        self.bytes: bytes = server.command("GET", self.key)

    def changed(self, payload: bytes | None = None, **header: Any) -> bytes:
        """The entry with another header or payload, under a checksum that fits."""
        locks = self.service.tiers("users").locks
        lock = None if locks is None else locks.of("")
        old, there = unpack(self.bytes, self.key, lock)
        return pack(old._replace(**header), bytes(there) if payload is None else payload, self.key, lock)

    def read_with(self, data: bytes) -> set[str]:
        """The reasons that were counted; empty: the entry was used."""
        before, runs = reasons(self.service), self.runs
        self.server.command("SET", self.key, data)
        assert self.load(1) == self.value
        counted = reasons(self.service) - before
        assert sum(counted.values()) == self.runs - runs <= 1
        return set(counted)


VALUE = {"name": "Ada", "more": [1, None, 2.5]}


@pytest.mark.parametrize("serializer", ["msgpack", "json"])
def test_what_this_process_cannot_read_is_a_miss_that_says_why(
    make_service: Any, cachekit_server: Server, serializer: str
) -> None:
    entry = Entry(make_service, cachekit_server, VALUE, CodecSpec(serializer=serializer))
    assert entry.read_with(entry.bytes) == set()
    newer = entry.bytes[:2] + b"\2" + entry.bytes[3:]
    mine = unpack(entry.bytes, entry.key)[0].codec
    others = [code for code in (0, 1, 3, 4, 5, 63, 64, 255) if code != mine]
    assert entry.read_with(newer) == {"damaged_format"}
    for code in others:
        assert entry.read_with(entry.changed(codec=code)) == {"damaged_codec"}, code
    assert entry.read_with(entry.changed(compression=3)) == {"damaged_compression"}
    assert entry.read_with(entry.changed(b"junk", compression=1)) == {"damaged_compression"}
    assert entry.read_with(entry.changed(b"\xc1{")) == {"damaged_payload"}


def test_an_unknown_ext_code_is_a_miss_that_says_so(make_service: Any, cachekit_server: Server) -> None:
    entry = Entry(make_service, cachekit_server, VALUE, CodecSpec())
    for codec in (1, 2):
        for code in (20, 47, 60, 127):
            payload = msgpack.packb({"name": msgpack.ExtType(code, b"x")})
            assert entry.read_with(entry.changed(payload, codec=codec)) == {"damaged_payload"}


def test_a_bomb_is_a_miss_that_says_so(make_service: Any, cachekit_server: Server) -> None:
    entry = Entry(make_service, cachekit_server, VALUE, CodecSpec(max_value_bytes=1 << 20))
    count = (1 << 20) - 5
    lists = b"\xdd" + count.to_bytes(4, "big") + b"\x90" * count
    assert entry.read_with(entry.changed(lists)) == {"damaged_weight"}
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 21))
    assert entry.read_with(entry.changed(bomb, compression=2)) == {"damaged_compression"}


def test_zstd_that_this_process_does_not_have_is_a_miss_that_says_so(
    make_service: Any, cachekit_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry(make_service, cachekit_server, VALUE, CodecSpec())
    payload = bytes(unpack(entry.bytes, entry.key)[1])
    data = entry.changed(zstandard.ZstdCompressor().compress(payload), compression=2)
    assert entry.read_with(data) == set()
    monkeypatch.delitem(sys.modules, "zstandard")
    other = Entry(make_service, cachekit_server, VALUE, CodecSpec())
    data = other.changed(zstandard.ZstdCompressor().compress(payload), compression=2)
    assert other.read_with(data) == {"damaged_compression"}


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("l1", ["on", "off"])
def test_json_comes_back_and_other_languages_can_read_it(
    make_service: Any, cachekit_server: Server, compression: str, l1: str
) -> None:
    make_service("server", l1=l1, codec=CodecSpec(serializer="json", compression=compression))
    value = {"name": "Zoë", "rows": [{"n": n} for n in range(200 if compression != "none" else 3)]}
    runs = []

    @cache(version=1, profile="users", ttl="1h")
    def load(key: int) -> Any:
        runs.append(key)
        return value

    assert load(1) == load(1) == value
    assert runs == [1]
    header, payload = unpack(cachekit_server.command("GET", str(load.key(1))), str(load.key(1)))
    assert (header.codec, bool(header.compression)) == (3, compression != "none")
    if compression == "none":
        assert json.loads(bytes(payload)) == value


def test_json_refuses_with_the_path(make_service: Any) -> None:
    make_service("server", codec=CodecSpec(serializer="json", on_unstorable="raise"))

    @cache(version=1, profile="users")
    def load(key: int) -> Any:
        return {"rows": [{"when": (1,)}]}

    with pytest.raises(Unstorable, match=r"^rows\[0\].when: cannot store tuple as JSON$"):
        load(1)


@pytest.mark.parametrize("codec", [CodecSpec(serializer="json"), PICKLE, CodecSpec()], ids=lambda spec: spec.serializer)
def test_exceptions_are_remembered_whatever_the_serializer(make_service: Any, codec: CodecSpec) -> None:
    make_service("server", l1="off", codec=codec)
    runs = []

    @cache(version=1, profile="users", negative_exceptions={NotFound: "1m"})
    def load(key: int) -> Any:
        runs.append(key)
        raise NotFound(key, "no such")

    for _ in range(3):
        with pytest.raises(NotFound) as caught:
            load(1)
        assert caught.value.args == (1, "no such")
    assert runs == [1]


class Watched:
    """Counts how often it is unpickled."""

    made = 0

    def __init__(self) -> None:
        self.lock = [1]

    def __setstate__(self, state: Any) -> None:
        Watched.made += 1
        self.__dict__.update(state)


@pytest.mark.parametrize("l1", ["on", "off"])
def test_pickle_stores_what_nothing_else_can(make_service: Any, l1: str, caplog: pytest.LogCaptureFixture) -> None:
    service = make_service("server", l1=l1, codec=PICKLE)
    runs = []

    @cache(version=1, profile="users")
    def load(key: int) -> Any:
        runs.append(key)
        return {"session": Session("Ada"), "set": {1}}

    first = load(1)
    for _ in range(2):
        assert load(1) == first == {"session": Session("Ada"), "set": {1}}
        if l1 == "on":
            load.__cachekit__._function.at().tiers.table.clear()  # type: ignore[attr-defined]
    assert runs == [1]
    assert reasons(service) == Counter()
    assert caplog.records == []
    users = region("users")
    users.set("k", Session("Bob"))
    assert users.get("k") == Session("Bob")
    assert users.add("k", Session("Eve")) is False
    assert users.add("new", Session("Eve")) is True


def test_another_process_reads_what_pickle_stored(make_service: Any, cachekit_server: Server) -> None:
    """Two services of one namespace stand for it."""
    service = make_service("server", codec=PICKLE)
    region("users").set("k", Session("Bob"))
    other = type(service)(service.spec)
    try:
        found = other.region("users").get("k")
        assert found == Session("Bob")
        assert found is not region("users").get("k")
    finally:
        other.close()


def test_what_l1_cannot_copy_is_shared_as_it_is_in_l1(make_service: Any) -> None:
    make_service("server", codec=PICKLE)
    users = region("users")
    users.set("k", Session("Bob"))
    # What the server tells of our own write drops it from L1, once, at some moment.
    assert any(users.get("k") is users.get("k") for _ in range(10))


def test_what_pickle_refuses_is_told_once_and_not_stored(
    make_service: Any, cachekit_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    service = make_service("server", codec=PICKLE)
    lock = __import__("threading").Lock()

    @cache(version=1, profile="users")
    def load(key: int) -> Any:
        return lock

    assert all(load(key) is lock for key in range(3))
    assert reasons(service) == Counter(unstorable=3)
    (record,) = caplog.records
    assert "cannot store _thread.lock: TypeError: cannot pickle '_thread.lock' object" in record.getMessage()
    assert cachekit_server.command("EXISTS", str(load.key(1))) == 0


def test_a_pickle_in_the_store_of_another_profile_is_never_unpickled(
    make_service: Any, cachekit_server: Server
) -> None:
    import pickle

    payload = pickle.dumps(Watched())
    for spec in (CodecSpec(), CodecSpec(serializer="json")):
        entry = Entry(make_service, cachekit_server, VALUE, spec)
        Watched.made = 0
        assert entry.read_with(entry.changed(payload, codec=4)) == {"damaged_codec"}
        entry.read_with(entry.changed(b"\xc1" + payload))
        assert Watched.made == 0
    entry = Entry(make_service, cachekit_server, VALUE, PICKLE)
    assert entry.read_with(entry.changed(payload)[:-1]) == {"damaged_tampered"}
    assert Watched.made == 0


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "stored_by_others.py").write_text(
        "from array import array\n"
        "class Doubles:\n"
        "    code = 210\n"
        "    def __init__(self, spec): pass\n"
        "    def dumps(self, value):\n"
        "        if type(value) is not array: raise ValueError('no array')\n"
        "        return value.tobytes()\n"
        "    def loads(self, payload): return array('d', payload)\n"
    )
    metadata = tmp_path / "stored_by_others-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: stored-by-others\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[cachekit.serializers]\nstored = stored_by_others:Doubles\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_names", {})
    yield
    sys.modules.pop("stored_by_others", None)


def test_a_serializer_of_another_package_stores_its_values(
    make_service: Any, cachekit_server: Server, others: None
) -> None:
    entry = Entry(make_service, cachekit_server, array("d", [1.5, 2.5]), CodecSpec(serializer="stored"))
    assert unpack(entry.bytes, entry.key)[0].codec == 210
    assert entry.read_with(entry.bytes) == set()
    assert entry.read_with(entry.changed(b"123")) == {"damaged_payload"}
    assert entry.read_with(entry.changed(codec=211)) == {"damaged_codec"}
    entry.value = [1]
    assert entry.load(2) == [1]
    assert reasons(entry.service)["unstorable"] == 1
