"""``READ_FROM``: what is missing is read once from the old cache, and what was removed does not come back from there.

How it could be broken: the old value is not found (its own prefix, key function, version, serializer); it lives longer
or shorter than there; it comes back after a delete, a set, a clear, a touch or the end of ours, in this process or in
another one; a reader stores what it read before a delete; an old cache that fails, hangs or holds no such value costs
something at each call, or raises.
"""

import inspect
import logging
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit.integrations.django import CacheKitCache
from cachekit.integrations.django.switching import ABSENT
from cachekit.process import default_service, replace_default
from cachekit.service import Service
from cachekit.testing import FaultProxy, FrozenClock
from cachekit.testing.servers import Server, start_server

OURS = "cachekit.integrations.django.CacheKitCache"
PATIENCE = 0.3  # seconds that the client of the old cache waits for its server
Use = Callable[..., None]


class Plain:
    """A serializer of the old cache's own."""

    def dumps(self, value: Any) -> Any:
        return value if type(value) is int else b"plain" + pickle.dumps(value)

    def loads(self, data: Any) -> Any:
        return pickle.loads(data[5:]) if data.startswith(b"plain") else int(data)


def make_key(key: str, prefix: str, version: int) -> str:
    """A key function of the old cache's own."""
    return f"{version}/{prefix}/{key}"


def of_locmem(url: str) -> dict[str, Any]:
    return {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": url}


def of_redis(url: str) -> dict[str, Any]:
    return {
        "BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url,
        "OPTIONS": {"serializer": f"{__name__}.Plain"},
    }  # fmt: skip


def of_django_redis(url: str) -> dict[str, Any]:
    options = {"SOCKET_TIMEOUT": PATIENCE, "SOCKET_CONNECT_TIMEOUT": PATIENCE}
    return {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url, "OPTIONS": options}


KINDS = {"locmem": of_locmem, "RedisCache": of_redis, "django-redis": of_django_redis}


@pytest.fixture
def old_server() -> Iterator[Server]:
    with start_server() as server:
        yield server


@pytest.fixture(
    params=[
        pytest.param("l1", marks=pytest.mark.slow),
        "server",
        pytest.param("server without l1", marks=pytest.mark.slow),
    ]
)
def switch(request: pytest.FixtureRequest, use: Use, cachekit_server: Server) -> Use:
    """Settings with an old cache: ``switch({...}, **of_ours)``; ours in three configurations."""

    def settings(old: dict[str, Any], **ours: Any) -> None:
        profile = {"jitter": 0, "l1": {"mode": "off" if request.param.endswith("without l1") else "on"}}
        use(
            CACHES={"default": {"BACKEND": OURS, "OPTIONS": {"READ_FROM": "old"}, **ours}, "old": old},
            CACHEKIT={
                "backends": {} if request.param == "l1" else {"default": {"url": cachekit_server.url}},
                "profiles": {"default": profile, "sessions": {}},
            },
        )

    return settings


@pytest.fixture(
    params=[name if name == "django-redis" else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]
)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def old(kind: str, switch: Use, cachekit_server: Server) -> Any:
    """The old cache, of each kind, with a key function, a prefix and a version that are not ours."""
    from django.core.cache import caches

    switch({
        **KINDS[kind](cachekit_server.url),
        "KEY_FUNCTION": make_key, "KEY_PREFIX": "shop", "VERSION": 3, "TIMEOUT": 1000,
    })  # fmt: skip
    caches["old"].clear()
    return caches["old"]


class Face:
    """The default cache through its blocking or its awaited methods, called alike."""

    def __init__(self, aio: bool) -> None:
        self.aio = aio

    def __getattr__(self, name: str) -> Callable[..., Any]:
        from django.core.cache import cache

        method = getattr(cache, ("a" if self.aio else "") + name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            answer = method(*args, **kwargs)
            return await answer if inspect.isawaitable(answer) else answer

        return call


@pytest.fixture(params=["sync", "async"])
def cache(request: pytest.FixtureRequest) -> Face:
    return Face(request.param == "async")


def ours_alone(key: str) -> Any:
    """What our region has, without the old cache."""
    from django.core.cache import cache

    return cache.region.get(cache.make_key(key))


async def test_a_miss_is_read_once(cache: Face, old: Any) -> None:
    old.set("k", {"a": {1}})
    assert await cache.get("k") == {"a": {1}}
    old.set("k", "changed")
    assert await cache.get("k") == ours_alone("k") == {"a": {1}}
    assert await cache.get("gone", "default") == "default"


async def test_a_stored_none_and_an_older_version_are_found(cache: Face, old: Any) -> None:
    old.set("none", None)
    old.set("k", "two", version=2)
    assert await cache.get("none", "default") is None
    assert await cache.get("k") is None
    assert await cache.get("k", version=2) == "two"


async def test_the_version_of_ours_is_that_of_the_old_cache(cache: Face, old: Any) -> None:
    """Their numbers differ; Django names ours when it raises the version of a key."""
    old.set_many({"a": 1, "b": 2})
    assert await cache.get("a", version=1) == 1
    assert await cache.delete("b", version=1) is True
    assert await cache.incr_version("a") == 2
    assert old.get_many(["a", "b"]) == {}


async def test_every_way_of_reading_finds_it(cache: Face, old: Any) -> None:
    from django.core.cache import cache as ours

    old.set_many({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6, "g": 7})
    ours.set("ours", 0)
    assert await cache.get_many(["a", "ours", "none"]) == {"a": 1, "ours": 0}
    assert await cache.has_key("b") is True
    assert "c" in ours
    assert await cache.get_or_set("d", lambda: pytest.fail("it was there")) == 4
    assert await cache.incr("e") == 6
    assert await cache.touch("f", 50) is True
    assert await cache.add("g", "new") is False
    assert {key: ours_alone(key) for key in "abcdefg"} == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 6, "f": 6, "g": 7}
    assert await cache.get_or_set("h", lambda: 8) == 8
    assert await cache.add("i", 9) is True
    assert await cache.incr_version("a") == 2
    assert (await cache.get("a"), await cache.get("a", version=2)) == (None, 1)
    with pytest.raises(ValueError, match="not found"):
        await cache.incr("nowhere")


async def test_it_lives_on_for_as_long_as_it_had_left(cache: Face, kind: str, old: Any) -> None:
    from django.core.cache import cache as ours

    def left(key: str) -> Any:
        return ours.region.remaining(ours.make_key(key))

    old.set("k", 1, 77)
    old.set("forever", 1, None)
    await cache.get_many(["k", "forever"])
    if kind == "django-redis":
        assert 70 < left("k") <= 77
        assert left("forever") is None
    else:
        assert 290 < left("k") <= 300
        assert 290 < left("forever") <= 300


@pytest.mark.parametrize("taken", [True, False])
async def test_what_is_removed_does_not_come_back(cache: Face, old: Any, taken: bool) -> None:
    keys = ["delete", "zero", "many", "zeros", "touched"]
    old.set_many(dict.fromkeys(keys, "old"))
    if taken:
        assert await cache.get_many(keys) == dict.fromkeys(keys, "old")
    assert await cache.delete("delete") is True
    await cache.set("zero", 1, 0)
    await cache.delete_many(["many"])
    await cache.set_many({"zeros": 1}, -1)
    assert await cache.touch("touched", 0) is True
    assert await cache.get_many(keys) == {}
    assert old.get_many(keys) == {}
    assert await cache.delete("delete") is False
    old.set_many(dict.fromkeys(keys, "by another process that has not heard of it"))
    assert await cache.get_many(keys) == {}
    assert await cache.add("delete", "new") is True
    assert await cache.get("delete") == "new"


async def test_what_is_set_hides_the_old_value_also_when_it_is_gone_again(cache: Face, old: Any) -> None:
    from django.core.cache import cache as ours

    keys = ["set", "many", "count", "touch"]
    old.set_many({**dict.fromkeys(keys, "old"), "count": 1}, 500)
    await cache.set("set", "new", 60)
    await cache.set_many({"many": "new"}, 60)
    assert await cache.incr("count") == 2
    assert await cache.touch("touch", 60) is True
    assert old.get_many(keys) == {"set": "new", "many": "new", "count": 2, "touch": "old"}
    if hasattr(old, "ttl"):
        assert max(old.ttl(key) for key in ("set", "many", "touch")) <= 60
    for key in keys:
        ours.region.delete(ours.make_key(key))  # evicted
    assert await cache.get_many(keys) == {"set": "new", "many": "new", "count": 2, "touch": "old"}


async def test_the_time_left_is_that_of_the_old_cache_until_it_is_changed_here(cache: Face, old: Any) -> None:
    from django.core.cache import cache as ours

    keys = ["left", "sooner", "for-ever", "over", "unset"]
    old.set_many(dict.fromkeys(keys, "old"), 500)
    left = 500 if hasattr(old, "ttl") else 300  # or ours
    assert left - 10 <= await cache.ttl("left") <= left
    assert 1000 * (left - 10) <= await cache.pttl("left") <= 1000 * left
    assert await cache.ttl("nothing") == 0
    assert await cache.expire("sooner", 60) is True
    assert await cache.persist("for-ever") is True
    assert await cache.pexpire("over", 0) is True
    assert await cache.set("unset", "new", nx=True) is False
    assert await cache.set("nothing", "new", xx=True) is False
    assert 50 <= await cache.ttl("sooner") <= 60
    assert await cache.ttl("for-ever") is None
    assert await cache.get_many(keys) == dict.fromkeys({*keys} - {"over"}, "old")
    for key in ("sooner", "for-ever"):
        ours.region.delete(ours.make_key(key))  # its time has come
    assert await cache.get_many(["sooner", "for-ever"]) == {}


@pytest.mark.parametrize("key_function", [None, make_key])
async def test_what_is_deleted_by_a_pattern_does_not_come_back(
    cache: Face, use: Use, cachekit_server: Server, key_function: Any
) -> None:
    from django.core.cache import caches

    written = {**of_django_redis(cachekit_server.url), "KEY_PREFIX": "shop"}
    if key_function is not None:  # of which django-redis cannot tell the keys that they were made of
        written["KEY_FUNCTION"] = key_function
    use(
        CACHES={"default": {"BACKEND": OURS, "OPTIONS": {"READ_FROM": "old"}}, "old": written},
        CACHEKIT={"backends": {"default": {"url": cachekit_server.url}}},
    )
    old = caches["old"]
    old.clear()
    old.set_many({"page:1": 1, "page:2": 2, "user:1": 3})
    assert await cache.get("page:1") == 1
    assert await cache.delete_pattern("page:*") == 1
    assert await cache.get_many(["page:1", "page:2"]) == {}
    old.set("page:2", "by another process that has not heard of it")
    assert await cache.get("page:2") is None
    assert await cache.get("user:1") == (3 if key_function is None else None)
    await cache.set("page:1", "new")
    assert await cache.get("page:1") == "new"


async def test_nothing_comes_back_after_clear_and_the_old_cache_keeps_what_it_has(cache: Face, old: Any) -> None:
    old.set_many({"a": 1, "b": 2})
    assert await cache.get("a") == 1
    await cache.clear()
    assert await cache.get_many(["a", "b"]) == {}
    assert await cache.has_key("b") is False
    assert old.get_many(["a", "b"]) == {"a": 1, "b": 2}
    await cache.set("a", 3)
    assert await cache.get("a") == 3
    await cache.clear()
    assert await cache.get_many(["a", "b"]) == {}


@pytest.fixture
def apart(use: Use, cachekit_server: Server, old_server: Server) -> Iterator[tuple[FaultProxy, FaultProxy]]:
    """Ours and the old cache on servers that can be taken away one by one."""
    ours, old = FaultProxy("127.0.0.1", cachekit_server.port), FaultProxy("127.0.0.1", old_server.port)
    with ours, old:
        use(
            CACHES={"default": {"BACKEND": OURS, "OPTIONS": {"READ_FROM": "old"}}, "old": of_django_redis(old.url)},
            CACHEKIT={
                "backends": {"default": {"url": ours.url, "breaker": {"open_for": "10ms"}}},
                "profiles": {"default": {"jitter": 0, "l1": {"mode": "off"}}},
            },
        )
        yield ours, old


async def test_a_removal_that_the_old_cache_could_not_be_told_of_is_known_to_all(
    cache: Face, apart: tuple[FaultProxy, FaultProxy], old_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    from django.core.cache import cache as ours
    from django.core.cache import caches

    keys = ["delete", "many", "set"]
    caches["old"].set_many(dict.fromkeys(keys, "old"))
    apart[1].refuse()
    assert await cache.delete("delete") is False
    await cache.delete_many(["many"])
    await cache.set("set", "new")
    apart[1].pass_()
    assert caches["old"].get_many(keys) == dict.fromkeys(keys, "old")
    assert await cache.get("set") == "new"
    ours.region.delete(ours.make_key("set"))  # evicted
    ours._old.memory.__init__()  # as another process, which did nothing of this
    assert await cache.get_many(keys) == {}
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "READ_FROM: the cache 'old' failed (ConnectionError); what only it has counts as missing"
    ]


async def test_a_removal_while_ours_was_away_is_told_to_others_later(
    cache: Face, apart: tuple[FaultProxy, FaultProxy]
) -> None:
    """Meanwhile nothing is taken from the old cache: nobody can tell what was removed."""
    from django.core.cache import cache as ours
    from django.core.cache import caches

    caches["old"].set_many({"a": 1, "b": 2})
    for clear, key in ((False, "a"), (True, "b")):
        apart[0].refuse()
        if clear:
            await cache.clear()
        else:
            apart[1].refuse()
            await cache.delete(key)
            apart[1].pass_()
        assert await cache.get("b") is None
        apart[0].pass_()
        await wait_for_ours(cache)
        assert await cache.get(key) is None
        ours._old.memory.__init__()  # as another process
        assert await cache.get(key) is None


async def wait_for_ours(cache: Face) -> None:
    for _ in range(1000):
        await cache.set("probe", 1)
        if await cache.get("probe") == 1:
            return
    pytest.fail("our server did not come back")


@pytest.mark.parametrize("write", ["delete", "clear", "set", "delete and set"])
async def test_a_reader_that_has_the_old_value_in_its_hands_stores_nothing_removed(
    cache: Face, old: Any, write: str
) -> None:
    """It is held up between the answer of the old cache and its own store."""
    from django.core.cache import cache as ours
    from django.core.cache import caches

    old.set("k", "old")
    read, go = threading.Event(), threading.Event()
    answers: list[Any] = []

    def reader() -> None:
        mine = caches["old"]  # each thread has its own
        original = mine.get_many

        def held_up(*args: Any, **kwargs: Any) -> Any:
            found = original(*args, **kwargs)
            read.set()
            assert go.wait(10)
            return found

        mine.get_many = held_up
        answers.append(ours.get("k"))

    thread = threading.Thread(target=reader)
    thread.start()
    assert read.wait(10)
    if "delete" in write:
        await cache.delete("k")
    if "set" in write:
        await cache.set("k", "new")
    if write == "clear":
        await cache.clear()
    go.set()
    thread.join(10)
    assert answers == [None if write != "set" else "old"]
    assert ours_alone("k") == await cache.get("k") == ("new" if "set" in write else None)


# An old cache that has nothing, or fails


async def test_what_the_old_cache_has_not_is_not_asked_for_again_at_once(
    cache: Face, apart: tuple[FaultProxy, FaultProxy], stopped: FrozenClock
) -> None:
    from django.core.cache import caches

    await cache.get("k")
    before = apart[1].requests
    assert before > 0
    for _ in range(20):
        assert await cache.get("k") is None
        assert await cache.get_many(["k"]) == {}
    assert apart[1].requests == before
    caches["old"].set("k", "from who still runs on it")
    stopped.advance(ABSENT)
    assert await cache.get("k") == "from who still runs on it"


@pytest.fixture
def stopped(apart: object) -> Iterator[FrozenClock]:
    """The clock of the service stands still."""
    clock = FrozenClock()
    service = Service(default_service().spec, clock=clock)
    before = replace_default(service)
    yield clock
    service.close()
    replace_default(before)


@pytest.mark.timed
def test_an_old_cache_that_hangs_delays_a_request_once(apart: tuple[FaultProxy, FaultProxy], use: Use) -> None:
    from django.core.cache import cache

    cache.get("k")
    apart[1].black_hole()
    began = time.monotonic()
    for n in range(20):
        assert cache.get(f"k{n}") is None
        cache.set(f"k{n}", n)
        assert cache.get(f"k{n}") == n
        assert cache.delete(f"k{n}") is True
    assert time.monotonic() - began < PATIENCE * 2 + 1, "late"


@pytest.mark.parametrize("fault", ["refuse", "hang", "reply"])
async def test_an_old_cache_that_fails_is_no_exception(
    cache: Face, apart: tuple[FaultProxy, FaultProxy], fault: str
) -> None:
    {"refuse": apart[1].refuse, "hang": apart[1].black_hole, "reply": lambda: apart[1].reply(b"+what\r\n")}[fault]()
    assert await cache.get("k", "default") == "default"
    assert await cache.get_or_set("k", lambda: 1) == 1
    assert await cache.incr("k") == 2
    assert await cache.get_many(["k", "l"]) == {"k": 2}
    await cache.set("l", 3)
    assert await cache.touch("l", 50) is True
    assert await cache.add("l", 4) is False
    assert await cache.delete("l") is True
    await cache.delete_many(["k", "l"])
    await cache.clear()
    with pytest.raises(ValueError, match="not found"):
        await cache.incr("k")


async def test_a_value_that_the_old_cache_cannot_keep_is_marked_there(
    cache: Face, switch: Use, old_server: Server
) -> None:
    from django.core.cache import cache as ours
    from django.core.cache import caches

    serializer = {"SERIALIZER": "django_redis.serializers.json.JSONSerializer"}
    switch({**of_django_redis(old_server.url), "OPTIONS": serializer})
    caches["old"].set("k", "old")
    await cache.set("k", {"new"})
    assert await cache.get("k") == {"new"}
    assert caches["old"].get("k") == "old"
    ours.region.delete(ours.make_key("k"))  # evicted
    assert await cache.get("k") is None


async def test_a_tenant_has_nothing_of_the_old_cache_and_leaves_nothing_there(cache: Face, old: Any) -> None:
    from cachekit import tenant

    old.set_many({"k": "of nobody", "d": "of nobody"})
    with tenant("acme"):
        assert await cache.get_many(["k", "d"]) == {}
        await cache.set("k", "of acme")
        await cache.delete("d")
    assert old.get("k") == await cache.get("k") == "of nobody"
    assert await cache.get("d") == "of nobody"


def test_a_class_of_the_projects_own_reads_too(use: Use) -> None:
    from django.core.cache import cache, caches

    use(CACHES={"default": {"BACKEND": f"{__name__}.Loud", "OPTIONS": {"READ_FROM": "old"}}, "old": of_locmem("loud")})
    caches["old"].set("k", "old")
    assert cache.get("k") == "OLD"


class Loud(CacheKitCache):
    def get(self, *args: Any, **kwargs: Any) -> Any:
        value = super().get(*args, **kwargs)
        return value.upper() if isinstance(value, str) else value


# Settings


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        ({"READ_FROM": "gone"}, "'gone' is no other alias of CACHES"),
        ({"READ_FROM": "default"}, "'default' is no other alias of CACHES"),
        ({"READ_FROM": ["old"]}, "is no other alias of CACHES"),
        ({"READ_FROM": "chain"}, "'chain' reads from another one itself"),
    ],
)
def test_a_wrong_alias_stops_the_start(use: Use, old: dict[str, Any], expected: str) -> None:
    from django.core.exceptions import ImproperlyConfigured

    chain = {"BACKEND": OURS, "OPTIONS": {"READ_FROM": "old"}}
    with pytest.raises(ImproperlyConfigured, match=expected):
        use(CACHES={"default": {"BACKEND": OURS, "OPTIONS": old}, "old": of_locmem("chain"), "chain": chain})


def test_a_server_of_its_own_reads_too(use: Use, cachekit_server: Server) -> None:
    from django.core.cache import cache, caches

    use(
        CACHES={
            "default": {"BACKEND": OURS, "LOCATION": cachekit_server.url, "OPTIONS": {"ttl": "9m", "READ_FROM": "old"}},
            "old": of_locmem("url"),
        },
        CACHEKIT={"backends": {"django.default": {}}},
    )
    caches["old"].set("k", "old")
    assert cache.get("k") == "old"
    assert 530 < cache.region.remaining(cache.make_key("k")) <= 600
    cache.clear()
    assert cache.get("k") is None
