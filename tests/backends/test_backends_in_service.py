"""The engine on a file, on memcached and in memory: what invalidation, stampedes, large values and outages come to.

Two services play two processes: nothing but the store connects them.
"""

import asyncio
import contextlib
import functools
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from memcached_server import Memcached

from cachekit import Outcome
from cachekit.backends.memcached.backend import MAX_ITEM_BYTES, MemcachedBackend
from cachekit.backends.memcached.items import name_of
from cachekit.backends.records import store as record_store
from cachekit.backends.registry import open_backend
from cachekit.config.spec import BackendSpec, CodecSpec, ServiceSpec, built_in_regions
from cachekit.errors import ConfigError
from cachekit.service import Service

pytestmark = [pytest.mark.server, pytest.mark.slow]

numbers = itertools.count()
STALENESS = 0.3


@functools.cache
def memcached() -> Memcached:
    return Memcached()


class Node:
    """One service, and cached functions over the data that all nodes share."""

    def __init__(self, world: "World", spec: BackendSpec) -> None:
        self.world = world
        users = built_in_regions()["default"].but(name="users", jitter=0.0, codec=CodecSpec(compression="none"))
        self.service = Service(
            ServiceSpec(
                namespace=world.namespace, namespace_given=True, backends={"default": spec}, regions={"users": users}
            )
        )
        self.region = self.service.region("users")
        self.runs = 0
        self.during: Callable[[], object] = lambda: None

        def load(key: int) -> Any:
            self.runs += 1
            value = world.data
            self.during()
            return value

        async def aload(key: int) -> Any:
            return load(key)

        self.f = self.region.cached(load, version="f", tags=lambda key: ["tag"])
        self.af = self.region.cached(aload, version="af", tags=lambda key: ["tag"])


class World:
    def __init__(self, kind: str, directory: Path, **fields: Any) -> None:
        self.namespace = f"world{next(numbers)}"
        self.data: Any = "old"
        url = {"file": f"file://{directory}/cache.db", "memory": f"memory://{self.namespace}"}
        options = {"budget": 10.0, "adaptive": False, **fields}  # the machine may be busy
        self.spec = BackendSpec(
            type=kind, url=memcached().url if kind == "memcached" else url[kind], max_staleness=STALENESS, **options
        )
        self.nodes = [Node(self, self.spec) for _ in range(2)]

    def close(self) -> None:
        for node in self.nodes:
            node.service.close()


@pytest.fixture(params=["file", "memcached", "memory"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def world(kind: str, tmp_path: Path) -> Iterator[World]:
    world = World(kind, tmp_path)
    yield world
    world.close()


def follows(call: Callable[[], Any], wanted: Any, within: float) -> bool:
    deadline = time.monotonic() + within
    while call() != wanted:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


WAYS: dict[str, Callable[[Node, Any], Outcome]] = {
    "key": lambda node, function: function.invalidate(1),
    "function": lambda node, function: function.invalidate_all(),
    "region": lambda node, function: node.region.clear(),
    "tag": lambda node, function: node.region.invalidate_tags("tag"),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_an_invalidation_during_a_load_leaves_nothing_old_anywhere(world: World, way: str) -> None:
    one, other = world.nodes

    def during() -> None:
        one.during = lambda: None
        world.data = "new"
        assert WAYS[way](other, other.f) is Outcome.DONE

    one.during = during
    assert one.f(1) == "old", "it began before"
    assert other.f(1) == "new"
    assert follows(lambda: one.f(1), "new", STALENESS + 1.0)
    assert other.runs + one.runs <= 3


@pytest.mark.parametrize("way", list(WAYS))
def test_an_invalidation_reaches_the_other_within_the_bound(world: World, way: str) -> None:
    one, other = world.nodes
    assert one.f(1) == other.f(1) == "old"
    assert one.runs + other.runs == 1, "the other had it from the store"
    world.data = "new"
    assert WAYS[way](one, one.f) is Outcome.DONE
    assert one.f(1) == "new"
    assert follows(lambda: other.f(1), "new", STALENESS + 1.0)


def test_async_functions_do_the_same(world: World) -> None:
    one, other = world.nodes

    async def scenario() -> None:
        assert await one.af(1) == await other.af(1) == "old"
        world.data = "new"
        assert await one.af.invalidate(1) is Outcome.DONE
        assert await one.af(1) == "new"
        await asyncio.sleep(STALENESS + 0.1)
        assert await other.af(1) == "new"
        assert one.runs + other.runs == 2
        for node in world.nodes:
            await node.service.aclose()

    asyncio.run(scenario())


def test_threads_of_both_that_want_one_key_run_the_function_once(world: World) -> None:
    started = threading.Barrier(16)
    for node in world.nodes:
        node.during = lambda: time.sleep(0.2)

    def call(node: Node) -> Any:
        started.wait()
        return node.f(1)

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(call, world.nodes * 8)) == {"old"}
    assert sum(node.runs for node in world.nodes) == 1


def test_keys_values_and_counters_of_regions_work(world: World) -> None:
    one, other = (node.region for node in world.nodes)
    assert one.add("k", (1, {2})) is True
    assert other.add("k", None) is False
    assert other.get("k") == (1, {2})
    assert one.touch("k", ttl=100) is True
    assert 90 < one.remaining("k") <= 100
    assert one.get_many(["k", "absent"]) == {"k": (1, {2})}
    one.mark_stale("k")
    assert one.delete("k") is Outcome.DONE


# memcached alone


def test_a_value_that_memcached_would_refuse_is_returned_counted_and_not_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World("memcached", tmp_path)
    one, other = world.nodes
    world.data = "x" * MAX_ITEM_BYTES
    assert one.f(1) == world.data
    assert one.f(1) == world.data
    assert one.runs == 1, "L1 has it"
    assert other.f(1) == world.data
    assert other.runs == 1, "it did not come from the store, and nobody waited for a lease"
    assert "takes 1048064 at most" in caplog.text
    largest = MAX_ITEM_BYTES - 600 - 512
    world.data = "y" * largest
    assert one.f(2) == other.f(2) == world.data
    assert (one.runs, other.runs) == (2, 1)
    assert one.service.health().ok
    world.close()


def test_what_memcached_cannot_do_is_said_once_or_refused(caplog: pytest.LogCaptureFixture) -> None:
    url = "memcached://127.0.0.1"
    with caplog.at_level(logging.WARNING, "cachekit"):
        faces = open_backend(BackendSpec(type="memcached", url=url))
        assert [record.message for record in caplog.records] == [
            "backend 'default': memcached does not tell of changes, so what another process invalidates may be served "
            'from L1 for max_staleness (3 s); coherence = "ttl" says that this is known'
        ]
        caplog.clear()
        open_backend(BackendSpec(type="memcached", url=url, coherence="ttl"))
        assert caplog.records == []
    assert not faces.listens
    assert not {"scan", "keep"} & faces.capabilities
    with pytest.raises(ConfigError, match="'tracking' is not possible"):
        open_backend(BackendSpec(type="memcached", url=url, coherence="tracking"))
    with pytest.raises(ConfigError, match="without credentials"):
        open_backend(BackendSpec(type="memcached", url=url, password="secret"))


@pytest.mark.parametrize(
    "url",
    ["memcached://a,b", "memcached://", "memcached://h:0", "memcached://h/1", "memcached://u:pw@h", "redis://h",
     "memcached://h:x"],
)  # fmt: skip
def test_a_url_that_is_not_one_memcached_server_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^\[backends\.default\] url: not that of a memcached server") as caught:
        open_backend(BackendSpec(type="memcached", url=url))
    assert "pw" not in str(caught.value)


@pytest.mark.timed
def test_a_dead_or_paused_memcached_costs_the_budget_and_nothing_else(tmp_path: Path) -> None:
    world = World("memcached", tmp_path, budget=0.1, adaptive=False)
    one, other = world.nodes
    assert one.f(1) == "old"
    memcached().pause()
    try:
        begun = time.monotonic()
        assert other.f(1) == "old"
        assert time.monotonic() - begun < 1.0, "late"
        assert other.f.invalidate(1) is Outcome.QUEUED
    finally:
        memcached().resume()
    memcached().restart()
    assert one.f(2) == "old"
    world.close()


def test_what_others_store_under_its_names_is_a_miss_and_replaced(tmp_path: Path) -> None:
    world = World("memcached", tmp_path)
    one, other = world.nodes
    key = one.f.key(1)
    memcached().command(b"set %s 0 0 4\r\njunk" % name_of(str(key)).encode())
    assert one.f(1) == other.f(1) == "old"
    assert (one.runs, other.runs) == (1, 0)
    world.close()


def test_a_store_that_is_paused_before_its_last_step_does_not_undo_an_invalidation(tmp_path: Path) -> None:
    """Each value is swapped for what its writer has seen; so one that arrives late finds something else, or nothing."""
    backend = open_backend(BackendSpec(type="memcached", url=memcached().url, coherence="ttl")).sync
    assert isinstance(backend, MemcachedBackend)
    key = f"late:v:{{r:{next(numbers)}}}"

    def step(record: Any, now: int) -> Any:
        with contextlib.suppress(IndexError):
            interruptions.pop()()
        return record_store(record, now, data=b"late", ttl_ms=None, token=b"t" * 16)

    backend.get_or_lease(key, b"t" * 16, 60_000, budget=5.0)
    interruptions = [lambda: backend.invalidate([key], budget=5.0)]
    assert backend._change(key, step, 5.0) is False
    assert backend.get(key, budget=5.0) is None
    backend.close()
