"""What the processes of test_rotation.py run: readers and writers of a sealed region, who judge what they get."""

import os
import random
import threading
import time
import traceback
from collections import Counter
from typing import Any

from cachekit import configure, region
from cachekit.engine.events import Event, Failed, Missed
from cachekit.process import default_service

KEYS, THREADS, TTL = 40, 3, 600

_stop = threading.Event()
_threads: list[threading.Thread] = []
_wrong: list[str] = []
_counts: Counter[str] = Counter()


def begin(url: str, l1: str) -> None:
    """The keys come from the environment of this process."""
    configure(
        namespace="rotated",
        backends={"default": {"url": url, "budget": "5s", "adaptive": False}},
        profiles={"tokens": {"encrypt": True, "jitter": 0, "ttl": TTL, "early_refresh": "off", "l1": {"mode": l1}}},
    )
    default_service().observers.append(_note)


def _note(event: Event) -> None:
    if isinstance(event, Missed):
        _counts[f"missed {event.reason}"] += 1
    elif isinstance(event, Failed):
        _counts[f"failed {event.reason}"] += 1


def fill() -> None:
    for key in range(KEYS):
        region("tokens").set(key, [key, 0])


def use() -> None:
    """Readers and writers, until `end`."""
    _stop.clear()
    _counts.clear()
    _threads[:] = [threading.Thread(target=_use, args=(number,)) for number in range(THREADS)]
    for thread in _threads:
        thread.start()


def _use(number: int) -> None:
    draw = random.Random(os.getpid() + number)
    tokens = region("tokens")
    while not _stop.is_set():
        key = draw.randrange(KEYS)
        try:
            if draw.random() < 0.05 and key % 2:  # the others are only read, so only a rewrap changes their key
                tokens.set(key, [key, draw.randrange(10**9)])
            else:
                value = tokens.get(key)
                _counts["reads"] += 1
                if value is not None and value[0] != key:
                    _wrong.append(f"{key}: {value}")
        except BaseException:
            _wrong.append(traceback.format_exc())
        time.sleep(0.001)


def end() -> dict[str, Any]:
    _stop.set()
    for thread in _threads:
        thread.join()
    return {"wrong": _wrong[:3], **_counts}


def read_all() -> list[Any]:
    return [region("tokens").get(key) for key in range(KEYS)]


def store(key: int, value: Any) -> None:
    region("tokens").set(key, value)


def read(key: int) -> Any:
    return region("tokens").get(key)


def counts() -> dict[str, int]:
    return dict(_counts)


def read_at_once(key: int, threads: int) -> list[Any]:
    """By so many threads at the same moment."""
    barrier, got = threading.Barrier(threads), []

    def read_one() -> None:
        barrier.wait()
        got.append(region("tokens").using(skip_l1=True).get(key))

    every = [threading.Thread(target=read_one) for _ in range(threads)]
    for thread in every:
        thread.start()
    for thread in every:
        thread.join()
    return got
