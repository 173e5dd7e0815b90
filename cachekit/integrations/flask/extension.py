"""`CacheKit`: the extension object, with the names that users of Flask-Caching know.

It keeps no application and no configuration, so one object serves any number of applications; `flask.current_app` says
which one is meant.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, ParamSpec, TypeVar
from weakref import WeakSet

from flask import Flask, current_app

from cachekit.engine.outcome import Outcome
from cachekit.errors import ConfigError
from cachekit.integrations.flask import commands, fragments, legacy
from cachekit.integrations.flask.askers import versioned
from cachekit.integrations.flask.installation import EXTENSION, Config, Entrance, Installation, Recipe
from cachekit.integrations.flask.legacy import LegacyView
from cachekit.integrations.flask.memoized import Memoized, Switches
from cachekit.integrations.flask.pages import REFUSED, CachedView, Choices
from cachekit.integrations.flask.timeouts import ttl_of
from cachekit.regions import Key, Region

P = ParamSpec("P")
R = TypeVar("R")

FOREIGN: Final = "cache"  # where Flask-Caching is found in app.extensions


class CacheKit:
    """The cache of Flask applications.

    ``CacheKit(app)``, or ``cache = CacheKit()`` and later ``cache.init_app(app)``. Everything but the decorators needs
    an application context, which every request has.

    Args:
        app: The application, if it exists already.
        config: A configuration file's path, or a dict shaped like the file: a service for these applications only, in
            place of all that ``app.config`` says. ``cachekit.cache`` functions stay with the process's own service.
            A dict may also have the keys of Flask-Caching, ``CACHE_TYPE`` and so on, as ``app.config`` may.
        with_jinja2_ext: Whether templates have the tag ``{% cache %}``.
        flask_caching_defaults: Whether `cached` is as unsafe as Flask-Caching's: one page for all visitors of a path,
            with errors and cookies. Not for views with an option that Flask-Caching does not have, beside ``profile``.
            For a switch in steps; each application is warned once.
    """

    def __init__(
        self, app: Flask | None = None, with_jinja2_ext: bool = True, config: Config = None, *,
        flask_caching_defaults: bool = False,
    ) -> None:  # fmt: skip
        self._config = config
        self._with_jinja2_ext = with_jinja2_ext
        self._as_flask_caching = flask_caching_defaults
        self.keeps_pages = False  # whether any view is cached
        self._recipes: WeakSet[Recipe] = WeakSet()
        self._old_views: WeakSet[LegacyView] = WeakSet()
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
        for old in list(self._old_views):
            installation.check(old.view, old.profile)
        installation.start(self._recipes)
        app.extensions[EXTENSION] = installation
        if isinstance(there := app.extensions.setdefault(FOREIGN, {}), dict):
            there[self] = self
        self._installations.add(installation)
        app.wsgi_app = Entrance(app, installation)  # type: ignore[method-assign]  # the way Flask documents
        if self._with_jinja2_ext:
            app.jinja_env.add_extension(fragments.FragmentCache)
        app.cli.add_command(commands.cachekit)
        if self._as_flask_caching:
            legacy.warn(app)

    def _here(self) -> Installation:
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # a LocalProxy
        there = app.extensions.get(EXTENSION)
        if not isinstance(there, Installation) or there.kit is not self:
            raise ConfigError(f"this CacheKit is not installed in {app.name}; call init_app(app)")
        return there

    @property
    def cache(self) -> "CacheKit":
        """Where Flask-Caching has its backend: an object with `get`, `set` and so on."""
        return self

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
        return self.region().add(key, value, **ttl_of(timeout))

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
        failed = self.region().set_many(mapping, **ttl_of(timeout))
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
        make_name: Callable[[str], str] | None = None,
        unless: Callable[..., object] | None = None,
        forced_update: Callable[..., object] | None = None,
        is_stale: Callable[..., object] | None = None,
        response_filter: Callable[[Any], object] | None = None,
        hash_method: object = None,
        cache_none: bool | None = None,
        source_check: bool | None = None,
        args_to_ignore: Iterable[str] | None = None,
        *,
        profile: str = "default",
        **options: Any,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Cache a function by its arguments.

        Args:
            timeout: Seconds, a duration like "5m", or a callable of the value; 0 is for ever, None the profile's ttl.
            make_name: Called with the function's name; what it gives stands in keys and metrics instead.
            unless: Called for each call, with the function and its arguments or with nothing; if true, the function
                runs and nothing is read or stored.
            forced_update: Called likewise; if true, the function runs and what it gives is stored.
            is_stale: Called with the kept value, and the arguments if it takes any; if true, likewise.
            response_filter: Called with the value; if false, it is not stored.
            hash_method: Has no effect: keys are hashed with BLAKE2.
            cache_none: False if None is not to be stored.
            source_check: Whether a change of the function's source leaves its old entries behind.
            args_to_ignore: Names of parameters that do not matter.
            profile: The region.
            options: Other options of `cachekit.cache`: ``tags``, ``key``, ``version`` and so on.
        """
        if "ttl" in options:
            raise TypeError("ttl= is called timeout= in memoize()")
        if args_to_ignore is not None:
            options["ignore"] = args_to_ignore
        if response_filter is not None:
            options["condition"] = response_filter
        if cache_none is not None or self._as_flask_caching:
            options["cache_none"] = bool(cache_none)
        switches = Switches(timeout, unless, forced_update, is_stale, make_name)
        Memoized.check(options, profile, timeout)

        def decorator(function: Any) -> Any:
            _refuse_to_memoize(function)
            own = {**options, "version": versioned(function, options.get("version"), bool(source_check))}
            made = Memoized(function, own, profile, switches, self._here, self)
            made.wrapper.delete_memoized = lambda *args, **kwargs: self.delete_memoized(made.wrapper, *args, **kwargs)
            self._register(made.wrapper, made.recipe)
            return made.wrapper

        return decorator

    def delete_memoized(self, f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Forget what one call of a memoized function gave, or all its calls if no argument is given.

        The result is an `Outcome`; of an async function, an awaitable one.
        """
        if inspect.ismethod(f):
            if args or kwargs:
                args = (f.__self__, *args)
            f = f.__func__
        recipe, memoized = self._recipe(f, "memoized"), getattr(f, "cachekit_memoized", None)
        cached = self._here().cached(recipe if memoized is None else memoized.recipe_now())
        return cached.invalidate(*args, **kwargs) if args or kwargs else cached.invalidate_all()

    def delete_memoized_verhash(self, f: Callable[..., Any], *_: Any) -> Any:
        """Forget what all calls of a memoized function gave."""
        return self.delete_memoized(f)

    # Views

    def cached(
        self,
        timeout: Any = None,
        key_prefix: str | Callable[[], object] = "view/%s",
        unless: Callable[..., object] | None = None,
        forced_update: Callable[..., object] | None = None,
        is_stale: Callable[..., object] | None = None,
        response_filter: Callable[[Any], object] | None = None,
        query_string: bool | None = None,
        hash_method: object = None,
        cache_none: object = None,
        make_cache_key: Callable[..., object] | None = None,
        source_check: bool | None = None,
        response_hit_indication: bool | None = False,
        *,
        profile: str = "default",
        tags: Any = (),
        vary: Iterable[str] = (),
        per_user: Callable[[Any], Any] | None = None,
        statuses: Mapping[int, Any] | None = None,
        client_ttl: Any = 0,
        **options: Any,
    ) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
        """Cache what a view function answers. Goes below ``@app.route``.

        GET and HEAD requests without Authorization, cookie, body and use of the session are answered from the cache;
        complete responses are kept that are for everybody: no errors, no Set-Cookie, no ``private``. All others go
        through. Scheme, host, path and query, in order of its names, tell pages apart, and so do the request fields
        that a response names in Vary. Answers carry ETag, Age, X-Cache and Cache-Status.

        Args:
            timeout: Seconds or a duration like "5m"; 0 is for ever, None the profile's ttl. What a response says
                itself (Cache-Control, Expires, `CachedResponse`) stands above it.
            key_prefix: What else tells responses apart: a text, or a callable that gives one for each request.
            unless: Called for each request, with the view and its arguments or with nothing; if true, the view runs
                and nothing is read or stored.
            forced_update: Called likewise; if true, the view runs and its response is stored.
            is_stale: Called with the kept response, and the view's arguments if it takes any; if true, likewise.
            response_filter: Called with what the view returned; if false, it is not stored.
            query_string: False if the query does not matter.
            hash_method: Has no effect: keys are hashed with BLAKE2 and SHA-256.
            cache_none: Has no effect: a view that returns None is an error of Flask.
            make_cache_key: Called with the view's arguments; what it gives stands in place of path and query.
            source_check: Whether a change of the view's source leaves its old pages behind.
            response_hit_indication: Whether pages from the cache have the field ``hit_cache: True``.
            profile: The region. Its limits on waiting do not apply, since a view uses its request as long as it runs.
            tags: Tags of every page, or a callable of the request that gives them.
            vary: Names of request fields that tell pages apart, beside those that responses name in Vary.
            per_user: A callable of the request that says for whom the response is: with a str the page is kept for
                this user only, and Authorization, cookies and the session are allowed; with None or an empty one as if
                there were no ``per_user``.
            statuses: Errors that are kept, and for how long: ``{404: "30s"}``.
            client_ttl: For how long browsers may use a page without asking; 0 makes them ask each time, which a 304
                answers.
            options: Fields of a profile, such as ``stale_ttl`` and ``swr``, and ``version``.
        """
        if callable(timeout) or callable(options.get("ttl")):
            raise TypeError("timeout= of cached() cannot be a callable; write @cache.cached() with parentheses")
        if "ttl" in options:
            raise TypeError("ttl= is called timeout= in cached()")
        for option in sorted(options.keys() & REFUSED):
            raise TypeError(f"{option}= does not go with cached()")
        safe = not self._as_flask_caching or bool(tags or vary or per_user or statuses or client_ttl or options)
        wanted = safe if query_string is None else query_string
        choices = Choices(
            timeout, key_prefix, unless, forced_update, is_stale, response_filter, wanted, make_cache_key,
            bool(source_check), bool(response_hit_indication), tags, vary, per_user, statuses, client_ttl,
        )  # fmt: skip
        CachedView.check(choices, profile, options)

        def decorator(view: Callable[P, Any]) -> Callable[P, Any]:
            if not safe:
                return self._as_before(view, choices, profile)
            made = CachedView(view, choices, profile, dict(options), self._here, self)
            self._register(made.wrapper, made.recipe)
            self.keeps_pages = True
            return made.wrapper  # type: ignore[no-any-return]  # with attributes of its own

        return decorator

    def _as_before(self, view: Callable[P, Any], choices: Choices, profile: str) -> Callable[P, Any]:
        """A view as Flask-Caching has it by default."""
        made = LegacyView(view, choices, profile, self._here, self)
        for installation in list(self._installations):
            installation.check(view, profile)
        self._old_views.add(made)
        return made.wrapper  # type: ignore[no-any-return]  # with attributes of its own

    def delete_cached(self, f: Callable[..., Any], path: str | None = None, query_args: Any = None) -> Outcome:
        """Forget every response of a cached view, or those at a path.

        Args:
            f: The decorated view.
            path: A path without the mount point, as in ``request.path``; its pages on every host, of every user and
                every query.
            query_args: Has no effect, since all queries of the path are forgotten.
        """
        old: LegacyView | None = getattr(f, "cachekit_legacy", None)
        if old is not None:
            region = self._here().region(old.profile)
            return region.delete(f.make_cache_key(path=path, query_args=query_args))  # type: ignore[attr-defined]
        view = self._recipe(f, "cached"), getattr(f, "cachekit_view", None)
        if path is not None and view[1] is not None:
            return self._here().outdate([view[1].path_tag(path)])
        outcome: Outcome = self._here().cached(view[0]).invalidate_all()
        return outcome

    def _register(self, wrapper: Any, recipe: Recipe) -> None:
        """Remember what was decorated, and check it if there is an application to check it against."""
        for installation in list(self._installations):
            installation.check(recipe.fn, recipe.options.profile)
        wrapper.cachekit_recipe = recipe  # and on whatever wraps it with functools.wraps
        self._recipes.add(recipe)

    def _recipe(self, f: Any, how: str) -> Recipe:
        recipe: Recipe | None = getattr(f, "cachekit_recipe", None)
        if recipe is None or recipe not in self._recipes:
            name = getattr(f, "__qualname__", repr(f))
            raise TypeError(f"{name} is not {how} by this CacheKit; give the decorated function itself")
        return recipe


Cache = CacheKit


def _refuse_to_memoize(function: Any) -> None:
    if not callable(function) and not isinstance(function, classmethod):
        raise TypeError("memoize() decorates functions; write @cache.memoize() with parentheses")
    if isinstance(function, classmethod | staticmethod):
        raise TypeError("@memoize goes below @classmethod and @staticmethod, next to the function")
