"""P6: stored bytes are data. Whatever lies in L2, a call gives the right value or computes it, and says why."""

import random
from collections import Counter
from typing import Any

import pytest

from cachekit import cache, region
from cachekit.testing.servers import Server

VALUE = {"name": "Ada", "tags": ("a", 1), "n": 2**70}


class Entry:
    """One stored entry of a cached function, and the means to change its bytes."""

    def __init__(self, make_service: Any, server: Server) -> None:
        self.service = make_service("server", l1="off")
        self.server = server
        self.runs = 0

        @cache(version=1, profile="users")
        def load(key: int) -> dict[str, Any]:
            self.runs += 1
            return VALUE

        self.load = load
        load(1)
        self.key = str(load.key(1))
        self.bytes: bytes = server.command("GET", self.key)

    def reasons(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for tally in self.service.tallies():
            for (_, reason), count in tally.errors.items():
                total[reason] += count
        return total

    def read_with(self, data: bytes) -> tuple[bool, set[str]]:
        """Whether the entry was used, and the reasons that were counted."""
        before, runs = self.reasons(), self.runs
        self.server.command("SET", self.key, data)
        value = self.load(1)
        assert value == VALUE
        assert type(value["tags"]) is tuple
        return self.runs == runs, set((self.reasons() - before).keys())


@pytest.fixture
def entry(make_service: Any, cachekit_server: Server) -> Entry:
    return Entry(make_service, cachekit_server)


def test_a_bit_flip_anywhere_is_a_counted_miss(entry: Entry) -> None:
    for at in range(len(entry.bytes)):
        for bit in (0, 3, 7):
            data = bytearray(entry.bytes)
            data[at] ^= 1 << bit
            used, reasons = entry.read_with(bytes(data))
            assert not used, f"offset {at}, bit {bit}"
            if at == 5 and data[5] == 1:
                assert reasons == set(), "the stale mark: the entry is merely stale"
            else:
                assert len(reasons) == 1, f"offset {at}, bit {bit}"
                assert next(iter(reasons)).startswith("damaged_")


def test_every_truncation_and_extension_is_a_counted_miss(entry: Entry) -> None:
    for length in range(len(entry.bytes)):
        used, reasons = entry.read_with(entry.bytes[:length])
        assert not used
        assert len(reasons) == 1
    assert not entry.read_with(entry.bytes + b"\0")[0]
    assert not entry.read_with(entry.bytes * 2)[0]


def test_junk_other_formats_and_counters_are_misses(entry: Entry) -> None:
    rng = random.Random(7)
    junk = [b"", b"\0", b"12", b"-1", b"{}", b"\x80\x04.", rng.randbytes(76), rng.randbytes(500), b"\xff" * 100]
    junk += [bytes([*entry.bytes[:2], version, *entry.bytes[3:]]) for version in (0, 2, 255)]
    for data in junk:
        assert not entry.read_with(data)[0], data


def test_an_entry_moved_to_another_key_or_region_is_a_miss(entry: Entry) -> None:
    other = cache(version=1, profile="default")(entry.load.__wrapped__)
    for key in (entry.load.key(2), other.key(1), f"x{entry.key}"):
        entry.server.command("SET", str(key), entry.bytes)
    runs = entry.runs
    assert entry.load(2) == VALUE
    assert entry.runs == runs + 1
    assert other(1) == VALUE
    assert entry.runs == runs + 2
    users = region("users")
    entry.server.command("SET", f"{entry.service.spec.namespace}:v:{{users:=k}}", entry.bytes)
    assert users.get("k") is None


def test_the_intact_bytes_are_used(entry: Entry) -> None:
    assert entry.read_with(entry.bytes) == (True, set())


def test_a_key_of_another_type_in_the_server_is_no_error(entry: Entry) -> None:
    entry.server.command("DEL", entry.key)
    entry.server.command("RPUSH", entry.key, "x")
    assert entry.load(1) == VALUE


def test_reading_imports_nothing_and_runs_nothing(entry: Entry) -> None:
    import sys

    before = set(sys.modules)
    for seed in range(200):
        rng = random.Random(seed)
        data = bytearray(entry.bytes)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        entry.read_with(bytes(data))
    assert set(sys.modules) == before
