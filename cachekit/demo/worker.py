"""One server process of the demo: ``python -m cachekit.demo.worker FRAMEWORK PORT``.

It serves until it is told to stop or the process that started it is gone: both end its standard input.
"""

import sys
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

HOST = "127.0.0.1"


def main(arguments: Sequence[str]) -> None:
    """Serve the application of a framework on a port."""
    from cachekit.demo import cities

    framework, port = arguments
    app = import_module(f"cachekit.demo.{framework}_app").app
    cities.cities()  # read the data before the first request
    serve = serve_asgi if framework == "fastapi" else serve_wsgi
    serve(app, int(port))


def serve_asgi(app: Any, port: int) -> None:
    """With uvicorn."""
    import uvicorn

    from cachekit.demo.page import told_by_asgi

    server = uvicorn.Server(
        uvicorn.Config(
            told_by_asgi(app),
            host=HOST,
            port=port,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=2,
        )
    )

    def stop() -> None:
        server.should_exit = True

    at_the_end_of_input(stop)
    server.run()


def serve_wsgi(app: Any, port: int) -> None:
    """With the threads of werkzeug, which comes with Flask and serves Django as well."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    from cachekit.demo.page import told_by_wsgi

    class Handler(WSGIRequestHandler):
        # Head and body are sent one after the other; on a connection that stays open, Nagle's algorithm would hold the
        # body back until the client has acknowledged the head, up to 40 ms later.
        disable_nagle_algorithm = True

        def log_request(self, *of: object) -> None:
            """Not each of them."""

    server = make_server(HOST, port, told_by_wsgi(app), threaded=True, request_handler=Handler)
    at_the_end_of_input(server.shutdown)
    server.serve_forever(poll_interval=0.1)


def at_the_end_of_input(stop: Callable[[], None]) -> None:
    def wait() -> None:
        sys.stdin.buffer.read()
        stop()

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])
