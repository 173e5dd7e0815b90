"""When hits are looked at one by one: while loads run whose values go into L2, and while somebody is without the cache.

A cached call inside of such a load must not be answered by L1 (`cachekit.context.inside_load`), nor one in a context
where the cache is switched off (`cachekit.context.disabled`), and the generated code of a hit does not know where it
runs. While there is neither, which is nearly always, hits cost nothing extra.
"""

from cachekit.l1.table import Table, Versions


class Nesting:
    """The running loads of one service and the tables whose hits they concern."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._running = 0
        self._off = False
        self._tables: list[tuple[Table, bool]] = []

    def add(self, table: Table, shared: bool) -> None:
        """A table; ``shared``: it has an L2."""
        with self._versions.lock:
            self._tables.append((table, shared))
            table.watch(self._off or (shared and self._running > 0))

    def enter(self, shared: bool) -> None:
        """A function begins to run; ``shared``: its value goes into L2."""
        if shared:
            with self._versions.lock:
                self._running += 1
                if self._running == 1:
                    self._watch()

    def leave(self, shared: bool) -> None:
        """It ended."""
        if shared:
            with self._versions.lock:
                self._running = max(0, self._running - 1)  # less only in a child that was forked inside of a load
                if self._running == 0:
                    self._watch()

    def off(self, somewhere: bool) -> None:
        """Whether somebody may have switched the cache off for itself."""
        with self._versions.lock:
            self._off = somewhere
            self._watch()

    def after_fork(self, off: bool) -> None:
        """In a forked child: nothing is running here. ``off`` as above."""
        self._running = 0
        self._off = off
        self._watch()

    def _watch(self) -> None:
        for table, shared in self._tables:
            table.watch(self._off or (shared and self._running > 0))
