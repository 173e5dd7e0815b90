"""Prometheus metrics of a service: `exposition` for a route, `register` for a registry of yours, `serve` for scripts.

Importing this package loads prometheus_client; nothing else in cachekit does.
"""

from cachekit.metrics.access import Access
from cachekit.metrics.endpoint import Answer, respond
from cachekit.metrics.prometheus import attach, exposition, register
from cachekit.metrics.server import MetricsServer, serve

__all__ = ["Access", "Answer", "MetricsServer", "attach", "exposition", "register", "respond", "serve"]
