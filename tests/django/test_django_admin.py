"""The admin's page about the caches: who sees it, what it shows, and what its buttons do."""

import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachekit.testing.servers import Server

OURS = "cachekit.integrations.django.CacheKitCache"
PAGE = "/admin/cachekit/cache/"
CLEAR, INVALIDATE = f"{PAGE}clear/users/", f"{PAGE}invalidate/"
DATABASE = "django.contrib.sessions.backends.db"
Use = Callable[..., None]


@pytest.fixture
def project(use: Use, cachekit_server: Server) -> Iterator[Use]:
    """Two aliases on a server, and a region that wants a tenant; the users of the test are gone after it."""

    def settings(**values: Any) -> None:
        backend = {"url": cachekit_server.url}
        backend |= {key: values.pop(key) for key in ("url", "coherence", "max_staleness") if key in values}
        profiles = {"users": {"ttl": "5m"}, "tenants": {"require_tenant": True}, "lasting": {"ttl": "never"}}
        aliases = {"default": {"BACKEND": OURS}, "people": {"BACKEND": OURS, "LOCATION": "users"}}
        use(CACHES=aliases, CACHEKIT={"backends": {"default": backend}, "profiles": profiles}, **values)

    settings(SESSION_ENGINE=DATABASE)
    yield settings
    from django.contrib.admin.models import LogEntry
    from django.contrib.auth.models import User

    LogEntry.objects.all().delete()
    User.objects.all().delete()


def client(*permissions: str, staff: bool = True, superuser: bool = False, **options: Any) -> Any:
    """Somebody who is logged in."""
    from django.contrib.auth.models import Permission, User
    from django.test import Client

    user = User.objects.create(username=f"user{User.objects.count()}", is_staff=staff, is_superuser=superuser)
    for codename in permissions:
        user.user_permissions.add(Permission.objects.get(content_type__app_label="cachekit", codename=codename))
    visitor = Client(**options)
    visitor.force_login(user)
    return visitor


def row(text: str, region: str) -> list[str]:
    """The cells of a region's line, without markup."""
    (line,) = re.findall(rf'<tr>\s*<th scope="row">{region}\b.*?</tr>', text, re.DOTALL)
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", line, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in cells]


def test_only_staff_with_the_permission_sees_it_and_only_who_may_change_changes(project: Use) -> None:
    from django.test import Client

    from cachekit import region

    region("users").set("k", 1, tags=["red"])
    strangers = {"nobody": Client(), "no staff": client("view_cache", "change_cache", staff=False)}
    for visitor in strangers.values():
        for path in (PAGE, CLEAR, INVALIDATE):
            for ask in (visitor.get, visitor.post):
                response = ask(path, {"tags": "red"})
                assert response.status_code == 302
                assert "/login/" in response["Location"]
    without, seeing = client(), client("view_cache")
    for path in (PAGE, CLEAR, INVALIDATE):
        assert without.post(path, {"tags": "red"}).status_code == 403
        assert without.get(path).status_code in (403, 405)
    assert PAGE not in without.get("/admin/").content.decode()
    assert PAGE in seeing.get("/admin/").content.decode()
    shown = seeing.get(PAGE)
    assert shown.status_code == 200
    assert CLEAR not in shown.content.decode()
    assert INVALIDATE not in shown.content.decode()
    for path in (CLEAR, INVALIDATE):
        assert seeing.post(path, {"tags": "red"}).status_code == 403
    assert seeing.get(CLEAR).status_code == 403
    assert region("users").get("k") == 1
    for visitor in (client("change_cache"), client(superuser=True)):
        text = visitor.get(PAGE).content.decode()
        assert CLEAR in text
        assert INVALIDATE in text
        assert visitor.get(CLEAR).status_code == 200


def test_it_shows_what_the_regions_hold_and_how_the_stores_do(project: Use) -> None:
    from cachekit import cache, region

    @cache(profile="users")
    def load_user(user_id: int) -> dict[str, int]:
        return {"id": user_id}

    project(coherence="ttl", max_staleness=60, SESSION_ENGINE=DATABASE)  # no push takes an entry away while we count
    for _ in range(3):
        load_user(7)
    region("users").set("k", "text")
    region("users").using(skip_l1=True).get("k")
    visitor = client("view_cache")
    response = visitor.get(PAGE)
    text = response.content.decode()
    name, backend, ttl, entries, *numbers = row(text, "users")
    assert (name.split(), backend, ttl) == (["users", "people"], "default", "5m")
    assert re.fullmatch(r"2 \d+ bytes", entries)
    assert numbers == ["2", "1", "0", "0", "1", "75.0 %"]
    assert row(text, "lasting")[1:4] == ["default", "never ends", "0 0 bytes"]
    assert row(text, "tenants")[-1] == "–"
    assert not re.search(r'<th scope="row">minimal', text)  # built in, and not used
    assert re.search(r"<td class=.up.>up</td>\s*<td>closed</td>", text)
    bar = re.findall(r'<rect class="([\w-]+)" x="([\d.]+)" width="([\d.]+)"', text)
    assert bar[:3] == [("l1-hits", "0.00", "50.00"), ("l2-hits", "50.00", "25.00"), ("misses", "75.00", "25.00")]
    assert "no-cache" in response["Cache-Control"]


def test_numbers_of_a_drawing_are_in_no_language(project: Use) -> None:
    from cachekit import region

    for key in ("a", "a", "b"):
        region().get_or_set(key, lambda: 1)
    project(LANGUAGE_CODE="de", USE_THOUSAND_SEPARATOR=True, SESSION_ENGINE=DATABASE)
    for key in ("a", "a", "b"):
        region().get_or_set(key, lambda: 1)
    text = client("view_cache").get(PAGE).content.decode()
    assert 'x="33.33" width="66.67"' in text


def test_a_region_is_cleared_once_it_is_confirmed_and_that_is_logged(
    project: Use, caplog: pytest.LogCaptureFixture
) -> None:
    from django.contrib.admin.models import LogEntry

    from cachekit import region, tenant

    caplog.set_level(logging.INFO, "cachekit")
    region("users").set("k", 1)
    region().set("k", 1)
    visitor = client("change_cache")
    asked = visitor.get(CLEAR)
    assert "Yes, clear users" in asked.content.decode()
    assert region("users").get("k") == 1
    done = visitor.post(CLEAR, follow=True)
    assert done.redirect_chain == [(PAGE, 302)]
    assert "Cleared region users. Done." in done.content.decode()
    assert (region("users").get("k"), region().get("k")) == (None, 1)
    entry = LogEntry.objects.get()
    assert (entry.object_repr, entry.user.username) == ("users", "user0")
    assert entry.change_message == "Cleared region users. Done."
    assert f"user {entry.user_id!r} cleared region 'users': DONE" in caplog.text
    assert "users" in visitor.get("/admin/").content.decode().partition("Recent actions")[2]
    with tenant("acme"):
        region("tenants").set("k", 1)
    visitor.post(f"{PAGE}clear/tenants/")
    with tenant("acme"):
        assert region("tenants").get("k") is None
    assert visitor.get(f"{PAGE}clear/nothing/").status_code == 404
    assert visitor.post(f"{PAGE}clear/secure/").status_code == 404  # it wants a key that is not here


def test_what_has_a_tag_is_invalidated_and_that_is_logged(project: Use, caplog: pytest.LogCaptureFixture) -> None:
    from django.contrib.admin.models import LogEntry

    from cachekit import region

    caplog.set_level(logging.INFO, "cachekit")
    for name in ("red", "blue", "green"):
        region("users").set(name, 1, tags=[name])
    visitor = client("change_cache")
    done = visitor.post(INVALIDATE, {"tags": " red,  blue "}, follow=True)
    assert "Invalidated by tag: red, blue. Done." in done.content.decode()
    assert list(region("users").get_many(["red", "blue", "green"])) == ["green"]
    assert LogEntry.objects.get().object_repr == "red, blue"
    assert "invalidated the tags 'red, blue': DONE" in caplog.text
    assert "begins with &#x27;#&#x27;" in visitor.post(INVALIDATE, {"tags": "#f"}, follow=True).content.decode()
    assert visitor.post(INVALIDATE, {"tags": " "}).status_code == 302
    assert visitor.get(INVALIDATE).status_code == 405
    assert LogEntry.objects.count() == 1


def test_a_request_of_another_site_changes_nothing(project: Use) -> None:
    from cachekit import region

    region("users").set("k", 1, tags=["red"])
    visitor = client("change_cache", enforce_csrf_checks=True)
    assert visitor.post(CLEAR).status_code == 403
    assert visitor.post(INVALIDATE, {"tags": "red"}).status_code == 403
    assert region("users").get("k") == 1


def test_a_store_that_is_away_is_shown_and_no_error(project: Use) -> None:
    from cachekit import region

    visitor = client("change_cache")
    project(url="redis://:geheim@127.0.0.1:1/0", SESSION_ENGINE=DATABASE)
    region("users").get("k")
    text = visitor.get(PAGE).content.decode()
    assert '<td class="down">down</td>' in text
    assert "geheim" not in text
    assert "will be told later" in visitor.post(CLEAR, follow=True).content.decode()


def test_without_a_store_nothing_is_promised_for_other_processes(project: Use, use: Use) -> None:
    visitor = client("change_cache")
    use(SESSION_ENGINE=DATABASE)
    path = f"{PAGE}clear/default/"
    assert "this process alone" in visitor.get(path).content.decode()
    for ask in ((path, {}), (INVALIDATE, {"tags": "red"})):
        assert "other processes keep" in visitor.post(*ask, follow=True).content.decode()


def test_what_is_done_is_done_although_the_admin_cannot_log_it(
    project: Use, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from django.contrib.admin.models import LogEntry
    from django.db import DatabaseError

    def refuse(**_: Any) -> None:
        raise DatabaseError

    visitor = client("change_cache")
    monkeypatch.setattr(LogEntry.objects, "create", refuse)
    assert visitor.post(CLEAR).status_code == 302
    assert "the admin's log has no entry" in caplog.text


def test_the_page_needs_no_script_and_no_style_in_it(project: Use) -> None:
    visitor = client("change_cache")
    for path in (PAGE, CLEAR):
        content = visitor.get(path).content.decode().partition('id="content"')[2].partition("<footer")[0]
        assert "users" in content
        for unsafe in ("<style", " style=", "javascript:", "http://", "https://"):
            assert unsafe not in content
        assert not re.search(r"\son\w+=", content)
        assert re.findall(r"<script(?! src=)", content) == []


def test_another_site_has_the_page_when_it_is_added(project: Use) -> None:
    from django.contrib.admin import AdminSite
    from django.contrib.auth.models import User
    from django.test import RequestFactory

    from cachekit.integrations.django.admin import add_page

    site = AdminSite(name="other")
    add_page(site)
    add_page(site)
    names = [pattern.name for pattern in site.get_urls() if pattern.name]
    assert names.count("cachekit_cache") == 1
    request = RequestFactory().get("/")
    request.user = User(is_superuser=True)
    assert [app["app_label"] for app in site.get_app_list(request, "cachekit")] == ["cachekit"]
    assert site.get_app_list(request, "auth") == []


def test_it_stands_on_a_site_that_makes_its_list_as_django_once_did(project: Use) -> None:
    from types import SimpleNamespace

    from django.contrib.admin import AdminSite
    from django.contrib.auth.models import User

    from cachekit.integrations.django.admin import add_page

    class Site(AdminSite):  # type: ignore[misc]
        def get_app_list(self, request: Any) -> list[Any]:
            return []

    site = Site()
    add_page(site)
    request = SimpleNamespace(user=User(is_staff=True, is_superuser=True))
    assert [app["app_label"] for app in site.get_app_list(request)] == ["cachekit"]
