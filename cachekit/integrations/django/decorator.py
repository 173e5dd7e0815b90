"""`cache_page`: what a view answers, kept by the shared HTTP policy and given again."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest

from cachekit.http.declared import Checked, checked_tags, rules_of, tags_of
from cachekit.http.policy import Rules
from cachekit.integrations.django.pages import Pages, PerUser, Tags, exchange_of, in_place

if TYPE_CHECKING:
    from cachekit.config.units import Duration

V = TypeVar("V", bound=Callable[..., Any])


def cache_page(
    ttl: "Duration | None" = None,
    *,
    profile: str = "default",
    vary: Iterable[str] = (),
    tags: Tags = (),
    per_user: PerUser | None = None,
    statuses: "Mapping[int, Duration] | None" = None,
    client_ttl: "Duration" = 0,
) -> Callable[[V], V]:
    """Keep what a view answers, sync or async, in place of Django's decorator of this name.

    Requests that show who sends them, by Authorization, a cookie, a session or a user, go around the cache, and
    responses that are not for everybody are not kept: with Set-Cookie, a CSRF token, messages, a CSP nonce, a session
    that was filled. The active language and time zone tell pages apart. ``invalidate()`` and ``ainvalidate()`` of the
    decorated view outdate all its pages.

    Args:
        ttl: For how long a page is fresh, in seconds or as "5m", unless the response says so itself (Cache-Control,
            Expires); without it, the profile's.
        profile: Where pages are kept, and how stale ones may be given when a view fails. Its limits on waiting do not
            apply, and nothing is computed behind a visitor: a view uses its request as long as it runs.
        vary: Names of request fields that tell pages apart, beside those that responses name in Vary.
        tags: Tags of every page, or a callable of the request that gives them.
        per_user: A callable of the request that says for whom the response is, for async views also an async one: with
            a str the page is kept for this user only, and Authorization, cookies and the session are allowed; with
            None or an empty one as if there were no ``per_user``.
        statuses: Errors that are kept, and for how long: ``{404: "30s"}``.
        client_ttl: For how long browsers may use a page without asking; 0 makes them ask each time, which a 304
            answers.

    Raises:
        ConfigError: A duration or a status that cannot be used.
        TypeError: A view in place of ``ttl``; when it is called, a view that is a method and was decorated without
            ``method_decorator``.
    """
    if callable(ttl):
        raise TypeError("cache_page takes options and gives a decorator: write @cache_page() with parentheses")
    rules = rules_of(ttl=ttl, vary=vary, statuses=statuses, client_ttl=client_ttl, per_user=per_user)
    kept = _Decorator(rules, profile, checked_tags(tags), per_user, by_profile=ttl is None)
    return cast(Callable[[V], V], kept)


class _Decorator:
    """One `cache_page(...)`. Of a method it is given another function for each request, so pages go by its name."""

    def __init__(
        self, rules: Rules, profile: str, tags: Checked, per_user: PerUser | None, *, by_profile: bool
    ) -> None:
        self.tags = tags
        self.per_user = per_user
        self._make = partial(Pages, rules=rules, profile=profile, by_profile=by_profile)
        self._pages: dict[tuple[str, str, bool], Pages] = {}

    def __call__(self, view: Any) -> Any:
        pages = self._pages_of(view)

        def wrapper(request: Any, *args: Any, **kwargs: Any) -> Any:
            return in_place(self._respond(pages, view, request, args, kwargs), is_async=pages.is_async)

        made: Any = functools.wraps(view)(wrapper)
        made.invalidate, made.ainvalidate = pages.clear, pages.aclear
        return markcoroutinefunction(made) if pages.is_async else made

    def _pages_of(self, view: Any) -> Pages:
        if inspect.isclass(view) or not callable(view):
            raise TypeError("cache_page works on views; for a class write @method_decorator(cache_page(), 'dispatch')")
        named = getattr(view, "view_class", view)  # of `as_view`
        named = named if hasattr(named, "__qualname__") else type(named)
        key = named.__module__, named.__qualname__, _is_async(view)
        found = self._pages.get(key)
        return found or self._pages.setdefault(key, self._make(key[0], key[1], is_async=key[2]))

    async def _respond(self, pages: Pages, view: Any, given: Any, args: Any, kwargs: Any) -> Any:
        request = getattr(given, "_request", given)  # Django REST framework has one of its own around it
        if not isinstance(request, HttpRequest):
            raise TypeError(
                f"cache_page of {pages.name} was given no request; of a method write @method_decorator(cache_page(...))"
            )
        user = await pages.user(self.per_user, request)
        own = request is given
        exchange = exchange_of(pages.is_async)(
            request,
            partial(view if own else _finishing(view), given, *args, **kwargs),
            user=user,
            errors=pages.statuses if own else frozenset(),  # the framework makes another page of them than Django
        )
        return await pages.respond(exchange, lambda: tags_of(self.tags, request))


def _is_async(view: Any) -> bool:
    """Whether a view, or what ``method_decorator`` makes of a method, gives something to be awaited. The `dispatch` of
    an async class is no coroutine function, and returns what its handler returns."""
    instance = getattr(getattr(view, "func", None), "__self__", None)
    return iscoroutinefunction(view) or bool(getattr(instance, "view_is_async", False))


def _finishing(method: Any) -> Any:
    """A method of a view of Django REST framework, which has to finish a response before it can be rendered."""

    def finished(request: Any, *args: Any, **kwargs: Any) -> Any:
        response = method(request, *args, **kwargs)
        return request.parser_context["view"].finalize_response(request, response, *args, **kwargs)

    return finished
