"""The API reference is what the source says, has every public name, and is written the same by every Python."""

import importlib.util
from pathlib import Path

import pytest

import cachekit
import cachekit.metrics
import cachekit.testing

PATH = Path(__file__).parents[2] / "tools" / "api_reference.py"
spec = importlib.util.spec_from_file_location("api_reference", PATH)
assert spec is not None
assert spec.loader is not None
api_reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(api_reference)


def test_the_page_is_up_to_date() -> None:
    assert api_reference.PAGE.read_text() == api_reference.page(), "run make docs"


@pytest.mark.parametrize("module", [cachekit, cachekit.testing, cachekit.metrics])
def test_every_public_name_is_on_the_page(module: object) -> None:
    name, public = module.__name__, module.__all__  # type: ignore[attr-defined]
    section = f"\n{api_reference.page()}".partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert [each for each in public if f"\n### {each}\n" not in section] == []


def test_every_public_name_has_a_docstring() -> None:
    entries = api_reference.page().split("\n### ")[1:]
    without = [entry.splitlines()[0] for entry in entries if not entry.split("\n## ")[0].rpartition("```")[2].strip()]
    assert without == []


@pytest.mark.parametrize(
    ("docstring", "markdown"),
    [
        ("One ``literal`` and `name`.", "One `literal` and `name`."),
        ("Two\nlines.\n\nA paragraph.", "Two lines.\n\nA paragraph."),
        ("Like this::\n\n    x = 1\n\nAnd on.", "Like this:\n\n```text\nx = 1\n```\n\nAnd on."),
        ("Args:\n    a: First,\n        and more.\n    b: Second.", "Args:\n\n- `a`: First, and more.\n- `b`: Second."),
        ("", ""),
    ],
)
def test_docstrings_become_markdown(docstring: str, markdown: str) -> None:
    assert api_reference.markdown(docstring) == markdown


@pytest.mark.parametrize(
    ("definition", "line"),
    [
        (
            "def f(self, a: 'int', /, *, b=NOT_GIVEN) -> 'list[str] | None': ...",
            "def f(a: int, /, *, b=...) -> list[str] | None",
        ),
        ("async def f(self, *args: int, **kwargs: str): ...", "async def f(*args: int, **kwargs: str)"),
        ("def f(self, /): ...", "def f()"),
    ],
)
def test_signatures_are_shown_as_they_are_called(definition: str, line: str) -> None:
    node = api_reference.ast.parse(definition).body[0]
    assert api_reference.signature("f", node, bound=True) == line
