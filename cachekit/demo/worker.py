"""One server process of the demo: ``python -m cachekit.demo.worker PORT URL...``.

It serves until it is told to stop or the process that started it is gone: both end its standard input.
"""

import sys
import threading
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Serve on the first argument, a port; the others are the URLs of all workers."""
    import uvicorn

    from cachekit.demo.app import create_app

    port, *workers = arguments
    config = uvicorn.Config(
        create_app(workers),
        host="127.0.0.1",
        port=int(port),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)

    def stop_at_the_end_of_input() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=stop_at_the_end_of_input, daemon=True).start()
    server.run()


if __name__ == "__main__":
    main(sys.argv[1:])
