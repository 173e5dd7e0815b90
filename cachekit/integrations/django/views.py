"""The metrics page."""

from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from cachekit.metrics import respond
from cachekit.process import default_service


@login_not_required  # type: ignore[untyped-decorator]  # metrics.token and metrics.allow decide
@never_cache  # type: ignore[untyped-decorator]  # a cache of the whole site must not keep it
@require_safe  # type: ignore[untyped-decorator]
def metrics(request: Any) -> Any:
    """The metrics of the process's service, to whom ``metrics.token`` and ``metrics.allow`` let read them."""
    answer = respond(
        default_service(),
        accept=request.headers.get("Accept"),
        authorization=request.headers.get("Authorization"),
        address=request.META.get("REMOTE_ADDR"),
    )
    return HttpResponse(answer.body, status=answer.status, headers=answer.headers)
