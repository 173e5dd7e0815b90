"""The FastAPI application of the demo."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

import cachekit
from cachekit.demo import cities
from cachekit.demo.counts import counts
from cachekit.demo.page import first_page
from cachekit.integrations.fastapi import CacheKit, cache_region

app = FastAPI(title="cachekit demo", docs_url=None, redoc_url=None)
CacheKit(app)

Limit = Annotated[int, Query(ge=1, le=50)]
Cached = Annotated[bool, Query(description="false: compute the answer without any cache")]
Rankings = Annotated[cachekit.Region, Depends(cache_region("rankings"))]


@app.get("/", response_class=HTMLResponse, include_in_schema=False)
def index() -> str:
    return first_page()


@app.get("/nearest")
def nearest(
    lat: Annotated[float, Query(ge=-90, le=90)],
    lon: Annotated[float, Query(ge=-180, le=180)],
    limit: Limit = 5,
    cached: Cached = True,
) -> cities.Answer:
    """The cities nearest to a place."""
    function = cities.nearest if cached else cities.nearest.__wrapped__
    return function(lat, lon, limit)


@app.get("/search")
def search(
    q: Annotated[str, Query(min_length=2, max_length=50)], limit: Limit = 5, cached: Cached = True
) -> cities.Answer:
    """The largest cities with this text in one of their names."""
    function = cities.named if cached else cities.named.__wrapped__
    return function(q, limit)


@app.get("/ranking/{country}")
async def ranking(country: str, region: Rankings, limit: Limit = 20, cached: Cached = True) -> cities.Answer:
    """The largest cities of a country by the population around them."""
    country = country.upper()
    if country not in cities.countries():
        raise HTTPException(404, cities.no_country(country))

    def compute() -> cities.Answer:
        return cities.ranking(country, limit)

    if not cached:
        return await run_in_threadpool(compute)
    answer: cities.Answer = await region.aget_or_set((country, limit), compute, tags=cities.ranking_tags(country))
    return answer


@app.post("/invalidate")
def invalidate(tag: str = "cities") -> dict[str, str]:
    """Outdate every entry with this tag, in both tiers and all workers."""
    return {"tag": tag, "outcome": cachekit.invalidate_tags(tag).name}


@app.get("/stats")
def stats() -> dict[str, Any]:
    """What this worker's cache did."""
    return counts()
