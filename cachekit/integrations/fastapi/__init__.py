"""cachekit in a FastAPI application: `CacheKit(app)`, ``Depends(cache_region("users"))``, `cached_response` and
`CacheMiddleware`."""

from cachekit.integrations.fastapi.dependencies import RegionDependency, cache_region
from cachekit.integrations.starlette import (
    CachedEndpoint,
    CacheKit,
    CacheMiddleware,
    ainvalidate_url,
    cached_response,
    get_region,
    invalidate_url,
    service_of,
)

__all__ = [
    "CacheKit", "CacheMiddleware", "CachedEndpoint", "RegionDependency", "ainvalidate_url", "cache_region",
    "cached_response", "get_region", "invalidate_url", "service_of",
]  # fmt: skip
