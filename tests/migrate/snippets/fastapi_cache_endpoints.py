"""Endpoints: path and query tell pages apart."""

from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.testclient import TestClient
from fastapi_cache import FastAPICache
from fastapi_cache.backends.inmemory import InMemoryBackend
from fastapi_cache.decorator import cache

runs = []


@asynccontextmanager
async def lifespan(app):
    FastAPICache.init(InMemoryBackend(), prefix="shop")
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/rates/{base}")
@cache(expire=60)
async def rates(base: str, day: int = 0) -> dict[str, int]:
    runs.append((base, day))
    return {base: len(runs)}


@app.get("/plain")
@cache(expire=60)
def plain():
    runs.append("plain")
    return {"runs": len(runs)}


with TestClient(app) as client:
    for path in ("/rates/EUR", "/rates/EUR", "/rates/EUR?day=1", "/rates/USD", "/plain", "/plain"):
        answer = client.get(path)
        print(answer.json(), answer.headers["cache-control"].replace("60", "N").replace("59", "N"))
    print(client.get("/rates/EUR", headers={"Cache-Control": "no-store"}).json(), len(runs))
