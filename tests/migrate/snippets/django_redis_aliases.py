"""Two aliases with versions and prefixes, and a constant for the time."""

import os

import django
from django.conf import settings

HOUR = 60 * 60
settings.configure(
    CACHES={
        "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": os.environ["REDIS_URL"], "TIMEOUT": HOUR},
        "other": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": os.environ["REDIS_URL"],
            "KEY_PREFIX": "other",
            "VERSION": 2,
            "OPTIONS": {"CLIENT_CLASS": "django_redis.client.DefaultClient", "IGNORE_EXCEPTIONS": True},
        },
    },
)
django.setup()

from django.core.cache import cache, caches  # noqa: E402

cache.set("k", "default")
caches["other"].set("k", "other")
print(cache.get("k"), caches["other"].get("k"), caches["other"].get("k", version=1))
cache.set("k", "second", version=2)
print(cache.get("k"), cache.get("k", version=2), cache.incr_version("k", version=2), cache.get("k", version=3))
print(cache.touch("k", 10), cache.touch("nothing", 10), cache.has_key("k"))
