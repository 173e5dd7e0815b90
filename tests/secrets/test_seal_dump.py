"""What somebody learns who reads the whole server: of a secure region no name and no value, nor a way to try names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from seal_rig import Rig

from cachekit import tenant
from cachekit.engine import keys
from cachekit.testing.servers import Server, start_server

ARGUMENT, KEY, TAG, OWN_TAG, TENANT = (
    "argument-sentinel",
    "key-sentinel",
    "tag-sentinel",
    "owntag-sentinel",
    "tenant-sentinel",
)
LONG_KEY = "long-sentinel" * 30
SECRET = "value-sentinel"


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    with start_server("valkey") as server:
        for option, value in (("rdbcompression", "no"), ("appendonly", "yes"), ("appendfsync", "always")):
            server.command("CONFIG", "SET", option, value)
        yield server


def everything(server: Server) -> bytes:
    """Every key, what lies under it, and all files: the snapshot and the log of every write."""
    found = []
    for name in server.command("KEYS", "*"):
        found += [name, server.command("GET", name)]
    server.command("SAVE")
    directory = Path(dict(zip(*[iter(server.command("CONFIG", "GET", "dir"))] * 2, strict=True))[b"dir"].decode())
    files = [file.read_bytes() for file in directory.rglob("*") if file.suffix in (".rdb", ".aof")]
    assert any(b"REDIS" in data or b"VALKEY" in data for data in files)
    return b"\n".join([*found, *files])


def use(rig: Rig, region: str) -> None:
    """All that leaves names or values behind."""
    side = rig.writer
    within = side.service.region(region)

    def load(text: str) -> Any:
        return {"is": SECRET, "of": text}

    f = within.cached(version=1, tags=lambda text: [OWN_TAG, f"{OWN_TAG}:{text}"])(load)
    for whose in (None, TENANT):
        with tenant(whose) if whose else tenant("x"):
            assert f(ARGUMENT) == {"is": SECRET, "of": ARGUMENT}
            within.set(KEY, SECRET, tags=[TAG])
            within.set(LONG_KEY, [SECRET] * 1000)
            within.set(("tuple", KEY), SECRET)
            within.add(KEY + "-added", SECRET)
            within.touch(KEY, ttl=600)
            within.mark_stale(KEY + "-added")
            f.mark_stale(ARGUMENT)
            f(ARGUMENT)
            f.refresh(ARGUMENT)
        assert f(ARGUMENT)["is"] == SECRET
        within.set(KEY, SECRET, tags=[TAG])
    with tenant("y"):
        f(ARGUMENT)
        within.clear()
        f.invalidate(ARGUMENT)
        f.invalidate_all()


def test_a_dump_tells_nothing_of_a_secure_region_and_all_of_a_plain_one(own_server: Server) -> None:
    for region, secret in (("sealed", True), ("signed", False), ("plain", False)):
        own_server.command("FLUSHALL")
        own_server.command("CONFIG", "SET", "appendonly", "no")
        own_server.command("CONFIG", "SET", "appendonly", "yes")
        rig = Rig(own_server, use="")
        try:
            use(rig, region)
        finally:
            rig.close()
        dump = everything(own_server)
        # What somebody can make himself to try whether a likely name is there.
        guesses = {
            "argument": keys.hex_digest((ARGUMENT,)),
            "tuple": keys.region_ident(("tuple", KEY)),
            "long key": keys.region_ident(LONG_KEY),
            "tenant": keys.hidden(TENANT, b""),
            "key": "=" + KEY,
        }
        for what, guess in guesses.items():
            assert (guess.encode() in dump) is not secret, (region, what)
        for tag in (TAG, OWN_TAG):
            digest = keys.tag_digest(tag)
            assert (digest in dump or digest.hex().encode() in dump) is not secret, (region, tag)
        for text in (SECRET, KEY):
            assert (text.encode() in dump) is not secret, (region, text)
        for text in (ARGUMENT, TENANT, TAG, OWN_TAG) if secret else ():
            assert text.encode() not in dump, (region, text)
        if not secret:
            assert ARGUMENT.encode() in dump, "in the value"


def test_clearing_a_tag_leaves_no_guessable_name_among_the_keys(own_server: Server) -> None:
    """Only who listens, or reads the log of writes, sees that a tag is cleared under its open name too: regions that
    are not encrypted may carry it."""
    own_server.command("FLUSHALL")
    rig = Rig(own_server, use="")
    try:
        region = rig.writer.service.region("sealed")
        region.set("k", 1, tags=["cleared-sentinel"])
        region.invalidate_tags("cleared-sentinel")
        assert region.get("k") is None
        region.set("k", 1, tags=["cleared-sentinel"])
        left = b"\n".join(name + own_server.command("GET", name) for name in own_server.command("KEYS", "*"))
        assert b"cleared-sentinel" not in everything(own_server)
    finally:
        rig.close()
    digest = keys.tag_digest("cleared-sentinel")
    assert digest not in left
    assert digest.hex().encode() not in left


def test_equal_values_and_lengths(own_server: Server) -> None:
    """Equal values have nothing in common that shows; their length after compression does."""
    rig = Rig(own_server, use="encrypt", ttl=None, jitter=0.0)
    try:
        made = []
        for key in range(2):
            rig.writer.region("set", key, SECRET)
            region = rig.writer.service.region("users")
            made.append(rig.get(region._call(region._at(), key).key))
    finally:
        rig.close()
    first, second = made
    assert len(first) == len(second) == 100 + len(SECRET) + 1
    assert first[84:] != second[84:]
    assert sum(a == b for a, b in zip(first[84:], second[84:], strict=True)) < 8
