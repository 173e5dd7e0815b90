"""Runs the cache and session tests of Django's own test-suite on our backend, as a program of its own.

    python suite.py TESTS_OF_DJANGO URL on|off

The last argument is ``l1.mode``. The last line of the output is JSON: how many passed, and the ids of the others.
Tests of the classes in `OF_OTHERS` are about another backend and are not run; wherever else Django's tests set up the
cache in local memory, they get ours.
"""

import json
import sys
import unittest
from collections.abc import Iterator
from typing import Any

from django.conf import settings

OURS = "cachekit.integrations.django.CacheKitCache"
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
REGIONS = ("other", "unique-snowflake")  # what Django's tests call LOCATION
OF_OTHERS = {
    "AsyncDummyCacheTests", "CreateCacheTableForDBCacheTests", "DBCacheTests", "DBCacheWithTimeZoneTests",
    "DummyCacheTests", "FileBasedCachePathLibTests", "FileBasedCacheTests", "LocMemCacheTests", "PyLibMCCacheTests",
    "PyMemcacheCacheTests", "RedisCacheTests",
    "CookieSessionTests", "DatabaseSessionTests", "DatabaseSessionWithTimeZoneTests", "CustomDatabaseSessionTests",
    "FileSessionTests", "FileSessionPathLibTests",
}  # fmt: skip


def configure(tests: str, url: str, l1: str) -> None:
    settings.configure(
        ALLOWED_HOSTS=["testserver"],
        CACHES={"default": {"BACKEND": OURS}},
        CACHEKIT={
            "namespace": f"suite-{l1}",
            "backends": {"default": {"url": url, "budget": "5s"}},
            "profiles": {"default": {"l1": {"mode": l1}, "jitter": 0}, **{name: {} for name in REGIONS}},
        },
        DATABASES={
            name: {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"} for name in ("default", "other")
        },
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        INSTALLED_APPS=[
            "django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sites", "django.contrib.sessions",
            "django.contrib.messages", "cachekit.integrations.django", "cache", "sessions_tests",
        ],
        LANGUAGE_CODE="en",
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        ROOT_URLCONF="django.contrib.auth.urls",
        SECRET_KEY="not secret",
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [f"{tests}/templates"]}],
        USE_TZ=False,
    )  # fmt: skip


def modules() -> Iterator[Any]:
    import cache.tests
    import cache.tests_async
    import sessions_tests.tests
    from django.test import TestCase, override_settings

    from cachekit import UnsupportedOperation

    @override_settings(CACHES=cache.tests.caches_setting_for_tests(BACKEND=OURS, exclude={"cull", "zero_cull"}))
    class CacheKitTests(cache.tests.BaseCacheTests, TestCase):
        incr_decr_type_error = UnsupportedOperation

    cache.tests.CacheKitTests = CacheKitTests
    yield from (cache.tests, cache.tests_async, sessions_tests.tests)


def on_ours(module: Any) -> Iterator[unittest.TestSuite]:
    """The test classes of a module, moved from local memory to our backend."""
    for name, case in sorted(vars(module).items()):
        if not isinstance(case, type) or not issubclass(case, unittest.TestCase) or name in OF_OTHERS:
            continue
        for config in (getattr(case, "_overridden_settings", None) or {}).get("CACHES", {}).values():
            if config["BACKEND"] == LOCMEM:
                config["BACKEND"] = OURS
        yield unittest.defaultTestLoader.loadTestsFromTestCase(case)


class Counting(unittest.TextTestResult):
    """Keeps the ids of those that passed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.passed: list[str] = []

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self.passed.append(test.id())


def run() -> dict[str, Any]:
    from django.test.runner import DiscoverRunner

    runner = DiscoverRunner(verbosity=0, interactive=False)
    runner.setup_test_environment()
    databases = runner.setup_databases()
    loaded = list(modules())
    for setting in ("DEFAULT_MEMORY_CACHES_SETTINGS", "NEVER_EXPIRING_CACHES_SETTINGS"):
        vars(loaded[0])[setting]["default"]["BACKEND"] = OURS
    tests = unittest.TestSuite(suite for module in loaded for suite in on_ours(module))
    result: Any = unittest.TextTestRunner(resultclass=Counting, verbosity=0).run(tests)
    runner.teardown_databases(databases)
    # A failed subtest stands for its test.
    failed = {getattr(test, "test_case", test).id() for test, _ in (*result.failures, *result.errors)}
    return {
        "passed": len(set(result.passed) - failed),
        "failed": sorted(failed),
        "skipped": sorted(test.id() for test, _ in result.skipped),
    }


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    configure(*sys.argv[1:])
    import django

    django.setup()
    print(json.dumps(run()))
