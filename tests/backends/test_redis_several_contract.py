"""Several servers keep the contract of backends like one does: a cluster, and the primary that Sentinels name."""

import functools

import pytest

from cachekit.backends.base import COMMANDS, LISTEN, OPTIONAL, AsyncBaseBackend, BaseBackend, Faces
from cachekit.backends.redis import open_redis
from cachekit.config.spec import BackendSpec
from cachekit.testing import BackendContract, available, start_cluster, start_sentinel
from cachekit.testing.servers import Kind

pytestmark = [pytest.mark.server, pytest.mark.slow]


@functools.cache
def url(kind: Kind, form: str) -> str:
    setup = start_cluster(kind) if form == "cluster" else start_sentinel(kind, replicas=0, sentinels=1)
    return setup.url  # it ends with this process


class OnSeveral(BackendContract):
    shortest_ttl_ms = 100
    kind: Kind = "valkey"
    form = "cluster"

    def faces(self) -> Faces:
        return open_redis(BackendSpec(url=url(self.kind, self.form)))


class Plain(OnSeveral):
    offers = OPTIONAL | COMMANDS | {LISTEN}

    def make_backend(self) -> BaseBackend:
        sync = self.faces().sync
        assert sync is not None
        return sync


class Coroutines(OnSeveral):
    offers = OPTIONAL | COMMANDS

    def make_backend(self) -> AsyncBaseBackend:
        aio: AsyncBaseBackend = self.faces().aio
        return aio


for kind in available():
    for form in ("cluster", "sentinel"):
        for base in (Plain, Coroutines):
            name = f"Test{base.__name__}On{form.capitalize()}Of{kind.capitalize()}"
            globals()[name] = type(name, (base,), {"kind": kind, "form": form, "__module__": __name__})
