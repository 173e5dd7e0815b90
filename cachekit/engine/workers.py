"""Threads of a service for what no caller waits for in place: refreshes behind blocking calls, loads with a time limit.

Nothing runs before the first job, and idle threads end by themselves. The caller's context variables are copied by the
port; what belongs to a thread, as Django's database connections do, is let go of after each job.
"""

import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from concurrent.futures import Future

logger = logging.getLogger("cachekit")

REFRESHERS: Final = 4  # threads that refresh
QUEUE: Final = 1_000  # refreshes that wait
RUNNING: Final = 32  # loads with a time limit that run at the same time
IDLE: Final = 10.0  # seconds after which a thread without work ends

_here = threading.local()  # whose thread this is


class Workers:
    """Both kinds of threads. All are daemons: `wait` at the end of the process is what lets them finish."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._queue: OrderedDict[Hashable, Callable[[], object]] = OrderedDict()  # by what they refresh
        self._threads = 0  # that refresh
        self._idle = 0
        self._busy = 0  # refreshes that run
        self.loads = 0  # that run, with a time limit
        self._closed = False

    @property
    def waiting(self) -> int:
        """Refreshes in the queue."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Refreshes and loads that run."""
        return self._busy + self.loads

    def submit(self, job: Callable[[], object], key: Hashable) -> bool:
        """Run a refresh of ``key`` as soon as a thread is free, if none waits yet; False when too many wait."""
        with self._changed:
            if key in self._queue:
                return True
            if len(self._queue) >= QUEUE or self._closed:
                return False
            self._queue[key] = job
            if self._idle >= len(self._queue) or self._threads >= REFRESHERS:
                self._changed.notify()
                return True
            self._threads += 1
        try:
            threading.Thread(target=self._refresh, name="cachekit-refresh", daemon=True).start()
        except RuntimeError:  # the process may have no more threads, or is ending
            with self._changed:
                self._threads -= 1
                self._queue.pop(key, None)
            return False
        return True

    def start(self, job: Callable[[], Any]) -> "Future[Any] | None":
        """Run a load now, in a thread of its own; None when as many as may run do so already."""
        from concurrent.futures import Future  # 6 ms with logging, for those who set a time limit

        with self._changed:
            if self.loads >= RUNNING:
                return None
            self.loads += 1
        future: Future[Any] = Future()
        try:
            threading.Thread(target=self._load, args=(job, future), name="cachekit-load", daemon=True).start()
        except RuntimeError:
            self._ended()
            return None
        return future

    def wait(self, seconds: float) -> bool:
        """Drop what waits, and let what runs finish for so long; whether all did. Later jobs are taken again."""
        until = time.monotonic() + seconds
        mine = getattr(_here, "workers", None) is self  # a job that waits for itself would not end
        with self._changed:
            self._queue.clear()
            self._closed = True
            try:
                while self._busy + self.loads > mine:
                    if not self._changed.wait(max(0.0, until - time.monotonic())) and time.monotonic() >= until:
                        return False
                return True
            finally:
                self._closed = False

    def settle(self, seconds: float = 10.0) -> bool:
        """Wait until nothing is queued and nothing runs; for tests."""
        until = time.monotonic() + seconds
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._queue or self._busy or self.loads), max(0.0, until - time.monotonic())
            )

    def after_fork(self) -> None:
        """In a forked child there are no threads."""
        self._begin()

    def _refresh(self) -> None:
        _here.workers = self
        while (job := self._next()) is not None:
            try:
                job()
            except BaseException:
                logger.exception("a refresh failed")
            del job
            let_go()
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _next(self) -> Callable[[], object] | None:
        with self._changed:
            if not self._queue:
                self._idle += 1
                self._changed.wait_for(lambda: self._queue, IDLE)
                self._idle -= 1
            if not self._queue:
                self._threads -= 1
                return None
            self._busy += 1
            return self._queue.popitem(last=False)[1]

    def _load(self, job: Callable[[], Any], future: "Future[Any]") -> None:
        _here.workers = self
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)
        finally:
            del job, future
            let_go()
            self._ended()

    def _ended(self) -> None:
        with self._changed:
            self.loads -= 1
            self._changed.notify_all()


def let_go(*, shared: bool = False) -> None:
    """Close the database connections of this thread, which Django keeps per thread and nobody else will close.

    In a ``shared`` thread only those that Django itself would not keep for the next request.
    """
    database, conf = sys.modules.get("django.db"), sys.modules.get("django.conf")
    if database is not None and conf is not None and conf.settings.configured:  # else it is imported and not used
        try:
            if shared:
                database.close_old_connections()
            else:
                database.connections.close_all()
        except Exception:
            logger.exception("database connections could not be closed after a refresh")
