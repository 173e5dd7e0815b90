"""cachekit in a Flask application: `CacheKit(app)`, and decorators and methods with the names that Flask users know."""

from cachekit.integrations.flask.extension import Cache, CacheKit

__all__ = ["Cache", "CacheKit"]
