"""Each metric point by point, for sweeps whose points differ in several axes."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness import metrics
from harness.figures import style
from harness.figures.base import SWEEP, Drawing, Sheet, is_one_axis, metric_data, point_words
from harness.figures.heat_map import grid_of
from harness.figures.metric_panels import chance_line, reading, unit_of
from harness.results.summary import Cell

_ON_A_LINE = 4
"""Panels side by side whose metrics and units are short enough for one line each."""


@SWEEP.register("metric_by_point", place=30)
def metric_by_point(sheet: Sheet) -> Drawing | None:
    """A row a point, a panel a metric, for sweeps whose points differ in several axes."""
    collection, cells = sheet.collection, sheet.cells
    if not sheet.has_values or is_one_axis(collection) or grid_of(collection) is not None:
        return None
    rows = collection.points
    height = 0.55 + 0.19 * len(rows)
    count = len(collection.shown)
    names = [point_words(row) for row in rows]
    longest = max(map(len, names))
    width = style.PAGE if count > 1 or longest > 24 else style.COLUMN
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False, sharey=True).ravel())
    marked = {row.baseline for row in rows} - {None}
    for ax, metric in zip(axes, collection.shown, strict=True):
        column = [cells[(row.index, metric)] for row in rows]
        for at, cell in enumerate(column):
            _draw_row(ax, at, cell, marked=cell.point in marked)
        if len(marked) == 1:
            base = column[next(p for p in marked if p is not None)].estimate
            if base is not None:
                mean = base.mean * metrics.scale(metric)
                ax.axvline(mean, color=style.FAINT, linewidth=0.8, linestyle="--", zorder=1)
        between = "\n" if count > _ON_A_LINE else " "
        ax.set_xlabel(
            f"{metrics.display(metric)}{between}({metrics.unit(metric)})",
            fontsize=8 if count <= _ON_A_LINE else 6.5,
        )
        ax.xaxis.set_major_locator(MaxNLocator(5 if count <= _ON_A_LINE else 3))
        ax.grid(visible=True, axis="x")
        chance_line(ax, column, metric, across=False)
    axes[0].set_yticks(range(len(rows)), names)
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    style.finish(axes)
    words = f"Each metric by point. {reading(collection)} Dashed line and square: the baseline."
    return Drawing(words, figure, metric_data(sheet))


def _draw_row(ax: Axes, at: int, cell: Cell, *, marked: bool) -> None:
    colour = style.colours(2, ordered=False)[1 if marked else 0]
    unit = unit_of(cell)
    values = [value * unit for value in cell.values.values()]
    ax.scatter(values, [at] * len(values), s=9, color=[colour], alpha=0.35, linewidths=0)
    if cell.estimate is None:
        return
    half = cell.estimate.half_width
    ax.errorbar(
        cell.estimate.mean * unit,
        at,
        xerr=None if half is None else half * unit,
        fmt="s" if marked else "o",
        color=colour,
        markeredgecolor="white",
        markeredgewidth=0.5,
        elinewidth=1.0,
        capsize=2.0,
        zorder=3,
    )
