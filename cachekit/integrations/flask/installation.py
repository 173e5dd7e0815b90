"""What one Flask application has of us: its service, its cached functions, and ``/metrics``."""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast
from weakref import WeakKeyDictionary

from flask import Flask, Response, abort, request
from werkzeug.wsgi import ClosingIterator

from cachekit.config.tree import find_files
from cachekit.decorator import decorate
from cachekit.engine.outcome import Outcome
from cachekit.engine.ports import drive
from cachekit.errors import ConfigError
from cachekit.function import Function
from cachekit.http import messages
from cachekit.http.answer import outdated_urls
from cachekit.http.policy import SAFE
from cachekit.integrations.flask.foreign import mapped, merged, of_extension, wants_signals
from cachekit.integrations.flask.views import request_of
from cachekit.options import Options
from cachekit.process import adopt, application_service, default_service, framework_service
from cachekit.regions import Region, clear_tags, region
from cachekit.service import Service

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Config: TypeAlias = "str | PathLike[str] | Mapping[str, Any] | None"

EXTENSION = "cachekit"  # the key in app.extensions
ENDPOINT = "cachekit_metrics"
FILES, TABLE = "CACHEKIT_CONFIG", "CACHEKIT"  # the keys in app.config

logger = logging.getLogger("cachekit")


class Recipe:
    """What a decorator of the extension was given. One cached function is made of it for the process's service, and one
    for each application with a service of its own."""

    __slots__ = ("__weakref__", "_lock", "_shared", "fn", "options")

    def __init__(self, fn: Callable[..., Any], options: Options) -> None:
        self.fn = fn
        self.options = options
        self._shared: Any = None
        self._lock = threading.Lock()

    def shared(self) -> Any:
        """The cached function of the applications that use the process's service."""
        if self._shared is None:
            with self._lock:
                if self._shared is None:
                    self._shared = decorate(self.fn, self.options, default_service)
        return self._shared

    def made_for(self, service: Service) -> Any:
        """A cached function for an application with a service of its own."""
        return decorate(self.fn, self.options, lambda: service)


def function_of(cached: Any) -> Function:
    """What lies behind a cached function."""
    return cast(Function, getattr(cached, "__cachekit__", cached)._function)


class Kit(Protocol):
    """The extension object, as an installation knows it."""

    keeps_pages: bool  # whether any view is cached


class Installation:
    """One application's part. Kept in ``app.extensions`` and nowhere else, so it goes when the application goes."""

    def __init__(self, kit: Kit, app: Flask, config: Config) -> None:
        self.kit = kit
        self.name = app.name
        self.config = config
        self.signals = wants_signals(app, config)
        self._own = own_service(app, config)
        self._cached: WeakKeyDictionary[Recipe, Any] = WeakKeyDictionary()
        self._regions: dict[str, Region] = {}
        self._shown: Service | None = None  # whose metrics this application shows
        self._paths: set[str] = set()  # where they were ever shown
        self._lock = threading.RLock()

    def service(self) -> Service:
        """The application's own service, or the process's."""
        return default_service() if self._own is None else self._own

    def region(self, name: str) -> Region:
        """The region of this name in `service`; the same name gives the same object."""
        if self._own is None:
            return region(name)
        return self._regions.get(name) or self._regions.setdefault(name, self._own.region(name))

    def cached(self, recipe: Recipe) -> Any:
        """The cached function that this application has of a decorated one."""
        if self._own is None:
            return recipe.shared()
        made = self._cached.get(recipe)
        if made is None:
            with self._lock:
                made = self._cached.get(recipe)
                if made is None:
                    made = self._cached[recipe] = recipe.made_for(self._own)
        return made

    def function(self, recipe: Recipe) -> Function:
        """What lies behind `cached`, with its counts and its service."""
        return function_of(self.cached(recipe))

    def wall(self) -> float:
        """The time of day, in seconds."""
        return self.service().sync_port.wall()

    def start(self, recipes: Iterable[Recipe]) -> None:
        """Check these and all other functions known so far against the configuration. Opens nothing."""
        for recipe in recipes:
            self.cached(recipe)
        self.service().start()

    def check(self, function: Callable[..., Any], profile: str) -> None:
        """Check the profile of a function of which `start` does not know."""
        try:
            self.service().region_spec(profile)
        except ConfigError as error:
            name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
            raise ConfigError(f"{name}: {error}") from None

    def prepare(self, app: Flask) -> None:
        """What waits for the first request: by then every route and every decorated function is known. Once, and again
        if `configure` has replaced the service."""
        service = self.service()
        if service is self._shown:
            return
        with self._lock:
            if service is not self._shown:
                service.start()
                self._show_metrics(app, service)
                self._shown = service

    def _show_metrics(self, app: Flask, service: Service) -> None:
        spec = service.spec.metrics
        if not spec.enabled:
            return
        from cachekit.metrics import Access, attach, register  # loads prometheus_client

        if _has_route(app, spec.path):
            register(service)
            logger.info("the application has a route at %s: metrics join prometheus_client.REGISTRY", spec.path)
            return
        Access.of(spec)  # a wrong network stops here, not at the first scrape
        attach(service)
        if spec.path not in self._paths:
            self._paths.add(spec.path)
            # Not `app.add_url_rule`, which refuses once a request was handled.
            host: dict[str, Any] = {"host": "<host>"} if app.url_map.host_matching else {}
            app.url_map.add(app.url_rule_class(spec.path, endpoint=ENDPOINT, methods=["GET"], **host))
            app.view_functions[ENDPOINT] = self._scrape

    def _scrape(self, host: str = "") -> Response:
        from cachekit.metrics import respond

        service = self.service()
        spec = service.spec.metrics
        if not spec.enabled or request.path != spec.path:  # a replaced configuration shows them elsewhere
            abort(404)
        answer = respond(
            service,
            accept=request.headers.get("Accept"),
            authorization=request.headers.get("Authorization"),
            address=request.remote_addr,
        )
        return Response(answer.body, answer.status, answer.headers)

    def outdate(self, tags: list[str]) -> Outcome:
        """Outdate the pages with one of these tags."""
        service = self.service()
        return drive(clear_tags(service, tags, service.sync_port))


class Entrance:
    """WSGI middleware around an application: calls `Installation.prepare` before a request is matched to a route, and
    outdates the pages that a request has changed before its client hears of it."""

    def __init__(self, app: Flask, installation: Installation) -> None:
        self.app = app
        self.inner: WSGIApplication = app.wsgi_app
        self.installation = installation

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        self.installation.prepare(self.app)
        if environ["REQUEST_METHOD"] in SAFE or not self.installation.kit.keeps_pages:
            return self.inner(environ, start_response)
        return self._changing(environ, start_response)

    def _changing(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """A request that changes something. Its pages are outdated when the answer begins, and again when the request
        has been torn down: sessions may be committed there, and whoever asked before was given what was."""
        tags: list[str] = []
        whole = True

        def start(status: str, fields: Any, exc_info: Any = None) -> Any:
            nonlocal whole
            response = messages.Response(int(status[:3]), messages.fields(fields), b"")
            asked = self.app.request_class(environ, populate_request=False)
            tags[:] = outdated_urls(request_of(asked), response)
            whole = bool(messages.values_of(response.fields, "content-length"))
            outdate()
            return start_response(status, fields) if exc_info is None else start_response(status, fields, exc_info)

        def outdate() -> None:
            if tags:
                self.installation.outdate(tags)

        try:
            body = self.inner(environ, start)
        finally:
            outdate()
        return body if whole else ClosingIterator(body, outdate)  # a stream may hold the request until it ends


def _has_route(app: Flask, path: str) -> bool:
    """Whether the application answers GET at exactly this path; a route that only covers it, like ``/<page>``, does not
    count."""
    return any(
        rule.endpoint != ENDPOINT
        and rule.rule.rstrip("/") == path.rstrip("/")
        and (rule.methods is None or "GET" in rule.methods)
        for rule in app.url_map.iter_rules()
    )


# Which service an application uses.


def own_service(app: Flask, config: Config) -> Service | None:
    """The application's own service, or None for the process's.

    ``config`` decides alone. Then come ``app.config``, and a ``cachekit.toml`` in the application's folder or the one
    above, which is the process's configuration unless the process has read another one already.
    """
    if config is not None:
        return application_service(_ours(config))
    table = app.config.get(TABLE)
    foreign = mapped(of_extension(app.config), "app.config")
    chosen = bool(os.environ.get(FILES))  # by whoever runs the application, which stands above its code
    named = None if chosen else _named_files(app)
    found = None if chosen or named else _found_file(app)
    if table is None and named is None and not foreign:
        return None if found is None or adopt(found) else _beside_another(app, found)
    files = named or (None if found is None else [found])
    return framework_service(files, {"app.config['CACHE_...']": foreign, f"app.config[{TABLE!r}]": _table(table)})


def _ours(config: Any) -> Any:
    """``config=``: a file, a dict shaped like it, or one with the keys of Flask-Caching."""
    if not isinstance(config, Mapping) or not any(str(key).startswith("CACHE_") for key in config):
        return config
    table = mapped({key: value for key, value in config.items() if str(key).startswith("CACHE_")}, "config", alone=True)
    return merged(table, {key: value for key, value in config.items() if not str(key).startswith("CACHE_")})


def _table(table: Any) -> Mapping[str, Any]:
    if table is None:
        return {}
    if not isinstance(table, Mapping):
        raise ConfigError(f"app.config[{TABLE!r}]: not a dict; files go into app.config[{FILES!r}]")
    return table


def _named_files(app: Flask) -> list[Path] | None:
    """The files that ``app.config`` names, base first; relative to ``app.root_path``, as everywhere in Flask."""
    named = app.config.get(FILES)
    if not named:
        return None
    names = named.split(os.pathsep) if isinstance(named, str) else [named] if isinstance(named, PathLike) else named
    files = [Path(app.root_path, Path(name).expanduser()) for name in names if name]
    for file in files:
        if not file.is_file():
            raise ConfigError(f"app.config[{FILES!r}]: {file}: no such file")
    return files


def _found_file(app: Flask) -> Path | None:
    """A ``cachekit.toml`` in ``app.root_path`` or the folder above, within the bounds of the ordinary search."""
    root = Path(app.root_path).resolve()
    found = find_files({name: os.environ[name] for name in ("HOME", "USERPROFILE") if name in os.environ}, root)
    near = [file for file in found.files if file.parent in (root, root.parent)]
    for reason in found.ignored:
        logger.warning("%s", reason)
    return near[0] if near else None


def _beside_another(app: Flask, found: Path) -> Service:
    logger.warning(
        "%s uses %s, but the process had loaded another configuration before, which functions decorated with "
        "cachekit.cache stay with; create the application first, or name the file in %s",
        app.name,
        found,
        FILES,
    )
    return framework_service([found])
