"""URLs of backends: which schemes exist, and how to show one without its password."""

import re

from cachekit.config.units import nearest

SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")
TLS_SCHEMES = ("rediss", "valkeys")
NOT_YET = tuple(f"{base}+{kind}" for base in SCHEMES[:4] for kind in ("sentinel", "cluster"))
HIDDEN = "***"

# What may be shown of a URL without credentials. Anything else might be a password in the wrong place.
_HARMLESS = r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)?(?::[0-9]{1,5})?(?:/[A-Za-z0-9._/-]*)?"


def check_url(url: str) -> str:
    """The URL, if a Redis or Valkey backend can use it. Raises `ValueError`, whose text never repeats any of it."""
    scheme, separator, rest = url.partition("://")
    scheme = scheme.casefold()
    if not separator:
        raise ValueError("not a URL; write redis://host:6379/0")
    if scheme in NOT_YET:
        raise ValueError(f"{scheme}:// is not yet available in this version")
    if scheme not in SCHEMES:
        known = nearest(scheme, SCHEMES)
        raise ValueError(
            f"no such scheme; did you mean {known}://?" if known else f"no such scheme; use one of {', '.join(SCHEMES)}"
        )
    if scheme == "unix":
        if not rest.rpartition("@")[2].startswith("/"):
            raise ValueError("the socket's path is missing; write unix:///path/to/redis.sock")
        return url
    _check_parts(url)
    return url


def _check_parts(url: str) -> None:
    from urllib.parse import urlsplit  # only where a URL is configured

    problem = ""
    try:
        parts = urlsplit(url)
        if parts.fragment:
            problem = "it contains '#'; write %23 inside a password"
        elif parts.port == 0:
            problem = "port 0 cannot be reached"
        elif not parts.hostname and parts.netloc:
            problem = "the host is missing; write redis://host:6379/0"
        elif not re.fullmatch(r"(?:/[0-9]*)?", parts.path):
            problem = "the database after the port is not a number; write redis://host:6379/0"
    except ValueError:
        problem = "the host or the port is not valid; write / ? # @ : inside a password as %2F %3F %23 %40 %3A"
    if problem:  # raised here, so that no traceback carries the original error, which quotes the text
        raise ValueError(problem)


def redact_url(url: str) -> str:
    """The URL without user, password and query, and without anything that might be a misplaced password."""
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme, re.IGNORECASE):
        return HIDDEN
    visible, question, query = rest.partition("?")
    if "@" in query:
        return f"{scheme}://{HIDDEN}"
    credentials, at, place = visible.rpartition("@")
    if not re.fullmatch(_HARMLESS, place):
        place = HIDDEN
    return f"{scheme}://{f'{HIDDEN}@' if at and credentials else ''}{place}{f'?{HIDDEN}' if question else ''}"


def carries_password(url: str) -> bool:
    """Whether the URL itself holds a password."""
    rest = url.partition("://")[2]
    return ":" in rest.rpartition("@")[0] or "password=" in rest.partition("?")[2].casefold()
