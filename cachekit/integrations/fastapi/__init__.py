"""cachekit in a FastAPI application: `CacheKit(app)` and ``Depends(cache_region("users"))``."""

from cachekit.integrations.fastapi.dependencies import RegionDependency, cache_region
from cachekit.integrations.starlette import CacheKit, get_region, service_of

__all__ = ["CacheKit", "RegionDependency", "cache_region", "get_region", "service_of"]
