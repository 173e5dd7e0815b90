"""The metrics of a service as ordinary prometheus_client metrics, fed by `Metrics.pump`.

Nothing here runs while a cached function is called. The engine counts in plain integers (`Tally`, `Table.stats`);
`pump` adds what they grew by since the last pump. It runs at every scrape, so a process's own figures are exact; in
prometheus_client's multi-process mode at the service's tick once a second, so that the files of other workers lag by
no more; and when the service closes. After a fork the child starts from what it inherited, which the parent reports.
"""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, values
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from cachekit.metrics.instruments import Instruments

if TYPE_CHECKING:
    from collections import deque

    from cachekit.engine.events import Tally
    from cachekit.l1.table import Stats, Table
    from cachekit.service import BackendHealth, Service

BREAKER = {"closed": 0, "half_open": 1, "open": 2}
COHERENCE = {"ttl": 0, "connecting": 1, "tracking": 2}


class Reading(NamedTuple):
    """A plain number of the engine that only grows, and the counter that follows it."""

    source: object
    counter: Counter
    labels: tuple[str, ...]
    value: float


class State(NamedTuple):
    """How a backend does, in numbers."""

    down: int
    breaker: int
    budget: float
    coherence: int
    pending: int

    def and_of(self, other: "State") -> "State":
        """Of two backends of one name: the worse, and what waits for either."""
        worse = max(self, other)
        return worse._replace(coherence=min(self.coherence, other.coherence), pending=self.pending + other.pending)


class Metrics:
    """The metrics of one service, or of all services of the process that share one exposition."""

    def __init__(self) -> None:
        self.instruments = Instruments()
        # What has been reported of each service: (source, counter, labels) -> value.
        self._reported: WeakKeyDictionary[Service, dict[tuple[object, ...], float]] = WeakKeyDictionary()
        self._full: set[str] = set()  # regions whose gauges may not be zero

    def add(self, service: "Service") -> None:
        """Include a service; a second time does nothing."""
        with _lock:
            if service in self._reported:
                return
            self._reported[service] = {}
        service.on_tick(self.tick)
        service.on_close(self.pump)
        service.on_fork(self.forget_inherited)

    def remove(self, service: "Service") -> None:
        """Report a service no longer."""
        with _lock:
            self._reported.pop(service, None)

    def tick(self) -> None:
        """What has to happen every second: latencies before they are forgotten, and others read this process's file."""
        if _multiprocess():
            self.pump()
            return
        for service in list(self._reported):
            self._observe(service)

    def pump(self) -> None:
        """Add what the engine counted since the last pump and show the present state."""
        # Whatever may take a lock of a service is read before ours is taken, so ours is always the last one.
        for service in list(self._reported):
            readings = self._readings(service, _table_stats(service))
            with _lock:
                self._report(self._reported.get(service, {}), readings)
            self._observe(service)
        tables, backends = self._tables(), self._backends()
        with _lock:
            for region, (entries, weight) in tables.items():
                self.instruments.entries.labels(region).set(entries)
                self.instruments.bytes.labels(region).set(weight)
            for name, state in backends.items():
                self.instruments.up.labels(name).set(1 - state.down)
                self.instruments.breaker.labels(name).set(state.breaker)
                self.instruments.budget.labels(name).set(state.budget)
                self.instruments.coherence.labels(name).set(state.coherence)
                self.instruments.pending.labels(name).set(state.pending)

    def _readings(self, service: "Service", tables: "list[tuple[str, Table, Stats]]") -> list[Reading]:
        readings = [reading for tally in service.tallies() for reading in _tally_readings(tally, self.instruments)]
        return [*readings, *_eviction_readings(tables, self.instruments), *_loss_readings(service, self.instruments)]

    def _report(self, reported: dict[tuple[object, ...], float], readings: list[Reading]) -> None:
        for source, counter, labels, value in readings:
            known = reported.get((source, counter, labels))
            # Below: a concurrent pump has reported a later reading, or a wait that looked served became impatient.
            if known is None or value > known:
                reported[source, counter, labels] = value
                counter.labels(*labels).inc(value - (known or 0))

    def _observe(self, service: "Service") -> None:
        to = self.instruments
        for tally in service.tallies():
            for histogram, waiting in (
                (to.hit_latency, tally.hit_seconds),
                (to.miss_latency, tally.miss_seconds),
                (to.load_latency, tally.load_seconds),
                (to.stale_age, tally.stale_ages),
            ):
                seconds = _take(waiting)
                with _lock:
                    for second in seconds:
                        histogram.labels(tally.region, tally.function).observe(second)

    def _tables(self) -> dict[str, tuple[int, int]]:
        """Entries and bytes, summed over the tables of a region: one of its own, and private ones of functions."""
        totals = dict.fromkeys(self._full, (0, 0))  # prometheus_client cannot remove a series in every mode
        for service in list(self._reported):
            for region, _, stats in _table_stats(service):
                entries, weight = totals.get(region, (0, 0))
                totals[region] = (entries + stats.entries, weight + stats.weight)
        self._full = set(totals)
        return totals

    def _backends(self) -> dict[str, State]:
        """Every backend that was used."""
        states: dict[str, State] = {}
        for service in list(self._reported):
            for name, health in _used_backends(service):
                now = _state(health)
                states[name] = states[name].and_of(now) if name in states else now
        return states

    def forget_inherited(self) -> None:
        """In a forked child, where all counts are 0 again: what was counted before is the parent's to report."""
        for service, reported in self._reported.items():
            reported.clear()
            for source, counter, labels, value in _loss_readings(service, self.instruments):
                reported[source, counter, labels] = value  # these go on from what the parent had
            if _multiprocess():
                service.keep_ticking()  # the thread did not survive the fork, and others read this process's file

    # The face of a prometheus_client collector, for `register`.

    def describe(self) -> Iterator[Metric]:
        """The families, without samples; prometheus_client asks for them when the collector is registered."""
        for metric in self.instruments.registry.collect():
            metric.samples = []
            yield metric

    def collect(self) -> Iterator[Metric]:
        """The families as they are now."""
        self.pump()
        with _lock:
            families = list(self.instruments.registry.collect())
        yield from families


def _table_stats(service: "Service") -> "list[tuple[str, Table, Stats]]":
    return [(region, table, table.stats()) for region, table in service.tables()]  # once per pump: it adds up entries


def _eviction_readings(tables: "list[tuple[str, Table, Stats]]", to: Instruments) -> Iterator[Reading]:
    for region, table, stats in tables:
        for reason, count in stats.evictions.items():
            yield Reading(table, to.evictions, (region, reason), count)


def _used_backends(service: "Service") -> "Iterator[tuple[str, BackendHealth]]":
    for name, health in service.health().backends.items():
        if health.state != "unused":
            yield name, health


def _state(health: "BackendHealth") -> State:
    return State(
        down=int(health.state == "down"),
        breaker=BREAKER.get(health.breaker, 0),
        budget=health.budget_ms / 1000,
        coherence=COHERENCE.get(health.coherence, 0),
        pending=health.pending,
    )


def _loss_readings(service: "Service", to: Instruments) -> Iterator[Reading]:
    for name, health in _used_backends(service):
        yield Reading(name, to.losses, (name,), health.losses)


def _tally_readings(tally: "Tally", to: Instruments) -> Iterator[Reading]:
    where = (tally.region, tally.function)
    yield Reading(tally, to.hits, (tally.region, "l1", tally.function), tally.l1_hits())
    yield Reading(tally, to.hits, (tally.region, "l2", tally.function), tally.l2_hits)
    yield Reading(tally, to.misses, where, tally.misses)
    yield Reading(tally, to.waited, where, tally.waited)
    yield Reading(tally, to.loads, (*where, "ok"), tally.loads)
    yield Reading(tally, to.loads, (*where, "error"), tally.load_errors)
    yield Reading(tally, to.stores, where, tally.stores)
    impatient = tally.impatient  # first: each was counted as a wait before, so that there are never more of them
    yield Reading(tally, to.lease_waits, (*where, "served"), tally.lease_waits - impatient)
    yield Reading(tally, to.lease_waits, (*where, "impatient"), impatient)
    yield Reading(tally, to.stale, where, tally.stale)
    yield Reading(tally, to.fallbacks, where, tally.fallbacks)
    yield Reading(tally, to.saved, where, tally.saved)
    for (operation, reason), count in list(tally.errors.items()):
        yield Reading(tally, to.errors, (*where, operation, reason), count)
    for (trigger, result), count in list(tally.refreshes.items()):
        yield Reading(tally, to.refreshes, (*where, trigger, result), count)
    for kind, count in list(tally.timeouts.items()):
        yield Reading(tally, to.timeouts, (*where, kind), count)
    for answer, count in list(tally.answers.items()):
        yield Reading(tally, to.responses, (*where, answer), count)


def _take(waiting: "deque[float]") -> list[float]:
    taken: list[float] = []
    try:
        for _ in range(len(waiting)):  # not "while": the engine goes on appending
            taken.append(waiting.popleft())
    except IndexError:  # another pump took the rest
        pass
    return taken


# Which metrics belong to which service. Ordinarily each service has its own. In multi-process mode all services of a
# process share one set, since their values lie in one file under names that do not tell them apart; and so do services
# that joined an application's registry, which refuses the same names twice.

_lock = threading.Lock()
_of: "WeakKeyDictionary[Service, Metrics]" = WeakKeyDictionary()
_shared: Metrics | None = None
_joined: "WeakSet[CollectorRegistry]" = WeakSet()


def attach(service: "Service") -> Metrics:
    """Begin to report a service: the same `Metrics` for every call."""
    with _lock:
        metrics = _of.get(service)
        if metrics is None:
            metrics = _of[service] = _shared_metrics() if _multiprocess() else Metrics()
    metrics.add(service)
    service.keep_ticking()  # it may have been closed since
    return metrics


def exposition(service: "Service", accept_header: str | None = None) -> tuple[str, bytes]:
    """Content type and body of a scrape, in OpenMetrics or the text format, whichever ``accept_header`` asks for.

    In prometheus_client's multi-process mode (``PROMETHEUS_MULTIPROC_DIR``) the figures of all processes.
    """
    metrics = attach(service)
    encode, content_type = choose_encoder(accept_header or "")
    if not _multiprocess():
        return content_type, encode(metrics)
    metrics.pump()
    return content_type, encode(_AllProcesses())


def register(service: "Service | None" = None, registry: CollectorRegistry = prometheus_client.REGISTRY) -> None:
    """Make the metrics part of a registry that the application exposes itself; a second time does nothing.

    Args:
        service: Whose metrics; without it, the process's own service.
        registry: Where they join; without it, the one that prometheus_client uses by itself.
    """
    if service is None:
        from cachekit.process import default_service  # not needed by those who bring their own

        service = default_service()
    with _lock:
        shared = _shared_metrics()
        before = _of.get(service)
        _of[service] = shared
        new = registry not in _joined
        _joined.add(registry)
    if before is not None and before is not shared:
        before.remove(service)
    shared.add(service)
    if new:
        registry.register(shared)


class _AllProcesses:
    """Our families from the files of all processes; the application's own are its own business."""

    def collect(self) -> Iterator[Metric]:
        files = [str(file) for file in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("*.db") if not _is_left(file)]
        for metric in MultiProcessCollector.merge(files):  # type: ignore[no-untyped-call]
            if metric.name.startswith("cachekit_"):
                yield metric


def _is_left(file: Path) -> bool:
    """Whether a file shows the present state of a process that is gone: a dead worker's "backend down" would stay.

    prometheus_client asks the server to tell it of dead workers (`mark_process_dead`). Not every server can.
    """
    kind, _, pid = file.stem.rpartition("_")
    if os.name != "posix" or not kind.startswith("gauge_live") or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # of another user
        return False
    return False


def _multiprocess() -> bool:
    """Whether prometheus_client keeps values in files; it decides that once, when it is imported."""
    return bool(getattr(values.ValueClass, "_multiprocess", False))


def _shared_metrics() -> Metrics:
    global _shared
    if _shared is None:
        _shared = Metrics()
    return _shared


# Held across a fork, and around every use of prometheus_client's own locks, so that the child inherits neither
# half-done sums nor a lock that nobody will release.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
