"""Keys from a builder, results that are not kept, and methods whose instances share."""

import asyncio

from aiocache import cached, cached_stampede
from aiocache.serializers import PickleSerializer

runs = []


def by_number(function, *args, **kwargs):
    return f"{function.__name__}:{kwargs.get('number', args[:1])}"


@cached(ttl=60, key_builder=by_number, skip_cache_func=lambda found: not found)
async def articles(number, session=None):
    runs.append(("articles", number))
    return [number] if number else []


class Shop:
    @cached(ttl=60, noself=True, serializer=PickleSerializer())
    async def price(self, article):
        runs.append(("price", article))
        return {"article": article}


@cached_stampede(lease=2, ttl=60)
async def slow(number):
    runs.append(("slow", number))
    await asyncio.sleep(0.05)
    return number


async def main():
    print(await articles(1, session=1), await articles(1, session=2), await articles(0), await articles(0))
    print(await Shop().price("a"), await Shop().price("a"), await Shop().price("a") is await Shop().price("a"))
    print(await asyncio.gather(*(slow(7) for _ in range(5))))
    print(runs)


asyncio.run(main())
