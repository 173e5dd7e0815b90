"""The first page, and what it needs of every answer."""

import os
from collections.abc import Iterable
from functools import cache as once
from importlib.resources import files
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

WORKERS = "DEMO_WORKERS"  # the variable that names all workers: "fastapi=http://127.0.0.1:8000 flask=..."


@once
def first_page() -> str:
    """The same from every worker, since it asks all of them."""
    page = files("cachekit.demo").joinpath("index.html").read_text(encoding="utf-8")
    # Names and URLs are our own, so nothing in them needs escaping.
    return page.replace("{{workers}}", os.environ.get(WORKERS, ""))


def headers(started: float) -> list[tuple[str, str]]:
    """How long the worker took; and leave to read that and the answer for a page that another worker has served."""
    return [
        ("server-timing", f"worker;dur={(perf_counter() - started) * 1000:.2f}"),
        ("access-control-allow-origin", "*"),
        ("access-control-expose-headers", "server-timing"),
        ("cache-control", "no-store"),
    ]


def told_by_asgi(app: "ASGIApp") -> "ASGIApp":
    """ASGI middleware: every answer with `headers`."""

    async def with_headers(scope: "Scope", receive: "Receive", send: "Send") -> None:
        started = perf_counter()

        async def send_more(message: "Message") -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.encode(), value.encode()) for name, value in headers(started)]
            await send(message)

        await app(scope, receive, send_more)

    return with_headers


def told_by_wsgi(app: "WSGIApplication") -> "WSGIApplication":
    """WSGI middleware: every answer with `headers`."""

    def with_headers(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        started = perf_counter()

        def start(status: str, own: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, own + headers(started), *rest)

        return app(environ, start)

    return with_headers
