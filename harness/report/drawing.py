"""What every figure is made of: the drawing, places along an axis, costs, the data beside it.

Owns no figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from harness import metrics
from harness.config import canonical_json
from harness.document import blocks, text
from harness.document.escaping import csv_text
from harness.report import style
from harness.report.collect import Collection, PointRow
from harness.report.summary import Cells

HEADLINE = 2
#: Letters of an axis' name, of a point's, a value's and a line's in a legend that a figure has room
#: for; tables and CSV have them in full.
_AXIS, _POINT, _VALUE, _LEGEND = 44, 56, 24, 44


@dataclass(frozen=True)
class Drawing:
    """A figure, its file name without an ending, what it shows in words, and its data as CSV."""

    name: str
    words: str
    figure: Figure
    data: str

    def rendered(self) -> blocks.Figure:
        """The figure in a page, within the settings of `style.house()`."""
        svg = style.svg(self.figure)  # first, as it settles the layout
        files = {"svg": svg, "png": style.png(self.figure), "csv": self.data.encode()}
        wide = bool(self.figure.get_figwidth() > style.COLUMN + 0.5)
        return blocks.Figure(self.name, self.words, files, wide)


def axis_words(collection: Collection, axis: str, letters: int = _AXIS) -> str:
    """What a figure calls an axis."""
    return text.shorten(collection.axis_name(axis), letters)


def point_words(row: PointRow) -> str:
    """What a figure calls a point."""
    return text.shorten(row.label, _POINT)


def legend_words(name: str) -> str:
    """What a legend calls a line of this name."""
    return text.shorten(name, _LEGEND)


def value_words(value: Any) -> str:
    """What a figure calls a value of an axis."""
    return text.shorten(text.plain(value), _VALUE)


# --------------------------------------------------------------------------- where on the x axis


@dataclass(frozen=True)
class Scale:
    """Positions of the values of an axis, and how its ticks are written."""

    kind: str
    """`linear`, `log2` or `categorical`."""
    values: tuple[Any, ...]

    def at(self, value: Any, shift: float = 0.0) -> float:
        """The position of `value`, moved by `shift`, a share of the axis' length."""
        if self.kind == "categorical":
            return self._places.index(canonical_json(value)) + shift * len(self.values)
        if self.kind == "log2":
            return float(value * (self.values[-1] / self.values[0]) ** shift)
        return float(value + shift * (self.values[-1] - self.values[0]))

    @property
    def _places(self) -> list[str]:
        return [canonical_json(value) for value in self.values]

    def apply(self, ax: Axes) -> None:
        """Put ticks at the values, and nowhere else."""
        positions = [self.at(value) for value in self.values]
        if self.kind == "log2":
            ax.set_xscale("log", base=2)
        ax.xaxis.set_major_locator(FixedLocator(positions))
        ax.xaxis.set_minor_locator(NullLocator())
        names = [value_words(value) for value in self.values]
        crowded = sum(map(len, names)) > 26
        ax.set_xticks(
            positions,
            names,
            rotation=30 if crowded else 0,
            ha="right" if crowded else "center",
            rotation_mode="anchor",
        )
        if self.kind == "categorical":
            ax.set_xlim(-0.5, len(self.values) - 0.5)
        else:
            ax.margins(x=0.08)


def scale_of(values: Sequence[Any]) -> Scale:
    """Numbers stand where they belong, on whichever of linear and log2 keeps them further apart."""
    unique = list({canonical_json(value): value for value in values}.values())
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in unique):
        return Scale("categorical", tuple(unique))
    ordered = tuple(sorted(unique))
    if len(ordered) < 3 or ordered[0] <= 0:
        return Scale("linear", ordered)
    log = _least_gap([math.log2(value) for value in ordered])
    return Scale("log2" if log > 1.05 * _least_gap(ordered) else "linear", ordered)


def _least_gap(ordered: Sequence[float]) -> float:
    gaps = [b - a for a, b in pairwise(ordered)]
    return min(gaps) / (ordered[-1] - ordered[0])


def is_one_axis(collection: Collection) -> bool:
    """Whether the points differ in the shown axis, and in the hue, alone."""
    show = collection.sweep.show
    places = [
        canonical_json([r.axes[show.x], r.axes.get(show.hue or "")]) for r in collection.points
    ]
    others = [axis for axis in collection.axes if axis not in {show.x, show.hue}]
    held = {canonical_json([row.axes[axis] for axis in others]) for row in collection.points}
    return len(held) == 1 and len(set(places)) == len(places)


def costs_of(collection: Collection, cells: Cells, cost: str) -> dict[int, float]:
    """Point -> its cost, of the points with a finished seed."""
    found = {row.index: cells.get((row.index, cost)) for row in collection.points}
    return {p: next(iter(c.values.values())) for p, c in found.items() if c and c.values}


def has_ordered_axis(collection: Collection) -> bool:
    """Whether the values of the shown axis are numbers."""
    x = collection.sweep.show.x
    return scale_of([row.axes[x] for row in collection.points]).kind != "categorical"


def headline(collection: Collection) -> list[str]:
    """The first shown metrics of quality: for figures that have no room for all."""
    return [name for name in collection.shown if not metrics.is_cost(name)][:HEADLINE]


# --------------------------------------------------------------------------- data beside a figure


def metric_data(collection: Collection, cells: Cells, *costs: str) -> str:
    """Every mark of the figure: a row a seed, and a row `mean` with its interval."""
    heads = ["label", *collection.axes, *costs, "metric", "seed", "value", "low", "high", "chance"]
    known = {cost: costs_of(collection, cells, cost) for cost in costs}
    rows: list[list[object]] = []
    for metric in collection.shown:
        for row in collection.points:
            cell = cells[(row.index, metric)]
            place: list[object] = [row.label, *[row.axes[axis] for axis in collection.axes]]
            place += [*[known[cost].get(row.index) for cost in costs], metric]
            rows += [[*place, s, v, None, None, cell.chance] for s, v in cell.values.items()]
            if cell.estimate is not None:
                mean, low, high = cell.estimate.mean, cell.estimate.low, cell.estimate.high
                rows.append([*place, "mean", mean, low, high, cell.chance])
    return csv_text(heads, rows)
