"""A project of one file: the cache by pages, blocking and awaited, for real servers. REDIS_URL is its server."""

import os
import sys
import time
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from cachekit.integrations.django.asgi import get_asgi_application

if not settings.configured:
    settings.configure(
        SECRET_KEY="-",
        DEBUG=True,
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["cachekit.integrations.django"],
        WSGI_APPLICATION=f"{__name__}.wsgi",
        CACHES={"default": {"BACKEND": "cachekit.integrations.django.CacheKitCache", "TIMEOUT": 3600}},
        CACHEKIT={
            "namespace": os.environ.get("SERVERS_APP", "servers"),
            "backends": {"default": {"budget": "10s", "adaptive": False}},  # the machine may be busy
        },
    )
wsgi = get_wsgi_application()
asgi = get_asgi_application()
cache.set("preloaded", 1)  # before a server forks


def answer(value: Any) -> JsonResponse:
    return JsonResponse({"pid": os.getpid(), "value": value, "l1_hits": cache.region.info()["l1_hits"]})


def get(request: HttpRequest, key: str) -> JsonResponse:
    return answer(cache.get(key))


async def aget(request: HttpRequest, key: str) -> JsonResponse:
    return answer(await cache.aget(key))


def set_(request: HttpRequest, key: str, value: int) -> JsonResponse:
    return answer(cache.set(key, [value]))  # no number, which the server would count and no process keep


async def aset(request: HttpRequest, key: str, value: int) -> JsonResponse:
    return answer(await cache.aset(key, [value]))


def delete(request: HttpRequest, key: str) -> JsonResponse:
    return answer(cache.delete(key))


async def adelete(request: HttpRequest, key: str) -> JsonResponse:
    return answer(await cache.adelete(key))


urlpatterns = [
    path("get/<key>", get),
    path("aget/<key>", aget),
    path("set/<key>/<int:value>", set_),
    path("aset/<key>/<int:value>", aset),
    path("delete/<key>", delete),
    path("adelete/<key>", adelete),
]


def set_up() -> None:
    """For processes that only call functions."""


def cold(key: str, journal: str, threads: int) -> list[Any]:
    """Threads that ask for one key at once; each computation leaves a line in the journal."""
    from concurrent.futures import ThreadPoolExecutor

    def compute() -> str:
        with open(journal, "a") as file:  # noqa: PTH123
            file.write("x\n")
        time.sleep(0.3)
        return "value"

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda _: cache.get_or_set(key, compute), range(threads)))


async def acold(key: str, journal: str, tasks: int) -> list[Any]:
    """As `cold`, with tasks of one loop."""
    import asyncio

    async def compute() -> str:
        with open(journal, "a") as file:  # noqa: PTH123
            file.write("x\n")
        await asyncio.sleep(0.3)
        return "value"

    return await asyncio.gather(*[cache.aget_or_set(key, compute) for _ in range(tasks)])


if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
