from typing import Any

import work
from django.conf import settings
from django.core.cache import cache
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import include, path

from cachekit.integrations.django.asgi import get_asgi_application

settings.configure(
    SECRET_KEY="-",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["cachekit.integrations.django"],
    CACHES={"default": {"BACKEND": "cachekit.integrations.django.CacheKitCache", "LOCATION": "shared"}},
)
app = get_wsgi_application()
asgi = get_asgi_application()
work.answer(0)  # before gunicorn forks: what it counts belongs to no worker


def answer(request: HttpRequest, n: int) -> JsonResponse:
    return JsonResponse(work.answer(n))


async def in_the_loop(request: HttpRequest, n: int) -> JsonResponse:
    """As the others' view of this name; Django's cache is asked besides."""

    async def compute() -> dict[str, int]:
        return {"n": n, "half": n // 2}

    half: dict[str, Any] = await cache.aget_or_set(f"half:{n}", compute)
    assert half == {"n": n, "half": n // 2}, half
    half["n"] = -1  # nobody else sees this
    return JsonResponse(await work.answer_async(n))


def many(request: HttpRequest, start: int, count: int) -> JsonResponse:
    return JsonResponse(work.many(start, count), safe=False)


urlpatterns = [
    path("work/<int:n>", answer),
    path("awork/<int:n>", in_the_loop),
    path("many/<int:start>/<int:count>", many),
    path("", include("cachekit.integrations.django.urls")),
]
