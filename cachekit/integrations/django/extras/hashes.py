"""The hash methods of django-redis, and `hget` of django-valkey."""

from collections.abc import Mapping
from typing import Any

from cachekit.engine.ports import Port
from cachekit.integrations.django.extras.commands import Commands, text, texts
from cachekit.integrations.django.extras.twins import both


class Hashes(Commands):
    """Fields are str, values whatever a value may be."""

    @both
    async def hset(
        self, port: Port, key: Any, field: Any = None, value: Any = None, mapping: Mapping[Any, Any] | None = None,
        version: Any = None, client: Any = None,
    ) -> int:  # fmt: skip
        """Set a field, or those of ``mapping``, or both; how many were not there."""
        pairs = [] if field is None else [(field, value)]
        pairs += (mapping or {}).items()
        if not pairs:
            raise ValueError("hset() needs a field with a value, or a mapping")
        words = [word for name, each in pairs for word in (_field(name), self._encoded(each))]
        return await self._in_parts(port, self._call(key, version, client), "HSET", words, 2)

    @both
    async def hget(self, port: Port, key: Any, field: Any, version: Any = None, client: Any = None) -> Any:
        """The value of a field, or None."""
        call = self._call(key, version, client)
        return self._one(await self._query(port, [call], "HGET", _field(field), read=text, otherwise=None))

    @both
    async def hdel(self, port: Port, key: Any, field: Any, version: Any = None, client: Any = None) -> int:
        """Remove a field; 1 if it was there."""
        call = self._call(key, version, client)
        return await self._alter(port, [call], "HDEL", _field(field), read=int, otherwise=0)

    @both
    async def hlen(self, port: Port, key: Any, version: Any = None, client: Any = None) -> int:
        """How many fields there are."""
        return await self._query(port, [self._call(key, version, client)], "HLEN", read=int, otherwise=0)

    @both
    async def hkeys(self, port: Port, key: Any, version: Any = None, client: Any = None) -> list[str]:
        """All fields."""
        call = self._call(key, version, client)
        found: list[bytes] = await self._query(port, [call], "HKEYS", read=texts, otherwise=[])
        return [field.decode(errors="replace") for field in found]

    @both
    async def hexists(self, port: Port, key: Any, field: Any, version: Any = None, client: Any = None) -> bool:
        """Whether there is this field."""
        call = self._call(key, version, client)
        return bool(await self._query(port, [call], "HEXISTS", _field(field), read=int, otherwise=0))


def _field(name: Any) -> Any:
    if isinstance(name, bool) or not isinstance(name, (str, bytes, int, float)):
        raise TypeError(f"the field of a hash is a str or a number, not {type(name).__name__}")
    return name if isinstance(name, bytes) else str(name)
