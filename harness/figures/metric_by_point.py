"""The leading metric point by point, beside its differences to the baseline.

For sweeps whose points are no few lines over a numeric axis: names, or several axes at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from harness.figures import marks, style
from harness.figures.base import (
    SWEEP,
    Drawing,
    Sheet,
    by_words,
    metric_data,
    metric_words,
    point_words,
)
from harness.figures.heat_map import grid_of
from harness.figures.metric_vs_axis import difference_words, reading, series_of
from harness.results.collect import PointRow

#: Rows past which only those with the best means are drawn.
_MOST = 40
#: Inches of a row, and of what stands around all rows.
_ROW, _DENSE, _AROUND = 0.22, 0.17, 0.6
#: Rows up to which each difference has its number.
_NUMBERED = 20
_LETTERS = 34


@SWEEP.register("metric_by_point", place=30)
def metric_by_point(sheet: Sheet) -> Drawing | None:
    """A row a point; None where lines or a heat map show the same."""
    collection, metric = sheet.collection, sheet.lead
    if metric is None or series_of(collection) or grid_of(collection) is not None:
        return None
    rows = _best(sheet, metric)
    compared = sheet.compared(metric)
    names = [point_words(collection, row) for row in rows]
    figure = style.figure_of(_AROUND + (_ROW if len(rows) <= _NUMBERED else _DENSE) * len(rows))
    axes = list(figure.subplots(1, 1 + bool(compared), squeeze=False, sharey=True).ravel())
    _values(axes[0], sheet, metric, rows)
    if compared:
        _differences(axes[1], sheet, metric, rows)
    marks.down(axes[0], names)
    marks.head_of_rows(axes[0], by_words(collection, max(24, *map(len, names))))
    for ax in axes[1:]:
        marks.down(ax, names)
        ax.tick_params(labelleft=False)
    style.finish(axes)
    words = f"{metric_words(metric)} by point. {reading(sheet, metric)}"
    words += " Square: the baseline." if compared else ""
    if len(rows) < len(collection.points):
        words += f" The {len(rows)} of {len(collection.points)} points with the best means."
    return Drawing(words, figure, metric_data(sheet))


def _best(sheet: Sheet, metric: str) -> list[PointRow]:
    """The points with the best means, and their baselines, in the order of the sweep."""
    kept = sorted(sheet.collection.points, key=lambda row: -sheet.cells[(row.index, metric)].merit)
    return sorted(kept[:_MOST], key=lambda row: row.index)


def _values(ax: Axes, sheet: Sheet, metric: str, rows: Sequence[PointRow]) -> None:
    baselines = {row.baseline for row in sheet.collection.points} - {None}
    colour = style.colours(1, ordered=False)[0]
    cells = [sheet.cells[(row.index, metric)] for row in rows]
    for at, cell in enumerate(cells):
        values = [value * marks.unit_of(cell) for value in cell.values.values()]
        ax.scatter(values, [at] * len(values), s=9, color=[colour], alpha=0.5, linewidths=0)
        if cell.estimate is not None:
            mean = cell.estimate.mean * marks.unit_of(cell)
            look: dict[str, Any] = {"color": colour, "mec": "white", "mew": 0.5}
            ax.plot([mean], [at], "s" if cell.point in baselines else "o", zorder=3, **look)
    ax.set_title(style.shorten(metric_words(metric), _LETTERS))
    marks.chance_line(ax, cells, metric, across=False)


def _differences(ax: Axes, sheet: Sheet, metric: str, rows: Sequence[PointRow]) -> None:
    marks.zero(ax, sheet.margin, metric)
    made = sheet.compared(metric)
    for at, row in enumerate(rows):
        if row.index in made:
            marks.draw_difference(ax, at, made[row.index], number=len(rows) <= _NUMBERED)
    ax.set_title(difference_words(sheet.collection))
