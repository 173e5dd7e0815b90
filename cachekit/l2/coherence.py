"""Keeps L1 in step with a backend that can tell of changes: listen, apply, prove that nothing was missed, begin again.

One thread per backend and process listens, whatever the callers are. While it does (`live`), an entry of L1 stays until
its end or until somebody changes it, but is not used for longer than `max_staleness` after the last proof that all
changes had arrived. When the connection is lost nothing new joins what is there, and L1 begins empty with the next
one, since what happened in between is not known. Where nobody tells, or not now, entries end by themselves after
`max_staleness`.
"""

import logging
import random
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final

from cachekit.backends.base import Listener
from cachekit.engine.ports import SyncPort, drive
from cachekit.errors import BackendError, Fault
from cachekit.l2.reach import Reach

if TYPE_CHECKING:
    from cachekit.l2.remote import Remote

logger = logging.getLogger("cachekit")

TURN: Final = 1.0  # seconds that one turn may wait for news
FIRST_PAUSE, LAST_PAUSE = 0.05, 0.3  # seconds between attempts to connect; a failover is over a second later
CLOSED: Final = "closed"  # why a connection ended that we ended ourselves
REFUSED_PAUSE: Final = 60.0  # ... when the server does not let us listen


class Coherence:
    """``live``, ``epoch`` and ``proof`` change under the lock of the service's versions."""

    def __init__(self, remote: "Remote", reach: Reach, now: Callable[[], float]) -> None:
        self.remote = remote
        self.reach = reach
        self.live = False
        self.idle = True  # whether `start` may have something to do
        self.epoch = 0  # of losses: an answer from before one may have been undone
        self.proof = 0.0
        self.losses = 0  # connections that were live and ended, but for those that we ended
        self.refused = ""  # why the server does not tell of changes
        self.due = 0.0  # when the next attempt to connect is due
        self._tried = -inf  # when the last one began
        self.clock = now
        self._spec = remote.spec
        self._pause = FIRST_PAUSE
        self._listener: Listener | None = None
        self._over: list[Listener] = []  # to be closed by the thread, which may be waiting on one of them
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._due_now = threading.Event()  # ends the wait for the next attempt
        self._starting = threading.Lock()

    @property
    def state(self) -> str:
        """ttl: entries end by themselves; tracking: changes are heard of; connecting: not yet, or not any more."""
        if self._spec.coherence == "ttl" or self.refused or not self._wanted():
            return "ttl"
        return "tracking" if self.live else "connecting"

    def covers(self, region: str) -> bool:
        """Whether changes in this region are heard of now. Take a ticket first."""
        return region in self.reach.covered

    def want(self) -> None:
        """There is another region to hear of."""
        self.idle = True
        listener = self._listener
        if listener is not None:
            listener.wake()

    # The thread

    def start(self) -> None:
        """Begin to listen, in a thread of its own. Does nothing when it runs, or when nobody would tell."""
        self.idle = False
        if self._thread is not None or self.clock is not time.monotonic or not self._wanted():
            return
        with self._starting:
            if self._thread is None:
                self._stop = threading.Event()
                arguments = (weakref.ref(self), self._stop)
                thread = threading.Thread(target=_listening, args=arguments, daemon=True, name="cachekit-listen")
                self._thread = thread
                thread.start()

    def _wanted(self) -> bool:
        return self._spec.coherence != "ttl" and bool(self.reach.wanted) and self.remote.faces.listens

    def turn(self, seconds: float = TURN) -> None:
        """One step of the thread: connect when that is due, or hear what is new. Waits for at most ``seconds``."""
        if self._listener is None:
            wait = self.due - self.clock()
            if wait > 0:
                self._due_now.wait(min(wait, seconds))
                self._due_now.clear()
                return
            self._tried = self.clock()
            self._connect()
            return
        listener = self._listener
        try:
            self._cover(listener)
            self._apply(listener, listener.receive(seconds))
        except BackendError as error:
            if error.reason == "moved":  # what this one has confirmed lately, another may not have
                self.remote.moved()
            else:
                self.lose(error.reason)
        finally:
            self.tidy()

    def hasten(self) -> None:
        """The backend answers others: try to connect now, unless that has just failed."""
        if self._listener is None and not self.refused:
            self.due = min(self.due, self._tried + FIRST_PAUSE)
            self._due_now.set()

    def tidy(self) -> None:
        """Close what is over."""
        while self._over:
            self._over.pop().close()

    def _connect(self) -> None:
        """In this order: be told of changes, deliver what waits, begin empty."""
        prefixes = [self.reach.stamp_prefix, *map(self.reach.prefix, regions := list(self.reach.regions()))]
        backend = self.remote.faces.sync
        assert backend is not None
        try:
            # Several proofs must fit into the time for which one is good, or L1 would be idle in between.
            heartbeat = min(self._spec.heartbeat, self._spec.max_staleness / 3)
            listener = backend.listen(prefixes, heartbeat=heartbeat, clock=self.clock, budget=self._spec.budget)
        except BackendError as error:
            self._failed(error)
            return
        with self.reach.versions.lock:
            self._listener, epoch = listener, self.epoch
        try:
            # A server that tells us of changes answers: whoever was to try that later may do so now.
            self.remote.breaker.hasten(self.clock())
            with suppress(Exception):  # it stays queued, and whoever asks L2 next delivers it first
                drive(self.remote.deliver(SyncPort(self.clock)))
            with self.reach.versions.lock:
                if self._listener is not listener or epoch != self.epoch:  # lost again meanwhile
                    raise BackendError(Fault.DOWN, "moved")
                self.reach.empty()
                self.reach.covered = frozenset(regions)
                self.live = True
                self._prove(listener.proof)
        except BackendError as error:
            self.lose(error.reason)
            return
        finally:
            self.tidy()
        self._connected()

    def _connected(self) -> None:
        self._pause = FIRST_PAUSE
        self.refused = ""
        if self.remote.once_ever("tracking"):
            logger.info("backend %r: coherence by tracking: L1 hears of changes at once", self._spec.name)

    def _failed(self, error: BackendError) -> None:
        """Try again soon; late where the server does not let us listen."""
        if error.fault in (Fault.CONFIG, Fault.COMMAND):
            self.refused = f"{error.reason}: {error}"
            self.due = self.clock() + REFUSED_PAUSE
            if self.remote.once_ever("refused"):
                level = logging.ERROR if self._spec.coherence == "tracking" else logging.WARNING
                logger.log(
                    level,
                    "backend %r: coherence by ttl: the server does not tell of changes (%s), so entries of L1 end "
                    "after max_staleness (%g s); `cachekit doctor` names the missing rights",
                    self._spec.name,
                    error,
                    self._spec.max_staleness,
                )
            return
        self.due = self.clock() + self._pause * (1 + random.random())
        self._pause = min(2 * self._pause, LAST_PAUSE)

    def _cover(self, listener: Listener) -> None:
        """Hear of regions that came into use since."""
        regions = list(self.reach.regions())
        if not regions:
            return
        listener.track(list(map(self.reach.prefix, regions)), budget=self._spec.budget)
        with self.reach.versions.lock:
            if self._listener is listener:
                for region in regions:  # what was read before, and what was kept, was not guarded
                    self.reach.forget_region(region)
                self.reach.covered |= frozenset(regions)

    def _apply(self, listener: Listener, names: Sequence[str | None]) -> None:
        for name in names:
            if name is None:
                raise BackendError(Fault.DOWN, "flushed")
            with self.reach.versions.lock:
                if self._listener is not listener:
                    return
                self.reach.changed(name)
        if listener.proof != self.proof:
            with self.reach.versions.lock:
                if self._listener is listener:
                    self._prove(listener.proof)

    def _prove(self, proof: float) -> None:
        self.proof = proof
        self.reach.alive(proof + self._spec.max_staleness)

    # Losing

    def lose(self, why: str) -> None:
        """Changes may go unheard from this moment on. May be called from any thread."""
        with self.reach.versions.lock:
            listener, self._listener = self._listener, None
            if listener is not None:
                self._over.append(listener)
            was_live, self.live = self.live, False
            self.epoch += 1
            self.losses += was_live and why != CLOSED
            self.reach.lost()
        self.due = self.clock() + FIRST_PAUSE * random.random()
        if listener is not None:
            listener.wake()  # its thread may be waiting
        if was_live:
            logger.info("backend %r: changes are not heard of any more (%s)", self._spec.name, why)

    def stop(self, wait: float = 0.5) -> None:
        """Stop to listen; entries then live as they do without. A later `start` begins again."""
        with self._starting:
            thread, self._thread = self._thread, None
        self._stop.set()
        self._due_now.set()
        self.want()  # wakes the thread, and has the next use begin anew
        if thread is not None and thread is not threading.current_thread() and wait:
            thread.join(wait)
        if self._listener is not None:
            self.lose(CLOSED)
        if thread is None or not thread.is_alive():
            self.tidy()

    def finish(self) -> None:
        """The thread ends: a connection that it made while it was told to stop ends with it."""
        if self._thread is None and self._listener is not None:
            self.lose(CLOSED)
        self.tidy()

    def after_fork(self) -> None:
        """In a forked child: the parent listens. Its connection must not hear a word from here."""
        listener, self._listener = self._listener, None
        over, self._over = self._over, []
        self._thread = None
        self.idle = True
        self._due_now = threading.Event()
        self._starting = threading.Lock()
        self.live = False
        self.losses = 0
        self.epoch += 1
        self.due = 0.0
        self._pause = FIRST_PAUSE
        self.reach.after_fork()
        for each in (listener, *over):
            if each is not None:
                each.abandon()


def _listening(reference: "weakref.ref[Coherence]", stop: threading.Event) -> None:
    """The thread. It holds nothing alive but for the length of a turn."""
    while (coherence := reference()) is not None:
        try:
            if stop.is_set():
                coherence.finish()
                return
            coherence.turn()
        except Exception:
            if stop.is_set():  # its successor closed what it was waiting on
                return
            logger.exception("listening for changes failed")
            coherence.lose("defect")
            stop.wait(TURN)
        del coherence
