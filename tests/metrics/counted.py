"""A service reduced to what metrics read, with real tallies: counts move without a cache, a store or a clock."""

from collections.abc import Callable
from types import SimpleNamespace

from cachekit.config.spec import MetricsSpec, ServiceSpec
from cachekit.engine.events import Tally


class Counted:
    def __init__(self, **metrics) -> None:
        self.spec = ServiceSpec(metrics=MetricsSpec(**metrics))
        self.counts: list[Tally] = []
        self.stats = SimpleNamespace(entries=0, weight=0, evictions={}, hits=0, misses=0)
        self.backends: dict[str, SimpleNamespace] = {}
        self.ticks: list[Callable[[], None]] = []
        self.closers: list[Callable[[], None]] = []
        self.forks: list[Callable[[], None]] = []
        self._table = SimpleTable(self.stats)
        self.on_tick, self.on_close, self.on_fork = self.ticks.append, self.closers.append, self.forks.append

    def keep_ticking(self) -> None:
        """Ticks come from the test."""

    def tally(self, region: str = "users", function: str = "app.load", l1_hits: int = 0) -> Tally:
        self.counts.append(Tally(region, function, lambda: l1_hits))
        return self.counts[-1]

    def tallies(self):
        return self.counts

    def tables(self):
        return [("users", self._table)]

    def health(self):
        return SimpleNamespace(ok=True, backends=self.backends)


class SimpleTable:
    def __init__(self, stats) -> None:
        self.stats = lambda: stats
