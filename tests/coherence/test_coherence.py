"""Several processes, clients of both kinds, and everything that can go wrong: what is promised of invalidations holds.

A run that fails shows its log around the violation and how to run its plan again:

    COHERENCE_SEED=7 .venv/bin/pytest tests/coherence -k quick             the plan of a seed
    COHERENCE_PLAN=plan.json .venv/bin/pytest tests/coherence -k quick     a plan as it was printed

The schedule is another one each time, so a plan may have to be run several times.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from checker import Invalidation, Log, Raised, Read, Trouble, Violation, check
from coherence_plan import FAILOVERS, PROCESS_FAULTS, SERVER_FAULTS, Mix, Plan, plan_of
from coherence_rig import BOUNDS, Rig, Run, counts

from cachekit.config.settings import load
from cachekit.errors import ConfigError

QUICK = 8.0  # seconds that the clients of one plan work
TWO_MINUTES = 120.0
HALF_AN_HOUR = 1800.0
SHOWN = 60  # lines of a log
AROUND = 0.3  # seconds before and after what is shown


def chosen(default: int, seconds: float) -> Plan:
    """The plan that the environment asks for."""
    if path := os.environ.get("COHERENCE_PLAN"):
        return Plan.from_text(Path(path).read_text())
    return plan_of(int(os.environ.get("COHERENCE_SEED", default)), seconds)


def judged(plan: Plan, directory: Path, *, broken: str = "") -> tuple[Run, list[Violation]]:
    """Run a plan and judge it. What stops the run carries the plan."""
    try:
        run = Rig(plan, directory, broken=broken).run()
    except BaseException as error:
        error.add_note(again(plan, directory))
        raise
    return run, check(run.log, BOUNDS)


def kept(plan: Plan, directory: Path) -> Run:
    """Run a plan; the test fails if a promise was broken."""
    run, violations = judged(plan, directory)
    if violations:
        pytest.fail(report(plan, directory, run, violations), pytrace=False)
    return run


def again(plan: Plan, directory: Path) -> str:
    """How to run a plan once more."""
    path = directory / "plan.json"
    path.write_text(plan.text())
    lines = [
        f"plan: {plan.text()}",
        f"again: COHERENCE_PLAN={path} .venv/bin/pytest tests/coherence -k quick",
    ]
    if plan == plan_of(plan.seed, QUICK):
        lines.append(f"   or: COHERENCE_SEED={plan.seed} .venv/bin/pytest tests/coherence -k quick")
    return "\n".join(lines)


def report(plan: Plan, directory: Path, run: Run, violations: list[Violation]) -> str:
    """The first violation and what happened around it."""
    first = violations[0]
    lines = [f"{len(violations)} violations; the first, of {first.entry or 'a call'}: {first.why}"]
    lines += [f"  {each}" for each in first.evidence]
    lines += ["around it (seconds of the monotonic clock):", *story(run, first)]
    return "\n".join([*lines, again(plan, directory)])


def story(run: Run, violation: Violation) -> list[str]:
    """Everything about the entry of a violation, and the faults, in the order of time."""
    begin = min(getattr(each, "begin", violation.at) for each in violation.evidence) - AROUND
    places = {each.who.place for each in violation.evidence if isinstance(each, Read | Invalidation | Raised)}
    notes = [(note.at, f"  ** {note.what}") for note in run.notes]
    told = [
        (at, line)
        for at, line in [*lines_of(run.log, violation.entry), *troubles_of(run.log, places), *notes]
        if begin <= at <= violation.at + AROUND
    ]
    lines = [f"{at:12.4f} {line}" for at, line in sorted(told)]
    if len(lines) > SHOWN:
        lines = [*lines[: SHOWN // 2], f"   ... {len(lines) - SHOWN} lines ...", *lines[-SHOWN // 2 :]]
    return lines


def lines_of(log: Log, entry: str) -> Iterator[tuple[float, str]]:
    for read in log.reads:
        if read.entry == entry:
            took = f"{(read.end - read.begin) * 1000:.1f} ms"
            yield read.begin, f"process {read.who.place} ({read.who.life}) {read.how} -> version {read.version}, {took}"
    for each in log.invalidations:
        if entry in each.versions:
            who = f"process {each.who.place} ({each.who.life}) invalidates"
            yield each.begin, f"{who} version {each.versions[entry]} by {each.how}: begins"
            yield each.end, f"{who} version {each.versions[entry]} by {each.how}: {each.outcome}"


def troubles_of(log: Log, places: set[int]) -> Iterator[tuple[float, str]]:
    """What these processes met when they asked L2; what goes on is told once."""
    before: dict[int, Trouble] = {}
    for trouble in sorted(log.troubles, key=lambda trouble: trouble.begin):
        last = before.get(trouble.place)
        if trouble.place in places and (last is None or last.why != trouble.why or trouble.begin - last.end > AROUND):
            yield trouble.begin, f"  ** process {trouble.place} in trouble: {trouble.why}"
        before[trouble.place] = trouble


def assert_meaningful(run: Run) -> None:
    """A run in which little happened proves little."""
    done = counts(run.log)
    assert done["reads"] >= 100, done
    assert done["invalidations"] >= 5, done
    assert done["reached"] >= 10, done
    assert done["processes"] >= 3, done


@pytest.mark.slow
def test_the_promise_holds_in_a_quick_run(tmp_path: Path) -> None:
    run = kept(chosen(1, QUICK), tmp_path)
    assert_meaningful(run)


@pytest.mark.slow
def test_the_promise_holds_for_two_minutes(tmp_path: Path) -> None:
    several(tmp_path, first=100, seconds=TWO_MINUTES)


@pytest.mark.nightly
def test_the_promise_holds_for_half_an_hour(tmp_path: Path) -> None:
    """With other plans each time."""
    several(tmp_path, first=int(time.time()), seconds=HALF_AN_HOUR)


def several(directory: Path, first: int, seconds: float) -> None:
    """One plan after the other, until the time is over."""
    until, seed = time.monotonic() + seconds, first
    while time.monotonic() < until:
        kept(plan_of(seed, QUICK), directory / str(seed))
        seed += 1


def config_takes(url: str) -> bool:
    try:
        load([], settings={"namespace": "n", "backends": {"default": {"url": url}}})
    except ConfigError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(not config_takes("redis+sentinel://127.0.0.1:1/mymaster/0"), reason="no Sentinel in this version")
def test_the_promise_holds_through_failovers(tmp_path: Path) -> None:
    until, seed, failovers = time.monotonic() + TWO_MINUTES, 500, 0
    while time.monotonic() < until:
        plan = plan_of(seed, 2 * QUICK, FAILOVERS, ("kill", "pause"))
        run = kept(plan, tmp_path / str(seed))
        failovers += len(run.log.failovers)
        seed += 1
    assert failovers >= 3


def busy(seed: int) -> Plan:
    """Few keys, many invalidations, loads that take a moment after they read their source."""
    shared = ("load", "aload", "late", "item", "direct")  # what is of one process alone would be found too easily
    mix = Mix(key=20, tag=3, function=2, region=2)
    plan = plan_of(seed, 3.0)
    return replace(plan, keys=2, whats=shared, gaps=(0.003, 0.02), threads=2, tasks=3, think=0.005, mix=mix)


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["put", "all", "fence", "age"])
def test_a_rule_that_is_switched_off_is_noticed_within_two_minutes(broken: str, tmp_path: Path) -> None:
    until, seed = time.monotonic() + TWO_MINUTES, 900
    while time.monotonic() < until or seed < 930:  # on a busy machine a plan takes half a minute
        plan = replace(plan_of(seed, QUICK), coherence="ttl") if broken == "age" else busy(seed)
        _, violations = judged(plan, tmp_path / str(seed), broken=broken)
        if violations:
            return
        seed += 1
    pytest.fail(f"{seed - 900} plans, and nobody noticed")


def test_a_seed_stands_for_one_plan() -> None:
    assert plan_of(3, QUICK) == plan_of(3, QUICK)
    assert plan_of(3, QUICK) != plan_of(4, QUICK)
    assert Plan.from_text(plan_of(3, QUICK).text()) == plan_of(3, QUICK)


def test_plans_have_every_kind_of_fault() -> None:
    plans = [plan_of(seed, QUICK) for seed in range(20)]
    struck = {fault.kind for plan in plans for faults in plan.processes for fault in faults}
    assert struck == set(PROCESS_FAULTS)
    assert {fault.kind for plan in plans for fault in plan.server} == set(SERVER_FAULTS)
