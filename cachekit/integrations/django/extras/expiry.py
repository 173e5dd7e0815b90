"""The methods of django-redis about the time that an entry still has. They work without a server too."""

import math
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from cachekit.config.units import LONGEST
from cachekit.engine import writes
from cachekit.engine.invalidation import invalidate_keys
from cachekit.engine.miss import MISS
from cachekit.engine.ports import Port
from cachekit.engine.tiers import Call
from cachekit.integrations.django.extras.commands import Commands
from cachekit.integrations.django.extras.twins import both
from cachekit.l2.remote import Unavailable
from cachekit.regions import left_of

FOR_EVER: Final = None


class Expiry(Commands):
    """Of values, and of sets, hashes and sorted sets. What is set here has no jitter."""

    default_timeout: Any

    @both
    async def ttl(self, port: Port, key: Any, version: Any = None, client: Any = None) -> int | None:
        """Whole seconds that an entry still has, None for ever, 0 when there is none."""
        left = await self._left(port, self._call(key, version, client))
        return FOR_EVER if left is None else math.floor(left + 0.5)

    @both
    async def pttl(self, port: Port, key: Any, version: Any = None, client: Any = None) -> int | None:
        """As `ttl`, in milliseconds."""
        left = await self._left(port, self._call(key, version, client))
        return FOR_EVER if left is None else math.ceil(left * 1000)

    @both
    async def persist(self, port: Port, key: Any, version: Any = None, client: Any = None) -> bool:
        """Keep an entry for ever; False when there is none, or it had no end."""
        call = self._call(key, version, client)
        return bool(await self._left(port, call)) and await self._ends_in(port, call, FOR_EVER)

    @both
    async def expire(self, port: Port, key: Any, timeout: Any, version: Any = None, client: Any = None) -> bool:
        """Let an entry end in ``timeout`` seconds (a number or timedelta), None: never; False when there is none."""
        seconds = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        return await self._ends_in(port, self._call(key, version, client), _seconds(seconds, 1))

    @both
    async def pexpire(self, port: Port, key: Any, timeout: Any, version: Any = None, client: Any = None) -> bool:
        """As `expire`, in milliseconds."""
        seconds = timeout
        if timeout is DEFAULT_TIMEOUT:  # of which Django says that it is in seconds
            seconds = None if self.default_timeout is None else self.default_timeout * 1000
        return await self._ends_in(port, self._call(key, version, client), _seconds(seconds, 1000))

    @both
    async def expire_at(self, port: Port, key: Any, when: Any, version: Any = None, client: Any = None) -> bool:
        """Let an entry end at an instant: a datetime, or the seconds of Unix time."""
        at = when.timestamp() if isinstance(when, datetime) else when
        return await self._ends_in(port, self._call(key, version, client), at - port.wall())

    @both
    async def pexpire_at(self, port: Port, key: Any, when: Any, version: Any = None, client: Any = None) -> bool:
        """As `expire_at`, a number being milliseconds."""
        at = when.timestamp() if isinstance(when, datetime) else when / 1000
        return await self._ends_in(port, self._call(key, version, client), at - port.wall())

    async def _left(self, port: Port, call: Call) -> float | None:
        """Seconds, 0 when there is nothing."""
        left = await left_of(call, port)
        return 0 if left is MISS else left

    async def _ends_in(self, port: Port, call: Call, seconds: float | None) -> bool:
        if seconds is not None and seconds <= 0:
            return await self._ends_now(port, call)
        if seconds is not None and seconds > LONGEST:
            seconds = FOR_EVER
        if not await self._is_structure(port, call):
            call.ttl = seconds
            return await writes.touch(call, port, exact=True)
        if seconds is not None:
            return bool(await self._alter(port, [call], "PEXPIRE", int(seconds * 1000), read=int, otherwise=0))
        await self._alter(port, [call], "PERSIST", read=int, otherwise=0)
        return True

    async def _ends_now(self, port: Port, call: Call) -> bool:
        there = await self._left(port, call) != 0
        await invalidate_keys(call.tiers, [call], port)
        return there

    async def _is_structure(self, port: Port, call: Call) -> bool:
        """Whether a set, a hash or the like lies there. Without a server there are none."""
        remote = call.tiers.remote
        if remote is None or not remote.offers("query") or call.tiers.locks is not None or call.off:
            return False
        try:
            kind = await remote.do(port, "query", "TYPE", [call.key], ())
        except Unavailable:
            return False
        return kind not in (b"string", b"none", "string", "none")


def _seconds(timeout: Any, per_second: int) -> float | None:
    if isinstance(timeout, timedelta):
        return timeout.total_seconds()
    return None if timeout is None else float(timeout) / per_second
