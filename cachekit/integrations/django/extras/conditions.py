"""``set(nx=True)`` and ``set(xx=True)``: storing only if there is no value, or only if there is one."""

from typing import Any, Final

from cachekit.engine import writes
from cachekit.engine.invalidation import invalidate_keys
from cachekit.engine.miss import MISS
from cachekit.engine.ports import Port
from cachekit.integrations.django.extras.commands import Commands
from cachekit.integrations.django.extras.twins import both
from cachekit.regions import left_of

OVER: Final[Any] = object()  # a timeout of 0 or less: not stored, or deleted


class Conditions(Commands):
    """What `set` does with arguments that Django's has not."""

    @both
    async def set_if(
        self, port: Port, key: Any, value: Any, ttl: Any, version: Any, client: Any, nx: bool, xx: bool
    ) -> bool:
        """Store for ``ttl`` seconds; whether it was stored. Raises ValueError for both conditions at once."""
        if nx and xx:
            raise ValueError("set() takes nx or xx, not both: together they never store")
        call = self._call(key, version, client, ttl=None if ttl is OVER else ttl)
        if ttl is not OVER:
            stored = await writes.put(call, value, port, only_if_absent=nx, only_if_present=xx)
            return stored or not (nx or xx)
        there = await left_of(call, port) is not MISS
        if nx:
            return not there  # as django-redis: an end in the past removes nothing that may not be replaced
        await invalidate_keys(call.tiers, [call], port)
        return there
