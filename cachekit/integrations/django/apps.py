"""The Django application: a wrong configuration stops the start, and system checks tell what only looks right."""

from typing import Any

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from cachekit.errors import ConfigError
from cachekit.integrations.django.project import install
from cachekit.process import default_service

SETTINGS = ("CACHES", "CACHEKIT", "BASE_DIR")


class CacheKitConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """``"cachekit.integrations.django"`` in ``INSTALLED_APPS``."""

    name = "cachekit.integrations.django"
    label = "cachekit"
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


def _reinstall(*, setting: str, **kwargs: Any) -> None:
    """A test has overridden a setting: cached functions follow it too."""
    if setting in SETTINGS:
        install()
