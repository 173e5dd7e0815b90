"""Signals of blinker with the names and arguments of Flask-Caching's; sent if ``CACHE_ENABLE_SIGNALS`` is true."""

from typing import Any

from blinker import Namespace

_signals = Namespace()

cache_view_hit = _signals.signal("cachekit-view-hit")
cache_view_miss = _signals.signal("cachekit-view-miss")
cache_memoize_hit = _signals.signal("cachekit-memoize-hit")
cache_memoize_miss = _signals.signal("cachekit-memoize-miss")


def of_view(installation: Any, cache: object, *, hit: bool, key: Any, args: Any, kwargs: Any) -> None:
    """A page was kept, or its view has run."""
    if installation.signals:
        signal = cache_view_hit if hit else cache_view_miss
        signal.send(cache=cache, cache_key=key, args=args, kwargs=kwargs)


def of_memoize(installation: Any, cache: object, *, hit: bool, key: Any, function: Any, args: Any, kwargs: Any) -> None:
    """A value was kept, or its function has run."""
    if installation.signals:
        signal = cache_memoize_hit if hit else cache_memoize_miss
        signal.send(cache=cache, cache_key=key, f=function, args=args, kwargs=kwargs)
