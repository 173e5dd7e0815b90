import http.client
import os
import socket
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from cachekit.config.spec import MetricsSpec, ServiceSpec
from cachekit.errors import ConfigError
from cachekit.metrics import serve
from cachekit.process import replace_default
from cachekit.service import Service


def get(server, path="/metrics", method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body.decode()


def test_a_script_serves_its_metrics(make_service, count):
    service = make_service()
    count(service, misses=3)
    with serve(0, service=service) as server:
        assert server.address == "127.0.0.1"
        response, body = get(server)
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        assert "cachekit_cache_misses" in {family.name for family in parse_text(body)}
        response, body = get(server, Accept="application/openmetrics-text; version=1.0.0")
        assert response.headers["Content-Type"].startswith("application/openmetrics-text")
        assert body.endswith("# EOF\n")


def test_only_the_configured_path_answers(make_service):
    with serve(0, service=make_service({"path": "/cache-metrics"})) as server:
        assert get(server, "/cache-metrics?name=x")[0].status == 200
        assert get(server, "/metrics")[0].status == 404
        assert get(server, "/")[0].status == 404


def test_head_has_the_headers_and_no_body(make_service):
    with serve(0, service=make_service()) as server:
        response, body = get(server, method="HEAD")
        assert response.status == 200
        assert int(response.headers["Content-Length"]) > 0
        assert body == ""


def test_a_token_is_demanded_and_compared(make_service, count):
    service = make_service()
    count(service, "app.private", misses=1)
    with serve(0, token="s3cret", service=service) as server:
        response, body = get(server)
        assert response.status == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert "app.private" not in body
        assert get(server, Authorization="Bearer wrong")[0].status == 401
        assert get(server, Authorization="Bearer s3cret")[0].status == 200


def test_the_configuration_s_token_and_networks_hold_too(make_service):
    with serve(0, service=make_service({"token": "s3cret"})) as server:
        assert get(server)[0].status == 401
    with serve(0, service=make_service({"token": "s3cret", "allow": ["127.0.0.0/8"]})) as server:
        assert get(server)[0].status == 200
    with serve(0, service=make_service({"allow": ["10.0.0.0/8"]})) as server:
        assert get(server)[0].status == 403


def test_close_frees_the_port_and_may_be_called_twice(make_service):
    server = serve(0, service=make_service())
    server.close()
    server.close()
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", server.port))


def test_a_taken_port_is_an_error_at_once(make_service):
    with serve(0, service=make_service()) as server, pytest.raises(OSError, match="in use"):
        serve(server.port, service=make_service())


def test_without_a_service_it_is_the_process_s_own(make_service, count):
    service = make_service()
    before = replace_default(service)
    try:
        count(service, "app.mine", misses=1)
        with serve(0) as server:
            assert "app.mine" in get(server)[1]
    finally:
        replace_default(before)


def test_a_configuration_with_a_wrong_network_is_an_error_at_once():
    spec = ServiceSpec(metrics=MetricsSpec(allow=("nowhere",)))
    with pytest.raises(ConfigError, match="not a network"):
        serve(0, service=Service(spec))


SCRIPT = """
import subprocess, sys, urllib.request
from cachekit import cache
from cachekit.metrics import register, serve

@cache(profile="local")
def square(n):
    return n * n

def work(calls):
    for _ in range(calls):
        square(calls)

if sys.argv[1] == "job":
    register()
    work(3)
else:
    with serve(0) as server:
        work(2)
        jobs = [subprocess.Popen([sys.executable, sys.argv[0], "job"]) for _ in range(2)]
        assert [job.wait() for job in jobs] == [0, 0]
        print(urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics").read().decode())
"""


def test_one_script_serves_the_sum_of_all_processes_of_a_job(tmp_path):
    """In prometheus_client's multi-process mode: two processes have ended before the third is asked."""
    (tmp_path / "files").mkdir()
    (tmp_path / "job.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "job.py", "main"],
        cwd=tmp_path,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "files")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = {
        (sample.name, sample.labels.get("tier")): sample.value
        for family in parse_text(done.stdout)
        for sample in family.samples
        if sample.labels.get("function") == "__main__.square" or sample.name == "cachekit_cache_entries"
    }
    assert found["cachekit_cache_hits_total", "l1"] == 1 + 2 + 2
    assert found["cachekit_cache_misses_total", None] == 3
    assert found["cachekit_cache_entries", None] == 1  # of the process that lives
