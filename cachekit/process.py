"""The default service of a process: `cache`, `region` and the functions of `cachekit` use it; and its configuration."""

import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from cachekit.config.options import ONLY_ON, apply_options, check_options, loosened, unfit, unsafe
from cachekit.config.secret import hidden
from cachekit.config.spec import ServiceSpec
from cachekit.config.spec import default_service as built_in_service
from cachekit.errors import ConfigError
from cachekit.service import Health, Service

if TYPE_CHECKING:
    from pathlib import Path

_default: Service | None = None
_default_lock = threading.RLock()
_configured: tuple[object, ...] | None = None
_definitions: dict[str, dict[str, object]] = {}
_loaded: "tuple[Service, Any, Mapping[str, Any]] | None" = None  # the last one made here, and of what
_followers: "weakref.WeakSet[Any]" = weakref.WeakSet()  # regions and functions that must follow a new default
_private: "weakref.WeakSet[Service]" = weakref.WeakSet()  # each of one application only


def default_service() -> Service:
    """The process's service; loads the configuration on first use."""
    global _default
    service = _default
    if service is None:
        with _default_lock:
            if _default is None:
                _default = _made(None, {})
            service = _default
    return service


def _made(path: "str | os.PathLike[str] | None", settings: Mapping[str, Any]) -> Service:
    global _loaded
    service = Service(_load(path, settings))
    _loaded = (service, path, settings)
    return service


def replace_default(service: Service | None) -> Service | None:
    """Make this the process's service and return the one before; regions and functions follow it."""
    global _default
    with _default_lock:
        before, _default = _default, service
        for follower in list(_followers):
            follower.follow()
    return before


def follow(follower: Any) -> None:
    """Have ``follower.follow()`` called whenever the default service is replaced."""
    _followers.add(follower)


def configure(path: "str | os.PathLike[str] | None" = None, /, *, replace: bool = False, **settings: Any) -> None:
    """Load and validate the configuration now, and check every decorated function known so far.

    ``path`` is a file to read instead of the one that would be found; ``settings`` win over everything. Optional: the
    first use does the same. A second, different call raises `ConfigError` unless ``replace=True``, which closes the old
    service; regions and decorated functions follow the new one.
    """
    global _configured
    settings = hidden(settings)
    wanted = (None if path is None else os.fspath(path), _known_by(settings))
    with _default_lock:
        if _configured == wanted and _default is not None and not replace:
            return
        if _default is not None and not replace:
            what = "with other settings" if _configured is not None else "after the first use"
            raise ConfigError(f"configure() was called {what}; call it first, or pass replace=True")
        service = _made(path, settings)
        service.start()
        before = replace_default(service)
        _configured = wanted
    if before is not None:
        before.close()


def _known_by(settings: Mapping[str, Any]) -> bytes:
    """What tells these settings from others, and does not show them."""
    return blake2b(repr(sorted(settings.items())).encode()).digest()


def define(name: str, /, **profile_fields: Any) -> None:
    """A profile from code, below the file and the environment: for libraries, whose applications may override it.

    The same fields again are a no-op; different ones raise `ConfigError`, and so does a call after the configuration
    was loaded without this profile.
    """
    from cachekit.config.units import check_name

    try:
        check_name(name)
    except ValueError as error:
        raise ConfigError(f"define({name!r}): {error}") from None
    fields = {key: value for key, value in profile_fields.items() if key != "extends"}
    check_options(fields)
    with _default_lock:
        if _definitions.get(name, profile_fields) != profile_fields:
            raise ConfigError(f"profile {name!r} is already defined with other fields")
        if name not in _definitions and _default is not None:
            _default.spec = _with_profile(_default.spec, name, profile_fields)
        _definitions[name] = profile_fields


def _with_profile(spec: ServiceSpec, name: str, fields: Mapping[str, Any]) -> ServiceSpec:
    """A profile that arrives after the configuration was loaded; the file may have one of the same name, which wins."""
    from dataclasses import replace

    if name in spec.regions:
        return spec
    base = spec.regions[str(fields.get("extends", "default"))]
    parsed = check_options({key: value for key, value in fields.items() if key != "extends"})
    for key in loosened(base, parsed):
        raise ConfigError(f"define({name!r}): {key} = false: {ONLY_ON}")
    added = apply_options(base.but(name=name, origin="define()"), parsed)
    for key, problem in (*unfit(added.freshness), *unsafe(added)):
        raise ConfigError(f"define({name!r}): {key}: {problem}")
    return replace(spec, regions={**spec.regions, name: added})


def _load(path: "str | os.PathLike[str] | None", settings: Mapping[str, Any]) -> ServiceSpec:
    """The configuration; without a file, a variable or a definition pydantic is never imported."""
    from pathlib import Path  # these are needed once, and cost as much as all of this module

    from cachekit.config.tree import find_files, needs_loading

    start = _project.directory
    if start is None or not find_files(os.environ, start).files:
        start = Path.cwd()
    given = any((path is not None, settings, _definitions, _project.layers))
    if not given and not needs_loading(os.environ, start):
        return _counting(built_in_service())
    from cachekit.config.settings import load  # pydantic, on first use only

    paths = None if path is None else [Path(path)]
    return _counting(load(paths, settings=settings, definitions=_definitions, layers=_project.layers, start=start))


@dataclass(frozen=True)
class Project:
    """What the project of a framework adds to the configuration of its process.

    ``directory`` is where the search for a file begins. ``layers`` are tables by the name that messages call them,
    above the files and below the environment. Regions named in ``counting`` have counters unless somebody decided.
    """

    directory: "Path | None" = None
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)  # may hold secrets
    counting: frozenset[str] = frozenset()


_project = Project()


def adopt_project(project: Project) -> None:
    """Make a project part of the process's configuration.

    If the configuration was loaded without it, it is loaded again: regions and functions follow, as with `configure`.
    Raises `ConfigError`, and then nothing has changed.
    """
    global _project
    with _default_lock:
        if project == _project:
            return
        before, _project = _project, project
        old = _default
        if old is None or _loaded is None or old is not _loaded[0]:
            return  # not loaded yet, or something else was put in its place
        try:
            if _load(*_loaded[1:]) == old.spec:
                return
            replace_default(_made(*_loaded[1:]))
        except ConfigError:
            _project = before
            raise
    old.close()


def _counting(spec: ServiceSpec) -> ServiceSpec:
    from dataclasses import replace

    regions = {
        name: region.but(counters=True) if name in _project.counting and not region.counters_set else region
        for name, region in spec.regions.items()
    }
    return replace(spec, regions=regions)


def adopt(file: "str | os.PathLike[str]") -> bool:
    """A file that a framework's integration found: the process's configuration, unless one was loaded already.

    Whether the default service is made from this file.
    """
    global _default
    with _default_lock:
        if _default is None:
            _default = _made(file, {})
        return _default.made_from(file)


def framework_service(
    files: "Sequence[os.PathLike[str]] | None", layers: Mapping[str, Mapping[str, Any]] = {}
) -> Service:
    """A service for one application only, made from its framework's configuration.

    ``files`` replace those that would be found; ``layers`` are tables by the name that messages call them, above the
    files and below the environment.
    """
    from pathlib import Path

    from cachekit.config.settings import load  # pydantic, on first use only

    layers = hidden(layers)
    paths = None if files is None else [Path(file) for file in files]
    return _private_service(load(paths, definitions=_definitions, layers=layers))


def application_service(config: "str | os.PathLike[str] | Mapping[str, Any]") -> Service:
    """A service for one application only: ``config=`` of the integrations, a file or a dict shaped like it."""
    from cachekit.config.settings import load  # pydantic, on first use only

    if isinstance(config, Mapping):
        config = hidden(config)
        return _private_service(load([], settings=config, definitions=_definitions))
    from pathlib import Path

    return _private_service(load([Path(config)], definitions=_definitions))


def _private_service(spec: ServiceSpec) -> Service:
    service = Service(spec, private=True)
    _private.add(service)
    return service


def all_services() -> list[Service]:
    """The default service, and those that applications of this process have for themselves."""
    return [default_service(), *_private]


def close(timeout: float = 5.0) -> None:
    """Deliver queued invalidations and close every connection of the default service. A later use starts again."""
    if _default is not None:
        _default.close(timeout)


async def aclose(timeout: float = 5.0) -> None:
    """As `close`, from a coroutine."""
    if _default is not None:
        await _default.aclose(timeout)


def health() -> Health:
    """How the default service does, from real operations; never opens a connection."""
    return default_service().health()


def _after_fork() -> None:
    global _default_lock
    _default_lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
