"""The kept pages of one view: what its decorator was given, the cached function behind it, how a request is answered.

The policy is `cachekit.http`, the same as of the other frameworks.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from flask import Request, Response, current_app, request

from cachekit.engine.keys import check_tag
from cachekit.engine.miss import MISS
from cachekit.engine.ports import drive
from cachekit.errors import ConfigError
from cachekit.http import page, short
from cachekit.http.answer import Ask, Run, answer
from cachekit.http.control import LONGEST
from cachekit.http.declared import checked_user
from cachekit.http.environ import quoted
from cachekit.http.messages import joined
from cachekit.http.policy import NEVER, Rules
from cachekit.integrations.flask import signals, views
from cachekit.integrations.flask.askers import asker, stale_asker, versioned
from cachekit.integrations.flask.exchange import ViewExchange, again_of
from cachekit.integrations.flask.installation import Installation, Recipe, function_of
from cachekit.integrations.flask.timeouts import seconds_of
from cachekit.options import Options, check, tag_names

# A page says its age, so it lives for as long as it says; and the view uses the request, which waits for it.
FIXED: Final = {"jitter": 0, "soft_timeout": "never", "hard_timeout": "never"}
REFUSED: Final = frozenset({"key", "ignore", "condition", "ttl"})

NOT_A_VIEW: Final = (
    "not cached, since it is not the view of this request: cached() is for view functions, and decorators above it "
    "must use functools.wraps; for other functions there is memoize()"
)

Tags: TypeAlias = Callable[[], tuple[str, ...]]  # asked only where a page is made

logger = logging.getLogger("cachekit")


class Choices(NamedTuple):
    """What `cached()` was given, beside what the engine must know."""

    timeout: Any = None
    key_prefix: str | Callable[[], object] = "view/%s"
    unless: Callable[..., object] | None = None
    forced_update: Callable[..., object] | None = None
    is_stale: Callable[..., object] | None = None
    response_filter: Callable[[Any], object] | None = None
    query_string: bool = True
    make_cache_key: Callable[..., object] | None = None
    source_check: bool = False
    response_hit_indication: bool = False
    tags: Any = ()
    vary: Iterable[str] = ()
    per_user: Callable[[Any], Any] | None = None
    statuses: Mapping[int, Any] | None = None
    client_ttl: Any = 0


class CachedView:
    """One decorated view. ``here`` gives the installation of the current application."""

    def __init__(
        self, view: Callable[..., Any], choices: Choices, profile: str, options: dict[str, Any],
        here: Callable[[], Installation], cache: object,
    ) -> None:  # fmt: skip
        self.view = view
        self.choices = choices
        self.profile = profile
        self.here = here
        self.cache = cache  # whom signals name
        self.rules = rules_of(choices)
        self._known: tuple[Any, bool | None, Rules] = (None, None, self.rules)  # timeout, if the profile's, rules
        self.skip = asker("unless", choices.unless, view)
        self.forced = asker("forced_update", choices.forced_update, view)
        self.outdated = stale_asker(choices.is_stale)
        asks = callable(choices.key_prefix) or bool(self.rules.vary) or self.forced or self.outdated
        self.is_simple = not asks and choices.per_user is None and choices.make_cache_key is None
        version = versioned(view, options.get("version"), choices.source_check)
        self.recipe = Recipe(_loader(view), _checked({**options, "version": version}, profile))
        self.own_key = self.key_of  # one object, to be told from what others put in its place
        self.told: set[str] = set()
        self.wrapper = self._wrapper()

    @staticmethod
    def check(choices: Choices, profile: str, options: dict[str, Any]) -> None:
        """Check names, types and durations; reads no configuration."""
        rules_of(choices)
        _checked(options, profile)
        for name in ("unless", "forced_update", "is_stale", "make_cache_key", "response_filter"):
            if (given := getattr(choices, name)) is not None and not callable(given):
                raise TypeError(f"{name}= must be callable, not {type(given).__name__}")

    def _wrapper(self) -> Any:
        @functools.wraps(self.view)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return self.respond(args, kwargs)

        made: Any = wrapper
        made.uncached, made.cache_timeout = self.view, self.choices.timeout
        made.make_cache_key = self.own_key
        made.cachekit_view = self
        return made

    def respond(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What Flask gets in place of what the view returns."""

        def run() -> Any:
            return current_app.ensure_sync(self.view)(*args, **kwargs)

        context = views.current_context()
        if not views.is_view_of_request(context, self.wrapper, args):
            self._tell(NOT_A_VIEW)
            return run()
        asked = again_of(self, context.request)
        if self.skip is not None and asked is None and self.skip(*args, **kwargs):
            return views.marked(current_app.make_response(run()), "unless")
        installation, asking = self.here(), None
        if asked is None and self._may_be_short() and not _why_personal(context):
            asking = Asking(self, installation, args, kwargs)
            hit = asking.look(context.request)
            if hit is not None:
                return self._told(views.made_of_hit(hit, context.app), "HIT", installation, asking)
        user = self._user()
        exchange = ViewExchange(self, run, self._rules_now(installation), user, self.choices.response_filter)
        if asked is not None:
            return asked.take(exchange)
        return self._answer(exchange, installation, asking, args, kwargs)

    def _may_be_short(self) -> bool:
        """Whether nothing that was given to the decorator has to be asked before a kept page is answered."""
        return self.is_simple and self.wrapper.make_cache_key is self.own_key

    def _answer(
        self, exchange: ViewExchange, installation: Installation, looked: "Asking | None", args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Response:  # fmt: skip
        why = "" if exchange.user is not None else _why_personal(views.current_context())
        if why:
            self._tell(f"requests are answered without the cache when {why[1]}")
            exchange.run()
            if exchange.raised is not None:
                raise exchange.raised
            assert exchange.native is not None
            installation.function(self.recipe).at().tally.answered("BYPASS")
            return views.marked(exchange.native, why[0])
        asking = looked or Asking(self, installation, args, kwargs)
        ask: Ask = short.Looked(asking, asking.found)
        found = drive(answer(exchange, exchange.rules, ask, installation.wall))
        result = "BYPASS" if found is None else joined(found.fields, "x-cache") or "BYPASS"
        native = exchange.answered(found, result)
        if result == "BYPASS" and found is not None:
            self._tell_why(found)
        return self._told(native, result, installation, asking)

    def _told(self, native: Response, result: str, installation: Installation, asking: "Asking") -> Response:
        """Count an answer, and tell those who listen."""
        asking.function.at().tally.answered(result)
        hit = result in ("HIT", "STALE")
        if hit and self.choices.response_hit_indication:
            native.headers["hit_cache"] = "True"
        if result != "BYPASS":
            signals.of_view(installation, self.cache, hit=hit, key=asking.key, args=asking.args, kwargs=asking.kwargs)
        return native

    def _user(self) -> str | None:
        per_user = self.choices.per_user
        if per_user is None:
            return None
        with views.looking_at_session():
            return checked_user(current_app.ensure_sync(per_user)(request))

    def _rules_now(self, installation: Installation) -> Rules:
        """The rules, with the timeout that the view has now: whoever likes changes it."""
        timeout = self.wrapper.cache_timeout
        given = installation.service().region_spec(self.profile).ttl if timeout is None else timeout
        before, by_profile, rules = self._known
        if before is not given or by_profile is not (timeout is None):
            ttl = given if timeout is None else seconds_of(timeout)
            rules = self.rules._replace(ttl=float(LONGEST) if ttl is None else ttl)
            self._known = (given, timeout is None, rules)
        return rules

    # Keys and tags

    def prefix(self) -> str:
        """What else tells pages apart."""
        given = self.choices.key_prefix
        return str(given() if callable(given) else given)

    def place(self, app: str, key: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Where the cached function has the page of a key of the policy."""
        make = self.wrapper.make_cache_key
        if make is self.own_key:
            make = self.choices.make_cache_key
        own = "" if make is None else str(make(*args, **kwargs))
        if make is not None:  # in place of path and query
            key = (*key[:3], "", b"", *key[5:])
        return (app, self.prefix(), own, *key)

    def key_of(self, *args: Any, path: str | None = None, query_args: Any = None, **kwargs: Any) -> Any:
        """The key of a page without Vary, of the current request or of a path, for the methods of a region."""
        here = views.request_of(request)
        if path is not None:
            here = here._replace(path=quoted(request.root_path + path), query=query_of(query_args))
        target = page.target(here, None, query=self.choices.query_string)
        there = self.here()
        place = self.place(there.name, (*target, page.variant(here, ())), args, kwargs)
        return there.cached(self.recipe).key(*place, None, tuple)

    def tags_now(self) -> tuple[str, ...]:
        """The tags of the page of this request: the decorator's, and one for `delete_cached` of a path."""
        tags = self.choices.tags
        given = tags(request) if callable(tags) else tags
        return (*map(check_tag, tag_names(given)), self.path_tag(request.path))

    def path_tag(self, path: str) -> str:
        """The tag of the pages of this view at a path, on every host."""
        fn = self.recipe.fn
        return page.url_tag("flask", f"{current_app.name}:{fn.__module__}.{fn.__qualname__}", path, None)

    # What is said

    def _tell_why(self, found: Any) -> None:
        status = joined(found.fields, "cache-status") or ""
        for name, words in (("authorization", "it is authorised"), ("cookie", "it carries a cookie")):
            if f'detail="{name}"' in status:
                self._tell(f"requests are answered without the cache when {words}")

    def _tell(self, reason: str) -> None:
        """Once per view and reason: that a page is never cached should not remain a riddle."""
        if reason not in self.told:
            self.told.add(reason)
            name = getattr(self.view, "__qualname__", self.view)
            logger.warning("%s at %s: %s", name, request.url_rule, reason)


class Asking:
    """The cached function of a view as the policy asks it, for one request."""

    def __init__(
        self, view: CachedView, installation: Installation, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.view = view
        self.app = installation.name
        self.cached = installation.cached(view.recipe)
        self.function = function_of(self.cached)
        self.wall = installation.wall
        self.args = args
        self.kwargs = kwargs
        self.key: tuple[Any, ...] = ()
        self.found: Any = MISS  # what the first look brought
        self.force = view.forced is not None and bool(view.forced(*args, **kwargs))

    def look(self, request: Request) -> short.Hit | None:
        """The answer, if this is an ordinary request whose page lies here and is fresh."""
        key = views.key_of(request, query=self.view.rules.query)
        if key is None:
            return None
        self.key = self.view.place(self.app, key, self.args, self.kwargs)
        self.found = self.function.at_hand(self.key)
        return None if self.found is MISS else short.hit(self.found, self.wall())

    async def __call__(self, key: tuple[Any, ...], run: Run, *, force: bool, allow_stale: bool) -> Any:
        call, force = self.cached, force or self.force
        place = self.key = self.view.place(self.app, key, self.args, self.kwargs)
        if not force and self.view.outdated is not None:
            force = await self._is_outdated(place)
        if force or not allow_stale:
            call = call.using(force_refresh=force, allow_stale=None if allow_stale else False)
        return call(*place, run, self.view.tags_now)

    async def peek(self, key: tuple[Any, ...]) -> Any:
        """What lies there and is fresh; None if there is nothing."""
        self.key = place = self.view.place(self.app, key, self.args, self.kwargs)
        found = self.cached.using(allow_stale=False).peek(*place, None, tuple)
        return None if found is MISS or self.force or await self._is_outdated(place) else found

    async def _is_outdated(self, place: tuple[Any, ...]) -> bool:
        """Whether `is_stale` does not want the page that lies there; it is asked with a response."""
        outdated = self.view.outdated
        found = MISS if outdated is None else self.cached.peek(*place, None, tuple)
        if outdated is None or found is MISS or found is None:
            return False
        kept = found[3] if found[0] == "vary" and len(found) > 3 else found
        if kept[0] == "vary":
            return False
        response = views.made(page.look(kept, self.wall()).response)
        return bool(outdated(response, *self.args, **self.kwargs))


def _why_personal(context: Any) -> tuple[str, str] | str:
    """Why this request may be one visitor's, beside what its fields show."""
    if context.request.remote_user:
        return "authorization", "it is authorised"
    return ("session", "the session was used") if views.session_was_used(context) else ""


def _checked(options: dict[str, Any], profile: str) -> Options:
    version = options.get("version")
    own = {"tags": _tags, "ignore": ("run", "tags"), "version": "http" if version is None else f"http:{version}"}
    return check({**options, **FIXED, **own}, profile)


def rules_of(choices: Choices) -> Rules:
    """What the policy must know. Raises `ConfigError` or `TypeError` for what has no meaning."""
    if isinstance(choices.vary, str) or not all(isinstance(name, str) for name in choices.vary):
        raise ConfigError(f"vary = {choices.vary!r}: not names of request fields; write vary=['accept-language']")
    seconds_of(choices.timeout)
    if not callable(choices.tags):
        for tag in tag_names(choices.tags):
            check_tag(tag)
    if choices.per_user is not None and not callable(choices.per_user):
        raise TypeError(f"per_user= must be a callable of the request, not {type(choices.per_user).__name__}")
    statuses = choices.statuses or {}
    for status in statuses:
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599 or status in NEVER:
            raise ConfigError(f"statuses = {status!r}: not a status whose response can be kept; write {{404: '30s'}}")
    return Rules(
        None,
        tuple(sorted({name.lower() for name in choices.vary})),
        {status: seconds_of(0 if life is None else life) or 0.0 for status, life in statuses.items()},
        query=choices.query_string,
        client_ttl=0.0 if choices.client_ttl == 0 else seconds_of(choices.client_ttl) or 0.0,
        per_user=choices.per_user is not None,
    )


def query_of(query_args: Any) -> bytes:
    if query_args is None:
        return b""
    if isinstance(query_args, str | bytes):
        text = query_args if isinstance(query_args, str) else query_args.decode("latin-1")
        return text.removeprefix("?").encode()
    from urllib.parse import urlencode

    return urlencode(
        list(query_args.items()) if isinstance(query_args, Mapping) else list(query_args), doseq=True
    ).encode()


def _loader(view: Callable[..., Any]) -> Callable[..., Any]:
    """A function with the name of the view, for keys and metrics, that takes the key of a page and a way to make it."""

    def load(
        application: str, prefix: str, own: str, format: int, scheme: str, host: str, path: str, query: bytes,
        user: str, variant: Any, run: Run, tags: Tags,
    ) -> Any:  # fmt: skip
        return drive(run())

    load.__module__ = getattr(view, "__module__", __name__)
    load.__name__ = getattr(view, "__name__", "view")
    load.__qualname__ = getattr(view, "__qualname__", load.__name__)
    return load


def _tags(
    application: str, prefix: str, own: str, format: int, scheme: str, host: str, path: str, query: bytes,
    user: str, variant: Any, run: Run, tags: Tags,
) -> tuple[str, ...]:  # fmt: skip
    if not path:  # `make_cache_key` stands for it
        return tags()
    return page.url_tag(scheme, host, path, None), page.url_tag(scheme, host, path, query), *tags()
