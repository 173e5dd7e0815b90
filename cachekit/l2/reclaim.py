"""Gives back the space of entries that a clear outdated: finds them in L2 little by little and deletes them.

A clear deletes a stamp and nothing else, so what lies under it would stay until its TTL. Some time after a clear the
maintenance thread looks through the values of the namespace, one page at a time. No caller waits for any of it, and
nothing depends on it: every failure just ends the scan, and the next one begins anew.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from cachekit.backends.base import SEEN_BYTES, TOKEN_BYTES
from cachekit.codec.envelope import glance
from cachekit.engine import keys
from cachekit.errors import BackendError
from cachekit.l2.operation import NUMBER
from cachekit.l2.remote import Remote
from cachekit.l2.stamps import NO_STAMP, STAMP_BYTES

logger = logging.getLogger("cachekit")

AFTER: Final = 10.0  # seconds from a clear to the scan: clears come in groups, and one scan serves them all
APART: Final = 60.0  # seconds between two scans of a process, or two attempts
PAGE: Final = 200  # keys that are looked at in one step
RATE: Final = 2_000  # keys a second at most
PAUSE: Final = PAGE / RATE  # seconds from one page to the next
SPELL: Final = 0.1  # seconds after which one turn ends: the thread has leases to renew, too
LEASE_MS: Final = 30_000  # of the right to scan; what it lasts when the process dies
NAMES: Final = 500  # stamps asked for at once: other clients wait for the answer
NEEDED: Final = ("scan", "reclaim", "get_many", "stamps", "get_or_lease", "renew", "release")


# Judging: pure.


class Entry(NamedTuple):
    """Something that was stored under stamps: their names and what they were."""

    key: str
    seen: bytes  # which tells it from what may be stored there next
    stamps: Mapping[str, bytes]


def entry_of(namespace: str, key: str, head: bytes) -> Entry | None:
    """What the first bytes of a value tell; None when it is none of ours, or was not stored under stamps."""
    prefix = f"{namespace}:v:{{"
    region, colon, ident = key.removeprefix(prefix).partition(":")
    if not (key.startswith(prefix) and region and colon and key.endswith("}")):
        return None
    number = NUMBER.fullmatch(head)
    if number is not None:
        # All of it: the first bytes of two numbers may be the same although their tags differ.
        return _entry(namespace, key, head, region, "", number[3], NO_STAMP, _pairs(number[4]))
    marks = glance(head)
    if marks is None:
        return None
    return _entry(namespace, key, head[:SEEN_BYTES], region, ident[:-1], *marks)


def _entry(
    namespace: str, key: str, seen: bytes, region: str, ident: str,
    region_stamp: bytes, function_stamp: bytes, tags: Iterable[tuple[bytes, bytes]],
) -> Entry | None:  # fmt: skip
    if region_stamp == NO_STAMP:
        return None
    stamps = {keys.region_stamp(namespace, region): region_stamp}
    if function_stamp != NO_STAMP:
        fn_id = keys.function_of(ident)
        if not fn_id:
            return None
        stamps[keys.function_stamp(namespace, region, fn_id)] = function_stamp
    stamps.update((keys.tag_stamp(namespace, digest), stamp) for digest, stamp in tags)
    return Entry(key, seen, stamps)


def _pairs(tags: bytes) -> list[tuple[bytes, bytes]]:
    size = 2 * STAMP_BYTES
    return [(tags[at : at + STAMP_BYTES], tags[at + STAMP_BYTES : at + size]) for at in range(0, len(tags), size)]


def outdated(entry: Entry, current: Mapping[str, bytes | None]) -> bool:
    """Whether a stamp is no longer what it was; ``current`` was read later than the entry."""
    return any(current.get(name) != stamp for name, stamp in entry.stamps.items())


# Doing.


class _End(Exception):
    """This scan is over, and another one is needed later."""


class Reclaim:
    """The scans of one backend. Only one thread calls `turn`; `stop` and `drop` may be called by another."""

    def __init__(self, remote: Remote, namespace: str, now: Callable[[], float]) -> None:
        self._remote = remote
        self._namespace = namespace
        self._now = now
        self._token: bytes | None = None  # of the right to scan; None: no scan is under way
        self._not_before = 0.0
        self._refused = False
        self._reset(0.0)

    def _reset(self, now: float) -> None:
        self._cursor: str | None = ""  # None: the last page was read
        self._due = now  # of the next page
        self._renewal = now + LEASE_MS / 3000
        self._found: deque[Entry] = deque()  # outdated, and still there

    @property
    def key(self) -> str:
        """Whose lease is the right to scan; no value ever lies there."""
        return f"{self._namespace}:v:{{_}}:#reclaim"

    def turn(self) -> bool:
        """Do what is due, for a short while; whether a scan is under way."""
        now = self._now()
        try:
            if self._token is None and not (self._wanted(now) and self._begin(now)):
                return False
            self._step(now)
        except _End:
            self._fail()
        except BackendError as error:
            if error.reason == "noperm":
                self._refuse(error)
            self._fail()
        except Exception:  # a third-party backend that breaks its word
            logger.exception("giving back space failed")
            self._fail()
        return self._token is not None

    def stop(self) -> None:
        """End a scan, and let another process begin one."""
        if self._token is not None:
            self._remote.cleared()
            self._release()

    def drop(self) -> None:
        """End a scan without a word to L2, where the right to scan ends by itself."""
        self._token = None

    def _release(self) -> None:
        token, self._token = self._token, None
        with suppress(Exception):
            self._ask("release", self.key, token)

    def _wanted(self, now: float) -> bool:
        since = self._remote.cleared_at
        if since is None or self._refused or now < max(since + AFTER, self._not_before):
            return False
        return self._open(now) and all(map(self._remote.offers, NEEDED))

    def _open(self, now: float) -> bool:
        return self._remote.breaker.state(now, write=True) == "closed"

    def _begin(self, now: float) -> bool:
        """Take the right to scan. A clear from now on needs another scan: its entries may have been passed by."""
        token = os.urandom(TOKEN_BYTES)
        self._remote.cleared_at = None
        if self._ask("get_or_lease", self.key, token, LEASE_MS).kind != "held":
            raise _End
        self._reset(now)
        self._token = token
        return True

    def _step(self, now: float) -> None:
        if not self._open(now):
            raise _End
        if now >= self._renewal:
            self._renewal = now + LEASE_MS / 3000
            if not self._ask("renew", self.key, self._token, LEASE_MS):
                raise _End
        if not self._found and self._cursor is not None and now >= self._due:
            self._look(now, self._cursor)
        while self._found and self._now() < now + SPELL:
            entry = self._found.popleft()
            self._remote.reclaimed += self._ask("reclaim", entry.key, entry.seen)
        if not self._found and self._cursor is None:
            self._finish()

    def _look(self, now: float, cursor: str) -> None:
        """Read a page, and after it the stamps as they are: one that was cleared meanwhile counts as cleared."""
        self._due = now + PAUSE
        following, page = self._ask("scan", f"{self._namespace}:v:{{", cursor, PAGE)
        entries = [entry for key, head in page if (entry := entry_of(self._namespace, key, head)) is not None]
        current = self._stamps({name: None for entry in entries for name in entry.stamps})
        self._found.extend(entry for entry in entries if outdated(entry, current))
        self._cursor = following or None

    def _stamps(self, wanted: Iterable[str]) -> dict[str, bytes | None]:
        names = list(wanted)
        found: dict[str, bytes | None] = {}
        for at in range(0, len(names), NAMES):
            some = names[at : at + NAMES]
            found.update(zip(some, self._ask("get_many", some), strict=True))
        return found

    def _finish(self) -> None:
        self._not_before = self._now() + APART
        self._release()

    def _fail(self) -> None:
        """Once more, later."""
        self._not_before = self._now() + APART
        self._remote.cleared()
        self.drop()

    def _refuse(self, error: BackendError) -> None:
        self._refused = True
        if self._remote.once_ever("reclaim"):
            logger.info(
                "backend %r: the server does not let us look for what was cleared, so it stays until its TTL: %s",
                self._remote.spec.name,
                error,
            )

    def _ask(self, operation: str, *arguments: Any) -> Any:
        """Past breaker and budget of the callers: this says nothing about how they fare."""
        face = self._remote.faces.sync
        if face is None or (self._token is None and operation not in ("get_or_lease", "release")):
            raise _End  # it was stopped meanwhile
        return getattr(face, operation)(*arguments, budget=self._remote.spec.budget)
