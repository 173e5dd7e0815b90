"""The Redis backend keeps the contract of backends: both faces, on every kind of server that is here."""

import functools

import pytest

from cachekit.backends.base import COMMANDS, LISTEN, OPTIONAL, AsyncBaseBackend, BaseBackend, Faces
from cachekit.backends.redis import open_redis
from cachekit.backends.redis.rights import grant
from cachekit.config.spec import BackendSpec
from cachekit.testing import BackendContract
from cachekit.testing.servers import Kind, Server, available, start_server

pytestmark = pytest.mark.server


@functools.cache
def started(kind: Kind) -> Server:
    return start_server(kind)  # ends with this process


class OnServer(BackendContract):
    offers = OPTIONAL | COMMANDS
    shortest_ttl_ms = 100
    fault_budget = 0.15
    kind: Kind = "valkey"

    def server_address(self) -> tuple[str, int]:
        return "127.0.0.1", started(self.kind).port

    def faces(self, host: str, port: int) -> Faces:
        return open_redis(BackendSpec(url=f"redis://{host}:{port}/0"))


class Plain(OnServer):
    offers = OPTIONAL | COMMANDS | {LISTEN}

    def make_backend(self) -> BaseBackend:
        return self.make_backend_behind(*self.server_address())

    def make_backend_behind(self, host: str, port: int) -> BaseBackend:
        sync = self.faces(host, port).sync
        assert sync is not None
        return sync


class Coroutines(OnServer):
    def make_backend(self) -> AsyncBaseBackend:
        return self.make_backend_behind(*self.server_address())

    def make_backend_behind(self, host: str, port: int) -> AsyncBaseBackend:
        aio: AsyncBaseBackend = self.faces(host, port).aio
        return aio


@pytest.mark.slow
class TestWithTheRightsOfTheDocumentedLine(Plain):
    """A user with the line of docs/outages.md needs no other rights."""

    def faces(self, host: str, port: int) -> Faces:
        started(self.kind).command(*grant("app", "contract").split(), "on", ">pw")
        return open_redis(BackendSpec(url=f"redis://app:pw@{host}:{port}/1"))


for kind in available():
    for base in (Plain, Coroutines):
        name = f"Test{base.__name__}On{kind.capitalize()}"
        # The same promises on another server: worth having, not each time.
        marks = [] if kind == "valkey" else [pytest.mark.slow]
        globals()[name] = type(name, (base,), {"kind": kind, "pytestmark": marks, "__module__": __name__})
