"""The same small site behind every door that keeps whole responses: each framework with each way to switch it on.

A door is a function that makes a site of `PAGES` and gives back how to ask it. Another framework needs one more.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cachekit.integrations.fastapi import CacheKit, CacheMiddleware, cached_response

TTL = "1m"


class Seen(NamedTuple):
    """What a page is made of."""

    method: str
    headers: Mapping[str, str]
    query: str
    session: Callable[[], Any]  # dict-like; asking for it is using it


class Made(NamedTuple):
    """What a page answers."""

    body: str
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Answer(NamedTuple):
    """What a visitor gets."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def cache(self) -> str:
        return self.headers.get("x-cache", "")


def name_of(seen: Seen) -> str:
    return seen.headers.get("authorization") or seen.headers.get("cookie") or "nobody"


def with_session(seen: Seen) -> Made:
    session = seen.session()
    session["user"] = session.get("user") or seen.headers["x-visitor"]
    return Made(session["user"])


def failing(seen: Seen) -> Made:
    return Made("down", 500) if RUNS["/failing"] == 1 else Made("up")


def language(seen: Seen) -> Made:
    return Made(seen.headers.get("accept-language", ""), headers=(("vary", "Accept-Language"),))


PAGES: dict[str, Callable[[Seen], Made]] = {
    "/name": lambda seen: Made(name_of(seen)),
    "/private": lambda seen: Made(seen.headers["x-visitor"], headers=(("cache-control", "private, max-age=60"),)),
    "/sets-cookie": lambda seen: Made(
        seen.headers["x-visitor"], headers=(("set-cookie", f"sid={seen.headers['x-visitor']}"),)
    ),
    "/session": with_session,
    "/query": lambda seen: Made(seen.query),
    "/failing": failing,
    "/missing": lambda seen: Made("missing", 404),
    "/method": lambda seen: Made(seen.method),
    "/host": lambda seen: Made(seen.headers["host"]),
    "/language": language,
    "/plain": lambda seen: Made("the same for all"),
}
RUNS: dict[str, int] = {}


def run(path: str, seen: Seen) -> Made:
    RUNS[path] = RUNS.get(path, 0) + 1
    return PAGES[path](seen)


Ask = Callable[..., Answer]


class Door(NamedTuple):
    """A way to a site."""

    name: str
    open: Callable[[], Any]  # a context manager that gives an Ask


def starlette_endpoint(path: str) -> Any:
    async def endpoint(request: Request) -> Response:
        seen = Seen(request.method, request.headers, request.url.query, lambda: request.session)
        made = run(path, seen)
        response = Response(made.body, made.status, media_type="text/plain")
        for name, value in made.headers:
            response.headers.append(name, value)
        return response

    endpoint.__qualname__ = endpoint.__name__ = f"page_{path[1:].replace('-', '_')}"
    return endpoint


@contextmanager
def asked(app: Any) -> Iterator[Ask]:
    with TestClient(app, raise_server_exceptions=False) as client:

        def ask(path: str, method: str = "GET", **headers: str) -> Answer:
            client.cookies.clear()  # every request says itself who sends it
            found = {name.replace("_", "-"): value for name, value in headers.items()}
            answer = client.request(method, path, headers=found)
            return Answer(answer.status_code, answer.headers, answer.text)

        yield ask


SESSIONS = Middleware(SessionMiddleware, secret_key="not a secret")


@contextmanager
def fastapi_decorator() -> Iterator[Ask]:
    app = FastAPI(middleware=[SESSIONS])
    CacheKit(app)
    for path in PAGES:
        app.api_route(path, methods=["GET", "POST"])(cached_response(ttl=TTL)(starlette_endpoint(path)))
    with asked(app) as ask:
        yield ask


@contextmanager
def starlette_decorator() -> Iterator[Ask]:
    endpoints = {path: cached_response(ttl=TTL)(starlette_endpoint(path)) for path in PAGES}
    routes = [Route(path, endpoint, methods=["GET", "POST"]) for path, endpoint in endpoints.items()]
    app = Starlette(routes=routes, middleware=[SESSIONS])
    CacheKit(app)
    with asked(app) as ask:
        yield ask


@contextmanager
def fastapi_middleware() -> Iterator[Ask]:
    app = FastAPI(middleware=[SESSIONS])  # inside of the cache
    for path in PAGES:
        app.api_route(path, methods=["GET", "POST"])(starlette_endpoint(path))
    app.add_middleware(CacheMiddleware, ttl=TTL)
    with asked(app) as ask:
        yield ask


@contextmanager
def starlette_middleware() -> Iterator[Ask]:
    routes = [Route(path, starlette_endpoint(path), methods=["GET", "POST"]) for path in PAGES]
    app = Starlette(routes=routes, middleware=[SESSIONS, Middleware(CacheMiddleware, ttl=TTL)])  # around the cache
    with asked(app) as ask:
        yield ask


DOORS = [
    Door("fastapi-decorator", fastapi_decorator),
    Door("fastapi-middleware", fastapi_middleware),
    Door("starlette-decorator", starlette_decorator),
    Door("starlette-middleware", starlette_middleware),
]
