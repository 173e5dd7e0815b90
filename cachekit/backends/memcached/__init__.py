"""memcached, as far as it can do what the protocol needs."""

import logging

from cachekit.backends.base import Faces
from cachekit.config.spec import BackendSpec, TLSSpec
from cachekit.config.urls import MEMCACHED_PORT, check_url_of, split_hosts
from cachekit.errors import ConfigError

logger = logging.getLogger("cachekit")


def open_memcached(spec: BackendSpec) -> Faces:
    """The server at ``spec.url``. Connects when first used. Callers in event loops wait in worker threads.

    ConfigError when the settings are wrong, or ask for what memcached does not have.
    """
    try:
        import pymemcache  # noqa: F401  # only those who use memcached have it
    except ImportError:
        raise ConfigError(
            f"[backends.{spec.name}] type: 'memcached' needs pymemcache: pip install 'cachekit[memcached]'"
        ) from None
    from cachekit.backends.memcached.backend import MAX_ITEM_BYTES, MemcachedBackend
    from cachekit.backends.memcached.items import OVERHEAD
    from cachekit.backends.settings import Options

    try:
        check_url_of("memcached", spec.url)
    except ValueError as error:
        problem = str(error)
        raise ConfigError(f"[backends.{spec.name}] url: not that of a memcached server: {problem}") from None
    if spec.username or spec.password or spec.credential_provider or spec.tls != TLSSpec():
        raise ConfigError(
            f"[backends.{spec.name}]: memcached is used without credentials and without TLS; leave them out and let "
            "nobody else reach its port, or use Redis"
        )
    if spec.coherence == "auto":
        logger.warning(
            "backend %r: memcached does not tell of changes, so what another process invalidates may be served from "
            'L1 for max_staleness (%g s); coherence = "ttl" says that this is known',
            spec.name,
            spec.max_staleness,
        )
    limit = Options(spec, "max_item_bytes").size("max_item_bytes", MAX_ITEM_BYTES, least=2 * OVERHEAD)
    place = split_hosts(spec.url)[0]
    assert place.hostname is not None  # that was checked
    return Faces(MemcachedBackend(place.hostname, place.port or MEMCACHED_PORT, spec.max_connections, limit), None)
