"""The operations of the protocol on an SQLite file, each in one transaction."""

import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from cachekit.backends.base import HEAD_BYTES, LISTEN, Listener
from cachekit.backends.file.database import Connection, Database
from cachekit.backends.file.listening import FileListener
from cachekit.backends.records import STEPS, Record, RecordBackend, Step, expire_soft, living
from cachekit.errors import BackendError

T = TypeVar("T")

MAX_BYTES: Final = 256 * 1024 * 1024
LARGEST_SHARE: Final = 4  # a value may have a quarter of the space
POLL: Final = 0.05  # seconds between two looks for changes of other processes
KEPT_CHANGES: Final = 10_000  # who has not read them by then begins anew
TRIM_EVERY: Final = 256  # changes
SWEPT: Final = 4  # outdated records that each write removes
EVICTED: Final = 16  # records at a time
EVICTED_STAMPS: Final = 1_000  # ... and stamps, which have to be sorted first
ROUNDS: Final = 64  # of evicting in one write

READ: Final = "SELECT data, ends, token, lease_ends FROM records WHERE key = ?"
WRITE: Final = "INSERT OR REPLACE INTO records (key, data, ends, token, lease_ends, until) VALUES (?, ?, ?, ?, ?, ?)"
SWEEP: Final = "DELETE FROM records WHERE id IN (SELECT id FROM records WHERE until <= ? LIMIT ?)"
OLDEST: Final = "DELETE FROM records WHERE id IN (SELECT id FROM records ORDER BY id LIMIT ?)"
NEXT_STAMPS: Final = "DELETE FROM stamps WHERE name IN (SELECT name FROM stamps ORDER BY ends LIMIT ?) RETURNING name"
MAKE_STAMP: Final = "INSERT OR REPLACE INTO stamps (name, stamp, ends) VALUES (?, ?, ?)"


def now_ms() -> int:
    return int(time.time() * 1000)


def packed(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


class FileBackend(RecordBackend):
    """A store in one file, for the processes of one host and one user. Opens the file when it is first used."""

    capabilities = STEPS | {"get_many", "stamps", "keep", "clear", "scan", "expire_soft", "check", LISTEN}

    def __init__(self, path: Path, max_bytes: int, poll: float) -> None:
        self.database = Database(path, self._tell_of_move)
        self.max_bytes = max_bytes
        self.largest = max_bytes // LARGEST_SHARE
        self._poll = poll
        self._listeners: weakref.WeakSet[FileListener] = weakref.WeakSet()

    def _tell_of_move(self) -> None:
        for listener in tuple(self._listeners):
            listener.end("moved")
        if self.on_move is not None:
            self.on_move()

    # One key

    def _read(self, key: str, budget: float) -> tuple[Record | None, int]:
        name, now, deadline = packed(key), now_ms(), time.monotonic() + budget
        with self.database.reading(budget) as connection:
            there = read(connection, name)
        record = living(there, now)
        if there is not None and record is None:
            self._forget(name, deadline - time.monotonic())
        return record, now

    def _forget(self, name: bytes, budget: float) -> None:
        """Remove what has ended and tell of it, if that is possible now."""
        try:
            with self.database.writing(budget) as connection:
                if living(read(connection, name), now_ms()) is None:
                    remove(connection, name)
                    change(connection, [name])
        except BackendError:
            pass  # it counts for nobody, and some write will sweep it away

    def _change(self, key: str, step: Step[T], budget: float) -> T:
        name = packed(key)
        with self.database.writing(budget) as connection:
            now = now_ms()
            before = living(read(connection, name), now)
            after, answer = step(before, now)
            if after is not before:
                if after is None:
                    remove(connection, name)
                else:
                    write(connection, name, after)
                    self._make_room(connection, now)
                if after is None or after.token is None or before is None or after[:2] != before[:2]:
                    change(connection, [name])
            return answer

    def _make_room(self, connection: Connection, now: int) -> None:
        """Remove some of what has ended, and of the rest what was stored first, until the file is small enough."""
        connection.execute(SWEEP, (now, SWEPT))
        for _ in range(ROUNDS):
            if used_bytes(connection) <= self.max_bytes:
                return
            if connection.execute(OLDEST, (EVICTED,)).rowcount == 0:
                change(connection, [name for (name,) in connection.execute(NEXT_STAMPS, (EVICTED_STAMPS,)).fetchall()])

    # Several keys

    def get_many(self, keys: Sequence[str], *, budget: float) -> list[bytes | None]:
        now = now_ms()
        with self.database.reading(budget) as connection:
            return [value_or_stamp(connection, packed(key), now) for key in keys]

    def invalidate(self, keys: Sequence[str], *, budget: float) -> None:
        names = [packed(key) for key in keys]
        with self.database.writing(budget) as connection:
            for name in names:
                remove(connection, name)
            change(connection, names)

    def expire_soft(self, keys: Sequence[str], *, budget: float) -> None:
        names = [packed(key) for key in keys]
        with self.database.writing(budget) as connection:
            now = now_ms()
            for name in names:
                after, _ = expire_soft(living(read(connection, name), now), now)
                if after is None:
                    remove(connection, name)
                else:
                    write(connection, name, after)
            change(connection, names)

    def scan(self, prefix: str, cursor: str, count: int, *, budget: float) -> tuple[str, list[tuple[str, bytes]]]:
        now, begin, after = now_ms(), packed(prefix), bytes.fromhex(cursor)
        with self.database.reading(budget) as connection:
            rows = connection.execute(
                f"SELECT key, substr(data, 1, {HEAD_BYTES}), ends FROM records WHERE key >= ? AND key > ? "
                "ORDER BY key LIMIT ?",
                (begin, after, count),
            ).fetchall()
        found = [row for row in rows if row[0].startswith(begin)]
        page = [
            (name.decode(errors="surrogateescape"), head)
            for name, head, ends in found
            if head and (ends is None or ends > now)
        ]
        return found[-1][0].hex() if len(found) == count else "", page

    # Stamps

    def stamps(self, names: Sequence[str], fresh: Sequence[bytes], ttl_ms: int, *, budget: float) -> list[bytes]:
        answer: list[bytes] = []
        made: list[bytes] = []
        with self.database.writing(budget) as connection:
            now = now_ms()
            for name, new in zip(map(packed, names), fresh, strict=True):
                stamp, ends = stamp_of(connection, name, now)
                if stamp is None:
                    made.append(name)
                if stamp is None or ends - now < ttl_ms // 2:
                    connection.execute(MAKE_STAMP, (name, stamp or new, now + ttl_ms))
                answer.append(stamp or new)
            change(connection, made)
        if made:  # whoever makes one waits for the word of it
            for listener in tuple(self._listeners):
                listener.look()
        return answer

    def keep(self, names: Sequence[str], *, budget: float) -> None:
        """Stamps are the last to be evicted."""

    def clear(self, names: Sequence[str], *, budget: float) -> None:
        with self.database.writing(budget) as connection:
            for name in map(packed, names):
                connection.execute("DELETE FROM stamps WHERE name = ?", (name,))
            change(connection, [packed(name) for name in names])

    # The whole

    def check(self, *, budget: float) -> dict[str, str]:
        with self.database.reading(budget) as connection:
            ((keys,),) = connection.execute("SELECT count(*) FROM records")
            used = used_bytes(connection)
        return {
            "server": "file",
            "path": str(self.database.path),
            "keys": str(keys),
            "used_bytes": str(used),
            "max_bytes": str(self.max_bytes),
        }

    def listen(
        self, prefixes: Sequence[str], *, heartbeat: float, clock: Callable[[], float], budget: float
    ) -> Listener:
        listener = FileListener(self.database, prefixes, min(self._poll, heartbeat), heartbeat, clock, budget)
        self._listeners.add(listener)
        return listener

    def close(self) -> None:
        self.database.close()


def read(connection: Connection, name: bytes) -> Record | None:
    row = connection.execute(READ, (name,)).fetchone()
    return None if row is None else Record(*row)


def write(connection: Connection, name: bytes, record: Record) -> None:
    connection.execute(WRITE, (name, record.data, record.ends, record.token, record.lease_ends, record.until()))


def remove(connection: Connection, name: bytes) -> None:
    connection.execute("DELETE FROM records WHERE key = ?", (name,))


def change(connection: Connection, names: Sequence[bytes]) -> None:
    """Note for those who listen that these names changed, and forget what was noted long ago."""
    for name in names:
        seq = connection.execute("INSERT INTO changes (name) VALUES (?)", (name,)).lastrowid or 0
        if seq % TRIM_EVERY == 0:
            connection.execute("DELETE FROM changes WHERE seq <= ?", (seq - KEPT_CHANGES,))
            connection.execute("DELETE FROM stamps WHERE ends <= ?", (now_ms(),))


def stamp_of(connection: Connection, name: bytes, now: int) -> tuple[bytes | None, int]:
    """A stamp and its end."""
    row = connection.execute("SELECT stamp, ends FROM stamps WHERE name = ?", (name,)).fetchone()
    return (None, 0) if row is None or row[1] <= now else row


def value_or_stamp(connection: Connection, name: bytes, now: int) -> bytes | None:
    record = living(read(connection, name), now)
    if record is not None and record.data is not None:
        return record.data
    return stamp_of(connection, name, now)[0]


def used_bytes(connection: Connection) -> int:
    """Of the file: what can be given to other records without making it longer does not count."""
    ((pages,),) = connection.execute("PRAGMA page_count")
    ((free,),) = connection.execute("PRAGMA freelist_count")
    ((size,),) = connection.execute("PRAGMA page_size")
    return int((pages - free) * size)
