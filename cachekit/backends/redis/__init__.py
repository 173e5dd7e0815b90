"""Redis and Valkey: one server, the primary that Sentinels name, or a cluster."""

from cachekit.backends.base import Faces
from cachekit.config.spec import BackendSpec


def open_redis(spec: BackendSpec) -> Faces:
    """Both faces of what is at ``spec.url``. Connects when first used. ConfigError when the settings are wrong."""
    # Loads redis-py, which takes 0.2 s: at opening, so that it does not happen within the budget of the first call.
    from cachekit.backends.redis.address import Cluster, parse
    from cachekit.backends.redis.backend import AsyncClusterBackend, AsyncRedisBackend, ClusterBackend, RedisBackend
    from cachekit.backends.redis.cluster import Routes
    from cachekit.backends.redis.peers import Peers

    place, limit, peers = parse(spec), spec.max_connections, Peers()
    if isinstance(place, Cluster):
        routes = Routes(place, peers)
        return Faces(ClusterBackend(routes, limit, peers), AsyncClusterBackend(routes, limit, peers))
    return Faces(RedisBackend(place, limit, peers), AsyncRedisBackend(place, limit, peers))
