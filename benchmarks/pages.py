"""What an HTTP page from the cache costs, beside the route that computes it and beside the pages of other caches.

    python benchmarks/pages.py [--json] [--rounds N] [--seconds S]    with what benchmarks/http-peers.txt lists

First the applications of `pages_app` are called in this process, in turns, without a server: the time of a hit is
compared with that of the route and with that of each other cache's hit. Then servers serve them, uvicorn and gunicorn
with one worker each, and wrk asks them, in turns too.
"""

import argparse
import asyncio
import io
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter_ns, sleep
from typing import Any
from urllib.request import urlopen

import pages_app
from interleave import interleave, report

HERE = Path(__file__).parent
ROUNDS = 200
TURN = 3_000_000  # ns that a piece is called in each round, about
CONNECTIONS = 8

FASTAPI = (
    "fastapi_without",
    "fastapi_floor",
    "fastapi_cachekit",
    "fastapi_middleware",
    "fastapi_cache2",
    "fastapi_cachex",
)
FLASK = ("flask_without", "flask_floor", "flask_cachekit", "flask_caching")
OURS = {
    "fastapi_cachekit": ("fastapi_cache2", "fastapi_cachex"),
    "fastapi_middleware": ("fastapi_cache2", "fastapi_cachex"),
    "flask_cachekit": ("flask_caching",),
}
BOUND = 0.25  # of the route that computes the page
FIELDS = {"host": "127.0.0.1", "accept": "*/*", "user-agent": "bench"}


def reference(name: str) -> str:
    return f"{name.partition('_')[0]}_without"


# Called in this process


class AsgiCaller:
    """Requests to an ASGI application, without a server."""

    def __init__(self, app: Any, runner: asyncio.Runner) -> None:
        self.app = app
        self.runner = runner
        self.calls = 1

    async def once(self) -> bytes:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": pages_app.PATH, "raw_path": pages_app.PATH.encode(), "query_string": b"", "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in FIELDS.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
        }  # fmt: skip
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        assert sent[0]["status"] == 200
        body: bytes = sent[1]["body"]
        return body

    async def many(self) -> float:
        await self.once()  # whoever ran before has the processor's caches
        begun = perf_counter_ns()
        for _ in range(self.calls):
            await self.once()
        return (perf_counter_ns() - begun) / self.calls

    def __call__(self) -> float:
        return self.runner.run(self.many())

    def page(self) -> bytes:
        return self.runner.run(self.once())


class WsgiCaller:
    """Requests to a WSGI application, without a server."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.calls = 1

    def page(self) -> bytes:
        environ = {
            "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": pages_app.PATH, "QUERY_STRING": "",
            "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr, "wsgi.run_once": False,
            "wsgi.multithread": False, "wsgi.multiprocess": False,
            **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in FIELDS.items()},
        }  # fmt: skip
        statuses: list[str] = []
        body = self.app(environ, lambda status, fields, exc_info=None: statuses.append(status))
        whole = b"".join(body)
        if hasattr(body, "close"):  # a list has none
            body.close()
        assert statuses[0].startswith("200")
        return whole

    def __call__(self) -> float:
        self.page()
        begun = perf_counter_ns()
        for _ in range(self.calls):
            self.page()
        return (perf_counter_ns() - begun) / self.calls


def check(name: str, page: Callable[[], bytes]) -> None:
    """That a kept page is the same each time, and one that is not is another."""
    pages = [page() for _ in range(3)]
    assert all(9_000 < len(each) < 11_000 for each in pages), name
    assert (len(set(pages)) == 1) is not name.endswith("_without"), name


# Served


@contextmanager
def served(name: str) -> Iterator[str]:
    """A server with one worker; where its page is."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = [
        "gunicorn",
        "--bind",
        f"127.0.0.1:{port}",
        "--log-level",
        "warning",
        "--threads",
        "2",
        "--keep-alive",
        "60",
    ]
    if name.startswith("fastapi"):
        server = ["uvicorn", "--port", str(port), "--log-level", "warning", "--no-access-log"]
    process = subprocess.Popen([sys.executable, "-m", *server, f"pages_app:{name}"], cwd=HERE)
    url = f"http://127.0.0.1:{port}{pages_app.PATH}"
    try:
        wait_for(url, process)
        yield url
    finally:
        process.terminate()
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until a server answers, and its page is kept."""
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"the server for {url} ended with status {process.returncode}")
        try:
            for _ in range(3):
                urlopen(url, timeout=5).read()
            return
        except OSError:
            sleep(0.1)
    raise SystemExit(f"the server for {url} does not answer")


def requests_per_second(url: str, seconds: int) -> float:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in output, output
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert found is not None, output
    return float(found[1])


def ask_servers(rounds: int, seconds: int) -> dict[str, float]:
    """Requests per second of each application, the best of several turns."""
    best = dict.fromkeys(FASTAPI + FLASK, 0.0)
    with ExitStack() as stack:
        urls = {name: stack.enter_context(served(name)) for name in best}
        for _ in range(rounds):
            for name, url in urls.items():
                best[name] = max(best[name], requests_per_second(url, seconds))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=2, help="of each turn of wrk; 0: no servers")
    options = parser.parse_args()
    if options.seconds and shutil.which("wrk") is None:
        raise SystemExit("wrk is not here: apt-get install wrk, or --seconds 0")
    with asyncio.Runner() as runner:
        callers: dict[str, Any] = {name: AsgiCaller(getattr(pages_app, name), runner) for name in FASTAPI}
        callers |= {name: WsgiCaller(getattr(pages_app, name)) for name in FLASK}
        for name, caller in callers.items():
            check(name, caller.page)
            caller.calls = max(1, round(TURN / min(caller() for _ in range(5))))
        rows = interleave(callers, {name: reference(name) for name in callers}, options.rounds)
        for name, caller in callers.items():
            check(name, caller.page)
    cost = {row.name: row.ns for row in rows}
    rates = ask_servers(3, options.seconds) if options.seconds else {}
    if options.json:
        print(json.dumps({"called": {row.name: row._asdict() for row in rows}, "requests_per_second": rates}))
    else:
        print(report(rows, as_json=False))
        print(*(f"{name:20} {rate:9.0f} requests/s" for name, rate in rates.items()), sep="\n")
    over = [
        f"{name}: {cost[name] / cost[reference(name)]:.2f}x of the route"
        for name in OURS
        if cost[name] > BOUND * cost[reference(name)]
    ]
    over += [
        f"{name}: {cost[name] / cost[peer]:.2f}x of {peer}"
        for name, peers in OURS.items()
        for peer in peers
        if cost[name] >= cost[peer]
    ]
    if over:
        raise SystemExit("above its bound: " + "; ".join(over))


if __name__ == "__main__":
    main()
