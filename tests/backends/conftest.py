"""Servers for the tests of the backends, and one way to call both faces."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit.backends.base import Faces
from cachekit.backends.redis import open_redis
from cachekit.config.spec import BackendSpec
from cachekit.testing.faults import FaultProxy
from cachekit.testing.servers import Server, available, start_server

BUDGET = 5.0  # where the test is not about time: the machine may be busy


class Caller:
    """Calls a face and waits for the result, whether its methods are plain or coroutines."""

    def __init__(self, face: Any, runner: asyncio.Runner | None, budget: float = BUDGET) -> None:
        self.face = face
        self.runner = runner
        self.budget = budget

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if name != "close":
                options.setdefault("budget", self.budget)
            result = getattr(self.face, name)(*args, **options)
            return self.runner.run(as_coroutine(result)) if self.runner is not None else result

        return call

    def within(self, budget: float) -> "Caller":
        return Caller(self.face, self.runner, budget)


async def as_coroutine(result: Any) -> Any:
    return await result


# The other kind is another server with the same promises: worth having, not each time.
@pytest.fixture(
    scope="session",
    params=[pytest.param(kind, marks=[] if kind == "valkey" else [pytest.mark.slow]) for kind in available()],
)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One of each kind on this machine; whoever pauses or changes it puts it right again."""
    with start_server(request.param) as server:
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[Server]:
    with start_server("valkey") as server:
        yield server


@pytest.fixture
def proxy(valkey: Server) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", valkey.port) as proxy:
        yield proxy


@pytest.fixture(params=["sync", "aio"])
def caller(request: pytest.FixtureRequest) -> Iterator[Callable[..., Caller]]:
    """A function that opens a URL and gives the sync or the async face to call."""
    opened: list[Caller] = []

    def open_(url: str, budget: float = BUDGET, **options: Any) -> Caller:
        faces: Faces = open_redis(BackendSpec(url=url, **options))
        runner = asyncio.Runner() if request.param == "aio" else None
        opened.append(Caller(getattr(faces, request.param), runner, budget))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()
        if one.runner is not None:
            one.runner.close()


@pytest.fixture
def backend(caller: Callable[..., Caller], server: Server) -> Caller:
    return caller(server.url)


@pytest.fixture
def key() -> str:
    """The key of a value that no other test uses."""
    return f"test:v:{{region:{uuid.uuid4().hex}}}"
