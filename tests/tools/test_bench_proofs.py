"""What is measured beside other caches is what it says, and what is beyond its bound is told."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"peers_{name}", PEERS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


worker, results = load("worker"), load("results")
KEPT = "from functools import lru_cache\nmemo = lru_cache(9)(function)"
PICKLED = "import pickle\ndump, load = pickle.dumps, pickle.loads"


def found(code: str, column: str = "sync", *, hits: bool = True) -> dict[str, Any]:
    """What a round of a piece with this code found."""
    piece = worker.piece(1, {"code": code, "column": column, "hits": hits, "names": {}}, None)
    piece.round()
    answer: dict[str, Any] = piece.found()
    return answer


class TestPieces:
    """Only what is proven is a figure."""

    def test_a_hit(self) -> None:
        answer = found(KEPT)
        assert answer["problem"] == ""
        assert answer["value"] > 0

    def test_a_function_that_runs_each_time_is_no_hit(self) -> None:
        assert found("memo = function") == {"value": None, "problem": "the function ran again: these were no hits"}

    def test_a_function_may_run_each_time_where_a_server_is_gone(self) -> None:
        assert found("memo = function", hits=False)["value"] > 0

    def test_another_value(self) -> None:
        assert found("def memo(x): return x") == {"value": None, "problem": "another value than the function's"}

    @pytest.mark.parametrize("code", ["def memo(x): return 1 // 0", "1 // 0"])
    def test_an_error(self, code: str) -> None:
        assert found(code)["problem"].startswith("ZeroDivisionError")

    @pytest.mark.parametrize("column", ["encode", "decode"])
    def test_a_codec_that_keeps_the_types(self, column: str) -> None:
        assert found(PICKLED, column)["value"] > 0

    @pytest.mark.parametrize("column", ["encode", "decode"])
    def test_a_codec_that_loses_a_type(self, column: str) -> None:
        code = "import json\ndef dump(value): return json.dumps(value, default=str)\nload = json.loads"
        assert found(code, column) == {"value": None, "problem": "TypeError: gives back str for UUID"}


class TestBounds:
    """What a run fails for."""

    @staticmethod
    def section(*rows: Any) -> Any:
        columns = {"sync": results.Column("A function", "ns", "a hit")}
        return results.Section("hits", "Hits", "In a loop.", columns, rows, {"cachekit": {"sync": 1.1}})

    @staticmethod
    def row(library: str, ratio: float | None, problem: str = "") -> Any:
        return results.Row(library, library, "1", {"sync": results.Cell(ratio, ratio, problem)})

    def test_a_ratio_of_ours_beyond_its_bound(self) -> None:
        assert list(self.section(self.row("cachekit", 1.1), self.row("x", 99)).over()) == []
        over = list(self.section(self.row("cachekit", 1.2)).over())
        assert over == ["hits, cachekit, sync: 1.20x, bound 1.1"]

    def test_a_piece_of_ours_without_a_figure(self) -> None:
        assert list(self.section(self.row("x", None, "no hits")).failures()) == []
        failures = list(self.section(self.row("cachekit", None, "no hits")).failures())
        assert failures == ["hits, cachekit, sync: no hits"]
