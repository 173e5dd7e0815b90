"""A project for a browser: admin, sessions in cachekit, pages of every kind, fragments. ``setup`` makes its users.

REDIS_URL is its server, PROJECT_DB the file of its database.
"""

import os
from typing import Any

from django.conf import settings

OURS = "cachekit.integrations.django.CacheKitCache"
USERS = {"ann": "secret-of-ann", "bob": "secret-of-bob"}
PAGE = """
{% load cache %}<h1>{{ title }}</h1>
<p id="who">{{ who }}</p>
{% cache 60 shared title %}<p id="shared">the same for all</p>{% endcache %}
{% cache 60 mine title request.user.pk %}<p id="mine">{{ who }}</p>{% endcache %}
"""
BASKET = """
<h1>Basket</h1><p id="who">{{ who }}</p><ul>{% for each in basket %}<li>{{ each }}</li>{% endfor %}</ul>
{% for message in messages %}<p class="message">{{ message }}</p>{% endfor %}
<form method="post">{% csrf_token %}<button id="add">Add</button></form>
"""

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    CACHES={"default": {"BACKEND": OURS}, "sessions": {"BACKEND": OURS, "LOCATION": "sessions"}},
    CACHEKIT={
        "namespace": os.environ["PROJECT_NAMESPACE"],
        "profiles": {"sessions": {"ttl": "14d"}},
        "http": {"rules": [{"path": "/ruled/**", "ttl": "1m", "per_user": True}]},
    },
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["PROJECT_DB"],
                           "OPTIONS": {"timeout": 20}}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[
        "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
        "django.contrib.messages", "cachekit.integrations.django",
    ],
    LOGOUT_REDIRECT_URL="/public/",
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "cachekit.integrations.django.CacheMiddleware",
    ],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="not secret",
    SESSION_CACHE_ALIAS="sessions",
    SESSION_ENGINE=f"django.contrib.sessions.backends.{os.environ['PROJECT_SESSIONS']}",
    STATIC_URL="/static/",
    TEMPLATES=[{
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
            "loaders": [
                ("django.template.loaders.locmem.Loader", {"page.html": PAGE, "basket.html": BASKET}),
                "django.template.loaders.app_directories.Loader",
            ],
        },
    }],
    USE_TZ=True,
)  # fmt: skip

import django  # noqa: E402

django.setup()

from asgiref.sync import sync_to_async  # noqa: E402
from django.contrib import admin, messages  # noqa: E402
from django.contrib.auth import views as auth  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.http import HttpResponse, HttpResponseRedirect  # noqa: E402
from django.shortcuts import render  # noqa: E402
from django.template.response import TemplateResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.cache import cache_page as django_cache_page  # noqa: E402
from django.views.decorators.vary import vary_on_cookie  # noqa: E402

from cachekit.integrations.django import cache_page  # noqa: E402
from cachekit.integrations.django.asgi import get_asgi_application  # noqa: E402


def user_of(request: Any) -> str | None:
    return str(request.user.pk) if request.user.is_authenticated else None


async def auser_of(request: Any) -> str | None:
    user = await request.auser()
    return str(user.pk) if user.is_authenticated else None


def personal(request: Any) -> Any:
    """Says whom it is for."""
    who = USERS.get(request.user.username, "nobody")
    return TemplateResponse(request, "page.html", {"title": request.path, "who": who})


async def apersonal(request: Any) -> Any:
    user = await request.auser()
    context = {"title": request.path, "who": USERS.get(user.username, "nobody")}
    return await sync_to_async(render)(request, "page.html", context)


def public(request: Any) -> Any:
    """The same for all."""
    return HttpResponse('<h1>Public</h1><p id="who">anybody</p>')


def basket(request: Any) -> Any:
    """One visitor's, logged in or not, with a form and messages."""
    if request.method == "POST":
        mine = request.session.get("basket", [])
        request.session["basket"] = [*mine, f"{USERS.get(request.user.username, 'nobody')} {len(mine) + 1}"]
        messages.info(request, f"added by {USERS.get(request.user.username, 'nobody')}")
        return HttpResponseRedirect("/basket/")
    who = USERS.get(request.user.username, "nobody")
    return render(request, "basket.html", {"who": who, "basket": request.session.get("basket", [])})


urlpatterns = [
    path("admin/", admin.site.urls),
    path("logout/", auth.LogoutView.as_view()),
    path("public/", cache_page("1m")(public)),
    path("django-public/", django_cache_page(60)(public)),
    path("me/", cache_page("1m", per_user=user_of)(personal)),
    path("ame/", cache_page("1m", per_user=auser_of)(apersonal)),
    path("plain/", cache_page("1m")(personal)),
    path("django-me/", django_cache_page(60)(vary_on_cookie(personal))),
    path("fragments/", personal),
    path("ruled/me/", personal),
    path("basket/", cache_page("1m", per_user=user_of)(basket)),
]

if os.environ.get("PROJECT_SERVER") == "asgi":
    application: Any = get_asgi_application()
else:
    from django.core.wsgi import get_wsgi_application

    application = get_wsgi_application()


def setup() -> None:
    """The tables, and two users who may use the admin."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    for name, secret in USERS.items():
        User.objects.create_superuser(name, password=secret[::-1], first_name=secret)


if __name__ == "__main__":
    setup()
