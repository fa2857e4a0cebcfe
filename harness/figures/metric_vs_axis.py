"""The leading metric against a numeric axis, beside its differences to the baseline.

Values and seeds stand on the left; what a verdict rests on, the differences with the intervals of
the test itself, on the right, so that bars and verdicts agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.axes import Axes

from harness.document import text
from harness.figures import marks, style
from harness.figures.base import (
    SWEEP,
    Drawing,
    Scale,
    Sheet,
    axis_words,
    has_ordered_axis,
    is_one_axis,
    legend_words,
    metric_data,
    metric_words,
    scale_of,
)
from harness.figures.names import Name, name_line_ends
from harness.results.collect import Collection, PointRow
from harness.results.contrast import contrast_of
from harness.results.summary import Cell

#: Lines that a panel can hold; a sweep of more is a heat map, or a row a point.
MOST_LINES = 5
#: Differences of one line up to which each has its number.
_NUMBERED = 8
#: Share of the axis by which lines of neighbouring hues stand apart, so that intervals can be read.
_DODGE = 0.015
#: Letters of a title over half the figure.
_LETTERS = 34


@dataclass(frozen=True)
class Series:
    """Points in one colour, joined by a line in the order of the axis."""

    name: str
    rows: tuple[PointRow, ...]
    colour: str
    marker: str
    shift: float
    """Share of the axis by which it stands aside."""


def series_of(collection: Collection) -> list[Series]:
    """One a value of the hue; none where the sweep is no set of a few lines over numbers."""
    show = collection.sweep.show
    if not is_one_axis(collection) or not has_ordered_axis(collection):
        return []
    grouped: dict[str, list[PointRow]] = {}
    for row in collection.points:
        name = "" if show.hue is None else text.plain(row.axes[show.hue])
        grouped.setdefault(name, []).append(row)
    if len(grouped) > MOST_LINES:
        return []
    palette = style.colours(len(grouped), ordered=False)
    return [
        Series(
            name,
            tuple(sorted(rows, key=lambda row: row.axes[show.x])),
            palette[number],
            style.MARKERS[number],
            _DODGE * (number - (len(grouped) - 1) / 2),
        )
        for number, (name, rows) in enumerate(grouped.items())
    ]


@SWEEP.register("metric_vs_axis", place=10)
def metric_vs_axis(sheet: Sheet) -> Drawing | None:
    """None unless the points are a few lines over a numeric axis."""
    collection, metric = sheet.collection, sheet.lead
    series = series_of(collection)
    if metric is None or not series:
        return None
    compared = sheet.compared(metric)
    figure = style.figure_of(2.3, wide=bool(compared) or len(series) > 1)
    axes = list(figure.subplots(1, 1 + bool(compared), squeeze=False).ravel())
    show = collection.sweep.show
    scale = scale_of([row.axes[show.x] for row in collection.points])
    _values(axes[0], sheet, metric, series, scale)
    if compared:
        _differences(axes[1], sheet, metric, series, scale)
    for ax in axes:
        scale.apply(ax)
    figure.supxlabel(axis_words(collection, show.x), fontsize=style.LETTERS)
    style.finish(axes)
    _name_lines(axes[0], collection, sheet, metric, series)
    return Drawing(_words(sheet, metric), figure, metric_data(sheet))


def _words(sheet: Sheet, metric: str) -> str:
    axis = sheet.collection.axis_name(sheet.collection.sweep.show.x)
    return f"{metric_words(metric)} against {axis}. {reading(sheet, metric)}"


def reading(sheet: Sheet, metric: str) -> str:
    """How to read values of seeds beside differences."""
    collection = sheet.collection
    compared = sheet.compared(metric)
    if all(len(row.seeds) == 1 for row in collection.points):
        left = "One seed a point, so no interval over seeds can be given"
    else:
        left = "Mean over seeds (faint dots); a point that lacks a seed has no mean"
    if not compared:
        return f"{left}."
    over = marks.about_intervals(compared.values())
    words = f"{left}; right: difference to the baseline in points, {over}. {marks.FILLED}"
    if sheet.margin:
        words += f" Shaded: losses within the margin of {sheet.margin:g}."
    return words


# --------------------------------------------------------------------------- the two panels


def _values(ax: Axes, sheet: Sheet, metric: str, series: Sequence[Series], scale: Scale) -> None:
    x = sheet.collection.sweep.show.x
    drawn: list[Cell] = []
    for line in series:
        cells = [sheet.cells[(row.index, metric)] for row in line.rows]
        places = [scale.at(row.axes[x], line.shift) for row in line.rows]
        _seeds(ax, places, cells, line)
        means = [c.estimate.mean * marks.unit_of(c) if c.estimate else math.nan for c in cells]
        look: dict[str, Any] = {"color": line.colour, "mec": "white", "mew": 0.5}
        ax.plot(places, means, marker=line.marker, zorder=3, **look)
        drawn += cells
    ax.set_title(style.shorten(metric_words(metric), _LETTERS))
    marks.chance_line(ax, drawn, metric)


def _seeds(ax: Axes, places: Sequence[float], cells: Sequence[Cell], line: Series) -> None:
    dots = [
        (at, value * marks.unit_of(cell))
        for at, cell in zip(places, cells, strict=True)
        for value in cell.values.values()
    ]
    if dots:
        xs, ys = zip(*dots, strict=True)
        ax.scatter(xs, ys, s=9, color=[line.colour], alpha=0.5, linewidths=0)


def _differences(
    ax: Axes, sheet: Sheet, metric: str, series: Sequence[Series], scale: Scale
) -> None:
    collection = sheet.collection
    x = collection.sweep.show.x
    marks.zero(ax, sheet.margin, metric, upright=True)
    made = sheet.compared(metric)
    held = [line for line in series if any(row.index in made for row in line.rows)]
    number = len(held) == 1 and len(made) <= _NUMBERED
    for line in held:
        draw = partial(marks.draw_difference, upright=True, marker=line.marker, number=number)
        for row in line.rows:
            if row.index in made:
                at = scale.at(row.axes[x], line.shift if len(held) > 1 else 0.0)
                colour = None if len(held) == 1 else line.colour
                draw(ax, at, made[row.index], colour=colour)
    ax.set_title(difference_words(collection))
    ends = [scale.at(value) for value in scale.values]
    ax.plot([ends[0], ends[-1]], [0, 0], linestyle="none")  # both panels have the same axis


def difference_words(collection: Collection) -> str:
    """`difference to text layers 12`, or to the baseline: where that is long, or one of several."""
    points = collection.points
    olds = {
        contrast_of(collection, row, points[row.baseline]).old
        for row in points
        if row.baseline is not None and row.baseline != row.index
    }
    said = f"difference to {olds.pop()}" if len(olds) == 1 else ""
    return said if 0 < len(said) <= _LETTERS else "difference to the baseline"


def _name_lines(
    ax: Axes, collection: Collection, sheet: Sheet, metric: str, series: Sequence[Series]
) -> None:
    hue = collection.sweep.show.hue
    if len(series) < 2 or hue is None:
        return
    names = []
    for line in series:
        cells = [sheet.cells[(row.index, metric)] for row in line.rows]
        ends = [c.estimate.mean * marks.unit_of(c) for c in cells if c.estimate is not None]
        if ends:
            said = f"{axis_words(collection, hue, 20)} {legend_words(line.name)}"
            names.append(Name(said, 1.0, ends[-1], line.colour))
    name_line_ends(ax, names)
