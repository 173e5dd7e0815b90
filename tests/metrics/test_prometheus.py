import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from cachekit import cache
from cachekit.config.spec import default_service as default_spec
from cachekit.engine.events import Tally
from cachekit.metrics import attach, exposition, register
from cachekit.metrics.prometheus import Instruments, _tally_readings
from cachekit.process import replace_default
from cachekit.service import Service
from cachekit.testing.servers import start_server

OF = {"region": "users", "function": "app.load"}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PATIENT = {"budget": "10s", "adaptive": False}  # the machine may be busy


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
def test_what_a_function_counted_is_scraped_under_the_promised_names(make_service, count, accept):
    service = make_service()
    tally = count(service, l2_hits=2, misses=5, loads=4, load_errors=1, stores=3, waited=6, lease_waits=7, impatient=2)
    tally.error("get", "timeout")
    tally.hit_seconds.extend([0.0002, 0.3])
    tally.miss_seconds.append(1.5)
    scraped = samples(service, accept)
    assert value(scraped, "cachekit_cache_hits_total", tier="l1", **OF) == 0
    assert value(scraped, "cachekit_cache_hits_total", tier="l2", **OF) == 2
    assert value(scraped, "cachekit_cache_misses_total", **OF) == 5
    assert value(scraped, "cachekit_cache_loads_total", result="ok", **OF) == 4
    assert value(scraped, "cachekit_cache_loads_total", result="error", **OF) == 1
    assert value(scraped, "cachekit_cache_stores_total", **OF) == 3
    assert value(scraped, "cachekit_cache_waited_total", **OF) == 6
    assert value(scraped, "cachekit_cache_lease_waits_total", result="served", **OF) == 5
    assert value(scraped, "cachekit_cache_lease_waits_total", result="impatient", **OF) == 2
    assert value(scraped, "cachekit_cache_errors_total", op="get", reason="timeout", **OF) == 1
    assert value(scraped, "cachekit_cache_hit_latency_seconds_count", **OF) == 2
    assert value(scraped, "cachekit_cache_hit_latency_seconds_bucket", le="0.00025", **OF) == 1
    assert value(scraped, "cachekit_cache_miss_latency_seconds_sum", **OF) == 1.5


@pytest.mark.parametrize("accept", [None, OPENMETRICS], ids=["none", "openmetrics"])
def test_what_stood_in_for_fresh_values_is_scraped_under_the_promised_names(make_service, count, accept):
    service = make_service()
    tally = count(service, fallbacks=3, l2_hits=4)
    tally.served_stale(2.0)
    tally.served_stale(700.0)
    for trigger, result in (("early", "stored"), ("swr", "failed"), ("swr", "failed")):
        tally.refreshed(trigger, result)
    tally.gave_up("soft")
    tally.ran(0.5)
    tally.ran(1.5)
    scraped = samples(service, accept)
    assert value(scraped, "cachekit_cache_stale_total", **OF) == 2
    assert value(scraped, "cachekit_cache_fallbacks_total", **OF) == 3
    assert value(scraped, "cachekit_cache_refreshes_total", trigger="early", result="stored", **OF) == 1
    assert value(scraped, "cachekit_cache_refreshes_total", trigger="swr", result="failed", **OF) == 2
    assert value(scraped, "cachekit_cache_timeouts_total", kind="soft", **OF) == 1
    assert value(scraped, "cachekit_cache_saved_seconds_total", **OF) == 4.0  # four hits, a second on average
    assert value(scraped, "cachekit_cache_load_latency_seconds_sum", **OF) == 2.0
    assert value(scraped, "cachekit_cache_stale_age_seconds_count", **OF) == 2
    assert value(scraped, "cachekit_cache_stale_age_seconds_bucket", le="5.0", **OF) == 1
    assert value(scraped, "cachekit_cache_stale_age_seconds_sum", **OF) == 702.0
    again = samples(service, accept)
    assert value(again, "cachekit_cache_stale_age_seconds_count", **OF) == 2
    assert value(again, "cachekit_cache_saved_seconds_total", **OF) == 4.0


def test_time_saved_never_goes_back(make_service, count):
    """Slow runs are followed by fast ones: the average falls, and what was shown stays."""
    service = make_service()
    tally = count(service, l2_hits=10)
    tally.ran(1.0)
    assert value(samples(service), "cachekit_cache_saved_seconds_total", **OF) == 10.0
    for _ in range(9):
        tally.ran(0.0)
    assert value(samples(service), "cachekit_cache_saved_seconds_total", **OF) == 10.0
    count(service, l2_hits=100)
    assert value(samples(service), "cachekit_cache_saved_seconds_total", **OF) == 11.0


def test_a_call_of_each_kind_counts_what_the_page_says(make_service):
    """A stale answer at once is no miss, one after a failure is a miss besides; a refresh behind is a miss."""
    service = make_service(users={"stale_ttl": "1h", "swr": True, "stale_throttle": 0})
    before, runs = replace_default(service), []

    @cache(profile="users")
    def load(n):
        runs.append(n)
        if len(runs) == 3:
            raise OSError
        return n

    def counts():
        (tally,) = [tally for tally in service.tallies() if tally.function]
        tally.take_in()
        return tally.l1_hits(), tally.misses, tally.stale, dict(tally.refreshes)

    try:
        load(1)
        load(1)
        assert counts() == (1, 1, 0, {})
        load.mark_stale(1)
        load(1)
        assert service.workers.settle()
        assert counts() == (1, 2, 1, {("swr", "stored"): 1})
        load.mark_stale(1)
        load(1)
        assert service.workers.settle()
        assert counts() == (1, 3, 2, {("swr", "stored"): 1, ("swr", "failed"): 1})
    finally:
        replace_default(before)


def test_hits_misses_and_the_table_of_a_region_are_scraped(make_service):
    service = make_service(users={"l1": {"max_entries": 100}})
    users = service.region("users")
    for key in range(150):
        users.set(key, "x" * 10)
    hits = sum(users.get(key) is not None for key in range(150))
    scraped = samples(service)
    direct = {"region": "users", "function": ""}
    assert hits == 100
    assert value(scraped, "cachekit_cache_hits_total", tier="l1", **direct) == 100
    assert value(scraped, "cachekit_cache_misses_total", **direct) == 50
    assert value(scraped, "cachekit_cache_entries", region="users") == 100
    assert value(scraped, "cachekit_cache_bytes", region="users") > 1000
    assert value(scraped, "cachekit_cache_evictions_total", region="users", reason="capacity") == 50
    users.clear()
    scraped = samples(service)
    assert value(scraped, "cachekit_cache_entries", region="users") == 0
    assert value(scraped, "cachekit_cache_hits_total", tier="l1", **direct) == 100


def test_a_backend_shows_nothing_before_its_use_and_then_how_it_does(make_service, dead_port):
    backend = {"url": f"redis://127.0.0.1:{dead_port}/0", "budget": "500ms"}
    backend["breaker"] = {"failures": 2, "open_for": "1m", "open_max": "1m"}
    service = make_service(users={"backend": "main"}, backends={"main": backend})
    assert not [name for name, _ in samples(service) if name.startswith("cachekit_backend")]
    for _ in range(5):
        service.region("users").get("x")
    scraped = samples(service)
    assert value(scraped, "cachekit_backend_up", backend="main") == 0
    assert value(scraped, "cachekit_backend_breaker_state", backend="main") == 2
    assert 0 < value(scraped, "cachekit_backend_budget_seconds", backend="main") <= 0.5
    failed = [dict(labels) for name, labels in scraped if name == "cachekit_cache_errors_total"]
    assert {labels["op"] for labels in failed} == {"get"}


def until(scrape, holds, patience=10.0):
    """The first scrape of which something holds."""
    deadline = time.monotonic() + patience
    while not holds(scraped := scrape()):
        assert time.monotonic() < deadline, scraped
        time.sleep(0.01)
    return scraped


def of_backend(scraped, name):
    return scraped.get((f"cachekit_backend_{name}", (("backend", "main"),)))


def test_a_backend_shows_whether_it_tells_of_changes_and_what_it_has_not_heard(make_service):
    with start_server() as server:
        backend = {"url": server.url, **PATIENT}
        service = make_service(users={"backend": "main"}, backends={"main": backend})
        users = service.region("users")
        users.set("x", 1)
        scraped = until(lambda: samples(service), lambda scraped: of_backend(scraped, "coherence") == 2)
        assert of_backend(scraped, "coherence_losses_total") == 0
        assert of_backend(scraped, "pending_invalidations") == 0
        server.kill()
        scraped = until(lambda: samples(service), lambda scraped: of_backend(scraped, "coherence") == 1)
        assert of_backend(scraped, "coherence_losses_total") == 1
        users.delete("x")
        users.delete("y")
        assert of_backend(samples(service), "pending_invalidations") == 2


def test_a_backend_that_is_not_asked_to_tell_of_changes_is_no_alarm(make_service, server):
    backend = {"url": server.url, "coherence": "ttl", **PATIENT}
    service = make_service(users={"backend": "main"}, backends={"main": backend})
    service.region("users").get("x")
    assert of_backend(samples(service), "coherence") == 0
    assert of_backend(samples(service), "up") == 1


def test_the_help_says_what_the_latencies_sample(make_service):
    _, body = exposition(make_service())
    helps = {line.split()[2]: line for line in body.decode().splitlines() if line.startswith("# HELP")}
    assert "4096" in helps["cachekit_cache_hit_latency_seconds"]
    assert "first tier" in helps["cachekit_cache_hit_latency_seconds"]


def test_a_scrape_adds_only_what_is_new(make_service, count):
    service = make_service()
    for new, so_far in ((3, 3), (0, 3), (7, 10)):
        count(service, misses=new)
        assert value(samples(service), "cachekit_cache_misses_total", **OF) == so_far


def test_a_function_that_was_never_called_shows_zeros(make_service, count):
    service = make_service()
    count(service)
    scraped = samples(service)
    assert value(scraped, "cachekit_cache_hits_total", tier="l1", **OF) == 0
    assert value(scraped, "cachekit_cache_misses_total", **OF) == 0


def test_each_service_has_its_own_figures(make_service, count):
    services = make_service(), make_service()
    for misses, service in enumerate(services, 1):
        count(service, misses=misses)
    for misses, service in enumerate(services, 1):
        assert value(samples(service), "cachekit_cache_misses_total", **OF) == misses


def test_a_closing_service_reports_its_last_counts(make_service, count):
    service = make_service()
    metrics = attach(service)
    assert attach(service) is metrics
    count(service, misses=3)
    service.close()
    reported = flat(metrics.instruments.registry.collect())
    assert value(reported, "cachekit_cache_misses_total", **OF) == 3


def test_a_tick_keeps_the_latencies_that_would_be_forgotten(make_service, count):
    service = make_service()
    metrics = attach(service)
    for _ in range(2):
        count(service).miss_seconds.extend([0.5] * 4096)
        service.tick()
    reported = flat(metrics.instruments.registry.collect())
    assert value(reported, "cachekit_cache_miss_latency_seconds_count", **OF) == 8192


def test_metrics_do_not_keep_a_service_alive():
    service = Service(default_spec())
    attach(service)
    there = weakref.ref(service)
    del service
    gc.collect()
    assert there() is None


def test_concurrent_counting_and_scraping_loses_and_doubles_nothing(make_service, count):
    service = make_service()
    tallies = [count(service, f"app.f{n}") for n in range(4)]
    stop = threading.Event()

    def work(tally):
        for _ in range(3000):
            tally.misses += 1
            tally.miss_seconds.append(0.001)

    def scrape():
        while not stop.is_set():
            samples(service)

    scrapers = [threading.Thread(target=scrape) for _ in range(2)]
    workers = [threading.Thread(target=work, args=(tally,)) for tally in tallies]
    for thread in (*scrapers, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    stop.set()
    for thread in scrapers:
        thread.join()
    scraped = samples(service)
    for n in range(4):
        of = {"region": "users", "function": f"app.f{n}"}
        assert value(scraped, "cachekit_cache_misses_total", **of) == 3000
        assert value(scraped, "cachekit_cache_miss_latency_seconds_count", **of) == 3000


def test_a_scrape_that_is_overtaken_by_another_takes_nothing_back(make_service, count):
    service = make_service()
    first = count(service, misses=5)

    def overtaken() -> int:
        """Read after the first tally: meanwhile it counts on and another scrape reports that."""
        if first.misses == 5:
            first.misses = 7
            attach(service).pump()
        return 0

    count(service, "app.second").l1_hits = overtaken
    assert value(samples(service), "cachekit_cache_misses_total", **OF) == 7
    assert value(samples(service), "cachekit_cache_misses_total", **OF) == 7


def test_a_wait_that_looked_served_and_became_impatient_takes_nothing_back(make_service, count):
    """A wait is counted at its beginning, and as impatient at its end."""
    service = make_service()
    served, impatient = [], []
    for more in ({"lease_waits": 1}, {"impatient": 1}, {"lease_waits": 2}, {"lease_waits": 1}):
        count(service, **more)
        scraped = samples(service)
        served.append(value(scraped, "cachekit_cache_lease_waits_total", result="served", **OF))
        impatient.append(value(scraped, "cachekit_cache_lease_waits_total", result="impatient", **OF))
    assert served == [1, 1, 2, 3]
    assert impatient == [0, 1, 1, 1]


def test_waits_that_end_while_they_are_read_are_never_more_than_those_that_began():
    class Busy(Tally):
        """Whenever it is looked at another wait has begun and ended."""

        __slots__ = ("ended",)

        def restart(self):
            self.ended = 0
            super().restart()

        @property
        def impatient(self):
            self.lease_waits += 1
            self.ended += 1
            return self.ended

        @impatient.setter
        def impatient(self, _): ...

    to = Instruments()
    busy = Busy("users", "app.load", lambda: 0)
    waits = {each.labels[-1]: each.value for each in _tally_readings(busy, to) if each.counter is to.lease_waits}
    assert waits == {"served": 0, "impatient": 1}


class TestRegister:
    """The application shows our metrics with its own."""

    @pytest.fixture
    def registry(self):
        return CollectorRegistry(auto_describe=True)

    @staticmethod
    def scrape(registry):
        families = list(parse_text(generate_latest(registry).decode()))
        names = [family.name for family in families]
        assert len(names) == len(set(names))
        return flat(families)

    def test_joins_a_registry_once_and_follows_the_counts(self, make_service, count, registry):
        service = make_service()
        register(service, registry)
        register(service, registry)
        for so_far in (4, 8):
            count(service, "app.once", misses=4)
            scraped = self.scrape(registry)
            assert value(scraped, "cachekit_cache_misses_total", region="users", function="app.once") == so_far

    def test_two_services_in_one_registry_add_up(self, make_service, count, registry):
        for misses in (2, 5):
            service = make_service()
            service.region("local").set("x", misses)
            count(service, "app.sum", misses=misses)
            register(service, registry)
        scraped = self.scrape(registry)
        assert value(scraped, "cachekit_cache_misses_total", region="users", function="app.sum") == 7
        assert value(scraped, "cachekit_cache_entries", region="local") == 2

    def test_of_two_backends_of_one_name_the_worse_is_shown_and_what_both_lack(self, make_service, registry, dead_port):
        for coherence, down, losses in (("auto", True, 2), ("ttl", False, 1)):
            backend = {"url": f"redis://127.0.0.1:{dead_port}/0", "coherence": coherence}
            service = make_service(users={"backend": "main"}, backends={"main": backend})
            service.tiers("users")
            remote = service.remote("main")
            remote.used, remote.well, remote.coherence.losses = True, not down, losses
            remote.outbox.add(["a", "b"], [])
            register(service, registry)
        scraped = self.scrape(registry)
        assert of_backend(scraped, "up") == 0
        assert of_backend(scraped, "coherence") == 0
        assert of_backend(scraped, "pending_invalidations") == 4
        assert of_backend(scraped, "coherence_losses_total") == 3

    def test_a_service_that_was_scraped_before_loses_nothing_by_joining(self, make_service, count, registry):
        service = make_service()
        tally = count(service, "app.moved", misses=3)
        samples(service)
        register(service, registry)
        tally.miss_seconds.extend([0.1, 0.2])
        service.tick()  # the metrics of before must not take samples away
        of = {"region": "users", "function": "app.moved"}
        for scraped in (self.scrape(registry), samples(service)):
            assert value(scraped, "cachekit_cache_misses_total", **of) == 3
            assert value(scraped, "cachekit_cache_miss_latency_seconds_count", **of) == 2

    def test_the_registry_knows_our_names(self, make_service, registry):
        register(make_service(), registry)
        restricted = registry.restricted_registry(["cachekit_cache_misses_total"])
        assert {family.name for family in restricted.collect()} <= {"cachekit_cache_misses"}
        with pytest.raises(ValueError, match="Duplicated timeseries"):
            Counter("cachekit_cache_misses", "taken", registry=registry)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_can_scrape_whatever_other_threads_were_doing(make_service, count):
    """The fork happens while another thread scrapes without pause; the child must neither hang nor fail."""
    service = make_service()
    count(service, misses=1)
    stop = threading.Event()

    def scrape():
        while not stop.is_set():
            count(service).miss_seconds.extend([0.1] * 100)
            exposition(service)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                count(service, misses=1)
                exposition(service)
                os._exit(0)
            assert ended(pid)
    finally:
        stop.set()
        thread.join()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_repeat_the_losses_of_its_parent(make_service, dead_port):
    backend = {"url": f"redis://127.0.0.1:{dead_port}/0"}
    service = make_service(users={"backend": "main"}, backends={"main": backend})
    remote = service.remote("main")
    remote.used, remote.coherence.losses = True, 3
    assert of_backend(samples(service), "coherence_losses_total") == 3
    pid = os.fork()
    if pid == 0:
        same = of_backend(samples(service), "coherence_losses_total") == 3
        remote.coherence.losses += 1
        os._exit(not (same and of_backend(samples(service), "coherence_losses_total") == 4))
    assert ended(pid)


def ended(pid, patience=10.0):
    """Whether a child ended well; one that hangs is killed."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return False


def test_importing_cachekit_does_not_load_prometheus_client():
    code = "import sys, cachekit, cachekit.engine.events; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


MULTIPROCESS = """
import os, sys
from cachekit.config.settings import load
from cachekit.metrics import attach, exposition
from cachekit.service import Service

spec = load([], settings={"namespace": "test", "profiles": {"default": {"backend": "none"}, "users": {}}}, environ={})
service, other = Service(spec), Service(spec)
def tally(service):
    return service.tally(service.tiers("users"), 0, "app.load")

tally(service).misses, tally(other).misses = 1, 100  # two services of one process: they add up
attach(service).pump()
attach(other).pump()
tally(service).misses = 5
tally(service).miss_seconds.append(0.5)
attach(service).pump()
for key in range(10):
    service.region("users").set(key, key)
tally(service).misses += 2                          # not reported yet when the children start
tally(service).miss_seconds.append(0.5)
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        tally(service).misses += 3
        tally(service).miss_seconds.append(0.5)
        for key in range(4):
            service.region("users").set(key, key)
        service.tick()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
sys.stdout.buffer.write(exposition(service)[1])
"""


def test_in_multi_process_mode_a_scrape_shows_all_processes_exactly(tmp_path):
    """Parent 7, two children 3 each, another service of the parent 100; what the children inherited counts once."""
    done = subprocess.run(
        [sys.executable, "-c", MULTIPROCESS],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    scraped = flat(parse_text(done.stdout.decode()))
    assert value(scraped, "cachekit_cache_misses_total", **OF) == 113
    assert value(scraped, "cachekit_cache_miss_latency_seconds_count", **OF) == 4
    assert value(scraped, "cachekit_cache_entries", region="users") == 10  # the children are gone, and theirs with them
    assert not [name for name, _ in scraped if not name.startswith("cachekit_")]


LATE = """
import os, sys
from cachekit.config.settings import load
from cachekit.metrics import exposition
from cachekit.service import Service

spec = load([], settings={"namespace": "test", "profiles": {"default": {"backend": "none"}, "users": {}}}, environ={})
service = Service(spec)
users = service.region("users")

def use(times):
    users.set("x", 1)
    for _ in range(times):
        users.get("x")
    users.get("nothing")
    service.tally(service.tiers("users"), 0, "").error("get", "timeout")

use(100)
users.clear()
for times in (3, 4):
    pid = os.fork()
    if pid == 0:
        use(times)
        page = exposition(service)[1]
        sys.stdout.buffer.write(page if times == 4 else b"")
        sys.stdout.flush()
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
"""


def test_children_that_show_metrics_only_after_the_fork_do_not_repeat_what_they_inherited(tmp_path):
    """A server that loads the application before it forks. The first child is dead when the second is scraped."""
    done = subprocess.run(
        [sys.executable, "-c", LATE],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    scraped = flat(parse_text(done.stdout.decode()))
    direct = {"region": "users", "function": ""}
    assert value(scraped, "cachekit_cache_hits_total", tier="l1", **direct) == 7
    assert value(scraped, "cachekit_cache_misses_total", **direct) == 2
    assert value(scraped, "cachekit_cache_errors_total", op="get", reason="timeout", **direct) == 2
    assert value(scraped, "cachekit_cache_evictions_total", region="users", reason="invalidated") == 0
    assert value(scraped, "cachekit_cache_entries", region="users") == 1  # what the dead child held, nobody holds


WORKER = """
import sys, time
from cachekit.metrics import attach
from cachekit.process import default_service

service = default_service()
attach(service)
users = service.region("local")
for n in range(int(sys.argv[1])):
    users.get(n)
print("counted", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_the_file_of_another_worker_lags_by_about_a_second(tmp_path, monkeypatch):
    """Two workers that nobody scrapes report by their ticks alone."""
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(n)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for n in (3, 4)
    ]
    try:
        assert [worker.stdout.readline() for worker in workers] == ["counted\n"] * 2
        deadline = time.monotonic() + 10
        while (missed := misses_in(tmp_path)) < 7:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert missed == 7
    finally:
        for worker in workers:
            worker.communicate()


def misses_in(directory):
    families = MultiProcessCollector(None, path=str(directory)).collect()
    return sum(s.value for family in families for s in family.samples if s.name == "cachekit_cache_misses_total")
