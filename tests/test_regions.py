"""Regions: keys and values of one profile, the same with and without an L2, blocking and awaited."""

import inspect
import itertools
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit import MISS, ConfigError, Outcome, Region, UnsupportedOperation, cache, invalidate_tags, region
from cachekit.config.spec import BackendSpec, L1Spec, ServiceSpec, built_in_regions
from cachekit.process import replace_default
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock
from cachekit.testing.servers import Server

numbers = itertools.count()


class Face:
    """A region through its blocking or its awaited methods, called alike."""

    def __init__(self, of: Region, aio: bool) -> None:
        self.region = of
        self.aio = aio

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.region, ("a" if self.aio else "") + name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            answer = method(*args, **kwargs)
            return await answer if inspect.isawaitable(answer) else answer

        return call


@pytest.fixture(params=["l1", "server", "server without l1"])
def service(request: pytest.FixtureRequest, cachekit_server: Server) -> Iterator[Service]:
    mode = request.param
    l1 = L1Spec(mode="off" if mode.endswith("without l1") else "on")
    default = built_in_regions()["default"].but(jitter=0.0, l1=l1, backend="none" if mode == "l1" else "default")
    regions = {
        "default": default,
        "users": default.but(name="users"),
        "counts": default.but(name="counts", counters=True),
        "tagged": default.but(name="tagged", tags=("all",)),
        "tagged-counts": default.but(name="tagged-counts", counters=True, tags=("all",)),
    }
    backend = BackendSpec(url=cachekit_server.url, budget=10.0, adaptive=False)  # the machine may be busy
    spec = ServiceSpec(
        namespace=f"regions{next(numbers)}",
        namespace_given=True,
        regions=regions,
        backends={} if mode == "l1" else {"default": backend},
    )
    service = Service(spec)
    before = replace_default(service)
    yield service
    replace_default(before)
    service.close()


@pytest.fixture(params=["sync", "async"])
def users(request: pytest.FixtureRequest, service: Service) -> Face:
    return Face(region("users"), request.param == "async")


KEYS = ["k", 7, "7", b"7", uuid.UUID(int=7), ("a", 7), ("a", ("7",)), "", "x" * 300, "ключ", "a{b}c", "a\nb"]


async def test_keys_are_told_apart_by_type(users: Face) -> None:
    for number, key in enumerate(KEYS):
        await users.set(key, number)
    for number, key in enumerate(KEYS):
        assert await users.get(key) == number
    assert await users.get_many(KEYS) == {key: number for number, key in enumerate(KEYS)}


@pytest.mark.parametrize("bad", [True, 1.5, None, ["a"], object()])
async def test_what_is_no_key_is_a_type_error(users: Face, bad: Any) -> None:
    with pytest.raises(TypeError, match="region key"):
        await users.get(bad)
    with pytest.raises(TypeError, match="region key"):
        await users.set(bad, 1)


async def test_a_cached_none_is_not_a_miss(users: Face) -> None:
    assert await users.get("k", MISS) is MISS
    await users.set("k", None)
    assert await users.get("k", MISS) is None


async def test_get_or_set_computes_once(users: Face) -> None:
    assert await users.get_or_set("k", lambda: [1]) == [1]
    assert await users.get_or_set("k", lambda: [2]) == [1]
    assert await users.get("k") == [1]


async def test_aget_or_set_takes_coroutine_functions_too(service: Service) -> None:
    async def factory() -> int:
        return 1

    users = region("users")
    assert await users.aget_or_set("k", factory) == await users.aget_or_set("k", lambda: 2) == 1


async def test_add_stores_only_what_is_not_there(users: Face) -> None:
    assert await users.add("k", 1) is True
    assert await users.add("k", 2) is False
    assert await users.get("k") == 1
    await users.delete("k")
    assert await users.add("k", 3) is True
    assert await users.get("k") == 3


async def test_many_at_once(users: Face) -> None:
    assert await users.set_many({"a": 1, "b": [2], "c": None}) == []
    assert await users.get_many(["a", "b", "c", "d"]) == {"a": 1, "b": [2], "c": None}
    assert await users.delete_many(["a", "c"]) is Outcome.DONE
    assert await users.get_many(["a", "b", "c"]) == {"b": [2]}


async def test_remaining_and_touch(users: Face) -> None:
    assert await users.remaining("k") is MISS
    assert await users.touch("k", ttl=5) is False
    await users.set("k", 1, ttl="1h")
    left = await users.remaining("k")
    assert 3500 < left <= 3600
    assert await users.touch("k", ttl="2h") is True
    left = await users.remaining("k")
    assert 7100 < left <= 7200
    assert await users.touch("k", ttl=None) is True
    assert await users.remaining("k") is None
    assert await users.get("k") == 1


async def test_incr_needs_counters(users: Face) -> None:
    with pytest.raises(UnsupportedOperation, match="counters = true"):
        await users.incr("n")


@pytest.mark.parametrize("aio", [False, True])
async def test_counters_count(service: Service, aio: bool) -> None:
    counts = Face(region("counts"), aio)
    assert [await counts.incr("n"), await counts.incr("n", 5), await counts.incr("n", -7)] == [1, 6, -1]
    assert await counts.get("n") == -1
    await counts.set("n", 10)
    assert await counts.incr("n") == 11
    assert await counts.get("n") == 11
    assert 0 < await counts.remaining("n") <= 300
    await counts.delete("n")
    assert await counts.incr("n") == 1
    await counts.set("text", "5")
    assert await counts.get("text") == "5"


@pytest.mark.parametrize("aio", [False, True])
async def test_only_what_is_there_is_counted_if_asked_for(service: Service, aio: bool) -> None:
    counts = Face(region("counts"), aio)
    for _ in range(2):
        with pytest.raises(KeyError, match="n"):
            await counts.incr("n", create=False)
    assert await counts.get("n", MISS) is MISS
    await counts.set("n", 5)
    assert await counts.incr("n", 2, create=False) == 7


@pytest.mark.parametrize("aio", [False, True])
@pytest.mark.parametrize("first", ["set", "add", "get_or_set", "set_many", "incr"])
@pytest.mark.parametrize("cleared_by", ["clear", "tag"])
async def test_counters_are_cleared_too(service: Service, aio: bool, first: str, cleared_by: str) -> None:
    counts = Face(region("tagged-counts" if cleared_by == "tag" else "counts"), aio)

    async def begin(number: int) -> None:
        arguments = {"get_or_set": ("n", lambda: number), "set_many": ({"n": number},)}
        await getattr(counts, first)(*arguments.get(first, ("n", number)))

    async def clear() -> None:
        await (counts.clear() if cleared_by == "clear" else counts.invalidate_tags("all"))

    await begin(5)
    assert await counts.incr("n") == 6
    await clear()
    assert await counts.get("n", MISS) is MISS
    assert await counts.get_many(["n"]) == {}
    assert await counts.remaining("n") is MISS
    assert await counts.touch("n") is False
    with pytest.raises(KeyError):
        await counts.incr("n", create=False)
    await begin(7)
    assert await counts.incr("n") == 8
    await clear()
    assert await counts.incr("n") == 1
    assert await counts.incr("n") == 2


async def test_what_was_cleared_does_not_stand_in_the_way_of_a_counter(service: Service) -> None:
    counts = region("counts")
    counts.set("n", "text")
    counts.clear()
    assert counts.incr("n") == 1
    assert counts.add("n", 5) is False


async def test_numbers_of_functions_are_ordinary_values(service: Service) -> None:
    @cache(profile="counts")
    def one() -> int:
        return 1

    if region("counts").service.tiers("counts").table is not None:
        for _ in range(1000):  # the server's word of our own store empties L1 once
            assert one() == 1
        assert one.cache_info().l1_hits > 0
    one.invalidate_all()
    assert one.peek() is MISS


async def test_clear_empties_the_region_and_nothing_else(users: Face) -> None:
    @cache(profile="users")
    def load(x: int) -> int:
        return x

    load(1)
    await users.set("k", 1)
    region("default").set("k", 2)
    assert await users.clear() is Outcome.DONE
    assert await users.get("k") is None
    assert load.peek(1) is MISS
    assert region("default").get("k") == 2
    await users.set("k", 3)
    assert await users.get("k") == 3


async def test_several_come_in_the_order_in_which_they_were_asked_for(users: Face) -> None:
    for key in "abcd":
        await users.set(key, key)
    table = users.region._at().tiers.table
    if table is not None and users.region._at().tiers.remote is not None:
        table.clear()  # then the server alone has them
    await users.get("c")
    assert list(await users.get_many("dcba")) == list("dcba")


async def test_tags_reach_every_region(users: Face) -> None:
    tagged = region("tagged")
    await users.set("a", 1, tags=["t:1", "t:2"])
    await users.set("b", 2, tags=["t:2"])
    await users.set("c", 3)
    tagged.set("d", 4)
    tagged.get_or_set("e", lambda: 5, tags=["t:1"])
    assert invalidate_tags("t:1") is Outcome.DONE
    assert await users.get_many(["a", "b", "c"]) == {"b": 2, "c": 3}
    assert (tagged.get("d"), tagged.get("e")) == (4, None)
    assert await users.invalidate_tags("all", "t:2") is Outcome.DONE
    assert await users.get_many(["b", "c"]) == {"c": 3}
    assert tagged.get("d") is None
    await users.set("a", 6, tags=["t:1"])
    assert await users.get("a") == 6


@pytest.mark.parametrize("tag", ["", "#x", "a\n", 5])
async def test_a_bad_tag_is_refused(users: Face, tag: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="tag"):
        await users.set("k", 1, tags=[tag])
    with pytest.raises((TypeError, ValueError), match="tag"):
        await users.invalidate_tags(tag)


@pytest.mark.parametrize("ttl", [0, -1, True, "soon"])
async def test_a_bad_ttl_is_refused(users: Face, ttl: Any) -> None:
    with pytest.raises(ConfigError):
        await users.set("k", 1, ttl=ttl)


async def test_an_entry_ends_with_its_ttl(cachekit_server: Server) -> None:
    clock = FrozenClock()
    regions = built_in_regions()
    regions["default"] = regions["default"].but(jitter=0.0)
    service = Service(ServiceSpec(regions=regions), clock=clock)
    default = service.region("default")
    default.set("k", 1, ttl=10)
    clock.advance(9)
    assert default.get("k") == 1
    clock.advance(1)
    assert default.get("k") is None
    assert default.remaining("k") is MISS


def test_jitter_only_lengthens_and_spreads(cachekit_server: Server) -> None:
    service = Service(ServiceSpec(regions=built_in_regions()), clock=FrozenClock())
    default = service.region("default")
    for key in range(50):
        default.set(key, 1)
    lives = {default.remaining(key) for key in range(50)}
    assert len(lives) > 25
    assert all(isinstance(life, float) and 300 <= life <= 330.001 for life in lives)


def test_the_same_name_is_the_same_region_and_an_unknown_one_an_error(service: Service) -> None:
    assert region("users") is region("users")
    with pytest.raises(ConfigError, match="did you mean 'users'"):
        region("usres").get("k")
    with pytest.raises(ConfigError, match="did you mean 'users'"):
        service.region("usres")


def test_functions_can_be_cached_in_a_region(service: Service) -> None:
    runs = []

    @region("users").cached
    def one(x: int) -> int:
        runs.append(x)
        return x

    @service.region("users").cached(ttl="5m")
    def two(x: int) -> int:
        runs.append(x)
        return x

    assert one(1) == one(1) == two(1) == two(1) == 1
    assert runs == [1, 1]
    assert one.region.name == two.region.name == "users"


def test_info_tells_what_lies_here(service: Service) -> None:
    users = region("users")
    users.set("k", 1)
    users.get("k")
    users.get("nothing")
    info = users.info()
    assert info["region"] == "users"
    assert info["l1_hits"] + info["l2_hits"] == 1
    assert info["misses"] == 1


def test_values_cannot_be_changed_from_outside(users: Face, service: Service) -> None:
    mine = {"a": [1]}
    plain = region("users")
    plain.set("k", mine)
    mine["a"].append(2)
    got = plain.get("k")
    assert got == {"a": [1]}
    got["a"].append(3)
    assert plain.get("k") == {"a": [1]}
    plain.get_many(["k"])["k"]["a"].append(4)
    assert plain.get("k") == {"a": [1]}
