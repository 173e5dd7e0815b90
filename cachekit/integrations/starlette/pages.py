"""The kept pages of one route or rule: a cached function in each service that uses it, and what clears its pages."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from starlette.requests import HTTPConnection
from starlette.types import Scope

from cachekit.decorator import decorate
from cachekit.engine.miss import MISS
from cachekit.engine.outcome import Outcome
from cachekit.engine.ports import drive
from cachekit.function import Function
from cachekit.http import page
from cachekit.http.answer import Ask, Run, Varies
from cachekit.http.control import LONGEST
from cachekit.http.messages import Request
from cachekit.http.page import Kept
from cachekit.http.policy import Rules
from cachekit.integrations.starlette.installed import service_of
from cachekit.integrations.starlette.messages import key_path_of, request_of
from cachekit.options import check
from cachekit.process import default_service
from cachekit.regions import clear_tags
from cachekit.service import Service

WHOLE_LIFE: Final = {"jitter": 0}  # a page says its age, so it lives for as long as it says
ALONE: Final = {"swr": False, "early_refresh": "off"}  # nothing can be computed behind a caller
# The caller's dependencies end with the answer, so it must not go out while the function still uses them.
PATIENT: Final = {"soft_timeout": "never", "hard_timeout": "never"}


class Made(NamedTuple):
    """The cached function of one service, and the rules in force there."""

    cached: Any
    function: Function
    rules: Rules

    def ask(self, tags: Iterable[str]) -> Ask:
        """The cached function as `answer` calls it."""
        return _Ask(self.cached, tuple(tags))

    @property
    def wall(self) -> Callable[[], float]:
        """The clock that pages are dated by."""
        return self.function.at().service.async_port.wall

    def counted(self, result: str) -> None:
        """One more answer: HIT, MISS, STALE, BYPASS."""
        self.function.at().tally.answered(result)


class _Ask:
    """A cached function of pages, each of which is to have these tags."""

    def __init__(self, cached: Any, tags: tuple[str, ...]) -> None:
        self._cached = cached
        self._tags = tags

    def __call__(
        self, key: tuple[Any, ...], run: Run, *, force: bool, allow_stale: bool
    ) -> Awaitable[Kept | Varies | None]:
        call = self._cached
        if force or not allow_stale:
            call = call.using(force_refresh=force, allow_stale=None if allow_stale else False)
        return call(*key, run, self._tags)  # type: ignore[no-any-return]

    async def peek(self, key: tuple[Any, ...]) -> Kept | Varies | None:
        found = await self._cached.peek(*key, None, self._tags)
        return None if found is MISS else found


class Pages:
    """The pages of one route or rule. ``ttl``: None is the profile's, and ``by_profile`` False is none at all."""

    def __init__(
        self, module: str, name: str, rules: Rules, *, profile: str, by_profile: bool, options: dict[str, Any]
    ) -> None:
        self._loader = _loader(module, name)
        self._options = {"profile": profile, **WHOLE_LIFE, **options}
        self._profile = profile
        self._rules = rules
        self._by_profile = by_profile
        self._shared: Made | None = None
        self._own: WeakKeyDictionary[Service, Made] = WeakKeyDictionary()

    def at(self, own: Service | None, *, behind: bool = True) -> Made:
        """The cached function in a service of an application's own, or the process's. ``behind``: whether pages can
        be computed when nobody waits; who asks first decides."""
        if own is None:
            if self._shared is None:
                self._shared = self._make(None, behind)
            made = self._shared
            service = default_service()
        else:
            found = self._own.get(own)
            made = self._own.setdefault(own, self._make(own, behind)) if found is None else found
            service = own
        return self._with_ttl(made, service)

    def _make(self, own: Service | None, behind: bool) -> Made:
        options = check({
            **self._options, **({} if behind else ALONE), "tags": _tags, "ignore": ("run", "tags"), "version": "http",
        })  # fmt: skip
        cached = decorate(self._loader, options, default_service if own is None else lambda: own)
        face = getattr(cached, "__cachekit__", cached)
        return Made(cached, face._function, self._rules)

    def _with_ttl(self, made: Made, service: Service) -> Made:
        if not self._by_profile:
            return made
        ttl = service.region_spec(self._profile).ttl  # the process's service may have been replaced
        return made._replace(rules=made.rules._replace(ttl=float(LONGEST) if ttl is None else ttl))

    @property
    def statuses(self) -> Mapping[int, float]:
        """Errors that are kept, and for how many seconds."""
        return self._rules.statuses

    def made(self) -> list[Made]:
        """Where these pages may lie: every service of this process that has used them, and the process's own."""
        if self._shared is None and not self._own:
            self._shared = self._make(None, True)
        return [*([] if self._shared is None else [self._shared]), *self._own.values()]

    async def aclear(self) -> Outcome:
        """Outdate all of them."""
        return _worst([await made.function.invalidate_all(_port(made).async_port) for made in self.made()])

    def clear(self) -> Outcome:
        """As `aclear`, for who cannot wait."""
        return _worst([drive(made.function.invalidate_all(_port(made).sync_port)) for made in self.made()])


def _port(made: Made) -> Service:
    return made.function.at().service


def _worst(outcomes: list[Outcome]) -> Outcome:
    order = (Outcome.FAILED, Outcome.QUEUED)
    return next((outcome for outcome in order if outcome in outcomes), Outcome.DONE)


def _loader(module: str, name: str) -> Any:
    """A function with the name of the route, for keys and metrics, that takes the key of a page and a way to make
    it."""

    async def load(
        format: int, scheme: str, host: str, path: str, query: bytes, user: str, variant: Any, run: Run,
        tags: tuple[str, ...],
    ) -> Kept | Varies | None:  # fmt: skip
        return await run()

    load.__module__ = module
    load.__name__ = name.rpartition(".")[2]
    load.__qualname__ = name
    return load


def _tags(
    format: int, scheme: str, host: str, path: str, query: bytes, user: str, variant: Any, run: Run,
    tags: tuple[str, ...],
) -> tuple[str, ...]:  # fmt: skip
    return page.url_tag(scheme, host, path, None), page.url_tag(scheme, host, path, query), *tags


# By URL


def invalidate_url(url: str, request: HTTPConnection | None = None) -> Outcome:
    """Outdate the pages of a URL, whoever keeps them: routes with `cached_response`, and `CacheMiddleware`.

    Args:
        url: A whole URL; or a path, with where the application is mounted, for the scheme and the host of ``request``.
            With a query, only the page of that; without one, the pages of every query.
        request: The request in which this is called. Its application says which service is meant.

    Raises:
        ValueError: A path without a request: pages are kept for each host.
    """
    service = _service(request)
    return drive(clear_tags(service, [_tag_of(url, request)], service.sync_port))


async def ainvalidate_url(url: str, request: HTTPConnection | None = None) -> Outcome:
    """As `invalidate_url`."""
    service = _service(request)
    return await clear_tags(service, [_tag_of(url, request)], service.async_port)


def _service(request: HTTPConnection | None) -> Service:
    return default_service() if request is None else service_of(request)


def _tag_of(url: str, request: HTTPConnection | None) -> str:
    parts = urlsplit(url)
    scheme, host = parts.scheme, parts.netloc
    if not (scheme and host):
        if request is None:
            raise ValueError(f"{url!r} has no host, and pages are kept for each host: give a whole URL, or request=")
        here: Request = request_of(_as_http(request.scope))
        scheme, host = here.scheme, here.host
    query = parts.query.encode("utf-8", "surrogatepass") if "?" in url else None
    return page.url_tag(scheme, host, key_path_of(parts.path or "/"), query)


def _as_http(scope: Scope) -> Scope:
    return {"method": "GET", **scope, "scheme": {"ws": "http", "wss": "https"}.get(scope["scheme"], scope["scheme"])}
