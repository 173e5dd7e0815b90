"""On a server: it is configured at the decorator."""

import asyncio
import os
from urllib.parse import urlsplit

import aiocache
from aiocache.serializers import JsonSerializer

SERVER = urlsplit(os.environ["REDIS_URL"])
runs = []


@aiocache.cached(
    ttl=60,
    cache=aiocache.RedisCache,
    endpoint=SERVER.hostname,
    port=SERVER.port,
    namespace="main",
    serializer=JsonSerializer(),
)
async def user(number):
    runs.append(number)
    return {"number": number, "tags": ["a", "b"]}


@aiocache.cached(key="all", cache=aiocache.Cache.REDIS, endpoint=SERVER.hostname, port=SERVER.port)
async def everybody():
    runs.append("all")
    return [1, 2, 3]


async def main():
    print(await user(1), await user(1), await user(2), await everybody(), await everybody(), runs)


asyncio.run(main())
