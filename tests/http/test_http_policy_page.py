"""The table of recommendations in docs/http-policy.md: each row has a test that exists, or a reason."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__)
PAGE = (HERE.parents[2] / "docs" / "http-policy.md").read_text()
TABLE = PAGE.partition("## What the RFCs recommend")[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TABLE.splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| section"))
]
SOURCES = "\n".join(file.read_text() for file in HERE.parent.glob("test_*.py"))
TESTS = set(re.findall(r"^(?:async )?def (test_\w+)", SOURCES, re.MULTILINE))


def test_there_is_a_table() -> None:
    assert len(ROWS) > 20 and {len(row) for row in ROWS} == {4}


@pytest.mark.parametrize("row", ROWS, ids=[f"{number} {row[0]}" for number, row in enumerate(ROWS)])
def test_each_recommendation_has_a_test_or_a_reason(row: list[str]) -> None:
    section, recommended, here, shown = row
    assert re.fullmatch(r"\d{4}, [\d.]+(?: and [\d.]+)?", section) and recommended and here
    named = re.fullmatch(r"`(test_\w+)`", shown)
    assert named[1] in TESTS if named else re.fullmatch(r"because .{20,}", shown)


def test_the_figures_of_the_public_tests_are_those_that_are_asserted() -> None:
    asserted = dict(re.findall(r'"(\w+)": (\{"required": \d+, "optimal": \d+\})', SOURCES))
    words = " ".join(TABLE.split())
    required, optimal = re.findall(r"pass (\d+) of 165 required and (\d+) of 95 optimal", words)[0]
    assert asserted["cached_proxy"] == f'{{"required": {required}, "optimal": {optimal}}}'
    required, optimal = re.findall(r"(\d+) and (\d+) over `CacheMiddleware", words)[0]
    assert asserted["cached_application"] == f'{{"required": {required}, "optimal": {optimal}}}'
