"""Requests of several tenants in Django, each told by a middleware: blocking views and async ones, in both servers."""

import asyncio
import itertools
import sys
from collections.abc import Callable
from typing import Any

import pytest

from cachekit import cache, tenant

WHO = ["a", "b", "a", "b", "a"]

numbers = itertools.count()


def of_header(get_response: Any) -> Any:
    from asgiref.sync import iscoroutinefunction
    from django.utils.decorators import sync_and_async_middleware

    def make(get_response: Any) -> Any:
        if iscoroutinefunction(get_response):

            async def later(request: Any) -> Any:
                with tenant(request.headers["x-tenant"]):
                    return await get_response(request)

            return later

        def now(request: Any) -> Any:
            with tenant(request.headers["x-tenant"]):
                return get_response(request)

        return now

    return sync_and_async_middleware(make)(get_response)


of_header.sync_capable = of_header.async_capable = True  # type: ignore[attr-defined]


@cache(require_tenant=True, version=1)
def load() -> int:
    return next(numbers)


def both() -> Any:
    """What the cached function says, and what Django's cache remembers of this tenant."""
    from django.core.cache import cache as shelf
    from django.http import JsonResponse

    return JsonResponse([load(), shelf.get_or_set("k", lambda: next(numbers))], safe=False)


def blocking(request: Any) -> Any:
    return both()


async def awaited(request: Any) -> Any:
    await asyncio.sleep(0)
    return both()


@pytest.mark.parametrize("path", ["/blocking", "/awaited"])
@pytest.mark.parametrize("server", ["wsgi", "asgi"])
def test_each_request_has_the_values_of_its_tenant(on_server: Callable[..., None], server: str, path: str) -> None:
    from django.test import AsyncClient, Client
    from django.urls import path as route

    sys.modules[__name__].urlpatterns = [route("blocking", blocking), route("awaited", awaited)]  # type: ignore[attr-defined]
    on_server(ROOT_URLCONF=__name__, MIDDLEWARE=[f"{__name__}.of_header"])

    async def together() -> list[Any]:
        client = AsyncClient()
        first = [await client.get(path, headers={"x-tenant": who}) for who in WHO]
        return first + list(await asyncio.gather(*[client.get(path, headers={"x-tenant": who}) for who in WHO]))

    if server == "wsgi":
        answers = [Client().get(path, headers={"x-tenant": who}) for who in WHO * 2]
    else:
        answers = asyncio.run(together())
    seen: dict[str, set[tuple[int, ...]]] = {"a": set(), "b": set()}
    for who, answer in zip(WHO * 2, answers, strict=True):
        seen[who].add(tuple(answer.json()))
    assert [len(each) for each in seen.values()] == [1, 1]
    ((one,), (other,)) = seen.values()
    assert not set(one) & set(other)
