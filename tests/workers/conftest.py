from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fleet import Fleet

from cachekit.testing.servers import Server, free_port, start_server

MakeFleet = Callable[..., Fleet]


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that a test may kill."""
    with start_server() as server:
        yield server


@pytest.fixture
def make_fleet(tmp_path: Path, own_server: Server) -> Iterator[MakeFleet]:
    """``make_fleet(kind, recycle=0)`` starts a web server; a worker is replaced after about ``recycle`` requests."""
    with ExitStack() as running:

        def make(kind: str, recycle: int = 0) -> Fleet:
            return running.enter_context(Fleet(kind, free_port(), tmp_path, own_server.url, recycle))

        yield make
