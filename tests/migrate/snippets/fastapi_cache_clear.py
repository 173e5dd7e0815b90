"""A namespace that is cleared by an endpoint that writes."""

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


@app.get("/users")
@cache(namespace="users", expire=60)
async def users() -> list[str]:
    runs.append("users")
    return [f"user {len(runs)}"]


@app.post("/users")
async def create() -> None:
    await FastAPICache.clear(namespace="users")


with TestClient(app) as client:
    print(client.get("/users").json(), client.get("/users").json())
    client.post("/users")
    print(client.get("/users").json(), client.get("/users").json(), runs)
