"""Whether a response has background tasks, which ASGI does not tell: they are just what an application does next."""

import functools
from contextvars import ContextVar
from typing import Any, Final, Protocol

from starlette.background import BackgroundTask


class Watcher(Protocol):
    """Who must know."""

    def has_background(self) -> None: ...


WATCHER: Final[ContextVar[Watcher | None]] = ContextVar("cachekit_background", default=None)


def watch() -> None:
    """Have the `WATCHER` of a context told when a background task begins in it. A second time does nothing.

    Starlette offers no place for that, so the method that begins them is replaced by one that tells first. To judge by
    time would not do: what ends a dependency or a middleware after the last byte may take longer than a short task.
    """
    begin = BackgroundTask.__call__
    if hasattr(begin, "__cachekit__"):
        return

    @functools.wraps(begin)
    async def told(self: BackgroundTask) -> Any:
        watcher = WATCHER.get()
        if watcher is not None:
            watcher.has_background()
        return await begin(self)

    told.__cachekit__ = True  # type: ignore[attr-defined]
    BackgroundTask.__call__ = told  # type: ignore[method-assign]
