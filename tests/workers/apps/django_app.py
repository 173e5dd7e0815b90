import work
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import include, path

settings.configure(
    SECRET_KEY="-",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["cachekit.integrations.django"],
)
app = get_wsgi_application()
work.answer(0)  # before gunicorn forks: what it counts belongs to no worker


def answer(request: HttpRequest, n: int) -> JsonResponse:
    return JsonResponse(work.answer(n))


def many(request: HttpRequest, start: int, count: int) -> JsonResponse:
    return JsonResponse(work.many(start, count), safe=False)


urlpatterns = [
    path("work/<int:n>", answer),
    path("many/<int:start>/<int:count>", many),
    path("", include("cachekit.integrations.django.urls")),
]
