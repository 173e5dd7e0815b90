"""Regions as FastAPI dependencies; no request can choose one.

This module must not use ``from __future__ import annotations``: FastAPI before it unwrapped dependencies resolves
annotations that are strings in the globals of the callable, and an instance has none.
"""

import asyncio
import inspect
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, cast, overload

from starlette.requests import HTTPConnection

from cachekit.integrations.starlette import get_region
from cachekit.regions import Region


@dataclass(frozen=True, slots=True)
class RegionDependency:
    """Gives the region ``name`` of the application's service. Equal by name, so that it can be overridden:
    ``app.dependency_overrides[cache_region("users")] = ...``."""

    name: str

    async def __call__(self, connection: HTTPConnection) -> Region:
        return get_region(connection, self.name)


class CacheRegion(Protocol):
    """The type of `cache_region`."""

    @overload
    def __call__(self, name: str, /) -> RegionDependency: ...
    @overload
    def __call__(self, *, connection: HTTPConnection) -> Coroutine[Any, Any, Region]: ...


async def _default(connection: HTTPConnection) -> Region:
    return get_region(connection)


class _CacheRegion:
    """Both ``Depends(cache_region)`` and ``Depends(cache_region("users"))``.

    FastAPI makes request parameters of a dependency's signature. This one has the signature of `_default`, so neither
    use adds a parameter and no query can name another region.
    """

    __signature__ = inspect.signature(_default)
    __wrapped__ = staticmethod(_default)

    def __call__(self, connection: Any = None, /, **values: Any) -> Any:
        if isinstance(connection, str):
            return RegionDependency(connection)
        given: HTTPConnection = values.get("connection", connection)
        if _in_a_loop():
            return _default(given)
        return get_region(given)  # older FastAPI takes us for a plain function and calls from its thread pool

    def __repr__(self) -> str:
        return "cache_region"


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


cache_region = cast(CacheRegion, _CacheRegion())
"""The region ``default`` (``Depends(cache_region)``) or any other (``Depends(cache_region("users"))``) of the
application's service; without `CacheKit`, of the process's own."""
