"""What the context says: the loads it is inside of, `current_entry()`, the tenant, and whether the cache is off."""

import functools
import inspect
import os
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar, cast

from cachekit.engine.flight import Chain
from cachekit.engine.miss import MISS
from cachekit.l1.table import core

if TYPE_CHECKING:
    from cachekit.config.units import Duration

F = TypeVar("F", bound=Callable[..., Any])

NOT_MODIFIED: Final = object()  # what a function returns whose source says so

OFF: "ContextVar[tuple[_Scope, ...]]" = ContextVar("cachekit_off", default=())  # the `disabled` that hold here
LOADING: ContextVar[Chain | None] = ContextVar("cachekit_loading", default=None)
TENANT: ContextVar[str | None] = ContextVar("cachekit_tenant", default=None)
WATCHED: ContextVar[bool] = ContextVar("cachekit_watched", default=False)  # every hit here is to be seen
_WITHIN: "ContextVar[tuple[_Within, ...]]" = ContextVar("cachekit_within", default=())  # outermost first
ENTRY: "ContextVar[Entry | None]" = ContextVar("cachekit_entry", default=None)


class _Scope:
    """One ``with disabled():`` that was entered. Contexts that were copied meanwhile see that it ended."""

    __slots__ = ("on", "owner")

    def __init__(self, owner: "disabled") -> None:
        self.owner = owner
        self.on = True


def is_off(region: str) -> bool:
    """Whether `disabled` holds here for a region."""
    scopes = OFF.get()
    return scopes != () and any(
        scope.on and (not scope.owner.regions or region in scope.owner.regions) for scope in scopes
    )


class disabled:
    """Switch the cache off: ``with disabled():``, or as a decorator of a function or a coroutine function.

    Cached functions always run, nothing is read or stored; invalidations still happen, and what is set removes what
    was there. With names, in these regions only. It holds for this thread or task and for what has a copy of its
    context, as tasks and `asyncio.to_thread` have and a new thread has not, until the block ends.
    """

    def __init__(self, *regions: str) -> None:
        if not all(isinstance(name, str) for name in regions):
            raise TypeError("disabled() takes names of regions; as a decorator it is written @disabled()")
        self.regions = frozenset(regions)
        self._entered: list[_Scope] = []  # in all threads and tasks

    def __enter__(self) -> None:
        scope = _Scope(self)
        OFF.set((*OFF.get(), scope))
        with _lock:
            self._entered.append(scope)
            _switched(1)

    def __exit__(self, *exception: object) -> None:
        scopes = OFF.get()
        mine = [scope for scope in scopes if scope.owner is self and scope.on]
        with _lock:
            scope = mine[-1] if mine else self._entered[-1]  # a generator may be ended in another context
            scope.on = False
            self._entered.remove(scope)
            _switched(-1)
        OFF.set(tuple([other for other in scopes if other.on]))

    def __call__(self, function: F) -> F:
        regions = self.regions
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with disabled(*regions):
                    return await function(*args, **kwargs)

            return cast(F, awaited)

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with disabled(*regions):
                return function(*args, **kwargs)

        return cast(F, called)


class watched:
    """Have no call of this context answered by the native core or the generated code alone, so that a tool sees it.

    It goes on until `stop`, which may be called in another context, or twice.
    """

    def __init__(self) -> None:
        self._on = True
        WATCHED.set(True)
        with _lock:
            _switched(1)

    def stop(self) -> None:
        """Let hits be hits again."""
        WATCHED.set(False)
        with _lock:
            if self._on:
                self._on = False
                _switched(-1)


class tenant:
    """Work for one tenant: ``with tenant("acme"):``. The name is part of every key in both tiers, and of the keys of
    encryption.

    It holds for this thread or task and for what has a copy of its context, as tasks and `asyncio.to_thread` have, also
    after the block. A new thread and a Celery task have not: there a region with ``require_tenant = true`` raises
    `MissingTenant`. Around the ``yield`` of a generator it holds for whoever iterates, too, until the block ends.
    """

    def __init__(self, name: str) -> None:
        self.name = check_tenant(name)

    def __enter__(self) -> None:
        global _tenants
        with _lock:
            if not _tenants:
                _tenants = True
                _tell()
        _WITHIN.set((*_WITHIN.get(), _Within(self, self.name)))
        TENANT.set(self.name)

    def __exit__(self, *exception: object) -> None:
        # Blocks of generators may end in another order than they began, or in another context, which is left as it is.
        within = _WITHIN.get()
        for at in reversed(range(len(within))):
            if within[at].owner is self:
                rest = (*within[:at], *within[at + 1 :])
                _WITHIN.set(rest)
                TENANT.set(rest[-1].name if rest else None)
                return


class _Within(NamedTuple):
    """One ``with tenant(...):`` that was entered."""

    owner: tenant
    name: str


def within(name: str, function: Callable[..., Any], is_async: bool) -> Callable[..., Any]:
    """A function run for a tenant, so that what it calls is computed for the one whose entry it fills."""

    @functools.wraps(function)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        with tenant(name):
            return await function(*args, **kwargs)

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with tenant(name):
            return function(*args, **kwargs)

    return awaited if is_async else called


def check_tenant(name: object) -> str:
    """The name of a tenant, or TypeError or ValueError."""
    if not isinstance(name, str):
        raise TypeError(f"a tenant is a str, not {type(name).__qualname__}: write str(...)")
    if not name:
        raise ValueError("a tenant must not be empty")
    return str.__str__(name)


def for_nobody(look: Callable[[int, tuple[Any, ...]], Any], slot: int, place: tuple[Any, ...]) -> Any:
    """Ask L1 for a place with its tenant in it. Other hits are refused to tenants, whom they do not know."""
    outside = TENANT.set(None)
    try:
        return look(slot, place)
    finally:
        TENANT.reset(outside)


class Watcher(Protocol):
    """Who must look at each hit while somebody may have switched the cache off, or may work for a tenant."""

    def off(self, somewhere: bool) -> None:
        """Whether that may be so."""


_lock = threading.RLock()
_count = 0  # how many `disabled` and `watched` hold in all threads and tasks
_tenants = False  # whether there ever was one: contexts are copied, so nobody knows when the last of them ends
_watchers: "weakref.WeakSet[Watcher]" = weakref.WeakSet()


def watch_for_off(watcher: Watcher) -> None:
    """Tell a service's `Nesting` when hits must be looked at."""
    with _lock:
        _watchers.add(watcher)
        watcher.off(switched_off())


def _switched(by: int) -> None:
    global _count
    before, _count = _count, max(0, _count + by)
    if (before > 0) != (_count > 0):
        _tell()


def _tell() -> None:
    for watcher in list(_watchers):
        watcher.off(switched_off())


def switched_off() -> bool:
    """Whether any hit may have to be refused: a `disabled` or `watched` holds here, or there are tenants."""
    return _count > 0 or _tenants


def _after_fork() -> None:
    # Only this thread goes on. The services are told by themselves, when their locks are new.
    global _lock, _count
    _lock = threading.RLock()
    _count = sum([scope.on for scope in OFF.get()]) + WATCHED.get()


os.register_at_fork(after_in_child=_after_fork)


def inside_load() -> bool:
    """Whether this context runs inside of a load whose value goes into L2.

    What it is made of must not be what this process remembers: L2 may know already that it is outdated, and then what
    is made of it would be stored after its own invalidation.
    """
    chain = LOADING.get()
    return chain is not None and chain.began is not None


class Entry:
    """The entry that the running cached function is about to fill.

    ``ttl`` (seconds, a duration like "5m", or None for never), ``tags``, ``etag`` and ``last_modified`` may be set by
    the function. The latter two are at first what they were of the entry that lies there, so that they can be sent to
    the source; ``stale_value`` is its value. ``return entry.not_modified()`` keeps that value for another ttl;
    ``no_store()`` keeps the result out of the cache. ``behind``: no caller waits for it, as the one who asked has been
    given another value.
    """

    __slots__ = (
        "_aged", "_depth", "_thread", "_ttl", "behind", "etag", "last_modified", "stored", "tags", "ttl_given",
    )  # fmt: skip

    def __init__(self, ttl: float | None, tags: tuple[str, ...], aged: Any = None, *, behind: bool = False) -> None:
        self._depth = core.depth() if core is not None else 0  # loads of the core that this one is inside of
        self._thread = get_ident()
        self._ttl = ttl
        self._aged = aged
        self.ttl_given = False
        self.tags: set[str] = set(tags)
        self.etag: str | None = None if aged is None else aged.etag
        self.last_modified: str | None = None if aged is None else aged.last_modified
        self.stored = True
        self.behind = behind

    @property
    def ttl(self) -> float | None:
        """Time to live in seconds; None is never."""
        return self._ttl

    @ttl.setter
    def ttl(self, value: "Duration | None") -> None:
        from cachekit.config.units import parse_duration  # light, but only needed here

        self._ttl = parse_duration(value)
        self.ttl_given = True

    @property
    def stale_value(self) -> Any:
        """The value that is to be replaced, a copy of it; `MISS` if none is known."""
        return MISS if self._aged is None else self._aged.copy()

    def no_store(self) -> None:
        """Return the result to the caller and keep nothing."""
        self.stored = False

    def not_modified(self) -> Any:
        """What to return if the source says that ``stale_value`` still holds: it is kept for another ttl.

        Raises `RuntimeError` if there is no such value.
        """
        if self._aged is None:
            raise RuntimeError("not_modified(): there is no value to keep; ask the source without etag or date first")
        return NOT_MODIFIED


def current_entry() -> Entry:
    """The entry that the running cached function fills. Outside of one: `RuntimeError`."""
    entry = ENTRY.get()
    if (
        core is not None
        and (depth := core.depth())
        and (entry is None or entry._thread != get_ident() or entry._depth < depth)
    ):
        return cast(Entry, core.entry_here())  # a load that the core runs is the innermost
    if entry is None:
        raise RuntimeError("current_entry() works only inside a cached function while it is being computed")
    return entry
