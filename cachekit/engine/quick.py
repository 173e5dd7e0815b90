"""What the native core asks for when a load that it runs by itself turns out to need more than the function.

A miss of a function without L2, tags, conditions and observers needs nothing but the function, so the core runs it
without any of Python's steps. `flight.tell` makes such loads visible once somebody else is concerned.
"""

from collections.abc import Callable
from typing import Any

from cachekit.context import Entry
from cachekit.engine import loading
from cachekit.engine.flight import Flight
from cachekit.engine.ports import Port, Result, drive
from cachekit.engine.tiers import Call
from cachekit.l1.table import core


class Hooks:
    """Of one function. ``call`` makes the call of an argument array; ``ttl`` in seconds, None for never."""

    __slots__ = ("_call", "_port", "_ttl")

    def __init__(self, call: Callable[[tuple[Any, ...]], Call], port: Callable[[], Port], ttl: float | None) -> None:
        self._call = call
        self._port = port
        self._ttl = ttl

    def flight(self, args: tuple[Any, ...], ticket: int, began: float) -> Flight:
        """A flight that others can join."""
        call = self._call(args)
        return call.tiers.flights.adopt(call.flight_key, ticket, began)

    def show(self, handle: int, args: tuple[Any, ...], ticket: int, began: float) -> None:
        """Give the load a flight, if it still runs and has none."""
        flight = self.flight(args, ticket, began)
        if core is None or not core.attach(handle, flight):
            flight.hand_over()

    def entry(self) -> Entry:
        """What `current_entry` gives inside of it."""
        return Entry(self._ttl, ())

    def landed(self, args: tuple[Any, ...], flight: Flight, value: Any, mode: str) -> None:
        """The core has kept the value; here it is for those who wait."""
        _land(flight, Result(value, mode=mode))

    def finish(
        self,
        args: tuple[Any, ...],
        flight: Flight,
        value: Any,
        entry: Entry | None,
        ticket: int,
        began: float,
        seconds: float,
    ) -> Any:
        """Keep a value with what its function asked for, or one that cannot be copied. Returns or raises the result."""
        call, port = self._call(args), self._port()
        try:
            result = drive(loading.ended(call, port, Result(value), entry or self.entry(), ticket, began, seconds))
        except BaseException:
            flight.hand_over()
            raise
        _land(flight, result)
        return result.unwrap()

    def failed(self, args: tuple[Any, ...], flight: Flight | None, error: BaseException) -> None:
        """The function raised."""
        call = self._call(args)
        call.tally.misses += 1
        if isinstance(error, Exception):
            call.tally.load_errors += 1
            call.tally.error("load", type(error).__name__)
            if flight is not None:
                _land(flight, Result(error=error))
        elif flight is not None:
            flight.hand_over()


def _land(flight: Flight, result: Result) -> None:
    if (waiting := flight.end()) is not None:
        loading.land(waiting, result)
