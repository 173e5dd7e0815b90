"""The public tests of HTTP caches (npm package http-cache-tests) over the policy, in front of the tests' own server.

They are installed into ``.cache/`` of this checkout, in this version, by npm. The caches are `cached_proxy`, of the
policy alone, and `cached_application`, which is `CacheMiddleware`.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cachekit.testing.servers import free_port

VERSION = "0.4.5"
ROOT = Path(__file__).parents[2]
HOME = ROOT / ".cache" / f"http-cache-tests-{VERSION}"
SUITE = HOME / "node_modules" / "http-cache-tests"
APPS = Path(__file__).with_name("apps")

pytestmark = pytest.mark.slow

# Every required or optimal test that does not pass, by the beginning of its name, and why. The first that fits counts.
FAILURES = {
    # Of several Age values the first counts (RFC 9111 section 5.1); these want the response to be stale.
    "age-parse-prefix-twoline": "the first of several counts",
    "age-parse-dup-": "the first of several counts",
    # The origin is the application itself: what is stale is made anew, nobody asks whether it has changed.
    "304-": "no conditional requests to the origin",
    "cc-resp-must-revalidate-stale": "no conditional requests to the origin",
    "cc-resp-no-cache-revalidate": "no conditional requests to the origin",
    "conditional-etag-vary-headers": "no conditional requests to the origin",
    "conditional-etag-strong-generate": "no conditional requests to the origin",
    "conditional-etag-weak-generate-weak": "no conditional requests to the origin",
    # They ask for a numbered response of an origin that has hung up: our 502 has no number, nor has anybody else's.
    "stale-close-": "no cache can pass it: an error has no number",
    # Never given to two visitors, whatever the RFC allows.
    "other-set-cookie": "Set-Cookie is never stored",
    "headers-store-Set-Cookie": "Set-Cookie is never stored",
    "other-cookie": "requests with Cookie go around",
    # Ranges go to the route, and parts are not kept.
    "partial-": "no ranges",
    "headers-store-Content-Range": "no ranges",
    # RFC 9111 section 4.3.2 with a Date in place of a Last-Modified: see docs/http-policy.md.
    "conditional-lm-fresh-no-lm": "a Date is no proof that nothing changed",
    "method-POST": "only GET fills the cache",
    # An order of languages is a preference to many servers.
    "vary-normalise-lang-order": "the order of languages may matter",
    "vary-normalise-lang-select": "languages are chosen by the route",
    # The answer of the tests' server is no HTTP: Transfer-Encoding is what the test draws at random.
    "headers-store-Transfer-Encoding": "not a response that a client can read",
    # For CDNs: Surrogate-Control, of no RFC.
    "surrogate-": "Surrogate-Control means nothing here",
}  # fmt: skip
# The same by cache, where only one of them does not pass: `CacheMiddleware` asks its application for the whole page.
FAILURES_OF = {
    "cached_proxy": {},
    "cached_application": {"conditional-lm-stale": "conditions are the cache's own affair"},
}
PASSED = {
    "cached_proxy": {"required": 123, "optimal": 68},
    "cached_application": {"required": 123, "optimal": 67},
}
AT_LEAST = {"required": 121, "optimal": 66}

KINDS = """
const tests = (await import(process.argv[1] + '/tests/index.mjs')).default
const last = (await import(process.argv[1] + '/tests/surrogate-control.mjs')).default
const all = {}
for (const suite of [...tests, last])
  for (const test of suite.tests)
    if (!test.browser_only) all[test.id] = [test.kind || 'required', test.depends_on || []]
console.log(JSON.stringify(all))
"""


@pytest.fixture(scope="module")
def suite() -> Path:
    """The public tests, installed."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise RuntimeError(f"{program} is not here: the public HTTP cache tests need node 14 or newer, and npm")
    if not (HOME / "complete").exists():
        HOME.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", ".", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=dev"]
        subprocess.run([*command, f"http-cache-tests@{VERSION}"], cwd=HOME, check=True, timeout=300)
        (HOME / "complete").touch()
    return SUITE


@contextmanager
def running(command: list[str], url: str, log: Path, **options: Any) -> Iterator[None]:
    """A server, once it answers."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
        else:
            raise AssertionError(log.read_text())
        yield
    finally:
        process.terminate()
        process.wait(10)


def npm(**settings: object) -> dict[str, str]:
    """The environment in which npm would run a script of the package."""
    return {**os.environ, **{f"npm_config_{name}": str(value) for name, value in settings.items()}}


@pytest.fixture(scope="module", params=["cached_proxy", "cached_application"])
def cache_app(request: pytest.FixtureRequest) -> str:
    """The caches that the tests are run over."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def results(cache_app: str, suite: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    logs, ports = tmp_path_factory.mktemp("logs"), (free_port(), free_port())
    origin, cache = (f"http://127.0.0.1:{port}" for port in ports)
    server = running(
        ["node", "--no-warnings", "server/server.mjs"], origin, logs / "origin", cwd=suite,
        env=npm(protocol="http", port=ports[0], pidfile=logs / "pid"),
    )  # fmt: skip
    proxy = running(
        [sys.executable, "-m", "uvicorn", "--app-dir", str(APPS), f"{cache_app}:app", "--port", str(ports[1]),
         "--no-server-header", "--no-date-header", "--log-level", "warning", "--timeout-keep-alive", "60"],
        cache, logs / "proxy", cwd=ROOT, env={**os.environ, "ORIGIN": origin, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    with server, proxy:
        done = subprocess.run(
            ["node", "--no-warnings", "cli.mjs"], cwd=suite, env={**npm(base=cache), "npm_package_config_id": ""},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def kinds(suite: Path) -> dict[str, tuple[str, list[str]]]:
    """Of each test: required, optimal or check, and what must pass for it to mean anything."""
    done = subprocess.run(
        ["node", "--no-warnings", "--input-type=module", "-e", KINDS, str(suite)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, tuple[str, list[str]]] = json.loads(done.stdout)
    return found


def passes(name: str, results: dict[str, Any], kinds: dict[str, tuple[str, list[str]]]) -> bool:
    return results.get(name) is True and all(passes(other, results, kinds) for other in kinds[name][1])


def test_each_failure_is_explained_and_each_explanation_needed(cache_app: str, results: Any, kinds: Any) -> None:
    explained = {**FAILURES, **FAILURES_OF[cache_app]}
    failed = {
        name: results.get(name)
        for name, (kind, _) in kinds.items()
        if kind != "check" and not passes(name, results, kinds)
    }
    unexplained = {name: why for name, why in failed.items() if not name.startswith(tuple(explained))}
    assert unexplained == {}
    assert [start for start in explained if not any(name.startswith(start) for name in failed)] == []


def test_so_many_pass(cache_app: str, results: Any, kinds: Any) -> None:
    passed = {
        wanted: sum(kind == wanted and passes(name, results, kinds) for name, (kind, _) in kinds.items())
        for wanted in AT_LEAST
    }
    assert passed == PASSED[cache_app]
    assert all(passed[kind] >= least for kind, least in AT_LEAST.items())
