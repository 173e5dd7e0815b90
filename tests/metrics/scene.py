"""An application in which everything happens that the board and the rules speak of. ``scene.py PORT``."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from cachekit import cache
from cachekit.integrations.starlette import cached_response
from cachekit.metrics import serve


@cache(profile="shared")
def square(n: int) -> int:
    time.sleep(0.002)
    return n * n


@cache(profile="shared")
def lock(n: int) -> threading.RLock:
    return threading.RLock()  # type: ignore[return-value]  # cannot be stored


@cache(profile="shared")
def failing(n: int) -> int:
    raise LookupError(n)


@cache(profile="tiny")
def thrashing(n: int) -> int:
    return n


@cache(profile="tiny", max_entries=10, ttl="50ms", stale_ttl="1h", swr=True)
def behind(n: int) -> int:
    time.sleep(0.002)
    return n


@cache(profile="tiny", ttl="50ms", hard_timeout="1ms", fallback=0)
def slow(n: int) -> int:
    time.sleep(0.01)
    return n


@cached_response(profile="tiny", ttl="50ms")
async def page(request: Request) -> Response:
    return PlainTextResponse("page")


pages = TestClient(Starlette(routes=[Route("/", page)]))


def turn(number: int, pool: ThreadPoolExecutor) -> None:
    list(pool.map(square, [number % 50] * 4))
    square.invalidate(-1)
    lock(number % 50)
    for n in range(20):
        thrashing(n)
    behind(1)
    slow(number)
    if number % 10 == 0:
        pages.get("/")
    try:
        failing(number)
    except LookupError:
        pass


def main() -> None:
    number = 0
    with serve(int(sys.argv[1])), ThreadPoolExecutor(4) as pool:
        while True:
            number += 1
            turn(number, pool)
            time.sleep(0.01)


if __name__ == "__main__":
    main()
