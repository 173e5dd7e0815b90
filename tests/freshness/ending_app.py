"""What the processes of test_endings.py run: a cached value whose refresh takes a while, behind several web servers.

Which load it is is told by files, since other processes take part.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from cachekit import aclose, cache

HERE = Path(os.environ["ENDING_DIRECTORY"])
SECONDS = float(os.environ.get("ENDING_SECONDS", "1"))


def first() -> bool:
    """Whether nobody has loaded yet."""
    try:
        (HERE / "first").touch(exist_ok=False)
    except FileExistsError:
        (HERE / "begun").touch()
        return False
    return True


@cache(profile="users", version=1)
def value(key: int) -> str:
    if first():
        return "old"
    time.sleep(SECONDS)
    return "new"


@cache(profile="users", version=1)
async def avalue(key: int) -> str:
    if first():
        return "old"
    await asyncio.sleep(SECONDS)
    return "new"


def wait(name: str) -> None:
    while not (HERE / name).exists():
        time.sleep(0.01)


def flask_app() -> Any:
    from flask import Flask

    from cachekit.integrations.flask import CacheKit

    app = Flask(__name__)
    CacheKit(app)
    app.get("/value")(lambda: value(1))
    return app


def fastapi_app() -> Any:
    from fastapi import FastAPI

    from cachekit.integrations.fastapi import CacheKit

    app = FastAPI()
    CacheKit(app)

    @app.get("/value")
    def blocking() -> str:
        return value(1)

    @app.get("/avalue")
    async def awaited() -> str:
        return await avalue(1)

    return app


def starlette_app() -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from cachekit.integrations.starlette import CacheKit

    async def awaited(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await avalue(1))

    def blocking(request: Request) -> PlainTextResponse:
        return PlainTextResponse(value(1))

    return Starlette(routes=[Route("/avalue", awaited), Route("/value", blocking)], lifespan=CacheKit().lifespan())


async def plain_app(
    scope: MutableMapping[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """An ASGI application without cachekit's integrations: uvicorn ends by the signal, so exit handlers do not run."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await aclose()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = (await avalue(1) if scope["path"] == "/avalue" else value(1)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def ask() -> None:
    """Load, and have a refresh begin."""
    assert value(1) == "old"
    time.sleep(1.1)
    assert value(1) == "old"


def main(how: str) -> None:
    ask()
    wait("begun")
    (HERE / "ending").touch()
    wait("end")
    if how == "error":
        raise LookupError("the program fails")
    if how == "exit":
        sys.exit(3)


if __name__ == "__main__":
    main(sys.argv[1])
