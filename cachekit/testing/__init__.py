"""Tools for testing code that uses cachekit, and for testing backends and serializers; each is loaded on first use."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cachekit.testing.asserts import assert_cached as assert_cached
    from cachekit.testing.child import agate as agate
    from cachekit.testing.child import gate as gate
    from cachekit.testing.clock import FrozenClock as FrozenClock
    from cachekit.testing.conformance import BackendContract as BackendContract
    from cachekit.testing.faults import FaultProxy as FaultProxy
    from cachekit.testing.processes import CallFailed as CallFailed
    from cachekit.testing.processes import Process as Process
    from cachekit.testing.processes import ProcessEnded as ProcessEnded
    from cachekit.testing.processes import Processes as Processes
    from cachekit.testing.processes import Running as Running
    from cachekit.testing.serializing import SerializerContract as SerializerContract
    from cachekit.testing.servers import Server as Server
    from cachekit.testing.servers import available as available
    from cachekit.testing.servers import start_server as start_server
    from cachekit.testing.topologies import ClusterSetup as ClusterSetup
    from cachekit.testing.topologies import SentinelSetup as SentinelSetup
    from cachekit.testing.topologies import start_cluster as start_cluster
    from cachekit.testing.topologies import start_sentinel as start_sentinel

HOME = {
    "BackendContract": "conformance",
    "CallFailed": "processes",
    "ClusterSetup": "topologies",
    "FaultProxy": "faults",
    "FrozenClock": "clock",
    "Process": "processes",
    "ProcessEnded": "processes",
    "Processes": "processes",
    "Running": "processes",
    "SentinelSetup": "topologies",
    "SerializerContract": "serializing",
    "Server": "servers",
    "agate": "child",
    "assert_cached": "asserts",
    "available": "servers",
    "gate": "child",
    "start_cluster": "topologies",
    "start_sentinel": "topologies",
    "start_server": "servers",
}
__all__ = list(HOME)


def __getattr__(name: str) -> Any:
    if name not in HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # every pytest run of a user imports this package through the plugin

    return getattr(import_module(f"{__name__}.{HOME[name]}"), name)
