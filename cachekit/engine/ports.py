"""The only file that knows sync from async: how the flow calls a backend, waits, and runs the cached function.

`engine.flow` is written once, as coroutines that await nothing but methods of a port. `AsyncPort` really waits.
`SyncPort` does its work in place and never suspends, so `drive` finishes a flow in one step.
"""

import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import CoroutineType
from typing import Any, Final, Protocol, TypeVar

from cachekit.backends.base import Faces
from cachekit.engine.flight import Lead, Wait
from cachekit.l2.parking import Parked

T = TypeVar("T")

TIMED_OUT: Final = object()


class Result:
    """What a load brought: a value or an exception, so that neither is confused with the flow's own."""

    __slots__ = ("error", "mode", "tags", "value")

    def __init__(
        self,
        value: Any = None,
        error: BaseException | None = None,
        mode: str = "share",
        tags: tuple[str, ...] = (),
    ) -> None:
        self.value = value
        self.error = error
        self.mode = mode  # how callers are isolated from each other: share, copy, opaque; "": not looked at yet
        self.tags = tags  # what this process knows the tags of the entry by; late ones included

    def unwrap(self) -> Any:
        """The value, or raise the exception."""
        if self.error is not None:
            raise self.error
        return self.value


class Load:
    """The user's function with its arguments, or a factory."""

    __slots__ = ("args", "function", "is_async", "kwargs")

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], is_async: bool
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.is_async = is_async


class Port(Protocol):
    """What the flow needs from the world. Times are seconds of a monotonic clock, budgets seconds."""

    now: Callable[[], float]
    wall: Callable[[], float]
    awaits: bool  # whether what `call` returns is to be awaited, or is the answer itself

    def loop(self) -> object:
        """The running event loop of the caller if the caller is a task, else None."""

    def blocked(self) -> object:
        """The event loop that stands still while this caller waits, else None."""

    def call(self, faces: Faces, method: str, args: tuple[Any, ...], budget: float) -> Any:
        """One method of a backend: its answer, or with ``awaits`` an awaitable of it."""

    async def wait(self, wait: Wait, timeout: float) -> Any:
        """The result of another caller's load, or `TIMED_OUT`."""

    async def park(self, parked: Parked, seconds: float) -> bool:
        """Wait until the key of ``parked`` changes, for at most so long; whether it did."""

    async def run(self, load: Load) -> Result:
        """Run the user's function; an `Exception` becomes part of the result."""

    async def owned(self, step: "Callable[[Port], Coroutine[Any, Any, Result]]", lead: Lead | None) -> Result:
        """Run a load so that it outlives a caller who gives up while others wait."""


def drive(flow: Coroutine[Any, Any, T]) -> T:
    """Finish a flow over a `SyncPort`: one step, since that port never suspends."""
    try:
        flow.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration.value is Any
    flow.close()
    raise RuntimeError("a blocking call suspended; this is a defect of cachekit")


def running_loop() -> object:
    """The event loop that runs in this thread, without importing asyncio for those who do not use it."""
    asyncio = sys.modules.get("asyncio")
    return None if asyncio is None else asyncio._get_running_loop()


def closed(loop: object) -> bool:
    """Whether an event loop is closed, so that none of its tasks will ever end. False for None."""
    return loop is not None and loop.is_closed()  # type: ignore[attr-defined]  # a loop of asyncio


def _outcome(load: Load) -> Result:
    try:
        return Result(load.function(*load.args, **load.kwargs))
    except Exception as error:
        return Result(error=error)


class SyncPort:
    """Blocks in place."""

    __slots__ = ("now", "wall")
    awaits = False  # a coroutine for each answer that is there already would be felt

    def __init__(self, now: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self.now = now
        self.wall = wall

    def loop(self) -> object:
        return None

    def blocked(self) -> object:
        return running_loop()

    def call(self, faces: Faces, method: str, args: tuple[Any, ...], budget: float) -> Any:
        return getattr(faces.sync, method)(*args, budget=budget)

    async def wait(self, wait: Wait, timeout: float) -> Any:
        try:
            return wait.future.result(timeout)
        except TimeoutError:  # of the future; since 3.11 it is the built-in one
            return TIMED_OUT
        finally:
            wait.leave()

    async def park(self, parked: Parked, seconds: float) -> bool:
        future = parked.future()
        if future is None:
            return True
        try:
            future.result(max(0.0, seconds))
        except TimeoutError:
            return False
        return True

    async def run(self, load: Load) -> Result:
        result = _outcome(load)
        if load.is_async and result.error is None:
            try:
                return Result(_run_coroutine(result.value))
            except Exception as error:
                return Result(error=error)
        return blocking(load, result)

    async def owned(self, step: Callable[[Port], Coroutine[Any, Any, Result]], lead: Lead | None) -> Result:
        return await step(self)


def blocking(load: Load, result: Result) -> Result:
    """The result of a function that is not async; an error if it is something to be awaited all the same."""
    if type(result.value) is not CoroutineType:
        return result
    result.value.close()
    name = getattr(load.function, "__qualname__", repr(load.function))
    return Result(
        error=TypeError(
            f"{name} returned a coroutine, which only one caller could await: cache a function written as "
            "`async def`, or use aget_or_set()"
        )
    )


def _run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    """An async function called through its blocking face (`f.twin()`)."""
    import asyncio  # 35 ms, only for those who need it

    if running_loop() is None:
        return asyncio.run(coroutine)
    coroutine.close()
    raise RuntimeError("the blocking face of an async function cannot run on a thread with a running event loop")


class AsyncPort:
    """Awaits. Backends with plain methods only, and functions that block, run in worker threads."""

    __slots__ = ("asyncio", "now", "tasks", "wall")
    awaits = True

    def __init__(self, now: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        import asyncio

        self.asyncio = asyncio
        self.now = now
        self.wall = wall
        self.tasks: set[Any] = set()  # asyncio itself holds tasks only weakly

    def loop(self) -> object:
        return self.asyncio._get_running_loop()

    def blocked(self) -> object:
        return None

    def call(self, faces: Faces, method: str, args: tuple[Any, ...], budget: float) -> Any:
        if faces.aio is not None:
            return getattr(faces.aio, method)(*args, budget=budget)
        return self._in_thread(Load(getattr(faces.sync, method), args, {"budget": budget}, False))

    async def _in_thread(self, load: Load) -> Any:
        return (await self.asyncio.to_thread(_outcome, load)).unwrap()

    async def wait(self, wait: Wait, timeout: float) -> Any:
        future = self.asyncio.wrap_future(wait.future)
        try:
            # Not wait_for: it would cancel the future, which belongs to everybody.
            done, _ = await self.asyncio.wait((future,), timeout=timeout)
            return future.result() if done else TIMED_OUT
        finally:
            future.cancel()  # this caller's end of it alone: nothing is to be delivered here any more
            wait.leave()

    async def park(self, parked: Parked, seconds: float) -> bool:
        changed = parked.future()
        if changed is None:
            return True
        future = self.asyncio.wrap_future(changed)
        try:
            done, _ = await self.asyncio.wait((future,), timeout=max(0.0, seconds))
            return bool(done)
        finally:
            future.cancel()

    async def run(self, load: Load) -> Result:
        # A worker thread hands over a Result: no future can carry a StopIteration.
        result = _outcome(load) if load.is_async else await self.asyncio.to_thread(_outcome, load)
        if result.error is not None or not isinstance(result.value, Awaitable):
            return result
        try:
            return Result(await result.value)
        except Exception as error:
            return Result(error=error)

    async def owned(self, step: Callable[[Port], Coroutine[Any, Any, Result]], lead: Lead | None) -> Result:
        loop = self.asyncio.get_running_loop()
        task = loop.create_task(step(self))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        if lead is not None:
            # Cancelled before its first step, a task runs nothing of its own, not even an `except`.
            task.add_done_callback(lambda done: lead.hand_over() if done.cancelled() else None)
            lead.flight.stop = lambda: None if loop.is_closed() else loop.call_soon_threadsafe(task.cancel)
        try:
            return await self.asyncio.shield(task)
        except self.asyncio.CancelledError:
            if task.done():
                raise  # the load itself was cancelled
            if lead is not None:
                lead.leave()
            else:
                task.cancel()
            raise
