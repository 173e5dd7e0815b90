"""What a run of the coherence test does: clients, hot keys, faults. Hypothesis draws it; a seed stands for one plan.

The seed fixes the plan, not the schedule: threads, processes and the network have their own will.
"""

import json
import warnings
from dataclasses import asdict, dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

PLACES = 3  # processes at a time

PARTITIONS = ("black_hole", "refuse", "hold_requests", "drop_replies")
PROCESS_FAULTS = (*PARTITIONS, "kill", "pause")
SERVER_FAULTS = ("restart", "flush", "pause_server")
FAILOVERS = ("failover",)
WHATS = ("load", "aload", "late", "outer", "item", "direct", "lone")


@dataclass(frozen=True)
class Fault:
    """After ``wait`` seconds something goes wrong, for ``lasts`` seconds."""

    wait: float
    kind: str
    lasts: float


@dataclass(frozen=True)
class Mix:
    """How often a client does what, as weights."""

    read: int = 100
    peek: int = 6
    key: int = 8
    tag: int = 2
    function: int = 1
    region: int = 1
    note: int = 3


@dataclass(frozen=True)
class Plan:
    """Everything about a run but the schedule."""

    seed: int
    seconds: float
    keys: int  # per kind of entry
    whats: tuple[str, ...]  # the kinds of entries
    threads: int  # clients of each process that block
    tasks: int  # ... and that await
    think: float  # the longest pause of a client between two calls
    gaps: tuple[float, ...]  # seconds that a load may take between reading its source and returning
    coherence: str  # of the backend: whether processes are told of changes, or let entries end by themselves
    mix: Mix
    processes: tuple[tuple[Fault, ...], ...]  # what happens to each, in its order
    server: tuple[Fault, ...]

    @property
    def sentinel(self) -> bool:
        """Whether it needs servers that take over from each other."""
        return any(fault.kind in FAILOVERS for fault in self.server)

    def text(self) -> str:
        """As JSON, which `from_text` reads."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_text(text: str) -> "Plan":
        told: dict[str, Any] = json.loads(text)
        told["mix"] = Mix(**told["mix"])
        told["server"] = tuple(Fault(**fault) for fault in told["server"])
        told["processes"] = tuple(tuple(Fault(**fault) for fault in faults) for faults in told["processes"])
        for name in ("whats", "gaps"):
            told[name] = tuple(told[name])
        return Plan(**told)


def tenths(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(lambda number: number / 10)


def faults(kinds: tuple[str, ...], most: int) -> st.SearchStrategy[tuple[Fault, ...]]:
    one = st.builds(Fault, wait=tenths(2, 20), kind=st.sampled_from(kinds), lasts=tenths(1, 20))
    return st.lists(one, min_size=1, max_size=most).map(tuple)


def plans(number: int, seconds: float, server_faults: tuple[str, ...], process_faults: tuple[str, ...]) -> Any:
    """Plans of this length."""
    most = max(1, round(seconds / 2))
    return st.builds(
        Plan,
        seed=st.just(number),
        seconds=st.just(seconds),
        keys=st.integers(1, 4),
        whats=st.just(WHATS),
        threads=st.integers(1, 3),
        tasks=st.integers(1, 4),
        think=st.sampled_from((0.002, 0.005, 0.01)),
        gaps=st.sampled_from(((0.0, 0.003), (0.0, 0.003, 0.02), (0.003, 0.02, 0.3), (0.0, 0.005, 1.3))),
        coherence=st.sampled_from(("auto", "auto", "ttl")),
        # With few invalidations others find old entries; with many, loads are overtaken.
        mix=st.builds(
            Mix,
            key=st.sampled_from((1, 3, 10, 20)),
            tag=st.integers(0, 3),
            function=st.integers(0, 2),
            region=st.integers(0, 2),
        ),
        processes=st.tuples(*[faults(process_faults, most)] * PLACES),
        server=faults(server_faults, max(1, most // 2)),
    )


def plan_of(
    number: int,
    seconds: float,
    server_faults: tuple[str, ...] = SERVER_FAULTS,
    process_faults: tuple[str, ...] = PROCESS_FAULTS,
) -> Plan:
    """The plan that this seed stands for."""
    drawn: list[Plan] = []

    # The first example is always the simplest one. Nothing is kept and nothing shrunk: the same plan again is another
    # schedule.
    @seed(number)
    @settings(
        phases=[Phase.generate], database=None, max_examples=2, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(plans(number, seconds, server_faults, process_faults))
    def draw(plan: Plan) -> None:
        drawn.append(plan)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a test calls another one
        draw()
    return drawn[-1]
