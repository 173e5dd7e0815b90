"""Django's querysets, without pickle, and without a query when they come back.

A queryset is its rows. If it is filtered further, that works on these rows, as they are in the database by then; where
that could give others than the queryset itself would, it is refused.
"""

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from cachekit.foreign.base import Foreign
from cachekit.foreign.models import alias_of, fields_of, fingerprint_of, label_of, model_named

# Model, its fingerprint, alias, kind of the rows, names of their columns, order, whether distinct, fields asked for,
# rows

_ROWS = ("ModelIterable", "ValuesIterable", "ValuesListIterable", "FlatValuesListIterable", "NamedValuesListIterable")


def _query() -> Any:
    return sys.modules["django.db.models.query"]


def _take(value: Any) -> list[Any]:
    query = _query()
    model = value.model
    kind = value._iterable_class.__name__
    if kind not in _ROWS or value._iterable_class is not getattr(query, kind):
        raise TypeError("a queryset of rows of its own kind")
    if more := sorted(set(vars(value)) - set(vars(query.QuerySet(model))) - {"all"}):
        raise TypeError(f"a queryset with the attributes {', '.join(more)}")
    rows = list(value)  # here the database is asked, once
    names: list[str] | None = None
    if kind == "NamedValuesListIterable":
        names = list(rows[0]._fields) if rows else []
        rows = [tuple(row) for row in rows]
    return [
        label_of(model), fingerprint_of(model), _alias(value), kind, names,
        _order(value) if _is_told_by_keys(value, rows) else None, value._query.distinct,
        None if value._fields is None else list(value._fields), *rows,
    ]  # fmt: skip


def _alias(value: Any) -> str | None:
    """Which database further questions go to, None if a router says so. What it goes by beside the model stays here."""
    if value._db is not None or not value._hints:
        alias: str | None = value._db
        return alias
    written: str = sys.modules["django.db"].router.db_for_write(value.model, **value._hints)
    return written


def _is_told_by_keys(value: Any, rows: list[Any]) -> bool:
    """Whether a look at the table for the keys of the rows brings these rows, each once, with all that they have."""
    query = value._query  # as it was made: filters that are yet to come do not matter
    closed = any(type(condition) is _NoQuery for condition in query.where.children)
    if closed or type(query) is not sys.modules["django.db.models.sql"].Query:
        return False
    if value._iterable_class is not _query().ModelIterable or query.annotation_select or query.extra:
        return False
    if query.combinator or not all(type(lookup) is str for lookup in value._prefetch_related_lookups):
        return False  # a union may be of another model; a prefetch of its own has rows of its own choice
    keys = {row.pk for row in rows}
    return len(keys) == len(rows) and None not in keys


def _order(value: Any) -> list[str] | None:
    """The names of fields that it is ordered by, None if it is by something else."""
    query = value._query
    if query.extra_order_by or not query.standard_ordering:
        return None
    names = query.order_by or (query.get_meta().ordering if query.default_ordering else ())
    known = {"pk", *(name for field in fields_of(value.model) for name in (field.name, field.attname))}
    if not all(type(name) is str and name.removeprefix("-") in known for name in names):
        return None
    return list(names)


def _make(cls: Any, parts: list[Any]) -> Any:
    label, fingerprint, alias, kind, names, order, distinct, fields, *rows = parts
    query, model = _query(), model_named(label)
    if model is None or fingerprint_of(model) != fingerprint:
        raise LookupError("the model has changed")
    if not issubclass(cls, query.QuerySet) or kind not in _ROWS or type(distinct) is not bool:
        raise TypeError("not a queryset")
    if kind == "ModelIterable" and not all(isinstance(row, model) for row in rows):
        raise TypeError("rows of another model")
    if kind == "NamedValuesListIterable":
        row_class = sys.modules["django.db.models.utils"].create_namedtuple_class(*names)
        rows = [row_class._make(row) for row in rows]
    queryset: Any = object.__new__(cls)
    query.QuerySet.__init__(queryset, model, None, alias_of(alias))
    queryset._iterable_class = getattr(query, kind)
    queryset._fields = None if fields is None else tuple(fields)
    queryset._result_cache = rows
    queryset._prefetch_done = True
    if order is None:
        _close(queryset)
        queryset.all = partial(_make, cls, parts)  # the one further question that the rows answer
    else:
        queryset._query.distinct = distinct
        _open(queryset, order)
    return queryset


def _open(queryset: Any, order: Any) -> None:
    """What further filters, orders and slices work on."""
    queryset._deferred_filter = (False, (), {"pk__in": [row.pk for row in queryset._result_cache]})
    queryset._query.order_by = tuple(order)
    queryset._query.default_ordering = False


def _close(queryset: Any) -> None:
    queryset._query.where.children.append(_NoQuery())
    queryset._query.order_by = ("pk",)  # whatever it is: first() takes the first row of an ordered one
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


KNOWN: Mapping[str, Foreign] = {"django.db.models.query:QuerySet": Foreign(_take, _make)}
