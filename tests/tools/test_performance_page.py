"""The tables of docs/performance.md are what a run printed."""

import importlib.util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("performance_page", ROOT / "tools" / "performance_page.py")
assert spec is not None
assert spec.loader is not None
performance_page = importlib.util.module_from_spec(spec)
spec.loader.exec_module(performance_page)


def cell(ns: float | None, ratio: float | None) -> dict[str, Any]:
    return {"ns": ns, "ratio": ratio, "problem": "" if ns else "no hits"}


RESULT = {
    "machine": "a processor",
    "rounds": 120,
    "places": [{"path": "p", "python": "CPython 3", "twin": "pure"}],
    "rows": [
        {"library": "functools.lru_cache", "name": "functools.lru_cache", "version": "", "place": 0,
         "cells": {"int": cell(50.2, 1.0)}},
        {"library": "functools.lru_cache", "name": "functools.lru_cache", "version": "", "place": 1,
         "cells": {"int": cell(51, 1.0)}},
        {"library": "x", "name": "x @cache(a=1)", "version": "1.2", "place": 1,
         "cells": {"int": cell(12345.6, 246.9), "method": cell(None, None), "await": cell(99, 1.1)}},
    ],
}  # fmt: skip


def test_the_tables_are_written_between_the_marks_and_the_rest_stays() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    once = performance_page.rewritten(page, RESULT)
    assert performance_page.rewritten(once, RESULT) == once
    before, begin, rest = page.partition("<!-- begin:")
    assert begin
    assert once.startswith(before)
    assert once.endswith(rest.partition("<!-- end -->")[2])
    lines = once.splitlines()
    assert "a processor; CPython 3; cachekit with its pure twin; 120 rounds." in lines
    assert "Versions: x 1.2." in lines
    assert [line for line in lines if line.startswith("| functools")] == [
        "| functools.lru_cache | 50 **1.0x** |  |  |  |  |"
    ]
    assert [line for line in lines if line.startswith("| x")] == [
        "| x `@cache(a=1)` | 12,346 **247x** |  |  |  | – |",
        "| x `@cache(a=1)` | 99 **1.1x** |",
    ]
