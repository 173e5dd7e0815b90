"""A service whose L1 hears of changes."""

import threading

from cachekit.service import Service


def connected(service: Service) -> Service:
    """Wait until L1 hears of changes, where there is a server: who calls before does so for itself."""
    region = service.region("users")
    for _ in range(2000):
        region.get("nothing")
        if all(backend.coherence == "tracking" for backend in service.health().backends.values()):
            return service
        threading.Event().wait(0.005)
    raise AssertionError("the server does not tell of changes")
