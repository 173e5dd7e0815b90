"""A backend of one's own in less than 120 lines: entries lie in an HTTP server (`server.py` beside this file is one).

    [backends.default]
    type = "http"                       # the entry point of the package that holds `open_http`
    url = "http://127.0.0.1:8080"

It offers what a backend must, and nothing else: no leases, stamps or counters. docs/guides/backend-guide.md tells what
each of them adds.
"""

import http.client
import io
import socket
from collections.abc import Sequence
from time import monotonic
from urllib.parse import quote, urlsplit

from cachekit.backends.base import BaseBackend
from cachekit.config.spec import BackendSpec
from cachekit.errors import BackendError, ConfigError, Fault

CHUNK = 65_536


class HttpBackend(BaseBackend):
    """One connection per request. Nothing is kept, so nothing has to be closed, or given up in a forked child."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    def get(self, key: str, *, budget: float) -> bytes | None:
        status, data = self._ask("GET", path(key), monotonic() + budget)
        return None if status == 404 else data

    def store(self, key: str, data: bytes, ttl_ms: int | None, token: bytes | None, *, budget: float) -> bool:
        # A request that the network delivers after its budget must not store: an invalidation may have come first.
        # So it carries the latest time at which it may be carried out, on the only clock that the server knows.
        deadline = monotonic() + budget
        _, now = self._ask("GET", "/clock", deadline)
        latest = int(now) + (deadline - monotonic()) * 1000
        headers = {"Not-After": str(int(latest)), **({} if ttl_ms is None else {"Ttl": str(ttl_ms)})}
        status, _ = self._ask("PUT", path(key), deadline, data, headers)
        if status == 412:
            raise BackendError(Fault.DOWN, "timeout")
        return True  # without leases there are no tokens, so nothing else can refuse it

    def invalidate(self, keys: Sequence[str], *, budget: float) -> None:
        deadline = monotonic() + budget
        for key in keys:
            self._ask("DELETE", path(key), deadline)

    def close(self) -> None:
        """Nothing is open."""

    def _ask(
        self, method: str, target: str, deadline: float, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body. Whatever goes wrong is a BackendError, and nothing takes longer than the deadline."""
        lines = {"Host": self.host, "Connection": "close", "Content-Length": str(len(body)), **(headers or {})}
        head = "".join([f"{method} {target} HTTP/1.1\r\n", *(f"{name}: {text}\r\n" for name, text in lines.items())])
        try:
            answer = http.client.HTTPResponse(
                Received(self._talk(head.encode() + b"\r\n" + body, deadline)), method=method
            )
            answer.begin()
            data = answer.read()
        except TimeoutError:
            raise BackendError(Fault.DOWN, "timeout") from None
        except OSError as error:
            raise BackendError(Fault.DOWN, "connection", str(error)) from error
        except http.client.HTTPException as error:
            raise BackendError(Fault.DOWN, "protocol", f"no HTTP server answers: {type(error).__name__}") from error
        if answer.status not in (200, 204, 404, 412):
            raise BackendError(Fault.DOWN, "connection", f"the server answered {answer.status}")
        return answer.status, data

    def _talk(self, request: bytes, deadline: float) -> bytes:
        """Send, and read to the end. Each step gets what is left, so a server that drips gains no time."""
        with socket.create_connection((self.host, self.port), left(deadline)) as connection:
            connection.settimeout(left(deadline))
            connection.sendall(request)
            parts = []
            while True:
                connection.settimeout(left(deadline))
                if not (part := connection.recv(CHUNK)):
                    return b"".join(parts)
                parts.append(part)


class Received:
    """Bytes, as something that http.client reads an answer from."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self.data)


def left(deadline: float) -> float:
    seconds = deadline - monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def path(key: str) -> str:
    return "/entries/" + quote(key, safe="")


def open_http(spec: BackendSpec) -> HttpBackend:
    """What the entry point of the group ``cachekit.backends`` names. It connects to nothing."""
    place = urlsplit(spec.url)
    if place.scheme != "http" or not place.hostname:
        raise ConfigError(f"[backends.{spec.name}] url: write http://host:port")
    return HttpBackend(place.hostname, place.port or 80)
