"""Services with keys of their own on one server: they play processes before, during and after a rotation."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit.config.spec import BackendSpec, CodecSpec, KeySpec, L1Spec, ServiceSpec, built_in_regions
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock
from cachekit.testing.servers import Server

A, B, NAMES = "aa" * 32, "bb" * 32, "cc" * 32

numbers = itertools.count()


@pytest.fixture(params=["encrypt", "sign"])
def protection(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_holder(cachekit_server: Server, protection: str) -> Iterator[Callable[..., Service]]:
    """``make_holder(A, B, ...)``: a service whose present key is A and which opens what B closed.

    All of one test share a namespace and a clock.
    """
    made: list[Service] = []
    namespace, clock = f"rotation{next(numbers)}", FrozenClock()

    def make(
        present: str, *previous: str, name_key: str | None = NAMES, l1: str = "off", url: str = "", **fields: Any
    ) -> Service:
        codec = CodecSpec(**{protection: True, "rewrap": fields.pop("rewrap", True)})
        plain = built_in_regions()["default"]
        changes: dict[str, Any] = {"jitter": 0.0, "codec": codec, "l1": L1Spec(mode=l1), **fields}
        spec = ServiceSpec(
            namespace=namespace,
            namespace_given=True,
            keys=KeySpec(master_key=present, previous_keys=previous, name_key=name_key),
            backends={"default": BackendSpec(url=url or cachekit_server.url, budget=10.0, adaptive=False)},
            regions={name: plain.but(name=name, **changes) for name in ("default", "users")},
        )
        service = Service(spec, clock=clock)
        made.append(service)
        return service

    yield make
    for service in made:
        service.close()
