"""Everything public, as users write it, with the types that they must get. Read by type checkers, never run."""

import asyncio
from datetime import timedelta
from functools import lru_cache
from typing import Any, Generic, Literal, TypeVar, assert_type
from uuid import UUID

from cachekit import (
    MISS,
    AsyncCachedFunction,
    CachedFunction,
    CacheInfo,
    CacheKitError,
    CacheLoadTimeout,
    ConfigError,
    Duration,
    MissingTenant,
    Outcome,
    Region,
    TamperedEntry,
    UncacheableArgument,
    Unstorable,
    UnsupportedOperation,
    aclose,
    ainvalidate_tags,
    cache,
    close,
    configure,
    current_entry,
    define,
    disabled,
    health,
    invalidate_tags,
    region,
    register,
    tenant,
)
from cachekit.engine.keys import EntryKey
from cachekit.engine.miss import Miss

T = TypeVar("T")


class User:
    id: int = 0


# Functions, with and without options


@cache
def f(user_id: int, *, full: bool = False) -> User:
    return User()


@cache
async def g(user_id: int, *, full: bool = False) -> User:
    return User()


def blocking() -> None:
    assert_type(f(7), User)
    assert_type(f(user_id=7, full=True), User)
    assert_type(f.refresh(7), User)
    assert_type(f.put(User(), 7, full=True), None)
    assert_type(f.invalidate(7), Outcome)
    assert_type(f.mark_stale(7, full=True), Outcome)
    assert_type(f.invalidate_all(), Outcome)
    assert_type(f.key(7), EntryKey)
    assert_type(f.region, Region)
    assert_type(f.cache_clear(), None)
    assert_type(f.cache_parameters(), dict[str, Any])
    assert_type(f.__wrapped__(7), User)
    assert_type(f.__name__, str)
    as_argument: CachedFunction[..., User] = f
    as_argument(7)


def information() -> None:
    info = f.cache_info()
    assert_type(info, CacheInfo)
    assert_type((info.hits, info.misses, info.maxsize, info.currsize), tuple[int, int, int | None, int])
    assert_type((info.l1_hits, info.l2_hits, info.stale, info.errors, info.bytes), tuple[int, int, int, int, int])


def looking() -> User | None:
    found = f.peek(7)
    assert_type(found, User | Literal[Miss.MISS])
    if found is not MISS:
        assert_type(found, User)
        return found
    assert_type(found, Literal[Miss.MISS])
    return None


async def awaited() -> None:
    assert_type(await g(7), User)
    assert_type(await g(user_id=7, full=True), User)
    assert_type(await g.refresh(7), User)
    assert_type(await g.put(User(), 7, full=True), None)
    assert_type(await g.invalidate(7), Outcome)
    assert_type(await g.mark_stale(7, full=True), Outcome)
    assert_type(await g.invalidate_all(), Outcome)
    assert_type(await g.__wrapped__(7), User)
    assert_type(g.key(7), EntryKey)  # this and what follows touches no server and is never awaited
    assert_type(g.region, Region)
    assert_type(g.cache_info(), CacheInfo)
    assert_type(g.cache_clear(), None)
    assert_type(g.cache_parameters(), dict[str, Any])
    found = await g.peek(7)
    assert_type(found, User | Literal[Miss.MISS])
    if found is not MISS:
        assert_type(found, User)
    as_argument: AsyncCachedFunction[..., User] = g
    await as_argument(7)


async def together() -> None:
    assert_type(await asyncio.gather(g(1), g.invalidate(2), g.put(User(), 3)), tuple[User, Outcome, None])
    assert_type(asyncio.create_task(g(1)), asyncio.Task[User])
    assert_type(await asyncio.wait_for(g(1), 1.0), User)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(g(1))
    assert_type(task.result(), User)


async def twins() -> None:
    assert_type(await f.twin()(7, full=True), User)
    assert_type(await f.twin().peek(7), User | Literal[Miss.MISS])
    assert_type(await f.twin().invalidate(7), Outcome)
    assert_type(f.twin().twin()(7), User)
    assert_type(g.twin()(7, full=True), User)
    assert_type(g.twin().peek(7), User | Literal[Miss.MISS])
    assert_type(g.twin().invalidate(7), Outcome)
    assert_type(await g.twin().twin()(7), User)


async def views() -> None:
    assert_type(f.using(force_refresh=True)(7, full=True), User)
    assert_type(f.using(skip_l1=True, skip_l2=True).peek(7), User | Literal[Miss.MISS])
    assert_type(f.using(read_only=True, allow_stale=False).refresh(7), User)
    assert_type(f.using(allow_stale=None).using(allow_stale=True)(7), User)
    assert_type(await g.using(allow_stale=True)(7, full=True), User)
    assert_type(await g.using(read_only=True).put(User(), 7), None)
    as_argument: CachedFunction[..., User] = f.using(skip_l1=True)
    as_argument(7)


# The switch for all of it


@disabled()
def uncached(user_id: int) -> User:
    with disabled():
        return f(user_id)


@disabled("users", "rates")
async def uncached_async(user_id: int) -> User:
    with disabled("users"):
        return await g(user_id)


async def switched_off() -> None:
    assert_type(uncached(7), User)
    assert_type(await uncached_async(7), User)


# Tenants


def for_a_tenant(name: str) -> User:
    with tenant(name):
        return f(7)


def whose(user_id: int, customer: str) -> str | None:
    return customer or None


@cache(tenant=whose, require_tenant=True)
def of_a_tenant(user_id: int, customer: str) -> User:
    return User()


@cache.secure(ttl="5m", fail_closed=True, rewrap=False)
async def sealed(user_id: int) -> User:
    return User()


@cache(sign=True, encrypt=True)
def sealed_too(user_id: int) -> User:
    return User()


async def secrets() -> None:
    assert_type(for_a_tenant("acme"), User)
    assert_type(of_a_tenant(7, "acme"), User)
    assert_type(await sealed(7), User)
    assert_type(sealed_too(7), User)


# Options


def user_tags(user_id: int) -> list[str]:
    return [f"user:{user_id}"]


def make_user(user_id: int) -> User:
    return User()


def five_minutes(value: object) -> Duration:
    return timedelta(minutes=5)


@cache(ttl="5m")
def with_ttl(user_id: int) -> User:
    return User()


@cache(ttl="5m")
async def with_ttl_async(user_id: int) -> User:
    return User()


# A lambda has no annotations, and strict pyright wants them; outside of strict mode there is nothing to ignore.
@cache(profile="users", tags=lambda user_id: [f"user:{user_id}"])  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]
def with_tags(user_id: int) -> User:
    return User()


@cache(profile="users", tags=user_tags, ttl=five_minutes)
async def with_tags_async(user_id: int) -> User:
    return User()


@cache()
def without_options(user_id: int) -> User:
    return User()


@cache.local(ttl=300, max_entries=100, max_bytes="1MiB", key=str, condition=bool)
def local(user_id: int) -> User:
    return User()


@cache.minimal
def minimal(user_id: int) -> User:
    return User()


@cache.dev(backend=None, ttl=None, version=2, ignore=("session",), l1={"ttl": "5s"})
async def dev(user_id: int, session: object) -> User:
    return User()


@cache.test(jitter="10%", negative_ttl="1s", cache_none=False, compression="none")
def test(user_id: int) -> User:
    return User()


@cache(backend="other", compress_above="4KiB", counters=True, max_value_bytes=1024, on_unstorable="raise")
def other(user_id: int) -> User:
    return User()


@cache.production(stale_ttl="1h", stale_on_error=True, stale_unless=[KeyError, "app.errors.NotFound"])
def production(user_id: int) -> User:
    return User()


@cache(stale_ttl=60, stale_throttle="10s", stale_without_proof=timedelta(seconds=5), swr=True, early_refresh="off")
async def refreshed(user_id: int) -> User:
    return User()


@cache(early_refresh=1.5, soft_timeout="auto", hard_timeout=None, outage="fallback", fallback=None)
def limited(user_id: int) -> User | None:
    return User()


@cache(negative_exceptions={KeyError: "30s", LookupError: 5}, stale_unless="KeyError, app.errors.NotFound")
def remembers(user_id: int) -> User:
    return User()


@cache(negative_exceptions={"app.errors.NotFound": timedelta(seconds=5), KeyError: 30}, fallback=make_user)
async def remembers_async(user_id: int) -> User:
    return User()


@cache
@lru_cache
def on_top_of_another(user_id: int) -> User:
    return User()


users = region("users")


@users.cached
def in_region(user_id: int) -> User:
    return User()


@users.cached(ttl="5m", isolation="copy")
async def in_region_async(user_id: int) -> User:
    return User()


@cache.invalidates(tags=["users"])
def save(user: User, *, notify: bool = False) -> int:
    return user.id


def tags_of(user: User) -> list[str]:
    return [f"user:{user.id}"]


@cache.invalidates(tags=tags_of)
async def save_async(user: User) -> int:
    return user.id


shared = cache(ttl="1h")


@shared
def first(user_id: int) -> User:
    return User()


@shared
async def second(name: str) -> int:
    return len(name)


async def decorated() -> None:
    assert_type(with_ttl(7), User)
    assert_type(with_ttl.invalidate(7), Outcome)
    assert_type(await with_ttl_async(7), User)
    assert_type(await with_ttl_async.invalidate(7), Outcome)
    assert_type(with_tags(7), User)
    assert_type(await with_tags_async(7), User)
    assert_type(without_options(7), User)
    assert_type(local(7), User)
    assert_type(local.put(User(), 7), None)
    assert_type(minimal(7), User)
    assert_type(await dev(7, object()), User)
    assert_type(test(7), User)
    assert_type(other(7), User)
    assert_type(production(7), User)
    assert_type(await refreshed(7), User)
    assert_type(limited(7), User | None)
    assert_type(remembers(7), User)
    assert_type(await remembers_async(7), User)
    assert_type(on_top_of_another(7), User)
    assert_type(in_region(7), User)
    assert_type(in_region.invalidate(7), Outcome)
    assert_type(await in_region_async(7), User)
    assert_type(save(User(), notify=True), int)
    assert_type(await save_async(User()), int)
    assert_type(first(7), User)
    assert_type(await second("a"), int)
    assert_type(cache(lambda: 7)(), int)


# Methods


class Repository:
    @cache
    def method(self, user_id: int, *, full: bool = False) -> User:
        return User()

    @cache(ttl="5m")
    async def async_method(self, user_id: int) -> User:
        return User()

    @cache
    @classmethod
    def class_method(cls, user_id: int) -> User:
        return User()

    @cache(ttl="5m")
    @classmethod
    async def async_class_method(cls, user_id: int) -> User:
        return User()

    @classmethod
    @cache(ttl="5m")
    def below(cls, user_id: int) -> User:
        return User()

    @classmethod
    @cache
    async def async_below(cls, user_id: int) -> User:
        return User()

    @cache
    @staticmethod
    def static_method(user_id: int) -> User:
        return User()

    @cache(ttl="5m")
    @staticmethod
    async def async_static_method(user_id: int) -> User:
        return User()

    @property
    @cache
    def computed(self) -> User:
        return User()

    @cache.invalidates(tags=["users"])
    def write(self, user: User) -> int:
        return user.id


class Derived(Repository):
    pass


async def methods(repository: Repository, derived: Derived) -> None:
    assert_type(repository.method(7, full=True), User)
    assert_type(repository.method.peek(7), User | Literal[Miss.MISS])
    assert_type(repository.method.invalidate(7), Outcome)
    assert_type(repository.method.put(User(), 7), None)
    assert_type(await repository.method.twin()(7), User)
    assert_type(Repository.method(repository, 7), User)
    assert_type(Repository.method.invalidate(repository, 7), Outcome)
    assert_type(derived.method(7), User)
    assert_type(Derived.method.invalidate(derived, 7), Outcome)
    assert_type(repository.computed, User)
    assert_type(repository.write(User()), int)
    assert_type(await repository.async_method(7), User)
    assert_type(await repository.async_method.peek(7), User | Literal[Miss.MISS])
    assert_type(await repository.async_method.invalidate(7), Outcome)
    assert_type(repository.async_method.twin()(7), User)
    assert_type(await Repository.async_method(repository, 7), User)
    assert_type(await Repository.async_method.invalidate(repository, 7), Outcome)
    assert_type(await asyncio.gather(repository.async_method(1), g(2)), tuple[User, User])


async def class_methods(repository: Repository) -> None:
    assert_type(Repository.class_method(7), User)
    assert_type(Repository.class_method.invalidate(7), Outcome)
    assert_type(repository.class_method.put(User(), 7), None)
    assert_type(Derived.class_method.peek(7), User | Literal[Miss.MISS])
    assert_type(await Repository.async_class_method(7), User)
    assert_type(await Derived.async_class_method.invalidate(7), Outcome)
    assert_type(await repository.async_class_method.peek(7), User | Literal[Miss.MISS])
    assert_type(Repository.below(7), User)
    assert_type(repository.below.invalidate(7), Outcome)
    assert_type(await Repository.async_below(7), User)
    assert_type(await repository.async_below.invalidate(7), Outcome)


async def static_methods() -> None:
    # Through the class only: mypy drops @staticmethod below a decorator, and would take the instance for `user_id`.
    assert_type(Repository.static_method(7), User)
    assert_type(Repository.static_method.invalidate(7), Outcome)
    assert_type(await Repository.async_static_method(7), User)
    assert_type(await Repository.async_static_method.invalidate(7), Outcome)


class Store(Generic[T]):
    def __init__(self, item: T) -> None:
        self.item = item

    @cache
    def get(self, key: str) -> T:
        return self.item

    @cache(ttl="5m")
    async def fetch(self, key: str) -> T:
        return self.item


async def generic_classes(store: Store[User]) -> None:
    assert_type(store.get("a"), User)
    assert_type(store.get.peek("a"), User | Literal[Miss.MISS])
    assert_type(store.get.put(User(), "a"), None)
    assert_type(Store(7).get("a"), int)
    assert_type(Store[User].get(store, "a"), User)
    assert_type(await store.fetch("a"), User)
    assert_type(await store.fetch.invalidate("a"), Outcome)


# Inside a cached function


@cache
def inside(user_id: int) -> User:
    entry = current_entry()
    assert_type(entry.ttl, float | None)
    assert_type(entry.tags, set[str])
    entry.ttl = "5m"
    entry.ttl = None
    entry.tags.add(f"user:{user_id}")
    assert_type(entry.no_store(), None)
    assert_type((entry.etag, entry.last_modified), tuple[str | None, str | None])
    entry.etag, entry.last_modified = '"abc"', None
    assert_type(entry.stale_value, Any)
    assert_type(entry.behind, bool)
    if entry.stale_value is not MISS:
        return entry.not_modified()  # type: ignore[no-any-return]  # what lies there is of any type
    return User()


# Regions


def make() -> User:
    return User()


async def fetch() -> User:
    return User()


def region_methods() -> None:
    assert_type(users, Region)
    assert_type(region(), Region)
    assert_type(users.name, str)
    assert_type(users.get_or_set("a", make, ttl="5m", tags=["users"]), User)
    assert_type(region("users").get_or_set(7, lambda: User()), User)
    assert_type(users.get("a"), Any)
    assert_type(users.get(("a", 7, b"raw", UUID(int=0)), MISS), Any)
    assert_type(users.get_many(["a", f.key(7)])["a"], Any)
    assert_type(users.set("a", User(), ttl=None, tags=("users",)), None)
    assert_type(users.set_many({"a": User(), "b": User()}, ttl=timedelta(seconds=5)), list[Any])
    assert_type(users.add("a", User()), bool)
    assert_type(users.touch(f.key(7), ttl=1.5), bool)
    assert_type(users.remaining("a"), float | Miss | None)
    assert_type(users.incr("n", by=2, ttl="1h"), int)
    assert_type(users.delete("a"), Outcome)
    assert_type(users.delete_many(["a", 7]), Outcome)
    assert_type(users.mark_stale("a"), Outcome)
    assert_type(users.using(allow_stale=True, skip_l1=True), Region)
    assert_type(users.using(read_only=True).get_or_set("a", make), User)
    assert_type(users.clear(), Outcome)
    assert_type(users.clear(all_tenants=True), Outcome)
    assert_type(users.invalidate_tags("a", "b"), Outcome)
    assert_type(users.info(), dict[str, Any])


async def region_methods_awaited() -> None:
    assert_type(await users.aget_or_set("a", make), User)
    assert_type(await users.aget_or_set("a", fetch, ttl="5m", tags=["users"]), User)
    assert_type(await users.aget_or_set("a", lambda: User()), User)
    assert_type(await users.aget("a", None), Any)
    assert_type((await users.aget_many(["a", 7]))["a"], Any)
    assert_type(await users.aset("a", User(), ttl="5m"), None)
    assert_type(await users.aset_many({"a": User()}), list[Any])
    assert_type(await users.aadd("a", User()), bool)
    assert_type(await users.atouch("a"), bool)
    assert_type(await users.aremaining("a"), float | Miss | None)
    assert_type(await users.aincr("n"), int)
    assert_type(await users.adelete("a"), Outcome)
    assert_type(await users.adelete_many(["a"]), Outcome)
    assert_type(await users.amark_stale("a"), Outcome)
    assert_type(await users.using(force_refresh=True, skip_l2=True).aget_or_set("a", fetch), User)
    assert_type(await users.aclear(all_tenants=True), Outcome)
    assert_type(await users.ainvalidate_tags("a"), Outcome)


# The service


async def service() -> None:
    configure()
    configure("cachekit.toml", replace=True, namespace="app", profiles={"users": {"ttl": "5m"}})
    define("geo", ttl="1d", backend=None)
    assert_type(invalidate_tags("a", "b"), Outcome)
    assert_type(await ainvalidate_tags("a"), Outcome)
    assert_type(health().ok, bool)
    backend = health().backends["default"]
    assert_type((backend.state, backend.breaker, backend.coherence, backend.last_error), tuple[str, str, str, str])
    assert_type(backend.budget_ms, float)
    close(timeout=1)
    await aclose()


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


def cents_of(money: Money) -> int:
    return money.cents


def registration() -> None:
    register(Money, encode=cents_of, decode=Money)
    register(Money, encode=cents_of, decode=Money, name="shop.money")


def outcome(done: Outcome) -> str:
    match done:
        case Outcome.DONE | Outcome.QUEUED:
            return "soon"
        case Outcome.FAILED:
            return "never"


def errors() -> None:
    try:
        f(7)
    except (ConfigError, Unstorable) as error:
        assert_type(error, ConfigError | Unstorable)
    except (UncacheableArgument, UnsupportedOperation, CacheLoadTimeout, MissingTenant, TamperedEntry) as error:
        base: CacheKitError = error
        raise base from None
