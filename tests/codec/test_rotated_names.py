"""Names of tags while a master key is rotated: clearing one reaches entries of processes that have not followed."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit.config.settings import load
from cachekit.engine.outcome import Outcome
from cachekit.service import Service
from cachekit.testing.servers import Server

OLD, NEW, NAMES = (f"{digit}123456789abcdef" * 4 for digit in "89a")
Start = Callable[..., Service]


@pytest.fixture
def start(server: Server) -> Iterator[Start]:
    """A process with these keys."""
    started: list[Service] = []

    def start(**keys: Any) -> Service:
        backend = {"url": server.url, "budget": "10s", "adaptive": False}  # the machine may be busy
        settings = {"namespace": "rotated", "backends": {"default": backend}, **keys}
        started.append(Service(load([], settings=settings, environ={})))
        return started[-1]

    yield start
    for service in started:
        service.close()


@pytest.mark.parametrize(
    ("after", "pinned"),
    [({"master_key": NEW, "previous_keys": [OLD]}, {}), ({"master_key": NEW}, {"name_key": NAMES})],
    ids=["derived", "pinned"],
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_tag_is_cleared_across_a_rotation(
    start: Start, after: dict[str, Any], pinned: dict[str, Any], is_async: bool
) -> None:
    before = start(master_key=OLD, **pinned).region("secure")
    rotated = start(**after, **pinned).region("secure")
    before.set("a", 1, tags=["t"])
    assert before.using(skip_l1=True).get("a") == 1
    if is_async:
        assert await rotated.ainvalidate_tags("t") is Outcome.DONE
    else:
        assert rotated.invalidate_tags("t") is Outcome.DONE
    fresh = start(master_key=OLD, **pinned).region("secure")  # a process that remembers no stamps
    assert fresh.get("a") is None
