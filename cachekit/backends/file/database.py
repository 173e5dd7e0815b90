"""The SQLite file: connections that end before a fork, transactions within a budget, and what its errors mean."""

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cachekit.backends.file import place
from cachekit.errors import BackendError, Fault

APPLICATION: Final = 0x63616B31  # in the header of the file: that it is ours
VERSION: Final = 1  # of the tables
OLDEST: Final = (3, 35)  # SQLite with DELETE ... RETURNING
KEPT: Final = 8  # idle connections
LOOK_WAIT: Final = 1.0  # seconds
FORK_WAIT: Final = 1.0  # seconds that a fork waits for operations of other threads
JOURNAL_LIMIT: Final = 16 * 1024 * 1024

TABLES: Final = """
    CREATE TABLE records (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, ends INTEGER, token BLOB,
                          lease_ends INTEGER NOT NULL, until INTEGER, data BLOB);
    CREATE INDEX records_until ON records (until) WHERE until IS NOT NULL;
    CREATE TABLE stamps (name BLOB PRIMARY KEY, stamp BLOB NOT NULL, ends INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB NOT NULL);
"""


class Connection(sqlite3.Connection):
    """``waits`` is how long it waits for the lock of another process, in milliseconds."""

    waits = 0
    file: tuple[int, int] | None = None

    def wait_for(self, seconds: float) -> None:
        """Wait no longer than this, and not much shorter: setting it is a statement of its own."""
        wanted = max(1, int(seconds * 1000))
        if not 0.9 * wanted <= self.waits <= wanted:
            self.execute(f"PRAGMA busy_timeout = {wanted}")
            self.waits = wanted


class Database:
    """One file, shared by the threads of this process and by other processes of this host.

    SQLite forbids to carry a connection into a forked child, and a child that opens the file while its copy of SQLite
    believes to have it open would hold no lock. So all are closed before a fork. If that is impossible, because an
    operation of another thread does not end, the child does not use the file.
    """

    def __init__(self, path: Path, moved: Callable[[], object]) -> None:
        """``moved`` is called when another file lies at the path than before."""
        self.path = path
        self._moved = moved
        self._idle: list[Connection] = []
        self._busy = 0
        self._file: tuple[int, int] | None = None  # that the connections lead to
        self._gate = threading.Condition()
        self._writing = threading.Lock()  # SQLite lets one write at a time, and has the others sleep
        self._forking = False
        self._in_use = False  # when the last fork began
        self._stranded = False
        self._pid = os.getpid()
        _all.add(self)

    @contextmanager
    def reading(self, budget: float) -> Iterator[Connection]:
        """A connection for single statements. Raises BackendError and nothing else, but for what the caller raises."""
        deadline = time.monotonic() + budget
        connection = self._take(deadline)
        sound = False
        try:
            connection.wait_for(deadline - time.monotonic())
            yield connection
            sound = True
        except sqlite3.Error as error:
            sound = not connection.in_transaction
            raise translated(error, self.path) from error
        except BackendError:
            sound = not connection.in_transaction
            raise
        finally:
            self._give(connection, sound)

    @contextmanager
    def writing(self, budget: float) -> Iterator[Connection]:
        """A transaction: all of it or nothing. Raises as `reading` does."""
        deadline = time.monotonic() + budget
        if budget <= 0 or not self._writing.acquire(timeout=budget):
            raise BackendError(Fault.DOWN, "timeout")
        try:
            with self.reading(deadline - time.monotonic()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):  # some errors have rolled it back already
                        connection.execute("ROLLBACK")
                    raise
        finally:
            self._writing.release()

    def close(self) -> None:
        """Close what is idle. A later call opens again."""
        with self._gate:
            idle, self._idle = self._idle, []
            self._close(idle)

    # Connections

    def _take(self, deadline: float) -> Connection:
        if self._stranded or self._pid != os.getpid():
            raise BackendError(
                Fault.CONFIG, "file", f"{self.path} was in use when this process was forked; start it anew to cache"
            )
        if deadline <= time.monotonic():
            raise BackendError(Fault.DOWN, "timeout")
        with self._gate:
            if not self._gate.wait_for(lambda: not self._forking, deadline - time.monotonic()):
                raise BackendError(Fault.DOWN, "timeout")
            moved = self._follow()
            connection = self._idle.pop() if self._idle else None
            self._busy += 1
        try:
            if moved:
                self._moved()
            return connection or self._open(deadline)
        except BaseException:
            self._give(None, False)
            raise

    def _follow(self) -> bool:
        """Locked: let go of connections to a file that does not lie there any more; whether it does not."""
        if self._file is None or self._file == place.identity(self.path):
            return False
        self._file = None
        idle, self._idle = self._idle, []
        self._close(idle)
        return True

    def _give(self, connection: Connection | None, sound: bool) -> None:
        with self._gate:
            self._busy -= 1
            if connection is not None:
                if sound and len(self._idle) < KEPT and connection.file == self._file:
                    self._idle.append(connection)
                else:
                    self._close([connection])
            self._gate.notify_all()

    @staticmethod
    def _close(connections: list[Connection]) -> None:
        for connection in connections:
            with suppress(sqlite3.Error):
                connection.close()

    def _open(self, deadline: float) -> Connection:
        connection = None
        try:
            if place.check(self.path) is None:
                place.put_there(self.path, make)
            file = place.identity(self.path)
            connection = connect(self.path)
            connection.wait_for(deadline - time.monotonic())
            verify(connection, self.path)
        except BaseException as error:
            if connection is not None:
                self._close([connection])
            if isinstance(error, sqlite3.Error):
                raise translated(error, self.path) from error
            raise
        connection.file = self._file = file
        return connection

    # Forks

    def before_fork(self) -> None:
        with self._gate:
            self._forking = True
            self._in_use = not self._gate.wait_for(lambda: self._busy == 0, FORK_WAIT)
            idle, self._idle = self._idle, []
            self._close(idle)

    def after_fork_in_parent(self) -> None:
        with self._gate:
            self._forking = False
            self._gate.notify_all()

    def after_fork_in_child(self) -> None:
        self._stranded = self._stranded or self._in_use
        self._gate = threading.Condition()
        self._writing = threading.Lock()
        self._forking = False
        self._busy = 0
        self._pid = os.getpid()


_all: "weakref.WeakSet[Database]" = weakref.WeakSet()


def _each(act: Callable[[Database], object]) -> Callable[[], None]:
    def run() -> None:
        for database in list(_all):
            act(database)

    return run


os.register_at_fork(
    before=_each(Database.before_fork),
    after_in_parent=_each(Database.after_fork_in_parent),
    after_in_child=_each(Database.after_fork_in_child),
)


def connect(path: Path) -> Connection:
    """Never makes the file: SQLite would leave it to the umask who may read it."""
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw", uri=True, timeout=0, isolation_level=None, check_same_thread=False,
        factory=Connection,
    )  # fmt: skip


def make(path: Path) -> None:
    """Write an empty database into an empty file."""
    with closing(connect(path)) as connection:
        connection.executescript(
            f"PRAGMA journal_mode = WAL; BEGIN; {TABLES} PRAGMA application_id = {APPLICATION}; "
            f"PRAGMA user_version = {VERSION}; COMMIT;"
        )


def verify(connection: Connection, path: Path) -> None:
    """That the file is ours, and of this version; nothing is written before that is known."""
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    if application != APPLICATION:
        raise BackendError(Fault.CONFIG, "file", foreign(path))
    if version != VERSION:
        raise BackendError(
            Fault.CONFIG, "file", f"{path} was made by another version of cachekit; choose another path, or remove it"
        )
    connection.execute("PRAGMA synchronous = NORMAL")  # safe from corruption; what came last may be lost with power
    connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_LIMIT}")


def look_at(path: Path) -> None:
    """Whether what lies there, if anything, can be used. BackendError (CONFIG) when not."""
    if place.check(path) is None:
        return
    try:
        with closing(connect(path)) as connection:
            connection.wait_for(LOOK_WAIT)
            verify(connection, path)
    except sqlite3.Error as error:
        found = translated(error, path)
        if found.fault is Fault.CONFIG:
            raise found from error


def foreign(path: Path) -> str:
    return f"{path} is not a file of cachekit's and is left as it is; choose another path"


def translated(error: sqlite3.Error, path: Path) -> BackendError:
    """What an error of SQLite says about the backend."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return BackendError(Fault.DOWN, "timeout")
    if code == sqlite3.SQLITE_FULL:
        return BackendError(Fault.READONLY, "oom", f"no space is left for {path}")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return BackendError(Fault.READONLY, "readonly", f"{path} cannot be written")
    if code == sqlite3.SQLITE_NOTADB:
        return BackendError(Fault.CONFIG, "file", foreign(path))
    if code == sqlite3.SQLITE_CORRUPT:
        return BackendError(
            Fault.CONFIG, "file", f"{path} is damaged and is left as it is; stop what uses it, and remove it"
        )
    return BackendError(Fault.DOWN, "connection", f"{path}: {error}")
