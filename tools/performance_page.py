"""Write the tables of docs/performance.md anew, from what ``cachekit bench --json`` prints.

make -s bench-peers ARGS="--json --plot docs/images/l1-hits.svg" | .venv/bin/python tools/performance_page.py
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cachekit.bench.measure import Cell
from cachekit.bench.worker import REFERENCE

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
HEADINGS = {"int": "int", "str": "str", "two": "two arguments", "keyword": "keyword", "method": "bound method"}
TABLES = re.compile(r"(<!-- begin: .* -->\n).*(<!-- end -->\n)", re.DOTALL)


def main() -> None:
    text = sys.stdin.read()
    result = json.loads(text[text.index("{") :])  # the environments may have been made just now, which is told
    PAGE.write_text(rewritten(PAGE.read_text(), result))


def rewritten(page: str, result: Mapping[str, Any]) -> str:
    """The page with the tables of this result."""
    parts = [*tables(result), ""]
    return TABLES.sub(lambda found: found[1] + "\n".join(parts) + "\n" + found[2], page)


def tables(result: Mapping[str, Any]) -> Iterator[str]:
    own = result["places"][0]
    versions = dict.fromkeys(f"{row['library']} {row['version']}" for row in result["rows"] if row["version"])
    yield f"\n{result['machine']}; {own['python']}; cachekit with its {own['twin']} twin; {result['rounds']} rounds."
    yield f"Versions: {', '.join(versions)}.\n"
    yield from table(result, HEADINGS)
    yield ""
    yield from table(result, {"await": "await"})


def table(result: Mapping[str, Any], headings: Mapping[str, str]) -> Iterator[str]:
    """One table of markdown; of the reference, only the one beside us."""
    yield "| | " + " | ".join(headings.values()) + " |"
    yield "|---" + "|---:" * len(headings) + "|"
    for row in result["rows"]:
        if headings.keys() & row["cells"].keys() and (row["library"] != REFERENCE or row["place"] == 0):
            cells = (told(row["cells"].get(column)) for column in headings)
            name, at, option = row["name"].partition(" @")
            yield f"| {name}{f' `@{option}`' if at else ''} | {' | '.join(cells)} |"


def told(cell: "Mapping[str, Any] | None") -> str:
    if cell is None:
        return ""
    found = Cell(**cell)
    return f"{found.cost} **{found.times}**" if found.ratio else "–"


if __name__ == "__main__":
    main()
