"""`CacheMiddleware`: the responses of a whole project, kept by rules."""

from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from cachekit.http.policy import Rules
from cachekit.http.rules import MODULE, Rulebook
from cachekit.integrations.django.pages import Pages, exchange_of, in_place, outdate
from cachekit.integrations.django.project import install
from cachekit.process import default_service


class CacheMiddleware:
    """Keep the responses of a project: ``"cachekit.integrations.django.CacheMiddleware"``, last in ``MIDDLEWARE``.

    Only GET is kept, what says how long it lives (Cache-Control, Expires), and what the rules of the configuration
    (``[[http.rules]]``) give a life. Requests that show who sends them go around the cache, but for rules with
    ``per_user = true``. Views with `cache_page` keep their own rules. Requests that change something outdate what is
    kept of their URL, and of where their responses lead.
    """

    sync_capable = True
    async_capable = True
    profile = "default"  # of pages whose rule names none

    def __init__(self, get_response: Any) -> None:
        install()
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)
        self._rulebook = Rulebook(self._pages, self.profile, Rules(None), may_know_users=True)

    def per_user(self, request: Any) -> Any:
        """For whom the response to a request is, of rules with ``per_user = true``: the user who is logged in.

        A subclass may say it otherwise: a str, or None as if the rule had no ``per_user``; in a project that is
        served by ASGI it may be a coroutine.
        """
        return self._logged_in(request) if self.is_async else _text(request.user)

    async def _logged_in(self, request: Any) -> str | None:
        return _text(await request.auser())

    def _pages(self, name: str, rules: Rules, profile: str) -> Pages:
        return Pages(MODULE, name, rules, profile=profile, by_profile=False, is_async=self.is_async)

    def __call__(self, request: Any) -> Any:
        return in_place(self._respond(request), is_async=self.is_async)

    async def _respond(self, request: Any) -> Any:
        rule = self._rulebook.rule(default_service().spec.http, request.path_info)
        if rule is None:
            response = self.get_response(request)
            response = await response if self.is_async else response
            await outdate(request, response, is_async=self.is_async)
            return response
        asked = self.per_user if rule.per_user and rule is not self._rulebook.own else None
        user = await rule.pages.user(asked, request)
        exchange = exchange_of(self.is_async)(request, lambda: self.get_response(request), user=user)
        return await rule.pages.respond(exchange, tuple)


def _text(user: Any) -> str | None:
    return str(user.pk) if user.is_authenticated else None
