"""A WSGI application that used the cache, and was connected, before gunicorn forked its workers."""

import json
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

import load_app

from cachekit import health

KEYS = 500


def use(start: int) -> list[Any]:
    """Keys of its own for each worker, from several threads; what was wrong."""
    wrong: list[Any] = []

    def some(first: int) -> None:
        for key in range(start + first, start + KEYS, 4):
            try:
                if (answer := square(key)) != key * key:
                    wrong.append([key, answer])
            except BaseException as error:
                wrong.append([key, repr(error)])

    threads = [threading.Thread(target=some, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def answer(path: str) -> Any:
    what, _, number = path.strip("/").partition("/")
    if what == "get":
        return load_app.load(int(number))
    if what == "invalidate":
        return load_app.invalidate(number)
    if what == "use":
        return use(int(number))
    return [health().backends["default"].coherence, load_app.coherence()[1]]


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = json.dumps([os.getpid(), answer(environ["PATH_INFO"])]).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


@load_app.cache(profile="users", version=1)
def square(key: int) -> int:
    return key * key


load_app.begin("preload", {"url": os.environ["PRELOAD_URL"]}, {}, os.environ["PRELOAD_DATA"])
load_app.warm()
load_app.load(1)
