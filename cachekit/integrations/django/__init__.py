"""cachekit in a Django project: ``"BACKEND": "cachekit.integrations.django.CacheKitCache"``, and whole pages.

In ``INSTALLED_APPS`` this package also checks the configuration at start-up; its ``urls`` show the metrics.
"""

from cachekit.integrations.django.backend import CacheKitCache
from cachekit.integrations.django.decorator import cache_page
from cachekit.integrations.django.extras.clients import get_redis_connection
from cachekit.integrations.django.middleware import CacheMiddleware
from cachekit.integrations.django.pages import ainvalidate_url, invalidate_url

__all__ = [
    "CacheKitCache", "CacheMiddleware", "ainvalidate_url", "cache_page", "get_redis_connection", "invalidate_url",
]  # fmt: skip
