"""Runs a plan: a server, a proxy before it for each process, processes with clients, and what befalls them."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import coherence_app
from checker import EVERYBODY, Bounds, Failover, Invalidation, Log, Raised, Reached, Read, Trouble, Who
from coherence_plan import PARTITIONS, PLACES, Fault, Plan

from cachekit.testing import FaultProxy, ProcessEnded, Processes, Running, start_sentinel, start_server
from cachekit.testing.servers import Server

BOUNDS = Bounds(max_staleness=1.0, disconnected_ttl=2.0)
BACKEND = {
    "max_staleness": "1s",
    "disconnected_ttl": "2s",
    "budget": "150ms",
    "breaker": {"failures": 3, "open_for": "200ms", "open_max": "400ms"},
}
PATIENCE = 60.0  # seconds that clients get to end after the end
SETTLE_SECONDS = 20.0
REACH_EVERY = 0.2

now = time.monotonic


class Note(NamedTuple):
    """What the driver did, for the reader of a log."""

    at: float
    what: str


class Run(NamedTuple):
    """What a plan brought."""

    log: Log
    notes: list[Note]
    seconds: float


class OneServer:
    """A server that may vanish, and a proxy before it for each process."""

    def __init__(self, stack: ExitStack, rig: "Rig") -> None:
        self.rig = rig
        self.server: Server = stack.enter_context(start_server("valkey"))
        self.proxies = [stack.enter_context(FaultProxy("127.0.0.1", self.server.port)) for _ in range(PLACES)]

    def url(self, place: int) -> str:
        return self.proxies[place].url

    def part(self, place: int, fault: Fault) -> None:
        """Cut a process off."""
        with self.rig.trouble(place, fault.kind):
            getattr(self.proxies[place], fault.kind)()
            self.rig.wait(fault.lasts)
            self.proxies[place].pass_()

    def fail(self, fault: Fault) -> None:
        if fault.kind == "flush":
            self.server.command("FLUSHALL")
            self.rig.note("FLUSHALL")
            return
        with self.rig.trouble(EVERYBODY, fault.kind):
            begin, end = (
                (self.server.kill, self.server.start)
                if fault.kind == "restart"
                else (self.server.pause, self.server.resume)
            )
            begin()
            self.rig.wait(fault.lasts)
            end()

    def heal(self) -> None:
        for proxy in self.proxies:
            proxy.pass_()


class WithSentinel:
    """A primary with replicas, of which one takes over."""

    def __init__(self, stack: ExitStack, rig: "Rig") -> None:
        self.rig = rig
        self.setup = stack.enter_context(start_sentinel(replicas=1))

    def url(self, place: int) -> str:
        return self.setup.url

    def part(self, place: int, fault: Fault) -> None:
        raise NotImplementedError("Sentinels tell addresses that no proxy stands before")

    def fail(self, fault: Fault) -> None:
        """The primary dies; that its last writes are lost is up to chance."""
        with self.rig.trouble(EVERYBODY, fault.kind):
            begin, old = now(), self.setup.primary
            old.kill()
            self.setup.promoted(old)
            self.setup.settle()  # starts the old one, which for a moment takes itself for the primary
            self.rig.failovers.append(Failover(begin, now()))

    def heal(self) -> None:
        self.setup.settle()


class Rig:
    """One run of one plan. ``broken`` names a rule to switch off, see `coherence_app.break_rule`."""

    def __init__(self, plan: Plan, directory: Path, *, broken: str = "") -> None:
        self.plan = plan
        self.directory = directory
        self.broken = broken
        self.notes: list[Note] = []
        self.troubles: list[Trouble] = []
        self.failovers: list[Failover] = []
        self._topology = WithSentinel if plan.sentinel else OneServer
        self._ending = threading.Event()
        self._failures: list[BaseException] = []
        self._working: list[tuple[int, Running]] = []
        self._seeds = iter(range(plan.seed * 1000, plan.seed * 1000 + 1000))

    def run(self) -> Run:
        began = now()
        self.directory.mkdir(parents=True, exist_ok=True)
        coherence_app.Source.create(self.directory / "source")
        with ExitStack() as stack:
            self.topology = self._topology(stack, self)
            self.processes = stack.enter_context(Processes(PLACES, coherence_app.setup, env=self._environment))
            self.until = now() + self.plan.seconds
            for place in range(PLACES):
                self._set_to_work(place)
            self._befall()
            self._collect()
            self._settle()
        return Run(self._log(), sorted(self.notes), now() - began)

    def _environment(self, place: int) -> dict[str, str]:
        backend = {**BACKEND, "coherence": self.plan.coherence, "url": self.topology.url(place)}
        if self.broken == "age":
            backend["max_staleness"] = "30s"
        told = {
            "seed": self.plan.seed, "keys": self.plan.keys, "gaps": self.plan.gaps, "whats": self.plan.whats,
            "directory": str(self.directory), "place": place, "broken": self.broken,
            "namespace": "coherence", "backend": backend,
        }  # fmt: skip
        # Parts of the native twin cannot be switched off.
        twin = {"CACHEKIT_PURE": "1"} if self.broken in ("put", "all") else {}
        return {coherence_app.SETTINGS: json.dumps(told), "PYTHONWARNINGS": "error", **twin}

    def _set_to_work(self, place: int) -> None:
        process, plan = self.processes[place], self.plan
        clients = ["client"] * plan.threads + ["aclient"] * plan.tasks
        for name in clients:
            running = process.start(name, next(self._seeds), self.until, plan.think, vars(plan.mix))
            self._working.append((place, running))
        self._working.append((place, process.start("keep_reaching", self.until, REACH_EVERY)))

    # Faults: one thread per process and one for the server, each in its own order

    def _befall(self) -> None:
        lanes = [
            threading.Thread(target=self._lane, args=(faults, lambda fault, place=place: self._strike(place, fault)))
            for place, faults in enumerate(self.plan.processes)
        ]
        lanes.append(threading.Thread(target=self._lane, args=(self.plan.server, lambda f: self.topology.fail(f))))
        for lane in lanes:
            lane.start()
        time.sleep(max(0.0, self.until - now()))
        self._ending.set()
        for lane in lanes:
            lane.join()
        if self._failures:
            raise self._failures[0]

    def _lane(self, faults: tuple[Fault, ...], strike: Callable[[Fault], None]) -> None:
        try:
            for fault in faults:
                self.wait(fault.wait)
                if self._ending.is_set():
                    return
                strike(fault)
        except BaseException as error:
            self._failures.append(error)

    def _strike(self, place: int, fault: Fault) -> None:
        process = self.processes[place]
        if fault.kind in PARTITIONS:
            self.topology.part(place, fault)
        elif fault.kind == "pause":
            self.note(f"pause process {place}")
            process.pause()
            self.wait(fault.lasts)
            process.resume()
            self.note(f"resume process {place}")
        else:
            self.note(f"kill process {place}")
            process.kill()
            self.wait(fault.lasts / 4)
            process.restart()
            self.note(f"process {place} is back")
            self._set_to_work(place)

    def wait(self, seconds: float) -> None:
        """Until the run ends at most."""
        self._ending.wait(seconds)

    def note(self, what: str) -> None:
        self.notes.append(Note(now(), what))

    @contextmanager
    def trouble(self, place: int, why: str) -> Iterator[None]:
        """While this lasts somebody cannot reach L2."""
        begin = now()
        where = "all" if place == EVERYBODY else f"process {place}"
        self.note(f"{why} ({where}) begins")
        try:
            yield
        finally:
            self.note(f"{why} ({where}) ends")
            self.troubles.append(Trouble(place, begin, now(), why))

    # The end

    def _collect(self) -> None:
        """Wait for all clients; those of killed processes ended with them."""
        for place, running in self._working:
            try:
                running.result(PATIENCE)
            except ProcessEnded:
                if not any(note.what == f"kill process {place}" for note in self.notes):
                    raise

    def _settle(self) -> None:
        """Heal everything, deliver what is queued, let the longest bound pass, and read all there is everywhere."""
        self.topology.heal()
        deadline = now() + SETTLE_SECONDS
        for process in self.processes:
            while not process.call("reach"):
                assert now() < deadline, f"process {process.index} does not reach L2 again{process.output()}"
                time.sleep(0.05)
        time.sleep(BOUNDS.longest + 2 * BOUNDS.slack)
        for running in [process.start("sweep") for process in self.processes]:
            running.result(PATIENCE)

    def _log(self) -> Log:
        log = Log([], [], [], [], [*self.troubles], [*self.failovers])
        for path in sorted(self.directory.glob("journal-*")):
            _, place, life = path.name.split("-")
            read_journal(path, Who(int(place), int(life)), log)
        return log


def read_journal(path: Path, who: Who, log: Log) -> None:
    """Add what a process wrote to a log; a process that was killed may have left half a line."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        kind, *fields = json.loads(line)
        if kind == "read":
            log.reads.append(Read(who, *fields))
        elif kind == "invalidation":
            log.invalidations.append(Invalidation(who, *fields))
        elif kind == "reached":
            log.reached.append(Reached(who, *fields))
        elif kind == "raised":
            log.raised.append(Raised(who, *fields))
        else:
            at, why = fields
            log.troubles.append(Trouble(who.place, at, at, why))


def counts(log: Log) -> dict[str, Any]:
    """What a log holds, to see that a run did what it is for."""
    return {
        "reads": len(log.reads),
        "invalidations": len(log.invalidations),
        "queued": sum(each.outcome == "queued" for each in log.invalidations),
        "reached": len(log.reached),
        "troubles": len(log.troubles),
        "processes": len({each.who for each in log.reads}),
        "failovers": len(log.failovers),
    }
