"""Django's model instances and querysets, without pickle, and without a query when they come back.

An instance is its fields, the related objects that ``select_related`` brought, and what else was set on it. What was
prefetched is left out, and fetched when it is asked for. A queryset is its rows. If it is filtered further, that works
on these rows, as they are in the database by then.
"""

import sys
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from cachekit.foreign.base import Foreign

MODEL = "django.db.models.base:Model"
_STATE = "_state"
_LEFT_OUT = (_STATE, "_prefetched_objects_cache")


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
    lines = [f"{field.attname}:{field.get_internal_type()}:{type(field).__qualname__}" for field in _fields(cls)]
    return blake2b("\n".join(lines).encode(), digest_size=8).digest()


def _fields(cls: Any) -> tuple[Any, ...]:
    fields: tuple[Any, ...] = cls._meta.concrete_fields
    return fields


# Instances: alias of the database, whether unsaved, names of the deferred fields, related objects, further attributes,
# values of the other fields


def _take_model(value: Any) -> list[Any]:
    cls = type(value)
    label_of(cls)
    held = dict(value.__dict__)
    state = held[_STATE]
    deferred = [field.attname for field in _fields(cls) if field.attname not in held]
    values = [_plain(held.pop(field.attname)) for field in _fields(cls) if field.attname in held]
    for name in _LEFT_OUT:
        held.pop(name, None)
    return [state.db, state.adding, deferred, dict(_related(cls, state)), held, *values]


def _related(cls: Any, state: Any) -> Iterator[tuple[str, Any]]:
    """What the object points to and has at hand; what points to it would lead back to it."""
    cached = state.__dict__.get("fields_cache", {})
    for field in _fields(cls):
        if field.is_relation and field.name in cached:
            yield field.name, cached[field.name]


def _plain(value: Any) -> Any:
    """A file that a field points to is its name, as it is to the database."""
    files = sys.modules.get("django.db.models.fields.files")
    if files is None or not isinstance(value, files.FieldFile):
        return value
    if not value._committed:
        raise TypeError("a file that is not saved yet")
    return value.name


def _make_model(cls: Any, parts: list[Any]) -> Any:
    alias, adding, deferred, related, others, *values = parts
    names = [field.attname for field in _fields(cls) if field.attname not in deferred]
    held = dict(zip(names, values, strict=True))
    if not all(type(name) is str for name in others):
        raise TypeError("names of attributes are str")
    relations = {field.name: field.remote_field.model for field in _fields(cls) if field.is_relation}
    for name, other in related.items():
        if not isinstance(other, (relations[name]._meta.concrete_model, type(None))):
            raise TypeError("an object of another model")
    state = sys.modules["django.db.models.base"].ModelState()
    state.db, state.adding = _alias(alias), adding is not False
    if related:
        state.fields_cache = related
    instance: Any = object.__new__(cls)
    instance.__dict__.update(others)
    instance.__dict__.update(held)
    instance.__dict__[_STATE] = state
    return instance


def _alias(value: Any) -> str | None:
    if value is not None and type(value) is not str:
        raise TypeError("not the alias of a database")
    return value


# Querysets: model, its fingerprint, alias, kind of the rows, names of their columns, order, fields asked for, rows


_ROWS = ("ModelIterable", "ValuesIterable", "ValuesListIterable", "FlatValuesListIterable", "NamedValuesListIterable")


def _query() -> Any:
    return sys.modules["django.db.models.query"]


def _take_queryset(value: Any) -> list[Any]:
    query = _query()
    model = value.model
    kind = value._iterable_class.__name__
    if kind not in _ROWS or value._iterable_class is not getattr(query, kind):
        raise TypeError("a queryset of rows of its own kind")
    if more := sorted(set(vars(value)) - set(vars(query.QuerySet(model)))):
        raise TypeError(f"a queryset with the attributes {', '.join(more)}")
    rows = list(value)  # here the database is asked, once
    names: list[str] | None = None
    if kind == "NamedValuesListIterable":
        names = list(rows[0]._fields) if rows else []
        rows = [tuple(row) for row in rows]
    return [
        label_of(model), fingerprint_of(model), value._db, kind, names, _order(value),
        None if value._fields is None else list(value._fields), *rows,
    ]  # fmt: skip


def _order(value: Any) -> list[str] | None:
    """The order by names of fields; None: it is another, or the rows are no instances to filter by."""
    query = value._query  # as it was made: filters that are yet to come do not matter
    if any(type(condition) is _NoQuery for condition in query.where.children):
        return None
    if query.extra_order_by or not query.standard_ordering or value._iterable_class is not _query().ModelIterable:
        return None
    names = query.order_by or (query.get_meta().ordering if query.default_ordering else ())
    known = {"pk", *(field.name for field in _fields(value.model)), *(field.attname for field in _fields(value.model))}
    if not all(type(name) is str and name.removeprefix("-") in known for name in names):
        return None
    return list(names)


def _make_queryset(cls: Any, parts: list[Any]) -> Any:
    label, fingerprint, alias, kind, names, order, fields, *rows = parts
    query, model = _query(), model_named(label)
    if model is None or fingerprint_of(model) != fingerprint:
        raise LookupError("the model has changed")
    if not issubclass(cls, query.QuerySet) or kind not in _ROWS:
        raise TypeError("not a queryset")
    if kind == "ModelIterable" and not all(isinstance(row, model) for row in rows):
        raise TypeError("rows of another model")
    if kind == "NamedValuesListIterable":
        row_class = sys.modules["django.db.models.utils"].create_namedtuple_class(*names)
        rows = [row_class._make(row) for row in rows]
    queryset: Any = object.__new__(cls)
    query.QuerySet.__init__(queryset, model, None, _alias(alias))
    queryset._iterable_class = getattr(query, kind)
    queryset._fields = None if fields is None else tuple(fields)
    queryset._result_cache = rows
    queryset._prefetch_done = True
    _prepare(queryset, order)
    return queryset


def _prepare(queryset: Any, order: Any) -> None:
    """What further filters, orders and slices work on."""
    if order is None:
        queryset._query.where.children.append(_NoQuery())
        queryset._query.order_by = ("pk",)  # whatever it is: first() takes the first row of an ordered one
        queryset._query.default_ordering = False
        return
    keys = [row.pk for row in queryset._result_cache]
    queryset._deferred_filter = (False, (), {"pk__in": keys})
    queryset._query.order_by = tuple(order)
    queryset._query.default_ordering = False


class _NoQuery:
    """In place of the conditions of a queryset that cannot be told by its rows."""

    contains_aggregate = contains_over_clause = conditional = False

    def clone(self) -> "_NoQuery":
        return self

    def relabeled_clone(self, relabels: object) -> "_NoQuery":
        return self

    def as_sql(self, compiler: object, connection: object) -> tuple[str, list[object]]:
        raise TypeError("this queryset comes out of the cache: it has its rows, and cannot ask the database for others")

    def resolve_expression(self, *_: object, **__: object) -> "_NoQuery":
        return self

    def get_group_by_cols(self) -> list[object]:
        return []


DJANGO_MODEL = Foreign(_take_model, _make_model)

KNOWN: Mapping[str, Foreign] = {
    MODEL: DJANGO_MODEL,
    "django.db.models.query:QuerySet": Foreign(_take_queryset, _make_queryset),
}
