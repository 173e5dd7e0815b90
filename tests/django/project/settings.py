"""A small Django project. REDIS_URL is its server, PROJECT_DB the file of its database."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).parent
OURS = "cachekit.integrations.django.CacheKitCache"

ALLOWED_HOSTS = ["*"]
CACHES = {
    "default": {"BACKEND": OURS, "TIMEOUT": 60},
    "sessions": {"BACKEND": OURS, "LOCATION": "sessions"},
}
CACHEKIT = {
    "namespace": "project",
    "profiles": {"sessions": {"ttl": "14d", "l1": {"mode": "off"}}},
}
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("PROJECT_DB", ":memory:")}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "cachekit.integrations.django",
    "project.shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
ROOT_URLCONF = "project.urls"
SECRET_KEY = "not secret"
SESSION_CACHE_ALIAS = "sessions"
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "static/"
USE_TZ = True
WSGI_APPLICATION = "project.wsgi.application"
