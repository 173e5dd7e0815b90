"""What each operation of the protocol makes of the record of one key, for stores that can replace a record atomically.

A record is the value of a key and the lease of it, side by side. The steps here are pure: they take what lies there
(None: nothing) and the time, and return what should lie there instead, the same object if nothing changes, and the
answer for the caller. A store that runs a step in a transaction, or repeats it until a compare-and-swap succeeds, keeps
the protocol: whoever removes a record removes the right to store with it.
"""

import re
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from cachekit.backends.base import BaseBackend, Leased
from cachekit.codec.envelope import MAGIC, STALE_MARK
from cachekit.errors import BackendError, Fault

T = TypeVar("T")

INT64 = 2**63


class Record(NamedTuple):
    """Times are milliseconds since the epoch."""

    data: bytes | None = None  # None: there is no value
    ends: int | None = None  # of the value; None: never
    token: bytes | None = None  # of the lease; None: there is none
    lease_ends: int = 0

    def until(self) -> int | None:
        """When nothing of it counts any more; None: never."""
        value_ends = 0 if self.data is None else self.ends
        return None if value_ends is None else max(value_ends, self.lease_ends)


Step: TypeAlias = Callable[[Record | None, int], tuple[Record | None, T]]


def living(record: Record | None, now: int) -> Record | None:
    """What of a record still counts."""
    if record is None or (record.ends is None and not record.lease_ends):
        return record
    if record.ends is not None and record.ends <= now:
        record = record._replace(data=None, ends=None)
    if record.lease_ends <= now:
        record = without_lease(record)
    return record if record.data is not None or record.token is not None else None


def without_lease(record: Record) -> Record:
    return record._replace(token=None, lease_ends=0)


def left(record: Record, now: int) -> int | None:
    """Of the value, in milliseconds; None: it has no end."""
    return None if record.ends is None else max(1, record.ends - now)


def value_of(record: Record | None) -> bytes | None:
    return None if record is None else record.data


def _stored(data: bytes, ttl_ms: int | None, now: int) -> Record:
    return Record(bytes(data), None if ttl_ms is None else now + ttl_ms)


def _leased(record: Record | None, token: bytes, lease_ms: int, now: int) -> tuple[Record | None, Leased]:
    record = record or Record()
    if record.token not in (None, token):
        return record, Leased("busy", None, max(1, record.lease_ends - now))
    return record._replace(token=token, lease_ends=now + lease_ms), Leased("held")


def store(
    record: Record | None, now: int, *, data: bytes, ttl_ms: int | None, token: bytes | None
) -> tuple[Record | None, bool]:
    if token is not None and (record is None or record.token != token):
        return record, False
    return _stored(data, ttl_ms, now), True


def store_if(
    record: Record | None, now: int, *, data: bytes, ttl_ms: int | None, seen: bytes | None, absent: bool
) -> tuple[Record | None, bool]:
    there = value_of(record)
    if not (absent if there is None else seen is not None and there.startswith(seen)):
        return record, False
    made = _stored(data, ttl_ms, now)
    if record is not None and not absent:  # the same value once more
        made = made._replace(token=record.token, lease_ends=record.lease_ends)
    return made, True


def get_or_lease(record: Record | None, now: int, *, token: bytes, lease_ms: int) -> tuple[Record | None, Leased]:
    if record is not None and record.data is not None:
        return record, Leased("found", record.data, left(record, now))
    return _leased(record, token, lease_ms, now)


def lease(
    record: Record | None, now: int, *, token: bytes, lease_ms: int, seen: bytes | None, steal: bool
) -> tuple[Record | None, Leased]:
    there = value_of(record)
    if record is not None and there is not None and seen is not None and not there.startswith(seen):
        return record, Leased("found", there, left(record, now))
    return _leased(without_lease(record) if record is not None and steal else record, token, lease_ms, now)


def release(record: Record | None, now: int, *, token: bytes) -> tuple[Record | None, None]:
    if record is None or record.token != token:
        return record, None
    return (None if record.data is None else without_lease(record)), None


def renew(record: Record | None, now: int, *, token: bytes, lease_ms: int) -> tuple[Record | None, bool]:
    if record is None or record.token != token:
        return record, False
    return record._replace(lease_ends=now + lease_ms), True


def incr(
    record: Record | None, now: int, *, by: int, ttl_ms: int | None, mark: bytes, create: bool
) -> tuple[Record | None, int | None]:
    there = value_of(record)
    if there is None and not create:
        return record, None
    number = re.fullmatch(rb"(-?[0-9]{1,19})%b" % re.escape(mark), b"0" + mark if there is None else there, re.DOTALL)
    if number is None:
        return record, None
    total = int(number[1]) + by
    if not -INT64 <= total < INT64:
        raise BackendError(Fault.COMMAND, "command", "the sum is beyond 64 bits")
    made = _stored(b"%d%b" % (total, mark), ttl_ms, now)
    if record is not None and there is not None:
        made = made._replace(ends=record.ends)
    return made, total


def touch(record: Record | None, now: int, *, ttl_ms: int | None) -> tuple[Record | None, bool]:
    if record is None or record.data is None:
        return record, False
    return record._replace(ends=None if ttl_ms is None else now + ttl_ms), True


def reclaim(record: Record | None, now: int, *, seen: bytes) -> tuple[Record | None, bool]:
    if record is None or record.data is None or not record.data.startswith(seen):
        return record, False
    return (None if record.token is None else record._replace(data=None, ends=None)), True


def expire_soft(record: Record | None, now: int) -> tuple[Record | None, None]:
    if record is None or record.data is None or not record.data.startswith(MAGIC) or len(record.data) <= STALE_MARK:
        return None, None
    data = record.data
    return Record(data[:STALE_MARK] + b"\1" + data[STALE_MARK + 1 :], record.ends), None


class RecordBackend(BaseBackend):
    """A backend out of a store of records. Left to write are the methods without a body here, `invalidate`, `close`
    and what else it offers."""

    @abstractmethod
    def _read(self, key: str, budget: float) -> tuple[Record | None, int]:
        """What counts of the record, and the time by which that was judged."""

    @abstractmethod
    def _change(self, key: str, step: "Step[T]", budget: float) -> T:
        """Run a step on what counts of the record, in one atomic act, and answer with its answer."""

    def get(self, key: str, *, budget: float) -> bytes | None:
        return value_of(self._read(key, budget)[0])

    def store(self, key: str, data: bytes, ttl_ms: int | None, token: bytes | None, *, budget: float) -> bool:
        return self._change(key, partial(store, data=data, ttl_ms=ttl_ms, token=token), budget)

    def store_if(
        self, key: str, data: bytes, ttl_ms: int | None, seen: bytes | None, absent: bool, *, budget: float
    ) -> bool:
        return self._change(key, partial(store_if, data=data, ttl_ms=ttl_ms, seen=seen, absent=absent), budget)

    def get_or_lease(self, key: str, token: bytes, lease_ms: int, *, budget: float) -> Leased:
        return self._change(key, partial(get_or_lease, token=token, lease_ms=lease_ms), budget)

    def lease(self, key: str, token: bytes, lease_ms: int, seen: bytes | None, steal: bool, *, budget: float) -> Leased:
        return self._change(key, partial(lease, token=token, lease_ms=lease_ms, seen=seen, steal=steal), budget)

    def release(self, key: str, token: bytes, *, budget: float) -> None:
        self._change(key, partial(release, token=token), budget)

    def renew(self, key: str, token: bytes, lease_ms: int, *, budget: float) -> bool:
        return self._change(key, partial(renew, token=token, lease_ms=lease_ms), budget)

    def incr(
        self, key: str, by: int, ttl_ms: int | None, mark: bytes = b"", create: bool = True, *, budget: float
    ) -> int | None:
        return self._change(key, partial(incr, by=by, ttl_ms=ttl_ms, mark=mark, create=create), budget)

    def touch(self, key: str, ttl_ms: int | None, *, budget: float) -> bool:
        return self._change(key, partial(touch, ttl_ms=ttl_ms), budget)

    def remaining(self, key: str, *, budget: float) -> int | Literal[False] | None:
        record, now = self._read(key, budget)
        return False if record is None or record.data is None else left(record, now)

    def reclaim(self, key: str, seen: bytes, *, budget: float) -> bool:
        return self._change(key, partial(reclaim, seen=seen), budget)


STEPS: frozenset[str] = frozenset(
    {"store_if", "get_or_lease", "lease", "release", "renew", "incr", "touch", "remaining", "reclaim"}
)  # of the optional operations, those that are done here
