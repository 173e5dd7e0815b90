"""What this process holds of one backend, and what becomes of it when something changes there.

Tables of L1, cells (stamps that are known here), and callers who wait for a key. `Coherence` hears of changes and
says when nothing can be relied on any more; this module knows what that reaches.
"""

from collections.abc import Iterable
from math import inf
from typing import Final

from cachekit.engine import keys
from cachekit.l1.table import NEVER, Table, Versions
from cachekit.l2.parking import Parking
from cachekit.l2.stamps import Cells

SHORT: Final = 5.0  # seconds; a shorter TTL is not worth hearing of each expiry


class Reach:
    """Every method but `add` and `owns` is called with ``versions.lock`` held."""

    def __init__(self, namespace: str, versions: Versions, cells: Cells) -> None:
        self._namespace = namespace
        self.versions = versions
        self.cells = cells
        self.parking = Parking()
        self.wanted: set[str] = set()  # regions whose changes L1 must hear of
        self.covered: frozenset[str] = frozenset()  # ... and of which it does
        self.unproven = False  # whether L1 took values that no push would reach
        self.alive_until = NEVER
        self._tables: dict[str, list[Table]] = {}
        self._slots: dict[str, set[tuple[int, Table | None]]] = {}

    def add(self, region: str, table: Table, ttl: float | None) -> bool:
        """A table whose entries this backend has too. Whether changes in its region must be heard of from now on."""
        with self.versions.lock:
            self._tables.setdefault(region, []).append(table)
            table.alive(self.alive_until)
            new = region not in self.wanted and (ttl is None or ttl >= SHORT)
            if new:
                self.wanted.add(region)
            return new

    def owns(self, stamp: str, slot: int, table: Table | None) -> None:
        """Which slot of which table a function's stamp covers."""
        with self.versions.lock:
            self._slots.setdefault(stamp, set()).add((slot, table))

    def prefix(self, region: str) -> str:
        """What the keys of all values of a region begin with."""
        return f"{self._namespace}:v:{{{region}:"

    @property
    def stamp_prefix(self) -> str:
        """What all stamps begin with."""
        return f"{self._namespace}:t:{{"

    # What happens

    def changed(self, name: str) -> None:
        """Somebody, perhaps this process, wrote or deleted this name, or it expired."""
        rest = name[len(self._namespace) + 1 :]
        if rest.startswith("v:{"):
            khash = keys.khash(name.encode(errors="surrogateescape"))
            self.versions.bump_key(khash)
            for table in self._tables.get(rest[3 : rest.find(":", 3)], ()):
                table.drop_key(khash)
            self.parking.wake(khash)
        elif rest.startswith("t:{"):
            self.cells.forget((name,))
            self._cleared(name, rest)
            self.parking.wake(name)

    def _cleared(self, name: str, rest: str) -> None:
        region, _, kind = rest[3:].partition("}:")
        if region == "_":
            if not kind.startswith("#"):  # the clock of the tags covers no entry
                self.versions.bump_tags((kind,))
        elif kind == "#":
            self.forget_region(region)
        else:
            for slot, table in self._slots.get(name, ()):
                self.versions.bump_slot(slot)
                if table is not None:
                    table.drop_slot(slot)

    def forget_region(self, region: str) -> None:
        """Nothing of a region is kept, and nothing that was read before."""
        self.versions.bump_region(region)
        for table in self._tables.get(region, ()):
            table.clear()

    def lost(self) -> None:
        """Changes may go unheard from now on. Entries stay as long as the last proof lasts; nothing joins them."""
        self.covered = frozenset()
        self.versions.bump_all()
        self.cells.forget_all()
        self.parking.wake_all()

    def empty(self) -> None:
        """Changes may have gone unheard: nothing is kept, and nothing that was read before."""
        self.unproven = False
        self.versions.bump_all()
        self.cells.forget_all()
        for tables in self._tables.values():
            for table in tables:
                table.clear()

    def alive(self, until: float) -> None:
        """What was kept because changes are heard of may be used until then (seconds of the service's clock)."""
        self.cells.alive_until = until
        self.alive_until = NEVER if until == inf else int(until * 1e9)
        for tables in self._tables.values():
            for table in tables:
                table.alive(self.alive_until)

    def regions(self) -> Iterable[str]:
        """Those that are still to be covered."""
        return sorted(self.wanted - self.covered)

    def after_fork(self) -> None:
        """In a forked child, whose tables are empty."""
        self.covered = frozenset()
        self.unproven = False
        self.cells.forget_all()
        self.alive(inf)
        self.parking.after_fork()
