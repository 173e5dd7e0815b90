"""Values are refreshed before their end, by lot (XFetch), so that nobody waits; and jitter, which only lengthens."""

import asyncio
import itertools
import math
import random
import threading
from typing import Any

import pytest

from cachekit.config.spec import RegionSpec, built_in_regions
from cachekit.engine.events import Tally
from cachekit.engine.freshness import MAX_JITTER, beta, early, life
from cachekit.l1.versions import Versions

pytestmark = pytest.mark.slow

only = pytest.mark.parametrize
FILLS = 100_000
SHARE = math.exp(-1)  # of the entries that are refreshed while as much is left of their TTL as their load takes

# ---------------------------------------------------------------------------------------------------------- the law


@only(("load", "eagerness"), [(1.0, 1.0), (2.0, 1.0), (0.01, 1.0), (2.0, 3.0), (3.0, 0.5)])
def test_the_share_that_is_refreshed_by_a_time_follows_the_law(load: float, eagerness: float) -> None:
    draw, ttl = random.Random(7).random, 1000.0
    left = [ttl - early(ttl, load, eagerness, draw()) for _ in range(FILLS)]
    for times in (0.0, 0.1, 0.5, 1.0, 2.0, 3.0, 5.0):
        share = sum(each >= times * load * eagerness for each in left) / FILLS
        assert share == pytest.approx(math.exp(-times), abs=0.01)
    assert min(left) >= 0.0


def test_a_third_and_a_bit_are_refreshed_when_their_load_time_is_left() -> None:
    draw = random.Random(11).random
    share = sum(300.0 - early(300.0, 2.0, 1.0, draw()) >= 2.0 for _ in range(FILLS)) / FILLS
    assert share == pytest.approx(0.368, abs=0.01)


@only("load", [0.001, 1.0, 100.0, 1e9])
def test_nothing_is_refreshed_in_the_first_half_of_its_life(load: float) -> None:
    draw = random.Random(3).random
    assert min(early(300.0, load, 1.0, draw()) for _ in range(FILLS)) >= 150.0


@only("draw", [0.0, 1 - 2**-53])
def test_the_ends_of_the_lot_are_no_exception(draw: float) -> None:
    assert 150.0 <= early(300.0, 2.0, 1.0, draw) <= 300.0


@only(
    ("wanted", "ttl", "expected"),
    [("auto", 10.0, 1.0), ("auto", 9.999, 0.0), ("auto", None, 0.0), ("off", 300.0, 0.0), (2.5, 1.0, 2.5),
     (2.5, None, 0.0)],
)  # fmt: skip
def test_by_default_a_ttl_of_ten_seconds_is_refreshed_early(wanted: Any, ttl: float | None, expected: float) -> None:
    spec = RegionSpec()
    assert spec.freshness.early_refresh == "auto"
    assert beta(spec.but(freshness=type(spec.freshness)(early_refresh=wanted)), ttl) == expected


def test_profiles_of_low_cost_and_of_tests_refresh_nothing_early() -> None:
    regions = built_in_regions()
    off = {name for name, spec in regions.items() if not beta(spec, 300.0)}
    assert off == {"minimal", "secure", "test"}


# ------------------------------------------------------------------------------------------------- entries of L1


@only("tiers", ["l1"])
@only("fills", [2_500, pytest.param(FILLS, marks=pytest.mark.nightly)])
def test_the_share_holds_for_the_entries_of_a_table(world: Any, twin: str, fills: int) -> None:
    load = 1.0
    ttl = 100 * load * fills  # so that the first has not ended when the last one is computed
    process = world.process(ttl=ttl, stale_ttl=0.0, early_refresh="auto", l1={"max_entries": 2 * fills}, seed=5)
    world.source.takes = load

    async def fill() -> None:
        for key in range(fills):
            value = process.f(key)
            if world.face == "async":
                await value

    if world.face == "async":
        world.runner.run(fill())
    else:
        with pytest.raises(StopIteration):
            fill().send(None)
    assert len(process.runs) == fills
    assert type(process.service.versions) is not Versions or twin == "pure"
    views = [process.view(key) for key in range(fills)]
    left = [(view.keep_until - view.fresh_until) / 1e9 for view in views]
    for times in (0.5, 1.0, 2.0):
        share = sum(each >= times * load for each in left) / fills
        assert share == pytest.approx(math.exp(-times), abs=0.01 if fills == FILLS else 0.02)
    assert all(view.early for view in views)


@only("tiers", ["l1"])
@only("face", ["sync"])
def test_callers_see_the_share_that_the_law_says(world: Any, twin: str) -> None:
    """By what the table answers, at the moment at which the load time is left."""
    process = world.process(ttl=300.0, stale_ttl=0.0, early_refresh=1.0, l1={"max_entries": 30_000}, seed=6)
    fills, load = 10_000, 0.01
    world.source.takes = load
    table, due = None, 0
    for key in range(fills):
        process.f(key)
        view = process.view(key)
        table = process.table
        due += view.fresh_until <= process.clock.ns() + (300 - load) * 1e9
    assert due / fills == pytest.approx(SHARE, abs=0.02)
    assert table is not None
    assert min(process.view(key).fresh_until / 1e9 - process.runs[key][1] for key in range(fills)) >= 150.0


@only("tiers", ["l1"])
def test_nothing_that_is_slower_than_its_ttl_is_refreshed_in_the_first_half(world: Any, twin: str) -> None:
    process = world.process(ttl=20.0, stale_ttl=0.0, early_refresh="auto", seed=8)
    world.source.takes = 30.0
    for key in range(40):
        assert process.call(key) == "old"
        runs, ahead = len(process.runs), process.due(key) - process.clock.now()
        assert ahead >= 10.0
        process.clock.advance(ahead - 0.001)
        assert process.call(key) == "old"
        process.settle()
        assert len(process.runs) == runs, "not yet"
        process.clock.advance(0.002)
        assert process.call(key) == "old"
        process.settle()
        assert len(process.runs) == runs + 1, "now"


@only("tiers", ["l1"])
@only("takes", [0.0, 0.0009])
def test_what_loads_in_less_than_a_millisecond_is_not_refreshed_early(world: Any, twin: str, takes: float) -> None:
    process = world.process(ttl=300.0, stale_ttl=0.0, early_refresh="auto")
    world.source.takes = takes
    process.call()
    assert not process.view().early
    assert process.view().fresh_until == process.view().keep_until


@only("tiers", ["l1"])
def test_what_loads_in_a_millisecond_is_refreshed_early_by_default(world: Any, twin: str) -> None:
    process = world.process(ttl=300.0, stale_ttl=0.0, early_refresh="auto")
    world.source.takes = 0.0011
    process.call()
    assert process.view().early


def due(world: Any, process: Any, key: int = 1) -> None:
    """Go to where the entry is to be refreshed."""
    process.call(key)
    world.hear()
    process.call(key)
    assert process.view(key).early
    ahead = process.due(key) - process.clock.now() + 1e-6
    heartbeat = 1.0 if world.tiers == "tracking" else 0.0
    world.advance(max(0.0, ahead - heartbeat))


@only("tiers", ["l1", "tracking"])
def test_a_refresh_runs_behind_and_once_and_all_get_what_is_there(world: Any, twin: str) -> None:
    process = world.process(ttl=60.0, stale_ttl=0.0, early_refresh="auto", seed=1)
    world.source.takes = 5.0
    due(world, process)
    world.source.takes = 0.0
    world.source.recover()
    process.gate.clear()
    assert process.many(50) == ["old"] * 50, "nobody waits"
    assert process.many(50) == ["old"] * 50
    process.gate.set()
    process.settle()
    world.hear()
    assert process.call() == "new"
    assert len(process.runs) == 2
    assert process.tally.refreshes == {("early", "stored"): 1}
    assert process.tally.stale == 0, "what is given is fresh"


@only("tiers", ["l1", "tracking"])
def test_an_early_refresh_that_fails_is_felt_by_nobody_and_the_value_stays_until_its_end(world: Any) -> None:
    process = world.process(ttl=60.0, stale_ttl=0.0, early_refresh="auto", seed=1)
    world.source.takes = 5.0
    due(world, process)
    world.source.takes = 0.0
    error = world.source.fail()
    ends = process.view().keep_until / 1e9
    for _ in range(50):
        assert process.call() == "old"
        process.settle()
    assert len(process.runs) == 2, "one try"
    assert process.tally.refreshes == {("early", "failed"): 1}
    world.advance(ends - process.clock.now())
    with pytest.raises(type(error)):
        process.call()


@only("tiers", ["ttl"])
def test_where_l1_keeps_nothing_a_failing_source_is_left_alone_by_early_refreshes(world: Any) -> None:
    process = world.process(ttl=600.0, stale_ttl=0.0, early_refresh=1.0, seed=2, l1={"mode": "off"})
    world.source.takes = 100.0
    process.call()
    world.source.takes = 0.0
    world.source.fail()
    world.advance(400.0)
    for _ in range(190):
        assert process.call() == "old"
        process.settle()
        world.advance(1.0)
    first = process.runs[1][1]
    times = [round(at - first) for _, at in process.runs[1:]]
    assert all(later - before >= 30 for before, later in itertools.pairwise(times)), times
    assert 1 <= len(times) <= 3


# -------------------------------------------------------------------------------------- where L1 does not decide


@only("tiers", ["ttl"])
@only("l1", [{"mode": "off"}, {"ttl": 1.0}, {}], ids=["off", "capped", "not told of changes"])
def test_where_l1_does_not_keep_a_value_to_its_end_each_read_of_l2_draws(world: Any, l1: Any) -> None:
    process = world.process(ttl=300.0, stale_ttl=0.0, early_refresh="auto", seed=3, l1=l1)
    load = 10.0
    world.source.takes = load
    began = []
    for key in range(40):
        process.call(key)
        born = process.clock.now()
        process.clock.advance(150.0 - 1e-3)
        runs = len(process.runs)
        process.call(key)
        process.settle()
        assert len(process.runs) == runs, "not in the first half"
        process.clock.advance(130.0 - load)
        while len(process.runs) == runs:
            process.clock.advance(1.5)
            assert process.call(key) == "old"
            process.settle()
        assert process.tally.misses == process.tally.refreshes["early", "stored"] + key + 1, "nobody had to wait"
        began.append(born + 300.0 - process.runs[-1][1])
        process.wait(process.f.invalidate(key))
    assert min(began) > 0.0
    assert sum(left >= load for left in began) >= 20, "with many draws most begin while there is time"


@only("tiers", ["ttl"])
@only("l1", [{"mode": "off"}], ids=["off"])
def test_callers_do_not_wait_for_a_refresh_where_l1_keeps_nothing(world: Any, l1: Any) -> None:
    process = world.process(ttl=300.0, stale_ttl=0.0, early_refresh=1000.0, l1=l1, seed=3)
    world.source.takes = 1.0
    process.call()
    process.clock.advance(299.0)
    process.gate.clear()
    world.source.takes = 0.0
    assert process.many(20) == ["old"] * 20
    assert process.many(20) == ["old"] * 20
    process.gate.set()
    process.settle()
    assert len(process.runs) == 2


# ----------------------------------------------------------------------------------------------- under much load

RATE = 10_000


class Traffic:
    """Requests of one key at `RATE` of the frozen clock."""

    def __init__(self, process: Any, load: float) -> None:
        self.process, self.load = process, load
        self.requests = 0
        self.waits: list[float] = []  # of refreshes that ended too late, how long the first to notice waited
        self.alone = 0  # loads that nobody had begun before the end

    def begun(self) -> bool:
        workers = self.process.service.workers
        return bool(workers.waiting or workers.running)

    def good(self) -> bool:
        view = self.process.view()
        return view is not None and bool(view.fresh)

    def at_once(self, seconds: int) -> None:
        """There is no request while a refresh runs."""
        process, clock, step = self.process, self.process.clock, 1 / RATE
        for _ in range(seconds * RATE):
            process.f(1)
            clock.advance(step)
            if self.begun():
                process.settle()
        self.requests += seconds * RATE

    def meanwhile(self, seconds: int) -> None:
        """Requests go on while a refresh runs. Who would have to wait for it is not called: it waits."""
        process, clock, step = self.process, self.process.clock, 1 / RATE
        process.during, ends = self.in_place, 0
        process.gate.clear()
        for _ in range(seconds * RATE):
            if ends and clock.ns() >= ends:
                process.gate.set()
                process.settle()
                process.gate.clear()
                ends = 0
            if ends and not self.good():
                self.waits.append((ends - clock.ns()) / 1e9)
                clock.advance((ends - clock.ns()) / 1e9)
                continue
            runs = len(process.runs)
            process.f(1)
            if not ends and self.begun():
                process.world.until(lambda: len(process.runs) > runs)  # noqa: B023  # at once
                ends = clock.ns() + round(self.load * 1e9)
            elif len(process.runs) > runs:
                process.gate.clear()
            clock.advance(step)
        process.gate.set()
        process.settle()
        self.requests += seconds * RATE

    def in_place(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.alone += 1
            self.process.clock.advance(self.load)
            self.process.gate.set()


@only("tiers", ["l1"])
@only("face", ["sync"])
def test_at_ten_thousand_requests_a_second_every_one_is_a_hit_and_one_load_runs_per_expiry(
    world: Any, twin: str
) -> None:
    ttl, load, seconds = 2.0, 0.05, 50
    process = world.process(ttl=ttl, stale_ttl=0.0, early_refresh=1.0, seed=9)
    world.source.takes = load
    process.call()
    before = process.tally.l1_hits()
    traffic = Traffic(process, load)
    traffic.at_once(seconds)
    assert process.tally.l1_hits() - before == traffic.requests, "no request came past the end"
    fills = [at for _, at in process.runs]
    gaps = [later - before for before, later in itertools.pairwise(fills)]
    assert len(gaps) >= seconds / (ttl + load) - 1
    assert min(gaps) >= ttl / 2, "one load per expiry"
    assert max(gaps) <= ttl + load
    assert process.tally.refreshes == {("early", "stored"): len(gaps)}


@only("tiers", ["l1"])
@only("face", ["sync"])
def test_at_ten_thousand_requests_a_second_no_refresh_begins_too_late(world: Any, twin: str) -> None:
    """The first end comes before anything is known of the traffic."""
    ttl, load, seconds = 1.0, 0.05, 40
    process = world.process(ttl=ttl, stale_ttl=0.0, early_refresh=1.0, seed=9)
    world.source.takes = load
    process.call()
    world.source.takes = 0.0
    Traffic(process, load).meanwhile(3)
    runs, traffic = len(process.runs), Traffic(process, load)
    traffic.meanwhile(seconds)
    assert (traffic.waits, traffic.alone) == ([], 0), "no request came past the end"
    fills = [at for _, at in process.runs[runs:]]
    gaps = [later - before for before, later in itertools.pairwise(fills)]
    assert len(gaps) > seconds
    assert min(gaps) >= ttl / 2, "one load per expiry"


@only("tiers", ["l1"])
@only("face", ["sync"])
@only("eagerness", [1.0, 4.0])
def test_if_a_refresh_begins_too_late_callers_wait_for_what_is_left_of_it_and_none_computes(
    world: Any, eagerness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is known of the traffic: the share of refreshes that end in time is exp(-1 / beta)."""
    monkeypatch.setattr(Tally, "demand", lambda *_: 0.0)
    ttl, load, seconds = 1.0, 0.05, 50
    process = world.process(ttl=ttl, stale_ttl=0.0, early_refresh=eagerness, seed=9)
    world.source.takes = load
    process.call()
    world.source.takes = 0.0
    traffic = Traffic(process, load)
    traffic.meanwhile(seconds)
    periods = len(process.runs) - 1
    assert periods >= seconds / (ttl + load) - 1
    assert max(traffic.waits) <= load
    assert traffic.alone <= periods * 0.02
    late = (len(traffic.waits) + traffic.alone) / periods
    assert late == pytest.approx(1 - math.exp(-1 / eagerness), abs=0.15)


@only("tiers", ["l1"])
@only("face", ["sync"])
def test_with_swr_a_refresh_that_begins_too_late_is_felt_by_nobody(world: Any, twin: str) -> None:
    ttl, load = 1.0, 0.05
    process = world.process(ttl=ttl, stale_ttl=1.0, swr=True, early_refresh=1.0, seed=9)
    world.source.takes = load
    process.call()
    world.source.takes = 0.0
    traffic = Traffic(process, load)
    traffic.good = lambda: True  # type: ignore[method-assign]  # whoever waits, hangs
    traffic.meanwhile(30)
    assert traffic.alone == 0
    fills = [at for _, at in process.runs]
    assert len(fills) > 25
    assert min(later - before for before, later in itertools.pairwise(fills)) >= ttl / 2
    assert process.tally.misses == len(fills)
    assert process.tally.stale > 0


# ------------------------------------------------------------------------------------------------ several processes


@only("tiers", ["tracking"])
def test_one_of_several_processes_refreshes(world: Any) -> None:
    one = world.process(ttl=60.0, stale_ttl=0.0, early_refresh="auto", seed=1)
    other = world.process(ttl=60.0, stale_ttl=0.0, early_refresh="auto", seed=1)
    world.source.takes = 5.0
    one.call()
    other.clock.advance(one.clock.now() - other.clock.now())
    world.hear()
    one.call()
    other.call()
    world.source.takes = 0.0
    world.source.recover()
    ahead = max(each.due() for each in (one, other)) - one.clock.now()
    world.advance(ahead - 1.0 + 1e-6)

    def begun() -> bool:
        return len(one.runs) == 2

    if world.face == "sync":
        one.gate.clear()
        assert one.call() == "old"
        world.until(lambda: begun())
        assert other.call() == "old"
        other.settle()
        one.gate.set()
        one.settle()
    else:

        async def both() -> None:
            one.gate.clear()
            assert await one.f(1) == "old"
            while not begun():
                await asyncio.sleep(0.001)
            assert await other.f(1) == "old"
            await other.service.async_port.wait_for_tasks(5)
            one.gate.set()
            await one.service.async_port.wait_for_tasks(5)

        world.runner.run(both())
    assert other.runs == []
    assert other.tally.refreshes == {("early", "busy"): 1}
    world.hear()
    assert (one.call(), other.call()) == ("new", "new")
    assert other.runs == []


@only("tiers", ["tracking"])
def test_processes_draw_for_themselves(world: Any) -> None:
    processes = [world.process(ttl=600.0, early_refresh="auto") for _ in range(2)]
    world.source.takes = 1.0
    keys = range(20)
    for key in keys:
        processes[0].call(key)
    world.source.takes = 0.0
    processes[1].clock.advance(processes[0].clock.now() - processes[1].clock.now())
    world.hear()
    moments = []
    for process in processes:
        for key in keys:
            process.call(key)
        moments.append([process.due(key) for key in keys])
    assert all(process.view(key).early for process in processes for key in keys)
    assert sum(one != other for one, other in zip(*moments, strict=True)) >= 19


# ------------------------------------------------------------------------------------------------------------ jitter


@only(("jitter", "share", "most"), [(0.1, True, 6.0), (0.1, False, 0.1), (500.0, False, MAX_JITTER), (1.0, True, 60.0)])
def test_jitter_lengthens_and_spreads_evenly(jitter: float, share: bool, most: float) -> None:
    spec, draw = RegionSpec(jitter=jitter, jitter_is_share=share), random.Random(4).random
    added = [(life(60.0, spec, draw()).soft or 0.0) - 60.0 for _ in range(FILLS)]
    assert min(added) >= 0.0
    assert max(added) <= most + 1e-9
    for part in (0.25, 0.5, 0.75):
        assert sum(each <= part * most for each in added) / FILLS == pytest.approx(part, abs=0.01)


def test_what_never_ends_has_no_jitter_and_stale_time_is_added_after_it() -> None:
    spec = RegionSpec(freshness=type(RegionSpec().freshness)(stale_ttl=100.0))
    assert life(None, spec, 0.9) == (None, None)
    assert life(60.0, spec, 0.5) == (63.0, 163.0)


def test_entries_of_both_tiers_live_at_least_as_long_as_was_asked(world: Any, twin: str) -> None:
    process = world.process(ttl=100.0, jitter=0.1, stale_ttl=0.0)
    ends = []
    for key in range(100):
        process.call(key)
        if world.tiers == "l1":
            ends.append(process.view(key).fresh_until / 1e9 - process.runs[-1][1])
        else:
            ends.append(process.wait(process.in_region("remaining", process.f.key(key))))
    slack = 0.01
    assert min(ends) >= 100.0 - slack
    assert max(ends) <= 110.0 + slack
    assert max(ends) - min(ends) > 5.0, "and they do not end together"


@only("tiers", ["tracking"])
def test_the_cap_of_l1_is_lengthened_in_each_process_by_a_draw_of_its_own(world: Any, twin: str) -> None:
    processes = [world.process(ttl=600.0, jitter=0.1, l1={"ttl": 50.0}) for _ in range(2)]
    keys = range(20)
    for key in keys:
        processes[0].call(key)
    world.hear()
    lives = []
    for process in processes:
        began = process.clock.now()
        for key in keys:
            process.call(key)
        lives.append([process.due(key) - began for key in keys])
    for ends in lives:
        assert min(ends) >= 50.0
        assert max(ends) <= 55.0
    assert sum(one != other for one, other in zip(*lives, strict=True)) >= 19


def test_a_pause_is_not_spread(world: Any) -> None:
    process = world.process(ttl=60.0, jitter=0.1)
    process.call()
    world.advance(67.0)
    world.source.fail()
    process.call()
    began = process.clock.now()
    while len(process.runs) == 2:
        process.clock.advance(0.5)
        if world.tiers == "tracking":
            process.turn_until(lambda: process.clock.now() - process.coherence.proof < 2)
        process.call()
    assert process.clock.now() - began == 30.0
