"""What django-redis has beyond Django's cache: times, patterns, sets, hashes, sorted sets, locks, raw clients.

That each method answers as django-redis does is tested beside it, in tests/competitive.
"""

import inspect
import pickle
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cachekit import Unstorable, UnsupportedOperation, region, tenant
from cachekit.testing import Processes
from cachekit.testing.processes import Process
from cachekit.testing.servers import Server

OURS = "cachekit.integrations.django.CacheKitCache"
EXACT = {"jitter": 0}
Use = Callable[..., None]

STRUCTURES: list[tuple[str, tuple[Any, ...]]] = [
    ("sadd", ("s", 1)), ("srem", ("s", 1)), ("scard", ("s",)), ("smembers", ("s",)), ("sismember", ("s", 1)),
    ("smismember", ("s", 1)), ("smove", ("s", "t", 1)), ("spop", ("s",)), ("srandmember", ("s",)), ("sdiff", ("s",)),
    ("sinter", ("s",)), ("sunion", ("s",)), ("sdiffstore", ("t", "s")), ("sinterstore", ("t", "s")),
    ("sunionstore", ("t", "s")), ("sscan", ("s",)), ("sscan_iter", ("s",)), ("hset", ("h", "f", 1)),
    ("hget", ("h", "f")),
    ("hdel", ("h", "f")), ("hlen", ("h",)), ("hkeys", ("h",)), ("hexists", ("h", "f")), ("zadd", ("z", {"a": 1})),
    ("zincrby", ("z", 1, "a")), ("zrem", ("z", "a")), ("zremrangebyscore", ("z", 0, 1)), ("zpopmax", ("z",)),
    ("zpopmin", ("z",)), ("zcard", ("z",)), ("zcount", ("z", 0, 1)), ("zscore", ("z", "a")), ("zrank", ("z", "a")),
    ("zrange", ("z", 0, -1)), ("zrevrange", ("z", 0, -1)), ("zrangebyscore", ("z", 0, 1)),
    ("zrevrangebyscore", ("z", 1, 0)),
]  # fmt: skip
PATTERNS: list[tuple[str, tuple[Any, ...]]] = [("keys", ("*",)), ("iter_keys", ("*",)), ("delete_pattern", ("*",))]


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def aio(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def ask(cache: Any, aio: bool, name: str, *args: Any, **kwargs: Any) -> Any:
    """A method in one of its kinds; what is iterated as a list."""
    answer = getattr(cache, ("a" if aio else "") + name)(*args, **kwargs)
    if inspect.isasyncgen(answer):
        return [each async for each in answer]
    if inspect.isgenerator(answer):
        return list(answer)
    return await answer if inspect.isawaitable(answer) else answer


def alias(server: Server, **options: Any) -> dict[str, Any]:
    return {"BACKEND": OURS, "LOCATION": server.url, "OPTIONS": {**EXACT, **options}}


def on(use: Use, server: Server, **options: Any) -> Any:
    """The default cache with a server."""
    from django.core.cache import cache

    use(CACHES={"default": alias(server, **options)}, CACHEKIT=patient("default"))
    return cache


def patient(*aliases: str) -> dict[str, Any]:
    """A configuration in which a machine under load is no server that is away."""
    return {"backends": {f"django.{each}": {"adaptive": False, "budget": "5s"} for each in aliases}}


# Both kinds, with and without L1.


@pytest.mark.parametrize("l1", ["on", "off"])
async def test_each_method_works_in_both_kinds(use: Use, cachekit_server: Server, aio: bool, l1: str) -> None:
    cache = on(use, cachekit_server, l1={"mode": l1})

    async def call(name: str, *args: Any, **kwargs: Any) -> Any:
        return await ask(cache, aio, name, *args, **kwargs)

    assert await call("sadd", "s", 1, "a", (1, "b"), None) == 4
    assert await call("smembers", "s") == {1, "a", (1, "b"), None}
    assert set(await call("sscan_iter", "s", count=1)) == {1, "a", (1, "b"), None}
    assert await call("smismember", "s", "a", "b") == [True, False]
    assert await call("srem", "s", "a", "b") == 1
    assert await call("zadd", "z", {"a": 1, "b": 2.5}) == 2
    assert await call("zrange", "z", 0, -1, withscores=True) == [("a", 1.0), ("b", 2.5)]
    assert await call("zpopmax", "z") == ("b", 2.5)
    assert await call("zincrby", "z", 2, "a") == 3.0
    assert await call("hset", "h", "f", {"x": (1,)}) == 1
    assert await call("hget", "h", "f") == {"x": (1,)}
    assert await call("hget", "h", "g") is None
    assert await call("set", "k", "v", 30, nx=True) is True
    assert await call("set", "k", "w", 30, nx=True) is False
    assert await call("set", "k", "x", 40, xx=True) is True
    assert await call("set", "none", "x", xx=True) is False
    assert (await call("get", "k"), await call("ttl", "k")) == ("x", 40)
    assert 39_000 < await call("pttl", "k") <= 40_000
    assert sorted(await call("keys", "*")) == sorted(await call("iter_keys", "*")) == ["h", "k", "s", "z"]
    assert await call("expire", "s", 7) is True
    assert await call("persist", "k") is True
    assert (await call("ttl", "s"), await call("ttl", "k"), await call("ttl", "none")) == (7, None, 0)
    assert await call("delete_pattern", "[sk]") == 2
    assert await call("get", "k") is None
    await call("clear")
    assert await call("keys", "*") == []
    assert await call("zcard", "z") == 0


async def test_without_a_server_times_and_conditions_work(use: Use, aio: bool) -> None:
    from django.core.cache import cache

    use(CACHEKIT={"profiles": {"default": {**EXACT}}})
    for name, args, expected in (
        ("set", ("k", 1, 25), True), ("ttl", ("k",), 25), ("expire", ("k", 50), True), ("ttl", ("k",), 50),
        ("expire", ("k", timedelta(minutes=2)), True), ("ttl", ("k",), 120), ("pexpire", ("k", 5800), True),
        ("ttl", ("k",), 6), ("persist", ("k",), True), ("persist", ("k",), False), ("ttl", ("k",), None),
        ("expire_at", ("k", datetime.now(UTC) + timedelta(hours=1)), True), ("ttl", ("k",), 3600),
        ("expire", ("k", 0), True), ("get", ("k",), None), ("ttl", ("k",), 0), ("expire", ("k", 5), False),
        ("clear", (), None),
    ):  # fmt: skip
        assert await ask(cache, aio, name, *args) == expected, (name, args)
    assert await ask(cache, aio, "set", "k", 1, nx=True) is True
    assert await ask(cache, aio, "set", "k", 2, nx=True) is False
    assert await ask(cache, aio, "set", "k", 3, xx=True) is True
    assert await ask(cache, aio, "set", "m", 3, xx=True) is False
    assert (await ask(cache, aio, "get", "k"), await ask(cache, aio, "get", "m")) == (3, None)
    with pytest.raises(ValueError, match="nx or xx, not both"):
        await ask(cache, aio, "set", "k", 1, nx=True, xx=True)


@pytest.mark.parametrize(("name", "args"), [*STRUCTURES, *PATTERNS], ids=lambda value: str(value))
async def test_without_a_server_the_rest_says_what_it_needs(use: Use, aio: bool, name: str, args: Any) -> None:
    from django.core.cache import cache

    use()
    with pytest.raises(UnsupportedOperation, match="needs a server, and region 'default' has none: give the alias"):
        await ask(cache, aio, name, *args)


def test_without_a_server_there_is_no_client_and_no_lock(use: Use) -> None:
    from django.core.cache import cache

    from cachekit.integrations.django import get_redis_connection

    use()
    for what in (cache.client.get_client, get_redis_connection, lambda: cache.lock("k")):
        with pytest.raises(UnsupportedOperation, match="needs a server"):
            what()


# Where entries lie


def test_structures_live_under_the_keys_of_values(
    use: Use, cachekit_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    cache = on(use, cachekit_server)
    cache.sadd("k", 1)
    assert cache.get("k", "none") == "none"
    assert cache.get_many(["k"]) == {}
    assert cache.add("k", 2) is False
    with pytest.raises(UnsupportedOperation, match="another kind of value lies there"):
        cache.hset("k", "f", 1)
    assert cache.delete("k") is True
    assert cache.smembers("k") == set()
    cache.sadd("k", 1)
    cache.set("k", 5)
    assert cache.get("k") == 5
    with pytest.raises(UnsupportedOperation, match=r"SADD of ':1:k'"):
        cache.sadd("k", 1)
    assert caplog.text == ""  # nothing is wrong with the server


def test_a_value_that_a_clear_outdated_gives_way(use: Use, cachekit_server: Server) -> None:
    cache = on(use, cachekit_server)
    for write in (lambda: cache.sadd("k", 1), lambda: cache.zadd("k", {"a": 1}), lambda: cache.hset("k", "f", 1)):
        for value in ("text", 7):
            cache.set("k", value)
            cache.clear()
            assert cache.smembers("k") == set()
            cache.set("k", value)
            cache.clear()
            assert write() == 1
            cache.clear()


def test_a_clear_removes_structures_of_its_region_alone(use: Use, cachekit_server: Server) -> None:
    from django.core.cache import caches

    places = {name: alias(cachekit_server) | {"KEY_PREFIX": name} for name in ("default", "other")}
    use(CACHES=places, CACHEKIT=patient(*places))
    for name in ("default", "other"):
        caches[name].sadd("s", name)
        caches[name].hset("h", "f", name)
    caches["default"].clear()
    assert (caches["default"].smembers("s"), caches["default"].hlen("h")) == (set(), 0)
    assert (caches["other"].smembers("s"), caches["other"].hlen("h")) == ({"other"}, 1)
    connection = caches["default"].client.get_client()
    assert connection.exists(caches["default"].client.make_key("s")) == 0


def test_keys_of_a_tenant_are_its_own(use: Use, cachekit_server: Server) -> None:
    cache = on(use, cachekit_server)
    cache.set("k", "nobody")
    for who in ("ann", "bob"):
        with tenant(who):
            cache.set(f"of_{who}", who)
            cache.sadd("s", who)
    with tenant("ann"):
        assert sorted(cache.keys("*")) == ["of_ann", "s"]
        assert cache.smembers("s") == {"ann"}
        assert cache.delete_pattern("*") == 2
        cache.sadd("s", "ann")
        cache.clear()
        assert cache.keys("*") == []
    with tenant("bob"):
        assert sorted(cache.keys("*")) == ["of_bob", "s"]
    assert cache.keys("*") == ["k"]
    cache.clear()
    with tenant("bob"):
        assert cache.keys("*") == []
        assert cache.smembers("s") == set()


def test_cleared_values_are_not_listed_though_they_lie_there(use: Use, cachekit_server: Server) -> None:
    cache = on(use, cachekit_server)
    connection = cache.client.get_client()
    cache.set("old", 1)
    cache.set("text", "x")
    cache.clear()
    assert connection.exists(cache.client.make_key("old"), cache.client.make_key("text")) == 2
    cache.set("new", 1)
    assert cache.keys("*") == ["new"]
    assert cache.delete_pattern("*") == 1


def test_expiry_has_no_jitter(use: Use, cachekit_server: Server) -> None:
    cache = on(use, cachekit_server, jitter="1h")
    cache.set("k", 1)
    for seconds in (100, 1000):
        assert cache.expire("k", seconds)
        assert cache.ttl("k") == seconds


def test_an_end_is_kept_by_both_tiers(use: Use, cachekit_server: Server) -> None:
    cache = on(use, cachekit_server)
    cache.set("k", 1, 60)
    assert cache.get("k") == 1
    assert cache.pexpire("k", 100)
    assert cache.get("k") == 1
    time.sleep(0.15)
    assert cache.get("k") is None
    assert cache.keys("*") == []


def test_a_reverse_key_function_and_key_functions_are_followed(use: Use, cachekit_server: Server) -> None:
    from django.core.cache import cache

    place = alias(cachekit_server) | {
        "KEY_FUNCTION": lambda key, prefix, version: f"{version}/{prefix}/{key}",
        "REVERSE_KEY_FUNCTION": lambda key: key.split("/", 2)[2],
        "KEY_PREFIX": "a*b",
    }
    use(CACHES={"default": place}, CACHEKIT=patient("default"))
    cache.set("k/1", 1)
    assert cache.keys("k/*") == ["k/1"]
    assert cache.delete_pattern("k/?") == 1


def test_pages_are_as_large_as_the_setting_says(use: Use, cachekit_server: Server) -> None:
    from django.core.cache import cache

    use(CACHES={"default": alias(cachekit_server)}, CACHEKIT=patient("default"), DJANGO_REDIS_SCAN_ITERSIZE=5)
    cache.set_many({f"k{number}": number for number in range(40)})
    asked: list[int] = []
    face = cache.region.service.tiers(cache.region.name).remote.faces.sync
    scan = face.scan
    face.scan = lambda prefix, cursor, count, budget: asked.append(count) or scan(prefix, cursor, count, budget=budget)
    assert len(cache.keys("k*")) == 40
    assert set(asked) == {5} and len(asked) > 1
    asked.clear()
    assert len(set(cache.iter_keys("k*", itersize=100_000))) == 40
    assert set(asked) == {1000}  # other tests have keys there too


# Members


def test_members_are_stored_alike_in_each_process(use: Use, cachekit_server: Server) -> None:
    env = {"SERVER": cachekit_server.url, "NAMESPACE": "members"}
    with Processes(2, "django_redis_app:set_up", env=lambda number: {**env, "PYTHONHASHSEED": str(number)}) as both:
        first, second = (process.call("encoded") for process in both)
    assert first == second


@pytest.mark.parametrize("member", [frozenset("ab"), (1, frozenset("ab")), [{1, 2}]])
def test_members_without_an_order_are_refused(use: Use, cachekit_server: Server, member: Any) -> None:
    cache = on(use, cachekit_server)
    for write in (lambda: cache.sadd("s", member), lambda: cache.sismember("s", member)):
        with pytest.raises(Unstorable, match="use a sorted tuple"):
            write()
    assert cache.hset("h", "f", member) == 1
    assert cache.hget("h", "f") == member


def test_nothing_is_pickled_or_unpickled(use: Use, cachekit_server: Server) -> None:
    cache = on(use, cachekit_server)
    cache.sadd("s", (1, "a"))
    connection = cache.client.get_client()
    (stored,) = connection.smembers(cache.client.make_key("s"))
    with pytest.raises(Exception):  # noqa: B017
        pickle.loads(stored)
    for junk in (pickle.dumps((1, "b")), b"\x80", b"", b"\x01\xc1", b"\xff\x00"):
        connection.sadd(cache.client.make_key("s"), junk)
        connection.hset(cache.client.make_key("h"), "f", junk)
        connection.zadd(cache.client.make_key("z"), {junk: 1})
        assert cache.hget("h", "f") is None
    assert cache.smembers("s") == {(1, "a")}
    assert cache.zrange("z", 0, -1) == cache.zrange("z", 0, -1, withscores=True) == []


def test_a_server_that_answers_nonsense_is_one_that_has_nothing(use: Use, cachekit_server: Server) -> None:
    cache = on(use, cachekit_server)
    face = cache.region.service.tiers(cache.region.name).remote.faces.sync
    face.query = face.alter = lambda *args, **kwargs: object()
    empty = {
        "smembers": set(),
        "scard": 0,
        "zrange": [],
        "hget": None,
        "spop": None,
        "zpopmin": None,
        "sismember": False,
    }
    for name, args in STRUCTURES:
        answer = getattr(cache, name)(*args)
        answer = list(answer) if inspect.isgenerator(answer) else answer
        assert answer == empty.get(name, answer)


def test_encrypting_regions_refuse_what_they_cannot_keep(
    use: Use, cachekit_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.core.cache import cache

    monkeypatch.setenv("CACHEKIT_MASTER_KEY", secrets.token_hex(32))
    use(CACHES={"default": alias(cachekit_server, encrypt=True, counters=False)}, CACHEKIT=patient("default"))
    cache.set("k", 1, 30)
    assert (cache.ttl("k"), cache.expire("k", 50), cache.ttl("k"), cache.persist("k")) == (30, True, 50, True)
    with pytest.raises(UnsupportedOperation, match="encrypts or signs"):
        cache.sadd("s", 1)
    for name, args in PATTERNS:
        with pytest.raises(UnsupportedOperation, match="does not know the names of its keys"):
            list(getattr(cache, name)(*args))
    cache.clear()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda cache: cache.hset("h"), "needs a field"),
        (lambda cache: cache.hset("h", (1,), 1), "the field of a hash"),
        (lambda cache: cache.zadd("z", {}), "needs a member"),
        (lambda cache: cache.zadd("z", {"a": 1}, nx=True, gt=True), "not with nx"),
        (lambda cache: cache.zadd("z", {"a": 1, "b": 1}, incr=True), "takes one member"),
        (lambda cache: cache.zrangebyscore("z", 0, 1, start=1), "belong together"),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    use: Use, cachekit_server: Server, call: Callable[[Any], Any], message: str
) -> None:
    cache = on(use, cachekit_server)
    with pytest.raises((ValueError, TypeError), match=message):
        call(cache)


# Clients and locks


def test_a_raw_client_finds_our_keys_and_closes_with_the_service(use: Use, cachekit_server: Server) -> None:
    from django.core.cache import caches

    from cachekit.integrations.django import get_redis_connection

    use(
        CACHES={
            "default": alias(cachekit_server),
            "memory": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        },
        CACHEKIT=patient("default"),
    )
    cache, connection = caches["default"], get_redis_connection("default")
    assert connection is get_redis_connection("default", write=False) is cache.client.get_client()
    cache.hset("h", "f", (1,))
    stored = connection.hget(cache.client.make_key("h"), "f")
    assert cache.client.decode(stored) == (1,)
    assert cache.client.make_key("h") == cache.client.make_key("h", version=1, prefix="")
    assert cache.client.smembers("none") == set()  # the cache's own methods
    with pytest.raises(ValueError, match="not a value"):
        cache.client.decode(pickle.dumps((1,)))
    with pytest.raises(NotImplementedError, match="no backend of cachekit"):
        get_redis_connection("memory")
    with pytest.raises(UnsupportedOperation, match="takes the client of this alias only"):
        cache.sadd("s", 1, client=connection.pipeline())
    assert cache.sadd("s", 1, client=connection) == 1


def test_a_lock_is_one_for_all_and_no_entry(use: Use, cachekit_server: Server) -> None:
    cache = on(use, cachekit_server)
    with cache.lock("report", timeout=30, blocking_timeout=1):
        assert cache.get_lock("report").acquire(blocking=False) is False
        cache.set("report", "a value of the same name")
        cache.clear()
        assert cache.keys("*") == []
        assert cache.lock("report").acquire(blocking=False) is False
        assert cache.lock("report", version=2, timeout=5).acquire(blocking=False) is True
    assert cache.lock("report", timeout=5).acquire(blocking=False) is True


# Other processes, and servers that are away


def until(process: Process, expected: Any) -> bool:
    """Whether a process sees this within the bound of coherence."""
    ends = time.monotonic() + 5
    while (seen := process.call("call", "get", "k")) != expected and time.monotonic() < ends:
        time.sleep(0.01)
    return bool(seen == expected)


def test_other_processes_see_it_within_the_bound(cachekit_server: Server) -> None:
    env = {"SERVER": cachekit_server.url, "NAMESPACE": "processes"}
    changes = [
        (("expire", "k", 0), None),
        (("delete_pattern", "k*"), None),
        (("set", "k", "new", 60, None, None, False, True), "new"),
        (("pexpire", "k", -1), None),
    ]
    with Processes(2, "django_redis_app:set_up", env=env) as (one, other):
        for number, (change, expected) in enumerate(changes):
            one.call("call", "set", "k", f"old{number}", 60)
            assert until(other, f"old{number}")
            assert other.call("call", "get", "k") == f"old{number}"  # from its L1 by now
            one.call("call", *change)
            assert one.call("call", "get", "k") == expected
            assert until(other, expected)
        assert one.call("call", "sadd", "s", 3, 1) == 2
        assert other.call("call", "smembers", "s") == [1, 3]
        one.call("call", "clear")
        assert other.call("call", "scard", "s") == 0


async def test_a_server_that_is_away_has_nothing(use: Use, aio: bool) -> None:
    from django.core.cache import cache

    place = {"BACKEND": OURS, "LOCATION": "redis://127.0.0.1:1/0", "OPTIONS": EXACT}
    use(CACHES={"default": place})
    for name, args in (*STRUCTURES, *PATTERNS):
        answer = await ask(cache, aio, name, *args)
        assert not answer or answer == [False], name
    assert await ask(cache, aio, "expire", "k", 5) is False
    assert await ask(cache, aio, "ttl", "k") == 0
    await ask(cache, aio, "clear")


def test_outside_of_a_server_nothing_else_is_touched(use: Use, cachekit_server: Server) -> None:
    cache = on(use, cachekit_server)
    connection = cache.client.get_client()
    connection.set("queue", "a job")
    cache.sadd("s", 1)
    cache.delete_pattern("*")
    cache.clear()
    assert connection.get("queue") == b"a job"
    assert region("django.default").get("s") is None
