"""Services for tests of the engine: in the process only, and with a real server behind."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit.config.secret import Secret
from cachekit.config.spec import BackendSpec, KeySpec, L1Spec, ServiceSpec, built_in_regions
from cachekit.process import replace_default
from cachekit.service import Service
from cachekit.testing.servers import Server

numbers = itertools.count()


MakeService = Callable[..., Service]


@pytest.fixture
def make_service(cachekit_server: Server) -> Iterator[MakeService]:
    """``make_service("l1")`` or ``make_service("server", l1="off", backend={...}, **profile_fields)``.

    The service becomes the default one; every test has a namespace of its own.
    """
    made: list[Service] = []
    before: list[Service | None] = []

    def make(
        mode: str = "l1", *, l1: str | None = None, backend: Any = None, clock: Any = None, **fields: Any
    ) -> Service:
        regions = {}
        for name, spec in {**built_in_regions(), "users": built_in_regions()["default"].but(name="users")}.items():
            changes = dict(fields) if name in ("default", "users") else {}
            if mode == "l1":
                changes["backend"] = "none"
            if l1 is not None:
                changes["l1"] = L1Spec(mode=l1)
            regions[name] = spec.but(**changes)
        # A budget that a busy machine does not exhaust; tests of the budget say their own.
        options = {"url": cachekit_server.url, "budget": 10.0, "adaptive": False, **(backend or {})}
        spec = ServiceSpec(
            namespace=f"test{next(numbers)}",
            namespace_given=True,
            backends={} if mode == "l1" else {"default": BackendSpec(**options)},
            regions=regions,
            keys=KeySpec(master_key=Secret.of("0123456789abcdef" * 4)),  # for those that ask for one
        )
        service = Service(spec, clock=clock)
        made.append(service)
        before.append(replace_default(service))
        return service

    yield make
    if before:
        replace_default(before[0])
    for service in made:
        service.close()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that the test may stop, pause and kill."""
    from cachekit.testing.servers import start_server

    with start_server("valkey") as server:
        yield server
