"""An entry that is tampered with just before a refresh, of which no caller waits, looks at it."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from seal_rig import VALUE, Rig

from cachekit import TamperedEntry
from cachekit.config.spec import FreshnessSpec
from cachekit.engine import behind, flow
from cachekit.testing.clock import FrozenClock
from cachekit.testing.servers import Server

TTL = 60.0
SWR = FreshnessSpec(stale_ttl=600.0, swr=True)
EARLY = FreshnessSpec(early_refresh=1.0)


class Behind(Rig):
    """A reader whose entry in L2 is good until a refresh of it begins. Its clock stands still."""

    def __init__(self, server: Server, face: str, *, fail_closed: bool, freshness: FreshnessSpec) -> None:
        super().__init__(server, fail_closed=fail_closed, face=face, ttl=TTL, jitter=0.0, freshness=freshness)
        self.clock = FrozenClock()
        self.late = self.side(clock=self.clock)
        self.late.service.rng = lambda: 1 - 2**-53  # as early as can be
        self.late.during = lambda: self.clock.advance(1)
        assert self.late.call() == VALUE
        self.key = self.late.f.key(1)
        self.good = self.get(self.key)

    def refresh_behind(self, *args: Any) -> None:
        self.put(self.key, b"junk")
        behind.refresh_behind(*args)

    def call(self, seconds: float) -> None:
        """After that time a caller gets the value at once, whatever happens behind it."""
        self.clock.advance(seconds)
        self.put(self.key, self.good)
        assert self.late.call() == VALUE
        assert self.late.service.workers.settle(10)
        if self.runner is not None:
            self.runner.run(asyncio.wait_for(self.late.service.async_port.wait_for_tasks(10), 20))

    @property
    def refreshes(self) -> dict[Any, int]:
        (found,) = [tally.refreshes for tally in self.late.service.tallies() if tally.refreshes]
        return dict(found)


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[(SWR, TTL + 1, "swr"), (EARLY, TTL / 2 + 1, "early")], ids=["swr", "early"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[False, True], ids=["miss", "fail_closed"])
def rig(
    cachekit_server: Server, face: str, kind: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Behind]:
    rig = Behind(cachekit_server, face, fail_closed=request.param, freshness=kind[0])
    monkeypatch.setattr(flow, "refresh_behind", rig.refresh_behind)
    yield rig
    rig.close()


def test_a_refresh_that_meets_it(rig: Behind, kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    _, seconds, trigger = kind
    with caplog.at_level(logging.ERROR, "cachekit"):
        rig.call(seconds)
    assert rig.late.reasons() == {"damaged_magic": 1}
    if rig.codec.fail_closed:
        assert (rig.late.runs, rig.refreshes) == (1, {(trigger, "failed"): 1})
        (record,) = caplog.records
        assert record.getMessage().startswith("a refresh behind the caller was given up: region 'users': an entry in")
        assert record.exc_info is None, "it is no mistake of ours"
    else:
        assert (rig.late.runs, rig.refreshes) == (2, {(trigger, "stored"): 1})
        assert rig.get(rig.key) not in (b"junk", rig.good)
        assert not caplog.records


@pytest.mark.parametrize("rig", [True], indirect=True, ids=["fail_closed"])
@pytest.mark.parametrize("kind", [(SWR, TTL + 1, "swr")], ids=["swr"])
def test_under_fail_closed_it_is_left_alone_for_a_while_and_logged_once(
    rig: Behind, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "cachekit"):
        rig.call(TTL + 1)
        rig.call(1)
        rig.call(1)
        assert rig.late.reasons() == {"damaged_magic": 1}
        rig.call(31)
    assert rig.late.reasons() == {"damaged_magic": 2}, "counted each time"
    assert rig.refreshes == {("swr", "failed"): 2}
    assert len(caplog.records) == 1
    with pytest.raises(TamperedEntry):  # whoever meets it himself is told
        rig.late.call()
    rig.late.wait(rig.late.f.invalidate(1))
    assert (rig.late.call(), rig.late.runs) == (VALUE, 2)
