"""`cachekit migrate`: what it shows, what it writes, its exit statuses.

How it could break: a file changes without ``--write``, or one that is none of the program's; a file that cannot be read
stops the rest, or goes unnoticed; the exit status does not tell; JSON has words before it; the mode of a file is lost.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cachekit.cli import build

OLD = "from functools import lru_cache\n\n\n@lru_cache\ndef f(x):\n    return x\n"
UNDECIDED = "from functools import lru_cache\n\n\n@lru_cache(maxsize=0)\ndef f(x):\n    return x\n"

Migrate = Callable[..., Result]


@pytest.fixture
def migrate(monkeypatch: pytest.MonkeyPatch) -> Migrate:
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: CliRunner().invoke(build(), ["migrate", *map(str, words)])


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A directory with two files to change, one to leave, and what is no part of it."""
    for name, text in {
        "a.py": OLD, "inner/b.py": UNDECIDED, "c.py": "x = 1\n", "notes.txt": OLD, ".hidden/d.py": OLD,
        "env/pyvenv.cfg": "", "env/lib/e.py": OLD,
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def texts(program: Path) -> dict[str, str]:
    return {str(path.relative_to(program)): path.read_text() for path in program.rglob("*") if path.is_file()}


def test_the_difference_is_shown_and_nothing_is_written(migrate: Migrate, program: Path) -> None:
    before = texts(program)
    done = migrate(program)
    assert done.exit_code == 0
    assert "-@lru_cache\n+@cachekit.cache(ttl=None, " in done.stdout
    assert f"--- a/{program}/a.py\n+++ b/{program}/a.py\n" in done.stdout
    assert "+# cachekit: a cache with room for nothing" in done.stdout
    assert done.stdout.endswith("2 files would change; look for '# cachekit:' at 1 place; --write changes them\n")
    assert texts(program) == before


def test_write_changes_the_files_of_the_program_and_a_second_run_none(migrate: Migrate, program: Path) -> None:
    (program / "a.py").chmod(0o754)
    before = texts(program)
    done = migrate(program, "--write")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (
        0, "2 files changed; look for '# cachekit:' at 1 place",
    )  # fmt: skip
    after = texts(program)
    assert {name for name in before if before[name] != after[name]} == {"a.py", "inner/b.py"}
    assert before.keys() == after.keys()
    assert (program / "a.py").stat().st_mode & 0o777 == 0o754
    again = migrate(program, "--write", "--check")
    assert (again.exit_code, again.stdout) == (0, "nothing to change\n")
    assert texts(program) == after


def test_check_tells_by_its_exit_status(migrate: Migrate, program: Path) -> None:
    assert migrate(program / "a.py", "--check").exit_code == 1
    assert migrate(program / "c.py", "--check").exit_code == 0
    assert migrate(program, "--check", "--write").exit_code == 1
    assert migrate(program, "--check").exit_code == 0


def test_only_the_named_caches_are_looked_for(migrate: Migrate, program: Path) -> None:
    assert migrate(program, "--from", "cachetools", "--from", "aiocache").stdout == "nothing to change\n"
    assert "2 files" in migrate(program, "--from", "lru_cache").stdout


@pytest.mark.parametrize(
    ("name", "hint"), [("lru-cache", "did you mean 'lru_cache'?"), ("memcached-x", "known are lru_cache, cachetools")]
)
def test_an_unknown_cache_is_named(migrate: Migrate, program: Path, name: str, hint: str) -> None:
    done = migrate(program, "--from", name)
    assert done.exit_code == 2
    assert hint in " ".join(done.stderr.replace("│", " ").split())


def test_json_has_all_of_it_and_nothing_else(migrate: Migrate, program: Path) -> None:
    done = migrate(program, "--json")
    report = json.loads(done.stdout)
    assert (done.exit_code, done.stderr) == (0, "")
    assert (report["changed"], report["read"], report["written"], report["problems"]) == (2, 3, False, [])
    first, second = report["files"]
    assert (first["path"], first["changed"], first["notes"]) == (str(program / "a.py"), True, [])
    assert "-@lru_cache" in first["diff"]
    assert second["notes"] == [{"line": 4, "text": "a cache with room for nothing: remove the decorator"}]
    migrate(program, "--write")
    again = json.loads(migrate(program, "--json").stdout)
    assert again["changed"] == 0
    assert [each["notes"] for each in again["files"]] == [second["notes"]]  # still to be decided


def test_a_file_that_is_no_python_is_told_and_the_others_are_changed(migrate: Migrate, program: Path) -> None:
    (program / "broken.py").write_text("from functools import (\n")
    done = migrate(program, "--write")
    assert done.exit_code == 1
    assert f"{program}/broken.py: line " in done.stdout
    assert (program / "a.py").read_text() != OLD
    assert (program / "broken.py").read_text() == "from functools import (\n"
    (problem,) = json.loads(migrate(program, "--json").stdout)["problems"]
    assert problem.startswith(f"{program}/broken.py: line ")


def test_a_link_stays_a_link(migrate: Migrate, program: Path) -> None:
    (program / "link.py").symlink_to(program / "a.py")
    assert migrate(program / "link.py", "--write").exit_code == 0
    assert (program / "link.py").is_symlink()
    assert (program / "a.py").read_text() != OLD


def test_without_libcst_the_remedy_is_told(migrate: Migrate, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libcst", None)
    done = migrate(program)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "cachekit migrate needs LibCST: pip install 'cachekit[migrate]'\n"


@pytest.mark.slow
def test_the_difference_is_coloured_on_a_terminal_as_a_process(program: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from cachekit.cli import main; main()", "migrate", str(program)],
        capture_output=True, text=True, timeout=60, env=os.environ | {"FORCE_COLOR": "1", "TERM": "xterm"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "\x1b[31m-@lru_cache\x1b[0m" in done.stdout
    assert "\x1b[32m+@cachekit.cache(" in done.stdout
    assert "Reading" in done.stderr
