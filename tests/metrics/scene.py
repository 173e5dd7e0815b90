"""An application in which everything happens that the board and the rules speak of. ``scene.py PORT``."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from cachekit import cache
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


def turn(number: int, pool: ThreadPoolExecutor) -> None:
    list(pool.map(square, [number % 50] * 4))
    square.invalidate(-1)
    lock(number % 50)
    for n in range(20):
        thrashing(n)
    behind(1)
    slow(number)
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
