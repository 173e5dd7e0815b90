"""`cached()` as Flask-Caching has it by default, for ``flask_caching_defaults=True``: one page for everybody.

Kept are the pages of all visitors under the path alone, whatever they answer, and given to all.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException

from cachekit.context import current_entry
from cachekit.http.page import sorted_query
from cachekit.integrations.flask import signals, views
from cachekit.integrations.flask.askers import asker, stale_asker
from cachekit.integrations.flask.installation import Installation
from cachekit.integrations.flask.pages import Choices
from cachekit.integrations.flask.timeouts import seconds_of, ttl_of

logger = logging.getLogger("cachekit")


def warn(app: Flask) -> None:
    """Say once what the old defaults of an application expose."""
    logger.warning(
        "%s: flask_caching_defaults=True: cached() answers every visitor with what the first one got: requests with "
        "Authorization and cookies too, whatever the host, the method and, without query_string=True, the query; and "
        "it keeps errors and Set-Cookie, so that a session goes to others. Leave it out for pages that differ by "
        "visitor",
        app.name,
    )


class LegacyView:
    """One decorated view, or another function, under a key that is the path or a text."""

    def __init__(
        self, view: Callable[..., Any], choices: Choices, profile: str, here: Callable[[], Installation], cache: object
    ) -> None:
        self.view = view
        self.choices = choices
        self.profile = profile
        self.here = here
        self.cache = cache
        self.skip = asker("unless", choices.unless, view)
        self.forced = asker("forced_update", choices.forced_update, view)
        self.outdated = stale_asker(choices.is_stale)
        self.wrapper = self._wrapper()

    def _wrapper(self) -> Any:
        @functools.wraps(self.view)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if self.skip is not None and self.skip(*args, **kwargs):
                return current_app.ensure_sync(self.view)(*args, **kwargs)
            return self.respond(args, kwargs)

        made: Any = wrapper
        made.uncached, made.cache_timeout = self.view, self.choices.timeout
        made.make_cache_key = self.key_of
        made.cachekit_legacy = self
        return made

    def respond(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What is kept, or what the view answers."""
        is_view = views.is_view_of_request(views.current_context(), self.wrapper, args)
        here = self.here()
        region, key = here.region(self.profile), self.wrapper.make_cache_key(*args, **kwargs)
        mine: list[Any] = []

        def run() -> Any:
            value = self._run(args, kwargs, is_view, mine)
            mine.append(value)
            if self.choices.response_filter is not None and not self.choices.response_filter(value):
                current_entry().no_store()
            return self._frozen(value) if is_view else value

        if self._must_be_new(region, key, args, kwargs, is_view):
            region.delete(key)
        kept = region.get_or_set(key, run, **ttl_of(self.wrapper.cache_timeout))
        signals.of_view(here, self.cache, hit=not mine, key=key, args=args, kwargs=kwargs)
        if not is_view:
            return kept
        if mine:
            if isinstance(mine[0], HTTPException):
                raise mine[0]
            return mine[0]
        return self._given(kept)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any], is_view: bool, mine: list[Any]) -> Any:
        try:
            value = current_app.ensure_sync(self.view)(*args, **kwargs)
        except HTTPException as error:
            if not is_view:
                raise
            return error
        return current_app.make_response(value) if is_view else value

    def _frozen(self, value: Any) -> Any:
        response: Any = value.get_response(request.environ) if isinstance(value, HTTPException) else value
        if not views.is_whole(response):
            current_entry().no_store()
            return None
        ttl = seconds_of(getattr(response, "cachekit_timeout", None))
        if ttl is not None:
            current_entry().ttl = ttl
        return response.status_code, tuple(response.headers.items()), response.get_data()

    def _given(self, kept: Any) -> Response:
        if kept is None:  # another visitor's stream
            return current_app.make_response(self.view(**(request.view_args or {})))
        status, headers, body = kept
        response = current_app.response_class(body, status=status, headers=list(headers))
        if self.choices.response_hit_indication:
            response.headers["hit_cache"] = "True"
        return response

    def _must_be_new(self, region: Any, key: str, args: Any, kwargs: Any, is_view: bool) -> bool:
        """Whether what lies there is not to be given."""
        if self.forced is not None and self.forced(*args, **kwargs):
            return True
        kept = None if self.outdated is None else region.get(key)
        if self.outdated is None or kept is None:
            return False
        return bool(self.outdated(self._given(kept) if is_view else kept, *args, **kwargs))

    def key_of(self, *args: Any, path: str | None = None, query_args: Any = None, **kwargs: Any) -> str:
        """The key, of this request or of a path: a text for `CacheKit.delete` and the like."""
        if self.choices.make_cache_key is not None:
            return str(self.choices.make_cache_key(*args, **kwargs))
        prefix = self.choices.key_prefix
        text = str(prefix() if callable(prefix) else prefix)
        if "%s" in text:
            text = text.replace("%s", request.path if path is None else path)
        if self.choices.query_string:
            from cachekit.integrations.flask.pages import query_of

            query = request.query_string if path is None else query_of(query_args)
            text += f"?{sorted_query(query).decode('latin-1')}"
        return text
