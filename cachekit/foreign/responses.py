"""Django's responses with their headers and cookies, and text that is safe in HTML.

What belongs to the request and not to the response is not kept.
"""

import sys
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from cachekit.foreign.base import Foreign

# Text that needs no escaping: django.utils.safestring.SafeString


def _take_text(value: str) -> list[Any]:
    return [str.__str__(value)]


def _make_text(cls: type[str], parts: list[Any]) -> str:
    (text,) = parts
    if type(text) is not str:
        raise TypeError("not a text")
    return str.__new__(cls, text)


# Headers: django.utils.datastructures.CaseInsensitiveMapping, of which HttpHeaders and ResponseHeaders are derived


def _take_headers(value: Any) -> list[Any]:
    return [part for item in value.items() for part in item]


def _make_headers(cls: type, parts: list[Any]) -> Any:
    headers: Any = object.__new__(cls)
    headers._store = {}
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        if type(name) is not str or not isinstance(text, str) or "\n" in name + text or "\r" in name + text:
            raise TypeError("not a header")
        headers._store[name.lower()] = (name, text)
    return headers


# http.cookies.SimpleCookie: for each cookie name, value, coded value, the number of its attributes, these


def _take_cookies(value: Any) -> list[Any]:
    parts = []
    for name, morsel in value.items():
        attributes = [part for item in morsel.items() if item[1] != "" for part in item]
        parts += [name, morsel.value, morsel.coded_value, len(attributes), *attributes]
    return parts


def _make_cookies(cls: type[dict[str, Any]], parts: list[Any]) -> Any:
    from http.cookies import Morsel  # whoever stores cookies has imported it

    cookies = dict.__new__(cls)
    rest = iter(parts)
    for name in rest:
        morsel: Any = Morsel()
        morsel.set(name, next(rest), next(rest))
        for _ in range(next(rest) // 2):
            attribute = next(rest)
            morsel[attribute] = next(rest)
        dict.__setitem__(cookies, name, morsel)
    return cookies


# django.http.HttpResponse and what is derived from it: the names of the attributes, then their values

_OF_THE_REQUEST = {"_resource_closers": list, "_handler_class": None, "closed": bool}  # and what a new one begins with


def _take_response(value: Any) -> list[Any]:
    state = dict(value.__getstate__())  # a template response refuses here until it is rendered
    for name in (*_OF_THE_REQUEST, "text"):  # the last is made of the content when asked for
        state.pop(name, None)
    return ["\0".join(state), *state.values()]


def _make_response(cls: type, parts: list[Any]) -> Any:
    names, *values = parts
    state: dict[str, Any] = dict(zip(names.split("\0"), values, strict=True))
    if type(state["_container"]) is not list or not all(type(chunk) is bytes for chunk in state["_container"]):
        raise TypeError("content of a response is bytes")
    if not _is(state["headers"], HEADERS) or not _is(state["cookies"], COOKIES):
        raise TypeError("a response without headers or cookies")
    response: Any = object.__new__(cls)
    response.__dict__.update(state)
    for name, kind in _OF_THE_REQUEST.items():
        response.__dict__[name] = None if kind is None else kind()
    return response


# Responses wherever they lie, streams and those that cannot be taken apart among them

LOOK_AT: Final = 1_000  # values inside of a value


def is_response(value: Any) -> bool:
    """Whether it is a response of Django, of whatever kind."""
    module = sys.modules.get("django.http.response")
    return module is not None and issubclass(type(value), module.HttpResponseBase)


def holds_response(value: Any) -> bool:
    """Whether there is a response in it, near the surface first, as far as can be seen without running anything."""
    if "django.http.response" not in sys.modules:
        return False
    todo, seen = deque([value]), 0
    while todo and seen < LOOK_AT:
        item = todo.popleft()
        seen += 1
        if is_response(item):
            return True
        todo.extend(_inside(item))
    return False


def _inside(item: Any) -> Iterable[Any]:
    cls = type(item)
    if issubclass(cls, dict):
        return [part for pair in list(dict.items(item)) for part in pair]
    for kind in (list, tuple, set, frozenset, deque):
        if issubclass(cls, kind):
            return list(kind.__iter__(item))
    if issubclass(cls, type) or cls.__dictoffset__ == 0:
        return ()
    return list(object.__getattribute__(item, "__dict__").values())


def _is(value: Any, name: str) -> bool:
    return any(f"{base.__module__}:{base.__qualname__}" == name for base in type(value).__mro__)


HEADERS = "django.utils.datastructures:CaseInsensitiveMapping"
COOKIES = "http.cookies:SimpleCookie"

KNOWN: Mapping[str, Foreign] = {
    COOKIES: Foreign(_take_cookies, _make_cookies),
    HEADERS: Foreign(_take_headers, _make_headers),
    "django.utils.safestring:SafeString": Foreign(_take_text, _make_text),
    "django.http.response:HttpResponse": Foreign(_take_response, _make_response),
}
