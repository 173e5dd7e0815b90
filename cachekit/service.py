"""A configuration at work: its regions, tables, backends, versions and maintenance tick.

A process has one default service (`process`); further ones, for applications with a configuration of their own, are
made explicitly.
"""

import atexit
import gc
import logging
import math
import os
import random
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cachekit.config.spec import (
    DEFAULT_BACKEND,
    NEEDS_MASTER_KEY,
    NEEDS_NAMESPACE,
    NEEDS_SIGNING_KEY,
    NO_BACKEND,
    RegionSpec,
    ServiceSpec,
)
from cachekit.config.units import nearest
from cachekit.context import LOADING, OFF, TENANT, WATCHED, inside_load, is_off, switched_off, watch_for_off
from cachekit.engine.events import Observer, Tally
from cachekit.engine.flight import Flight, Flights, around
from cachekit.engine.pauses import Pauses, Validators
from cachekit.engine.ports import AsyncPort, SyncPort, drive, running_loop, runs
from cachekit.engine.tiers import Tiers
from cachekit.engine.workers import Workers
from cachekit.errors import ConfigError
from cachekit.l1.nesting import Nesting
from cachekit.l1.table import Table, Versions, core
from cachekit.l2.reclaim import PAUSE, Reclaim
from cachekit.l2.remote import Remote, Unavailable
from cachekit.modules import in_main, main_name

if TYPE_CHECKING:
    from cachekit.codec.keyring import Keyring

logger = logging.getLogger("cachekit")

TICK = 1.0  # seconds between two maintenance runs
TURNS = 2  # in one of them; the shortest lease must be renewed within a third of its length
SWEEP = 2_000  # entries looked at per table and tick
LOOK = 0.005  # seconds between two looks whether the loads of other threads have ended


class Loader(Protocol):
    """A function whose loads the native core runs."""

    def rest(self) -> None:
        """Ask for the port again at the next load."""


class Clock(Protocol):
    """Where a service takes its time from; tests inject a frozen one."""

    def now(self) -> float:
        """Monotonic seconds."""

    def ns(self) -> int:
        """The same in nanoseconds."""

    def wall(self) -> float:
        """Seconds since the epoch."""


class SystemClock:
    """The real time."""

    now = staticmethod(time.monotonic)
    ns = staticmethod(time.monotonic_ns)
    wall = staticmethod(time.time)


@dataclass(frozen=True)
class BackendHealth:
    """How a backend does, judged by real operations."""

    state: str  # unused | up | down
    breaker: str  # closed | open | half_open
    coherence: str  # tracking: L1 hears of changes; connecting: not at the moment; ttl: its entries end by themselves
    budget_ms: float
    last_error: str
    pending: int = 0  # invalidations that the backend has not heard
    losses: int = 0  # live push connections that ended by themselves


@dataclass(frozen=True)
class Health:
    """How a service does. ``ok`` is false as soon as a backend that is in use is down."""

    ok: bool
    backends: Mapping[str, BackendHealth] = field(default_factory=dict)


class Service:
    """One configuration at work. Opens no connection before the first operation, and starts no thread before the first
    entry that can expire."""

    def __init__(self, spec: ServiceSpec, *, clock: Clock | None = None, private: bool = False) -> None:
        """``private``: of one application only, so the functions of the process are not checked against it."""
        self.spec = spec
        self.private = private
        self.clock: Clock = clock or SystemClock()
        self.versions = Versions()
        self.flights = Flights()
        self.nesting = Nesting(self.versions)
        self.workers = Workers()
        self._sync_port = SyncPort(self.clock.now, self.clock.wall, self.workers)
        self._pauses, self._unstored, self._validators = Pauses(), Pauses(), Validators()
        self.observers: list[Observer] = []
        self.rng: Callable[[], float] = random.SystemRandom().random  # forked children must not draw the same
        self._async_port: AsyncPort | None = None
        self._keyring: Keyring | None = None
        self._remotes: dict[str, Remote] = {}
        self._objects: dict[int, Remote] = {}  # by the id of the backend, which its Remote keeps alive
        self._reclaims: dict[Remote, Reclaim] = {}
        self._tiers: dict[str, Tiers] = {}
        self._tables: dict[str, list[Table]] = {}
        self._remotes_of: dict[str, dict[Remote, None]] = {}  # by region: functions may have backends of their own
        self._tallies: dict[tuple[str, str, int], Tally] = {}
        self._claims: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()  # by function id
        self._lock = threading.RLock()
        self._tick: threading.Thread | None = None
        self._stop = threading.Event()
        self._in_core: weakref.WeakSet[Loader] = weakref.WeakSet()
        self._on_tick: list[Callable[[], object]] = []
        self._on_close: list[Callable[[], object]] = []
        self._on_fork: list[Callable[[], object]] = []
        if spec.backends and not spec.namespace_given:
            logger.warning(
                "no namespace is configured: every service that shares this server uses %r and may read the others' "
                "entries; set `namespace` in cachekit.toml or CACHEKIT_NAMESPACE",
                spec.namespace,
            )
        watch_for_off(self.nesting)
        _alive.add(self)
        # The threads that listen hold what they need for as long as they wait; nothing else would end them.
        weakref.finalize(self, _let_go, self._remotes, self._objects).atexit = False

    @property
    def sync_port(self) -> SyncPort:
        """The port for blocking calls. Whoever asks for a port uses the service, so it must tick."""
        if self._tick is None:
            self.keep_ticking()
        return self._sync_port

    @property
    def async_port(self) -> AsyncPort:
        """The port for coroutines; asyncio is loaded on first use."""
        if self._tick is None:
            self.keep_ticking()
        if self._async_port is None:
            self._async_port = AsyncPort(self.clock.now, self.clock.wall)
        return self._async_port

    def keyring(self) -> "Keyring":
        """The keys of encryption and signatures; with cryptography, so loaded on first use."""
        if self._keyring is None:
            from cachekit.codec.keyring import Keyring

            with self._lock:
                self._keyring = self._keyring or Keyring(self.spec.keys, self.spec.namespace, self.clock.now)
        return self._keyring

    def name_keys(self) -> "tuple[bytes | None, ...]":
        """What digests of names are made with in the regions of this service: no key, or one where names are hidden,
        also by processes that have not followed a rotation yet."""
        return (None, *self.keyring().name_keys) if self.spec.keys.names_hidden else (None,)

    def missing_key(self, spec: RegionSpec) -> str:
        """Why a region cannot be used for want of a key; empty if it can."""
        keys, codec = self.spec.keys, spec.codec
        if codec.encrypt and keys.master_key is None:
            return NEEDS_MASTER_KEY
        if codec.sign and keys.master_key is None and keys.signing_key is None:
            return NEEDS_SIGNING_KEY
        return ""

    # Regions

    def region_spec(self, name: str) -> RegionSpec:
        """The settings of a region; an unknown name is a `ConfigError` that says the nearest one."""
        spec = self.spec.regions.get(name)
        if spec is None:
            near = nearest(name, self.spec.regions)
            hint = f"; did you mean {near!r}?" if near else f"; known are {', '.join(sorted(self.spec.regions))}"
            raise ConfigError(f"there is no profile {name!r}{hint} (declare it as [profiles.{name}] in cachekit.toml)")
        return spec

    def tiers(self, name: str) -> Tiers:
        """The two tiers of a region."""
        tiers = self._tiers.get(name)
        if tiers is None:
            with self._lock:
                tiers = self._tiers.get(name) or self.private_tiers(self.region_spec(name))
                self._tiers[name] = tiers
        return tiers

    def private_tiers(self, spec: RegionSpec, backend: object = None) -> Tiers:
        """Tiers with a table of their own, labelled with the region they belong to."""
        with self._lock:
            tables = self._tables.setdefault(spec.name, [])
            on = self.spec.enabled  # switched off, it stands on nothing
            remote = self._adopt(backend) if backend is not None else self.remote(spec.backend)
            if remote is not None and spec.needs_namespace and not self.spec.namespace_given:
                raise ConfigError(f"profile {spec.name!r}: {NEEDS_NAMESPACE}")
            table = self._table(spec, remote is not None) if on and spec.l1.mode == "on" else None
            if remote is not None:
                self._remotes_of.setdefault(spec.name, {})[remote] = None
            if table is not None:
                tables.append(table)
                self.nesting.add(table, remote is not None)
                if remote is not None and remote.reach.add(spec.name, table, spec.ttl):
                    remote.coherence.want()
            return Tiers(
                self.spec.namespace,
                spec,
                table=table,
                remote=remote if on else None,
                versions=self.versions,
                flights=self.flights,
                nesting=self.nesting,
                rng=self.rng,
                observers=self.observers,
                tables=tables,
                pauses=self._pauses,
                unstored=self._unstored,
                validators=self._validators,
                keyring=self.keyring,
                enabled=self.spec.enabled,
            )

    def _table(self, spec: RegionSpec, shared: bool) -> Table:
        tenant, off, loading, seen, name = TENANT.get, OFF.get, LOADING.get, WATCHED.get, spec.name

        def skip() -> bool:
            """Asked at each hit once there are tenants, so it looks before it calls."""
            if tenant() is not None or seen():
                return True
            return (off() != () and is_off(name)) or (shared and loading() is not None and inside_load())

        return Table(
            region=spec.name,
            max_entries=spec.l1.max_entries,
            max_bytes=spec.l1.max_bytes,
            policy=spec.l1.policy,
            versions=self.versions,
            clock=None if isinstance(self.clock, SystemClock) else self.clock.ns,
            isolation=spec.isolation,
            skip=skip,
        )

    def remote(self, name: str) -> Remote | None:
        """The backend of this name, shared by all its regions; None for "none", and for a default without a URL."""
        if name == NO_BACKEND or (name == DEFAULT_BACKEND and name not in self.spec.backends):
            return None
        with self._lock:
            if name not in self._remotes:
                if name not in self.spec.backends:
                    near = nearest(name, self.spec.backends)
                    raise ConfigError(f"there is no backend {name!r}{f'; did you mean {near!r}?' if near else ''}")
                self._remotes[name] = Remote(
                    self.spec.backends[name], self.versions, self.spec.namespace, self.clock.now
                )
            return self._remotes[name]

    def _adopt(self, backend: object) -> Remote:
        """A backend object handed to a decorator."""
        if id(backend) not in self._objects:
            self._objects[id(backend)] = Remote.of(backend, self.versions, self.spec.namespace, self.clock.now)
        return self._objects[id(backend)]

    def tally(self, tiers: Tiers, slot: int, function: str) -> Tally:
        """The counts of a function, or of a region's direct use (an empty name)."""
        key = (tiers.spec.name, function, slot)
        with self._lock:
            if key not in self._tallies:
                table = tiers.table
                if table is None:
                    made = Tally(tiers.spec.name, function, lambda: 0)
                else:
                    hits, loads = lambda: table.stats(slot).hits, lambda: table.take_loads(slot)
                    made = Tally(tiers.spec.name, function, hits, loads)
                self._tallies[key] = made
            return self._tallies[key]

    def loads_in_core(self, loader: "Loader") -> None:
        """A function asks for no port any more when it runs: the tick is started here, and `close` tells it to stop."""
        self.keep_ticking()
        self._in_core.add(loader)

    def claim(self, fn_id: str, function: Any) -> bool:
        """Note which decorated function goes by an id. A second one with other code would share its entries.

        False: it is of the main module, and the same one is called as imported: its classes are others.
        """
        other = self._claims.setdefault(fn_id, function)
        if other is function or _code(other.fn) == _code(function.fn):
            if in_main(other.fn) == in_main(function.fn):
                return True
            logger.warning(
                "%s is called as a function of the main module and as one of %s: the first is not cached, since the "
                "two have different classes; put it into a module of its own",
                fn_id,
                main_name(),
            )
            if in_main(other.fn):
                self._claims[fn_id] = function
                other.give_way()
            return not in_main(function.fn)
        del other
        gc.collect()  # a reloaded module: the old function may be gone but for cycles
        if self._claims.setdefault(fn_id, function) is not function:
            raise ConfigError(
                f"two functions are called {fn_id}, so they would share their entries; rename one of them, "
                "or tell them apart with version="
            )
        return True

    def region(self, name: str = "default") -> "Any":
        """The region of this name in this service."""
        from cachekit.regions import Region  # regions.py stands on this module

        self.region_spec(name)
        return Region(name, lambda: self)

    def made_from(self, file: "str | os.PathLike[str]") -> bool:
        """Whether this file is part of the configuration."""
        wanted = os.path.realpath(file)
        return any(os.path.realpath(each) == wanted for each in self.spec.files)

    # For metrics, the command line and tests

    def tallies(self) -> Iterable[Tally]:
        """The counts of every function and region."""
        tallies = tuple(self._tallies.values())
        for tally in tallies:
            tally.take_in()
        return tallies

    def tables(self) -> Iterable[tuple[str, Table]]:
        """Every L1 table with the name of its region."""
        return tuple((name, table) for name, tables in list(self._tables.items()) for table in list(tables))

    def remotes(self) -> Mapping[str, Remote]:
        """Every backend, used or not."""
        for name in self.spec.backends:
            self.remote(name)
        return dict(self._remotes)

    def remotes_in_use(self) -> list[Remote]:
        """Every configured backend, and the objects that decorators were given."""
        return [*self.remotes().values(), *self._objects.values()] if self.spec.enabled else []

    def remotes_of(self, region: str) -> list[Remote]:
        """The backends where a region has entries."""
        return list(self._remotes_of.get(region, ())) if self.spec.enabled else []

    def health(self) -> Health:
        """What real operations showed. Opens no connection."""
        now = self.clock.now()
        backends = {}
        for name, remote in {**dict.fromkeys(self.spec.backends), **self._remotes}.items():
            if remote is None or not remote.used:
                backends[name] = BackendHealth("unused", "closed", "unused", 0.0, "")
                continue
            breaker = remote.breaker.state(now)
            state = "up" if remote.well and breaker == "closed" else "down"
            backends[name] = BackendHealth(
                state,
                breaker,
                remote.coherence.state,
                remote.budget.next() * 1000,
                remote.last_error,
                pending=len(remote.outbox),
                losses=remote.coherence.losses,
            )
        return Health(all(backend.state != "down" for backend in backends.values()), backends)

    # Life

    def start(self) -> None:
        """Check every decorated function known so far against this configuration; load drivers, but connect to nothing.

        What is loaded here does not stall an event loop later, and what is wrong with a backend shows now.
        """
        for remote in self.remotes().values():
            remote.faces  # noqa: B018  # opens the backend
        from cachekit import function  # function.py stands on this module

        problems = function.problems(self)
        if problems:
            raise ConfigError("\n".join(problems))

    def on_tick(self, function: Callable[[], object]) -> None:
        """Run this about once a second from now on."""
        self._on_tick.append(function)
        self.keep_ticking()

    def on_close(self, function: Callable[[], object]) -> None:
        """Run this when the service closes."""
        self._on_close.append(function)

    def on_fork(self, function: Callable[[], object]) -> None:
        """Run this in every forked child."""
        self._on_fork.append(function)

    def keep_ticking(self) -> None:
        """Start the maintenance thread unless it runs."""
        if self._tick is not None or not isinstance(self.clock, SystemClock):
            return
        with self._lock:
            if self._tick is None:
                self._stop = threading.Event()
                args = (weakref.ref(self), self._stop)
                run = threading.Thread(target=_ticking, args=args, daemon=True, name="cachekit")
                self._tick = run
                run.start()
                _end_with_celery()

    def tick(self) -> None:
        """One maintenance run: expired entries leave L1, pending invalidations are delivered, metrics are pumped."""
        for _, table in self.tables():
            table.sweep(SWEEP)
        self._deliver()
        for function in tuple(self._on_tick):
            function()

    def tend(self) -> float:
        """Renew the leases of functions that run long, and what else the second tier must be told now and then.

        The seconds until the next time: fewer while outdated entries are looked for.
        """
        able = [remote for remote in self._in_use() if remote._faces is not None and remote.faces.sync is not None]
        for remote in able:
            if work := remote.tend(self._sync_port):
                drive(work)
        busy = [
            self._reclaim(remote).turn() for remote in able if remote in self._reclaims or remote.cleared_at is not None
        ]
        return PAUSE if any(busy) else TICK / TURNS

    def _reclaim(self, remote: Remote) -> Reclaim:
        if remote not in self._reclaims:
            self._reclaims[remote] = Reclaim(remote, self.spec.namespace, self.clock.now)
        return self._reclaims[remote]

    def _in_use(self) -> list[Remote]:
        return [*self._remotes.values(), *self._objects.values()]

    def _deliver(self, until: float = math.inf) -> None:
        for remote in self._in_use():
            if len(remote.outbox) and remote.faces.sync is not None and time.monotonic() < until:
                with suppress(Unavailable):
                    drive(remote.deliver(self._sync_port))

    def close(self, timeout: float = 5.0) -> None:
        """Deliver queued invalidations, let loads that run end, close connections. Idempotent; a later use begins anew.

        Nothing is waited for and no delivery begins later than after ``timeout`` seconds; each delivery has the budget
        of its backend. Refreshes that have not begun are dropped, and leases of what still runs are given back.
        """
        until = time.monotonic() + timeout
        self._deliver(until)
        ended = self.workers.wait(timeout)
        mine = self._loads_of_others()
        while mine := [flight for flight in mine if self.flights.running.get(flight.key) is flight]:
            if time.monotonic() >= until:
                break
            time.sleep(LOOK)
        self._report(ended and not mine, timeout)
        self._deliver(until)  # what they changed
        for remote in self._in_use():
            if remote.leases.any and remote.faces.sync is not None:
                drive(remote.release_all(self._sync_port))
        self._closing(TICK)
        for reclaim in tuple(self._reclaims.values()):
            reclaim.stop()
        for remote in self._in_use():
            try:
                remote.close()
            except Exception:
                logger.exception("backend %r could not be closed", remote.spec.name)

    async def aclose(self, timeout: float = 5.0) -> None:
        """As `close`, for the tasks and the connections of the running event loop too."""
        until = time.monotonic() + timeout
        port = self._async_port or AsyncPort(self.clock.now, self.clock.wall)  # without a tick that would begin now
        await self._adeliver(until, port)
        ended = await port.wait_for_tasks(until - time.monotonic())
        if self.workers.waiting or self.workers.running:
            ended = await port.asyncio.to_thread(self.workers.wait, until - time.monotonic()) and ended
        mine = self._loads_of_others()
        while mine := [flight for flight in mine if self.flights.running.get(flight.key) is flight]:
            if time.monotonic() >= until:
                break
            await port.asyncio.sleep(LOOK)
        self._report(ended and not mine, timeout)
        await self._adeliver(until, port)
        for remote in self._in_use():
            if remote.leases.any:
                await remote.release_all(port)
        self._closing(0.0)  # an event loop does not wait for threads
        for reclaim in tuple(self._reclaims.values()):
            reclaim.drop()
        for remote in self._in_use():
            try:
                await remote.aclose()
            except Exception:
                logger.exception("backend %r could not be closed", remote.spec.name)

    async def _adeliver(self, until: float, port: AsyncPort) -> None:
        for remote in self._in_use():
            if len(remote.outbox) and time.monotonic() < until:
                with suppress(Unavailable):
                    await remote.deliver(port)

    def _loads_of_others(self) -> list[Flight]:
        """The loads that run now and can end while this thread waits."""
        loop, inside = running_loop(), around(LOADING.get())
        return [
            flight
            for flight in list(self.flights.running.values())
            if (flight.loop is None or (flight.loop is not loop and runs(flight.loop)))
            and not (inside is not None and inside.holds(flight))
        ]

    @staticmethod
    def _report(ended: bool, timeout: float) -> None:
        if not ended:
            logger.warning("a refresh or a load still runs after %g s; it is left alone", timeout)

    def _closing(self, wait: float) -> None:
        with self._lock:
            tick, self._tick = self._tick, None
            self._stop.set()
        for loader in tuple(self._in_core):
            loader.rest()
        for remote in self._in_use():
            if len(remote.outbox):
                logger.warning("%d invalidations could not be delivered to %r", len(remote.outbox), remote.spec.name)
        for function in tuple(self._on_close):
            function()
        for remote in self._in_use():
            remote.stop_listening(wait)
        if tick is not None and tick is not threading.current_thread() and wait:
            tick.join(TICK)

    def after_fork(self) -> None:
        """In a forked child: other threads, their locks, flights and sockets do not exist here."""
        self._lock = threading.RLock()
        ticked, self._tick = self._tick is not None, None
        self._async_port = None
        self.versions.reset_lock()
        self.flights.after_fork()
        if core is not None:
            core.after_fork()
        self.nesting.after_fork(switched_off())
        self.workers.after_fork()
        for memory in (self._pauses, self._unstored, self._validators):
            memory.clear()
        for _, table in self.tables():
            table.reset()
        for tally in self.tallies():
            tally.restart()
        self._reclaims.clear()
        if self._keyring is not None:
            self._keyring.after_fork()
        for remote in [*self._remotes.values(), *self._objects.values()]:
            remote.after_fork()
        for function in tuple(self._on_fork):
            function()
        if ticked:
            self.keep_ticking()


def _code(fn: Any) -> object:
    code = getattr(fn, "__code__", None)
    return code and (code.co_code, code.co_names, code.co_consts, code.co_varnames)


def _let_go(*remotes: Mapping[Any, Remote]) -> None:
    """Nobody holds the service any more."""
    for some in remotes:
        for remote in some.values():
            remote.stop_listening(0.0)
            with suppress(Exception):  # of a third-party backend
                remote.close()


def _ticking(reference: "weakref.ref[Service]", stop: threading.Event) -> None:
    """The maintenance thread. It holds no service alive."""
    pause, waited = TICK / TURNS, 0.0
    while not stop.wait(pause):
        service = reference()
        if service is None:
            return
        waited, pause = waited + pause, TICK / TURNS
        try:
            pause = service.tend()
            if waited >= TICK:
                waited = 0.0
                service.tick()
        except Exception:
            logger.exception("a maintenance run failed")
        del service


_alive: "weakref.WeakSet[Service]" = weakref.WeakSet()


def _after_fork() -> None:
    for service in list(_alive):
        service.after_fork()


def _at_exit(*_: object, **__: object) -> None:
    for service in list(_alive):
        try:
            service.close()
        except Exception:
            logger.exception("closing failed")


def _end_with_celery() -> None:
    """Close at the signal of Celery, if it is loaded: the processes of its prefork pool end without exit handlers."""
    shutdown = getattr(sys.modules.get("celery.signals"), "worker_process_shutdown", None)
    if shutdown is not None:
        shutdown.connect(_at_exit, weak=False, dispatch_uid="cachekit")  # again, it changes nothing


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
