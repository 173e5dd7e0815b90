"""Tags of models, rows and querysets, and their invalidation when the transaction that changed them commits.

``@cache(tags=lambda pk: tags_of(Book, pk))`` and ``connect(Book)``. `invalidate` is for what signals do not tell of.
No model is defined here: Django imports this module because the application has one of this name.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import blake2b
from typing import Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.core.exceptions import EmptyResultSet
from django.db import connections, models, transaction
from django.db.models.fields.related import lazy_related_operation
from django.db.models.signals import class_prepared, m2m_changed, post_delete, post_save

from cachekit.regions import invalidate_tags

PREFIX = "django:"
EVERY_ROW = "*"  # in place of a primary key: cleared when nobody knows which rows were changed
TELLING = (models.CASCADE, models.PROTECT, models.RESTRICT)  # what is deleted along sends signals of its own
LONGEST = 100  # characters of a primary key that a tag shows as they are

logger = logging.getLogger("cachekit")

_connected: set[Any] = set()  # concrete models
_pointed_to: set[Any] = set()  # concrete models whose deletion changes rows of connected ones in silence
_reported: set[Any] = set()  # models of whose changes it was logged that they cannot be told row by row


def tags_of(what: Any, pk: Any = None) -> list[str]:
    """The tags of what is made of a model, for ``@cache(tags=...)`` and ``region.set(..., tags=...)``.

    ``tags_of(Book)``: all rows, whatever changes in the table. ``tags_of(Book, 7)`` and ``tags_of(book)``: this row
    alone. ``tags_of(queryset)``: every table that its SQL names; the database is not asked. A child model has the tags
    of its parents too. Raises `TypeError` for anything else and `ValueError` for an instance without a primary key.
    """
    if isinstance(what, models.QuerySet):
        return sorted(map(_table_tag, _read_by(what)))
    if pk is None and isinstance(what, type):
        return sorted(map(_table_tag, _family(what)))
    return sorted(tag for row in _rows(what, pk) for tag in (_row_tag(*row), _row_tag(row[0], EVERY_ROW)))


def connect(*classes: Any) -> Any:
    """Have changes of these models outdate their tags when they are committed: ``connect(Book, Author)`` in
    ``AppConfig.ready()``, or ``@connect`` above a model.

    Saved and deleted instances, those that a deletion takes along or changes, and many-to-many relations are noticed,
    also through proxies and child models; on rollback nothing happens. Bulk operations, SQL and the other side of a
    foreign key send no signals: call `invalidate` after them. Returns the first model. Raises `TypeError` for what is
    no model.
    """
    for model in classes:
        for relative in _family(model):  # what is saved as a parent changes the child's row, too
            _connected.add(relative)
            for each in (relative, *_descendants(relative)):
                _listen(each)
    class_prepared.connect(_prepared, dispatch_uid="cachekit")
    m2m_changed.connect(_relation_changed, dispatch_uid="cachekit")
    return classes[0] if classes else None


def invalidate(*what: Any, using: str | None = None) -> None:
    """Outdate what has the tags of models or instances: when the transaction commits, at once if there is none.

    For what signals do not tell of: ``Book.objects.update(...)`` and ``invalidate(Book)``. A model stands for all its
    rows. ``using`` is the alias of the database whose transaction counts. Nothing that a server does is an exception.
    Raises `TypeError` for what is neither, and `ValueError` for an instance without a primary key.
    """
    _on_commit([tag for each in what for tag in _outdated_by(each)], using)


async def ainvalidate(*what: Any, using: str | None = None) -> None:
    """As `invalidate`, in the thread where Django runs the ORM of coroutines, whose transaction counts."""
    await sync_to_async(invalidate)(*what, using=using)


# Names


def _table_tag(model: Any) -> str:
    return f"{PREFIX}{model._meta.label_lower}"


def _row_tag(model: Any, pk: Any) -> str:
    text = str(pk)
    if len(text) > LONGEST or not (text.isascii() and text.isprintable()):
        text = f"#{blake2b(text.encode(errors='surrogatepass'), digest_size=16).hexdigest()}"
    return f"{_table_tag(model)}:{text}"


def _concrete(model: Any) -> Any:
    """The model with the table; a proxy has none."""
    is_model = isinstance(model, type) and issubclass(model, models.Model)
    if not is_model or model._meta.abstract:
        raise TypeError(f"{model!r} is not a model with a table, an instance of one, or a queryset")
    return model._meta.concrete_model


def _family(model: Any) -> list[Any]:
    """A model and those it inherits columns from, each with a table of its own."""
    concrete = _concrete(model)
    return list(dict.fromkeys([concrete, *map(_concrete, concrete._meta.get_parent_list())]))


def _rows(what: Any, pk: Any) -> Iterator[tuple[Any, Any]]:
    """The rows that an instance, or a model and a primary key, consist of."""
    of_class = isinstance(what, type)
    own, *parents = _family(what if of_class else type(what))
    if not of_class and (pk := what.pk) is None:
        raise ValueError(f"{own.__name__}: an instance that is not saved has no primary key, and so no tags")
    yield own, (key := _key(own, pk))
    for parent in parents:
        held = None if of_class else getattr(what, parent._meta.pk.attname)  # None also of Child(pk=7)
        yield parent, _key_of_parent(own, parent, key) if held is None else _key(parent, held)


def _key(model: Any, pk: Any) -> Any:
    """As the database gives it back: a form, an URL or a new instance may have it as text."""
    field = model._meta.pk
    if isinstance(pk, (list, tuple)) and isinstance(columns := getattr(field, "fields", None), tuple):
        return tuple(column.to_python(part) for column, part in zip(columns, pk, strict=True))
    return field.to_python(pk)


def _key_of_parent(model: Any, parent: Any, pk: Any) -> Any:
    """The model's own, as long as every link on the way is its primary key."""
    while model is not parent:
        link = model._meta.get_ancestor_link(parent)
        if not link.primary_key:
            return EVERY_ROW
        model = _concrete(link.remote_field.model)
    return pk


def _read_by(queryset: Any) -> set[Any]:
    """The models whose tables the SQL names, by hand or not: another word like one costs an invalidation, no more."""
    found = set(_family(queryset.model))
    try:
        sql, _ = queryset.query.get_compiler(using=queryset.db).as_sql()
    except EmptyResultSet:
        return found
    text = sql.casefold()
    words = set(re.findall(r"\w+", text))
    quoted = connections[queryset.db].ops.quote_name
    for model in apps.get_models(include_auto_created=True):
        table = model._meta.db_table.casefold()
        if table in words or quoted(model._meta.db_table).casefold() in text or (_is_odd(table) and table in text):
            found.add(_concrete(model))
    return found


def _is_odd(table: str) -> bool:
    """Not one word: with a schema, a dot, a hyphen."""
    return re.fullmatch(r"\w+", table) is None


# Changes


def _outdated_by(what: Any) -> list[str]:
    """The tags that a change of a model's rows, or of an instance, outdates."""
    if isinstance(what, type):
        return [tag for model in _family(what) for tag in (_table_tag(model), _row_tag(model, EVERY_ROW))]
    return [tag for row in _rows(what, None) for tag in (_table_tag(row[0]), _row_tag(*row))]


def _on_commit(tags: Iterable[str], using: str | None) -> None:
    told = partial(invalidate_tags, *dict.fromkeys(tags))
    try:
        transaction.on_commit(told, using=using, robust=True)
    except transaction.TransactionManagementError:  # autocommit is off, and nobody tells of the commit
        told()


def _descendants(model: Any) -> Iterator[Any]:
    """Proxies and child models, whose signals are their own."""
    for child in model.__subclasses__():
        yield child
        yield from _descendants(child)


def _listen(model: Any) -> None:
    post_save.connect(_saved, sender=model, dispatch_uid="cachekit")
    post_delete.connect(_deleted, sender=model, dispatch_uid="cachekit")
    for field in model._meta.local_fields:
        if field.is_relation and field.remote_field.on_delete not in TELLING:
            lazy_related_operation(_listen_to_deletions, model, field.remote_field.model)  # once that is defined


def _listen_to_deletions(_: Any, target: Any) -> None:
    concrete = _concrete(target)
    _pointed_to.add(concrete)
    for each in (concrete, *_descendants(concrete)):
        post_delete.connect(_deleted, sender=each, dispatch_uid="cachekit")


def _prepared(*, sender: Any, **kwargs: Any) -> None:
    """A model was defined: perhaps a proxy or a child of one that is listened to."""
    if any(issubclass(sender, model) for model in _connected):
        _listen(sender)
    elif any(issubclass(sender, model) for model in _pointed_to):
        post_delete.connect(_deleted, sender=sender, dispatch_uid="cachekit")


@contextmanager
def _beside_the_write(sender: Any, changed: Iterable[Any], using: str | None) -> Iterator[None]:
    """Signals come in the middle of the application's write, which goes on whatever happens here: then all rows of the
    models count as changed."""
    try:
        yield
    except Exception:
        if sender not in _reported:
            _reported.add(sender)
            name = sender._meta.label
            logger.exception("changes of %s cannot be told row by row: each counts as one of all rows", name)
        with suppress(Exception):
            _on_commit([tag for model in changed for tag in _outdated_by(model)], using)


def _saved(*, sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    with _beside_the_write(sender, [sender], using):
        _on_commit(_outdated_by(instance), using)


def _deleted(*, sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    with _beside_the_write(sender, _changed_by_deletion(sender), using):
        along = [tag for model in set(_changed_along(sender)) for tag in _outdated_by(model)]
        _on_commit([*_outdated_by(instance), *along], using)


def _changed_by_deletion(model: Any) -> Iterator[Any]:
    yield model
    yield from _changed_along(model)


def _changed_along(model: Any) -> Iterator[Any]:
    """With a row goes what relates it to others, and what pointed to it is changed; no signal tells of that."""
    for field in model._meta.get_fields(include_hidden=True):
        if field.many_to_many:
            relation = field.remote_field if hasattr(field.remote_field, "through") else field  # from either end
            yield from (relation.through, field.related_model)
        elif field.auto_created and not field.concrete and field.on_delete not in TELLING:
            yield field.related_model


def _relation_changed(
    *, sender: Any, instance: Any, action: str, model: Any, pk_set: Any, using: str, **kwargs: Any
) -> None:
    """Both ends of a many-to-many relation count as changed; after ``clear()`` the other end is not known."""
    ends = (type(instance), model)
    if not action.startswith("post_") or not any(issubclass(end, known) for end in ends for known in _connected):
        return
    with _beside_the_write(sender, [sender, *ends], using):
        tags = [_table_tag(sender), *_outdated_by(instance), *map(_table_tag, _family(model))]
        for pk in pk_set if pk_set is not None and _relates_keys(sender, model) else [EVERY_ROW]:
            tags += [_row_tag(*row) for row in _ends(model, pk)]
        _on_commit(tags, using)


def _relates_keys(through: Any, model: Any) -> bool:
    """Whether the table between has primary keys of this model: ``to_field=`` makes it have something else."""
    own = _family(model)
    to_model = [field for field in through._meta.fields if field.is_relation and _concrete(field.related_model) in own]
    return all(field.target_field.primary_key for field in to_model)


def _ends(model: Any, pk: Any) -> Iterator[tuple[Any, Any]]:
    return ((each, EVERY_ROW) for each in _family(model)) if pk == EVERY_ROW else _rows(model, pk)
