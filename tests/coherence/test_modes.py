"""Which way a process keeps in step is found by trying, said once, and shown; what it costs is counted."""

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cachekit.config.spec import BackendSpec, L1Spec, ServiceSpec, built_in_regions
from cachekit.service import Service
from cachekit.testing.faults import FaultProxy
from cachekit.testing.servers import Server, start_server

NUMBERS = iter(range(1000))


@pytest.fixture
def make(cachekit_server: Server) -> Iterator[Any]:
    made: list[Service] = []

    def service(url: str = "", *, l1: L1Spec | None = None, ttl: float | None = 300.0, **backend: Any) -> Service:
        default = built_in_regions()["default"].but(ttl=ttl, jitter=0.0, l1=l1 or L1Spec())
        options = {"url": url or cachekit_server.url, "budget": 5.0, "adaptive": False, **backend}
        spec = ServiceSpec(
            namespace=f"modes{next(NUMBERS)}",
            namespace_given=True,
            backends={"default": BackendSpec(**options)},
            regions={**built_in_regions(), "default": default},
        )
        made.append(Service(spec))
        return made[-1]

    yield service
    for one in made:
        one.close()


def state(service: Service) -> str:
    return service.health().backends["default"].coherence


def until(service: Service, wanted: str) -> None:
    deadline = time.monotonic() + 10
    while state(service) != wanted:
        assert time.monotonic() < deadline, f"still {state(service)}"
        service.region().get("warm")
        threading.Event().wait(0.005)


def test_changes_are_heard_of_where_the_server_tells(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cachekit"):
        service = make()
        assert state(service) == "unused"
        until(service, "tracking")
        service.tiers("default").remote.coherence.lose("test")
        until(service, "tracking")
    assert [record.message for record in caplog.records if "coherence by" in record.message] == [
        "backend 'default': coherence by tracking: L1 hears of changes at once"
    ]


@pytest.mark.parametrize(("coherence", "level"), [("auto", logging.WARNING), ("tracking", logging.ERROR)])
def test_a_user_without_the_right_goes_by_ttl_and_is_told_once(
    make: Any, own: Server, caplog: pytest.LogCaptureFixture, coherence: str, level: int
) -> None:
    own.command("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-client|tracking")
    with caplog.at_level(logging.INFO, "cachekit"):
        service = make(f"redis://app:pw@127.0.0.1:{own.port}", coherence=coherence)
        until(service, "ttl")
        service.tiers("default").remote.coherence.due = 0.0
        for _ in range(20):
            service.region().get("k")
        service.region().set("k", 1)
        assert service.region().get("k") == 1
    said = [record for record in caplog.records if "does not tell of changes" in record.message]
    assert [record.levelno for record in said] == [level]
    assert "pw" not in said[0].message


@pytest.fixture
def own() -> Iterator[Server]:
    with start_server("valkey") as server:
        yield server


def test_without_rights_entries_end_after_max_staleness(make: Any, own: Server) -> None:
    own.command("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-client|tracking")
    url = f"redis://app:pw@127.0.0.1:{own.port}"
    a = make(url, max_staleness=0.3)
    until(a, "ttl")
    a.region().set("k", "old")
    entry = a.tiers("default").table.entry(a.tiers("default").table.slot(""), ("k",))
    assert entry is not None
    assert entry.fresh_for is not None
    assert entry.fresh_for <= 0.3


@pytest.mark.parametrize("how", ["configured", "l1 off", "short ttl"])
def test_where_it_is_of_no_use_nobody_listens(make: Any, how: str) -> None:
    service = {
        "configured": lambda: make(coherence="ttl"),
        "l1 off": lambda: make(l1=L1Spec(mode="off")),
        "short ttl": lambda: make(ttl=2.0),
    }[how]()
    for _ in range(20):
        service.region().get("k")
    assert state(service) == "ttl"
    assert service.tiers("default").remote.coherence._thread is None


def test_a_region_that_comes_into_use_later_is_heard_of_too(make: Any) -> None:
    service, other = make(), None
    until(service, "tracking")
    remote = service.tiers("default").remote
    other = service.region("minimal")
    other.get("k")
    deadline = time.monotonic() + 10
    while not remote.coherence.covers("minimal"):
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)
    assert remote.coherence.losses == 0, "by the same connection"


def test_an_uncontended_miss_takes_three_commands(cachekit_server: Server, make: Any) -> None:
    """GET, get-or-lease, store: stamps that are known are not asked for."""
    with FaultProxy("127.0.0.1", cachekit_server.port) as proxy:
        service = make(proxy.url, heartbeat=100.0, max_staleness=300.0)

        def load(key: int) -> int:
            return key

        function = service.region().cached(load, version=1, tags=["tag"])
        until(service, "tracking")
        for key in range(10):  # the stamps are made, told of, and asked for again
            function(key)
            threading.Event().wait(0.02)
        before = proxy.requests
        function(99)
        assert proxy.requests - before == 3


def test_closing_ends_the_thread_and_the_connection_and_a_later_use_begins_again(make: Any, own: Server) -> None:
    service = make(own.url)
    until(service, "tracking")
    assert b"flags=" in own.command("CLIENT", "LIST")
    coherence = service.tiers("default").remote.coherence
    service.close()
    assert coherence.losses == 0, "we ended it"
    assert "cachekit-listen" not in {thread.name for thread in threading.enumerate() if thread.is_alive()}
    deadline = time.monotonic() + 5
    while own.command("CLIENT", "LIST").count(b"\n") > 1:  # our own question's
        assert time.monotonic() < deadline, own.command("CLIENT", "LIST").decode()
        threading.Event().wait(0.01)
    until(service, "tracking")


def test_a_service_that_nobody_holds_leaves_no_thread(own: Server) -> None:
    import gc
    import weakref

    spec = ServiceSpec(
        namespace="gone",
        namespace_given=True,
        backends={"default": BackendSpec(url=own.url, budget=5.0, adaptive=False)},
        regions=built_in_regions(),
    )
    service = Service(spec)
    until(service, "tracking")
    thread = service.tiers("default").remote.coherence._thread
    gone = weakref.ref(service)
    del service
    deadline = time.monotonic() + 10
    while gone() is not None or thread.is_alive():
        gc.collect()
        assert time.monotonic() < deadline, [str(it)[:300] for it in gc.get_referrers(gone())]
        threading.Event().wait(0.05)
