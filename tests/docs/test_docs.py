"""What the documentation shows is true: its code runs, its links lead somewhere, the tests it names exist.

On each page, in an empty directory and without a server:

* a ``toml`` block whose first line is ``# cachekit.toml`` becomes that file; every ``toml`` block is
  a valid configuration;
* a ``python`` block that begins with ``# x.py`` becomes that file, and pytest runs it if it is a ``test_x.py``; the
  others run in their order, in one namespace;
* a ``console`` block whose command begins with ``cachekit config`` is run, and must print what the block shows.
"""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import pytest

from cachekit.config.settings import load_tree

ROOT = Path(__file__).parents[2]
RUNNER = Path(__file__).with_name("run_page.py")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OTHERS = [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROOF = re.compile(r"`(?:tests|benchmarks)/[\w/.-]+(?:::\w+)?`")
FILE = re.compile(r"`((?:tests|benchmarks|cachekit|tools)/[\w/.-]+)(?:::(\w+))?`")
SLOW = {"docs/testing.md"}  # runs a whole contract suite
# The machine may be busy. The backend of an alias of Django's has no variables before there is one.
PATIENT = {"CACHEKIT_BACKENDS__DEFAULT__BUDGET": "10s", "CACHEKIT_BACKENDS__DEFAULT__ADAPTIVE": "false"}
PATIENT_ALIAS = "[backends.'django.default']\nbudget = '10s'\nadaptive = false\n"


class Block(NamedTuple):
    """One fenced block: what the fence says, where its text begins, the text."""

    kind: str
    line: int
    text: str

    @property
    def file(self) -> str:
        """The name in a first line like ``# cachekit.toml``, or nothing."""
        named = re.match(r"# ([\w.-]+\.(?:toml|py))(?:\n|:)", self.text)
        return named[1] if named else ""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, kind: str) -> list[Block]:
    text = page.read_text()
    found = [Block(at[1].strip(), text.count("\n", 0, at.start(2)) + 1, at[2]) for at in BLOCK.finditer(text)]
    return [block for block in found if block.kind == kind]


def run(directory: Path, *command: str, text: str = "", **more: str) -> str:
    """Run a program with nothing configured but what lies in the directory, and these variables; its output."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("CACHEKIT_", "REDIS_"))}
    done = subprocess.run(
        command, cwd=directory, input=text,
        env=environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(directory))), "COLUMNS": "200"} | more,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").touch()  # a configuration further up is not ours
    return tmp_path


def with_blocks(kind: str, slow: Collection[str] = ()) -> pytest.MarkDecorator:
    pages = [page for page in PAGES if blocks(page, kind)]
    return pytest.mark.parametrize(
        "page",
        [pytest.param(page, id=name(page), marks=[pytest.mark.slow] if name(page) in slow else []) for page in pages],
    )


@pytest.mark.slow
@with_blocks("python", SLOW)
def test_the_python_of_a_page_runs(page: Path, directory: Path) -> None:
    if "django" in page.name:
        (directory / "cachekit.toml").write_text(PATIENT_ALIAS)
    for block in blocks(page, "toml"):
        if block.file == "cachekit.toml":
            (directory / block.file).write_text(block.text)
    program, tests = [], []
    for block in blocks(page, "python"):
        if block.file:
            (directory / block.file).write_text(block.text)
            tests += [block.file] if block.file.startswith("test_") else []
        else:
            program.append((block.line, block.text))
    if program:
        run(directory, sys.executable, "-W", "error", str(RUNNER), name(page), text=json.dumps(program), **PATIENT)
    if tests:
        options = [
            "-q",
            "-W",
            "error",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:asyncio",
        ]  # that one warns without an ini file
        run(directory, sys.executable, "-m", "pytest", *options, *tests)


@with_blocks("toml")
def test_the_configuration_on_a_page_is_valid(page: Path, directory: Path) -> None:
    for block in blocks(page, "toml"):
        file = directory / "example.toml"
        file.write_text(block.text)
        load_tree([file], environ={"CACHEKIT_MASTER_KEY": "0123456789abcdef" * 4})


@with_blocks("console")
def test_the_commands_of_a_page_print_what_it_says(page: Path, directory: Path) -> None:
    for block in blocks(page, "toml"):
        if block.file == "cachekit.toml":
            (directory / block.file).write_text(block.text)
    for block in blocks(page, "console"):
        for command, output in re.findall(r"^\$ (cachekit config .*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE):
            arguments = shlex.split(command)[1:]
            printed = run(directory, sys.executable, "-c", "from cachekit.cli import main; main()", *arguments)
            assert output.strip() in printed.replace(str(directory) + "/", "")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_of_a_kind_that_is_tested_or_cannot_be_run(page: Path) -> None:
    kinds = {at[1].strip() for at in BLOCK.finditer(page.read_text())}
    assert kinds <= {"python", "toml", "console", "sh", "text", "yaml"}
    assert page.read_text().count("```") % 2 == 0


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name)
def test_every_file_and_test_that_a_page_names_exists(page: Path) -> None:
    for path, test in FILE.findall(page.read_text()):
        assert (ROOT / path).exists(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(), f"{path}::{test}"


def test_every_promise_of_the_readme_names_its_proof() -> None:
    section = (ROOT / "README.md").read_text().partition("## What it promises")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert rows
    assert [row for row in rows if not PROOF.search(row.rpartition(" | ")[2])] == []


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    spec = importlib.util.spec_from_file_location("check_links", ROOT / "tools" / "check_links.py")
    assert spec is not None
    assert spec.loader is not None
    check_links = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check_links)
    assert check_links.broken(page) == []


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = [str(page.relative_to(ROOT / "docs")) for page in PAGES[1:]]
    assert [page for page in pages if page != "README.md" and f"]({page})" not in index] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent != ROOT], ids=name)
def test_a_page_begins_with_its_title_and_two_lines_that_sum_it_up(page: Path) -> None:
    title, empty, first, second, after, *_ = page.read_text().splitlines()
    assert title.startswith("# ")
    assert (empty, after) == ("", "")
    assert first
    assert second
