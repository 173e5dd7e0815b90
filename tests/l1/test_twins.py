"""The implementations of the table do the same, step by step: answers, counts, evictions in their order."""

import random
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from l1_rig import TWINS, Clock, Rig
from l1_twins import CONFIGURATIONS, SLOTS, TAGS, UNLIKE, Side, Twins, Value

from cachekit.engine.miss import MISS
from cachekit.l1.values import Admission
from cachekit.l1.views import NEVER

pytestmark = [pytest.mark.slow, pytest.mark.skipif(len(TWINS) < 2, reason="there is one implementation here")]


class Machine(Twins, RuleBasedStateMachine):
    """Everything is done to both, and what is checked holds after every step."""

    put = rule(
        key=st.integers(0, 99),
        slot=st.sampled_from(SLOTS),
        ttl=st.integers(0, 30) | st.just(NEVER),
        keep=st.integers(-5, 30),
        tags=st.lists(st.sampled_from(TAGS), max_size=2),
        ticket=st.integers(0, 5),
        weight=st.integers(0, 40),
        load_ms=st.sampled_from([0, 1, 65_535, 65_536, 10**9]),
        flags=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    )(Twins.put)
    get = rule(key=st.integers(0, 99), slot=st.sampled_from(SLOTS), times=st.integers(1, 4))(Twins.get)
    call = rule(key=st.integers(0, 99), by_name=st.booleans())(Twins.call)
    bind = rule()(Twins.bind)
    view = rule(key=st.integers(0, 99), slot=st.sampled_from(SLOTS))(Twins.view)
    refreshed = rule(
        key=st.integers(0, 99),
        slot=st.sampled_from(SLOTS),
        ahead=st.integers(-5, 30) | st.just(NEVER),
        times=st.integers(1, 2),
    )(Twins.refreshed)
    mark_stale = rule(key=st.integers(0, 99))(Twins.mark_stale)
    drop = rule(key=st.integers(0, 99), slot=st.sampled_from(SLOTS))(Twins.drop)
    drop_key = rule(key=st.integers(0, 99), bump=st.booleans())(Twins.drop_key)
    drop_slot = rule(slot=st.sampled_from(SLOTS), bump=st.booleans())(Twins.drop_slot)
    clear = rule(kind=st.sampled_from(["region", "all", None]))(Twins.clear)
    sweep = rule(limit=st.integers(-1, 40))(Twins.sweep)
    bump_tags = rule(tags=st.lists(st.sampled_from(TAGS), max_size=2))(Twins.bump_tags)
    take_ticket = rule()(Twins.take_ticket)
    wait = rule(steps=st.integers(1, 20))(Twins.wait)
    proof = rule(ahead=st.none() | st.integers(-5, 20))(Twins.proof)
    watch = rule(on=st.booleans(), skipping=st.booleans())(Twins.watch)
    fork = rule()(Twins.fork)
    they_are_the_same = invariant()(Twins.they_are_the_same)


def test_no_two_keys_are_remembered_as_one() -> None:
    """The pure table remembers those that left by their hashes alone."""
    assert len({hash((1, key[0] if len(key) == 1 else key)) for key in UNLIKE}) == len(UNLIKE)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_twins_do_the_same_whatever_is_done_to_them(configuration: str) -> None:
    keys, options = CONFIGURATIONS[configuration]
    if options:
        keys = keys[:: len(keys) // 14]  # several times as many as there is room for, no more
    machine = type("Other", (Machine,), {"keys": keys, "options": options})
    case = machine.TestCase
    case.settings = settings(
        max_examples=5, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case().runTest()


LONG = [pytest.param(5, id="long", marks=pytest.mark.slow), pytest.param(150, id="longest", marks=pytest.mark.nightly)]


@pytest.mark.parametrize("examples", LONG)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_twins_do_the_same_for_long(configuration: str, examples: int) -> None:
    keys, options = CONFIGURATIONS[configuration]
    machine = type("Other", (Machine,), {"keys": keys, "options": options})
    case = machine.TestCase
    case.settings = settings(
        max_examples=examples, stateful_step_count=100, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case().runTest()


# ------------------------------------------------------------------------------------------------- order of evictions


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
@pytest.mark.parametrize(("entries", "room"), [(50, 1 << 30), (10**6, 1500), (40, 900)])
def test_long_traces_evict_the_same_in_the_same_order(policy: str, entries: int, room: int) -> None:
    """Skewed requests that drift, with times to live, drops, tags and sweeps."""
    clock = Clock()
    options = {"policy": policy, "max_entries": entries, "max_bytes": room}
    sides = [Side(name, clock, bool, **options) for name in TWINS]
    rng = random.Random(f"{policy} {entries} {room}")
    for step in range(8_000):
        key = int(rng.paretovariate(0.6)) % 400 + step // 2000 * 37
        dice = rng.random()
        ttl = rng.choice([NEVER - clock(), 300, 2000])
        weight = rng.choice([1, 10, 60, 200])
        clock.now += 1
        answers = []
        for side in sides:
            slot = side.slots["f"]
            if dice < 0.01:
                answer = side.table.drop(slot, (key,))
            elif dice < 0.015:
                answer = side.table.drop_key(key % 50)
            elif dice < 0.02:
                answer = side.table.sweep(7)
            elif dice < 0.022:
                answer = side.versions.bump_tags([f"t{key % 5}"])
            elif dice < 0.0222:
                answer = side.table.clear()
            elif dice < 0.1 or side.memos[1].call(key) is MISS:
                answer = side.rig.put(
                    key, value=Value(step, side.gone), ttl=ttl, khash=key % 50, tags=[f"t{key % 5}"] * (key % 3 == 0),
                    admission=Admission("opaque", weight, False),
                )  # fmt: skip
            else:
                answer = "hit"
            answers.append((answer, sorted(side.gone), len(side.table), side.table.weight))
            side.gone.clear()
        assert answers[0] == answers[1], f"step {step}"
    assert sides[0].table.stats() == sides[1].table.stats()
    assert sides[0].table.stats().evictions["capacity"] > 100


# ------------------------------------------------------------------------------------------------------ coming back in

LIGHT = Admission("opaque", 1, False)


class Hostile:
    """A key that does something when it is hashed or compared for the first time after it was armed."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.on_hash: Callable[[], object] | None = None
        self.on_eq: Callable[[], object] | None = None

    def __hash__(self) -> int:
        act, self.on_hash = self.on_hash, None
        if act is not None:
            act()
        return 11

    def __eq__(self, other: object) -> bool:
        for key in (self, other):
            if isinstance(key, Hostile):
                act, key.on_eq = key.on_eq, None
                if act is not None:
                    act()
        return isinstance(other, Hostile) and other.number == self.number


def fail(error: type[BaseException]) -> Callable[[Any, Any], object]:
    def act(side: Side, key: Any) -> object:
        raise error("from inside")

    return act


ACTS: dict[str, Callable[[Any, Any], object]] = {
    "nothing": lambda side, key: None,
    "drop the stored": lambda side, key: side.table.drop(side.rig.slot, (key,)),
    "drop by hash": lambda side, key: side.table.drop_key(3),
    "mark as stale": lambda side, key: side.table.mark_stale(3),
    "refresh": lambda side, key: side.table.refreshed(side.rig.slot, (key,), NEVER),
    "drop slot": lambda side, key: side.table.drop_slot(side.rig.slot),
    "clear": lambda side, key: side.table.clear(),
    "replace": lambda side, key: side.rig.put(key, value="from inside", khash=3, admission=LIGHT),
    "put another": lambda side, key: side.rig.put(Hostile(9), value="other", khash=9, admission=LIGHT),
    "evict": lambda side, key: [side.rig.put(n, value=n, khash=100 + n, admission=LIGHT) for n in range(20)],
    "get": lambda side, key: side.rig.get(key),
    "sweep": lambda side, key: side.table.sweep(100),
    "unbind": lambda side, key: side.memos[1].unbind(),
    "raise": fail(ValueError),
    "raise KeyError": fail(KeyError),
    "interrupt": fail(KeyboardInterrupt),
    "exhaust memory": fail(MemoryError),
}
DOINGS: dict[str, Callable[[Any, Any], object]] = {
    "get": lambda side, key: side.table.get(side.rig.slot, (key,)),
    "entry": lambda side, key: (view := side.table.entry(side.rig.slot, (key,))) and view.value,
    "drop": lambda side, key: side.table.drop(side.rig.slot, (key,)),
    "refresh": lambda side, key: side.table.refreshed(side.rig.slot, (key,), NEVER),
    "put": lambda side, key: side.rig.put(key, value="put", khash=3, admission=LIGHT),
    "put with a tag": lambda side, key: side.rig.put(key, value="put", khash=3, tags=["t"], admission=LIGHT),
    "call": lambda side, key: side.memos[1].call(key),
}
# The implementations ask in other orders, or at other moments, which an act can see; both answers are right.
EITHER = {("call", "raise KeyError"), ("call", "raise"), ("call", "unbind")}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("doing", DOINGS)
@pytest.mark.parametrize("when", ["hash of the new", "comparison", "comparison with another"])
def test_twins_agree_when_a_key_comes_back_into_the_table(doing: str, act: str, when: str) -> None:
    outcomes = []
    for name in TWINS:
        side = Side(name, Clock(), bool, max_entries=10)
        stored, asked = Hostile(1), Hostile(2 if when == "comparison with another" else 1)
        twin = Hostile(1)
        side.rig.put(stored, value="stored", khash=3, early=True, admission=LIGHT)

        def armed(side: Side = side, twin: Hostile = twin) -> None:
            ACTS[act](side, twin)

        if when == "hash of the new":
            asked.on_hash = armed
        else:
            stored.on_eq = armed
        try:
            outcome = DOINGS[doing](side, asked)
        except (Exception, KeyboardInterrupt) as error:
            outcome = type(error)
        stored.on_eq = asked.on_hash = None
        stats = side.table.stats()
        left = [side.rig.get(Hostile(number)) for number in (1, 2, 9)]
        assert stats.entries == len(side.table)
        assert (stats.weight, side.table.weight) == (stats.entries, stats.entries)
        outcomes.append((outcome, left, len(side.table)))
        assert side.rig.put("still works", value="yes", admission=LIGHT)
        assert side.rig.get("still works") == "yes"
    if (doing, act) in EITHER:
        assert outcomes[0][1:] == outcomes[1][1:]
    else:
        assert outcomes[0] == outcomes[1]


class Last:
    """A value that does something in the end."""

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self.number, self.act = number, act

    def __del__(self) -> None:
        try:
            self.act()
        except ZeroDivisionError:  # it belongs to a comparison
            pass


class Meddling(RuleBasedStateMachine):
    """Keys and values that come back into the table at any time: each implementation by itself stays whole."""

    twin = "pure"

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(import_module(f"cachekit.l1.{self.twin}"), max_entries=6)
        self.table = self.rig.table
        self.acts: list[Callable[[], object]] = []
        self.depth = 0

    def act(self) -> None:
        if self.acts and self.depth < 3:
            self.depth += 1
            try:
                self.acts.pop()()
            finally:
                self.depth -= 1

    def key(self, number: int) -> Any:
        if number >= 6:
            return number
        key = Hostile(number)
        key.on_eq = key.on_hash = self.act
        return key

    def operation(self, kind: str, number: int) -> object:
        table, slot = self.table, self.rig.slot
        if kind == "put":
            value = Last(number, self.act)
            return self.rig.put(self.key(number), value=value, khash=number, early=number % 2 == 0, admission=LIGHT)
        if kind == "get":
            found = self.rig.get(self.key(number))
            assert found is MISS or found.number == number, "the value of another key"
            return found
        if kind == "drop":
            return table.drop(slot, (self.key(number),))
        if kind == "drop_key":
            return table.drop_key(number)
        if kind == "refreshed":
            return table.refreshed(slot, (self.key(number),), NEVER)
        if kind == "raise":
            raise ZeroDivisionError
        return {"clear": table.clear, "sweep": lambda: table.sweep(5)}[kind]()

    @rule(
        kind=st.sampled_from(["put", "put", "put", "get", "get", "drop", "drop_key", "refreshed"]),
        number=st.integers(0, 9),
        inside=st.lists(
            st.tuples(
                st.sampled_from(["put", "get", "drop", "drop_key", "refreshed", "clear", "sweep", "raise"]),
                st.integers(0, 9),
            ),
            max_size=5,
        ),
    )
    def do(self, kind: str, number: int, inside: list[tuple[str, int]]) -> None:
        self.acts = [lambda what=what: self.operation(*what) for what in inside]  # type: ignore[misc]
        try:
            self.operation(kind, number)
        except ZeroDivisionError:
            pass
        self.acts = []

    @invariant()
    def it_is_whole(self) -> None:
        stats = self.table.stats()
        assert stats.entries == len(self.table) == stats.weight == self.table.weight <= 6
        found = sum(self.rig.get(self.key(number)) is not MISS for number in range(10))
        assert found == len(self.table), "an entry cannot be found, or is there twice"

    def teardown(self) -> None:
        assert self.table.clear() <= 6
        assert len(self.table) == 0


@pytest.mark.parametrize("twin", TWINS)
def test_a_table_stays_whole_while_keys_and_values_meddle(twin: str) -> None:
    machine = type("Machine", (Meddling,), {"twin": twin})
    case = machine.TestCase
    case.settings = settings(
        max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case().runTest()


# ---------------------------------------------------------------------------------------------------------- isolation


def test_copies_of_values_are_the_callers_own_in_both() -> None:
    """Whatever callers do to what they put and got."""
    rng = random.Random(3)
    sides = [Side(name, Clock(), bool, max_entries=9) for name in TWINS]
    for step in range(1500):
        key, dice = rng.randrange(20), rng.random()
        found = []
        for side in sides:
            if dice < 0.4:
                value: Any = {"key": key, "rows": [[step], [step]]}
                side.rig.put(key, value=value, admission=Admission("copy", 1, True))
                value["rows"].append("by the one who put it")
                continue
            value = side.rig.get(key) if dice < 0.7 else side.memos[1].call(key)
            if value is not MISS:
                assert value["key"] == key
                assert len(value["rows"]) == 2
                found.append((value["rows"][0][0], len(value["rows"][0])))
                value["rows"][0].append("by one who got it")
                value["rows"].append("by one who got it")
            else:
                found.append(MISS)
        assert found[:1] * 2 == found or not found
