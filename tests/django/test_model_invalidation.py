"""What is made of models is outdated when the transaction that changed them commits, and not before or otherwise."""

import datetime
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Changed = Callable[[], set[str]]


@pytest.fixture(params=["l1", pytest.param("server", marks=pytest.mark.slow)])
def shop(request: pytest.FixtureRequest, use: Callable[..., None], on_server: Callable[..., None]) -> Iterator[Any]:
    """Two authors with a book each, committed, and every model connected; gone again after the test."""
    from project.shop import models

    from cachekit.integrations.django.models import connect

    on_server() if request.param == "server" else use()
    empty(models)
    assert connect(models.Book, models.Tag) is models.Book
    ann = models.Author.objects.create(name="Ann")
    bob = models.Author.objects.create(name="Bob")
    models.Book.objects.create(id=uuid.UUID(int=1), title="one", price=1, author=ann)
    models.Book.objects.create(id=uuid.UUID(int=2), title="two", price=2, author=bob)
    models.Tag.objects.create(text="red")
    yield models
    empty(models)


def empty(models: Any) -> None:
    """Of rows that tests have committed."""
    for model in (models.Book, models.Tag, models.Author, models.Film, models.Genre):
        model.objects.all().delete()


@pytest.fixture
def changed(shop: Any) -> Changed:
    """The names of those entries that are gone since the last time; each is put there again."""
    from cachekit import MISS, region
    from cachekit.integrations.django.models import tags_of

    one, two = shop.Book.objects.order_by("title")
    wanted = {
        "books": tags_of(shop.Book),
        "one": tags_of(one),
        "two": tags_of(shop.Book, str(two.pk)),
        "authors": tags_of(shop.Author),
        "ann": tags_of(shop.Author, one.author_id),
        "bob": tags_of(two.author),
        "tags": tags_of(shop.Tag),
        "red": tags_of(shop.Tag.objects.get()),
        "red books": tags_of(shop.Book.objects.filter(tags__text="red")),
        "books by name": tags_of(shop.Book.objects.select_related("author")),
        "of red": tags_of(shop.Tag.objects.filter(book=one)),
    }

    def look() -> set[str]:
        gone = {name for name in wanted if region().get(name, MISS) is MISS}
        for name, tags in wanted.items():
            region().set(name, 1, tags=tags)
        return gone

    assert look() == set(wanted)
    assert look() == set()
    return look


ABOUT_BOOKS = {"books", "red books", "books by name"}
ABOUT_AUTHORS = {"authors", "books by name"}
ABOUT_TAGS = {"tags", "of red", "red books"}
RELATED = {*ABOUT_BOOKS, *ABOUT_TAGS}


def test_a_row_that_is_saved_outdates_itself_and_what_reads_its_table(shop: Any, changed: Changed) -> None:
    book = shop.Book.objects.get(title="one")
    book.save()
    assert changed() == {*ABOUT_BOOKS, "one"}
    shop.Book.objects.create(id=uuid.UUID(int=3), title="three", price=3, author=book.author)
    assert changed() == ABOUT_BOOKS
    shop.Author.objects.filter(name="Bob").get().save()
    assert changed() == {*ABOUT_AUTHORS, "bob"}
    shop.Author.objects.get_or_create(name="Bob")
    assert changed() == set()
    shop.Author.objects.update_or_create(name="Bob", defaults={"born": datetime.date(1900, 1, 1)})
    assert changed() == {*ABOUT_AUTHORS, "bob"}


def test_nothing_happens_before_the_commit(shop: Any, changed: Changed) -> None:
    from django.db import transaction

    with transaction.atomic():
        shop.Book.objects.get(title="one").save()
        with transaction.atomic():
            shop.Book.objects.get(title="two").save()
        assert changed() == set()
    assert changed() == {*ABOUT_BOOKS, "one", "two"}


def test_nothing_happens_on_rollback(shop: Any, changed: Changed) -> None:
    from django.db import transaction

    from cachekit.integrations.django.models import invalidate

    def change() -> None:
        shop.Book.objects.get(title="one").save()
        shop.Book.objects.get(title="two").tags.add(shop.Tag.objects.get())
        shop.Author.objects.get(name="Ann").delete()
        invalidate(shop.Book)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        change()
    assert changed() == set()
    with transaction.atomic():
        shop.Tag.objects.get().save()
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            change()
    assert changed() == {*ABOUT_TAGS, "red"}


def test_a_deletion_outdates_what_it_takes_along_and_what_pointed_to_it(shop: Any, changed: Changed) -> None:
    shop.Author.objects.get(name="Ann").delete()  # and her book; who had her as a mentor has none now
    assert changed() == {*RELATED, *ABOUT_AUTHORS, "ann", "bob", "one", "red"}
    shop.Author.objects.filter(name="Bob").delete()
    assert changed() == {*RELATED, *ABOUT_AUTHORS, "ann", "bob", "two", "red"}


def test_a_row_whose_relation_a_deletion_set_to_null_is_outdated(shop: Any) -> None:
    from cachekit import cache
    from cachekit.integrations.django.models import tags_of

    @cache(tags=lambda pk: tags_of(shop.Author, pk))
    def mentor_of(pk: int) -> Any:
        return shop.Author.objects.get(pk=pk).mentor_id

    ann, bob = shop.Author.objects.order_by("name")
    bob.mentor = ann
    bob.save()
    assert mentor_of(bob.pk) == ann.pk
    ann.delete()
    assert mentor_of(bob.pk) is None


def test_what_a_deletion_sets_is_noticed_where_only_what_pointed_there_is_connected(
    shop: Any, gone: Callable[..., bool]
) -> None:
    from cachekit.integrations.django.models import _connected, tags_of

    assert not {shop.Publisher, shop.Imprint, shop.Later, shop.LaterYet} & _connected
    for name, model, through in (
        ("publisher", shop.Publisher, shop.Publisher), ("heir", shop.Publisher, shop.Publisher),
        ("publisher", shop.Imprint, shop.Imprint), ("publisher", shop.Imprint, shop.Publisher),
        ("seller", shop.Later, shop.Later), ("seller", shop.Later, shop.LaterYet),
    ):  # fmt: skip
        to = model.objects.create()
        edition = shop.Edition.objects.create(**{name: to.publisher_ptr if model is shop.Imprint else to})
        assert gone(tags_of(edition), through.objects.get(pk=to.pk).delete)
        edition.refresh_from_db()
        assert getattr(edition, name) is None
        edition.delete()
        to = model.objects.create()
        assert gone(tags_of(shop.Edition), through.objects.filter(pk=to.pk).delete)


def test_a_relation_outdates_both_its_ends(shop: Any, changed: Changed) -> None:
    book, tag = shop.Book.objects.get(title="one"), shop.Tag.objects.get()
    book.tags.add(tag)
    assert changed() == {*RELATED, "one", "red"}
    tag.book_set.remove(book)
    assert changed() == {*RELATED, "one", "red"}
    tag.book_set.set([book])
    assert changed() == {*RELATED, "one", "red"}
    book.tags.clear()  # which of them, no signal tells
    assert changed() == {*RELATED, "one", "red"}
    book.tags.add(tag)
    changed()
    tag.delete()  # the rows between the two go without a signal
    assert changed() == {*RELATED, "one", "two", "red"}


@pytest.fixture
def gone(shop: Any) -> Callable[..., bool]:
    """Whether a change outdates what has these tags."""
    from cachekit import MISS, region

    def check(tags: list[str], change: Callable[[], object]) -> bool:
        region().set("made of it", 1, tags=tags)
        change()
        return region().get("made of it", MISS) is MISS

    return check


def test_a_relation_by_another_field_than_the_key_outdates_both_ends(shop: Any, gone: Callable[..., bool]) -> None:
    from cachekit.integrations.django.models import connect, tags_of

    connect(shop.Film)
    film, genre = shop.Film.objects.create(), shop.Genre.objects.create(slug="drama")
    for tags in (tags_of(film), tags_of(genre), tags_of(shop.FilmGenre), tags_of(shop.Genre)):
        for change in (
            lambda: film.genres.add(genre), lambda: film.genres.remove(genre),
            lambda: genre.films.set([film]), genre.films.clear,
        ):  # fmt: skip
            assert gone(tags, change)
    film.genres.add(genre)
    assert list(shop.FilmGenre.objects.values_list("genre_id", flat=True)) == ["drama"]


def test_a_change_whose_rows_cannot_be_told_is_one_of_all_rows_and_no_exception(
    shop: Any, gone: Callable[..., bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from cachekit.integrations.django import models
    from cachekit.integrations.django.models import tags_of

    monkeypatch.setattr(models, "_reported", set())
    ann, tag = shop.Author.objects.get(name="Ann"), shop.Tag.objects.get()
    one, two = shop.Book.objects.order_by("title")
    all_books, all_tags, bob = tags_of(two), tags_of(tag), tags_of(two.author)
    odd = type("Odd", (int,), {"__str__": lambda self: 1 / 0})
    ann.pk = odd(ann.pk)
    monkeypatch.setattr(shop.Author._meta.pk, "to_python", lambda value: value)
    monkeypatch.setattr(shop.Tag._meta.pk, "to_python", lambda value: 1 / 0)
    assert gone(bob, ann.save)
    assert gone(bob, ann.save)
    assert gone(all_tags, lambda: one.tags.add(tag))
    assert gone(all_books, tag.delete)
    lines = [record.getMessage() for record in caplog.records if record.name == "cachekit"]
    senders = ("Author", "Book_tags", "Tag")  # a line each, whatever follows
    assert [line.partition(" cannot")[0] for line in lines] == [f"changes of shop.{name}" for name in senders]
    assert not shop.Tag.objects.exists()


def test_the_other_side_of_a_foreign_key_is_noticed_without_bulk(shop: Any, gone: Callable[..., bool]) -> None:
    from cachekit.integrations.django.models import tags_of

    bob, one = shop.Author.objects.get(name="Bob"), shop.Book.objects.get(title="one")
    assert not gone(tags_of(one), lambda: bob.books.add(one))
    assert gone(tags_of(one), lambda: bob.books.add(one, bulk=False))


def test_what_no_signal_tells_of_is_told_by_hand(shop: Any, changed: Changed) -> None:
    from cachekit.integrations.django.models import invalidate

    shop.Book.objects.update(title="other")
    assert changed() == set()
    invalidate(shop.Book)
    assert changed() == {*ABOUT_BOOKS, "one", "two"}
    invalidate(shop.Book(pk=uuid.UUID(int=2)), shop.Tag)
    assert changed() == {*ABOUT_BOOKS, *ABOUT_TAGS, "two", "red"}


async def test_coroutines_change_and_tell_as_well(shop: Any, changed: Changed) -> None:
    from asgiref.sync import sync_to_async

    from cachekit.integrations.django.models import ainvalidate

    look = sync_to_async(changed)
    book = await shop.Book.objects.aget(title="one")
    await book.asave()
    assert await look() == {*ABOUT_BOOKS, "one"}
    await book.tags.aadd(await shop.Tag.objects.aget())
    assert await look() == {*RELATED, "one", "red"}
    await shop.Book.objects.aupdate(title="other")
    await ainvalidate(shop.Book)
    assert await look() == {*ABOUT_BOOKS, "one", "two"}
    await book.adelete()
    assert await look() >= {*ABOUT_BOOKS, "one"}


def test_a_cached_function_is_computed_anew(shop: Any) -> None:
    from cachekit import cache
    from cachekit.integrations.django.models import tags_of

    @cache(tags=lambda pk: tags_of(shop.Book, pk))
    def title(pk: uuid.UUID) -> str:
        return str(shop.Book.objects.get(pk=pk).title)

    @cache(tags=lambda: tags_of(shop.Book.objects.all()))
    def titles() -> list[str]:
        return list(shop.Book.objects.order_by("title").values_list("title", flat=True))

    book = shop.Book.objects.get(title="one")
    assert (title(book.pk), titles()) == ("one", ["one", "two"])
    book.title = "a"
    book.save()
    assert (title(book.pk), titles()) == ("a", ["a", "two"])


def test_proxies_and_children_are_noticed_too(shop: Any, changed: Changed) -> None:
    from cachekit import MISS, region
    from cachekit.integrations.django.models import tags_of

    shop.Famous.objects.get(name="Ann").save()
    assert changed() == {*ABOUT_AUTHORS, "ann"}
    classic = shop.Classic.objects.create(name="Eve", century=5)
    assert changed() == ABOUT_AUTHORS
    for tags in (tags_of(classic), tags_of(shop.Classic, classic.pk), tags_of(shop.Author, classic.pk)):
        for change in (classic.save, shop.Author.objects.get(pk=classic.pk).save):
            region().set("eve", 1, tags=tags)
            change()
            alone = change != classic.save and tags == tags_of(shop.Classic)
            assert (region().get("eve", MISS) is MISS) is not alone
    assert set(tags_of(shop.Classic)) > set(tags_of(shop.Author)) == set(tags_of(shop.Famous))
    assert tags_of(shop.Classic, classic.pk) == tags_of(classic)


@pytest.mark.parametrize("named", ["Parent", "Proxy", "Child"])
def test_a_whole_family_is_connected_whichever_of_it_is_named_and_when(set_up: None, named: str) -> None:
    from django.db import models
    from django.db.models.signals import post_delete, post_save
    from django.test.utils import isolate_apps

    from cachekit.integrations.django.models import connect

    with isolate_apps("project.shop"):
        base = {"__module__": "project.shop.models"}
        parent: Any = type("Parent", (models.Model,), dict(base))
        proxy: Any = type("Proxy", (parent,), {**base, "Meta": type("Meta", (), {"proxy": True})})
        child: Any = type("Child", (parent,), dict(base))
        family = {"Parent": parent, "Proxy": proxy, "Child": child}
        assert not any(post_save.has_listeners(model) for model in family.values())
        connect(family[named])
        later: Any = type("Later", (child,), dict(base))
        for model in (*family.values(), later):
            assert post_save.has_listeners(model)
            assert post_delete.has_listeners(model)


def test_a_queryset_has_the_tags_of_every_table_that_it_reads(shop: Any) -> None:
    from django.db.models import Count, Exists, OuterRef
    from django.test.utils import CaptureQueriesContext

    from cachekit.integrations.django.models import tags_of

    books, authors = shop.Book.objects, shop.Author.objects
    book, author, tag = "django:shop.book", "django:shop.author", "django:shop.tag"
    between = "django:shop.book_tags"
    from django.db import connection

    with CaptureQueriesContext(connection) as queries:
        for queryset, tags in (
            (books.all(), {book}),
            (books.none(), {book}),
            (books.only("title")[:3], {book}),
            (books.values_list("author__name"), {book, author}),
            (books.filter(author__mentor__name="x"), {book, author}),
            (books.filter(tags__text="x"), {book, between, tag}),
            (books.filter(tags=1), {book, between}),
            (authors.annotate(count=Count("books")), {author, book}),
            (authors.filter(Exists(shop.Book.objects.filter(author=OuterRef("pk")))), {author, book}),
            (authors.filter(pk__in=books.filter(tags__text="x").values("author")), {author, book, between, tag}),
            (books.values("title").union(shop.Tag.objects.values("text")), {book, tag}),
            (shop.Classic.objects.all(), {"django:shop.classic", author}),
        ):
            assert set(tags_of(queryset)) == tags
    assert len(queries) == 0


def test_tables_that_sql_by_hand_names_are_found(shop: Any, gone: Callable[..., bool]) -> None:
    from django.db.models import Count
    from django.db.models.expressions import RawSQL

    from cachekit.integrations.django.models import tags_of

    authors, tag = shop.Author.objects, shop.Tag
    for queryset in (
        authors.annotate(number=RawSQL("select count(*) from shop_tag", ())),
        authors.annotate(number=RawSQL("(SELECT count(*) FROM Shop_Tag)", ())),
        authors.extra(where=["id not in (select 1 from [shop_tag])"]),
        authors.extra(tables=["shop_tag"]), authors.extra(select={"number": "select count(*) from main.shop_tag"}),
    ):  # fmt: skip
        assert set(tags_of(queryset)) == {"django:shop.author", "django:shop.tag"}
        assert gone(tags_of(queryset), lambda: tag.objects.create(text="new"))
    assert "django:shop.tag" not in tags_of(authors.annotate(shop_tags=Count("books__tags__pk")))
    wide = shop.Book.objects.extra(where=["title != 'x shop_tag$'"])
    assert set(tags_of(wide)) == {"django:shop.book", "django:shop.tag"}  # one too many, which does no harm


def test_a_key_that_is_text_is_the_same_key(shop: Any, gone: Callable[..., bool]) -> None:
    from cachekit.integrations.django.models import invalidate, tags_of

    one, two = shop.Book.objects.order_by("title")
    classic = shop.Classic.objects.create(name="Eve", century=5)
    for key in (str(one.pk), str(one.pk).upper(), one.pk.hex):
        again = shop.Book(pk=key, title="one", price=1, author=one.author)
        again._state.adding = False
        assert tags_of(again) == tags_of(one)
        assert gone(tags_of(one), lambda: invalidate(shop.Book(pk=key)))  # noqa: B023
        assert gone(tags_of(one), again.save)
        assert not gone(tags_of(two), again.save)
    assert tags_of(shop.Classic(pk=str(classic.pk))) == tags_of(classic)
    assert gone(tags_of(classic), lambda: invalidate(shop.Classic(pk=str(classic.pk))))
    assert gone(tags_of(classic), shop.Author(pk=str(classic.pk), name="Eva").save)


def test_a_key_of_several_columns_is_the_same_in_every_spelling(set_up: None) -> None:
    from django.db import models
    from django.test.utils import isolate_apps

    from cachekit.integrations.django.models import tags_of

    with isolate_apps("project.shop"):
        columns = {"pk": models.CompositePrimaryKey("a", "b"), "a": models.IntegerField(), "b": models.UUIDField()}
        pair: Any = type("Pair", (models.Model,), {"__module__": "project.shop.models", **columns})
    key = uuid.UUID(int=5)
    tags = tags_of(pair, (1, key))
    assert tags == tags_of(pair, ["1", str(key)]) == tags_of(pair(a=1, b=key)) == tags_of(pair(a="1", b=key.hex))
    assert tags != tags_of(pair, (2, key))


def test_tags_are_the_same_for_every_spelling_of_a_key(shop: Any) -> None:
    from cachekit.engine.keys import check_tag
    from cachekit.integrations.django.models import tags_of

    pk = uuid.UUID(int=1)
    book = shop.Book.objects.get(pk=pk)
    assert tags_of(shop.Book, pk) == tags_of(shop.Book, str(pk)) == tags_of(shop.Book, pk.hex) == tags_of(book)
    assert tags_of(shop.Author, "7") == tags_of(shop.Author, 7)
    from django.contrib.sessions.models import Session

    keys = ["a", "\n", "é" * 200, "x" * 100, "x" * 300, "x" * 301]
    rows = [tuple(tags_of(Session, key)) for key in keys]
    assert len(set(rows)) == len(keys)
    assert all(check_tag(tag) for row in rows for tag in row)


def test_what_has_no_tags_is_said_at_once(shop: Any) -> None:
    from django.db import models

    from cachekit.integrations.django.models import connect, invalidate, tags_of

    class Abstract(models.Model):
        class Meta:
            abstract = True

    for wrong in (5, int, Abstract, "shop.Book", shop.Book.objects.raw("select 1"), shop.Book.objects):
        for function in (tags_of, invalidate):
            with pytest.raises(TypeError, match="is not a model"):
                function(wrong)
    with pytest.raises(TypeError, match="is not a model"):
        connect(Abstract)
    for function in (tags_of, invalidate):
        with pytest.raises(ValueError, match="Author: an instance that is not saved"):
            function(shop.Author(name="new"))


def test_without_autocommit_a_change_is_told_at_once(shop: Any, changed: Changed) -> None:
    from django.db import transaction

    transaction.set_autocommit(False)
    try:
        shop.Book.objects.get(title="one").save()
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    assert changed() == {*ABOUT_BOOKS, "one"}


def test_a_server_that_is_away_is_no_exception_of_the_transaction(use: Callable[..., None], shop: Any) -> None:
    from cachekit import region

    use(CACHEKIT={"backends": {"default": {"url": "redis://127.0.0.1:1/0"}}})
    book = shop.Book.objects.get(title="one")
    region().set("one", 1, tags=["django:shop.book"])
    book.title = "saved"
    book.save()
    assert shop.Book.objects.get(pk=book.pk).title == "saved"
    assert region().get("one") is None
