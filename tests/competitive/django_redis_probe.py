"""A row of calls to a cache of django-redis, or to ours with the same settings: what each is answered, as text.

python django_redis_probe.py peer | ours REDIS_URL
"""

import inspect
import sys
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum

import django
from django.conf import settings

WHO, URL = sys.argv[1:]
BACKENDS = {"peer": "django_redis.cache.RedisCache", "ours": "cachekit.integrations.django.CacheKitCache"}
PLACE = {"BACKEND": BACKENDS[WHO], "LOCATION": URL, "KEY_PREFIX": "shop*", "TIMEOUT": 300}
if WHO == "ours":  # times of Redis are to the second
    PLACE["OPTIONS"] = {"jitter": 0}
BUSY = {"django.default": {"adaptive": False, "budget": "10s"}}  # a machine under load is no server that is away
settings.configure(CACHES={"default": PLACE}, CACHEKIT={"namespace": "probe", "backends": BUSY})
django.setup()

from django.core.cache import cache  # noqa: E402


class Size(Enum):
    SMALL = 1


UUID = uuid.UUID(int=7)
MEMBERS = [1, -7, 2**70, "1", "é", b"1", 1.5, None, (1, "b"), ((), (2.5,)), Decimal("1.10"), date(2026, 1, 2), UUID]
START = datetime.now(UTC).replace(microsecond=0)


def plain(value):
    """Sets without their order, sequences as they are."""
    if isinstance(value, set):
        return f"set {sorted(map(repr, value))}"
    return repr(list(value) if inspect.isgenerator(value) else value)


def ask(name, *args, **kwargs):
    """One call; of errors only that there was one, since each library has its own."""
    try:
        answer = plain(getattr(cache, name)(*args, **kwargs))
    except Exception:
        answer = "an error"
    kwargs.pop("client", None)  # it looks different each time
    print(name, args, kwargs, "->", answer)


def unordered(name, *args, **kwargs):
    print(name, args, kwargs, "->", sorted(getattr(cache, name)(*args, **kwargs), key=repr))


def times():
    ask("set", "foo", "value", timeout=25)
    ask("ttl", "foo")
    print("pttl", 24_000 < cache.pttl("foo") <= 25_000)
    for missing in ("ttl", "pttl", "persist"):
        ask(missing, "none")
    ask("expire", "none", 5)
    ask("persist", "foo"), ask("ttl", "foo"), ask("pttl", "foo"), ask("persist", "foo")
    ask("expire", "foo", 5), ask("ttl", "foo")
    ask("expire", "foo", timedelta(minutes=2)), ask("ttl", "foo")
    ask("pexpire", "foo", 5500), print("pttl", 5000 < cache.pttl("foo") <= 5500)
    for number, when in enumerate((START + timedelta(hours=1), int(START.timestamp()) + 7200)):
        print("expire_at", cache.expire_at("foo", when), 3500 < cache.ttl("foo") - number * 3600 <= 3600)
    for number, when in enumerate((START + timedelta(hours=1), int(START.timestamp() + 7200) * 1000)):
        print("pexpire_at", cache.pexpire_at("foo", when), 3500 < cache.ttl("foo") - number * 3600 <= 3600)
    ask("get", "foo")
    ask("expire", "foo", 0), ask("get", "foo"), ask("ttl", "foo")
    ask("set", "foo", 5), ask("expire_at", "foo", datetime(2001, 1, 1)), ask("get", "foo")
    ask("set", "n", 5, 30), ask("expire", "n", 60), ask("ttl", "n"), ask("incr", "n"), ask("ttl", "n"), ask("get", "n")
    ask("set", "v", 5, version=2), ask("ttl", "v"), ask("ttl", "v", version=2), ask("expire", "v", 9, version=2)
    ask("sadd", "s", 1), ask("ttl", "s"), ask("expire", "s", 30), ask("ttl", "s"), ask("sadd", "s", 2), ask("ttl", "s")
    ask("persist", "s"), ask("persist", "s"), ask("ttl", "s"), ask("pexpire", "s", 50_000), ask("ttl", "s")
    ask("expire", "s", -1), ask("smembers", "s")


def conditions():
    ask("set", "k", "value1", nx=True), ask("set", "k", "value2", nx=True), ask("get", "k")
    ask("set", "k", "value3", xx=True), ask("set", "none", 1, xx=True), ask("get", "k"), ask("get", "none")
    ask("set", "k", 4, 30, xx=True), ask("ttl", "k"), ask("get", "k"), ask("incr", "k"), ask("set", "k", 6, xx=True)
    ask("set", "k", 1, timeout=0, nx=True), ask("get", "k"), ask("set", "other", 1, timeout=-1, nx=True)
    ask("set", "k", 1, timeout=0), ask("get", "k"), ask("set", "k", 1, timeout=0), ask("set", "k", None, nx=True)
    ask("set", "k", 2, nx=True), ask("get", "k", "default"), ask("set", "k", 2, None, xx=True), ask("ttl", "k")


def patterns():
    for name in ("foo_1", "foo_2", "foo_22", "bar:1", "a*b", "a[b", "axb", "é_1"):
        cache.set(name, name)
    cache.sadd("foo_set", 1), cache.set("foo_3", 1, version=2)
    for pattern in ("foo_*", "*", "foo_?", "foo_[12]", "foo_[^1]", "foo_[1-2]", "foo_[2-1]*", "none*", "a\\*b", "a*b",
                    "a\\[b", "*_1", "foo_1", "", "?", "[ab]*", "bar:*"):  # fmt: skip
        unordered("keys", pattern)
        unordered("iter_keys", pattern)
    unordered("keys", "*", version=2)
    unordered("iter_keys", "foo_*", itersize=2)
    ask("delete_pattern", "foo_?"), unordered("keys", "*"), ask("get", "foo_1"), ask("get", "foo_22")
    ask("delete_pattern", "*", version=2), ask("get", "foo_3", version=2), ask("delete_pattern", "none*")
    ask("delete_pattern", "a\\*b", itersize=1), unordered("keys", "a*"), ask("smembers", "foo_set")
    ask("delete_pattern", "*", prefix="other"), ask("delete", "foo_set"), ask("delete", "foo_set")
    cache.sadd("s", 1), cache.hset("h", "f", 1), cache.zadd("z", {"a": 1}), cache.set("k", 1)
    unordered("keys", "*"), cache.clear(), unordered("keys", "*"), ask("scard", "s"), ask("hlen", "h")


def sets():
    ask("sadd", "bools", True, False), ask("sismember", "bools", True), ask("smembers", "bools")
    ask("sadd", "s", *MEMBERS), ask("scard", "s"), ask("smembers", "s"), ask("sadd", "s", 1, "1", 5), ask("scard", "s")
    for member in (*MEMBERS, 2, "none", (1, "c")):
        ask("sismember", "s", member)
    ask("smismember", "s", 1, 2, "1", (1, "b"), None)
    ask("srem", "s", 1, "none", None), ask("scard", "s"), ask("sscan", "s", count=1000)
    print("sscan_iter", plain(set(cache.sscan_iter("s", count=2))))
    ask("sscan", "s", match="é", count=1000)
    cache.sadd("a", 1, 2, "x"), cache.sadd("b", 2, "x", "y")
    for name in ("sdiff", "sinter", "sunion"):
        ask(name, "a", "b"), ask(name, "a"), ask(name, "a", "none"), ask(f"{name}store", f"to_{name}", "a", "b")
        ask("smembers", f"to_{name}")
    ask("sdiffstore", "d", "a", "b", version_dest=2), ask("smembers", "d", version=2)
    ask("smove", "a", "b", 1), ask("smove", "a", "b", "none"), ask("smembers", "a"), ask("smembers", "b")
    ask("sadd", "one", "x"), ask("srandmember", "one"), ask("srandmember", "one", 5), ask("srandmember", "one", -2)
    (
        ask("spop", "one"),
        ask("spop", "one"),
        ask("spop", "one", 2),
        ask("srandmember", "one"),
        ask("srandmember", "one", 2),
    )
    ask("sadd", "one", (1, 2)), ask("spop", "one", 5), ask("scard", "one"), ask("smembers", "none")
    ask("sadd", "v", 1, version=2), ask("smembers", "v"), ask("smembers", "v", version=2)
    ask("sadd", "many", *range(3000)), ask("scard", "many"), ask("srem", "many", *range(2500)), ask("scard", "many")
    ask("set", "text", "x"), ask("sadd", "text", 1), ask("get", "text"), ask("set", "a", 1), ask("get", "a")
    ask("add", "b", 1), ask("scard", "b"), ask("delete", "b"), ask("scard", "b")


def hashes():
    ask("hset", "h", "f", [1, {"a": (2,)}]), ask("hset", "h", "f", 5), ask("hset", "h", mapping={"a": 1, "b": "x"})
    ask("hset", "h", "c", 1, mapping={"d": None, "e": 2.5}), unordered("hkeys", "h"), ask("hlen", "h")
    (
        ask("hexists", "h", "a"),
        ask("hexists", "h", "none"),
        ask("hdel", "h", "a"),
        ask("hdel", "h", "a"),
        ask("hlen", "h"),
    )
    ask("hset", "h", 7, "x"), ask("hexists", "h", "7"), ask("hkeys", "none"), ask("hlen", "none"), ask("hset", "h")
    (
        ask("hset", "v", "f", 1, version=2),
        ask("hlen", "v"),
        ask("hlen", "v", version=2),
        ask("delete", "h"),
        ask("hlen", "h"),
    )


def sorted_sets():
    ask("zadd", "z", {"a": 1, "b": 2.5, 7: -1, (1, "b"): 1e3, Size.SMALL.name: 3}), ask("zcard", "z")
    ask("zadd", "z", {"a": 5, "c": 6}, nx=True), ask("zadd", "z", {"a": 1.5, "d": 6}, xx=True, ch=True)
    ask("zadd", "z", {"a": 1}, gt=True, ch=True), ask("zadd", "z", {"a": 1}, lt=True, ch=True)
    ask("zadd", "z", {"a": 2}, incr=True), ask("zadd", "z", {"a": 2}, incr=True, nx=True), ask("zadd", "z", {})
    ask("zadd", "z", {"a": 1}, nx=True, xx=True), ask("zadd", "z", {"a": 1, "b": 1}, incr=True)
    for member in ("a", 7, "7", "none", (1, "b")):
        ask("zscore", "z", member), ask("zrank", "z", member)
    ask("zrank", "z", "a", withscore=True), ask("zrank", "z", "none", withscore=True)
    ask("zrange", "z", 0, -1), ask("zrange", "z", 0, 1, desc=True), ask("zrange", "z", 1, 2, withscores=True)
    ask("zrange", "z", 0, -1, withscores=True, score_cast_func=str)
    ask("zrevrange", "z", 0, -1), ask("zrevrange", "z", 0, 1, withscores=True), ask("zrange", "none", 0, -1)
    for name, low, high in (("zrangebyscore", "-inf", 3), ("zrevrangebyscore", 3, "-inf")):
        ask(name, "z", low, high), ask(name, "z", low, high, withscores=True), ask(name, "z", low, high, start=1, num=1)
        ask(name, "z", "(1", 3), ask(name, "z", low, high, start=1), ask(name, "z", "x", "y")
    (
        ask("zcount", "z", "-inf", "+inf"),
        ask("zcount", "z", 1, "(3"),
        ask("zincrby", "z", 2.25, "b"),
        ask("zincrby", "z", 1, "new"),
    )
    ask("zrem", "z", "new", "none"), ask("zremrangebyscore", "z", -1, 0), ask("zrange", "z", 0, -1)
    ask("zpopmax", "z"), ask("zpopmin", "z"), ask("zpopmin", "z", 2), ask("zpopmax", "z", 5), ask("zpopmax", "z")
    ask("zpopmin", "z", 2), ask("zcard", "z"), ask("zadd", "v", {"a": 1}, version=2), ask("zcard", "v", version=2)
    ask("zadd", "f", {"a": 0.1, "b": 1e-7, "c": 12345678901234567}), ask("zrange", "f", 0, -1, withscores=True)


def clients():
    connection = cache.client.get_client(write=True)
    print(connection.ping(), cache.client.get_client(write=False) is connection)
    ask("sadd", "s", 1, client=connection), ask("smembers", "s", client=connection), ask("ttl", "s", client=connection)
    ask("set", "k", 1, client=connection), ask("keys", "k", client=connection)
    print(connection.smembers(cache.client.make_key("s")), connection.exists(cache.client.make_key("none")))
    print(cache.client.decode(cache.client.encode((1, "a"))), cache.client.encode(5) in (5, b"5"))
    with cache.lock("lock", timeout=5, blocking_timeout=0.1) as lock:
        print(lock.owned(), cache.lock("lock").acquire(blocking=False), cache.lock("other").acquire(blocking=False))
    print(lock.owned(), cache.lock("lock", version=2, timeout=1).acquire(blocking=False))


def signatures():
    peer = cache.client if WHO == "peer" else cache
    for name in NAMES:
        parameters = inspect.signature(getattr(peer, name)).parameters.values()
        print(name, [(each.name, each.kind.name, type(each.default).__name__) for each in parameters])


NAMES = [
    "set", "ttl", "pttl", "persist", "expire", "pexpire", "expire_at", "pexpire_at", "lock", "keys", "iter_keys",
    "delete_pattern", "sadd", "scard", "sdiff", "sdiffstore", "sinter", "sinterstore", "smismember", "sismember",
    "smembers", "smove", "spop", "srandmember", "srem", "sscan", "sscan_iter", "sunion", "sunionstore", "hset", "hdel",
    "hlen", "hkeys", "hexists", "zadd", "zcard", "zcount", "zincrby", "zpopmax", "zpopmin", "zrange", "zrangebyscore",
    "zrank", "zrem", "zremrangebyscore", "zrevrange", "zrevrangebyscore", "zscore",
]  # fmt: skip

signatures()
for group in (times, conditions, patterns, sets, hashes, sorted_sets, clients):
    print("==", group.__name__)
    group()
    cache.clear()
