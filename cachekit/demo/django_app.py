"""The Django project of the demo, in one file: settings, views, URLs."""

from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import include, path
from django.views.decorators.http import require_POST

import cachekit
from cachekit.demo import cities, queries
from cachekit.demo.counts import counts
from cachekit.demo.page import first_page

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    INSTALLED_APPS=["cachekit.integrations.django"],
    MIDDLEWARE=[f"{__name__}.Refusals"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="nothing is signed",
    USE_I18N=False,
)


def index(request: Any) -> Any:
    return HttpResponse(first_page())


def nearest(request: Any) -> Any:
    """The cities nearest to a place."""
    query = request.GET
    function = cities.nearest if queries.cached(query) else cities.nearest.__wrapped__
    return JsonResponse(function(*queries.place(query), queries.limit(query)), safe=False)


def search(request: Any) -> Any:
    """The largest cities with this text in one of their names."""
    query = request.GET
    function = cities.named if queries.cached(query) else cities.named.__wrapped__
    return JsonResponse(function(queries.text(query), queries.limit(query)), safe=False)


def ranking(request: Any, country: str) -> Any:
    """The largest cities of a country by the population around them."""
    country, limit = queries.country(country), queries.limit(request.GET, 20)

    def compute() -> cities.Answer:
        return cities.ranking(country, limit)

    if not queries.cached(request.GET):
        return JsonResponse(compute(), safe=False)
    region = cachekit.region("rankings")
    answer = region.get_or_set((country, limit), compute, tags=cities.ranking_tags(country))
    return JsonResponse(answer, safe=False)


@require_POST  # type: ignore[untyped-decorator]  # Django has no types
def invalidate(request: Any) -> Any:
    """Outdate every entry with this tag, in both tiers and all workers."""
    tag = request.GET.get("tag", "cities")
    return JsonResponse({"tag": tag, "outcome": cachekit.invalidate_tags(tag).name})


def stats(request: Any) -> Any:
    """What this worker's cache did."""
    return JsonResponse(counts())


class Refusals:
    """Middleware: says what is wrong with a query."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        return self.get_response(request)

    def process_exception(self, request: Any, error: Exception) -> Any:
        if isinstance(error, queries.Refused):
            return JsonResponse({"detail": str(error)}, status=error.status)
        return None


urlpatterns = [
    path("", index),
    path("nearest", nearest),
    path("search", search),
    path("ranking/<country>", ranking),
    path("invalidate", invalidate),
    path("stats", stats),
    path("", include("cachekit.integrations.django.urls")),
]

app = get_wsgi_application()
