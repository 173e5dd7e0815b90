"""What users' type checkers see: the public interface has the types it should have, and mistakes are found.

The programs in tests/typing say which types those are, and mark every mistake with the errors it must raise. Both
checkers are set up to call a mark without its error an error, so they agree with the programs if they report nothing.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit import CachedFunction, Region, cache
from cachekit.config.fields import PROFILE
from cachekit.config.options import DECORATOR_OPTIONS
from cachekit.config.spec import BUILT_IN
from cachekit.context import Entry

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PROGRAMS = "tests/typing"
API = ast.parse((ROOT / PROGRAMS / "api.py").read_text())
STUB = ast.parse((ROOT / "cachekit" / "signatures.pyi").read_text())

MARKED_WRONGLY = """
from cachekit import cache
@cache
def f(x: int) -> int:
    return x
f("found")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
f("not marked")
f(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
f("other")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
"""
WRONG_MARKS = {("marks.py", 7), ("marks.py", 8), ("marks.py", 9)}


def run(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, f"{module} neither passed nor found errors: {done.stdout}{done.stderr}"
    return done.stdout


def mypy(*paths: str) -> list[tuple[str, int, str]]:
    reports = [json.loads(line) for line in run("mypy", "--strict", "--output=json", *paths).splitlines()]
    return [(each["file"], each["line"], each["message"]) for each in reports if each["severity"] == "error"]


def pyright(*paths: str) -> list[tuple[str, int, str]]:
    output = run("pyright", "--outputjson", "--project", ".", "--pythonpath", sys.executable, *paths)
    reports = json.loads(output)["generalDiagnostics"]
    return [(each["file"], each["range"]["start"]["line"] + 1, each["message"]) for each in reports]


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_users_get_the_right_types_and_mistakes_are_found(checker: Any, tmp_path: Path) -> None:
    """Each checker reports exactly what is marked in the programs; a file with wrong marks proves that it looks."""
    marks = tmp_path / "marks.py"
    marks.write_text(MARKED_WRONGLY)
    found = {(Path(file).name, line): message for file, line, message in checker(PROGRAMS, str(marks))}
    assert found.keys() >= WRONG_MARKS, "the checker does not check marks"
    assert {where: message for where, message in found.items() if where not in WRONG_MARKS} == {}


def names_used(kind: type[ast.Attribute] | type[ast.alias], field: str) -> set[str]:
    return {getattr(node, field) for node in ast.walk(API) if isinstance(node, kind)}


def public(cls: type) -> set[str]:
    return {name for name in vars(cls) if not name.startswith("_")}


def test_the_typed_program_uses_every_public_name() -> None:
    assert set(cachekit.__all__) - names_used(ast.alias, "name") == set()


def test_the_typed_program_uses_every_public_attribute() -> None:
    for_the_package = {"of", "follow", "service", "ttl_given", "stored"}
    attributes = public(CachedFunction) | public(Region) | public(Entry)
    assert attributes - for_the_package - names_used(ast.Attribute, "attr") == set()


def test_a_cached_function_has_every_attribute_that_type_checkers_know() -> None:
    @cache.local
    def f(x: int) -> int:
        return x

    for name in public(CachedFunction) - {"of"} | {"__name__", "__qualname__", "__wrapped__"}:
        assert hasattr(f, name)


def in_stub(name: str) -> ast.ClassDef:
    return next(node for node in STUB.body if isinstance(node, ast.ClassDef) and node.name == name)


def test_type_checkers_know_the_options_that_exist() -> None:
    known = {node.target.id for node in in_stub("Options").body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]
    assert known == {*PROFILE, "l1", *DECORATOR_OPTIONS}


def test_type_checkers_know_the_profiles_that_are_attributes() -> None:
    known = {node.name for node in in_stub("Cache").body if isinstance(node, ast.FunctionDef)}
    assert known == {*BUILT_IN, "invalidates"} - {"default"}
