"""Whether loads are running whose values go into L2: then hits of tables with an L2 are looked at one by one.

A cached call inside of such a load must not be answered by L1 (`cachekit.context.inside_load`), and the generated code
of a hit does not know where it runs. While no load runs, which is nearly always, hits cost nothing extra.
"""

from cachekit.l1.table import Table, Versions


class Nesting:
    """The running loads of one service and the tables whose hits they concern."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._running = 0
        self._tables: list[Table] = []

    def add(self, table: Table) -> None:
        """A table with an L2."""
        with self._versions.lock:
            self._tables.append(table)
            table.watch(self._running > 0)

    def enter(self, shared: bool) -> None:
        """A function begins to run; ``shared``: its value goes into L2."""
        if shared:
            with self._versions.lock:
                self._running += 1
                if self._running == 1:
                    self._watch(True)

    def leave(self, shared: bool) -> None:
        """It ended."""
        if shared:
            with self._versions.lock:
                self._running = max(0, self._running - 1)  # less only in a child that was forked inside of a load
                if self._running == 0:
                    self._watch(False)

    def after_fork(self) -> None:
        """In a forked child: nothing is running here."""
        self._running = 0
        self._watch(False)

    def _watch(self, on: bool) -> None:
        for table in self._tables:
            table.watch(on)
