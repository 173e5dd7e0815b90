"""The link check finds what leads nowhere, and nothing else."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "tools" / "check_links.py"
spec = importlib.util.spec_from_file_location("check_links", PATH)
assert spec is not None
assert spec.loader is not None
check_links = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_links)

OTHER = """
# Title
## What `f()` does, and why?
```
# not a heading
```
"""


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("[a](other.md)", []),
        ("[a](other.md#title) [b](#here)\n# Here", []),
        ("[a](other.md#what-f-does-and-why)", []),
        ("[a](sub/) [b](https://example.org/x) [c](mailto:a@b.c)", []),
        ("`[a](missing.md)`\n```\n[b](missing.md)\n```\n", []),
        ("[a](missing.md)", ["missing.md"]),
        ("[a](other.md#nothing)", ["other.md#nothing"]),
        ("[a](other.md#not-a-heading)", ["other.md#not-a-heading"]),
        ("[a](#nowhere) and [b](gone/x.png)", ["#nowhere", "gone/x.png"]),
    ],
)
def test_links(tmp_path: Path, text: str, broken: list[str]) -> None:
    (tmp_path / "other.md").write_text(OTHER)
    (tmp_path / "sub").mkdir()
    page = tmp_path / "page.md"
    page.write_text(text)
    assert [line.partition(": ")[2] for line in check_links.broken(page)] == broken


def test_this_repository(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PATH.parent)  # back where we were, afterwards
    with pytest.raises(SystemExit) as ended:
        check_links.main()
    assert ended.value.code == 0, capsys.readouterr().out
