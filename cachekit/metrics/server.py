"""A small HTTP server for the metrics of processes without a web application: workers, scripts, notebooks."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cachekit.metrics.access import Access
from cachekit.metrics.endpoint import respond
from cachekit.metrics.prometheus import attach

if TYPE_CHECKING:
    from cachekit.service import Service

REQUEST_TIMEOUT = 10.0  # seconds a client may take to send its request


class MetricsServer:
    """A running server; `close` ends it. Also a context manager."""

    def __init__(self, http: ThreadingHTTPServer) -> None:
        self._http = http
        self.address: str = http.server_address[0]  # type: ignore[assignment]  # str for an internet socket
        self.port: int = http.server_address[1]
        self._thread = threading.Thread(target=http.serve_forever, args=(0.1,), name="cachekit-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and wait for the thread. A second call does nothing."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()

    def __enter__(self) -> "MetricsServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(
    port: int, addr: str = "127.0.0.1", token: str | None = None, *, service: "Service | None" = None
) -> MetricsServer:
    """Serve the metrics at ``metrics.path`` (``/metrics``) from a thread of this process.

    Args:
        port: The TCP port; 0 lets the system choose (see ``.port`` of the result).
        addr: The address to listen on; other machines reach ``0.0.0.0`` or ``::``.
        token: Bearer token that clients must send; without it, ``metrics.token`` of the configuration.
        service: Whose metrics; without it, the process's own service.

    Raises:
        ConfigError: The configuration is wrong.
        OSError: The port is taken.
    """
    if service is None:
        from cachekit.process import default_service  # not needed by those who bring their own

        service = default_service()
    attach(service)
    spec = service.spec.metrics
    access = Access(token or spec.token, spec.allow)
    return MetricsServer(_server_class(addr)((addr, port), _handler_class(service, access)))


def _server_class(addr: str) -> type[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in addr else socket.AF_INET

    return Server


def _handler_class(service: "Service", access: Access) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT
        server_version = "cachekit"
        sys_version = ""

        def do_GET(self) -> None:
            if urlsplit(self.path).path != service.spec.metrics.path:
                self.send_error(404)
                return
            answer = respond(
                service,
                accept=", ".join(self.headers.get_all("Accept", [])),
                authorization=self.headers.get("Authorization"),
                address=self.client_address[0],
                access=access,
            )
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes are not news."""

    return Handler
