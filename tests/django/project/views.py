"""Views that use the cache in every way that Django has: pages, fragments, sessions, the low-level API."""

import itertools
from typing import Any

from django.contrib import messages
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.core.cache import cache
from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.views.decorators.cache import cache_page
from django.views.decorators.vary import vary_on_headers

runs = itertools.count(1)


@cache_page(60)
@vary_on_headers("X-Flavour")
def page(request: Any) -> Any:
    response = HttpResponse(f"run {next(runs)}: é", charset="latin-1", reason="Cached")
    response["X-Run"] = "yes"
    response.set_cookie("seen", "1; 2", max_age=30, httponly=True, samesite="Lax")
    return response


@cache_page(60)
def template(request: Any) -> Any:
    return TemplateResponse(request, "page.html", {"run": next(runs)})


def fragment(request: Any) -> Any:
    return render(request, "fragment.html", {"run": lambda: next(runs), "name": "<b>"})


def visits(request: Any) -> Any:
    request.session["visits"] = request.session.get("visits", 0) + 1
    request.session["last"] = {"path": [request.path, ("a", 1)]}
    messages.info(request, "been here")
    return JsonResponse({"visits": request.session["visits"], "messages": len(messages.get_messages(request))})


async def avisits(request: Any) -> Any:
    seen = await request.session.aget("visits", 0) + 1
    await request.session.aset("visits", seen)
    return JsonResponse({"visits": seen})


def log_in(request: Any) -> Any:
    login(request, User.objects.get_or_create(username="ann")[0])
    return HttpResponse()


def log_out(request: Any) -> Any:
    logout(request)
    return HttpResponse()


def whoami(request: Any) -> Any:
    return HttpResponse(request.user.username)


async def awhoami(request: Any) -> Any:
    return HttpResponse((await request.auser()).username)


def value(request: Any, key: str) -> Any:
    return JsonResponse({"value": cache.get_or_set(key, lambda: next(runs))})


async def avalue(request: Any, key: str) -> Any:
    return JsonResponse({"value": await cache.aget_or_set(key, lambda: next(runs))})
