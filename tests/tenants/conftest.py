"""Services for tests of tenants: in the process alone, with a server behind, and on the server alone."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit.config.spec import BackendSpec, CodecSpec, KeySpec, L1Spec, ServiceSpec, built_in_regions
from cachekit.l1.table import TWIN
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock
from cachekit.testing.servers import Server

MODES = ["l1", "both", "l2"]
KEY = "7e" * 32

numbers = itertools.count()

MakeTenants = Callable[..., Service]


@pytest.fixture(params=["native", "pure"])
def twin(request: pytest.FixtureRequest) -> str:
    """Which twin the services of this test stand on."""
    if request.param == "pure":
        request.getfixturevalue("pure_twin")
    elif TWIN == "pure":
        pytest.skip("this process has no native twin")
    return str(request.param)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_tenants(cachekit_server: Server) -> Iterator[MakeTenants]:
    """``make_tenants("both", encrypt=True, ttl=60.0, ...)``: a service whose regions "users" and "other" are alike.

    Without ``namespace`` it shares nothing with any other.
    """
    made: list[Service] = []

    def make(
        mode: str = "both", *, namespace: str = "", clock: Any = None, keys: KeySpec | None = None,
        encrypt: bool = False, sign: bool = False, backend: Any = None, **fields: Any,
    ) -> Service:  # fmt: skip
        plain = built_in_regions()["default"]
        changes: dict[str, Any] = {"jitter": 0.0, "codec": CodecSpec(encrypt=encrypt, sign=sign), **fields}
        if mode == "l1":
            changes["backend"] = "none"
        if mode == "l2":
            changes["l1"] = L1Spec(mode="off")
        options = {"url": cachekit_server.url, "budget": 10.0, "adaptive": False, **(backend or {})}
        spec = ServiceSpec(
            namespace=namespace or f"tenants{next(numbers)}",
            namespace_given=True,
            keys=keys or KeySpec(master_key=KEY),
            backends={} if mode == "l1" else {"default": BackendSpec(**options)},
            regions={name: plain.but(name=name, **changes) for name in ("default", "users", "other")},
        )
        service = Service(spec, clock=clock or FrozenClock())
        made.append(service)
        return service

    yield make
    for service in made:
        service.close()
