"""cachekit in a Flask application: `CacheKit(app)`, and decorators and methods with the names that Flask users know."""

from cachekit.integrations.flask.extension import Cache, CacheKit
from cachekit.integrations.flask.fragments import make_template_fragment_key
from cachekit.integrations.flask.signals import (
    cache_memoize_hit,
    cache_memoize_miss,
    cache_view_hit,
    cache_view_miss,
)
from cachekit.integrations.flask.views import CachedResponse

__all__ = [
    "Cache",
    "CacheKit",
    "CachedResponse",
    "cache_memoize_hit",
    "cache_memoize_miss",
    "cache_view_hit",
    "cache_view_miss",
    "make_template_fragment_key",
]
