"""`memoize`: a function cached by its arguments, with the switches and attributes that Flask-Caching has."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from cachekit.engine.miss import MISS
from cachekit.engine.ports import drive
from cachekit.integrations.flask import signals
from cachekit.integrations.flask.askers import asker, stale_asker
from cachekit.integrations.flask.installation import Installation, Recipe
from cachekit.integrations.flask.timeouts import ttl_of
from cachekit.options import Options, check


class Switches(NamedTuple):
    """What is asked for each call."""

    timeout: Any = None
    unless: Callable[..., object] | None = None
    forced_update: Callable[..., object] | None = None
    is_stale: Callable[..., object] | None = None
    make_name: Callable[[str], str] | None = None


class Memoized:
    """One decorated function. ``here`` gives the installation of the current application."""

    def __init__(
        self, function: Callable[..., Any], options: dict[str, Any], profile: str, switches: Switches,
        here: Callable[[], Installation], cache: object,
    ) -> None:  # fmt: skip
        self.function = function
        self.named = function if switches.make_name is None else _renamed(function, switches.make_name)
        self.here = here
        self.cache = cache  # whom signals name
        self.timeout = switches.timeout
        self._options, self._profile = options, profile
        self.recipe = Recipe(self.named, self._checked(switches.timeout))
        self._other: tuple[Any, Recipe] | None = None  # for a timeout that was set later
        self.skip = asker("unless", switches.unless, function)
        self.forced = asker("forced_update", switches.forced_update, function)
        self.outdated = stale_asker(switches.is_stale)
        self.wrapper = self._wrapper()

    @staticmethod
    def check(options: dict[str, Any], profile: str, timeout: Any) -> Options:
        """The options, checked; reads no configuration."""
        return check({**options, **ttl_of(timeout)}, profile)

    def _checked(self, timeout: Any) -> Options:
        return self.check(self._options, self._profile, timeout)

    def _wrapper(self) -> Any:
        function = self.function
        if inspect.iscoroutinefunction(function):

            async def awaited(*args: Any, **kwargs: Any) -> Any:
                if self.skip is not None and self.skip(*args, **kwargs):
                    return await function(*args, **kwargs)
                return await self.call(args, kwargs, _awaited)

            made: Any = functools.wraps(function)(awaited)
        else:

            def called(*args: Any, **kwargs: Any) -> Any:
                if self.skip is not None and self.skip(*args, **kwargs):
                    return function(*args, **kwargs)
                here = self.here()
                if self.forced is None and self.outdated is None and not here.signals:
                    return here.cached(self.recipe_now())(*args, **kwargs)
                return drive(self.call(args, kwargs, _there))

            made = functools.wraps(function)(called)
        made.uncached, made.cache_timeout = function, self.timeout
        made.make_cache_key = self.key_of
        made.cachekit_memoized = self
        return made

    def recipe_now(self) -> Recipe:
        """The recipe for the timeout that the attribute ``cache_timeout`` says."""
        timeout = self.wrapper.cache_timeout
        if timeout is self.timeout:
            return self.recipe
        if self._other is None or self._other[0] != timeout:
            self._other = (timeout, Recipe(self.named, self._checked(timeout)))
        return self._other[1]

    async def call(self, args: tuple[Any, ...], kwargs: dict[str, Any], wait: Callable[[Any], Any]) -> Any:
        """A call that somebody wants to know more of than its value. ``wait`` is for what may have to be awaited."""
        here = self.here()
        cached = here.cached(self.recipe_now())
        forced = self.forced is not None and bool(self.forced(*args, **kwargs))
        value = MISS if forced else await wait(cached.peek(*args, **kwargs))
        if value is not MISS and self.outdated is not None:
            forced = bool(self.outdated(value, *args, **kwargs))
        hit = value is not MISS and not forced
        value = await wait(cached.refresh(*args, **kwargs) if forced else cached(*args, **kwargs))
        if here.signals:
            key = cached.key(*args, **kwargs)
            signals.of_memoize(here, self.cache, hit=hit, key=key, function=self.function, args=args, kwargs=kwargs)
        return value

    def key_of(self, function: Any = None, *args: Any, **kwargs: Any) -> Any:
        """The key of a call, for the methods of a region: ``f.make_cache_key(f.uncached, 7)``."""
        return self.here().cached(self.recipe_now()).key(*args, **kwargs)


async def _awaited(value: Any) -> Any:
    return await value


async def _there(value: Any) -> Any:
    return value


def _renamed(function: Callable[..., Any], make_name: Callable[[str], str]) -> Callable[..., Any]:
    """The function under another name, in keys and metrics."""
    name = make_name(function.__qualname__)
    if not isinstance(name, str) or not name:
        raise TypeError(f"make_name= must give a name, not {name!r}")
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        made: Any = awaited
    else:

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        made = called
    made.__signature__ = inspect.signature(function)
    made.__qualname__ = name
    made.__name__ = name.rpartition(".")[2]
    return made  # type: ignore[no-any-return]  # a function
