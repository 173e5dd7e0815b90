"""Write the figures of docs/performance.md anew, from what ``make bench-peers`` prints as JSON.

make -s bench-peers ARGS="--json --plots docs/images" | .venv/bin/python tools/performance_page.py
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cachekit.bench.measure import amount, times

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
FIGURES = re.compile(r"(<!-- begin: .* -->\n).*(<!-- end -->\n)", re.DOTALL)


def main() -> None:
    text = sys.stdin.read()
    if "{" not in text:
        sys.exit("nothing was measured: what was read has no JSON")
    result = json.loads(text[text.index("{") :])  # the environments may have been made just now, which is told
    if result["quick"]:
        sys.exit("these are guesses: measure without --quick")
    PAGE.write_text(rewritten(PAGE.read_text(), result))


def rewritten(page: str, result: Mapping[str, Any]) -> str:
    """The page with the figures of this result."""
    lines = [*where(result), *(line for section in result["sections"] for line in figures(section)), ""]
    return FIGURES.sub(lambda found: found[1] + "\n".join(lines) + "\n" + found[2], page)


def where(result: Mapping[str, Any]) -> Iterator[str]:
    """The machine, and what was measured on it."""
    rows = [row for section in result["sections"] for row in section["rows"]]
    versions = sorted({f"{row['library']} {row['version']}" for row in rows if row["version"]}, key=str.lower)
    yield f"\n{result['machine']}; {result['python']}; cachekit with its {result['twin']} twin."
    minutes = result["seconds"] / 60
    yield f"{result['rounds']} rounds in {minutes:.0f} minutes; the load was {result['load']:.1f} at the end."
    yield f"Versions: {', '.join(versions)}."


def figures(section: Mapping[str, Any]) -> Iterator[str]:
    """One thing that was measured: how, its picture, its table, and what is wrong with some of it."""
    columns = {name: column(each) for name, each in section["columns"].items()}
    yield f"\n## {section['title']}\n\n{section['method']}\n"
    yield f"![Bars of ratios: {section['title']}](images/peers-{section['name']}.svg)\n"
    yield "| | " + " | ".join(columns.values()) + " |"
    yield "|---" + "|---:" * len(columns) + "|"
    for row in section["rows"]:
        cells = (told(row["cells"].get(name)) for name in columns)
        yield f"| {marked(row['name'])} | {' | '.join(cells)} |"
    notes = dict.fromkeys(
        note(row, each) for row in section["rows"] for each in row["cells"].values() if each["problem"]
    )
    yield from ("", *notes) if notes else ()


def column(each: Any) -> str:
    """The heading of a column with its unit; JSON has made a list of it."""
    heading, unit, *_ = each
    return f"{heading}, {unit}" if unit else str(heading)


def marked(name: str) -> str:
    """A name whose decorator, if there is one, is code."""
    before, at, option = name.partition(" @")
    return f"{before} `@{option}`" if at else before


def told(cell: "Mapping[str, Any] | None") -> str:
    if cell is None:
        return ""
    if cell["value"] is None:
        return "–"
    return f"{amount(cell['value'])} **{times(cell['ratio'])}**{'*' if cell['problem'] else ''}"


def note(row: Mapping[str, Any], cell: Mapping[str, Any]) -> str:
    # In code, since it is what a program said; ports differ from run to run and say nothing.
    problem = re.sub(r"(127\.0\.0\.1):\d+", r"\1", cell["problem"]).replace("`", "'")
    return f"- {'–' if cell['value'] is None else '*'} {marked(row['name'])}: `{problem}`"


if __name__ == "__main__":
    main()
