"""A TCP proxy that misbehaves on request: what a network or a sick server does to a client, without a sick network."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

T = TypeVar("T")

HOST = "127.0.0.1"
CHUNK = 65_536
A_DAY = 86_400.0
LINGER_ZERO = struct.pack("ii", 1, 0)  # closing sends RST


@dataclass(frozen=True, slots=True, eq=False)
class Mode:
    """What happens to bytes at the moment. A new object for every change, so that identity tells "changed"."""

    name: str
    seconds: float = 0.0
    rate: int = 0
    data: bytes = b""
    limit: int = 0
    eof: bool = False


class FaultProxy:
    """Forwards TCP from a port of its own to ``(host, port)``, and misbehaves as told.

    Every mode method acts at once, also on established connections, and has taken effect when it returns; it may be
    called from any thread. `pass_` is the way back. Context manager; `close` ends everything.
    """

    def __init__(self, host: str, port: int, *, password: str | None = None) -> None:
        self.target = (host, port)
        self.connections = 0  # accepted so far
        self.requests = 0  # commands that clients sent (bursts, when they do not speak RESP)
        self.bytes_in = 0  # from clients
        self.bytes_out = 0  # to clients
        self._password = password
        self._mode = Mode("pass")
        self._changed = asyncio.Event()
        self._links: set[Link] = set()
        self._server: asyncio.Server | None = None
        self._placeholder: socket.socket | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cachekit-fault-proxy", daemon=True)
        self._thread.start()
        self.port = 0
        self._do(self._listen())

    @property
    def url(self) -> str:
        secret = f":{quote(self._password, safe='')}@" if self._password else ""
        return f"redis://{secret}{HOST}:{self.port}/0"

    def pass_(self) -> None:
        """Forward everything (the initial mode). What was swallowed stays lost; what was held back goes on."""
        self._set(Mode("pass"))

    def latency(self, seconds: float) -> None:
        """Hold every answer back for ``seconds``."""
        self._set(Mode("latency", seconds=seconds))

    def slow(self, bytes_per_second: int) -> None:
        """Let answers drip at this rate, byte by byte below 20 bytes per second."""
        self._set(Mode("slow", rate=bytes_per_second))

    def black_hole(self) -> None:
        """Accept connections and swallow all bytes in both directions; nothing is closed."""
        self._set(Mode("black_hole"))

    def hang(self) -> None:
        """Accept new connections and leave them alone; those from before go on working."""
        self._set(Mode("hang"))

    def refuse(self) -> None:
        """Abort all connections and refuse new ones."""
        self._do(self._refuse())

    def reset(self) -> None:
        """Abort all connections with RST, once. The mode stays, new connections are accepted as before."""
        self._do(self._abort_all())

    def reply(self, data: bytes) -> None:
        """Answer every command with these bytes, as ``b"-LOADING ...\\r\\n"``; nothing reaches the server."""
        self._set(Mode("reply", data=data))

    def truncate(self, limit: int, *, eof: bool = False) -> None:
        """Let each connection have ``limit`` more bytes of answers, then silence, or the end with ``eof``."""
        self._set(Mode("truncate", limit=limit, eof=eof))

    def drop_replies(self) -> None:
        """Let requests reach the server and swallow its answers."""
        self._set(Mode("drop_replies"))

    def hold_requests(self) -> None:
        """Keep requests back until the mode changes, then deliver them late, even if their client has left."""
        self._set(Mode("hold_requests"))

    def hold_replies(self) -> None:
        """Keep answers and pushes back until the mode changes."""
        self._set(Mode("latency", seconds=A_DAY))

    def close(self) -> None:
        """End all connections and the thread. May be called twice."""
        if self._loop.is_closed():
            return
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> "FaultProxy":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # On the loop's thread from here on.

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10.0)

    def _set(self, mode: Mode) -> None:
        async def change() -> None:
            self._mode = mode
            self._changed.set()
            self._changed = asyncio.Event()
            await self._listen()

        self._do(change())

    async def _listen(self) -> None:
        if self._server is None:
            if self._placeholder is not None:
                self._placeholder.close()
                self._placeholder = None
            self._server = await asyncio.start_server(self._accept, HOST, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        self._mode = Mode("refuse")
        if self._server is not None:
            # What asyncio has accepted but not yet given a transport would be lost unclosed with the server.
            self._loop.remove_reader(self._server.sockets[0].fileno())
            await asyncio.sleep(0)
            self._server.close()
            self._server = None
            # Bound but not listening: connections are refused and nobody else is given the port meanwhile.
            self._placeholder = socket.socket()
            self._placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._placeholder.bind((HOST, self.port))
        self._changed.set()
        self._changed = asyncio.Event()
        await self._abort_all()

    async def _abort_all(self) -> None:
        tasks = [link.abort() for link in list(self._links)]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _close(self) -> None:
        await self._refuse()
        # Connections that were accepted just before are on their way to `_accept`, which aborts them.
        for _ in range(3):
            await asyncio.sleep(0)
        if self._placeholder is not None:
            self._placeholder.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            writer.transport.abort()
            return
        self.connections += 1
        link = Link(self, reader, writer)
        self._links.add(link)
        link.task = self._loop.create_task(link.run())
        link.task.add_done_callback(lambda _: self._links.discard(link))


class Link:
    """One client's connection, and ours to the server."""

    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.reader = reader
        self.writer = writer
        self.upstream: asyncio.StreamWriter | None = None
        self.commands = CommandCounter()
        self.spent: tuple[Mode, int] | None = None  # answers let through since truncate() was called
        self.task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        try:
            while self.proxy._mode.name == "hang":
                await self.proxy._changed.wait()
            answers, self.upstream = await asyncio.open_connection(*self.proxy.target)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self.pump(self.reader, self.to_server))
                pumps.create_task(self.pump(answers, self.to_client))
        except* (OSError, EOFError):
            pass  # one side is gone: so is the other, below
        finally:
            self.shut()

    async def pump(self, reader: asyncio.StreamReader, deliver: Callable[[bytes], Coroutine[Any, Any, None]]) -> None:
        while chunk := await reader.read(CHUNK):
            await deliver(chunk)
        raise EOFError

    async def to_server(self, chunk: bytes) -> None:
        proxy, commands = self.proxy, self.commands.feed(chunk)
        proxy.requests += commands
        proxy.bytes_in += len(chunk)
        while proxy._mode.name == "hold_requests":
            await proxy._changed.wait()
        if proxy._mode.name == "reply":
            await self.answer(proxy._mode.data * commands)
        elif proxy._mode.name != "black_hole" and self.upstream is not None:
            self.upstream.write(chunk)
            await self.upstream.drain()

    async def to_client(self, chunk: bytes) -> None:
        mode = self.proxy._mode
        if mode.name in ("black_hole", "drop_replies", "reply"):
            return
        if mode.name == "latency" and await self.changes_within(mode.seconds):
            await self.to_client(chunk)
        elif mode.name == "slow":
            await self.drip(chunk, mode)
        elif mode.name == "truncate":
            await self.cut(chunk, mode)
        else:
            await self.answer(chunk)

    async def drip(self, chunk: bytes, mode: Mode) -> None:
        size = max(1, mode.rate // 20)
        for start in range(0, len(chunk), size):
            if await self.changes_within(size / mode.rate):
                await self.to_client(chunk[start:])
                return
            await self.answer(chunk[start : start + size])

    async def cut(self, chunk: bytes, mode: Mode) -> None:
        spent = self.spent[1] if self.spent is not None and self.spent[0] is mode else 0
        self.spent = (mode, spent + len(chunk))
        await self.answer(chunk[: max(0, mode.limit - spent)])
        if mode.eof and spent + len(chunk) >= mode.limit:
            raise EOFError

    async def changes_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self.proxy._changed.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def answer(self, data: bytes) -> None:
        self.proxy.bytes_out += len(data)
        self.writer.write(data)
        await self.writer.drain()

    async def abort(self) -> None:
        """End both sides with RST."""
        for writer in (self.writer, self.upstream):
            if writer is not None and (raw := writer.get_extra_info("socket")) is not None:
                with contextlib.suppress(OSError):  # the other side was quicker
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
                # A closed transport sends RST only when it is aborted, and only when no read is pending on the socket.
                writer.transport.abort()
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])

    def shut(self) -> None:
        self.writer.close()
        if self.upstream is not None:
            self.upstream.close()


class CommandCounter:
    """Counts the RESP commands in a stream of bytes; anything else counts as one command per burst."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, chunk: bytes) -> int:
        data, count = self.rest + chunk, 0
        if not data.startswith(b"*"):
            self.rest = b""
            return 1
        try:
            while (after := self.skip(data)) is not None:
                data, count = data[after:], count + 1
        except ValueError:  # it only looked like RESP
            data, count = b"", count + 1
        self.rest = data
        return count

    @staticmethod
    def skip(data: bytes) -> int | None:
        """Where the first command ends; None when it is not complete."""
        at = data.find(b"\r\n")
        if not data.startswith(b"*") or at < 0:
            return None
        at += 2
        for _ in range(int(data[1 : at - 2])):
            line = data.find(b"\r\n", at)
            if line < 0:
                return None
            at = line + 2 + int(data[at + 1 : line]) + 2
        return at if at <= len(data) else None
