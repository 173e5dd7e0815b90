"""The prometheus_client metrics that `prometheus` feeds: every name, text and label, in a registry of their own."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
AGES = (1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400)
CALL = ("region", "function")


class Instruments:
    """One set of metrics. Counters only grow; gauges say how they add up over the processes of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls()
        self._answers()
        self._latencies()
        self._backends()

    def _calls(self) -> None:
        """How calls were answered, and what became of values."""
        self.hits = self._counter("hits", "Calls answered from a tier, l1 or l2.", "region", "tier", "function")
        self.misses = self._counter("misses", "Calls that neither tier could answer, but for those that waited.", *CALL)
        self.waited = self._counter("waited", "Calls answered by another caller's load.", *CALL)
        self.loads = self._counter("loads", "Runs of the cached function, ok or error.", *CALL, "result")
        self.stores = self._counter("stores", "Values that the second tier took.", *CALL)
        self.errors = self._counter(
            "errors", "Failed operations; the caller was served nevertheless.", *CALL, "op", "reason"
        )
        self.evictions = self._counter("evictions", "Entries that left the first tier.", "region", "reason")
        self.lease_waits = self._counter(
            "lease_waits",
            "Calls that waited for another process's load: served, or impatient and computed nevertheless.",
            *CALL,
            "result",
        )
        self.entries = self._gauge("cache_entries", "Entries in the first tier.", "region", "livesum")
        self.bytes = self._gauge("cache_bytes", "Estimated bytes of the first tier.", "region", "livesum")

    def _answers(self) -> None:
        """What was given in place of a fresh value, and what hits saved."""
        self.stale = self._counter("stale", "Calls answered with a value past its TTL.", *CALL)
        self.fallbacks = self._counter("fallbacks", "Calls answered with the fallback.", *CALL)
        self.refreshes = self._counter(
            "refreshes",
            "Refreshes that no caller waited for, by what began them (early, swr) and how they ended: stored, found "
            "(another process was first), busy (another process is at it), failed, dropped (too many wait).",
            *CALL,
            "trigger",
            "result",
        )
        self.timeouts = self._counter("timeouts", "Calls that waited no longer for the function.", *CALL, "kind")
        self.responses = Counter(
            "cachekit_http_responses",
            "Responses of routes and rules that keep pages: HIT, MISS, STALE, or BYPASS (it went around the cache).",
            ("region", "route", "result"),
            registry=self.registry,
        )
        self.saved = self._counter(
            "saved_seconds",
            "What hits would have taken, had each run the function for as long as it takes on average.",
            *CALL,
        )

    def _latencies(self) -> None:
        """Seconds, each a sample."""
        self.stale_age = self._histogram(
            "stale_age",
            "How long past their TTL the values were that stood in for fresh ones, a sample.",
            AGES,
        )
        self.load_latency = self._histogram(
            "load_latency", "Time of the function's runs, a sample: at most the last 4096 per function and second."
        )
        self.hit_latency = self._histogram(
            "hit_latency",
            "Time of second-tier hits, a sample: at most the last 4096 per function and second. "
            "Hits of the first tier take well under a microsecond in the native core and are not timed.",
        )
        self.miss_latency = self._histogram(
            "miss_latency", "Time of misses, load included, a sample: at most the last 4096 per function and second."
        )

    def _backends(self) -> None:
        """How the second tier does."""
        self.up = self._gauge(
            "backend_up", "1 while the backend answers, 0 while not; absent until it is used.", "backend", "livemin"
        )
        self.breaker = self._gauge(
            "backend_breaker_state", "Circuit breaker: 0 closed, 1 half open, 2 open.", "backend", "livemax"
        )
        self.budget = self._gauge(
            "backend_budget_seconds", "Longest wait for one operation at present.", "backend", "livemax"
        )
        self.coherence = self._gauge(
            "backend_coherence",
            "How the first tier keeps up: 2 hears of changes, 1 not at the moment, 0 entries end by themselves.",
            "backend",
            "livemin",
        )
        self.pending = self._gauge(
            "backend_pending_invalidations", "Invalidations that the backend has not heard.", "backend", "livesum"
        )
        self.losses = Counter(
            "cachekit_backend_coherence_losses",
            "Connections for hearing of changes that ended by themselves.",
            ("backend",),
            registry=self.registry,
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"cachekit_cache_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float] = SECONDS) -> Histogram:
        return Histogram(f"cachekit_cache_{name}_seconds", text, CALL, registry=self.registry, buckets=buckets)

    def _gauge(self, name: str, text: str, label: str, mode: str) -> Gauge:
        return Gauge(f"cachekit_{name}", text, (label,), registry=self.registry, multiprocess_mode=mode)  # type: ignore[arg-type]
