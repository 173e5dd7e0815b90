"""cachekit in a Starlette application: `CacheKit(app)`, `cached_response` and `CacheMiddleware`."""

from cachekit.integrations.starlette.endpoint import CachedEndpoint, cached_response
from cachekit.integrations.starlette.installation import CacheKit
from cachekit.integrations.starlette.installed import get_region, service_of
from cachekit.integrations.starlette.middleware import CacheMiddleware
from cachekit.integrations.starlette.pages import ainvalidate_url, invalidate_url

__all__ = [
    "CacheKit", "CacheMiddleware", "CachedEndpoint", "ainvalidate_url", "cached_response", "get_region",
    "invalidate_url", "service_of",
]  # fmt: skip
