"""A server for `http_backend.py`: python server.py PORT. It keeps bytes in memory, each until its end."""

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

entries: dict[str, tuple[bytes, float | None]] = {}  # each step on it is atomic


class Handler(BaseHTTPRequestHandler):
    """GET, PUT and DELETE of /entries/KEY, and GET of /clock, which is in milliseconds."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/clock":
            self.answer(200, b"%d" % now())
            return
        data, ends = entries.get(self.path, (None, None))
        if data is None or (ends is not None and ends <= now()):
            self.answer(404)
        else:
            self.answer(200, data)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if now() > int(self.headers["Not-After"]):
            self.answer(412)
            return
        ttl = self.headers["Ttl"]
        entries[self.path] = data, None if ttl is None else now() + int(ttl)
        self.answer(204)

    def do_DELETE(self) -> None:
        entries.pop(self.path, None)
        self.answer(204)

    def answer(self, status: int, data: bytes = b"") -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Nothing."""


def now() -> float:
    return time.monotonic() * 1000


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
