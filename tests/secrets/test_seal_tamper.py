"""Whatever is done to the stored bytes of a sealed or signed entry: never a wrong value, the right reason, and either
`TamperedEntry` or a miss after which all is well again."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from seal_rig import OTHER, VALUE, Rig

from cachekit import MISS, TamperedEntry, tenant
from cachekit.codec.keyring import name_root
from cachekit.config.spec import KeySpec
from cachekit.testing.servers import Server

HEAD = {"encrypt": 84, "sign": 72}
TAG = 16
STALE_MARK = 5


@pytest.fixture(params=[False, True], ids=["miss", "fail_closed"])
def fail_closed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["encrypt", "sign"])
def use(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Scene(Rig):
    """A stored entry, and what becomes of readers of other bytes in its place."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.key = self.writer.f.key(1)
        assert self.writer.call() == VALUE
        self.bytes = self.get(self.key)

    def judge(self, data: bytes, *, stale: bool = False) -> set[str]:
        """Read these bytes as the entry; the reasons that were counted. All that must hold whatever they are."""
        self.put(self.key, data)
        return self.judge_what_lies_there(data, stale=stale)

    def judge_what_lies_there(self, data: bytes, *, stale: bool = False) -> set[str]:
        reader = self.reader
        before, runs = reader.reasons(), reader.runs
        if self.codec.fail_closed and not stale:
            with pytest.raises(TamperedEntry) as caught:
                reader.call()
            assert reader.runs == runs, "it is not computed, so that nobody can have it computed"
            assert self.get(self.key) == data
            reasons = reader.reasons() - before
            assert set(reasons.values()) == {1}
            assert f"({next(iter(reasons)).removeprefix('damaged_')})" in str(caught.value)
            return set(reasons)
        assert reader.call() == VALUE
        assert reader.runs == runs + 1, "a miss"
        assert self.get(self.key) not in (data, self.bytes)
        reasons = reader.reasons() - before
        assert reader.call() == VALUE
        assert reader.runs == runs + 1, "it was stored again"
        assert reader.reasons() - before == reasons
        return set(reasons)


@pytest.fixture
def scene(cachekit_server: Server, use: str, fail_closed: bool, face: str) -> Iterator[Scene]:
    scene = Scene(cachekit_server, use=use, fail_closed=fail_closed, face=face)
    yield scene
    scene.close()


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def reasons_of_a_flip(use: str, at: int, bit: int) -> set[str]:
    if at < 2:
        return {"magic"}
    if at == 2:
        return {"format"}
    if at == 4 and bit in (2, 3):
        return {"unsealed"}
    if at == STALE_MARK:
        return {"stale_mark"} if bit else set()
    if at in (6, 7):
        return {"header", "truncated", "tampered", "key"}
    if 68 <= at < 72:
        return {"key"}
    return {"tampered"}


@pytest.mark.parametrize("face", ["sync", pytest.param("async", marks=pytest.mark.slow)], indirect=True)
def test_a_bit_flip_anywhere(scene: Scene, use: str, face: str) -> None:
    """Every bit of header and tag, one of each byte of the payload; the async way one of each byte."""
    head, end = HEAD[use], len(scene.bytes)
    assert int.from_bytes(scene.bytes[6:8], "little") == head
    for at in range(end):
        for bit in range(8) if face == "sync" and (at < head or at >= end - TAG) else (at % 8,):
            stale = (at, bit) == (STALE_MARK, 0)
            reasons = scene.judge(flipped(scene.bytes, at, bit), stale=stale)
            wanted = {f"damaged_{reason}" for reason in reasons_of_a_flip(use, at, bit)}
            assert reasons <= wanted, (at, bit)
            assert len(reasons) == (0 if stale else 1), (at, bit)


@pytest.mark.parametrize("face", ["sync", pytest.param("async", marks=pytest.mark.slow)], indirect=True)
def test_truncation_at_every_length_and_extension(scene: Scene, use: str) -> None:
    short = HEAD[use] + TAG
    for length in range(len(scene.bytes)):
        reason = "empty" if not length else "truncated" if length < short else "tampered"
        assert scene.judge(scene.bytes[:length]) == {f"damaged_{reason}"}, length
    for more in (b"\0", b"x", scene.bytes, bytes(4096)):
        assert scene.judge(scene.bytes + more) == {"damaged_tampered"}
    assert scene.judge(b"\0" + scene.bytes) == {"damaged_magic"}


def test_junk_and_other_formats(scene: Scene) -> None:
    rng = random.Random(7)
    junk = [b"\0", b"12", b"-1", b"{}", b"\x80\x04.", rng.randbytes(84), rng.randbytes(5000), b"\xff" * 100]
    for data in junk:
        assert scene.judge(data) == {"damaged_magic"}, data
    for number in (0, 2, 255):
        assert scene.judge(scene.bytes[:2] + bytes([number]) + scene.bytes[3:]) == {"damaged_format"}
    assert scene.judge(scene.bytes[:8] + rng.randbytes(len(scene.bytes) - 8)) <= {"damaged_key", "damaged_tampered"}


def test_entries_of_other_keys_regions_tenants_and_namespaces(scene: Scene, cachekit_server: Server) -> None:
    writer = scene.writer
    writer.call(2)
    foreign = {"key": scene.get(writer.f.key(2))}
    other = writer.in_region("others")
    writer.wait(other(1))
    foreign["region"] = scene.get(other.key(1))
    with tenant("acme"):
        writer.wait(writer.f(1))
        foreign["tenant"] = scene.get(writer.f.key(1))
    writer.region("set", "k", VALUE)
    foreign["kind"] = next(
        scene.get(name.decode())
        for name in cachekit_server.command("KEYS", f"{scene.namespace}:v:{{users:*")
        if b"load" not in name
    )
    elsewhere = scene.side(namespace=f"{scene.namespace}x")
    elsewhere.call()
    foreign["namespace"] = scene.get(elsewhere.f.key(1))
    for what, data in foreign.items():
        assert data != scene.bytes
        assert scene.judge(data) == {"damaged_tampered"}, what


def made_by(scene: Scene, profile: str, **changes: Any) -> bytes:
    """A lie for the key of the scene, whole and as this profile closes it, under the same namespace and region."""
    spec = scene.spec(**changes)
    regions = {**spec.regions, "users": spec.regions[profile].but(name="users")}
    region = scene.side(regions=regions, **changes).service.region("users")
    call = region._call(region._at(), scene.key)
    made = {"id": b"i" * 16, "created": 0, "soft": 2**62, "hard": 2**62}
    data: bytes = call.tiers.codec.dumps({"a": "lie"}, str(scene.key), **made, lock=call.lock)
    return data


def test_plain_signed_and_sealed_entries_in_place_of_each_other(scene: Scene, use: str) -> None:
    """Each is whole, for this very key, and closed with a true key for another use."""
    for name in ("plain", "signed", "sealed"):
        if (name, use) not in (("signed", "sign"), ("sealed", "encrypt")):
            assert scene.judge(made_by(scene, name)) == {"damaged_unsealed"}, name


@pytest.mark.parametrize("of", ["signed", "sealed"])
def test_a_closed_entry_in_place_of_a_plain_one(cachekit_server: Server, of: str, face: str) -> None:
    scene = Scene(cachekit_server, use="", face=face)
    try:
        assert scene.judge(made_by(scene, of)) == {"damaged_sealed"}
    finally:
        scene.close()


def test_an_entry_under_another_key(scene: Scene, use: str) -> None:
    data = made_by(scene, {"encrypt": "sealed", "sign": "signed"}[use], keys=KeySpec(master_key=OTHER))
    assert scene.judge(data) == {"damaged_key"}
    known = data[:68] + scene.bytes[68:72] + data[72:]  # an id that is known here does not help
    assert scene.judge(known) == {"damaged_tampered"}


def test_an_older_value_of_the_same_key_is_taken(scene: Scene) -> None:
    """The limit of all this: SECURITY.md says so."""
    scene.writer.wait(scene.writer.f.put("newer", 1))
    assert scene.reader.call() == "newer"
    scene.put(scene.key, scene.bytes)
    assert scene.reader.call() == VALUE
    assert scene.reader.runs == 0


def test_a_key_of_another_type_in_the_server(scene: Scene) -> None:
    scene.server.command("DEL", str(scene.key))
    scene.server.command("RPUSH", str(scene.key), "x")
    assert scene.reader.call() == VALUE


# Every way to an entry. In each, (method, arguments) and what a miss is there.
LOOKS: dict[str, tuple[tuple[Any, ...], Any]] = {
    "get": (("k",), None), "get_many": ((["k", "l"],), {}), "remaining": (("k",), MISS), "touch": (("k",), False),
    "add": (("k", "mine"), True), "get_or_set": (("k", lambda: "mine"), "mine"),
}  # fmt: skip
WRITES: dict[str, tuple[Any, ...]] = {"set": ("k", "mine"), "delete": ("k",), "clear": ()}


def of_region(scene: Scene) -> str:
    """The key in L2 of the region's entry "k"."""
    side = scene.writer
    side.region("set", "k", "good")
    region = side.service.region("users")
    return str(region._call(region._at(), "k").key)


@pytest.mark.parametrize("method", LOOKS)
def test_every_way_to_look(scene: Scene, method: str) -> None:
    key = of_region(scene)
    good = scene.get(key)
    args, nothing = LOOKS[method]
    reader = scene.reader
    for data, reason in (
        (flipped(good, 90, 1), "tampered"), (b"junk", "magic"), (good[:-1], "tampered"),
        (flipped(good, 4, 2), "unsealed"),
    ):  # fmt: skip
        before = reader.reasons()
        scene.put(key, data)
        if scene.codec.fail_closed:
            with pytest.raises(TamperedEntry, match=rf"users.*\({reason}\)"):
                reader.region(method, *args)
            assert scene.get(key) == data
        else:
            assert reader.region(method, *args) == nothing
        assert reader.reasons() - before == {f"damaged_{reason}": 1}
        reader.region("set", "k", "healed")
        assert scene.writer.region("get", "k") == "healed"


@pytest.mark.parametrize("method", WRITES)
def test_what_does_not_look_is_not_disturbed(scene: Scene, method: str) -> None:
    key = of_region(scene)
    scene.put(key, b"junk")
    scene.reader.region(method, *WRITES[method])
    if method != "clear":
        assert scene.writer.region("get", "k") == ("mine" if method == "set" else None)
    scene.reader.region("set", "k", "healed")
    assert scene.writer.region("get", "k") == "healed"


def test_add_and_get_or_set_store_over_what_was_a_miss(cachekit_server: Server, use: str, face: str) -> None:
    scene = Scene(cachekit_server, use=use, face=face)
    try:
        key = of_region(scene)
        for method in ("add", "get_or_set"):
            scene.put(key, b"junk")
            scene.reader.region(method, *LOOKS[method][0])
            assert scene.writer.region("get", "k") == "mine"
    finally:
        scene.close()


def test_a_function_can_look_put_and_refresh(scene: Scene) -> None:
    reader, f = scene.reader, scene.reader.f
    scene.put(scene.key, b"junk")
    if scene.codec.fail_closed:
        with pytest.raises(TamperedEntry):
            reader.wait(f.peek(1))
        with pytest.raises(TamperedEntry):
            reader.region("get", f.key(1))
    else:
        assert reader.wait(f.peek(1)) is MISS
        assert reader.region("get", f.key(1)) is None
    assert reader.reasons() == {"damaged_magic": 2}
    assert reader.wait(f.refresh(1)) == VALUE, "which replaces what lies there, whatever it is"
    assert (reader.call(), reader.runs) == (VALUE, 1)
    scene.put(scene.key, b"junk")
    reader.wait(f.put("mine", 1))
    assert reader.call() == "mine"
    scene.put(scene.key, b"junk")
    reader.wait(f.invalidate(1))
    assert (reader.call(), reader.runs) == (VALUE, 2)


def test_a_previous_key_opens_and_no_other(scene: Scene) -> None:
    old = scene.spec().keys.master_key or ""
    keys = KeySpec(master_key=OTHER, previous_keys=(old,), name_key=name_root(old))  # type: ignore[arg-type]
    rotated = scene.side(keys=keys)
    assert rotated.call() == VALUE
    assert rotated.runs == 0
    scene.put(scene.key, flipped(scene.bytes, 90, 3))
    if scene.codec.fail_closed:
        with pytest.raises(TamperedEntry):
            rotated.call()
    else:
        assert (rotated.call(), rotated.runs) == (VALUE, 1)
    assert rotated.reasons() == {"damaged_tampered": 1}
