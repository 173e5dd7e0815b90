"""`cached_response` keeps the parameters and the result of an endpoint."""

from typing import assert_type

from fastapi import FastAPI, Request
from starlette.middleware import Middleware

from cachekit.engine.outcome import Outcome
from cachekit.integrations.fastapi import CachedEndpoint, CacheMiddleware, ainvalidate_url, cached_response

app = FastAPI(middleware=[Middleware(CacheMiddleware, ttl="1m", statuses={404: "30s"})])


async def user_of(request: Request) -> str | None:
    return request.headers.get("authorization")


@app.get("/articles/{number}")
@cached_response(ttl="5m", per_user=user_of, statuses={404: 30}, vary=["accept"])
async def article(number: int, q: str = "") -> dict[str, int]:
    return {q: number}


@cached_response(tags=lambda request: [request.url.path])
def blocking(number: int) -> str:
    return str(number)


async def use(request: Request) -> None:
    assert_type(await article(1, q="x"), dict[str, int])
    assert_type(await blocking(1), str)
    assert_type(blocking.invalidate(), Outcome)
    assert_type(await article.ainvalidate(), Outcome)
    assert_type(await ainvalidate_url("/articles/1", request), Outcome)
    kept: CachedEndpoint[[int], str] = blocking
    await kept(1)
    await article("one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cached_response(expire=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
