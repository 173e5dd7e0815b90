"""The two faces of the Redis and Valkey backend. `commands` decides what is sent, the transports how it travels."""

import functools
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Literal, TypeVar

from cachekit.backends.base import COMMANDS, LISTEN, OPTIONAL, AsyncBaseBackend, BaseBackend, Leased, Listener
from cachekit.backends.redis import aio, commands, push, rights, sentinel, transport
from cachekit.backends.redis.address import Address, Place, Sentinels
from cachekit.backends.redis.cluster import AsyncRouter, ClusterTopology, Router, Routes, async_at_once, at_once
from cachekit.backends.redis.commands import Command
from cachekit.backends.redis.peers import Peers
from cachekit.backends.redis.rights import Rights
from cachekit.backends.redis.sentinel import Finder, SentinelTopology
from cachekit.backends.redis.topology import Single, Topology
from cachekit.errors import BackendError

T = TypeVar("T")


class Moves:
    """What both faces share: the servers that their connections lead to."""

    def __init__(self, address: Place, peers: Peers) -> None:
        self.address = address
        self.peers = peers

    @property
    def on_move(self) -> Callable[[], object] | None:
        return self.peers.on_move

    @on_move.setter
    def on_move(self, told: Callable[[], object] | None) -> None:
        self.peers.on_move = told


class RedisBackend(Moves, BaseBackend):
    """With plain methods. Opens its first connection when it is first used, and again after `close`."""

    capabilities = OPTIONAL | COMMANDS | {LISTEN}

    def __init__(self, address: Address | Sentinels, max_connections: int, peers: Peers) -> None:
        super().__init__(address, peers)
        peer = peers.node()
        if isinstance(address, Sentinels):
            finder = Finder(address)
            opener = functools.partial(sentinel.open_wire, finder, peer)
            self._topology: Topology = SentinelTopology(finder)
        else:
            opener = functools.partial(transport.open_wire, address, peer)
            self._topology = Single(address)
        self._pools = transport.Pools(max_connections, opener, peer)

    def _run(self, command: Command[T], budget: float) -> T:
        if command.empty:
            return command.read([])
        return transport.run(self._pools.here(), command, monotonic() + budget)

    def _until(self, command: Command[T], deadline: float) -> T:
        """As `_run`, in a step of several."""
        return transport.run(self._pools.here(), command, deadline)

    def _in_turn(self, batches: Sequence[Command[bool]], budget: float) -> None:
        deadline = monotonic() + budget
        for command in batches:
            self._until(command, deadline)

    def get(self, key: str, *, budget: float) -> bytes | None:
        return self._until(commands.get(key), monotonic() + budget)

    def get_many(self, keys: Sequence[str], *, budget: float) -> list[bytes | None]:
        return self._run(commands.get_many(keys), budget)

    def store(self, key: str, data: bytes, ttl_ms: int | None, token: bytes | None, *, budget: float) -> bool:
        return self._run(commands.store(key, data, ttl_ms, token), budget)

    def get_or_lease(self, key: str, token: bytes, lease_ms: int, *, budget: float) -> Leased:
        return self._run(commands.get_or_lease(key, token, lease_ms), budget)

    def lease(self, key: str, token: bytes, lease_ms: int, seen: bytes | None, steal: bool, *, budget: float) -> Leased:
        return self._run(commands.lease(key, token, lease_ms, seen, steal), budget)

    def release(self, key: str, token: bytes, *, budget: float) -> None:
        self._run(commands.release(key, token), budget)

    def renew(self, key: str, token: bytes, lease_ms: int, *, budget: float) -> bool:
        return self._run(commands.renew(key, token, lease_ms), budget)

    def stamps(self, names: Sequence[str], fresh: Sequence[bytes], ttl_ms: int, *, budget: float) -> list[bytes]:
        return self._run(commands.stamps(names, fresh, ttl_ms), budget)

    def keep(self, names: Sequence[str], *, budget: float) -> None:
        self._run(commands.keep(names), budget)

    def clear(self, names: Sequence[str], *, budget: float) -> None:
        self._run(commands.clear(names), budget)

    def store_if(
        self, key: str, data: bytes, ttl_ms: int | None, seen: bytes | None, absent: bool, *, budget: float
    ) -> bool:
        return self._run(commands.store_if(key, data, ttl_ms, seen, absent), budget)

    def incr(
        self, key: str, by: int, ttl_ms: int | None, mark: bytes = b"", create: bool = True, *, budget: float
    ) -> int | None:
        return self._run(commands.incr(key, by, ttl_ms, mark, create), budget)

    def touch(self, key: str, ttl_ms: int | None, *, budget: float) -> bool:
        return self._run(commands.touch(key, ttl_ms), budget)

    def remaining(self, key: str, *, budget: float) -> int | Literal[False] | None:
        return self._run(commands.remaining(key), budget)

    def scan(self, prefix: str, cursor: str, count: int, *, budget: float) -> tuple[str, list[tuple[str, bytes]]]:
        deadline = monotonic() + budget
        cursor, names = self._until(commands.scan(prefix, cursor, count), deadline)
        if not names:
            return cursor, []
        asked = commands.heads(names)
        answers = transport.run(self._pools.here(), asked[0], deadline, functools.partial(at_once, asked))
        return cursor, commands.with_heads(names, answers)

    def reclaim(self, key: str, seen: bytes, *, budget: float) -> bool:
        return self._run(commands.reclaim(key, seen), budget)

    def query(self, command: str, keys: Sequence[str], words: Sequence[Any], *, budget: float) -> Any:
        return self._run(commands.query(command, keys, words), budget)

    def alter(self, command: str, keys: Sequence[str], words: Sequence[Any], *, budget: float) -> Any:
        return self._run(commands.alter(command, keys, words), budget)

    def invalidate(self, keys: Sequence[str], *, budget: float) -> None:
        self._in_turn(commands.invalidate(keys), budget)

    def expire_soft(self, keys: Sequence[str], *, budget: float) -> None:
        self._in_turn(commands.expire_soft(keys), budget)

    def check(self, *, budget: float) -> dict[str, str]:
        try:
            found = self._run(commands.INFO, budget)
        except BackendError as error:
            if error.reason != "noperm":
                raise
            found = {}
        return commands.facts(found, self.address)

    def listen(
        self, prefixes: Sequence[str], *, heartbeat: float, clock: Callable[[], float], budget: float
    ) -> Listener:
        return push.listen(
            self._topology, prefixes, heartbeat=heartbeat, clock=clock, deadline=monotonic() + budget,
            peers=self.peers, node=self._node_of,
        )  # fmt: skip

    def _node_of(self, address: Address) -> str:
        """The name of a primary in `peers`."""
        return ""

    def rights(self, keys: Sequence[str], *, budget: float) -> Rights:
        """What the server's user may do with these keys, asked without side effects; for `cachekit doctor`."""
        asking, deadline = rights.questions(keys), monotonic() + budget
        step: Callable[[], Command[Any]] = functools.partial(next, asking)
        while True:
            try:
                command = step()
            except StopIteration as done:
                found: Rights = done.value
                return found
            try:
                step = functools.partial(asking.send, self._until(command, deadline))
            except BackendError as error:
                step = functools.partial(asking.throw, error)

    def close(self) -> None:
        self._pools.close()


class AsyncRedisBackend(Moves, AsyncBaseBackend):
    """With coroutines, in any number of loops. Opens a loop's first connection when it is first used there."""

    capabilities = OPTIONAL | COMMANDS

    def __init__(self, address: Address | Sentinels, max_connections: int, peers: Peers) -> None:
        super().__init__(address, peers)
        peer = peers.node()
        if isinstance(address, Sentinels):
            opener = functools.partial(sentinel.async_open_wire, Finder(address), peer)
        else:
            opener = functools.partial(aio.open_wire, address, peer)
        self._pools = aio.AsyncPools(max_connections, opener, peer)

    async def _run(self, command: Command[T], budget: float) -> T:
        if command.empty:
            return command.read([])
        return await aio.run(self._pools.here(), command, monotonic() + budget)

    async def _until(self, command: Command[T], deadline: float) -> T:
        return await aio.run(self._pools.here(), command, deadline)

    async def _in_turn(self, batches: Sequence[Command[bool]], budget: float) -> None:
        deadline = monotonic() + budget
        for command in batches:
            await self._until(command, deadline)

    async def get(self, key: str, *, budget: float) -> bytes | None:
        return await self._until(commands.get(key), monotonic() + budget)

    async def get_many(self, keys: Sequence[str], *, budget: float) -> list[bytes | None]:
        return await self._run(commands.get_many(keys), budget)

    async def store(self, key: str, data: bytes, ttl_ms: int | None, token: bytes | None, *, budget: float) -> bool:
        return await self._run(commands.store(key, data, ttl_ms, token), budget)

    async def get_or_lease(self, key: str, token: bytes, lease_ms: int, *, budget: float) -> Leased:
        return await self._run(commands.get_or_lease(key, token, lease_ms), budget)

    async def lease(
        self, key: str, token: bytes, lease_ms: int, seen: bytes | None, steal: bool, *, budget: float
    ) -> Leased:
        return await self._run(commands.lease(key, token, lease_ms, seen, steal), budget)

    async def release(self, key: str, token: bytes, *, budget: float) -> None:
        await self._run(commands.release(key, token), budget)

    async def renew(self, key: str, token: bytes, lease_ms: int, *, budget: float) -> bool:
        return await self._run(commands.renew(key, token, lease_ms), budget)

    async def stamps(self, names: Sequence[str], fresh: Sequence[bytes], ttl_ms: int, *, budget: float) -> list[bytes]:
        return await self._run(commands.stamps(names, fresh, ttl_ms), budget)

    async def keep(self, names: Sequence[str], *, budget: float) -> None:
        await self._run(commands.keep(names), budget)

    async def clear(self, names: Sequence[str], *, budget: float) -> None:
        await self._run(commands.clear(names), budget)

    async def store_if(
        self, key: str, data: bytes, ttl_ms: int | None, seen: bytes | None, absent: bool, *, budget: float
    ) -> bool:
        return await self._run(commands.store_if(key, data, ttl_ms, seen, absent), budget)

    async def incr(
        self, key: str, by: int, ttl_ms: int | None, mark: bytes = b"", create: bool = True, *, budget: float
    ) -> int | None:
        return await self._run(commands.incr(key, by, ttl_ms, mark, create), budget)

    async def touch(self, key: str, ttl_ms: int | None, *, budget: float) -> bool:
        return await self._run(commands.touch(key, ttl_ms), budget)

    async def remaining(self, key: str, *, budget: float) -> int | Literal[False] | None:
        return await self._run(commands.remaining(key), budget)

    async def scan(self, prefix: str, cursor: str, count: int, *, budget: float) -> tuple[str, list[tuple[str, bytes]]]:
        deadline = monotonic() + budget
        cursor, names = await self._until(commands.scan(prefix, cursor, count), deadline)
        if not names:
            return cursor, []
        asked = commands.heads(names)
        answers = await aio.run(self._pools.here(), asked[0], deadline, functools.partial(async_at_once, asked))
        return cursor, commands.with_heads(names, answers)

    async def reclaim(self, key: str, seen: bytes, *, budget: float) -> bool:
        return await self._run(commands.reclaim(key, seen), budget)

    async def query(self, command: str, keys: Sequence[str], words: Sequence[Any], *, budget: float) -> Any:
        return await self._run(commands.query(command, keys, words), budget)

    async def alter(self, command: str, keys: Sequence[str], words: Sequence[Any], *, budget: float) -> Any:
        return await self._run(commands.alter(command, keys, words), budget)

    async def invalidate(self, keys: Sequence[str], *, budget: float) -> None:
        await self._in_turn(commands.invalidate(keys), budget)

    async def expire_soft(self, keys: Sequence[str], *, budget: float) -> None:
        await self._in_turn(commands.expire_soft(keys), budget)

    async def check(self, *, budget: float) -> dict[str, str]:
        try:
            found = await self._run(commands.INFO, budget)
        except BackendError as error:
            if error.reason != "noperm":
                raise
            found = {}
        return commands.facts(found, self.address)

    async def close(self) -> None:
        self._pools.close()


class ClusterBackend(RedisBackend):
    """As `RedisBackend`, in a cluster."""

    def __init__(self, routes: Routes, max_connections: int, peers: Peers) -> None:
        Moves.__init__(self, routes.place, peers)
        self._router = Router(routes, max_connections, peers)
        self._topology = ClusterTopology(self._router)

    def _run(self, command: Command[T], budget: float) -> T:
        return command.read([]) if command.empty else self._router.run(command, monotonic() + budget)

    def _until(self, command: Command[T], deadline: float) -> T:
        return self._router.run(command, deadline)

    def scan(self, prefix: str, cursor: str, count: int, *, budget: float) -> tuple[str, list[tuple[str, bytes]]]:
        return self._router.scan(prefix, cursor, count, monotonic() + budget)

    def _node_of(self, address: Address) -> str:
        return str(address)

    def close(self) -> None:
        self._router.close()


class AsyncClusterBackend(AsyncRedisBackend):
    """As `AsyncRedisBackend`, in a cluster."""

    def __init__(self, routes: Routes, max_connections: int, peers: Peers) -> None:
        Moves.__init__(self, routes.place, peers)
        self._router = AsyncRouter(routes, max_connections, peers)

    async def _run(self, command: Command[T], budget: float) -> T:
        return command.read([]) if command.empty else await self._router.run(command, monotonic() + budget)

    async def _until(self, command: Command[T], deadline: float) -> T:
        return await self._router.run(command, deadline)

    async def scan(self, prefix: str, cursor: str, count: int, *, budget: float) -> tuple[str, list[tuple[str, bytes]]]:
        return await self._router.scan(prefix, cursor, count, monotonic() + budget)

    async def close(self) -> None:
        self._router.close()
