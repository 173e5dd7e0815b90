"""A page about the caches in Django's admin: what they hold, how they do, and buttons that empty them.

There is no model behind it. It is on the default site as soon as both applications are installed; `add_page` puts it
on another one.
"""

import logging
import os
from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, transaction
from django.http import Http404, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.views.decorators.http import require_POST

from cachekit.engine.keys import check_tag
from cachekit.engine.outcome import Outcome
from cachekit.errors import ConfigError
from cachekit.integrations.django.apps import APP, CHANGE_CACHE, MODEL, VIEW_CACHE
from cachekit.integrations.django.overview import regions, stores
from cachekit.process import default_service
from cachekit.regions import invalidate_tags, region

logger = logging.getLogger("cachekit")

TITLE = "Caches"
NAME = "cachekit_cache"  # of the page, in the namespace of the site
LEGEND = (
    ("l1-hits", "from this process"), ("l2-hits", "from the store"), ("waited", "from another call's computation"),
    ("stale", "stale"), ("misses", "computed, or absent"),
)  # fmt: skip
ALONE = (messages.WARNING, "There is no store: other processes keep what they have of their own.")
TOLD = {
    Outcome.DONE: (messages.SUCCESS, "Done."),
    Outcome.QUEUED: (messages.WARNING, "This process obeys; the store cannot be reached and will be told later."),
    Outcome.FAILED: (messages.ERROR, "Only this process obeys: the store refuses, see its rights."),
}


def add_page(site: admin.AdminSite) -> None:
    """Show the page on an admin site, to staff with the permission ``cachekit.view_cache``; with
    ``cachekit.change_cache`` they may clear and invalidate. A second time does nothing."""
    if getattr(site, "cachekit_page", None) is None:
        site.cachekit_page = _Page(site)


class _Page:
    """The page on one site, whose methods for URLs and for the list of applications it goes on from."""

    def __init__(self, site: Any) -> None:
        self.site = site
        self._urls, self._app_list = site.get_urls, site.get_app_list
        site.get_urls, site.get_app_list = self.get_urls, self.get_app_list

    def get_urls(self) -> list[Any]:
        """Ours first: the site's last one takes what is left."""

        def served(view: Callable[..., Any]) -> Any:
            return self.site.admin_view(view)

        return [
            path(f"{APP}/{MODEL}/", served(self.show), name=NAME),
            path(f"{APP}/{MODEL}/clear/<str:name>/", served(self.clear), name=f"{NAME}_clear"),
            path(f"{APP}/{MODEL}/invalidate/", served(require_POST(self.invalidate)), name=f"{NAME}_invalidate"),
            *self._urls(),
        ]

    def get_app_list(self, request: Any, app_label: str | None = None) -> list[dict[str, Any]]:
        """The applications, with a line for the page where the user may see it."""
        asked = () if app_label is None else (app_label,)  # sites may have a method of their own that takes none
        listed: list[dict[str, Any]] = self._app_list(request, *asked)
        if app_label in (None, APP) and _may(request, VIEW_CACHE):
            change = _may(request, CHANGE_CACHE)
            line = {
                "name": TITLE, "object_name": TITLE, "admin_url": self._url(), "add_url": None, "view_only": not change,
                "perms": {"add": False, "change": change, "delete": False, "view": True}, "model": None,
            }  # fmt: skip
            app = {"name": "cachekit", "app_label": APP, "app_url": self._url(), "has_module_perms": True}
            listed = sorted([*listed, {**app, "models": [line]}], key=lambda each: str(each["name"]).lower())
        return listed

    def show(self, request: Any) -> Any:
        """What there is."""
        _check(request, VIEW_CACHE)
        context = {
            "regions": regions(),
            "stores": list(stores()),
            "legend": LEGEND,
            "process": os.getpid(),
            "namespace": default_service().spec.namespace,
            "may_change": _may(request, CHANGE_CACHE),
        }
        return self._page(request, "cachekit/caches.html", context)

    def clear(self, request: Any, name: str) -> Any:
        """Ask, and then clear a region."""
        _check(request, CHANGE_CACHE)
        try:
            default_service().tiers(name)
        except ConfigError as error:
            raise Http404(str(error)) from None
        shared = bool(default_service().remotes_of(name))
        if request.method != "POST":
            return self._page(request, "cachekit/clear.html", {"region": name, "shared": shared})
        outcome = region(name).clear(all_tenants=True)
        logger.info("in the admin, user %r cleared region %r: %s", request.user.pk, name, outcome.name)
        self._done(request, name, f"Cleared region {name}.", TOLD[outcome] if shared else ALONE)
        return HttpResponseRedirect(self._url())

    def invalidate(self, request: Any) -> Any:
        """Remove what has one of the tags, which are divided by spaces or commas."""
        _check(request, CHANGE_CACHE)
        try:
            tags = [check_tag(tag) for tag in request.POST.get("tags", "").replace(",", " ").split()]
        except ValueError as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(self._url())
        if tags:
            outcome, shown = invalidate_tags(*tags), ", ".join(tags)
            told = TOLD[outcome] if default_service().remotes_in_use() else ALONE
            logger.info("in the admin, user %r invalidated the tags %r: %s", request.user.pk, shown, outcome.name)
            self._done(request, shown, f"Invalidated by tag: {shown}.", told)
        return HttpResponseRedirect(self._url())

    def _done(self, request: Any, what: str, text: str, told: tuple[int, str]) -> None:
        level, more = told
        messages.add_message(request, level, f"{text} {more}")
        try:
            with transaction.atomic():
                LogEntry.objects.create(
                    user_id=request.user.pk,
                    content_type=ContentType.objects.filter(app_label=APP, model=MODEL).first(),
                    object_id=what,
                    object_repr=what[:200],
                    action_flag=CHANGE,
                    change_message=f"{text} {more}",
                )
        except DatabaseError:  # it is done all the same
            logger.exception("the admin's log has no entry of what was done")

    def _page(self, request: Any, template: str, context: dict[str, Any]) -> Any:
        request.current_app = self.site.name
        page = {"title": TITLE, "page_url": self._url(), **self.site.each_context(request), **context}
        return TemplateResponse(request, template, page)

    def _url(self) -> str:
        url: str = reverse(f"admin:{NAME}", current_app=self.site.name)
        return url


def _may(request: Any, permission: str) -> bool:
    """Who may change may also see."""
    wanted = {permission, CHANGE_CACHE}
    return bool(request.user.is_active and any(request.user.has_perm(f"{APP}.{each}") for each in wanted))


def _check(request: Any, permission: str) -> None:
    if not _may(request, permission):
        raise PermissionDenied


add_page(admin.site)
