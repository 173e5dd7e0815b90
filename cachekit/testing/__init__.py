"""Tools for testing code that uses cachekit, and for testing backends; each is loaded on first use."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cachekit.testing.asserts import assert_cached as assert_cached
    from cachekit.testing.clock import FrozenClock as FrozenClock
    from cachekit.testing.conformance import BackendContract as BackendContract
    from cachekit.testing.faults import FaultProxy as FaultProxy
    from cachekit.testing.servers import Server as Server
    from cachekit.testing.servers import available as available
    from cachekit.testing.servers import start_server as start_server

HOME = {
    "BackendContract": "conformance",
    "FaultProxy": "faults",
    "FrozenClock": "clock",
    "Server": "servers",
    "assert_cached": "asserts",
    "available": "servers",
    "start_server": "servers",
}
__all__ = list(HOME)


def __getattr__(name: str) -> Any:
    if name not in HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # every pytest run of a user imports this package through the plugin

    return getattr(import_module(f"{__name__}.{HOME[name]}"), name)
