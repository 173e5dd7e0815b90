"""What the project has while it is developed: the toolbar, and a page that asks the caches in many ways."""

from collections.abc import Callable
from typing import Any

from django.core.cache import cache as djangos
from django.http import HttpResponse
from django.urls import include, path
from django.utils.html import format_html_join
from project.shop.models import Author, Book
from project.urls import urlpatterns as own

from cachekit import cache, region
from cachekit.integrations.django.models import tags_of


@cache(profile="authors", tags=lambda pk: tags_of(Author, pk))
def load_author(pk: int) -> Any:
    return Author.objects.get(pk=pk)


@cache(profile="books", tags=lambda: tags_of(Book.objects.select_related("author")))
def load_books() -> Any:
    return Book.objects.select_related("author").order_by("title")


def books(request: Any) -> Any:
    """Some books, and how often they were looked at."""
    rows = [(book.title, load_author(book.author_id).name) for book in load_books()]
    djangos.add("seen", 0)
    seen = djangos.incr("seen")
    region("books").get_or_set("cheapest", lambda: min(book.title for book in load_books()))
    listed = format_html_join("", "<li>{} by {}</li>", rows)
    return HttpResponse(f"<html><body><h1>Books, seen {seen} times</h1><ul>{listed}</ul></body></html>")


def shows_toolbar(request: Any) -> bool:
    return not request.path.startswith("/admin/")


def strict(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The admin's pages may use nothing but files of this host: no inline script or style, no other host."""

    def answer(request: Any) -> Any:
        response = get_response(request)
        if not shows_toolbar(request):
            response["Content-Security-Policy"] = "default-src 'self'"
        return response

    return answer


urlpatterns = [
    *own,
    path("books/", books),
    path("favicon.ico", lambda request: HttpResponse(status=204)),
    path("__debug__/", include("debug_toolbar.urls")),
]
