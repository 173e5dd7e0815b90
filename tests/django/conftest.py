"""The small project of this folder, set up once, and settings of their own for single tests."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from weakref import WeakSet

import pytest

from cachekit.process import Project, adopt_project, replace_default
from cachekit.testing.servers import Server

OURS = "cachekit.integrations.django.CacheKitCache"
PATIENT = {"budget": "10s", "adaptive": False}
namespaces = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Django leaves the connections of threads that have ended to the garbage collector, of which Python 3.13 complains.
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"))


@pytest.fixture(scope="session")
def set_up(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Django with the project's settings. A process can have only one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_SETTINGS_MODULE", "project.settings")
        patch.setattr("cachekit.function._functions", WeakSet())  # of other tests, with profiles of their own
        patch.setenv("PROJECT_DB", str(tmp_path_factory.mktemp("django") / "db.sqlite3"))
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)


@pytest.fixture
def use(set_up: None) -> Iterator[Callable[..., None]]:
    """Other settings for one test: ``use(CACHES={...}, CACHEKIT={...})``. Without aliases the default is ours.

    Backends that it names have a budget that a busy machine does not exhaust; tests of the budget say their own.
    """
    from django.core.cache import caches
    from django.test import override_settings

    from cachekit.integrations.django import project

    before = replace_default(None)
    overridden: list[override_settings] = []

    def settings(**values: Any) -> None:
        values.setdefault("CACHES", {"default": {"BACKEND": OURS}})
        ours = {"namespace": f"django{next(namespaces)}", **values.get("CACHEKIT", {})}
        ours["backends"] = {name: {**PATIENT, **backend} for name, backend in ours.get("backends", {}).items()}
        values["CACHEKIT"] = ours
        override = override_settings(**values)
        override.enable()
        overridden.append(override)

    yield settings
    caches.close_all()
    left = replace_default(None)
    if left is not None:
        left.close()
    while overridden:
        overridden.pop().disable()
    project._installed = None
    adopt_project(Project())
    replace_default(before)


@pytest.fixture
def on_server(use: Callable[..., None], cachekit_server: Server) -> Callable[..., None]:
    """As `use`, with a server behind the default backend."""

    def settings(*, profiles: dict[str, Any] | None = None, **values: Any) -> None:
        use(CACHEKIT={"backends": {"default": {"url": cachekit_server.url}}, "profiles": profiles or {}}, **values)

    return settings


@pytest.fixture(scope="session")
def tests_of_django() -> Path:
    """The tests of the installed Django, from its source distribution; downloaded once per version."""
    return download(Path(__file__).parents[2] / ".cache" / "django")


def download(directory: Path) -> Path:
    import subprocess
    import sys
    import tarfile

    import django

    name = f"django-{django.__version__}"
    if not (directory / name).is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=directory) as fresh:  # tests under another Python may do the same now
            command = ("download", "--no-deps", "--no-binary", ":all:", "--dest", fresh, name.replace("-", "=="))
            subprocess.run([sys.executable, "-m", "pip", *command], check=True, env={**os.environ, "PIP_NO_INPUT": "1"})
            with tarfile.open(f"{fresh}/{name}.tar.gz") as archive:
                wanted = [member for member in archive if member.name.startswith(f"{name}/tests/")]
                archive.extractall(fresh, wanted, filter="data")
            with suppress(OSError):  # they were first
                Path(fresh, name).rename(directory / name)
    return directory / name / "tests"
