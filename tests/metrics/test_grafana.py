"""Board and rules against a real Prometheus that scrapes an application in which everything happens."""

import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from cachekit.metrics.prometheus import COHERENCE
from cachekit.testing.servers import Server, free_port, start_server

pytestmark = pytest.mark.slow

GRAFANA = Path(__file__).parents[2] / "docs" / "grafana"
HOST = "127.0.0.1"
PATIENCE = 60.0
JOB = "shop"
NOW = {"CachekitUnstorableValues", "CachekitDamagedEntries"}  # alerts without a time to wait
SOON = {"CachekitBreakerOpens", "CachekitInvalidationsPending", "CachekitL1Thrashing"}  # true of the scene, and pending

PROMETHEUS = """
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: {job}
    static_configs: [{{ targets: ["127.0.0.1:{port}"] }}]
"""

CONFIGURATION = """
namespace = "shop"

[backends.default]
url = "{url}"
budget = "10s"  # the machine may be busy
adaptive = false

[profiles.shared]
ttl = "1m"
l1 = {{ ttl = "200ms" }}

[profiles.tiny]
backend = "none"
l1 = {{ max_entries = 4 }}
"""


class Scene:
    """The application and its Prometheus."""

    def __init__(self, directory: Path, server: Server) -> None:
        self.server = server
        self.port, self.prometheus_port = free_port(), free_port()
        (directory / "cachekit.toml").write_text(CONFIGURATION.format(url=server.url))
        config = directory / "prometheus.yml"
        config.write_text(PROMETHEUS.format(rules=GRAFANA / "alerts.yml", job=JOB, port=self.port))
        self.config = config
        self.directory = directory
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        scene = Path(__file__).with_name("scene.py")
        self._run([sys.executable, str(scene), str(self.port)], CACHEKIT_CONFIG=str(self.directory / "cachekit.toml"))
        wait_until(lambda: self.page() != b"", "the application does not answer")
        storage = f"--storage.tsdb.path={self.directory / 'data'}"
        listen = f"--web.listen-address={HOST}:{self.prometheus_port}"
        self._run(["prometheus", f"--config.file={self.config}", storage, listen])

    def _run(self, command: list[str], **environment: str) -> None:
        log = (self.directory / f"{Path(command[0]).name}.log").open("wb")
        with log:
            self.processes.append(subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log))

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def page(self, accept: str = "*/*") -> bytes:
        return get(self.port, "/metrics", accept)

    def ask(self, path: str, **parameters: str) -> Any:
        body = get(self.prometheus_port, f"/api/v1/{path}?{urlencode(parameters)}")
        answer = json.loads(body) if body.startswith(b"{") else {}  # it listens before it is ready
        assert answer.get("status", "success") == "success", (parameters, answer)
        return answer.get("data", {})

    def query(self, expression: str) -> list[Any]:
        return self.ask("query", query=expression).get("result", [])

    def damage(self) -> None:
        """Overwrite the beginning of every entry in the store."""
        for key in self.server.command("KEYS", "*"):
            if self.server.command("TYPE", key) == "string" and self.server.command("STRLEN", key) > 40:
                self.server.command("SETRANGE", key, 0, b"damaged!")


def get(port: int, path: str, accept: str = "*/*") -> bytes:
    """The body of an answer; nothing as long as nobody listens."""
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={"Accept": accept})
        return connection.getresponse().read()
    except ConnectionError:
        return b""
    finally:
        connection.close()


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Scraped for some seconds; then entries were damaged and the store was killed."""
    with start_server() as server:
        scene = Scene(tmp_path_factory.mktemp("scene"), server)
        try:
            scene.start()
            wait_until(lambda: scene.query("cachekit_cache_hits_total"), "nothing was scraped")
            scene.damage()
            wait_until(lambda: scene.query('cachekit_cache_errors_total{reason=~"damaged_.*"}'), "nothing was damaged")
            time.sleep(3)
            server.kill()
            wait_until(lambda: scene.query("cachekit_backend_breaker_state == 2"), "the breaker did not open")
            time.sleep(2)
            yield scene
        finally:
            scene.stop()


def board() -> Any:
    return json.loads((GRAFANA / "cachekit.json").read_text())


def expressions() -> list[Any]:
    panels = [panel for panel in board()["panels"] if panel["type"] != "row"]
    return [
        pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
        for panel in panels
        for target in panel["targets"]
    ]


def filled(expression: str) -> str:
    """With the values that Grafana puts in."""
    return re.sub(r"\$(region|job|backend)", ".*", expression).replace("$__rate_interval", "10s")


@pytest.mark.parametrize("expression", expressions())
def test_every_query_of_the_board_has_an_answer(scene: Scene, expression: str) -> None:
    assert scene.query(filled(expression))


def test_shares_are_shares(scene: Scene) -> None:
    titles = {"Hit share", "Hit share by region and tier", "Failing loads"}
    panels = [panel for panel in board()["panels"] if panel["title"] in titles]
    assert len(panels) == len(titles)
    for panel in panels:
        values = [float(series["value"][1]) for series in scene.query(filled(panel["targets"][0]["expr"]))]
        assert all(0 <= value <= 1 for value in values)
        assert any(0 < value < 1 for value in values)


def test_the_board_s_variables_have_values(scene: Scene) -> None:
    asked = [variable for variable in board()["templating"]["list"] if variable["type"] == "query"]
    assert {variable["name"] for variable in asked} == {"job", "region", "backend"}
    for variable in asked:
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert match is not None
        assert scene.ask(f"label/{match[2]}/values", **{"match[]": filled(match[1])})


def test_every_metric_is_on_the_board(scene: Scene) -> None:
    families = {family.name for family in parse_openmetrics(scene.page("application/openmetrics-text").decode())}
    text = json.dumps(board())
    assert len(families) == 26
    assert not [family for family in families if family not in text]


def test_the_states_of_coherence_have_the_names_of_the_board(scene: Scene) -> None:
    (panel,) = [panel for panel in board()["panels"] if panel["title"] == "Coherence"]
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    assert {int(number): entry["text"] for number, entry in mapping["options"].items()} == {
        number: name for name, number in COHERENCE.items()
    }
    shown = scene.ask("query", query="max_over_time(cachekit_backend_coherence[5m])")["result"]
    assert [float(series["value"][1]) for series in shown] == [COHERENCE["tracking"]]
    (now,) = scene.query("cachekit_backend_coherence")
    assert float(now["value"][1]) == COHERENCE["connecting"]
    (losses,) = scene.query("cachekit_backend_coherence_losses_total")
    assert float(losses["value"][1]) == 1


def test_every_rule_is_evaluated_and_the_scene_raises_alerts(scene: Scene) -> None:
    def alerts() -> dict[str, str]:
        groups = scene.ask("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert not [rule for rule in rules if rule["health"] == "err"], rules
        return {rule["name"]: rule["state"] for rule in rules if rule["type"] == "alerting"}

    wait_until(lambda: all(alerts()[name] == "firing" for name in NOW), "they do not fire")
    wait_until(lambda: all(alerts()[name] == "pending" for name in SOON), "they do not begin")
    assert scene.query("cachekit:hit_share:rate10m")
    assert scene.query("cachekit:calls:rate10m")


def test_promtool_accepts_rules_and_configuration(scene: Scene) -> None:
    promtool("check", "config", str(scene.config))
    assert "10 rules found" in promtool("check", "rules", "--lint-fatal", str(GRAFANA / "alerts.yml"))


def test_each_alert_fires_when_it_should_and_keeps_quiet_otherwise() -> None:
    promtool("test", "rules", str(Path(__file__).with_name("alerts_test.yml")))


def test_each_alert_has_a_summary_and_a_remedy() -> None:
    text = (GRAFANA / "alerts.yml").read_text()
    alerts = re.split(r"- alert: ", text)[1:]
    assert len(alerts) == 8
    for alert in alerts:
        for part in ("severity:", "summary:", "description:", "remedy:"):
            assert alert.count(part) == 1, (alert.split()[0], part)


def test_promtool_has_no_complaint_about_the_page(scene: Scene) -> None:
    assert promtool("check", "metrics", text=scene.page()) == ""


def test_the_openmetrics_page_is_one(scene: Scene) -> None:
    """Prometheus itself negotiated it as well, or the queries above would have nothing."""
    page = scene.page("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert page.endswith(b"# EOF\n")
    assert {"cachekit_cache_hits", "cachekit_backend_up"} <= {
        family.name for family in parse_openmetrics(page.decode())
    }


def promtool(*arguments: str, text: bytes = b"") -> str:
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, check=False)
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, output
    return output
