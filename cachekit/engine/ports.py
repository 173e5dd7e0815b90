"""The only file that knows sync from async: how the flow calls a backend, waits, and runs the cached function.

`engine.flow` is written once, as coroutines that await nothing but methods of a port. `AsyncPort` really waits.
`SyncPort` does its work in place and never suspends, so `drive` finishes a flow in one step.
"""

import itertools
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from contextvars import copy_context
from types import CoroutineType
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from cachekit.backends.base import Faces
from cachekit.context import ENTRY, LOADING
from cachekit.engine.flight import Chain, Flight, Wait, around, in_core, tell
from cachekit.engine.workers import Workers, let_go
from cachekit.l2.parking import Parked

logger = logging.getLogger("cachekit")

T = TypeVar("T")

TIMED_OUT: Final = object()
MOST_TASKS: Final = 1_000  # refreshes of one event loop at the same time


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


class Old(Result):
    """A value past its TTL that goes to callers: ``age`` is since when, in seconds."""

    __slots__ = ("age",)

    def __init__(self, value: Any, mode: str, tags: tuple[str, ...], age: float) -> None:
        super().__init__(value, mode=mode, tags=tags)
        self.age = age


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

    async def owned(self, step: "Step", lead: Flight | None, limits: Iterable[float | None]) -> Any:
        """Run a load so that it outlives a caller who gives up while others wait.

        After all of the ``limits``, each in seconds and None for ever, the caller gives up with `TIMED_OUT`, and the
        load goes on to its end.
        """

    def spawn(self, step: "Step", key: Hashable) -> bool:
        """Run a step that no caller waits for, unless one of this key is about to; False when too many of them wait
        already."""


Step: TypeAlias = Callable[[Port], Coroutine[Any, Any, Any]]


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


def runs(loop: object) -> bool:
    """Whether an event loop runs now, in some thread."""
    return loop.is_running()  # type: ignore[attr-defined,no-any-return]  # a loop of asyncio


def _outcome(load: Load) -> Result:
    try:
        return Result(load.function(*load.args, **load.kwargs))
    except Exception as error:
        return Result(error=error)


def _in_shared_thread(load: Load) -> Result:
    try:
        return _outcome(load)
    finally:
        let_go(shared=True)


class SyncPort:
    """Blocks in place; what nobody waits for in place runs in the service's worker threads."""

    __slots__ = ("now", "wall", "workers")
    awaits = False  # a coroutine for each answer that is there already would be felt

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        workers: Workers | None = None,
    ) -> None:
        self.now = now
        self.wall = wall
        self.workers = workers or Workers()

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

    async def owned(self, step: Step, lead: Flight | None, limits: Iterable[float | None]) -> Any:
        limits = iter(limits)
        limit = next(limits)
        if limit is None:
            return await step(self)
        tell(in_core())  # or in the other thread it would not be known what this one is inside of
        context, chain = copy_context(), around(LOADING.get())
        future = self.workers.start(lambda: context.run(_inside, chain, step, self))
        if future is None:
            return await step(self)  # better late than one thread more
        for seconds in itertools.chain((limit,), limits):
            try:
                return future.result(seconds)
            except TimeoutError:
                if future.done():
                    return future.result()
        return TIMED_OUT

    def spawn(self, step: Step, key: Hashable) -> bool:
        context = copy_context()
        return self.workers.submit(lambda: context.run(_inside, None, step, self), key)


def _inside(chain: Chain | None, step: Step, port: SyncPort) -> Any:
    """A step in another thread, inside of the same loads as who asked for it, or of none."""
    LOADING.set(chain)
    if chain is None:
        ENTRY.set(None)
    return drive(step(port))


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

    __slots__ = ("asyncio", "now", "refreshing", "tasks", "wall")
    awaits = True

    def __init__(self, now: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        import asyncio

        self.asyncio = asyncio
        self.now = now
        self.wall = wall
        self.tasks: set[Any] = set()  # asyncio itself holds tasks only weakly
        self.refreshing = 0  # of them, how many nobody waits for

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
        result = _outcome(load) if load.is_async else await self.asyncio.to_thread(_in_shared_thread, load)
        if result.error is not None or not isinstance(result.value, Awaitable):
            return result
        try:
            return Result(await result.value)
        except Exception as error:
            return Result(error=error)

    async def owned(self, step: Step, lead: Flight | None, limits: Iterable[float | None]) -> Any:
        limits = iter(limits)
        limit = next(limits)
        loop = self.asyncio.get_running_loop()
        task = self._task(loop, step)
        if lead is not None:
            # Cancelled before its first step, a task runs nothing of its own, not even an `except`.
            task.add_done_callback(lambda done: lead.hand_over() if done.cancelled() else None)
            if limit is None:  # else it goes on whoever gives up
                lead.stop = lambda: None if loop.is_closed() else loop.call_soon_threadsafe(task.cancel)
        try:
            # Neither cancels the task with this caller.
            if limit is None:
                return await self.asyncio.shield(task)
            for seconds in itertools.chain((limit,), limits):
                done, _ = await self.asyncio.wait((task,), timeout=seconds)
                if done:
                    return task.result()
            return TIMED_OUT
        except self.asyncio.CancelledError:
            if task.done():
                raise  # the load itself was cancelled
            if lead is not None:
                lead.leave()
            elif limit is None:
                task.cancel()
            raise

    def spawn(self, step: Step, key: Hashable) -> bool:  # a task begins before its caller can end and others ask
        if self.refreshing >= MOST_TASKS:
            self._count_again()
        if self.refreshing >= MOST_TASKS:
            return False
        self.refreshing += 1
        context = copy_context()
        context.run(LOADING.set, None)
        context.run(ENTRY.set, None)
        task = context.run(self._task, self.asyncio.get_running_loop(), step)
        task.add_done_callback(self._refreshed)
        return True

    def _task(self, loop: Any, step: Step) -> Any:
        task = loop.create_task(step(self))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def _count_again(self) -> None:
        """Forget the tasks of loops that were closed with them: those do not end."""
        gone = [task for task in self.tasks if closed(task.get_loop())]
        self.tasks.difference_update(gone)
        self.refreshing = min(self.refreshing, len(self.tasks))

    def _refreshed(self, task: Any) -> None:
        self.refreshing = max(0, self.refreshing - 1)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a refresh failed", exc_info=error)

    async def wait_for_tasks(self, seconds: float) -> bool:
        """Let the loads and refreshes of the running loop finish for so long; whether all did."""
        loop, me = self.asyncio.get_running_loop(), self.asyncio.current_task()
        mine = [task for task in self.tasks if task.get_loop() is loop and task is not me]
        if not mine:
            return True
        _, running = await self.asyncio.wait(mine, timeout=max(0.0, seconds))
        return not running
