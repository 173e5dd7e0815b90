"""Test topologies: whole when they are handed over, they fail over when told or hurt, and never outlive the tests."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import redis
from redis.sentinel import Sentinel
from test_servers import eventually, runs

from cachekit.testing import ClusterSetup, SentinelSetup, start_cluster, start_sentinel
from cachekit.testing.topologies import SLOTS, fields, is_primary

pytestmark = pytest.mark.slow

PASSWORD = 'pass "word"/\\1'


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterSetup]:
    with start_cluster(replicas=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def sentinel() -> Iterator[SentinelSetup]:
    with start_sentinel(replicas=1) as sentinel:
        yield sentinel


def test_a_cluster_serves_all_slots_and_names_its_replicas(cluster: ClusterSetup) -> None:
    assert len(cluster.primaries) == 3
    assert len(cluster.servers) == 6
    for server in cluster.servers:
        assert fields(server.command("CLUSTER", "INFO"))["cluster_state"] == "ok"
        ranges = sorted(server.command("CLUSTER", "SLOTS"))
        assert (ranges[0][0], ranges[-1][1]) == (0, SLOTS - 1)
        assert all(before[1] + 1 == after[0] for before, after in pairwise(ranges))
    for primary in cluster.primaries:
        assert [is_primary(replica) for replica in cluster.replicas_of(primary)] == [False]


def test_a_key_of_a_cluster_is_found_where_it_is_said_to_be(cluster: ClusterSetup) -> None:
    for key in ("a", "b", "c", "{a}b"):
        cluster.primary_of(key).command("SET", key, "value")
    assert cluster.primary_of("{a}b") is cluster.primary_of(cluster.slot("a"))
    with redis.RedisCluster.from_url(cluster.url.partition(",")[0].replace("+cluster", "")) as client:
        assert client.get("a") == b"value"


def test_a_replica_of_a_cluster_takes_over_when_told(cluster: ClusterSetup) -> None:
    old = cluster.primary_of("a")
    new = cluster.failover(old)
    assert new is not old
    assert cluster.primary_of("a") is new
    cluster.settle()
    assert cluster.replicas_of(new) == [old]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "pause"])
def test_a_replica_of_a_cluster_takes_over_from_one_that_is_gone(cluster: ClusterSetup, how: str) -> None:
    old = cluster.primary_of("a")
    getattr(old, how)()
    new = cluster.promoted(old)
    cluster.settle()
    assert cluster.primary_of("a") is new is not old
    assert cluster.replicas_of(new) == [old]


def test_a_slot_moves_with_its_keys(cluster: ClusterSetup) -> None:
    slot, source = cluster.slot("moving"), cluster.primary_of("moving")
    target = next(server for server in cluster.primaries if server is not source)
    source.command("SET", "moving", "value")
    cluster.move(slot, target)
    assert cluster.primary_of("moving") is target
    assert target.command("GET", "moving") == b"value"
    cluster.move(slot, source)
    cluster.settle()


def test_sentinels_know_the_primary_and_its_replicas(sentinel: SentinelSetup) -> None:
    assert len(sentinel.sentinels) == 3
    assert len(sentinel.replicas) == 1
    watchers = Sentinel([("127.0.0.1", server.port) for server in sentinel.sentinels])
    assert watchers.discover_master(sentinel.service) == ("127.0.0.1", sentinel.primary.port)
    assert watchers.discover_slaves(sentinel.service) == [("127.0.0.1", sentinel.replicas[0].port)]


def test_sentinels_replace_a_primary_when_told(sentinel: SentinelSetup) -> None:
    old = sentinel.primary
    new = sentinel.failover()
    assert new is not old
    assert sentinel.primary is new
    sentinel.settle()
    assert sentinel.replicas == [old]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "pause"])
def test_sentinels_replace_a_primary_that_is_gone(sentinel: SentinelSetup, how: str) -> None:
    old = sentinel.primary
    getattr(old, how)()
    assert sentinel.promoted(old) is not old
    sentinel.settle()
    assert sentinel.primary in sentinel.servers


@pytest.mark.slow
def test_one_sentinel_is_enough() -> None:
    with start_sentinel(sentinels=1) as sentinel:
        old = sentinel.primary
        old.kill()
        assert sentinel.promoted(old) is sentinel.servers[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_passwords_are_required_of_clients_and_used_among_servers(kind: str) -> None:
    with start_sentinel(kind, password=PASSWORD) as sentinel:  # type: ignore[arg-type]
        old = sentinel.primary
        assert PASSWORD not in sentinel.url
        with redis.Redis(port=old.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        old.kill()
        assert sentinel.promoted(old) is not old
        sentinel.settle()
    with start_cluster(kind, replicas=1, password=PASSWORD) as cluster:  # type: ignore[arg-type]
        old = cluster.primary_of("a")
        old.kill()
        cluster.promoted(old)
        cluster.settle()
        source = cluster.primary_of("a")
        source.command("SET", "a", "value")
        cluster.move(cluster.slot("a"), next(server for server in cluster.primaries if server is not source))
        assert cluster.primary_of("a").command("GET", "a") == b"value"


def test_all_servers_are_gone_when_the_test_process_is_killed() -> None:
    script = """
from cachekit.testing import start_cluster, start_sentinel
cluster, sentinel = start_cluster(), start_sentinel(sentinels=1)
for server in (*cluster.servers, *sentinel.servers, *sentinel.sentinels):
    print(server.pid, server.directory)
print(flush=True)
input()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [line.decode().split() for line in iter(process.stdout.readline, b"\n")]
        assert all(runs(int(pid)) for pid, _ in lines)
        process.kill()
    assert len(lines) == 6
    assert eventually(lambda: not any(runs(int(pid)) for pid, _ in lines))
    assert eventually(lambda: not any(Path(directory).exists() for _, directory in lines))


def test_what_is_stopped_leaves_nothing() -> None:
    with start_sentinel(replicas=0, sentinels=1) as sentinel:
        directories = [server.directory for server in (*sentinel.servers, *sentinel.sentinels)]
        sentinel.primary.kill()
        assert all(directory.exists() for directory in directories)
    assert not any(directory.exists() for directory in directories)
