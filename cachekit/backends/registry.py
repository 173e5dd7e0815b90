"""From the settings of a backend to the backend itself: our own by name, others by entry point."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from cachekit.backends.base import AsyncBaseBackend, BaseBackend, Faces
from cachekit.config.spec import BackendSpec
from cachekit.errors import ConfigError

GROUP = "cachekit.backends"
BUILT_IN = {
    "redis": "cachekit.backends.redis:open_redis",
    "memcached": "cachekit.backends.memcached:open_memcached",
    "file": "cachekit.backends.file:open_file",
    "memory": "cachekit.backends.memory:open_memory",
}


def open_backend(spec: BackendSpec) -> Faces:
    """Open the backend that ``spec.type`` names. Never connects. ConfigError when there is none or it is set up wrong.

    A package offers one as an entry point of the group ``cachekit.backends``: a function that takes the `BackendSpec`
    and returns a `BaseBackend`, an `AsyncBaseBackend` or `Faces`.
    """
    faces = _own(spec) if spec.type in BUILT_IN else faces_of(factory(spec)(spec), spec)
    if spec.coherence == "tracking" and not faces.listens:
        raise ConfigError(
            f"[backends.{spec.name}] coherence: 'tracking' is not possible: a backend of type {spec.type!r} does not "
            "tell of changes; write 'auto' or 'ttl', and L1 keeps entries for max_staleness at most"
        )
    return faces


def _own(spec: BackendSpec) -> Faces:
    module, _, name = BUILT_IN[spec.type].partition(":")
    opened: Faces = getattr(import_module(module), name)(spec)
    return opened


def factory(spec: BackendSpec) -> Callable[[BackendSpec], Any]:
    """What another package registered under this type."""
    # Both take longer to load than the whole of `import cachekit` may.
    from difflib import get_close_matches
    from importlib.metadata import entry_points

    offered = {point.name: point for point in entry_points(group=GROUP)}
    point = offered.get(spec.type)
    if point is None:
        known = sorted({*BUILT_IN, *offered})
        near = get_close_matches(spec.type, known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(known)}."
        raise ConfigError(f"[backends.{spec.name}] type: no backend of type {spec.type!r} is installed. {hint}")
    try:
        loaded: Callable[[BackendSpec], Any] = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"[backends.{spec.name}] type: {spec.type!r} cannot be loaded: {error}") from error
    return loaded


def faces_of(opened: object, spec: BackendSpec) -> Faces:
    """What a factory returned, as both faces."""
    if isinstance(opened, Faces):
        return opened
    if isinstance(opened, BaseBackend):
        return Faces(sync=opened, aio=None)
    if isinstance(opened, AsyncBaseBackend):
        return Faces(sync=None, aio=opened)
    raise ConfigError(
        f"[backends.{spec.name}] type: {spec.type!r} gave a {type(opened).__name__}, which is neither a BaseBackend "
        "nor an AsyncBaseBackend nor Faces"
    )
