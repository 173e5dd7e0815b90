"""`CacheKit`: the extension object, with the names that users of Flask-Caching know.

It keeps no application and no configuration, so one object serves any number of applications; `flask.current_app` says
which one is meant.
"""

import functools
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, ParamSpec, TypeVar
from weakref import WeakSet

from flask import Flask, current_app, request

from cachekit.engine.outcome import Outcome
from cachekit.errors import ConfigError
from cachekit.integrations.flask import views
from cachekit.integrations.flask.installation import EXTENSION, Config, FirstRequest, Installation, Recipe
from cachekit.options import check
from cachekit.regions import Key, Region

P = ParamSpec("P")
R = TypeVar("R")

# Options of Flask-Caching's decorators that have no counterpart here yet.
LATER_MEMOIZE: Final = frozenset({"forced_update", "hash_method", "is_stale", "make_name", "source_check"})
LATER_CACHED: Final = LATER_MEMOIZE - {"make_name"} | {
    "cache_none", "make_cache_key", "response_filter", "response_hit_indication",
}  # fmt: skip

NOT_A_VIEW: Final = (
    "not cached, since it is not the view of this request: cached() is for view functions, and decorators above it "
    "must use functools.wraps; for other functions there is memoize()"
)

logger = logging.getLogger("cachekit")


class CacheKit:
    """The cache of Flask applications.

    ``CacheKit(app)``, or ``cache = CacheKit()`` and later ``cache.init_app(app)``. Everything but the decorators needs
    an application context, which every request has.

    Args:
        app: The application, if it exists already.
        config: A configuration file's path, or a dict shaped like the file: a service for these applications only, in
            place of all that ``app.config`` says. ``cachekit.cache`` functions stay with the process's own service.
    """

    def __init__(self, app: Flask | None = None, *, config: Config = None) -> None:
        self._config = config
        self._recipes: WeakSet[Recipe] = WeakSet()
        self._installations: WeakSet[Installation] = WeakSet()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, config: Config = None) -> None:
        """Install into an application. A second time does nothing.

        Raises:
            ConfigError: The configuration is wrong, a decorated function names an unknown profile, or the application
                has another `CacheKit`, or this one with another ``config``.
        """
        config = self._config if config is None else config
        there = app.extensions.get(EXTENSION)
        if there is not None:
            if not isinstance(there, Installation) or there.kit is not self:
                raise ConfigError("another CacheKit is installed in this application; install one, with one config=")
            if config is not None and there.config != config:
                raise ConfigError("this CacheKit is installed in this application already, with another config=")
            return
        installation = Installation(self, app, config)
        installation.start(self._recipes)
        app.extensions[EXTENSION] = installation
        self._installations.add(installation)
        app.wsgi_app = FirstRequest(app, installation)  # type: ignore[method-assign]  # the way Flask documents

    def _here(self) -> Installation:
        there = current_app.extensions.get(EXTENSION)
        if not isinstance(there, Installation) or there.kit is not self:
            raise ConfigError(f"this CacheKit is not installed in {current_app.name}; call init_app(app)")
        return there

    # Keys and values

    def region(self, name: str = "default") -> Region:
        """The region of this name of the current application; the methods below use the region ``default``."""
        return self._here().region(name)

    def get(self, key: Key) -> Any:
        """The value, or None."""
        return self.region().get(key)

    def set(self, key: Key, value: Any, timeout: Any = None) -> bool:
        """Store a value for ``timeout`` seconds or a duration like "5m", 0 for ever, None as long as the profile says;
        whether it was stored."""
        return bool(self.set_many({key: value}, timeout))

    def add(self, key: Key, value: Any, timeout: Any = None) -> bool:
        """Store only if there is no value; whether it was stored."""
        return self.region().add(key, value, **_ttl(timeout))

    def has(self, key: Key) -> bool:
        """Whether there is a value. It may be gone by the time you ask for it: prefer `get`."""
        return key in self.region().get_many([key])

    def delete(self, key: Key) -> bool:
        """Remove a value; False if a server could not be told, and will be later."""
        return self.region().delete(key) is Outcome.DONE

    def get_many(self, *keys: Key) -> list[Any]:
        """The values in the order of the keys, None where there is none."""
        found = self.get_dict(*keys)
        return [found[key] for key in keys]

    def get_dict(self, *keys: Key) -> dict[Key, Any]:
        """The values by key, None where there is none."""
        return {**dict.fromkeys(keys), **self.region().get_many(keys)}

    def set_many(self, mapping: Mapping[Any, Any], timeout: Any = None) -> list[Any]:
        """Store several values; the keys that were stored."""
        failed = self.region().set_many(mapping, **_ttl(timeout))
        return [key for key in mapping if key not in failed]

    def delete_many(self, *keys: Key) -> list[Key]:
        """Remove several values; the keys, or none if a server could not be told, and will be later."""
        return list(keys) if self.region().delete_many(keys) is Outcome.DONE else []

    unlink = delete_many

    def clear(self) -> bool:
        """Remove everything in the region ``default``, entries of decorated functions included, and nothing else on the
        server; False if a server could not be told, and will be later."""
        return self.region().clear() is Outcome.DONE

    # Functions

    def memoize(
        self,
        timeout: Any = None,
        *,
        unless: Callable[..., object] | None = None,
        args_to_ignore: Iterable[str] | None = None,
        response_filter: Callable[[Any], object] | None = None,
        profile: str = "default",
        **options: Any,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Cache a function by its arguments.

        Args:
            timeout: Seconds, a duration like "5m", or a callable of the value; 0 is for ever, None the profile's ttl.
            unless: Called for each call, with the function and its arguments or with nothing; if true, the function
                runs and nothing is read or stored.
            args_to_ignore: Names of parameters that do not matter.
            response_filter: Called with the value; if false, it is not stored.
            profile: The region.
            options: Other options of `cachekit.cache`: ``tags``, ``key``, ``version``, ``cache_none`` and so on.
        """
        _refuse("memoize", options, LATER_MEMOIZE)
        if args_to_ignore is not None:
            options["ignore"] = args_to_ignore
        if response_filter is not None:
            options["condition"] = response_filter
        checked = check({**options, **_ttl(timeout)}, profile)
        return lambda function: self._memoized(function, Recipe(function, checked), unless)

    def _memoized(self, function: Any, recipe: Recipe, unless: Any) -> Any:
        if not callable(function) and not isinstance(function, classmethod):
            raise TypeError("memoize() decorates functions; write @cache.memoize() with parentheses")
        if isinstance(function, classmethod | staticmethod):
            raise TypeError("@memoize goes below @classmethod and @staticmethod, next to the function")
        skip = _asker(unless, function)

        def call(*args: Any, **kwargs: Any) -> Any:
            if skip is not None and skip(*args, **kwargs):
                return function(*args, **kwargs)
            return self._here().cached(recipe)(*args, **kwargs)

        if inspect.iscoroutinefunction(function):

            async def awaited(*args: Any, **kwargs: Any) -> Any:
                return await call(*args, **kwargs)

            wrapper: Any = functools.wraps(function)(awaited)
        else:
            wrapper = functools.wraps(function)(call)
        wrapper.uncached = function
        wrapper.delete_memoized = functools.partial(self.delete_memoized, wrapper)
        self._register(wrapper, recipe)
        return wrapper

    def delete_memoized(self, f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Forget what one call of a memoized function gave, or all its calls if no argument is given.

        The result is an `Outcome`; of an async function, an awaitable one.
        """
        if inspect.ismethod(f):
            if args or kwargs:
                args = (f.__self__, *args)
            f = f.__func__
        cached = self._here().cached(self._recipe(f, "memoized"))
        return cached.invalidate(*args, **kwargs) if args or kwargs else cached.invalidate_all()

    # Views

    def cached(
        self,
        timeout: Any = None,
        key_prefix: str | Callable[[], object] = "view/%s",
        unless: Callable[..., object] | None = None,
        query_string: bool = True,
        *,
        profile: str = "default",
        **options: Any,
    ) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
        """Cache what a view function answers. Goes below ``@app.route``.

        Only GET and HEAD requests without Authorization, cookie, body and use of the session are answered from the
        cache, and only complete responses of status 200 without Set-Cookie, Vary, Content-Encoding and a
        Cache-Control that forbids it are stored. All others go through as if the decorator were not there. Method,
        scheme, host, path and query, in order of its names, are part of the key.

        Args:
            timeout: Seconds or a duration like "5m"; 0 is for ever, None the profile's ttl.
            key_prefix: What else tells responses apart: a text, or a callable that gives one for each request.
            unless: Called for each request, with the view and its arguments or with nothing; if true, the view runs
                and nothing is read or stored.
            query_string: False if the query does not matter.
            profile: The region.
            options: Other options of `cachekit.cache` that go with views: ``tags`` (an iterable), ``version``, ``l1``
                and other fields of a profile.
        """
        _refuse("cached", options, LATER_CACHED)
        if callable(timeout) or callable(options.get("tags")):
            raise TypeError(
                "timeout= and tags= of cached() cannot be callables; write @cache.cached() with parentheses"
            )
        for option in sorted(options.keys() & {"key", "ignore", "condition"}):
            raise TypeError(f"{option}= does not go with cached()")
        checked = check({**options, **_ttl(timeout), "ignore": ("run",)}, profile)

        def decorator(view: Callable[P, Any]) -> Callable[P, Any]:
            recipe = Recipe(views.loader(view), checked)
            skip = _asker(unless, view)
            told: set[str] = set()

            @functools.wraps(view)
            def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
                def run() -> Any:
                    return current_app.ensure_sync(view)(*args, **kwargs)

                if not views.is_view_of_request(wrapper, args):
                    _tell(told, NOT_A_VIEW, view)
                    return run()
                if request.method not in ("GET", "HEAD") or _has_body() or (skip and skip(*args, **kwargs)):
                    return run()
                personal = views.why_personal(request)
                if personal:
                    _tell(told, f"requests are answered without the cache when {personal}", view)
                    return run()
                prefix = str(key_prefix() if callable(key_prefix) else key_prefix)
                page = views.page_of(request, prefix, query_string=query_string)
                return views.answer(self._here().cached(recipe), page, run)

            wrapper.uncached = view  # type: ignore[attr-defined]
            self._register(wrapper, recipe)
            return wrapper

        return decorator

    def delete_cached(self, f: Callable[..., Any]) -> Outcome:
        """Forget every response of a cached view."""
        outcome: Outcome = self._here().cached(self._recipe(f, "cached")).invalidate_all()
        return outcome

    def _register(self, wrapper: Any, recipe: Recipe) -> None:
        """Remember what was decorated, and check it if there is an application to check it against."""
        for installation in list(self._installations):
            installation.check(recipe)
        wrapper.cachekit_recipe = recipe  # and on whatever wraps it with functools.wraps
        self._recipes.add(recipe)

    def _recipe(self, f: Any, how: str) -> Recipe:
        recipe: Recipe | None = getattr(f, "cachekit_recipe", None)
        if recipe is None or recipe not in self._recipes:
            name = getattr(f, "__qualname__", repr(f))
            raise TypeError(f"{name} is not {how} by this CacheKit; give the decorated function itself")
        return recipe


Cache = CacheKit


def _ttl(timeout: Any) -> dict[str, Any]:
    """Flask's timeout as our option: 0 is for ever, None the profile's."""
    if timeout is None:
        return {}
    return {"ttl": None if timeout == 0 and not isinstance(timeout, bool) else timeout}


def _refuse(name: str, options: Mapping[str, Any], later: Iterable[str]) -> None:
    for option in sorted(options.keys() & later):
        raise ConfigError(f"{option}=: not yet available in this version")
    if "ttl" in options:
        raise TypeError(f"ttl= is called timeout= in {name}()")


def _asker(unless: Any, function: Callable[..., Any]) -> Callable[..., object] | None:
    """`unless`, as something that takes the arguments of a call."""
    if unless is None:
        return None
    if not callable(unless):
        raise TypeError(f"unless= must be callable, not {type(unless).__name__}")
    if inspect.signature(unless).parameters:
        return functools.partial(unless, function)
    return lambda *args, **kwargs: unless()


def _has_body() -> bool:
    return bool(request.content_length) or "Transfer-Encoding" in request.headers


def _tell(told: set[str], reason: str, view: Callable[..., Any]) -> None:
    """Once per view and reason: that a page is never cached should not remain a riddle."""
    if reason not in told:
        told.add(reason)
        logger.warning("%s at %s: %s", getattr(view, "__qualname__", view), request.url_rule, reason)
