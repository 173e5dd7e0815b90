"""In memory: a time to live, a fixed key, and None that is looked up again each time."""

import asyncio

from aiocache import Cache, cached

runs = []


@cached(ttl=10, cache=Cache.MEMORY, key="rates", namespace="main")
async def rates(base):
    runs.append(base)
    return {"base": base}


@cached(ttl=10)
async def user(number):
    runs.append(number)
    return None if number < 0 else [number]


async def main():
    print(await rates("EUR"), await rates("USD"), runs)
    print(await user(-1), await user(-1), await user(3), await user(3), runs)
    print(await user(3) is await user(3))


asyncio.run(main())
