"""A process with the default cache on a server, for tests of what one process does and another sees."""

import os
from typing import Any

import django
from django.conf import settings


def set_up() -> None:
    place = {"BACKEND": "cachekit.integrations.django.CacheKitCache", "LOCATION": os.environ["SERVER"]}
    patient = {"django.default": {"adaptive": False, "budget": "5s"}}
    settings.configure(CACHES={"default": place}, CACHEKIT={"namespace": os.environ["NAMESPACE"], "backends": patient})
    django.setup()


def call(name: str, *args: Any) -> Any:
    """A method of the cache; sets as sorted lists."""
    from django.core.cache import cache

    answer = getattr(cache, name)(*args)
    return sorted(answer) if isinstance(answer, set) else answer


def encoded() -> list[str]:
    """How members are stored, in a process with a hash seed of its own."""
    from django.core.cache import cache

    members: list[Any] = [1, "a", 1.5, None, True, b"x", (1, ("b", 2.5)), {"b": 1, "a": [2]}]
    return [cache.client.encode(member).hex() for member in members]
