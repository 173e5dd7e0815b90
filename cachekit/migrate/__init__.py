"""Rewrites the source of programs that use another cache: one module per peer, on what `module.py` offers.

A rule rewrites only what stays the same program. Everything else is left as it is, with a comment that says what a
human must decide.
"""

import ast
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Final

from cachekit.errors import CacheKitError

# The name of a peer, and the text without which a file has nothing of it.
PEERS: Final = {
    "lru_cache": b"functools",
    "cachetools": b"cachetools",
    "aiocache": b"aiocache",
    "dogpile": b"dogpile",
    "django-redis": b"django_redis",
    "flask-caching": b"flask_caching",
    "fastapi-cache": b"fastapi_cache",
}
NOTE: Final = "# cachekit: "  # begins every comment for a human
TOO_DEEP: Final = "an expression is nested too deeply to be looked at"


class NotPython(CacheKitError):
    """A file whose text is no Python; the message says where it goes wrong."""


def migrate(source: bytes, path: Path, peers: Collection[str] = tuple(PEERS)) -> bytes:
    """The source as it is with cachekit, or unchanged where nothing of these peers is in it.

    Raises:
        NotPython: It cannot be parsed.
        ImportError: LibCST is not installed.
    """
    for peer in PEERS:
        if peer in peers and PEERS[peer] in source:
            source = _rewritten(source, path, peer)
    return source


def _rewritten(source: bytes, path: Path, peer: str) -> bytes:
    import libcst  # an extra, and half a second

    from cachekit.migrate.module import Module

    body = _checked(source)
    try:
        module = Module(libcst.parse_module(source), body, path)
        import_module(f"cachekit.migrate.{peer.replace('-', '_')}").plan(module)
        return module.rewritten().bytes
    except libcst.ParserSyntaxError as error:
        raise NotPython(f"line {error.raw_line}: not the Python that LibCST knows") from None
    except RecursionError:
        raise NotPython(TOO_DEEP) from None


def _checked(source: bytes) -> ast.Module:
    """As Python itself reads it: LibCST's parser ends the process where brackets are nested without end."""
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise NotPython(f"line {error.lineno}: {error.msg}" if error.lineno else error.msg) from None
    except ValueError:
        raise NotPython("null bytes in a source") from None
    except (RecursionError, MemoryError):
        raise NotPython(TOO_DEEP) from None
