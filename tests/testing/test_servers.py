"""Test servers: they answer when they are handed over, do what they are told, and never outlive the tests."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from cachekit.testing import servers
from cachekit.testing.servers import ReplyError, Server, available, start_server, write_certificates


@pytest.fixture
def server() -> Iterator[Server]:
    with start_server() as server:
        yield server


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A dead child of init may lie there as a zombie for a moment.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_answers_as_soon_as_it_is_handed_over(server: Server) -> None:
    with redis.Redis.from_url(server.url) as client:
        assert client.ping()


def test_every_kind_of_answer_is_read(server: Server) -> None:
    assert server.command("SET", "bytes", b"\r\n\0\xff") == "OK"
    assert server.command("GET", "bytes") == b"\r\n\0\xff"
    assert server.command("GET", "absent") is None
    assert server.command("INCRBY", "n", 41) == 41
    assert server.command("RPUSH", "list", "a", 1, 2.5) == 3
    assert server.command("EVAL", "return {1, {'x', false}, {}}", 0) == [1, [b"x", None], []]
    assert server.command("LRANGE", "list", 0, -1) == [b"a", b"1", b"2.5"]
    with pytest.raises(ReplyError, match="WRONGTYPE"):
        server.command("GET", "list")


def test_two_servers_know_nothing_of_each_other(server: Server) -> None:
    with start_server() as other:
        assert other.port != server.port
        assert other.directory != server.directory
        server.command("SET", "k", "v")
        assert other.command("GET", "k") is None


def test_stop_ends_the_process_and_removes_its_directory() -> None:
    server = start_server()
    pid, directory = server.pid, server.directory
    assert directory.is_dir()
    server.stop()
    server.stop()
    assert not runs(pid)
    assert not directory.exists()
    with pytest.raises(ConnectionRefusedError):
        server.command("PING")
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.pid


def test_no_port_is_one_that_systems_give_to_who_asks_for_any() -> None:
    chosen = {servers.free_port() for _ in range(100)}
    assert max(chosen) < 32_768
    assert len(chosen) > 80  # and processes that begin together do not take the same ones


def test_killed_and_started_again_it_is_empty_and_has_its_port(server: Server) -> None:
    port, pid = server.port, server.pid
    server.command("SET", "k", "v")
    server.kill()
    assert not runs(pid)
    server.start()
    server.start()
    assert (server.port, server.command("GET", "k")) == (port, None)
    assert server.pid != pid
    server.command("SET", "k", "v")
    server.restart()
    assert (server.port, server.command("GET", "k")) == (port, None)


def test_a_paused_server_accepts_and_does_not_answer(server: Server) -> None:
    server.pause()
    with pytest.raises(TimeoutError):
        server.command("PING", timeout=0.2)
    server.resume()
    assert server.command("PING") == "PONG"


def test_a_paused_server_can_be_stopped() -> None:
    server = start_server()
    pid = server.pid
    server.pause()
    server.stop()
    assert not runs(pid)


def test_the_password_is_required_and_part_of_the_url() -> None:
    with start_server(password="pass word/1") as server, socket.create_connection(("127.0.0.1", server.port)) as raw:
        assert server.command("PING") == "PONG"
        raw.sendall(b"PING\r\n")
        assert raw.recv(100).startswith(b"-NOAUTH")
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()


def test_maxmemory_is_a_limit() -> None:
    with start_server(maxmemory="3mb") as server, pytest.raises(ReplyError, match="OOM"):
        fill(server)


def fill(server: Server) -> None:
    for number in range(40):
        server.command("SET", f"k{number}", b"x" * 200_000)


def test_further_options_reach_the_server() -> None:
    with start_server(args=["--databases", "3"]) as server:
        assert server.command("CONFIG", "GET", "databases") == [b"databases", b"3"]


def test_a_server_that_cannot_start_shows_its_log() -> None:
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match=r"(?s)did not answer.*no-such-option"):
        start_server(args=["--no-such-option", "1"])
    assert time.monotonic() - begun < servers.READY_SECONDS


def test_a_taken_port_is_an_error_and_not_somebody_elses_server(server: Server) -> None:
    with pytest.raises(RuntimeError, match="in use"):
        start_server(port=server.port)
    assert server.command("PING") == "PONG"


def test_survives_the_thread_that_started_it() -> None:
    started: list[Server] = []
    thread = threading.Thread(target=lambda: started.append(start_server()))
    thread.start()
    thread.join()
    time.sleep(0.2)
    with started[0] as server:
        assert server.command("PING") == "PONG"


def test_a_forked_child_that_ends_does_not_take_it_along() -> None:
    script = """
import os, sys
from cachekit.testing import start_server
with start_server() as server:
    child = os.fork()
    if not child:
        sys.exit()  # leaves the block and runs what is registered for the end
    os.waitpid(child, 0)
    print(server.command("PING"), server.directory.exists())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("PONG True\n", "")


def test_does_not_hear_the_interrupt_of_the_terminal(server: Server) -> None:
    assert os.getpgid(server.pid) != os.getpgrp()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None], ids=["killed", "terminated", "ended"])
def test_is_gone_with_its_directory_when_the_test_process_is(how: signal.Signals | None) -> None:
    script = (
        "from cachekit.testing import start_server; s = start_server(); print(s.pid, s.directory, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        pid, directory = process.stdout.readline().decode().split()
        assert runs(int(pid))
        if how is None:
            process.stdin.write(b"\n")
            process.stdin.flush()
        else:
            process.send_signal(how)
    assert eventually(lambda: not runs(int(pid)))
    assert eventually(lambda: not Path(directory).exists())


def test_the_pip_installed_valkey_is_available() -> None:
    assert "valkey" in available()


def test_a_missing_server_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LookupError, match="apt-get install redis-server"):
        start_server("redis")
    assert "redis" not in available()
    with pytest.raises(LookupError, match="Unknown kind"):
        start_server("memcached")  # type: ignore[arg-type]


def test_tls_needs_the_redis_of_the_distribution() -> None:
    with pytest.raises(LookupError, match="kind='redis'"):
        start_server("valkey", tls=True)


def test_the_certificate_is_good_for_the_loopback_address_and_only_with_its_authority(tmp_path: Path) -> None:
    authority = write_certificates(tmp_path)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    for name in ("127.0.0.1", "localhost"):
        handshake(serving, ssl.create_default_context(cafile=authority), name)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(serving, ssl.create_default_context(cafile=authority), "example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(serving, ssl.create_default_context(), "localhost")


def handshake(serving: ssl.SSLContext, calling: ssl.SSLContext, name: str) -> None:
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = calling.wrap_bio(to_client, to_server, server_hostname=name)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    pending = [client, server]
    while pending:
        side = pending.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pending.append(side)


@pytest.mark.slow  # needs redis-server, which make test-all installs
def test_a_tls_server_is_reached_with_its_authority_alone() -> None:
    with start_server("redis", tls=True, password="secret") as server:
        assert server.url.startswith("rediss://")
        assert server.command("SET", "k", "v") == "OK"
        with redis.Redis.from_url(server.url, ssl_ca_certs=server.ca) as client:
            assert client.get("k") == b"v"
        with redis.Redis.from_url(server.url) as stranger, pytest.raises(redis.ConnectionError, match="CERTIFICATE"):
            stranger.ping()


@pytest.mark.slow  # needs redis-server, which make test-all installs
def test_a_server_with_mutual_tls_takes_only_clients_with_a_certificate() -> None:
    with start_server("redis", tls="mutual") as server:
        assert server.command("PING") == "PONG"
        files = {"ssl_certfile": server.client_cert, "ssl_keyfile": server.client_key}
        with redis.Redis.from_url(server.url, ssl_ca_certs=server.ca, **files) as client:
            assert client.ping()
        with redis.Redis.from_url(server.url, ssl_ca_certs=server.ca) as bare, pytest.raises(redis.ConnectionError):
            bare.ping()


@pytest.mark.slow  # needs redis-server, which make test-all installs
def test_redis_does_the_same_as_valkey() -> None:
    with start_server("redis", password="secret", maxmemory="10mb") as server:
        assert b"redis_version" in server.command("INFO", "server")
        server.restart()
        assert server.command("PING") == "PONG"
