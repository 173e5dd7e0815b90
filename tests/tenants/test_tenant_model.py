"""Three tenants and nobody use one region and one function in any order: each sees what a dict of its own would say."""

import asyncio
import inspect
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachekit import MISS, tenant
from cachekit.engine.ports import drive
from cachekit.service import Service

MakeTenants = Callable[..., Service]

TENANTS = [None, "a", "b", "a:b"]
# Some of them look like what stands before the key of a tenant.
KEYS = ["k", "a", ("a", "k"), "=k", 7]
OPERATIONS = [
    "set", "tagged", "get", "add", "get_or_set", "get_many", "set_many", "delete", "delete_many", "touch", "remaining",
    "mark_stale", "clear", "incr", "call", "call_tagged", "peek", "put", "refresh", "invalidate", "mark_call",
    "through_key", "drop_through_key", "invalidate_all", "clear_all_tenants", "clear_function", "clear_tag",
]  # fmt: skip
RARE = {"clear", "clear_all_tenants", "clear_function", "invalidate_all", "clear_tag"}

steps = st.lists(
    st.tuples(
        st.sampled_from(TENANTS),
        st.sampled_from([*OPERATIONS, *[name for name in OPERATIONS if name not in RARE]]),
        st.sampled_from(KEYS),
        st.sampled_from(KEYS),
    ),
    min_size=30,
    max_size=60,
)


class World:
    """The region and the function, and what a dict for each tenant says of them."""

    def __init__(self, make: MakeTenants, mode: str, face: str, encrypt: bool) -> None:
        self.face = face
        self.counters = not encrypt
        service = make(mode, ttl=None, encrypt=encrypt, counters=self.counters)
        self.region = service.region("users")
        self.numbers = service.region("other")
        self.keys: dict[Any, dict[Any, Any]] = defaultdict(dict)
        self.calls: dict[Any, dict[Any, Any]] = defaultdict(dict)
        self.counts: dict[Any, dict[Any, int]] = defaultdict(dict)
        self.with_tag: set[tuple[str, Any, Any]] = set()
        self.made = 0

        def f(key: Any, other: Any, tagged: bool = False) -> Any:
            return self.new()

        async def g(key: Any, other: Any, tagged: bool = False) -> Any:
            return self.new()

        tags = lambda key, other, tagged=False: ["tag"] if tagged else []  # noqa: E731
        options: dict[str, Any] = {"tags": tags, "ignore": ("tagged",), "version": 1}
        self.f = self.region.cached(f if face == "sync" else g, **options)

    def new(self) -> str:
        self.made += 1
        return f"value {self.made}"

    async def do(self, method: str, *args: Any, of: Any = None, **kwargs: Any) -> Any:
        prefix = "a" if of is None and self.face == "async" else ""
        result = getattr(of or self.region, prefix + method)(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    async def step(self, who: Any, operation: str, key: Any, other: Any) -> None:
        with nullcontext() if who is None else tenant(who):
            await getattr(self, operation)(who, key, other)

    def stored(self, kind: str, who: Any, key: Any, tagged: bool) -> None:
        (self.with_tag.add if tagged else self.with_tag.discard)((kind, who, key))

    # The operations, each with what the model says

    async def set(self, who: Any, key: Any, other: Any, **options: Any) -> None:
        value = self.keys[who][key] = self.new()
        self.stored("key", who, key, bool(options))
        await self.do("set", key, value, **options)

    async def tagged(self, who: Any, key: Any, other: Any) -> None:
        await self.set(who, key, other, tags=["tag"])

    async def get(self, who: Any, key: Any, other: Any) -> None:
        assert await self.do("get", key, MISS) == self.keys[who].get(key, MISS)

    async def add(self, who: Any, key: Any, other: Any) -> None:
        absent, value = key not in self.keys[who], self.new()
        assert await self.do("add", key, value) is absent
        if absent:
            self.keys[who][key] = value
            self.stored("key", who, key, False)

    async def get_or_set(self, who: Any, key: Any, other: Any) -> None:
        value = await self.do("get_or_set", key, self.new)
        if key not in self.keys[who]:
            assert value == f"value {self.made}"
            self.keys[who][key] = value
            self.stored("key", who, key, False)
        assert value == self.keys[who][key]

    async def get_many(self, who: Any, key: Any, other: Any) -> None:
        known = self.keys[who]
        assert await self.do("get_many", [key, other]) == {each: known[each] for each in (key, other) if each in known}

    async def set_many(self, who: Any, key: Any, other: Any) -> None:
        values = {key: self.new(), other: self.new()}
        assert await self.do("set_many", values) == []
        self.keys[who].update(values)
        for each in values:
            self.stored("key", who, each, False)

    async def delete(self, who: Any, key: Any, other: Any) -> None:
        self.keys[who].pop(key, None)
        await self.do("delete", key)

    async def delete_many(self, who: Any, key: Any, other: Any) -> None:
        for each in (key, other):
            self.keys[who].pop(each, None)
        await self.do("delete_many", [key, other])

    async def touch(self, who: Any, key: Any, other: Any) -> None:
        assert await self.do("touch", key) is (key in self.keys[who])

    async def remaining(self, who: Any, key: Any, other: Any) -> None:
        assert await self.do("remaining", key) is (None if key in self.keys[who] else MISS)

    async def mark_stale(self, who: Any, key: Any, other: Any) -> None:
        self.keys[who].pop(key, None)
        await self.do("mark_stale", key)

    async def clear(self, who: Any, key: Any, other: Any) -> None:
        for kind in (self.keys, self.calls):
            for each in kind if who is None else [who]:
                kind[each].clear()
        await self.do("clear")

    async def clear_all_tenants(self, who: Any, key: Any, other: Any) -> None:
        self.keys.clear()
        self.calls.clear()
        await self.do("clear", all_tenants=True)

    async def clear_tag(self, who: Any, key: Any, other: Any) -> None:
        for kind, whose, each in self.with_tag:
            (self.keys if kind == "key" else self.calls)[whose].pop(each, None)
        self.with_tag.clear()
        await self.do("invalidate_tags", "tag")

    async def incr(self, who: Any, key: Any, other: Any) -> None:
        if self.counters:
            self.counts[who][key] = self.counts[who].get(key, 0) + 1
            method = self.numbers.incr if self.face == "sync" else self.numbers.aincr
            number = method(key)
            assert (await number if inspect.isawaitable(number) else number) == self.counts[who][key]

    async def call(self, who: Any, key: Any, other: Any, tagged: bool = False) -> None:
        value = self.f(key, other, tagged=True) if tagged else self.f(key, other)
        value = await value if self.face == "async" else value
        if (key, other) not in self.calls[who]:
            assert value == f"value {self.made}"
            self.calls[who][key, other] = value
            self.stored("call", who, (key, other), tagged)
        assert value == self.calls[who][key, other]

    async def call_tagged(self, who: Any, key: Any, other: Any) -> None:
        await self.call(who, key, other, tagged=True)

    async def peek(self, who: Any, key: Any, other: Any) -> None:
        assert await self.do("peek", key, other, of=self.f) == self.calls[who].get((key, other), MISS)

    async def put(self, who: Any, key: Any, other: Any) -> None:
        value = self.calls[who][key, other] = self.new()
        self.stored("call", who, (key, other), False)
        await self.do("put", value, key, other, of=self.f)

    async def refresh(self, who: Any, key: Any, other: Any) -> None:
        self.calls[who][key, other] = await self.do("refresh", key, other, of=self.f)
        self.stored("call", who, (key, other), False)

    async def invalidate(self, who: Any, key: Any, other: Any) -> None:
        self.calls[who].pop((key, other), None)
        await self.do("invalidate", key, other, of=self.f)

    async def mark_call(self, who: Any, key: Any, other: Any) -> None:
        self.calls[who].pop((key, other), None)
        await self.do("mark_stale", key, other, of=self.f)

    async def invalidate_all(self, who: Any, key: Any, other: Any) -> None:
        for each in self.calls if who is None else [who]:
            self.calls[each].clear()
        await self.do("invalidate_all", of=self.f)

    async def clear_function(self, who: Any, key: Any, other: Any) -> None:
        self.calls.clear()
        self.f.cache_clear()

    async def through_key(self, who: Any, key: Any, other: Any) -> None:
        """A key goes on to be its own tenant's in the hands of all others."""
        entry = self.f.key(key, other)
        for whose in TENANTS:
            with nullcontext() if whose is None else tenant(whose):
                assert await self.do("get", entry, MISS) == self.calls[who].get((key, other), MISS)

    async def drop_through_key(self, who: Any, key: Any, other: Any) -> None:
        entry = self.f.key(key, other)
        self.calls[who].pop((key, other), None)
        with tenant("somebody else"):
            await self.do("delete", entry)


Steps = list[tuple[Any, str, Any, Any]]


@pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize("face", ["sync", "async"])
def test_each_sees_what_a_dict_of_its_own_would_say(
    make_tenants: MakeTenants, mode: str, twin: str, face: str, encrypt: bool
) -> None:
    @settings(
        max_examples=8,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(steps)
    def check(sequence: Steps) -> None:
        world = World(make_tenants, mode, face, encrypt)

        async def run() -> None:
            for step in sequence:
                await world.step(*step)
            for who in TENANTS:
                for key in KEYS:
                    await world.step(who, "get", key, key)
                    await world.step(who, "peek", key, key)
            if face == "async":
                await world.region.service.aclose()

        if face == "sync":
            drive(run())
            world.region.service.close()
        else:
            asyncio.run(run())

    check()
