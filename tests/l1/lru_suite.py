"""Runs CPython's own tests of `functools.lru_cache` and `functools.cache` on ours, as a program of its own.

The last line of the output is JSON: the twin, the classes of the module that test those two, the names of the tests
that ran and of those that passed, and the last words of each of the others.
"""

import functools
import inspect
import json
import re
import threading
import unittest
from types import SimpleNamespace
from typing import Any

from test import test_functools as theirs

from cachekit import cache
from cachekit.l1.table import TWIN

UNBOUNDED = 2**31  # entries: stands for maxsize=None
PATIENCE = 0.5  # seconds, where they wait 10 for threads of which all but one must not come


def lru_cache(maxsize: Any = 128, typed: bool = False) -> Any:
    """`functools.lru_cache` in our words. Types always count, whatever ``typed`` says."""
    if callable(maxsize):
        return lru_cache()(maxsize)
    if maxsize is not None and maxsize <= 0:
        return cache(backend=None, l1={"mode": "off"})
    most = UNBOUNDED if maxsize is None else maxsize
    return cache(backend=None, ttl=None, max_entries=most, isolation="share", l1={"policy": "lru"})


def counts(hits: int, misses: int, maxsize: int | None, currsize: int) -> tuple[int, int, int, int]:
    """What they expect of `cache_info()`, in our words."""
    return (hits, misses, UNBOUNDED if maxsize is None else maxsize, currsize)


OURS: Any = SimpleNamespace(
    **{**vars(functools), "lru_cache": lru_cache, "cache": lru_cache(maxsize=None), "_CacheInfo": counts}
)


@lru_cache()
def module_level(x: int, y: int) -> int:
    return 3 * x + y


class TestLRU(theirs.TestLRU, unittest.TestCase):  # type: ignore[misc, name-defined]
    module = OURS
    cached_func = (module_level,)

    @lru_cache()
    def cached_meth(self, x: int, y: int) -> int:
        return 3 * x + y

    @staticmethod
    @lru_cache()
    def cached_staticmeth(x: int, y: int) -> int:
        return 3 * x + y


class TestCache(theirs.TestCache, unittest.TestCase):  # type: ignore[misc, name-defined]
    module = OURS


class ImpatientBarrier(threading.Barrier):
    def wait(self, timeout: float | None = None) -> int:
        return super().wait(PATIENCE)


def classes() -> list[str]:
    """The classes of the module with tests that speak of the two functions."""
    speaks = re.compile(r"\blru_cache\b|functools\.cache\b|module\.cache\b").search
    return sorted(
        name
        for name, case in vars(theirs).items()
        if isinstance(case, type)
        and any(attribute.startswith("test") for attribute in vars(case))
        and case.__module__ == theirs.__name__
        and speaks(inspect.getsource(case))
    )


class Told(unittest.TestResult):
    """Keeps what ran and how it ended; a failed subtest stands for its test."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.ran.append(name_of(test))

    def others(self) -> dict[str, str]:
        """How those ended that did not pass."""
        failed = {name_of(test): text.strip() for test, text in (*self.failures, *self.errors)}
        return failed | {name_of(test): f"skipped: {why}" for test, why in self.skipped}


def name_of(test: Any) -> str:
    return ".".join(getattr(test, "test_case", test).id().split(".")[-2:])


def run() -> dict[str, Any]:
    vars(theirs)["threading"] = SimpleNamespace(**{**vars(threading), "Barrier": ImpatientBarrier})
    told = Told()
    for case in (TestLRU, TestCache):
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(told)
    others = told.others()
    return {
        "twin": TWIN,
        "classes": classes(),
        "ran": told.ran,
        "passed": [name for name in told.ran if name not in others],
        "others": others,
    }


if __name__ == "__main__":
    print(json.dumps(run()))
