"""Requests of WSGI, and of what looks like it, as the policy sees them."""

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

_NAMES: Final = {"etag": "ETag", "www-authenticate": "WWW-Authenticate"}
_KEPT_AS_IT_IS: Final = "!$&'()*+,;=:@/~"  # in a path (RFC 3986 section 3.3)


def fields_in(environ: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The fields of a request, names in lower case."""
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            if name not in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
                yield name[5:].replace("_", "-").lower(), value
        elif name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            yield name.replace("_", "-").lower(), value


def quoted(path: str) -> str:
    """A path as URLs have it. WSGI hands it over decoded."""
    return quote(path, safe=_KEPT_AS_IT_IS)


def spelt(name: str) -> str:
    """The name of a field as people write it."""
    return _NAMES.get(name) or name.title()
