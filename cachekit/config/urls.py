"""URLs of backends: which schemes exist, and how to show one without its password."""

import re
from typing import TYPE_CHECKING

from cachekit.config.units import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from urllib.parse import SplitResult

ONE_SERVER = ("redis", "rediss", "valkey", "valkeys")
SENTINEL, CLUSTER = "+sentinel", "+cluster"
SEVERAL_SERVERS = tuple(base + form for form in (SENTINEL, CLUSTER) for base in ONE_SERVER)
SCHEMES = (*ONE_SERVER, "unix", *SEVERAL_SERVERS)
OTHER_TYPES = ("memcached", "file", "memory")  # of backends, each with the scheme of its name
NEED_URL = ("redis", "memcached", "file")  # types; without one such a backend is as good as none
MEMCACHED_PORT = 11211
TLS_SCHEMES = tuple(scheme for scheme in SCHEMES if scheme.partition("+")[0] in ("rediss", "valkeys"))
HIDDEN = "***"

# What may be shown of a URL without credentials. Anything else might be a password in the wrong place.
_HOST = r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)?(?::[0-9]{1,5})?"
_HARMLESS = rf"{_HOST}(?:,{_HOST})*(?:/[A-Za-z0-9._/-]*)?"


def type_of(url: str) -> str:
    """The type of the backend that a URL means."""
    scheme = url.partition("://")[0].casefold()
    return scheme if scheme in OTHER_TYPES else "redis"


def check_url_of(kind: str, url: str) -> None:
    """Raises `ValueError` when a backend of this type, one of cachekit's own, cannot use the URL."""
    if (meant := type_of(url)) != kind:
        raise ValueError(f"is the URL of a backend of type '{meant}' and not '{kind}'; leave out `type`, or change it")
    CHECKS[kind](url)


def check_memcached(url: str) -> None:
    """Raises `ValueError`, whose text never repeats any of the URL."""
    problem = ""
    try:
        parts = split_hosts(url)
        if len(parts) > 1:
            problem = "several servers are several caches, and one server is all that is used; write one host"
        elif parts[0].username is not None or parts[0].password is not None:
            problem = "memcached is used without credentials"
        elif not parts[0].hostname or parts[0].port == 0 or parts[0].path.strip("/") or parts[0].query:
            problem = f"write memcached://host:{MEMCACHED_PORT}"
    except ValueError:
        problem = "the host or the port is not valid"
    if problem:
        raise ValueError(problem)


def file_path(url: str) -> str:
    """The path in ``file:///var/cache/app/cache.db``. Raises `ValueError`, whose text never repeats any of the URL."""
    from urllib.parse import unquote  # only where a URL is configured

    rest = url.partition("://")[2]
    if not rest.startswith("/") or rest.endswith("/"):
        raise ValueError("the path of a file is missing; write file:///var/cache/app/cache.db")
    if "?" in rest or "#" in rest:
        raise ValueError("it contains '?' or '#'; write %3F or %23 in a path, and settings into `options`")
    return unquote(rest)


def memory_name(url: str) -> str:
    """The name of a store in the process: ``memory://`` and ``memory://NAME``."""
    name = url.partition("://")[2]
    if not re.fullmatch(r"[A-Za-z0-9._-]*", name):
        raise ValueError("the name of a store is letters, digits, '.', '_' and '-'; write memory:// or memory://name")
    return name


def check_url(url: str) -> str:
    """The URL, if a Redis or Valkey backend can use it. Raises `ValueError`, whose text never repeats any of it."""
    scheme, separator, rest = url.partition("://")
    scheme = scheme.casefold()
    if not separator:
        raise ValueError("not a URL; write redis://host:6379/0")
    if scheme not in SCHEMES:
        known = nearest(scheme, (*SCHEMES, *OTHER_TYPES))
        if known:
            raise ValueError(f"no such scheme; did you mean {known}://?")
        several = f"for several servers with {SENTINEL}, {CLUSTER}"
        use = ", ".join((*ONE_SERVER, "unix", *OTHER_TYPES))
        raise ValueError(f"no such scheme; use one of {use}; {several}")
    if scheme == "unix":
        if not rest.rpartition("@")[2].startswith("/"):
            raise ValueError("the socket's path is missing; write unix:///path/to/redis.sock")
        return url
    problem = ""
    try:
        problem = _problem(scheme, split_hosts(url))
    except ValueError:
        problem = "the host or the port is not valid; write / ? # @ : inside a password as %2F %3F %23 %40 %3A"
    if problem:  # raised here, so that no traceback carries the original error, which quotes the text
        raise ValueError(problem)
    return url


CHECKS: "Mapping[str, Callable[[str], object]]" = {
    "redis": check_url,
    "memcached": check_memcached,
    "file": file_path,
    "memory": memory_name,
}


def split_hosts(url: str) -> "list[SplitResult]":
    """The parts of a URL, once for each of its hosts. ValueError when one is not valid."""
    from urllib.parse import urlsplit  # only where a URL is configured

    scheme, _, rest = url.partition("://")
    place = re.split("[/?#]", rest, maxsplit=1)[0]
    credentials, at, hosts = place.rpartition("@")
    tail = rest[len(place) :]
    parts = [urlsplit(f"{scheme}://{credentials}{at}{host}{tail}") for host in hosts.split(",")]
    for part in parts:
        _ = part.port  # looked at when it is asked for
    return parts


def _problem(scheme: str, parts: "list[SplitResult]") -> str:
    """What is wrong with the parts of a valid URL."""
    first, example = parts[0], f"{scheme}://host:6379/0"
    if scheme.endswith(SENTINEL):
        example = f"{scheme}://host:26379,host:26379/mymaster/0"
    elif scheme.endswith(CLUSTER):
        example = f"{scheme}://host:6379,host:6379/"
    if first.fragment:
        return "it contains '#'; write %23 inside a password"
    if any(part.port == 0 for part in parts):
        return "port 0 cannot be reached"
    if len(parts) > 1 and scheme not in SEVERAL_SERVERS:
        return f"several hosts need {scheme}{SENTINEL}:// or {scheme}{CLUSTER}://"
    if not all(part.hostname for part in parts) and (first.netloc or scheme in SEVERAL_SERVERS):
        return f"a host is missing; write {example}"
    return _problem_of_path(scheme, first.path, example)


def _problem_of_path(scheme: str, path: str, example: str) -> str:
    if scheme.endswith(SENTINEL):
        if not re.match("/[^/]", path):
            return f"the name of the service after the hosts is missing; write {example}"
        if not re.fullmatch("/[^/]+(?:/[0-9]*)?", path):
            return f"the database after the name of the service is not a number; write {example}"
    elif scheme.endswith(CLUSTER):
        if path not in ("", "/", "/0"):
            return f"a cluster has no other database than 0; write {example}"
    elif not re.fullmatch("(?:/[0-9]*)?", path):
        return f"the database after the port is not a number; write {example}"
    return ""


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
