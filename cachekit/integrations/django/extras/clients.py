"""Redis clients for what there is no method for, and locks: of redis-py, with its errors and time limits."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from django.core.cache import caches

from cachekit.backends.redis.address import Address, Cluster, Place, Sentinels
from cachekit.codec.envelope import Damaged
from cachekit.config.spec import TLSSpec
from cachekit.errors import UnsupportedOperation
from cachekit.integrations.django.extras.commands import Commands
from cachekit.l2.remote import Remote
from cachekit.regions import call_of

PATIENCE: Final = 5.0  # seconds that redis-py waits for a connection or an answer

_clients: WeakKeyDictionary[Remote, Any] = WeakKeyDictionary()


def get_redis_connection(alias: str = "default", write: bool = True) -> Any:
    """A redis-py client for the server of an alias.

    Names of keys there are told by ``caches[alias].client.make_key(key)``. Raises NotImplementedError for an alias that
    is not ours, and `UnsupportedOperation` for one without a server.
    """
    client = getattr(caches[alias], "client", None)
    if client is None:
        raise NotImplementedError(f"CACHES[{alias!r}] is no backend of cachekit; use its own way to a connection")
    return client.get_client(write)


class Client:
    """``cache.client``, as code written for django-redis expects it. Methods that it does not have are the cache's."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._cache, name)

    @property
    def own(self) -> Any:
        """The redis-py client, if it has been asked for."""
        remote = self._cache._tiers.remote
        return None if remote is None else _clients.get(remote)

    def get_client(self, write: bool = True, tried: Any = None) -> Any:
        """A redis-py client, the same each time: of the primary, whatever ``write`` says. Do not close it."""
        tiers = self._cache._tiers
        remote = self._cache._remote(tiers, "get_client()")
        if remote not in _clients:
            client = _clients.setdefault(remote, _open(remote))
            self._cache.region.service.on_close(client.close)
        return _clients[remote]

    def make_key(self, key: Any, version: Any = None, prefix: Any = None) -> str:
        """The name of a key on the server."""
        full = self._cache.make_key(key, version) if prefix is None else self._cache.key_func(key, prefix, version)
        text = call_of(self._cache.region, full).key
        assert text is not None
        return text

    def encode(self, value: Any) -> bytes:
        """A member or a value of a hash as it is stored. Raises `Unstorable`."""
        data: bytes = self._cache._encoded(value)
        return data

    def decode(self, value: bytes) -> Any:
        """The value of such bytes. Raises ValueError for others."""
        try:
            return self._cache._decoded(value)
        except Damaged as damage:
            raise ValueError(f"not a value that encode() made: {damage.reason}") from None


class Clients(Commands):
    """Raw clients and locks."""

    make_key: Callable[..., str]

    @property
    def client(self) -> Client:
        """What django-redis calls the client of a cache."""
        return Client(self)

    def lock(
        self, key: Any, version: Any = None, timeout: float | None = None, sleep: float = 0.1, blocking: bool = True,
        blocking_timeout: float | None = None, client: Any = None, thread_local: bool = True,
    ) -> Any:  # fmt: skip
        """A lock for all processes, of redis-py: ``with cache.lock("report", timeout=60):``.

        It ends after ``timeout`` seconds, None: never, not even when its process dies. ``blocking_timeout`` seconds are
        waited for it at most, ``sleep`` between two attempts. Its methods raise the errors of redis-py: while the
        server is away nobody has a lock. A lock has no part in the keys of the cache, and `clear` leaves it alone.
        """
        call = self._call(key, version, client)
        connection = self.client.get_client()
        assert call.key is not None
        name = call.key.replace(":v:", ":k:", 1)
        return connection.lock(
            name, timeout=timeout, sleep=sleep, blocking=blocking, blocking_timeout=blocking_timeout,
            thread_local=thread_local,
        )  # fmt: skip

    get_lock = lock


def _open(remote: Remote) -> Any:
    """A redis-py client for where this backend leads to."""
    place: Place | None = getattr(remote.faces.sync, "address", None)
    if place is None:
        raise UnsupportedOperation(f"backend {remote.spec.name!r} has no redis-py client")
    tls = remote.spec.tls
    primary = place if isinstance(place, Address) else place.primary
    options = {**_login(primary, tls), "max_connections": remote.spec.max_connections}
    redis: Any = import_module("redis")  # the backend has loaded it already; half of it has no types
    if isinstance(place, Cluster):
        nodes = [redis.cluster.ClusterNode(node.host, node.port) for node in place.nodes]
        return redis.RedisCluster(startup_nodes=nodes, **options)
    if isinstance(place, Sentinels):
        hosts, asking = [(each.host, each.port) for each in place.sentinels], _login(place.sentinels[0], tls)
        return redis.Sentinel(hosts, sentinel_kwargs=asking).master_for(place.service, db=primary.db, **options)
    where = {"unix_socket_path": place.path} if place.kind == "unix" else {"host": place.host, "port": place.port}
    return redis.Redis(**where, db=place.db, **options)


def _login(address: Address, tls: TLSSpec) -> dict[str, Any]:
    options: dict[str, Any] = {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE}
    if address.provider is not None:
        options["credential_provider"] = address.provider
    elif address.password is not None:
        options |= {"username": address.username, "password": address.password}
    if address.kind == "tls":
        ca = "ssl_ca_path" if tls.ca is not None and Path(tls.ca).is_dir() else "ssl_ca_certs"
        options |= {
            "ssl": True, ca: tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key,
            "ssl_check_hostname": tls.check_hostname,
        }  # fmt: skip
    return options
