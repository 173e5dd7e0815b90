"""The pages of the project, and two that make twenty calls of the cache."""

from typing import Any

from django.core.cache import cache
from django.http import HttpRequest, JsonResponse
from django.urls import include, path

CALLS = 20


def twenty(request: HttpRequest) -> JsonResponse:
    """Calls of all kinds, one after the other."""

    def one(n: int) -> Any:
        key = f"twenty{n}"
        cache.set(f"set{n}", n)
        cache.get_many([f"set{n}", key])
        return cache.get(key), cache.get_or_set(key, lambda: n), cache.delete(key)

    return JsonResponse([one(n)[1] for n in range(CALLS // 5)], safe=False)


async def atwenty(request: HttpRequest) -> JsonResponse:
    """As `twenty`."""

    async def one(n: int) -> Any:
        key = f"twenty{n}"
        await cache.aset(f"set{n}", n)
        await cache.aget_many([f"set{n}", key])
        await cache.aget(key)
        value = await cache.aget_or_set(key, lambda: n)
        return await cache.adelete(key), value

    return JsonResponse([(await one(n))[1] for n in range(CALLS // 5)], safe=False)


urlpatterns = [path("twenty/", twenty), path("atwenty/", atwenty), path("", include("project.urls"))]
