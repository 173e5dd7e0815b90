"""Functions that are no endpoints, with the time of the application."""

from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.testclient import TestClient
from fastapi_cache import FastAPICache
from fastapi_cache.backends.inmemory import InMemoryBackend
from fastapi_cache.decorator import cache

runs = []


@asynccontextmanager
async def lifespan(app):
    FastAPICache.init(InMemoryBackend(), prefix="shop", expire=30)
    yield


app = FastAPI(lifespan=lifespan)


@cache()
async def lookup(number: int, factor: int = 1) -> dict[str, int]:
    runs.append(number)
    return {"number": number * factor}


@cache(expire=60)
async def nothing(name: str) -> None:
    runs.append(name)


@app.get("/{number}")
async def page(number: int) -> dict[str, int]:
    await nothing("a")
    return await lookup(number, factor=2)


with TestClient(app) as client:
    print([client.get(f"/{number}").json() for number in (1, 2, 1)], runs)
