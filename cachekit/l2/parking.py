"""Who waits for a key of L2 to change: woken by the push that tells of it, whichever thread or loop they are in."""

import threading
from collections.abc import Hashable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Future


class Parked:
    """One who may want to wait. What happens between `Parking.enter` and the wait is not missed."""

    __slots__ = ("_future", "_lock", "called", "key")

    def __init__(self, key: Hashable, lock: threading.Lock) -> None:
        self.key = key
        self.called = False
        self._lock = lock
        self._future: Future[None] | None = None

    def again(self) -> None:
        """Forget what happened so far; call it before L2 is asked."""
        with self._lock:
            self.called, self._future = False, None

    def future(self) -> "Future[None] | None":
        """What to wait for; None: it has happened already."""
        from concurrent.futures import Future  # 6 ms with logging, and only for those who wait

        with self._lock:
            if self.called:
                return None
            if self._future is None:
                self._future = Future()
                self._future.set_running_or_notify_cancel()  # so that a waiter who leaves cannot cancel it
            return self._future

    def call(self) -> None:
        """Locked: wake who waits."""
        self.called = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class Parking:
    """Everybody who waits for keys of one backend: values by their khash, stamps by their names."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parked: dict[Hashable, list[Parked]] = {}

    def __len__(self) -> int:
        return len(self._parked)

    def enter(self, key: Hashable) -> Parked:
        """Hear of changes of this key from now on, until `leave`."""
        parked = Parked(key, self._lock)
        with self._lock:
            self._parked.setdefault(key, []).append(parked)
        return parked

    def leave(self, parked: Parked) -> None:
        with self._lock:
            others = self._parked.get(parked.key, [])
            if parked in others:  # not in a forked child
                others.remove(parked)
            if not others:
                self._parked.pop(parked.key, None)

    def wake(self, key: Hashable) -> None:
        """The key has changed."""
        if key in self._parked:  # mostly nobody waits
            with self._lock:
                for parked in self._parked.get(key, ()):
                    parked.call()

    def wake_all(self) -> None:
        """Whatever anybody waits for may have happened unheard."""
        with self._lock:
            for others in self._parked.values():
                for parked in others:
                    parked.call()

    def after_fork(self) -> None:
        """In a forked child: who waited does not exist here."""
        self._lock = threading.Lock()
        self._parked = {}
