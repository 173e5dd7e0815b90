"""A backend is found by the type in its settings: ours by name, others by entry point."""

import importlib.metadata
import subprocess
import sys
from typing import Any

import pytest

from cachekit.backends.base import AsyncBaseBackend, BaseBackend, Faces
from cachekit.backends.redis.backend import AsyncRedisBackend, RedisBackend
from cachekit.backends.registry import GROUP, open_backend
from cachekit.config.spec import BackendSpec
from cachekit.errors import ConfigError


class Plain(BaseBackend):
    pass


class Coroutines(AsyncBaseBackend):
    pass


def offer(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Pretend that a package offers a backend."""
    real = importlib.metadata.entry_points

    def found(**params: Any) -> Any:
        if params == {"group": GROUP}:
            return [*real(**params), importlib.metadata.EntryPoint(name, value, GROUP)]
        return real(**params)

    monkeypatch.setattr(importlib.metadata, "entry_points", found)


def plain(spec: BackendSpec) -> Plain:
    backend = Plain()
    backend.spec = spec  # type: ignore[attr-defined]
    return backend


def both(spec: BackendSpec) -> Faces:
    return Faces(Plain(), Coroutines())


def coroutines(spec: BackendSpec) -> Coroutines:
    return Coroutines()


def something_else(spec: BackendSpec) -> int:
    return 5


def test_redis_has_both_faces_and_offers_everything() -> None:
    faces = open_backend(BackendSpec(url="redis://localhost"))
    assert isinstance(faces.sync, RedisBackend)
    assert isinstance(faces.aio, AsyncRedisBackend)
    assert {"get_or_lease", "stamps", "incr", "check"} <= faces.capabilities


def test_redis_is_opened_without_looking_for_entry_points() -> None:
    code = (
        "import sys; from cachekit.backends.registry import open_backend; from cachekit.config.spec import BackendSpec;"
        "assert not {'redis', 'importlib.metadata'} & set(sys.modules), 'too early';"
        "import importlib; real = importlib.import_module('importlib.metadata');"
        "real.entry_points = None; open_backend(BackendSpec(url='redis://localhost'))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr


def test_another_package_offers_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = BackendSpec(type="plain", url="plain://x", options={"a": 1})
    offer(monkeypatch, "plain", f"{__name__}:plain")
    faces = open_backend(spec)
    assert isinstance(faces.sync, Plain)
    assert faces.sync.spec is spec  # type: ignore[attr-defined]
    assert faces.aio is None


@pytest.mark.parametrize(("factory", "sync", "aio"), [("coroutines", False, True), ("both", True, True)])
def test_it_may_have_either_face_or_both(monkeypatch: pytest.MonkeyPatch, factory: str, sync: bool, aio: bool) -> None:
    offer(monkeypatch, factory, f"{__name__}:{factory}")
    faces = open_backend(BackendSpec(type=factory))
    assert (faces.sync is not None, faces.aio is not None) == (sync, aio)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("rediss", "Did you mean 'redis'?"),
        ("something_els", "Did you mean 'something_else'?"),
        ("qqqq", "Known are: "),
        ("something_else", "gave a int"),
        ("absent", "cannot be loaded"),
    ],
)
def test_a_type_that_cannot_be_used_is_told_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, kind: str, part: str
) -> None:
    for name in ("something_else", "absent"):
        offer(monkeypatch, name, f"{__name__}:{name}")
    with pytest.raises(ConfigError, match=r"^\[backends\.main\] type: ") as caught:
        open_backend(BackendSpec(name="main", type=kind))
    assert part in str(caught.value)
