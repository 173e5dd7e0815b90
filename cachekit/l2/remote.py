"""One backend in use: gate, budget, the call itself, undelivered invalidations, and what went wrong last."""

import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from cachekit.backends.base import Faces
from cachekit.backends.registry import open_backend
from cachekit.config.spec import BackendSpec
from cachekit.engine.ports import Port
from cachekit.errors import BackendError, ConfigError, Fault
from cachekit.l1.table import Versions
from cachekit.l2.breaker import Breaker, Gate
from cachekit.l2.budget import Budget
from cachekit.l2.coherence import Coherence
from cachekit.l2.lease import Held, Leases
from cachekit.l2.outbox import Outbox
from cachekit.l2.reach import Reach
from cachekit.l2.stamps import DAY_MS, Cells, fresh_stamps

logger = logging.getLogger("cachekit")

READS = frozenset({"get", "get_many", "remaining", "check", "scan", "query"})
ECHO = 0.05  # seconds to wait for the word of what we did ourselves
KEEP_EVERY = 60.0  # seconds between two signs to L2 that the stamps of regions and functions are in use


class Unavailable(Exception):
    """L2 cannot be used for this call. Inside only; the flow goes on without L2."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = reason == "noperm"  # the server will refuse the same thing for ever


class Remote:
    """A backend behind its breaker and its budget. Opens no connection before the first operation."""

    def __init__(
        self, spec: BackendSpec, versions: Versions, namespace: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.spec = spec
        self.breaker = Breaker(spec.breaker)
        self.budget = Budget(spec)
        self.outbox = Outbox(spec.pending_invalidations, spec.replay_window)
        self.cells = Cells(spec.max_staleness)
        self.leases = Leases()
        self.reach = Reach(namespace, versions, self.cells)
        self.coherence = Coherence(self, self.reach, now)
        self.last_error = ""
        self.used = False
        self.well = True  # the last operation that says anything about the backend succeeded
        self.longest_ttl: float | None = 0.0  # of all entries stored here; None: one never ends
        self.reclaimed = 0  # outdated entries that this process deleted to give back their space
        self.cleared_at: float | None = None  # the first clear that no scan of this process has begun after
        self._now = now
        self._kept = now()
        self._replays = 0  # moves after which something had to be delivered once more
        self._versions = versions  # its lock guards outbox and cells, as it guards L1
        self._faces: Faces | None = None
        self._offered: frozenset[str] = frozenset()
        self._reported: set[str] = set()
        self._reported_ever: set[str] = set()

    @classmethod
    def of(
        cls, backend: object, versions: Versions, namespace: str, now: Callable[[], float] = time.monotonic
    ) -> "Remote":
        """A backend object that a decorator was given."""
        from cachekit.backends.base import AsyncBaseBackend, BaseBackend

        remote = cls(BackendSpec(name=type(backend).__name__), versions, namespace, now)
        if isinstance(backend, BaseBackend):
            remote._faces = Faces(backend, None)
        elif isinstance(backend, AsyncBaseBackend):
            remote._faces = Faces(None, backend)
        else:
            raise ConfigError(f"backend={backend!r}: not None, the name of a backend, or a cachekit BaseBackend object")
        remote._faces.tell_of_moves(remote.moved)
        return remote

    @property
    def faces(self) -> Faces:
        """The opened backend; opening connects to nothing."""
        if self._faces is None:
            with self._versions.lock:
                if self._faces is None:
                    faces = open_backend(self.spec)
                    faces.tell_of_moves(self.moved)
                    self._faces = faces
        return self._faces

    def offers(self, operation: str) -> bool:
        """Whether the backend has this optional operation."""
        return operation in (self._offered or self._capabilities())

    def _capabilities(self) -> frozenset[str]:
        self._offered = self.faces.capabilities
        return self._offered

    def do(self, port: Port, method: str, *args: Any) -> Coroutine[Any, Any, Any]:
        """One operation within one budget, after everything that is still to be delivered. Raises `Unavailable`."""
        replays = self._replays
        if self.outbox.waits:
            return self._after_delivery(replays, port, method, *args)
        return self._call(replays, port, method, *args)

    async def _after_delivery(self, replays: int, port: Port, method: str, *args: Any) -> Any:
        await self.deliver(port)
        return await self._call(replays, port, method, *args)

    async def deliver(self, port: Port) -> None:
        """Tell L2 the invalidations that could not reach it before. Raises `Unavailable`."""
        with self._versions.lock:
            self.outbox.drop_moot(port.now())
        replays, pending = self._replays, self.outbox.peek()
        for part in pending.parts():
            try:
                if part.keys:
                    await self._call(replays, port, "invalidate", part.keys)
                if part.stamps and self.offers("clear"):
                    await self._call(replays, port, "clear", part.stamps)
                    self.cleared()
            except Unavailable as error:
                if not error.final:
                    raise
            with self._versions.lock:
                if replays != self._replays:  # whoever did this may be no primary any more
                    raise Unavailable("moved")
                self.cells.forget(part.stamps)
                self.outbox.delivered(part, port.now())

    async def stamps(self, names: Sequence[str], life_ms: int, port: Port, *, known: bool = True) -> list[bytes]:
        """The stamps of these names, from cells if ``known`` and possible, else from L2. Raises `Unavailable`."""
        cells = self.cells.get(names, port.now()) if known else None
        if cells is not None:
            return cells
        ticket, live, asked = self.cells.ticket(), self.coherence.live, port.now()
        fresh = fresh_stamps(len(names))
        found: list[bytes] = await self.do(port, "stamps", names, fresh, life_ms)
        with self._versions.lock:
            self.cells.put(names, found, asked, ticket, live)
        if live:
            made = [name for name, new, stamp in zip(names, fresh, found, strict=True) if new == stamp]
            for name in made:
                if "}:#" in name and "#clock" not in name:
                    await self._echo(name, port)
        return found

    async def _echo(self, name: str, port: Port) -> None:
        """Wait until we are told that we made a stamp ourselves.

        It counts as a clear, since it may tell of one as well. Coming later it would part those who want the same key
        into those who came before it and those who come after. A region or a function is made once.
        """
        parked = self.reach.parking.enter(name)
        try:
            if name in self.cells:  # not told yet
                await port.park(parked, ECHO)
        finally:
            self.reach.parking.leave(parked)

    def queue(self, keys: Sequence[str], stamps: Sequence[str], region_stamp: str = "") -> None:
        """Locked: L2 could not hear of these invalidations; it will before it is used again."""
        keep = None if self.longest_ttl is None else max(self.longest_ttl, DAY_MS / 1000)
        self.outbox.add(keys, stamps, region_stamp, float("inf") if keep is None else self._now() + keep)

    def note_ttl(self, seconds: float | None) -> None:
        """An entry of this life was stored; no queued invalidation is forgotten before such a one has ended."""
        if self.longest_ttl is not None and (seconds is None or seconds > self.longest_ttl):
            self.longest_ttl = seconds

    def cleared(self) -> None:
        """Stamps were deleted in L2: what lies there under them is to be looked for, sometime."""
        if self.cleared_at is None:
            self.cleared_at = self._now()

    def moved(self) -> None:
        """A connection leads to another server than before: what L2 confirmed lately may be undone there."""
        with self._versions.lock:
            self.outbox.replay(self._now())
            self._replays += self.outbox.waits
            self.coherence.epoch += 1  # at once: what was confirmed before, and is noted next, is not delivered again
        self.coherence.lose("moved")

    async def _call(self, replays: int, port: Port, method: str, *args: Any) -> Any:
        """``replays`` as it was before it was seen that nothing is to be delivered first."""
        coherence, started = self.coherence, port.now()
        write = method not in READS
        self.used = True
        if self.breaker.allow(started, write) is Gate.OPEN:
            raise Unavailable("breaker_open")
        try:
            answer = port.call(self._faces or self.faces, method, args, self.budget.next())
            if port.awaits:
                answer = await answer
        except BackendError as error:
            self._failed(error, port.now(), started, write)
            raise Unavailable(error.reason) from None
        except Exception as error:  # a third-party backend that breaks its word must not break the application
            self._failed(
                BackendError(Fault.DOWN, "backend", f"{type(error).__name__}: {error}"), port.now(), started, write
            )
            raise Unavailable("backend") from None
        now = port.now()
        self.budget.observe(now - started, False)
        self.breaker.record(now, None, write)
        if not self.well or self._reported:
            self._recovered(now)
        if coherence.idle:
            coherence.start()
        if replays != self._replays:
            raise Unavailable("moved")  # what was queued since, and is perhaps delivered by now, had to come first
        return answer

    def _failed(self, error: BackendError, now: float, started: float, write: bool) -> None:
        late = error.reason == "timeout"
        if late:
            self.budget.observe(now - started, True)
        self.breaker.record(now, error.fault, write, late=late, began=started)
        self.last_error = f"{error.reason}: {error}"
        self.well = error.fault is Fault.COMMAND
        if error.fault is Fault.DOWN:
            self.budget.reconnecting()
        if str(error).startswith("WRONGTYPE"):  # says something about the key, and not about the backend
            return
        if not self.once(error.reason):  # one line per kind of trouble, not one per request
            return
        level = logging.ERROR if error.fault is Fault.CONFIG else logging.WARNING
        logger.log(
            level,
            "backend %r: %s; cachekit goes on without it%s",
            self.spec.name,
            self.last_error,
            " (run `cachekit doctor`)" if error.fault is Fault.CONFIG else " and tries again",
        )

    def once(self, what: str) -> bool:
        """True the first time since all was well."""
        if what in self._reported:
            return False
        self._reported.add(what)
        return True

    def once_ever(self, what: str) -> bool:
        """True the first time in this process."""
        if what in self._reported_ever:
            return False
        self._reported_ever.add(what)
        return True

    def _recovered(self, now: float) -> None:
        self.well = True
        self.coherence.hasten()
        if self.reach.unproven and self.breaker.state(now) == "closed":
            with self._versions.lock:
                self.reach.empty()
        if self._reported and self.breaker.state(now) == "closed":
            self._reported.clear()
            logger.info("backend %r answers again", self.spec.name)

    def tend(self, port: Port) -> Coroutine[Any, Any, None] | None:
        """What the maintenance thread has to do now, if anything: renew leases, give back those that may have been
        granted, show that stamps are in use."""
        now = port.now()
        due, unsure = self.leases.due(now), self.leases.to_release(now) if self.well else []
        keep = self.used and now - self._kept >= KEEP_EVERY and self.offers("keep")
        if keep:
            self._kept = now
        return self._tend(due, unsure, keep, port) if due or unsure or keep else None

    async def _tend(self, due: Sequence[Held], unsure: Sequence[tuple[str, bytes]], keep: bool, port: Port) -> None:
        try:
            for lease in due:
                await self._call(self._replays, port, "renew", lease.key, lease.token, lease.ms)
            for key, token in unsure:
                await self._call(self._replays, port, "release", key, token)
            names = [name for name in self.cells.names() if "}:#" in name] if keep else []
            if names:
                await self._call(self._replays, port, "keep", names)
        except Unavailable:
            pass  # a lease that ends early only costs another computation, an evicted stamp too

    async def release_all(self, port: Port) -> None:
        """Give back the leases of loads that still run, and those that may have been granted: the process is about to
        end."""
        held = [(lease.key, lease.token) for lease in self.leases.all()]
        for _, token in held:
            self.leases.end(token)
        try:
            for key, token in held + self.leases.to_release(port.now()):
                await self.do(port, "release", key, token)
        except Unavailable:
            pass  # nor would the next one be heard; they end by themselves

    def stop_listening(self, wait: float) -> None:
        """Until the next use."""
        self.coherence.stop(wait)

    def close(self) -> None:
        """Give back connections of the blocking face."""
        if self._faces is not None and self._faces.sync is not None:
            self._faces.sync.close()

    async def aclose(self) -> None:
        """Give back all connections, those of the running event loop included."""
        self.close()
        if self._faces is not None and self._faces.aio is not None:
            await self._faces.aio.close()

    def after_fork(self) -> None:
        """In a forked child: what the parent knew about the connection is not ours. Pending invalidations stay."""
        self.breaker = Breaker(self.spec.breaker)
        self.cleared_at = None  # the parent will look
        self.leases.after_fork()
        self.coherence.after_fork()
