"""A backend in a package of its own is found by its entry point once it is installed, and keeps the contract."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONTRACT = """
import tempfile

from cachekit.backends.registry import open_backend
from cachekit.config.spec import BackendSpec
from cachekit.testing import BackendContract

PLACE = tempfile.TemporaryDirectory()


class TestInstalled(BackendContract):
    offers = frozenset()
    shortest_ttl_ms = 100

    def make_backend(self):
        return open_backend(BackendSpec(type="directory", options={"path": PLACE.name})).sync
"""
PROGRAM = """
from cachekit import cache, configure, health

@cache(ttl=300)
def f(x):
    print("ran")
    return (x, {x})

print(f(1), health().backends["default"].state)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that has the package."""
    directory = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(ROOT / "examples" / "directory_backend", directory / "source")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run([*command, "--target", str(directory / "site"), str(source)], check=True, timeout=300)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(directory / "site"), str(ROOT)])}


def run(*command: str, env: dict[str, str], cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300, env=env, cwd=cwd)


def test_it_keeps_the_contract(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "test_installed.py").write_text(CONTRACT)
    env = {**installed, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_installed.py", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_a_type_in_the_configuration_is_enough(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "entries").mkdir()
    (tmp_path / "cachekit.toml").write_text(
        'namespace = "installed"\n[backends.default]\ntype = "directory"\n'
        f'options = {{ path = "{tmp_path / "entries"}" }}\nbudget = "10s"\nadaptive = false\n'
    )
    (tmp_path / "program.py").write_text(PROGRAM)
    first, second = (run("program.py", env=installed, cwd=tmp_path) for _ in range(2))
    assert first.stdout.splitlines() == ["ran", "(1, {1}) up"], first.stderr
    assert second.stdout.splitlines() == ["(1, {1}) up"], second.stderr


def test_without_the_package_the_nearest_type_is_told(tmp_path: Path) -> None:
    (tmp_path / "cachekit.toml").write_text('[backends.default]\ntype = "memcache"\n')
    (tmp_path / "program.py").write_text(PROGRAM)
    done = run("program.py", env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path)
    assert "no such backend type; did you mean 'memcached'?" in done.stderr
