"""Situations of a server that is away: refused, hung, gone and back."""

import time
from typing import Any

from adapters import Adapter
from support import ask_for, counting, run

PATIENCE = 15.0  # seconds that a cache may take to use a server that is back


def hung_server(adapter: Adapter) -> str:
    """A server that takes connections and never answers: how long one call takes, and what becomes of it."""
    seconds, became = second_call(adapter, "hung_fn")
    return f"{'under 1' if seconds < 1 else round(seconds)} s{', then an error' if became == 'error' else ''}"


def refused_server(adapter: Adapter) -> str:
    """Nobody listens at the address: what one call gives."""
    seconds, became = second_call(adapter, "refused_fn")
    return became if seconds < 1 else f"{became}, after seconds"


def second_call(adapter: Adapter, name: str) -> tuple[float, str]:
    function, _ = counting(adapter, name, lambda x: x)
    memo = adapter.shared(function)
    timed(memo, 1)  # the first call loads modules as well
    return timed(memo, 2)


def timed(memo: Any, x: int) -> tuple[float, str]:
    started = time.monotonic()
    try:
        run(memo(x))
        became = "the value"
    except Exception:
        became = "error"
    return time.monotonic() - started, became


def a_server_that_dies_and_is_back(adapter: Adapter) -> str:
    """What a call gives while the server is dead; and entries are kept again when it is back."""
    function, runs = counting(adapter, "back_fn", lambda x: x)
    memo = adapter.shared(function)
    run(memo(0))
    ask_for("kill")
    during = timed(memo, 1)[1]
    ask_for("start")
    x, until = 2, time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if timed(memo, x)[1] == timed(memo, x)[1] == "the value" and runs.count(x) == 1:
            return during
        x += 1
        time.sleep(0.1)
    return f"{during}, then no hits"


SITUATIONS = (hung_server, refused_server, a_server_that_dies_and_is_back)
