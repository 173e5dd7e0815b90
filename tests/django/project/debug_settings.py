"""The project while it is developed: with the debug toolbar, and with strict pages of the admin."""

from project.settings import *  # noqa: F403  # settings of Django are every name of a module
from project.settings import INSTALLED_APPS, MIDDLEWARE

CACHEKIT = {
    "namespace": "project",
    "profiles": {
        "authors": {"ttl": "1h", "tags": ["authors"]},
        "books": {"ttl": "5m"},
        "sessions": {"ttl": "14d", "l1": {"mode": "off"}},
    },
}
DEBUG = True
DEBUG_TOOLBAR_CONFIG = {
    "SHOW_TOOLBAR_CALLBACK": "project.debug_urls.shows_toolbar",
    "SHOW_COLLAPSED": False,
}
DEBUG_TOOLBAR_PANELS = [
    "debug_toolbar.panels.timer.TimerPanel",
    "debug_toolbar.panels.request.RequestPanel",
    "debug_toolbar.panels.sql.SQLPanel",
    "cachekit.integrations.django.panel.CachesPanel",
]
INSTALLED_APPS = [*INSTALLED_APPS, "debug_toolbar"]
MIDDLEWARE = ["project.debug_urls.strict", "debug_toolbar.middleware.DebugToolbarMiddleware", *MIDDLEWARE]
ROOT_URLCONF = "project.debug_urls"
