import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from counted import Counted
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from cachekit.metrics import attach, exposition, register

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def samples(service, accept=None):
    """{(sample name, labels): value} of one scrape, read with the official parser of its format."""
    content_type, body = exposition(service, accept)
    parse = parse_openmetrics if content_type.startswith("application/openmetrics-text") else parse_text
    return flat(parse(body.decode()))


def flat(families):
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def value(scraped, name, **labels):
    return scraped[name, tuple(sorted(labels.items()))]


@pytest.mark.parametrize("accept", [None, "*/*", OPENMETRICS], ids=["none", "any", "openmetrics"])
def test_what_a_function_counted_is_scraped_under_the_promised_names(accept):
    service = Counted()
    tally = service.tally(region="users", function="app.load", l1_hits=7)
    tally.l2_hits, tally.misses, tally.loads, tally.load_errors, tally.stores, tally.waited = 2, 5, 4, 1, 3, 6
    tally.error("get", "timeout")
    tally.hit_seconds.extend([0.0002, 0.3])
    tally.miss_seconds.append(1.5)
    scraped = samples(service, accept)
    of = {"region": "users", "function": "app.load"}
    assert value(scraped, "cachekit_cache_hits_total", tier="l1", **of) == 7
    assert value(scraped, "cachekit_cache_hits_total", tier="l2", **of) == 2
    assert value(scraped, "cachekit_cache_misses_total", **of) == 5
    assert value(scraped, "cachekit_cache_loads_total", result="ok", **of) == 4
    assert value(scraped, "cachekit_cache_loads_total", result="error", **of) == 1
    assert value(scraped, "cachekit_cache_stores_total", **of) == 3
    assert value(scraped, "cachekit_cache_waited_total", **of) == 6
    assert value(scraped, "cachekit_cache_errors_total", op="get", reason="timeout", **of) == 1
    assert value(scraped, "cachekit_cache_hit_latency_seconds_count", **of) == 2
    assert value(scraped, "cachekit_cache_hit_latency_seconds_bucket", le="0.00025", **of) == 1
    assert value(scraped, "cachekit_cache_miss_latency_seconds_sum", **of) == 1.5


def test_the_help_says_what_the_latencies_sample():
    service = Counted()
    _, body = exposition(service)
    helps = {line.split()[2]: line for line in body.decode().splitlines() if line.startswith("# HELP")}
    assert "4096" in helps["cachekit_cache_hit_latency_seconds"]
    assert "first tier" in helps["cachekit_cache_hit_latency_seconds"]


def test_a_scrape_adds_only_what_is_new():
    service = Counted()
    tally = service.tally()
    for so_far in (3, 3, 10):
        tally.misses = so_far
        assert value(samples(service), "cachekit_cache_misses_total", region="users", function="app.load") == so_far


def test_a_function_that_was_never_called_shows_zeros():
    service = Counted()
    service.tally()
    scraped = samples(service)
    assert value(scraped, "cachekit_cache_hits_total", tier="l1", region="users", function="app.load") == 0
    assert value(scraped, "cachekit_cache_misses_total", region="users", function="app.load") == 0


def test_two_tallies_of_one_name_are_one_series():
    service = Counted()
    service.tally().misses = 2
    service.tally().misses = 3
    assert value(samples(service), "cachekit_cache_misses_total", region="users", function="app.load") == 5


def test_gauges_show_the_present():
    service = Counted()
    service.stats.entries, service.stats.weight = 12, 3456
    service.backends["main"] = SimpleNamespace(state="up", breaker="closed", budget_ms=125.0)
    scraped = samples(service)
    assert value(scraped, "cachekit_cache_entries", region="users") == 12
    assert value(scraped, "cachekit_cache_bytes", region="users") == 3456
    assert value(scraped, "cachekit_backend_up", backend="main") == 1
    assert value(scraped, "cachekit_backend_breaker_state", backend="main") == 0
    assert value(scraped, "cachekit_backend_budget_seconds", backend="main") == 0.125
    service.backends["main"] = SimpleNamespace(state="down", breaker="open", budget_ms=250.0)
    scraped = samples(service)
    assert value(scraped, "cachekit_backend_up", backend="main") == 0
    assert value(scraped, "cachekit_backend_breaker_state", backend="main") == 2


def test_a_backend_that_nobody_used_is_neither_up_nor_down():
    service = Counted()
    service.backends["main"] = SimpleNamespace(state="unused", breaker="closed", budget_ms=0.0)
    assert not [name for name, _ in samples(service) if name.startswith("cachekit_backend")]


def test_evictions_count_by_reason():
    service = Counted()
    service.stats.evictions.update(size=4, expired=1)
    scraped = samples(service)
    assert value(scraped, "cachekit_cache_evictions_total", region="users", reason="size") == 4
    service.stats.evictions["size"] = 6
    scraped = samples(service)
    assert value(scraped, "cachekit_cache_evictions_total", region="users", reason="size") == 6
    assert value(scraped, "cachekit_cache_evictions_total", region="users", reason="expired") == 1


def test_each_service_has_its_own_figures():
    first, second = Counted(), Counted()
    first.tally().misses = 1
    second.tally().misses = 2
    assert value(samples(first), "cachekit_cache_misses_total", region="users", function="app.load") == 1
    assert value(samples(second), "cachekit_cache_misses_total", region="users", function="app.load") == 2


def test_the_service_is_asked_to_pump_at_its_tick_and_when_it_closes():
    service = Counted()
    tally = service.tally()
    metrics = attach(service)
    assert attach(service) is metrics
    for due in (*service.ticks, *service.closers):
        tally.misses += 1
        due()
        reported = flat(metrics.instruments.registry.collect())
        assert value(reported, "cachekit_cache_misses_total", region="users", function="app.load") == tally.misses
    assert len(service.ticks) == len(service.closers) == 1


def test_metrics_do_not_keep_a_service_alive():
    import gc
    import weakref

    service = Counted()
    attach(service)
    there = weakref.ref(service)
    del service
    gc.collect()
    assert there() is None


def test_concurrent_counting_and_scraping_loses_and_doubles_nothing():
    service = Counted()
    tallies = [service.tally(function=f"app.f{n}") for n in range(4)]
    stop = threading.Event()

    def count(tally):
        for _ in range(3000):
            tally.misses += 1
            tally.miss_seconds.append(0.001)

    def scrape():
        while not stop.is_set():
            samples(service)

    scrapers = [threading.Thread(target=scrape) for _ in range(2)]
    counters = [threading.Thread(target=count, args=(tally,)) for tally in tallies]
    for thread in (*scrapers, *counters):
        thread.start()
    for thread in counters:
        thread.join()
    stop.set()
    for thread in scrapers:
        thread.join()
    scraped = samples(service)
    for n in range(4):
        assert value(scraped, "cachekit_cache_misses_total", region="users", function=f"app.f{n}") == 3000
        assert value(scraped, "cachekit_cache_miss_latency_seconds_count", region="users", function=f"app.f{n}") == 3000


class TestRegister:
    """The application shows our metrics with its own."""

    def test_joins_a_registry_once_and_follows_the_counts(self):
        service, registry = Counted(), CollectorRegistry(auto_describe=True)
        tally = service.tally(region="joined", function="app.once")
        register(service, registry)
        register(service, registry)
        for misses in (4, 9):
            tally.misses = misses
            families = list(parse_text(generate_latest(registry).decode()))
            names = [family.name for family in families]
            assert len(names) == len(set(names))
            of = {"region": "joined", "function": "app.once"}
            assert value(flat(families), "cachekit_cache_misses_total", **of) == misses

    def test_two_services_in_one_registry_add_up(self):
        registry = CollectorRegistry(auto_describe=True)
        for misses in (2, 5):
            service = Counted()
            service.tally(region="both", function="app.sum").misses = misses
            register(service, registry)
            self.keep = [*getattr(self, "keep", []), service]
        scraped = flat(parse_text(generate_latest(registry).decode()))
        assert value(scraped, "cachekit_cache_misses_total", region="both", function="app.sum") == 7

    def test_a_service_that_was_scraped_before_loses_nothing_by_joining(self):
        service, registry = Counted(), CollectorRegistry(auto_describe=True)
        tally = service.tally(region="moved", function="app.moved")
        tally.misses = 3
        samples(service)
        register(service, registry)
        tally.miss_seconds.extend([0.1, 0.2])
        for due in service.ticks:  # the tick of before must not take samples away
            due()
        scraped = flat(parse_text(generate_latest(registry).decode()))
        of = {"region": "moved", "function": "app.moved"}
        assert value(scraped, "cachekit_cache_misses_total", **of) == 3
        assert value(scraped, "cachekit_cache_miss_latency_seconds_count", **of) == 2
        assert value(samples(service), "cachekit_cache_misses_total", **of) == 3

    def test_the_registry_knows_our_names(self):
        service, registry = Counted(), CollectorRegistry(auto_describe=True)
        register(service, registry)
        restricted = registry.restricted_registry(["cachekit_cache_misses_total"])
        assert {family.name for family in restricted.collect()} <= {"cachekit_cache_misses"}
        from prometheus_client import Counter

        with pytest.raises(ValueError, match="Duplicated timeseries"):
            Counter("cachekit_cache_misses", "taken", registry=registry)


def test_importing_cachekit_does_not_load_prometheus_client():
    code = "import sys, cachekit, cachekit.engine.events; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


MULTIPROCESS = """
import os, sys
sys.path.insert(0, {here!r})
from counted import Counted
from cachekit.metrics import attach, exposition

service, other = Counted(), Counted()
tally = service.tally(function="app.load")
other.tally(function="app.load").misses = 100      # a second service of the same process: they add up
attach(service).pump()
attach(other).pump()
tally.misses, service.stats.entries = 5, 10
tally.miss_seconds.append(0.5)
attach(service).pump()
tally.misses = 7                                    # two are not reported yet when the children start
tally.miss_seconds.append(0.5)
children = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        for hook in service.forks + other.forks:
            hook()
        tally.misses += 3
        tally.miss_seconds.append(0.5)
        for tick in service.ticks:
            tick()
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
sys.stdout.buffer.write(exposition(service)[1])
"""


def test_in_multi_process_mode_a_scrape_shows_all_processes_exactly(tmp_path):
    """Parent 7, two children 3 each, another service of the parent 100; what the children inherited counts once."""
    here = os.path.dirname(__file__)  # noqa: PTH120
    done = subprocess.run(
        [sys.executable, "-c", MULTIPROCESS.format(here=here)],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    scraped = flat(parse_text(done.stdout.decode()))
    of = {"region": "users", "function": "app.load"}
    assert value(scraped, "cachekit_cache_misses_total", **of) == 113
    assert value(scraped, "cachekit_cache_miss_latency_seconds_count", **of) == 4
    assert value(scraped, "cachekit_cache_entries", region="users") == 30  # each process holds its own ten
    assert not [name for name, _ in scraped if not name.startswith("cachekit_")]
