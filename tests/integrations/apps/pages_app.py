"""Pages for workers and for processes: each run is noted, so that a test can count them."""

import asyncio
import os
import time
from pathlib import Path

from fastapi import FastAPI
from fastapi.testclient import TestClient

from cachekit.integrations.fastapi import CacheKit, CacheMiddleware, cached_response

app = FastAPI()
CacheKit(app)
app.add_middleware(CacheMiddleware, ttl="1m")


def note(name: str) -> None:
    file = Path(os.environ["JOURNAL"]) / f"{name}.{os.getpid()}"
    with file.open("a") as journal:
        journal.write("run\n")


@app.get("/decorated/{number}")
@cached_response(ttl="1m")
async def decorated(number: int) -> dict[str, int]:
    note("decorated")
    await asyncio.sleep(0.5)  # others ask meanwhile
    return {"number": number}


@app.get("/blocking/{number}")
@cached_response(ttl="1m")
def blocking(number: int) -> dict[str, int]:
    note("blocking")
    time.sleep(0.5)
    return {"number": number}


@app.get("/middleware/{number}")
async def middleware(number: int) -> dict[str, int]:
    note("middleware")
    await asyncio.sleep(0.5)
    return {"number": number}


@app.get("/pid")
async def pid() -> int:
    return os.getpid()


def start() -> None:
    """The set-up of a process that is no web server."""


def tags_of(path: str) -> list[str]:
    """The entity tags of a page: as it is made, and as it is kept."""
    with TestClient(app) as client:
        return [client.get(path).headers["etag"] for _ in range(2)]
