"""The set methods of django-redis."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from cachekit.engine.ports import Port, drive
from cachekit.engine.tiers import Call
from cachekit.integrations.django.extras.commands import AT_ONCE, Commands, text, texts
from cachekit.integrations.django.extras.twins import both


class Sets(Commands):
    """Members may be whatever a value may be, but for sets inside; an empty set does not exist."""

    @both
    async def sadd(self, port: Port, key: Any, *values: Any, version: Any = None, client: Any = None) -> int:
        """Add members; how many were not there."""
        members = [self._member(value) for value in values]
        return await self._in_parts(port, self._call(key, version, client), "SADD", members)

    @both
    async def srem(self, port: Port, key: Any, *members: Any, version: Any = None, client: Any = None) -> int:
        """Remove members; how many were there."""
        gone = [self._member(member) for member in members]
        return await self._in_parts(port, self._call(key, version, client), "SREM", gone)

    @both
    async def scard(self, port: Port, key: Any, version: Any = None, client: Any = None) -> int:
        """How many members there are."""
        return await self._query(port, [self._call(key, version, client)], "SCARD", read=int, otherwise=0)

    @both
    async def smembers(self, port: Port, key: Any, version: Any = None, client: Any = None) -> set[Any]:
        """All members."""
        return await self._combined(port, "SMEMBERS", (key,), version, client)

    @both
    async def sismember(self, port: Port, key: Any, member: Any, version: Any = None, client: Any = None) -> bool:
        """Whether this is a member."""
        call, data = self._call(key, version, client), self._member(member)
        return bool(await self._query(port, [call], "SISMEMBER", data, read=int, otherwise=0))

    @both
    async def smismember(
        self, port: Port, key: Any, *members: Any, version: Any = None, client: Any = None
    ) -> list[bool]:
        """For each of these whether it is a member."""
        call, data = self._call(key, version, client), [self._member(member) for member in members]
        found: list[bool] = []
        for at in range(0, len(data), AT_ONCE):
            part = data[at : at + AT_ONCE]
            none = [False] * len(part)
            found += await self._query(port, [call], "SMISMEMBER", *part, read=_truths, otherwise=none)
        return found

    @both
    async def smove(
        self, port: Port, source: Any, destination: Any, member: Any, version: Any = None, client: Any = None
    ) -> bool:
        """Move a member from one set to another; False when it was not there.

        As in django-redis ``version`` is that of the source; the destination has the alias's.
        """
        calls = [self._call(source, version, client), self._call(destination, None, client)]
        return bool(await self._alter(port, calls, "SMOVE", self._member(member), read=int, otherwise=0))

    @both
    async def spop(
        self, port: Port, key: Any, count: int | None = None, version: Any = None, client: Any = None
    ) -> Any:
        """Remove a random member and return it, or None; with ``count`` a set of at most so many."""
        call = self._call(key, version, client)
        if count is None:
            return self._one(await self._alter(port, [call], "SPOP", read=text, otherwise=None))
        return set(self._values(await self._alter(port, [call], "SPOP", count, read=texts, otherwise=[])))

    @both
    async def srandmember(
        self, port: Port, key: Any, count: int | None = None, version: Any = None, client: Any = None
    ) -> Any:
        """A random member, or None; with ``count`` a list, below 0 of members that may come twice."""
        call = self._call(key, version, client)
        if count is None:
            return self._one(await self._query(port, [call], "SRANDMEMBER", read=text, otherwise=None))
        return self._values(await self._query(port, [call], "SRANDMEMBER", count, read=texts, otherwise=[]))

    @both
    async def sdiff(self, port: Port, *keys: Any, version: Any = None, client: Any = None) -> set[Any]:
        """The members of the first set that no other has."""
        return await self._combined(port, "SDIFF", keys, version, client)

    @both
    async def sinter(self, port: Port, *keys: Any, version: Any = None, client: Any = None) -> set[Any]:
        """The members that all have."""
        return await self._combined(port, "SINTER", keys, version, client)

    @both
    async def sunion(self, port: Port, *keys: Any, version: Any = None, client: Any = None) -> set[Any]:
        """The members of all."""
        return await self._combined(port, "SUNION", keys, version, client)

    @both
    async def sdiffstore(
        self, port: Port, dest: Any, *keys: Any, version_dest: Any = None, version_keys: Any = None, client: Any = None
    ) -> int:
        """As `sdiff`, stored in another set; how many members that has."""
        calls = [self._call(dest, version_dest, client), *(self._call(key, version_keys, client) for key in keys)]
        return await self._alter(port, calls, "SDIFFSTORE", read=int, otherwise=0)

    @both
    async def sinterstore(self, port: Port, dest: Any, *keys: Any, version: Any = None, client: Any = None) -> int:
        """As `sinter`, stored in another set; how many members that has."""
        calls = [self._call(key, version, client) for key in (dest, *keys)]
        return await self._alter(port, calls, "SINTERSTORE", read=int, otherwise=0)

    @both
    async def sunionstore(
        self, port: Port, destination: Any, *keys: Any, version: Any = None, client: Any = None
    ) -> int:
        """As `sunion`, stored in another set; how many members that has."""
        calls = [self._call(key, version, client) for key in (destination, *keys)]
        return await self._alter(port, calls, "SUNIONSTORE", read=int, otherwise=0)

    @both
    async def sscan(
        self, port: Port, key: Any, match: str | None = None, count: int | None = 10, version: Any = None,
        client: Any = None,
    ) -> set[Any]:  # fmt: skip
        """About ``count`` members; with ``match`` those whose stored form is that of this value."""
        _, found = await self._page_of_set(port, self._call(key, version, client), b"0", match, count)
        return set(found)

    def sscan_iter(
        self, key: Any, match: str | None = None, count: int | None = 10, version: Any = None, client: Any = None
    ) -> Iterator[Any]:
        """All members, asked for ``count`` at a time; one may come twice while others are added."""
        call, cursor = self._call(key, version, client), b"0"
        while True:
            cursor, found = drive(self._page_of_set(self.region.service.sync_port, call, cursor, match, count))
            yield from found
            if cursor == b"0":
                return

    async def asscan_iter(
        self, key: Any, match: str | None = None, count: int | None = 10, version: Any = None, client: Any = None
    ) -> AsyncIterator[Any]:
        """As `sscan_iter`."""
        call, cursor = self._call(key, version, client), b"0"
        while True:
            cursor, found = await self._page_of_set(self.region.service.async_port, call, cursor, match, count)
            for member in found:
                yield member
            if cursor == b"0":
                return

    async def _page_of_set(
        self, port: Port, call: Call, cursor: bytes, match: str | None, count: int | None
    ) -> tuple[bytes, list[Any]]:
        words: list[Any] = [] if match is None else ["MATCH", self._member(match)]
        words += [] if count is None else ["COUNT", count]
        none: tuple[bytes, list[bytes]] = (b"0", [])
        following, found = await self._query(port, [call], "SSCAN", cursor, *words, read=_page, otherwise=none)
        return following, self._values(found)

    async def _combined(self, port: Port, command: str, keys: Any, version: Any, client: Any) -> set[Any]:
        calls = [self._call(key, version, client) for key in keys]
        return set(self._values(await self._query(port, calls, command, read=texts, otherwise=[])))


def _truths(reply: Any) -> list[bool]:
    return [bool(int(each)) for each in reply]


def _page(reply: Any) -> tuple[bytes, list[bytes]]:
    cursor, found = reply
    if type(cursor) is not bytes:
        raise TypeError(cursor)
    return cursor, texts(found)
