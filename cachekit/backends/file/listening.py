"""How a process hears of the changes that others make in the file: it looks, many times a second."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from cachekit.errors import BackendError, Fault

if TYPE_CHECKING:
    from cachekit.backends.file.database import Database

LOOK_BUDGET: Final = 1.0  # seconds; reading waits for nobody but after a crash
MOST: Final = 1_000  # changes at a time
NEWS: Final = "SELECT seq, name FROM changes WHERE seq > ? ORDER BY seq LIMIT ?"
LAST: Final = "SELECT seq FROM sqlite_sequence WHERE name = 'changes'"


class FileListener:
    """Reads what was noted since the last time. Each look proves that nothing from before it is missing."""

    def __init__(
        self,
        database: "Database",
        prefixes: Sequence[str],
        poll: float,
        heartbeat: float,
        clock: Callable[[], float],
        budget: float,
    ) -> None:
        self._database = database
        self._prefixes = set(prefixes)
        self._poll = poll
        self._heartbeat = heartbeat
        self._clock = clock
        self._over = ""
        self._bell = threading.Event()
        self._woken = False
        now = clock()
        with database.reading(budget) as connection:
            row = connection.execute(LAST).fetchone()
        self._seq: int = 0 if row is None else row[0]
        self._proof = now

    @property
    def proof(self) -> float:
        return self._proof

    def track(self, prefixes: Sequence[str], *, budget: float) -> None:
        self._check()
        self._prefixes.update(prefixes)  # all is noted, whoever asks

    def receive(self, seconds: float) -> Sequence[str | None]:
        ends = time.monotonic() + min(seconds, self._heartbeat)
        while True:
            self._bell.clear()
            heard = self._look()
            left = ends - time.monotonic()
            if heard or self._woken or left <= 0:
                self._woken = False
                return heard
            self._bell.wait(min(self._poll, left))

    def look(self) -> None:
        """There is news for certain."""
        self._bell.set()

    def wake(self) -> None:
        self._woken = True
        self._bell.set()

    def end(self, why: str) -> None:
        """Changes may have been missed."""
        self._over = self._over or why
        self._bell.set()

    def close(self) -> None:
        self.end("closed")

    def abandon(self) -> None:
        self.close()

    def _check(self) -> None:
        if self._over:
            raise BackendError(Fault.DOWN, self._over)

    def _look(self) -> list[str | None]:
        self._check()
        now = self._clock()
        try:
            with self._database.reading(LOOK_BUDGET) as connection:
                rows = connection.execute(NEWS, (self._seq, MOST)).fetchall()
        except BackendError as error:
            self.end(error.reason)
            raise
        self._check()  # that it was the same file
        if not rows:
            self._proof = now
            return []
        if rows[0][0] != self._seq + 1:
            return [None]  # what came first was forgotten meanwhile
        self._seq = rows[-1][0]
        if len(rows) < MOST:
            self._proof = now
        names = [name.decode(errors="surrogateescape") for _, name in rows]
        return [name for name in names if name.startswith(tuple(self._prefixes))]
