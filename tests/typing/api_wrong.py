"""Mistakes that a type checker must find. Each wrong line carries the marks of the errors that mypy and pyright report
there; a mark without its error is an error too. Read by type checkers, never run."""

from typing import assert_type

import cachekit
from cachekit import MISS, cache, current_entry, define, disabled, health, invalidate_tags, region, register, tenant


class User:
    id: int = 0


@cache
def f(user_id: int, *, full: bool = False) -> User:
    return User()


@cache(ttl="5m")
async def g(user_id: int, *, full: bool = False) -> User:
    return User()


def wrong_arguments() -> None:
    f("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    f()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    f(7, True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    f(7, ful=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    f(7, force_refresh=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    f.refresh("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    f.peek()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    f.invalidate("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    f.invalidate(7, 8)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
    f.key(id=7)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    f.put(7, 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    f.put(User())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    f.put(User(), "7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    f.put(value=User(), user_id=7)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    f.mark_stale("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    f.mark_stale()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    f.using(True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    f.using(stale=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    f.using(skip_l1=True)("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    f.using(skip_l1=True).invalidate()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    f.invalidate_all(7)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def wrong_arguments_awaited() -> None:
    await g("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await g()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await g.refresh("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await g.peek()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await g.invalidate("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await g.put("user", 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await g.put(User())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await g.using(allow_stale=True)("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await g.mark_stale("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    g.key("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await f.twin()("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    g.twin()("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def blocking_is_not_awaited() -> None:
    await f(7)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    await f.invalidate(7)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    g(7).id  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    await g.key(7)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    await g.cache_info()  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]


async def async_is_awaited(repository: "Repository") -> None:
    g(7)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    g.invalidate(7)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    g.put(User(), 7)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    g.mark_stale(7)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    g.using(skip_l1=True)(7)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    f.twin().invalidate(7)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    repository.async_method.invalidate(7)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    users.aset("a", 7)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    cachekit.ainvalidate_tags("a")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]


def a_miss_is_not_a_user() -> None:
    f.peek(7).id  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    found = f.peek(7)
    if found is MISS:
        found.id  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def what_does_not_exist() -> None:
    f.invalidated(7)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    cachekit.regions_of("users")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    cache.users  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    region("users").fetch("a")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


class Repository:
    @cache
    def method(self, user_id: int) -> User:
        return User()

    @cache
    async def async_method(self, user_id: int) -> User:
        return User()

    @cache
    @classmethod
    def class_method(cls, user_id: int) -> User:
        return User()

    @classmethod
    @cache
    async def async_below(cls, user_id: int) -> User:
        return User()

    @cache
    @staticmethod
    def static_method(user_id: int) -> User:
        return User()


async def wrong_arguments_of_methods(repository: Repository) -> None:
    repository.method("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    repository.method(repository, 7)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
    repository.method.invalidate("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    repository.method.put("user", 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Repository.method(7)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
    Repository.method.invalidate(7)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
    await repository.async_method("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await Repository.async_method.invalidate(7)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
    Repository.class_method("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Repository.class_method.invalidate(Repository, 7)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
    repository.class_method.put(User(), "7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await Repository.async_below("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await repository.async_below.invalidate()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Repository.static_method("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Repository.static_method.invalidate()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# Options

cache("users")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
cache(7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
cache(expire=300)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
cache(f, ttl=300)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
cache(ttl=["5m"])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(tags=7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(tags=[7])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
cache(profile=7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(backend=7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(stale_ttl=None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(stale_on_error="yes")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(stale_unless=KeyError)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(stale_unless=[KeyboardInterrupt])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
cache(swr="60s")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(early_refresh=["auto"])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(soft_timeout=[1])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(hard_timout=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
cache(outage=False)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(negative_exceptions=[KeyError])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(tenant="acme")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(require_tenant="acme")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache(encrypt=b"key")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache.local(maxsize=100)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
cache.invalidates()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
cache.invalidates(tags=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
region("users").cached(expire=300)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
region("users").cached("ttl")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


@cache(tims=1)  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportCallIssue, reportUntypedFunctionDecorator]
def misspelt(user_id: int) -> User:
    return User()


@cache(key=7)  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
async def misused(user_id: int) -> User:
    return User()


# Regions, entries, the service

users = region("users")


async def elsewhere() -> None:
    region(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    region(name="users")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    users.get(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    users.set("a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    users.set("a", 1, ttl=["5m"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    users.set("a", 1, 300)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    users.set("a", 1, expire=300)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    users.get_or_set("a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    users.get_or_set("a", User())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    users.get_or_set("a", lambda key: key)  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType, reportUnknownLambdaType]
    assert_type(users.get_or_set("a", lambda: User()), int)  # type: ignore[assert-type]  # pyright: ignore[reportAssertTypeFailure]
    users.delete(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    users.incr("n", by="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await users.delete("a")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    await users.aget_or_set("a", 7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    users.invalidate_tags(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    invalidate_tags(["a"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    current_entry().ttl = ["5m"]  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    current_entry().etag = 7  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    current_entry().stale_value = 7  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    current_entry().no_store(True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    tenant(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    users.clear(True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    disabled(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    users.using(allow_stale="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    users.mark_stale(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    current_entry().stored_at  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    define(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    health().okay  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    register(int, encode=str, decode=str)  # type: ignore[arg-type]
    register(int, encode=str)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
