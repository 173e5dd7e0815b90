"""The L1 table in pure Python: entries found by arguments, bounded by S3-FIFO or LRU. `table` describes the interface.

Three structures hold an entry:

* the index of its slot, a dictionary from the arguments to a chain of entries. Python's ``==`` is coarser than ours
  (``1 == True == 1.0``), so entries whose arguments are equal but of other types hang in one chain;
* a ring, which is a queue of the eviction policy, linked through the entries, so that removal leaves no hole;
* the index by ``khash``.

User code may run in between and come back into the table: ``__eq__`` and ``__hash__`` of arguments, destructors, signal
handlers. So every single step leaves all three usable, and the steps that change several fields of a ring are straight
lines of code without a call, which nothing can interrupt; so are those that count a hit. An entry that is removed keeps
its value, since a hit in another thread may be about to return it; it is released with the last reference, when the
table holds no lock.

Who leaves is decided by S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction",
SOSP 2023). A newcomer joins the small queue, which has a tenth of the room. At its end an entry with 2 hits goes on to
the main queue and counts from 0 again; another leaves, and its key is remembered. The memory is for nine tenths as many
keys as there are entries; a key that comes back in time begins in the main queue. At the end of that, an entry with
hits goes round again and has one fewer, of at most 3; one without leaves.

S3-FIFO takes all entries to be of one size. When it is bytes that are short, and not entries, a hit weighs more the
less room the entry takes, as in GreedyDual-Size (Cao, Irani: "Cost-aware WWW proxy caching algorithms", USITS 1997):

* an entry of at most half the mean weight counts as one with 1 hit more than it has, of a quarter, with 2 more;
* an entry of at least twice the mean weight counts as one with 1 hit fewer, of four times, with 2 fewer.

A round is paid with a hit even by an entry that had none, down to -2, so what is light and not wanted leaves after at
most 2 rounds more; 3 hits always suffice, so what is heavy and wanted stays. With equal weights this is S3-FIFO.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from types import NoneType
from typing import Any, Final

from cachekit.engine.miss import MISS
from cachekit.errors import ConfigError
from cachekit.l1.kinds import kinds_of
from cachekit.l1.memo import Memo, compile_memo
from cachekit.l1.values import Admission, admit, adopt, isolate
from cachekit.l1.versions import Versions
from cachekit.l1.views import NEVER, EntryView, Stats

__all__ = [
    "TWIN", "Memo", "Table", "Versions", "admit", "compile_memo", "core", "is_plain", "isolate", "khash",
]  # fmt: skip

TWIN: Final = "pure"
HAND = 4  # entries that the expiry hand looks at per insertion
PENDING, LIVE, DEAD = range(3)
PLAIN: Final = frozenset({int, str, bytes, bool, NoneType})


core: Any = None  # there is none


def khash(slot: int, args: tuple[Any, ...]) -> int:
    """What stands for a key that only this process knows."""
    # Not without the kinds: "7" and b"7" have one hash, and so have 1 and True.
    return hash((slot, args, kinds_of(args))) & 0xFFFF_FFFF_FFFF_FFFF


def is_plain(args: tuple[Any, ...]) -> bool:
    """Whether the table may compare these arguments itself: ``==``, once the types agree, is equality of keys."""
    return PLAIN.issuperset(map(type, args))


class Slot:
    """The entries of one function and what happened to them."""

    __slots__ = ("entries", "evictions", "index", "misses", "number", "puts", "refused", "retired", "weight")

    def __init__(self, number: int) -> None:
        self.number = number
        self.index: dict[Any, Entry] = {}  # cleared in place, never replaced: memos hold it
        self.restart()

    def restart(self) -> None:
        """Nothing has happened yet."""
        self.retired = 0  # hits of entries that are gone; an entry counts its own
        self.misses = 0
        self.entries = 0
        self.weight = 0
        self.puts = 0
        self.refused = 0
        self.evictions = {"capacity": 0, "expired": 0, "invalidated": 0}


class Entry:
    """One cached value. Memos read types, ``until`` and ``value`` and count ``hits``, without a lock."""

    __slots__ = (
        "aside", "born", "detached", "early", "fresh_until", "ghost", "hits", "keep_until", "key", "khash", "kinds",
        "load_ms", "mark", "mode", "negative", "next", "prev", "renew", "ring", "slot", "state", "t0", "t1", "t2", "t3",
        "tags", "twin", "until", "value", "weight",
    )  # fmt: skip

    aside: bool  # memos leave it to the table
    born: int
    detached: bool
    early: bool  # fresh_until is when to refresh it, and not its end
    fresh_until: int
    keep_until: int
    khash: int
    load_ms: int
    mode: str
    negative: bool
    next: "Entry"
    prev: "Entry"
    renew: Callable[[Any], Any]  # copies the value for a caller
    ring: "Ring"
    tags: tuple[str, ...]

    def __init__(self, slot: Slot, args: tuple[Any, ...]) -> None:
        self.slot = slot
        self.key = args[0] if len(args) == 1 else args
        self.kinds = kinds_of(args)
        self.t0, self.t1, self.t2, self.t3 = (*self.kinds[:4], None, None, None, None)[:4]
        self.ghost = hash((slot.number, self.key))
        self.state = PENDING
        self.until = 0  # a memo may return the value before this time; 0: only the table may
        self.hits = 0
        self.mark = 0  # hits that the policy has used up; with those that it lent to a light entry
        self.twin: Entry | None = None  # next in the chain of its key
        self.value: Any = None
        self.weight = 0
        self.prev = self.next = GONE


GONE: Entry = object.__new__(Entry)  # the neighbour of an entry in no ring


class Ring:
    """A queue of entries; the oldest is ``head.next``."""

    __slots__ = ("entries", "head", "weight")

    def __init__(self) -> None:
        self.head: Entry = object.__new__(Entry)
        self.head.prev = self.head.next = self.head
        self.entries = 0
        self.weight = 0

    def append(self, entry: Entry) -> None:
        """Make the entry the youngest. No call in here."""
        head = self.head
        last = head.prev
        entry.prev = last
        entry.next = head
        entry.ring = self
        last.next = entry
        head.prev = entry
        self.entries += 1
        self.weight += entry.weight


def _chain(entry: Entry | None) -> list[Entry]:
    chain = []
    while entry is not None:
        chain.append(entry)
        entry = entry.twin
    return chain


class Table:
    """See `cachekit.l1.table`."""

    def __init__(
        self,
        *,
        region: str,
        max_entries: int,
        max_bytes: int,
        policy: str,
        versions: Versions,
        clock: Callable[[], int] | None = None,
        isolation: str = "auto",
        skip: Callable[[], bool] = bool,
    ) -> None:
        if policy not in ("s3fifo", "lru"):
            raise ConfigError(f"l1.policy is 's3fifo' or 'lru', not {policy!r}")
        if isolation not in ("auto", "copy", "share"):
            raise ConfigError(f"isolation is 'auto', 'copy' or 'share', not {isolation!r}")
        if max_entries < 1 or max_bytes < 1:
            raise ConfigError("l1.max_entries and l1.max_bytes are at least 1; l1.mode = 'off' switches L1 off")
        self.region = region
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.versions = versions
        self.clock: Callable[[], int] = clock or time.monotonic_ns
        self.alive_until = NEVER  # what memos go by; 0 while `watch` is on
        self._alive = NEVER
        self._watched = False
        self._skip = skip
        self._lru = policy == "lru"
        self._share = isolation == "share"
        self._names: dict[str, int] = {}
        self._slots: dict[int, Slot] = {0: Slot(0)}
        self._empty()

    def _empty(self) -> None:
        self._small = Ring()  # always empty with LRU
        self._main = Ring()
        self._hand = self._small.head
        self._ghosts: OrderedDict[int, None] = OrderedDict()
        self._by_khash: dict[int, Entry | set[Entry]] = {}

    def slot(self, name: str) -> int:
        """The number of the slot of this name; the first call makes it."""
        with self.versions.lock:
            number = self._names.get(name)
            if number is None:
                number = self._names[name] = self.versions.new_slot()
                self._slots[number] = Slot(number)
            return number

    # -------------------------------------------------------------------------------------------------------- looking

    def get(self, slot: int, args: tuple[Any, ...]) -> Any:
        """The value, the caller's own copy if it can be changed, or MISS."""
        place = self._slots[slot]
        entry = self._find(place, args)
        if entry is not None:
            value = self.hit(entry)
            if value is not MISS:
                return value
        place.misses += 1
        return MISS

    def hit(self, entry: Entry) -> Any:
        """The value for a caller, counted; or MISS, not counted. Memos call it where ``until`` does not suffice."""
        now = self.clock()
        if entry.state != LIVE or now >= entry.fresh_until or self._outdated(entry):
            return MISS
        if (now >= self._alive and not entry.detached) or (self._watched and self._skip()):
            return MISS
        value = self._for_caller(entry)
        if value is not MISS:
            if entry.state == LIVE:  # no call from here to the count: an entry that leaves takes its count along
                entry.hits += 1
            else:  # it left while its value was copied
                entry.slot.retired += 1
            if self._lru:
                with self.versions.lock:
                    self._move(entry, self._main)
        return value

    def entry(self, slot: int, args: tuple[Any, ...]) -> EntryView | None:
        """What is kept for these arguments, fresh or not. Counts nothing."""
        entry = self._find(self._slots[slot], args)
        now = self.clock()
        if entry is None or entry.state != LIVE or now >= entry.keep_until or self._outdated(entry):
            return None
        value = self._for_caller(entry)
        if value is MISS:
            return None
        fresh_until = entry.fresh_until if entry.detached else min(entry.fresh_until, self._alive)
        return EntryView(
            value, fresh_until, entry.keep_until, entry.born, entry.tags, entry.load_ms, entry.khash, entry.mode,
            entry.negative, now, entry.early, entry.detached,
        )  # fmt: skip

    def _find(self, slot: Slot, args: tuple[Any, ...]) -> Entry | None:
        entry = slot.index.get(args[0] if len(args) == 1 else args)
        if entry is None:
            return None
        kinds = kinds_of(args)
        while entry is not None and entry.kinds != kinds:
            entry = entry.twin
        return entry

    def _outdated(self, entry: Entry) -> bool:
        """Whether one of its tags was invalidated after its ticket."""
        for tag in entry.tags:  # noqa: SIM110  any() with a generator costs a hit three times as much
            if self.versions.tag_event(tag) > entry.born:
                return True
        return False

    def _for_caller(self, entry: Entry) -> Any:
        if entry.mode != "copy":
            return entry.value
        try:
            return entry.renew(entry.value)
        except Exception:  # RecursionError on a stack that is deep already: better compute than fail
            return MISS

    # ------------------------------------------------------------------------------------------------------ inserting

    def put(
        self,
        slot: int,
        args: tuple[Any, ...],
        value: Any,
        *,
        khash: int,
        fresh_until: int,
        keep_until: int,
        ticket: int,
        tags: Iterable[str] = (),
        admission: Admission,
        load_ms: int = 0,
        negative: bool = False,
        detached: bool = False,
        early: bool = False,
        aside: bool = False,
    ) -> bool:
        """Keep a value. False if it was refused: invalidated since the ticket, or heavier than the table."""
        place = self._slots[slot]
        entry = Entry(place, args)
        mode = "share" if self._share and admission.mode == "copy" else admission.mode
        entry.value, entry.mode, entry.renew = adopt(value, mode)
        entry.weight = admission.weight
        entry.khash = khash
        entry.fresh_until = fresh_until
        entry.keep_until = max(keep_until, fresh_until)
        entry.born = ticket
        entry.tags = tuple(tags)
        entry.load_ms = load_ms
        entry.negative = negative
        entry.detached = detached
        entry.early = early
        entry.aside = aside
        dead: list[Entry] = []  # dies with this frame, after the lock is let go: destructors may take other locks
        with self.versions.lock:
            stored = self._allowed(entry) and self._insert(entry, args, dead)
        if stored:
            place.puts += 1
        else:
            place.refused += 1
        return stored

    def _allowed(self, entry: Entry) -> bool:
        return self.versions.allows(entry.born, entry.khash, entry.tags, entry.slot.number, self.region)

    def _insert(self, entry: Entry, args: tuple[Any, ...], dead: list[Entry]) -> bool:
        queue = self._main if self._lru else self._small
        old = self._find(entry.slot, args)
        if old is not None:
            queue = old.ring  # the key keeps its queue, with a fresh counter
            self._remove(old, dead)
        if entry.weight > self.max_bytes:
            return False
        self._expire(HAND, dead)
        self._make_room(entry.weight, dead)
        if self._ghosts.pop(entry.ghost, MISS) is not MISS:
            queue = self._main
        self._link(entry, queue)
        try:
            self._enter(entry)
        except BaseException:  # from __hash__ or __eq__ of an argument
            self._remove(entry, dead)
            raise
        return self._activate(entry, dead)

    def _activate(self, entry: Entry, dead: list[Entry]) -> bool:
        """Let the entry be seen, unless it was invalidated meanwhile by what ran on this thread during the insertion.

        It is in its place by now, so such an invalidation found it; tags and regions are asked for again. Nothing can
        come between the test of the state and its change.
        """
        simple = self._simple(entry)
        if not self._allowed(entry):
            self._remove(entry, dead)
        if entry.state == PENDING:
            entry.state = LIVE
            entry.until = entry.fresh_until if simple else 0  # read now: it may have been marked as stale
            return True
        self._leave(entry, dead)
        return False

    def _simple(self, entry: Entry) -> bool:
        """Whether memos may return its value without the table."""
        special = entry.tags or entry.negative or entry.aside
        return entry.mode != "copy" and not special and not self._lru

    def _link(self, entry: Entry, queue: Ring) -> None:
        queue.append(entry)
        entry.slot.entries += 1
        entry.slot.weight += entry.weight
        self._note(entry)
        if entry.state == DEAD:  # removed in between
            self._unnote(entry)

    def _note(self, entry: Entry) -> None:
        """Into the index by hash."""
        by_khash, khash = self._by_khash, entry.khash
        while True:
            same = by_khash.setdefault(khash, entry)
            if same is entry:
                return
            # No call from a look to the change that it allows, as in `_unnote`.
            if isinstance(same, set):
                if khash in by_khash and by_khash[khash] is same:
                    same.add(entry)
                if khash in by_khash and by_khash[khash] is same:
                    return
            elif khash in by_khash and by_khash[khash] is same:
                by_khash[khash] = {same, entry}
                return

    def _unnote(self, entry: Entry) -> None:
        """Out of the index by hash."""
        by_khash, khash = self._by_khash, entry.khash
        if khash in by_khash:  # no call from the look to the removal: somebody may add an entry of this hash meanwhile
            same = by_khash[khash]
            if same is entry:
                del by_khash[khash]
            elif isinstance(same, set):
                same.discard(entry)
                if not same and khash in by_khash and by_khash[khash] is same:
                    del by_khash[khash]

    def _enter(self, entry: Entry) -> None:
        """Make the entry the head of its chain, without the dead and those of the same arguments."""
        index = entry.slot.index
        head = index.setdefault(entry.key, entry)
        if head is not entry:
            others = [other for other in _chain(head) if other.state == LIVE and other.kinds != entry.kinds]
            _relink([entry, *others])
            index[entry.key] = entry

    # ------------------------------------------------------------------------------------------------------ freshness

    def refreshed(self, slot: int, args: tuple[Any, ...], fresh_until: int) -> bool:
        """Take an early entry for fresh until then. True to one caller, who refreshes it."""
        with self.versions.lock:
            now = self.clock()
            entry = self._find(self._slots[slot], args)
            if entry is None or now >= entry.keep_until or self._outdated(entry):
                return False
            until = min(fresh_until, entry.keep_until)
            simple = self._simple(entry)
            if entry.state == LIVE and entry.early:  # no call from here on: nobody else can be told the same
                entry.early = False
                entry.fresh_until = until
                entry.until = until if simple else 0
                return True
            return False

    def mark_stale(self, khash: int) -> int:
        """Let every entry of this hash be stale from now on. How many there were."""
        with self.versions.lock:
            now = self.clock()
            entries = self._of_khash(khash)
            for entry in entries:
                entry.early = False
                entry.until = 0
                entry.fresh_until = min(entry.fresh_until, now)
            return len(entries)

    # ------------------------------------------------------------------------------------------------------- evicting

    def _make_room(self, weight: int, dead: list[Entry]) -> None:
        small, main = self._small, self._main
        while True:
            crowded = small.entries + main.entries >= self.max_entries
            if not crowded and small.weight + main.weight + weight <= self.max_bytes:
                return
            victim = self._victim(by_weight=not crowded)
            if victim is None:
                return
            if not self._remove(victim, dead, "capacity"):
                self._unlink(victim)

    def _victim(self, *, by_weight: bool) -> Entry | None:
        """The entry that S3-FIFO gives up: what was wanted at most once leaves before it can crowd the main queue.

        With LRU only the main queue is used and its order is that of use.
        """
        small, main = self._small, self._main
        while small.entries or main.entries:
            full = small.entries * 10 >= self.max_entries or small.weight * 10 >= self.max_bytes
            queue = small if small.entries and (full or not main.entries) else main
            entry = queue.head.next
            if self._lru:
                return entry
            wanted = min(entry.hits - entry.mark, 3)
            light = self._lightness(entry) if by_weight else 0
            if queue is small:
                if wanted < min(2 - light, 3):
                    self._remember(entry)
                    return entry
                entry.mark = entry.hits
            else:
                if wanted + light < 1:
                    return entry
                entry.mark = entry.hits - wanted + 1
            self._move(entry, main)
        return None

    def _lightness(self, entry: Entry) -> int:
        """How many times the mean weight can be halved (below 0: doubled) without passing the entry's, at most 2."""
        total = self._small.weight + self._main.weight
        own = entry.weight * len(self)
        if own * 2 <= total:
            return 2 if own * 4 <= total else 1
        if own >= total * 2:
            return -2 if own >= total * 4 else -1
        return 0

    def _remember(self, entry: Entry) -> None:
        """A key that comes back soon goes straight to the main queue."""
        self._ghosts[entry.ghost] = None
        while len(self._ghosts) * 10 > (self._small.entries + self._main.entries) * 9:
            self._ghosts.popitem(last=False)

    def _expire(self, limit: int, dead: list[Entry]) -> int:
        """Let the hand look at the next entries, round both queues, and remove those that nobody can use any more."""
        removed = 0
        now = self.clock()
        for _ in range(min(limit, len(self))):
            entry = self._advance()
            if entry is None:
                break
            if now >= entry.keep_until:
                removed += self._remove(entry, dead, "expired")
            elif entry.tags and self._outdated(entry):
                removed += self._remove(entry, dead, "invalidated")
        return removed

    def _advance(self) -> Entry | None:
        """Move the hand to the next entry. No call and no loop in here: the entry it looks at might leave meanwhile."""
        small, main = self._small.head, self._main.head
        hand = self._hand.next
        if hand is small:
            hand = main.next
            if hand is main:
                hand = small.next
        elif hand is main:
            hand = small.next
            if hand is small:
                hand = main.next
        self._hand = hand
        return None if hand is small or hand is main else hand

    def _move(self, entry: Entry, queue: Ring) -> None:
        """Make the entry the youngest of a queue."""
        if entry.state == LIVE:
            self._unlink(entry)
            queue.append(entry)
            if entry.state == DEAD:  # removed between the two
                self._unlink(entry)

    def _unlink(self, entry: Entry) -> None:
        """Out of its ring, if it is in one; the hand steps back from it. No call in here."""
        before = entry.prev
        if before is not GONE:
            after = entry.next
            ring = entry.ring
            if self._hand is entry:
                self._hand = before
            before.next = after
            after.prev = before
            entry.prev = GONE
            entry.next = GONE
            ring.entries -= 1
            ring.weight -= entry.weight

    # ------------------------------------------------------------------------------------------------------- removing

    def drop(self, slot: int, args: tuple[Any, ...]) -> bool:
        """Remove the entry of these arguments. Whether there was one."""
        dead: list[Entry] = []
        with self.versions.lock:
            entry = self._find(self._slots[slot], args)
            return entry is not None and self._remove(entry, dead, "invalidated")

    def drop_key(self, khash: int) -> int:
        """Remove every entry of this hash. How many there were."""
        dead: list[Entry] = []
        with self.versions.lock:
            return sum([self._remove(entry, dead, "invalidated") for entry in self._of_khash(khash)])

    def _of_khash(self, khash: int) -> list[Entry]:
        same = self._by_khash.get(khash)
        return [] if same is None else list(same) if isinstance(same, set) else [same]

    def drop_slot(self, slot: int) -> int:
        """Remove every entry of a slot. How many there were."""
        dead: list[Entry] = []
        with self.versions.lock:
            return self._forget(self._slots[slot], dead)

    def clear(self) -> int:
        """Remove every entry. How many there were."""
        dead: list[Entry] = []
        with self.versions.lock:
            return sum([self._forget(slot, dead) for slot in list(self._slots.values())])

    def _remove(self, entry: Entry, dead: list[Entry], reason: str | None = None) -> bool:
        """Take an entry out of everything. False if that was done before."""
        if self._kill(entry, dead, reason):
            self._leave(entry, dead)
            return True
        return False

    def _kill(self, entry: Entry, dead: list[Entry], reason: str | None) -> bool:
        """Make an entry invisible and take it out of all but the index of its slot."""
        if entry.state == DEAD:
            return False
        entry.state = DEAD
        entry.until = 0
        slot = entry.slot
        slot.entries -= 1
        slot.weight -= entry.weight
        slot.retired += entry.hits
        if reason is not None:
            slot.evictions[reason] += 1
        dead.append(entry)
        self._unlink(entry)
        self._unnote(entry)
        return True

    def _leave(self, entry: Entry, dead: list[Entry]) -> None:
        """Out of the index. A key whose hash has changed or fails is not found again: then its slot is forgotten."""
        index = entry.slot.index
        try:
            head = index.get(entry.key)
            rest = [other for other in _chain(head) if other.state != DEAD]
            _relink(rest)
            if rest:
                index[entry.key] = rest[0]
            elif head is not None:
                del index[entry.key]
        except Exception:
            head = None
        if head is None and any(other is entry for other in list(index.values())):
            self._forget(entry.slot, dead)

    def _forget(self, slot: Slot, dead: list[Entry]) -> int:
        """Remove every entry of a slot without asking the keys for their hashes."""
        entries = [entry for head in list(slot.index.values()) for entry in _chain(head)]
        slot.index.clear()
        return sum([self._kill(entry, dead, "invalidated") for entry in entries])

    def alive(self, until: int) -> None:
        """No hits from this time on (ns of the clock), but of detached entries, until it is moved on."""
        self._alive = until
        self.alive_until = 0 if self._watched else until

    def watch(self, on: bool) -> None:
        """Whether each hit must ask ``skip``."""
        self._watched = on
        self.alive_until = 0 if on else self._alive

    def sweep(self, limit: int) -> int:
        """Look at the next `limit` entries and remove those that expired. How many were removed."""
        dead: list[Entry] = []
        with self.versions.lock:
            return self._expire(limit, dead)

    def reset(self) -> None:
        """In a forked child, before anything else: an empty table, whatever other threads were doing to it."""
        old: list[Entry] = []
        for slot in self._slots.values():
            slot.restart()
            old += [entry for head in list(slot.index.values()) for entry in _chain(head)]
        self._empty()
        for entry in old:
            entry.state = DEAD
            entry.until = 0
            entry.prev = entry.next = GONE
        for slot in self._slots.values():
            slot.index.clear()

    # ------------------------------------------------------------------------------------------------------- counting

    def stats(self, slot: int | None = None) -> Stats:
        """Counts of one slot, or of all. Adds up the hits of the entries: for scrapes and ticks, not for every call."""
        with self.versions.lock:
            slots = list(self._slots.values()) if slot is None else [self._slots[slot]]
            return Stats(
                sum([place.retired + _hits(place) for place in slots]),
                sum([place.misses for place in slots]),
                sum([place.entries for place in slots]),
                sum([place.weight for place in slots]),
                {reason: sum([place.evictions[reason] for place in slots]) for reason in slots[0].evictions},
                sum([place.puts for place in slots]),
                sum([place.refused for place in slots]),
            )

    def take_loads(self, slot: int) -> tuple[int, list[float]]:
        """Loads that ran without Python since the last time, and their seconds: none here."""
        return 0, []

    def __len__(self) -> int:
        return self._small.entries + self._main.entries

    @property
    def weight(self) -> int:
        """The estimated bytes of all values."""
        return self._small.weight + self._main.weight


def _relink(chain: list[Entry]) -> None:
    for entry, twin in zip(chain, [*chain[1:], None], strict=False):
        entry.twin = twin


def _hits(slot: Slot) -> int:
    return sum([entry.hits for head in list(slot.index.values()) for entry in _chain(head) if entry.state == LIVE])
