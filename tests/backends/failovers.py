"""What the tests of Sentinel and Cluster share: somebody who goes on working while a primary changes."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cachekit.errors import BackendError

SOON = 1.0  # seconds within which calls succeed after another server has become primary


class Worker:
    """Counts up, again and again, in a thread of its own."""

    def __init__(self, backend: Any, key: str, budget: float) -> None:
        self.backend = backend.within(budget)
        self.key = key
        self.counted: list[int] = []
        self.attempts = 0
        self.faults: set[str] = set()
        self.wrong: list[BaseException] = []
        self.done = threading.Event()
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> "Worker":
        self._thread.start()
        self.wait_for_success(10.0)
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self._thread.join()

    def wait_for_success(self, seconds: float) -> float:
        """Until a call that begins now or later has succeeded; how long that took."""
        begun = time.monotonic()
        with self._news:
            seen = self.attempts
            told = self._news.wait_for(lambda: self.wrong or self._succeeded > seen, seconds)
        assert told and not self.wrong, (self.faults, self.wrong)
        return time.monotonic() - begun

    _succeeded = 0  # the number of the last attempt that did

    def _work(self) -> None:
        while not self.done.is_set():
            self.attempts += 1
            try:
                self.counted.append(self.backend.incr(self.key, 1, None))
            except BackendError as error:
                self.faults.add(f"{error.fault.name} {error.reason}")
                time.sleep(0.005)
            except BaseException as error:
                self.wrong.append(error)
                self.done.set()
            else:
                self._succeeded = self.attempts
            with self._news:
                self._news.notify_all()


@contextmanager
def at_work(backend: Any, key: str, budget: float = 0.25) -> Iterator[Worker]:
    with Worker(backend, key, budget) as worker:
        yield worker


def replaced(worker: Worker, hurt: Callable[[], object], promoted: Callable[[], object]) -> float:
    """Seconds from the moment at which another is primary to the next success."""
    hurt()
    promoted()
    return worker.wait_for_success(20.0)
