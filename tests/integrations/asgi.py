"""Requests to ASGI applications as servers hand them over, with what no client library would send."""

from typing import Any, NamedTuple
from urllib.parse import unquote


class Answer(NamedTuple):
    status: int
    fields: list[tuple[str, str]]
    body: str

    def __getitem__(self, name: Any) -> Any:
        """The value of a field."""
        return dict(self.fields).get(name)


async def ask(app: Any, target: str, *fields: tuple[str, str], method: str = "GET", **scope: Any) -> Answer:
    """One request. ``fields`` are sent as they are, after a Host unless there is one among them."""
    path, _, query = target.partition("?")
    if not any(name == "host" for name, _ in fields):
        fields = (("host", "shop.test"), *fields)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in fields], "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), **scope,
    }, receive, send)  # fmt: skip
    start = next(message for message in sent if message["type"] == "http.response.start")
    headers = [(name.decode(), value.decode()) for name, value in start["headers"]]
    return Answer(start["status"], headers, b"".join(message.get("body", b"") for message in sent).decode())
