"""Every error that cachekit raises, and the one that stays inside.

CacheKitError
 ├── ConfigError (ValueError)             a mistake in cachekit.toml, the environment, a decorator or configure()
 ├── UncacheableArgument (TypeError)      an argument without a stable identity
 ├── Unstorable (TypeError)               a value that cannot be stored, only with on_unstorable = "raise"
 ├── UnsupportedOperation (RuntimeError)  the region or the backend cannot do this
 ├── CacheLoadTimeout (TimeoutError)      the cached function ran longer than hard_timeout
 ├── MissingTenant (LookupError)          a tenant region used without a tenant
 ├── TamperedEntry (ValueError)           stored bytes were changed, only with fail_closed
 └── BackendError                         inside only: a failed operation of a backend; never reaches the caller

Messages name the remedy and never carry a secret.
"""

from enum import Enum


class CacheKitError(Exception):
    """Base of every error that cachekit raises."""


class ConfigError(CacheKitError, ValueError):
    """A mistake in the configuration or in a decorator. The message names place, key, value, reason and remedy."""


class UncacheableArgument(CacheKitError, TypeError):
    """An argument of a cached call has no stable identity, so no key can be made of it."""


class Unstorable(CacheKitError, TypeError):
    """A value cannot be stored. Raised only with ``on_unstorable = "raise"``; otherwise counted and logged once.

    ``reason`` is type, depth or size.
    """

    def __init__(self, message: str, reason: str = "type") -> None:
        super().__init__(message)
        self.reason = reason


class UnsupportedOperation(CacheKitError, RuntimeError):
    """The region or its backend does not offer this operation."""


class CacheLoadTimeout(CacheKitError, TimeoutError):
    """The cached function ran longer than its ``hard_timeout``."""


class MissingTenant(CacheKitError, LookupError):
    """A region that requires a tenant was used without one."""


class TamperedEntry(CacheKitError, ValueError):
    """Stored bytes are not what was written. Raised only with ``fail_closed``; otherwise a counted miss."""


class Fault(Enum):
    """What a failed operation says about its backend; the circuit breaker acts on it."""

    DOWN = "down"  # timeout, refused, reset, LOADING, CLUSTERDOWN: nobody can work
    READONLY = "readonly"  # OOM, READONLY, MISCONF, NOREPLICAS: reads work, writes do not
    CONFIG = "config"  # wrong password, missing permission, untrusted certificate: waiting does not help
    COMMAND = "command"  # this command failed, the backend is well


class BackendError(CacheKitError):
    """A backend operation failed. Backends raise it and nothing else; the engine turns it into a miss.

    ``reason`` is a short, bounded metric label (``timeout``, ``connection``, ``loading``, ``oom``, ``readonly``,
    ``auth``, ``noperm``, ``tls``, ``protocol``, ``pool``, ``command``, ``moved``, ``service``); ``str(error)`` is for
    the log.
    """

    def __init__(self, fault: Fault, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.fault = fault
        self.reason = reason
