"""What all tests share: servers, an environment without configuration, and the seconds of slow files."""

import os
from collections import defaultdict
from collections.abc import Iterator
from weakref import WeakSet

import hypothesis
import pytest

from cachekit.l1 import pure
from cachekit.process import Project
from cachekit.testing.plugin import configures
from cachekit.testing.servers import Server, available, start_server

SLOW_FILE = 20.0  # seconds; a file above it belongs into make test-all

LATE = pytest.mark.flaky(reruns=2, only_rerun=r"^AssertionError: late\b")

seconds: dict[str, float] = defaultdict(float)

hypothesis.settings.register_profile("without a clock", deadline=None)  # tests run beside others
hypothesis.settings.load_profile("without a clock")


def pytest_configure() -> None:
    # Before any fixture and for every process that tests start: nothing may lead to a server that is not ours.
    for variable in filter(configures, list(os.environ)):
        del os.environ[variable]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Tests keep the machine busy for each other. Not for all tests: each costs the plugin 40 ms in several processes.
    for item in items:
        if item.get_closest_marker("timed"):
            item.add_marker(LATE)


# The other kind is another server with the same promises: worth having, not each time.
@pytest.fixture(
    scope="session",
    params=[pytest.param(kind, marks=[] if kind == "valkey" else [pytest.mark.slow]) for kind in available()],
)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of each kind that this machine has. Tests share it, so they use keys of their own."""
    with start_server(request.param) as server:
        yield server


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests decorated is not judged by configure() and start() here, no project of theirs is read, no tag is
    cleared in their applications, and hits are not looked at for the sake of their tenants."""
    monkeypatch.setattr("cachekit.function._functions", WeakSet())
    monkeypatch.setattr("cachekit.process._private", WeakSet())
    monkeypatch.setattr("cachekit.process._project", Project())
    monkeypatch.setattr("cachekit.context._tenants", False)  # of other tests


@pytest.fixture
def pure_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services of this test stand on the pure twin, since parts of the native one cannot be switched off."""
    for name in ("service.Table", "service.Versions", "function.compile_memo", "function.is_plain", "regions.is_plain"):
        monkeypatch.setattr(f"cachekit.{name}", getattr(pure, name.partition(".")[2]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    seconds[report.nodeid.partition("::")[0]] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for file, spent in sorted(seconds.items(), key=lambda item: -item[1]):
        if spent > SLOW_FILE:
            terminalreporter.write_line(f"{file}: {spent:.0f} s, above {SLOW_FILE:.0f} s")
