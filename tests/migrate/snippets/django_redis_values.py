"""Values of a project: times, counters, several at once."""

import os

import django
from django.conf import settings

settings.configure(
    CACHES={
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": os.environ["REDIS_URL"],
            "OPTIONS": {
                "CLIENT_CLASS": "django_redis.client.DefaultClient",
            },
        }
    }
)
django.setup()

from django.core.cache import cache  # noqa: E402

cache.set("point", {"at": (1, 2), "names": {"a", "b"}}, timeout=25)
print(cache.get("point")["at"], sorted(cache.get("point")["names"]), cache.get("nothing", "default"))
print(cache.add("point", 1), cache.add("new", None, timeout=None), cache.get("new", "default"))
cache.set("visits", 10)
print(cache.incr("visits"), cache.incr("visits", 5), cache.decr("visits"))
cache.set_many({"a": 1, "b": [2]}, timeout=60)
print(sorted(cache.get_many(["a", "b", "c"]).items()), cache.delete("a"), cache.delete("a"), "b" in cache)
cache.set("gone", 1, timeout=0)
print(cache.get("gone"), cache.get_or_set("made", lambda: 7), cache.get_or_set("made", 8))
cache.clear()
print(cache.get("b"), cache.get("made"))
