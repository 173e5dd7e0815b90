"""The memcached backend keeps the contract of backends against a real server, also when the network fails."""

import functools

import pytest
from memcached_server import Memcached

from cachekit.backends.base import BaseBackend
from cachekit.backends.memcached import open_memcached
from cachekit.backends.records import STEPS
from cachekit.config.spec import BackendSpec
from cachekit.testing import BackendContract

pytestmark = [pytest.mark.server, pytest.mark.slow]


@functools.cache
def started() -> Memcached:
    return Memcached()


class TestMemcached(BackendContract):
    offers = STEPS | {"get_many", "stamps", "clear", "expire_soft", "check"}
    shortest_ttl_ms = 100
    fault_budget = 0.04  # a miss is answered with 5 bytes, which even a dripping server sends in 0.05 s

    def make_backend(self) -> BaseBackend:
        return self.make_backend_behind(*self.server_address())

    def server_address(self) -> tuple[str, int]:
        return "127.0.0.1", started().port

    def make_backend_behind(self, host: str, port: int) -> BaseBackend:
        sync = open_memcached(BackendSpec(type="memcached", url=f"memcached://{host}:{port}", coherence="ttl")).sync
        assert sync is not None
        return sync
