"""One run of an ASGI application for the cache: its response as a whole, or passed on as it comes if it is no page."""

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cachekit.http import conditional, messages, page
from cachekit.http.messages import Fields, Response
from cachekit.http.status import Result, told
from cachekit.integrations.starlette import visitor
from cachekit.integrations.starlette.endpoint import ANSWERED
from cachekit.integrations.starlette.messages import fields_of, nobody, raw_of

# What an application sends beside its response: for test clients, and hints before it.
ASIDE: Final = frozenset({"http.response.debug", "http.response.early_hint", "http.response.push"})

_running: Final[set[asyncio.Task[None]]] = set()  # a loop itself does not keep alive what runs in it


class AppRun:
    """One run. With a client it is that of a request, which may get a stream; without, nobody waits for it."""

    def __init__(
        self, app: ASGIApp, scope: Scope, request: messages.Request, limit: int,
        client: tuple[Receive, Send] | None, now: float,
    ) -> None:  # fmt: skip
        self.scope = scope
        self.session = visitor.session_of(scope)  # as it was
        self.request = request
        self.limit = limit  # bytes of a body that are held back at most
        self.client = client
        self.now = now
        self.start: Message | None = None
        self.body = bytearray()
        self.whole = False  # the last byte is here
        self.passed = False  # the client has it, or is getting it
        self.why = ""
        self._unsent = False  # the client has what this would be: its body goes nowhere
        self._heard = asyncio.Event()  # what it is going to be
        self._silence = nobody()
        self.task = asyncio.get_running_loop().create_task(self._run(app))
        _running.add(self.task)
        self.task.add_done_callback(_running.discard)

    async def _run(self, app: ASGIApp) -> None:
        await app(self.scope, self.receive, self.send)

    async def response(self) -> Response | None:
        """The whole response; None if it is none, and then the client has it. Raises what the application raises.

        With its last byte it is whole: what the application does then, ends dependencies or begins background tasks,
        is waited for by nobody but the request itself.
        """
        try:
            await self._ended_or_heard()
            if self.passed:
                return None
            if self.whole:
                return await self._end()
        except asyncio.CancelledError:
            self.task.cancel()
            raise
        self.task.result()  # ended too early: raises why, if it says so
        await self.pass_on("incomplete")
        return None

    async def _end(self) -> Response | None:
        if self.scope.get(ANSWERED):  # by an endpoint that has rules of its own, and has told the client
            await self.pass_on("")
            return None
        assert self.start is not None
        return page.dated_by_server(Response(self.start["status"], self._fields(), bytes(self.body)))

    async def _ended_or_heard(self) -> None:
        waiting = asyncio.ensure_future(self._heard.wait())
        try:
            await asyncio.wait((self.task, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    def _fields(self) -> Fields:
        assert self.start is not None
        return fields_of(self.start.get("headers", ()))

    # Its ends of the connection

    async def receive(self) -> Message:
        """What the client sends, as long as there is one: later it must not be told that the client is gone."""
        if self.client is not None:
            message = await self.client[0]()
            if self.client is not None:
                return message
        return await self._silence()

    async def send(self, message: Message) -> None:
        """What the application sends: held back until it is known what it is."""
        kind = message["type"]
        if not self.passed and kind == "http.response.start" and self.start is None:
            self.start = message
            if why := self._why_stream(message):
                await self.pass_on(why)
            return
        if not self.passed and kind == "http.response.body" and self.start is not None and not self.whole:
            self.body += message.get("body", b"")
            self.whole = not message.get("more_body", False)
            if self.whole:
                self._heard.set()
            elif len(self.body) > self.limit or not self._has_length():
                await self.pass_on("stream" if len(self.body) <= self.limit else "size")
            return
        if not self.passed and kind not in ASIDE:
            await self.pass_on("stream")  # an extension of the server
        await self._forward(message)

    def _why_stream(self, start: Message) -> str:
        fields = dict(self._fields())
        length = fields.get("content-length", "")
        if start.get("trailers") or fields.get("content-type", "").startswith("text/event-stream"):
            return "stream"
        return "size" if length.isdigit() and int(length) > self.limit else ""

    def _has_length(self) -> bool:
        return messages.joined(self._fields(), "content-length") is not None

    async def pass_on(self, why: str) -> None:
        """Give the client what is here, and everything that follows as it comes. Without one it ends here."""
        self.passed, self.why = True, why
        self._heard.set()
        if self.client is None:
            if not self.whole:
                self.task.cancel()
            return
        if self.start is None:
            return
        await self._forward_start(why)
        if self.body or self.whole:
            await self._forward({"type": "http.response.body", "body": bytes(self.body), "more_body": not self.whole})
            self.body.clear()

    async def _forward_start(self, why: str) -> None:
        assert self.start is not None
        response = Response(self.start["status"], self._fields(), b"")
        if why and conditional.unchanged(self.request, response, self.now):
            response, self._unsent = conditional.not_modified(response), True
        if why:
            response = told(response, Result.BYPASS, why=why)
        await self._forward({**self.start, "status": response.status, "headers": raw_of(response.fields)})

    async def _forward(self, message: Message) -> None:
        if self._unsent and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        if self.client is not None:
            await self.client[1](message)
