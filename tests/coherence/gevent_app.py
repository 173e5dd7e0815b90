"""A program of greenlets for test_forks.py; it prints what it saw as JSON."""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from gevent.pool import Pool  # noqa: E402

from cachekit import cache, configure, health, invalidate_tags, region  # noqa: E402

GREENLETS, VICTIMS = 200, 100

changed: dict[int, int] = {}
wrong: list[str] = []


@cache(profile="users", version=1, tags=lambda key: [f"tag-{key}"])
def square(key: int) -> list[int]:
    gevent.sleep(random.random() / 1000)
    return [key, key * key, changed.get(key, 0)]


@cache(profile="bare", version=1)
def cube(key: int) -> list[int]:
    return [key, key**3]


def ask(key: int) -> None:
    try:
        for _ in range(2):
            judge(square(key), [key, key * key, changed.get(key, 0)])
        judge(cube(key), [key, key**3])
        if key % 50 == 0:
            changed[key] = 1
            square.invalidate(key) if key % 100 else invalidate_tags(f"tag-{key}")
            judge(square(key), [key, key * key, 1])
    except gevent.GreenletExit:
        raise
    except BaseException:
        wrong.append(traceback.format_exc())


def judge(answer: Any, right: Any) -> None:
    if answer != right:
        wrong.append(f"{answer} instead of {right}")


def give_up(key: int) -> None:
    """Somebody who has no patience."""
    with gevent.Timeout(random.random() / 500, False):
        for _ in range(20):
            judge(cube(key), [key, key**3])
            judge(square(key), [key, key * key, changed.get(key, 0)])


def until_tracking() -> str:
    deadline = time.monotonic() + 10
    while health().backends["default"].coherence != "tracking" and time.monotonic() < deadline:
        region("users").get("warm")
        gevent.sleep(0.01)
    return health().backends["default"].coherence


def main(url: str, keys: int) -> None:
    configure(
        namespace="gevent",
        backends={"default": {"url": url, "budget": "10s", "adaptive": False, "max_connections": 10}},
        profiles={"users": {"jitter": 0, "ttl": "1h"}, "bare": {"jitter": 0, "ttl": "1h", "l1": {"mode": "off"}}},
    )
    region("users").get("warm")
    state = until_tracking()
    victims = [gevent.spawn(give_up if number % 2 else ask, 10**6 + number) for number in range(VICTIMS)]
    pool = Pool(GREENLETS)
    for number in range(keys):
        pool.spawn(ask, number)
        if number % 7 == 0 and victims and not (victim := victims.pop()).dead:
            victim.kill(block=False)
    pool.join()
    changed[1] = 2
    square.invalidate(1)
    judge(square(1), [1, 1, 2])
    errors = {name: function.cache_info().errors for name, function in (("square", square), ("cube", cube))}
    told = {"wrong": wrong[:3], "count": len(wrong), "before": state, "after": until_tracking(), "errors": errors}
    told["l1"] = square.cache_info().l1_hits
    print(json.dumps(told))


main(sys.argv[1], int(sys.argv[2]))
