"""The project's views and those of the debug toolbar."""

from django.urls import include, path
from project.urls import urlpatterns as own

urlpatterns = [*own, path("__debug__/", include("debug_toolbar.urls"))]
