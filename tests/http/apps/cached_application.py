"""`CacheMiddleware` in front of an application that asks ``ORIGIN`` for its responses, as uvicorn runs it."""

import os

import httpx2
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cachekit import configure
from cachekit.http import control
from cachekit.http.messages import fields, values_of
from cachekit.http.policy import HOP_BY_HOP
from cachekit.integrations.starlette import CacheMiddleware

configure(profiles={"default": {"backend": "none", "stale_ttl": "1m", "early_refresh": "off"}})

client = httpx2.AsyncClient(
    base_url=os.environ["ORIGIN"], timeout=10, limits=httpx2.Limits(max_keepalive_connections=0)
)  # fmt: skip


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await (await answer(Request(scope, receive)))(scope, receive, send)


async def answer(request: Request) -> Response:
    """What the origin answers; 502 where it does not, so that a stale page may stand in."""
    query = f"?{request.url.query}" if request.url.query else ""
    try:
        async with client.stream(
            request.method,
            f"{request.scope['raw_path'].decode('latin-1')}{query}",
            headers=[
                pair for pair in request.headers.items() if pair[0] not in {*HOP_BY_HOP, "host", "content-length"}
            ],
            content=await request.body() or None,
        ) as found:
            body = b"".join([part async for part in found.aiter_raw()])
    except httpx2.HTTPError:
        return Response(b"the origin does not answer", 502)
    if found.status_code > 599:  # what the tests' server says when it was not asked as it wants; uvicorn cannot
        return Response(b"the origin does not answer", 502)
    lines = fields((name.decode("latin-1"), value.decode("latin-1")) for name, value in found.headers.raw)
    between = {*HOP_BY_HOP, *control.names(values_of(lines, "connection"))}
    response = Response(body, found.status_code)
    response.raw_headers = [(name.encode(), value.encode("latin-1")) for name, value in lines if name not in between]
    if not any(name == "content-length" for name, _ in lines):  # else it would be a stream
        response.raw_headers.append((b"content-length", str(len(body)).encode()))
    return response


app = CacheMiddleware(application, proxy=True)
