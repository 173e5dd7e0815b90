"""Requests of WSGI, and of what looks like it, as the policy sees them."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from cachekit.http.messages import Fields
from cachekit.http.short import LOOKED_AT

_NAMES: Final = {"etag": "ETag", "www-authenticate": "WWW-Authenticate"}
_KEPT_AS_IT_IS: Final = "!$&'()*+,;=:@/~"  # in a path (RFC 3986 section 3.3)
_CONTENT: Final = frozenset({"CONTENT_TYPE", "CONTENT_LENGTH"})  # fields whose variables are called like nothing else
_TWICE: Final = frozenset({"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"})  # what some servers say beside these
_PLAIN: Final = re.compile(r"[A-Za-z0-9._/~-]*")  # the paths of most requests, which quote() takes long to leave alone

LOOKED_AT_HERE: Final = frozenset(f"HTTP_{name.upper().replace('-', '_')}" for name in LOOKED_AT)


def fields_in(environ: Mapping[str, Any]) -> Fields:
    """The fields of a request, names in lower case."""
    return tuple(
        [
            (_name_of(name), value)
            for name, value in environ.items()
            if (name[:5] == "HTTP_" and name not in _TWICE) or (name in _CONTENT and value)
        ]
    )


def is_plain(environ: Mapping[str, Any]) -> bool:
    """Whether it carries nothing that the policy looks at: no credentials, wishes, conditions, and no body."""
    return LOOKED_AT_HERE.isdisjoint(environ) and not environ.get("CONTENT_LENGTH")


@lru_cache(200)
def _name_of(key: str) -> str:
    """The name of a field, by that of its variable."""
    return key.removeprefix("HTTP_").replace("_", "-").lower()


def quoted(path: str) -> str:
    """A path as URLs have it. WSGI hands it over decoded."""
    return path if _PLAIN.fullmatch(path) else quote(path, safe=_KEPT_AS_IT_IS)


@lru_cache(200)
def spelt(name: str) -> str:
    """The name of a field as people write it."""
    return _NAMES.get(name) or name.title()
