"""Django's ASGI application, told when the server stops: what the process still holds is delivered before it ends."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from django.core.asgi import get_asgi_application as of_django

from cachekit.process import aclose

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]


def get_asgi_application() -> Application:
    """In ``asgi.py``, in place of Django's function of this name.

    Django's application knows no lifespan, and uvicorn lets SIGTERM end its workers without running the exit handlers
    of Python: queued invalidations and the last second of metrics would be lost. This one delivers them first.
    """
    django = of_django()

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await django(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await aclose()
        await send({"type": "lifespan.shutdown.complete"})

    return application
