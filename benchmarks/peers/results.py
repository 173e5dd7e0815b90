"""What a section found, and its drawing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cachekit.bench.draw import Bar, Panel, draw
from cachekit.bench.measure import amount, times
from cachekit.bench.worker import OURS


class Column(NamedTuple):
    """What stands above it, its unit if its ratios are not all there is, what those are to.

    ``drawn``: it is a panel of the picture.
    """

    heading: str
    unit: str
    reference: str
    drawn: bool = True


@dataclass(frozen=True)
class Cell:
    """A value in the unit of its column, and how many times its reference. ``problem``: what is wrong with it."""

    value: float | None
    ratio: float | None
    problem: str = ""


@dataclass(frozen=True)
class Row:
    """One usage. ``reference``: others are compared with it."""

    library: str
    name: str
    version: str
    cells: Mapping[str, Cell]
    reference: bool = False


@dataclass(frozen=True)
class Section:
    """One thing that was measured. ``bounds``: by row and column, which ratio ours may have."""

    name: str
    title: str
    method: str
    columns: Mapping[str, Column]
    rows: Sequence[Row]
    bounds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def failures(self) -> Iterator[str]:
        """What of ours has no figure, and should."""
        for row in self.rows:
            if row.library == OURS:
                yield from (
                    f"{self.name}, {row.name}, {column}: {cell.problem}"
                    for column, cell in row.cells.items()
                    if cell.problem
                )

    def over(self) -> Iterator[str]:
        """Ratios of ours beyond their bounds."""
        for row in self.rows:
            for column, bound in self.bounds.get(row.name, {}).items():
                ratio = row.cells[column].ratio
                if ratio is not None and ratio > bound:
                    yield f"{self.name}, {row.name}, {column}: {ratio:.2f}x, bound {bound}"

    def svg(self, caption: Sequence[str]) -> str:
        """The drawing: a panel for each column that is to be drawn."""
        panels = [
            Panel(
                column.heading,
                f"times {column.reference}, logarithmic",
                [bar(row, row.cells[name], column) for row in self.rows if name in row.cells],
            )
            for name, column in self.columns.items()
            if column.drawn
        ]
        return draw(self.title, panels, caption)


def bar(row: Row, cell: Cell, column: Column) -> Bar:
    kind = "ours" if row.library == OURS else "reference" if row.reference else ""
    value = f"{amount(cell.value)} {column.unit}" if cell.value is not None and column.unit else ""
    return Bar(row.name, cell.ratio, times(cell.ratio), kind, "*" if cell.problem and cell.ratio else "", value)
