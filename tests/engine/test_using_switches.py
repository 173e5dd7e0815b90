"""`using()`: what single calls want otherwise than the profile says, of a function and of a region, in each tier."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cachekit import MISS, cache
from cachekit.service import Service

MODES = pytest.mark.parametrize("mode", ["l1", "server"])


class Rig:
    """A cached function that counts its runs, called blocking whatever it is."""

    def __init__(self, service: Service, awaited: bool) -> None:
        self.service = service
        self.runs: list[int] = []
        self.runner = asyncio.Runner() if awaited else None
        runs = self.runs

        @cache(profile="users", version=1, stale_ttl=3600, early_refresh="off")
        def load(number: int) -> int:
            runs.append(number)
            if number < 0:
                raise LookupError(number)
            return len(runs)

        @cache(profile="users", version=1, stale_ttl=3600, early_refresh="off")
        async def aload(number: int) -> int:
            return load.__wrapped__(number)

        self.f: Any = aload if awaited else load

    def do(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args) if self.runner is None else self.runner.run(self._awaited(function, args))

    @staticmethod
    async def _awaited(function: Callable[..., Any], args: Any) -> Any:
        return await function(*args)

    def forget_l1(self) -> None:
        for _, table in self.service.tables():
            table.clear()


@pytest.fixture(params=["blocking", "awaited"])
def make_rig(request: pytest.FixtureRequest, make_service: Any) -> Any:
    rigs: list[Rig] = []

    def make(mode: str) -> Rig:
        rigs.append(Rig(make_service(mode), request.param == "awaited"))
        return rigs[-1]

    yield make
    for rig in rigs:
        if rig.runner is not None:
            rig.runner.run(rig.service.aclose())
            rig.runner.close()


@MODES
def test_force_refresh_computes_and_stores_whatever_is_cached(make_rig: Any, mode: str) -> None:
    rig = make_rig(mode)
    assert rig.do(rig.f, 7) == 1
    assert rig.do(rig.f.using(force_refresh=True), 7) == 2
    assert rig.do(rig.f, 7) == 2


@MODES
def test_force_refresh_shows_a_failure_and_keeps_what_was_stored(make_rig: Any, mode: str) -> None:
    rig = make_rig(mode)
    rig.do(rig.f.put, 5, -1)
    with pytest.raises(LookupError):
        rig.do(rig.f.using(force_refresh=True), -1)
    assert rig.do(rig.f, -1) == 5


def test_skip_l1_neither_reads_nor_writes_it(make_rig: Any) -> None:
    rig = make_rig("server")
    view = rig.f.using(skip_l1=True)
    assert rig.do(view, 7) == 1
    assert rig.f.cache_info().currsize == 0
    assert rig.do(view, 7) == 1
    assert rig.f.cache_info().l2_hits == 1
    alone = make_rig("l1")
    calls = (alone.f.using(skip_l1=True), alone.f.using(skip_l1=True), alone.f, alone.f.using(skip_l1=True), alone.f)
    assert [alone.do(each, 7) for each in calls] == [1, 2, 3, 4, 3]


def test_skip_l2_neither_reads_nor_writes_it(make_rig: Any) -> None:
    rig = make_rig("server")
    view = rig.f.using(skip_l2=True)
    assert rig.do(view, 7) == 1
    rig.forget_l1()
    assert rig.do(rig.f.peek, 7) is MISS
    assert rig.do(rig.f, 7) == 2  # now in both
    rig.forget_l1()
    assert rig.do(view, 7) == 3


@MODES
def test_read_only_takes_what_is_there_and_stores_nothing(make_rig: Any, mode: str) -> None:
    rig = make_rig(mode)
    view = rig.f.using(read_only=True)
    assert [rig.do(view, 7) for _ in range(2)] == [1, 2]
    assert rig.do(rig.f.peek, 7) is MISS
    assert rig.do(rig.f, 7) == 3
    assert rig.do(view, 7) == 3


@MODES
def test_allow_stale_takes_an_old_value_or_never_one(make_rig: Any, mode: str) -> None:
    rig = make_rig(mode)
    rig.do(rig.f.put, 5, -1)
    rig.do(rig.f.mark_stale, -1)
    assert rig.do(rig.f.using(allow_stale=True), -1) == 5
    assert rig.do(rig.f.using(allow_stale=True).peek, -1) == 5
    assert rig.do(rig.f.peek, -1) is MISS
    assert rig.runs == []
    with pytest.raises(LookupError):
        rig.do(rig.f.using(allow_stale=False), -1)
    assert rig.do(rig.f, -1) == 5  # as the profile says
    assert rig.runs == [-1]  # and then the source is left alone


@MODES
def test_the_same_switches_of_a_region(make_service: Any, mode: str) -> None:
    service = make_service(mode, jitter=0.0)
    users = service.region("users")
    users.set("k", "old")
    assert users.using(force_refresh=True).get_or_set("k", lambda: "new") == "new"
    assert users.using(read_only=True).get_or_set("other", lambda: 1) == 1
    assert users.get("other", MISS) is MISS
    users.mark_stale("k")
    assert users.get("k", MISS) is MISS
    assert users.using(allow_stale=True).get("k") == "new"
    assert users.using(skip_l1=True).get("k", MISS) is MISS


def test_a_view_is_of_the_same_kind_and_has_the_same_attributes(make_service: Any) -> None:
    make_service()

    class Shop:
        @cache
        def price(self, article: str) -> str:
            return article

    shop = Shop()
    assert shop.price("a") == shop.price.using(skip_l1=True)("a") == "a"
    view = shop.price.using(read_only=True)
    assert view.peek("a") == "a"
    assert view.cache_info() == shop.price.cache_info()
    assert view.__wrapped__ is shop.price.__wrapped__
