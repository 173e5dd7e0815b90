"""The figures of docs/performance.md are what a run printed."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("performance_page", ROOT / "tools" / "performance_page.py")
assert spec is not None
assert spec.loader is not None
performance_page = importlib.util.module_from_spec(spec)
spec.loader.exec_module(performance_page)


def cell(value: float | None, ratio: float | None, problem: str = "") -> dict[str, Any]:
    return {"value": value, "ratio": ratio, "problem": problem}


def row(name: str, version: str, **cells: Any) -> dict[str, Any]:
    return {"library": name.partition(" ")[0], "name": name, "version": version, "cells": cells, "reference": False}


RESULT = {
    "machine": "a processor",
    "python": "CPython 3",
    "twin": "pure",
    "rounds": 120,
    "seconds": 299.0,
    "load": 0.52,
    "quick": False,
    "sections": [
        {
            "name": "hits",
            "title": "A hit",
            "method": "In a loop.",
            "columns": {"sync": ["A function", "ns", "a hit", True], "runs": ["Runs", "", "one run", True]},
            "rows": [
                row("functools.lru_cache", "", sync=cell(50.2, 1.0)),
                row("x @cache(a=1)", "1.2", sync=cell(12345.6, 246.9), runs=cell(20, 20.0)),
                row(
                    "y", "3", sync=cell(None, None, "Error 111 connecting to 127.0.0.1:4321"), runs=cell(5, 5.0, "late")
                ),
            ],
        }
    ],
}


@pytest.fixture
def lines() -> list[str]:
    page = (ROOT / "docs" / "performance.md").read_text()
    written: str = performance_page.rewritten(page, RESULT)
    return written.splitlines()


def test_the_figures_are_written_between_the_marks_and_the_rest_stays() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    once = performance_page.rewritten(page, RESULT)
    assert performance_page.rewritten(once, RESULT) == once
    before, begin, rest = page.partition("<!-- begin:")
    assert begin
    assert once.startswith(before)
    assert once.endswith(rest.partition("<!-- end -->")[2])


def test_the_machine_the_method_and_the_versions_are_told(lines: list[str]) -> None:
    assert "a processor; CPython 3; cachekit with its pure twin." in lines
    assert "120 rounds in 5 minutes; the load was 0.5 at the end." in lines
    assert "Versions: x 1.2, y 3." in lines
    assert "## A hit" in lines
    assert "In a loop." in lines
    assert "![Bars of ratios: A hit](images/peers-hits.svg)" in lines


def test_a_row_has_values_and_ratios(lines: list[str]) -> None:
    assert "| | A function, ns | Runs |" in lines
    assert "| functools.lru_cache | 50.2 **1.0x** |  |" in lines
    assert "| x `@cache(a=1)` | 12,346 **247x** | 20 **20x** |" in lines


def test_what_has_no_figure_has_a_reason_without_the_port(lines: list[str]) -> None:
    assert "| y | – | 5 **5.0x*** |" in lines
    assert "- – y: `Error 111 connecting to 127.0.0.1`" in lines
    assert "- * y: `late`" in lines


def test_every_picture_of_the_page_is_there_and_of_no_other_section() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    named = {part.partition(")")[0] for part in page.split("](images/")[1:]}
    assert named == {file.name for file in (ROOT / "docs" / "images").glob("peers-*.svg")}
    assert named
