"""A backend in a dictionary: every operation of the protocol in its plainest form, for tests and as a model to read."""

import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final, Literal

from cachekit.backends.base import HEAD_BYTES, OPTIONAL, AsyncBaseBackend, BaseBackend, Faces, Leased
from cachekit.backends.settings import Options
from cachekit.codec.envelope import MAGIC, STALE_MARK
from cachekit.config.spec import BackendSpec
from cachekit.config.urls import check_url_of, memory_name
from cachekit.errors import BackendError, ConfigError, Fault

MAX_ENTRIES: Final = 100_000  # of a store that is configured


class Shelf:
    """Bytes by name, each with the time of its end (None: never). At most ``limit`` (None: any number) of them."""

    def __init__(self, clock: Callable[[], float], limit: int | None = None) -> None:
        self.clock = clock
        self.limit = limit
        self.items: dict[str, tuple[bytes, float | None]] = {}

    def get(self, name: str) -> bytes | None:
        data, until = self.items.get(name, (None, None))
        if until is not None and until <= self.clock():
            del self.items[name]
            return None
        return data

    def put(self, name: str, data: bytes, ttl_ms: int | None) -> None:
        if self.limit is not None and len(self.items) >= self.limit and name not in self.items:
            self._make_room(self.limit)
        self.items[name] = (bytes(data), None if ttl_ms is None else self.clock() + ttl_ms / 1000)

    def _make_room(self, limit: int) -> None:
        """Remove what has ended; if that is little, what came first as well."""
        now = self.clock()
        for name in [name for name, (_, until) in self.items.items() if until is not None and until <= now]:
            del self.items[name]
        for name in list(islice(self.items, max(0, len(self.items) - limit + 1 + limit // 16))):
            del self.items[name]

    def left(self, name: str) -> int | None:
        until = self.items[name][1]
        return None if until is None else max(1, round((until - self.clock()) * 1000))


class MemoryBackend(BaseBackend):
    """Keeps everything in this process, for ever if not told a TTL. ``clock`` gives seconds and may be a test's.

    ``max_entries`` bounds the number of values; what came first goes first.
    """

    capabilities = OPTIONAL

    def __init__(self, clock: Callable[[], float] = time.monotonic, max_entries: int | None = None) -> None:
        self.values, self.leases, self.names = Shelf(clock, max_entries), Shelf(clock), Shelf(clock)
        self._lock = threading.Lock()
        _all.add(self)

    def after_fork(self) -> None:
        """In a forked child, which has a copy: another thread may have held the lock."""
        self._lock = threading.Lock()

    @contextmanager
    def _step(self, budget: float) -> Iterator[None]:
        """One atomic operation within its budget."""
        if budget <= 0 or not self._lock.acquire(timeout=budget):
            raise BackendError(Fault.DOWN, "timeout")
        try:
            yield
        finally:
            self._lock.release()

    def get(self, key: str, *, budget: float) -> bytes | None:
        with self._step(budget):
            return self.values.get(key)

    def get_many(self, keys: Sequence[str], *, budget: float) -> list[bytes | None]:
        with self._step(budget):
            found = [(self.values.get(key), self.names.get(key)) for key in keys]
            return [stamp if data is None else data for data, stamp in found]

    def store(self, key: str, data: bytes, ttl_ms: int | None, token: bytes | None, *, budget: float) -> bool:
        with self._step(budget):
            if token is not None and self.leases.get(key) != token:
                return False
            self._put(key, data, ttl_ms)
            return True

    def store_if(
        self, key: str, data: bytes, ttl_ms: int | None, seen: bytes | None, absent: bool, *, budget: float
    ) -> bool:
        with self._step(budget):
            there = self.values.get(key)
            if not (absent if there is None else seen is not None and there.startswith(seen)):
                return False
            if absent:
                self._put(key, data, ttl_ms)
            else:  # the same value once more
                self.values.put(key, data, ttl_ms)
            return True

    def invalidate(self, keys: Sequence[str], *, budget: float) -> None:
        with self._step(budget):
            for key in keys:
                self.leases.items.pop(key, None)
                self.values.items.pop(key, None)

    def get_or_lease(self, key: str, token: bytes, lease_ms: int, *, budget: float) -> Leased:
        with self._step(budget):
            there = self.values.get(key)
            if there is not None:
                return Leased("found", there, self.values.left(key))
            return self._lease(key, token, lease_ms)

    def lease(self, key: str, token: bytes, lease_ms: int, seen: bytes | None, steal: bool, *, budget: float) -> Leased:
        with self._step(budget):
            there = self.values.get(key)
            if there is not None and seen is not None and not there.startswith(seen):
                return Leased("found", there, self.values.left(key))
            if steal:
                self.leases.items.pop(key, None)
            return self._lease(key, token, lease_ms)

    def release(self, key: str, token: bytes, *, budget: float) -> None:
        with self._step(budget):
            if self.leases.get(key) == token:
                del self.leases.items[key]

    def renew(self, key: str, token: bytes, lease_ms: int, *, budget: float) -> bool:
        with self._step(budget):
            if self.leases.get(key) != token:
                return False
            self.leases.put(key, token, lease_ms)
            return True

    def stamps(self, names: Sequence[str], fresh: Sequence[bytes], ttl_ms: int, *, budget: float) -> list[bytes]:
        with self._step(budget):
            current = [(name, self.names.get(name) or new) for name, new in zip(names, fresh, strict=True)]
            for name, stamp in current:
                self.names.put(name, stamp, ttl_ms)
            return [stamp for _, stamp in current]

    def keep(self, names: Sequence[str], *, budget: float) -> None:
        """Nothing is ever evicted."""

    def clear(self, names: Sequence[str], *, budget: float) -> None:
        with self._step(budget):
            for name in names:
                self.names.items.pop(name, None)

    def incr(
        self, key: str, by: int, ttl_ms: int | None, mark: bytes = b"", create: bool = True, *, budget: float
    ) -> int | None:
        with self._step(budget):
            there = self.values.get(key)
            if there is None and not create:
                return None
            number = re.fullmatch(
                rb"(-?[0-9]{1,19})%b" % re.escape(mark), b"0" + mark if there is None else there, re.DOTALL
            )
            if number is None:
                return None
            total = int(number[1]) + by
            if not -(2**63) <= total < 2**63:
                raise BackendError(Fault.COMMAND, "command", "the sum is beyond 64 bits")
            self._put(key, b"%d%b" % (total, mark), ttl_ms if there is None else self.values.left(key))
            return total

    def touch(self, key: str, ttl_ms: int | None, *, budget: float) -> bool:
        with self._step(budget):
            there = self.values.get(key)
            if there is not None:
                self.values.put(key, there, ttl_ms)
            return there is not None

    def remaining(self, key: str, *, budget: float) -> int | Literal[False] | None:
        with self._step(budget):
            return False if self.values.get(key) is None else self.values.left(key)

    def scan(self, prefix: str, cursor: str, count: int, *, budget: float) -> tuple[str, list[tuple[str, bytes]]]:
        with self._step(budget):
            names = sorted(name for name in self.values.items if name > cursor)
            page = names[:count]
            heads = [(name, (self.values.get(name) or b"")[:HEAD_BYTES]) for name in page if name.startswith(prefix)]
            return page[-1] if len(names) > count else "", [(name, head) for name, head in heads if head]

    def reclaim(self, key: str, seen: bytes, *, budget: float) -> bool:
        with self._step(budget):
            there = self.values.get(key)
            if there is None or not there.startswith(seen):
                return False
            del self.values.items[key]
            return True

    def expire_soft(self, keys: Sequence[str], *, budget: float) -> None:
        with self._step(budget):
            for key in keys:
                self.leases.items.pop(key, None)
                self._outdate(key)

    def check(self, *, budget: float) -> dict[str, str]:
        with self._step(budget):
            return {"server": "memory", "keys": str(len(self.values.items))}

    def close(self) -> None:
        """Nothing to give back; what is stored stays."""

    def _put(self, key: str, data: bytes, ttl_ms: int | None) -> None:
        self.leases.items.pop(key, None)
        self.values.put(key, data, ttl_ms)

    def _outdate(self, key: str) -> None:
        there = self.values.get(key)
        if there is None:
            return
        data, until = self.values.items.pop(key)
        if data.startswith(MAGIC) and len(data) > STALE_MARK:
            self.values.items[key] = (data[:STALE_MARK] + b"\1" + data[STALE_MARK + 1 :], until)

    def _lease(self, key: str, token: bytes, lease_ms: int) -> Leased:
        holder = self.leases.get(key)
        if holder not in (None, token):
            return Leased("busy", None, self.leases.left(key))
        self.leases.put(key, token, lease_ms)
        return Leased("held")


def open_memory(spec: BackendSpec) -> Faces:
    """The store of this name in this process, made when it is first asked for. ConfigError when the settings are wrong.

    Whoever names it gets the same one, other services of the process included. A forked child goes on with a copy.
    """
    try:
        if spec.url:
            check_url_of("memory", spec.url)
        name = memory_name(spec.url)
    except ValueError as error:
        problem = str(error)
        raise ConfigError(f"[backends.{spec.name}] url: not that of a store in memory: {problem}") from None
    limit = Options(spec, "max_entries").size("max_entries", MAX_ENTRIES)
    # Each step is atomic, so threads that ask at once get the same.
    backend = _stores.setdefault(name, MemoryBackend(max_entries=limit))
    return Faces(backend, as_coroutines(backend))


def as_coroutines(backend: BaseBackend) -> AsyncBaseBackend:
    """The same store with coroutines. Only for a backend that never waits."""

    def twin(name: str) -> Any:
        async def method(self: AsyncBaseBackend, *args: Any, **kwargs: Any) -> Any:
            return getattr(backend, name)(*args, **kwargs)

        return method

    names = ("get", "store", "invalidate", "close", *backend.capabilities)
    kind = type(f"Async{type(backend).__name__}", (AsyncBaseBackend,), {name: twin(name) for name in names})
    made: AsyncBaseBackend = kind()
    made.capabilities = backend.capabilities
    return made


_stores: dict[str, MemoryBackend] = {}
_all: "weakref.WeakSet[MemoryBackend]" = weakref.WeakSet()


def _after_fork() -> None:
    for backend in list(_all):
        backend.after_fork()


os.register_at_fork(after_in_child=_after_fork)
