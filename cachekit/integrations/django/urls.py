"""``path("", include("cachekit.integrations.django.urls"))`` shows the metrics at ``metrics.path``."""

from django.urls import URLPattern, path

from cachekit.integrations.django.project import install
from cachekit.integrations.django.views import metrics
from cachekit.metrics import attach
from cachekit.process import default_service


def _patterns() -> list[URLPattern]:
    install()
    service = default_service()
    if not service.spec.metrics.enabled:
        return []
    attach(service)
    return [path(service.spec.metrics.path.removeprefix("/"), metrics, name="cachekit-metrics")]


urlpatterns = _patterns()
