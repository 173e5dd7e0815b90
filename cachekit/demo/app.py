"""The FastAPI application of the demo: three endpoints, counts, metrics and a first page."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from time import perf_counter
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import cachekit
from cachekit.demo import cities
from cachekit.integrations.fastapi import CacheKit, cache_region
from cachekit.l1.table import TWIN
from cachekit.service import default_service

Limit = Annotated[int, Query(ge=1, le=50)]
Cached = Annotated[bool, Query(description="false: compute the answer without any cache")]
Rankings = Annotated[cachekit.Region, Depends(cache_region("rankings"))]


def create_app(workers: Sequence[str] = ()) -> FastAPI:
    """The application. ``workers`` are the URLs of all workers, whose counts the first page shows."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        cities.cities()  # read the data before the first request
        yield

    app = FastAPI(title="cachekit demo", lifespan=lifespan, docs_url=None, redoc_url=None)
    CacheKit(app)
    app.add_middleware(Timed)
    app.get("/nearest")(find_nearest)
    app.get("/search")(search)
    app.get("/ranking/{country}")(rank)
    app.post("/invalidate")(invalidate)
    app.get("/stats")(stats)
    page = files("cachekit.demo").joinpath("index.html").read_text(encoding="utf-8")
    # Plain URLs of our own, so nothing in them needs escaping.
    page = page.replace("{{workers}}", " ".join(workers))
    app.get("/", response_class=HTMLResponse, include_in_schema=False)(lambda: page)
    return app


class Timed:
    """ASGI middleware: every answer says how long the worker took, for the first page to show."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                spent = (perf_counter() - started) * 1000
                message["headers"].append((b"server-timing", b"worker;dur=%.2f" % spent))
            await send(message)

        await self.app(scope, receive, timed)


def find_nearest(
    lat: Annotated[float, Query(ge=-90, le=90)],
    lon: Annotated[float, Query(ge=-180, le=180)],
    limit: Limit = 5,
    cached: Cached = True,
) -> cities.Answer:
    """The cities nearest to a place."""
    function = cities.nearest if cached else cities.nearest.__wrapped__
    return function(lat, lon, limit)


def search(
    q: Annotated[str, Query(min_length=2, max_length=50)], limit: Limit = 5, cached: Cached = True
) -> cities.Answer:
    """The largest cities with this text in one of their names."""
    function = cities.named if cached else cities.named.__wrapped__
    return function(q, limit)


async def rank(country: str, region: Rankings, limit: Limit = 20, cached: Cached = True) -> cities.Answer:
    """The largest cities of a country by the population around them."""
    country = country.upper()
    if country not in cities.countries():
        raise HTTPException(404, f"no cities in a country {country!r}; use a code of two letters, as FR")

    def compute() -> cities.Answer:
        return cities.ranking(country, limit)

    if not cached:
        return await run_in_threadpool(compute)
    answer: cities.Answer = await region.aget_or_set((country, limit), compute, tags=["cities", f"country:{country}"])
    return answer


def invalidate(tag: str = "cities") -> dict[str, str]:
    """Outdate every entry with this tag, in both tiers."""
    return {"tag": tag, "outcome": cachekit.invalidate_tags(tag).name}


def stats() -> JSONResponse:
    """What this worker's cache did. Any page may read it, since the first page of the other worker does."""
    return JSONResponse(counts(), headers={"access-control-allow-origin": "*", "cache-control": "no-store"})


def counts() -> dict[str, Any]:
    """Hits and misses of this process by region, and how the backend does."""
    service = default_service()
    regions: dict[str, dict[str, int]] = {}
    for tally in service.tallies():
        row = regions.setdefault(tally.region, {"l1_hits": 0, "l2_hits": 0, "misses": 0, "waited": 0, "errors": 0})
        row["l1_hits"] += tally.l1_hits()
        row["l2_hits"] += tally.l2_hits
        row["misses"] += tally.misses
        row["waited"] += tally.waited
        row["errors"] += sum(tally.errors.values())
    backends = {name: health.state for name, health in service.health().backends.items()}
    return {"pid": os.getpid(), "twin": TWIN, "backends": backends, "regions": regions}
