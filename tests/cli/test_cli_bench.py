"""`cachekit bench`, as a user runs it, and what it takes for a hit."""

import asyncio
import functools
import json
import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from cachekit.bench.draw import svg
from cachekit.bench.measure import Cell, Place, Result, Row, measure
from cachekit.bench.worker import COLUMNS, EMPTY, LIBRARIES, OURS, PEERS, REFERENCE, Piece, Way, plain
from cachekit.cli import build
from cachekit.l1.table import TWIN

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CALLS = {"int", "str", "two", "keyword", "method"}
QUICK = ("--rounds", "2", "--peers", "django,async_lru")  # the first is here, the second is not


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run(*words: str) -> Done:
    result = CliRunner().invoke(build(), ["bench", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="module")
def drawing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench") / "hits.svg"


@pytest.fixture(scope="module")
def found(drawing: Path) -> dict[str, Any]:
    """What one run of two rounds printed, with this interpreter once more as the other one."""
    done = run(*QUICK, "--json", "--plot", str(drawing), "--python", sys.executable)
    assert (done.returncode, done.stderr) == (0, "")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def row(found: dict[str, Any], name: str, place: int = 0) -> dict[str, Any]:
    return next(row for row in found["rows"] if (row["name"], row["place"]) == (name, place))


class TestJson:
    """What a program reads."""

    def test_it_says_where_it_was_measured(self, found: dict[str, Any]) -> None:
        assert (found["ok"], found["rounds"]) == (True, 2)
        assert "processors" in found["machine"]
        ours, other = found["places"]
        version = ".".join(map(str, sys.version_info[:3]))
        assert (ours["path"], ours["python"].split()[1], ours["twin"]) == (sys.executable, version, TWIN)
        assert other["path"] == sys.executable

    def test_ours_is_compared_with_lru_cache_in_every_column(self, found: dict[str, Any]) -> None:
        ours, reference = row(found, OURS)["cells"], row(found, REFERENCE)["cells"]
        assert set(ours) == {*CALLS, "await"}
        assert set(reference) == CALLS
        for column in CALLS:
            assert ours[column]["ratio"] == pytest.approx(ours[column]["ns"] / reference[column]["ns"])
        empty = row(found, EMPTY)["cells"]["await"]["ns"]
        assert ours["await"]["ratio"] == pytest.approx(ours["await"]["ns"] / empty)

    def test_every_figure_is_positive_and_a_reference_is_once_itself(self, found: dict[str, Any]) -> None:
        for each in found["rows"]:
            for cell in each["cells"].values():
                assert cell["problem"] == ""
                assert cell["ns"] > 0
                assert cell["ratio"] == 1 if each["library"] == REFERENCE else cell["ratio"] > 0

    def test_a_peer_that_is_not_installed_is_named(self, found: dict[str, Any]) -> None:
        assert found["missing"] == ["async_lru"]

    def test_a_peer_is_measured_in_the_other_interpreter_that_has_it_with_a_reference_of_its_own(
        self, found: dict[str, Any]
    ) -> None:
        places = {(each["name"], each["place"]) for each in found["rows"]}
        assert places == {
            (REFERENCE, 0), (EMPTY, 0), (OURS, 0), (REFERENCE, 1), (EMPTY, 1), ("Django LocMemCache.get", 1),
        }  # fmt: skip
        there, reference = row(found, "Django LocMemCache.get", 1)["cells"], row(found, REFERENCE, 1)["cells"]
        assert there["int"]["ratio"] == pytest.approx(there["int"]["ns"] / reference["int"]["ns"])


class TestTable:
    """What people read."""

    def test_it_has_the_rows_the_machine_the_method_and_what_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "120")
        done = run(*QUICK, "--python", sys.executable)
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        for name in (REFERENCE, OURS, "Django LocMemCache.get [2]"):
            assert [line for line in lines if line.startswith(f"{name} ") and "x" in line.removeprefix(name)]
        assert f"cachekit with its {TWIN} twin" in done.stdout
        assert "minimum of 2 interleaved rounds" in done.stdout
        assert "2 rounds are few" in done.stdout
        assert f"[2] CPython {sys.version.split()[0]}, {sys.executable}" in done.stdout
        assert "not installed: async_lru" in done.stdout

    def test_a_bar_shows_the_progress_on_a_terminal_and_stdout_has_the_json_alone(self) -> None:
        master, terminal = pty.openpty()
        command = [
            sys.executable,
            "-c",
            "from cachekit.cli import main; main()",
            "bench",
            "--rounds",
            "2",
            "--peers",
            "",
        ]
        environ = {**os.environ, "TERM": "xterm"}
        with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=terminal, env=environ) as process:
            os.close(terminal)
            drawn = b""
            try:
                while part := os.read(master, 65536):
                    drawn += part
            except OSError:  # the other end is closed
                pass
            assert process.stdout is not None
            printed = process.stdout.read()
        os.close(master)
        assert process.returncode == 0
        assert json.loads(printed)["ok"] is True
        assert b"measuring" in drawn


class TestDrawing:
    """``--plot``."""

    def test_it_is_xml_with_every_row(self, found: dict[str, Any], drawing: Path) -> None:
        root = ElementTree.fromstring(drawing.read_text())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        texts = ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]
        assert {REFERENCE, EMPTY, OURS, "Django LocMemCache.get*"} <= set(texts)
        assert [text for text in texts if found["machine"] in text]

    def test_what_has_no_figure_has_a_row_all_the_same(self) -> None:
        cells = {"int": Cell(50.0, 1.0), "await": Cell(90.0, 1.0)}
        broken = Row("x", "x & <y>", "1", 0, {"method": Cell(None, None, "TypeError")})
        rows = [Row(REFERENCE, REFERENCE, "", 0, cells), broken]
        root = ElementTree.fromstring(svg(Result("m", 60, [Place("p", "CPython", "pure")], rows, [])))
        texts = ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]
        assert texts[texts.index("x & <y>") + 1] == "–"

    def test_longer_bars_are_dearer_and_none_leaves_the_page(self) -> None:
        ratios = (0.3, 1.0, 7.0, 40_000.0)
        rows = [Row("x", f"x{ratio}", "1", 0, {"int": Cell(50 * ratio, ratio)}) for ratio in ratios]
        root = ElementTree.fromstring(svg(Result("m", 60, [Place("p", "CPython", "pure")], rows, [])))
        bars = [each for each in root.iter("{http://www.w3.org/2000/svg}rect") if "bar" in each.get("class", "")]
        widths = [float(bar.get("width", "")) for bar in bars]
        assert widths == sorted(set(widths))
        assert widths[0] > 0
        assert all(float(bar.get("x", "")) + float(bar.get("width", "")) < 860 - 120 for bar in bars)

    def test_those_in_the_documentation_have_every_library(self) -> None:
        files = [ROOT / "docs" / "images" / f"peers-{name}.svg" for name in ("l1", "async")]
        text = " ".join(" ".join(ElementTree.fromstring(file.read_text()).itertext()) for file in files).lower()
        assert [name for name in LIBRARIES if name not in text] == []


class TestMistakes:
    """They are told before anything is measured."""

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--peers", "cachetool"], "did you mean cachetools?"),
            (["--peers", "nothing-like-it"], "there are cachebox,"),
            (["--rounds", "0"], "--rounds"),
            (["--rounds", "many"], "--rounds"),
            (["--plot", "hits.png"], "name it .svg"),
            (["--plot", "no/such/place/hits.svg"], "no such directory"),
            (["--python", "no-such-python"], "no such program"),
        ],
    )
    def test_a_wrong_value(self, words: list[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "200")
        done = run(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert told in done.stderr

    @pytest.mark.parametrize("script", ["echo this is no Python", "echo boom >&2; exit 3", ""])
    def test_a_program_that_is_no_python(self, tmp_path: Path, script: str) -> None:
        program = executable(tmp_path / "python", script)
        done = run(*QUICK, "--python", str(program))
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{program}: the measuring program, " in done.stderr
        assert done.stderr.count("\n") == 1


def executable(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_another_package_of_our_name_is_measured_where_it_is(tmp_path: Path) -> None:
    package = tmp_path / "cachekit"
    package.mkdir()
    (package / "object_cache.py").touch()
    (package / "__init__.py").write_text(
        "import functools\n"
        "class Cache:\n"
        "    def local(self): return functools.lru_cache\n"
        "    def __call__(self, backend): return lambda function: function\n"
        "cache = Cache()\n"
    )
    python = executable(
        tmp_path / "python", f'PYTHONPATH={tmp_path} exec {sys.executable} -S "$@"'
    )  # ours is installed
    result = measure([sys.executable, str(python)], ["cachekit.io"], 2)
    assert result.ok
    assert [place.twin for place in result.places] == [TWIN, None]
    theirs = {row.name: row.cells["int"] for row in result.rows if row.library == "cachekit.io"}
    assert theirs["cachekit.io @cache.local"].ratio is not None
    assert "no hits" in theirs["cachekit.io @cache(backend=None)"].problem


def test_the_other_interpreter_does_not_get_our_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    python = executable(tmp_path / "python", f'exec {sys.executable} -S "$@"')
    assert [place.twin for place in measure([sys.executable, str(python)], [], 1).places] == [TWIN, None]


def test_the_users_configuration_has_no_part_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cachekit.toml").write_text("this is = no toml\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the interpreters run
    monkeypatch.setenv("CACHEKIT_CONFIG", "/no/such/file")
    monkeypatch.setenv("CACHEKIT_PROFILES__DEFAULT__TTL", "never ever")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    assert run("--rounds", "1", "--peers", "").returncode == 0


class TestProof:
    """Only hits are figures."""

    @pytest.fixture
    def loop(self) -> Iterator[asyncio.AbstractEventLoop]:
        loop = asyncio.new_event_loop()
        yield loop
        loop.close()

    @staticmethod
    def measured(decorator: Callable[..., Any], column: str, loop: asyncio.AbstractEventLoop) -> Piece:
        piece = Piece(Way("x", decorator, decorator), column, 1, loop)
        if not piece.problem:
            piece.round()
        return piece

    @pytest.mark.parametrize("column", COLUMNS)
    def test_a_function_that_runs_each_time(self, column: str, loop: asyncio.AbstractEventLoop) -> None:
        piece = self.measured(lambda function: function, column, loop)
        assert piece.found() == {"ns": None, "problem": "the function ran again: these were no hits"}

    @pytest.mark.parametrize("column", sorted(CALLS))
    def test_a_hit(self, column: str, loop: asyncio.AbstractEventLoop) -> None:
        found = self.measured(functools.lru_cache, column, loop).found()
        assert found["ns"] > 0
        assert found["problem"] == ""

    def test_a_function_that_runs_again_during_the_rounds(self, loop: asyncio.AbstractEventLoop) -> None:
        def forgetting(function: Callable[..., Any]) -> Callable[..., Any]:
            memo = functools.lru_cache(function)

            def call(x: Any) -> Any:
                calls.append(x)
                if len(calls) == 5_000:
                    memo.cache_clear()
                return memo(x)

            return call

        calls: list[Any] = []
        piece = Piece(Way("x", forgetting), "int", 1, loop)
        assert piece.problem == ""
        for _ in range(400):
            if not piece.problem:
                piece.round()
        assert "no hits" in piece.problem

    def test_a_wrong_value_is_none(self, loop: asyncio.AbstractEventLoop) -> None:
        piece = self.measured(lambda function: lambda x: "other", "int", loop)
        assert piece.problem == "'other' in place of 'value of 1000000000000'"

    def test_an_error_is_told(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self.measured(lambda function: lambda x: 1 // 0, "int", loop).problem.startswith("ZeroDivisionError: ")
        assert self.measured(lambda function: 1 // 0, "int", loop).problem.startswith("ZeroDivisionError: ")

    def test_a_failure_of_ours_is_a_failure_of_the_command(self) -> None:
        rows = [Row(OURS, OURS, "1", 0, {"int": Cell(None, None, "the function ran again: these were no hits")})]
        assert not Result("", 60, [], rows, []).ok

    def test_decorators_can_tell_a_method_by_its_name(self) -> None:
        assert plain("method", "f")[0].__qualname__ == "Shop.f"
        assert plain("int", "f")[0].__qualname__ == "f"


def test_the_environment_of_the_peers_has_each_of_them_in_the_version_of_the_comparison() -> None:
    def pins(path: str) -> dict[str, str]:
        found = dict(line.split("==") for line in (ROOT / path).read_text().split())
        return {name.partition("[")[0].lower(): version for name, version in found.items()}

    ours, theirs = pins("benchmarks/peers/requirements.txt"), pins("tests/competitive/requirements.txt")
    assert set(ours) >= {LIBRARIES[name].distribution.lower() for name in PEERS}
    assert {name: ours[name] for name in ours.keys() & theirs.keys()} == {
        name: theirs[name] for name in ours.keys() & theirs.keys()
    }


def test_help_needs_no_heavy_import() -> None:
    code = (
        "import sys; import cachekit.cli.bench; "
        "print([name for name in ('rich.table', 'asyncio', 'cachekit.bench', 'redis') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
