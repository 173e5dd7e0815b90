"""What the cache of this process did."""

import os
from typing import Any

from cachekit.l1.table import TWIN
from cachekit.process import default_service


def counts() -> dict[str, Any]:
    """Hits and misses of this process by region, and how the backend does."""
    service = default_service()
    regions: dict[str, dict[str, int]] = {}
    for tally in service.tallies():
        row = regions.setdefault(tally.region, {"l1_hits": 0, "l2_hits": 0, "misses": 0, "waited": 0, "errors": 0})
        row["l1_hits"] += tally.l1_hits()
        row["l2_hits"] += tally.l2_hits
        row["misses"] += tally.misses
        row["waited"] += tally.waited
        row["errors"] += sum(tally.errors.values())
    backends = {name: health.state for name, health in service.health().backends.items()}
    return {"pid": os.getpid(), "twin": TWIN, "backends": backends, "regions": regions}
