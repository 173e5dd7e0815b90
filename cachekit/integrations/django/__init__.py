"""cachekit in a Django project: ``"BACKEND": "cachekit.integrations.django.CacheKitCache"``.

In ``INSTALLED_APPS`` this package also checks the configuration at start-up; its ``urls`` show the metrics.
"""

from cachekit.integrations.django.backend import CacheKitCache
from cachekit.integrations.django.extras.clients import get_redis_connection

__all__ = ["CacheKitCache", "get_redis_connection"]
