"""Model instances and querysets come back from both tiers as they were, without pickle and without a query."""

import datetime
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import msgpack
import pytest

from cachekit.codec import serializers
from cachekit.codec.envelope import Damaged
from cachekit.errors import Unstorable
from cachekit.l1.values import admit, adopt, isolate

Way = Callable[[Any], Any]


def stored(value: Any) -> Any:
    return serializers.load(*serializers.dump(value, plain=False, limit=1_000_000))


def copied(value: Any) -> Any:
    adopted = adopt(value, admit(value).mode)
    assert adopted.mode == "copy"
    return adopted.renew(adopted.value)


WAYS = {"l2": stored, "l1": copied, "waiter": lambda value: isolate(value, "copy")}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.fixture
def shop(set_up: None) -> Iterator[Any]:
    """Two authors with three books, gone again after the test."""
    from django.db import transaction
    from project.shop import models

    with transaction.atomic():
        ann = models.Author.objects.create(name="Ann", born=datetime.date(1900, 2, 3))
        bob = models.Author.objects.create(name="Bob", mentor=ann)
        for number, (author, price) in enumerate([(ann, "7.50"), (bob, "12.00"), (bob, "3.10")]):
            book = models.Book.objects.create(
                id=uuid.UUID(int=number), title=f"book {number}", price=Decimal(price), author=author,
                details={"n": [number]}, cover="covers/a.png", added=datetime.datetime.now(datetime.UTC),
            )  # fmt: skip
            book.tags.create(text=f"tag {number}")
        yield models
        transaction.set_rollback(True)


def fields(instance: Any) -> dict[str, Any]:
    state = instance._state
    held = {**vars(instance), "_state": (state.db, state.adding, dict(state.fields_cache))}
    held.pop("_prefetched_objects_cache", None)
    return {name: str(value) if name == "cover" else value for name, value in held.items()}


@ways
def test_instances_come_back(shop: Any, way: Way) -> None:
    classic = shop.Classic.objects.create(name="Eve", century=5)
    unsaved = shop.Author(name="new")
    for before in (
        *shop.Author.objects.all(), *shop.Book.objects.all(), classic, shop.Famous.objects.first(), unsaved,
    ):  # fmt: skip
        after = way(before)
        assert type(after) is type(before)
        assert fields(after) == fields(before)
        assert after == before or before is unsaved
    assert way(unsaved)._state.adding
    looked_at = shop.Book.objects.all()[0]
    for before in (looked_at, way(looked_at)):
        assert before.cover.url.endswith("covers/a.png")  # from here on it is a file and no longer a name
        after = way(before)
        assert vars(after)["cover"] == "covers/a.png"
        assert type(vars(after)["cover"]) is str
        assert after.cover.instance is after


@ways
def test_one_caller_does_not_change_what_another_gets(shop: Any, way: Way) -> None:
    before = shop.Book.objects.get(id=uuid.UUID(int=0))
    after = way(before)
    after.title = "other"
    after.details["n"].append(1)
    after._state.db = "elsewhere"
    assert (before.title, before.details, before._state.db) == ("book 0", {"n": [0]}, "default")
    kept = adopt(before, "copy")
    first = kept.renew(kept.value)
    first.details.clear()
    assert kept.renew(kept.value).details == {"n": [0]}


@ways
def test_a_copy_can_be_saved_refreshed_and_deleted(shop: Any, way: Way) -> None:
    after = way(shop.Book.objects.get(id=uuid.UUID(int=0)))
    after.title = "changed"
    after.save()
    assert shop.Book.objects.get(id=after.id).title == "changed"
    shop.Book.objects.update(title="again")
    after.refresh_from_db()
    assert after.title == "again"
    assert [tag.text for tag in after.tags.all()] == ["tag 0"]
    after.delete()
    assert shop.Book.objects.count() == 2


@ways
def test_deferred_fields_stay_deferred(shop: Any, way: Way) -> None:
    before = shop.Book.objects.only("title").first()
    after = way(before)
    assert after.get_deferred_fields() == before.get_deferred_fields() != set()
    assert after.price == Decimal("7.50")  # asks the database


@ways
def test_related_objects_that_were_selected_are_there_without_a_query(shop: Any, way: Way) -> None:
    from django.test.utils import CaptureQueriesContext

    before = shop.Book.objects.select_related("author__mentor").get(id=uuid.UUID(int=1))
    after = way(before)
    with CaptureQueriesContext(connection()) as queries:
        assert (after.author.name, after.author.mentor.name, after.author.mentor.mentor) == ("Bob", "Ann", None)
        assert after.author is not before.author
    assert len(queries) == 0


def connection() -> Any:
    from django.db import connection

    return connection


@ways
def test_what_was_prefetched_is_fetched_when_asked_for(shop: Any, way: Way) -> None:
    before = shop.Author.objects.prefetch_related("books").get(name="Bob")
    assert {book.title for book in way(before).books.all()} == {"book 1", "book 2"}


@ways
def test_rows_of_a_prefetch_with_a_queryset_of_its_own_stay_these_rows(shop: Any, way: Way) -> None:
    from django.db.models import Prefetch
    from django.test.utils import CaptureQueriesContext

    cheap, second = shop.Book.objects.filter(price__lt=10), shop.Tag.objects.filter(text="tag 2")
    for before, seen in (
        (shop.Author.objects.prefetch_related(Prefetch("books", cheap)), lambda row: row.books.all()),
        (shop.Author.objects.prefetch_related("books", Prefetch("books__tags", second)), tags_of_books),
        (shop.Author.objects.prefetch_related("books", Prefetch("books__tags", second, "few")), few_tags_of_books),
        (shop.Book.objects.prefetch_related(Prefetch("tags", second)), lambda row: row.tags.all()),
        (shop.Tag.objects.prefetch_related(Prefetch("book_set", cheap)), lambda row: row.book_set.all()),
    ):
        after = way(list(before))
        wanted = [list(seen(row)) for row in before]
        with CaptureQueriesContext(connection()) as queries:
            assert [list(seen(row)) for row in after] == wanted
        assert len(queries) == 0
        with pytest.raises(TypeError, match="out of the cache"):
            list(way(before).filter(pk__gt=0))
        again = way(after)
        assert [list(seen(row)) for row in again] == wanted
    bob = way(shop.Author.objects.prefetch_related(Prefetch("books", cheap.prefetch_related("tags"))).get(name="Bob"))
    assert [book.title for book in bob.books.filter(price__gt=1)] == ["book 2"]
    assert bob.books.all()[0].author is bob
    assert [tag.text for tag in bob.books.all()[0].tags.all()] == ["tag 2"]


def tags_of_books(author: Any) -> list[Any]:
    return [(book, list(book.tags.all())) for book in author.books.all()]


def few_tags_of_books(author: Any) -> list[Any]:
    return [(book, book.few) for book in author.books.all()]


@ways
def test_rows_under_an_attribute_lead_back_to_who_holds_them(shop: Any, way: Way) -> None:
    from django.db.models import Prefetch
    from django.test.utils import CaptureQueriesContext

    tags = Prefetch("tags", to_attr="labels")
    books = shop.Book.objects.order_by("title").prefetch_related(tags)
    before = list(shop.Author.objects.prefetch_related(Prefetch("books", books, "written"), "written__author"))
    shop.Classic.objects.create(name="Eve", century=5)
    before.append(shop.Author.objects.prefetch_related(Prefetch("classic", to_attr="old")).get(name="Eve"))
    for _ in range(2):
        after = way(before)
        with CaptureQueriesContext(connection()) as queries:
            assert [[book.title for book in author.written] for author in after[:2]] == [
                ["book 0"], ["book 1", "book 2"],
            ]  # fmt: skip
            assert all(book.author is author for author in after[:2] for book in author.written)
            assert [tag.text for tag in after[1].written[1].labels] == ["tag 2"]
            assert after[2].old.author_ptr is after[2]
        assert len(queries) == 0
        assert not any(name.startswith("cachekit") for author in after for name in vars(author._state))
        before = after
    assert way(after[1].written[0]).author.name == "Bob"


@ways
def test_one_to_one_relations_lead_both_ways(shop: Any, way: Way) -> None:
    shop.Classic.objects.create(name="Eve", century=5)
    for before in (shop.Classic.objects.select_related("author_ptr").get(), shop.Classic.objects.get()):
        before.author_ptr.classic = before
        after = way(before)
        assert after.author_ptr.classic is after


@ways
def test_ordinary_prefetches_of_every_kind_are_left_out(shop: Any, way: Way) -> None:
    shop.Note.objects.create(about=shop.Tag.objects.get(text="tag 0"), text="of a tag")
    for before, name in (
        (shop.Author.objects.prefetch_related("books__tags"), "books"),
        (shop.Book.objects.prefetch_related("tags"), "tags"),
        (shop.Tag.objects.prefetch_related("book_set"), "book_set"),
        (shop.Tag.objects.prefetch_related("notes"), "notes"),
    ):
        row = before[0]
        assert row._prefetched_objects_cache
        assert "_prefetched_objects_cache" not in vars(way(row))
        assert list(getattr(way(row), name).all()) == list(getattr(row, name).all()) != []
        assert len(way(before).filter(pk=row.pk)) == 1


@ways
def test_rows_that_the_application_set_in_place_of_a_relation_stay(shop: Any, way: Way) -> None:
    bob = shop.Author.objects.prefetch_related("books").get(name="Bob")
    book = bob.books.all()[1]
    bob._prefetched_objects_cache |= {"classic_set": [book], "name": bob.books.all(), "none": bob.books.all()}
    kept = way(bob)._prefetched_objects_cache
    assert {name: list(rows) for name, rows in kept.items()} == {
        "classic_set": [book], "name": list(bob.books.all()), "none": list(bob.books.all()),
    }  # fmt: skip
    book.note = "mine"
    assert [getattr(row, "note", None) for row in way(bob).books.all()] == [None, "mine"]


@ways
def test_one_object_that_a_prefetch_brought_or_did_not_stays_so(shop: Any, way: Way) -> None:
    from django.contrib.contenttypes.prefetch import GenericPrefetch
    from django.db.models import Prefetch
    from django.test.utils import CaptureQueriesContext

    shop.Classic.objects.create(name="Eve", century=5)
    shop.Note.objects.create(about=shop.Tag.objects.get(text="tag 0"), text="of a tag")
    none, old = shop.Author.objects.none(), shop.Classic.objects.filter(century=1)
    tags = shop.Tag.objects.exclude(text="tag 0")
    for before, name in (
        (shop.Book.objects.prefetch_related(Prefetch("author", none)), "author"),
        (shop.Author.objects.filter(name="Eve").prefetch_related(Prefetch("classic", old)), "classic"),
        (shop.Author.objects.filter(name="Eve").prefetch_related("classic"), "classic"),
        (shop.Author.objects.filter(name="Eve").select_related("classic"), "classic"),
        (shop.Note.objects.prefetch_related(GenericPrefetch("about", [tags])), "about"),
        (shop.Note.objects.prefetch_related("about"), "about"),
    ):
        rows, after = list(before), way(list(before))
        with CaptureQueriesContext(connection()) as queries:
            assert [getattr(row, name, None) for row in after] == [getattr(row, name, None) for row in rows]
        assert len(queries) == 0
    assert after[0].about.text == "tag 0"
    eve = way(shop.Author.objects.select_related("classic").get(name="Eve"))
    assert eve.classic.author_ptr is eve


@ways
def test_rows_that_keys_do_not_tell_stay_as_they_are(shop: Any, way: Way) -> None:
    from django.db.models import Count

    authors = shop.Author.objects
    for before, seen in (
        (authors.annotate(count=Count("books")), lambda row: (row.name, row.count)),
        (authors.extra(select={"one": "1"}), lambda row: (row.name, row.one)),
        (authors.filter(books__price__gt=0), lambda row: row.name),
        (authors.order_by().only("id", "name").union(shop.Tag.objects.values_list("id", "text")), lambda row: row.name),
        (authors.order_by("?"), lambda row: row.name),
    ):  # fmt: skip
        rows = [seen(row) for row in before]
        after = way(before)
        again = way(after)
        for same in (after, after.all(), after.all().all(), again, again.all()):
            assert [seen(row) for row in same] == rows
            assert (len(same), same.count(), seen(same[0])) == (len(rows), len(rows), rows[0])
        with pytest.raises(TypeError, match="out of the cache"):
            list(after.filter(pk=1))


@ways
def test_rows_that_keys_tell_can_be_asked_for_again(shop: Any, way: Way) -> None:
    from django.db.models import Count, Value

    authors, books = shop.Author.objects, shop.Book.objects
    for before in (
        authors.filter(books__price__gt=0).distinct(), authors.alias(count=Count("books")).filter(count__gt=1),
        books.order_by("-price")[:2], books.filter(title=Value("book 1")).select_related("author"),
        books.only("title"), books.order_by("author"), authors.prefetch_related("books"),
    ):  # fmt: skip
        after = way(before)
        assert list(after.all()) == list(before) == list(after.filter(pk__isnull=False))
    distinct = books.distinct().order_by("author")
    assert list(way(distinct).values_list("author__name", flat=True)) == ["Ann", "Bob"]


@pytest.fixture
def elsewhere(shop: Any) -> Iterator[str]:
    """The alias of a second database, in memory, with a book."""
    from django.db import connections

    connections.settings["elsewhere"] = {**connections.settings["default"], "NAME": ":memory:"}
    with connections["elsewhere"].schema_editor() as editor:
        for model in (shop.Author, shop.Book):
            editor.create_model(model)
    author = shop.Author.objects.using("elsewhere").create(name="Eve")
    shop.Book.objects.using("elsewhere").create(id=uuid.UUID(int=0), title="far away", price=1, author=author)
    yield "elsewhere"
    connections["elsewhere"].close()
    del connections["elsewhere"], connections.settings["elsewhere"]


@ways
def test_further_questions_go_to_the_database_of_the_rows(shop: Any, elsewhere: str, way: Way) -> None:
    eve = shop.Author.objects.using(elsewhere).get()
    for before in (shop.Book.objects.using(elsewhere), eve.books.all()):
        assert [book.title for book in way(before).all()] == ["far away"]
    assert way(shop.Book.objects.all())._db is None


@ways
def test_attributes_beside_the_fields_are_kept(shop: Any, way: Way) -> None:
    from django.db.models import Count

    before = shop.Author.objects.annotate(count=Count("books")).get(name="Bob")
    before.note = ("a", [1])
    after = way(before)
    assert (after.count, after.note) == (2, ("a", [1]))


@ways
def test_a_queryset_comes_back_with_its_rows(shop: Any, way: Way) -> None:
    from django.test.utils import CaptureQueriesContext

    before = shop.Book.objects.filter(price__gt=5).order_by("-price")
    after = way(before)
    with CaptureQueriesContext(connection()) as queries:
        assert type(after) is type(before)
        assert after.model is shop.Book
        assert after.db == "default"
        assert [fields(row) for row in after] == [fields(row) for row in before]
        assert (len(after), bool(after), after.count(), after.exists()) == (2, True, 2, True)
        assert after.first() == after[0] == before[0]
        assert list(after[1:]) == list(before[1:])
        assert repr(after) == repr(before)
    assert len(queries) == 0
    assert after[0] is not before[0]


@ways
def test_a_queryset_can_be_filtered_and_ordered_further(shop: Any, way: Way) -> None:
    before = shop.Book.objects.filter(price__gt=5).order_by("-price")
    after = way(before)
    assert list(after.filter(title="book 0")) == list(before.filter(title="book 0"))
    assert list(after.cheap()) == list(before.cheap())
    assert list(after.all()) == list(before)
    assert (after.last(), after.reverse()[0]) == (before.last(), before.reverse()[0])
    assert list(after.order_by("price").values_list("title", flat=True)) == ["book 0", "book 1"]
    assert after.update(title="all of it") == 2
    assert shop.Book.objects.filter(title="all of it").count() == 2
    assert list(way(shop.Author.objects.all()).exclude(name="Ann")) == list(shop.Author.objects.filter(name="Bob"))


@ways
def test_a_queryset_of_nothing_stays_one_of_nothing(shop: Any, way: Way) -> None:
    for before in (shop.Book.objects.none(), shop.Book.objects.filter(title="no such")):
        assert list(way(before)) == []
        assert list(way(before).filter(price__gt=0)) == []


@ways
def test_rows_that_are_no_instances_come_back(shop: Any, way: Way) -> None:
    from django.test.utils import CaptureQueriesContext

    books = shop.Book.objects.order_by("price")
    kinds = [
        books.values(), books.values("title", "author__name"), books.values_list("title", "price"),
        books.values_list("title", flat=True), books.values_list("title", "price", named=True), books.values("title"),
        books.dates("added", "year"), books.filter(title="x").values_list("title", named=True),
        shop.Book.objects.values("title"),
    ]  # fmt: skip
    for before in kinds:
        after = way(before)
        rows = list(before)
        with CaptureQueriesContext(connection()) as queries:
            assert list(after) == rows
            assert list(map(type, after)) == list(map(type, rows)) or after[0]._fields == rows[0]._fields
            assert after.first() == (rows or [None])[0]
        assert len(queries) == 0


@ways
def test_further_questions_that_cached_rows_cannot_answer_are_refused(shop: Any, way: Way) -> None:
    from django.db.models import F
    from django.db.transaction import atomic

    for before in (
        shop.Book.objects.values("title"),
        shop.Book.objects.order_by(F("price").desc(nulls_last=True)),
        shop.Book.objects.order_by("author__name"),
    ):
        after = way(before)
        assert len(after) == 3
        for further in (after.filter(title="book 0"), after.order_by("title"), after.all().distinct(), after.reverse()):
            with pytest.raises(TypeError, match="out of the cache"):
                list(further)
        with pytest.raises(TypeError, match="out of the cache"), atomic():
            after.update(title="x")
    assert not shop.Book.objects.filter(title="x").exists()


def test_a_queryset_is_evaluated_once(shop: Any) -> None:
    from django.test.utils import CaptureQueriesContext

    before = shop.Book.objects.all()
    with CaptureQueriesContext(connection()) as queries:
        stored({"books": before})
        copied([before])
        list(before)
    assert len(queries) == 1


def test_what_would_not_come_back_is_refused_by_place(shop: Any) -> None:
    from django.core.files.base import ContentFile

    book = shop.Book(id=uuid.UUID(int=9), cover=ContentFile(b"x", "a"))
    book.cover.name = "a"
    locked = shop.Author.objects.first()
    locked.lock = object()
    itself = shop.Author.objects.first()
    itself.me = itself
    through = shop.Author.objects.first()
    through.mentor = shop.Author(name="a", mentor=shop.Author(name="b", mentor=through))
    strange = shop.Book.objects.all()
    strange.mine = 1
    own_rows = shop.Book.objects.all()
    own_rows._iterable_class = type("Rows", (own_rows._iterable_class,), {})
    for value, text in (
        ([book], "[0]: cannot store project.shop.models.Book: TypeError: a file that is not saved yet"),
        ({"a": locked}, "a.<Author>.lock: cannot store object"),
        (itself, "<Author>: cannot store a value nested more than 256 deep, or within itself"),
        (through, "<Author>: cannot store a value nested more than 256 deep, or within itself"),
        (strange, "a queryset with the attributes mine"),
        (own_rows, "rows of its own kind"),
        (shop.Book.objects.raw("select 1"), "cannot store django.db.models.query.RawQuerySet"),
    ):
        with pytest.raises(Unstorable) as caught:
            serializers.dump(value, plain=False, limit=1_000_000)
        assert text in str(caught.value)


def test_a_queryset_that_cannot_be_asked_in_an_event_loop_is_refused(shop: Any) -> None:
    import asyncio

    async def main() -> None:
        with pytest.raises(Unstorable, match="async context"):
            stored(shop.Book.objects.all())
        assert admit(shop.Book.objects.all()).mode == "opaque"

    asyncio.run(main())


def damage(payload: bytes) -> str:
    with pytest.raises(Damaged) as caught:
        serializers.load(serializers.MARKED, payload)
    return caught.value.reason


def test_another_set_of_fields_is_a_miss(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db.models import TextField

    from cachekit.codec import classes

    monkeypatch.setattr(classes, "_plans", {})
    author = shop.Author.objects.first()
    _, one = serializers.dump(author, plain=False, limit=10_000)
    _, many = serializers.dump(shop.Author.objects.values("name"), plain=False, limit=10_000)
    name = shop.Author._meta.get_field("name")
    monkeypatch.setattr(name, "__class__", TextField)
    monkeypatch.setattr(classes, "_plans", {})
    assert damage(one) == "fingerprint"
    assert damage(many) == "payload"
    monkeypatch.undo()
    monkeypatch.setattr(classes, "_plans", {})
    assert serializers.load(serializers.MARKED, one) == author


def test_forged_models_are_damage_and_nothing_else(shop: Any) -> None:
    from django.apps import apps

    _, payload = serializers.dump(shop.Author(name="a"), plain=False, limit=10_000)
    marker, *parts = msgpack.unpackb(payload)
    labels = len(apps.all_models)
    for forged in (
        [marker], [marker, *parts[:-1]], [marker, *parts, 1], [marker, 5, *parts[1:]],
        [marker, *parts[:3], ["nothing"], *parts[4:]], [marker, *parts[:3], {"mentor": None}, *parts[4:]],
        [marker, *parts[:4], {"nothing": None}, *parts[5:]], [marker, *parts[:4], {"mentor": 5}, *parts[5:]],
        [marker, *parts[:5], {"books": 5}, *parts[6:]], [marker, *parts[:5], {5: []}, *parts[6:]],
        [marker, *parts[:6], {5: 1}, *parts[7:]],
        [marker, *parts[:6], {"x": [[marker, *parts[:3], ["nothing"], *parts[4:]]]}, *parts[7:]],
        [msgpack.ExtType(54, b"shop.nothing\0\0" + bytes(8))], [msgpack.ExtType(54, b"no_app.x")],
        [msgpack.ExtType(54, b"shop")], [msgpack.ExtType(54, b"")],
        [msgpack.ExtType(54, b"project.shop.models:Author")],
        [msgpack.ExtType(52, b"project.shop.models:Author"), *parts],
        [msgpack.ExtType(52, b"project.shop.models:Shelf")],
        [msgpack.ExtType(52, b"project.shop.models:Shelf"), "shop.book", bytes(8), None, "x", None, None, None],
    ):  # fmt: skip
        damage(msgpack.packb(forged, strict_types=False))
    assert len(apps.all_models) == labels


@pytest.mark.parametrize("l1", ["on", "off"])
def test_the_cache_of_django_takes_them(on_server: Any, shop: Any, l1: str) -> None:
    """As with django-redis, which pickles them."""
    from django.core.cache import cache
    from django.test.utils import CaptureQueriesContext

    on_server(profiles={"default": {"on_unstorable": "raise", "l1": {"mode": l1}}})
    cache.set("books", shop.Book.objects.select_related("author").order_by("title"))
    cache.set("author", shop.Author.objects.get(name="Bob"))
    cache.set("titles", shop.Book.objects.values_list("title", flat=True))
    with CaptureQueriesContext(connection()) as queries:
        assert [book.author.name for book in cache.get("books")] == ["Ann", "Bob", "Bob"]
        assert cache.get("author").name == "Bob"
        assert sorted(cache.get("titles")) == ["book 0", "book 1", "book 2"]
    assert len(queries) == 0
