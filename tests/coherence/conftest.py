"""Worlds for the tests of coherence between processes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from world import World

from cachekit.testing.servers import Server

MakeWorld = Callable[..., World]


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> str:
    """How the cached functions are called."""
    found: str = request.param
    return found


@pytest.fixture
def make_world(cachekit_server: Server, face: str) -> Iterator[MakeWorld]:
    """``make_world(**backend_fields)``, on the shared server."""
    made: list[World] = []

    def make(**backend: Any) -> World:
        made.append(World(cachekit_server, face, **backend))
        return made[-1]

    yield make
    for world in made:
        world.close()
