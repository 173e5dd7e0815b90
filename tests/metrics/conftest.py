import socket

import pytest

from cachekit.config.settings import load
from cachekit.service import Service


@pytest.fixture
def make_service():
    """Make a service with a region "users"; arguments are tables of the configuration."""
    made = []

    def make(metrics=None, users=None, **settings):
        profiles = {"default": {"backend": "none"}, "users": users or {}}
        tree = {"namespace": "test", "profiles": profiles, "metrics": metrics or {}, **settings}
        made.append(Service(load([], settings=tree, environ={})))
        return made[-1]

    yield make
    for service in made:
        service.close()
    made.clear()


@pytest.fixture
def count():
    """Give a function, in region "users" unless said otherwise, these counts more; gives back its tally."""

    def count(service, function="app.load", region="users", **counts):
        tally = service.tally(service.tiers(region), 0, function)
        for name, number in counts.items():
            setattr(tally, name, getattr(tally, name) + number)
        return tally

    return count


@pytest.fixture
def dead_port():
    """A port of this machine where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
