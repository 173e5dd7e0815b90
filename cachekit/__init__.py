"""cachekit: one typed configuration, the same named cache regions everywhere.

Names are loaded on first use, so that importing the package costs next to nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cachekit.cached import AsyncCachedFunction as AsyncCachedFunction
    from cachekit.cached import CachedFunction as CachedFunction
    from cachekit.config.units import Duration as Duration
    from cachekit.context import current_entry as current_entry
    from cachekit.context import disabled as disabled
    from cachekit.context import tenant as tenant
    from cachekit.decorator import cache as cache
    from cachekit.engine.miss import MISS as MISS
    from cachekit.engine.outcome import Outcome as Outcome
    from cachekit.errors import CacheKitError as CacheKitError
    from cachekit.errors import CacheLoadTimeout as CacheLoadTimeout
    from cachekit.errors import ConfigError as ConfigError
    from cachekit.errors import MissingTenant as MissingTenant
    from cachekit.errors import TamperedEntry as TamperedEntry
    from cachekit.errors import UncacheableArgument as UncacheableArgument
    from cachekit.errors import Unstorable as Unstorable
    from cachekit.errors import UnsupportedOperation as UnsupportedOperation
    from cachekit.function import CacheInfo as CacheInfo
    from cachekit.process import aclose as aclose
    from cachekit.process import close as close
    from cachekit.process import configure as configure
    from cachekit.process import define as define
    from cachekit.process import health as health
    from cachekit.regions import Region as Region
    from cachekit.regions import ainvalidate_tags as ainvalidate_tags
    from cachekit.regions import invalidate_tags as invalidate_tags
    from cachekit.regions import region as region
    from cachekit.registration import register as register

__version__ = "0.1.0"

_HOME = {
    "cachekit.config.units": ("Duration",),
    "cachekit.context": ("current_entry", "disabled", "tenant"),
    "cachekit.cached": ("AsyncCachedFunction", "CachedFunction"),
    "cachekit.decorator": ("cache",),
    "cachekit.engine.miss": ("MISS",),
    "cachekit.engine.outcome": ("Outcome",),
    "cachekit.errors": (
        "CacheKitError",
        "CacheLoadTimeout",
        "ConfigError",
        "MissingTenant",
        "TamperedEntry",
        "UncacheableArgument",
        "Unstorable",
        "UnsupportedOperation",
    ),
    "cachekit.function": ("CacheInfo",),
    "cachekit.regions": ("Region", "ainvalidate_tags", "invalidate_tags", "region"),
    "cachekit.registration": ("register",),
    "cachekit.process": ("aclose", "close", "configure", "define", "health"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [  # the names above
    "MISS",
    "AsyncCachedFunction",
    "CacheInfo",
    "CacheKitError",
    "CacheLoadTimeout",
    "CachedFunction",
    "ConfigError",
    "Duration",
    "MissingTenant",
    "Outcome",
    "Region",
    "TamperedEntry",
    "UncacheableArgument",
    "Unstorable",
    "UnsupportedOperation",
    "aclose",
    "ainvalidate_tags",
    "cache",
    "close",
    "configure",
    "current_entry",
    "define",
    "disabled",
    "health",
    "invalidate_tags",
    "region",
    "register",
    "tenant",
]


if not TYPE_CHECKING:  # type checkers would take it for a promise that every name exists

    def __getattr__(name: str) -> Any:
        module = _MODULE.get(name)
        if module is None:
            raise AttributeError(f"module 'cachekit' has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(module), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
