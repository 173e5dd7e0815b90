"""Situations of time and numbers: how long an entry lasts, what follows it, what can be seen of it."""

import re
import time

from adapters import Adapter
from support import counting, run

BRIEF = 1  # second: the shortest that all of them take


def a_time_of_the_value(adapter: Adapter) -> str:
    """The function's results say how long they are good."""
    function, runs = counting(adapter, "lasting_fn", lambda x: x)
    memo = adapter.by_value(function, lambda value: value)
    run(memo(BRIEF)), run(memo(600))
    time.sleep(BRIEF * 1.3)
    run(memo(BRIEF)), run(memo(600))
    return "yes" if runs == [BRIEF, 600, BRIEF] else "no"


def a_source_that_fails(adapter: Adapter) -> str:
    """The entry's time is up, and the function raises."""
    healthy = [True]

    def body(x: int) -> str:
        if not healthy:
            raise OSError("the source is away")
        return "old"

    function, _ = counting(adapter, "failing_fn", body)
    memo = adapter.brief(function, BRIEF)
    run(memo(1))
    healthy.clear()
    time.sleep(BRIEF * 1.3)
    try:
        return f"the {run(memo(1))} value"
    except OSError:
        return "its error"


def a_tag_outdates(adapter: Adapter) -> str:
    """Two functions have entries with one tag, and a third entry has another."""
    (first, one), (second, two) = (counting(adapter, name, lambda x: x) for name in ("first_fn", "second_fn"))
    memos = adapter.tagged(first, "user:7"), adapter.tagged(second, "user:7"), adapter.tagged(first, "user:8")
    for memo, x in zip(memos, (1, 1, 2), strict=True):
        run(memo(x))
    run(adapter.forget_tag("user:7"))
    for memo, x in zip(memos, (1, 1, 2), strict=True):
        run(memo(x))
    return "yes" if (one, two) == ([1, 2, 1], [1, 1]) else "no"


def prometheus_counts_hits(adapter: Adapter) -> str:
    """Hits of a decorated function are in what an ordinary ``/metrics`` shows."""
    function, _ = counting(adapter, "counted_fn", lambda x: x)
    adapter.expose()
    memo = adapter.widest(function)
    run(memo(1))
    before = hits_shown()
    run(memo(1)), run(memo(1))
    return "yes" if hits_shown() - before == 2 else "no"


def hits_shown() -> float:
    try:
        from prometheus_client import generate_latest
    except ImportError:
        return 0.0
    text = generate_latest().decode()
    return sum(map(float, re.findall(r"^(?=.*(?:hit|\bget\b))\w+_total.* (\S+)$", text, re.MULTILINE)))


SITUATIONS = (a_time_of_the_value, a_source_that_fails, a_tag_outdates, prometheus_counts_hits)
