"""Situations of what lies on the server: which types come back, who can read and forge it, what a clear deletes."""

import builtins
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha512
from typing import Any, NamedTuple

import redis
from adapters import Adapter
from support import counting, named, run

TEXT = sha512(b"").hexdigest()  # no compression makes it shorter than a literal
SECRET = "number 4929-1234-5678"


@dataclass(frozen=True)
class Point:
    x: int
    y: int


# --- which types come back -------------------------------------------------------------------------------------------


def comes_back(name: str, value: Any) -> Callable[[Adapter], str]:
    def situation(adapter: Adapter) -> str:
        function, runs = counting(adapter, f"{name}_fn", lambda x: value)
        try:
            memo = adapter.shared(function)
            run(memo(1))
            got = run(memo(1))
        except (TypeError, ValueError, AttributeError):
            return "error"
        if len(runs) > 1:
            return "not cached"
        return named(got) if type(got) is not type(value) else "the same" if got == value else "changed"

    situation.__name__ = f"{name}_comes_back"
    return situation


TYPES = [
    comes_back("tuple", (1, "a")),
    comes_back("set", {1, 2}),
    comes_back("bytes", b"\x00\xff"),
    comes_back("datetime", datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)),
    comes_back("decimal", Decimal("1.10")),
    comes_back("dataclass", Point(1, 2)),
    comes_back("int_keys", {1: "a"}),
]


# --- bytes that others can read and write ----------------------------------------------------------------------------


class Entry(NamedTuple):
    """A text on the server, or a field of a hash."""

    client: redis.Redis
    key: bytes
    field: bytes
    data: bytes

    def write(self, data: bytes) -> None:
        if self.field:
            self.client.hset(self.key, self.field, data)  # type: ignore[arg-type]
        else:
            self.client.set(self.key, data, keepttl=True)


def stored(url: str) -> list[Entry]:
    client = redis.Redis.from_url(url)
    found: list[Any] = []
    for key in client.scan_iter():
        kind = client.type(key)
        if kind == b"string":
            found.append(Entry(client, key, b"", client.get(key)))
        elif kind == b"hash":
            found += [Entry(client, key, field, data) for field, data in client.hgetall(key).items()]
    return found


def stored_by(adapter: Adapter, memo: Any, x: Any) -> Entry:
    """The entry that a call makes; beside it a cache may write smaller things of its own."""
    before = {entry[1:3] for entry in stored(adapter.url)}
    run(memo(x))
    return max((entry for entry in stored(adapter.url) if entry[1:3] not in before), key=lambda entry: len(entry.data))


def pickled_at(data: bytes) -> int:
    """Where a pickle begins, or -1."""
    return max(data.find(b"\x80" + bytes([protocol]) + b"\x95") for protocol in (4, 5))


def pickle_on_the_server(adapter: Adapter) -> str:
    function, _ = counting(adapter, "pickle_fn", lambda x: {"a": TEXT})
    return "yes" if pickled_at(stored_by(adapter, adapter.shared(function), 1).data) >= 0 else "no"


class Planted:
    """Its pickle runs code where it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import builtins; builtins.planted = True",)


def a_planted_pickle_runs(adapter: Adapter) -> str:
    """Somebody who can write to the server puts a pickle where the entry had one, or in place of the whole entry."""
    function, _ = counting(adapter, "planted_fn", lambda x: TEXT)
    memo = adapter.shared(function)
    entry = stored_by(adapter, memo, 1)
    entry.write(entry.data[: max(pickled_at(entry.data), 0)] + pickle.dumps(Planted()))
    try:
        run(memo(1))
    except Exception:
        pass  # what runs has run
    return "yes" if vars(builtins).pop("planted", False) else "no"


def damaged_bytes(adapter: Adapter) -> str:
    """One bit of a stored text is another one, also where the text cannot be found since it is encrypted."""
    function, runs = counting(adapter, "damage_fn", lambda x: TEXT)
    memo = adapter.shared(function)
    entry = stored_by(adapter, memo, 1)
    at = entry.data.find(TEXT.encode())
    at = len(entry.data) - len(TEXT) // 2 if at < 0 else at + len(TEXT) // 2  # headers come first
    entry.write(entry.data[:at] + bytes([entry.data[at] ^ 1]) + entry.data[at + 1 :])
    return got(memo, runs, TEXT, "wrong value")


def swapped_entries(adapter: Adapter) -> str:
    """The bytes of one entry are put under the key of another."""
    function, runs = counting(adapter, "swap_fn", lambda x: f"{TEXT} of {x}")
    memo = adapter.shared(function)
    bob, eve = stored_by(adapter, memo, "bob"), stored_by(adapter, memo, "eve")
    bob.write(eve.data)
    del runs[0]
    return got(memo, runs, f"{TEXT} of bob", "the other's", "bob")


def got(memo: Any, runs: list[Any], right: Any, wrong: str, x: Any = 1) -> str:
    try:
        answer = run(memo(x))
    except Exception:
        return "error"
    return wrong if answer != right else "miss" if len(runs) == 2 else "not damaged"


def readable_on_the_server(adapter: Adapter) -> str:
    function, _ = counting(adapter, "readable_fn", lambda x: SECRET)
    return "yes" if SECRET.encode() in stored_by(adapter, adapter.shared(function), 1).data else "no"


def a_clear_deletes_keys_of_others(adapter: Adapter) -> str:
    function, runs = counting(adapter, "clear_fn", lambda x: x)
    memo = adapter.shared(function)
    client = redis.Redis.from_url(adapter.url)
    client.set("somebody:else", "theirs")
    run(memo(1))
    run(adapter.clear(memo))
    run(memo(1))
    assert runs == [1, 1], "it was not cleared"
    return "no" if client.exists("somebody:else") else "yes"


SITUATIONS = (
    *TYPES, pickle_on_the_server, a_planted_pickle_runs, damaged_bytes, swapped_entries, readable_on_the_server,
    a_clear_deletes_keys_of_others,
)  # fmt: skip
