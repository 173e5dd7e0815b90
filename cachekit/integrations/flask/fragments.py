"""Fragments of templates: ``{% cache 60, "sidebar", user.id %}...{% endcache %}``."""

import threading
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any

from flask import current_app
from jinja2 import Environment, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from cachekit.integrations.flask.installation import EXTENSION
from cachekit.integrations.flask.timeouts import ttl_of

DELETE = "del"  # in place of a timeout


def make_template_fragment_key(fragment_name: str, vary_on: Iterable[Any] | None = None) -> str:
    """The key of a fragment, for `CacheKit.delete` and the like.

    Args:
        fragment_name: The first key in the tag.
        vary_on: The others.
    """
    parts = [str(fragment_name), *map(str, vary_on or ())]
    digest = sha256("".join(f"{len(part)}:{part}" for part in parts).encode("utf-8", "surrogatepass"))
    return f"template-fragment:{digest.hexdigest()[:32]}"


class _Reading(threading.local):
    """The template that a thread reads."""

    source = ""
    tags = 0  # found so far


class FragmentCache(Extension):
    """The tag ``cache``: a timeout, then what tells fragments apart.

    The timeout is in seconds or a duration; 0 is for ever, None what the profile says, ``'del'`` removes what is kept.
    Without a key the place in the template is the key: its line, and which of the template's tags it is.
    """

    tags = {"cache"}  # noqa: RUF012  # as Jinja declares it

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._reading = _Reading()

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Called when a template begins to be read."""
        self._reading.source, self._reading.tags = source, 0
        return source

    def parse(self, parser: Parser) -> nodes.Node:
        """What becomes of the tag."""
        line = next(parser.stream).lineno
        place = nodes.Const(self._place(parser, line))
        given: list[nodes.Expr] = []
        while parser.stream.current.type != "block_end":
            if given:
                parser.stream.skip_if("comma")
            given.append(parser.parse_expression())
        timeout = given[0] if given else nodes.Const(None)
        keys = given[1:] or [place]
        body = parser.parse_statements(("name:endcache",), drop_needle=True)
        call = self.call_method("_fragment", [timeout, nodes.List(keys)])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _place(self, parser: Parser, line: int) -> str:
        self._reading.tags += 1
        named = f"{parser.filename or ''}:{parser.name or ''}"
        if not parser.name:  # any template may be without one
            named = sha256(self._reading.source.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{named}:{line}:{self._reading.tags}"

    def _fragment(self, timeout: Any, keys: list[Any], caller: Callable[[], str]) -> str:
        region = current_app.extensions[EXTENSION].region("default")
        key = make_template_fragment_key(keys[0], keys[1:])
        if timeout == DELETE:
            region.delete(key)
            return caller()
        text = region.get_or_set(key, lambda: str(caller()), **ttl_of(timeout))
        return str(text)
