"""The diagrams of the documentation are what the tool draws, and are used."""

import importlib.util
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("diagrams", ROOT / "tools" / "diagrams.py")
assert spec is not None
assert spec.loader is not None
diagrams = importlib.util.module_from_spec(spec)
spec.loader.exec_module(diagrams)
FILES: dict[Path, str] = diagrams.files()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_diagram_is_up_to_date_and_shown_on_a_page(file: Path) -> None:
    assert file.read_text() == FILES[file], "run make docs"
    assert any(f"images/{file.name})" in page.read_text() for page in (ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_diagram_fits_its_page_and_needs_nothing_from_elsewhere(file: Path) -> None:
    root = ElementTree.fromstring(FILES[file])
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    for text in root.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 < float(text.attrib["x"]) < width
        assert 0 < float(text.attrib["y"]) < height
    assert "href" not in FILES[file]
