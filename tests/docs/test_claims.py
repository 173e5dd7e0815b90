"""Each claim of the README and of the comparison names what shows it, and what it names is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CLAIMS = (ROOT / "docs" / "claims.md").read_text()
COMPARISON = (ROOT / "docs" / "comparison.md").read_text()
LOG = (ROOT / "docs" / "validation" / "VALIDATION_LOG.md").read_text()
SHOWN_BY = re.compile(r"`(?:tests|benchmarks)/[\w/.-]+(?:::\w+)?`")
NOT_OFFERED = "–"
ASSERTIONS = 62  # at least


def rows(text: str) -> list[list[str]]:
    """The cells of the tables, without their heads and lines of dashes."""
    tables = re.findall(r"^\|.*\n\|[-|]+\n((?:\|.*\n)*)", text, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for table in tables for row in table.splitlines()]


def spaced(text: str) -> str:
    return " ".join(text.split())


def statements() -> list[str]:
    """The paragraphs and the rows of replacements of the README: what is not code, a heading or a promise, which names
    its proof itself, and what is not there is no claim."""
    text = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\n## (?:What is not in this version|License)\n.*?(?=\n## |\Z)", "", text, flags=re.DOTALL)
    paragraphs = re.split(r"\n\n+", re.sub(r"^(?:\||#).*$", "", text, flags=re.MULTILINE))
    replacements = rows(text.partition("\n## Coming from another cache\n")[2])
    return [spaced(part) for part in paragraphs if part.strip()] + [row[0] for row in replacements]


QUOTES = [spaced(row[0]) for row in rows(CLAIMS)]


def test_each_claim_is_in_the_readme_and_names_what_shows_it() -> None:
    text = spaced(README)
    assert [quote for quote in QUOTES if quote not in text] == []
    assert [row[0] for row in rows(CLAIMS) if not SHOWN_BY.search(row[-1])] == []


def test_each_statement_of_the_readme_is_among_the_claims() -> None:
    assert [part for part in statements() if not any(quote in part for quote in QUOTES)] == []


def test_the_targets_that_the_readme_names_begin_with_python_alone() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z-]+)", README, re.MULTILINE):
        recipe = re.search(rf"^{target}:.*\n\t(.*)$", makefile, re.MULTILINE)
        assert recipe is not None, target
        assert recipe[1].startswith("@$(ENVIRONMENT) .venv "), target  # which needs Python alone, and makes the rest


def test_the_log_has_what_each_cell_of_the_comparison_says() -> None:
    table, options = map(section, ("What each does by default", "What options change"))
    caches = [cell.strip() for cell in re.search(r"^\| \|(.*)\|$", table, re.MULTILINE)[1].split("|")]  # type: ignore[index]
    said = {(name, anchor(row[0]), cell) for row in rows(table) for name, cell in zip(caches, row[1:], strict=True)}
    said |= {(row[0], anchor(row[1]), row[3]) for row in rows(options)}
    assert {what for what in said if what[2] != NOT_OFFERED} == set(logged())
    assert f"\n{len(logged())} assertions" in LOG
    assert len(logged()) >= ASSERTIONS


def section(name: str) -> str:
    return COMPARISON.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def anchor(cell: str) -> str:
    return re.search(r"\(validation/VALIDATION_LOG\.md#(\w+)\)", cell)[1]  # type: ignore[index]


def logged() -> list[tuple[str, str, str]]:
    """The lines of the log: cache, situation, what was seen."""
    sections = re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", LOG, re.MULTILINE | re.DOTALL)
    return [(cache, name, what) for name, text in sections for cache, what in seen(text)]


def seen(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^- (.*?): \*\*(.*?)\*\* `", text, re.MULTILINE)


@pytest.mark.slow
def test_each_line_of_the_log_names_a_test_that_pytest_finds() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests/competitive"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tests = {line.rpartition("::")[2] for line in found.splitlines()}
    named = re.findall(r"`(test_\w+\[.*\])`$", LOG, re.MULTILINE)
    assert len(named) == len(logged())
    assert [name for name in named if name not in tests] == []
