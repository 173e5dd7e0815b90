"""Every cell of docs/comparison.md is what a run of the real libraries shows.

Each cache is probed in a process of its own, the others in an environment of their own with the versions of
``requirements.txt``. What they did is left in ``.cache/comparison.json``.
"""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import pytest

from cachekit.testing import start_server

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "comparison.md"
PINS = (HERE / "requirements.txt").read_text().split()
ENVIRONMENT = ".venv-peers"
OURS = "cachekit"

# The rows of the table on the page, and the situations in probe.py.
ROWS = {
    "30 threads ask for one missing key: the function runs": "threads_run_it",
    "30 tasks ask for one missing key: the coroutine runs": "tasks_run_it",
    "the source changes and the key is invalidated during a load: later callers get the value that is": (
        "after_invalidation_during_a_load"
    ),
    "`None` is cached": "none_is_cached",
    "a caller changes what it got in the process: others see the change": "change_of_a_result_is_seen_by_others",
    '`1`, `True`, `1.0`, `"1"`: how many entries': "one_true_and_a_float",
    "`f()`, `f(0)`, `f(x=0)` with the default `x=0`: how many entries": "spellings",
    "two classes have a method of one name, their instances look alike: a call gets the answer that is": (
        "methods_of_one_name"
    ),
    "a tuple comes back from Redis as": "tuple_from_the_server",
    "what lies on the server is pickled": "pickle_on_the_server",
    "one bit of it is damaged: the caller gets": "damaged_bytes",
    "the server takes connections and never answers: one call takes": "hung_server",
}
Facts: TypeAlias = dict[str, dict[str, str]]

pytestmark = pytest.mark.slow


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without the line of dashes."""
    text = PAGE.read_text().partition(f"\n## {heading}\n")[2]
    rows = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if not re.fullmatch(r"[|: -]+", row)]


CACHES, *BEHAVIOURS = table("What each does by default")
OPTIONS = table("What options change")[1:]


@pytest.fixture(scope="module")
def hung() -> Iterator[str]:
    """The URL of a server that lets clients connect and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@pytest.fixture(scope="module")
def facts(hung: str) -> Facts:
    """What every cache did in every situation."""
    subprocess.run([sys.executable, "tools/environment.py", ENVIRONMENT, *PINS], cwd=ROOT, check=True)
    names = [*CACHES[1:], *(row[0].strip("`") for row in OPTIONS)]
    with ThreadPoolExecutor(2) as threads:
        found = dict(zip(names, threads.map(lambda name: probed(name, hung), names), strict=True))
    (ROOT / ".cache").mkdir(exist_ok=True)
    (ROOT / ".cache" / "comparison.json").write_text(json.dumps(found, indent=1, ensure_ascii=False))
    return found


def probed(name: str, hung: str) -> dict[str, str]:
    python = sys.executable if name == OURS else str(ROOT / ENVIRONMENT / "bin" / "python")
    found: dict[str, str] = {}
    with start_server() as server:
        for urls in ((server.url, ""), ("", hung)):
            done = subprocess.run(
                [python, str(HERE / "probe.py"), name, *urls], capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, f"{name}: {done.stderr}"
            found |= json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_page_names_the_versions_that_are_tested() -> None:
    text = " ".join(PAGE.read_text().split())
    versions = [re.sub(r"\[\w+\]", "", pin).replace("==", " ") for pin in PINS]
    assert [version for version in versions if version not in text] == []


def test_the_page_has_every_behaviour_that_is_tested() -> None:
    assert [row[0] for row in BEHAVIOURS] == list(ROWS)


@pytest.mark.parametrize("row", BEHAVIOURS, ids=lambda row: ROWS[row[0]])
def test_every_cell_is_what_the_run_showed(facts: Facts, row: list[str]) -> None:
    shown = dict(zip(CACHES[1:], row[1:], strict=True))
    assert shown == {name: facts[name][ROWS[row[0]]] for name in CACHES[1:]}


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: row[0])
def test_every_option_changes_what_the_page_says(facts: Facts, row: list[str]) -> None:
    option, behaviour, before, after = row
    name, situation = option.strip("`"), ROWS[behaviour]
    default = next(cache for cache in CACHES if re.match(rf"{re.escape(cache)}\b", name) and cache)
    assert (before, after) == (facts[default][situation], facts[name][situation])
