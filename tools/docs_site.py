"""mkdocs hooks: the order of docs/README.md as the navigation, and the pages that lie beside docs/.

Links to source files lead nowhere in a site; there they are text.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
BESIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
FOLDER = "project"  # where those pages are in the site
HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#:]*)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Read the navigation out of the index, a section for each of its headings."""
    _, *parts = HEADING.split((ROOT / "docs" / "README.md").read_text())
    nav: list[Any] = [{"Index": "README.md"}]
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        nav.append({title: [{name: in_site(target, "README.md") or target} for name, target, _ in LINK.findall(text)]})
    config.nav = nav
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages beside docs/."""
    for name in BESIDE:
        files.append(File.generated(config, f"{FOLDER}/{name.lower()}", content=(ROOT / name).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead every link to where its page is in the site."""
    here = page.file.src_uri

    def led(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if not target:
            return match[0]
        there = in_site(target, here)
        if there is None:
            return text
        return f"[{text}]({posixpath.relpath(there, posixpath.dirname(here) or '.')}{anchor})"

    return LINK.sub(led, markdown)


def in_site(target: str, here: str) -> str | None:
    """The page in the site that a link from a page means, or None if the site has none."""
    beside = here.startswith(f"{FOLDER}/")
    folder = "" if beside else posixpath.join("docs", posixpath.dirname(here))
    path = posixpath.normpath(posixpath.join(folder, target))
    if path in BESIDE:
        return f"{FOLDER}/{path.lower()}"
    inside = path.removeprefix("docs/")
    return inside if path.startswith("docs/") and (ROOT / path).is_file() else None
