"""Whole pages and sessions."""

import os

import django
from django.conf import settings

settings.configure(
    CACHES={
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": os.environ["REDIS_URL"],
        },
    },
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    SESSION_CACHE_ALIAS="default",
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["testserver"],
    SECRET_KEY="secret",
)
django.setup()

from django.http import HttpResponse  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.cache import cache_page  # noqa: E402

runs = []


@cache_page(60)
def page(request):
    runs.append(request.path)
    return HttpResponse(f"page {len(runs)} {request.GET.get('q')}")


def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(str(request.session["visits"]))


urlpatterns = [path("page", page), path("visits", visits)]
client = Client()
print([client.get(url).content.decode() for url in ("/page", "/page", "/page?q=1", "/page?q=1")], len(runs))
print([client.get("/visits").content.decode() for _ in range(3)], Client().get("/visits").content.decode())
