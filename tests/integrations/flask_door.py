"""The door of Flask to the small site of `http_doors`: pages of visitors who differ in one thing.

A door is opened with the site's pages, by path: functions of what a request brings (`method`, `headers`, `query`,
`session`) that give ``body``, ``status`` and ``headers``. It gives back how to ask.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from flask import Flask, Response, request, session

from cachekit.integrations.flask import CacheKit

TTL = "1m"


class Seen(NamedTuple):
    """What a page is made of."""

    method: str
    headers: Mapping[str, str]
    query: str
    session: Callable[[], Any]  # asking for it is using it
    asked: Any  # the request itself


class Answer(NamedTuple):
    """What a visitor gets."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def cache(self) -> str:
        return self.headers.get("x-cache", "")


def view_of(path: str, run: Callable[[str, Any], Any]) -> Any:
    """The view of a page."""

    def view() -> Response:
        query = request.query_string.decode()
        made = run(path, Seen(request.method, _lower(request.headers), query, lambda: session, request))
        response = Response(made.body, made.status, mimetype="text/plain")
        for name, value in made.headers:
            response.headers.add(name, value)
        return response

    view.__qualname__ = view.__name__ = f"page_{path[1:].replace('-', '_')}"
    return view


class FlaskDoor:
    """Flask with `CacheKit.cached`. ``run`` runs the page of a path."""

    name = "flask-cached"

    def __init__(self, pages: Mapping[str, Any], run: Callable[[str, Any], Any]) -> None:
        self.pages = pages
        self.run = run

    @contextmanager
    def open(self) -> Iterator[Callable[..., Answer]]:
        app, cache = Flask("door"), CacheKit()
        app.config["SECRET_KEY"] = "not a secret"
        for path in self.pages:
            view = cache.cached(timeout=TTL)(view_of(path, self.run))
            app.add_url_rule(path, view_func=view, methods=["GET", "POST"])
        cache.init_app(app)
        client = app.test_client(use_cookies=False)  # every request says itself who sends it

        def ask(path: str, method: str = "GET", **headers: str) -> Answer:
            found = {name.replace("_", "-"): value for name, value in headers.items()}
            base = f"http://{found.pop('host', 'localhost')}"
            with client.open(path, method=method, headers=found, base_url=base) as answer:
                return Answer(answer.status_code, _lower(answer.headers), answer.text)

        yield ask


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
