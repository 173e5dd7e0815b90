"""Every cell of docs/comparison.md is what a run of the real libraries shows.

Each cache is probed in a process of its own, the others in an environment of their own with the versions of
``requirements.txt``. A run of all cells writes docs/validation/VALIDATION_LOG.md.
"""

import json
import os
import platform
import re
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pytest
from typed import DECORATIONS, a_type_checker_sees

from cachekit.testing import start_server
from cachekit.testing.servers import Server

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "comparison.md"
LOG = ROOT / "docs" / "validation" / "VALIDATION_LOG.md"
PINS = (HERE / "requirements.txt").read_text().split()
ENVIRONMENT = ".venv-peers"
AWAY = ("hung_server", "refused_server")
TYPED = "a_type_checker_sees"
LAST = "a_server_that_dies_and_is_back"  # nothing is as it was afterwards
PATIENCE = 180.0  # seconds for all situations of one cache
NOT_OFFERED = "–"
PATIENT = {"CACHEKIT_BACKENDS__DEFAULT__BUDGET": "10s", "CACHEKIT_BACKENDS__DEFAULT__ADAPTIVE": "false"}

pytestmark = pytest.mark.slow


class Cell(NamedTuple):
    """What the page says of one cache in one situation."""

    situation: str
    name: str
    said: str

    @property
    def id(self) -> str:
        """Of its test, in letters that a shell takes as they are."""
        return f"{self.situation}-{re.sub(r'[^A-Za-z0-9_.-]+', '_', self.name).strip('_')}"


Facts: TypeAlias = Callable[[str, str], str]


def tables(heading: str) -> list[list[list[str]]]:
    """The cells of every table below a heading, without the lines of dashes."""
    text = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [
        [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines() if "|---" not in row]
        for table in found
    ]


def situation(cell: str) -> str:
    """The one whose section of the log the cell links to."""
    linked = re.search(r"\]\(validation/VALIDATION_LOG\.md#(\w+)\)", cell)
    assert linked, cell
    return linked[1]


((CACHES, *BEHAVIOURS),) = tables("What each does by default")
((_, *OPTIONS),) = tables("What options change")
CELLS = [
    Cell(situation(row[0]), name, said) for row in BEHAVIOURS for name, said in zip(CACHES[1:], row[1:], strict=True)
]
OPTION_CELLS = [Cell(situation(row[1]), row[0].strip("`"), row[3]) for row in OPTIONS]
DEFAULT = {(cell.situation, cell.name): cell.said for cell in CELLS}
QUESTIONS = {situation(row[0]): re.sub(r"^\[(.*)\]\(.*\)$", r"\1", row[0]) for row in BEHAVIOURS}
seen: dict[Cell, str] = {}  # for the log


@pytest.fixture(scope="module")
def facts(request: pytest.FixtureRequest) -> Iterator[Facts]:
    """What a cache did in a situation; those of the chosen tests run at the same time."""
    subprocess.run([sys.executable, "tools/environment.py", ENVIRONMENT, *PINS], cwd=ROOT, check=True)
    wanted: dict[str, list[str]] = defaultdict(list)
    for item in request.session.items:
        cell = getattr(item, "callspec", None) and item.callspec.params.get("cell")  # type: ignore[attr-defined]
        if cell and cell.situation != TYPED:
            wanted[cell.name].append(cell.situation)
    with ThreadPoolExecutor(3) as threads:
        probes = {name: threads.submit(probed, name, situations) for name, situations in wanted.items()}
        yield lambda name, situation: probes[name].result()[situation]


def python_of(name: str) -> str:
    ours = re.match(r"cachekit\b(?!\.)", name)
    return sys.executable if ours else str(ROOT / ENVIRONMENT / "bin" / "python")


def probed(name: str, situations: list[str]) -> dict[str, str]:
    """The situations in one process, in their order; those of a server that is away in others."""
    found: dict[str, str] = {}
    near = sorted((each for each in situations if each not in AWAY), key=lambda each: each == LAST)
    with start_server() as server, socket.create_server(("127.0.0.1", 0), backlog=100) as hung, unused() as refused:
        if near:
            patient = PATIENT if python_of(name) == sys.executable else {}  # the machine may be busy
            found |= answers(name, server.url, near, server, **patient)
        for away, taken in zip(AWAY, (hung, refused), strict=True):
            if away in situations:
                found |= answers(name, f"redis://127.0.0.1:{taken.getsockname()[1]}/0", [away], server)
    return found


def unused() -> socket.socket:
    """A port that is taken, so that nobody else listens there, and that nobody can connect to."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken


def answers(name: str, url: str, situations: list[str], server: Server, **environ: str) -> dict[str, str]:
    command = [python_of(name), str(HERE / "probe.py"), name, url, *situations]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    said: list[str] = []
    env = {**os.environ, **environ}
    with subprocess.Popen(command, text=True, cwd="/", env=env, **pipes) as probe:  # type: ignore[call-overload]
        (timer := threading.Timer(PATIENCE, probe.kill)).start()
        for line in probe.stdout:
            if line.startswith("!"):
                getattr(server, line[1:].strip())()
                probe.stdin.write("done\n")
                probe.stdin.flush()
            else:
                said.append(line)
        timer.cancel()
    assert probe.returncode == 0, f"{name}: {''.join(said[-30:])}"
    found: dict[str, str] = json.loads(next(line for line in reversed(said) if line.startswith("{")))
    return found


def each(cells: list[Cell]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("cell", cells, ids=lambda cell: cell.id)


@each(CELLS)
def test_cell(facts: Facts, cell: Cell, tmp_path: Path) -> None:
    if cell.situation == TYPED:
        known = cell.name in DECORATIONS
        shown = a_type_checker_sees(cell.name, python_of(cell.name), tmp_path) if known else NOT_OFFERED
    else:
        shown = facts(cell.name, cell.situation)
    assert shown == cell.said
    seen[cell] = shown


@each(OPTION_CELLS)
def test_option(facts: Facts, cell: Cell) -> None:
    shown = facts(cell.name, cell.situation)
    assert shown == cell.said
    seen[cell] = shown


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: f"{situation(row[1])}-{row[0].strip('`')}")
def test_the_page_says_of_an_option_what_it_says_of_the_default(row: list[str]) -> None:
    default = next(cache for cache in CACHES if cache and re.match(rf"{re.escape(cache)}(?![\w.])", row[0].strip("`")))
    assert row[2] == DEFAULT[situation(row[1]), default]
    assert row[3] != row[2]


def test_the_page_names_the_versions_that_are_tested() -> None:
    text = " ".join(PAGE.read_text().split())
    versions = [re.sub(r"\[\w+\]", "", pin).replace("==", " ") for pin in PINS]
    assert [version for version in versions if version not in text] == []


def test_the_run_is_written_down() -> None:
    if len(seen) < len(CELLS) + len(OPTION_CELLS):
        pytest.skip("the log is of a run of all cells, each of them right")
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text(log())


def log() -> str:
    shown = {cell: what for cell, what in seen.items() if what != NOT_OFFERED}
    versions = ", ".join(re.sub(r"\[\w+\]", "", pin).replace("==", " ") for pin in PINS)
    python = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()}"
    parts = [
        "# Validation log\n",
        "What each assertion behind [the comparison](../comparison.md) saw when all of them were last run.",
        "Not written by hand: `make test-competitive` writes it anew.\n",
        f"{len(shown)} assertions on {datetime.now(UTC):%-d %B %Y}, all as the page says. {python}; {versions}.\n",
        "A line ends with the name of its test in `tests/competitive/test_competitive.py`;",
        '`make test-competitive ARGS="-k hung_server-cashews"` runs the one in these brackets alone.\n',
    ]
    for name, question in QUESTIONS.items():
        lines = [line(cell, what) for cell, what in shown.items() if cell.situation == name]
        parts += [f"## {name}\n", f"{question}\n", *lines, ""]
    return "\n".join(parts)


def line(cell: Cell, what: str) -> str:
    option = cell in OPTION_CELLS
    name = f"`{cell.name}`" if option else cell.name
    return f"- {name}: **{what}** `test_{'option' if option else 'cell'}[{cell.id}]`"
