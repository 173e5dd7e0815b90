"""The Flask application of the demo."""

from typing import Any

from flask import Flask, request

import cachekit
from cachekit.demo import cities, queries
from cachekit.demo.counts import counts
from cachekit.demo.page import first_page
from cachekit.integrations.flask import CacheKit

app = Flask(__name__)
cache = CacheKit(app)


@app.get("/")
def index() -> str:
    return first_page()


@app.get("/nearest")
def nearest() -> cities.Answer:
    """The cities nearest to a place."""
    query = request.args
    function = cities.nearest if queries.cached(query) else cities.nearest.__wrapped__
    return function(*queries.place(query), queries.limit(query))


@app.get("/search")
def search() -> cities.Answer:
    """The largest cities with this text in one of their names."""
    query = request.args
    function = cities.named if queries.cached(query) else cities.named.__wrapped__
    return function(queries.text(query), queries.limit(query))


@app.get("/ranking/<country>")
def ranking(country: str) -> cities.Answer:
    """The largest cities of a country by the population around them."""
    country, limit = queries.country(country), queries.limit(request.args, 20)

    def compute() -> cities.Answer:
        return cities.ranking(country, limit)

    if not queries.cached(request.args):
        return compute()
    region = cache.region("rankings")
    answer: cities.Answer = region.get_or_set((country, limit), compute, tags=cities.ranking_tags(country))
    return answer


@app.post("/invalidate")
def invalidate() -> dict[str, str]:
    """Outdate every entry with this tag, in both tiers and all workers."""
    tag = request.args.get("tag", "cities")
    return {"tag": tag, "outcome": cachekit.invalidate_tags(tag).name}


@app.get("/stats")
def stats() -> dict[str, Any]:
    """What this worker's cache did."""
    return counts()


@app.errorhandler(queries.Refused)
def refuse(error: queries.Refused) -> tuple[dict[str, str], int]:
    return {"detail": str(error)}, error.status
