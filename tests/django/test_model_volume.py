"""Many model instances and a large queryset come back from a server equal to what the database has."""

import datetime
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

MANY, ROWS = 1_000, 100

pytestmark = pytest.mark.slow


@pytest.fixture
def shop(set_up: None) -> Iterator[Any]:
    """A thousand books of a hundred authors, each with a mentor but the first; gone again after the test."""
    from django.db import transaction
    from project.shop import models

    with transaction.atomic():
        first = models.Author.objects.create(name="a000", born=datetime.date(1850, 1, 1))
        authors = [models.Author(name=f"a{number:03}", mentor=first) for number in range(1, 100)]
        authors = [first, *models.Author.objects.bulk_create(authors)]
        models.Book.objects.bulk_create(
            models.Book(
                id=uuid.UUID(int=number), title=f"é {number}", price=Decimal(number) / 100,
                author=authors[number % 100], details={"n": [number, None, {"x": 1.5}]},
                cover=f"covers/{number}.png" if number % 2 else "",
                added=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=number / 7),
            )
            for number in range(MANY)
        )  # fmt: skip
        yield models
        transaction.set_rollback(True)


def held(instance: Any) -> dict[str, Any]:
    """Everything that an instance has at hand, related objects by the same rule."""
    state = instance._state
    fields = {name: value for name, value in vars(instance).items() if name != "_state"}
    fields |= {"cover": str(fields["cover"])} if "cover" in fields else {}
    related = {name: other and held(other) for name, other in state.fields_cache.items()}
    return {**fields, "type": type(instance), "state": (state.db, state.adding, related)}


def kept(books: Any) -> dict[str, Callable[[], Any]]:
    return {
        "whole": lambda: books.all(),
        "deferred": lambda: books.only("title", "price"),
        "selected": lambda: books.select_related("author__mentor"),
        "both": lambda: books.select_related("author").only("title", "author__name"),
    }


@pytest.mark.parametrize("kind", ["whole", "deferred", "selected", "both"])
def test_a_thousand_instances_and_a_queryset_of_a_hundred_rows_come_back(
    on_server: Callable[..., None], shop: Any, kind: str
) -> None:
    from django.core.cache import cache
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    on_server(profiles={"default": {"on_unstorable": "raise", "l1": {"mode": "off"}}})
    made = kept(shop.Book.objects)[kind]
    instances = {str(book.pk): book for book in made()}
    assert len(instances) == MANY
    assert cache.set_many(instances) == []
    cache.set("rows", made().order_by("pk")[:ROWS])
    with CaptureQueriesContext(connection) as queries:
        back, rows = cache.get_many(instances), cache.get("rows")
        assert len(rows) == ROWS
        found = [held(book) for book in [*back.values(), *rows]]
        deferred = [book.get_deferred_fields() for book in rows]
    assert len(queries) == 0
    fresh = {str(book.pk): held(book) for book in made()}  # what the database says now
    assert found == [*(fresh[key] for key in back), *(fresh[str(book.pk)] for book in rows)]
    assert back.keys() == fresh.keys()
    assert [book.pk for book in rows] == [uuid.UUID(int=number) for number in range(ROWS)]
    assert deferred == [book.get_deferred_fields() for book in made().order_by("pk")[:ROWS]]
    assert any(deferred) is (kind in ("deferred", "both"))
