"""The pytest plugin: fixtures for everybody who has cachekit installed. Nothing happens until one is asked for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cachekit.testing.clock import FrozenClock
    from cachekit.testing.servers import Server

# Every import below is inside a fixture: this module is loaded at the start of each pytest run on the machine.
pytest.register_assert_rewrite("cachekit.testing.conformance", "cachekit.testing.asserts")


@pytest.fixture
def cachekit_clock() -> "FrozenClock":
    """A clock that stands still; ``cachekit_clock.advance("5m")`` moves it."""
    from cachekit.testing.clock import FrozenClock

    return FrozenClock()


@pytest.fixture(scope="session")
def cachekit_server() -> "Iterator[Server]":
    """A Valkey server of this test run's own (see `cachekit.testing.Server`); ``.url`` is where it listens."""
    from cachekit.testing.servers import start_server

    with start_server("valkey") as server:
        yield server
