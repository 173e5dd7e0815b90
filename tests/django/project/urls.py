"""Where the views of the project are, and the metrics."""

from django.contrib import admin
from django.urls import include, path
from project import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("page/", views.page),
    path("template/", views.template),
    path("fragment/", views.fragment),
    path("visits/", views.visits),
    path("avisits/", views.avisits),
    path("login/", views.log_in),
    path("logout/", views.log_out),
    path("whoami/", views.whoami),
    path("awhoami/", views.awhoami),
    path("value/<slug:key>/", views.value),
    path("avalue/<slug:key>/", views.avalue),
    path("", include("cachekit.integrations.django.urls")),
]
