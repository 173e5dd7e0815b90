"""One computation per key and process: who leads, who waits, who must not wait. No clock, no IO.

A *flight* is the one load of a key. The first caller leads it, later callers wait for its result. Nobody may wait in a
circle: the flights that a caller is already inside of travel with its context (`Chain`), each flight knows what its own
function is waiting for, and whoever would close a circle computes alone.
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cachekit.l1.table import core

if TYPE_CHECKING:
    from concurrent.futures import Future

HANDED_OVER: Final = object()  # result of a flight whose leader gave up before the function ran: join again


class Flight:
    """One load of one key. `ticket` and `started` are the leader's sample, by which a joiner judges it.

    Whoever leads it looks in L2 and computes; `end` or `hand_over` must follow whatever happens. What most flights
    never need is set on the class, because a flight is made for each call that asks L2.
    """

    unread = False  # nothing that the result will be made of was read yet, nor is it being asked for
    behind = False  # nobody waits for it: there is a value meanwhile
    late = False  # a caller with something else to give waited no longer
    future: "Future[Any] | None" = None  # made when a second caller joins
    interested = 1  # callers who still want the result, the leader's among them
    stop: Callable[[], object] | None = None  # cancels the load; only where a load can be cancelled
    waits_for: "tuple[Flight, ...]" = ()  # what the function inside is waiting for

    def __init__(self, flights: "Flights", key: Hashable, ticket: int, started: float, loop: object) -> None:
        self._flights = flights
        self.key = key
        self.ticket = ticket
        self.started = started
        self.loop = loop  # of the leader, when it is a task; None for a thread

    def end(self) -> "Future[Any] | None":
        """Nobody joins any more; the future of those who wait, if any. The caller fills it."""
        flights = self._flights
        with flights.lock:
            if flights.running.get(self.key) is self:
                del flights.running[self.key]
            self.stop = None
            return self.future

    def hand_over(self) -> None:
        """Give up; one of the waiters leads next."""
        future = self.end()
        if future is not None and not future.done():
            future.set_result(HANDED_OVER)

    def leave(self, chain: "Chain | None" = None) -> None:
        """One caller less is interested, the leader or one who waited inside of ``chain``; without any the load is
        stopped where that is possible, else it goes on."""
        flights = self._flights
        with flights.lock:
            self.interested -= 1
            if chain is not None:
                chain.flight.stop_waiting_for(self)
            abandoned = self.interested <= 0 and self.stop is not None
            if abandoned and flights.running.get(self.key) is self:
                del flights.running[self.key]
            stop = self.stop if abandoned else None
        if stop is not None:
            stop()

    def stop_waiting_for(self, other: "Flight") -> None:
        """Locked: once less, where it does so several times."""
        if other in self.waits_for:
            at = self.waits_for.index(other)
            self.waits_for = self.waits_for[:at] + self.waits_for[at + 1 :]


class Chain(NamedTuple):
    """The flights that a context is inside of, innermost first.

    ``began`` is when the innermost function whose value goes into L2 began, by the flow's clock; None: there is none.
    What it is made of must not be older.
    """

    flight: Flight
    parent: "Chain | None"
    began: float | None = None

    def holds(self, flight: Flight) -> bool:
        """Whether this context runs inside of ``flight``."""
        link: Chain | None = self
        while link is not None:
            if link.flight is flight:
                return True
            link = link.parent
        return False


class Wait:
    """The caller waits for another one's load. `leave` exactly once, whatever the wait brought."""

    __slots__ = ("_chain", "flight", "future")

    def __init__(self, flight: Flight, future: "Future[Any]", chain: Chain | None) -> None:
        self._chain = chain
        self.flight = flight
        self.future = future

    def leave(self) -> None:
        """No longer interested: the result is here, or the caller gave up."""
        self.flight.leave(self._chain)


class Alone:
    """Waiting would close a circle: compute without leading a flight."""

    __slots__ = ()


ALONE: Final = Alone()


def in_core() -> Sequence[Any]:
    """The loads that the native core runs by itself (`cachekit.engine.quick`) and that have no flight yet."""
    return core.unseen() if core is not None and core.running() else ()


def tell(unseen: Sequence[Any]) -> None:
    """Give them flights, so that others can wait for them."""
    for handle, hooks, args, ticket, began in unseen:
        hooks.show(handle, args, ticket, began)


def around(chain: Chain | None) -> Chain | None:
    """The flights that this context is inside of, and after them those whose loads this thread runs in the core."""
    for flight in core.flights_here() if core is not None and core.running() else ():
        if chain is None or not chain.holds(flight):
            chain = Chain(flight, chain, None if chain is None else chain.began)
    return chain


class Flights:
    """All flights of a process. One lock, held for a few dictionary operations only.

    It is reentrant, because hashes of arguments, finalizers and signal handlers run on a thread that holds it and may
    call cached functions. Such a call must not wait either: the one it would wait for needs the lock to end.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._joining = False  # somebody, that is the holder of the lock, is inside of `join`
        self.running: dict[Hashable, Flight] = {}  # never replaced: the core looks whether it is empty

    def __len__(self) -> int:
        return len(self.running)

    def adopt(self, key: Hashable, ticket: int, started: float) -> Flight:
        """A flight for a load that began without one. A newer one of the same key stays the one to be joined."""
        with self.lock:
            flight = Flight(self, key, ticket, started, None)
            self.running.setdefault(key, flight)
            return flight

    def lead(self, key: Hashable, ticket: int, started: float, loop: object) -> Flight | None:
        """Lead the load of ``key``, if nobody does; else `join` decides. One atomic step, which needs no lock."""
        flight = Flight(self, key, ticket, started, loop)
        return flight if self.running.setdefault(key, flight) is flight else None

    def join(
        self,
        key: Hashable,
        *,
        ticket: int,
        started: float,
        chain: Chain | None,
        loop: object,
        blocked: Callable[[], object],
        may_join: Callable[[Flight], bool],
    ) -> Flight | Wait | Alone:
        """Lead the load of ``key``, or wait for the one that runs, if ``may_join`` finds its sample good enough.

        ``loop`` is the caller's event loop if it is a task; ``blocked()`` is the loop that would stand still while the
        caller waits (a blocking call on a thread that runs a loop), else None.
        """
        nested = False
        with self.lock:
            try:
                nested, self._joining = self._joining, True
                mine = Flight(self, key, ticket, started, loop)
                flight = self.running.setdefault(key, mine)
                if flight is mine:
                    return mine
                if nested or _would_circle(flight, chain, blocked()):
                    return ALONE
                if not may_join(flight):
                    self.running[key] = mine  # replaces one that started before the last invalidation
                    return mine
                if flight.future is None:
                    from concurrent.futures import Future  # 6 ms with logging, and only where two callers meet

                    flight.future = Future()
                    # Marked as running so that one cancelled waiter cannot cancel it for all.
                    flight.future.set_running_or_notify_cancel()
                flight.interested += 1
                if chain is not None:
                    chain.flight.waits_for += (flight,)
                return Wait(flight, flight.future, chain)
            finally:
                self._joining = nested

    def after_fork(self) -> None:
        """In a forked child: the leaders do not exist here."""
        self.lock = threading.RLock()
        self._joining = False
        self.running.clear()


def _would_circle(flight: Flight, chain: Chain | None, blocked: object) -> bool:
    """Follow leader -> what it waits for; true if that reaches one of ours, or a task of a loop that we would block."""
    if chain is None and blocked is None:
        return False
    seen: set[int] = set()
    todo = [flight]
    while todo:
        current = todo.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if chain is not None and chain.holds(current):
            return True
        if blocked is not None and current.loop is blocked:
            return True
        todo.extend(current.waits_for)
    return False
