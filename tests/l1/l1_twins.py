"""Two implementations of the table, and a plain dictionary, to all of which the same is done.

Each value tells when it is released, so that what a table gave up is known without asking it. What a table must answer
is what the dictionary says, which follows the same rules and is told what was given up.
"""

import gc
from collections.abc import Callable
from decimal import Decimal
from importlib import import_module
from inspect import signature
from typing import Any, ClassVar

from l1_rig import TWINS, Clock, Rig

from cachekit.engine.miss import MISS
from cachekit.l1.values import Admission
from cachekit.l1.views import NEVER

Name = tuple[str, int]
SLOTS = ["f", "g"]
TAGS = ["red", "green", "blue"]
REASONS = ("capacity", "expired", "invalidated")


class Keyed:
    """A key that Python compares."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keyed) and other.number == self.number

    def __hash__(self) -> int:
        return self.number % 3  # several fall together

    def __repr__(self) -> str:
        return f"Keyed({self.number})"


class Lone(Keyed):
    """A key whose hash no other one has."""

    def __hash__(self) -> int:
        return 1_000_003 * self.number


class Text(str):
    pass


class Bytes(bytes):
    pass


# Equal ones are remembered as one when they leave by one implementation, as several by the other: so here all differ.
UNLIKE: list[tuple[Any, ...]] = [
    *[(number,) for number in (0, 1, -3, 1 << 29, 1 << 30, -(1 << 30), 1 << 59, 1 << 60, 1 << 70, -(1 << 70))],
    *[(text,) for text in ("a", "b", "ä", "€", "𝄞", "\ud800", "a" * 1000, b"A", b"B", Text("c"), Bytes(b"C"))],
    *[(0.3,), (2.5, "x"), (None,), (), (1, 2), (2, 1), ((1, 2), 3), (("a", ("b", ("c",))),), (frozenset({5}),)],
    *[(Lone(7),), (Lone(10),), (Lone(13), 1), (("t", Lone(16)),), (Decimal(5),), (float("inf"),)],
]
ALIKE: list[tuple[Any, ...]] = [
    *[(1,), (True,), (1.0,), (1 + 0j,), (Decimal(1),), ((1,),), ((True,),), ((1.0,),), (0,), (False,), (0.0,), (-0.0,)],
    *[(frozenset({1}),), (frozenset({True}),), ("a",), (b"a",), (Text("a"),), (Bytes(b"a"),), (1, 2), (True, 2)],
    *[((0.0,),), ((-0.0,),), (Keyed(1),), (1, None), (1, ()), ((1, None),), (-1,), (-2,), ((1 << 61) - 1,), (1 << 61,)],
    *[(Keyed(7),), (Keyed(10),), ((Keyed(7),),), (Lone(7),)],
]


class Value:
    """Says when it is gone."""

    def __init__(self, number: int, gone: list[int]) -> None:
        self.number, self.gone = number, gone

    def __del__(self) -> None:
        self.gone.append(self.number)


class Side:
    """One implementation, with memos over the first slot."""

    def __init__(self, name: str, clock: Clock, skip: Callable[[], bool], **options: Any) -> None:
        self.name = name
        module: Any = import_module(f"cachekit.l1.{name}")
        self.rig = Rig(module, clock=clock, skip=skip, **options)
        self.table, self.versions = self.rig.table, self.rig.versions
        self.slots = {slot: self.table.slot(slot) for slot in SLOTS}
        self.gone: list[int] = []
        self.memos: dict[int, Any] = {}
        for func in (lambda: 0, lambda x: 0, lambda x, y: 0):
            count = len(signature(func).parameters)
            memo = module.compile_memo(func, signature(func), lambda args, kwargs: MISS)
            memo.bind_table(self.table, self.slots["f"])
            self.memos[count] = memo


class Known:
    """What the dictionary knows of an entry."""

    def __init__(self, number: int, fresh: int, keep: int, khash: int, tags: tuple[str, ...], ticket: int) -> None:
        self.number, self.fresh, self.keep, self.khash = number, fresh, keep, khash
        self.tags, self.ticket = tags, ticket
        self.weight, self.negative, self.detached, self.early, self.aside = 1, False, False, False, False


class Twins:
    """Everything is done to both."""

    keys: ClassVar[list[tuple[Any, ...]]] = UNLIKE
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()  # a Hypothesis machine may stand behind
        self.clock = Clock()
        self.skipping = self.watched = False
        self.bounds = {"max_entries": 1000, "max_bytes": 1 << 40, **self.options}
        self.sides = [Side(name, self.clock, lambda: self.skipping, **self.bounds) for name in TWINS]
        self.known: dict[Name, Known] = {}
        self.numbers = 0
        self.tickets = [0]
        self.events: list[tuple[int, str, Any]] = []  # number, kind, what
        self.alive = NEVER
        self.bound = True
        self.counts = dict.fromkeys(("hits", "misses", "puts", "refused", *REASONS), 0)

    def both(self, act: Callable[[Side], Any]) -> Any:
        """Does something to both; the answer is the same."""
        answers = [act(side) for side in self.sides]
        assert all(answer == answers[0] for answer in answers[1:]), answers
        return answers[0]

    def gone(self) -> set[int]:
        """The numbers of the values that were given up since the last question, by both."""
        gone = [sorted(side.gone) for side in self.sides]
        for side in self.sides:
            side.gone.clear()
        assert gone[0] == gone[1], "what was given up differs"
        assert len(gone[0]) == len(set(gone[0]))
        return set(gone[0])

    def khash(self, key: int) -> int:
        return 1000 + key // 2  # two keys share one

    def happened(self, kind: str, what: Any) -> None:
        ticket = self.both(lambda side: side.versions.ticket())
        self.events.append((ticket, kind, what))

    def outdated(self, entry: Known) -> bool:
        return any(number > entry.ticket and kind == "tag" and what in entry.tags for number, kind, what in self.events)

    def over(self, entry: Known) -> bool:
        return self.clock() >= entry.keep

    def usable(self, key: int, slot: str) -> int | None:
        """The number of the value that a hit must give."""
        entry = self.known.get((slot, key))
        now = self.clock()
        if entry is None or now >= entry.fresh or self.outdated(entry) or (self.watched and self.skipping):
            return None
        return None if now >= self.alive and not entry.detached else entry.number

    def leave(self, gone: set[int], reasons: "Callable[[Name, Known], str | None]") -> None:
        """What was given up leaves the dictionary too, for a reason that there is."""
        for name, entry in list(self.known.items()):
            if entry.number in gone:
                gone.discard(entry.number)
                reason = reasons(name, entry)
                assert reason is not None, f"no reason to give up {name}"
                self.counts[reason] += 1
                del self.known[name]
        assert not gone, f"given up twice, or never kept: {gone}"

    # ------------------------------------------------------------------------------------------------------ insertion

    def put(
        self, key: int, slot: str, ttl: int, keep: int, tags: list[str], ticket: int, weight: int, load_ms: int,
        flags: tuple[bool, bool, bool, bool],
    ) -> None:  # fmt: skip
        key %= len(self.keys)
        self.numbers += 1
        number, now, khash = self.numbers, self.clock(), self.khash(key)
        born = self.tickets[-ticket] if 0 < ticket <= len(self.tickets) else self.sides[0].versions.ticket()
        fresh = NEVER if ttl == NEVER else now + ttl
        kept = NEVER if fresh == NEVER else fresh + keep
        names = ("negative", "detached", "early", "aside")

        def act(side: Side) -> bool:
            stored: bool = side.table.put(
                side.slots[slot], self.keys[key], Value(number, side.gone), khash=khash, fresh_until=fresh,
                keep_until=kept, ticket=born, tags=tags, admission=Admission("opaque", weight, False),
                load_ms=load_ms, **dict(zip(names, flags, strict=True)),
            )  # fmt: skip
            return stored

        stored = self.both(act)
        covers = {("key", khash), ("slot", slot), ("region", "r"), ("all", None), *(("tag", tag) for tag in tags)}
        allowed = not any(number > born and (kind, what) in covers for number, kind, what in self.events)
        gone = self.gone()
        assert stored is (allowed and weight <= self.bounds["max_bytes"])
        self.counts["puts" if stored else "refused"] += 1
        if not stored:
            assert number in gone
            gone.discard(number)
        old = self.known.pop((slot, key), None) if allowed else None
        if old is not None:
            assert old.number in gone, "what is replaced goes"
            gone.discard(old.number)
        room = sum(entry.weight for entry in self.known.values())
        crowded = (
            len(self.known) >= self.bounds["max_entries"] or room + weight > self.bounds["max_bytes"]
        ) and stored  # without room nobody is evicted
        self.leave(
            gone,
            lambda name, entry: "expired" if self.over(entry)
            else "invalidated" if self.outdated(entry) else "capacity" if crowded else None,
        )  # fmt: skip
        if stored:
            entry = self.known[slot, key] = Known(number, fresh, max(fresh, kept), khash, tuple(tags), born)
            entry.weight = weight
            entry.negative, entry.detached, entry.early, entry.aside = flags

    # --------------------------------------------------------------------------------------------------------- looking

    def get(self, key: int, slot: str, times: int) -> None:
        key %= len(self.keys)
        expected = self.usable(key, slot)

        def act(side: Side) -> int | None:
            found = side.table.get(side.slots[slot], self.keys[key])
            return None if found is MISS else found.number

        for _ in range(times):
            assert self.both(act) == expected
        self.counts["misses" if expected is None else "hits"] += times

    def call(self, key: int, by_name: bool) -> None:
        """A memo over the first slot."""
        array = self.keys[key % len(self.keys)]
        entry = self.known.get(("f", key % len(self.keys)))
        answers = self.bound and not (entry is not None and entry.aside)
        expected = self.usable(key % len(self.keys), "f") if answers else None

        def act(side: Side) -> Any:
            call = side.memos[len(array)].call
            found = call(**dict(zip("xy", array, strict=False))) if by_name else call(*array)
            if found is MISS and expected is not None and side.name == "pure":
                found = side.table.get(side.slots["f"], array)  # its memos leave what is not simple to the table
            return None if found is MISS else found.number

        assert self.both(act) == expected
        self.counts["hits"] += expected is not None

    def bind(self) -> None:
        self.bound = not self.bound
        for side in self.sides:
            for memo in side.memos.values():
                if self.bound:
                    memo.bind_table(side.table, side.slots["f"])
                else:
                    memo.unbind()

    def view(self, key: int, slot: str) -> None:
        key %= len(self.keys)

        def act(side: Side) -> Any:
            view = side.table.entry(side.slots[slot], self.keys[key])
            return None if view is None else (view.value.number, *view[1:], view.fresh, view.fresh_for)

        view = self.both(act)
        entry = self.known.get((slot, key))
        if entry is None or self.over(entry) or self.outdated(entry):
            assert view is None
        else:
            fresh = entry.fresh if entry.detached else min(entry.fresh, self.alive)
            assert view[:3] == (entry.number, fresh, entry.keep)
            assert (view[3], view[4], view[6], view[8]) == (entry.ticket, entry.tags, entry.khash, entry.negative)
            assert view[10:12] == (entry.early, entry.detached)

    # ------------------------------------------------------------------------------------------------------- freshness

    def refreshed(self, key: int, slot: str, ahead: int, times: int) -> None:
        key %= len(self.keys)
        fresh = NEVER if ahead == NEVER else self.clock() + ahead
        entry = self.known.get((slot, key))
        for _ in range(times):
            expected = entry is not None and entry.early and not self.over(entry) and not self.outdated(entry)
            assert self.both(lambda side: side.table.refreshed(side.slots[slot], self.keys[key], fresh)) is expected
            if entry is not None and expected:
                entry.fresh, entry.early = min(fresh, entry.keep), False

    def mark_stale(self, key: int) -> None:
        khash = self.khash(key % len(self.keys))
        same = [entry for entry in self.known.values() if entry.khash == khash]
        for entry in same:
            entry.fresh, entry.early = min(entry.fresh, self.clock()), False
        assert self.both(lambda side: side.table.mark_stale(khash)) == len(same)

    # -------------------------------------------------------------------------------------------------------- removing

    def drop(self, key: int, slot: str) -> None:
        key %= len(self.keys)
        dropped = self.both(lambda side: side.table.drop(side.slots[slot], self.keys[key]))
        assert dropped is ((slot, key) in self.known)
        self.leave(self.gone(), lambda name, entry: "invalidated" if name == (slot, key) else None)
        assert (slot, key) not in self.known

    def drop_key(self, key: int, bump: bool) -> None:
        khash = self.khash(key % len(self.keys))

        def act(side: Side) -> Any:
            with side.versions.lock:
                if bump:
                    side.versions.bump_key(khash)
                return side.table.drop_key(khash)

        dropped = self.both(act)
        if bump:
            self.happened("key", khash)
        self.swept(dropped, lambda name, entry: entry.khash == khash)

    def drop_slot(self, slot: str, bump: bool) -> None:
        def act(side: Side) -> Any:
            with side.versions.lock:
                if bump:
                    side.versions.bump_slot(side.slots[slot])
                return side.table.drop_slot(side.slots[slot])

        dropped = self.both(act)
        if bump:
            self.happened("slot", slot)
        self.swept(dropped, lambda name, entry: name[0] == slot)

    def clear(self, kind: str | None) -> None:
        def act(side: Side) -> Any:
            with side.versions.lock:
                if kind == "region":
                    side.versions.bump_region("r")
                elif kind == "all":
                    side.versions.bump_all()
                return side.table.clear()

        dropped = self.both(act)
        if kind is not None:
            self.happened(kind, "r" if kind == "region" else None)
        self.swept(dropped, lambda name, entry: True)

    def swept(self, dropped: int, condition: Callable[[Name, Known], bool]) -> None:
        assert dropped == sum(condition(name, entry) for name, entry in self.known.items())
        self.leave(self.gone(), lambda name, entry: "invalidated" if condition(name, entry) else None)
        assert not any(condition(name, entry) for name, entry in self.known.items())

    def sweep(self, limit: int) -> None:
        removed = self.both(lambda side: side.table.sweep(limit))
        gone = self.gone()
        assert removed == len(gone) <= max(limit, 0)
        self.leave(
            gone,
            lambda name, entry: "expired" if self.over(entry) else "invalidated" if self.outdated(entry) else None,
        )

    def bump_tags(self, tags: list[str]) -> None:
        for side in self.sides:
            side.versions.bump_tags(tags)
        for tag in tags:
            self.happened("tag", tag)
        self.both(lambda side: [side.versions.tag_event(tag) for tag in TAGS])

    # ----------------------------------------------------------------------------------------------------------- other

    def take_ticket(self) -> None:
        self.tickets.append(self.both(lambda side: side.versions.ticket()))

    def wait(self, steps: int) -> None:
        self.clock.now += steps

    def proof(self, ahead: int | None) -> None:
        self.alive = NEVER if ahead is None else self.clock() + ahead
        for side in self.sides:
            side.table.alive(self.alive)

    def watch(self, on: bool, skipping: bool) -> None:
        self.watched, self.skipping = on, skipping
        for side in self.sides:
            side.table.watch(on)

    def fork(self) -> None:
        for side in self.sides:
            side.versions.reset_lock()
            side.table.reset()
        gc.collect()  # the pure table leaves its rings to it
        assert self.gone() == {entry.number for entry in self.known.values()}
        self.known.clear()
        self.counts = dict.fromkeys(self.counts, 0)

    def they_are_the_same(self) -> None:
        assert self.gone() == set()
        stats = self.both(lambda side: side.table.stats())
        entries, weight = len(self.known), sum(entry.weight for entry in self.known.values())
        counts = self.counts
        assert stats[:4] == (counts["hits"], counts["misses"], entries, weight)
        assert stats[5:] == (counts["puts"], counts["refused"])
        assert tuple(stats.evictions) == REASONS
        assert sum(stats.evictions.values()) == sum(counts[reason] for reason in REASONS)
        parts = self.both(lambda side: [side.table.stats(slot) for slot in (0, *side.slots.values())])
        for field in (0, 1, 2, 3, 5, 6):
            assert sum(part[field] for part in parts) == stats[field]
        assert self.both(lambda side: (len(side.table), side.table.weight)) == (entries, weight)
        assert entries <= self.bounds["max_entries"]
        assert weight <= self.bounds["max_bytes"]


CONFIGURATIONS: dict[str, tuple[list[tuple[Any, ...]], dict[str, Any]]] = {
    "alike keys": (ALIKE, {}),
    "s3fifo": (UNLIKE, {"max_entries": 7}),
    "lru": (UNLIKE, {"max_entries": 7, "policy": "lru"}),
    "s3fifo by bytes": (UNLIKE, {"max_bytes": 100}),
    "lru by bytes": (UNLIKE, {"max_bytes": 100, "policy": "lru"}),
    "s3fifo of one": (UNLIKE, {"max_entries": 1}),
}
