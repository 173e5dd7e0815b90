"""What a GET through our connections costs, compared with redis-py's client on the same server in the same run.

    python benchmarks/l2.py [--json] [--rounds N]

The bare socket and the bare asyncio protocol show what the kernel, the loop and the server take whatever the client.
"""

import argparse
import asyncio
import socket
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

import hiredis
import redis
import redis.asyncio
from interleave import ROUNDS, awake, interleave, loop, report

from cachekit.backends.base import Faces
from cachekit.backends.redis import open_redis
from cachekit.config.spec import BackendSpec
from cachekit.testing.servers import Server, start_server

KEY = "bench:v:{users:app.views.get_user:1:9f3c2b7a}"
VALUE = b"x" * 300
CALLS = 300
BOUNDS = {"get": 0.70, "aio get": 0.75}
REFERENCES = {
    **dict.fromkeys(["bare socket", "get", "redis-py get"], "redis-py get"),
    **dict.fromkeys(["get_many of 50", "redis-py mget of 50"], "redis-py mget of 50"),
    **dict.fromkeys(["bare protocol", "aio get", "redis-py aio get"], "redis-py aio get"),
    **dict.fromkeys(["store", "redis-py set"], "redis-py set"),
}


def bare_socket(server: Server) -> Callable[[], Any]:
    sock, reader = socket.create_connection(("127.0.0.1", server.port)), hiredis.Reader()
    sock.settimeout(1.0)
    packed = hiredis.pack_command(("GET", KEY))

    def get() -> Any:
        sock.sendall(packed)
        reader.feed(sock.recv(65_536))
        return reader.gets()

    return get


class BareProtocol(asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.answer.set_result(data)

    async def open(self, server: Server) -> None:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", server.port)

    async def get(self) -> bytes:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.transport.write(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(KEY), KEY.encode()))
        return await self.answer


def sync_pieces(server: Server, faces: Faces, client: redis.Redis) -> dict[str, Callable[[], float]]:
    ours, keys = faces.sync, [KEY] * 50
    assert ours is not None
    bare = bare_socket(server)
    names: dict[str, object] = {
        "ours": ours, "client": client, "bare": bare, "key": KEY, "keys": keys, "value": VALUE,
    }  # fmt: skip
    assert ours.get(KEY, budget=1.0) == client.get(KEY) == bare() == VALUE
    assert ours.get_many(keys, budget=1.0) == client.mget(keys) == [VALUE] * 50
    statements = {
        "bare socket": "bare()",
        "get": "ours.get(key, budget=0.25)",
        "redis-py get": "client.get(key)",
        "get_many of 50": "ours.get_many(keys, budget=0.25)",
        "redis-py mget of 50": "client.mget(keys)",
        "store": "ours.store(key, value, 60_000, None, budget=0.25)",
        "redis-py set": "client.set(key, value, px=60_000)",
    }
    return {name: loop(statement, names, CALLS) for name, statement in statements.items()}


def async_pieces(server: Server, faces: Faces, runner: asyncio.Runner, client: Any) -> dict[str, Callable[[], float]]:
    bare = BareProtocol()
    runner.run(bare.open(server))

    def piece(get: Callable[[], Any]) -> Callable[[], float]:
        async def many() -> float:
            begun = perf_counter_ns()
            for _ in range(CALLS):
                await get()
            return (perf_counter_ns() - begun) / CALLS

        return lambda: runner.run(many())

    async def check() -> None:
        assert await faces.aio.get(KEY, budget=1.0) == await client.get(KEY) == VALUE
        assert VALUE in await bare.get()

    runner.run(check())
    return {
        "bare protocol": piece(bare.get),
        "aio get": piece(lambda: faces.aio.get(KEY, budget=0.25)),
        "redis-py aio get": piece(lambda: client.get(KEY)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    with awake(), start_server("valkey") as server, asyncio.Runner() as runner, redis.Redis(port=server.port) as client:
        faces = open_redis(BackendSpec(url=server.url))
        client.set(KEY, VALUE)
        async_client = redis.asyncio.Redis(port=server.port)
        pieces = sync_pieces(server, faces, client) | async_pieces(server, faces, runner, async_client)
        rows = interleave(pieces, REFERENCES, options.rounds)
        runner.run(async_client.aclose())
    print(report(rows, as_json=options.json))
    over = [
        f"{row.name}: {row.ratio:.2f}x, bound {BOUNDS[row.name]}"
        for row in rows
        if row.ratio > BOUNDS.get(row.name, 1e9)
    ]
    if over:
        raise SystemExit("above its bound: " + "; ".join(over))


if __name__ == "__main__":
    main()
