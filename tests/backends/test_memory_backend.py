"""A store in memory by URL: one for each name in a process, bounded, and usable in a forked child."""

import os
import threading

import pytest

from cachekit import cache
from cachekit.backends.base import OPTIONAL, BaseBackend
from cachekit.backends.memory import MemoryBackend
from cachekit.backends.registry import open_backend
from cachekit.config.spec import BackendSpec
from cachekit.errors import ConfigError
from cachekit.testing import BackendContract


def opened(url: str, **options: object) -> MemoryBackend:
    backend = open_backend(BackendSpec(type="memory", url=url, options=options)).sync
    assert isinstance(backend, MemoryBackend)
    return backend


@pytest.mark.slow  # it waits for what the contract in tests/testing moves a clock for
class TestMemoryByUrl(BackendContract):
    offers = OPTIONAL
    shortest_ttl_ms = 50

    def make_backend(self) -> BaseBackend:
        return opened("memory://contract")


def test_whoever_names_a_store_gets_the_same_one() -> None:
    assert opened("memory://shared") is opened("memory://shared")
    assert opened("memory://shared") is not opened("memory://another")
    assert opened("memory://") is opened("")


@pytest.mark.parametrize("url", ["memory://a/b", "memory://user:pw@x", "file:///x"])
def test_a_name_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^\[backends\.default\] url: not that of a store in memory") as caught:
        opened(url)
    assert "pw" not in str(caught.value)


def test_it_keeps_within_its_bound_and_drops_what_came_first() -> None:
    backend = MemoryBackend(max_entries=100)
    backend.store("stays", b"", None, None, budget=1)
    for number in range(1_000):
        backend.store(f"{number}", b"1", None, None, budget=1)
        assert len(backend.values.items) <= 100
    assert backend.get("999", budget=1) == b"1"
    assert backend.get("stays", budget=1) is None


def test_what_has_ended_goes_before_what_has_not() -> None:
    now = [0.0]
    backend = MemoryBackend(lambda: now[0], max_entries=10)
    backend.store("stays", b"1", None, None, budget=1)
    for number in range(9):
        backend.store(f"{number}", b"1", 1, None, budget=1)
    now[0] = 1.0
    for number in range(5):
        backend.store(f"new {number}", b"1", None, None, budget=1)
    assert backend.get("stays", budget=1) == b"1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_forked_while_another_thread_is_inside_can_go_on() -> None:
    backend = MemoryBackend()
    backend.store("key", b"value", None, None, budget=1)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with backend._step(1.0):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if backend.get("key", budget=1) == b"value" else 1)
        finally:
            os._exit(2)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    leave.set()
    thread.join()
    assert status == 0


def test_a_backend_that_leases_absent_keys_alone_still_replaces_outdated_values() -> None:
    class Half(MemoryBackend):
        capabilities = OPTIONAL - {"lease"}

    backend, runs = Half(), []

    @cache(backend=backend, ttl=60, version="half", l1={"mode": "off"})
    def f(key: int) -> int:
        runs.append(key)
        return key

    assert f(1) == f(1) == 1
    f.invalidate_all()
    assert f(1) == f(1) == 1
    assert runs == [1, 1]
