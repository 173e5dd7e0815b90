"""What Django and its REST framework put around plain data: query strings and forms, texts that wait for a language,
objects that are made when they are needed, and what serializers give."""

import sys
from collections.abc import Mapping
from typing import Any, Final

from cachekit.foreign.base import Foreign

# django.utils.datastructures.MultiValueDict and django.http.QueryDict: attributes, then each key and its list


def _take_lists(value: Any) -> list[Any]:
    pairs = list(dict.items(value))
    if not all(type(values) is list for _, values in pairs):
        raise TypeError("values of such a dict are lists")
    return [dict(vars(value)), *[part for pair in pairs for part in pair]]


def _make_lists(cls: type[dict[Any, Any]], parts: list[Any]) -> Any:
    attributes, *rest = parts
    lists: Any = dict.__new__(cls)
    for key, values in zip(rest[::2], rest[1::2], strict=True):
        if type(values) is not list:
            raise TypeError("not a list of values")
        dict.__setitem__(lists, key, values)
    if type(attributes) is not dict or not all(type(name) is str for name in attributes):
        raise TypeError("names of attributes are str")
    lists.__dict__.update(attributes)
    return lists


# django.utils.functional.Promise: what gettext_lazy and reverse_lazy give. A translation waits on for its language, as
# that is another one for each visitor.

LAZY: Final = {"gettext": "gettext_lazy", "pgettext": "pgettext_lazy"}
TRANSLATION: Final = "django.utils.translation"


def _take_lazy(value: Any) -> list[Any]:
    how, (function, args, kwargs, *_) = value.__reduce__()
    name = f"{function.__module__}:{function.__qualname__}"
    if how.__name__ != "_lazy_proxy_unpickle":
        raise TypeError("not a text that can be made again")
    if name == "django.urls.base:reverse":
        return ["", str(value)]
    if function.__module__ != TRANSLATION or function.__name__ not in LAZY or kwargs:
        raise TypeError(f"what {name} gives may depend on who asks")
    return [function.__name__, *args]


def _make_lazy(_: type, parts: list[Any]) -> Any:
    name, *texts = parts
    if not all(type(text) is str for text in texts):
        raise TypeError("not texts")
    if name == "":
        (text,) = texts
        return text
    if len(texts) != (1 if name == "gettext" else 2):
        raise TypeError("not the arguments of a translation")
    return getattr(sys.modules[TRANSLATION], LAZY[name])(*texts)


# django.utils.functional.SimpleLazyObject, as request.user is one: what it wraps, as pickle does


def _take_wrapped(value: Any) -> list[Any]:
    return [value.__reduce__()[1][0]]  # made now, if it was not needed before


def _make_wrapped(_: type, parts: list[Any]) -> Any:
    (wrapped,) = parts
    return wrapped


# What `data` of a serializer is: without the serializer, as pickle does


def _take_list(value: list[Any]) -> list[Any]:
    return list(list.__iter__(value))


def _make_list(_: type, parts: list[Any]) -> list[Any]:
    return parts


def _take_dict(value: dict[Any, Any]) -> list[Any]:
    return [part for pair in list(dict.items(value)) for part in pair]


def _make_dict(_: type, parts: list[Any]) -> dict[Any, Any]:
    return dict(zip(parts[::2], parts[1::2], strict=True))


PROMISE: Final = "django.utils.functional:Promise"

KNOWN: Mapping[str, Foreign] = {
    "django.utils.datastructures:MultiValueDict": Foreign(_take_lists, _make_lists),
    PROMISE: Foreign(_take_lazy, _make_lazy, name=PROMISE),  # each has a class of its own, which has no name
    "django.utils.functional:SimpleLazyObject": Foreign(_take_wrapped, _make_wrapped),
    "rest_framework.utils.serializer_helpers:ReturnList": Foreign(_take_list, _make_list),
    "rest_framework.utils.serializer_helpers:ReturnDict": Foreign(_take_dict, _make_dict),
}
