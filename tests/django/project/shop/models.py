"""Books and who wrote them: models of every kind that a cache gets to see."""

from typing import Any

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models

from cachekit.integrations.django.models import connect


@connect
class Author(models.Model):
    name = models.CharField(max_length=50)
    born = models.DateField(null=True)
    mentor = models.ForeignKey("self", models.SET_NULL, null=True)

    class Meta:
        ordering = ("name",)


class Shelf(models.QuerySet[Any]):
    """A queryset of the application's own."""

    def cheap(self) -> Any:
        return self.filter(price__lt=10)


class Book(models.Model):
    id = models.UUIDField(primary_key=True)
    title = models.CharField(max_length=50)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    author = models.ForeignKey(Author, models.CASCADE, related_name="books")
    tags = models.ManyToManyField("Tag")
    cover = models.FileField(null=True)
    details = models.JSONField(default=dict)
    added = models.DateTimeField(null=True)

    objects = Shelf.as_manager()


class Tag(models.Model):
    text = models.CharField(max_length=20)
    notes = GenericRelation("Note", "about_id", "about_type")


class Note(models.Model):
    """About a row of any model."""

    about_type = models.ForeignKey(ContentType, models.CASCADE)
    about_id = models.BigIntegerField()
    about = GenericForeignKey("about_type", "about_id")
    text = models.CharField(max_length=20)


class Publisher(models.Model):
    pass


class Imprint(Publisher):
    """What is published under a name of its own."""


class Edition(models.Model):
    """With every way in which a deletion changes what pointed to the row."""

    publisher = models.ForeignKey(Publisher, models.SET_NULL, null=True)
    heir = models.ForeignKey("Publisher", models.SET_DEFAULT, default=None, null=True, related_name="+")
    seller = models.ForeignKey("Later", models.SET(None), null=True)


connect(Edition)


class Later(models.Model):
    """Defined after what points to it."""


class LaterYet(Later):
    class Meta:
        proxy = True


class Genre(models.Model):
    """What films have by its name."""

    slug = models.SlugField(unique=True)


class Film(models.Model):
    genres = models.ManyToManyField(Genre, through="FilmGenre", related_name="films")


class FilmGenre(models.Model):
    film = models.ForeignKey(Film, models.CASCADE)
    genre = models.ForeignKey(Genre, models.CASCADE, to_field="slug")


class Classic(Author):
    """A table of its own beside that of its parent."""

    century = models.IntegerField()


class Famous(Author):
    """The same rows under another class."""

    class Meta:
        proxy = True
