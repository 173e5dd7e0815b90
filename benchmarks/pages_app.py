"""The applications of `pages.py`: one route that computes 10 KB of JSON through pydantic, kept by one cache or by none.

As servers run them: ``uvicorn pages_app:NAME``, ``gunicorn pages_app:NAME``.
"""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Any

from fastapi import FastAPI
from fastapi import Response as FastAPIResponse
from fastapi_cache import FastAPICache
from fastapi_cache.backends.inmemory import InMemoryBackend
from fastapi_cache.decorator import cache as cache2
from fastapi_cachex import BackendProxy
from fastapi_cachex import cache as cachex
from fastapi_cachex.backends import MemoryBackend
from flask import Flask, Response
from flask_caching import Cache
from pydantic import BaseModel, TypeAdapter

from cachekit import configure
from cachekit.integrations import fastapi as ours
from cachekit.integrations import flask as ours_in_flask

PATH = "/orders"
TTL = 3600

runs = count(1)  # of the route, in this process; a page says which one it is of


class Line(BaseModel):
    article: str
    quantity: int
    price: Decimal


class Customer(BaseModel):
    name: str
    city: str


class Order(BaseModel):
    number: int
    placed: datetime
    customer: Customer
    lines: list[Line]


ORDERS = TypeAdapter(list[Order])
ROWS: list[dict[str, Any]] = [
    {
        "number": number,
        "placed": datetime(2027, 1, 1 + number, 12, 30, tzinfo=UTC),
        "customer": {"name": f"customer {number}", "city": "Lisbon"},
        "lines": [
            {"article": f"A-{number}-{line}", "quantity": line, "price": Decimal("12.50")} for line in range(1, 7)
        ],
    }
    for number in range(25)
]


def orders() -> list[Order]:
    """10 KB as models, made of what a database driver hands over."""
    number = next(runs) * 1000
    return [Order.model_validate({**row, "number": number}) for row in ROWS]


async def page() -> list[Order]:
    return orders()


def view() -> Response:
    return Response(ORDERS.dump_json(orders()), mimetype="application/json")


BYTES = ORDERS.dump_json(orders())


async def page_of_bytes() -> FastAPIResponse:
    return FastAPIResponse(BYTES, media_type="application/json")


def view_of_bytes() -> Response:
    return Response(BYTES, mimetype="application/json")


# Pages lie in the process in all of them: what is compared is the way to the page.
configure(namespace="bench", profiles={"default": {"backend": "none"}})

fastapi_without = FastAPI()
fastapi_without.get(PATH)(page)

fastapi_floor = FastAPI()  # what the framework takes to answer with bytes that are there
fastapi_floor.get(PATH)(page_of_bytes)

fastapi_cachekit = FastAPI()
ours.CacheKit(fastapi_cachekit)
fastapi_cachekit.get(PATH)(ours.cached_response(ttl=TTL)(page))

fastapi_middleware = FastAPI()
ours.CacheKit(fastapi_middleware)
fastapi_middleware.get(PATH)(page)
fastapi_middleware.add_middleware(ours.CacheMiddleware, ttl=TTL)


FastAPICache.init(InMemoryBackend(), prefix="bench")
fastapi_cache2 = FastAPI()
fastapi_cache2.get(PATH)(cache2(expire=TTL)(page))

BackendProxy.set(MemoryBackend())
fastapi_cachex = FastAPI()
fastapi_cachex.get(PATH)(cachex(ttl=TTL)(page))

flask_without = Flask(__name__)
flask_without.get(PATH)(view)

flask_floor = Flask(__name__)
flask_floor.get(PATH)(view_of_bytes)

flask_cachekit = Flask(__name__)
flask_cachekit.get(PATH)(ours_in_flask.CacheKit(flask_cachekit).cached(timeout=TTL)(view))

flask_caching = Flask(__name__)
flask_caching.get(PATH)(
    Cache(flask_caching, config={"CACHE_TYPE": "SimpleCache"}).cached(timeout=TTL, query_string=True)(view)
)
