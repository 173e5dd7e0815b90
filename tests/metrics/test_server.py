import http.client
import socket

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from cachekit.config.spec import MetricsSpec, ServiceSpec
from cachekit.errors import ConfigError
from cachekit.metrics import serve
from cachekit.service import Service, replace_default


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
