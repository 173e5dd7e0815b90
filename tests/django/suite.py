"""Runs those of Django's own tests that use a cache on our backend, as a program of its own.

    python suite.py TESTS_OF_DJANGO both|l2|l1 [URL]

The last line of the output is JSON: how many passed, and the ids of the others. Tests of the classes in `OF_OTHERS` are
about another backend and are not run; wherever else Django's tests set up the cache in local memory, or derive one from
it, they get ours.
"""

import json
import sys
import unittest
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from django.conf import settings

OURS = "cachekit.integrations.django.CacheKitCache"
REGIONS = ("default", "fragments", "other", "session", "unique-snowflake")  # what Django's tests call LOCATION
MODULES = (
    "cache.tests", "cache.tests_async", "sessions_tests.tests", "middleware.tests", "csrf_tests.tests",
    "decorators.test_cache", "deprecation.test_middleware_mixin", "template_tests.syntax_tests.test_cache",
    "template_tests.test_response", "responses.tests", "async.tests",
)  # fmt: skip
OF_OTHERS = {
    "AsyncDummyCacheTests", "CreateCacheTableForDBCacheTests", "DBCacheTests", "DBCacheWithTimeZoneTests",
    "DummyCacheTests", "FileBasedCachePathLibTests", "FileBasedCacheTests", "LocMemCacheTests", "PyLibMCCacheTests",
    "PyMemcacheCacheTests", "RedisCacheTests",
    "CookieSessionTests", "DatabaseSessionTests", "DatabaseSessionWithTimeZoneTests", "CustomDatabaseSessionTests",
    "FileSessionTests", "FileSessionPathLibTests",
}  # fmt: skip


def configure(tests: str, tiers: str, url: str = "") -> None:
    profile = {"l1": {"mode": "off" if tiers == "l2" else "on"}, "jitter": 0}
    settings.configure(
        ALLOWED_HOSTS=["testserver"],
        CACHES={"default": {"BACKEND": OURS}},
        CACHEKIT={
            "namespace": f"suite-{tiers}",
            "backends": {"default": {"url": url, "budget": "5s", "adaptive": False}} if url else {},
            "profiles": {**{name: {} for name in REGIONS}, "default": profile},
        },
        DATABASES={
            name: {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"} for name in ("default", "other")
        },
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        INSTALLED_APPS=[
            "django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sites", "django.contrib.sessions",
            "django.contrib.messages", "django.contrib.flatpages", "django.contrib.redirects",
            "cachekit.integrations.django", "cache", "sessions_tests", "middleware", "csrf_tests", "template_tests",
            "async",
        ],
        LANGUAGE_CODE="en",
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        ROOT_URLCONF="urls",
        SECRET_KEY="not secret",
        TEMPLATES=[{
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "DIRS": [f"{tests}/templates"],
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ],
            },
        }],
        USE_TZ=False,
    )  # fmt: skip


def modules() -> Iterator[Any]:
    """Django's tests, with ours in place of local memory, and with its tests for all backends on ours."""
    from django.core.cache.backends import locmem
    from django.test import TestCase, override_settings

    from cachekit import UnsupportedOperation
    from cachekit.integrations.django import CacheKitCache

    locmem.LocMemCache = CacheKitCache
    loaded = [import_module(name) for name in MODULES]
    of_all = loaded[0]

    @override_settings(CACHES=of_all.caches_setting_for_tests(BACKEND=OURS, exclude={"cull", "zero_cull"}))
    class CacheKitTests(of_all.BaseCacheTests, TestCase):
        incr_decr_type_error = UnsupportedOperation

    of_all.CacheKitTests = CacheKitTests
    yield from loaded


def cases(module: Any) -> Iterator[unittest.TestSuite]:
    """The test classes of a module."""
    for name, case in sorted(vars(module).items()):
        if isinstance(case, type) and issubclass(case, unittest.TestCase) and name not in OF_OTHERS:
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
    tests = unittest.TestSuite(suite for module in modules() for suite in cases(module))
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
