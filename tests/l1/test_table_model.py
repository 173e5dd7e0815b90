"""The table does what a plain dictionary with the same rules does, whatever is done to it in which order."""

from importlib import import_module
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from l1_rig import TWINS, Rig

from cachekit.engine.miss import MISS
from cachekit.l1.values import Admission
from cachekit.l1.versions import STRIPES
from cachekit.l1.views import NEVER

KEYS = [(1,), (True,), (1.0,), ("a",), (b"a",), (1, 2), (True, 2), (), (("a", 1),), (0.0,), (-0.0,), (None,)]
TAGS = ["red", "green", "blue"]
SLOTS = ["f", "g"]

keys = st.integers(0, len(KEYS) - 1)
slots = st.sampled_from(SLOTS)
tags = st.lists(st.sampled_from(TAGS), unique=True, max_size=2)


class Model(RuleBasedStateMachine):
    """Entries by (slot, number of the key): value, fresh_until, keep_until, khash, tags, ticket, early."""

    twin = "pure"

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(import_module(f"cachekit.l1.{self.twin}"), max_entries=1000)
        self.table, self.versions = self.rig.table, self.rig.versions
        self.slots = {name: self.table.slot(name) for name in SLOTS}
        self.known: dict[tuple[str, int], tuple[Any, int, int, int, tuple[str, ...], int, bool]] = {}
        self.tickets = [self.versions.ticket()]
        self.events: list[tuple[int, str, Any]] = []  # number, kind, what
        self.alive = NEVER
        self.hits = self.misses = 0

    def khash(self, key: int) -> int:
        return 1000 + key // 2  # two keys share one

    def covered_since(self, ticket: int, khash: int, tags: tuple[str, ...], slot: str) -> bool:
        covers = {("key", khash), ("slot", slot), ("region", "r"), ("all", None), *(("tag", tag) for tag in tags)}
        return any(number > ticket and (kind, what) in covers for number, kind, what in self.events)

    def happened(self, kind: str, what: Any) -> None:
        self.events.append((self.versions.ticket(), kind, what))

    def forget(self, condition: Any) -> int:
        gone = [name for name, entry in self.known.items() if condition(name, entry)]
        for name in gone:
            del self.known[name]
        return len(gone)

    @rule(
        key=keys,
        slot=slots,
        ttl=st.integers(0, 30),
        keep=st.integers(0, 30),
        tags=tags,
        old=st.booleans(),
        mutable=st.booleans(),
        early=st.booleans(),
        aside=st.booleans(),
    )
    def put(
        self, key: int, slot: str, ttl: int, keep: int, tags: list[str], old: bool, mutable: bool, early: bool,
        aside: bool,
    ) -> None:  # fmt: skip
        ticket = self.tickets[-1] if old else self.versions.ticket()
        value: Any = [len(self.events), ttl] if mutable else (key, ttl)
        admission = Admission("copy" if mutable else "share", 1, True)
        now = self.rig.clock()
        stored = self.table.put(
            self.slots[slot], KEYS[key], value, khash=self.khash(key), fresh_until=now + ttl,
            keep_until=now + ttl + keep, ticket=ticket, tags=tags, admission=admission, early=early, aside=aside,
        )  # fmt: skip
        allowed = not self.covered_since(ticket, self.khash(key), tuple(tags), slot)
        assert stored == allowed
        if allowed:
            copy = list(value) if mutable else value
            self.known[slot, key] = (copy, now + ttl, now + ttl + keep, self.khash(key), tuple(tags), ticket, early)
        if mutable:
            value.append("changed by the caller")

    def _find(self, key: int, slot: str) -> Any:
        entry = self.known.get((slot, key))
        if entry is None or any(
            number > entry[5] and ("tag", tag) == (kind, what) for number, kind, what in self.events for tag in entry[4]
        ):
            return None
        return entry

    @rule(key=keys, slot=slots)
    def get(self, key: int, slot: str) -> None:
        entry = self._find(key, slot)
        now = self.rig.clock()
        expected = entry[0] if entry is not None and now < entry[1] and now < self.alive else MISS
        found = self.table.get(self.slots[slot], KEYS[key])
        assert found == expected
        if type(found) is list:
            found.append("changed by a caller")
        self.hits += expected is not MISS
        self.misses += expected is MISS

    @rule(key=keys, slot=slots)
    def view(self, key: int, slot: str) -> None:
        entry = self._find(key, slot)
        found = self.table.entry(self.slots[slot], KEYS[key])
        if entry is None or self.rig.clock() >= entry[2]:
            assert found is None
        else:
            assert found is not None
            assert (found.value, found.fresh_until, found.keep_until, found.khash, found.tags, found.born) == (
                entry[0], min(entry[1], self.alive), entry[2], entry[3], entry[4], entry[5],
            )  # fmt: skip
            assert found.early == entry[6]

    @rule(key=keys, slot=slots, ahead=st.integers(-5, 40))
    def refresh(self, key: int, slot: str, ahead: int) -> None:
        entry, now = self._find(key, slot), self.rig.clock()
        expected = entry is not None and entry[6] and now < entry[2]
        assert self.table.refreshed(self.slots[slot], KEYS[key], now + ahead) == expected
        if entry is not None and expected:
            self.known[slot, key] = (entry[0], min(now + ahead, entry[2]), *entry[2:6], False)

    @rule(key=keys)
    def mark_stale(self, key: int) -> None:
        same = {name: entry for name, entry in self.known.items() if entry[3] == self.khash(key)}
        for name, entry in same.items():
            self.known[name] = (entry[0], min(entry[1], self.rig.clock()), *entry[2:6], False)
        assert self.table.mark_stale(self.khash(key)) <= len(same)  # some may have expired and been removed

    @rule(steps=st.integers(1, 20))
    def wait(self, steps: int) -> None:
        self.rig.clock.now += steps

    @rule()
    def take_ticket(self) -> None:
        self.tickets.append(self.versions.ticket())

    @rule(key=keys, slot=slots)
    def drop(self, key: int, slot: str) -> None:
        dropped = self.table.drop(self.slots[slot], KEYS[key])
        if self.forget(lambda name, entry: name == (slot, key)):
            return  # it may have expired and been removed before
        assert not dropped

    @rule(key=keys)
    def invalidate_key(self, key: int) -> None:
        with self.versions.lock:
            self.versions.bump_key(self.khash(key))
            dropped = self.table.drop_key(self.khash(key))
        self.happened("key", self.khash(key))
        assert dropped <= self.forget(lambda name, entry: entry[3] == self.khash(key))

    @rule(tags=tags)
    def invalidate_tags(self, tags: list[str]) -> None:
        self.versions.bump_tags(tags)
        for tag in tags:
            self.happened("tag", tag)

    @rule(slot=slots)
    def invalidate_slot(self, slot: str) -> None:
        with self.versions.lock:
            self.versions.bump_slot(self.slots[slot])
            dropped = self.table.drop_slot(self.slots[slot])
        self.happened("slot", slot)
        assert dropped <= self.forget(lambda name, entry: name[0] == slot)

    @rule(everything=st.booleans())
    def clear(self, everything: bool) -> None:
        with self.versions.lock:
            if everything:
                self.versions.bump_all()
            else:
                self.versions.bump_region("r")
            dropped = self.table.clear()
        self.happened("all" if everything else "region", None if everything else "r")
        assert dropped <= self.forget(lambda name, entry: True)
        assert len(self.table) == 0

    @rule(limit=st.integers(0, 30))
    def sweep(self, limit: int) -> None:
        before = len(self.table)
        removed = self.table.sweep(limit)
        assert len(self.table) == before - removed
        assert removed <= limit

    @rule(ahead=st.none() | st.integers(0, 20))
    def proof(self, ahead: int | None) -> None:
        self.alive = NEVER if ahead is None else self.rig.clock() + ahead
        self.table.alive(self.alive)

    @precondition(lambda self: self.known)
    @rule()
    def fork(self) -> None:
        self.versions.reset_lock()
        self.table.reset()
        self.known.clear()
        self.hits = self.misses = 0

    @invariant()
    def counts_agree(self) -> None:
        stats = self.table.stats()
        assert (stats.hits, stats.misses) == (self.hits, self.misses)
        assert stats.entries == len(self.table) == stats.weight == self.table.weight
        assert sum(self.table.stats(slot).entries for slot in [0, *self.slots.values()]) == stats.entries
        usable = sum(
            self._find(key, slot) is not None and self.rig.clock() < entry[2]
            for (slot, key), entry in self.known.items()
        )
        assert usable <= stats.entries <= len(self.known)


def test_no_two_model_hashes_share_a_stripe() -> None:
    """The model knows nothing of collisions."""
    assert len({Model.khash(None, key) % STRIPES for key in range(len(KEYS))}) == len(KEYS) // 2  # type: ignore[arg-type]


@pytest.mark.parametrize("twin", TWINS)
def test_the_table_behaves_as_the_model(twin: str) -> None:
    machine = type("Machine", (Model,), {"twin": twin})
    case = machine.TestCase
    case.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
    case().runTest()
