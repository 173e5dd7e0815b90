"""A reverse proxy with the policy in front of it, as uvicorn runs it: ``ORIGIN`` is where the responses come from.

The policy is made for a cache before its own application. Here it does what it can for a foreign origin.
"""

import os
from collections.abc import Awaitable, Callable
from time import time
from typing import Any

import httpx2

from cachekit import MISS
from cachekit.config.spec import ServiceSpec, built_in_regions
from cachekit.http import control
from cachekit.http.answer import answer, outdated_urls
from cachekit.http.messages import Request, Response, fields, values_of
from cachekit.http.page import tags_of
from cachekit.http.policy import HOP_BY_HOP, Rules
from cachekit.service import Service

ORIGIN = os.environ["ORIGIN"]
RULES = Rules(ttl=None, proxy=True)

UNREACHABLE = Response(502, (("content-type", "text/plain"),), b"the origin does not answer")

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

service = Service(ServiceSpec(regions=built_in_regions()))
region = service.region("default")
client = httpx2.AsyncClient(base_url=ORIGIN, timeout=10, limits=httpx2.Limits(max_keepalive_connections=0))


@region.cached(
    ignore=("run",), tags=lambda key, run: tags_of(key), ttl=60, stale_ttl="1m", early_refresh="off", jitter=0
)
async def pages(key: tuple[Any, ...], run: Any) -> Any:
    return await run()


class Ask:
    async def __call__(self, key: tuple[Any, ...], run: Any, *, force: bool, allow_stale: bool) -> Any:
        return await pages.using(force_refresh=force, allow_stale=None if allow_stale else False)(key, run)

    async def peek(self, key: tuple[Any, ...]) -> Any:
        found = await pages.peek(key, None)
        return None if found is MISS else found


class Exchange:
    def __init__(self, scope: Scope, body: bytes) -> None:
        lines = fields((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        host = next((value for name, value in lines if name == "host"), "")
        path = scope["raw_path"].decode("latin-1")
        self.request = Request(scope["method"], "http", host, path, scope["query_string"], lines, bool(body))
        self.user = None
        self.body = body

    async def origin(self) -> Response:
        request = self.request
        query = f"?{request.query.decode('latin-1')}" if request.query else ""
        try:
            async with client.stream(
                request.method,
                f"{request.path}{query}",
                headers=[pair for pair in request.fields if pair[0] not in {*HOP_BY_HOP, "host", "content-length"}],
                content=self.body or None,
            ) as response:
                body = b"".join([part async for part in response.aiter_raw()])
        except httpx2.HTTPError:  # a stale page may stand in
            return UNREACHABLE
        if response.status_code > 599:  # what the tests' server says when it was not asked as it wants; uvicorn cannot
            return UNREACHABLE
        lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw]
        found = fields(lines)
        between = {*HOP_BY_HOP, *control.names(values_of(found, "connection"))}
        return Response(response.status_code, tuple(pair for pair in found if pair[0] not in between), body)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    exchange = Exchange(scope, body)
    response = await answer(exchange, RULES, Ask(), time)
    assert response is not None
    if tags := outdated_urls(exchange.request, response):
        await region.ainvalidate_tags(*tags)
    await give(response, scope["method"], send)


async def give(response: Response, method: str, send: Send) -> None:
    lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.fields]
    await send({"type": "http.response.start", "status": response.status, "headers": lines})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else response.body})
