"""The Django application: a wrong configuration stops the start, and system checks tell what only looks right."""

from typing import Any

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.db import router
from django.db.models.signals import post_migrate

from cachekit.errors import ConfigError
from cachekit.integrations.django.project import install
from cachekit.process import default_service

APP, MODEL = "cachekit", "cache"  # what the permissions of the admin page belong to; there is no such model
VIEW_CACHE, CHANGE_CACHE = "view_cache", "change_cache"
PERMISSIONS = {VIEW_CACHE: "Can view caches", CHANGE_CACHE: "Can clear and invalidate caches"}
SETTINGS = ("CACHES", "CACHEKIT", "BASE_DIR")


class CacheKitConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """``"cachekit.integrations.django"`` in ``INSTALLED_APPS``."""

    name = "cachekit.integrations.django"
    label = APP
    verbose_name = "cachekit"

    def ready(self) -> None:
        """Validate the configuration and every decorated function known so far. Opens no connection."""
        from cachekit.integrations.django import checks, deployment  # noqa: F401  # registers them

        install()
        try:
            default_service().start()
        except ConfigError as error:
            raise ImproperlyConfigured(str(error)) from error
        setting_changed.connect(_reinstall, dispatch_uid="cachekit")
        post_migrate.connect(_create_permissions, sender=self, dispatch_uid="cachekit")


def _reinstall(*, setting: str, **kwargs: Any) -> None:
    """A test has overridden a setting: cached functions follow it too."""
    if setting in SETTINGS:
        install()


def _create_permissions(*, using: str, apps: Any, **kwargs: Any) -> None:
    """So that they can be given to users and groups like those of a model."""
    try:
        content_types = apps.get_model("contenttypes", "ContentType")
        permissions = apps.get_model("auth", "Permission")
    except LookupError:
        return
    if not router.allow_migrate_model(using, permissions):
        return
    content_type, _ = content_types.objects.using(using).get_or_create(app_label=APP, model=MODEL)
    for codename, name in PERMISSIONS.items():
        permissions.objects.using(using).get_or_create(
            content_type=content_type, codename=codename, defaults={"name": name}
        )
