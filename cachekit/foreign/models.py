"""Django's model instances, without pickle, and without a query when they come back.

An instance is its fields, the other instances that it has at hand, and what else was set on it. Rows that were
prefetched are kept if the relation would bring others, and else left out, and fetched when they are asked for.
"""

import sys
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from cachekit.foreign.base import Foreign

MODEL = "django.db.models.base:Model"
_STATE = "_state"
_PREFETCHED = "_prefetched_objects_cache"


def label_of(cls: Any) -> str:
    """``app_label.model``, under which the app registry has this class; TypeError if it has not."""
    label: str = cls._meta.label_lower
    if model_named(label) is not cls:
        raise TypeError(f"the app registry has another model as {label}, or none")
    return label


def model_named(label: str) -> Any:
    """The model of this name in the app registry, None if there is none. Nothing is imported or made ready."""
    app, _, name = label.partition(".")
    return sys.modules["django.apps"].apps.all_models.get(app, {}).get(name)


def fingerprint_of(cls: Any) -> bytes:
    """Changes with the names and kinds of the fields."""
    lines = [f"{field.attname}:{field.get_internal_type()}:{type(field).__qualname__}" for field in fields_of(cls)]
    return blake2b("\n".join(lines).encode(), digest_size=8).digest()


def fields_of(cls: Any) -> tuple[Any, ...]:
    """Those with a column."""
    fields: tuple[Any, ...] = cls._meta.concrete_fields
    return fields


def alias_of(value: Any) -> str | None:
    """The alias of a database that was stored, or TypeError."""
    if value is not None and type(value) is not str:
        raise TypeError("not the alias of a database")
    return value


# Instances: alias of the database, whether unsaved, names of the deferred fields, by what it has its
# holder at hand, other instances at hand, prefetched rows, further attributes, values of the other fields


def _take(value: Any) -> list[Any]:
    cls = type(value)
    label_of(cls)
    held = dict(value.__dict__)
    state = held.pop(_STATE)
    itself = getattr(state, _ORIGINAL, value)
    prefetched = _kept(itself, held.pop(_PREFETCHED, {}))
    deferred = [field.attname for field in fields_of(cls) if field.attname not in held]
    values = [_plain(held.pop(field.attname)) for field in fields_of(cls) if field.attname in held]
    groups = [_without_way_back(group, itself) for group in (_related(cls, state), prefetched, held)]
    return [state.db, state.adding, deferred, getattr(state, _BACK, []), *groups, *values]


def _related(cls: Any, state: Any) -> dict[str, Any]:
    """The other instances that it has at hand, or the knowledge that there is none."""
    cached = state.__dict__.get("fields_cache")
    return {name: cached[name] for name, _ in _pointers(cls) if name in cached} if cached else {}


def _pointers(cls: Any) -> Iterator[tuple[str, Any]]:
    """By what an instance has one other at hand: names, with the other's model, None if it can be any."""
    for field in cls._meta.get_fields(include_hidden=True):
        if field.is_relation and not field.one_to_many and not field.many_to_many:
            yield field.cache_name, field.related_model


def _plain(value: Any) -> Any:
    """A file that a field points to is its name, as it is to the database."""
    files = sys.modules.get("django.db.models.fields.files")
    if files is None or not isinstance(value, files.FieldFile):
        return value
    if not value._committed:
        raise TypeError("a file that is not saved yet")
    return value.name


def _make(cls: Any, parts: list[Any]) -> Any:
    alias, adding, deferred, back, related, prefetched, others, *values = parts
    names = [field.attname for field in fields_of(cls) if field.attname not in deferred]
    held = dict(zip(names, values, strict=True))
    _check(cls, back, related, prefetched, others)
    state = _base().ModelState()
    state.db, state.adding = alias_of(alias), adding is not False
    if related:
        state.fields_cache = related
    if back:
        setattr(state, _BACK, back)
    instance: Any = object.__new__(cls)
    instance.__dict__.update(others)
    instance.__dict__.update(held)
    instance.__dict__[_STATE] = state
    if prefetched:
        instance.__dict__[_PREFETCHED] = prefetched
    for group in (related, prefetched, others):
        _lead_back(group, instance)
    return instance


def _check(cls: Any, back: Any, related: Any, prefetched: Any, others: Any) -> None:
    """TypeError or KeyError for what no instance of this class has beside its fields."""
    if not all(type(name) is str for name in (*others, *prefetched)):
        raise TypeError("names of attributes are str")
    if not all(type(rows) is list or isinstance(rows, _query().QuerySet) for rows in prefetched.values()):
        raise TypeError("not the rows of a relation")
    if related or back:
        models = dict(_pointers(cls))
        if not all(_fits(other, models[name]) for name, other in related.items()):
            raise TypeError("an object of another model")
        if type(back) is not list or not models.keys() >= set(back):
            raise TypeError("not the names of relations")


def _fits(other: Any, model: Any) -> bool:
    return other is None or isinstance(other, model._meta.concrete_model if model else _base().Model)


def _base() -> Any:
    return sys.modules["django.db.models.base"]


def _query() -> Any:
    return sys.modules["django.db.models.query"]


# Prefetched rows


def _kept(instance: Any, prefetched: Mapping[str, Any]) -> dict[str, Any]:
    """Those that another look would not bring: of a queryset of their own, or with something more than their fields."""
    return {name: rows for name, rows in prefetched.items() if not _comes_again(instance, name, rows)}


def _comes_again(instance: Any, name: str, rows: Any) -> bool:
    if instance.pk is None or not isinstance(rows, _query().QuerySet):
        return False
    relation = _relation(instance, name)
    asked_again = hasattr(relation, "get_queryset") and _asks(rows) == _asks(relation.get_queryset())
    return asked_again and all(_is_bare(row, instance) for row in rows)


def _relation(instance: Any, name: str) -> Any:
    """The manager of what was prefetched under this name, as if it had not been; something else for another name."""
    alone: Any = object.__new__(type(instance))
    alone.__dict__.update(instance.__dict__)
    del alone.__dict__[_PREFETCHED]
    for relation in instance._meta.related_objects:
        if relation.many_to_many and relation.field.related_query_name() == name:
            name = relation.get_accessor_name()
    return getattr(alone, name, None)


def _asks(queryset: Any) -> tuple[Any, ...]:
    """Equal for querysets that ask the same; told without writing SQL."""
    query = {name: value for name, value in vars(queryset._query).items() if name != "base_table"}
    kind = type(queryset), queryset._iterable_class
    return kind, queryset._db, queryset._deferred_filter, queryset._prefetch_related_lookups, query


def _is_bare(row: Any, holder: Any) -> bool:
    """Whether nothing was set on a row, and nothing prefetched for it that it would keep."""
    names = {_STATE, _PREFETCHED, *(field.attname for field in fields_of(type(row)))}
    more = {name for name in vars(row).keys() - names if not name.startswith("_prefetch_related_val_")}
    others = [other for other in _related(type(row), row._state).values() if other is not holder]
    return not more and not others and not _kept(row, vars(row).get(_PREFETCHED, {}))


# Ways back: what an instance has at hand often has the instance at hand. There, the name is written instead.

_BACK = "cachekit_back"  # in the state of an instance that is written or read within its holder
_ORIGINAL = "cachekit_original"  # of such an instance


def _without_way_back(group: dict[str, Any], holder: Any) -> dict[str, Any]:
    return {name: _apart(value, holder) for name, value in group.items()}


def _apart(value: Any, holder: Any) -> Any:
    """A related instance, a list of them or a queryset, or what else an attribute is."""
    if isinstance(value, _base().Model):
        return _turned(value, holder)
    if type(value) is list:
        return [_apart(row, holder) if isinstance(row, _base().Model) else row for row in value]
    if isinstance(value, _query().QuerySet) and value._result_cache is not None:
        queryset: Any = object.__new__(type(value))
        queryset.__dict__.update(value.__dict__, _result_cache=_apart(value._result_cache, holder))
        return queryset
    return value


def _turned(other: Any, holder: Any) -> Any:
    """Itself, or if it has its holder at hand, one that has the names instead."""
    related = _related(type(other), other._state)
    back = [name for name, value in related.items() if value is holder]
    if not back:
        return other
    state = _base().ModelState()
    state.__dict__.update(other._state.__dict__)
    state.fields_cache = {name: value for name, value in related.items() if name not in back}
    setattr(state, _BACK, back)
    setattr(state, _ORIGINAL, other)
    turned: Any = object.__new__(type(other))
    turned.__dict__.update(other.__dict__)
    turned.__dict__[_STATE] = state
    return turned


def _lead_back(group: dict[str, Any], holder: Any) -> None:
    for value in group.values():
        rows = value._result_cache if isinstance(value, _query().QuerySet) else value
        for row in rows if type(rows) is list else [rows]:
            if isinstance(row, _base().Model):
                _turn_back(row, holder)


def _turn_back(other: Any, holder: Any) -> None:
    names = other._state.__dict__.pop(_BACK, ())
    if names:
        models = dict(_pointers(type(other)))
        if not all(_fits(holder, models[name]) for name in names):
            raise TypeError("held by an object of another model")
        other._state.fields_cache.update(dict.fromkeys(names, holder))


DJANGO_MODEL = Foreign(_take, _make)

KNOWN: Mapping[str, Foreign] = {MODEL: DJANGO_MODEL}
