"""CPython's own tests of `functools.lru_cache` and `functools.cache`, run on ours (see lru_suite.py)."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from l1_rig import TWINS


class Exclusion(NamedTuple):
    """Why a test does not apply, words of its failure, so that it stands for no other, and the twins that fail it."""

    reason: str
    words: str
    twins: tuple[str, ...] = ("pure", "native")


EXCLUDED = {
    "TestLRU.test_common_signatures": Exclusion(
        "the signatures of the attributes say what they return", "'() -> cachekit.function.CacheInfo' != '()'"
    ),
    "TestLRU.test_kwargs_order": Exclusion(
        "f(a=1, b=2) and f(b=2, a=1) are one call, also of a function with **kwargs",
        "Lists differ: [('a', 1), ('b', 2)] != [('b', 2), ('a', 1)]",
    ),
    "TestLRU.test_lru_cache_parameters": Exclusion(
        "types always count, so `typed` is never False; there are more settings",
        "'typed': True, 'profile': 'default', 'ttl': None} != {'maxsize': 2, 'typed': False}",
    ),
    "TestLRU.test_lru_cache_threaded2": Exclusion(
        "threads that miss one key at the same time run the function once; here each waits for all to run it",
        "BrokenBarrierError",
    ),
    "TestLRU.test_lru_cache_typed_is_not_recursive": Exclusion(
        "types count inside of tuples, too: (True,) is not (1,)", "'(True,)' != '(1,)'"
    ),
    "TestLRU.test_lru_hash_only_once": Exclusion(
        "a hit hashes an argument once, a miss several times: to find the entry, the load that runs, and a place",
        "self.assertEqual(mock_int.__hash__.call_count, 1)",
    ),
    "TestLRU.test_lru_method": Exclusion(
        "the method counts its runs in `self`, whose attributes are part of its value, and so of the key",
        "(10, 0, 0) != (6, 0, 0)",
    ),
    "TestLRU.test_lru_recursion": Exclusion(
        "a miss takes a dozen frames of Python, so a function that calls itself reaches the limit sooner",
        "RecursionError: maximum recursion depth exceeded",
    ),
    "TestLRU.test_lru_reentrancy_with_len": Exclusion(
        "replaces the built-in len, which our Python code calls, by a cached one", "RecursionError"
    ),
    "TestLRU.test_lru_type_error": Exclusion(
        "lists and other values that cannot be hashed are arguments like others", "TypeError not raised"
    ),
    "TestLRU.test_lru_with_types": Exclusion("f(3) and f(x=3) are one call", "6 != 4"),
}


class Counts(NamedTuple):
    ran: int
    passed: int
    excluded: int
    failed: int


# Of CPython 3.11.7, 3.12.1 and 3.13.0. A later release may bring a test more.
COUNTS = {
    (3, 11): {
        "pure": Counts(ran=28, passed=19, excluded=9, failed=0),
        "native": Counts(ran=28, passed=19, excluded=9, failed=0),
    },
    (3, 12): {
        "pure": Counts(ran=29, passed=19, excluded=10, failed=0),
        "native": Counts(ran=29, passed=19, excluded=10, failed=0),
    },
    (3, 13): {
        "pure": Counts(ran=30, passed=19, excluded=11, failed=0),
        "native": Counts(ran=30, passed=19, excluded=11, failed=0),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("twin", TWINS)
def test_pythons_own_tests_of_lru_cache(twin: str, tmp_path: Path) -> None:
    """Exactly those pass that are not in the table above; those in it fail, in the words that it says."""
    assert importlib.util.find_spec("test"), "this Python came without its tests; Debian has libpython3-testsuite"
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("lru_suite.py"))], cwd=tmp_path, text=True, capture_output=True,
        env={**os.environ, "CACHEKIT_PURE": str(+(twin == "pure")), "CACHEKIT_NATIVE": str(+(twin == "native"))},
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-20_000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["twin"] == twin
    assert told["classes"] == ["TestCache", "TestLRU"]  # others are new: run them, too
    expected = {name: EXCLUDED[name].words for name in told["ran"] if name in EXCLUDED and twin in EXCLUDED[name].twins}
    excluded = {name for name, words in expected.items() if words in told["others"].get(name, "")}
    failed = {name: how for name, how in told["others"].items() if name not in excluded}
    assert excluded == expected.keys(), failed
    counts = Counts(len(told["ran"]), len(told["passed"]), len(excluded), len(failed))
    assert counts == COUNTS[sys.version_info[:2]][twin], failed
