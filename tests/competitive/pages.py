"""Situations of a page that is kept: whose page do other visitors get, and what else is kept of an answer."""

import asyncio
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, NamedTuple

from adapters import Adapter


class Visit(NamedTuple):
    """What one visitor asks, or the view sees of it."""

    method: str = "GET"
    host: str = "shop.test"
    x: str = ""  # of the query
    headers: Mapping[str, str] = {}


class Page(NamedTuple):
    text: str
    status: int = 200
    headers: Mapping[str, str] = {}


View = Callable[[Visit], Page]

numbers = count()  # pages have names and paths of their own: some are kept by these for the whole process


class FlaskSite:
    def __init__(self, view: View, kept: Any, init_app: Any) -> None:
        from flask import Flask, request

        app, name = Flask("site"), f"page{next(numbers)}"
        self.path = f"/{name}"

        def page() -> Any:
            headers = {key.lower(): value for key, value in request.headers}
            return tuple(view(Visit(request.method, request.host, request.args.get("x", ""), headers)))

        page.__name__ = page.__qualname__ = name
        app.add_url_rule(self.path, name, kept(page), methods=["GET", "POST"])
        init_app(app)
        self.client = app.test_client(use_cookies=False)

    def ask(self, visit: Visit) -> Page:
        answer = self.client.open(
            self.path, method=visit.method, base_url=f"http://{visit.host}", headers=dict(visit.headers),
            query_string={"x": visit.x} if visit.x else {},
        )  # fmt: skip
        return Page(answer.text, answer.status_code, {key.lower(): value for key, value in answer.headers})


class FastapiSite:
    def __init__(self, view: View, kept: Any) -> None:
        from fastapi import FastAPI, Request, Response

        self.app, name = FastAPI(), f"page{next(numbers)}"
        self.path = f"/{name}"

        async def page(request: Request, response: Response, x: str = "") -> Any:
            text, response.status_code, headers = view(
                Visit(request.method, request.headers["host"], x, dict(request.headers))
            )
            response.headers.update(headers)
            return text

        page.__name__ = page.__qualname__ = name
        self.app.add_api_route(self.path, kept(page), methods=["GET", "POST"])

    def ask(self, visit: Visit) -> Page:
        """One exchange in the words of ASGI, so that no client with manners of its own is between."""
        headers = {"host": visit.host, **visit.headers}
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": visit.method,
            "scheme": "http", "path": self.path, "raw_path": self.path.encode(), "root_path": "",
            "client": ("127.0.0.1", 1), "server": (visit.host, 80),
            "query_string": f"x={visit.x}".encode() if visit.x else b"",
            "headers": [(key.lower().encode(), value.encode()) for key, value in headers.items()],
        }  # fmt: skip
        said: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        asyncio.get_event_loop().run_until_complete(self.app(scope, receive, send))
        start = said[0]
        text = b"".join(message.get("body", b"") for message in said[1:]).decode()
        return Page(text, start["status"], {key.decode(): value.decode() for key, value in start["headers"]})


# --- the situations --------------------------------------------------------------------------------------------------


def on_every_site(adapter: Adapter, view: View, judge: Callable[[Any], str]) -> str:
    """The answer of each framework that the library is for; of all of them, where they agree."""
    found = {name: judge(site.ask) for name, site in adapter.sites(view).items()}
    answers = set(found.values())
    return answers.pop() if len(answers) == 1 else ", ".join(f"{name}: {answer}" for name, answer in found.items())


def a_page_is_kept(adapter: Adapter) -> str:
    """Two visitors without any sign of who they are."""
    runs: list[Visit] = []

    def view(visit: Visit) -> Page:
        runs.append(visit)
        return Page("for all")

    def judge(ask: Any) -> str:
        del runs[:]
        ask(Visit()), ask(Visit())
        return "yes" if len(runs) == 1 else "no"

    return on_every_site(adapter, view, judge)


def differing_by(name: str, first: Visit, second: Visit, seen: Callable[[Visit], Any]) -> Callable[[Adapter], str]:
    """The view writes what it sees of the visit: does the second visitor get the first one's page?"""

    def situation(adapter: Adapter) -> str:
        def judge(ask: Any) -> str:
            ask(first)
            return "own" if f"for {seen(second)}." in ask(second).text else "the other's"

        return on_every_site(adapter, lambda visit: Page(f"for {seen(visit)}."), judge)

    situation.__name__ = name
    return situation


def who(visit: Visit) -> Any:
    return visit.headers.get("authorization") or visit.headers.get("cookie")


def of(header: str, name: str) -> Visit:
    return Visit(headers={header: f"session={name}"})


DIFFERING = [
    differing_by("page_of_another_login", of("authorization", "alice"), of("authorization", "bob"), who),
    differing_by("page_of_another_cookie", of("cookie", "alice"), of("cookie", "bob"), who),
    differing_by("page_of_another_query", Visit(x="1"), Visit(x="2"), lambda visit: visit.x),
    differing_by("page_of_another_host", Visit(host="evil.test"), Visit(), lambda visit: visit.host.partition(":")[0]),
    differing_by("page_of_another_method", Visit(), Visit("POST"), lambda visit: visit.method),
]


def a_cookie_is_given_to_others(adapter: Adapter) -> str:
    """A page that greets a new visitor with a session of their own."""
    visitors = iter(range(100))

    def view(visit: Visit) -> Page:
        number = next(visitors)
        return Page(f"hello {number}", headers={"Set-Cookie": f"session={number}"})

    def judge(ask: Any) -> str:
        first, second = ask(Visit()), ask(Visit())
        page, cookie = second.text == first.text, second.headers.get("set-cookie") == first.headers["set-cookie"]
        return "page and cookie" if page and cookie else "the page" if page else "nothing"

    return on_every_site(adapter, view, judge)


def an_error_is_kept(adapter: Adapter) -> str:
    healthy: list[bool] = []

    def judge(ask: Any) -> str:
        del healthy[:]
        ask(Visit())
        healthy.append(True)
        text, status, _ = ask(Visit())
        return "no" if "well" in text else f"as a {status}"

    return on_every_site(adapter, lambda visit: Page("well") if healthy else Page("down", 500), judge)


SITUATIONS = (a_page_is_kept, *DIFFERING, a_cookie_is_given_to_others, an_error_is_kept)
