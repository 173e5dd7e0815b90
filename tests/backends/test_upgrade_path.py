"""The upgrade path: one module, unchanged, with nothing, a file, one server, a cluster, and encrypted.

Each step is a change of the environment, and the module's own tests pass at each with the same values and types.
"""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from memcached_server import Memcached

from cachekit.testing import start_cluster, start_server
from cachekit.testing.plugin import configures

pytestmark = [pytest.mark.server, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
ENCRYPTED = {"CACHEKIT_PROFILES__DEFAULT__ENCRYPT": "true", "CACHEKIT_MASTER_KEY": "0123456789abcdef" * 4}

steps = itertools.count()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    server = Memcached()
    with start_server() as one, start_cluster() as cluster:
        yield {
            "one server": one.url,
            "a cluster": cluster.url,
            "a file": f"file://{tmp_path_factory.mktemp('upgrade')}/cache.db",
            "memcached": server.url,
            "memory": "memory://",
        }
    server.stop()


def run(directory: Path, changes: dict[str, str]) -> tuple[str, list[object]]:
    """How the tests of the module ended, and what values it had."""
    report = directory / f"report-{next(steps)}.json"
    clean = {name: value for name, value in os.environ.items() if not configures(name)}
    env = {
        **clean,
        "PYTHONPATH": str(ROOT),
        "CACHEKIT_NAMESPACE": "upgrade",
        "CACHEKIT_BACKENDS__DEFAULT__BUDGET": "10s",  # the machine may be busy
        "CACHEKIT_BACKENDS__DEFAULT__ADAPTIVE": "false",
        "UPGRADE_REPORT": str(report),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # the module needs none
        **changes,
    }
    module = str(Path(__file__).with_name("upgrade_app.py"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(directory), "-c", os.devnull,
         module],
        capture_output=True, text=True, timeout=120, env=env, cwd=directory,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1].partition(" in ")[0], json.loads(report.read_text())


def test_the_same_module_has_the_same_values_types_and_tests_at_each_step(
    places: dict[str, str], tmp_path: Path
) -> None:
    changes: dict[str, dict[str, str]] = {"nothing": {}}
    for name, url in places.items():
        changes[name] = {"CACHEKIT_BACKENDS__DEFAULT__URL": url}
        changes[f"{name}, encrypted"] = {**changes[name], **ENCRYPTED}
    changes["the variable of hosts"] = {"REDIS_URL": places["one server"]}
    found = {name: run(tmp_path, change) for name, change in changes.items()}
    passed, values = found["nothing"]
    assert passed == "6 passed"
    assert values[0] == values[1]
    assert values[2] == values[3]
    assert [name for name, result in found.items() if result != (passed, values)] == []
