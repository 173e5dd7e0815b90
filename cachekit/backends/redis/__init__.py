"""Redis and Valkey: one server, by TCP, TLS or unix socket."""

from cachekit.backends.base import Faces
from cachekit.config.spec import BackendSpec


def open_redis(spec: BackendSpec) -> Faces:
    """Both faces of the server at ``spec.url``. Connects when first used. ConfigError when the settings are wrong."""
    # Loads redis-py, which takes 0.2 s: at opening, so that it does not happen within the budget of the first call.
    from cachekit.backends.redis.address import parse
    from cachekit.backends.redis.backend import AsyncRedisBackend, RedisBackend

    address = parse(spec)
    return Faces(RedisBackend(address, spec.max_connections), AsyncRedisBackend(address, spec.max_connections))
