"""The pytest plugin: fixtures for everybody who has cachekit installed. Nothing happens until one is asked for."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cachekit.service import Service
    from cachekit.testing.clock import FrozenClock
    from cachekit.testing.servers import Server

# Every import below is inside a fixture: this module is loaded at the start of each pytest run on the machine.
pytest.register_assert_rewrite("cachekit.testing.conformance", "cachekit.testing.asserts")


def configures(variable: str) -> bool:
    """Whether this environment variable is read as configuration. (The other two choose the build of L1.)"""
    return variable == "REDIS_URL" or (
        variable.startswith("CACHEKIT_") and variable not in ("CACHEKIT_PURE", "CACHEKIT_NATIVE")
    )


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


@pytest.fixture
def cachekit_isolated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Service]":
    """An empty cache that no one else sees: every region has the profile `test`, that is, no server and no jitter.

    REDIS_URL and CACHEKIT_* variables do not exist during the test, and no file is read. Together with
    `cachekit_clock` entries live by that clock. The value is the service; the one before is back afterwards.
    """
    from cachekit.testing.isolation import isolated

    for name in filter(configures, list(os.environ)):
        monkeypatch.delenv(name)
    clock = request.getfixturevalue("cachekit_clock") if "cachekit_clock" in request.fixturenames else None
    with isolated(clock) as service:
        yield service
