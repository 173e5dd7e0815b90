"""Methods written once, as coroutines over a port, and offered in both kinds: ``ttl`` blocks, ``attl`` is awaited."""

import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any

from cachekit.engine.ports import drive

Body = Callable[..., Coroutine[Any, Any, Any]]


class both:
    """``@both async def name(self, port, ...)`` gives a class the methods ``name(...)`` and ``aname(...)``."""

    def __init__(self, body: Body) -> None:
        self.body = body

    if TYPE_CHECKING:

        def __get__(self, instance: object, owner: type | None = None) -> Callable[..., Any]: ...

    def __set_name__(self, owner: type, name: str) -> None:
        body = self.body

        @wraps(body)
        def blocking(self: Any, *args: Any, **kwargs: Any) -> Any:
            return drive(body(self, self.region.service.sync_port, *args, **kwargs))

        @wraps(body)
        async def awaited(self: Any, *args: Any, **kwargs: Any) -> Any:
            return await body(self, self.region.service.async_port, *args, **kwargs)

        awaited.__name__, awaited.__qualname__ = f"a{name}", f"{owner.__qualname__}.a{name}"
        awaited.__doc__ = f"As `{name}`."
        for method in (blocking, awaited):
            setattr(method, "__signature__", _without_port(body))  # noqa: B010  # mypy knows no such attribute
            setattr(owner, method.__name__, method)


def _without_port(body: Body) -> inspect.Signature:
    signature = inspect.signature(body)
    return signature.replace(parameters=[each for each in signature.parameters.values() if each.name != "port"])
