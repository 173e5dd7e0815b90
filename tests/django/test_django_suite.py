"""Those of Django's own tests that use a cache, run on our backend in each configuration (see suite.py)."""

import json
import subprocess
import sys
from pathlib import Path

import django
import pytest

from cachekit.testing.servers import Server

TESTS = {(5, 2): 654, (6, 1): 686}

NOTHING_RAISED = "what cannot be stored is returned and counted; an exception is for those who ask: on_unstorable"
ONLY_LOCMEM = "looks into the attributes of the cache in local memory"
NO_CULLING = "skips itself where no cache throws out a share of its entries, as Redis, memcached and we do not"
NOT_SHARED = "functions and classes are not stored in L2 without pickle, and here is no L1"

EXCLUDED = {
    "CacheKitTests.test_add_fail_on_pickleerror": NOTHING_RAISED,
    "CacheKitTests.test_set_fail_on_pickleerror": NOTHING_RAISED,
    "DefaultNonExpiringCacheKeyTests.test_caches_set_with_timeout_as_none_set_non_expiring_key": ONLY_LOCMEM,
    "DefaultNonExpiringCacheKeyTests.test_caches_with_unset_timeout_set_expiring_key": ONLY_LOCMEM,
    "CacheKitTests.test_cull": NO_CULLING,
    "CacheKitTests.test_cull_delete_when_store_empty": NO_CULLING,
    "CacheKitTests.test_zero_cull": NO_CULLING,
}
EXCLUDED_WITHOUT_L1 = {
    "CacheKitTests.test_data_types": NOT_SHARED,
}


@pytest.mark.slow
@pytest.mark.parametrize("tiers", ["both", *[pytest.param(each, marks=pytest.mark.nightly) for each in ("l2", "l1")]])
def test_djangos_own_tests(tiers: str, tests_of_django: Path, cachekit_server: Server) -> None:
    """Exactly those pass that are not in the tables above."""
    program = Path(__file__).with_name("suite.py")
    url = [] if tiers == "l1" else [cachekit_server.url]
    done = subprocess.run(
        [sys.executable, str(program), str(tests_of_django), tiers, *url],
        text=True, capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    expected = {**EXCLUDED, **(EXCLUDED_WITHOUT_L1 if tiers == "l2" else {})}
    others = {".".join(name.split(".")[-2:]) for name in (*result["failed"], *result["skipped"])}
    assert others == expected.keys(), done.stderr[-20_000:]
    assert result["passed"] == TESTS[django.VERSION[:2]] - len(expected)
