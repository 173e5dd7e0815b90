"""Draws ratios as an SVG: a bar for each row, on a logarithmic axis, readable on light and dark pages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from cachekit.bench.measure import Cell, Result, Row
from cachekit.bench.worker import EMPTY, OURS, REFERENCE

WIDTH, LEFT, RIGHT = 860, 266, 700  # of the page, and where bars begin and the axis ends
LINE, BAR = 24, 14  # heights
TITLE = "What a hit in the process costs"
# The column that is drawn, what stands above its bars, and the label of its axis.
PANELS = (
    ("int", "A call with one int", f"times a hit of {REFERENCE}, logarithmic"),
    ("await", "A coroutine function", "times awaiting an empty coroutine, logarithmic"),
)
STYLE = """
  svg { color-scheme: light dark; font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; }
  .page { fill: #ffffff; stroke: #d1d9e0; }
  text { fill: #1f2328; paint-order: stroke; stroke: #ffffff; stroke-width: 4px; }
  .title { font-size: 18px; font-weight: 600; }
  .panel { font-weight: 600; }
  .quiet { fill: #59636e; font-size: 12px; font-weight: 400; }
  .ours { font-weight: 600; }
  .grid { stroke: #e3e8ee; }
  .one { stroke: #8c959f; stroke-dasharray: 3 3; }
  .bar { fill: #9db4d0; }
  .bar.ours { fill: #d9570d; }
  .bar.reference { fill: #6e7781; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #30363d; }
    text { fill: #e6edf3; stroke: #0d1117; }
    .quiet { fill: #9198a1; }
    .grid { stroke: #21262d; }
    .one { stroke: #6e7681; }
    .bar { fill: #46648a; }
    .bar.ours { fill: #f0883e; }
    .bar.reference { fill: #8b949e; }
  }
"""


@dataclass(frozen=True)
class Axis:
    """From which ratio to which."""

    low: float
    high: float

    def x(self, ratio: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * log10(ratio / self.low) / log10(self.high / self.low), 1)

    def ticks(self) -> Iterator[float]:
        """Powers of ten; on a short axis twice and five times of them, too."""
        steps = (1, 2, 5) if self.high / self.low < 500 else (1,)
        for decade in range(floor(log10(self.low)), ceil(log10(self.high)) + 1):
            yield from (tick for step in steps if self.low <= (tick := step * 10.0**decade) <= self.high)


@dataclass(frozen=True)
class Bar:
    """One row: its ratio, or None where there is none, and what is written behind it. ``kind`` is ours or reference."""

    label: str
    ratio: float | None
    text: str
    kind: str = ""
    mark: str = ""  # in small print behind the label
    quiet: str = ""  # and behind the text


@dataclass(frozen=True)
class Panel:
    """Bars that belong together, shortest first; those without a ratio are last."""

    title: str
    axis: str
    bars: Sequence[Bar]


def svg(result: Result) -> str:
    """The drawing of a result."""
    rows = [row for row in result.rows if row.place == 0 or row.library != REFERENCE]  # one reference is enough
    panels = [
        Panel(title, axis, [_bar_of(row, _cell(row, column)) for row in _shown(rows, column)])
        for column, title, axis in PANELS
    ]
    return draw(TITLE, panels, list(_caption(result)))


def draw(title: str, panels: Sequence[Panel], caption: Sequence[str]) -> str:
    """A page of panels that share one scale, with lines of small print below."""
    ratios = [bar.ratio for panel in panels for bar in panel.bars if bar.ratio]
    axis = Axis(min([0.5, *ratios]) / 1.25, max([10.0, *ratios]))
    drawn: list[str] = []
    top = 56
    for panel in panels:
        drawn += _panel(panel, axis, top)
        top += 36 + LINE * len(panel.bars) + 58
    height = top + 18 * len(caption)
    drawn += [_text(24, top + 18 * number, line, "quiet") for number, line in enumerate(caption)]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-labelledby="title">',
        f'<title id="title">{escape(title)}</title>',
        f"<style>{STYLE}</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        _text(24, 36, title, "title"),
        *drawn,
        "</svg>\n",
    ])  # fmt: skip


def _cell(row: Row, column: str) -> Cell:
    return row.cells.get(column, Cell(None, None))


def _shown(rows: list[Row], column: str) -> list[Row]:
    """The rows of a panel. What has none of the drawn columns is shown without a bar in the first."""
    drawn = {column for column, *_ in PANELS}
    return [row for row in rows if column in row.cells or (column == PANELS[0][0] and not drawn & row.cells.keys())]


def _bar_of(row: Row, cell: Cell) -> Bar:
    kind = "ours" if row.library == OURS else "reference" if row.name in (REFERENCE, EMPTY) else ""
    return Bar(row.name, cell.ratio, cell.times, kind, "*" if row.place else "", f"{cell.cost} ns")


def _panel(panel: Panel, axis: Axis, top: int) -> Iterator[str]:
    """The bars of a panel and their axis."""
    first, last = top + 34, top + 34 + LINE * len(panel.bars)
    yield _text(24, top + 18, panel.title, "panel")
    for tick in axis.ticks():
        x, kind = axis.x(tick), "one" if tick == 1 else "grid"
        yield f'<line class="{kind}" x1="{x}" x2="{x}" y1="{first}" y2="{last}"/>'
        yield _text(x, last + 16, f"{tick:,g}x", "quiet", "middle")
    yield _text((LEFT + RIGHT) / 2, last + 34, panel.axis, "quiet", "middle")
    for number, bar in enumerate(sorted(panel.bars, key=lambda bar: bar.ratio or float("inf"))):
        yield from _bar(bar, axis, first + LINE * number)


def _bar(bar: Bar, axis: Axis, y: int) -> Iterator[str]:
    yield _text(LEFT - 10, y + 17, bar.label, bar.kind, "end", bar.mark)
    if bar.ratio is None:
        yield _text(LEFT + 8, y + 17, "–")
        return
    end = axis.x(bar.ratio)
    yield f'<rect class="bar {bar.kind}" x="{LEFT}" y="{y + 5}" width="{end - LEFT:.1f}" height="{BAR}" rx="2"/>'
    yield _text(end + 8, y + 17, bar.text, bar.kind, "start", f"\N{NO-BREAK SPACE} {bar.quiet}")


def _caption(result: Result) -> Iterator[str]:
    ours = result.places[0]
    yield f"{result.machine}; {ours.python}; cachekit with its {ours.twin} twin."
    yield f"Minimum of {result.rounds} interleaved rounds, hits alone; with a TTL where the library has one."
    if len(result.places) > 1:
        yield f"* in an interpreter of its own in the same rounds, against {REFERENCE} there."


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start", quiet: str = "") -> str:
    more = f'<tspan class="quiet">{escape(quiet)}</tspan>' if quiet else ""
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}{more}</text>'
